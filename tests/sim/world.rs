//! Runs a scenario to its end, and looks at the repository whenever nobody is at work.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keepset::model::id::Id;
use keepset::monitor::Silent;
use keepset::random::Seeded;
use keepset::repository::Repository;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::error::RepositoryError;
use keepset::repository::index::Index;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::lock::Mode;
use keepset::repository::pack;
use keepset::repository::points::list_points;
use keepset::repository::reach::Rows;
use keepset::repository::reader::Reader;
use keepset::repository::repair::index::{RepairOptions, repair};
use keepset::store::Patience;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::dice::Dice;
use super::model::{Model, Volumes};
use super::place::chain;
use super::roles::{Failure, Process, kind_of, stock_record};
use super::scenario::{Actor, Role, SETS, Scenario, Step};
use super::store::{Door, Ground, Life, Weather};

/// What came of a scenario.
pub struct Outcome {
    /// What must not be, if it was.
    pub violation: Option<String>,
    /// The same for the same scenario.
    pub trace: u64,
    pub requests: u64,
    pub log: Vec<String>,
    pub ends: BTreeMap<(&'static str, &'static str), u64>,
}

/// A runtime of one thread and virtual time, all of whose randomness follows from the seed.
pub fn runtime(seed: u64) -> Runtime {
    let source = Seeded::new(seed);
    source.serve_this_thread();
    // Helper threads too. At most one of them works at a time, for time does not pass while one does.
    let serve = move || source.serve_this_thread();
    Builder::new_current_thread().enable_all().start_paused(true).on_thread_start(serve).build().unwrap()
}

/// Runs it. `log` writes every request down.
pub fn run(scenario: &Scenario, log: bool) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = runtime(scenario.seed);
        let outcome = runtime.block_on(live(scenario, log));
        runtime.shutdown_background();
        outcome
    }));
    Seeded::leave_this_thread();
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Some(format!("panic: {}", text.unwrap_or_default()));
        Outcome { violation, trace: 0, requests: 0, log: Vec::new(), ends: BTreeMap::new() }
    })
}

/// Somebody who looks at everything, and whom nothing befalls.
fn onlooker() -> Actor {
    Actor { name: "onlooker".to_owned(), skew: 0, attempt: 60, outage: 0, wait: 0, rounds: Vec::new() }
}

pub struct World {
    pub ground: Ground,
    pub model: Arc<Mutex<Model>>,
    master: Arc<[u8; 64]>,
    lawful: bool,
    with_stock: bool,
}

async fn live(scenario: &Scenario, log: bool) -> Outcome {
    let world = World { with_stock: scenario.has_stock(), ..World::new(scenario.seed, log, scenario.is_lawful(), 2).await };
    let violation = world.tell(scenario).await.err();
    let model = world.model.lock().unwrap();
    Outcome { violation, trace: world.ground.trace(), requests: world.ground.requests(), log: world.ground.log(), ends: model.ends.clone() }
}

impl World {
    /// A new repository with two sets of so many ordinals, not backed up yet.
    pub async fn new(seed: u64, log: bool, lawful: bool, ordinals: usize) -> World {
        let ground = Ground::new(seed, log);
        let store = Door::new(&ground, Life::outside("init")).store(Patience::local());
        let password = Password::generate().unwrap();
        let repository = Repository::init(store, &password, KeyOrigin::default()).await.unwrap();
        let sets = SETS.iter().map(|set| ((*set).to_owned(), Volumes::new(ordinals))).collect();
        let model = Model { sets, sure_passwords: vec![password], ..Model::default() };
        let master = Arc::new(*repository.master_key().to_bytes());
        World { ground, model: Arc::new(Mutex::new(model)), master, lawful, with_stock: false }
    }

    pub fn outside(&self) -> Process {
        let door = Door::new(&self.ground, Life::outside("onlooker"));
        Process::new(&self.ground, door, &onlooker(), &self.model, &self.master)
    }

    async fn tell(&self, scenario: &Scenario) -> Result<(), String> {
        // Something to begin with.
        for set in SETS {
            self.outside().backup(set).await.map_err(|error| format!("the first backup fails: {}", chain(error.as_ref())))?;
        }
        if scenario.forgets_packs {
            self.ground.forget_packs();
        }
        for (round, gap) in scenario.gaps.iter().enumerate() {
            self.ground.set_weather(scenario.weather);
            let mut at_work: FuturesUnordered<_> = scenario.actors.iter().map(|actor| self.act(scenario.seed, actor, round)).collect();
            while at_work.next().await.is_some() {}
            drop(at_work);
            self.ground.set_weather(Weather::default());
            // What was still on its way arrives.
            sleep(Duration::from_secs(60)).await;
            self.look().await.map_err(|what| format!("after round {round}: {what}"))?;
            sleep(Duration::from_secs(*gap)).await;
        }
        self.end().await.map_err(|what| format!("in the end: {what}"))
    }

