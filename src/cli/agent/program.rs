//! The agent's world: this program's settings, the cluster, the repository, and this program's own verbs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::agent::{Agenda, Ending, Entry, Outcome, Task, World};
use crate::cli::agent::child::{self, Ran};
use crate::cli::agent::ledger::Ledger;
use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::output::chain_text;
use crate::cli::sets::{self, Found, Looked, Restore};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{self, Percent, SetSettings, Settings, Upkeep, schedule_of};
use crate::model::set::SetName;
use crate::platform::kubernetes::Kubernetes;
use crate::platform::{PlatformError, SetHold};
use crate::repository::Repository;
use crate::repository::tasks::{self, Kind, Record};
use crate::schedule::{Expression, Schedule};
use crate::telemetry::metrics::{Metrics, OfSet, seconds};

/// Between two searches for sets.
const SEARCH: Duration = Duration::from_secs(60);
const PARALLEL: u32 = 2;
const PRUNE: &str = "30 3 * * 0";
const CHECK: &str = "30 4 * * 0";
const READ_DATA: Percent = Percent(5.0);
/// Drills and work on the repository may begin long after their time: they come once a week or so.
const SELDOM_CATCH_UP: Duration = Duration::from_secs(86_400);

/// Everything that the agent asks for.
pub struct Program {
    args: ClusterArgs,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    wire: Wire,
    /// The settings file as it was when `wire` was made of it, or when that failed.
    text: Option<String>,
    /// That file, as it is now, could not be used.
    refused: bool,
    cluster: Option<Kubernetes>,
    /// The settings with every set named.
    settings: Settings,
    searched: Option<Instant>,
    looked: Looked,
    restores: BTreeMap<SetName, Restore>,
    repository: Option<Repository>,
    ledger: Ledger,
}

impl Program {
    /// Asks nothing of cluster or repository yet. Settings that cannot be used are an error.
    pub async fn new(wire: Wire, args: ClusterArgs, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        metrics.settings_valid.set(1);
        let text = wire.settings_text()?;
        let cluster = sets::connect(&args, &wire).await?;
        usable(&args, &wire, cluster.as_ref())?;
        let settings = wire.settings.clone();
        let state = State {
            wire,
            text,
            refused: false,
            cluster,
            settings,
            searched: None,
            looked: Looked::new(),
            restores: BTreeMap::new(),
            repository: None,
            ledger: Ledger::default(),
        };
        Ok(Program { args, metrics, state: Mutex::new(state) })
    }

    /// Takes the settings file as it is now, if it is another than before and good.
    async fn reload(&self, state: &mut State) {
        let text = match state.wire.settings_text() {
            Ok(text) if text == state.text => {
                self.metrics.settings_valid.set(i64::from(!state.refused));
                return;
            }
            // A file that is gone is no wish to look after nothing any more.
            Ok(None) => {
                self.metrics.settings_valid.set(0);
                return tracing::warn!("the settings file is gone; those before hold");
            }
            Ok(text) => text,
            Err(error) => {
                self.metrics.settings_valid.set(0);
                return tracing::warn!("{}", chain_text(&error));
            }
        };
        state.text = text;
        let wire = state.wire.again();
        let connected = match &wire {
            Ok(wire) => {
                sets::connect(&self.args, wire).await.and_then(|cluster| usable(&self.args, wire, cluster.as_ref()).map(|()| cluster))
            }
            Err(_) => Ok(None),
        };
        match (wire, connected) {
            (Ok(wire), Ok(cluster)) => {
                tracing::info!("the settings have changed, and hold from now on");
                self.metrics.settings_valid.set(1);
                state.refused = false;
                (state.wire, state.cluster) = (wire, cluster);
                (state.searched, state.repository, state.ledger) = (None, None, Ledger::default());
            }
            (Err(error), _) | (_, Err(error)) => {
                self.metrics.settings_valid.set(0);
                state.refused = true;
                tracing::error!("the settings have changed and cannot be used, so that those before hold: {}", chain_text(&error));
            }
        }
    }

