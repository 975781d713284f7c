//! Two SHA-256 compressions interleaved, by the SHA instructions of x86-64 (FIPS 180-4; Intel, "SHA Extensions", 2013).
//!
//! This is the one room with `unsafe` in it. The argument: the two functions that use the instructions are reached only through
//! [`compress_both`], which asks the processor for each of the features that they are compiled for; loads and stores are unaligned ones
//! and go to references of exactly 16 bytes, so that they cannot leave what is borrowed. Where a feature is missing nothing is done and
//! `false` tells the caller to go the safe way.
#![allow(unsafe_code, reason = "the argument stands above")]
#![allow(clippy::cast_possible_wrap, reason = "the constants are bit patterns")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

const BLOCK: usize = 64;

static K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Compresses the whole blocks of `a_blocks` and `b_blocks`, which must be equally long, into `a` and `b`. `false`: the processor cannot,
/// and nothing was done.
pub fn compress_both(a: &mut [u32; 8], a_blocks: &[u8], b: &mut [u32; 8], b_blocks: &[u8]) -> bool {
    let can = is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
    if can {
        // SAFETY: every feature that the function is compiled for was found just now.
        unsafe { interleaved(a, a_blocks, b, b_blocks) };
    }
    can
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn interleaved(a: &mut [u32; 8], a_blocks: &[u8], b: &mut [u32; 8], b_blocks: &[u8]) {
    debug_assert_eq!(a_blocks.len(), b_blocks.len());
    let (mut x, mut y) = (Lane::load(a), Lane::load(b));
    let ((a_blocks, _), (b_blocks, _)) = (a_blocks.as_chunks::<BLOCK>(), b_blocks.as_chunks::<BLOCK>());
    for (a_block, b_block) in a_blocks.iter().zip(b_blocks) {
        let (x_before, y_before) = (x, y);
        let (mut v, mut w) = (words(a_block), words(b_block));
        for (i, k) in K.iter().enumerate() {
            let k = load(k);
            if i >= 4 {
                v = schedule(v);
                w = schedule(w);
            }
            // Before the schedule runs, the words of the block come one after the other.
            let at = if i < 4 { i } else { 3 };
            x = x.rounds(_mm_add_epi32(v[at], k));
            y = y.rounds(_mm_add_epi32(w[at], k));
        }
        x = x.plus(x_before);
        y = y.plus(y_before);
    }
    x.store(a);
    y.store(b);
}

/// A state as the instructions want it: words A, B, E, F and C, D, G, H.
#[derive(Clone, Copy)]
struct Lane {
    abef: __m128i,
    cdgh: __m128i,
}

impl Lane {
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load(state: &[u32; 8]) -> Self {
        let (halves, _) = state.as_chunks::<4>();
        let dcba = _mm_shuffle_epi32(load(&halves[0]), 0xb1);
        let efgh = _mm_shuffle_epi32(load(&halves[1]), 0x1b);
        Lane { abef: _mm_alignr_epi8(dcba, efgh, 8), cdgh: _mm_blend_epi16(efgh, dcba, 0xf0) }
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn store(self, state: &mut [u32; 8]) {
        let feba = _mm_shuffle_epi32(self.abef, 0x1b);
        let dchg = _mm_shuffle_epi32(self.cdgh, 0xb1);
        let (halves, _) = state.as_chunks_mut::<4>();
        store(&mut halves[0], _mm_blend_epi16(feba, dchg, 0xf0));
        store(&mut halves[1], _mm_alignr_epi8(dchg, feba, 8));
    }

    /// Four rounds with the four words, constants added.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn rounds(self, words: __m128i) -> Self {
        let cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, words);
        let abef = _mm_sha256rnds2_epu32(self.abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
        Lane { abef, cdgh }
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn plus(self, other: Self) -> Self {
        Lane { abef: _mm_add_epi32(self.abef, other.abef), cdgh: _mm_add_epi32(self.cdgh, other.cdgh) }
    }
}

/// A block's sixteen words.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn words(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (quarters, _) = block.as_chunks::<16>();
    [0, 1, 2, 3].map(|i| {
        // SAFETY: the reference is to exactly the 16 bytes that are read, and the load needs no alignment.
        let quarter = unsafe { _mm_loadu_si128(std::ptr::from_ref(&quarters[i]).cast()) };
        _mm_shuffle_epi8(quarter, big_endian)
    })
}

/// The last sixteen words of the schedule, moved on by four.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn schedule(w: [__m128i; 4]) -> [__m128i; 4] {
    let with_s0 = _mm_sha256msg1_epu32(w[0], w[1]);
    let with_middle = _mm_add_epi32(with_s0, _mm_alignr_epi8(w[3], w[2], 4));
    [w[1], w[2], w[3], _mm_sha256msg2_epu32(with_middle, w[3])]
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load(words: &[u32; 4]) -> __m128i {
    // SAFETY: as above: 16 bytes that are borrowed, no alignment needed.
    unsafe { _mm_loadu_si128(std::ptr::from_ref(words).cast()) }
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn store(words: &mut [u32; 4], value: __m128i) {
    // SAFETY: 16 bytes that are borrowed for writing, no alignment needed.
    unsafe { _mm_storeu_si128(std::ptr::from_mut(words).cast(), value) }
}
