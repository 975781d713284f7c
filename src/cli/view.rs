//! Points as verbs show them, in text and in JSON, and how the user names one.

use chrono::SecondsFormat;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::wire::Wire;
use crate::model::claim::ClaimId;
use crate::model::id::Id;
use crate::model::manifest::{ClaimStatus, Consistency, PointKind};
use crate::model::set::SetName;
use crate::repository::points::{Foreign, Points, StoredClaim, StoredPoint, passed_over};
use crate::repository::select::Selector;

/// One point in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PointView {
    pub id: Id,
    /// RFC 3339, in UTC.
    pub time: String,
    pub cluster: String,
    pub set: SetName,
    pub kind: PointKind,
    pub complete: bool,
    /// Why it is not complete.
    pub defects: Vec<String>,
    pub consistency: Consistency,
    /// Claims that are in the point.
    pub claims: usize,
    pub files: u64,
    /// Sum of the sizes of regular files.
    pub bytes: u64,
}

/// A snapshot that some other program made, or that is damaged.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignView {
    pub id: Id,
    pub time: String,
    pub hostname: String,
    pub paths: Vec<String>,
    pub reason: Option<String>,
}

impl PointView {
    pub fn of(stored: &StoredPoint) -> Self {
        let saved = || stored.manifest.claims.iter().filter(|claim| claim.status == ClaimStatus::Saved);
        PointView {
            id: stored.point.id,
            time: stored.point.time.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
            cluster: stored.point.cluster.clone(),
            set: stored.point.set.clone(),
            kind: stored.point.kind,
            complete: stored.point.complete,
            defects: stored.defects.clone(),
            consistency: stored.point.consistency,
            claims: saved().count(),
            files: saved().fold(0, |sum, claim| sum.saturating_add(claim.files)),
            bytes: saved().fold(0, |sum, claim| sum.saturating_add(claim.bytes)),
        }
    }

    /// `complete`, `partial` or `safety`, as a column shows it.
    pub fn state(&self) -> &'static str {
        match (self.kind, self.complete) {
            (PointKind::Safety, true) => "safety",
            (PointKind::Safety, false) => "safety, partial",
            (PointKind::Normal, true) => "complete",
            (PointKind::Normal, false) => "partial",
        }
    }
}

impl ForeignView {
    pub fn of(foreign: &Foreign) -> Self {
        ForeignView {
            id: foreign.id,
            time: foreign.snapshot.time.clone(),
            hostname: foreign.snapshot.hostname.clone(),
            paths: foreign.snapshot.paths.clone(),
            reason: foreign.reason.clone(),
        }
    }
}

/// Says which snapshots cannot be read, where some cannot.
pub fn warn_of_unreadable(points: &Points, output: Output) {
    for damaged in &points.unreadable {
        output.warn(&format!("snapshot {} cannot be read, and could be a point of any set: {}", damaged.id.short(), damaged.reason));
    }
}

/// The word for a consistency.
pub fn consistency(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Fuzzy => "fuzzy",
        Consistency::Volume => "volume",
        Consistency::Group => "group",
        Consistency::Stopped => "stopped",
    }
}

/// The point that the user means: the first digits of an id, `namespace/name` for a set's latest, or `latest` where there is one set only.
/// Warns of points that are passed over because of their times.
pub fn pick<'a>(points: &'a Points, text: &str, wire: &Wire) -> anyhow::Result<&'a StoredPoint> {
    let now = wire.clock.now();
    let latest = |set: &SetName| {
        let point = points.choose(set, None, &Selector::Latest, false, now)?;
        points.ahead(set, None, now).for_each(|ahead| wire.output.warn(&passed_over(ahead)));
        anyhow::Ok(point)
    };
    if let Ok(set) = text.parse::<SetName>() {
        return latest(&set);
    }
    if text != "latest" {
        return match text.parse::<Selector>() {
            Ok(Selector::Id(prefix)) => Ok(points.find(&prefix)?),
            _ => Err(CliError::usage(
                format!("`{text}` names no point"),
                "give the first digits of its id, or namespace/name for a set's latest",
            )
            .into()),
        };
    }
    let mut sets: Vec<&SetName> = points.points.iter().map(|stored| &stored.point.set).collect();
    sets.sort();
    sets.dedup();
    match sets.as_slice() {
        [set] => latest(set),
        [] => Err(CliError::failed("there is no point in the repository", "`keepset backup` makes one").into()),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(CliError::usage("`latest` could be of several sets", format!("name one of {}", names.join(", "))).into())
        }
    }
}

/// The claim that the first part of a path names, and the rest of the path.
pub fn claim_of<'a, 'p>(point: &'a StoredPoint, path: &'p str) -> Result<(&'a StoredClaim, &'p str), CliError> {
    let path = path.trim_start_matches('/');
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    match point.claims.iter().find(|claim| claim.record.name == name) {
        Some(claim) => Ok((claim, rest)),
        None => {
            let set = &point.point.set;
            let known: Vec<&str> = point.claims.iter().map(|claim| claim.record.name.as_str()).collect();
            let what = if ClaimId::of_name(name, &set.name).is_some() { "there is no claim" } else { "the path begins with no claim" };
            Err(CliError::failed(
                format!("{what} `{name}` in point {}", point.point.id.short()),
                format!("its claims: {}", known.join(", ")),
            ))
        }
    }
}
