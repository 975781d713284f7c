//! How far a run of a set is, for those who look at it from elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::mover_job::Progress;
use crate::model::set::{Ordinal, SetName};

/// One run, as it was at [`Standing::at`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `backup` or `restore`.
    pub verb: String,
    pub set: SetName,
    /// RFC 3339, by the clock of whoever does it.
    pub since: String,
    /// When this was true; as `since`.
    pub at: String,
    /// What it is doing, in words.
    pub step: String,
    /// Ordinals that movers were begun for.
    pub ordinals: BTreeMap<Ordinal, OrdinalStanding>,
}

/// How far one ordinal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrdinalStanding {
    pub files: u64,
    /// Of file content dealt with.
    pub bytes: u64,
    /// Of how many, as far as that is known beforehand; what the ordinal held last time may not be what it holds now.
    pub total: Option<u64>,
    pub done: bool,
}

impl Standing {
    pub fn new(verb: &str, set: &SetName, now: String) -> Self {
        Standing { verb: verb.to_owned(), set: set.clone(), since: now.clone(), at: now, step: String::new(), ordinals: BTreeMap::new() }
    }

    /// Takes in what a mover said last of its ordinal.
    pub fn note(&mut self, ordinal: Ordinal, progress: &Progress, total: Option<u64>) {
        self.ordinals.insert(ordinal, OrdinalStanding { files: progress.files, bytes: progress.bytes, total, done: false });
    }

    /// The ordinal's mover has ended well; these are its sums.
    pub fn done(&mut self, ordinal: Ordinal, progress: &Progress) {
        let (files, bytes) = (progress.files, progress.bytes);
        self.ordinals.insert(ordinal, OrdinalStanding { files, bytes, total: Some(bytes), done: true });
    }

    /// Bytes dealt with by all ordinals.
    pub fn bytes(&self) -> u64 {
        self.ordinals.values().fold(0, |sum, ordinal| sum.saturating_add(ordinal.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_an_ordinal_are_those_of_its_last_word() {
        let mut standing = Standing::new("backup", &"shop/web".parse().unwrap(), "2026-11-24T08:00:00Z".into());
        let at = |bytes| Progress { files: 2, bytes, ..Progress::default() };
        standing.note(Ordinal(1), &at(5), Some(9));
        standing.note(Ordinal(0), &at(7), None);
        standing.done(Ordinal(1), &at(8));
        assert_eq!(standing.bytes(), 15);
        assert_eq!(standing.ordinals[&Ordinal(1)], OrdinalStanding { files: 2, bytes: 8, total: Some(8), done: true });
        let text = serde_json::to_string(&standing).unwrap();
        assert_eq!(serde_json::from_str::<Standing>(&text).unwrap(), standing);
    }
}
