//! Brings one set back from one point: prove, plan, make safe, fill, gate, start. Or goes on with a restore that died, or takes it back.
//!
//! Nothing is touched before everything that the point needs is proven present. Every ordinal is filled before any is started, and one
//! that fails keeps all of them from starting. Each step is in a journal before it is taken, so that whoever comes after a crash knows
//! what holds what.

mod error;
mod fill;
mod log;
mod make;
mod options;
mod plan;
mod prepare;
mod refusal;
mod safety;
mod start;
mod undo;
mod words;

pub use error::RestoreError;
pub use options::{RestoreOptions, StartMode};
pub use plan::{PlannedFill, PlannedStart, RestorePlan};
pub use refusal::Refusal;
pub use safety::{SafetyFailure, SafetyPoint, SealSafety};

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::id::Id;
use crate::model::journal::{Journal, Phase, Progress as Claim, Step};
use crate::model::mover_job::{MoverReport, Problem, Progress};
use crate::model::set::{Ordinal, SetName};
use crate::monitor::{Event, Monitor};
use crate::platform::{Platform, SetHold, raised};
use crate::repository::Repository;
use crate::repository::lock::{Lock, LockIdentity, LockOptions, Mode};
use crate::repository::run;
use crate::restore::fill::{Way, Work};
use crate::restore::log::Log;
use crate::restore::prepare::Aim;

/// Everything that a restore works with. The platform's place is where the claims will be.
#[derive(Clone)]
pub struct Restore {
    pub repository: Repository,
    pub platform: Arc<dyn Platform>,
    pub clock: Clock,
    pub monitor: Arc<dyn Monitor>,
    /// Who this process is, to others that want the repository.
    pub identity: LockIdentity,
    /// Turns true when the user wants it to stop.
    pub cancel: watch::Receiver<bool>,
    /// Seals what targets hold before it is replaced.
    pub seal_safety: SealSafety,
}

/// A set that is back.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    pub point: Id,
    /// What the targets held before, where they held anything and that was not given up.
    pub safety_point: Option<Id>,
    /// In the plan's order.
    pub claims: Vec<RestoredClaim>,
    /// The ordinals that were started and are ready, in the order in which they became so.
    pub started: Vec<Ordinal>,
    /// All movers of this process together.
    pub total: Progress,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RestoredClaim {
    pub name: String,
    pub ordinal: Ordinal,
    /// In words for people: the folder's path.
    pub target: String,
    pub files: u64,
    pub bytes: u64,
    /// What is back without some attribute, or could not be made or given at all.
    pub problems: Vec<Problem>,
    /// As many as a process had told that died since.
    pub earlier_problems: u64,
}

/// A restore that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    pub run: String,
    /// Claims that are as they were, emptied or filled again from the safety point.
    pub claims: Vec<String>,
    pub safety_point: Option<Id>,
    /// Claims that stay half restored, since no safety point holds what they held.
    pub left: Vec<String>,
    /// What could not be made as it was: attributes, devices.
    pub problems: Vec<Problem>,
}

impl Restored {
    /// Nothing was lacking.
    pub fn is_whole(&self) -> bool {
        self.claims.iter().all(|claim| claim.problems.is_empty() && claim.earlier_problems == 0)
    }
}

impl Restore {
    /// What [`Restore::run`] would do now, with everything proven that can be without touching anything. Takes no lock.
    pub async fn plan(&self, set: &SetName, options: &RestoreOptions) -> Result<RestorePlan, RestoreError> {
        prepare::prepare(self, set, options).await
    }

    /// The set back in its place, and started where that was asked for. On an error nothing is started; claims that held nothing are
    /// taken back if they are not whole. If any claim is changed then, the journal stays open: see [`Restore::resume`], [`Restore::undo`].
    pub async fn run(&self, set: &SetName, options: &RestoreOptions) -> Result<Restored, RestoreError> {
        let hold = self.platform.hold_set(options.to.as_ref().unwrap_or(set)).await?;
        let restored = self.run_held(set, options, &hold).await;
        hold.release().await;
        restored
    }

    async fn run_held(&self, set: &SetName, options: &RestoreOptions, hold: &SetHold) -> Result<Restored, RestoreError> {
        let lock = self.lock(options).await?;
        let filled = self.begin(set, options, (&lock, hold)).await;
        self.release(lock).await;
        let (plan, log, restored) = filled?;
        // The repository is not needed any more: whoever prunes it need not wait for slow pods.
        self.start(&plan, log, restored).await
    }

    /// Goes on with the open restore of `set` (its name here) from where it was left: claims that are whole stay, others are made whole by
    /// what differs. `run` must be its name, where one is given. Of the options those count that say how, not what.
    pub async fn resume(&self, set: &SetName, run: Option<&str>, options: &RestoreOptions) -> Result<Restored, RestoreError> {
        let hold = self.platform.hold_set(set).await?;
        let restored = self.resume_held(set, run, options, &hold).await;
        hold.release().await;
        restored
    }

