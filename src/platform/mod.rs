//! Where sets live, in the verbs that a backup and a restore need, and nothing of how a place does it.
//!
//! A platform reads a set, makes room for its claims, starts movers beside the data and starts ordinals. It knows neither the
//! repository nor what a plan is; movers are the one way to a volume's bytes.

mod command;
mod error;
#[cfg(test)]
pub mod fake;
pub mod folders;
mod mover;

pub use error::PlatformError;
pub use mover::{LastWord, Mover, MoverDone, raised};

use async_trait::async_trait;

use crate::model::claim::ClaimId;
use crate::model::mover_job::MoverJob;
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{SetState, Targets};

/// A place where sets live.
#[async_trait]
pub trait Platform: Send + Sync {
    /// The set as it is now: every claim that exists or ought to, nothing guessed. Changes nothing.
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError>;

    /// What is at the places where these claims of `set` would be restored to, in the given order. Changes nothing.
    async fn read_targets(&self, set: &SetName, claims: &[ClaimId]) -> Result<Targets, PlatformError>;

    /// Makes the claim ready to be filled by `run`, and marks it as half restored until [`Platform::close_claim`]. An existing claim
    /// must be empty. Returns where a mover sees its root.
    async fn open_claim(&self, run: &str, claim: &str) -> Result<String, PlatformError>;

    /// The claim is filled and proven: takes the mark away.
    async fn close_claim(&self, run: &str, claim: &str) -> Result<(), PlatformError>;

    /// Undoes [`Platform::open_claim`] of the same run: what this run put there goes, and then the mark. A claim that does not carry
    /// this run's mark is refused.
    async fn abandon_claim(&self, run: &str, claim: &str) -> Result<(), PlatformError>;

    /// Starts the worker of one ordinal. `secret` is the repository's master key; it reaches the worker by no argument, variable or file.
    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError>;

    /// Whether this platform was told how to start ordinals.
    fn can_start(&self) -> bool;

    /// Starts one ordinal and returns when it is ready; an error when its deadline passes first, or it fails.
    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError>;
}
