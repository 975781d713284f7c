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

#[test]
fn many_files_and_a_file_of_holes_are_backed_up_and_restored_in_little_memory() {
    // A file system in memory, which is none of the program's, spares a slow disk a hundred thousand inodes.
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (set, back) = (temp.path().join("set"), temp.path().join("back"));
    make(&set.join("data-web-0"));
    let keepset = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -d {DATA} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_keepset")]).args(args);
        command.env("KEEPSET_REPOSITORY", temp.path().join("repository")).env("KEEPSET_PASSWORD", "little memory");
        let done = command.output().unwrap();
        assert!(done.status.success(), "{args:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    };
    keepset(&["init"]);
    for _ in 0..2 {
        keepset(&["backup", "test/web", "--from", set.to_str().unwrap()]);
    }
    keepset(&["restore", "test/web", "--into", back.to_str().unwrap()]);
    assert_same(&set.join("data-web-0"), &back.join("data-web-0"));
    assert!(back.join("data-web-0/disk.img").metadata().unwrap().blocks() * 512 < 8 << 20);
}
