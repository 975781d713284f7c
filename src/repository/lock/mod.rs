//! Who may do what to the repository at the same time: restic's locks, so that stock restic and this program respect each other.
//!
//! A lock is an object below `locks/`. Shared ones stand beside each other, an exclusive one stands alone. Taking one is list, put, list
//! again; whoever then sees a conflict takes its own back. An exclusive locker waits 200 ms before its second list. A shared one need not:
//! the stores that are supported show an object in every list that begins after its put, so either this one's second list shows the
//! exclusive lock, or that one's does this lock; and [`Lock::prove`] looks once more before a seal. A holder refreshes every 2 minutes by
//! writing the new object before it removes the old one. One that could not refresh for 20 minutes must take its lock for lost, 10 minutes
//! before others may. A lock that excludes one that is held, and is not refreshed, is of a locker that died before it withdrew.

mod record;
mod refresh;
mod survey;

pub use record::{LockIdentity, LockRecord};
pub use survey::{Standing, locks, unlock};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::id::Id;
use crate::monitor::{Event, Monitor};
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::store::ErrorKind;

/// Between the put and the second list: what two that began together need to see each other.
const SETTLE: Duration = Duration::from_millis(200);
/// How long a lock is good for without a refresh.
const LOST_AFTER: Duration = Duration::from_secs(20 * 60);
/// Whoever holds a lock has refreshed it twice in this time; one that came too late has withdrawn, unless it died before it could.
const CONTENDS: Duration = Duration::from_secs(5 * 60);

/// What a lock allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Adding and reading.
    Shared,
    /// Reading: a shared lock, or none where the store cannot be written to, which is told as a warning.
    Reading,
    /// Removing.
    Exclusive,
}

/// How to take a lock.
#[derive(Clone, Debug)]
pub struct LockOptions {
    pub identity: LockIdentity,
    /// How long to wait for others; zero fails at once.
    pub wait: Duration,
    pub clock: Clock,
}

/// A lock that is held and kept fresh by a background task until [`Lock::release`].
///
/// Dropping it stops the refreshing and removes the object if the runtime lives on; a process that is killed leaves an object that the
/// next run on this machine removes.
#[derive(Debug)]
pub struct Lock(Option<Held>);

#[derive(Debug)]
struct Held {
    core: Arc<Core>,
    task: JoinHandle<()>,
    waited: bool,
}

/// What the holder and the refreshing task share.
struct Core {
    repository: Repository,
    options: LockOptions,
    exclusive: bool,
    nonce: String,
    state: Mutex<State>,
    /// Why the lock is lost, once it is.
    lost: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("nonce", &self.nonce).field("exclusive", &self.exclusive).finish_non_exhaustive()
    }
}

struct State {
    /// The object that stands for the lock now, and those whose removal failed.
    current: Id,
    old: Vec<Id>,
    /// A put failed and may have made an object whose name is not known.
    uncertain: bool,
    /// Locks that somebody put while this one stood, and left behind: they never held anything.
    left: HashSet<String>,
    /// When `current` was written. Both clocks count: the wall clock goes on while a machine sleeps, the other cannot be set back.
    written: (DateTime<Utc>, Instant),
}

