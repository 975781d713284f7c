//! When the repository was last pruned and checked, and sets drilled, and how that ended: side objects, whose loss costs nothing but that a
//! task is done sooner than it need be.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::set::SetName;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::store::ErrorKind;

/// Where the records are.
const FOLDER: &str = "x-keepset/tasks";
const VERSION: u32 = 1;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Prune,
    Check,
    Drill { cluster: String, set: SetName },
}

/// The last time that something was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    pub kind: Kind,
    /// When it began.
    pub time: DateTime<Utc>,
    /// Whether it ended well: a check that found damage, or a drill that proved nothing, did not.
    pub good: bool,
    /// One line of what came of it.
    pub detail: String,
}

impl Record {
    pub fn new(kind: Kind, time: DateTime<Utc>, good: bool, detail: String) -> Self {
        Record { version: VERSION, kind, time, good, detail }
    }
}

/// The newest record of each kind up to `until`: a later one was dated by a clock that was wrong. What cannot be read is passed over.
pub async fn last(repository: &Repository, until: DateTime<Utc>) -> Result<Vec<Record>, RepositoryError> {
    let mut records: Vec<Record> =
        all(repository).await?.into_iter().map(|(_, record)| record).filter(|record| record.time <= until).collect();
    records.sort_by(|one, other| (&one.kind, other.time).cmp(&(&other.kind, one.time)));
    records.dedup_by(|later, first| later.kind == first.kind);
    Ok(records)
}

/// Puts a record, and removes all others of the same kind.
pub async fn record(repository: &Repository, record: &Record) -> Result<(), RepositoryError> {
    let plain = serde_json::to_vec(record).expect("names and times always serialise");
    let own = repository.put_side_named(&format!("{FOLDER}/"), &plain).await?;
    let others = all(repository).await?.into_iter().filter(|(key, other)| other.kind == record.kind && *key != own);
    let old: Vec<String> = others.map(|(key, _)| key).collect();
    if !old.is_empty() {
        repository.store().delete(&old).await?;
    }
    Ok(())
}

async fn all(repository: &Repository) -> Result<Vec<(String, Record)>, RepositoryError> {
    let mut records = Vec::new();
    for object in repository.store().list(FOLDER).await? {
        match repository.get_side(&object.key).await {
            Ok(plain) => records.extend(
                serde_json::from_slice(&plain).ok().filter(|record: &Record| record.version == VERSION).map(|record| (object.key, record)),
            ),
            // Replaced meanwhile.
            Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound => {}
            Err(error @ RepositoryError::Store(_)) => return Err(error),
            Err(error) => tracing::warn!("{} is passed over: {error}", object.key),
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::key::{KeyOrigin, Password};
    use crate::store::Store;

    #[tokio::test]
    async fn of_each_kind_the_last_record_is_kept_and_what_is_no_record_hides_none() {
        let repository = Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
        let at = |hour: i64| DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hour);
        let drill = |name: &str| Kind::Drill { cluster: "here".into(), set: SetName::new("shop", name).unwrap() };
        assert_eq!(last(&repository, at(9)).await.unwrap(), []);
        for (kind, hour) in [(Kind::Check, 1), (drill("web"), 2), (Kind::Check, 5), (drill("db"), 3), (drill("web"), 4)] {
            record(&repository, &Record::new(kind, at(hour), hour != 5, "a line".into())).await.unwrap();
        }
        repository.put_side("x-keepset/tasks/later", br#"{"version":2}"#).await.unwrap();
        repository.store().put_new("x-keepset/tasks/damaged", "no".into()).await.unwrap();
        let found: Vec<_> =
            last(&repository, at(9)).await.unwrap().into_iter().map(|record| (record.kind, record.time, record.good)).collect();
        assert_eq!(found, [(Kind::Check, at(5), false), (drill("db"), at(3), true), (drill("web"), at(4), true)]);
        assert_eq!(repository.store().list(FOLDER).await.unwrap().len(), 5);
        // A clock that was far ahead once is believed no longer than until it is right.
        record(&repository, &Record::new(Kind::Check, at(10_000), true, String::new())).await.unwrap();
        assert!(last(&repository, at(9)).await.unwrap().iter().all(|record| record.kind != Kind::Check));
        record(&repository, &Record::new(Kind::Check, at(8), true, String::new())).await.unwrap();
        assert_eq!(last(&repository, at(9)).await.unwrap()[0].time, at(8));
    }
}
