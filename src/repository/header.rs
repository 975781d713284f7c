//! What a pack itself says that it holds: its header, got from the store and checked against the pack's size.

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::pack::{self, PackEntry};

/// Bytes got from a pack's end with the first request: the headers of most packs are smaller.
const TAIL: u64 = 16 << 10;

/// The entries of the pack, by offset. `size` is what the store's list says of it. [`RepositoryError::Damaged`] where the header does not
/// open, or does not describe a pack of that size; no blob is read.
pub async fn read(repository: &Repository, id: &Id, size: u64) -> Result<Vec<PackEntry>, RepositoryError> {
    let key = pack::key(id);
    let damaged = |reason: String| RepositoryError::damaged(format!("pack {id}"), reason);
    let tail = repository.store().get_range(&key, size - size.min(TAIL)..size).await?;
    let last = tail.last_chunk().ok_or_else(|| damaged("it is too short for a header".to_owned()))?;
    let length = pack::header_size(*last, size).map_err(damaged)?;
    let blobs = size - length as u64;
    let header = match tail.len().checked_sub(length) {
        Some(start) => tail.slice(start..),
        None => repository.store().get_range(&key, blobs..size).await?,
    };
    pack::decode_header(&header, blobs, &repository.master_key().cipher()).map_err(damaged)
}
