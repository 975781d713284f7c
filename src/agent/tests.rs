//! The loop with a world that is made up, a clock that is moved by hand, and time that passes when nobody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use super::*;
use crate::model::set::SetName;
use crate::platform::SetHold;
use crate::schedule::Schedule;

/// Every task ends when it is told to, or after its time.
struct MadeUp {
    agenda: Mutex<Agenda>,
    points: Mutex<BTreeMap<Task, DateTime<Utc>>>,
    begun: Mutex<Vec<Task>>,
    at_work: Mutex<BTreeSet<Task>>,
    changed: Notify,
    clock: Clock,
    lasts: Duration,
    /// How often nobody can tell what is due.
    broken: Mutex<usize>,
    other_leads: Mutex<bool>,
    /// Says to whoever leads that it does no more.
    lose: watch::Sender<bool>,
    /// So many tasks panic.
    panics: Mutex<usize>,
}

#[async_trait]
impl World for MadeUp {
    async fn lead(&self) -> Result<Option<SetHold>, String> {
        let (release, released) = tokio::sync::oneshot::channel();
        let keeper = tokio::spawn(async move {
            let _ = released.await;
        });
        let hold = SetHold::kept(keeper, release, self.lose.subscribe());
        Ok((!*self.other_leads.lock().unwrap()).then_some(hold))
    }

    async fn agenda(&self) -> Result<Agenda, String> {
        let mut broken = self.broken.lock().unwrap();
        if *broken > 0 {
            *broken -= 1;
            return Err("no answer".into());
        }
        Ok(self.agenda.lock().unwrap().clone())
    }

    async fn last(&self) -> Result<BTreeMap<Task, DateTime<Utc>>, String> {
        Ok(self.points.lock().unwrap().clone())
    }

    async fn carry_out(&self, task: &Task, interrupted: watch::Receiver<bool>) -> Outcome {
        let began = self.clock.now();
        {
            let mut panics = self.panics.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if *panics > 0 {
                *panics -= 1;
                drop(panics);
                panic!("as asked for");
            }
        }
        self.begun.lock().unwrap().push(task.clone());
        assert!(self.at_work.lock().unwrap().insert(task.clone()), "{task} is at work twice");
        self.changed.notify_waiters();
        let ending = tokio::select! {
            () = sleep(self.lasts) => Ending::Done,
            () = raised(interrupted) => Ending::Interrupted,
        };
        self.at_work.lock().unwrap().remove(task);
        if ending == Ending::Done {
            self.points.lock().unwrap().insert(task.clone(), began);
        }
        Outcome { ending, detail: String::new() }
    }
}

fn web() -> Task {
    Task::Backup(SetName::new("shop", "web").unwrap())
}

/// An agent of one set that is backed up every hour, and whose clock stands at 01:00.
fn agent(lasts: Duration, grace: Duration) -> (Agent, Arc<MadeUp>, watch::Sender<bool>) {
    let clock = Clock::manual(3_600_000);
    let schedule = Schedule {
        expression: "0 * * * *".parse().unwrap(),
        zone: chrono_tz::UTC,
        jitter: Duration::ZERO,
        catch_up: Duration::from_secs(1800),
    };
    let world = Arc::new(MadeUp {
        agenda: Mutex::new(Agenda {
            entries: vec![Entry { task: web(), schedule, suspended: false, held_back: false }],
            parallel: 2,
            forget: true,
        }),
        points: Mutex::default(),
        begun: Mutex::default(),
        at_work: Mutex::default(),
        changed: Notify::new(),
        clock: clock.clone(),
        lasts,
        broken: Mutex::default(),
        other_leads: Mutex::default(),
        lose: watch::Sender::new(false),
        panics: Mutex::default(),
    });
    let (sender, stop) = watch::channel(false);
    let agent = Agent { world: world.clone(), clock, metrics: Arc::default(), health: Arc::default(), grace, stop };
    (agent, world, sender)
}

