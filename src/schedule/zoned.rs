//! From times on the wall to moments: what becomes of a time that the clocks of a zone skip, or show twice.
//!
//! A time that is skipped when clocks are put forward comes at the first moment after the gap; one that is shown twice when they are put
//! back comes the first time. An expression that leaves the hour open is about elapsed time, not about the wall: of it nothing is moved out of a gap
//! (the hours around it come anyway), and what is shown twice comes twice.

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::schedule::Expression;

/// No zone's clock has been put forward or back by more; the greatest step was a day across the date line.
const GREATEST_STEP: TimeDelta = TimeDelta::hours(25);

/// The moments of the expression in the zone, after `after` and up to `until`, in order, none twice.
pub(super) fn between(expression: &Expression, zone: Tz, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    if after >= until {
        return Vec::new();
    }
    let start = after.with_timezone(&zone).naive_local() - step_near(zone, after);
    let end = until.with_timezone(&zone).naive_local() + step_near(zone, until);
    let wall = expression.after(start).take_while(|time| *time <= end);
    let mut moments: Vec<DateTime<Utc>> = wall.flat_map(|time| moments(zone, time, expression.every_hour())).collect();
    moments.retain(|moment| *moment > after && *moment <= until);
    moments.sort_unstable();
    moments.dedup();
    moments
}

/// How far apart times on the wall and moments may be ordered around `moment`: nothing, where no clock is set nearby.
fn step_near(zone: Tz, moment: DateTime<Utc>) -> TimeDelta {
    let offset = |moment: DateTime<Utc>| moment.with_timezone(&zone).offset().fix();
    if offset(moment - GREATEST_STEP) == offset(moment + GREATEST_STEP) { TimeDelta::zero() } else { GREATEST_STEP }
}

fn moments(zone: Tz, wall: NaiveDateTime, every_hour: bool) -> Vec<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(time) => vec![time.to_utc()],
        LocalResult::Ambiguous(first, second) if every_hour => vec![first.to_utc(), second.to_utc()],
        LocalResult::Ambiguous(first, _) => vec![first.to_utc()],
        LocalResult::None if every_hour => Vec::new(),
        LocalResult::None => after_gap(zone, wall).into_iter().collect(),
    }
}

/// The first moment after the gap that `wall` is in.
fn after_gap(zone: Tz, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
    // Gaps end at whole minutes in every zone that is kept today.
    (1..=GREATEST_STEP.num_minutes())
        .find_map(|minutes| zone.from_local_datetime(&(wall + TimeDelta::minutes(minutes))).earliest())
        .map(|time| time.to_utc())
}