    /// What one actor does in a round.
    async fn act(&self, seed: u64, actor: &Actor, round: usize) {
        for (number, step) in actor.rounds.get(round).into_iter().flatten().enumerate() {
            sleep(Duration::from_millis(step.after)).await;
            let name = format!("{}.{round}.{number}", actor.name);
            if let Role::Backup(set) = step.role {
                let mut dice = Dice::of(&[seed, super::dice::number_of(&name)]);
                self.model.lock().unwrap().sets.get_mut(SETS[set]).unwrap().change(&mut dice);
            }
            self.take(seed, actor, step, &name).await;
        }
    }

    async fn take(&self, seed: u64, actor: &Actor, step: &Step, name: &str) {
        let door = Door::new(&self.ground, Life::new(name, seed, step.ends));
        let life = Arc::clone(&door.life);
        let process = Process::new(&self.ground, door, actor, &self.model, &self.master);
        self.ground.note(&format!("{name} begins: {}", step.role.name()));
        let end: Result<Result<(), Failure>, &str> = tokio::select! {
            biased;
            () = life.killed() => Err("killed"),
            done = timeout(Duration::from_secs(12 * 3600), process.run(step.role)) => done.map_err(|_| "hangs"),
        };
        // What it had begun goes no further.
        drop(process);
        let (kind, text) = match &end {
            Ok(Ok(())) => ("done", String::new()),
            Ok(Err(error)) => (kind_of(error), chain(error.as_ref())),
            Err(kind) => (*kind, String::new()),
        };
        self.ground.note(&format!("{name} ends: {kind} {text}"));
        let mut model = self.model.lock().unwrap();
        *model.ends.entry((step.role.name(), kind)).or_default() += 1;
        model.ended_badly += usize::from(kind != "done" || self.ground.is_rough());
        let backup = matches!(step.role, Role::Backup(_));
        // Of a restic that died while it asked to be alone nobody knows that it does not work.
        let lost = kind == "lock lost" && !self.with_stock;
        let impossible = kind == "hangs" || (self.lawful && (kind == "damage" || lost || (kind == "vanished" && !backup)));
        if impossible {
            model.violations.push(format!("{name}, {}, {kind}: {text}", step.role.name()));
        }
    }

    /// Whether all is well while nobody is at work.
    pub async fn look(&self) -> Result<(), String> {
        let told = |error: RepositoryError| chain(&error);
        let outside = self.outside();
        if let Some(violation) = self.model.lock().unwrap().violations.first() {
            return Err(violation.clone());
        }
        self.look_at_passwords().await?;
        let repository = outside.open().await.map_err(told)?;
        let index =
            if self.lawful { Index::load(&repository).await } else { Index::load_readable(&repository).await.map(|(index, _)| index) };
        let reader = Reader::new(&repository, Arc::new(index.map_err(told)?));
        let points = list_points(&reader, None).await.map_err(told)?;
        if let Some(damaged) = points.unreadable.first() {
            return Err(format!("snapshot {} cannot be read: {}", damaged.id, damaged.reason));
        }
        let confirmed: Vec<Id> = {
            let model = self.model.lock().unwrap();
            model.points.keys().filter(|id| !model.going.contains(id)).copied().collect()
        };
        if self.lawful
            && let Some(foreign) = points.foreign.first()
        {
            return Err(format!("snapshot {} is no point: {:?}", foreign.id, foreign.reason));
        }
        let there: HashSet<Id> = points.points.iter().map(|point| point.point.id).collect();
        if let Some(gone) = confirmed.iter().find(|id| !there.contains(id)) {
            return Err(format!("point {gone} was confirmed, nobody forgot it, and it is gone"));
        }
        for point in &points.points {
            // Where somebody removes the locks of the living, a point that nobody was told of may lack something.
            if self.lawful || confirmed.contains(&point.point.id) {
                outside.read_point(&reader, point).await.map_err(told)?;
            }
        }
        if self.lawful {
            let report = check(&repository, &CheckOptions { read_data: Some(100.0), seed: 0, workers: 1 }, &Silent).await.map_err(told)?;
            if !report.is_sound() {
                return Err(format!("a check finds {:?}", report.findings));
            }
        }
        // Each that ended badly may leave its lock, once more where a refresh was cut short, and of a prune one of each kind.
        let (standing, most) = (self.ground.below("locks/").len(), 3 * self.model.lock().unwrap().ended_badly);
        if standing > most { Err(format!("{standing} locks are left, of at most {most}")) } else { Ok(()) }
    }

    async fn look_at_passwords(&self) -> Result<(), String> {
        let outside = self.outside();
        let sure = self.model.lock().unwrap().sure_passwords.len();
        let mut opens = 0;
        for (number, password) in outside.candidates().iter().enumerate() {
            match Repository::open(outside.store.clone(), password).await {
                Ok(_) => opens += 1,
                Err(error) if number < sure => return Err(format!("a password that was confirmed does not open: {}", chain(&error))),
                Err(_) => {}
            }
        }
        if opens == 0 { Err("no password opens the repository any more".to_owned()) } else { Ok(()) }
    }

