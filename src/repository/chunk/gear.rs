//! Keyed gear chunking: how repositories that keepset made cut their files.
//!
//! A gear hash rolls as `h = (h << 1) + G[byte]` in 64 bits, so it depends on the last 64 bytes alone and on nothing before them. A cut
//! stands after the first byte, from `min` on, where `h` is below a threshold: a strict one up to `normal`, a looser one after it
//! (normalised chunking, as in Xia et al., "FastCDC", USENIX ATC 2016). Since the hash is local to its window, stretches of a buffer are
//! scanned in four lanes at once, which a single dependent chain of additions does not allow. The table `G` is made from the
//! repository's secret seed, so that chunk lengths tell less about known files.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::repository::config::ChunkerConfig;

const WINDOW: usize = 64;
const LANES: usize = 4;
/// Bytes of a lane in one go: long against the window that each lane warms up on, short against a chunk.
const STRETCH: usize = 8192;
/// How many bits the thresholds lie to either side of one cut in `normal` bytes.
const LEVEL: u32 = 2;

/// The gear chunker of one repository.
#[derive(Clone)]
pub struct Gear {
    table: Arc<[u64; 256]>,
    min: usize,
    normal: usize,
    max: usize,
    strict: u64,
    loose: u64,
}

impl Gear {
    /// With the parameters that the repository's `config` holds; `Err` tells which of them is out of bounds.
    pub fn from_config(config: &ChunkerConfig) -> Result<Self, String> {
        if config.kind != "gear-1" {
            return Err(format!("its kind is `{}`", config.kind.chars().take(40).collect::<String>()));
        }
        let seed = data_encoding::HEXLOWER
            .decode(config.seed.as_bytes())
            .ok()
            .filter(|seed| seed.len() == 32)
            .ok_or("its seed is not 64 hex digits")?;
        let (min, normal, max) = (config.min as usize, config.normal as usize, config.max as usize);
        if !(4096..=64 << 20).contains(&min) || min >= normal || normal >= max || max > 64 << 20 {
            return Err(format!("its sizes are {min}, {normal}, {max}"));
        }
        let mut table = [0u64; 256];
        for (byte, slot) in table.iter_mut().enumerate() {
            let digest = Sha256::new().chain_update(&seed).chain_update([u8::try_from(byte).expect("below 256")]).finalize();
            *slot = u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"));
        }
        let bits = normal.ilog2();
        Ok(Gear { table: Arc::new(table), min, normal, max, strict: 1 << (64 - bits - LEVEL), loose: 1 << (64 - bits + LEVEL) })
    }

