//! What a check found, and which points each finding touches.

use serde::Serialize;

use crate::model::id::Id;

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
    /// The snapshots that cannot be restored in full because of it, in no order.
    pub points: Vec<Id>,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Damage first, each kind by object.
    pub findings: Vec<Finding>,
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
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

/// Which of the findings something suffers from: a bit each.
pub(super) type Marks = u128;

/// Findings beyond this many share their points: each is then said to touch what any of them touches.
const EXACT: usize = 127;

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<(Finding, Marks)>,
    damages: usize,
}

impl Findings {
    /// Something is damaged; whoever depends on it carries the returned mark.
    pub(super) fn damage(&mut self, object: impl Into<String>, what: impl Into<String>) -> Marks {
        let mark = 1 << self.damages.min(EXACT);
        self.damages += 1;
        self.add(Severity::Damage, object.into(), what.into(), mark);
        mark
    }

    pub(super) fn note(&mut self, object: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Note, object.into(), what.into(), 0);
    }

    fn add(&mut self, severity: Severity, object: String, what: String, mark: Marks) {
        self.list.push((Finding { severity, object, what, points: Vec::new() }, mark));
    }

    /// The snapshot suffers from all findings of these marks.
    pub(super) fn touch(&mut self, snapshot: Id, marks: Marks) {
        for (finding, _) in self.list.iter_mut().filter(|(_, mark)| mark & marks != 0) {
            finding.points.push(snapshot);
        }
    }

    /// Sorted as the report has them.
    pub(super) fn finish(self) -> Vec<Finding> {
        let mut list: Vec<Finding> = self.list.into_iter().map(|(finding, _)| finding).collect();
        list.sort_by(|a, b| (a.severity, &a.object, &a.what).cmp(&(b.severity, &b.object, &b.what)));
        list
    }
}
