//! What a check found, which points each finding touches, and what is left of each point.

use std::collections::HashMap;

use serde::Serialize;

use crate::model::id::Id;
use crate::model::set::SetName;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Something that was stored is not there as it was stored.
    Damage,
    /// Worth knowing; nothing is lost.
    Note,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub severity: Severity,
    /// Its name: an object of the store, or a blob as `tree <id>` or `data <id>`.
    pub object: String,
    pub what: String,
    /// The snapshots that cannot be restored in full because of it, oldest first; [`CheckReport::points`] says more of each.
    pub points: Vec<Id>,
}

/// One snapshot, and what of it is lost as far as the check has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PointState {
    pub id: Id,
    /// As its path says; `None` for snapshots of other programs and where the snapshot itself cannot be read.
    pub set: Option<SetName>,
    /// When its backup began, RFC 3339; empty where the snapshot cannot be read.
    pub time: String,
    /// No damage touches it.
    pub whole: bool,
    /// What is lost anywhere in it.
    pub lost: Lost,
    /// What is left of its claims, in the manifest's order; empty where it cannot be read as a point.
    pub claims: Vec<ClaimState>,
    /// What keeps it from being the point that it passes for.
    pub reason: Option<String>,
}

/// One claim of a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimState {
    pub name: String,
    /// Nothing of it is lost.
    pub whole: bool,
    /// Files that were saved.
    pub files: u64,
    pub lost: Lost,
}

/// What cannot be had any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Files of which some bytes are lost.
    pub files: u64,
    /// Folders that cannot be listed: lost with everything below them.
    pub folders: u64,
    /// The first of both, below the claim's root; folders end with a slash.
    pub paths: Vec<String>,
}

impl Lost {
    pub fn is_nothing(&self) -> bool {
        self.files == 0 && self.folders == 0
    }
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Damage first, each kind by object.
    pub findings: Vec<Finding>,
    /// Damages beyond those that are listed.
    pub unlisted: u64,
    /// Every snapshot, oldest first.
    pub points: Vec<PointState>,
    /// Blobs that snapshots need and that no readable index object names.
    pub missing_blobs: u64,
    pub snapshots: u64,
    /// Packs that the index names.
    pub packs: u64,
    pub blobs: u64,
    /// Trees that were read and decoded: all there are.
    pub trees: u64,
    /// Packs of which every byte was read and proven.
    pub packs_read: u64,
    /// Bytes of those packs.
    pub bytes_read: u64,
}

impl CheckReport {
    /// Nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.unlisted == 0 && self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

/// Which of the findings something suffers from: a bit each.
pub(super) type Marks = u128;

/// Findings beyond this many share their points: each is then said to touch what any of them touches.
const EXACT: usize = 127;
/// Findings of one severity beyond this many are only counted: a store of junk must not exhaust memory.
const LISTED: usize = 1000;

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<(Finding, Marks)>,
    damages: usize,
    notes: usize,
    touched: HashMap<Id, Marks>,
}

impl Findings {
    /// Something is damaged; whoever depends on it carries the returned mark.
    pub(super) fn damage(&mut self, object: impl Into<String>, what: impl Into<String>) -> Marks {
        let mark = 1 << self.damages.min(EXACT);
        self.damages += 1;
        if self.damages <= LISTED {
            self.add(Severity::Damage, object.into(), what.into(), mark);
        }
        mark
    }

    pub(super) fn note(&mut self, object: impl Into<String>, what: impl Into<String>) {
        self.notes += 1;
        if self.notes <= LISTED {
            self.add(Severity::Note, object.into(), what.into(), 0);
        }
    }

    fn add(&mut self, severity: Severity, object: String, what: String, mark: Marks) {
        self.list.push((Finding { severity, object, what, points: Vec::new() }, mark));
    }

    /// The snapshot suffers from all findings of these marks.
    pub(super) fn touch(&mut self, snapshot: Id, marks: Marks) {
        *self.touched.entry(snapshot).or_default() |= marks;
    }

    pub(super) fn touches(&self, snapshot: &Id) -> bool {
        self.touched.get(snapshot).is_some_and(|marks| *marks != 0)
    }

    /// Sorted as the report has them, each with those of `snapshots`, in their order, that it touches; and how many are left out.
    pub(super) fn finish(self, snapshots: impl Iterator<Item = Id> + Clone) -> (Vec<Finding>, u64) {
        let touched = self.touched;
        let marks = |id: &Id| touched.get(id).copied().unwrap_or_default();
        let mut list: Vec<Finding> = self
            .list
            .into_iter()
            .map(|(finding, mark)| Finding { points: snapshots.clone().filter(|id| marks(id) & mark != 0).collect(), ..finding })
            .collect();
        list.sort_by(|a, b| (a.severity, &a.object, &a.what).cmp(&(b.severity, &b.object, &b.what)));
        (list, self.damages.saturating_sub(LISTED) as u64)
    }
}
