//! Which points of a set stay and which may go, and why: a pure decision.
//!
//! The rules read like restic's, over complete normal points only. What differs errs on the side of keeping: the newest complete point
//! stays whatever the policy says, points with times ahead of the clock stay and count for nothing, and safety points have a rule of their
//! own, without which they stay.

mod bucket;
mod policy;
#[cfg(test)]
mod two_years;

pub use policy::{BadSpan, Policy, Span};

use std::collections::BTreeMap;

use chrono::{DateTime, TimeZone, Utc};

use crate::model::id::Id;
use crate::model::manifest::PointKind;
use crate::model::point::Point;
use crate::retention::bucket::Rule;

/// What becomes of one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The point's snapshot object.
    pub id: Id,
    pub keep: bool,
    /// Why it is kept: each rule that wants it; or, where it goes, why it may. Never empty.
    pub reasons: Vec<String>,
}

/// No decision could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    #[error("the retention policy keeps nothing")]
    KeepsNothing,
}

impl RetentionError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RetentionError::KeepsNothing => Some("give at least one rule, for example --keep-last 3 or --keep-daily 7".into()),
        }
    }
}

/// Judges every point, each set of each cluster on its own; set by set, the newest point first. Buckets (days, ISO weeks …) are those of
/// `zone`. Points with times after `now` are kept and count for nothing, so that one wrong clock cannot push good points out. Partial
/// points go as soon as a newer complete one exists.
pub fn decide<Z: TimeZone>(points: &[Point], policy: &Policy, now: DateTime<Utc>, zone: &Z) -> Result<Vec<Decision>, RetentionError> {
    if policy.keeps_nothing() {
        return Err(RetentionError::KeepsNothing);
    }
    let mut sets: BTreeMap<_, Vec<&Point>> = BTreeMap::new();
    for point in points {
        sets.entry((&point.cluster, &point.set)).or_default().push(point);
    }
    Ok(sets.into_values().flat_map(|set| decide_set(set, policy, now, zone)).collect())
}

fn decide_set<Z: TimeZone>(mut points: Vec<&Point>, policy: &Policy, now: DateTime<Utc>, zone: &Z) -> Vec<Decision> {
    points.sort_by(|a, b| b.time.cmp(&a.time).then(a.id.cmp(&b.id)));
    let counts = |point: &&&Point| point.complete && point.kind == PointKind::Normal && point.time <= now;
    let counted: Vec<&Point> = points.iter().filter(counts).copied().collect();
    let newest = counted.first().copied();
    let mut reasons = by_rules(&counted, policy, zone);
    if let Some(newest) = newest {
        let of_newest = reasons.entry(newest.id).or_default();
        if of_newest.is_empty() {
            of_newest.push("it is the newest complete point".into());
        }
    }
    points
        .into_iter()
        .map(|point| {
            let (keep, reasons) = if point.kind == PointKind::Safety {
                judge_safety(point, policy, now, zone)
            } else if point.time > now {
                (true, vec!["its time is ahead of this machine's clock".to_owned()])
            } else if point.complete {
                match reasons.remove(&point.id) {
                    Some(reasons) => (true, reasons),
                    None => (false, vec!["no rule keeps it".to_owned()]),
                }
            } else if newest.is_some_and(|newest| newest.time > point.time) {
                (false, vec!["it is partial and a newer point is complete".to_owned()])
            } else {
                (true, vec!["it is partial, but no newer point is complete".to_owned()])
            };
            Decision { id: point.id, keep, reasons }
        })
        .collect()
}

/// Safety points count for no rule but their own.
fn judge_safety<Z: TimeZone>(point: &Point, policy: &Policy, now: DateTime<Utc>, zone: &Z) -> (bool, Vec<String>) {
    match policy.safety_within {
        Some(span) if span.before(now, zone).is_some_and(|since| point.time < since) => {
            (false, vec![format!("it is a safety point older than {span}")])
        }
        _ => (true, vec!["it is a safety point".to_owned()]),
    }
}

