//! Brings one set back from one point: prove, plan, fill, gate, start.
//!
//! Nothing is touched before everything that the point needs is proven present. Every ordinal is filled before any is started, and one
//! that fails keeps all of them from starting.

mod error;
mod fill;
mod options;
mod plan;
mod prepare;
mod start;

pub use error::RestoreError;
pub use options::{RestoreOptions, StartMode};
pub use plan::{PlannedFill, PlannedStart, Refusal, RestorePlan};

use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::id::Id;
use crate::model::mover_job::{Problem, Progress};
use crate::model::set::{Ordinal, SetName};
use crate::monitor::{Event, Monitor};
use crate::platform::Platform;
use crate::repository::Repository;
use crate::repository::lock::{Lock, LockIdentity, LockOptions, Mode};

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
}

/// A set that is back.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    pub point: Id,
    /// In the plan's order.
    pub claims: Vec<RestoredClaim>,
    /// The ordinals that were started and are ready, in the order in which they became so.
    pub started: Vec<Ordinal>,
    /// All movers together.
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
    /// What is back without some attribute, or could not be made at all.
    pub problems: Vec<Problem>,
}

impl Restored {
    /// Nothing was lacking.
    pub fn is_whole(&self) -> bool {
        self.claims.iter().all(|claim| claim.problems.is_empty())
    }
}

impl Restore {
    /// What [`Restore::run`] would do now, with everything proven that can be without touching anything. Takes no lock.
    pub async fn plan(&self, set: &SetName, options: &RestoreOptions) -> Result<RestorePlan, RestoreError> {
        prepare::prepare(self, set, options).await
    }

    /// The set back in its place, and started where that was asked for. On an error of a mover nothing is started, what was filled only
    /// in part is taken away again, and the claims that are whole stay.
    pub async fn run(&self, set: &SetName, options: &RestoreOptions) -> Result<Restored, RestoreError> {
        let lock_options = LockOptions { identity: self.identity.clone(), wait: options.wait_lock, clock: self.clock.clone() };
        let lock = Lock::acquire(&self.repository, Mode::Reading, &lock_options, self.monitor.as_ref()).await?;
        let filled = self.run_locked(set, options, &lock).await;
        if let Err(error) = lock.release().await {
            self.monitor.event(Event::Warning(format!("the lock could not be removed: {error}; `keepset unlock` does it")));
        }
        let (plan, mut restored) = filled?;
        // The repository is not needed any more: whoever prunes it need not wait for slow pods.
        start::start(self, &plan, &mut restored).await?;
        Ok(restored)
    }

    async fn run_locked(&self, set: &SetName, options: &RestoreOptions, lock: &Lock) -> Result<(RestorePlan, Restored), RestoreError> {
        let plan = prepare::prepare(self, set, options).await?;
        let restored = fill::fill(self, &plan, options, lock).await?;
        Ok((plan, restored))
    }
}

#[cfg(test)]
mod tests;
