//! What is there, and what of it do the snapshots need?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::lock::Lock;
use crate::repository::pack;
use crate::repository::prune::record::{Marks, Records};
use crate::repository::prune::{Prune, PruneError};
use crate::repository::reach::Rows;
use crate::repository::reader::Reader;
use crate::repository::snapshot;

const IN_FLIGHT: usize = 16;

pub(super) struct Survey {
    /// With the index that was loaded after the snapshots were listed.
    pub reader: Reader,
    /// All that were there, and have been followed now or when the marks were made.
    pub snapshots: HashSet<Id>,
    /// Blobs that the snapshots followed here need.
    pub needed: Rows,
    /// Packs and their sizes, listed after the index was loaded.
    pub present: HashMap<Id, u64>,
    /// Packs that are left alone this time.
    pub spared: HashSet<Id>,
    /// Marks that an earlier call has left and that still hold.
    pub marks: Option<(String, Marks)>,
    /// Packs that earlier calls have taken out of the index, and the records' names.
    pub condemned: HashSet<Id>,
    /// Records that have served their turn once the condemned packs are gone.
    pub spent: Vec<String>,
}

impl Survey {
    /// Lists and follows. Whatever is lacking or damaged is an error: then nothing must go.
    pub(super) async fn make(prune: &Prune<'_>, lock: &Lock) -> Result<Self, PruneError> {
        let repository = prune.repository;
        prune.step("loading the index");
        let records = Records::load(repository).await?;
        // Snapshots before the index, the index before the packs: whatever is named is then older than the list it must be in.
        let snapshots: HashSet<Id> = repository.ids(snapshot::FOLDER).await?.into_iter().collect();
        let index = Arc::new(Index::load(repository).await?);
        let listed = repository.store().list("data").await.map_err(RepositoryError::from)?;
        let others = lock.others().await?;
        let old = others.iter().map(|lock| lock.modified).max().map(|now| now - prune.options.young);
        let mut present = HashMap::with_capacity(listed.len());
        let mut spared = HashSet::new();
        for object in listed {
            let Some(id) = pack::id_of_key(&object.key).filter(|id| pack::key(id) == object.key) else { continue };
            if old.is_some_and(|old| object.modified > old) {
                spared.insert(id);
            }
            present.insert(id, object.size);
        }

        let condemned = records.condemned.iter().flat_map(|(_, condemned)| &condemned.packs).copied().collect();
        let mut spent: Vec<String> = records.condemned.into_iter().map(|(key, _)| key).chain(records.unreadable).collect();
        let objects: HashSet<&Id> = index.objects().iter().collect();
        let mut marks = None;
        for (key, found) in records.marks {
            // Two prunes may have marked different copies of one blob: one of the two records is as much as can be true.
            let wanted = marks.is_none() && !prune.options.dry_run;
            if wanted && found.indexes.iter().all(|id| objects.contains(id)) {
                marks = Some((key, found));
            } else {
                spent.push(key);
            }
        }

        let seen: HashSet<&Id> = marks.iter().flat_map(|(_, marks)| &marks.snapshots).collect();
        let mut unseen: Vec<Id> = snapshots.iter().filter(|id| !seen.contains(id)).copied().collect();
        unseen.sort_unstable();
        prune.step(format!("following the trees of {} snapshots", unseen.len()));
        let reader = Reader::new(repository, index);
        let mut needed = Rows::none(reader.index());
        needed.follow(&reader, roots(repository, unseen).await?).await?;
        Ok(Survey { reader, snapshots, needed, present, spared, marks, condemned, spent })
    }
}

impl Survey {
    /// The condemned packs that are there and in no index object, with their sizes; they count as gone from now on. Such as are in the index
    /// again, by a repair, are condemned no more.
    pub(super) fn take_condemned(&mut self) -> Vec<(Id, u64)> {
        let indexed: HashSet<&Id> = self.reader.index().packs().iter().collect();
        let mut taken: Vec<(Id, u64)> = Vec::new();
        for id in std::mem::take(&mut self.condemned).into_iter().filter(|id| !indexed.contains(id)) {
            taken.extend(self.present.remove(&id).map(|size| (id, size)));
        }
        taken.sort_unstable();
        taken
    }

    /// All packs that the index names are there, but for some of these.
    pub(super) fn lacks_only(&self, packs: &[Id]) -> bool {
        let known: HashSet<&Id> = packs.iter().collect();
        self.reader.index().packs().iter().all(|id| self.present.contains_key(id) || known.contains(id))
    }
}

/// The trees of these snapshots.
pub(super) async fn roots(repository: &Repository, snapshots: Vec<Id>) -> Result<Vec<Id>, RepositoryError> {
    let load = |id: Id| async move {
        let tree = snapshot::load(repository, &id).await?.tree;
        tree.ok_or_else(|| RepositoryError::damaged(format!("{}/{id}", snapshot::FOLDER), "it names no tree"))
    };
    futures::stream::iter(snapshots).map(load).buffer_unordered(IN_FLIGHT).try_collect().await
}
