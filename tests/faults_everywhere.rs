//! Whatever operation of the store fails, in whatever way: are older points whole, is failure told, does the next run succeed?
//!
//! The n-th operation fails, for each n up to the one that is not reached any more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepset::backup::BackupError;
use keepset::clock::Clock;
use keepset::monitor::Silent;
use keepset::repository::check::PointState;
use keepset::repository::codec::id_of;
use keepset::repository::error::RepositoryError;
use keepset::repository::index::Index;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::lock::{Lock, LockIdentity, LockOptions, Mode, unlock};
use keepset::repository::pack::{self, BlobKind};
use keepset::repository::{Repository, passwords};
use keepset::store::fault::{Call, Fault, Kind};
use keepset::store::{Patience, Store};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use support::house::{Failure, House, JOURNAL, chain, faulty, names, scratch, the_dead, the_living};

/// In which way the n-th operation fails, of those that can fail so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Once, before it has done anything.
    Before,
    /// Once, after it was done.
    After,
    /// Once, when half of it was done. A put has no half: stores keep whole objects or none.
    Midway,
    /// Then and ever after.
    Dead,
    /// A list does not know what was put or deleted last.
    Stale,
    /// A get ends early, and nothing says so.
    Short,
    /// One bit of what a get brings is another one.
    Flip,
}

const WAYS: [Way; 4] = [Way::Before, Way::After, Way::Midway, Way::Dead];
/// What no store should do, and a network or a cache in between may.
const LIES: [Way; 3] = [Way::Stale, Way::Short, Way::Flip];

impl Way {
    fn befalls(self, kind: Kind) -> bool {
        match self {
            Way::Stale => kind == Kind::List,
            Way::Short | Way::Flip => kind == Kind::Get,
            _ => true,
        }
    }

    fn rule(self, n: usize) -> impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static {
        let mut number = 0;
        move |_, call| {
            if !self.befalls(call.kind) {
                return None;
            }
            number += 1;
            (number == n + 1).then(|| match self {
                Way::Before => Fault::Before,
                Way::After => Fault::After,
                Way::Midway if matches!(call.kind, Kind::Put | Kind::Head) => Fault::Busy,
                Way::Midway => Fault::Torn,
                Way::Dead => Fault::Dead,
                Way::Stale => Fault::Stale(1 + n % 3),
                Way::Short => Fault::Short,
                Way::Flip => Fault::Flip(n as u64),
            })
        }
    }
}

/// One run against a store whose n-th operation failed.
struct Run<'a> {
    house: &'a House,
    store: Store,
    outcome: Result<(), Failure>,
    /// The call that failed first.
    failed: Call,
    /// What failed, for messages.
    about: String,
}

/// When stock restic is asked what it thinks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Oracle {
    /// As the failure left everything.
    AtOnce,
    /// After the judge has put right what stock restic would rightly mind: that was so before, or there is nothing yet.
    Later,
    /// Not at all: there is damage, which it would rightly mind.
    None,
}

/// Runs `work` with each operation failing in turn, and lets `judge` look at what is left, on a store that works again. Returns how many
/// operations there were.
async fn sweep<'a>(
    house: &'a House,
    base: &InMemory,
    way: Way,
    oracle: Oracle,
    work: impl AsyncFn(Store) -> Result<(), Failure>,
    judge: impl AsyncFn(Run<'a>),
) -> usize {
    for n in 0.. {
        let (memory, faulty) = faulty(base);
        faulty.obey(way.rule(n));
        let outcome = work(faulty.store(Patience::local())).await;
        if faulty.fired() == 0 {
            outcome.unwrap();
            return n;
        }
        let failed = faulty.calls().into_iter().filter(|call| way.befalls(call.kind)).nth(n).unwrap();
        faulty.heal();
        let told = outcome.as_ref().err().map_or_else(|| "success".to_owned(), |error| chain(error.as_ref()));
        let about = format!("{way:?}: operation {n}, {:?} of {}, failed; told was: {told}", failed.kind, failed.key);
        // A run that ends takes its lock with it, unless it was the lock itself that the store failed over.
        if way != Way::Dead && !failed.key.starts_with("locks/") {
            let before = names(base, "locks").await;
            assert!(names(memory.as_ref(), "locks").await.iter().all(|lock| before.contains(lock)), "{about}");
        }
        let crashed = memory.fork();
        judge(Run { house, store: faulty.store(Patience::local()), outcome, failed, about: about.clone() }).await;
        // A lie told to one reader leaves nothing that another could see.
        if WAYS.contains(&way) && oracle != Oracle::None {
            let state = if oracle == Oracle::AtOnce { &crashed } else { memory.as_ref() };
            house.restic_is_content(state, &about).await;
        }
    }
    unreachable!("some number is not reached")
}

