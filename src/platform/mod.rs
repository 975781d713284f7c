//! Where sets live, in the verbs that a backup and a restore need, and nothing of how a place does it.
//!
//! A platform reads a set, makes room for its claims, starts movers beside the data and starts ordinals. It knows neither the
//! repository nor what a plan is; movers are the one way to a volume's bytes.

mod command;
mod error;
#[cfg(test)]
pub mod fake;
pub mod folders;
mod journal;
mod mover;

pub use error::PlatformError;
pub use journal::JournalHold;
pub use mover::{LastWord, Mover, MoverDone, raised};

use async_trait::async_trait;

use crate::model::claim::ClaimId;
use crate::model::mover_job::{FillMode, MoverJob};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{SetState, Targets};

/// A place where sets live.
#[async_trait]
pub trait Platform: Send + Sync {
    /// The set as it is now: every claim that exists or ought to, nothing guessed. Changes nothing.
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError>;

    /// What is at the places where these claims of `set` would be restored to, in the given order; with `measure` also how many bytes
    /// they hold, which takes a walk through each. Changes nothing.
    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], measure: bool) -> Result<Targets, PlatformError>;

    /// The journal of the set's open restore, as text; `None` where none is open. Changes nothing.
    async fn read_journal(&self, set: &SetName) -> Result<Option<String>, PlatformError>;

    /// Begins a journal with its first line; refused where one is open.
    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError>;

    /// Takes an open journal over from one that died, with its text so far; refused while its owner lives. `None` where none is open.
    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError>;

    /// Adds a line; it is durable when this returns.
    async fn append_journal(&self, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError>;

    /// The restore is over: its journal goes.
    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError>;

    /// Makes the claim ready to be filled by `run`, and marks it as half restored until [`Platform::close_claim`]. For
    /// [`FillMode::New`] an existing claim must be empty and bear no mark; [`FillMode::Replace`] takes what is there, and a mark over.
    /// Returns where a mover sees its root.
    async fn open_claim(&self, run: &str, claim: &str, mode: FillMode) -> Result<String, PlatformError>;

    /// The claim is filled and proven: takes the mark away.
    async fn close_claim(&self, run: &str, claim: &str) -> Result<(), PlatformError>;

    /// Empties a claim that the same run opened: what is in it goes, with `remove` the claim itself where that is possible, and then
    /// the mark. A claim that does not carry this run's mark is refused. Waits for a dying mover to let go of it.
    async fn abandon_claim(&self, run: &str, claim: &str, remove: bool) -> Result<(), PlatformError>;

    /// Starts the worker of one ordinal. `secret` is the repository's master key; it reaches the worker by no argument, variable or file.
    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError>;

    /// Whether this platform was told how to start ordinals.
    fn can_start(&self) -> bool;

    /// Starts one ordinal and returns when it is ready; an error when its deadline passes first, or it fails.
    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError>;
}
