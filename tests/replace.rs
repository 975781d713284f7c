//! Volumes that hold data made equal to a point: whatever was there, wherever a fill before was stopped, and writing only what differs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use keepset::model::entry::Kind;
use keepset::model::id::Id;
use keepset::model::manifest::ChangeDetection;
use keepset::model::mover_job::{ClaimReport, FillClaim, FillMode, MoverReport, ProblemKind, ProveClaim, Task};
use keepset::mover::error::MoverError;
use keepset::repository::Repository;
use keepset::repository::index::Index;
use keepset::repository::pack::{self, BlobKind};
use keepset::repository::reader::Reader;
use keepset::store::fault::{Fault, Faulty, Kind as CallKind};
use keepset::store::{Patience, Store};
use keepset::volume::VolumeError;
use proptest::prelude::*;
use support::compare::{assert_same, compare};
use support::mutate::mutate;
use support::tree::{Dice, Tree, trees};
use support::volumes::{attempt, fill_claim, folder, repository, run, save, save_claim};

async fn try_replace(repository: &Repository, saved: &ClaimReport, target: &Path) -> Result<MoverReport, MoverError> {
    attempt(repository, Task::Fill(vec![fill_claim(saved, target, FillMode::Replace)])).await
}

async fn replace(repository: &Repository, saved: &ClaimReport, target: &Path) -> MoverReport {
    let report = try_replace(repository, saved, target).await.unwrap();
    assert_eq!(report.claims[0].problems, [], "{saved:?}");
    report
}

