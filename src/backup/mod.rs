//! Backs up one set as one recovery point: plan, carry, seal.
//!
//! The plan is pure and refuses whatever would make a lesser point by accident. Movers then save the claims; the point exists from the
//! moment its snapshot object is put, which is the last thing that happens. A backup that ends before leaves nothing that counts.

mod carry;
mod dead;
mod error;
mod options;
mod plan;
mod seal;

pub use error::BackupError;
pub use options::{BackupOptions, Order};
pub use plan::{BackupPlan, PlannedClaim, PlannedOrdinal, Refusal};
pub use seal::Sealed;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::hooks::{HookError, Round};
use crate::model::claim::ClaimId;
use crate::model::manifest::Consistency;
use crate::model::mover_job::MoverReport;
use crate::model::set::SetName;
use crate::model::set_state::{CutClaim, SetState};
use crate::monitor::{Event, Monitor};
use crate::platform::{Platform, SetHold, raised};
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::lock::{Lock, LockIdentity, LockOptions, Mode};
use crate::repository::points::{self, Previous};
use crate::repository::reader::Reader;
use crate::repository::{run, snapshot};

/// Everything that a backup works with.
#[derive(Clone)]
pub struct Backup {
    pub repository: Repository,
    pub platform: Arc<dyn Platform>,
    pub clock: Clock,
    pub monitor: Arc<dyn Monitor>,
    /// Who this process is, to others that want the repository.
    pub identity: LockIdentity,
    /// Turns true when the user wants it to stop.
    pub cancel: watch::Receiver<bool>,
}

impl Backup {
    /// What [`Backup::run`] would do now. Changes nothing and takes no lock.
    pub async fn plan(&self, set: &SetName, options: &BackupOptions) -> Result<BackupPlan, BackupError> {
        Ok(self.prepare(set, options).await?.0)
    }

    /// One point of the set, sealed, or an error and nothing that counts.
    pub async fn run(&self, set: &SetName, options: &BackupOptions) -> Result<Sealed, BackupError> {
        // Of a safety point the restore that asks for it holds the set already.
        let hold = if options.safety.is_none() { self.platform.hold_set(set).await? } else { SetHold::unneeded() };
        let sealed = self.run_held(set, options, &hold).await;
        hold.release().await;
        sealed
    }

