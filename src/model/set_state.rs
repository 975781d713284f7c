//! A set as a platform found it, and the places that a restore would fill: what plans are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::claim::{ClaimId, ClaimShape};
use crate::model::manifest::{Consistency, SetRecord};
use crate::model::set::Ordinal;

/// What was there when the set was read, once, at the beginning of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetState {
    pub set: SetRecord,
    /// In ordinal order, then by template: every claim that the range of ordinals calls for, and those that exist outside it.
    pub claims: Vec<ClaimState>,
    /// What stood beside the claims and is none of this set's; never touched. Sorted.
    pub foreign: Vec<String>,
    /// The best that the place can do to hold the claims still while nobody stops the set.
    #[serde(default)]
    pub offers: Consistency,
    /// What a reader of the plan should know: pods that lack, a rollout under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The run of a restore that has begun to change claims of the set and has not filled them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_restore: Option<String>,
    /// The run of the last restore that changed claims that were there, however it ended. Two reads that differ in it have a restore
    /// between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restore: Option<String>,
    /// The ordinals' pods that are there, in ordinal order; `None` where sets do not run in pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Vec<PodState>>,
}

/// One ordinal's pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    pub ordinal: Ordinal,
    pub name: String,
    /// It runs, and nobody has told it to end.
    pub running: bool,
    /// Those in which a command can be run: first the one that is meant where none is named, then in the pod's own order, sidecars among its
    /// init containers last.
    pub containers: Vec<String>,
    /// What it says of how it wants to be backed up, as other tools understand it.
    pub annotations: BTreeMap<String, String>,
}

/// One claim that exists or ought to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimState {
    #[serde(flatten)]
    pub id: ClaimId,
    pub name: String,
    /// Where a mover sees the volume's root; `None` where the claim is missing.
    pub source: Option<String>,
    /// Nothing is in the volume, an empty `lost+found` at the root aside. False where it could not be looked into.
    pub empty: bool,
    #[serde(default)]
    pub shape: ClaimShape,
    /// Its ordinal is outside the set's range: left by an earlier, larger set, and data all the same.
    pub retained: bool,
    /// The run of a restore that began to fill this claim and has not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_restored: Option<String>,
}

/// One claim held still: what movers read in its stead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutClaim {
    /// The claim's name.
    pub name: String,
    /// Where a mover sees the volume's root.
    pub source: String,
    /// What the platform puts there, where that is not the claim itself.
    pub volume: Option<String>,
    /// The moment of the cut, RFC 3339; `None` where the claim is read as it is.
    pub moment: Option<String>,
}

/// The set itself, where it can be stopped and started: how it was before a restore stopped it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetRun {
    /// The first ordinal.
    pub start: u32,
    /// How many ordinals it ran, or was to run.
    pub replicas: u32,
    /// Its ordinals are started all at once, not one after another.
    pub at_once: bool,
    /// What becomes of its claims when it is deleted, and when it is made smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<ClaimRetention>,
}

/// `Retain` or `Delete` each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRetention {
    pub when_deleted: Option<String>,
    pub when_scaled: Option<String>,
}

/// The places that a restore would fill, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Targets {
    /// Where they all are, in words for people: a folder, a namespace.
    pub place: String,
    /// In the order that was asked for.
    pub claims: Vec<Target>,
    /// What stands beside them and is none of theirs; never touched. Sorted.
    pub foreign: Vec<String>,
    /// They are claims of a cluster, not folders.
    #[serde(default)]
    pub in_cluster: bool,
    /// The set there; `None` where there is none that could be stopped and started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<SetRun>,
    /// What a reader of the plan should know of the place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One claim's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub name: String,
    /// In words for people: the folder's path.
    pub path: String,
    pub state: TargetState,
    /// Room for the claim's bytes; `None` where nobody can tell.
    pub room: Option<Room>,
    /// Bytes that what it holds takes there; 0 where that was not measured.
    #[serde(default)]
    pub used: u64,
    /// What is known of a claim that is there, outside of folders.
    #[serde(default)]
    pub shape: ClaimShape,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetState {
    Absent,
    /// Nothing in it, an empty `lost+found` at the root aside.
    Empty,
    HoldsData,
    /// Left by a restore (its run's id) that was killed while it filled the claim.
    HalfRestored(String),
    /// Something that is no folder has the claim's name.
    Obstructed,
}

/// Free room on one file system, which several targets may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// Equal for targets that share the room.
    pub device: u64,
    /// Bytes that this user may still write.
    pub bytes: u64,
}
