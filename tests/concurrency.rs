//! Two at work in one repository, ourselves twice or with stock restic: is what anybody was told to be done whole?
//!
//! One is held at each of its operations of the store in turn while the other does all that it came for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keepset::backup::BackupError;
use keepset::clock::Clock;
use keepset::model::id::Id;
use keepset::repository::error::RepositoryError;
use keepset::store::fault::{Fault, Faulty, Gate, Kind, on};
use keepset::store::{Patience, Store};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use support::compare::compare;
use support::house::{Failure, House, chain, scratch, the_living};
use support::restic::Restic;
use tempfile::TempDir;

/// Lets `one` come to its `n`-th operation, then `other` do its work, then `one` go on. `None` once there is no such operation.
async fn in_between<A, B>(faulty: &Faulty, n: usize, one: impl Future<Output = A>, other: impl AsyncFnOnce() -> B) -> Option<(A, B)> {
    let gate = Gate::default();
    faulty.obey(on(n..=n, Fault::Held(gate.clone())));
    tokio::pin!(one);
    tokio::select! {
        _ = &mut one => return None,
        () = gate.reached() => {}
    }
    let done = {
        let other = other();
        tokio::pin!(other);
        // Whatever `one` does beside what is held goes on meanwhile; it cannot end.
        tokio::select! {
            done = &mut other => done,
            _ = &mut one => unreachable!("it is held"),
        }
    };
    gate.open();
    Some((one.await, done))
}

