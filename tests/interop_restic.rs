//! The whole program beside stock restic: points of ours in restic's hands, and restic's repositories in ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use support::compare::{assert_same, compare};
use support::keepset::Keepset;
use support::mutate::mutate;
use support::restic::Restic;
use support::tree::{self, Dice};

const PASSWORD: &str = "the oracle's";

fn restore(keepset: &Keepset, set: &str, point: &str, target: &Path) {
    fs::create_dir(target).unwrap();
    keepset.ok(["restore", set, "--point", point, "--into", target.to_str().unwrap()]);
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn stored(repository: &Path) -> u64 {
    let output = Command::new("du").args(["--apparent-size", "-sb"]).arg(repository).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Paths of all entries below `folder` that are neither folders nor regular files, as `compare` writes them.
fn specials(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = format!("{prefix}{}", entry.file_name().as_bytes().escape_ascii());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => specials(&entry.path(), &format!("{path}/"), found),
            kind if kind.is_file() => {}
            kind if kind.is_socket() => found.push(format!("{path}: is missing")),
            _ => found.push(path),
        }
    }
}

/// What restic does not bring back of what we saved as we saved it: sockets; hard links between entries that are no regular files; times
/// that 64 bits of nanoseconds cannot hold; holes, before 0.15; and link targets that are not UTF-8, before 0.16.
fn restored_otherwise(state: &Path, restored: &Path) -> Vec<String> {
    let mut known = Vec::new();
    specials(state, "", &mut known);
    let mut wrong = compare(state, restored);
    wrong.retain(|difference| {
        let about = |what: &str| difference.contains(what);
        let link_of_specials =
            about("hard links [") && known.iter().any(|path| about(&format!("{:?}", path.trim_end_matches(": is missing"))));
        let after_2262 = difference
            .split(": mtime (")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.parse().ok())
            .is_some_and(|secs: i64| secs > i64::MAX / 1_000_000_000);
        !(after_2262
            || known.contains(difference)
            || about(": allocated bytes ")
            || (about(": target ") && about("\\x"))
            || link_of_specials)
    });
    wrong
}

#[test]
fn points_of_several_sets_are_whole_for_restic_and_stay_so_when_it_prunes_one() {
    assert!(tree::is_root(), "owners and devices can be compared by root only: run the tests as root");
    let keepset = Keepset::bare().with("KEEPSET_PASSWORD", PASSWORD);
    let (work, repository) = (keepset.dir.path(), keepset.path("repository"));
    keepset.ok(["init"]);

    // Two sets of generated trees with every kind of entry; each state is kept beside, as it was when it was backed up.
    let sets = [("shop/web", vec!["data-web-9", "data-web-10"]), ("shop/db", vec!["data-db-0", "wal-db-0"])];
    let mut runner = TestRunner::deterministic();
    let mut kept: Vec<(String, String, PathBuf)> = Vec::new();
    for round in 0..2 {
        for (set, claims) in &sets {
            let live = work.join("live").join(set);
            for (number, claim) in (0..).zip(claims) {
                let volume = live.join(claim);
                if round == 0 {
                    fs::create_dir_all(&volume).unwrap();
                    tree::trees(60).new_tree(&mut runner).unwrap().current().write(&volume);
                    fs::write(volume.join("database"), Dice(number + 1).bytes(3_000_000)).unwrap();
                } else {
                    mutate(&volume, 40 + number, 12);
                }
            }
            let done = keepset.json(["backup", set, "--from", live.to_str().unwrap()]);
            let point = done["backups"][0]["point"].as_str().unwrap().to_owned();
            let state = work.join(format!("kept-{round}-{}", set.replace('/', "-")));
            copy(&live, &state);
            kept.push(((*set).to_owned(), point, state));
        }
    }

    let restic = Restic::new(repository.to_str().unwrap(), PASSWORD);
    restic.check();
    let mut hosts: Vec<String> = restic.snapshots().iter().map(|snapshot| snapshot["hostname"].as_str().unwrap().to_owned()).collect();
    hosts.sort();
    assert_eq!(hosts, ["db.shop.test", "db.shop.test", "web.shop.test", "web.shop.test"]);

    for (number, (set, point, state)) in kept.iter().enumerate() {
        let claims = &sets.iter().find(|(name, _)| name == set).unwrap().1;
        let listed = restic.text(["ls", point]);
        let restored = restic.restore(point, &work.join(format!("restic-{number}")), set);
        for claim in claims {
            assert!(listed.lines().any(|line| line == format!("/{set}/{claim}/database")), "{listed}");
            let dumped = restic.run(["dump", point, &format!("/{set}/{claim}/database")]);
            assert!(dumped == fs::read(state.join(claim).join("database")).unwrap(), "{claim}");
            assert_eq!(restored_otherwise(&state.join(claim), &restored.join(claim)), [] as [String; 0], "{set} {claim} by restic");
        }
        let manifest: Value = serde_json::from_slice(&fs::read(restored.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["claims"].as_array().unwrap().len(), 2);
    }

    // One point goes; nothing of the others may.
    restic.run(["forget", "--prune", "--max-unused", "0", &kept[1].1]);
    restic.check();
    keepset.ok(["check", "--read-data"]);
    let listed = keepset.json(["list"]);
    let left: Vec<(&str, &str)> =
        listed["points"].as_array().unwrap().iter().map(|point| (point["id"].as_str().unwrap(), point["set"].as_str().unwrap())).collect();
    assert_eq!(left.len(), 3);
    for (number, (set, point, state)) in kept.iter().enumerate().filter(|(number, _)| *number != 1) {
        assert!(left.contains(&(point, set)));
        let target = work.join(format!("ours-{number}"));
        restore(&keepset, set, point, &target);
        for claim in &sets.iter().find(|(name, _)| name == set).unwrap().1 {
            assert_same(&state.join(claim), &target.join(claim));
        }
    }
}

#[test]
fn sparse_files_and_huge_folders_are_whole_for_restic() {
    huge_things(|keepset| {
        keepset.ok(["init"]);
        Restic::new(keepset.path("repository").to_str().unwrap(), PASSWORD)
    });
}

#[test]
fn sparse_files_and_huge_folders_go_into_a_repository_of_restics() {
    huge_things(|keepset| Restic::init(&keepset.path("repository"), PASSWORD));
}

/// A file of a terabyte and many names, in a repository that is made so.
fn huge_things(init: impl FnOnce(&Keepset) -> Restic) {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let keepset = Keepset::bare().with("KEEPSET_PASSWORD", PASSWORD);
    let (work, live) = (keepset.dir.path(), keepset.path("live"));
    let (huge, small) = (live.join("data-web-0"), live.join("data-web-1"));
    fs::create_dir_all(huge.join("many")).unwrap();
    fs::create_dir_all(&small).unwrap();
    let sparse = |path: &Path, size: u64| {
        let file = fs::File::create(path).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&Dice(size).bytes(700_000), size / 3).unwrap();
    };
    sparse(&huge.join("disk.img"), 1 << 40);
    sparse(&small.join("disk.img"), 100 << 20);
    for number in 0..12_000 {
        fs::write(huge.join(format!("many/{number}")), "").unwrap();
    }
    let restic = init(&keepset);
    let done = keepset.json(["backup", "shop/web", "--from", live.to_str().unwrap()]);
    let point = done["backups"][0]["point"].as_str().unwrap();
    restic.check();
    keepset.ok(["check"]);
    let listed = restic.text(["ls", "-l", point]);
    assert!(listed.lines().any(|line| line.contains("1099511627776") && line.ends_with("/data-web-0/disk.img")));
    assert_eq!(listed.lines().filter(|line| line.contains("/data-web-0/many/")).count(), 12_000);
    let target = work.join("by-restic");
    restic.run(["restore", point, "--target", target.to_str().unwrap(), "--include", "/shop/web/data-web-1"]);
    assert!(fs::read(target.join("shop/web/data-web-1/disk.img")).unwrap() == fs::read(small.join("disk.img")).unwrap());
    let ours = work.join("by-us");
    restore(&keepset, "shop/web", point, &ours);
    assert_same(&small, &ours.join("data-web-1"));
    let disk = fs::metadata(ours.join("data-web-0/disk.img")).unwrap();
    assert!(disk.len() == 1 << 40 && disk.blocks() * 512 < 2 << 20, "{disk:?}");
    assert_eq!(fs::read_dir(ours.join("data-web-0/many")).unwrap().count(), 12_000);
}

