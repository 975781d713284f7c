//! Writes anew what is needed of packs that hold little else.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::repository::Repository;
use crate::repository::codec::Decoder;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::pack::{self, BlobKind};
use crate::repository::prune::{Prune, PruneError, PrunePlan};
use crate::repository::read_plan::{self, Range, Wanted};
use crate::repository::writer::{Writer, WriterOptions, Written};

/// Bytes got with one request.
const LONGEST: u64 = 4 << 20;
/// Requests whose bytes are in memory at the same time.
const IN_FLIGHT: usize = 2;
/// Blobs planned at a time.
const BATCH: usize = 16_384;

/// Puts the plan's live blobs into new packs, as they are sealed, and those into the index. Each is opened and compared with its id before:
/// damage must not get a new name. Nothing is removed here.
pub(super) async fn repack(prune: &Prune<'_>, index: &Index, plan: &PrunePlan) -> Result<Written, PruneError> {
    if plan.repack.is_empty() {
        return Ok(Written::default());
    }
    let repository = prune.repository;
    let writer = Writer::new(repository, Arc::default(), WriterOptions::for_memory(prune.options.memory));
    let mut rows = plan.live.clone();
    rows.sort_unstable_by_key(|row| {
        let (_, _, place) = index.row(*row);
        (place.pack, place.offset)
    });
    let mut done = 0;
    for batch in rows.chunks(BATCH) {
        prune.step(format!("repacking {} packs: {done} of {} blobs", plan.repack.len(), rows.len()));
        let wanted = batch.iter().map(|row| {
            let (id, kind, place) = index.row(*row);
            Wanted { id, place, purpose: kind }
        });
        let ranges = read_plan::plan(wanted.collect(), LONGEST);
        let copied: Result<(), RepositoryError> =
            futures::stream::iter(ranges).map(|range| copy(repository, &writer, range)).buffered(IN_FLIGHT).try_collect().await;
        match copied {
            Ok(()) => {}
            // Whoever was stopped does not know why; the writer does.
            Err(RepositoryError::Stopped) => return Err(writer.finish().await.err().unwrap_or(RepositoryError::Stopped).into()),
            Err(error) => return Err(error.into()),
        }
        done += batch.len();
    }
    Ok(writer.finish().await?)
}

async fn copy(repository: &Repository, writer: &Writer, range: Range<BlobKind>) -> Result<(), RepositoryError> {
    let bytes = repository.store().get_range(&pack::key(&range.pack), range.start..range.end).await?;
    let (repository, writer) = (repository.clone(), writer.clone());
    let work = tokio::task::spawn_blocking(move || {
        let mut decoder = Decoder::new(repository.master_key())?;
        for blob in &range.blobs {
            let sealed = usize::try_from(u64::from(blob.place.offset) - range.start)
                .ok()
                .and_then(|from| bytes.get(from..from.checked_add(blob.place.length as usize)?))
                .ok_or_else(|| RepositoryError::damaged(format!("pack {}", range.pack), "it ends before its last blob"))?;
            decoder.prove(&blob.id, &mut sealed.to_vec(), blob.place.plain_length).map_err(|error| match error {
                RepositoryError::Damaged { what, reason } => RepositoryError::damaged(format!("{what} in pack {}", range.pack), reason),
                error => error,
            })?;
            writer.add_sealed(blob.id, blob.purpose, blob.place.plain_length, sealed)?;
        }
        Ok(())
    });
    work.await.map_err(|_| RepositoryError::Stopped)?
}
