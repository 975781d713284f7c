//! Finds what a path means inside a snapshot, one folder after another.

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::model::path_text::path_parts;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::reader::Reader;

/// The entry at a path below `tree`, written as [`path_parts`] reads it; `None` where there is none. Links are not followed. An empty path
/// names the root, which is no entry.
pub async fn entry_at(reader: &Reader, tree: &Id, path: &str) -> Result<Option<Entry>, RepositoryError> {
    let parts = path_parts(path);
    let mut folder = *tree;
    for (number, part) in parts.iter().enumerate() {
        let mut entries = reader.entries(&folder).await?;
        let Some(entry) = entries.find_map(|entry| named(entry, part)).transpose()? else { return Ok(None) };
        if number + 1 == parts.len() {
            return Ok(Some(entry));
        }
        let Kind::Dir { subtree: Some(subtree) } = entry.kind else { return Ok(None) };
        folder = subtree;
    }
    Ok(None)
}

fn named(entry: Result<Entry, RepositoryError>, name: &[u8]) -> Option<Result<Entry, RepositoryError>> {
    Some(entry).filter(|entry| entry.as_ref().map_or(true, |entry| entry.name == name))
}

/// The tree of the folder at a path below `tree`: `tree` itself for an empty path, `None` where no folder is there.
pub async fn folder_at(reader: &Reader, tree: &Id, path: &str) -> Result<Option<Id>, RepositoryError> {
    if path_parts(path).is_empty() {
        return Ok(Some(*tree));
    }
    Ok(match entry_at(reader, tree, path).await? {
        Some(Entry { kind: Kind::Dir { subtree }, .. }) => subtree,
        _ => None,
    })
}

/// A small file's bytes; refused where they are more than `limit`, which is known before they are read.
pub async fn file_bytes(reader: &Reader, entry: &Entry, limit: u64) -> Result<Vec<u8>, RepositoryError> {
    let name = String::from_utf8_lossy(&entry.name).escape_debug().to_string();
    let Kind::File { content } = &entry.kind else {
        return Err(RepositoryError::damaged(name, "it is no file"));
    };
    let mut size = 0u64;
    for run in content.runs() {
        let missing = RepositoryError::Missing { kind: BlobKind::Data.name(), id: run.id };
        let place = reader.index().find(BlobKind::Data, &run.id).ok_or(missing)?;
        size = size.saturating_add(place.plain().saturating_mul(run.count.into()));
    }
    if size > limit {
        return Err(RepositoryError::damaged(name, format!("{size} bytes are more than it can have")));
    }
    let mut bytes = Vec::new();
    for id in content {
        bytes.extend_from_slice(&reader.chunk(id).await?);
    }
    Ok(bytes)
}
