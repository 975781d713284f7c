//! Volumes through the repository and back: what is saved is what is filled, whatever kind of entry it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use keepset::clock::Clock;
use keepset::model::entry::{Entry, Kind};
use keepset::model::manifest::ChangeDetection;
use keepset::model::mover_job::{ClaimReport, FillClaim, FillMode, ProveClaim, Task};
use keepset::monitor::Silent;
use keepset::repository::Repository;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::codec::id_of;
use keepset::repository::index::Index;
use keepset::repository::pack::BlobKind;
use keepset::repository::reader::Reader;
use keepset::repository::tree;
use keepset::repository::writer::{Writer, WriterOptions};
use keepset::store::Store;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use support::compare::{assert_same, compare};
use support::mapped::Mapped;
use support::minio::Minio;
use support::mutate::mutate;
use support::tree::{Tree, trees};
use support::volumes::{fill_claim, folder, repository, run, save, save_claim};

async fn fill(repository: &Repository, saved: &ClaimReport, target: &Path, paths: &[&str]) -> ClaimReport {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    run(repository, Task::Fill(vec![FillClaim { paths, ..fill_claim(saved, target, FillMode::New) }])).await
}

/// Two points of a volume that changes in between, each filled into an empty folder and compared.
async fn there_and_back(store: Store, tree: &Tree, seed: u64) {
    let temp = tempfile::tempdir().unwrap();
    let place = |name: &str| folder(temp.path(), name);
    let repository = repository(store).await;
    let volume = place("volume");
    tree.write(&volume);
    let first = save(&repository, &volume, None).await;
    let copy = place("first");
    let filled = fill(&repository, &first, &copy, &[]).await;
    assert_eq!((&filled.problems, filled.files, filled.bytes), (&vec![], first.files, filled.bytes));
    assert_same(&volume, &copy);
    let said = mutate(&volume, seed, 12);
    let second = save(&repository, &volume, Some(first.tree)).await;
    let (new, old) = (place("second"), place("first-again"));
    fill(&repository, &second, &new, &[]).await;
    let found = compare(&volume, &new);
    assert!(found.is_empty(), "after {said:?}:\n{}", found.join("\n"));
    fill(&repository, &first, &old, &[]).await;
    assert_same(&copy, &old);
    let third = save(&repository, &volume, Some(second.tree)).await;
    assert_eq!(third.tree, second.tree, "nothing changed, so nothing is new");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_generated_tree_comes_back_before_and_after_it_changed(tree in trees(40), seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(there_and_back(Store::memory(), &tree, seed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_tree_comes_back_from_minio() {
    let minio = Minio::shared();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = trees(60).new_tree(&mut runner).unwrap().current();
    let location = minio.location("round-trip").parse().unwrap();
    there_and_back(Store::open(&location, &minio.variables()).unwrap(), &tree, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_with_long_holes_come_back_with_their_holes() {
    use std::os::unix::fs::FileExt;
    let temp = tempfile::tempdir().unwrap();
    let (volume, copy) = (temp.path().join("a"), temp.path().join("b"));
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::create_dir_all(&copy).unwrap();
    let file = std::fs::File::create(volume.join("disk.img")).unwrap();
    file.set_len(700 << 20).unwrap();
    for at in [0u64, (5 << 20) + 123, 300 << 20, (700 << 20) - 5000] {
        let mut bytes = vec![0u8; 4000];
        keepset::random::fill(&mut bytes).unwrap();
        file.write_all_at(&bytes, at).unwrap();
    }
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    fill(&repository, &saved, &copy, &[]).await;
    assert_same(&volume, &copy);
    assert!(copy.join("disk.img").metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_terabyte_with_little_in_it_comes_back() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let temp = tempfile::tempdir().unwrap();
    let (volume, copy) = (folder(temp.path(), "a"), folder(temp.path(), "b"));
    let file = std::fs::File::create(volume.join("disk.img")).unwrap();
    file.set_len(1 << 40).unwrap();
    let mut pieces = Vec::new();
    for at in [0u64, (5 << 20) + 123, 300 << 30, (1 << 40) - 900_000] {
        let mut bytes = vec![0u8; 900_000];
        keepset::random::fill(&mut bytes).unwrap();
        file.write_all_at(&bytes, at).unwrap();
        pieces.push((at, bytes));
    }
    std::fs::write(volume.join("beside"), "a small file").unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    assert_eq!(save(&repository, &volume, Some(saved.tree)).await.tree, saved.tree);
    fill(&repository, &saved, &copy, &[]).await;
    let back = std::fs::File::open(copy.join("disk.img")).unwrap();
    let meta = back.metadata().unwrap();
    assert!(meta.len() == 1 << 40 && meta.blocks() * 512 < 64 << 20, "{meta:?}");
    for (at, bytes) in pieces {
        let mut there = vec![0u8; bytes.len() + 1000];
        let from = at.saturating_sub(1000);
        back.read_exact_at(&mut there, from).unwrap();
        let (before, rest) = there.split_at(usize::try_from(at - from).unwrap());
        assert!(before.iter().all(|byte| *byte == 0) && rest[..bytes.len()] == bytes, "{at}");
    }
    assert_eq!(std::fs::read(copy.join("beside")).unwrap(), b"a small file");
    let report = check(&repository, &CheckOptions { read_data: Some(100.0), seed: 0, workers: 2 }, &Silent).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_folder_is_the_same_with_a_previous_point_as_without() {
    use std::fs;
    let temp = tempfile::tempdir().unwrap();
    let volume = folder(temp.path(), "volume");
    let many = folder(&volume, "many");
    for number in 0..4500 {
        fs::write(many.join(format!("{number:05}")), format!("{}", number % 10)).unwrap();
    }
    folder(&many, "01000-folder");
    fs::write(many.join("01000-folder/file"), "below").unwrap();
    let repository = repository(Store::memory()).await;
    let base = save(&repository, &volume, None).await;
    let again = save(&repository, &volume, Some(base.tree)).await;
    assert_eq!((again.tree, again.problems.len()), (base.tree, 0));
    let changes: [(&str, &dyn Fn()); 6] = [
        ("a new name in the middle", &|| fs::write(many.join("03000-new"), "new").unwrap()),
        ("a name that is gone", &|| fs::remove_file(many.join("02000")).unwrap()),
        ("the last that is gone", &|| fs::remove_file(many.join("04499")).unwrap()),
        ("a new one before all", &|| fs::write(many.join("0"), "new").unwrap()),
        ("one in the place of another", &|| fs::rename(many.join("00100"), many.join("00100-else")).unwrap()),
        ("a change below", &|| fs::write(many.join("01000-folder/file"), "changed").unwrap()),
    ];
    let mut parent = base.tree;
    for (what, change) in changes {
        change();
        let with = save(&repository, &volume, Some(parent)).await;
        assert_ne!(with.tree, parent, "{what}");
        assert_eq!(with.tree, save(&repository, &volume, None).await.tree, "{what}");
        parent = with.tree;
    }
    let copy = folder(temp.path(), "copy");
    fill(&repository, &run(&repository, save_claim(&volume, Some(parent), i64::MAX, ChangeDetection::Metadata)).await, &copy, &[]).await;
    assert_same(&volume, &copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_allocated_comes_back_allocated_and_holes_as_holes() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let temp = tempfile::tempdir().unwrap();
    let volume = folder(temp.path(), "volume");
    let make = |name: &str, size: u64| {
        let file = std::fs::File::create(volume.join(name)).unwrap();
        file.set_len(size).unwrap();
        file
    };
    let reserve = |file: &std::fs::File, size| rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    // Of one chunk and of many: room that was never written, zeros that were, and some of both; and beside them holes.
    for (name, size) in [("small", 200 << 10), ("large", 20 << 20)] {
        reserve(&make(&format!("{name}-reserved"), size), size);
        std::fs::write(volume.join(format!("{name}-zeros")), vec![0; usize::try_from(size).unwrap()]).unwrap();
        let mixed = make(&format!("{name}-mixed"), size);
        reserve(&mixed, size);
        mixed.write_all_at(&[7; 50_000], size / 2).unwrap();
        make(&format!("{name}-sparse"), size).write_all_at(&[7; 50_000], size / 2).unwrap();
        std::fs::write(volume.join(format!("{name}-full")), vec![7; usize::try_from(size).unwrap()]).unwrap();
    }
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    let again = save(&repository, &volume, Some(saved.tree)).await;
    assert_eq!(again.tree, saved.tree);
    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    let json = String::from_utf8(reader.blob(BlobKind::Tree, &saved.tree).await.unwrap()).unwrap();
    assert_eq!(json.matches("x-keepset-allocated").count(), 6, "only where a restore would make holes: {json}");
    let like_the_volume = |copy: &Path| {
        assert_same(&volume, copy);
        for entry in std::fs::read_dir(&volume).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let meta = copy.join(&name).metadata().unwrap();
            let holds = meta.blocks() * 512;
            assert!(if name.ends_with("sparse") { holds < 130_000 } else { holds >= meta.len() }, "{name}: {holds} of {}", meta.len());
        }
    };
    let copy = folder(temp.path(), "copy");
    fill(&repository, &saved, &copy, &[]).await;
    like_the_volume(&copy);
    // Over files with the same bytes and no room, over others, and over none.
    for name in ["small-reserved", "large-reserved", "large-mixed"] {
        let file = std::fs::OpenOptions::new().write(true).open(copy.join(name)).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(0).unwrap();
        file.set_len(size).unwrap();
    }
    std::fs::write(copy.join("large-zeros"), "another").unwrap();
    std::fs::write(copy.join("small-zeros"), "another").unwrap();
    std::fs::remove_file(copy.join("small-mixed")).unwrap();
    run(&repository, Task::Fill(vec![fill_claim(&saved, &copy, FillMode::Replace)])).await;
    like_the_volume(&copy);
}

/// A volume with one file, and a previous point that claims other bytes for it under the very same record: what a block snapshot that
/// was cut between data and inode, or a write in the same tick of the clock, leaves behind.
async fn bytes_under_unchanged_times(parent_cut: i64, change_detection: ChangeDetection) -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("table"), b"new bytes").unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, temp.path(), None).await;
    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    let mut entries = reader.tree(&saved.tree).await.unwrap();
    let writer = Writer::new(&repository, Arc::default(), WriterOptions::for_memory(64 << 20));
    entries[0].kind = Kind::File { content: vec![id_of(b"old bytes")].into() };
    let old = tree::encode(&entries);
    let parent = id_of(&old);
    let adding = writer.clone();
    tokio::task::spawn_blocking(move || {
        let mut encoder = adding.encoder().unwrap();
        adding.add(&mut encoder, BlobKind::Data, b"old bytes").unwrap();
        adding.add(&mut encoder, BlobKind::Tree, &old).unwrap();
    })
    .await
    .unwrap();
    writer.finish().await.unwrap();
    let again = run(&repository, save_claim(temp.path(), Some(parent), parent_cut, change_detection)).await;
    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    let Kind::File { content } = reader.tree(&again.tree).await.unwrap()[0].kind.clone() else { panic!("a file") };
    reader.chunk(&content[0]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_touched_less_than_two_minutes_before_the_previous_cut_is_read_again() {
    let now = Clock::system().now().timestamp();
    assert_eq!(bytes_under_unchanged_times(now + 60, ChangeDetection::Metadata).await, b"new bytes");
    // Long before the cut the record is believed: this is what makes unchanged backups fast.
    assert_eq!(bytes_under_unchanged_times(now + 3600, ChangeDetection::Metadata).await, b"old bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_detection_by_content_reads_whatever_the_times_say() {
    let now = Clock::system().now().timestamp();
    assert_eq!(bytes_under_unchanged_times(now + 3600, ChangeDetection::Content).await, b"new bytes");
}

/// The point with other entries in its root.
async fn with_root(repository: &Repository, saved: ClaimReport, change: impl FnOnce(&mut Vec<Entry>)) -> ClaimReport {
    let reader = Reader::new(repository, Arc::new(Index::load(repository).await.unwrap()));
    let mut entries = reader.tree(&saved.tree).await.unwrap();
    change(&mut entries);
    let plain = tree::encode(&entries);
    let writer = Writer::new(repository, Arc::default(), WriterOptions::for_memory(64 << 20));
    let adding = writer.clone();
    let adding = move || adding.add(&mut adding.encoder().unwrap(), BlobKind::Tree, &plain).unwrap().id;
    let tree = tokio::task::spawn_blocking(adding).await.unwrap();
    writer.finish().await.unwrap();
    ClaimReport { tree, ..saved }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_inode_number_are_one_file_only_if_content_agrees() {
    let temp = tempfile::tempdir().unwrap();
    let (volume, copy) = (folder(temp.path(), "volume"), folder(temp.path(), "copy"));
    for (name, text) in [("a", "customer A"), ("b", "the bytes of customer B"), ("c", "customer C")] {
        std::fs::write(volume.join(name), text).unwrap();
        std::fs::hard_link(volume.join(name), volume.join(format!("{name}2"))).unwrap();
    }
    rustix::fs::mknodat(rustix::fs::CWD, volume.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    // As a walk finds it whose volume gives an inode to one file after the other.
    let saved = with_root(&repository, saved, |entries| {
        let first = entries[0].attrs.clone();
        for entry in entries {
            (entry.attrs.inode, entry.attrs.device, entry.attrs.links) = (first.inode, first.device, 2);
        }
    })
    .await;
    for mode in [FillMode::New, FillMode::Replace] {
        let report = run(&repository, Task::Fill(vec![fill_claim(&saved, &copy, mode)])).await;
        assert_eq!((report.problems, report.files), (vec![], 7), "{mode:?}");
        for name in ["a", "b", "c"] {
            let (first, second) = (copy.join(name), copy.join(format!("{name}2")));
            assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(volume.join(name)).unwrap(), "{mode:?}");
            let inode = |path: &Path| path.metadata().unwrap().ino();
            assert_eq!(inode(&first), inode(&second), "{mode:?}");
        }
        assert_same(&volume, &copy);
        let (name, tree, root) = (saved.name.clone(), saved.tree, saved.root.clone());
        let target = copy.to_str().unwrap().to_owned();
        let proof = run(
            &repository,
            Task::Prove(vec![ProveClaim { name, tree, root, target, folder: None, shape: Default::default(), exclude: Vec::new() }]),
        )
        .await;
        assert_eq!(proof.problems, [], "{mode:?}");
        std::fs::remove_file(copy.join("b2")).unwrap();
        std::fs::hard_link(copy.join("a"), copy.join("b2")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_in_memory_is_read_in_full_since_maps_leave_no_times() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let table = temp.path().join("table");
    std::fs::write(&table, "first bytes").unwrap();
    let mut map = Mapped::new(&table);
    map.write(0, b"old");
    let repository = repository(Store::memory()).await;
    let first = save(&repository, temp.path(), None).await;
    let before = table.metadata().unwrap();
    map.write(0, b"new");
    let now = table.metadata().unwrap();
    let times = |meta: &std::fs::Metadata| (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
    assert_eq!(times(&before), times(&now));
    let second = save(&repository, temp.path(), Some(first.tree)).await;
    assert_eq!(second.change_detection, Some(ChangeDetection::Content));
    let copy = tempfile::tempdir().unwrap();
    fill(&repository, &second, copy.path(), &[]).await;
    assert_eq!(std::fs::read(copy.path().join("table")).unwrap(), b"newst bytes");
    let disk = tempfile::tempdir().unwrap();
    assert_eq!(save(&repository, disk.path(), Some(first.tree)).await.change_detection, Some(ChangeDetection::Metadata));
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_paths_come_back_alone_with_the_folders_above_them() {
    let temp = tempfile::tempdir().unwrap();
    let (volume, copy) = (temp.path().join("a"), temp.path().join("b"));
    for folder in ["base/16384", "base/1", "wal"] {
        std::fs::create_dir_all(volume.join(folder)).unwrap();
        std::fs::write(volume.join(folder).join("1259"), folder).unwrap();
    }
    std::fs::create_dir_all(&copy).unwrap();
    let repository = repository(Store::memory()).await;
    let saved = save(&repository, &volume, None).await;
    fill(&repository, &saved, &copy, &["base/1", "wal/1259"]).await;
    assert_same(&volume.join("base/1"), &copy.join("base/1"));
    assert!(copy.join("wal/1259").exists() && !copy.join("base/16384").exists());
}
