//! What a backup would do, or why it must not: a pure function of the set, its previous points and the user's options.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::DateTime;
use serde::Serialize;

use crate::backup::options::{BackupOptions, Order};
use crate::hooks::{self, BadHook, HookPlan};
use crate::model::claim::{ClaimId, ClaimShape};
use crate::model::hook::Hooks;
use crate::model::id::Id;
use crate::model::manifest::{ChangeDetection, ClaimStatus, Consistency, PointKind, SetRecord};
use crate::model::moved::{Known, moved};
use crate::model::mover_job::MoverReport;
use crate::model::set::Ordinal;
use crate::model::set_state::{ClaimState, SetState};
use crate::repository::points::{Previous, StoredClaim, StoredPoint};

/// As many names as a message lists.
const NAMED: usize = 8;

/// One point that would be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPlan {
    pub set: SetRecord,
    pub kind: PointKind,
    pub consistency: Consistency,
    /// The point that most claims are compared with.
    pub previous: Option<PreviousPoint>,
    /// The set's last complete point: what this one must not fall behind.
    pub last_complete: Option<Id>,
    /// In the order in which they are saved.
    pub ordinals: Vec<PlannedOrdinal>,
    /// The first of `ordinals` is saved before any other begins, so that the others find its chunks.
    pub first_alone: bool,
    pub parallel: usize,
    /// Claims that ought to be there and are not: the point will be partial.
    pub missing: Vec<PlannedClaim>,
    /// Claims that the last complete point had and the set has no more.
    pub gone: Vec<String>,
    /// What stands beside the claims and is none of them.
    pub foreign: Vec<String>,
    /// What is no part of the point, by patterns, of every claim.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Commands in the set's pods around the cut.
    #[serde(skip_serializing_if = "HookPlan::is_empty")]
    pub hooks: HookPlan,
    /// What the user should know before it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The last restore that changed claims here before the backup began.
    #[serde(skip)]
    pub last_restore: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousPoint {
    pub id: Id,
    /// RFC 3339.
    pub time: String,
}

/// One mover's work.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedOrdinal {
    pub ordinal: Ordinal,
    pub claims: Vec<PlannedClaim>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedClaim {
    #[serde(flatten)]
    pub id: ClaimId,
    pub name: String,
    /// Where the volume is; `None` where the claim is missing.
    pub source: Option<String>,
    pub empty: bool,
    pub retained: bool,
    #[serde(skip)]
    pub shape: ClaimShape,
    /// The tree to compare with.
    pub parent: Option<Id>,
    /// When the parent was cut, in seconds since 1970.
    pub parent_cut: Option<i64>,
    pub change_detection: ChangeDetection,
    /// Bytes that the parent had: what progress is measured against.
    pub parent_bytes: Option<u64>,
    /// The last complete point has files of this claim.
    pub had_files: bool,
}

/// Why no point is made. Each names the claims; the hint names the flag that overrides it, where one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoClaims { set: String },
    Missing { set: String, claims: Vec<String> },
    Fewer { set: String, point: String, claims: Vec<String> },
    Emptied { set: String, point: String, claims: Vec<String> },
    Moved { set: String, point: String, claims: Vec<String> },
    HalfRestored { set: String, claim: String, run: String, in_cluster: bool },
    OpenRestore { set: String, run: String },
    RestoredMeanwhile { set: String, run: String },
    Hook(BadHook),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoClaims { set } => write!(f, "set {set} has no claims here"),
            Refusal::Missing { set, claims } => write!(f, "claims of set {set} are missing: {}", listed(claims)),
            Refusal::Fewer { set, point, claims } => {
                write!(f, "set {set} has fewer claims than its last complete point {point}: {} gone", listed(claims))
            }
            Refusal::Emptied { set, point, claims } => {
                write!(f, "claims of set {set} are empty that were not in its last complete point {point}: {}", listed(claims))
            }
            Refusal::Moved { set, point, claims } => {
                write!(f, "volumes of set {set} are under other ordinals than in its last point {point}: {}", listed(claims))
            }
            Refusal::OpenRestore { set, run } => write!(f, "set {set} is half restored: restore {run} is open"),
            Refusal::RestoredMeanwhile { set, run } => write!(f, "set {set} was restored while it was backed up, by run {run}"),
            Refusal::Hook(bad) => bad.fmt(f),
            Refusal::HalfRestored { claim, run, .. } => write!(f, "claim {claim} is half restored: restore {run} did not finish"),
        }
    }
}

