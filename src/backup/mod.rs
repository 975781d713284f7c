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

use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::set::SetName;
use crate::model::set_state::SetState;
use crate::monitor::{Event, Monitor};
use crate::platform::Platform;
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::lock::{Lock, LockIdentity, LockOptions, Mode};
use crate::repository::points::{self, Previous};
use crate::repository::reader::Reader;
use crate::repository::run;

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
        let lock_options = LockOptions { identity: self.identity.clone(), wait: options.wait_lock, clock: self.clock.clone() };
        // Planned while the lock is taken, to save its round trips. Whatever went in between is found missing before the seal.
        let (lock, prepared, traces) = tokio::join!(
            Lock::acquire(&self.repository, Mode::Shared, &lock_options, self.monitor.as_ref()),
            self.prepare(set, options),
            self.traces()
        );
        let lock = lock?;
        // Who was waited for may have changed what was read; and what could not be read may have been replaced just then.
        let again = lock.waited() || matches!(prepared, Err(BackupError::Repository(_)));
        let prepared = if again { self.prepare(set, options).await } else { prepared };
        let sealed = match (prepared, traces) {
            (Ok(prepared), Ok(traces)) => self.run_locked(prepared, traces, options, &lock).await,
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
        lock: &Lock,
    ) -> Result<Sealed, BackupError> {
        let run = run::new_id(&self.clock)?;
        let started = self.clock.local();
        let index = self.take_over(lock, traces, index).await?;
        self.begin(&run).await?;
        let reports = carry::carry(self, &plan, options, &run, lock).await?;
        plan::check_reports(&plan, &reports, options)?;
        let set = SetName { namespace: plan.set.namespace.clone(), name: plan.set.name.clone() };
        plan::check_undisturbed(&self.platform.read_set(&set).await?, options)?;
        let sealing = seal::Sealing { backup: self, plan: &plan, run: &run, started, lock, before: &index };
        sealing.seal(reports).await
    }

    async fn prepare(&self, set: &SetName, options: &BackupOptions) -> Result<(BackupPlan, Arc<Index>), BackupError> {
        let state: SetState = self.platform.read_set(set).await?;
        let (index, damaged) = Index::load_readable(&self.repository).await?;
        for object in damaged {
            let text = format!("index/{} is damaged: {}; what it names is stored again where it is needed", object.id, object.reason);
            self.monitor.event(Event::Warning(text));
        }
        let index = Arc::new(index);
        let reader = Reader::new(&self.repository, Arc::clone(&index));
        let previous: Previous = points::previous(&reader, set, &state.set.cluster).await?;
        drop(reader);
        // On one machine the movers share its memory with us.
        Ok((plan::plan(state, &previous, options)?, Index::remembered(index)))
    }
}

#[cfg(test)]
mod tests;
