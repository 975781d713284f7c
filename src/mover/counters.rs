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

/// Takes back what was added to one of the sums.
pub fn take_back(counter: &AtomicU64, by: u64) {
    counter.fetch_sub(by, Ordering::Relaxed);
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
            peak_bytes: peak().unwrap_or(0),
        }
    }
}

/// The most memory that this process has had resident, as the kernel counts it; see proc(5).
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_much_memory_was_had() {
        assert!(Counters::default().progress().peak_bytes > 1 << 20);
    }
}
