//! The one place that asks for the time of day.
#![allow(clippy::disallowed_methods, reason = "this is the room that the ban points to")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, FixedOffset, Local, TimeDelta, TimeZone, Utc};

/// A recorded time that is further ahead of the clock than this was written by a clock that was wrong. Zones and clocks that are read as the
/// wrong zone differ by less.
pub const SANE: TimeDelta = TimeDelta::days(1);

/// Whether a recorded time is so far ahead of `now` that it says nothing of the order of things.
pub fn is_ahead(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    time.signed_duration_since(now) > SANE
}

/// The moment as people read it, in the zone of this machine, which it names: `2026-11-24 08:15:03 +01:00`. All text shows times so, whatever
/// zone they were recorded in, and a point can be named by what it shows.
pub fn shown(time: DateTime<FixedOffset>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// The same of a moment as it is recorded; what is no RFC 3339 is shown as it is.
pub fn shown_text(time: &str) -> String {
    DateTime::parse_from_rfc3339(time).map_or_else(|_| time.to_owned(), shown)
}

/// Time of day, or one that a test makes.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
    /// The moment at which it was this time.
    #[cfg(any(test, feature = "fault-injection"))]
    Running(i64, tokio::time::Instant),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands at `millis` since 1970 until [`Clock::advance`] moves it.
    pub fn manual(millis: i64) -> Self {
        Clock(Source::Manual(Arc::new(AtomicI64::new(millis))))
    }

    /// A clock at which it is `millis` since 1970 now, and which goes on with tokio's time, so that a test that pauses the one pauses the other.
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn running(millis: i64) -> Self {
        Clock(Source::Running(millis, tokio::time::Instant::now()))
    }

    /// Moves a manual clock; every other stays as it is.
    pub fn advance(&self, by: std::time::Duration) {
        if let Source::Manual(millis) = &self.0 {
            millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System => Utc::now(),
            Source::Manual(millis) => Utc.timestamp_millis_opt(millis.load(Ordering::SeqCst)).single().unwrap_or_default(),
            #[cfg(any(test, feature = "fault-injection"))]
            Source::Running(millis, since) => {
                let passed = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
                Utc.timestamp_millis_opt(millis.saturating_add(passed)).single().unwrap_or_default()
            }
        }
    }

    /// The same moment with the machine's offset, as people and restic's snapshots write it.
    pub fn local(&self) -> DateTime<FixedOffset> {
        self.now().with_timezone(&Local).fixed_offset()
    }
}