    async fn resume_held(
        &self,
        set: &SetName,
        run: Option<&str>,
        options: &RestoreOptions,
        hold: &SetHold,
    ) -> Result<Restored, RestoreError> {
        let log = Log::take(Arc::clone(&self.platform), set, run).await?;
        let journal = log.journal().await;
        if journal.phase() == Phase::Undoing {
            return Err(Refusal::BeingUndone { run: journal.opening().run.clone() }.into());
        }
        let mut plan = prepare::planned(&journal)?;
        if options.start == StartMode::None {
            plan.start = PlannedStart::None("as asked".into());
        }
        if journal.is_settled() {
            if journal.phase() == Phase::Proven {
                for claim in &plan.claims {
                    self.platform.refuse_changed(&journal.opening().run, &claim.place(&plan.to)).await?;
                }
            }
            let restored = restored(&plan, &journal, &BTreeMap::new());
            return self.start(&plan, log, restored).await;
        }
        let lock = self.lock(options).await?;
        let filled = self.go_on(plan, log, options, (&lock, hold)).await;
        self.release(lock).await;
        let (plan, log, restored) = filled?;
        self.start(&plan, log, restored).await
    }

    /// Takes the open restore of `set` back: every claim holds what it held before. Refused once ordinals have been started. With
    /// `options.safety` false, claims that no safety point holds are left half restored instead of refusing.
    pub async fn undo(&self, set: &SetName, run: Option<&str>, options: &RestoreOptions) -> Result<Undone, RestoreError> {
        let hold = self.platform.hold_set(set).await?;
        let undone = self.undo_held(set, run, options, &hold).await;
        hold.release().await;
        undone
    }

    async fn undo_held(&self, set: &SetName, run: Option<&str>, options: &RestoreOptions, hold: &SetHold) -> Result<Undone, RestoreError> {
        let log = Log::take(Arc::clone(&self.platform), set, run).await?;
        let lock = self.lock(options).await?;
        let undone = undo::carry_out(self, &log, options, (&lock, hold)).await;
        self.release(lock).await;
        let (undone, problems) = undone?;
        let journal = log.journal().await;
        self.tidy(&prepare::planned(&journal)?, &journal).await;
        log.close().await?;
        let claims = undone.emptied.iter().chain(&undone.refilled).map(|claim| claim.name.clone()).collect();
        Ok(Undone { run: journal.opening().run.clone(), claims, safety_point: journal.safety_point(), left: undone.left, problems })
    }

    async fn lock(&self, options: &RestoreOptions) -> Result<Lock, RestoreError> {
        let lock_options = LockOptions { identity: self.identity.clone(), wait: options.wait_lock, clock: self.clock.clone() };
        tokio::select! {
            biased;
            () = raised(self.cancel.clone()) => Err(RestoreError::Interrupted),
            lock = Lock::acquire(&self.repository, Mode::Reading, &lock_options, self.monitor.as_ref()) => Ok(lock?),
        }
    }

    async fn release(&self, lock: Lock) {
        if let Err(error) = lock.release().await {
            self.monitor.event(Event::Warning(format!("the lock could not be removed: {error}; `keepset unlock` does it")));
        }
    }

    async fn begin(
        &self,
        set: &SetName,
        options: &RestoreOptions,
        held: (&Lock, &SetHold),
    ) -> Result<(RestorePlan, Log, Restored), RestoreError> {
        let plan = prepare::prepare(self, set, options).await?;
        let run = run::new_id(&self.clock)?;
        let log = Log::begin(Arc::clone(&self.platform), &plan, run, self.clock.local().to_rfc3339()).await?;
        self.fill(plan, log, options, held, false).await
    }

    async fn go_on(
        &self,
        mut plan: RestorePlan,
        log: Log,
        options: &RestoreOptions,
        held: (&Lock, &SetHold),
    ) -> Result<(RestorePlan, Log, Restored), RestoreError> {
        undo::reconcile(self, &plan, &log).await?;
        let journal = log.journal().await;
        let (from, paths, point) = (plan.from.clone(), plan.paths.clone(), plan.point);
        let aim = Aim { same: true, skip_damaged: plan.skip_damaged, paths: &paths };
        // Where others may have started the set meanwhile, a claim that was filled is compared once more.
        let again = plan.was.is_some();
        let left = plan.claims.iter_mut().filter(|claim| again || !journal.progress(&claim.name).is_some_and(Claim::is_filled));
        prepare::aim_at(self, &from, point, left, aim).await?;
        self.fill(plan, log, options, held, again).await
    }

