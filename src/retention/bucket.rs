//! The stretches of local time of which a rule keeps one point each.

use std::fmt;

use chrono::{DateTime, Datelike, TimeZone, Timelike};

use crate::retention::policy::Span;

/// What a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Each point is a bucket of its own.
    Point,
    Hour,
    Day,
    /// ISO 8601: from Monday, in the year of its Thursday.
    Week,
    Month,
    Year,
}

impl Unit {
    /// The bucket of a moment in local time; equal numbers are the same bucket, and within one zone later moments never have smaller
    /// ones. `nr` tells points apart where each is its own bucket.
    pub(super) fn bucket<Z: TimeZone>(self, time: &DateTime<Z>, nr: usize) -> i64 {
        let date = time.date_naive();
        match self {
            Unit::Point => i64::try_from(nr).unwrap_or(i64::MAX),
            Unit::Hour => i64::from(date.num_days_from_ce()) * 24 + i64::from(time.hour()),
            Unit::Day => i64::from(date.num_days_from_ce()),
            Unit::Week => i64::from(date.iso_week().year()) * 64 + i64::from(date.iso_week().week()),
            Unit::Month => i64::from(date.year()) * 16 + i64::from(date.month()),
            Unit::Year => i64::from(date.year()),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Point => "last",
            Unit::Hour => "hourly",
            Unit::Day => "daily",
            Unit::Week => "weekly",
            Unit::Month => "monthly",
            Unit::Year => "yearly",
        })
    }
}

/// One rule of a policy: at most `count` buckets (`u32::MAX`: all), in `span` before the newest point if one is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub unit: Unit,
    pub count: u32,
    pub span: Option<Span>,
}