impl Lock {
    /// Takes a lock, waiting for whoever is in the way as long as the options say; the monitor is told for whom. Locks of our own whose
    /// owners are provably dead are removed on the way. [`RepositoryError::Locked`] names who is in the way.
    pub async fn acquire(
        repository: &Repository,
        mode: Mode,
        options: &LockOptions,
        monitor: &dyn Monitor,
    ) -> Result<Lock, RepositoryError> {
        let exclusive = mode == Mode::Exclusive;
        let nonce = nonce()?;
        outlive_restics_question();
        let deadline = Instant::now() + options.wait;
        let mut pause = Duration::from_millis(500);
        let mut told = None;
        loop {
            let holder = match attempt(repository, exclusive, &nonce, options).await {
                Ok(Attempt::Held(state)) => {
                    let mut lock = Lock::keep(repository, exclusive, nonce, options, state);
                    lock.0.as_mut().expect("just made").waited = told.is_some();
                    return Ok(lock);
                }
                Ok(Attempt::Conflict(holder)) => holder,
                Err(RepositoryError::Store(error))
                    if mode == Mode::Reading && matches!(error.kind, ErrorKind::Denied | ErrorKind::ReadOnly) =>
                {
                    monitor.event(Event::Warning(format!(
                        "no lock is held: {} cannot be written to, so do not prune it while this runs",
                        repository.store().location()
                    )));
                    return Ok(Lock(None));
                }
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            if now >= deadline {
                return Err(RepositoryError::Locked { location: repository.store().location().to_owned(), holder });
            }
            if told.as_ref() != Some(&holder) {
                monitor.event(Event::Step(format!("waiting for {holder}")));
                told = Some(holder);
            }
            // Two that back off from each other must not come back together.
            let jittered = pause.mul_f64(0.5 + f64::from(random_byte()?) / 510.0);
            tokio::time::sleep(jittered.min(deadline - now)).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    fn keep(repository: &Repository, exclusive: bool, nonce: String, options: &LockOptions, state: State) -> Lock {
        let core = Arc::new(Core {
            repository: repository.clone(),
            options: options.clone(),
            exclusive,
            nonce,
            state: Mutex::new(state),
            lost: watch::Sender::new(None),
        });
        Lock(Some(Held { task: tokio::spawn(refresh::run(Arc::clone(&core))), core, waited: false }))
    }

    /// Somebody else held the repository at first: what was read of it meanwhile may be out of date.
    pub fn waited(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.waited)
    }

    /// Nobody else holds anything.
    pub fn is_exclusive(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.core.exclusive)
    }

    /// Every lock on the repository but this one. Locks of our own whose owners are provably dead are removed on the way.
    pub async fn others(&self) -> Result<Vec<Standing>, RepositoryError> {
        let Some(held) = &self.0 else { return Ok(Vec::new()) };
        let core = &held.core;
        let own = key(&core.state.lock().await.current);
        let (_, standing) = survey::locks_but(&core.repository, Some(&own)).await?;
        let others = standing.into_iter().filter(|lock| !lock.is_of(&core.nonce)).collect();
        survey::reap(&core.repository, others, &core.options.clock).await
    }

    /// Proves that the lock was never lost: it is fresh and its object is there now. To be asked before anything that must not happen
    /// without the lock. A [`Mode::Reading`] lock on a store that takes none is always proven.
    pub async fn prove(&self) -> Result<(), RepositoryError> {
        let Some(held) = &self.0 else { return Ok(()) };
        held.core.prove(&mut *held.core.state.lock().await).await
    }

    /// Returns when the lock is lost, with the reason: work that needs it must stop. Never returns while it is held.
    pub async fn lost(&self) -> RepositoryError {
        let Some(held) = &self.0 else { return std::future::pending().await };
        let mut lost = held.core.lost.subscribe();
        match lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()) {
            Some(reason) => held.core.lost_error(reason),
            None => std::future::pending().await,
        }
    }

    /// Ends the refreshing and removes the lock's objects.
    pub async fn release(mut self) -> Result<(), RepositoryError> {
        let Some(held) = self.0.take() else { return Ok(()) };
        let cut_short = held.stop();
        held.core.remove(cut_short).await
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            let cut_short = held.stop();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { held.core.remove(cut_short).await });
            }
        }
    }
}

impl Held {
    /// Ends the refreshing; true where that cut a refresh short, so that there may be an object whose name nobody noted.
    fn stop(&self) -> bool {
        let idle = self.core.state.try_lock();
        self.task.abort();
        idle.is_err()
    }
}

impl Core {
    fn lost_error(&self, reason: String) -> RepositoryError {
        RepositoryError::LockLost { location: self.repository.store().location().to_owned(), reason }
    }