fn is_locked(error: &Failure) -> bool {
    let by_repository = matches!(error.downcast_ref(), Some(RepositoryError::Locked { .. }));
    by_repository || matches!(error.downcast_ref(), Some(BackupError::Repository(RepositoryError::Locked { .. })))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_backups_at_once_both_points_are_whole_whoever_is_first() {
    let (house, base) = House::with_two_points().await;
    for n in 0.. {
        let (memory, faulty) = support::house::faulty(&base);
        let store = faulty.store(Patience::local());
        let beside = Store::from_object_store(memory, "memory", Patience::local());
        let both = in_between(&faulty, n, house.backup(&store, the_living()), async || house.backup(&beside, the_living()).await).await;
        let Some((one, other)) = both else {
            assert!(n > 30, "{n}");
            return;
        };
        let about = format!("held at operation {n}");
        let mut sealed = [one.unwrap().point, other.unwrap().point];
        let mut new = house.prove(&beside, &[], &about).await;
        sealed.sort();
        new.sort();
        assert_eq!(new, sealed, "{about}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_beside_a_backup_or_a_restore_is_refused_or_comes_before_it() {
    let (house, base) = House::with_two_points().await;
    let goes = *house.kept.keys().next().unwrap();
    let mut refused = 0;
    for n in 0.. {
        let (memory, faulty) = support::house::faulty(&base);
        let store = faulty.store(Patience::local());
        let beside = Store::from_object_store(memory, "memory", Patience::local());
        let forget = async || house.forget(&beside, &goes, the_living()).await;
        let Some((backed_up, forgotten)) = in_between(&faulty, n, house.backup(&store, the_living()), forget).await else { break };
        let about = format!("held at operation {n}");
        let backed_up = backed_up.unwrap_or_else(|error| panic!("{about}: {}", chain(error.as_ref())));
        refused += usize::from(forgotten.as_ref().is_err_and(is_locked));
        assert!(forgotten.is_ok() || forgotten.as_ref().is_err_and(is_locked), "{about}");
        let gone = if forgotten.is_ok() { vec![goes] } else { Vec::new() };
        assert_eq!(house.prove(&beside, &gone, &about).await, [backed_up.point], "{about}");
    }
    assert!(refused > 25, "{refused}");
    // A restore of the very point that somebody forgets.
    for n in 0.. {
        let place = scratch();
        let back = place.path().join("back");
        let (memory, faulty) = support::house::faulty(&base);
        let store = faulty.store(Patience::local());
        let beside = Store::from_object_store(memory, "memory", Patience::local());
        let restore = house.restore(&store, &goes, &back, the_living());
        let forget = async || house.forget(&beside, &goes, the_living()).await;
        let Some((restored, forgotten)) = in_between(&faulty, n, restore, forget).await else { break };
        let about = format!("held at operation {n}");
        assert!(restored.is_ok() || forgotten.is_ok(), "{about}");
        if restored.is_ok() {
            for claim in ["data-web-0", "data-web-1"] {
                support::compare::assert_same(&house.kept[&goes].join(claim), &back.join(claim));
            }
        } else {
            assert!(!back.exists() || fs::read_dir(&back).unwrap().count() == 0, "{about}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_a_whole_restore_overtakes_seals_the_set_of_before_or_after_it_and_never_half_of_each() {
    let (house, base) = House::with_two_points().await;
    let [older, newest] = *house.kept.keys().copied().collect::<Vec<_>>() else { panic!("two points") };
    let claims = ["data-web-0", "data-web-1"];
    let is = |place: &Path, point: &Id| claims.iter().all(|claim| compare(&house.kept[point].join(claim), &place.join(claim)).is_empty());
    let mut refused = 0;
    for n in 0.. {
        let (memory, faulty) = support::house::faulty(&base);
        let store = faulty.store(Patience::local());
        let beside = Store::from_object_store(memory, "memory", Patience::local());
        house.restore_over(&beside, &newest).await.unwrap();
        let restore = async || house.restore_over(&beside, &older).await;
        let Some((backed_up, restored)) = in_between(&faulty, n, house.backup(&store, the_living()), restore).await else { break };
        let about = format!("held at operation {n}");
        restored.unwrap_or_else(|error| panic!("{about}: {}", chain(error.as_ref())));
        match backed_up {
            Ok(sealed) => {
                let place = scratch();
                let back = place.path().join("back");
                house.restore(&beside, &sealed.point, &back, the_living()).await.unwrap();
                assert!(is(&back, &newest) || is(&back, &older), "{about}: half of each");
            }
            Err(error) => {
                let error = chain(error.as_ref());
                assert!(error.contains("was restored while it was backed up"), "{about}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

/// A repository in a folder, which stock restic can open, under a store that can be held.
struct OnDisk {
    place: TempDir,
    faulty: Faulty,
    plain: Store,
}

impl OnDisk {
    async fn of(base: &InMemory) -> OnDisk {
        use futures::TryStreamExt;
        let place = scratch();
        let disk = Arc::new(LocalFileSystem::new_with_prefix(place.path()).unwrap());
        let listed: Vec<_> = base.list(None).try_collect().await.unwrap();
        for meta in listed {
            disk.put(&meta.location, base.get(&meta.location).await.unwrap().bytes().await.unwrap().into()).await.unwrap();
        }
        fs::create_dir_all(place.path().join("locks")).unwrap();
        let plain = Store::from_object_store(disk.clone(), "disk", Patience::local());
        OnDisk { place, faulty: Faulty::over(disk), plain }
    }

    fn restic(&self, house: &House) -> Restic {
        Restic::new(self.place.path().to_str().unwrap(), std::str::from_utf8(house.password.reveal()).unwrap())
    }
}

/// A house whose older point was forgotten, but not pruned, and whose volumes are as they were then: a backup finds all that it stores in
/// packs that nobody needs, and that the next prune takes away.
async fn on_thin_ice() -> (House, InMemory, Id) {
    let (mut house, base) = House::with_two_points().await;
    let store = Store::from_object_store(Arc::new(base.fork()), "memory", Patience::local());
    let older = house.points(&store).await.unwrap().points[0].point.id;
    let path = format!("snapshots/{older}");
    base.delete(&path.as_str().into()).await.unwrap();
    fs::remove_dir_all(house.live()).unwrap();
    fs::rename(house.kept.remove(&older).unwrap(), house.live()).unwrap();
    (house, base, older)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_prune_beside_a_backup_is_refused_or_makes_the_backup_store_anew() {
    let (house, base, _) = on_thin_ice().await;
    let (mut pruned, mut sealed) = (0, 0);
    for n in (0..).step_by(3) {
        let ground = OnDisk::of(&base).await;
        let store = ground.faulty.store(Patience::local());
        let restic = ground.restic(&house);
        let prune = async || tokio::task::spawn_blocking(move || restic.try_run(["prune"]).status.success()).await.unwrap();
        let Some((outcome, done)) = in_between(&ground.faulty, n, house.backup(&store, the_living()), prune).await else { break };
        let about = format!(
            "held at operation {n}, pruned: {done}, outcome: {:?}",
            outcome.as_ref().map(|sealed| sealed.point).map_err(|error| chain(error.as_ref()))
        );
        let new = house.prove(&ground.plain, &[], &about).await;
        assert_eq!(new.len(), usize::from(outcome.is_ok()), "{about}");
        assert!(done || outcome.is_ok(), "only a prune can come between: {about}");
        pruned += usize::from(done);
        sealed += usize::from(outcome.is_ok());
        ground.restic(&house).check();
        house.backup(&ground.plain, the_living()).await.unwrap();
    }
    assert!(pruned >= 1 && sealed >= 8, "{pruned} pruned, {sealed} sealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_lock_was_removed_by_force_before_a_stock_prune_never_seals_what_is_gone() {
    let (house, base, _) = on_thin_ice().await;
    let (mut lost, mut sealed, mut mended) = (0, 0, 0);
    for n in 0.. {
        let ground = OnDisk::of(&base).await;
        let store = ground.faulty.store(Patience::local());
        let restic = ground.restic(&house);
        let prune = async || {
            let work = move || {
                restic.run(["unlock", "--remove-all"]);
                restic.run(["prune"]);
            };
            tokio::task::spawn_blocking(work).await.unwrap();
        };
        let Some((outcome, ())) = in_between(&ground.faulty, n, house.backup(&store, the_living()), prune).await else { break };
        let about = format!(
            "held at operation {n}, outcome: {:?}",
            outcome.as_ref().map(|sealed| sealed.point).map_err(|error| chain(error.as_ref()))
        );
        // A mover that went on may have put an index of packs that are gone by then: no point needs them, but stock restic minds.
        let new = house.prove_points(&ground.plain, &[], &about).await;
        assert_eq!(new.len(), usize::from(outcome.is_ok()), "{about}");
        sealed += usize::from(outcome.is_ok());
        lost += usize::from(outcome.is_err());
        match house.backup(&ground.plain, the_living()).await {
            Ok(_) => {}
            Err(error) if matches!(error.downcast_ref(), Some(BackupError::Vanished { .. })) => {
                assert!(!house.repair_index(&ground.plain, the_living()).await.unwrap().packs_gone.is_empty(), "{about}");
                house.backup(&ground.plain, the_living()).await.unwrap();
                house.prove(&ground.plain, &[], &about).await;
                mended += 1;
            }
            Err(error) => panic!("{about}: the next one fails: {}", chain(error.as_ref())),
        }
    }
    // Held before its lock stands, or after the seal, it succeeds.
    assert!(lost > 20 && sealed >= 3 && mended < lost / 2, "{lost} lost, {sealed} sealed, {mended} mended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_slept_for_twenty_minutes_seals_nothing_whatever_others_did_meanwhile() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (mut house, base) = House::with_two_points().await;
    for (prefix, with_restic) in [("x-keepset/runs", false), ("snapshots/", false), ("x-keepset/runs", true), ("snapshots/", true)] {
        let ground = OnDisk::of(&base).await;
        // Its lock is half an hour old to whoever looks at it by the clock on the wall, and fresh to itself.
        house.clock = Clock::manual((Clock::system().now() - chrono::TimeDelta::minutes(31)).timestamp_millis());
        let gate = Gate::default();
        let held = gate.clone();
        ground.faulty.obey(move |_, call| (call.kind == Kind::Put && call.key.starts_with(prefix)).then(|| Fault::Held(held.clone())));
        let store = ground.faulty.store(Patience::local());
        let sleeper = async {
            gate.reached().await;
            if with_restic {
                let restic = ground.restic(&house);
                let work = move || {
                    // A plain one: the lock looks stale to it.
                    restic.run(["unlock"]);
                    restic.run(["prune"]);
                };
                tokio::task::spawn_blocking(work).await.unwrap();
                assert_eq!(ground.plain.list("locks").await.unwrap(), [], "restic left the lock");
            }
            house.clock.advance(20 * MINUTE);
            gate.open();
        };
        let (outcome, ()) = tokio::join!(house.backup(&store, the_living()), sleeper);
        let error = outcome.unwrap_err();
        let about = format!("held at {prefix}, with restic: {with_restic}, told: {}", chain(error.as_ref()));
        assert!(matches!(error.downcast_ref(), Some(BackupError::Repository(RepositoryError::LockLost { .. }))), "{about}");
        house.clock = Clock::system();
        assert_eq!(house.prove(&ground.plain, &[], &about).await, [], "{about}");
        ground.restic(&house).check();
        house.backup(&ground.plain, the_living()).await.unwrap();
    }
}