/// Fills the first tree's point, breaking off at the `stop`-th read; replaces by the second's, breaking off there too; then without a
/// fault, and again, which must find nothing to do; then back to the first over what users have changed meanwhile.
async fn over_each_other(a: &Tree, b: &Tree, seed: u64, stops: [usize; 2]) {
    let temp = tempfile::tempdir().unwrap();
    let store = Faulty::memory(|_, _| None);
    let repository = repository(store.store(Patience::local())).await;
    let volumes = ["a", "b"].map(|name| folder(temp.path(), name));
    a.write(&volumes[0]);
    // Much of the second is the first's, changed.
    let status = Command::new("cp").arg("-a").arg(volumes[0].join(".")).arg(&volumes[1]).status().unwrap();
    assert!(status.success());
    let common = folder(&volumes[1], "only in b");
    b.write(&common);
    let said = mutate(&volumes[1], seed, 8);
    let first = save(&repository, &volumes[0], None).await;
    let second = save(&repository, &volumes[1], None).await;
    let target = folder(temp.path(), "target");

    let break_off = |stop: usize| {
        let data = AtomicUsize::new(0);
        store.obey(move |_, call| {
            let is_data = call.kind == CallKind::Get && call.key.starts_with("data/");
            (is_data && data.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= stop).then_some(Fault::Dead)
        });
    };
    break_off(stops[0]);
    let _ = attempt(&repository, Task::Fill(vec![fill_claim(&first, &target, FillMode::New)])).await; // may have been done before
    break_off(stops[1]);
    let _ = try_replace(&repository, &second, &target).await;
    store.heal();

    replace(&repository, &second, &target).await;
    let found = compare(&volumes[1], &target);
    assert!(found.is_empty(), "after {said:?}:\n{}", found.join("\n"));
    let again = replace(&repository, &second, &target).await;
    assert_eq!((again.total.moved_bytes, again.total.stored_bytes), (0, 0), "after {said:?}");
    assert_eq!((again.claims[0].files, again.claims[0].bytes), (again.total.files, again.total.bytes));
    assert_same(&volumes[1], &target);

    let said = mutate(&target, seed ^ 1, 8);
    replace(&repository, &first, &target).await;
    let found = compare(&volumes[0], &target);
    assert!(found.is_empty(), "back, after {said:?}:\n{}", found.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_becomes_any_other_wherever_a_fill_was_stopped(
        a in trees(40),
        b in trees(12),
        seed in any::<u64>(),
        stops in (0usize..12, 0usize..12),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(over_each_other(&a, &b, seed, [stops.0, stops.1]));
    }
}

/// A volume with a large file and a small one, saved, and filled into `target`.
async fn large_file(size: usize, temp: &Path, target: &Path) -> (Repository, ClaimReport) {
    let volume = folder(temp, "volume");
    fs::write(volume.join("base"), Dice(1).bytes(size)).unwrap();
    fs::write(volume.join("small"), "text").unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    run(&repository, Task::Fill(vec![fill_claim(&saved, target, FillMode::New)])).await;
    (repository, saved)
}

/// Changes a few bytes and the length, as a database does that goes on after the point.
fn go_on(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    file.write_all_at(b"changed", size / 3).unwrap();
    file.write_all_at(b"changed", size + 5000).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_file_only_chunks_that_differ_are_fetched_and_it_changes_in_one_step() {
    let temp = tempfile::tempdir().unwrap();
    let target = folder(temp.path(), "target");
    let (repository, saved) = large_file(24 << 20, temp.path(), &target).await;
    go_on(&target.join("base"));
    let before = fs::metadata(target.join("base")).unwrap().ino();
    let moved = replace(&repository, &saved, &target).await.total.moved_bytes;
    assert!((1..12 << 20).contains(&moved), "{moved} bytes");
    assert_same(&temp.path().join("volume"), &target);
    assert_ne!(fs::metadata(target.join("base")).unwrap().ino(), before, "the old file was written into");
}

/// A file system in memory, until it is dropped; nothing for those who may not mount.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: &Path, size: &str) -> Option<Mounted> {
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        mount.is_ok_and(|done| done.status.success()).then(|| Mounted(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_two_a_large_file_is_changed_in_place_unless_it_has_other_names() {
    let temp = tempfile::tempdir().unwrap();
    let target = folder(temp.path(), "target");
    let Some(_mounted) = Mounted::tmpfs(&target, "40m") else { return };
    let (repository, saved) = large_file(24 << 20, temp.path(), &target).await;
    go_on(&target.join("base"));
    let before = fs::metadata(target.join("base")).unwrap().ino();
    let moved = replace(&repository, &saved, &target).await.total.moved_bytes;
    assert!((1..12 << 20).contains(&moved), "{moved} bytes");
    assert_same(&temp.path().join("volume"), &target);
    assert_eq!(fs::metadata(target.join("base")).unwrap().ino(), before);

    // Held open, as by a name that is not in the volume's point, its blocks stay as they are.
    go_on(&target.join("base"));
    fs::hard_link(target.join("base"), target.join("other")).unwrap();
    fs::File::options().write(true).open(target.join("other")).unwrap().set_len(10 << 20).unwrap();
    let claim = FillClaim { paths: vec!["base".into()], ..fill_claim(&saved, &target, FillMode::Replace) };
    run(&repository, Task::Fill(vec![claim])).await;
    assert_eq!(fs::metadata(target.join("other")).unwrap().len(), 10 << 20, "it was written through its other name");
    assert!(fs::read(target.join("base")).unwrap() == Dice(1).bytes(24 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_paths_all_else_stays_untouched() {
    let temp = tempfile::tempdir().unwrap();
    let (volume, target) = (folder(temp.path(), "volume"), folder(temp.path(), "target"));
    for name in ["base/1/a", "base/1/b", "base/2/a", "wal/1"] {
        fs::create_dir_all(volume.join(name).parent().unwrap()).unwrap();
        fs::write(volume.join(name), name).unwrap();
    }
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    run(&repository, Task::Fill(vec![fill_claim(&saved, &target, FillMode::New)])).await;
    fs::write(target.join("base/1/a"), "other").unwrap();
    fs::write(target.join("base/1/extra"), "other").unwrap();
    fs::remove_file(target.join("base/1/b")).unwrap();
    fs::hard_link(target.join("base/2/a"), target.join("base/1/b")).unwrap();
    fs::write(target.join("base/2/extra"), "mine").unwrap();
    fs::remove_file(target.join("wal/1")).unwrap();
    symlink("/nowhere", target.join("wal/1")).unwrap();
    fs::write(target.join("wal/2"), "mine").unwrap();
    let leftover = ".keepset-fill-0123456789abcdef";
    fs::write(target.join("wal").join(leftover), "left by a fill that was killed").unwrap();
    let record = |path: &str| {
        let meta = fs::symlink_metadata(target.join(path)).unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.mode(), meta.uid(), meta.len())
    };
    let untouched = ["base", "base/2", "base/2/a", "base/2/extra", "wal/2"];
    let before = untouched.map(record);
    let orders = |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Task::Fill(vec![FillClaim { paths, ..fill_claim(&saved, &target, FillMode::Replace) }])
    };
    let error = attempt(&repository, orders(&["base/1", "wal/missing"])).await.unwrap_err();
    assert!(matches!(error, MoverError::NoSuchPath { .. }), "{error}");
    assert!(target.join("base/1/extra").exists(), "something was touched before all paths were known to be there");
    run(&repository, orders(&["base/1", "base/1/a", "wal/1"])).await;
    assert_same(&volume.join("base/1"), &target.join("base/1"));
    assert_eq!(fs::read_to_string(target.join("wal/1")).unwrap(), "wal/1");
    assert_eq!(untouched.map(record), before);
    assert!(!target.join("wal").join(leftover).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_inside_refuses_with_its_path_and_keeps_what_is_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let target = folder(temp.path(), "target");
    let (repository, saved) = large_file(1 << 20, temp.path(), &target).await;
    let inside = target.join("zz-extra/mounted");
    fs::create_dir_all(&inside).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&inside, "1m") else { return };
    fs::write(inside.join("theirs"), "theirs").unwrap();
    let refused = |error: MoverError| {
        assert!(
            matches!(&error, MoverError::Volume { source: VolumeError::MountPoint { path }, .. } if path.ends_with("mounted")),
            "{error:?}"
        );
        assert!(error.hint().is_some());
    };
    refused(try_replace(&repository, &saved, &target).await.unwrap_err());
    // The same folder seen twice has the same device: a part of a file system mounted again.
    let bound = folder(&target, "bound-mounted");
    if Command::new("mount").arg("--bind").arg(temp.path().join("volume")).arg(&bound).status().unwrap().success() {
        let _mounted = Mounted(bound);
        refused(try_replace(&repository, &saved, &target).await.unwrap_err());
        assert!(temp.path().join("volume/base").exists());
    }
    assert_eq!(fs::read_to_string(inside.join("theirs")).unwrap(), "theirs");
}

/// A volume with a folder of small files, one large file with a second name, and a folder of its own for one more file.
async fn to_be_damaged(temp: &Path) -> (Store, Repository, ClaimReport) {
    let volume = folder(temp, "volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::create_dir_all(volume.join("other")).unwrap();
    for number in 0..40 {
        fs::write(volume.join(format!("sub/{number}")), format!("small {number}")).unwrap();
    }
    fs::write(volume.join("large"), Dice(5).bytes(20 << 20)).unwrap();
    fs::hard_link(volume.join("large"), volume.join("other/link")).unwrap();
    fs::write(volume.join("other/file"), "not small any more ".repeat(100)).unwrap();
    let store = Store::memory();
    let repository = repository(store.clone()).await;
    let saved = save(&repository, &volume, None).await;
    (store, repository, saved)
}

async fn reader(repository: &Repository) -> Reader {
    Reader::new(repository, Arc::new(Index::load(repository).await.unwrap()))
}

/// The chunks of the file at this path.
async fn chunks(reader: &Reader, tree: &Id, path: &str) -> Vec<Id> {
    let entry = keepset::repository::browse::entry_at(reader, tree, path).await.unwrap().unwrap();
    let Kind::File { content } = entry.kind else { panic!("{path} is no file") };
    content.iter().copied().collect()
}

/// Changes one byte of a chunk where it stands.
async fn flip(store: &Store, reader: &Reader, kind: BlobKind, id: &Id) {
    let place = reader.index().find(kind, id).unwrap();
    let key = pack::key(&place.pack);
    let mut bytes = store.get(&key).await.unwrap().to_vec();
    bytes[place.offset as usize + place.length as usize / 2] ^= 1;
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    store.put_new(&key, bytes.into()).await.unwrap();
}

async fn skipping(repository: &Repository, saved: &ClaimReport, target: &Path, mode: FillMode) -> ClaimReport {
    run(repository, Task::Fill(vec![FillClaim { skip_damaged: true, ..fill_claim(saved, target, mode) }])).await
}

fn lost(report: &ClaimReport) -> Vec<&str> {
    assert!(report.problems.iter().all(|problem| problem.kind == ProblemKind::Lost && !problem.reason.is_empty()), "{:?}", report.problems);
    let mut paths: Vec<&str> = report.problems.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn with_damage_passed_over_all_that_is_whole_comes_back_and_nothing_is_half_there() {
    let temp = tempfile::tempdir().unwrap();
    let volume = temp.path().join("volume");
    let (store, repository, saved) = to_be_damaged(temp.path()).await;
    let reader = reader(&repository).await;
    let large = chunks(&reader, &saved.tree, "large").await;
    flip(&store, &reader, BlobKind::Data, &large[large.len() / 2]).await;
    flip(&store, &reader, BlobKind::Data, &chunks(&reader, &saved.tree, "sub/7").await[0]).await;

    let strict = folder(temp.path(), "strict");
    let error = attempt(&repository, Task::Fill(vec![fill_claim(&saved, &strict, FillMode::New)])).await.unwrap_err();
    assert!(error.hint().unwrap().contains("check"), "{error:?}");

    let target = folder(temp.path(), "target");
    let report = skipping(&repository, &saved, &target, FillMode::New).await;
    assert_eq!(lost(&report), ["large", "other/link", "sub/7"]);
    assert_eq!(report.files, 40, "39 small ones and another");
    let found = compare(&volume, &target);
    assert_eq!(found, ["large: is missing", "other/link: is missing", "sub/7: is missing"]);

    // What was there is not lost with it.
    fs::write(target.join("large"), "old").unwrap();
    fs::write(target.join("sub/7"), "old").unwrap();
    fs::write(target.join("sub/8"), "to be replaced").unwrap();
    let report = skipping(&repository, &saved, &target, FillMode::Replace).await;
    assert_eq!(lost(&report), ["large", "other/link", "sub/7"]);
    let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
    assert_eq!((read("large"), read("sub/7"), read("sub/8")), ("old".into(), "old".into(), "small 8".into()));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 3, "nothing is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_or_an_index_that_is_gone_costs_only_the_files_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let volume = temp.path().join("volume");
    let (store, repository, saved) = to_be_damaged(temp.path()).await;
    let reader = reader(&repository).await;
    let gone = reader.index().find(BlobKind::Data, &chunks(&reader, &saved.tree, "sub/7").await[0]).unwrap().pack;
    store.delete(&[pack::key(&gone)]).await.unwrap();
    let mut expected = Vec::new();
    for path in (0..40).map(|number| format!("sub/{number}")).chain(["large".into(), "other/link".into(), "other/file".into()]) {
        let ids = chunks(&reader, &saved.tree, &path).await;
        if ids.iter().any(|id| reader.index().find(BlobKind::Data, id).unwrap().pack == gone) {
            expected.push(path);
        }
    }
    expected.sort_unstable();
    let target = folder(temp.path(), "target");
    assert_eq!(lost(&skipping(&repository, &saved, &target, FillMode::New).await), expected);
    let mut missing: Vec<String> = expected.iter().map(|path| format!("{path}: is missing")).collect();
    missing.sort_unstable();
    let mut found = compare(&volume, &target);
    found.sort_unstable();
    assert_eq!(found, missing);
    assert!(try_replace(&repository, &saved, &target).await.is_err());
    for index in repository.ids("index").await.unwrap() {
        store.delete(&[format!("index/{index}")]).await.unwrap();
    }
    let report = skipping(&repository, &saved, &folder(temp.path(), "nothing"), FillMode::New).await;
    assert_eq!(lost(&report), [""], "of the root itself nothing is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_whose_tree_is_lost_is_there_and_keeps_what_it_held() {
    let temp = tempfile::tempdir().unwrap();
    let (store, repository, saved) = to_be_damaged(temp.path()).await;
    let reader = reader(&repository).await;
    let entries = reader.tree(&saved.tree).await.unwrap();
    let sub = entries.iter().find(|entry| entry.name == b"sub").unwrap();
    let Kind::Dir { subtree: Some(tree) } = sub.kind else { panic!("a folder") };
    flip(&store, &reader, BlobKind::Tree, &tree).await;
    let target = folder(temp.path(), "target");
    fs::create_dir(target.join("sub")).unwrap();
    fs::write(target.join("sub/old"), "old").unwrap();
    fs::write(target.join("extra"), "old").unwrap();
    let report = skipping(&repository, &saved, &target, FillMode::Replace).await;
    assert_eq!(lost(&report), ["sub"]);
    assert_eq!(fs::read_to_string(target.join("sub/old")).unwrap(), "old");
    assert!(!target.join("extra").exists());
    assert_same(&temp.path().join("volume/other"), &target.join("other"));
    let new = folder(temp.path(), "new");
    assert_eq!(lost(&skipping(&repository, &saved, &new, FillMode::New).await), ["sub"]);
    assert_eq!(fs::metadata(new.join("sub")).unwrap().mode(), fs::metadata(temp.path().join("volume/sub")).unwrap().mode());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_no_damage_and_bytes_damaged_on_their_way_are_got_again() {
    let temp = tempfile::tempdir().unwrap();
    let volume = folder(temp.path(), "volume");
    fs::write(volume.join("large"), Dice(5).bytes(9 << 20)).unwrap();
    let store = Faulty::memory(|_, _| None);
    let repository = repository(store.store(Patience::local())).await;
    let saved = save(&repository, &volume, None).await;
    let data = |call: &keepset::store::fault::Call| call.kind == CallKind::Get && call.key.starts_with("data/");
    store.obey(move |_, call| data(call).then_some(Fault::Denied));
    let claim = FillClaim { skip_damaged: true, ..fill_claim(&saved, &folder(temp.path(), "denied"), FillMode::New) };
    attempt(&repository, Task::Fill(vec![claim])).await.unwrap_err();
    // Each range comes wrong the first time, trees among them.
    let mut seen = std::collections::HashSet::new();
    store.obey(move |number, call| (data(call) && seen.insert((call.key.clone(), call.bytes))).then_some(Fault::Flip(number as u64)));
    let target = folder(temp.path(), "target");
    run(&repository, Task::Fill(vec![fill_claim(&saved, &target, FillMode::New)])).await;
    assert!(store.fired() > 1);
    assert_same(&volume, &target);
}

/// What a file system's check found is data; the folder that it wants for it is not.
#[tokio::test(flavor = "multi_thread")]
async fn lost_and_found_is_saved_and_restored_with_what_is_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let repository = repository(Store::memory()).await;
    let [with, without, own, other] = ["with", "without", "own", "other"].map(|name| {
        let volume = folder(temp.path(), name);
        folder(&volume, "lost+found");
        volume
    });
    fs::write(with.join("lost+found/#1234"), "the only copy").unwrap();
    fs::create_dir(with.join("lost+found/#1235")).unwrap();
    fs::write(with.join("rows"), "rows").unwrap();
    fs::write(without.join("rows"), "rows").unwrap();
    let (full, empty) = (save(&repository, &with, None).await, save(&repository, &without, None).await);
    assert_eq!((full.files, full.dirs, full.problems.len()), (2, 3, 0));
    assert_eq!((empty.files, empty.dirs), (1, 1));
    // An empty one is not in the way, and is filled.
    let inode = |volume: &Path| volume.join("lost+found").metadata().unwrap().ino();
    let there = inode(&own);
    run(&repository, Task::Fill(vec![fill_claim(&full, &own, FillMode::New)])).await;
    assert_eq!((fs::read(own.join("lost+found/#1234")).unwrap(), inode(&own)), (b"the only copy".to_vec(), there));
    assert!(own.join("lost+found/#1235").is_dir());
    assert_same(&with, &own);
    // One with something in it is data that only a replacement may touch, and that empties it and leaves it there.
    fs::write(other.join("lost+found/#7"), "x").unwrap();
    let refused = attempt(&repository, Task::Fill(vec![fill_claim(&empty, &other, FillMode::New)])).await.unwrap_err();
    assert!(matches!(refused, MoverError::TargetHoldsData { .. }), "{refused}");
    for target in [&own, &other] {
        let there = inode(target);
        replace(&repository, &empty, target).await;
        assert_eq!((fs::read_dir(target.join("lost+found")).unwrap().count(), inode(target)), (0, there));
        replace(&repository, &full, target).await;
        assert_eq!((fs::read(target.join("lost+found/#1234")).unwrap(), inode(target)), (b"the only copy".to_vec(), there));
        replace(&repository, &full, target).await;
        let (name, tree, root) = (full.name.clone(), full.tree, full.root.clone());
        let prove = ProveClaim {
            name,
            tree,
            root,
            target: target.to_str().unwrap().into(),
            folder: None,
            shape: Default::default(),
            exclude: Vec::new(),
        };
        assert_eq!(run(&repository, Task::Prove(vec![prove])).await.problems, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_is_not_saved_not_missed_and_not_touched() {
    let temp = tempfile::tempdir().unwrap();
    let volume = folder(temp.path(), "volume");
    for (path, text) in [
        (".snapshot/hourly/pages", "old"),
        ("cache/one.tmp", "1"),
        ("cache/kept", "k"),
        ("cache/sub/two.tmp", "2"),
        ("sub/lock/pid", "7"),
        ("pages", "now"),
    ] {
        let path = volume.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let exclude: Vec<String> = [".snapshot", "cache/*.tmp", "**/lock"].map(str::to_owned).into();
    let repository = repository(Store::memory()).await;
    let with = |parent| {
        let mut task = save_claim(&volume, parent, i64::MAX, ChangeDetection::Metadata);
        let Task::Save(claims) = &mut task else { unreachable!() };
        claims[0].exclude.clone_from(&exclude);
        run(&repository, task)
    };
    let saved = with(None).await;
    assert_eq!((saved.problems.len(), saved.files), (0, 3), "{:?}", saved.problems);
    assert_eq!(with(Some(saved.tree)).await.tree, saved.tree, "nothing else was left out of the tree that is compared with");

    // A new volume in which a filer shows its snapshots holds nothing.
    let new = folder(temp.path(), "new");
    fs::create_dir(new.join(".snapshot")).unwrap();
    run(&repository, Task::Fill(vec![FillClaim { exclude: exclude.clone(), ..fill_claim(&saved, &new, FillMode::New) }])).await;
    assert_eq!(fs::read(new.join("cache/sub/two.tmp")).unwrap(), b"2");
    assert!(!new.join("cache/one.tmp").exists() && !new.join("sub/lock").exists() && new.join("sub").is_dir());

    // Over what is there all goes that the point lacks, but for what it excludes, and the folders that this is in.
    for (path, text) in [
        (".snapshot/x", "x"),
        ("cache/three.tmp", "3"),
        ("cache/stray", "s"),
        ("gone/lock/pid", "8"),
        ("gone/stray", "s"),
        ("late/stray", "s"),
    ] {
        let path = new.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    // Another name of it is not the point's to change.
    fs::remove_file(new.join("pages")).unwrap();
    fs::write(new.join("cache/linked.tmp"), "now").unwrap();
    fs::hard_link(new.join("cache/linked.tmp"), new.join("pages")).unwrap();
    let fill = FillClaim { exclude: exclude.clone(), ..fill_claim(&saved, &new, FillMode::Replace) };
    assert_eq!(run(&repository, Task::Fill(vec![fill.clone()])).await.problems, []);
    for kept in [".snapshot/x", "cache/three.tmp", "gone/lock/pid", "cache/kept", "cache/linked.tmp"] {
        assert!(new.join(kept).exists(), "{kept}");
    }
    for gone in ["cache/stray", "gone/stray", "late"] {
        assert!(!new.join(gone).exists(), "{gone}");
    }
    assert_eq!(fs::metadata(new.join("pages")).unwrap().nlink(), 1);

    // What is excluded is missed by no proof; what else is there is.
    let prove = |exclude| {
        Task::Prove(vec![ProveClaim {
            name: saved.name.clone(),
            tree: saved.tree,
            root: saved.root.clone(),
            target: new.to_str().unwrap().to_owned(),
            folder: None,
            shape: Default::default(),
            exclude,
        }])
    };
    let differs = async |exclude| -> Vec<String> {
        let problems = run(&repository, prove(exclude)).await.problems;
        problems.into_iter().filter(|problem| problem.kind == ProblemKind::Differs).map(|problem| problem.path).collect()
    };
    assert_eq!(differs(exclude).await, ["gone"], "a folder that only something excluded is in");
    assert_eq!(differs(Vec::new()).await, [".snapshot", "cache/linked.tmp", "cache/three.tmp", "gone"]);

    // What stands where the point has a file cannot stay and go.
    fs::remove_file(new.join("pages")).unwrap();
    fs::create_dir_all(new.join("pages/lock")).unwrap();
    let error = attempt(&repository, Task::Fill(vec![fill])).await.unwrap_err();
    assert!(matches!(error, MoverError::Volume { .. }) && new.join("pages/lock").exists(), "{error:?}");
}