impl Refusal {
    /// The way on.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Refusal::NoClaims { set } => {
                let name = set.rsplit('/').next().unwrap_or(set);
                format!("its claims are named `<template>-{name}-<ordinal>`: check the set's name and the place")
            }
            Refusal::Missing { .. } => "`--allow-fewer-claims` makes a partial point without them".into(),
            Refusal::Fewer { .. } => "if the set was made smaller, say `--allow-fewer-claims`".into(),
            Refusal::Emptied { .. } => "if they are meant to be empty, say `--allow-empty`".into(),
            Refusal::Moved { .. } => {
                "if they are meant to be there, say `--allow-moved-volumes`; the points that there are stay as they are".into()
            }
            Refusal::RestoredMeanwhile { .. } => "back it up again: the volumes were read partly before and partly after".into(),
            Refusal::OpenRestore { .. } => "`keepset restore` with `--resume` goes on with it, with `--undo` takes it back".into(),
            Refusal::Hook(bad) => bad.hint(),
            Refusal::HalfRestored { set, claim, in_cluster: true, .. } => {
                let namespace = set.split('/').next().unwrap_or_default();
                format!(
                    "restore it anew with `--replace --no-safety`; or, once you know that it is whole: `kubectl --namespace {namespace} annotate persistentvolumeclaim {claim} keepset.dev/half-restored-`"
                )
            }
            Refusal::HalfRestored { claim, .. } => {
                format!(
                    "restore it anew with `--replace --no-safety`, or remove `.keepset-incomplete-{claim}` beside it once you know that it is whole"
                )
            }
        })
    }
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

/// The plan for a point of `state`.
pub(super) fn plan(mut state: SetState, previous: &Previous, options: &BackupOptions) -> Result<BackupPlan, Refusal> {
    let set = format!("{}/{}", state.set.namespace, state.set.name);
    refuse_restored(&state, options.safety.as_deref())?;
    if let Some(only) = &options.safety {
        state.claims.retain(|claim| only.contains(&claim.id) && claim.source.is_some());
        // Who asks for them is about to replace what they hold: less than all would be no way back.
        let lacking = only.iter().filter(|id| !state.claims.iter().any(|claim| claim.id == **id));
        let lacking: Vec<String> = lacking.map(|id| id.name(&state.set.name)).collect();
        if !lacking.is_empty() {
            return Err(Refusal::Missing { set, claims: lacking });
        }
    }
    // A safety point takes what there is; nothing is compared with what there was.
    let lenient = options.safety.is_some();
    if state.claims.iter().all(|claim| claim.source.is_none()) {
        return Err(Refusal::NoClaims { set });
    }
    let complete = previous.complete.as_ref();
    let gone = if lenient { Vec::new() } else { gone(&state, complete) };
    if !options.allow_fewer_claims && !lenient {
        let missing: Vec<String> = state.claims.iter().filter(|claim| claim.source.is_none()).map(|claim| claim.name.clone()).collect();
        if !missing.is_empty() {
            return Err(Refusal::Missing { set, claims: missing });
        }
        if let (Some(point), false) = (complete, gone.is_empty()) {
            return Err(Refusal::Fewer { set, point: point.point.id.short(), claims: gone });
        }
    }

    if !options.allow_moved_volumes && !lenient {
        refuse_moved(&set, &state, previous)?;
    }
    let claims = std::mem::take(&mut state.claims);
    let (missing, present): (Vec<PlannedClaim>, Vec<PlannedClaim>) =
        claims.into_iter().map(|claim| planned(claim, previous, options)).partition(|claim| claim.source.is_none());
    let emptied: Vec<String> = present.iter().filter(|claim| claim.empty && claim.had_files).map(|claim| claim.name.clone()).collect();
    if let (Some(point), false, false) = (complete, options.allow_empty || lenient, emptied.is_empty()) {
        return Err(Refusal::Emptied { set, point: point.point.id.short(), claims: emptied });
    }

    let consistency = match (options.stopped, options.live) {
        (true, _) => Consistency::Stopped,
        (false, true) => Consistency::Fuzzy,
        (false, false) => state.offers,
    };
    let first_alone = present.iter().all(|claim| claim.parent.is_none());
    let ordinals = in_order(present, options.order, first_alone);
    // What is stopped need not be told to be still; and a safety point is a restore's, which stops the set itself.
    let (hooks, hook_notes) = if lenient || consistency == Consistency::Stopped {
        let dropped = options.hooks.iter().filter(|hooks| !lenient && **hooks != Hooks::default());
        (HookPlan::default(), dropped.map(|_| "hooks are not run: nothing is writing".to_owned()).collect())
    } else {
        let order: Vec<Ordinal> = ordinals.iter().map(|ordinal| ordinal.ordinal).collect();
        hooks::plan(options.hooks.as_ref(), &state, &order).map_err(Refusal::Hook)?
    };
    state.notes.extend(hook_notes);
    Ok(BackupPlan {
        kind: if lenient { PointKind::Safety } else { PointKind::Normal },
        consistency,
        previous: previous.newest.as_ref().map(|point| PreviousPoint { id: point.point.id, time: point.point.time.to_rfc3339() }),
        last_complete: complete.map(|point| point.point.id),
        ordinals,
        exclude: options.exclude.clone(),
        hooks,
        first_alone,
        parallel: options.parallel.max(1),
        missing,
        gone,
        foreign: state.foreign,
        notes: state.notes,
        last_restore: state.last_restore,
        set: state.set,
    })
}