/// Some 200 MB: a few large files, many small ones.
fn file_set(folder: &Path) {
    let mut dice = Dice(2026);
    fs::create_dir_all(folder.join("small")).unwrap();
    for number in 0..6u64 {
        fs::write(folder.join(format!("table-{number}")), Dice(number + 1).bytes(30_000_000)).unwrap();
    }
    for number in 0..800 {
        let length = 1 + dice.below(50_000);
        fs::write(folder.join(format!("small/{number}")), dice.bytes(length)).unwrap();
    }
}

#[test]
fn a_repository_of_restics_is_adopted_and_what_it_holds_is_not_stored_again() {
    let keepset = Keepset::bare().with("KEEPSET_PASSWORD", PASSWORD);
    let (work, repository, live) = (keepset.dir.path(), keepset.path("repository"), keepset.path("live"));
    let volume = live.join("data-web-0");
    file_set(&volume);
    let restic = Restic::init(&repository, PASSWORD);
    restic.run([OsStr::new("backup"), OsStr::new("--host"), OsStr::new("theirs"), volume.as_os_str()]);

    let listed = keepset.json(["list"]);
    assert_eq!(listed["points"].as_array().map(Vec::len), Some(0), "{listed}");
    assert_eq!(listed["foreign"].as_array().map(Vec::len), Some(1), "{listed}");
    keepset.ok(["check", "--read-data"]);

    let before = stored(&repository);
    let chunks = restic.blobs("data");
    keepset.ok(["backup", "shop/web", "--from", live.to_str().unwrap()]);
    let added = stored(&repository) - before;
    assert!(before > 190_000_000 && added * 100 < before, "{added} bytes added to {before}");
    let fresh: Vec<String> = restic.blobs("data").difference(&chunks).cloned().collect();
    assert!(fresh.len() <= 2, "only the manifest is new: {fresh:?}");

    restic.check();
    let target = work.join("restored");
    restore(&keepset, "shop/web", "latest", &target);
    assert_same(&volume, &target.join("data-web-0"));
    let theirs = restic.snapshots().iter().find(|snapshot| snapshot["hostname"] == "theirs").unwrap()["id"].as_str().unwrap().to_owned();
    let restored = restic.restore(&theirs, &work.join("by-restic"), volume.to_str().unwrap());
    assert_same(&volume, &restored);
}
