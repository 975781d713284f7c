//! What the repository says of past runs: read again and again, but no object twice.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::agent::Task;
use crate::model::id::Id;
use crate::model::manifest::PointKind;
use crate::model::set::SetName;
use crate::repository::Repository;
use crate::repository::bundle::{self, Source};
use crate::repository::error::RepositoryError;
use crate::repository::lock;
use crate::repository::points::{Labelled, labelled};
use crate::repository::snapshot::{self, Snapshot};
use crate::repository::tasks::{self, Kind};
use crate::schedule::SANE;
use crate::store::ErrorKind;
use crate::telemetry::metrics::{Metrics, OfKind, OfSet, seconds};

/// Others make points and records too.
const STALE: Duration = Duration::from_secs(60);
/// Sizes are a matter of days; to ask for them takes a request for each thousand packs.
const SIZE_STALE: Duration = Duration::from_secs(3600);

/// Past runs, as far as they are known.
#[derive(Debug, Default)]
pub struct Ledger {
    /// `None` for a snapshot that is no point.
    snapshots: BTreeMap<Id, Option<Labelled>>,
    records: Vec<tasks::Record>,
    read: Option<Instant>,
    sized: Option<Instant>,
}

impl Ledger {
    /// Something was done: what is known is read anew.
    pub fn outdate(&mut self) {
        self.read = None;
    }

    /// Reads what is new, at most once a minute unless something was done.
    pub async fn refresh(&mut self, repository: &Repository, metrics: &Metrics, now: DateTime<Utc>) -> Result<(), RepositoryError> {
        if self.read.is_some_and(|read| read.elapsed() < STALE) {
            return Ok(());
        }
        // Of a folder that is not mounted, say, every list is empty: that is not what an empty repository looks like.
        repository.store().get("config").await?;
        let mut listed = repository.listed(snapshot::FOLDER).await?;
        let there: HashSet<Id> = listed.iter().map(|object| object.id).collect();
        self.snapshots.retain(|id, _| there.contains(id));
        listed.retain(|object| !self.snapshots.contains_key(&object.id));
        let see = |id: Id, snapshot: Result<Snapshot, RepositoryError>| {
            match snapshot {
                Ok(snapshot) => {
                    // A point from the future is somebody's wrong clock, and tells nothing of when the set was backed up.
                    let labelled = labelled(&snapshot).filter(|point| point.time.to_utc() <= now + SANE);
                    self.snapshots.insert(id, labelled);
                }
                // Another one may be read, and says more than none. One that was forgotten meanwhile is gone next time.
                Err(RepositoryError::Store(error)) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied) => {
                    return Err(error.into());
                }
                Err(error) => tracing::warn!("snapshot {} is passed over: {error}", id.short()),
            }
            Ok(())
        };
        bundle::gather(repository, snapshot::FOLDER, (listed, Source::Copies), snapshot::decode, see).await?;
        self.records = tasks::last(repository, now + SANE).await?;
        let locks = lock::locks(repository).await?;
        let oldest = locks.iter().map(|lock| (now - lock.modified).num_milliseconds()).max().unwrap_or(0).max(0);
        metrics.oldest_lock.set(oldest as f64 / 1000.0);
        if self.sized.is_none_or(|sized| sized.elapsed() > SIZE_STALE) {
            let bytes: u64 = repository.store().list("data").await?.iter().map(|object| object.size).sum();
            metrics.repository_size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            self.sized = Some(Instant::now());
        }
        self.read = Some(Instant::now());
        Ok(())
    }

    /// When each task was last begun.
    pub fn last(&self, cluster: &str) -> BTreeMap<Task, DateTime<Utc>> {
        let mut last: BTreeMap<Task, DateTime<Utc>> = BTreeMap::new();
        let normal = |point: &&Labelled| point.cluster == cluster && point.kind == PointKind::Normal;
        for point in self.snapshots.values().flatten().filter(normal) {
            let time = last.entry(Task::Backup(point.set.clone())).or_default();
            *time = (*time).max(point.time.to_utc());
        }
        for record in &self.records {
            let task = match &record.kind {
                Kind::Prune => Task::Prune,
                Kind::Check => Task::Check,
                Kind::Drill { cluster: of, set } if of == cluster => Task::Drill(set.clone()),
                Kind::Drill { .. } => continue,
            };
            last.insert(task, record.time);
        }
        last
    }

    /// Whether the set has points, so that retention has something to judge.
    pub fn has_points(&self, cluster: &str, set: &SetName) -> bool {
        self.snapshots.values().flatten().any(|point| point.cluster == cluster && point.set == *set)
    }

    /// Shows the points of these sets, and the last work on the repository.
    pub fn show(&self, metrics: &Metrics, cluster: &str, sets: &[SetName]) {
        let mut of_sets: BTreeMap<&SetName, Vec<&Labelled>> = BTreeMap::new();
        for point in self.snapshots.values().flatten().filter(|point| point.cluster == cluster) {
            of_sets.entry(&point.set).or_default().push(point);
        }
        for set in sets {
            let points = of_sets.remove(set).unwrap_or_default();
            let (normal, safety): (Vec<&Labelled>, Vec<&Labelled>) = points.into_iter().partition(|point| point.kind == PointKind::Normal);
            let label = OfSet::from(set);
            if let Some(newest) = normal.iter().max_by_key(|point| point.time) {
                metrics.last_point.get_or_create(&label).set(seconds(newest.time.to_utc()));
                metrics.last_point_complete.get_or_create(&label).set(i64::from(newest.complete));
            }
            let complete: Vec<_> = normal.iter().filter(|point| point.complete).map(|point| point.time).collect();
            if let Some(newest) = complete.iter().max() {
                metrics.last_success.get_or_create(&label).set(seconds(newest.to_utc()));
            }
            for (kind, count) in [("complete", complete.len()), ("partial", normal.len() - complete.len()), ("safety", safety.len())] {
                let label = OfKind { namespace: set.namespace.clone(), set: set.name.clone(), kind };
                metrics.points.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        for record in &self.records {
            let time = seconds(record.time);
            match &record.kind {
                Kind::Prune if record.good => _ = metrics.prune_last_success.set(time),
                Kind::Prune => {}
                Kind::Check => {
                    metrics.check_last.set(time);
                    metrics.check_sound.set(i64::from(record.good));
                }
                Kind::Drill { cluster: of, set } if of == cluster && sets.contains(set) => {
                    let label = OfSet::from(set);
                    metrics.drill_last.get_or_create(&label).set(time);
                    metrics.drill_proven.get_or_create(&label).set(i64::from(record.good));
                    if record.good {
                        metrics.drill_last_success.get_or_create(&label).set(time);
                    }
                }
                Kind::Drill { .. } => {}
            }
        }
    }
}
