//! Schedules over years of simulated time, beside an oracle that looks at every minute.

use std::collections::BTreeSet;

use chrono::{Datelike, NaiveDateTime, TimeZone, Timelike};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn schedule(expression: &str, zone: Tz) -> Schedule {
    Schedule { expression: expression.parse().unwrap(), zone, jitter: Duration::ZERO, catch_up: 6 * HOUR }
}

fn utc(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc()
}

/// Whether a clock on the wall that shows `wall` is at a time of the expression.
type OnTheWall = fn(NaiveDateTime) -> bool;

/// What a person would do who watches the clock on the wall all year, minute by minute, and has been told: do it once for each time; if the clock
/// jumps over it, do it at once; and if you are to do it every hour, or every few minutes, mind the clock on the wall and nothing else.
fn watched(clock: &[(DateTime<Utc>, NaiveDateTime)], wanted: OnTheWall, every_hour: bool) -> Vec<DateTime<Utc>> {
    let minute = TimeDelta::minutes(1);
    let (mut done, mut found) = (BTreeSet::new(), Vec::new());
    let mut shown = clock[0].1 - minute;
    for (moment, wall) in clock {
        let mut jumped = shown + minute;
        let mut hit = false;
        while !every_hour && jumped < *wall {
            hit |= wanted(jumped) && done.insert(jumped);
            jumped += minute;
        }
        hit |= wanted(*wall) && (every_hour || done.insert(*wall));
        if hit {
            found.push(*moment);
        }
        shown = *wall;
    }
    found
}

#[test]
fn a_year_in_six_zones_has_every_time_once_whatever_the_clocks_do() {
    let cases: [(&str, OnTheWall, bool); 6] = [
        ("30 2 * * *", |wall| (wall.hour(), wall.minute()) == (2, 30), false),
        ("15,45 1,2 * * *", |wall| [1, 2].contains(&wall.hour()) && [15, 45].contains(&wall.minute()), false),
        ("0 0 * * *", |wall| (wall.hour(), wall.minute()) == (0, 0), false),
        ("*/20 * * * *", |wall| wall.minute() % 20 == 0, true),
        ("5 */2 * * *", |wall| wall.hour() % 2 == 0 && wall.minute() == 5, false),
        (
            "0 2 1,15 * 0",
            |wall| (wall.hour(), wall.minute()) == (2, 0) && ([1, 15].contains(&wall.day()) || wall.weekday() == chrono::Weekday::Sun),
            false,
        ),
    ];
    // Two that put their clocks at different hours, one by half an hour, one around Ramadan, one never, and one that once skipped a day.
    let years = [
        (chrono_tz::Europe::Berlin, 2026),
        (chrono_tz::America::New_York, 2026),
        (chrono_tz::Australia::Lord_Howe, 2026),
        (chrono_tz::Africa::Casablanca, 2026),
        (chrono_tz::Asia::Kolkata, 2026),
        (chrono_tz::Pacific::Apia, 2011),
    ];
    for (zone, year) in years {
        let from = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
        let until = Utc.with_ymd_and_hms(year + 1, 1, 1, 0, 0, 0).unwrap();
        let minute = TimeDelta::minutes(1);
        let moments = std::iter::successors(Some(from), |moment| Some(*moment + minute)).take_while(|moment| *moment < until);
        let clock: Vec<_> = moments.map(|moment| (moment, moment.with_timezone(&zone).naive_local())).collect();
        for (expression, wanted, every_hour) in cases {
            let found = schedule(expression, zone).times(from - minute, until - minute);
            assert_eq!(found, watched(&clock, wanted, every_hour), "{expression} in {zone}");
        }
    }
}

#[test]
fn however_a_span_is_cut_its_times_are_the_same() {
    let schedule = schedule("10 1-3 * * *", chrono_tz::Europe::Berlin);
    let (from, until) = (utc("2026-10-20 00:00"), utc("2026-10-30 00:00"));
    let mut pieces = Vec::new();
    let mut at = from;
    while at < until {
        pieces.extend(schedule.times(at, at + TimeDelta::minutes(7)));
        at += TimeDelta::minutes(7);
    }
    assert_eq!(pieces, schedule.times(from, at));
}

#[test]
fn a_time_is_due_until_a_run_began_at_it_or_it_is_too_late() {
    let daily = schedule("15 2 * * *", Tz::UTC);
    let at = utc("2026-11-24 02:15");
    let due = |last: Option<&str>, now: &str| daily.due("shop/web", last.map(utc), utc(now)).now;
    assert_eq!(due(Some("2026-11-23 02:15"), "2026-11-24 02:14"), None);
    assert_eq!(due(Some("2026-11-23 02:15"), "2026-11-24 02:15"), Some(at));
    assert_eq!(due(Some("2026-11-23 02:15"), "2026-11-24 08:14"), Some(at));
    assert_eq!(due(Some("2026-11-23 02:15"), "2026-11-24 08:15"), None);
    assert_eq!(due(Some("2026-11-24 02:15"), "2026-11-24 02:16"), None);
    assert_eq!(due(Some("2026-11-24 03:00"), "2026-11-24 04:00"), None);
    // New sets wait for their time, and take one that came just now.
    assert_eq!(due(None, "2026-11-24 14:00"), None);
    assert_eq!(due(None, "2026-11-24 03:00"), Some(at));
    assert_eq!(daily.due("shop/web", None, utc("2026-11-24 14:00")).next, Some(utc("2026-11-25 02:15")));
}