    /// Names every set that the settings and the cluster have.
    async fn search(&self, state: &mut State) {
        if state.searched.is_some_and(|searched| searched.elapsed() < SEARCH) {
            return;
        }
        let Found { settings, left_out, restores, looked } =
            sets::search(&state.wire.settings, state.cluster.as_ref(), &state.looked).await;
        for complaint in &left_out {
            tracing::warn!("{complaint}");
        }
        self.metrics.sets_left_out.set(i64::try_from(left_out.len()).unwrap_or(i64::MAX));
        for set in state.settings.sets.iter().filter_map(SetSettings::set) {
            match settings.sets.iter().find(|now| now.set().as_ref() == Some(&set)) {
                None => self.metrics.forget_set(&set),
                Some(now) if schedule_of(&settings, now).is_none() => self.metrics.unschedule(&set),
                Some(_) => {}
            }
        }
        for (set, restore) in &restores {
            self.metrics.journal_open.get_or_create(&OfSet::from(set)).set(i64::from(*restore != Restore::None));
            self.metrics.at_zero.get_or_create(&OfSet::from(set)).set(i64::from(*restore == Restore::AtZero));
        }
        (state.settings, state.restores, state.looked) = (settings, restores, looked);
        state.searched = Some(Instant::now());
    }
}

/// What would fail at the first backup is better said at once.
fn usable(args: &ClusterArgs, wire: &Wire, cluster: Option<&Kubernetes>) -> anyhow::Result<()> {
    wire.location()?;
    if cluster.is_some() {
        cluster::image(args, wire)?;
    }
    Ok(())
}

/// What comes so seldom that it may be done long after its time.
fn seldom(task: Task, expression: Expression, zone: Option<&str>, suspend: Option<bool>, defaults: &config::Defaults) -> Entry {
    let zone = zone.or(defaults.time_zone.as_deref());
    let schedule = Schedule {
        expression,
        zone: zone.and_then(|zone| zone.parse().ok()).unwrap_or(Tz::UTC),
        jitter: defaults.jitter.map(|span| span.0).unwrap_or_default(),
        catch_up: SELDOM_CATCH_UP,
    };
    Entry { task, schedule, suspended: suspend.unwrap_or(false), held_back: false }
}

/// When something is done to the whole repository.
fn upkeep(task: Task, upkeep: Option<&Upkeep>, usual: &str, defaults: &config::Defaults) -> Option<Entry> {
    let given = upkeep.and_then(|upkeep| upkeep.schedule.clone());
    let suspend = upkeep.and_then(|upkeep| upkeep.suspend);
    Some(seldom(task, given.or_else(|| usual.parse().ok())?, None, suspend, defaults))
}

fn agenda(settings: &Settings, restores: &BTreeMap<SetName, Restore>) -> Agenda {
    let backup = |set: &SetSettings| {
        let schedule = schedule_of(settings, set)?;
        let name = set.set()?;
        let held_back = restores.get(&name).is_some_and(|restore| *restore != Restore::None);
        Some(Entry { task: Task::Backup(name), schedule, suspended: set.suspend.unwrap_or(false), held_back })
    };
    let drill = |set: &SetSettings| {
        let expression = set.drill.as_ref()?.schedule.clone()?;
        Some(seldom(Task::Drill(set.set()?), expression, set.time_zone.as_deref(), set.suspend, &settings.defaults))
    };
    let mut entries: Vec<Entry> = settings.sets.iter().filter_map(backup).collect();
    entries.extend(settings.sets.iter().filter_map(drill));
    let agent = &settings.agent;
    entries.extend(upkeep(Task::Prune, agent.prune.as_ref(), PRUNE, &settings.defaults));
    entries.extend(upkeep(Task::Check, agent.check.as_ref(), CHECK, &settings.defaults));
    Agenda { entries, parallel: agent.parallel.unwrap_or(PARALLEL) as usize, forget: agent.forget.unwrap_or(true) }
}

