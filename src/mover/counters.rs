//! How far a mover is: counted by many threads, read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::mover_job::Progress;

/// Sums of one mover. Relaxed: nothing is decided by them.
#[derive(Debug, Default)]
pub struct Counters {
    pub files: AtomicU64,
    pub dirs: AtomicU64,
    pub bytes: AtomicU64,
    pub moved_bytes: AtomicU64,
    pub new_bytes: AtomicU64,
    pub stored_bytes: AtomicU64,
}

/// Adds to one of the sums.
pub fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    /// The sums now.
    pub fn progress(&self) -> Progress {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            files: now(&self.files),
            dirs: now(&self.dirs),
            bytes: now(&self.bytes),
            moved_bytes: now(&self.moved_bytes),
            new_bytes: now(&self.new_bytes),
            stored_bytes: now(&self.stored_bytes),
        }
    }
}