/// Refused while a restore is changing claims of the set; of a safety point, which that very restore asks for, while one of its own is.
fn refuse_restored(state: &SetState, safety: Option<&[ClaimId]>) -> Result<(), Refusal> {
    let concerns = |id: &ClaimId| safety.is_none_or(|only| only.contains(id));
    let half = state.claims.iter().find_map(|claim| Some((claim, claim.half_restored.as_ref().filter(|_| concerns(&claim.id))?)));
    let (set, in_cluster) = (format!("{}/{}", state.set.namespace, state.set.name), state.pods.is_some());
    match (half, state.open_restore.as_ref().filter(|_| safety.is_none())) {
        (Some((claim, run)), None) => Err(Refusal::HalfRestored { set, claim: claim.name.clone(), run: run.clone(), in_cluster }),
        (_, Some(run)) => Err(Refusal::OpenRestore { set, run: run.clone() }),
        (None, None) => Ok(()),
    }
}

/// The other look before the seal: a restore that began beside the backup has changed what movers read, and half of each is no point.
pub(super) fn check_undisturbed(plan: &BackupPlan, now: &SetState, options: &BackupOptions) -> Result<(), Refusal> {
    refuse_restored(now, options.safety.as_deref())?;
    match &now.last_restore {
        Some(run) if now.last_restore != plan.last_restore => {
            Err(Refusal::RestoredMeanwhile { set: format!("{}/{}", now.set.namespace, now.set.name), run: run.clone() })
        }
        _ => Ok(()),
    }
}

/// A volume under the wrong ordinal would be saved as what it is not.
fn refuse_moved(set: &str, state: &SetState, previous: &Previous) -> Result<(), Refusal> {
    let Some(last) = previous.newest.as_ref().or(previous.complete.as_ref()) else { return Ok(()) };
    let recorded: Vec<Known<'_>> =
        last.claims.iter().map(|claim| (&claim.record.id, claim.record.name.as_str(), &claim.record.shape)).collect();
    let moved = moved(state.claims.iter().map(|claim| (&claim.id, claim.name.as_str(), &claim.shape)), &recorded);
    if moved.is_empty() {
        return Ok(());
    }
    let claims = moved.iter().map(ToString::to_string).collect();
    Err(Refusal::Moved { set: set.to_owned(), point: last.point.id.short(), claims })
}

/// Claims with data in the last complete point that the set neither has nor ought to have.
fn gone(state: &SetState, complete: Option<&StoredPoint>) -> Vec<String> {
    let here: BTreeSet<&ClaimId> = state.claims.iter().map(|claim| &claim.id).collect();
    let had = complete.into_iter().flat_map(|point| &point.claims);
    had.filter(|claim| !here.contains(&claim.record.id)).map(|claim| claim.record.name.clone()).collect()
}

