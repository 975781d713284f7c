//! What does this store lack, and how is it done without?
//!
//! Servers that speak S3 are not all alike. What one of them has answered that it cannot do is remembered, so that it is asked once.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder};

/// What a store has been found to lack. The default is a store that lacks nothing, or is not known yet.
#[derive(Default)]
pub(super) struct Quirks {
    overwrites: AtomicBool,
    deletes_singly: AtomicBool,
    /// How a store is made that deletes one object per request; only S3 has two ways.
    maker: Option<AmazonS3Builder>,
    singly: OnceLock<Option<AmazonS3>>,
}

impl Quirks {
    /// Of a store of S3, which is made again by `maker` where it has no bulk delete.
    pub(super) fn of_s3(maker: AmazonS3Builder) -> Self {
        Quirks { maker: Some(maker.with_disable_bulk_delete(true)), ..Quirks::default() }
    }

    /// Whether the store has no create-only put.
    pub(super) fn overwrites(&self) -> bool {
        self.overwrites.load(Ordering::Relaxed)
    }

    pub(super) fn note_overwrites(&self, location: &str) {
        if !self.overwrites.swap(true, Ordering::Relaxed) {
            tracing::warn!(location, "this store has no create-only put: each name is looked up before it is put");
        }
    }

    /// The store that deletes one object per request.
    pub(super) fn singly(&self) -> Option<&dyn ObjectStore> {
        // It was built once already, with the same settings.
        let singly = self.singly.get_or_init(|| self.maker.clone()?.build().ok());
        singly.as_ref().map(|store| store as &dyn ObjectStore)
    }

    /// The same, where the store has been found to have no bulk delete.
    pub(super) fn deletes_singly(&self) -> Option<&dyn ObjectStore> {
        if self.deletes_singly.load(Ordering::Relaxed) { self.singly() } else { None }
    }

    pub(super) fn note_singly(&self, location: &str) {
        if !self.deletes_singly.swap(true, Ordering::Relaxed) {
            tracing::info!(location, "this store has no bulk delete: objects are deleted one by one");
        }
    }
}

/// The maker knows the keys, which no message may show.
impl fmt::Debug for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quirks").field("overwrites", &self.overwrites).field("deletes_singly", &self.deletes_singly).finish_non_exhaustive()
    }
}
