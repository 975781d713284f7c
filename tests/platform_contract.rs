//! Does the place of folders keep to what every place must? The cluster suite asks the same of a real cluster.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keepset::model::claim::{ClaimId, ClaimPlace, ClaimShape};
use keepset::model::manifest::ChangeDetection;
use keepset::model::mover_job::{FillMode, MoverJob, SaveClaim, Task};
use keepset::model::set::{Ordinal, SetName};
use keepset::model::set_state::TargetState;
use keepset::platform::folders::{Folders, FoldersOptions};
use keepset::platform::{Platform, PlatformError};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use tempfile::TempDir;

#[tokio::test]
async fn folders_keep_to_the_contract_of_places() {
    let place = tempfile::tempdir().unwrap();
    let folders = Folders::new(FoldersOptions {
        root: place.path().join("claims"),
        cluster: "here".into(),
        repository: None,
        withheld: Vec::new(),
        templates: Vec::new(),
        start: None,
        replicas: None,
        program: "keepset".into(),
        program_args: Vec::new(),
        start_command: None,
    });
    support::contract::is_kept(&folders, &"shop/web".parse().unwrap(), &ClaimShape::default()).await;
}

/// In memory where there is room: a thousand rounds sync some files each.
fn fast_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn folders(root: &Path) -> Folders {
    Folders::new(FoldersOptions {
        root: root.to_owned(),
        repository: None,
        withheld: Vec::new(),
        cluster: "here".into(),
        templates: Vec::new(),
        start: None,
        replicas: None,
        program: "/bin/true".into(),
        program_args: Vec::new(),
        start_command: None,
    })
}

fn claim() -> ClaimPlace {
    ClaimPlace {
        set: "shop/web".parse().unwrap(),
        id: ClaimId { ordinal: Ordinal(0), template: "data".into() },
        name: "data-web-0".into(),
        shape: ClaimShape::default(),
    }
}

/// Files that a set's user may not see, under the names that a restore looks for.
fn victim(folder: &Path) {
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(folder.join("shadow"), SECRET).unwrap();
    fs::write(folder.join("deep/key"), SECRET).unwrap();
}

#[track_caller]
fn assert_untouched(folder: &Path) {
    assert_eq!(fs::read_to_string(folder.join("shadow")).unwrap(), SECRET);
    assert_eq!(fs::read_to_string(folder.join("deep/key")).unwrap(), SECRET);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
}

const SECRET: &str = "root:geheim:1";
const MARK: &str = ".keepset-incomplete-data-web-0";
const JOURNAL: &str = ".keepset-restore-web";

#[tokio::test]
async fn a_mark_that_is_a_link_is_replaced_and_what_it_leads_to_is_not() {
    let place = fast_folder();
    let outside = fast_folder();
    victim(outside.path());
    fs::create_dir(place.path().join("data-web-0")).unwrap();
    symlink(outside.path().join("shadow"), place.path().join(MARK)).unwrap();
    let folders = folders(place.path());
    let set: SetName = "shop/web".parse().unwrap();
    let targets = folders.read_targets(&set, &[claim().id], true).await.unwrap();
    assert_eq!(targets.claims[0].state, TargetState::HalfRestored("unknown".into()), "no line of the file is quoted");
    folders.open_claim("run-1", &claim(), FillMode::Replace).await.unwrap();
    assert_untouched(outside.path());
    assert!(fs::symlink_metadata(place.path().join(MARK)).unwrap().is_file());
    folders.close_claim("run-1", &claim()).await.unwrap();
}

