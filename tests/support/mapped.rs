//! Writes through a mapping: the one way to change a file's bytes that need not move its times.
#![allow(unsafe_code, reason = "there is no safe way to map a file; the test owns it, and nobody shortens it meanwhile")]

use std::fs::OpenOptions;
use std::path::Path;

/// A file in memory. Its times move with the first write to a page; later writes to the same page go unnoticed until it is written
/// back, which a filesystem of memory never does.
pub struct Mapped(memmap2::MmapMut);

impl Mapped {
    pub fn new(path: &Path) -> Mapped {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        // SAFETY: the file is the test's own and keeps its length as long as it is mapped.
        Mapped(unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap())
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
