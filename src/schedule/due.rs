//! Which of a schedule's times is to be run now, given the last run, and when the next one comes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

pub use crate::clock::SANE;
use crate::schedule::Expression;
use crate::schedule::zoned::between;

/// Nobody waits longer for a time to come than eight years: 29 February, where a century has none.
const FAR: TimeDelta = TimeDelta::days(8 * 366);
/// How many times ahead are looked at to tell how far apart they are.
const MANY: usize = 64;

/// When a set's backups, or whatever else comes again and again, are to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub expression: Expression,
    pub zone: Tz,
    /// Each set is put off by its own, always equal, part of this, so that not all of them start at one moment.
    pub jitter: Duration,
    /// How long after its time a run may still begin; a time that is longer past is missed.
    pub catch_up: Duration,
}

/// What a schedule asks for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The time that is to be run now. Of several the last: one point is as good as many.
    pub now: Option<DateTime<Utc>>,
    /// When the next time comes, put off by jitter.
    pub next: Option<DateTime<Utc>>,
}

impl Schedule {
    /// What is due for `seed` (the set's name) at `now`, whose last run began at `last`.
    ///
    /// A time is due from its moment, put off by jitter, until it is older than `catch_up`, unless a run began at it or later. Without any last run
    /// the same holds: a set that is new is not backed up at once, but when its time comes, or came a moment ago.
    pub fn due(&self, seed: &str, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Due {
        let offset = self.offset(seed);
        let last = last.filter(|last| *last <= now + SANE);
        let oldest = now - offset - delta(self.catch_up);
        let after = last.map_or(oldest, |last| last.max(oldest));
        let due = self.times(after, now - offset).pop();
        let next = self.first_after(now - offset).map(|time| time + offset);
        Due { now: due, next }
    }

    /// Up to here times can no more be run: they are older than `catch_up` at `now`, or before `run`, which is being run in their stead. Those
    /// since the last run that are not after it are missed.
    pub fn gone(&self, seed: &str, run: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
        let gone = now - self.offset(seed) - delta(self.catch_up);
        run.map_or(gone, |run| gone.max(run - TimeDelta::nanoseconds(1)))
    }

    /// The schedule's times after `after` and up to `until`, in order, without jitter.
    pub fn times(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        between(&self.expression, self.zone, after, until)
    }

    /// The longest that two of the times to come after `now` are apart.
    pub fn interval(&self, now: DateTime<Utc>) -> TimeDelta {
        let mut span = TimeDelta::days(2);
        loop {
            let times = self.times(now, now + span);
            if times.len() >= MANY || span >= FAR {
                let apart = times.iter().zip(times.iter().skip(1)).map(|(one, next)| *next - *one).max();
                return apart.unwrap_or(FAR);
            }
            span = span * 2;
        }
    }

    fn first_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut span = TimeDelta::hours(2);
        loop {
            match self.times(after, after + span).first() {
                Some(time) => return Some(*time),
                None if span > FAR => return None,
                None => span = span * 8,
            }
        }
    }

    /// This set's part of the jitter, less than the whole; the same in every process and version.
    fn offset(&self, seed: &str) -> TimeDelta {
        let hash = Sha256::digest(seed.as_bytes());
        let part = u64::from_be_bytes(std::array::from_fn(|at| hash[at]));
        let millis = u64::try_from(self.jitter.as_millis()).unwrap_or(0);
        TimeDelta::milliseconds(part.checked_rem(millis).unwrap_or(0).try_into().unwrap_or(0))
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(FAR)
}

#[cfg(test)]
mod tests;
