//! Two years of a set's points, judged every day, beside an oracle that does by names of days and hours what the rules do by numbers.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, TimeDelta, TimeZone, Utc};
use chrono_tz::Europe::Berlin;

use crate::model::id::Id;
use crate::model::manifest::{Consistency, PointKind};
use crate::model::point::Point;
use crate::model::set::SetName;
use crate::retention::{Policy, Span, decide};

const POLICY: Policy = Policy {
    last: 3,
    hourly: 5,
    daily: 7,
    weekly: 4,
    monthly: 6,
    yearly: 2,
    within: Some(Span { years: 0, months: 0, days: 2, hours: 0 }),
    safety_within: Some(Span { years: 0, months: 0, days: 30, hours: 0 }),
    within_hourly: None,
    within_daily: None,
    within_weekly: None,
    within_monthly: None,
    within_yearly: None,
};

/// So many days earlier by the calendar on the wall; in a night without that hour an hour earlier still.
fn before(days: u64, moment: DateTime<Utc>) -> DateTime<Utc> {
    let wall = moment.with_timezone(&Berlin).naive_local() - Days::new(days);
    let earlier = || Berlin.from_local_datetime(&(wall - TimeDelta::hours(1))).earliest();
    Berlin.from_local_datetime(&wall).earliest().or_else(earlier).unwrap().to_utc()
}

/// Which points stay, told by reading the rules aloud.
fn oracle(points: &[Point], now: DateTime<Utc>) -> BTreeSet<Id> {
    let mut whole: Vec<&Point> = points.iter().filter(|point| point.complete && point.kind == PointKind::Normal).collect();
    whole.sort_by_key(|point| std::cmp::Reverse(point.time));
    let mut stay = BTreeSet::new();
    for (count, name) in [(3, "%s"), (5, "%F %H"), (7, "%F"), (4, "%G week %V"), (6, "%Y-%m"), (2, "%Y")] {
        let mut named: Vec<String> = Vec::new();
        for point in &whole {
            let name = point.time.with_timezone(&Berlin).format(name).to_string();
            if named.len() < count && named.last() != Some(&name) {
                named.push(name);
                stay.insert(point.id);
            }
        }
        // As long as the rule could keep more, history is not cut off.
        stay.extend(whole.last().filter(|_| named.len() < count).map(|oldest| oldest.id));
    }
    if let Some(newest) = whole.first() {
        stay.insert(newest.id);
        let since = before(2, newest.time.to_utc());
        stay.extend(whole.iter().filter(|point| point.time >= since).map(|point| point.id));
    }
    let newest = whole.first().map(|point| point.time);
    stay.extend(points.iter().filter(|point| !point.complete && newest.is_none_or(|newest| point.time > newest)).map(|point| point.id));
    let since = before(30, now);
    stay.extend(points.iter().filter(|point| point.kind == PointKind::Safety && point.time >= since).map(|point| point.id));
    stay.retain(|id| points.iter().any(|point| point.id == *id && (point.kind == PointKind::Normal || point.time >= since)));
    stay
}

#[test]
fn of_two_years_with_gaps_partial_and_safety_points_stays_what_the_rules_say_every_single_day() {
    let set = SetName::new("shop", "web").unwrap();
    let mut points: Vec<Point> = Vec::new();
    let mut now: DateTime<Utc> = "2025-01-01T00:00:00Z".parse().unwrap();
    let end: DateTime<Utc> = "2027-01-01T00:00:00Z".parse().unwrap();
    // A fixed, uneven sequence.
    let mut dice = 7u64;
    let mut throw = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let (mut number, mut gone, mut partial, mut safety) = (0u32, 0, 0, 0);
    let mut newest_complete: Option<Id> = None;
    while now < end {
        // Every six hours, a little late, but for those that fail and a month without any.
        now += TimeDelta::hours(6) + TimeDelta::minutes(throw(9).cast_signed() - 4);
        let is_out = now.format("%Y-%m").to_string() == "2026-02";
        if throw(10) > 0 && !is_out {
            number += 1;
            let mut id = Id([0; 32]);
            id.0[..4].copy_from_slice(&number.to_be_bytes());
            let kind = if throw(40) == 0 { PointKind::Safety } else { PointKind::Normal };
            let complete = kind == PointKind::Safety || throw(8) > 0;
            (partial, safety) = (partial + u32::from(!complete), safety + u32::from(kind == PointKind::Safety));
            if complete && kind == PointKind::Normal {
                newest_complete = Some(id);
            }
            let time = now.fixed_offset();
            points.push(Point { id, time, cluster: "prod".into(), set: set.clone(), kind, complete, consistency: Consistency::Group });
        }
        let decisions = decide(&points, &POLICY, now, &Berlin).unwrap();
        let stay: BTreeSet<Id> = decisions.iter().filter(|decision| decision.keep).map(|decision| decision.id).collect();
        assert_eq!(stay, oracle(&points, now), "at {now}");
        assert!(newest_complete.is_none_or(|newest| stay.contains(&newest)), "at {now}");
        gone += points.len() - stay.len();
        points.retain(|point| stay.contains(&point.id));
    }
    assert!(gone > 2000 && partial > 200 && safety > 40, "{gone} {partial} {safety}");
    // What is left reaches back as far as the rules say: two years, six months, and no more than they ask for.
    let years: BTreeSet<String> = points.iter().map(|point| point.time.format("%Y").to_string()).collect();
    assert_eq!(years.len(), 2, "{years:?}");
    assert!(points.len() < 45, "{}", points.len());
}
