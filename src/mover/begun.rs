//! Work on one claim, from when it began: what has been counted since is its own.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::clock::Clock;
use crate::model::entry::Attrs;
use crate::model::id::Id;
use crate::model::mover_job::{ClaimReport, Problem, Progress};
use crate::mover::counters::Counters;

/// When work on a claim began, and what had been counted by then.
pub struct Begun {
    at: DateTime<Utc>,
    counted: Progress,
}

impl Begun {
    pub fn now(clock: &Clock, counters: &Counters) -> Self {
        Begun { at: clock.now(), counted: counters.progress() }
    }

    /// The report of a claim whose root holds `tree`.
    pub fn report(&self, counters: &Counters, name: &str, (tree, root): (Id, Attrs), problems: Vec<Problem>) -> ClaimReport {
        let ended = counters.progress();
        ClaimReport {
            name: name.to_owned(),
            tree,
            root,
            files: ended.files - self.counted.files,
            dirs: ended.dirs - self.counted.dirs,
            bytes: ended.bytes - self.counted.bytes,
            cut: self.at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            change_detection: None,
            clock_lag: 0,
            problems,
        }
    }
}