fn planned(claim: ClaimState, previous: &Previous, options: &BackupOptions) -> PlannedClaim {
    let in_point = |point: &'_ Option<StoredPoint>| -> Option<StoredClaim> {
        point.as_ref()?.claims.iter().find(|stored| stored.record.id == claim.id && is_intact(stored)).cloned()
    };
    let parent = in_point(&previous.newest).or_else(|| in_point(&previous.complete));
    let had_files = in_point(&previous.complete).is_some_and(|stored| stored.record.files > 0);
    let parent_cut = parent.as_ref().and_then(|stored| {
        let cut = DateTime::parse_from_rfc3339(stored.record.cut.as_ref()?).ok()?;
        Some(cut.timestamp().saturating_sub(stored.record.clock_lag))
    });
    // A snapshot of a block device that was not frozen can hold new bytes under old times: what it gave cannot be compared with.
    let by_times = parent.as_ref().is_some_and(|stored| matches!(stored.record.consistency, Consistency::Fuzzy | Consistency::Stopped));
    // A safety point is the only way back to what is about to be destroyed: it is read whole, whatever times say.
    let reads_all = options.read_all || options.safety.is_some() || !by_times || parent_cut.is_none();
    let change_detection = if reads_all { ChangeDetection::Content } else { ChangeDetection::Metadata };
    PlannedClaim {
        id: claim.id,
        name: claim.name,
        source: claim.source,
        empty: claim.empty,
        retained: claim.retained,
        shape: claim.shape,
        parent: parent.as_ref().and_then(|stored| stored.tree),
        parent_cut,
        change_detection,
        parent_bytes: parent.map(|stored| stored.record.bytes),
        had_files,
    }
}

/// The claim's tree is the one that was saved, so that comparing with it is sound.
fn is_intact(stored: &StoredClaim) -> bool {
    stored.record.status == ClaimStatus::Saved && stored.tree.is_some() && stored.tree == stored.record.tree
}

fn in_order(present: Vec<PlannedClaim>, order: Order, first_alone: bool) -> Vec<PlannedOrdinal> {
    let mut by_ordinal: BTreeMap<Ordinal, Vec<PlannedClaim>> = BTreeMap::new();
    for claim in present {
        by_ordinal.entry(claim.id.ordinal).or_default().push(claim);
    }
    let mut ordinals: Vec<PlannedOrdinal> = by_ordinal.into_iter().map(|(ordinal, claims)| PlannedOrdinal { ordinal, claims }).collect();
    if order == Order::Descending {
        ordinals.reverse();
        if first_alone {
            // The lowest goes ahead of the others in any case: it is the one that is a primary most often.
            ordinals.rotate_right(1);
        }
    }
    ordinals
}

/// The last look before the seal: a claim that turned out to hold no files must not replace one that did.
pub(super) fn check_reports(plan: &BackupPlan, reports: &[MoverReport], options: &BackupOptions) -> Result<(), Refusal> {
    let files: BTreeMap<&str, u64> =
        reports.iter().flat_map(|report| &report.claims).map(|claim| (claim.name.as_str(), claim.files)).collect();
    let claims = plan.ordinals.iter().flat_map(|ordinal| &ordinal.claims);
    let emptied: Vec<String> =
        claims.filter(|claim| claim.had_files && files.get(claim.name.as_str()) == Some(&0)).map(|claim| claim.name.clone()).collect();
    if emptied.is_empty() || options.allow_empty || options.safety.is_some() {
        return Ok(());
    }
    let point = plan.last_complete.map(|id| id.short()).unwrap_or_default();
    Err(Refusal::Emptied { set: format!("{}/{}", plan.set.namespace, plan.set.name), point, claims: emptied })
}

impl BackupPlan {
    /// The plan, given the time of day in seconds since 1970. A parent whose cut lies ahead was made by a clock that has gone back since:
    /// times say nothing about what was written after it, and everything is read.
    pub(super) fn at(mut self, now: i64) -> Self {
        for claim in self.ordinals.iter_mut().flat_map(|ordinal| &mut ordinal.claims) {
            if claim.parent_cut.is_some_and(|cut| cut > now) {
                claim.change_detection = ChangeDetection::Content;
            }
        }
        self
    }

