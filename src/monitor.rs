//! How work tells whoever watches it: a terminal, a log, metrics or a test.

use crate::model::mover_job::{Problem, Progress};
use crate::model::set::Ordinal;

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step of the run begins, in words: `saving ordinal 0`.
    Step(String),
    /// How far an ordinal's mover is; `total` bytes where known.
    Progress {
        ordinal: Ordinal,
        progress: Progress,
        total: Option<u64>,
    },
    /// A mover is done with its ordinal.
    Done {
        ordinal: Ordinal,
        progress: Progress,
    },
    /// Work goes on, but somebody should know.
    Warning(String),
    Problem {
        claim: String,
        problem: Problem,
    },
}

/// Called from any thread; must not block for long and cannot fail.
pub trait Monitor: Send + Sync {
    fn event(&self, event: Event);
}

/// Watches nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _event: Event) {}
}
