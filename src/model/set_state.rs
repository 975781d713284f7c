//! A set as a platform found it, and the places that a restore would fill: what plans are made from.

use serde::{Deserialize, Serialize};

use crate::model::claim::ClaimId;
use crate::model::manifest::SetRecord;

/// What was there when the set was read, once, at the beginning of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetState {
    pub set: SetRecord,
    /// In ordinal order, then by template: every claim that the range of ordinals calls for, and those that exist outside it.
    pub claims: Vec<ClaimState>,
    /// What stood beside the claims and is none of this set's; never touched. Sorted.
    pub foreign: Vec<String>,
    /// The run of a restore that has begun to change claims of the set and has not filled them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_restore: Option<String>,
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
    /// Nothing is in the volume, a root-level `lost+found` aside. False where it could not be looked into.
    pub empty: bool,
    /// Its ordinal is outside the set's range: left by an earlier, larger set, and data all the same.
    pub retained: bool,
    /// The run of a restore that began to fill this claim and has not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_restored: Option<String>,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetState {
    Absent,
    /// Nothing in it, a root-level `lost+found` aside.
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