#[tokio::test]
async fn a_journal_that_is_no_file_is_refused_and_ends_no_call_late() {
    let set: SetName = "shop/web".parse().unwrap();
    let outside = fast_folder();
    victim(outside.path());
    for kind in ["link", "fifo", "folder"] {
        let place = fast_folder();
        let journal = place.path().join(JOURNAL);
        match kind {
            "link" => symlink(outside.path().join("shadow"), &journal).unwrap(),
            "fifo" => mknodat(CWD, &journal, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            _ => fs::create_dir(&journal).unwrap(),
        }
        let folders = folders(place.path());
        let error = folders.take_journal(&set).await.map(|taken| taken.is_some()).unwrap_err();
        assert!(matches!(error, PlatformError::NotOurFile { .. }) && error.hint().is_some(), "{kind}: {error}");
        assert!(matches!(folders.read_journal(&set).await, Err(PlatformError::NotOurFile { .. })), "{kind}");
        assert!(folders.read_set(&set).await.is_err(), "{kind}");
        assert!(folders.open_journal(&set, "first\n").await.is_err(), "{kind}");
    }
    assert_untouched(outside.path());
}

#[tokio::test]
async fn no_mover_is_started_for_a_claim_that_is_a_link() {
    let place = fast_folder();
    let outside = fast_folder();
    victim(outside.path());
    symlink(outside.path(), place.path().join("data-web-0")).unwrap();
    let source = place.path().join("data-web-0").to_str().unwrap().to_owned();
    let task = Task::Save(vec![SaveClaim {
        name: "data-web-0".into(),
        source,
        folder: None,
        volume: None,
        shape: ClaimShape::default(),
        parent: None,
        parent_cut: None,
        change_detection: ChangeDetection::Metadata,
        exclude: Vec::new(),
    }]);
    let job = MoverJob {
        run: "run-1".into(),
        set: "shop/web".parse().unwrap(),
        ordinal: Ordinal(0),
        repository: "/nowhere".into(),
        memory: 64 << 20,
        task,
    };
    let started = folders(place.path()).start_mover(&job, b"").await;
    assert!(matches!(started, Err(PlatformError::NotAClaim { .. })));
    // Gone for the moment of the look: what is there by the time that a mover opens it was never looked at.
    fs::remove_file(place.path().join("data-web-0")).unwrap();
    let started = folders(place.path()).start_mover(&job, b"").await;
    assert!(matches!(started, Err(PlatformError::Exchanged { .. })));
}

/// What the user of a set can do while root works in the folder: exchange the claim and the journal for links, and plant marks.
fn hostile(root: &Path, outside: &Path, over: &AtomicBool) {
    let exchange = |a: &str, b: &str| {
        let _ = renameat_with(CWD, root.join(a), CWD, root.join(b), RenameFlags::EXCHANGE);
    };
    symlink(outside, root.join("link")).unwrap();
    while !over.load(Ordering::Relaxed) {
        exchange("data-web-0", "link");
        let _ = symlink(outside.join("shadow"), root.join("planted"));
        let _ = fs::rename(root.join("planted"), root.join(MARK));
        exchange("data-web-0", "link");
        let _ = symlink(outside.join("shadow"), root.join("planted"));
        let _ = fs::rename(root.join("planted"), root.join(JOURNAL));
        let _ = fs::remove_file(root.join(MARK));
        std::thread::yield_now();
        let _ = fs::remove_file(root.join(JOURNAL));
    }
}

#[tokio::test]
async fn who_owns_a_sets_folder_leads_no_restore_out_of_it() {
    let place = fast_folder();
    let outside = fast_folder();
    victim(outside.path());
    let root = place.path().to_owned();
    fs::create_dir(root.join("data-web-0")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let attacker = {
        let (root, outside, over) = (root.clone(), outside.path().to_owned(), Arc::clone(&over));
        std::thread::spawn(move || hostile(&root, &outside, &over))
    };
    let folders = folders(&root);
    let set: SetName = "shop/web".parse().unwrap();
    let mut done = 0;
    for _ in 0..2000 {
        let mut errors = Vec::new();
        errors.push(format!("{:?}", folders.read_set(&set).await));
        errors.push(format!("{:?}", folders.read_targets(&set, &[claim().id], true).await));
        match folders.open_journal(&set, "first\n").await {
            Ok(hold) => errors.extend(folders.close_journal(hold).await.err().map(|e| format!("{e:?}"))),
            Err(error) => errors.push(format!("{error:?}")),
        }
        match folders.take_journal(&set).await {
            Ok(Some((_, text))) => errors.push(text),
            Ok(None) => {}
            Err(error) => errors.push(format!("{error:?}")),
        }
        errors.extend(folders.open_claim("run-1", &claim(), FillMode::Replace).await.err().map(|e| format!("{e:?}")));
        match folders.abandon_claim("run-1", &claim(), false).await {
            Ok(()) => done += 1,
            Err(error) => errors.push(format!("{error:?}")),
        }
        assert!(!errors.concat().contains("geheim"), "{errors:?}");
    }
    over.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    assert_untouched(outside.path());
    assert!(done > 0, "the race was never won, so nothing was asked");
}
