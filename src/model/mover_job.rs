//! What a mover is told and what it answers: the only words that backup and restore exchange with their workers.

use serde::{Deserialize, Serialize};

use crate::model::claim::ClaimShape;
use crate::model::entry::Attrs;
use crate::model::id::Id;
use crate::model::manifest::ChangeDetection;
use crate::model::set::{Ordinal, SetName};

/// The whole of a mover's orders: one ordinal of one run. Holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoverJob {
    pub run: String,
    pub set: SetName,
    pub ordinal: Ordinal,
    /// The repository's location as the user wrote it: no credentials in it.
    pub repository: String,
    /// Bytes that buffers, packs and index may take together.
    pub memory: u64,
    pub task: Task,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    Save(Vec<SaveClaim>),
    Fill(Vec<FillClaim>),
    Prove(Vec<ProveClaim>),
}

/// A folder, whatever paths lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderId {
    pub device: u64,
    pub inode: u64,
}

impl Task {
    /// The claims' names and the folders that they must be, for the platform to fill in.
    pub fn folders(&mut self) -> Vec<(&str, &mut Option<FolderId>)> {
        match self {
            Task::Save(claims) => claims.iter_mut().map(|claim| (claim.name.as_str(), &mut claim.folder)).collect(),
            Task::Fill(claims) => claims.iter_mut().map(|claim| (claim.name.as_str(), &mut claim.folder)).collect(),
            Task::Prove(claims) => claims.iter_mut().map(|claim| (claim.name.as_str(), &mut claim.folder)).collect(),
        }
    }
}

/// Save one volume into the repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaveClaim {
    pub name: String,
    /// Where the mover sees the volume's root.
    pub source: String,
    /// The folder that the path must lead to: the mover refuses any other. `None` where the platform mounts the volume itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderId>,
    /// What the platform puts there, where that is not the claim itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    #[serde(default)]
    pub shape: ClaimShape,
    /// The claim's tree in the previous complete point, to compare with.
    pub parent: Option<Id>,
    /// When the parent was cut, in seconds since 1970. A file whose ctime is not more than two minutes before it is read again.
    pub parent_cut: Option<i64>,
    /// `Content` reads everything whatever the times say; so does a mover where the file system's times cannot be trusted.
    pub change_detection: ChangeDetection,
    /// What is no part of the point, by patterns: see [`Exclude`](crate::model::exclude::Exclude).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Fill one volume from the repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FillClaim {
    pub name: String,
    /// The claim's tree in the point: what is in the volume's root.
    pub tree: Id,
    /// The volume root's own attributes.
    pub root: Attrs,
    /// Where the mover sees the target's root: an existing folder.
    pub target: String,
    /// The folder that the path must lead to: the mover refuses any other. `None` where the platform mounts the volume itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderId>,
    #[serde(default)]
    pub shape: ClaimShape,
    /// Only these paths below the volume's root, slash-separated; empty for all.
    pub paths: Vec<String>,
    /// What the point excludes, by patterns: it stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    pub mode: FillMode,
    /// What the repository cannot give any more is listed as [`ProblemKind::Lost`], and all that it can comes back; else the first such
    /// thing ends the fill.
    pub skip_damaged: bool,
}

/// What a fill may find in its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FillMode {
    /// Nothing, an empty `lost+found` at the root aside; else it refuses.
    #[default]
    New,
    /// Anything, a half-done fill too: the volume, or what `paths` name in it, is made equal to the point. Only what differs is written.
    Replace,
}

/// Read one volume that was filled, and compare all of it with the repository. Changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProveClaim {
    pub name: String,
    /// What should be in the volume's root.
    pub tree: Id,
    /// The attributes that the volume's root should have.
    pub root: Attrs,
    /// Where the mover sees the volume's root.
    pub target: String,
    /// The folder that the path must lead to: the mover refuses any other. `None` where the platform mounts the volume itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderId>,
    #[serde(default)]
    pub shape: ClaimShape,
    /// What the point excludes, by patterns: whatever of it is there is none of the point's business.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// One line of a mover's standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MoverLine {
    Progress(Progress),
    /// The last line of a mover that did its work; stands in the repository too, at [`report_key`], after a save.
    Report(MoverReport),
    /// The last line of a mover that failed.
    Failed {
        error: String,
        hint: Option<String>,
        kind: FailureKind,
    },
}

