//! What a user may ask retention to keep.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Days, Months, NaiveDateTime, TimeDelta, TimeZone, Utc};

use crate::retention::bucket::{Rule, Unit};

/// How many points of each kind to keep: `0` is no rule, `u32::MAX` is all of them. A point that several rules want stays once and
/// counts for each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest points.
    pub last: u32,
    /// The newest point of each hour that has one, for this many hours; so for the others.
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// Every point in this span before the newest complete point, not before now: when backups stop, nothing goes by itself.
    pub within: Option<Span>,
    pub within_hourly: Option<Span>,
    pub within_daily: Option<Span>,
    pub within_weekly: Option<Span>,
    pub within_monthly: Option<Span>,
    pub within_yearly: Option<Span>,
    /// Safety points younger than this stay, older ones go: before now, since nothing comes after them. `None` keeps them all.
    pub safety_within: Option<Span>,
}

impl Policy {
    /// No rule is given that could keep a point.
    pub fn keeps_nothing(&self) -> bool {
        self.rules().next().is_none()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = Rule> {
        let counted = [
            (Unit::Point, self.last),
            (Unit::Hour, self.hourly),
            (Unit::Day, self.daily),
            (Unit::Week, self.weekly),
            (Unit::Month, self.monthly),
            (Unit::Year, self.yearly),
        ];
        let spans = [
            (Unit::Point, self.within),
            (Unit::Hour, self.within_hourly),
            (Unit::Day, self.within_daily),
            (Unit::Week, self.within_weekly),
            (Unit::Month, self.within_monthly),
            (Unit::Year, self.within_yearly),
        ];
        let counted = counted.into_iter().map(|(unit, count)| Rule { unit, count, span: None });
        let spans = spans.into_iter().filter_map(|(unit, span)| Some(Rule { unit, count: u32::MAX, span: Some(span?) }));
        counted.filter(|rule| rule.count > 0).chain(spans.filter(|rule| rule.span.is_some_and(|span| !span.is_zero())))
    }
}

/// A length of time by the calendar, written as restic writes it: `1y5m7d2h`, any of the four, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub years: u16,
    pub months: u16,
    pub days: u16,
    pub hours: u16,
}

impl Span {
    fn is_zero(self) -> bool {
        self == Span::default()
    }

    /// The moment this much before `time` on the calendar of `zone`; `None` where the calendar does not reach back that far.
    pub(super) fn before<Z: TimeZone>(self, time: DateTime<Utc>, zone: &Z) -> Option<DateTime<Utc>> {
        let months = u32::from(self.years) * 12 + u32::from(self.months);
        let local = time.with_timezone(zone).naive_local();
        let local = local.checked_sub_months(Months::new(months))?.checked_sub_days(Days::new(u64::from(self.days)))?;
        earliest(local, zone)?.checked_sub_signed(TimeDelta::hours(i64::from(self.hours)))
    }
}

/// The moment of a local time; the earlier of two, and the last one before it where the clocks were put forward over it.
fn earliest<Z: TimeZone>(local: NaiveDateTime, zone: &Z) -> Option<DateTime<Utc>> {
    (0..=48).find_map(|halves| {
        let local = local.checked_sub_signed(TimeDelta::minutes(30 * halves))?;
        zone.from_local_datetime(&local).earliest().map(|time| time.to_utc())
    })
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0h");
        }
        for (number, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

/// The text is not a span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a span of time: it should read like 1y5m7d2h (years, months, days, hours; any of them, in this order)")]
pub struct BadSpan(String);

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadSpan(text.chars().take(80).collect());
        let mut span = Span::default();
        let mut rest = text;
        for (unit, field) in [('y', &mut span.years), ('m', &mut span.months), ('d', &mut span.days), ('h', &mut span.hours)] {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if let Some(after) = rest.get(digits..).and_then(|tail| tail.strip_prefix(unit)) {
                *field = rest.get(..digits).and_then(|digits| digits.parse().ok()).ok_or_else(bad)?;
                rest = after;
            }
        }
        if text.is_empty() || !rest.is_empty() { Err(bad()) } else { Ok(span) }
    }
}
