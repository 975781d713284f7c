//! The one place that asks for the time of day.
#![allow(clippy::disallowed_methods, reason = "this is the room that the ban points to")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, FixedOffset, Local, TimeZone, Utc};

/// Time of day, or a moment that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Clock(None)
    }

    /// A clock that stands at `millis` since 1970 until [`Clock::advance`] moves it.
    pub fn manual(millis: i64) -> Self {
        Clock(Some(Arc::new(AtomicI64::new(millis))))
    }

    /// Moves a manual clock; the machine's clock stays as it is.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(millis) = &self.0 {
            millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            None => Utc::now(),
            Some(millis) => Utc.timestamp_millis_opt(millis.load(Ordering::SeqCst)).single().unwrap_or_default(),
        }
    }

    /// The same moment with the machine's offset, as people and restic's snapshots write it.
    pub fn local(&self) -> DateTime<FixedOffset> {
        self.now().with_timezone(&Local).fixed_offset()
    }
}