    /// The plan for people, a line each.
    pub fn lines(&self) -> Vec<String> {
        let claims: usize = self.ordinals.iter().map(|ordinal| ordinal.claims.len()).sum();
        let set = &self.set;
        let cut = match self.consistency {
            Consistency::Stopped => "nothing is writing",
            Consistency::Group => "all volumes of one moment",
            Consistency::Volume => "each volume of one moment, all of nearly the same",
            Consistency::Fuzzy => "as it is now, while it may be written to",
        };
        let mut lines = vec![format!(
            "back up {}/{} of cluster {}: {}, {}, {cut}",
            set.namespace,
            set.name,
            set.cluster,
            counted(self.ordinals.len(), "ordinal"),
            counted(claims, "claim"),
        )];
        match &self.previous {
            Some(previous) => lines.push(format!("compare with point {} of {}", previous.id.short(), previous.time)),
            None => lines.push("compare with nothing: this is the set's first point here".into()),
        }
        lines.extend(self.hooks.lines(self.consistency == Consistency::Fuzzy));
        for (number, ordinal) in self.ordinals.iter().enumerate() {
            let names: Vec<String> = ordinal.claims.iter().map(described).collect();
            let alone = if number == 0 && self.first_alone && self.ordinals.len() > 1 { ", before the others" } else { "" };
            lines.push(format!("  ordinal {}: {}{alone}", ordinal.ordinal, names.join(", ")));
        }
        if self.ordinals.len() > 1 && self.parallel > 1 {
            lines.push(format!("up to {} ordinals at a time", self.parallel.min(self.ordinals.len())));
        }
        let missing: Vec<String> = self.missing.iter().map(|claim| claim.name.clone()).collect();
        for (what, names) in [("missing, so the point will be partial", &missing), ("gone since the last complete point", &self.gone)] {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", listed(names)));
            }
        }
        if !self.exclude.is_empty() {
            lines.push(format!("excluded from every claim: {}", self.exclude.join(", ")));
        }
        if !self.foreign.is_empty() {
            lines.push(format!("not of this set, left alone: {}", listed(&self.foreign)));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines
    }
}