/// Applies each rule to `points`, newest first. A rule keeps the newest point of each bucket, and the oldest point of all while it could
/// still keep more, which makes the history as long as the rule allows.
fn by_rules<Z: TimeZone>(points: &[&Point], policy: &Policy, zone: &Z) -> BTreeMap<Id, Vec<String>> {
    let mut reasons: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    let Some(newest) = points.first() else { return reasons };
    for rule in policy.rules() {
        let since = rule.span.map(|span| span.before(newest.time.to_utc(), zone));
        let mut left = rule.count;
        let mut last = None;
        for (nr, point) in points.iter().enumerate() {
            if left == 0 || since.is_some_and(|since| since.is_some_and(|since| point.time < since)) {
                break;
            }
            let bucket = rule.unit.bucket(&point.time.with_timezone(zone), nr);
            // Within a span the buckets themselves bound the history; its oldest point would be one of a cut-off bucket.
            let oldest = rule.span.is_none() && nr + 1 == points.len();
            if last == Some(bucket) && !oldest {
                continue;
            }
            left = left.saturating_sub(if rule.count == u32::MAX { 0 } else { 1 });
            reasons.entry(point.id).or_default().push(reason(rule, nr, last == Some(bucket)));
            last = Some(bucket);
        }
    }
    reasons
}