fn shown(agent: &Agent, line: &str) -> bool {
    agent.metrics.text().lines().any(|have| have == line)
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_begun_and_retention_follows_and_then_all_is_quiet_until_the_next_time() {
    let (agent, world, stop) = agent(Duration::from_secs(60), Duration::from_secs(100));
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    // Paused time jumps on whenever everybody waits.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(*world.begun.lock().unwrap(), [web(), Task::Forget]);
    agent.clock.advance(Duration::from_secs(3600));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(*world.begun.lock().unwrap(), [web(), Task::Forget, web(), Task::Forget]);
    assert!(shown(&agent, r#"keepset_backups_total{namespace="shop",set="web",result="complete"} 2"#), "{}", agent.metrics.text());
    assert!(shown(&agent, r#"keepset_tasks_total{task="forget",result="done"} 2"#));
    assert!(shown(&agent, r#"keepset_set_next_run_timestamp_seconds{namespace="shop",set="web"} 10800.0"#));
    assert!(shown(&agent, r#"keepset_set_interval_seconds{namespace="shop",set="web"} 3600.0"#));
    assert!(shown(&agent, "keepset_leader 1"));
    stop.send_replace(true);
    running.await.unwrap();
    assert!(shown(&agent, "keepset_leader 0"));
}

#[tokio::test(start_paused = true)]
async fn times_that_went_by_while_the_set_could_not_be_asked_for_are_counted() {
    let (agent, world, stop) = agent(Duration::from_secs(1), Duration::ZERO);
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    sleep(Duration::from_secs(60)).await;
    *world.broken.lock().unwrap() = 3;
    agent.clock.advance(Duration::from_secs(3 * 3600 + 2400));
    sleep(Duration::from_secs(60)).await;
    // 02:00, 03:00 and 04:00 are too long past at 04:40.
    assert!(shown(&agent, r#"keepset_missed_schedules_total{namespace="shop",set="web"} 3"#), "{}", agent.metrics.text());
    assert_eq!(world.begun.lock().unwrap().iter().filter(|task| **task == web()).count(), 1);
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_it_begins_nothing_and_lets_what_is_at_work_end_within_its_time() {
    for (lasts, grace, expected) in [(30, 60, "complete"), (600, 60, "interrupted")] {
        let (agent, world, stop) = agent(Duration::from_secs(lasts), Duration::from_secs(grace));
        let running = tokio::spawn({
            let agent = agent.clone();
            async move { agent.run().await }
        });
        while world.begun.lock().unwrap().is_empty() {
            world.changed.notified().await;
        }
        stop.send_replace(true);
        running.await.unwrap();
        assert_eq!(*world.begun.lock().unwrap(), [web()]);
        assert!(world.at_work.lock().unwrap().is_empty());
        let line = format!(r#"keepset_backups_total{{namespace="shop",set="web",result="{expected}"}} 1"#);
        assert!(shown(&agent, &line), "{}", agent.metrics.text());
    }
}

#[tokio::test(start_paused = true)]
async fn while_another_leads_nothing_is_begun_and_it_is_ready_all_the_same() {
    let (agent, world, stop) = agent(Duration::from_secs(1), Duration::ZERO);
    *world.other_leads.lock().unwrap() = true;
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(world.begun.lock().unwrap().is_empty());
    *world.other_leads.lock().unwrap() = false;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.begun.lock().unwrap()[0], web());
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_loses_the_lead_lets_its_work_end_and_knows_it_when_it_leads_again() {
    let (agent, world, stop) = agent(Duration::from_secs(3000), Duration::ZERO);
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    sleep(Duration::from_secs(60)).await;
    *world.other_leads.lock().unwrap() = true;
    world.lose.send_replace(true);
    sleep(Duration::from_secs(60)).await;
    assert!(shown(&agent, "keepset_leader 0") && !agent.metrics.text().contains("next_run_timestamp_seconds{"));
    assert_eq!(world.at_work.lock().unwrap().len(), 1);
    world.lose.send_replace(false);
    *world.other_leads.lock().unwrap() = false;
    // Another time has come; the one that is at work is not begun twice (which would panic), and ends well.
    agent.clock.advance(Duration::from_secs(3600));
    sleep(Duration::from_secs(600)).await;
    assert!(shown(&agent, "keepset_leader 1"));
    assert_eq!(*world.begun.lock().unwrap(), [web()]);
    sleep(Duration::from_secs(3000)).await;
    assert!(shown(&agent, r#"keepset_backups_total{namespace="shop",set="web",result="complete"} 1"#), "{}", agent.metrics.text());
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_has_failed_and_keeps_no_place() {
    let (agent, world, stop) = agent(Duration::from_secs(1), Duration::ZERO);
    *world.panics.lock().unwrap() = 1;
    let running = tokio::spawn({
        let agent = agent.clone();
        async move { agent.run().await }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(shown(&agent, r#"keepset_backups_total{namespace="shop",set="web",result="failed"} 1"#), "{}", agent.metrics.text());
    agent.clock.advance(Duration::from_secs(120));
    sleep(Duration::from_secs(60)).await;
    assert!(shown(&agent, r#"keepset_backups_total{namespace="shop",set="web",result="complete"} 1"#), "{}", agent.metrics.text());
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn once_lets_what_is_at_work_end_though_nobody_can_tell_what_else_is_due() {
    let (agent, world, _stop) = agent(Duration::from_secs(60), Duration::ZERO);
    let once = tokio::spawn({
        let agent = agent.clone();
        async move { agent.once().await }
    });
    while world.begun.lock().unwrap().is_empty() {
        world.changed.notified().await;
    }
    *world.broken.lock().unwrap() = 3;
    let done = once.await.unwrap().unwrap();
    assert_eq!(done.iter().filter(|(_, outcome)| outcome.ending == Ending::Done).count(), 2, "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn once_does_what_is_due_and_what_follows_and_ends() {
    let (agent, world, _stop) = agent(Duration::from_secs(60), Duration::ZERO);
    let done = agent.once().await.unwrap();
    let endings: Vec<(String, Ending)> = done.iter().map(|(task, outcome)| (task.to_string(), outcome.ending)).collect();
    assert_eq!(endings, [("backup of shop/web".to_owned(), Ending::Done), ("forget".to_owned(), Ending::Done)]);
    assert!(agent.once().await.unwrap().is_empty());
    *world.broken.lock().unwrap() = 1;
    assert_eq!(agent.once().await.unwrap_err(), "no answer");
}

/// A year of one set, a look every ten minutes, with a world that is away for days and work that takes its time.
#[tokio::test(start_paused = true)]
async fn in_a_year_every_time_is_run_once_or_told_as_missed() {
    let (agent, world, _stop) = agent(Duration::from_secs(1), Duration::ZERO);
    let zone = chrono_tz::Europe::Berlin;
    world.agenda.lock().unwrap().entries[0].schedule = Schedule {
        expression: "30 2,14 * * *".parse().unwrap(),
        zone,
        jitter: Duration::from_secs(600),
        catch_up: Duration::from_secs(3 * 3600),
    };
    let schedule = world.agenda.lock().unwrap().entries[0].schedule.clone();
    let start = agent.clock.now();
    let mut board = Board::default();
    let (mut runs, mut missed) = (BTreeSet::new(), 0);
    let step = TimeDelta::minutes(10);
    let mut ends = None;
    for tick in 0..(365 * 144) {
        agent.clock.advance(Duration::from_secs(600));
        let now = agent.clock.now();
        if let Some((began, at)) = ends.filter(|(_, at)| *at <= now) {
            board.ended(&web(), began, &Outcome { ending: Ending::Done, detail: String::new() }, at);
            ends = None;
        }
        // Away for two days of each month, and for an hour each day.
        if tick % (30 * 144) < 288 || tick % 144 < 6 {
            continue;
        }
        let agenda = world.agenda().await.unwrap();
        let look = board.look(&agenda, &BTreeMap::new(), now);
        missed += look.missed.values().sum::<usize>();
        if look.begin.contains(&web()) {
            assert!(runs.insert(schedule.times(start, now).pop()), "a time is run twice at {now}");
            ends = Some((now, now + step * (1 + tick % 7)));
        }
        if look.begin.contains(&Task::Forget) {
            board.ended(&Task::Forget, now, &Outcome { ending: Ending::Done, detail: String::new() }, now);
        }
    }
    // Of a set without points nothing is missed before it is first looked at.
    let times = schedule.times(start + step * 288, agent.clock.now() - TimeDelta::hours(4)).len();
    let difference = times.abs_diff(runs.len() + missed);
    assert!(difference <= 1 && missed > 10 && runs.len() > 600, "{times} times, {} runs, {missed} missed", runs.len());
}
