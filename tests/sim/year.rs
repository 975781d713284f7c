//! A set that is backed up each hour by its schedule, in a zone that puts its clocks forward and back, with retention and prunes: for a year.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use chrono_tz::Europe::Berlin;
use keepset::model::id::Id;
use keepset::model::point::Point;
use keepset::monitor::Silent;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::forget::remove_snapshots;
use keepset::repository::index::Index;
use keepset::repository::lock::Mode;
use keepset::repository::points::{Points, list_points};
use keepset::repository::reader::Reader;
use keepset::retention::{self, Policy};
use keepset::schedule::{Expression, Schedule};
use tokio::time::sleep;

use super::dice::Dice;
use super::place::chain;
use super::roles::Process;
use super::scenario::SETS;
use super::world::{World, runtime};

const HOURLY: u32 = 24;
const DAILY: u32 = 7;
const WEEKLY: u32 = 5;
const MONTHLY: u32 = 12;
const YEARLY: u32 = 2;

/// How the year went.
#[derive(Debug, Default)]
pub struct Year {
    pub backups: u64,
    pub forgotten: u64,
    pub most_points: usize,
    pub most_objects: usize,
    pub most_bytes: u64,
    pub restored: u64,
    /// Points that are left, and what they and all else take.
    pub points: usize,
    pub objects: usize,
    pub bytes: u64,
}

/// Lives so many days, with a backup in every so many hours. Panics where a promise is broken.
pub fn live(days: u64, hours: u64) -> Year {
    let runtime = runtime(365);
    let year = runtime.block_on(days_go_by(days, hours));
    runtime.shutdown_background();
    keepset::random::Seeded::leave_this_thread();
    year
}

async fn days_go_by(days: u64, hours: u64) -> Year {
    let world = World::new(365, false, true, 1).await;
    let schedule = Schedule {
        expression: if hours == 1 { "0 * * * *".to_owned() } else { format!("0 */{hours} * * *") }.parse::<Expression>().unwrap(),
        zone: Berlin,
        jitter: Duration::from_secs(600),
        catch_up: Duration::from_secs(3600),
    };
    let end = world.ground.now() + TimeDelta::days(i64::try_from(days).unwrap());
    let mut year = Year::default();
    let mut dice = Dice::of(&[365]);
    let mut last: Option<DateTime<Utc>> = None;
    let mut made: BTreeMap<DateTime<Utc>, Id> = BTreeMap::new();
    let mut cleaned = world.ground.now().with_timezone(&Berlin).date_naive();
    while world.ground.now() < end {
        let now = world.ground.now();
        let due = schedule.due(SETS[0], last, now);
        if due.now.is_none() {
            sleep((due.next.unwrap() - now).to_std().unwrap()).await;
            continue;
        }
        last = Some(now);
        world.model.lock().unwrap().sets.get_mut(SETS[0]).unwrap().change(&mut dice);
        let known: BTreeSet<Id> = world.model.lock().unwrap().points.keys().copied().collect();
        world.outside().backup(SETS[0]).await.unwrap_or_else(|error| panic!("at {now}: {}", chain(error.as_ref())));
        year.backups += 1;
        let new = world.model.lock().unwrap().points.keys().find(|id| !known.contains(id)).copied().unwrap();
        made.insert(now, new);
        let local = now.with_timezone(&Berlin);
        // With the first backup of the day, and so once a day whatever the clocks do.
        if local.date_naive() != cleaned {
            cleaned = local.date_naive();
            year.forgotten += forget(&world.outside(), now).await;
            world
                .outside()
                .prune(5.0, false, TimeDelta::days(1))
                .await
                .unwrap_or_else(|error| panic!("at {now}: {}", chain(error.as_ref())));
        }
        year.most_objects = year.most_objects.max(world.ground.below("").len());
        year.most_bytes = year.most_bytes.max(world.ground.bytes_below(""));
        if local.day() == 1 && local.hour() == 8 {
            year.restored += prove(&world).await;
        }
        year.most_points = year.most_points.max(world.ground.below("snapshots/").len());
    }
    year.forgotten += forget(&world.outside(), world.ground.now()).await;
    for _ in 0..2 {
        world.outside().prune(0.0, true, TimeDelta::zero()).await.unwrap();
    }
    world.nothing_is_unneeded().await.unwrap();
    year.restored += prove(&world).await;
    let left = points(&world.outside()).await;
    expect_buckets(&made, &left, days, hours);
    (year.points, year.objects, year.bytes) = (left.points.len(), world.ground.below("").len(), world.ground.bytes_below(""));
    // An hour is an hour, whatever the clocks on the wall say. The year begins within reach of a time that has just gone, where not each hour is one.
    assert_eq!(year.backups, days * 24 / hours + u64::from(hours > 1), "{year:?}");
    let most = (HOURLY + DAILY + WEEKLY + MONTHLY + YEARLY) as usize;
    assert!(year.points <= most && year.most_points <= most + 25, "{year:?}");
    // A point takes a snapshot, some index objects and its part of packs.
    assert!(year.most_objects < 1500 && year.most_bytes < 2 << 20, "{year:?}");
    year
}

