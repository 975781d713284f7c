//! What must be true: the users' side of the story.

use std::collections::{BTreeMap, BTreeSet};

use keepset::model::id::Id;
use keepset::repository::key::Password;

use super::dice::Dice;

/// The files of one claim: each a list of chunks, which are told by numbers.
pub type Files = BTreeMap<String, Vec<u64>>;

/// The bytes of a chunk.
pub fn chunk(number: u64) -> Vec<u8> {
    Dice::of(&[number]).bytes(40 + usize::try_from(number % 400).unwrap())
}

/// One set's volumes, by ordinal, now and as they were.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    pub live: Vec<Files>,
    history: Vec<Vec<Files>>,
}

impl Volumes {
    pub fn new(ordinals: usize) -> Volumes {
        Volumes { live: vec![Files::from([("first".to_owned(), vec![1, 2])]); ordinals], history: Vec::new() }
    }

    /// The application writes, removes, or brings an old state back, whose chunks the repository may be about to lose.
    pub fn change(&mut self, dice: &mut Dice) {
        self.history.push(self.live.clone());
        if self.history.len() > 12 {
            self.history.remove(0);
        }
        if dice.happens(250) {
            let old = usize::try_from(dice.below(self.history.len() as u64)).unwrap();
            self.live.clone_from(&self.history[old]);
            return;
        }
        for files in &mut self.live {
            for _ in 0..dice.between(1, 3) {
                let name = format!("f{}", dice.below(6));
                if dice.happens(200) && files.len() > 1 {
                    files.remove(&name);
                } else {
                    // Few numbers, so that files share chunks.
                    files.insert(name, (0..dice.between(1, 3)).map(|_| dice.below(60)).collect());
                }
            }
        }
    }
}

/// What is known of the repository by who was told what.
#[derive(Default)]
pub struct Model {
    pub sets: BTreeMap<String, Volumes>,
    /// What each run's movers have read, by claim.
    pub runs: BTreeMap<String, BTreeMap<String, Files>>,
    /// Points that were confirmed, with their runs.
    pub points: BTreeMap<Id, String>,
    /// Points that somebody was about to forget: they may be there or not.
    pub going: BTreeSet<Id>,
    /// One of these must open the repository, however a change of passwords ended.
    pub passwords: Vec<Password>,
    /// These must.
    pub sure_passwords: Vec<Password>,
    /// Processes that were killed, or ended by an error, or could not take their lock away when all else was done.
    pub ended_badly: usize,
    /// What was found wrong on the way.
    pub violations: Vec<String>,
    /// How often each role came to each end.
    pub ends: BTreeMap<(&'static str, &'static str), u64>,
}
