//! Does the whole program, its workers too, keep to little memory however many files there are, and however long? `make memory` asks the
//! same of a million files and 20 GB, in less.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use support::compare::assert_same;
use support::tree::Dice;

/// What one process may take of data, in KiB: the kernel refuses what is more. Stacks of threads, and room that is never touched, count.
const DATA: u32 = 72 << 10;

/// Names in one folder: some 20 MB of JSON, and were 60 MB of entries.
const NAMES: usize = 50_000;

/// 40,000 small files in folders of 400, and 2 GB of which all but a little is hole.
fn make(volume: &Path) {
    let mut dice = Dice(3);
    for folder in 0..100 {
        let folder = volume.join(folder.to_string());
        fs::create_dir_all(&folder).unwrap();
        for number in 0..400 {
            fs::write(folder.join(number.to_string()), dice.next().to_le_bytes()).unwrap();
        }
    }
    let sparse = File::create(volume.join("disk.img")).unwrap();
    sparse.set_len(2 << 30).unwrap();
    for part in 0..8 {
        sparse.write_all_at(&dice.bytes(300_000), (part << 28) + 12_345).unwrap();
    }
}

/// Runs it within the limit; gives what it says.
fn limited(temp: &Path, args: &[&str]) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -d {DATA} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_keepset")]).args(args);
    command.env("KEEPSET_REPOSITORY", temp.join("repository")).env("KEEPSET_PASSWORD", "little memory");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{args:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn terabytes_of_hole_and_a_folder_of_many_names_need_little_memory() {
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (set, back) = (temp.path().join("set"), temp.path().join("back"));
    let volume = set.join("data-web-0");
    fs::create_dir_all(volume.join("many")).unwrap();
    for number in 0..NAMES {
        File::create(volume.join(format!("many/{number:06}"))).unwrap();
    }
    let sparse = File::create(volume.join("disk.img")).unwrap();
    sparse.set_len(4 << 40).unwrap();
    let data = Dice(5).bytes(3_000_000);
    sparse.write_all_at(&data, (1 << 40) + 12_345).unwrap();
    limited(temp.path(), &["init"]);
    let set = set.to_str().unwrap();
    limited(temp.path(), &["backup", "test/web", "--from", set]);
    limited(temp.path(), &["backup", "test/web", "--from", set]);
    // One more name in the middle: what stands before it comes out of the last point.
    fs::write(volume.join("many/030000x"), "new").unwrap();
    limited(temp.path(), &["backup", "test/web", "--from", set]);
    assert_eq!(limited(temp.path(), &["ls", "-R", "latest"]).lines().count(), NAMES + 4);
    limited(temp.path(), &["check"]);
    limited(temp.path(), &["prune"]);
    limited(temp.path(), &["restore", "test/web", "--into", back.to_str().unwrap()]);
    let back = back.join("data-web-0");
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder.join("many")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert!(names(&back) == names(&volume));
    assert_eq!(fs::read(back.join("many/030000x")).unwrap(), b"new");
    let restored = File::open(back.join("disk.img")).unwrap();
    let meta = restored.metadata().unwrap();
    assert!(meta.len() == 4 << 40 && meta.blocks() * 512 < 8 << 20, "{meta:?}");
    let mut there = vec![0; data.len()];
    restored.read_exact_at(&mut there, (1 << 40) + 12_345).unwrap();
    assert!(there == data);
}

#[test]
fn many_files_and_a_file_of_holes_are_backed_up_and_restored_in_little_memory() {
    // A file system in memory, which is none of the program's, spares a slow disk a hundred thousand inodes.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (set, back) = (temp.path().join("set"), temp.path().join("back"));
    make(&set.join("data-web-0"));
    let keepset = |args: &[&str]| limited(temp.path(), args);
    keepset(&["init"]);
    for _ in 0..2 {
        keepset(&["backup", "test/web", "--from", set.to_str().unwrap()]);
    }
    keepset(&["restore", "test/web", "--into", back.to_str().unwrap()]);
    assert_same(&set.join("data-web-0"), &back.join("data-web-0"));
    assert!(back.join("data-web-0/disk.img").metadata().unwrap().blocks() * 512 < 8 << 20);
}
