//! Where a file's bytes are cut into chunks, so that equal stretches of different files become equal chunks.

pub mod gear;
pub mod rabin;

use crate::repository::chunk::gear::Gear;
use crate::repository::chunk::rabin::Rabin;

/// Bytes of one chunk of a hole, whatever the way of cutting: as long as the longest chunk that other writers make, so that a file of
/// terabytes with little in it is few chunks, and all readers are ready for it.
pub const HOLE: usize = 8 << 20;

/// One of the two ways of cutting. Plain arithmetic over bytes handed in; cheap to clone.
#[derive(Clone)]
pub enum Chunker {
    Gear(Gear),
    Rabin(Rabin),
}

impl Chunker {
    /// `buffer` holds the current chunk from its start; the first `scanned` bytes were looked at in earlier calls (0 at first). Returns
    /// the chunk's length where a cut was found; else `None`, with `scanned` moved on: call again with more bytes. A cut is always found
    /// in [`Chunker::max`] bytes. What is left at the end of a file is its last chunk.
    pub fn find_cut(&self, buffer: &[u8], scanned: &mut usize) -> Option<usize> {
        match self {
            Chunker::Gear(gear) => gear.find_cut(buffer, scanned),
            Chunker::Rabin(rabin) => rabin.find_cut(buffer, scanned),
        }
    }

    /// No chunk but a file's last is shorter: a file of at most this many bytes is one chunk.
    pub fn min(&self) -> usize {
        match self {
            Chunker::Gear(gear) => gear.min(),
            Chunker::Rabin(rabin) => rabin.min(),
        }
    }

    /// No chunk is longer.
    pub fn max(&self) -> usize {
        match self {
            Chunker::Gear(gear) => gear.max(),
            Chunker::Rabin(rabin) => rabin.max(),
        }
    }
}
