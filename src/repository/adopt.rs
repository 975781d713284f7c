//! Packs that a run had put when it died, before it put an index: taken into the index, so that the next run need not put them again.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::check::packs;
use crate::repository::error::RepositoryError;
use crate::repository::header;
use crate::repository::index::{self, Index};
use crate::repository::lock::Lock;
use crate::repository::pack::{self, PackEntry};
use crate::repository::prove::packs_present;
use crate::repository::prune::record::Records;
use crate::store::ErrorKind;

/// Packs that are read at the same time, in pieces.
const AT_ONCE: usize = 2;

/// Puts index objects for the packs that no index object names, and returns how many those are; `None` where somebody else is at work, whose
/// packs they may be. `lock` is a shared one of the caller's, whose movers have not begun. A pack of which any blob is not what the header says is left
/// alone: later backups would rely on it. So is one that a prune is about to delete.
///
/// A writer holds its lock from before its first pack until after its index. So a pack that is listed first, while then no other lock stands,
/// and that is in no index object loaded last, was put by one that is dead.
pub async fn adopt(repository: &Repository, lock: &Lock, index: &Index) -> Result<Option<usize>, RepositoryError> {
    if !lock.others().await?.is_empty() {
        return Ok(None);
    }
    let present = packs_present(repository).await?;
    if !lock.others().await?.is_empty() {
        return Ok(None);
    }
    let index = index.reload(repository).await?;
    let condemned = Records::load(repository).await?.packs();
    let indexed: HashSet<&Id> = index.packs().iter().collect();
    let orphans = present.into_iter().filter(|(id, _)| !indexed.contains(id) && !condemned.contains(id));
    let mut orphans: Vec<(Id, u64)> = orphans.collect();
    orphans.sort_unstable();
    let read = |(id, size)| async move {
        match proven(repository, &id, size).await {
            Ok(entries) => Ok(Some((id, entries))),
            // A prune that began before the look at the records may have deleted it since.
            Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error @ RepositoryError::Damaged { .. }) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a pack that a killed run left cannot be used");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    let found: Vec<Option<_>> = futures::stream::iter(orphans).map(read).buffer_unordered(AT_ONCE).try_collect().await?;
    let found: Vec<_> = found.into_iter().flatten().collect();
    let count = found.len();
    if count > 0 {
        lock.prove().await?;
        index::put_all(repository, found).await?;
    }
    Ok(Some(count))
}

/// What the pack's header says that it holds, once every blob has been read and proven.
async fn proven(repository: &Repository, id: &Id, size: u64) -> Result<Vec<PackEntry>, RepositoryError> {
    let entries = header::read(repository, id, size).await?;
    match packs::damage(repository, id, size, entries.clone()).await? {
        None => Ok(entries),
        Some(what) => Err(RepositoryError::damaged(pack::key(id), what)),
    }
}