fn reason(rule: Rule, nr: usize, oldest: bool) -> String {
    let what = rule.unit;
    match rule.span {
        Some(span) => format!("{what}, within {span} of the newest"),
        None if oldest => format!("{what}, the oldest there is"),
        None if nr == 0 => format!("{what}, the newest"),
        None => what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use chrono_tz::Europe::Berlin;
    use proptest::prelude::*;

    use super::*;
    use crate::model::manifest::Consistency;
    use crate::model::set::SetName;

    fn point(nr: u32, time: &str) -> Point {
        let mut id = Id([0; 32]);
        id.0[..4].copy_from_slice(&nr.to_be_bytes());
        Point {
            id,
            time: DateTime::parse_from_rfc3339(time).unwrap(),
            cluster: "prod".into(),
            set: SetName::new("shop", "web").unwrap(),
            kind: PointKind::Normal,
            complete: true,
            consistency: Consistency::Fuzzy,
        }
    }

    fn points(times: &[&str]) -> Vec<Point> {
        (0..).zip(times).map(|(nr, time)| point(nr, time)).collect()
    }

    fn now() -> DateTime<Utc> {
        "2026-06-30T12:00:00Z".parse().unwrap()
    }

    /// The numbers of the points that stay, as they were numbered by `points`.
    fn kept(points: &[Point], policy: Policy) -> Vec<u32> {
        let decisions = decide(points, &policy, now(), &Berlin).unwrap();
        let mut kept: Vec<u32> =
            decisions.iter().filter(|d| d.keep).map(|d| u32::from_be_bytes([d.id.0[0], d.id.0[1], d.id.0[2], d.id.0[3]])).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn each_rule_keeps_the_newest_point_of_each_of_its_buckets() {
        let points = points(&[
            "2024-12-29T01:00:00Z", // 0: Sunday, ISO week 52 of 2024
            "2024-12-30T01:00:00Z", // 1: Monday, ISO week 1 of 2025
            "2025-01-01T01:00:00Z", // 2: the same week, another year
            "2026-06-29T21:10:00Z", // 3: 23:10 in Berlin
            "2026-06-29T21:50:00Z", // 4: the same hour
            "2026-06-29T22:10:00Z", // 5: already the 30th in Berlin
        ]);
        let none = Policy::default();
        for (policy, expected) in [
            (Policy { last: 1, ..none }, vec![5]),
            (Policy { last: 4, ..none }, vec![2, 3, 4, 5]),
            (Policy { hourly: 2, ..none }, vec![4, 5]),
            (Policy { daily: 2, ..none }, vec![4, 5]),
            (Policy { daily: 3, ..none }, vec![2, 4, 5]),
            (Policy { weekly: 2, ..none }, vec![2, 5]),
            (Policy { weekly: 3, ..none }, vec![0, 2, 5]),
            (Policy { monthly: 2, ..none }, vec![2, 5]),
            (Policy { yearly: 3, ..none }, vec![1, 2, 5]),
            (Policy { last: 1, yearly: 2, ..none }, vec![2, 5]),
            (Policy { within: Some("1h".parse().unwrap()), ..none }, vec![3, 4, 5]),
            (Policy { within_hourly: Some("1h".parse().unwrap()), ..none }, vec![4, 5]),
            (Policy { within_yearly: Some("1y6m".parse().unwrap()), ..none }, vec![1, 2, 5]),
            (Policy { within: Some("9y".parse().unwrap()), ..none }, vec![0, 1, 2, 3, 4, 5]),
        ] {
            assert_eq!(kept(&points, policy), expected, "{policy:?}");
        }
    }

    #[test]
    fn the_oldest_point_stays_while_a_rule_could_still_keep_more() {
        let points = points(&["2026-06-01T01:00:00Z", "2026-06-01T02:00:00Z", "2026-06-01T03:00:00Z"]);
        assert_eq!(kept(&points, Policy { daily: 1, ..Policy::default() }), [2]);
        assert_eq!(kept(&points, Policy { daily: 2, ..Policy::default() }), [0, 2]);
    }

    #[test]
    fn a_policy_that_keeps_nothing_is_refused() {
        for policy in [Policy::default(), Policy { within: Some(Span::default()), ..Policy::default() }] {
            assert_eq!(decide(&points(&["2026-06-01T01:00:00Z"]), &policy, now(), &Berlin), Err(RetentionError::KeepsNothing));
        }
    }

    #[test]
    fn a_partial_point_goes_only_when_a_newer_one_is_complete() {
        let mut points = points(&["2026-06-01T01:00:00Z", "2026-06-02T01:00:00Z", "2026-06-03T01:00:00Z"]);
        points[0].complete = false;
        points[2].complete = false;
        assert_eq!(kept(&points, Policy { last: 9, ..Policy::default() }), [1, 2]);
    }

    #[test]
    fn partial_and_safety_points_count_for_nothing() {
        let mut points = points(&["2026-06-01T01:00:00Z", "2026-06-02T01:00:00Z", "2026-06-03T01:00:00Z"]);
        points[1].kind = PointKind::Safety;
        points[2].complete = false;
        assert_eq!(kept(&points, Policy { last: 1, ..Policy::default() }), [0, 1, 2]);
        points[1].complete = false;
        assert_eq!(kept(&points, Policy { last: 1, ..Policy::default() }), [0, 1, 2]);
    }

    #[test]
    fn safety_points_go_by_their_own_rule_alone() {
        let mut points = points(&["2026-06-01T01:00:00Z", "2026-06-20T01:00:00Z", "2026-06-21T01:00:00Z"]);
        points[0].kind = PointKind::Safety;
        points[1].kind = PointKind::Safety;
        let safety_within = Some("14d".parse().unwrap());
        assert_eq!(kept(&points, Policy { last: 1, safety_within, ..Policy::default() }), [1, 2]);
        assert_eq!(kept(&points, Policy { last: 1, ..Policy::default() }), [0, 1, 2]);
        let only = Policy { safety_within, ..Policy::default() };
        assert_eq!(decide(&points, &only, now(), &Berlin), Err(RetentionError::KeepsNothing));
    }

    #[test]
    fn a_point_from_the_future_stays_and_pushes_no_other_out() {
        let points = points(&["2026-06-29T01:00:00Z", "2026-06-30T01:00:00Z", "2226-06-30T01:00:00Z"]);
        assert_eq!(kept(&points, Policy { last: 1, ..Policy::default() }), [1, 2]);
        assert_eq!(kept(&points, Policy { within: Some("3d".parse().unwrap()), ..Policy::default() }), [0, 1, 2]);
    }

    #[test]
    fn sets_and_clusters_are_judged_apart() {
        let mut points = points(&["2026-06-01T01:00:00Z", "2026-06-02T01:00:00Z", "2026-06-03T01:00:00Z"]);
        points[0].set = SetName::new("shop", "db").unwrap();
        points[1].cluster = "test".into();
        assert_eq!(kept(&points, Policy { last: 1, ..Policy::default() }), [0, 1, 2]);
    }

    #[test]
    fn decisions_come_newest_first_with_the_reasons_of_every_rule() {
        let points = points(&["2026-06-01T01:00:00Z", "2026-06-02T01:00:00Z", "2026-06-03T01:00:00Z"]);
        let policy = Policy { last: 1, weekly: 1, within: Some("1d".parse().unwrap()), ..Policy::default() };
        let decisions = decide(&points, &policy, now(), &Berlin).unwrap();
        assert_eq!(decisions.iter().map(|d| d.id).collect::<Vec<_>>(), [points[2].id, points[1].id, points[0].id]);
        assert_eq!(decisions[0].reasons, ["last, the newest", "weekly, the newest", "last, within 1d of the newest"]);
        assert_eq!((decisions[2].keep, decisions[2].reasons.as_slice()), (false, ["no rule keeps it".to_owned()].as_slice()));
    }

    #[test]
    fn a_span_reads_what_it_writes_and_refuses_the_rest() {
        for text in ["1y5m7d2h", "3d", "2y12h", "0h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for bad in ["", "7", "d", "7x", "2h1d", "-1d", "1d ", "99999999d", "1d1d", "7ä"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_span_that_ends_in_a_skipped_hour_keeps_rather_more() {
        // 2026-03-29 02:30 does not exist in Berlin.
        let span: Span = "1d".parse().unwrap();
        let before = span.before("2026-03-30T00:30:00Z".parse().unwrap(), &Berlin).unwrap();
        assert_eq!(before, "2026-03-29T00:30:00Z".parse::<DateTime<Utc>>().unwrap());
    }

    prop_compose! {
        fn any_point()(nr in any::<u32>(), seconds in 1_600_000_000i64..1_782_000_000, complete in prop::bool::weighted(0.8), safety in prop::bool::weighted(0.1)) -> Point {
            let mut point = point(nr, "2026-06-01T01:00:00Z");
            point.time = DateTime::from_timestamp(seconds, 0).unwrap().fixed_offset();
            point.complete = complete;
            point.kind = if safety { PointKind::Safety } else { PointKind::Normal };
            point
        }
    }

    prop_compose! {
        fn any_policy()(counts in prop::array::uniform6(0u32..12), days in prop::option::of(1u16..900), weekly in prop::option::of(1u16..900)) -> Policy {
            let [last, hourly, daily, weekly_count, monthly, yearly] = counts;
            let span = |days| Span { days, ..Span::default() };
            let within = days.map(span);
            Policy { last: last.max(1), hourly, daily, weekly: weekly_count, monthly, yearly, within, within_weekly: weekly.map(span), ..Policy::default() }
        }
    }

    proptest! {
        #[test]
        fn the_newest_complete_point_always_stays(points in prop::collection::vec(any_point(), 0..60), policy in any_policy()) {
            let decisions = decide(&points, &policy, now(), &Berlin).unwrap();
            prop_assert_eq!(decisions.len(), points.len());
            prop_assert!(decisions.iter().all(|d| !d.reasons.is_empty()));
            let newest = points.iter().filter(|p| p.complete && p.kind == PointKind::Normal).map(|p| p.time).max();
            if let Some(newest) = newest {
                let stays = |p: &&Point| decisions.iter().any(|d| d.id == p.id && d.keep);
                prop_assert!(points.iter().filter(|p| p.time == newest && p.complete).any(|p| stays(&p)));
            }
        }

        #[test]
        fn deciding_again_over_what_stayed_lets_nothing_more_go(points in prop::collection::vec(any_point(), 0..60), policy in any_policy()) {
            let decisions = decide(&points, &policy, now(), &Berlin).unwrap();
            let stayed: Vec<Point> = points.iter().filter(|p| decisions.iter().any(|d| d.id == p.id && d.keep)).cloned().collect();
            prop_assert!(decide(&stayed, &policy, now(), &Berlin).unwrap().iter().all(|d| d.keep));
        }

        #[test]
        fn a_more_generous_policy_keeps_at_least_as_much(points in prop::collection::vec(any_point(), 0..60), policy in any_policy()) {
            let generous = Policy { last: policy.last + 1, daily: policy.daily + 3, yearly: policy.yearly + 1, ..policy };
            let less = kept(&points, policy);
            let more = kept(&points, generous);
            prop_assert!(less.iter().all(|nr| more.contains(nr)));
        }
    }
}
