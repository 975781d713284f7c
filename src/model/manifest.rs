//! A point's record of its set: `manifest.json`, versioned, described in `docs/format.md`.

use serde::{Deserialize, Serialize};

use crate::model::claim::{ClaimId, ClaimShape};
use crate::model::id::Id;

/// The version that this code writes; a higher one is refused.
pub const VERSION: u32 = 1;

/// Everything that a restore must know about the set, apart from the claims' bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub version: u32,
    /// The run that made the point.
    pub run: String,
    pub kind: PointKind,
    /// When the backup began, RFC 3339.
    pub started: String,
    pub set: SetRecord,
    /// What the user excluded from every claim, by patterns: neither in the point nor lacking in it. See [`Exclude`](crate::model::exclude::Exclude).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// In ordinal order, then by template. Every claim that was expected is here, saved or not.
    pub claims: Vec<ClaimRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PointKind {
    Normal,
    /// Made by a restore before it replaced data; outside `latest`, parents and normal retention.
    Safety,
}

/// The set as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetRecord {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The first ordinal (`spec.ordinals.start`).
    pub start: u32,
    pub replicas: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_management_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Claim templates in the set's order.
    pub templates: Vec<String>,
    /// The StatefulSet and its headless Service, stripped of server fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<serde_json::Value>,
}

/// One claim: what was saved of it and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    #[serde(flatten)]
    pub id: ClaimId,
    pub name: String,
    pub status: ClaimStatus,
    /// Its ordinal was outside the set's range: data that an earlier, larger set left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retained: bool,
    /// Why it was not saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The claim's own tree; present if and only if it was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Id>,
    #[serde(default)]
    pub files: u64,
    #[serde(default)]
    pub dirs: u64,
    /// Sum of the sizes of regular files.
    #[serde(default)]
    pub bytes: u64,
    /// The moment whose state this is, RFC 3339; for a live walk its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    pub consistency: Consistency,
    pub change_detection: ChangeDetection,
    /// By how many seconds the clock that sets the times of the volume's files may have been behind the one that `cut` is from.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_lag: i64,
    /// Files that went on changing while they were read: in the point, as they were read last.
    #[serde(default)]
    pub changed: u64,
    /// Entries that could not be read: not in the point. More than 0 makes the point partial.
    #[serde(default)]
    pub unreadable: u64,
    /// Where in the point's tree the full list of changed and unreadable entries is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<String>,
    #[serde(flatten)]
    pub shape: ClaimShape,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClaimStatus {
    Saved,
    Missing,
    Skipped,
}

/// How much the bytes of a claim, or of all claims, belong to one moment. Ordered from weakest to strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Consistency {
    /// A walk of a live volume.
    #[default]
    Fuzzy,
    /// Each volume of one moment, the volumes of different ones.
    Volume,
    /// All volumes of one moment.
    Group,
    /// Nothing was writing, and nothing changed while it was read.
    Stopped,
}

/// How it was decided which files need not be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeDetection {
    /// Size, inode, mtime and ctime.
    Metadata,
    /// Every byte was read and hashed.
    Content,
}