    pub fn min(&self) -> usize {
        self.min
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// As [`crate::repository::chunk::Chunker::find_cut`].
    pub fn find_cut(&self, buffer: &[u8], scanned: &mut usize) -> Option<usize> {
        let end = buffer.len().min(self.max);
        let mut at = (*scanned).max(self.min - 1);
        while at < end {
            let (stop, threshold) = if at + 1 < self.normal { (end.min(self.normal - 1), self.strict) } else { (end, self.loose) };
            let stop = stop.min(at + LANES * STRETCH);
            if let Some(cut) = self.scan(&buffer[at - (WINDOW - 1)..stop], threshold) {
                return Some(at + 1 - WINDOW + cut);
            }
            at = stop;
        }
        *scanned = end.max(*scanned);
        (end == self.max).then_some(self.max)
    }

    /// The shortest prefix of `bytes`, of at least a window, whose hash is below `threshold`.
    fn scan(&self, bytes: &[u8], threshold: u64) -> Option<usize> {
        let fresh = bytes.len() - (WINDOW - 1);
        let lane = fresh / LANES;
        let mut best = None;
        if lane > 0 {
            best = self.scan_lanes(bytes, lane, threshold);
        }
        if best.is_none() {
            let done = lane * LANES;
            best = self.scan_one(&bytes[done..], threshold).map(|cut| done + cut);
        }
        best
    }

    fn scan_one(&self, bytes: &[u8], threshold: u64) -> Option<usize> {
        let (warm, rest) = bytes.split_at(WINDOW - 1);
        let mut hash = self.roll(warm);
        for (i, byte) in rest.iter().enumerate() {
            hash = (hash << 1).wrapping_add(self.table[usize::from(*byte)]);
            if hash < threshold {
                return Some(WINDOW + i);
            }
        }
        None
    }

    /// Four stretches of `lane` positions side by side; each begins with the window before it.
    fn scan_lanes(&self, bytes: &[u8], lane: usize, threshold: u64) -> Option<usize> {
        let table = &*self.table;
        let stretch = |j: usize| {
            let (warm, rest) = bytes[j * lane..].split_at(WINDOW - 1);
            (self.roll(warm), &rest[..lane])
        };
        let [(mut h0, b0), (mut h1, b1), (mut h2, b2), (mut h3, b3)] = [stretch(0), stretch(1), stretch(2), stretch(3)];
        let mut first = [usize::MAX; LANES];
        for (i, (((c0, c1), c2), c3)) in b0.iter().zip(b1).zip(b2).zip(b3).enumerate() {
            h0 = (h0 << 1).wrapping_add(table[usize::from(*c0)]);
            h1 = (h1 << 1).wrapping_add(table[usize::from(*c1)]);
            h2 = (h2 << 1).wrapping_add(table[usize::from(*c2)]);
            h3 = (h3 << 1).wrapping_add(table[usize::from(*c3)]);
            if h0 < threshold {
                // No lane to the left can have an earlier one.
                return Some(WINDOW + i);
            }
            if (h1 < threshold) | (h2 < threshold) | (h3 < threshold) {
                for (j, hash) in [(1, h1), (2, h2), (3, h3)] {
                    if hash < threshold {
                        first[j] = first[j].min(i);
                    }
                }
            }
        }
        (1..LANES).find(|j| first[*j] != usize::MAX).map(|j| j * lane + WINDOW + first[j])
    }

    fn roll(&self, bytes: &[u8]) -> u64 {
        bytes.iter().fold(0u64, |hash, byte| (hash << 1).wrapping_add(self.table[usize::from(*byte)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gear(min: u32, normal: u32, max: u32) -> Gear {
        let seed = data_encoding::HEXLOWER.encode(&[7; 32]);
        Gear::from_config(&ChunkerConfig { kind: "gear-1".into(), seed, min, normal, max }).unwrap()
    }

    /// The definition, byte by byte.
    fn plainly(gear: &Gear, buffer: &[u8]) -> Option<usize> {
        for length in gear.min..=buffer.len().min(gear.max) {
            let hash = gear.roll(&buffer[length - WINDOW..length]);
            let threshold = if length < gear.normal { gear.strict } else { gear.loose };
            if length == gear.max || hash < threshold {
                return Some(length);
            }
        }
        None
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn lanes_and_pieces_cut_where_the_definition_cuts(seed in any::<u64>(), length in 0usize..300_000, piece in 1usize..50_000) {
            let gear = gear(4096, 32_768, 131_072);
            let bytes = noise(seed, length);
            let mut start = 0;
            while start < bytes.len() {
                let rest = &bytes[start..];
                let mut scanned = 0;
                let mut have = 0;
                let cut = loop {
                    have = (have + piece).min(rest.len());
                    if let Some(cut) = gear.find_cut(&rest[..have], &mut scanned) {
                        break Some(cut);
                    }
                    if have == rest.len() {
                        break None;
                    }
                };
                prop_assert_eq!(cut, plainly(&gear, rest));
                start += cut.unwrap_or(rest.len());
            }
        }
    }

    #[test]
    fn an_insertion_moves_the_cuts_after_it_and_changes_none() {
        let gear = gear(4096, 32_768, 131_072);
        let cuts = |bytes: &[u8]| {
            let mut ends = Vec::new();
            let mut start = 0;
            while let Some(cut) = gear.find_cut(&bytes[start..], &mut 0) {
                start += cut;
                ends.push(start);
            }
            ends
        };
        let bytes = noise(3, 2_000_000);
        let mut longer = bytes[..500_000].to_vec();
        longer.extend_from_slice(b"seven b");
        longer.extend_from_slice(&bytes[500_000..]);
        let before = cuts(&bytes);
        let after = cuts(&longer);
        let kept = before.iter().filter(|end| **end > 700_000 && after.contains(&(**end + 7))).count();
        assert!(kept * 10 >= before.iter().filter(|end| **end > 700_000).count() * 9);
    }

    #[test]
    fn zeros_are_cut_at_one_length_only() {
        let gear = gear(4096, 32_768, 131_072);
        let zeros = vec![0u8; 400_000];
        let cut = gear.find_cut(&zeros, &mut 0).unwrap();
        assert_eq!(gear.find_cut(&zeros[cut..], &mut 0), Some(cut));
    }

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        let seed = data_encoding::HEXLOWER.encode(&[7; 32]);
        let config = ChunkerConfig { kind: "gear-1".into(), seed, min: 4096, normal: 32_768, max: 131_072 };
        assert!(Gear::from_config(&config).is_ok());
        for bad in [
            ChunkerConfig { kind: "gear-2".into(), ..config.clone() },
            ChunkerConfig { seed: "00".into(), ..config.clone() },
            ChunkerConfig { min: 0, ..config.clone() },
            ChunkerConfig { normal: 4096, ..config.clone() },
            ChunkerConfig { max: u32::MAX, ..config.clone() },
        ] {
            assert!(Gear::from_config(&bad).is_err(), "{bad:?}");
        }
    }
}
