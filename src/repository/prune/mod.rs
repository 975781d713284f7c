//! Giving back the space of what no snapshot needs, beside whoever works, in three phases:
//!
//! 1. **Mark** (shared lock). Every snapshot's trees are followed, foreign ones too. Packs of which nothing is needed are marked; those that
//!    are needed in part are written anew where that pays, and marked as well. So are packs that no index object names. A side object
//!    says which packs, which snapshots were followed, and by which index objects.
//! 2. **Unindex** (exclusive lock, for a moment). Snapshots that came since are followed too; packs that they need fall out of the marks.
//!    The index objects that name the others are replaced by ones that do not, and a side object notes these packs as condemned.
//! 3. **Delete** (shared lock), by the next call: condemned packs that are in no index object now, after all snapshots were followed and nothing
//!    was lacking. Whoever has loaded an older index and holds no lock has the time between two calls to finish.
//!
//! **Why nobody loses anything.** A writer puts its lock and then loads the index and reads the marks; a prune puts the marks and later asks
//! for the exclusive lock. A writer that has not seen the marks therefore had its lock before: while it lives the exclusive lock is not to be had,
//! and once it has ended its snapshot is listed and followed. What a writer of ours sees marked it stores again, so that marks are
//! seldom in vain; but nothing rests on that, and stock restic, which knows no marks, is as safe. Packs that are
//! in no index object under the exclusive lock belong to nobody who lives. Marks are void once an index object
//! is gone by which they were found: another prune or repair has been there, and the copy that was to stay may be the one that went.
//!
//! **Where a call may be killed**, what is there then, and what the next one does:
//!
//! | killed | there is | next |
//! |---|---|---|
//! | while condemned packs are deleted | the record, and some of its packs | deletes the others |
//! | before that record is removed | a record of packs that are gone | removes it |
//! | while packs are written anew | packs in no index | marks them |
//! | before the marks are put | blobs that stand twice | keeps one copy and marks the other |
//! | before or while it waits for the lock | marks | follows the new snapshots and goes on |
//! | while new index objects are put | packs that two index objects name alike | goes on, and leaves out what is there already |
//! | before old index objects are removed | a record of condemned packs that are in the index | drops the record and goes on with the marks |
//! | while old index objects are removed | void marks; condemned packs in and out of the index | deletes those that are out, marks the others anew |
//! | before the marks are removed | void marks | removes them |
//! | with a lock in its hand | a lock of the dead | takes it away, as every verb does |
//!
//! At each of these moments every snapshot's blobs are in the index and in their packs, for us and for stock restic.

mod error;
mod plan;
pub mod record;
mod repack;
mod survey;
mod sweep;
mod unindex;

pub use error::PruneError;
pub use plan::{Amount, Figures, Inventory, Limits, PrunePlan, plan};

use chrono::TimeDelta;
use serde::Serialize;
use tokio::sync::watch;

use crate::monitor::{Event, Monitor};
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::lock::{Lock, LockOptions, Mode};
use crate::repository::prune::record::{Marks, Record};
use crate::repository::prune::survey::Survey;

/// How young the packs of those who work now may be taken to be.
pub const YOUNG: TimeDelta = TimeDelta::days(1);
/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    pub limits: Limits,
    /// Find out and change nothing.
    pub dry_run: bool,
    /// Prune a repository that has packs and not a single snapshot: everything in it goes. Otherwise that is refused, since half of a copy
    /// that was cut short looks the same.
    pub allow_no_snapshots: bool,
    /// Delete condemned packs in this call already: safe where everybody who reads takes locks.
    pub now: bool,
    /// While others hold locks, packs younger than this are left alone: most likely they are theirs. Nothing but thrift rests on it.
    pub young: TimeDelta,
    /// Bytes that repacking may take.
    pub memory: u64,
}

/// Everything that a prune works with.
pub struct Prune<'a> {
    pub repository: &'a Repository,
    pub lock: &'a LockOptions,
    pub options: PruneOptions,
    pub monitor: &'a dyn Monitor,
    /// Turns true when the user wants it to stop.
    pub cancel: watch::Receiver<bool>,
}

/// What a prune did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    pub dry_run: bool,
    /// Snapshots, all of which were followed.
    pub snapshots: u64,
    /// What was planned; `None` where this call only went on with what an earlier one had marked.
    pub planned: Option<Figures>,
    /// Deleted for good, or in a dry run to be deleted now: packs that an earlier call had taken out of the index, and with `now` this one.
    pub deleted: Amount,
    /// Taken out of the index: the next call deletes them.
    pub condemned: Amount,
    /// Put in place of packs that were needed in part.
    pub rewritten: Amount,
    /// Marked packs that turned out to be needed, and stay.
    pub rescued: u64,
    /// Who holds the repository, where that kept marked packs from being taken out of the index: a later call goes on.
    pub waiting_for: Option<String>,
    /// Files that interrupted puts had left in the repository's folder.
    pub leftovers: u64,
}