/// Where runs leave objects of their own until their points are sealed. All lie side by side: a folder of each run would stay when it is empty.
pub const RUNS: &str = "x-keepset/runs";

/// The object that holds the report of a save, sealed, until its run is.
pub fn report_key(run: &str, ordinal: Ordinal) -> String {
    format!("{RUNS}/{run}.{ordinal}")
}

/// The object that a run puts before its movers start. Where it is left, the run has died, and so may have packs in no index.
pub fn begun_key(run: &str) -> String {
    format!("{RUNS}/{run}.begun")
}

/// What made a mover fail, as far as the exit code depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    Failed,
    Refused,
    Locked,
    Interrupted,
}

/// Counted since the mover began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Entries that are no folders.
    pub files: u64,
    pub dirs: u64,
    /// Bytes of file content dealt with, read or not.
    pub bytes: u64,
    /// Bytes that had to be read (save) or written (fill).
    pub moved_bytes: u64,
    /// Plain bytes that the repository did not have (save).
    pub new_bytes: u64,
    /// Bytes put into the store (save) or got from it (fill).
    pub stored_bytes: u64,
    /// The most memory that the worker has had, as far as the kernel tells; of several workers the greatest.
    #[serde(default)]
    pub peak_bytes: u64,
}

impl std::iter::Sum for Progress {
    fn sum<I: Iterator<Item = Progress>>(all: I) -> Progress {
        all.fold(Progress::default(), |a, b| Progress {
            files: a.files + b.files,
            dirs: a.dirs + b.dirs,
            bytes: a.bytes + b.bytes,
            moved_bytes: a.moved_bytes + b.moved_bytes,
            new_bytes: a.new_bytes + b.new_bytes,
            stored_bytes: a.stored_bytes + b.stored_bytes,
            peak_bytes: a.peak_bytes.max(b.peak_bytes),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoverReport {
    pub run: String,
    pub ordinal: Ordinal,
    pub total: Progress,
    pub claims: Vec<ClaimReport>,
    /// Packs that this mover put, all of them in an index that it put too.
    pub new_packs: Vec<Id>,
    /// Indexes that this mover put.
    pub new_indexes: Vec<Id>,
    /// Indexes that it had read before: all packs that it relied on are in these or in the new ones.
    #[serde(default)]
    pub old_indexes: Vec<Id>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReport {
    pub name: String,
    /// What is in the volume's root: the tree that was saved, or the one that was filled in.
    pub tree: Id,
    /// The volume root's own attributes.
    pub root: Attrs,
    pub files: u64,
    pub dirs: u64,
    pub bytes: u64,
    /// When the walk began, RFC 3339.
    pub cut: String,
    /// How it was decided which files need not be read again, where a volume was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_detection: Option<ChangeDetection>,
    /// By how many seconds the clock that sets the times of the volume's files may have been behind the one that `cut` is from.
    #[serde(default)]
    pub clock_lag: i64,
    pub problems: Vec<Problem>,
}

/// Something about one path that did not go as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Below the volume's root; bytes that are not UTF-8 are written `\xNN`.
    pub path: String,
    pub kind: ProblemKind,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProblemKind {
    /// It could not be read, or not be found where it had moved to, and is not in the point; or it could not be restored.
    Unreadable,
    /// It went on changing while it was read, and is in the point as it was read last.
    Changed,
    /// It was listed, then gone before it could be read: as if the walk had come later.
    Vanished,
    /// It was moved while the volume was read. A folder is in the point where it was walked, and what is in it may be of other moments; a
    /// file may have been made since, or be in the point under no name.
    Moved,
    /// Data is back, but an attribute could not be set.
    Attribute,
    /// The repository cannot give it, or all of it, any more. A file is then not filled in; of a folder what is known.
    Lost,
    /// What is in the volume is not what the point holds.
    Differs,
}
