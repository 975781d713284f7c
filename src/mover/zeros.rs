//! Which chunks are nothing but zeros: known by their ids, without reading any.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::id::Id;
use crate::repository::hash::Pieces;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The ids of chunks of zeros by their lengths, each made once.
#[derive(Debug, Default)]
pub struct ZeroChunks(Mutex<HashMap<u64, Id>>);

impl ZeroChunks {
    /// The id of a chunk of so many zeros.
    pub fn id(&self, length: u64) -> Id {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known().get(&length) {
            return *id;
        }
        let mut pieces = Pieces::default();
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            pieces.add(&ZEROS[..piece]);
            left -= piece as u64;
        }
        let id = pieces.finish();
        let mut known = known();
        // Files have few lengths of such chunks; a hostile repository may have many.
        if known.len() < 4096 {
            known.insert(length, id);
        }
        id
    }

    /// Whether the chunk is all zeros, of which the index says that it has `plain` bytes and takes `stored`. Does not find out where it is
    /// not likely: zeros shrink a thousandfold.
    pub fn is(&self, id: &Id, plain: u64, stored: u64) -> bool {
        const LEAST: u64 = 64 << 10;
        plain >= LEAST && stored < plain / 500 && self.id(plain) == *id
    }
}
