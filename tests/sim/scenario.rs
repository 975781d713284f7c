//! Who does what when, and what befalls them: made of a seed, and made smaller while it still fails.

use super::dice::Dice;
use super::store::{End, Weather};

pub const SETS: [&str; 2] = ["shop/web", "shop/db"];

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Backup(usize),
    /// Percent that may stay unused, and whether condemned packs go at once.
    Prune {
        max_unused: u8,
        now: bool,
    },
    /// But so many of each set.
    Forget {
        last: u32,
    },
    Check,
    /// All that is there is read.
    Restore,
    /// The password is replaced.
    Password,
    /// What `keepset unlock` does.
    Unlock,
    /// What `restic prune` does.
    Stock(Stock),
}

/// How stock restic is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    Careful,
    /// After `restic unlock`, which goes by its own machine's clock alone.
    AfterUnlock,
    /// No restic: one that takes no lock and looks at none.
    Heedless,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Backup(_) => "backup",
            Role::Prune { .. } => "prune",
            Role::Forget { .. } => "forget",
            Role::Check => "check",
            Role::Restore => "restore",
            Role::Password => "password",
            Role::Unlock => "unlock",
            Role::Stock(_) => "stock prune",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub role: Role,
    /// Milliseconds after the one before it.
    pub after: u64,
    /// At which of its requests it ends, if it does before its work is done.
    pub ends: Option<(u64, End)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Actor {
    pub name: String,
    /// Seconds that its clock is ahead.
    pub skew: i64,
    /// Seconds that it waits for an answer.
    pub attempt: u64,
    /// Seconds that it waits for a store that fails.
    pub outage: u64,
    /// Seconds that it waits for a lock.
    pub wait: u64,
    /// One list of steps for each round.
    pub rounds: Vec<Vec<Step>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub seed: u64,
    pub weather: Weather,
    pub actors: Vec<Actor>,
    /// Seconds of quiet after each round.
    pub gaps: Vec<u64>,
    /// The store forgets packs: no promise can be kept then, which must be noticed.
    pub forgets_packs: bool,
}

impl Scenario {
    pub fn of(seed: u64) -> Scenario {
        let mut dice = Dice::of(&[seed, 1]);
        let mut weather = Weather::default();
        if dice.happens(650) {
            let mut often = |most: u64| if dice.happens(500) { dice.below(most) } else { 0 };
            weather = Weather { lost_requests: often(40), lost_replies: often(40), busy: often(40), slow: often(30), silent: often(15) };
        }
        let gaps: Vec<u64> = (0..dice.between(2, 4)).map(|_| dice.of_list(&[0, 300, 2400, 172_800])).collect();
        let mut scenario = Scenario { seed, weather, actors: Vec::new(), gaps, forgets_packs: false };
        scenario.add("web", &mut dice, |_| Role::Backup(0));
        scenario.add("db", &mut dice, |_| Role::Backup(1));
        let prune = |dice: &mut Dice| Role::Prune { max_unused: dice.of_list(&[0, 0, 5, 100]), now: dice.happens(500) };
        scenario.add("prune", &mut dice, prune);
        scenario.add("forget", &mut dice, |dice| Role::Forget { last: u32::try_from(dice.between(1, 3)).unwrap() });
        if dice.happens(300) {
            scenario.add("prune-too", &mut dice, prune);
        }
        if dice.happens(300) {
            scenario.add("web-too", &mut dice, |_| Role::Backup(1));
        }
        for (name, role) in [("check", Role::Check), ("restore", Role::Restore), ("password", Role::Password), ("unlock", Role::Unlock)] {
            if dice.happens(450) {
                scenario.add(name, &mut dice, |_| role);
            }
        }
        if dice.happens(400) {
            let stock = if dice.happens(200) { Stock::AfterUnlock } else { Stock::Careful };
            scenario.add("stock", &mut dice, |_| Role::Stock(stock));
        }
        scenario
    }

    fn add(&mut self, name: &str, dice: &mut Dice, role: impl Fn(&mut Dice) -> Role) {
        let rounds = (0..self.gaps.len()).map(|_| {
            let steps = (0..dice.between(0, 2)).map(|_| Step {
                role: role(dice),
                after: if dice.happens(100) { dice.below(600_000) } else { dice.below(3000) },
                ends: dice.happens(220).then(|| (dice.below(60), dice.of_list(&[End::KilledBefore, End::KilledAfter, End::Interrupted]))),
            });
            steps.collect()
        });
        let rounds = rounds.collect();
        let hour = 3600;
        self.actors.push(Actor {
            name: name.to_owned(),
            skew: dice.of_list(&[0, 0, 0, 0, 90, -90, 2 * hour, -2 * hour, 26 * hour, -26 * hour]),
            attempt: dice.of_list(&[5, 30]),
            outage: dice.of_list(&[0, 30, 300]),
            wait: dice.of_list(&[0, 60, 600]),
            rounds,
        });
    }

    /// The same with somebody who heeds no lock.
    pub fn with_heedless_prune(mut self) -> Scenario {
        let mut dice = Dice::of(&[self.seed, 2]);
        self.actors.retain(|actor| actor.name != "stock");
        self.add("heedless", &mut dice, |_| Role::Stock(Stock::Heedless));
        self
    }

    pub fn has_stock(&self) -> bool {
        self.actors.iter().flat_map(|actor| actor.rounds.iter().flatten()).any(|step| matches!(step.role, Role::Stock(_)))
    }

    /// Nobody removes the lock of somebody who lives, and no store lies: all must go well then.
    pub fn is_lawful(&self) -> bool {
        let breaks = |step: &Step| step.role == Role::Stock(Stock::AfterUnlock);
        !self.actors.iter().flat_map(|actor| actor.rounds.iter().flatten()).any(breaks)
    }

    /// All that are smaller by one thing.
    pub fn smaller(&self) -> Vec<Scenario> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Scenario)| {
            let mut smaller = self.clone();
            change(&mut smaller);
            if smaller != *self {
                all.push(smaller);
            }
        };
        if self.gaps.len() > 1 {
            with(&|scenario| {
                scenario.gaps.pop();
                scenario.actors.iter_mut().for_each(|actor| actor.rounds.truncate(scenario.gaps.len()));
            });
        }
        for number in 0..self.actors.len() {
            with(&|scenario| {
                scenario.actors.remove(number);
            });
        }
        with(&|scenario| scenario.weather = Weather::default());
        with(&|scenario| scenario.weather.lost_requests = 0);
        with(&|scenario| scenario.weather.lost_replies = 0);
        with(&|scenario| scenario.weather.busy = 0);
        with(&|scenario| scenario.weather.slow = 0);
        with(&|scenario| scenario.weather.silent = 0);
        for number in 0..self.gaps.len() {
            with(&|scenario| scenario.gaps[number] = 0);
        }
        for (number, actor) in self.actors.iter().enumerate() {
            with(&|scenario| scenario.actors[number].skew = 0);
            for (round, steps) in actor.rounds.iter().enumerate() {
                for step in 0..steps.len() {
                    with(&|scenario| {
                        scenario.actors[number].rounds[round].remove(step);
                    });
                    with(&|scenario| scenario.actors[number].rounds[round][step].ends = None);
                }
            }
        }
        all
    }
}
