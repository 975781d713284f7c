//! What an agent does, and how that ends.

use std::fmt;

use crate::model::set::SetName;

/// One kind of work. Its text is stable: jitter, logs and records go by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    Backup(SetName),
    Drill(SetName),
    /// Retention, of all sets that have rules.
    Forget,
    Prune,
    Check,
}

impl Task {
    /// The set that it is about; `None` for what is done to the whole repository.
    pub fn set(&self) -> Option<&SetName> {
        match self {
            Task::Backup(set) | Task::Drill(set) => Some(set),
            Task::Forget | Task::Prune | Task::Check => None,
        }
    }

    /// What it is called, without its set.
    pub fn kind(&self) -> &'static str {
        match self {
            Task::Backup(_) => "backup",
            Task::Drill(_) => "drill",
            Task::Forget => "forget",
            Task::Prune => "prune",
            Task::Check => "check",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.set() {
            Some(set) => write!(f, "{} of {set}", self.kind()),
            None => f.write_str(self.kind()),
        }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    Done,
    /// A point was made, and something could not be read.
    Partial,
    Failed,
    /// A safety rule said no.
    Refused,
    /// Another was at it.
    Held,
    /// It was told to stop.
    Interrupted,
}

impl Ending {
    /// There is nothing to do again.
    pub fn is_well(self) -> bool {
        matches!(self, Ending::Done | Ending::Partial)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Done => "done",
            Ending::Partial => "partial",
            Ending::Failed => "failed",
            Ending::Refused => "refused",
            Ending::Held => "held",
            Ending::Interrupted => "interrupted",
        }
    }
}

/// How a task ended, and what it had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub ending: Ending,
    /// One line; empty where there is nothing to say.
    pub detail: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(self.ending.as_str()),
            detail => write!(f, "{}: {detail}", self.ending.as_str()),
        }
    }
}
