//! The one place that asks for the time of day.
#![allow(clippy::disallowed_methods, reason = "this is the room that the ban points to")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, FixedOffset, Local, TimeZone, Utc};

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