    /// All faults are over: locks of the dead can be removed, what nobody needs goes, and everybody can work again.
    async fn end(&self) -> Result<(), String> {
        let told = |error: Failure| chain(error.as_ref());
        let outside = self.outside();
        // There is always a lock to be removed.
        let repository = outside.open().await.map_err(|error| chain(&error))?;
        repository.put_sealed("locks", &stock_record(&outside.clock)).await.map_err(|error| chain(&error))?;
        // Longer than the clock of anybody is ahead, and than a lock is good for.
        sleep(Duration::from_secs(30 * 3600)).await;
        outside.unlock().await.map_err(told)?;
        self.none_below("locks/")?;
        if !self.lawful {
            let repository = outside.open().await.map_err(|error| chain(&error))?;
            self.remove_unconfirmed(&repository).await.map_err(told)?;
            let mend = async |lock: &_| Ok(repair(&repository, lock, RepairOptions::default(), &Silent).await?);
            outside.locked(&repository, Mode::Exclusive, mend).await.map_err(told)?;
        }
        outside.forget(1).await.map_err(told)?;
        for _ in 0..2 {
            outside.prune(0.0, true, TimeDelta::zero()).await.map_err(told)?;
        }
        self.nothing_is_unneeded().await?;
        for set in SETS {
            outside.backup(set).await.map_err(told)?;
        }
        self.look().await?;
        // What runs leave when they die goes with the next run that has the repository to itself.
        ["locks/", "x-keepset/runs/"].iter().try_for_each(|folder| self.none_below(folder))
    }

    fn none_below(&self, folder: &str) -> Result<(), String> {
        match self.ground.below(folder).first() {
            Some((key, _)) => Err(format!("{key} is left")),
            None => Ok(()),
        }
    }

    /// Points of which nobody was told may lack something where locks were broken: they keep everybody from removing anything.
    async fn remove_unconfirmed(&self, repository: &Repository) -> Result<(), Failure> {
        let confirmed: HashSet<Id> = self.model.lock().unwrap().points.keys().copied().collect();
        let all = repository.ids("snapshots").await?;
        let keys: Vec<String> = all.iter().filter(|id| !confirmed.contains(id)).map(|id| format!("snapshots/{id}")).collect();
        Ok(repository.store().delete(&keys).await?)
    }

    /// Every pack is in the index, once, and every blob in it is needed; nothing of any run or prune is left.
    pub async fn nothing_is_unneeded(&self) -> Result<(), String> {
        let told = |error: RepositoryError| chain(&error);
        let repository = self.outside().open().await.map_err(told)?;
        let index = Arc::new(Index::load(&repository).await.map_err(told)?);
        let reader = Reader::new(&repository, Arc::clone(&index));
        let mut roots = Vec::new();
        for id in repository.ids("snapshots").await.map_err(told)? {
            roots.extend(keepset::repository::snapshot::load(&repository, &id).await.map_err(told)?.tree);
        }
        let mut needed = Rows::none(&index);
        needed.follow(&reader, roots).await.map_err(told)?;
        // Two index objects may say the same of a pack, where a prune of restic was killed: that takes no room to speak of.
        let mut places = HashSet::new();
        for (id, kind, place) in index.rows() {
            if !index.first_row(kind, &id).is_some_and(|row| needed.has(row)) {
                return Err(format!("{} {id} in pack {} is not needed", kind.name(), place.pack));
            }
            places.insert((kind, id, place.pack, place.offset));
        }
        let blobs: HashSet<_> = places.iter().map(|(kind, id, ..)| (*kind, *id)).collect();
        if blobs.len() < places.len() {
            return Err(format!("{} blobs stand in {} places", blobs.len(), places.len()));
        }
        let named: HashSet<String> = index.packs().iter().map(pack::key).collect();
        let there: HashSet<String> = self.ground.below("data/").into_iter().map(|(key, _)| key).collect();
        if named != there {
            return Err(format!("{} packs are there and {} in the index", there.len(), named.len()));
        }
        for folder in ["x-keepset/prune/", "x-keepset/clock/", "locks/"] {
            self.none_below(folder)?;
        }
        Ok(())
    }
}

/// Makes a failing scenario as small as some tries allow; the second is what then goes wrong.
pub fn shrink(scenario: &Scenario, violation: String) -> (Scenario, String) {
    let (mut smallest, mut violation) = (scenario.clone(), violation);
    let mut tries = 400;
    'again: loop {
        for smaller in smallest.smaller() {
            if tries == 0 {
                return (smallest, violation);
            }
            tries -= 1;
            if let Some(found) = run(&smaller, false).violation {
                (smallest, violation) = (smaller, found);
                continue 'again;
            }
        }
        return (smallest, violation);
    }
}

/// For who looks at it: the scenario, what goes wrong, and how to see it again.
pub fn describe(scenario: &Scenario, violation: &str) -> String {
    let log = run(scenario, true).log;
    let last = log[log.len().saturating_sub(150)..].join("\n");
    let seed = scenario.seed;
    format!(
        "{last}\n{scenario:#?}\n{violation}\nKEEPSET_SIM_START={seed} KEEPSET_SIM_SEEDS=1 cargo test --test sim any_seed -- --nocapture"
    )
}
