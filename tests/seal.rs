//! Can a point be sealed that relies on what is gone, and does a prune in the middle of a real backup harm either of them?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use keepset::clock::Clock;
use keepset::monitor::Silent;
use keepset::repository::Repository;
use keepset::repository::error::RepositoryError;
use keepset::repository::key::KeyOrigin;
use keepset::repository::lock::LockOptions;
use keepset::repository::prune::{Limits, Prune, PruneOptions, PruneReport};
use keepset::store::fault::{Fault, Faulty, Gate, Kind};
use keepset::store::{Patience, Store};
use object_store::local::LocalFileSystem;
use tokio::sync::watch;

use support::house::{House, chain, names, the_living};
use support::restic::Restic;

async fn prune(house: &House, store: &Store) -> PruneReport {
    let repository = house.open(store).await.unwrap();
    let lock = LockOptions { identity: the_living(), wait: Duration::ZERO, clock: Clock::system() };
    let limits = Limits { max_unused: 0.0, max_repack: None };
    let options = PruneOptions { allow_no_snapshots: true, limits, dry_run: false, now: false, young: TimeDelta::zero(), memory: 32 << 20 };
    let (_asks, cancel) = watch::channel(false);
    Prune { repository: &repository, lock: &lock, options, monitor: &Silent, cancel }.run().await.unwrap()
}

/// Backs up while the first put into `folder` is held, and does `meanwhile` then.
async fn held<T>(
    house: &House,
    faulty: &Faulty,
    folder: &'static str,
    meanwhile: impl Future<Output = T>,
) -> (Result<keepset::backup::Sealed, support::house::Failure>, T) {
    let gate = Gate::default();
    let hold = gate.clone();
    faulty.obey(move |_, call| (call.kind == Kind::Put && call.key.starts_with(folder)).then(|| Fault::Held(hold.clone())));
    let store = faulty.store(Patience::local());
    let meanwhile = async {
        gate.reached().await;
        let done = meanwhile.await;
        gate.open();
        done
    };
    tokio::join!(house.backup(&store, the_living()), meanwhile)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_prune_that_meet_at_any_step_both_come_to_their_end() {
    for folder in ["x-keepset/runs", "data/", "index/", "snapshots/"] {
        let (mut house, base) = House::with_two_points().await;
        let memory = Arc::new(base);
        let faulty = Faulty::over(memory.clone());
        let store = Store::from_object_store(memory.clone(), "memory", Patience::local());
        // What the oldest point had alone is what the next backup stores again: its files come back.
        let oldest = *house.kept.keys().next().unwrap();
        house.forget(&store, &oldest, the_living()).await.unwrap();
        for claim in ["data-web-0", "data-web-1"] {
            let old = house.kept[&oldest].join(claim);
            for entry in fs::read_dir(&old).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file() && !path.is_symlink())
            {
                fs::copy(&entry, house.live().join(claim).join(entry.file_name().unwrap())).unwrap();
            }
        }
        house.kept.remove(&oldest);
        let (sealed, report) = held(&house, &faulty, folder, prune(&house, &store)).await;
        let sealed = sealed.unwrap();
        assert!(report.waiting_for.is_some(), "{folder}: {report:?}");
        house.keep(sealed.point);
        for round in 0..3 {
            house.prove(&store, &[], &format!("{folder}, round {round}")).await;
            prune(&house, &store).await;
        }
        house.restic_is_content(memory.as_ref(), folder).await;
        assert!(names(memory.as_ref(), "x-keepset").await.is_empty(), "{folder}");
        assert_eq!(house.check(&store).await.unwrap().findings, [], "{folder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_lock_was_removed_and_whose_packs_restic_pruned_makes_no_point() {
    let mut house = House::new(2);
    let folder = house.path("repository");
    let store = Store::create(&folder.to_str().unwrap().parse().unwrap(), &Default::default()).unwrap();
    Repository::init(store.clone(), &house.password, KeyOrigin::default()).await.unwrap();
    let sealed = house.backup(&store, the_living()).await.unwrap();
    house.keep(sealed.point);
    house.change(1);
    let faulty = Faulty::over(Arc::new(LocalFileSystem::new_with_prefix(&folder).unwrap()));
    let restic = Restic::new(folder.to_str().unwrap(), std::str::from_utf8(house.password.reveal()).unwrap());
    let before = names(&LocalFileSystem::new_with_prefix(&folder).unwrap(), "data").await;
    let rob = async {
        tokio::task::spawn_blocking(move || {
            restic.run(["unlock", "--remove-all"]);
            restic.run(["prune", "--max-unused", "0"]);
            restic.check();
        })
        .await
        .unwrap();
    };
    // The last thing that the second of two movers puts: what both have stored is in no snapshot, and goes.
    let mut reports = 0;
    let gate = Gate::default();
    let hold = gate.clone();
    faulty.obey(move |_, call| {
        reports += usize::from(call.kind == Kind::Put && call.key.starts_with("x-keepset/runs"));
        (reports == 3 && call.kind == Kind::Put && call.key.starts_with("x-keepset/runs")).then(|| Fault::Held(hold.clone()))
    });
    let failing = faulty.store(Patience::local());
    let robbing = async {
        gate.reached().await;
        rob.await;
        gate.open();
    };
    let (outcome, ()) = tokio::join!(house.backup(&failing, the_living()), robbing);
    let error = outcome.unwrap_err();
    let is_lost = matches!(error.downcast_ref(), Some(keepset::backup::BackupError::Repository(RepositoryError::LockLost { .. })));
    assert!(is_lost, "{}", chain(error.as_ref()));
    assert_eq!(names(&LocalFileSystem::new_with_prefix(&folder).unwrap(), "snapshots").await.len(), 1);
    assert!(names(&LocalFileSystem::new_with_prefix(&folder).unwrap(), "data").await.len() <= before.len());
    house.prove(&store, &[], "after the robbery").await;
    let sealed = house.backup(&store, the_living()).await.unwrap();
    house.prove_point(&store, &sealed.point, "the next one").await;
}
