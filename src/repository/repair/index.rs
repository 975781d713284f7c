//! The index made right again from what the packs themselves say.
//!
//! Index objects of which every word holds are kept as they are. One that cannot be read, or that names packs which are gone, is replaced by
//! new objects that say the rest; packs that no object names are added. New objects are put before old ones are removed: whatever
//! happens in between, no blob is in fewer places than before.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::model::id::Id;
use crate::monitor::{Event, Monitor};
use crate::repository::Repository;
use crate::repository::check::reason;
use crate::repository::error::RepositoryError;
use crate::repository::header;
use crate::repository::index;
use crate::repository::lock::Lock;
use crate::repository::pack::PackEntry;
use crate::repository::prove::packs_present;

/// Small requests under way at the same time.
const IN_FLIGHT: usize = 16;

/// How thoroughly to repair.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairOptions {
    /// Believe no index object: compare each with the headers of its packs.
    pub read_all_packs: bool,
    /// Find out and write nothing.
    pub dry_run: bool,
}

/// An object that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    pub id: Id,
    pub reason: String,
}

/// What was wrong with the index, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexRepair {
    /// Index objects that stay as they are.
    pub kept: u64,
    /// Index objects that could not be read; replaced like those below.
    pub unreadable: Vec<Unusable>,
    /// Index objects that named packs which are gone, or described them wrongly.
    pub replaced: Vec<Id>,
    /// Index objects that were put; none in a dry run.
    pub written: Vec<Id>,
    /// Packs that the index named and that are gone.
    pub packs_gone: Vec<Id>,
    /// Packs that no readable index object named, now in the index.
    pub packs_added: Vec<Id>,
    /// Packs whose headers say something else than the index said; only found when all packs are read.
    pub packs_corrected: Vec<Id>,
    /// Packs whose headers cannot be read: one that the index describes stays in it, another stays out.
    pub packs_unreadable: Vec<Unusable>,
}

impl IndexRepair {
    /// Something was wrong with the index.
    pub fn is_change(&self) -> bool {
        !(self.unreadable.is_empty() && self.replaced.is_empty() && self.packs_added.is_empty())
    }
}

type Described = (Id, Vec<PackEntry>);

/// Repairs the index. `lock` must be an exclusive one: who adds packs now would lose them. Other damage is left to be named by a check.
pub async fn repair(
    repository: &Repository,
    lock: &Lock,
    options: RepairOptions,
    monitor: &dyn Monitor,
) -> Result<IndexRepair, RepositoryError> {
    if !lock.is_exclusive() {
        return Err(RepositoryError::Refused { what: "repairing the index".to_owned(), reason: "the lock is not exclusive".to_owned() });
    }
    monitor.event(Event::Step("listing packs".into()));
    let present = packs_present(repository).await?;
    let ids = repository.ids(index::FOLDER).await?;
    let mut work =
        Work { repository, present: &present, read_all: options.read_all_packs, repair: IndexRepair::default(), named: HashSet::new() };

    monitor.event(Event::Step(format!("reading {} index objects", ids.len())));
    let mut fresh: Vec<Described> = Vec::new();
    let mut old: Vec<Id> = Vec::new();
    let mut objects = futures::stream::iter(ids).map(|id| read_object(repository, id)).buffered(IN_FLIGHT);
    while let Some((id, packs)) = objects.try_next().await? {
        match packs {
            Ok(packs) => match work.judge(packs).await? {
                None => work.repair.kept += 1,
                Some(rest) => {
                    fresh.extend(rest);
                    work.repair.replaced.push(id);
                    old.push(id);
                }
            },
            Err(reason) => {
                work.repair.unreadable.push(Unusable { id, reason });
                old.push(id);
            }
        }
    }
    drop(objects);

    let mut unnamed: Vec<Id> = present.keys().filter(|id| !work.named.contains(*id)).copied().collect();
    unnamed.sort_unstable();
    monitor.event(Event::Step(format!("reading the headers of {} packs that the index does not name", unnamed.len())));
    for (id, entries) in work.headers(unnamed).await? {
        match entries {
            Ok(entries) => {
                work.repair.packs_added.push(id);
                fresh.push((id, entries));
            }
            Err(reason) => work.repair.packs_unreadable.push(Unusable { id, reason }),
        }
    }
    let mut repair = work.repair;
    if !options.dry_run && repair.is_change() {
        monitor.event(Event::Step("writing the index".into()));
        lock.prove().await?;
        repair.written = index::put_all(repository, fresh).await?;
        lock.prove().await?;
        let keys: Vec<String> = old.iter().map(|id| format!("{}/{id}", index::FOLDER)).collect();
        repository.store().delete(&keys).await?;
    }
    Ok(repair)
}

async fn read_object(repository: &Repository, id: Id) -> Result<(Id, Result<Vec<Described>, String>), RepositoryError> {
    match repository.get_sealed(index::FOLDER, &id).await {
        Ok(bytes) => Ok((id, index::decode(&bytes))),
        Err(error) => Ok((id, Err(reason(error)?))),
    }
}

struct Work<'a> {
    repository: &'a Repository,
    present: &'a HashMap<Id, u64>,
    read_all: bool,
    repair: IndexRepair,
    /// Packs that some readable index object describes.
    named: HashSet<Id>,
}

impl Work<'_> {
    /// Whether one index object can stay as it is (`None`), or else what of it is right.
    async fn judge(&mut self, packs: Vec<Described>) -> Result<Option<Vec<Described>>, RepositoryError> {
        let (mut here, gone): (Vec<_>, Vec<_>) = packs.into_iter().partition(|(id, _)| self.present.contains_key(id));
        let mut whole = gone.is_empty();
        self.repair.packs_gone.extend(gone.into_iter().map(|(id, _)| id));
        if self.read_all {
            let headers = self.headers(here.iter().map(|(id, _)| *id).collect()).await?;
            let mut right = Vec::with_capacity(here.len());
            for ((id, entries), (_, said)) in here.into_iter().zip(headers) {
                match said {
                    // A second description can only repeat the first.
                    Ok(_) if self.named.contains(&id) => whole = false,
                    Ok(said) if same(&said, &entries) => right.push((id, entries)),
                    Ok(said) => {
                        self.repair.packs_corrected.push(id);
                        right.push((id, said));
                        whole = false;
                    }
                    Err(reason) => {
                        self.repair.packs_unreadable.push(Unusable { id, reason });
                        right.push((id, entries));
                    }
                }
                self.named.insert(id);
            }
            here = right;
        }
        self.named.extend(here.iter().map(|(id, _)| *id));
        Ok(if whole { None } else { Some(here) })
    }

    /// What these packs say of themselves.
    async fn headers(&self, ids: Vec<Id>) -> Result<Vec<(Id, Result<Vec<PackEntry>, String>)>, RepositoryError> {
        let read = |id: Id| async move {
            match header::read(self.repository, &id, self.present.get(&id).copied().unwrap_or_default()).await {
                Ok(entries) => Ok((id, Ok(entries))),
                Err(error) => Ok((id, Err(reason(error)?))),
            }
        };
        futures::stream::iter(ids).map(read).buffered(IN_FLIGHT).try_collect().await
    }
}

/// The same blobs in the same places, in whatever order they are told.
fn same(header: &[PackEntry], index: &[PackEntry]) -> bool {
    let mut sorted = index.to_vec();
    sorted.sort_unstable_by_key(|entry| entry.offset);
    sorted == header
}