    /// One list tells all: whether the lock's object is there, and whose else.
    async fn prove(&self, state: &mut State) -> Result<(), RepositoryError> {
        if let Some(reason) = self.lost.borrow().clone() {
            return Err(self.lost_error(reason));
        }
        let reason = if state.age(&self.options.clock) >= LOST_AFTER {
            "it could not be refreshed for 20 minutes".to_owned()
        } else {
            let (keys, holder) = self.contended(state).await?;
            match holder {
                _ if !keys.contains(&key(&state.current)) => "somebody removed it".to_owned(),
                Some(holder) => format!("at the same time the repository was held by {holder}"),
                None => return Ok(()),
            }
        };
        self.lost.send_replace(Some(reason.clone()));
        Err(self.lost_error(reason))
    }

    /// The names of all locks, and who holds what excludes this one. Whoever puts a lock while this one stands sees it and withdraws, sooner or
    /// later; one of ours that died before it did leaves its lock, but does not refresh it. So what is contended is looked at until it is clear:
    /// to take the lock for lost ends the work of hours.
    async fn contended(&self, state: &mut State) -> Result<(Vec<String>, Option<String>), RepositoryError> {
        let mine = key(&state.current);
        let (begun, mut pause) = (Instant::now(), 2 * SETTLE);
        let mut first: Option<Vec<Standing>> = None;
        loop {
            let (keys, mut others) = conflicts(&self.repository, self.exclusive, &self.nonce, Some(&mine), &self.options.clock).await?;
            others.retain(|lock| !state.left.contains(&lock.key));
            let first = first.get_or_insert_with(|| others.clone());
            let is_kept = |lock: &&Standing| first.iter().any(|before| before.key != lock.key && before.is_the_same_as(lock));
            let holder = others.iter().find(is_kept);
            if others.is_empty() || holder.is_some() || !keys.contains(&mine) {
                return Ok((keys, holder.map(|lock| lock.describe(self.options.clock.now()))));
            }
            if begun.elapsed() >= CONTENDS {
                let (left, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(Standing::is_ours);
                state.left.extend(left.into_iter().map(|lock| lock.key));
                return Ok((keys, rest.first().map(|lock| lock.describe(self.options.clock.now()))));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn remove(&self, look: bool) -> Result<(), RepositoryError> {
        let state = self.state.lock().await;
        let mut keys: Vec<String> = state.old.iter().chain([&state.current]).map(key).collect();
        if look || state.uncertain {
            let ours = locks(&self.repository).await?.into_iter().filter(|lock| lock.is_of(&self.nonce));
            keys.extend(ours.map(|lock| lock.key));
            keys.sort_unstable();
            keys.dedup();
        }
        Ok(self.repository.store().delete(&keys).await?)
    }
}

impl State {
    fn age(&self, clock: &Clock) -> Duration {
        let (wall, steady) = self.written;
        (clock.now() - wall).to_std().unwrap_or_default().max(steady.elapsed())
    }
}

enum Attempt {
    Held(State),
    /// Who is in the way.
    Conflict(String),
}

async fn attempt(repository: &Repository, exclusive: bool, nonce: &str, options: &LockOptions) -> Result<Attempt, RepositoryError> {
    let now = || options.clock.now();
    if let Some(holder) = conflicts(repository, exclusive, nonce, None, &options.clock).await?.1.first() {
        return Ok(Attempt::Conflict(holder.describe(now())));
    }
    let state = put(repository, exclusive, nonce, options).await?;
    if exclusive {
        tokio::time::sleep(SETTLE).await;
    }
    let mine = key(&state.current);
    let outcome = conflicts(repository, exclusive, nonce, Some(&mine), &options.clock).await;
    if let Ok((keys, others)) = &outcome
        && others.is_empty()
        && keys.contains(&mine)
    {
        return Ok(Attempt::Held(state));
    }
    repository.store().delete(&[mine]).await?;
    let (_, others) = outcome?;
    Ok(Attempt::Conflict(others.first().map_or_else(|| "somebody who removes locks".to_owned(), |holder| holder.describe(now()))))
}

/// The names of all locks that stand, and which of them are in the way of such a lock. `own` need not be read to be known.
async fn conflicts(
    repository: &Repository,
    exclusive: bool,
    nonce: &str,
    own: Option<&str>,
    clock: &Clock,
) -> Result<(Vec<String>, Vec<Standing>), RepositoryError> {
    let (keys, standing) = survey::locks_but(repository, own).await?;
    // The dead go even where they are not in our way: stock restic, which cannot tell that they are dead, is kept from pruning by them.
    let others: Vec<Standing> = standing.into_iter().filter(|lock| !lock.is_of(nonce)).collect();
    let mut alive = survey::reap(repository, others, clock).await?;
    alive.retain(|lock| exclusive || lock.exclusive());
    Ok((keys, alive))
}

/// restic finds out whether the owner of a lock on its machine lives by sending it SIGHUP, and ignores that signal itself. So must we: the
/// signal ends a process that has not asked for it. Once asked for, it never does again.
fn outlive_restics_question() {
    if let Err(error) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        tracing::warn!(%error, "a restic that asks whether this process lives may end it");
    }
}

/// Writes a lock object.
async fn put(repository: &Repository, exclusive: bool, nonce: &str, options: &LockOptions) -> Result<State, RepositoryError> {
    let written = (options.clock.now(), Instant::now());
    let record = LockRecord::new(&options.identity, exclusive, nonce, options.clock.local());
    let plain = serde_json::to_vec(&record).map_err(|error| RepositoryError::damaged("a lock to be written", error))?;
    let current = repository.put_sealed("locks", &plain).await?;
    Ok(State { current, old: Vec::new(), uncertain: false, left: HashSet::new(), written })
}

fn key(id: &Id) -> String {
    format!("locks/{id}")
}

fn nonce() -> Result<String, RepositoryError> {
    let mut bytes = [0u8; 16];
    crate::random::fill(&mut bytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

fn random_byte() -> Result<u8, RepositoryError> {
    let mut byte = [0u8; 1];
    crate::random::fill(&mut byte)?;
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Silent;

    use crate::repository::key::KeyOrigin;
    use crate::repository::key::Password;
    use crate::store::Store;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn repository() -> Repository {
        Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap()
    }

    fn options(wait: Duration, clock: &Clock) -> LockOptions {
        LockOptions { identity: LockIdentity::this_process(Some("here".into()), "root".into()), wait, clock: clock.clone() }
    }

    fn clock() -> Clock {
        Clock::manual(Clock::system().now().timestamp_millis())
    }

    async fn keys(repository: &Repository) -> Vec<String> {
        repository.store().list("locks").await.unwrap().into_iter().map(|object| object.key).collect()
    }

    /// What stock restic writes.
    async fn foreign(repository: &Repository, exclusive: bool, clock: &Clock) -> Id {
        let mut record = LockRecord::new(&options(MINUTE, clock).identity, exclusive, "", clock.local());
        record.keepset = None;
        record.hostname = "elsewhere".into();
        repository.put_sealed("locks", &serde_json::to_vec(&record).unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn shared_locks_stand_together_and_an_exclusive_one_alone() {
        let (repository, clock) = (repository().await, clock());
        let now = options(Duration::ZERO, &clock);
        let one = Lock::acquire(&repository, Mode::Shared, &now, &Silent).await.unwrap();
        let two = Lock::acquire(&repository, Mode::Reading, &now, &Silent).await.unwrap();
        let refused = Lock::acquire(&repository, Mode::Exclusive, &now, &Silent).await.unwrap_err();
        assert!(refused.to_string().contains("a shared lock of pid"), "{refused}");
        one.release().await.unwrap();
        two.release().await.unwrap();
        assert_eq!(keys(&repository).await, [""; 0]);
        let alone = Lock::acquire(&repository, Mode::Exclusive, &now, &Silent).await.unwrap();
        for mode in [Mode::Shared, Mode::Reading, Mode::Exclusive] {
            assert!(matches!(Lock::acquire(&repository, mode, &now, &Silent).await, Err(RepositoryError::Locked { .. })));
        }
        alone.prove().await.unwrap();
        assert_eq!(keys(&repository).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backup_waits_for_a_foreign_exclusive_lock_and_then_goes_on() {
        let (repository, clock) = (repository().await, clock());
        let id = foreign(&repository, true, &clock).await;
        let waits = options(30 * MINUTE, &clock);
        let gone = async {
            tokio::time::sleep(5 * MINUTE).await;
            repository.store().delete(&[key(&id)]).await.unwrap();
        };
        let began = Instant::now();
        let (lock, ()) = tokio::join!(Lock::acquire(&repository, Mode::Shared, &waits, &Silent), gone);
        assert!(began.elapsed() >= 5 * MINUTE && began.elapsed() < 6 * MINUTE);
        lock.unwrap().prove().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_its_deadline_and_names_the_holder() {
        let (repository, clock) = (repository().await, clock());
        foreign(&repository, true, &clock).await;
        let began = Instant::now();
        let refused = Lock::acquire(&repository, Mode::Shared, &options(3 * MINUTE, &clock), &Silent).await.unwrap_err();
        assert!(began.elapsed() >= 3 * MINUTE && began.elapsed() < 4 * MINUTE);
        assert!(refused.to_string().contains("an exclusive lock of pid"), "{refused}");
        assert_eq!(keys(&repository).await.len(), 1, "the lock of the other is left and none of ours");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_want_it_at_once_each_gets_it_in_turn() {
        let (repository, clock) = (repository().await, clock());
        let waits = options(10 * MINUTE, &clock);
        let work = || async {
            let lock = Lock::acquire(&repository, Mode::Exclusive, &waits, &Silent).await.unwrap();
            assert_eq!(keys(&repository).await.iter().filter(|k| **k == keys_of(&lock)).count(), 1);
            tokio::time::sleep(MINUTE).await;
            lock.prove().await.unwrap();
            lock.release().await.unwrap();
        };
        tokio::join!(work(), work(), work());
        assert_eq!(keys(&repository).await, [""; 0]);
    }

    fn keys_of(lock: &Lock) -> String {
        key(&lock.0.as_ref().unwrap().core.state.try_lock().unwrap().current)
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_lock_is_rewritten_every_two_minutes_and_stands_at_every_moment() {
        let (repository, clock) = (repository().await, clock());
        let lock = Lock::acquire(&repository, Mode::Shared, &options(MINUTE, &clock), &Silent).await.unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            tokio::time::sleep(MINUTE).await;
            clock.advance(MINUTE);
            let standing = keys(&repository).await;
            assert_eq!(standing.len(), 1);
            seen.extend(standing);
            lock.prove().await.unwrap();
        }
        assert!(seen.len() >= 28, "{}", seen.len());
        let newest = locks(&repository).await.unwrap().remove(0).record.unwrap();
        assert!(clock.now() - newest.time.to_utc() <= chrono::TimeDelta::minutes(3));
        lock.release().await.unwrap();
        assert_eq!(keys(&repository).await, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_somebody_removed_is_lost_and_not_written_again() {
        let (repository, clock) = (repository().await, clock());
        let lock = Lock::acquire(&repository, Mode::Shared, &options(MINUTE, &clock), &Silent).await.unwrap();
        repository.store().delete(&keys(&repository).await).await.unwrap();
        let lost = lock.lost().await;
        assert!(lost.to_string().contains("somebody removed it"), "{lost}");
        assert!(matches!(lock.prove().await, Err(RepositoryError::LockLost { .. })));
        tokio::time::sleep(30 * MINUTE).await;
        assert_eq!(keys(&repository).await, [""; 0]);
    }

    /// An exclusive lock of ours that another machine put.
    async fn contender(repository: &Repository, clock: &Clock) -> Id {
        let identity = LockIdentity { hostname: "elsewhere".into(), ..LockIdentity::default() };
        let record = LockRecord::new(&identity, true, "another", clock.local());
        repository.put_sealed("locks", &serde_json::to_vec(&record).unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_dies_while_it_asks_to_be_alone_takes_no_lock_from_others() {
        let (repository, clock) = (repository().await, clock());
        let lock = Lock::acquire(&repository, Mode::Shared, &options(MINUTE, &clock), &Silent).await.unwrap();
        contender(&repository, &clock).await;
        let began = Instant::now();
        lock.prove().await.unwrap();
        assert!(began.elapsed() < 6 * MINUTE);
        // Once known, it is waited for no more.
        let began = Instant::now();
        lock.prove().await.unwrap();
        assert!(began.elapsed() < MINUTE / 60);
        // And all the while the lock is kept fresh.
        tokio::time::sleep(30 * MINUTE).await;
        lock.prove().await.unwrap();
        lock.release().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_lost_beside_one_that_excludes_it_and_is_kept_fresh() {
        let (repository, clock) = (repository().await, clock());
        let lock = Lock::acquire(&repository, Mode::Shared, &options(MINUTE, &clock), &Silent).await.unwrap();
        let before = contender(&repository, &clock).await;
        let refresh = async {
            tokio::time::sleep(2 * MINUTE).await;
            contender(&repository, &clock).await;
            repository.store().delete(&[key(&before)]).await.unwrap();
        };
        let (proven, ()) = tokio::join!(lock.prove(), refresh);
        assert!(proven.unwrap_err().to_string().contains("an exclusive lock of pid"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_lost_when_the_machine_slept_for_twenty_minutes() {
        let (repository, clock) = (repository().await, clock());
        let lock = Lock::acquire(&repository, Mode::Shared, &options(MINUTE, &clock), &Silent).await.unwrap();
        clock.advance(19 * MINUTE);
        lock.prove().await.unwrap();
        clock.advance(MINUTE);
        assert!(matches!(lock.prove().await, Err(RepositoryError::LockLost { .. })));
        assert!(lock.lost().await.to_string().contains("20 minutes"));
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_dead_are_removed_and_foreign_stale_locks_only_by_unlock() {
        let (repository, clock) = (repository().await, clock());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut dead = LockRecord::new(&options(MINUTE, &clock).identity, true, "other", clock.local());
        dead.pid = i64::from(child.id());
        child.wait().unwrap();
        repository.put_sealed("locks", &serde_json::to_vec(&dead).unwrap()).await.unwrap();
        let lock = Lock::acquire(&repository, Mode::Exclusive, &options(Duration::ZERO, &clock), &Silent).await.unwrap();
        lock.release().await.unwrap();

        dead.keepset = None;
        let of_restic = repository.put_sealed("locks", &serde_json::to_vec(&dead).unwrap()).await.unwrap();
        assert!(Lock::acquire(&repository, Mode::Shared, &options(Duration::ZERO, &clock), &Silent).await.is_err());
        assert_eq!(unlock(&repository, false, "elsewhere", &clock).await.unwrap().len(), 0);
        let removed = unlock(&repository, false, "here", &clock).await.unwrap();
        assert_eq!(removed[0].key, key(&of_restic));
        assert_eq!(keys(&repository).await, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_stale_only_if_both_clocks_say_so() {
        let (repository, clock) = (repository().await, clock());
        let old = Clock::manual((clock.now() - chrono::TimeDelta::hours(2)).timestamp_millis());
        foreign(&repository, true, &old).await;
        assert_eq!(unlock(&repository, false, "here", &clock).await.unwrap().len(), 0, "the store has it as new");
        assert_eq!(unlock(&repository, true, "here", &clock).await.unwrap().len(), 1);
        assert_eq!(repository.store().list("x-keepset").await.unwrap(), []);
        let standing = Standing { key: String::new(), modified: clock.now(), record: None };
        assert!(!survey::is_stale(&standing, clock.now(), clock.now()));
        assert!(survey::is_stale(&standing, clock.now() + chrono::TimeDelta::minutes(31), clock.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_lock_counts_as_exclusive() {
        let (repository, clock) = (repository().await, clock());
        repository.store().put_new(&key(&Id([7; 32])), bytes::Bytes::new()).await.unwrap();
        let refused = Lock::acquire(&repository, Mode::Shared, &options(Duration::ZERO, &clock), &Silent).await.unwrap_err();
        assert!(refused.to_string().contains("unreadable lock"), "{refused}");
        assert_eq!(unlock(&repository, true, "here", &clock).await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_lock_goes_away_by_itself() {
        let (repository, clock) = (repository().await, clock());
        drop(Lock::acquire(&repository, Mode::Exclusive, &options(MINUTE, &clock), &Silent).await.unwrap());
        tokio::time::sleep(MINUTE).await;
        assert_eq!(keys(&repository).await, [""; 0]);
    }
}