async fn points(process: &Process) -> Points {
    let repository = process.open().await.unwrap();
    let (index, _) = Index::load_readable(&repository).await.unwrap();
    list_points(&Reader::new(&repository, Arc::new(index)), None).await.unwrap()
}

/// As `keepset forget` does it; what stays is what was decided.
async fn forget(process: &Process, now: DateTime<Utc>) -> u64 {
    let policy = Policy { hourly: HOURLY, daily: DAILY, weekly: WEEKLY, monthly: MONTHLY, yearly: YEARLY, ..Policy::default() };
    let repository = process.open().await.unwrap();
    let gone = process.locked(&repository, Mode::Exclusive, async |lock| {
        let listed: Vec<Point> = points(process).await.points.into_iter().map(|stored| stored.point).collect();
        let decisions = retention::decide(&listed, &policy, now, &Berlin)?;
        let goes: Vec<Id> = decisions.iter().filter(|decision| !decision.keep).map(|decision| decision.id).collect();
        process.model.lock().unwrap().going.extend(&goes);
        remove_snapshots(&repository, lock, &goes).await?;
        Ok((listed.len(), goes.len()))
    });
    let (before, gone) = gone.await.unwrap_or_else(|error| panic!("at {now}: {}", chain(error.as_ref())));
    assert_eq!(points(process).await.points.len(), before - gone, "at {now}");
    gone as u64
}

/// All points restore, and nothing is damaged.
async fn prove(world: &World) -> u64 {
    let outside = world.outside();
    let repository = outside.open().await.unwrap();
    let report = check(&repository, &CheckOptions { read_data: Some(100.0), seed: 0, workers: 1 }, &Silent).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    let listed = list_points(&reader, None).await.unwrap();
    assert!(listed.foreign.is_empty() && listed.unreadable.is_empty());
    for point in &listed.points {
        outside.read_point(&reader, point).await.unwrap();
    }
    listed.points.len() as u64
}

/// The newest of each of the last hours, days, weeks and months is there, found without what the product goes by.
fn expect_buckets(made: &BTreeMap<DateTime<Utc>, Id>, left: &Points, days: u64, hours: u64) {
    let there: BTreeSet<Id> = left.points.iter().map(|point| point.point.id).collect();
    let local = |time: &DateTime<Utc>| time.with_timezone(&Berlin);
    let newest_of = |bucket: &dyn Fn(&DateTime<Utc>) -> String, count: usize| {
        let mut newest: Vec<(String, Id)> = Vec::new();
        for (time, id) in made.iter().rev() {
            if newest.last().is_none_or(|(last, _)| *last != bucket(time)) {
                newest.push((bucket(time), *id));
            }
        }
        newest.truncate(count);
        newest
    };
    let newest = newest_of(&|time| local(time).format("%F %H").to_string(), HOURLY as usize);
    let all = [
        (newest, HOURLY, days * 24 / hours),
        (newest_of(&|time| local(time).format("%F").to_string(), DAILY as usize), DAILY, days),
        (newest_of(&|time| local(time).format("%G %V").to_string(), WEEKLY as usize), WEEKLY, days / 7),
        (newest_of(&|time| local(time).format("%Y %m").to_string(), MONTHLY as usize), MONTHLY, days / 31),
    ];
    for (newest, count, possible) in all {
        assert!(newest.len() as u64 >= u64::from(count).min(possible));
        for (bucket, id) in newest {
            assert!(there.contains(&id), "the newest of {bucket} is gone");
        }
    }
}
