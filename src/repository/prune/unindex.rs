//! Takes marked packs out of the index, while nobody else holds anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};

use crate::model::id::Id;
use crate::model::mover_job::RUNS;
use crate::monitor::Event;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::index::{self, Index};
use crate::repository::lock::Lock;
use crate::repository::pack::PackEntry;
use crate::repository::prune::record::{self, Condemned, Record};
use crate::repository::prune::survey::roots;
use crate::repository::prune::{Marked, Prune, PruneError, PruneReport};
use crate::repository::reach::Rows;
use crate::repository::reader::Reader;
use crate::repository::snapshot;

const IN_FLIGHT: usize = 4;

/// The second phase. `lock` is an exclusive one: every run that began before the marks were put has ended, and its snapshot is listed here.
pub(super) async fn unindex(prune: &Prune<'_>, lock: &Lock, marked: Marked, report: &mut PruneReport) -> Result<(), PruneError> {
    let Marked { survey, marks, key, .. } = marked;
    let repository = prune.repository;
    prune.step("following new snapshots");
    let listed = repository.ids(snapshot::FOLDER).await?;
    let unseen: Vec<Id> = listed.into_iter().filter(|id| !survey.snapshots.contains(id)).collect();
    let before = survey.reader.index();
    let now = Arc::new(before.reload(repository).await?);
    let objects: HashSet<&Id> = now.objects().iter().collect();
    if !marks.indexes.iter().all(|id| objects.contains(id)) {
        prune.monitor.event(Event::Warning("another prune or repair came first: run this again".into()));
        return remove(repository, &[key]).await;
    }
    let reader = Reader::new(repository, Arc::clone(&now));
    let mut needed = survey.needed.carried(before, &now);
    needed.follow(&reader, roots(repository, unseen).await?).await?;
    let mut packs: HashSet<Id> = marks.packs.iter().copied().collect();
    let all = packs.len();
    rescue(&now, &needed, &survey.present, &mut packs);
    report.rescued += (all - packs.len()) as u64;

    if !packs.is_empty() {
        prune.step(format!("taking {} packs out of the index", packs.len()));
        let old = now.objects_naming(&packs);
        lock.prove().await?;
        put_rest(repository, &now, &old, &packs).await?;
        let mut condemned: Vec<Id> = packs.into_iter().collect();
        condemned.sort_unstable();
        condemned.iter().filter_map(|id| survey.present.get(id)).for_each(|size| report.condemned.add(*size));
        record::put(repository, &Record::Condemned(Condemned::new(prune.lock.clock.now(), condemned))).await?;
        lock.prove().await?;
        let mut old: Vec<String> = old.iter().map(|id| format!("{}/{id}", index::FOLDER)).collect();
        old.sort_unstable();
        remove(repository, &old).await?;
    }
    // No run lives: what runs have left is of the dead, and so were the packs that they put.
    let traces = repository.store().list(RUNS).await.map_err(RepositoryError::from)?;
    let spent: Vec<String> = traces.into_iter().map(|object| object.key).chain([key]).collect();
    remove(repository, &spent).await
}

async fn remove(repository: &Repository, keys: &[String]) -> Result<(), PruneError> {
    Ok(repository.store().delete(keys).await.map_err(RepositoryError::from)?)
}

/// Takes packs out of the marks until each needed blob stands in one that is not marked.
fn rescue(index: &Index, needed: &Rows, present: &HashMap<Id, u64>, marked: &mut HashSet<Id>) {
    for row in needed.iter() {
        let (id, kind, _) = index.row(row);
        if index.places(kind, &id).any(|place| !marked.contains(&place.pack)) {
            continue;
        }
        let there = index.places(kind, &id).find(|place| present.contains_key(&place.pack));
        if let Some(place) = there.or_else(|| index.find(kind, &id)) {
            marked.remove(&place.pack);
        }
    }
}

/// Puts what the `old` index objects say of packs that are not marked, unless another object says the same already.
async fn put_rest(repository: &Repository, index: &Index, old: &HashSet<Id>, marked: &HashSet<Id>) -> Result<(), RepositoryError> {
    let mut once = HashSet::new();
    let twice: HashSet<Id> = index.packs().iter().filter(|id| !once.insert(**id)).copied().collect();
    drop(once);
    let mut said: HashMap<Id, Vec<PackEntry>> = HashMap::new();
    let others: Vec<Id> = index.objects_naming(&twice).difference(old).copied().collect();
    let mut described = objects(repository, others);
    while let Some(packs) = described.try_next().await? {
        said.extend(packs.into_iter().filter(|(id, _)| twice.contains(id)));
    }
    let mut rest = Vec::new();
    let mut described = objects(repository, old.iter().copied().collect());
    while let Some(packs) = described.try_next().await? {
        for (id, entries) in packs.into_iter().filter(|(id, _)| !marked.contains(id)) {
            if twice.contains(&id) && said.insert(id, entries.clone()).as_ref() == Some(&entries) {
                continue;
            }
            rest.push((id, entries));
        }
        if rest.iter().map(|(_, entries): &(Id, Vec<PackEntry>)| entries.len()).sum::<usize>() >= index::FULL {
            index::put_all(repository, std::mem::take(&mut rest)).await?;
        }
    }
    index::put_all(repository, rest).await?;
    Ok(())
}

fn objects(repository: &Repository, mut ids: Vec<Id>) -> impl Stream<Item = Result<Vec<(Id, Vec<PackEntry>)>, RepositoryError>> + Unpin {
    let read = move |id: Id| async move {
        let bytes = repository.get_sealed(index::FOLDER, &id).await?;
        index::decode(&bytes).map_err(|reason| RepositoryError::damaged(format!("{}/{id}", index::FOLDER), reason))
    };
    ids.sort_unstable();
    Box::pin(futures::stream::iter(ids).map(read).buffer_unordered(IN_FLIGHT))
}
