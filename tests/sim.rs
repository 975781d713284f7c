//! Many processes at work in one repository, killed, cut off and with wrong clocks: is what was confirmed there, and does nothing harmful stay?
//!
//! Each run follows from its seed: one thread, virtual time, a store whose requests arrive late, twice or never. `KEEPSET_SIM_SEEDS` says how
//! many, `KEEPSET_SIM_START` from which on; a seed that fails is made smaller and printed. A simulated year has a backup in every eighth hour;
//! `KEEPSET_SIM_HOURS=1` makes it each hour, and takes some minutes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[path = "sim/mod.rs"]
mod sim;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sim::scenario::Scenario;
use sim::world::{World, describe, run, runtime, shrink};
use sim::year;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Runs so many seeds on all cores; the first that fails, and how often each role came to each end.
fn seeds(start: u64, count: u64, make: fn(u64) -> Scenario) -> (Option<(Scenario, String)>, BTreeMap<(&'static str, &'static str), u64>) {
    let (next, failed) = (AtomicU64::new(start), AtomicBool::new(false));
    let found: Mutex<Option<(Scenario, String)>> = Mutex::default();
    let ends: Mutex<BTreeMap<_, u64>> = Mutex::default();
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= start + count {
                return;
            }
            let scenario = make(seed);
            let outcome = run(&scenario, false);
            outcome.ends.iter().for_each(|(end, times)| *ends.lock().unwrap().entry(*end).or_default() += times);
            if let Some(violation) = outcome.violation {
                failed.store(true, Ordering::Relaxed);
                found.lock().unwrap().get_or_insert((scenario, violation));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    (found.into_inner().unwrap(), ends.into_inner().unwrap())
}

#[test]
fn any_seed_keeps_every_promise() {
    let (start, count) = (number("KEEPSET_SIM_START", 0), number("KEEPSET_SIM_SEEDS", 200));
    let (failed, ends) = seeds(start, count, Scenario::of);
    if let Some((scenario, violation)) = failed {
        println!("seed {} fails: {violation}", scenario.seed);
        let (smallest, violation) = shrink(&scenario, violation);
        panic!("{}", describe(&smallest, &violation));
    }
    ends.iter().for_each(|((role, end), times)| println!("{role}: {times} {end}"));
    let times = |role, end| ends.get(&(role, end)).copied().unwrap_or_default();
    // Where most are refused or killed, little is proven.
    for role in ["backup", "prune", "forget", "check", "restore", "password", "unlock", "stock prune"] {
        assert!(count < 100 || times(role, "done") > count / 20, "{role} was done {} times", times(role, "done"));
    }
    assert!(count < 100 || times("backup", "killed") > count / 10);
}

#[test]
fn the_same_seed_is_the_same_story_twice() {
    for seed in 0..12 {
        let (once, again) = (run(&Scenario::of(seed), true), run(&Scenario::of(seed), true));
        let differs = once.log.iter().zip(&again.log).position(|(a, b)| a != b);
        if let Some(at) = differs {
            let around = |log: &[String]| log[at.saturating_sub(12)..(at + 3).min(log.len())].join("\n");
            panic!("seed {seed} differs at {at}:\n{}\n---\n{}", around(&once.log), around(&again.log));
        }
        assert_eq!((once.trace, once.requests, once.log.len()), (again.trace, again.requests, again.log.len()), "seed {seed}");
        assert!(once.requests > 100, "seed {seed}: {} requests", once.requests);
    }
    assert_ne!(run(&Scenario::of(1), false).trace, run(&Scenario::of(2), false).trace);
}

#[test]
fn a_prune_that_heeds_no_lock_is_found_and_made_small() {
    let (found, _) = seeds(0, 200, |seed| Scenario::of(seed).with_heedless_prune());
    let (scenario, violation) = found.unwrap();
    let (smallest, violation) = shrink(&scenario, violation);
    assert!(smallest.actors.len() <= 3, "{}", describe(&smallest, &violation));
    assert!(smallest.actors.iter().any(|actor| actor.name == "heedless"), "{}", describe(&smallest, &violation));
    assert_eq!(run(&smallest, false).violation, Some(violation));
}

#[test]
fn a_store_that_forgets_packs_is_found() {
    let (found, _) = seeds(0, 200, |seed| Scenario { forgets_packs: true, ..Scenario::of(seed) });
    assert!(found.is_some());
}

#[test]
fn what_is_left_of_asking_for_the_stores_time_goes_with_the_next() {
    let runtime = runtime(0);
    runtime.block_on(async {
        let world = World::new(0, false, true, 1).await;
        let (outside, day) = (world.outside(), std::time::Duration::from_secs(24 * 3600));
        let repository = outside.open().await.unwrap();
        // As one leaves it that is killed between its put and its delete.
        repository.store().put_new("x-keepset/clock/0123", "now".into()).await.unwrap();
        repository.put_sealed("locks", &sim::roles::stock_record(&outside.clock)).await.unwrap();
        tokio::time::sleep(day).await;
        outside.unlock().await.unwrap();
        assert!(world.ground.below("locks/").is_empty());
        assert!(world.ground.below("x-keepset/clock/").is_empty());
    });
}

#[test]
fn a_year_of_backups_keeps_what_retention_says_in_bounded_room() {
    let year = year::live(number("KEEPSET_SIM_DAYS", 365), number("KEEPSET_SIM_HOURS", 8));
    println!("{year:?}");
}
