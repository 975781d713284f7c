//! Where sets live, in the verbs that a backup and a restore need, and nothing of how a place does it.
//!
//! A platform reads a set, makes room for its claims, starts movers beside the data and starts ordinals. It knows neither the
//! repository nor what a plan is; movers are the one way to a volume's bytes.

mod command;
mod error;
#[cfg(test)]
pub mod fake;
pub mod folders;
mod hold;
mod in_pod;
mod journal;
pub mod kubernetes;
mod mover;
mod news;
mod resources;
mod scratch;

pub use command::{is_secret, one_line};
pub use error::PlatformError;
pub use hold::SetHold;
pub use in_pod::{Ended, InPod, PodPlace};
pub use journal::JournalHold;
pub use mover::{LastWord, Mover, MoverDone, raised};
pub use news::{News, Outcome};
pub use resources::Resources;
pub use scratch::{App, AppEnd, Probe, ProbeEnd, ProbeMount, Scratch};

use async_trait::async_trait;

use crate::model::claim::{ClaimId, ClaimPlace};
use crate::model::manifest::Consistency;
use crate::model::mover_job::{FillMode, MoverJob};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{CutClaim, SetRun, SetState, Targets};
use crate::model::standing::Standing;

/// A place where sets live.
#[async_trait]
pub trait Platform: Send + Sync {
    /// The set as it is now: every claim that exists or ought to, nothing guessed. Changes nothing.
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError>;

    /// The right to work on the set, which no other run has meanwhile, whatever process it is in; waits for nobody.
    /// The default is for places where a restore's journal is all that can be contended for.
    async fn hold_set(&self, _set: &SetName) -> Result<SetHold, PlatformError> {
        Ok(SetHold::unneeded())
    }

    /// Holds these claims still for `run`, all of them as near to one moment as `consistency` asks for, or fails and leaves nothing behind. In
    /// the given order. [`Consistency::Fuzzy`] and [`Consistency::Stopped`] leave them as they are.
    async fn cut(&self, run: &str, set: &SetName, claims: &[ClaimId], consistency: Consistency) -> Result<Vec<CutClaim>, PlatformError>;

    /// Makes what [`Platform::cut`] held still readable for movers, in the same order; the claims themselves need not be still any more.
    async fn open_cut(&self, _run: &str, _set: &SetName, cuts: Vec<CutClaim>) -> Result<Vec<CutClaim>, PlatformError> {
        Ok(cuts)
    }

    /// Begins a command, which is a program and its arguments, in one of [`SetState::pods`]. An error says that it was not begun. Its input
    /// ends when the returned is muted or dropped, and when this process dies.
    async fn run_in_pod(&self, set: &SetName, _place: &PodPlace, _command: &[String]) -> Result<InPod, PlatformError> {
        Err(PlatformError::NoPods { set: set.to_string() })
    }

    /// Everything that was made for `run` beside the set goes: cuts, movers, orders. Once more does no harm.
    async fn tidy(&self, _run: &str, _set: &SetName) -> Result<(), PlatformError> {
        Ok(())
    }

    /// Stops the set so that nobody uses these claims, and returns when nobody does; claims outlive it. Nothing where no set is that could be
    /// stopped. Once more does no harm.
    async fn stop(&self, _set: &SetName, _claims: &[String]) -> Result<(), PlatformError> {
        Ok(())
    }

    /// Gives the set back what [`Platform::stop`] took from it, all but its ordinals; with `replicas` these too, without waiting for them.
    async fn give_back(&self, _set: &SetName, _was: &SetRun, _replicas: Option<u32>) -> Result<(), PlatformError> {
        Ok(())
    }

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

    /// The restore is over: its journal goes. If it changed claims that were there, [`SetState::last_restore`] is its run from now on.
    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError>;

    /// Makes the claim ready to be filled by `run`, and marks it as half restored until [`Platform::close_claim`]. For
    /// [`FillMode::New`] an existing claim must be empty and bear no mark; [`FillMode::Replace`] takes what is there, and a mark over.
    /// Returns where a mover sees its root.
    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError>;

    /// Refused where anybody else may have had a hand on the claim since `run` opened it: the last look before it counts as filled. The
    /// default is for places that nobody else looks after.
    async fn refuse_disturbed(&self, _run: &str, _claim: &ClaimPlace) -> Result<(), PlatformError> {
        Ok(())
    }

    /// Refused where a claim that `run` filled and closed is gone, or another by now: the last look before it is started by a run that did
    /// not fill it itself.
    async fn refuse_changed(&self, _run: &str, _claim: &ClaimPlace) -> Result<(), PlatformError> {
        Ok(())
    }

    /// The claim is filled and proven: takes the mark away.
    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError>;

    /// Empties a claim that the same run opened: what is in it goes, with `remove` the claim itself where that is possible, and then
    /// the mark. A claim that does not carry this run's mark is refused. Waits for a dying mover to let go of it.
    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError>;

    /// Starts the worker of one ordinal. `secret` is the repository's master key; it reaches the worker by no argument, variable or file.
    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError>;

    /// As many movers as do well at a time where nobody says how many. A mover uses all cores of its machine.
    fn parallel(&self) -> usize {
        1
    }

    /// Whether this platform knows how to start ordinals of whatever set; one that is known to run can be started in any case, see
    /// [`Targets::running`].
    fn can_start(&self) -> bool;

    /// Starts one ordinal, and those below it that are not up, and returns when it is ready; an error when its deadline passes first, or it
    /// fails. Never stops any.
    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError>;

    /// Makes a set of what is said of it, its Service first, unless it is there. Starts nothing: it is made at 0.
    async fn make_set(&self, set: &SetName, _objects: &[serde_json::Value]) -> Result<(), PlatformError> {
        Err(PlatformError::NoPods { set: set.to_string() })
    }

    /// As [`Platform::announce`], where people look who look at these claims.
    async fn announce_claims(&self, _set: &SetName, _claims: &[String], _news: &News) {}

    /// Leaves word of how far the run of a set is that this process holds, where people look who look at the set. Best effort.
    async fn tell(&self, _standing: &Standing) {}

    /// Leaves word of what became of a run where people look who look at the set. Best effort: that there is no such place, or that it
    /// cannot be written, is no error.
    async fn announce(&self, _set: &SetName, _news: &News) {}
}