fn is_refusal(error: &Failure) -> bool {
    matches!(error.downcast_ref(), Some(RepositoryError::Refused { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_anywhere_leaves_whole_points_and_the_next_one_succeeds() {
    let (house, base) = House::with_two_points().await;
    for way in WAYS.into_iter().chain(LIES) {
        let work = async |store: Store| house.backup(&store, the_dead()).await.map(|_| ());
        let judge = async |run: Run<'_>| {
            let new = run.house.prove(&run.store, &[], &run.about).await;
            match &run.outcome {
                // What comes after the seal, its own tidying, may fail without harm.
                Ok(()) => assert_eq!(new.len(), 1, "{}", run.about),
                Err(error) => {
                    let in_doubt = matches!(error.downcast_ref(), Some(BackupError::Unconfirmed(_)));
                    assert_eq!(in_doubt, run.failed.key.starts_with("snapshots/") && run.failed.kind == Kind::Put, "{}", run.about);
                    assert!(new.len() <= usize::from(in_doubt && way == Way::After), "{}", run.about);
                }
            }
            let sealed = run.house.backup(&run.store, the_living()).await.unwrap();
            run.house.prove_point(&run.store, &sealed.point, &run.about).await;
        };
        let operations = sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
        assert!(operations > if WAYS.contains(&way) { 30 } else { 10 }, "{way:?}: {operations}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_backup_that_fails_anywhere_leaves_nothing_that_counts() {
    let house = House::new(2);
    let base = Arc::new(InMemory::new());
    let store = Store::from_object_store(base.clone(), "memory", Patience::local());
    Repository::init(store, &house.password, KeyOrigin::default()).await.unwrap();
    for way in WAYS {
        let work = async |store: Store| house.backup(&store, the_dead()).await.map(|_| ());
        let judge = async |run: Run<'_>| {
            let new = run.house.prove(&run.store, &[], &run.about).await;
            let in_doubt = run.failed.key.starts_with("snapshots/") && way == Way::After;
            assert_eq!(new.len(), usize::from(run.outcome.is_ok() || in_doubt), "{}", run.about);
            run.house.backup(&run.store, the_living()).await.unwrap();
        };
        sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_anywhere_leaves_no_half_volume_behind_and_the_next_one_succeeds() {
    let (house, base) = House::with_two_points().await;
    let point = *house.kept.keys().next().unwrap();
    for way in WAYS.into_iter().chain(LIES) {
        let place = scratch();
        let back = place.path().join("back");
        let work = async |store: Store| {
            let _ = std::fs::remove_dir_all(&back);
            house.restore(&store, &point, &back, the_dead()).await.map(|_| ())
        };
        let judge = async |run: Run<'_>| {
            for entry in std::fs::read_dir(&back).into_iter().flatten() {
                // What is there is whole; what is not whole is gone, with the mark that stood beside it.
                let name = entry.unwrap().file_name();
                if name == JOURNAL {
                    continue;
                }
                support::compare::assert_same(&run.house.kept[&point].join(&name), &back.join(&name));
            }
            assert_eq!(run.outcome.is_ok(), back.join("data-web-1").exists(), "{}", run.about);
            assert_eq!(run.outcome.is_err() && back.join("data-web-0").exists(), back.join(JOURNAL).exists(), "{}", run.about);
            if back.join(JOURNAL).exists() {
                run.house.resume(&run.store, &back).await.unwrap();
                for claim in ["data-web-0", "data-web-1"] {
                    support::compare::assert_same(&run.house.kept[&point].join(claim), &back.join(claim));
                }
            }
            assert_eq!(run.house.prove(&run.store, &[], &run.about).await, [], "{}", run.about);
        };
        let operations = sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
        assert!(operations > if WAYS.contains(&way) { 25 } else { 4 }, "{way:?}: {operations}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_that_fails_anywhere_removes_what_it_was_told_or_nothing() {
    let (house, base) = House::with_two_points().await;
    let goes = *house.kept.keys().next().unwrap();
    for way in WAYS.into_iter().chain(LIES) {
        let work = async |store: Store| house.forget(&store, &goes, the_dead()).await;
        let judge = async |run: Run<'_>| {
            assert_eq!(run.house.prove(&run.store, &[goes], &run.about).await, [], "{}", run.about);
            run.house.forget(&run.store, &goes, the_living()).await.unwrap();
            let left = run.house.points(&run.store).await.unwrap().points;
            assert_eq!(left.len(), 1, "{}", run.about);
        };
        sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
    }
}

async fn names_of(store: &Store, folder: &str) -> usize {
    store.list(folder).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_fail_to_come_or_go_never_lock_anybody_out() {
    let (house, base) = House::with_two_points().await;
    let second = Password::generate().unwrap();
    let clock = Clock::system();
    for way in WAYS {
        let work = async |store: Store| {
            let repository = house.open(&store).await?;
            passwords::add(&repository, &second, "root", "vm", &clock).await?;
            Ok(())
        };
        let judge = async |run: Run<'_>| {
            let repository = run.house.open(&run.store).await.unwrap();
            match passwords::add(&repository, &second, "root", "vm", &clock).await {
                Ok(_) => {}
                // It was there although nobody could say so.
                Err(RepositoryError::Refused { .. }) => {}
                Err(error) => panic!("{}: {error}", run.about),
            }
            Repository::open(run.store.clone(), &second).await.unwrap();
            assert_eq!(run.house.prove(&run.store, &[], &run.about).await, []);
        };
        sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
    }
    // With both in place, the first one goes.
    let with_both = Arc::new(base.fork());
    let store = Store::from_object_store(with_both.clone(), "memory", Patience::local());
    let repository = house.open(&store).await.unwrap();
    let first = passwords::list(&repository, &house.password).await.unwrap().remove(0).id;
    passwords::add(&repository, &second, "root", "vm", &clock).await.unwrap();
    for way in WAYS {
        let work = async |store: Store| {
            let repository = Repository::open(store, &second).await?;
            passwords::remove(&repository, &first.hex(), &second).await?;
            Ok(())
        };
        let judge = async |run: Run<'_>| {
            let repository = Repository::open(run.store.clone(), &second).await.unwrap();
            if let Err(error) = passwords::remove(&repository, &first.hex(), &second).await {
                assert!(is_refusal(&error.into()) && (run.outcome.is_ok() || way != Way::Before), "{}", run.about);
            }
            assert!(
                matches!(run.house.open(&run.store).await, Err(error) if matches!(error.downcast_ref(), Some(RepositoryError::WrongPassword { .. })))
            );
            // As it was, for the eyes of stock restic, which knows the first password.
            passwords::add(&repository, &run.house.password, "root", "vm", &clock).await.unwrap();
        };
        sweep(&house, &with_both, way, Oracle::Later, work, judge).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_fails_to_be_replaced_leaves_one_that_opens_and_the_same_call_finishes_it() {
    let (house, base) = House::with_two_points().await;
    let (first, second) = (&house.password, Password::generate().unwrap());
    let clock = Clock::system();
    for way in WAYS.into_iter().chain(LIES) {
        let work = async |store: Store| {
            passwords::replace(&house.open(&store).await?, first, &second, "root", "vm", &clock).await?;
            Ok(())
        };
        let judge = async |run: Run<'_>| {
            let opens = async |password: &Password| match Repository::open(run.store.clone(), password).await {
                Ok(repository) => Some(repository),
                Err(RepositoryError::WrongPassword { .. }) => None,
                Err(error) => panic!("{}: {error}", run.about),
            };
            let by_first = opens(first).await;
            assert!(by_first.is_some() || opens(&second).await.is_some(), "locked out: {}", run.about);
            assert!(run.outcome.is_err() || by_first.is_none(), "the old one stayed: {}", run.about);
            if let Some(repository) = by_first {
                passwords::replace(&repository, first, &second, "root", "vm", &clock).await.unwrap();
            }
            assert!(opens(first).await.is_none(), "{}", run.about);
            let repository = opens(&second).await.unwrap();
            assert_eq!(names_of(&run.store, "keys").await, 1, "{}", run.about);
            // As it was, for those who know the first one.
            passwords::replace(&repository, &second, first, "root", "vm", &clock).await.unwrap();
            assert_eq!(run.house.prove(&run.store, &[], &run.about).await, []);
        };
        let operations = sweep(&house, &base, way, Oracle::Later, work, judge).await;
        assert!(operations > if WAYS.contains(&way) { 10 } else { 3 }, "{way:?}: {operations}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_fails_anywhere_is_taken_up_again_by_the_same_password() {
    let house = House::new(1);
    let base = InMemory::new();
    for way in WAYS {
        let work = async |store: Store| {
            store.probe(&Clock::system()).await?;
            Repository::init(store, &house.password, KeyOrigin::default()).await?;
            Ok(())
        };
        let judge = async |run: Run<'_>| {
            match Repository::init(run.store.clone(), &run.house.password, KeyOrigin::default()).await {
                Ok(_) => assert!(run.outcome.is_err(), "{}", run.about),
                Err(RepositoryError::AlreadyThere { .. }) => assert!(run.outcome.is_ok() || run.failed.key == "config", "{}", run.about),
                Err(error) => panic!("{}: {error}", run.about),
            }
            assert_eq!(names_of(&run.store, "keys").await, 1, "{}", run.about);
            let repository = run.house.open(&run.store).await.unwrap();
            repository.put_side("x-keepset/test", b"it works").await.unwrap();
            run.house.backup(&run.store, the_living()).await.unwrap();
        };
        sweep(&house, &base, way, Oracle::Later, work, judge).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_and_an_unlock_that_fail_anywhere_change_nothing_else() {
    let (house, base) = House::with_two_points().await;
    for way in WAYS {
        let work = async |store: Store| {
            let repository = house.open(&store).await?;
            let options = LockOptions { identity: the_dead(), wait: Duration::ZERO, clock: house.clock.clone() };
            let lock = Lock::acquire(&repository, Mode::Reading, &options, &Silent).await?;
            let report = house.check(&store).await;
            lock.release().await?;
            // Findings are for what is damaged, errors for what could not be looked at.
            assert!(report?.is_sound(), "an outage was taken for damage");
            Ok(())
        };
        let judge = async |run: Run<'_>| assert_eq!(run.house.prove(&run.store, &[], &run.about).await, []);
        sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
    }
    // Three locks of the dead, one of the living.
    let locked = Arc::new(base.fork());
    let store = Store::from_object_store(locked.clone(), "memory", Patience::local());
    let repository = house.open(&store).await.unwrap();
    let options = |identity| LockOptions { identity, wait: Duration::ZERO, clock: house.clock.clone() };
    let mut held = Vec::new();
    for identity in [the_dead(), the_dead(), the_dead(), the_living()] {
        held.push(Lock::acquire(&repository, Mode::Shared, &options(identity), &Silent).await.unwrap());
    }
    let locked = locked.fork();
    for way in WAYS {
        let work = async |store: Store| {
            let repository = house.open(&store).await?;
            unlock(&repository, false, &the_living().hostname, &house.clock).await?;
            Ok(())
        };
        let judge = async |run: Run<'_>| {
            let repository = run.house.open(&run.store).await.unwrap();
            unlock(&repository, false, &the_living().hostname, &run.house.clock).await.unwrap();
            assert_eq!(names_of(&run.store, "locks").await, 1, "{}", run.about);
            assert_eq!(run.house.prove(&run.store, &[], &run.about).await, []);
            unlock(&repository, true, "", &run.house.clock).await.unwrap();
        };
        sweep(&house, &locked, way, Oracle::AtOnce, work, judge).await;
    }
}

/// What `keepset repair points` does: the state of every point, by all bytes, under a lock.
async fn states(house: &House, store: &Store, identity: LockIdentity) -> Result<Vec<PointState>, Failure> {
    let repository = house.open(store).await?;
    let options = LockOptions { identity, wait: Duration::ZERO, clock: house.clock.clone() };
    let lock = Lock::acquire(&repository, Mode::Reading, &options, &Silent).await?;
    let report = house.check(store).await;
    let released = lock.release().await;
    let report = report?;
    released?;
    Ok(report.points)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_damaged_points_is_all_that_is_lost_or_an_error_whatever_fails_and_nothing_is_written() {
    let (mut house, base) = House::with_two_points().await;
    let (memory, _) = faulty(&base);
    let store = Store::from_object_store(memory.clone(), "memory", Patience::local());
    let points = house.points(&store).await.unwrap().points;
    let (older, newer) = (points[0].point.id, points[1].point.id);
    // A pack that came with the newer point is gone: of it some files are lost, the older one is whole.
    let repository = house.open(&store).await.unwrap();
    let index = Index::load(&repository).await.unwrap();
    let new = std::fs::read(house.kept[&newer].join("data-web-0/new-1")).unwrap();
    let lost = index.find(BlobKind::Data, &id_of(&new)).expect("one chunk").pack;
    store.delete(&[pack::key(&lost)]).await.unwrap();
    let expected = states(&house, &store, the_living()).await.unwrap();
    assert_eq!(expected.iter().map(|point| (point.id, point.whole)).collect::<Vec<_>>(), [(older, true), (newer, false)]);
    house.kept.remove(&newer);
    let before = store.list("").await.unwrap();
    let base = memory.fork();
    for way in WAYS.into_iter().chain(LIES) {
        let told = Mutex::new(None);
        let work = async |store: Store| {
            *told.lock().unwrap() = None;
            let states = states(&house, &store, the_dead()).await?;
            *told.lock().unwrap() = Some(states);
            Ok(())
        };
        let judge = async |run: Run<'_>| {
            let told = told.lock().unwrap().take();
            // A lie may pass for damage, as rot would; what is lost is told all the same, and an outage is never taken for a loss.
            if let Some(told) = told {
                let hides_a_loss = told.iter().any(|point| point.id == newer && point.whole);
                assert!(told == expected || (LIES.contains(&way) && !hides_a_loss), "{}: {told:?}", run.about);
            }
            unlock(&run.house.open(&run.store).await.unwrap(), false, &the_living().hostname, &run.house.clock).await.unwrap();
            assert_eq!(run.store.list("").await.unwrap(), before, "{}", run.about);
            assert_eq!(states(run.house, &run.store, the_living()).await.unwrap(), expected, "{}", run.about);
            run.house.prove_point(&run.store, &older, &run.about).await;
        };
        let operations = sweep(&house, &base, way, Oracle::None, work, judge).await;
        assert!(operations > if WAYS.contains(&way) { 25 } else { 5 }, "{way:?}: {operations}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_and_a_repair_that_fail_anywhere_lose_nothing_and_the_next_call_finishes_the_work() {
    let (mut house, base) = House::with_two_points().await;
    // The older point was forgotten; a run died between its packs and their index.
    let (memory, faulty) = faulty(&base);
    let store = faulty.store(Patience::local());
    let older = house.points(&store).await.unwrap().points[0].point.id;
    store.delete(&[format!("snapshots/{older}")]).await.unwrap();
    house.kept.remove(&older);
    faulty.obey(|_, call| (call.kind == Kind::Put && call.key.starts_with("index/")).then_some(Fault::Dead));
    house.backup(&store, the_dead()).await.unwrap_err();
    let base = memory.fork();
    let packs_at_first = names(&base, "data").await.len();
    for way in WAYS {
        let work = async |store: Store| house.prune(&store, the_dead()).await.map(|_| ());
        let judge = async |run: Run<'_>| {
            // Stock restic looks at the bytes.
            assert_eq!(run.house.prove_points(&run.store, &[], &run.about).await, [], "{}", run.about);
            for _ in 0..2 {
                run.house.prune(&run.store, the_living()).await.unwrap();
            }
            assert_eq!(run.house.prove(&run.store, &[], &run.about).await, [], "{}", run.about);
            let idle = run.house.prune(&run.store, the_living()).await.unwrap();
            assert_eq!((idle.condemned.packs, idle.deleted.packs), (0, 0), "{}", run.about);
            assert!(names_of(&run.store, "data").await < packs_at_first, "{}", run.about);
            assert_eq!(names_of(&run.store, "x-keepset/prune").await, 0, "{}", run.about);
        };
        let operations = sweep(&house, &base, way, Oracle::AtOnce, work, judge).await;
        assert!(operations > 40, "{operations}");
    }
    // One index object is lost, and the packs of the dead run are in none.
    let lost = names(&base, "index").await.remove(0);
    base.delete(&lost.as_str().into()).await.unwrap();
    for way in WAYS {
        let work = async |store: Store| house.repair_index(&store, the_dead()).await.map(|_| ());
        let judge = async |run: Run<'_>| {
            run.house.repair_index(&run.store, the_living()).await.unwrap();
            assert_eq!(run.house.prove(&run.store, &[], &run.about).await, [], "{}", run.about);
            assert!(!run.house.repair_index(&run.store, the_living()).await.unwrap().is_change(), "{}", run.about);
        };
        sweep(&house, &base, way, Oracle::Later, work, judge).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_refreshed_for_a_while_stands_all_the_same_and_one_that_never_can_is_lost_in_time() {
    const MINUTE: Duration = Duration::from_secs(60);
    let house = House::new(1);
    let base = Arc::new(InMemory::new());
    let store = Store::from_object_store(base.clone(), "memory", Patience::local());
    Repository::init(store, &house.password, KeyOrigin::default()).await.unwrap();
    for mode in [Mode::Shared, Mode::Exclusive] {
        for way in WAYS {
            let mut reached = 0;
            for n in 0.. {
                let (memory, faulty) = faulty(&base);
                let store = faulty.store(Patience::local());
                let repository = house.open(&store).await.unwrap();
                let clock = Clock::manual(Clock::system().now().timestamp_millis());
                let options = LockOptions { identity: the_dead(), wait: Duration::ZERO, clock: clock.clone() };
                faulty.obey(way.rule(n));
                let lock = match Lock::acquire(&repository, mode, &options, &Silent).await {
                    Ok(lock) => lock,
                    Err(error) => {
                        assert!(faulty.fired() > 0 && matches!(error, RepositoryError::Store(_)), "{way:?} {n}: {error}");
                        continue;
                    }
                };
                // Three refreshes and what has to be tried again.
                for minute in 0..8 {
                    tokio::time::sleep(MINUTE).await;
                    clock.advance(MINUTE);
                    let standing = names(memory.as_ref(), "locks").await.len();
                    assert!((1..4).contains(&standing), "{way:?} {n}: {standing} locks after {minute} minutes");
                }
                if faulty.fired() == 0 {
                    if lock.release().await.is_ok() {
                        break;
                    }
                    assert!(faulty.fired() > 0 && names(memory.as_ref(), "locks").await.len() <= 1, "{way:?} {n}");
                    continue;
                }
                reached += 1;
                if way == Way::Dead {
                    let began = tokio::time::Instant::now();
                    let later = async {
                        loop {
                            tokio::time::sleep(MINUTE / 6).await;
                            clock.advance(MINUTE / 6);
                        }
                    };
                    tokio::select! {
                        lost = lock.lost() => assert!(lost.to_string().contains("20 minutes"), "{lost}"),
                        () = later => unreachable!("it goes on for ever"),
                    }
                    assert!(began.elapsed() < 21 * MINUTE, "{:?}", began.elapsed());
                    continue;
                }
                lock.prove().await.unwrap();
                lock.release().await.unwrap();
                assert_eq!(names(memory.as_ref(), "locks").await, [""; 0], "{way:?} {n}");
            }
            assert!(reached >= 6, "{way:?}: {reached}");
        }
    }
}