impl Prune<'_> {
    /// Prunes. On an error nothing is lost, and nothing has to be undone: the next call goes on from wherever this one came to.
    pub async fn run(&self) -> Result<PruneReport, PruneError> {
        let mut report = PruneReport { dry_run: self.options.dry_run, ..PruneReport::default() };
        let mode = if self.options.dry_run { Mode::Reading } else { Mode::Shared };
        loop {
            let lock = self.acquire(mode).await?;
            let marked = self.guarded(&lock, self.mark(&lock, &mut report)).await;
            let Some(marked) = self.release(lock, marked).await? else { break };
            let goes_on = marked.goes_on;
            let lock = match self.acquire(Mode::Exclusive).await {
                Ok(lock) => lock,
                Err(PruneError::Repository(RepositoryError::Locked { holder, .. })) => {
                    report.waiting_for = Some(holder);
                    break;
                }
                Err(error) => return Err(error),
            };
            let condemned = self.guarded(&lock, unindex::unindex(self, &lock, marked, &mut report)).await;
            self.release(lock, condemned).await?;
            // What an earlier call had marked is done with; now for what has become unused since.
            if !goes_on {
                break;
            }
        }
        if self.options.now && report.condemned.packs > 0 {
            let lock = self.acquire(Mode::Shared).await?;
            let deleted = self.guarded(&lock, self.delete_now(&lock, &mut report)).await;
            self.release(lock, deleted).await?;
        }
        Ok(report)
    }

    /// The first phase, and the last of what was condemned before. `None` where nothing is marked.
    async fn mark(&self, lock: &Lock, report: &mut PruneReport) -> Result<Option<Marked>, PruneError> {
        let mut survey = Survey::make(self, lock).await?;
        report.snapshots = survey.snapshots.len() as u64;
        if survey.snapshots.is_empty() && !survey.present.is_empty() && !self.options.allow_no_snapshots && !self.options.dry_run {
            return Err(RepositoryError::Refused {
                what: format!("a prune of the repository at {}", self.repository.store().location()),
                reason: format!("it has {} packs and no snapshot at all, so that all its data would go", survey.present.len()),
            }
            .into());
        }
        let condemned = survey.take_condemned();
        if let Some((key, marks)) = survey.marks.take() {
            // What the snapshots of then need has not been looked at again: enough that no pack has gone since.
            if survey.lacks_only(&marks.packs) {
                sweep::sweep(self, lock, &condemned, &survey.spent, report).await?;
            }
            return Ok(Some(Marked { survey, marks, key, goes_on: true }));
        }
        let inventory =
            Inventory { index: survey.reader.index(), needed: &survey.needed, present: &survey.present, spared: &survey.spared };
        let plan = plan(&inventory, self.options.limits)?;
        report.planned = Some(plan.figures);
        sweep::sweep(self, lock, &condemned, &survey.spent, report).await?;
        if self.options.dry_run || (plan.unused.is_empty() && plan.orphans.is_empty() && plan.repack.is_empty()) {
            return Ok(None);
        }
        let written = repack::repack(self, survey.reader.index(), &plan).await?;
        report.rewritten = Amount { packs: written.packs.len() as u64, bytes: written.bytes };
        let packs = plan.unused.into_iter().chain(plan.orphans).chain(plan.repack).collect();
        let indexes = survey.reader.index().objects().iter().copied().chain(written.indexes).collect();
        let marks = Marks::new(self.lock.clock.now(), packs, survey.snapshots.iter().copied().collect(), indexes);
        lock.prove().await?;
        let key = record::put(self.repository, &Record::Marks(marks.clone())).await?;
        Ok(Some(Marked { survey, marks, key, goes_on: false }))
    }

    /// Deletes what this very call has condemned.
    async fn delete_now(&self, lock: &Lock, report: &mut PruneReport) -> Result<(), PruneError> {
        let mut survey = Survey::make(self, lock).await?;
        let condemned = survey.take_condemned();
        sweep::sweep(self, lock, &condemned, &survey.spent, report).await?;
        report.condemned = Amount::default();
        Ok(())
    }

    async fn acquire(&self, mode: Mode) -> Result<Lock, PruneError> {
        tokio::select! {
            lock = Lock::acquire(self.repository, mode, self.lock, self.monitor) => Ok(lock?),
            () = self.cancelled() => Err(PruneError::Interrupted),
        }
    }

    /// The work, until it is done, the lock is lost or somebody wants it to stop: it can be dropped at any moment.
    async fn guarded<T>(&self, lock: &Lock, work: impl Future<Output = Result<T, PruneError>>) -> Result<T, PruneError> {
        tokio::select! {
            done = work => done,
            lost = lock.lost() => Err(lost.into()),
            () = self.cancelled() => Err(PruneError::Interrupted),
        }
    }

    async fn release<T>(&self, lock: Lock, done: Result<T, PruneError>) -> Result<T, PruneError> {
        if let Err(error) = lock.release().await {
            self.monitor.event(Event::Warning(format!("the lock could not be removed: {error}; `keepset unlock` does it")));
        }
        done
    }

    async fn cancelled(&self) {
        if self.cancel.clone().wait_for(|cancel| *cancel).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    fn step(&self, text: impl Into<String>) {
        self.monitor.event(Event::Step(text.into()));
    }
}

/// Marks that stand, and what was known when they were put or found.
struct Marked {
    survey: Survey,
    marks: Marks,
    /// The name of their side object.
    key: String,
    /// They are of an earlier call.
    goes_on: bool,
}