    /// Up to the gate. `again`: claims that are filled too.
    async fn fill(
        &self,
        plan: RestorePlan,
        log: Log,
        options: &RestoreOptions,
        held: (&Lock, &SetHold),
        again: bool,
    ) -> Result<(RestorePlan, Log, Restored), RestoreError> {
        match self.make_safe_and_fill(&plan, &log, options, held, again).await {
            Ok(reports) => {
                let restored = restored(&plan, &log.journal().await, &reports);
                Ok((plan, log, restored))
            }
            Err(source) => {
                let journal = log.journal().await;
                // Whoever lost the right to the set has nothing to put in order there any more: another does.
                let is_lost = *held.1.lost().borrow() || matches!(&source, RestoreError::Platform(error) if error.is_lost());
                if journal.is_untouched() && !is_lost && self.as_it_was(&plan).await {
                    // There is nothing to go on with and nothing to take back.
                    self.tidy(&plan, &journal).await;
                    log.close().await?;
                    return Err(RestoreError::Unfilled { done: Vec::new(), open: None, source: Box::new(source) });
                }
                let whole = journal.claims().filter(|(_, progress)| progress.is_filled()).map(|(intent, _)| intent.name.clone());
                let open = Some(journal.opening().run.clone());
                Err(RestoreError::Unfilled { done: whole.collect(), open, source: Box::new(source) })
            }
        }
    }

    async fn make_safe_and_fill(
        &self,
        plan: &RestorePlan,
        log: &Log,
        options: &RestoreOptions,
        held: (&Lock, &SetHold),
        again: bool,
    ) -> Result<BTreeMap<Ordinal, MoverReport>, RestoreError> {
        if plan.was.is_some() {
            self.monitor.event(Event::Step(format!("stopping set {}", plan.to)));
            let names: Vec<String> = plan.claims.iter().map(|claim| claim.name.clone()).collect();
            tokio::select! {
                biased;
                // Nothing is touched yet: the set is given back as it was.
                () = raised(self.cancel.clone()) => return Err(RestoreError::Interrupted),
                stopped = self.platform.stop(&plan.to, &names) => stopped?,
            }
        }
        safety::make_safe(self, plan, log).await?;
        let journal = log.journal().await;
        let is_whole = |claim: &PlannedFill| journal.progress(&claim.name).is_some_and(Claim::is_filled);
        let claims = plan.claims.iter().filter(|claim| again || !is_whole(claim)).cloned().collect();
        let (skip_damaged, way) = (plan.skip_damaged, Way::Forth);
        let (lock, lost) = (held.0, held.1.lost());
        let work = Work { restore: self, log, lock, lost, options, set: &plan.to, claims, paths: &plan.paths, skip_damaged, way };
        let reports = work.carry_out().await?;
        log.note(Step::Proven).await?;
        Ok(reports)
    }

    async fn start(&self, plan: &RestorePlan, log: Log, mut restored: Restored) -> Result<Restored, RestoreError> {
        if !plan.create.is_empty() {
            self.monitor.event(Event::Step(format!("making set {} as the point recorded it", plan.to)));
            let made = self.platform.make_set(&plan.to, &plan.create).await;
            made.map_err(|source| RestoreError::Unready { started: Vec::new(), source })?;
        }
        start::start(self, plan, &log, &mut restored).await?;
        if let Some(was) = &plan.was {
            self.platform.give_back(&plan.to, was, None).await?;
        }
        self.tidy(plan, &log.journal().await).await;
        log.close().await?;
        Ok(restored)
    }

    /// Starts a set again that was stopped for nothing. False where it stays as it is.
    async fn as_it_was(&self, plan: &RestorePlan) -> bool {
        let Some(was) = &plan.was else { return true };
        match self.platform.give_back(&plan.to, was, Some(was.replicas)).await {
            Ok(()) => true,
            Err(error) => {
                let text = format!("set {} is stopped, and could not be started again: {error}; `--undo` tries once more", plan.to);
                self.monitor.event(Event::Warning(text));
                false
            }
        }
    }

    async fn tidy(&self, plan: &RestorePlan, journal: &Journal) {
        let run = &journal.opening().run;
        if let Err(error) = self.platform.tidy(run, &plan.to).await {
            self.monitor
                .event(Event::Warning(format!("what run {run} made beside the set is left for the next one to tidy away: {error}")));
        }
    }
}

fn restored(plan: &RestorePlan, journal: &Journal, reports: &BTreeMap<Ordinal, MoverReport>) -> Restored {
    let claims = plan.claims.iter().map(|claim| {
        let told = reports.get(&claim.id.ordinal).and_then(|report| report.claims.iter().find(|told| told.name == claim.name));
        let (files, bytes, problems) = match journal.progress(&claim.name) {
            Some(Claim::Filled { files, bytes, problems }) => (files, bytes, problems),
            _ => (0, 0, 0),
        };
        RestoredClaim {
            name: claim.name.clone(),
            ordinal: claim.id.ordinal,
            target: claim.target.clone(),
            files,
            bytes,
            problems: told.map(|told| told.problems.clone()).unwrap_or_default(),
            earlier_problems: if told.is_some() { 0 } else { problems },
        }
    });
    Restored {
        point: plan.point,
        safety_point: journal.safety_point(),
        claims: claims.collect(),
        started: journal.started().to_vec(),
        total: reports.values().map(|report| report.total).sum(),
    }
}

#[cfg(test)]
mod tests;
