//! Does a proof find everything that is not as in the point, and nothing else?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use keepset::model::mover_job::{ClaimReport, FillMode, Problem, ProblemKind, ProveClaim, Task};
use keepset::mover::error::MoverError;
use keepset::repository::Repository;
use keepset::repository::pack;
use keepset::store::Store;
use proptest::prelude::*;
use support::compare::compare;
use support::mutate::mutate;
use support::tree::{Dice, Tree, trees};
use support::volumes::{attempt, fill_claim, folder, repository, run, save};

fn task(saved: &ClaimReport, target: &Path) -> Task {
    Task::Prove(vec![ProveClaim {
        name: saved.name.clone(),
        tree: saved.tree,
        root: saved.root.clone(),
        target: target.to_str().unwrap().to_owned(),
        folder: None,
        shape: Default::default(),
        exclude: Vec::new(),
    }])
}

async fn prove(repository: &Repository, saved: &ClaimReport, target: &Path) -> Vec<Problem> {
    run(repository, task(saved, target)).await.problems
}

/// What was filled is proven; what somebody changed in it is not, whatever it is.
async fn agrees_with_another_pair_of_eyes(tree: &Tree, seed: u64) {
    let temp = tempfile::tempdir().unwrap();
    let repository = repository(Store::memory()).await;
    let volume = folder(temp.path(), "volume");
    tree.write(&volume);
    let saved = save(&repository, &volume, None).await;
    let target = folder(temp.path(), "target");
    run(&repository, Task::Fill(vec![fill_claim(&saved, &target, FillMode::New)])).await;
    assert_eq!(prove(&repository, &saved, &target).await, []);
    let said = mutate(&target, seed, 3);
    let differences = compare(&volume, &target);
    let problems = prove(&repository, &saved, &target).await;
    assert_eq!(problems.is_empty(), differences.is_empty(), "{said:?}\n{differences:?}\n{problems:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_proof_finds_what_another_pair_of_eyes_finds(tree in trees(24), seed in any::<u64>()) {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(agrees_with_another_pair_of_eyes(&tree, seed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_difference_is_told_by_its_path_and_only_bytes_and_names_count_as_such() {
    let temp = tempfile::tempdir().unwrap();
    let repository = repository(Store::memory()).await;
    let volume = folder(temp.path(), "volume");
    fs::create_dir(volume.join("sub")).unwrap();
    for name in ["flipped", "cut", "gone", "moded", "sub/other"] {
        fs::write(volume.join(name), Dice(7).bytes(3_000_000)).unwrap();
    }
    fs::write(volume.join("first"), "one").unwrap();
    fs::hard_link(volume.join("first"), volume.join("linked")).unwrap();
    symlink("first", volume.join("link")).unwrap();
    File::create(volume.join("hole")).unwrap().set_len(5 << 20).unwrap();
    let saved = save(&repository, &volume, None).await;
    let target = folder(temp.path(), "target");
    run(&repository, Task::Fill(vec![fill_claim(&saved, &target, FillMode::New)])).await;
    assert_eq!(prove(&repository, &saved, &target).await, []);

    // As a disk does it: bytes change, and no time tells of it.
    let times = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).unwrap();
    let spoil = |name: &str, how: &dyn Fn(&File)| {
        let path = target.join(name);
        let before = times(&path);
        let file = File::options().write(true).open(&path).unwrap();
        how(&file);
        file.set_modified(before).unwrap();
    };
    spoil("flipped", &|file| file.write_all_at(b"x", 2_999_999).unwrap());
    spoil("hole", &|file| file.write_all_at(b"x", 4 << 20).unwrap());
    spoil("cut", &|file| file.set_len(10).unwrap());
    let root = times(&target);
    fs::remove_file(target.join("gone")).unwrap();
    fs::write(target.join("more"), "").unwrap();
    fs::set_permissions(target.join("moded"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(target.join("linked")).unwrap();
    fs::write(target.join("linked"), "one").unwrap();
    File::options().write(true).open(target.join("linked")).unwrap().set_modified(times(&target.join("first"))).unwrap();
    fs::remove_file(target.join("link")).unwrap();
    symlink("second", target.join("link")).unwrap();
    fs::remove_dir_all(target.join("sub")).unwrap();
    fs::write(target.join("sub"), "no folder").unwrap();
    File::open(&target).unwrap().set_modified(root).unwrap();

    let problems = prove(&repository, &saved, &target).await;
    let told = |kind: ProblemKind| -> Vec<(&str, &str)> {
        problems.iter().filter(|problem| problem.kind == kind).map(|problem| (problem.path.as_str(), problem.reason.as_str())).collect()
    };
    let differs = told(ProblemKind::Differs);
    let names: Vec<&str> = differs.iter().map(|(path, _)| *path).collect();
    assert_eq!(names, ["cut", "flipped", "gone", "hole", "link", "linked", "more", "sub"], "{problems:?}");
    assert!(differs[0].1.contains("10 bytes instead of 3000000") && differs[1].1.contains("to 3000000 are others"), "{differs:?}");
    assert!(differs[5].1.contains("no further name of `first`") && differs[7].1.contains("a file instead of a folder"), "{differs:?}");
    let attributes = told(ProblemKind::Attribute);
    assert_eq!(attributes.iter().find(|(path, _)| *path == "moded").unwrap().1, "mode 640 instead of 644", "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_lost_is_no_verdict() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::memory();
    let repository = repository(store.clone()).await;
    let volume = folder(temp.path(), "volume");
    fs::write(volume.join("file"), "text").unwrap();
    let saved = save(&repository, &volume, None).await;
    for object in store.list("data").await.unwrap() {
        let id = object.key.rsplit('/').next().unwrap().parse().unwrap();
        store.delete(&[pack::key(&id)]).await.unwrap();
    }
    let error = attempt(&repository, task(&saved, &volume)).await.unwrap_err();
    assert!(matches!(error, MoverError::Repository(_)), "{error}");
}