fn described(claim: &PlannedClaim) -> String {
    let mut notes = Vec::new();
    if claim.empty {
        notes.push("empty");
    }
    if claim.retained {
        notes.push("outside the range");
    }
    if claim.parent.is_some() && claim.change_detection == ChangeDetection::Content {
        notes.push("read in full");
    }
    if notes.is_empty() { claim.name.clone() } else { format!("{} ({})", claim.name, notes.join(", ")) }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::points::sample;

    fn claim(template: &str, ordinal: u32) -> ClaimState {
        let id = ClaimId { ordinal: Ordinal(ordinal), template: template.into() };
        let name = id.name("web");
        ClaimState {
            shape: ClaimShape::default(),
            source: Some(format!("/srv/{name}")),
            name,
            id,
            empty: false,
            retained: false,
            half_restored: None,
        }
    }

    fn state(claims: Vec<ClaimState>) -> SetState {
        let set = SetRecord { cluster: "here".into(), namespace: "shop".into(), name: "web".into(), ..SetRecord::default() };
        SetState { set, claims, foreign: Vec::new(), ..SetState::default() }
    }

    fn three() -> SetState {
        state((0..3).map(|ordinal| claim("data", ordinal)).collect())
    }

    fn had(ordinals: std::ops::Range<u32>) -> Previous {
        let point = sample::point(7, &ordinals.map(|ordinal| sample::claim("data", ordinal)).collect::<Vec<_>>());
        Previous { newest: Some(point.clone()), complete: Some(point) }
    }

    fn order(plan: &BackupPlan) -> Vec<u32> {
        plan.ordinals.iter().map(|ordinal| ordinal.ordinal.0).collect()
    }

    fn options() -> BackupOptions {
        BackupOptions { parallel: 2, ..BackupOptions::default() }
    }

    #[test]
    fn a_first_point_begins_with_the_lowest_ordinal_alone() {
        let plan = plan(three(), &Previous::default(), &options()).unwrap();
        assert!(plan.first_alone);
        assert_eq!(order(&plan), [0, 1, 2]);
        let descending = BackupOptions { order: Order::Descending, ..options() };
        assert_eq!(order(&super::plan(three(), &Previous::default(), &descending).unwrap()), [0, 2, 1]);
    }

    #[test]
    fn a_later_point_begins_with_as_many_ordinals_as_may_run() {
        let plan = plan(three(), &had(0..3), &BackupOptions { order: Order::Descending, ..options() }).unwrap();
        assert!(!plan.first_alone);
        assert_eq!(order(&plan), [2, 1, 0]);
    }

    #[test]
    fn ordinals_go_as_numbers_and_each_takes_all_its_claims_along() {
        let claims = [("data", 9), ("wal", 9), ("data", 10), ("wal", 10)].map(|(template, ordinal)| claim(template, ordinal));
        let plan = plan(state(claims.to_vec()), &Previous::default(), &options()).unwrap();
        assert_eq!(order(&plan), [9, 10]);
        assert_eq!(plan.ordinals[0].claims.iter().map(|claim| &*claim.name).collect::<Vec<_>>(), ["data-web-9", "wal-web-9"]);
    }

    #[test]
    fn a_set_without_claims_is_refused() {
        assert!(matches!(plan(state(Vec::new()), &Previous::default(), &options()), Err(Refusal::NoClaims { .. })));
    }

    #[test]
    fn a_missing_claim_is_refused_and_with_the_flag_makes_the_point_partial() {
        let mut lacking = three();
        lacking.claims[1].source = None;
        let refusal = plan(lacking.clone(), &Previous::default(), &options()).unwrap_err();
        assert!(refusal.to_string().contains("data-web-1") && refusal.hint().unwrap().contains("--allow-fewer-claims"), "{refusal}");
        let plan = plan(lacking, &Previous::default(), &BackupOptions { allow_fewer_claims: true, ..options() }).unwrap();
        assert_eq!((order(&plan), plan.missing.len()), (vec![0, 2], 1));
    }

    #[test]
    fn fewer_claims_than_the_last_complete_point_had_are_refused_without_the_flag() {
        let refusal = plan(three(), &had(0..5), &options()).unwrap_err();
        assert!(
            refusal.to_string().contains("data-web-3, data-web-4 gone") && refusal.hint().unwrap().contains("--allow-fewer-claims"),
            "{refusal}"
        );
        let plan = plan(three(), &had(0..5), &BackupOptions { allow_fewer_claims: true, ..options() }).unwrap();
        assert_eq!((plan.gone.len(), plan.missing.len()), (2, 0));
    }

    #[test]
    fn more_claims_than_before_are_welcome() {
        let plan = plan(three(), &had(0..1), &options()).unwrap();
        assert_eq!(plan.ordinals.iter().map(|ordinal| ordinal.claims[0].parent.is_some()).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_claim_that_became_empty_is_refused_without_the_flag() {
        let mut emptied = three();
        emptied.claims[2].empty = true;
        let refusal = plan(emptied.clone(), &had(0..3), &options()).unwrap_err();
        assert!(refusal.to_string().contains("data-web-2") && refusal.hint().unwrap().contains("--allow-empty"), "{refusal}");
        assert!(plan(emptied.clone(), &had(0..3), &BackupOptions { allow_empty: true, ..options() }).is_ok());
        assert!(plan(emptied, &had(0..2), &options()).is_ok(), "it was never there before");
    }

    #[test]
    fn a_claim_that_turns_out_to_hold_no_files_is_refused_before_the_seal() {
        let plan = plan(three(), &had(0..3), &options()).unwrap();
        let report = |files| MoverReport {
            run: "run".into(),
            ordinal: Ordinal(1),
            total: Default::default(),
            claims: vec![crate::model::mover_job::ClaimReport {
                name: "data-web-1".into(),
                tree: sample::tree_of("data", 1),
                root: Default::default(),
                files,
                dirs: 0,
                bytes: 0,
                cut: String::new(),
                change_detection: None,
                clock_lag: 0,
                problems: Vec::new(),
            }],
            new_packs: Vec::new(),
            new_indexes: Vec::new(),
            old_indexes: Vec::new(),
        };
        assert!(check_reports(&plan, &[report(1)], &options()).is_ok());
        assert!(matches!(check_reports(&plan, &[report(0)], &options()), Err(Refusal::Emptied { .. })));
        assert!(check_reports(&plan, &[report(0)], &BackupOptions { allow_empty: true, ..options() }).is_ok());
    }

    #[test]
    fn a_restore_that_begins_beside_a_backup_keeps_it_from_its_seal() {
        let normal = BackupOptions::default();
        let plan = plan(three(), &Previous::default(), &normal).unwrap();
        let check_undisturbed = |now: &SetState, options: &BackupOptions| check_undisturbed(&plan, now, options);
        assert_eq!(check_undisturbed(&three(), &normal), Ok(()));
        let open = SetState { open_restore: Some("run-1".into()), ..three() };
        assert!(matches!(check_undisturbed(&open, &normal), Err(Refusal::OpenRestore { .. })));
        assert!(matches!(super::plan(open.clone(), &Previous::default(), &normal), Err(Refusal::OpenRestore { .. })));
        let mut half = three();
        half.claims[2].half_restored = Some("run-1".into());
        assert!(matches!(check_undisturbed(&half, &normal), Err(Refusal::HalfRestored { .. })));
        let restored = SetState { last_restore: Some("run-1".into()), ..three() };
        let refusal = check_undisturbed(&restored, &normal).unwrap_err();
        assert!(refusal.to_string().contains("run-1") && refusal.hint().unwrap().contains("again"), "{refusal}");
        // A restore that goes on makes safe what it has not touched yet, beside claims that it has.
        let safety = |ordinal| BackupOptions { safety: Some(vec![claim("data", ordinal).id]), ..BackupOptions::default() };
        let both = SetState { open_restore: Some("run-1".into()), ..half };
        assert_eq!(check_undisturbed(&both, &safety(1)), Ok(()));
        assert!(matches!(check_undisturbed(&both, &safety(2)), Err(Refusal::HalfRestored { .. })));
    }

    #[test]
    fn a_safety_point_takes_its_claims_as_they_are_and_no_others() {
        let mut state = three();
        state.claims[0].empty = true;
        state.claims[1].source = None;
        let of = |ordinals: std::ops::Range<u32>| ordinals.map(|ordinal| claim("data", ordinal).id).collect::<Vec<_>>();
        let safety = |only| BackupOptions { safety: Some(only), ..BackupOptions::default() };
        assert!(
            matches!(plan(state.clone(), &had(0..5), &safety(of(0..2))), Err(Refusal::Missing { .. })),
            "one that is asked for is gone"
        );
        let made = plan(state, &had(0..5), &safety(of(0..1))).unwrap();
        assert_eq!(made.kind, PointKind::Safety);
        let names: Vec<&str> = made.ordinals.iter().flat_map(|ordinal| &ordinal.claims).map(|claim| claim.name.as_str()).collect();
        assert_eq!(names, ["data-web-0"]);
        assert_eq!(made.gone, Vec::<String>::new());
    }

    #[test]
    fn a_half_restored_claim_is_never_backed_up() {
        let mut half = three();
        half.claims[1].half_restored = Some("run-3".into());
        let all = BackupOptions { allow_empty: true, allow_fewer_claims: true, ..options() };
        assert!(matches!(plan(half, &Previous::default(), &all), Err(Refusal::HalfRestored { .. })));
    }

    #[test]
    fn unchanged_files_are_taken_over_only_from_a_cut_whose_times_can_be_trusted() {
        let detection = |consistency, options: &BackupOptions| {
            let mut claims = vec![sample::claim("data", 0)];
            claims[0].consistency = consistency;
            let point = sample::point(7, &claims);
            let previous = Previous { newest: Some(point.clone()), complete: Some(point) };
            plan(state(vec![claim("data", 0)]), &previous, options).unwrap().ordinals[0].claims[0].change_detection
        };
        for trusted in [Consistency::Fuzzy, Consistency::Stopped] {
            assert_eq!(detection(trusted, &options()), ChangeDetection::Metadata, "{trusted:?}");
            assert_eq!(detection(trusted, &BackupOptions { read_all: true, ..options() }), ChangeDetection::Content, "{trusted:?}");
        }
        for other in [Consistency::Volume, Consistency::Group] {
            assert_eq!(detection(other, &options()), ChangeDetection::Content, "{other:?}");
        }
    }

    #[test]
    fn a_safety_point_reads_every_byte_whatever_times_say() {
        let safety = BackupOptions { safety: Some(vec![claim("data", 0).id]), ..options() };
        let plan = plan(state(vec![claim("data", 0)]), &had(0..1), &safety).unwrap();
        assert!(plan.ordinals[0].claims[0].parent.is_some());
        assert_eq!(plan.ordinals[0].claims[0].change_detection, ChangeDetection::Content);
    }

    #[test]
    fn a_parent_from_the_future_or_of_a_late_clock_is_trusted_accordingly() {
        let mut record = sample::claim("data", 0);
        let cut = DateTime::parse_from_rfc3339(record.cut.as_ref().unwrap()).unwrap().timestamp();
        record.clock_lag = 600;
        let point = sample::point(7, &[record]);
        let previous = Previous { newest: Some(point.clone()), complete: Some(point) };
        let plan = |now| plan(state(vec![claim("data", 0)]), &previous, &options()).unwrap().at(now).ordinals.remove(0).claims.remove(0);
        assert_eq!(plan(cut).parent_cut, Some(cut - 600));
        assert_eq!(plan(cut).change_detection, ChangeDetection::Metadata);
        assert_eq!(plan(cut - 601).change_detection, ChangeDetection::Content);
    }

    #[test]
    fn the_parent_comes_from_the_newest_point_that_has_the_claim_unharmed() {
        let complete = sample::point(7, &[sample::claim("data", 0), sample::claim("data", 1)]);
        let mut records = [sample::claim("data", 0), sample::claim("data", 1)];
        records[0].tree = Some(sample::tree_of("x", 0));
        records[1].status = ClaimStatus::Missing;
        let previous = Previous { newest: Some(sample::point(8, &records)), complete: Some(complete) };
        let plan = plan(state(vec![claim("data", 0), claim("data", 1)]), &previous, &options()).unwrap();
        let parents: Vec<_> = plan.ordinals.iter().map(|ordinal| ordinal.claims[0].parent.unwrap()).collect();
        assert_eq!(parents, [sample::tree_of("x", 0), sample::tree_of("data", 1)]);
        assert_eq!(plan.ordinals[0].claims[0].parent_cut, Some(1_795_507_200));
    }

    #[test]
    fn a_stopped_set_gives_a_stopped_point_and_a_live_one_a_fuzzy_one() {
        assert_eq!(plan(three(), &Previous::default(), &options()).unwrap().consistency, Consistency::Fuzzy);
        let stopped = BackupOptions { stopped: true, ..options() };
        assert_eq!(plan(three(), &Previous::default(), &stopped).unwrap().consistency, Consistency::Stopped);
    }

    #[test]
    fn a_volume_under_another_ordinal_is_refused_unless_it_is_meant_to_be_there() {
        let with_volume = |shape: &mut ClaimShape, volume: &str| shape.volume = Some(volume.into());
        let mut claims = [sample::claim("data", 0), sample::claim("data", 1)];
        claims.iter_mut().zip(["a", "b"]).for_each(|(claim, volume)| with_volume(&mut claim.shape, volume));
        let point = sample::point(7, &claims);
        let previous = Previous { newest: Some(point.clone()), complete: Some(point) };
        let mut swapped = state(vec![claim("data", 0), claim("data", 1)]);
        swapped.claims.iter_mut().zip(["b", "c"]).for_each(|(claim, volume)| with_volume(&mut claim.shape, volume));
        let refusal = plan(swapped.clone(), &previous, &options()).unwrap_err();
        assert!(refusal.to_string().ends_with("data-web-0 has volume b, which was that of data-web-1"), "{refusal}");
        assert!(refusal.hint().unwrap().contains("--allow-moved-volumes"));
        assert!(plan(swapped.clone(), &previous, &BackupOptions { allow_moved_volumes: true, ..options() }).is_ok());
        let safety = BackupOptions { safety: Some(vec![swapped.claims[0].id.clone()]), ..options() };
        assert!(plan(swapped, &previous, &safety).is_ok(), "a safety point takes what there is");
    }

    #[test]
    fn the_plan_reads_well() {
        let mut state = three();
        state.claims[2].empty = true;
        state.foreign = vec!["notes".into()];
        let lines = plan(state, &Previous::default(), &options()).unwrap().lines();
        assert_eq!(
            lines,
            [
                "back up shop/web of cluster here: 3 ordinals, 3 claims, as it is now, while it may be written to",
                "compare with nothing: this is the set's first point here",
                "  ordinal 0: data-web-0, before the others",
                "  ordinal 1: data-web-1",
                "  ordinal 2: data-web-2 (empty)",
                "up to 2 ordinals at a time",
                "not of this set, left alone: notes",
            ]
        );
    }
}
