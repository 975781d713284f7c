//! Does nothing that reads a repository panic on bytes that are almost right? The entry points of the fuzz targets, fed with their seeds
//! and with what a fixed dice makes of them: a fuzzer finds more, this one runs every time and always the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[path = "support/crafted.rs"]
#[allow(dead_code, reason = "the entry points use their own part")]
mod crafted;
#[path = "../fuzz/entries.rs"]
mod entries;

use std::fs;
use std::path::Path;

/// Mutations of each entry point; `KEEPSET_SMOKE` says otherwise, for a long run by hand.
const ROUNDS: u64 = 10_000;
/// Of the one that makes a whole repository of each input.
const SLOW_ROUNDS: u64 = 500;

/// Numbers that are the same everywhere and for ever (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Tokens that parsers of JSON, of quoted names, times and lengths stumble over.
const TOKENS: &[&[u8]] = &[
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551615",
    b"18446744073709551616",
    b"4294967295",
    b"-9223372036854775809",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"\\ud800\"",
    b"\\u0000",
    b"\\\\x2f",
    b"\\\\",
    b"..",
    b"/",
    b"\xff\xfe",
    b"9999-12-31T23:59:59-23:59",
    b"0000-01-01T00:00:00+23:59",
    b"2016-12-31T23:59:60Z",
    b"AAAA",
    b"=",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x1b[2J",
    b"file",
    b"dir",
    b"subtree",
    b"content",
];

/// The input with a few changes, some of which know what numbers and strings look like.
fn mutate(seed: &[u8], others: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 => bytes.truncate(at),
            2 => {
                let other = &others[dice.below(others.len())];
                let from = dice.below(other.len() + 1);
                let to = from + dice.below(other.len() - from + 1);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            3 => {
                let end = at + dice.below(bytes.len() - at + 1).min(40);
                bytes.drain(at..end);
            }
            4 => {
                let end = at + dice.below(bytes.len() - at + 1).min(200);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // The number from here on is another one.
            5 => {
                if let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|n| at + n) {
                    let end = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    bytes.splice(start..end, TOKENS[dice.below(9)].iter().copied());
                }
            }
            // The string from here on is another one.
            6 => {
                if let Some(start) = bytes[at..].iter().position(|byte| *byte == b'"').map(|n| at + n + 1) {
                    let end = start + bytes[start..].iter().take_while(|byte| **byte != b'"').count();
                    bytes.splice(start..end, TOKENS[dice.below(TOKENS.len())].iter().copied());
                }
            }
            _ => {
                bytes.splice(at..at, TOKENS[dice.below(TOKENS.len())].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn nothing_that_reads_a_repository_panics_on_bytes_that_are_almost_right() {
    let long: Option<u64> = std::env::var("KEEPSET_SMOKE").ok().map(|rounds| rounds.parse().unwrap());
    let start: u64 = std::env::var("KEEPSET_SMOKE_SEED").map_or(7, |seed| seed.parse().unwrap());
    for (name, entry) in entries::ENTRIES {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| entry(seed));
        let mut dice = Dice(start);
        let rounds = long.unwrap_or(if *name == "repository" { SLOW_ROUNDS } else { ROUNDS });
        for round in 0..rounds {
            let input = mutate(&seeds[dice.below(seeds.len())], &seeds, &mut dice);
            let run = std::panic::catch_unwind(|| entry(&input));
            assert!(run.is_ok(), "{name}, round {round}, panics on: {}", input.escape_ascii());
        }
    }
}

#[test]
fn the_seeds_are_what_their_parsers_read() {
    use keepset::repository::{index, points, prove, tree};
    let seed = |name: &str, number: usize| seeds(name).swap_remove(number);
    assert_eq!(tree::decode(&seed("tree", 1)).unwrap().len(), 8);
    assert_eq!(index::decode(&seed("index", 1)).unwrap().len(), 2);
    let is = |valid: serde_json::Result<()>| valid.unwrap();
    is(serde_json::from_slice::<keepset::model::manifest::Manifest>(&seed("manifest", 0)).map(|_| ()));
    is(serde_json::from_slice::<keepset::repository::snapshot::Snapshot>(&seed("snapshot", 1)).map(|_| ()));
    is(serde_json::from_slice::<keepset::repository::config::Config>(&seed("config", 0)).map(|_| ()));
    is(serde_json::from_slice::<keepset::repository::key::KeyObject>(&seed("key", 0)).map(|_| ()));
    is(serde_json::from_slice::<keepset::repository::lock::LockRecord>(&seed("lock", 0)).map(|_| ()));
    is(serde_json::from_slice::<keepset::model::mover_job::MoverReport>(&seed("mover_report", 0)).map(|_| ()));
    for number in 0..3 {
        is(serde_json::from_slice::<keepset::model::mover_job::MoverLine>(&seed("mover_line", number)).map(|_| ()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let repository = entries::built(&seed("repository", 1)).await;
        let (index, _) = index::Index::load_readable(&repository).await.unwrap();
        let reader = keepset::repository::reader::Reader::new(&repository, std::sync::Arc::new(index));
        let points = points::list_points(&reader, None).await.unwrap();
        assert!(points.points[0].point.complete, "{:?}", points.points[0].defects);
        assert_eq!(prove::packs_present(&repository).await.unwrap().len(), 2);
    });
}

#[test]
fn every_fuzz_target_is_an_entry_point_and_every_entry_point_has_a_target_and_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let mut names: Vec<String> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let entries: Vec<&str> = entries::ENTRIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz_targets"), entries);
    assert_eq!(names("seeds"), entries);
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for name in entries {
        entries::run(name, b"");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is no target of fuzz/Cargo.toml");
    }
}

#[test]
fn the_smoke_notices_an_entry_point_that_panics() {
    let seeds = seeds("tree");
    let mut dice = Dice(7);
    let panics = |bytes: &[u8]| assert!(keepset::repository::tree::decode(bytes).is_ok() || bytes.is_empty());
    let noticed = (0..50).any(|_| {
        let input = mutate(&seeds[0], &seeds, &mut dice);
        std::panic::catch_unwind(|| panics(&input)).is_err()
    });
    assert!(noticed);
}
