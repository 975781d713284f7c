//! Snapshot objects: restic's record of one tree at one time. A recovery point is one of them.

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::id::Id;
use crate::repository::bundle::{self, Source};
use crate::repository::error::RepositoryError;
use crate::repository::{Repository, Unreadable};

/// Where snapshot objects are.
pub const FOLDER: &str = "snapshots";

/// Restic's fields. Read leniently: what is missing or null gets its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// RFC 3339, with an offset.
    pub time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    pub tree: Option<Id>,
    #[serde(deserialize_with = "or_default")]
    pub paths: Vec<String>,
    pub hostname: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub username: String,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub uid: u32,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub gid: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub program_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// What the backup moved; only for people and tools that show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    pub backup_start: String,
    pub backup_end: String,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    pub dirs_new: u64,
    pub dirs_changed: u64,
    pub dirs_unmodified: u64,
    pub data_blobs: u64,
    pub tree_blobs: u64,
    pub data_added: u64,
    pub data_added_packed: u64,
    pub total_files_processed: u64,
    pub total_bytes_processed: u64,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The snapshot of this id.
pub async fn load(repository: &Repository, id: &Id) -> Result<Snapshot, RepositoryError> {
    let bytes = repository.get_sealed(FOLDER, id).await?;
    decode(&bytes).map_err(|reason| RepositoryError::damaged(format!("{FOLDER}/{id}"), reason))
}

/// The snapshot that these plain bytes say; `Err` tells what is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Every snapshot, oldest first. One that cannot be read fails the whole list: a list with less in it is a guess.
pub async fn list(repository: &Repository) -> Result<Vec<(Id, Snapshot)>, RepositoryError> {
    match list_readable(repository).await? {
        (snapshots, unreadable) if unreadable.is_empty() => Ok(snapshots),
        (_, unreadable) => Err(RepositoryError::damaged(format!("{FOLDER}/{}", unreadable[0].id), &unreadable[0].reason)),
    }
}

/// Every snapshot that can be read, oldest first, and those that are damaged. For whoever harms nothing by not knowing all.
pub async fn list_readable(repository: &Repository) -> Result<(Vec<(Id, Snapshot)>, Vec<Unreadable>), RepositoryError> {
    let listed = (repository.listed(FOLDER).await?, Source::Copies);
    let mut snapshots = Vec::new();
    let mut unreadable = Vec::new();
    let see = |id, snapshot: Result<Snapshot, RepositoryError>| {
        match snapshot {
            Ok(snapshot) => snapshots.push((id, snapshot)),
            Err(RepositoryError::Damaged { reason, .. }) => unreadable.push(Unreadable { id, reason }),
            Err(error) => return Err(error),
        }
        Ok(())
    };
    bundle::gather(repository, FOLDER, listed, decode, see).await?;
    let moment = |snapshot: &Snapshot| chrono::DateTime::parse_from_rfc3339(&snapshot.time).ok();
    snapshots.sort_by_cached_key(|(id, snapshot)| (moment(snapshot), *id));
    unreadable.sort_by_key(|damaged| damaged.id);
    Ok((snapshots, unreadable))
}

/// Puts a snapshot: the commit of whatever its tree holds.
pub async fn save(repository: &Repository, snapshot: &Snapshot) -> Result<Id, RepositoryError> {
    let plain = serde_json::to_vec(snapshot).expect("strings and numbers always serialise");
    repository.put_sealed(FOLDER, &plain).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_other_writers_are_read_leniently() {
        let text = r#"{"time":"2026-01-02T03:04:05.6+01:00","tree":null,"paths":["/a"],"hostname":"h","tags":null,"excludes":["x"],
            "summary":{"files_new":1},"uid":1000}"#;
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        assert_eq!(snapshot.uid, 1000);
        assert_eq!(snapshot.tags, Vec::<String>::new());
        assert_eq!(snapshot.summary.unwrap().files_new, 1);
    }
}
