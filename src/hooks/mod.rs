//! Commands in a set's pods around a cut: a database is told to be still before it, and to go on after it, whatever becomes of us.
//!
//! The plan is pure. What holds an application still is undone in any case: after an error, an interrupt or a time-out by us, and where we
//! died by a guard, which waits in the container that lets the application go and is told again and again that we live.

mod annotations;
mod error;
mod plan;
mod round;
mod session;

pub use error::{BadHook, HookError};
pub use plan::{HookPlan, PlannedHook, plan};
pub use round::Round;
