//! Does our Rabin chunker cut where stock restic cuts? restic itself is asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use keepset::repository::chunk::rabin::Rabin;
use sha2::{Digest, Sha256};

fn restic(repository: &Path, args: &[&str]) -> String {
    let output = Command::new("restic")
        .args(["--no-cache", "-q", "-r"])
        .arg(repository)
        .args(args)
        .env("RESTIC_PASSWORD", "oracle")
        .output()
        .expect("restic must be installed: `make test` sees to it");
    assert!(output.status.success(), "restic {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// 200 MB in the kinds that chunkers find hard: noise, text with few different bytes, long runs of one byte, and noise with holes.
fn data() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data = Vec::with_capacity(200 << 20);
    while data.len() < 120_000_000 {
        data.extend_from_slice(&next().to_le_bytes());
    }
    while data.len() < 160_000_000 {
        data.extend(next().to_le_bytes().map(|byte| b"acgt\n"[usize::from(byte) % 5]));
    }
    data.resize(173_000_001, 0);
    data.resize(191_000_003, 1);
    while data.len() < 200_000_000 {
        data.extend_from_slice(&next().to_le_bytes());
        data.resize(data.len() + (next() % 100_000) as usize, 0);
    }
    data
}

#[test]
fn restic_stores_exactly_the_chunks_that_our_rabin_chunker_cuts() {
    let work = tempfile::tempdir().unwrap();
    let (repository, source) = (work.path().join("repository"), work.path().join("source"));
    restic(&repository, &["init"]);
    let config: serde_json::Value = serde_json::from_str(&restic(&repository, &["cat", "config"])).unwrap();
    let polynomial = u64::from_str_radix(config["chunker_polynomial"].as_str().unwrap(), 16).unwrap();

    let data = data();
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), &data).unwrap();
    restic(&repository, &["backup", source.to_str().unwrap()]);
    let theirs: BTreeSet<String> =
        restic(&repository, &["list", "blobs"]).lines().filter_map(|line| line.strip_prefix("data ")).map(str::to_owned).collect();

    let rabin = Rabin::new(polynomial);
    let (mut ours, mut start, mut scanned) = (BTreeSet::new(), 0, 0);
    while start < data.len() {
        let window = &data[start..data.len().min(start + rabin.max())];
        let length = rabin.find_cut(window, &mut scanned).unwrap_or(window.len());
        ours.insert(data_encoding::HEXLOWER.encode(&Sha256::digest(&data[start..start + length])));
        start += length;
    }
    assert!(ours.len() > 80, "{} chunks", ours.len());
    assert_eq!(ours, theirs);
}