#[async_trait]
impl World for Program {
    async fn lead(&self) -> Result<Option<SetHold>, String> {
        let Some(cluster) = self.state.lock().await.cluster.clone() else { return Ok(Some(SetHold::unneeded())) };
        match cluster.lead().await {
            Ok(hold) => Ok(Some(hold)),
            Err(PlatformError::Led { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn agenda(&self) -> Result<Agenda, String> {
        let mut state = self.state.lock().await;
        self.reload(&mut state).await;
        self.search(&mut state).await;
        Ok(agenda(&state.settings, &state.restores))
    }

    async fn last(&self) -> Result<BTreeMap<Task, DateTime<Utc>>, String> {
        let mut state = self.state.lock().await;
        let known = known(&mut state, &self.metrics).await;
        self.metrics.reachable.set(i64::from(known.is_ok()));
        let cluster = known.map_err(|error| {
            // It may have been made anew, or given another password.
            state.repository = None;
            chain_text(&error)
        })?;
        let sets: Vec<SetName> = state.settings.sets.iter().filter_map(SetSettings::set).collect();
        state.ledger.show(&self.metrics, &cluster, &sets);
        Ok(state.ledger.last(&cluster))
    }

    async fn carry_out(&self, task: &Task, interrupted: watch::Receiver<bool>) -> Outcome {
        let began = self.state.lock().await.wire.clock.now();
        let outcome = match self.run(task, began, interrupted).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome { ending: Ending::Failed, detail: chain_text(&error) },
        };
        self.state.lock().await.ledger.outdate();
        outcome
    }
}

/// Reads what the repository has that is new; the cluster's name is returned.
async fn known(state: &mut State, metrics: &Metrics) -> anyhow::Result<String> {
    let cluster = state.wire.cluster()?;
    let repository = match &state.repository {
        Some(repository) => repository.clone(),
        None => state.wire.repository().await?,
    };
    state.repository = Some(repository.clone());
    let now = state.wire.clock.now();
    state.ledger.refresh(&repository, metrics, now).await?;
    Ok(cluster)
}

impl Program {
    async fn run(&self, task: &Task, began: DateTime<Utc>, interrupted: watch::Receiver<bool>) -> anyhow::Result<Outcome> {
        let (settings, arguments, repository) = {
            let state = self.state.lock().await;
            let Some(mut arguments) = arguments(task, &state) else {
                return Ok(Outcome { ending: Ending::Done, detail: "no set has rules".to_owned() });
            };
            arguments.extend(state.wire.passed_on());
            if task.set().is_some() {
                arguments.extend(self.args.passed_on());
            }
            // Of this one it will be told, whatever the settings say by then.
            (state.settings.clone(), arguments, state.repository.clone())
        };
        let ran = child::run(&arguments, &settings, &task.to_string(), interrupted).await?;
        let outcome = self.judged(task, &ran);
        let kind = match task {
            Task::Prune => Some(Kind::Prune),
            Task::Check => Some(Kind::Check),
            Task::Backup(_) | Task::Drill(_) | Task::Forget => None,
        };
        if let Some(kind) = kind.filter(|_| outcome.ending.is_well()) {
            let record = Record::new(kind, began, ran.ending == Ending::Done, outcome.detail.clone());
            let noted = match &repository {
                Some(repository) => tasks::record(repository, &record).await.map_err(|error| error.to_string()),
                None => Err("the repository is not known".to_owned()),
            };
            if let Err(error) = noted {
                tracing::warn!("{task}: that it was done could not be noted, and it may be done again too soon: {error}");
            }
            if *task == Task::Check {
                self.metrics.check_last.set(seconds(began));
                self.metrics.check_sound.set(i64::from(record.good));
            }
        }
        Ok(outcome)
    }

    fn judged(&self, task: &Task, ran: &Ran) -> Outcome {
        let mut outcome = Outcome { ending: ran.ending, detail: ran.complaint.clone() };
        let Some(answer) = &ran.answer else { return outcome };
        match task {
            Task::Backup(set) => {
                if let Some(point) = answer["backups"].get(0) {
                    self.show_backup(set, point);
                    let (id, claims) = (point["point"].as_str().unwrap_or_default(), point["claims"].as_u64().unwrap_or(0));
                    let stored = point["total"]["storedBytes"].as_u64().unwrap_or(0);
                    let claims = words::count(claims, "claim", "claims");
                    outcome.detail = format!("point {}, {claims}, {} stored", &id[..id.len().min(8)], words::bytes(stored));
                }
            }
            // It was done, and found what it was to look for: to do it again soon would find no more.
            Task::Check if ran.ending == Ending::Failed => {
                outcome = Outcome { ending: Ending::Done, detail: "something is damaged: `keepset check` names it".to_owned() };
            }
            Task::Drill(_) | Task::Forget | Task::Prune | Task::Check => {}
        }
        outcome
    }

    fn show_backup(&self, set: &SetName, point: &Value) {
        let label = OfSet::from(set);
        let number = |value: &Value| i64::try_from(value.as_u64().unwrap_or(0)).unwrap_or(i64::MAX);
        self.metrics.backup_seconds.get_or_create(&label).set(point["seconds"].as_f64().unwrap_or(0.0));
        self.metrics.backup_read.get_or_create(&label).set(number(&point["total"]["movedBytes"]));
        self.metrics.backup_added.get_or_create(&label).set(number(&point["total"]["newBytes"]));
        self.metrics.mover_peak.get_or_create(&label).set(number(&point["total"]["peakBytes"]));
        self.metrics.backup_stored.get_or_create(&label).set(number(&point["total"]["storedBytes"]));
    }
}

/// The verb that does it; `None` where there is nothing to do.
fn arguments(task: &Task, state: &State) -> Option<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Some(match task {
        Task::Backup(set) => words(&["backup", &set.to_string()]),
        Task::Drill(set) => words(&["drill", &set.to_string()]),
        Task::Prune => words(&["prune"]),
        Task::Check => {
            let share = state.settings.agent.check.as_ref().and_then(|check| check.read_data).unwrap_or(READ_DATA);
            words(&["check", &format!("--read-data={share}")])
        }
        Task::Forget => {
            let cluster = state.wire.cluster().ok()?;
            let has_rules = |set: &&SetSettings| set.retention.or(state.settings.defaults.retention).is_some();
            // The annotations of a set that is not there are not either: by less than its own rules nothing of it may go.
            let seen = |set: &SetName| state.looked.values().flatten().any(|found| found.set == *set);
            let own_rules = |set: &SetName| state.wire.set_settings(set).is_some_and(|set| set.from.is_some() || set.retention.is_some());
            let sets: Vec<String> = state
                .settings
                .sets
                .iter()
                .filter(has_rules)
                .filter_map(SetSettings::set)
                .filter(|set| state.ledger.has_points(&cluster, set) && (seen(set) || own_rules(set)))
                .map(|set| set.to_string())
                .collect();
            if sets.is_empty() {
                return None;
            }
            [words(&["forget"]), sets].concat()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn settings_that_are_handed_on_mean_the_same() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/keepset.yaml");
        let settings = config::load(std::path::Path::new(file)).unwrap();
        assert_eq!(parse("handed on", &serde_json::to_string(&settings).unwrap()).unwrap(), settings);
        let least = Settings::default();
        assert_eq!(parse("handed on", &serde_json::to_string(&least).unwrap()).unwrap(), least);
    }

    #[test]
    fn the_agenda_has_every_set_with_a_schedule_and_the_weekly_upkeep() {
        let settings = parse(
            "k.yaml",
            "agent: {parallel: 3, check: {suspend: true}}\nsets:\n\
             - {match: {namespace: a, name: b}, schedule: '@daily', suspend: true}\n- {match: {namespace: a, name: c}}\n",
        )
        .unwrap();
        let agenda = agenda(&settings, &BTreeMap::new());
        let shown: Vec<String> =
            agenda.entries.iter().map(|entry| format!("{} {} {}", entry.task, entry.schedule.expression, entry.suspended)).collect();
        assert_eq!(shown, ["backup of a/b @daily true", "prune 30 3 * * 0 false", "check 30 4 * * 0 true"]);
        assert_eq!((agenda.parallel, agenda.forget), (3, true));
    }
}