    async fn run_held(&self, set: &SetName, options: &BackupOptions, hold: &SetHold) -> Result<Sealed, BackupError> {
        let lock_options = LockOptions { identity: self.identity.clone(), wait: options.wait_lock, clock: self.clock.clone() };
        // Planned while the lock is taken, to save its round trips. Whatever went in between is found missing before the seal.
        let (lock, prepared, traces) = tokio::join!(
            self.or_interrupted(async { Ok(Lock::acquire(&self.repository, Mode::Shared, &lock_options, self.monitor.as_ref()).await?) }),
            self.prepare(set, options),
            self.traces()
        );
        let lock = lock?;
        // Who was waited for may have changed what was read; and what could not be read may have been replaced just then.
        let again = lock.waited() || matches!(prepared, Err(BackupError::Repository(_)));
        let prepared = if again { self.prepare(set, options).await } else { prepared };
        let sealed = match (prepared, traces) {
            (Ok(prepared), Ok(traces)) => self.run_locked(prepared, traces, options, (&lock, hold)).await,
            (Err(error), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
        };
        let released = lock.release().await;
        if let (Ok(_), Err(error)) = (&sealed, released) {
            // The point is sealed; a lock that stays behind is somebody's nuisance and nobody's loss.
            self.monitor.event(Event::Warning(format!("the lock could not be removed: {error}; `keepset unlock` does it")));
        }
        sealed
    }

    async fn run_locked(
        &self,
        (plan, index): (BackupPlan, Arc<Index>),
        traces: Vec<String>,
        options: &BackupOptions,
        (lock, hold): (&Lock, &SetHold),
    ) -> Result<Sealed, BackupError> {
        let run = run::new_id(&self.clock)?;
        let started = self.clock.local();
        let index = self.take_over(lock, traces, index).await?;
        self.begin(&run).await?;
        let set = SetName { namespace: plan.set.namespace.clone(), name: plan.set.name.clone() };
        let carried = self.cut_and_carry(&plan, &set, options, &run, (lock, hold)).await;
        if let Err(error) = self.platform.tidy(&run, &set).await {
            self.monitor
                .event(Event::Warning(format!("what run {run} made beside the set is left for the next one to tidy away: {error}")));
        }
        let reports = carried?;
        plan::check_reports(&plan, &reports, options)?;
        plan::check_undisturbed(&plan, &self.platform.read_set(&set).await?, options)?;
        let sealing = seal::Sealing { backup: self, plan: &plan, run: &run, started, lock, before: &index };
        sealing.seal(reports).await
    }

    /// All claims held still as the plan says, and saved as they were then.
    async fn cut_and_carry(
        &self,
        plan: &BackupPlan,
        set: &SetName,
        options: &BackupOptions,
        run: &str,
        held: (&Lock, &SetHold),
    ) -> Result<Vec<MoverReport>, BackupError> {
        let claims: Vec<ClaimId> = plan.ordinals.iter().flat_map(|ordinal| &ordinal.claims).map(|claim| claim.id.clone()).collect();
        let mut hooks = Round::new(self.platform.as_ref(), self.monitor.as_ref(), set, &plan.hooks);
        let cut = match hooks.pre(&self.cancel).await {
            Ok(()) => self.or_interrupted(async { Ok(self.platform.cut(run, set, &claims, plan.consistency).await?) }).await,
            Err(error) => Err(error.into()),
        };
        let carry = async |cuts: Vec<CutClaim>| {
            let cuts: BTreeMap<String, CutClaim> = cuts.into_iter().map(|cut| (cut.name.clone(), cut)).collect();
            let reports = carry::carry(self, plan, &cuts, options, run, held).await?;
            Ok((cuts, reports))
        };
        // From here on nothing ends before applications are let go.
        let (cuts, mut reports) = if plan.consistency == Consistency::Fuzzy {
            // What is read as it is must be still until all of it is read.
            let carried = match cut {
                Ok(cuts) => carry(cuts).await,
                Err(error) => Err(error),
            };
            let let_go = hooks.post(carried.is_ok()).await;
            self.both(carried, let_go)?
        } else {
            let let_go = hooks.post(cut.is_ok()).await;
            let cuts = self.both(cut, let_go)?;
            let open = async { Ok(self.platform.open_cut(run, set, cuts).await?) };
            carry(self.or_interrupted(open).await?).await?
        };
        for claim in reports.iter_mut().flat_map(|report| &mut report.claims) {
            // What was held still is of the moment of its cut, whenever it was read.
            if let Some(moment) = cuts.get(&claim.name).and_then(|cut| cut.moment.clone()) {
                claim.cut = moment;
            }
        }
        Ok(reports)
    }

    async fn or_interrupted<T>(&self, work: impl Future<Output = Result<T, BackupError>>) -> Result<T, BackupError> {
        tokio::select! {
            biased;
            () = raised(self.cancel.clone()) => Err(BackupError::Interrupted),
            done = work => done,
        }
    }

    /// What was done, if applications were let go after it too. The earlier failure is the error.
    fn both<T>(&self, done: Result<T, BackupError>, let_go: Result<(), HookError>) -> Result<T, BackupError> {
        match (done, let_go) {
            (Ok(done), Ok(())) => Ok(done),
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(also)) => {
                let hint = also.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                self.monitor.event(Event::Warning(format!("{also}{hint}")));
                Err(error)
            }
        }
    }

    async fn prepare(&self, set: &SetName, options: &BackupOptions) -> Result<(BackupPlan, Arc<Index>), BackupError> {
        let state: SetState = self.platform.read_set(set).await?;
        // A damaged snapshot must not keep a set from being backed up: at worst an older point is compared with.
        let read = tokio::try_join!(Index::load_readable(&self.repository), snapshot::list_readable(&self.repository));
        let ((index, damaged), (snapshots, _)) = read?;
        for object in damaged {
            let text = format!("index/{} is damaged: {}; what it names is stored again where it is needed", object.id, object.reason);
            self.monitor.event(Event::Warning(text));
        }
        let index = Arc::new(index);
        let reader = Reader::new(&self.repository, Arc::clone(&index));
        let previous: Previous = points::previous(&reader, snapshots, (set, &state.set.cluster), self.clock.now()).await?;
        drop(reader);
        // On one machine the movers share its memory with us.
        Ok((plan::plan(state, &previous, options)?.at(self.clock.now().timestamp()), Index::remembered(index)))
    }
}

#[cfg(test)]
mod tests;
