//! SHA-256, two messages at a time where the processor can.
//!
//! The SHA instructions of x86-64 wait on their own results most of the time: two independent messages interleaved take little longer
//! than one. Where those instructions are missing, `sha2` does both, one after the other.

#[cfg(target_arch = "x86_64")]
mod lanes;

use sha2::{Digest, Sha256};

use crate::model::id::Id;

const BLOCK: usize = 64;
const START: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 of the bytes: a blob's name, or an object's.
pub fn id_of(bytes: &[u8]) -> Id {
    Id(Sha256::digest(bytes).into())
}

/// The hash of bytes that come in pieces of any length.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Sha256);

impl Pieces {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The same as [`id_of`] all pieces in a row.
    pub fn finish(self) -> Id {
        Id(self.0.finalize().into())
    }
}

/// A message whose hash grows piece by piece, whole blocks at a time.
#[derive(Clone, Debug)]
pub struct Message {
    state: [u32; 8],
    /// Bytes taken in: a multiple of the block.
    taken: usize,
}

impl Default for Message {
    fn default() -> Self {
        Message { state: START, taken: 0 }
    }
}

impl Message {
    /// Bytes of the message that have been taken in.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The hash of `bytes`, of which the first [`Message::taken`] were taken in before.
    pub fn finish(mut self, bytes: &[u8]) -> Id {
        let rest = &bytes[self.taken..];
        let whole = rest.len() - rest.len() % BLOCK;
        compress(&mut self.state, &rest[..whole]);
        let mut tail = [0u8; 2 * BLOCK];
        let left = &rest[whole..];
        tail[..left.len()].copy_from_slice(left);
        tail[left.len()] = 0x80;
        let end = if left.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        tail[end - 8..end].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
        compress(&mut self.state, &tail[..end]);
        let mut id = [0u8; 32];
        for (part, word) in id.chunks_exact_mut(4).zip(self.state) {
            part.copy_from_slice(&word.to_be_bytes());
        }
        Id(id)
    }
}

/// The hash of `bytes`, while `other`, of which `more` are the bytes, takes in as many whole blocks as that allows at next to no cost.
pub fn id_beside(bytes: &[u8], other: &mut Message, more: &[u8]) -> Id {
    let whole = |length: usize| length - length % BLOCK;
    let common = whole(bytes.len()).min(whole(more.len() - other.taken));
    let mut message = Message::default();
    if compress_both(&mut message.state, &bytes[..common], &mut other.state, &more[other.taken..other.taken + common]) {
        message.taken = common;
        other.taken += common;
    }
    message.finish(bytes)
}

#[cfg(target_arch = "x86_64")]
fn compress_both(a: &mut [u32; 8], a_blocks: &[u8], b: &mut [u32; 8], b_blocks: &[u8]) -> bool {
    lanes::compress_both(a, a_blocks, b, b_blocks)
}

#[cfg(not(target_arch = "x86_64"))]
fn compress_both(_: &mut [u32; 8], _: &[u8], _: &mut [u32; 8], _: &[u8]) -> bool {
    false
}

fn compress(state: &mut [u32; 8], blocks: &[u8]) {
    let (blocks, _) = blocks.as_chunks::<BLOCK>();
    sha2::block_api::compress256(state, blocks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
    }

    proptest! {
        #[test]
        fn hashes_side_by_side_are_those_of_each_alone(a in 0usize..700, b in 0usize..3000, c in 0usize..700) {
            let (a, b, c) = (noise(1, a), noise(2, b), noise(3, c));
            let mut beside = Message::default();
            prop_assert_eq!(id_beside(&a, &mut beside, &b), id_of(&a));
            prop_assert!(beside.taken() <= a.len().min(b.len()));
            prop_assert_eq!(id_beside(&c, &mut beside, &b), id_of(&c));
            prop_assert_eq!(beside.finish(&b), id_of(&b));
            let mut pieces = Pieces::default();
            b.chunks(100).for_each(|piece| pieces.add(piece));
            prop_assert_eq!(pieces.finish(), id_of(&b));
        }
    }

    #[test]
    fn the_lengths_round_a_block_are_padded_right() {
        for length in 0..300 {
            let bytes = noise(7, length);
            assert_eq!(Message::default().finish(&bytes), id_of(&bytes), "{length}");
        }
    }
}