#[test]
fn of_several_times_that_went_by_the_last_is_run_and_the_others_are_counted() {
    let hourly = schedule("0 * * * *", Tz::UTC);
    let (last, now) = (utc("2026-11-24 02:00"), utc("2026-11-24 05:30"));
    let due = hourly.due("shop/web", Some(last), now);
    assert_eq!(due, Due { now: Some(utc("2026-11-24 05:00")), next: Some(utc("2026-11-24 06:00")) });
    let missed = |run, now| hourly.times(last, hourly.gone("shop/web", run, now)).len();
    assert_eq!(missed(due.now, now), 2);
    assert_eq!(missed(None, now), 0);
    // After a day, those that nobody will run any more.
    assert_eq!(missed(None, utc("2026-11-25 02:30")), 18);
}

#[test]
fn a_clock_that_was_set_back_runs_nothing_twice_and_one_that_was_far_off_stops_nothing() {
    let daily = schedule("15 2 * * *", Tz::UTC);
    let due = |last: &str, now: &str| daily.due("shop/web", Some(utc(last)), utc(now)).now;
    for minute in 0..120 {
        let now = utc("2026-11-24 01:00") + TimeDelta::minutes(minute);
        assert_eq!(daily.due("shop/web", Some(utc("2026-11-24 02:16")), now).now, None, "{now}");
    }
    // A point of 2030 is somebody's dead battery.
    assert_eq!(due("2030-01-01 00:00", "2026-11-24 02:20"), Some(utc("2026-11-24 02:15")));
}

#[test]
fn jitter_puts_each_set_off_by_its_own_part_and_always_by_the_same() {
    let mut daily = schedule("0 2 * * *", Tz::UTC);
    daily.jitter = Duration::from_secs(600);
    let first = |set: &str| daily.due(set, None, utc("2026-11-24 12:00")).next.unwrap();
    let mut seen = BTreeSet::new();
    for number in 0..50 {
        let set = format!("shop/web-{number}");
        let next = first(&set);
        assert!(next >= utc("2026-11-25 02:00") && next < utc("2026-11-25 02:10"), "{next}");
        assert_eq!(next, first(&set));
        seen.insert(next);
        // It is due from then on, and not before.
        let last = Some(utc("2026-11-24 02:10"));
        assert_eq!(daily.due(&set, last, next - TimeDelta::milliseconds(1)).now, None);
        assert_eq!(daily.due(&set, last, next).now, Some(utc("2026-11-25 02:00")));
        // A run that began in between, by hand, is this time's run.
        assert_eq!(daily.due(&set, Some(utc("2026-11-25 02:00")), next).now, None);
    }
    assert!(seen.len() > 45, "{}", seen.len());
}

#[test]
fn the_interval_is_the_longest_that_two_runs_are_apart() {
    let now = utc("2026-11-24 12:00");
    for (expression, interval) in [
        ("*/15 * * * *", TimeDelta::minutes(15)),
        ("0 2 * * *", TimeDelta::days(1)),
        ("0 2 * * 1-5", TimeDelta::days(3)),
        ("0 8,20 * * *", TimeDelta::hours(12)),
        ("0 0 1 * *", TimeDelta::days(31)),
    ] {
        assert_eq!(schedule(expression, Tz::UTC).interval(now), interval, "{expression}");
    }
}

/// One set, a look every ten minutes, for a year: each time is run once, or counted as missed, and none is both or neither.
#[test]
fn over_a_year_with_outages_and_failures_every_time_is_run_once_or_counted_once() {
    for (zone, expression) in [
        (chrono_tz::Europe::Berlin, "30 2 * * *"),
        (chrono_tz::America::New_York, "0 */6 * * *"),
        (chrono_tz::Australia::Lord_Howe, "45 1,13 * * *"),
        (chrono_tz::Africa::Casablanca, "0 3 * * 1,4"),
        (chrono_tz::Asia::Kolkata, "0 * * * *"),
    ] {
        let mut schedule = schedule(expression, zone);
        schedule.jitter = Duration::from_secs(300);
        let (start, end) = (utc("2026-01-01 00:00"), utc("2027-01-01 00:00"));
        let times = schedule.times(start, end - TimeDelta::hours(7));
        let (mut last, mut counted, mut missed, mut runs) = (start, start, 0, Vec::new());
        let mut now = start;
        while now < end {
            now += TimeDelta::minutes(10);
            // Days of outage at the start of some months, an hour of it now and then.
            let day = now.day();
            if (now.month() % 3 == 0 && day < 4) || (day % 7 == 0 && now.hour() == 2) {
                continue;
            }
            let due = schedule.due("shop/web", Some(last), now);
            let gone = schedule.gone("shop/web", due.now, now);
            missed += schedule.times(counted.max(last), gone).len();
            counted = counted.max(gone);
            if let Some(time) = due.now {
                runs.push(time);
                last = now;
            }
        }
        let run: BTreeSet<_> = runs.iter().copied().collect();
        assert_eq!(run.len(), runs.len(), "{expression} in {zone}: a time was run twice");
        let late = runs.iter().filter(|time| **time > end - TimeDelta::hours(7)).count();
        assert_eq!(runs.len() - late + missed, times.len(), "{expression} in {zone}");
        assert!(missed > 0 && runs.len() > missed, "{expression} in {zone}: {} {missed}", runs.len());
    }
}
