//! What a prune writes down between its phases: side objects, whose loss costs time and nothing else.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::store::ErrorKind;

/// Where the records are.
const FOLDER: &str = "x-keepset/prune";
const VERSION: u32 = 1;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
pub enum Record {
    Marks(Marks),
    Condemned(Condemned),
}

/// Packs that nothing needed when they were marked. They are in the index still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    pub version: u32,
    pub time: DateTime<Utc>,
    pub packs: Vec<Id>,
    /// The snapshots that were followed; what those need stands in other packs too.
    pub snapshots: Vec<Id>,
    /// The index objects by which that was found. Once one of them is gone, the marks are void: the other packs may have gone with it.
    pub indexes: Vec<Id>,
}

/// Packs that were taken out of the index, to be deleted by a later call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condemned {
    pub version: u32,
    pub time: DateTime<Utc>,
    pub packs: Vec<Id>,
}

impl Marks {
    pub fn new(time: DateTime<Utc>, packs: Vec<Id>, snapshots: Vec<Id>, indexes: Vec<Id>) -> Self {
        Marks { version: VERSION, time, packs, snapshots, indexes }
    }
}

impl Condemned {
    pub fn new(time: DateTime<Utc>, packs: Vec<Id>) -> Self {
        Condemned { version: VERSION, time, packs }
    }
}

/// All records of a repository, each with its object's name.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub marks: Vec<(String, Marks)>,
    pub condemned: Vec<(String, Condemned)>,
    /// Names of objects that are no records: damaged, or of a later version.
    pub unreadable: Vec<String>,
}

impl Records {
    /// Reads them all: one list where there is none. One that goes meanwhile is left out.
    pub async fn load(repository: &Repository) -> Result<Self, RepositoryError> {
        let mut records = Records::default();
        for object in repository.store().list(FOLDER).await? {
            let record = match repository.get_side(&object.key).await {
                Ok(plain) => serde_json::from_slice(&plain).ok(),
                Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound => continue,
                Err(error @ RepositoryError::Store(_)) => return Err(error),
                Err(_) => None,
            };
            match record {
                Some(Record::Marks(marks)) if marks.version == VERSION => records.marks.push((object.key, marks)),
                Some(Record::Condemned(condemned)) if condemned.version == VERSION => records.condemned.push((object.key, condemned)),
                _ => records.unreadable.push(object.key),
            }
        }
        Ok(records)
    }

    /// Every pack that is marked or condemned: whoever writes does better not to rely on it.
    pub fn packs(&self) -> HashSet<Id> {
        let marked = self.marks.iter().flat_map(|(_, marks)| &marks.packs);
        marked.chain(self.condemned.iter().flat_map(|(_, condemned)| &condemned.packs)).copied().collect()
    }
}

/// Puts a record and returns its name.
pub(super) async fn put(repository: &Repository, record: &Record) -> Result<String, RepositoryError> {
    let plain = serde_json::to_vec(record).expect("ids and numbers always serialise");
    repository.put_side_named(&format!("{FOLDER}/"), &plain).await
}
