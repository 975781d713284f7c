//! Which snapshots are recovery points, which of those are whole, and which one somebody means.
//!
//! A point is judged by what it holds: its manifest must say that every claim was read in full, and every claim's recorded tree must be
//! the tree that is there. Host names and tags decide nothing, since other tools rewrite them.

use std::collections::BTreeSet;

use chrono::{DateTime, FixedOffset, Utc};
use futures::{StreamExt, TryStreamExt};

use crate::clock::{is_ahead, shown};
use crate::model::claim::is_claim_name;
use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::id::Id;
use crate::model::manifest::{ClaimRecord, ClaimStatus, Consistency, Manifest, PointKind, VERSION};
use crate::model::point::Point;
use crate::model::set::SetName;
use crate::repository::Unreadable;
use crate::repository::browse;
use crate::repository::error::RepositoryError;
use crate::repository::reader::Reader;
use crate::repository::select::{ChoiceError, Selector};
use crate::repository::snapshot::{self, Snapshot};
use crate::store::ErrorKind;

/// The manifest's name in the set's folder of a point.
pub const MANIFEST: &str = "manifest.json";
/// A manifest that claims to be larger is damaged or hostile: ten thousand claims take 5 MiB.
const MANIFEST_LIMIT: u64 = 16 << 20;
const IN_FLIGHT: usize = 8;

/// A point with all that a restore, a list or a next backup asks of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPoint {
    pub point: Point,
    /// The snapshot's root tree.
    pub tree: Id,
    pub manifest: Manifest,
    /// The manifest's claims, in its order, with what is really there.
    pub claims: Vec<StoredClaim>,
    /// Why the point is not complete, in words; empty if and only if it is.
    pub defects: Vec<String>,
}

/// One claim of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredClaim {
    pub record: ClaimRecord,
    /// What is there now, if anything: what is in the volume's root.
    pub tree: Option<Id>,
    /// The volume root's own attributes.
    pub root: Attrs,
}

/// A snapshot that is no point.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    pub id: Id,
    pub snapshot: Snapshot,
    /// Set where it looks like a point but cannot be one: damaged, or from a later version.
    pub reason: Option<String>,
}

/// Everything that the repository's snapshots are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// Oldest first.
    pub points: Vec<StoredPoint>,
    pub foreign: Vec<Foreign>,
    /// Snapshots that cannot be read: points of any set, or none.
    pub unreadable: Vec<Unreadable>,
}

/// The host name of a point's snapshot. Lesser points get names of their own, so that no tool takes them for the set's latest.
pub fn hostname(set: &SetName, cluster: &str, kind: PointKind, complete: bool) -> String {
    let lesser = match (kind, complete) {
        (PointKind::Normal, true) => "",
        (PointKind::Normal, false) => ".partial",
        (PointKind::Safety, _) => ".safety",
    };
    format!("{}.{}.{cluster}{lesser}", set.name, set.namespace)
}

/// The one path of a point's snapshot.
pub fn path(set: &SetName) -> String {
    format!("/{}/{}", set.namespace, set.name)
}

/// The set that a snapshot's path names.
pub(super) fn set_of(snapshot: &Snapshot) -> Option<SetName> {
    let [path] = snapshot.paths.as_slice() else { return None };
    path.strip_prefix('/')?.parse().ok()
}

/// What a snapshot says of itself without its manifest being read. Good for telling how things stand, not for choosing what to restore: other
/// programs may have changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    pub set: SetName,
    pub cluster: String,
    pub time: DateTime<FixedOffset>,
    pub kind: PointKind,
    pub complete: bool,
}

/// `None` where the snapshot is no point by its host name and path.
pub fn labelled(snapshot: &Snapshot) -> Option<Labelled> {
    let set = set_of(snapshot)?;
    let rest = snapshot.hostname.strip_prefix(&format!("{}.{}.", set.name, set.namespace))?;
    let (cluster, kind, complete) = match rest {
        _ if rest.ends_with(".partial") => (rest.strip_suffix(".partial")?, PointKind::Normal, false),
        _ if rest.ends_with(".safety") => (rest.strip_suffix(".safety")?, PointKind::Safety, true),
        rest => (rest, PointKind::Normal, true),
    };
    let time = DateTime::parse_from_rfc3339(&snapshot.time).ok()?;
    Some(Labelled { cluster: cluster.to_owned(), set, time, kind, complete })
}

/// Every snapshot, judged. With `only`, points of other sets are passed over unread. One that is damaged hides no other; what follows
/// from not knowing it is for the caller to say, as [`Points::choose`] does.
pub async fn list_points(reader: &Reader, only: Option<&SetName>) -> Result<Points, RepositoryError> {
    let (snapshots, unreadable) = snapshot::list_readable(reader.repository()).await?;
    let wanted = snapshots.into_iter().filter(|(_, snapshot)| only.is_none() || set_of(snapshot).as_ref() == only);
    let judged: Vec<Result<StoredPoint, Foreign>> =
        futures::stream::iter(wanted).map(|(id, snapshot)| judge(reader, id, snapshot)).buffered(IN_FLIGHT).try_collect().await?;
    let mut points = Points { unreadable, ..Points::default() };
    for one in judged {
        match one {
            Ok(point) => points.points.push(point),
            Err(foreign) => points.foreign.push(foreign),
        }
    }
    Ok(points)
}

/// What the next backup of a set compares itself with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Previous {
    /// The newest normal point, whole or not.
    pub newest: Option<StoredPoint>,
    /// The newest complete normal point.
    pub complete: Option<StoredPoint>,
}

/// The newest points of one set in one cluster, among `snapshots`, oldest first; reads no more points than it must. Points whose times are
/// ahead of `now` (see [`is_ahead`]) do not count: they would be compared with for as long as it takes until their time comes.
pub async fn previous(
    reader: &Reader,
    snapshots: Vec<(Id, Snapshot)>,
    (set, cluster): (&SetName, &str),
    now: DateTime<Utc>,
) -> Result<Previous, RepositoryError> {
    let mut previous = Previous::default();
    for (id, snapshot) in snapshots.into_iter().rev() {
        let ahead = DateTime::parse_from_rfc3339(&snapshot.time).is_ok_and(|time| is_ahead(time.to_utc(), now));
        if ahead || set_of(&snapshot).as_ref() != Some(set) {
            continue;
        }
        let Ok(point) = judge(reader, id, snapshot).await? else { continue };
        if point.point.cluster != cluster || point.point.kind != PointKind::Normal {
            continue;
        }
        if previous.newest.is_none() {
            previous.newest = Some(point.clone());
        }
        if point.point.complete {
            previous.complete = Some(point);
            break;
        }
    }
    Ok(previous)
}

/// Whether a snapshot is a point, and what is wrong with it. `Err` is for a repository that cannot be read at all: a damaged point
/// among whole ones must not hide those.
pub(super) async fn judge(reader: &Reader, id: Id, snapshot: Snapshot) -> Result<Result<StoredPoint, Foreign>, RepositoryError> {
    let foreign = |snapshot, reason: Option<String>| Ok(Err(Foreign { id, snapshot, reason }));
    let (Some(set), Some(tree)) = (set_of(&snapshot), snapshot.tree) else { return foreign(snapshot, None) };
    let Ok(time) = DateTime::parse_from_rfc3339(&snapshot.time) else { return foreign(snapshot, None) };
    match open(reader, tree, &set).await {
        Ok(None) => foreign(snapshot, None),
        Ok(Some((manifest, folder))) => Ok(Ok(judged(id, time, tree, manifest, &folder))),
        Err(Failure::Store(error)) => Err(error),
        Err(Failure::Point(reason)) => foreign(snapshot, Some(reason)),
    }
}

enum Failure {
    Store(RepositoryError),
    Point(String),
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Damaged { .. } | RepositoryError::Missing { .. } => Failure::Point(error.to_string()),
            RepositoryError::Store(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::TooShort) => {
                Failure::Point(error.to_string())
            }
            error => Failure::Store(error),
        }
    }
}

/// As much of a manifest as any version of it has.
#[derive(serde::Deserialize)]
struct Versioned {
    version: u64,
}

/// The manifest and the set's folder; `None` where there is no manifest.
async fn open(reader: &Reader, tree: Id, set: &SetName) -> Result<Option<(Manifest, Vec<Entry>)>, Failure> {
    let Some(folder) = browse::folder_at(reader, &tree, &path(set)).await? else { return Ok(None) };
    let entries = reader.tree(&folder).await?;
    let Some(entry) = entries.iter().find(|entry| entry.name == MANIFEST.as_bytes()) else { return Ok(None) };
    let bytes = browse::file_bytes(reader, entry, MANIFEST_LIMIT).await?;
    let point = |reason: String| Failure::Point(format!("its manifest {reason}"));
    let version = serde_json::from_slice::<Versioned>(&bytes).map(|manifest| manifest.version);
    if version.is_ok_and(|version| version > u64::from(VERSION)) {
        return Err(point("was written by a later version of keepset".into()));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| point(format!("cannot be read: {error}")))?;
    if (&manifest.set.namespace, &manifest.set.name) != (&set.namespace, &set.name) {
        return Err(point(format!("is of set {}/{}", manifest.set.namespace, manifest.set.name)));
    }
    Ok(Some((manifest, entries)))
}

/// The judgement itself: what the manifest promises against what is there.
fn judged(id: Id, time: DateTime<FixedOffset>, tree: Id, manifest: Manifest, folder: &[Entry]) -> StoredPoint {
    let mut defects = Vec::new();
    if manifest.claims.is_empty() {
        defects.push("it has no claims".to_owned());
    }
    let mut seen = BTreeSet::new();
    let mut claims = Vec::new();
    for record in &manifest.claims {
        let name = record.name.escape_debug();
        // The name is where a restore would write: it must be the one that its identity says.
        let right = is_claim_name(&record.id.template) && is_claim_name(&record.name) && record.id.name(&manifest.set.name) == record.name;
        if !right || !seen.insert(record.id.clone()) {
            defects.push(format!("claim {name} is not one that the set can have"));
            continue;
        }
        let there = folder.iter().find(|entry| entry.name == record.name.as_bytes());
        let found = there.and_then(|entry| match &entry.kind {
            Kind::Dir { subtree } => *subtree,
            _ => None,
        });
        match (record.status, record.tree, found) {
            (ClaimStatus::Missing, ..) => defects.push(format!("claim {name} was missing")),
            (ClaimStatus::Skipped, ..) => defects.push(format!("claim {name} was left out")),
            (ClaimStatus::Saved, _, None) => defects.push(format!("claim {name} is not there")),
            (ClaimStatus::Saved, Some(recorded), Some(found)) if recorded == found => {}
            (ClaimStatus::Saved, ..) => defects.push(format!("claim {name} was changed by another program after it was saved")),
        }
        if record.unreadable > 0 {
            defects.push(format!("{} entries of claim {name} could not be read", record.unreadable));
        }
        let root = there.map(|entry| entry.attrs.clone()).unwrap_or_default();
        claims.push(StoredClaim { record: record.clone(), tree: found, root });
    }
    let set = SetName { namespace: manifest.set.namespace.clone(), name: manifest.set.name.clone() };
    let saved = manifest.claims.iter().filter(|claim| claim.status == ClaimStatus::Saved);
    let point = Point {
        id,
        time,
        cluster: manifest.set.cluster.clone(),
        set,
        kind: manifest.kind,
        complete: defects.is_empty(),
        consistency: saved.map(|claim| claim.consistency).min().unwrap_or(Consistency::Fuzzy),
    };
    StoredPoint { point, tree, manifest, claims, defects }
}

/// Why `latest` is not this point, whose time is ahead of the clock, and what can be done about it.
pub fn passed_over(stored: &StoredPoint) -> String {
    let (id, set, time) = (stored.point.id.short(), &stored.point.set, shown(stored.point.time));
    format!(
        "point {id} of {set} is passed over, since its time, {time}, is ahead of this machine's clock: name it by its id to use it, \
         `keepset forget {id}` removes it"
    )
}

impl Points {
    /// Snapshots that would pass for complete points of the set, younger than `since`, and cannot be read as points.
    fn spoilt_since(
        &self,
        set: &SetName,
        since: DateTime<FixedOffset>,
        until: Option<DateTime<FixedOffset>>,
        now: DateTime<Utc>,
    ) -> Vec<String> {
        let would_be_chosen = |foreign: &&Foreign| {
            let host = &foreign.snapshot.hostname;
            let time = DateTime::parse_from_rfc3339(&foreign.snapshot.time).ok();
            foreign.reason.is_some()
                && set_of(&foreign.snapshot).as_ref() == Some(set)
                && !host.ends_with(".partial")
                && !host.ends_with(".safety")
                && time.is_some_and(|time| time > since && until.is_none_or(|until| time <= until) && !is_ahead(time.to_utc(), now))
        };
        self.foreign.iter().filter(would_be_chosen).map(|foreign| foreign.id.short()).collect()
    }

    /// The one point, of any set and kind, whose id begins so.
    pub fn find(&self, prefix: &str) -> Result<&StoredPoint, ChoiceError> {
        let mut found = self.points.iter().filter(|point| point.point.id.hex().starts_with(prefix));
        match (found.next(), found.count()) {
            (Some(point), 0) => Ok(point),
            (None, _) => match self.foreign.iter().find(|foreign| foreign.id.hex().starts_with(prefix)) {
                Some(Foreign { id, reason, .. }) => Err(ChoiceError::NoPoint { id: id.short(), reason: reason.clone() }),
                None if let Some(damaged) = self.unreadable.iter().find(|damaged| damaged.id.hex().starts_with(prefix)) => {
                    Err(ChoiceError::NoPoint { id: damaged.id.short(), reason: Some(damaged.reason.clone()) })
                }
                None => Err(ChoiceError::NoSuchId { prefix: prefix.to_owned() }),
            },
            (Some(_), more) => Err(ChoiceError::AmbiguousId { prefix: prefix.to_owned(), count: more + 1 }),
        }
    }

    /// Normal points of `set` whose times are ahead of `now` (see [`is_ahead`]), which `latest` passes over.
    pub fn ahead<'a>(&'a self, set: &'a SetName, cluster: Option<&'a str>, now: DateTime<Utc>) -> impl Iterator<Item = &'a StoredPoint> {
        self.points.iter().filter(move |stored| {
            let point = &stored.point;
            point.set == *set
                && point.kind == PointKind::Normal
                && cluster.is_none_or(|cluster| point.cluster == cluster)
                && is_ahead(point.time.to_utc(), now)
        })
    }

    /// The point of `set` that a restore means. `latest` and a time choose among complete normal points, or with `allow_partial` among
    /// all normal ones, but never one whose time is ahead of `now`: see [`Points::ahead`]. An id chooses that point, which must be of this
    /// set and, without `allow_partial`, complete.
    pub fn choose(
        &self,
        set: &SetName,
        cluster: Option<&str>,
        which: &Selector,
        allow_partial: bool,
        now: DateTime<Utc>,
    ) -> Result<&StoredPoint, ChoiceError> {
        if let Selector::Id(prefix) = which {
            let point = self.find(prefix)?;
            return match point {
                point if point.point.set != *set => {
                    Err(ChoiceError::OtherSet { id: point.point.id.short(), set: point.point.set.to_string(), asked: set.to_string() })
                }
                point if !point.point.complete && !allow_partial => {
                    Err(ChoiceError::Partial { id: point.point.id.short(), defects: point.defects.clone() })
                }
                point => Ok(point),
            };
        }
        if !self.unreadable.is_empty() {
            return Err(ChoiceError::Unreadable { ids: self.unreadable.iter().map(|damaged| damaged.id.short()).collect() });
        }
        let named = self.points.iter().filter(|point| point.point.set == *set && point.point.kind == PointKind::Normal);
        let (of_set, others): (Vec<&StoredPoint>, Vec<&StoredPoint>) =
            named.partition(|point| cluster.is_none_or(|cluster| point.point.cluster == cluster));
        let clusters = |points: &[&StoredPoint]| -> Vec<String> {
            points.iter().map(|point| point.point.cluster.clone()).collect::<BTreeSet<_>>().into_iter().collect()
        };
        if of_set.is_empty() {
            return Err(match cluster {
                // A set that lost its whole cluster is restored in another one.
                Some(cluster) if !others.is_empty() => {
                    ChoiceError::OtherCluster { set: set.to_string(), cluster: cluster.to_owned(), others: clusters(&others) }
                }
                _ => ChoiceError::None { set: set.to_string() },
            });
        }
        let several = clusters(&of_set);
        if several.len() > 1 {
            return Err(ChoiceError::SeveralClusters { set: set.to_string(), clusters: several });
        }
        let until = match which {
            Selector::At(time) => Some(*time),
            _ => None,
        };
        let (ahead, of_set): (Vec<&StoredPoint>, Vec<&StoredPoint>) =
            of_set.into_iter().partition(|point| is_ahead(point.point.time.to_utc(), now));
        if of_set.is_empty() {
            return Err(ChoiceError::OnlyAhead { set: set.to_string(), ids: ahead.iter().map(|point| point.point.id.short()).collect() });
        }
        let in_time: Vec<&&StoredPoint> = of_set.iter().filter(|point| until.is_none_or(|until| point.point.time <= until)).collect();
        match in_time.iter().rev().find(|point| point.point.complete || allow_partial) {
            Some(point) => match self.spoilt_since(set, point.point.time, until, now) {
                ids if ids.is_empty() => Ok(point),
                ids => Err(ChoiceError::Unreadable { ids }),
            },
            None if in_time.is_empty() => {
                Err(ChoiceError::NoneBefore { set: set.to_string(), time: until.map(|t| t.to_rfc3339()).unwrap_or_default() })
            }
            None => Err(ChoiceError::NoneComplete { set: set.to_string(), partial: in_time.len() }),
        }
    }
}

#[cfg(test)]
pub mod sample {
    //! Points as tests need them, made of nothing.

    use super::*;
    use crate::model::claim::{ClaimId, ClaimShape};
    use crate::model::manifest::{ChangeDetection, SetRecord};
    use crate::model::set::Ordinal;

    /// A claim of 10 files with 1000 bytes whose tree is told by its ordinal and its template's first letter.
    pub fn claim(template: &str, ordinal: u32) -> ClaimRecord {
        let id = ClaimId { ordinal: Ordinal(ordinal), template: template.into() };
        ClaimRecord {
            name: id.name("web"),
            status: ClaimStatus::Saved,
            retained: false,
            reason: None,
            tree: Some(tree_of(template, ordinal)),
            files: 10,
            dirs: 1,
            bytes: 1000,
            cut: Some("2026-11-24T08:00:00Z".into()),
            consistency: Consistency::Fuzzy,
            change_detection: ChangeDetection::Metadata,
            clock_lag: 0,
            changed: 0,
            unreadable: 0,
            problems: None,
            shape: ClaimShape::default(),
            id,
        }
    }

    pub fn tree_of(template: &str, ordinal: u32) -> Id {
        let mut bytes = [0u8; 32];
        bytes[0] = template.as_bytes()[0];
        bytes[1] = u8::try_from(ordinal).unwrap();
        Id(bytes)
    }

    /// A normal point of set `shop/web` in cluster `here` with these claims, all there; its id begins with `number` and its time is that
    /// many hours past midnight.
    pub fn point(number: u8, claims: &[ClaimRecord]) -> StoredPoint {
        let manifest = Manifest {
            version: VERSION,
            run: format!("run-{number}"),
            kind: PointKind::Normal,
            started: format!("2026-11-24T{number:02}:00:00Z"),
            set: SetRecord {
                cluster: "here".into(),
                namespace: "shop".into(),
                name: "web".into(),
                templates: claims.iter().map(|claim| claim.id.template.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
                ..SetRecord::default()
            },
            exclude: Vec::new(),
            claims: claims.to_vec(),
        };
        let folder: Vec<Entry> = claims
            .iter()
            .filter(|claim| claim.status == ClaimStatus::Saved)
            .map(|claim| Entry { name: claim.name.clone().into(), kind: Kind::Dir { subtree: claim.tree }, attrs: Attrs::default() })
            .collect();
        let time = DateTime::parse_from_rfc3339(&manifest.started).unwrap();
        judged(Id([number; 32]), time, Id([0; 32]), manifest, &folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> SetName {
        "shop/web".parse().unwrap()
    }

    fn two() -> Vec<ClaimRecord> {
        vec![sample::claim("data", 0), sample::claim("data", 1)]
    }

    fn partial(number: u8) -> StoredPoint {
        let mut claims = two();
        claims[1].unreadable = 3;
        sample::point(number, &claims)
    }

    fn points(points: Vec<StoredPoint>) -> Points {
        Points { points, ..Points::default() }
    }

    fn chosen(points: &Points, which: &str) -> Result<u8, ChoiceError> {
        points.choose(&web(), None, &which.parse().unwrap(), false, now()).map(|point| point.point.id.0[0])
    }

    fn now() -> DateTime<Utc> {
        "2026-11-24T23:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_point_whose_time_is_ahead_of_the_clock_is_not_the_latest() {
        let mut ahead = sample::point(9, &two());
        ahead.point.time = DateTime::parse_from_rfc3339("2027-12-29T08:00:00Z").unwrap();
        let both = points(vec![sample::point(1, &two()), sample::point(2, &two()), ahead.clone()]);
        assert_eq!(chosen(&both, "latest"), Ok(2));
        assert_eq!(chosen(&both, "2099-01-01"), Ok(2));
        assert_eq!(chosen(&both, "0909"), Ok(9));
        assert_eq!(both.ahead(&web(), None, now()).map(|point| point.point.id.0[0]).collect::<Vec<_>>(), [9]);
        let only = points(vec![ahead.clone()]);
        assert!(matches!(chosen(&only, "latest"), Err(ChoiceError::OnlyAhead { ids, .. }) if ids == ["09090909"]));
        // Once its time has come it counts.
        let later = ahead.point.time.to_utc();
        assert_eq!(both.choose(&web(), None, &Selector::Latest, false, later).unwrap().point.id, ahead.point.id);
    }

    #[test]
    fn a_snapshot_tells_what_it_is_by_the_name_that_a_point_is_given() {
        for kind in [PointKind::Normal, PointKind::Safety] {
            for complete in [true, false] {
                let snapshot = Snapshot {
                    hostname: hostname(&web(), "eu.1", kind, complete),
                    paths: vec![path(&web())],
                    time: "2026-11-24T08:00:00Z".into(),
                    ..Snapshot::default()
                };
                let labelled = labelled(&snapshot).unwrap();
                assert_eq!((labelled.set, labelled.cluster.as_str(), labelled.kind), (web(), "eu.1", kind));
                assert_eq!(labelled.complete, complete || kind == PointKind::Safety);
            }
        }
        let foreign = Snapshot {
            hostname: "laptop".into(),
            paths: vec!["/shop/web".into()],
            time: "2026-11-24T08:00:00Z".into(),
            ..Snapshot::default()
        };
        assert_eq!(labelled(&foreign), None);
    }

    #[test]
    fn a_point_is_complete_if_every_claim_was_read_in_full_and_is_there_unchanged() {
        assert!(sample::point(1, &two()).point.complete);
        let spoil: [(&str, fn(&mut ClaimRecord)); 4] = [
            ("missing", |claim| claim.status = ClaimStatus::Missing),
            ("left out", |claim| claim.status = ClaimStatus::Skipped),
            ("could not be read", |claim| claim.unreadable = 1),
            ("not one that the set can have", |claim| claim.name = "data-web-7".into()),
        ];
        for (reason, spoil) in spoil {
            let mut claims = two();
            spoil(&mut claims[1]);
            let point = sample::point(1, &claims);
            assert!(!point.point.complete && point.defects.iter().any(|defect| defect.contains(reason)), "{reason}: {:?}", point.defects);
        }
        assert!(!sample::point(1, &[]).point.complete);
    }

    #[test]
    fn a_claim_that_another_program_rewrote_makes_the_point_partial() {
        let whole = sample::point(1, &two());
        let rewritten = Entry { name: b"data-web-0".to_vec(), kind: Kind::Dir { subtree: Some(Id([9; 32])) }, attrs: Attrs::default() };
        let point = judged(whole.point.id, whole.point.time, whole.tree, whole.manifest, &[rewritten]);
        assert_eq!(point.defects, ["claim data-web-0 was changed by another program after it was saved", "claim data-web-1 is not there"]);
    }

    #[test]
    fn a_claim_whose_name_leads_elsewhere_is_none() {
        for (template, name) in [("../data", "../data-web-0"), ("data", "data-web-00"), ("data", "../../etc")] {
            let mut claim = sample::claim("data", 0);
            claim.id.template = template.into();
            claim.name = name.into();
            assert_eq!(sample::point(1, &[claim]).claims, []);
        }
    }

    #[test]
    fn latest_is_the_newest_complete_normal_point() {
        let mut safety = sample::point(4, &two());
        safety.point.kind = PointKind::Safety;
        let points = points(vec![sample::point(1, &two()), sample::point(2, &two()), partial(3), safety]);
        assert_eq!(chosen(&points, "latest"), Ok(2));
        assert_eq!(points.choose(&web(), None, &Selector::Latest, true, now()).unwrap().point.id.0[0], 3);
    }

    #[test]
    fn a_time_means_the_newest_complete_point_until_then() {
        let points = points(vec![sample::point(1, &two()), sample::point(5, &two()), partial(7)]);
        assert_eq!(chosen(&points, "2026-11-24T04:59:59Z"), Ok(1));
        assert_eq!(chosen(&points, "2026-11-24T05:00:00Z"), Ok(5));
        assert_eq!(chosen(&points, "2026-11-24T23:00:00Z"), Ok(5));
        assert!(matches!(chosen(&points, "2026-11-24T00:59:00Z"), Err(ChoiceError::NoneBefore { .. })));
    }

    #[test]
    fn an_id_means_that_point_if_it_is_of_the_set_and_complete() {
        let mut other = sample::point(9, &two());
        other.point.set = "shop/db".parse().unwrap();
        let mut safety = sample::point(6, &two());
        safety.point.kind = PointKind::Safety;
        let points = points(vec![sample::point(1, &two()), partial(3), safety, other]);
        assert_eq!(chosen(&points, "0101"), Ok(1));
        assert_eq!(chosen(&points, "0606"), Ok(6));
        assert!(matches!(chosen(&points, "0303"), Err(ChoiceError::Partial { .. })));
        assert!(matches!(chosen(&points, "0909"), Err(ChoiceError::OtherSet { .. })));
        assert!(matches!(chosen(&points, "abcd"), Err(ChoiceError::NoSuchId { .. })));
    }

    #[test]
    fn an_id_that_several_points_begin_with_is_ambiguous() {
        let mut twin = sample::point(1, &two());
        twin.point.id.0[31] = 7;
        let points = points(vec![sample::point(1, &two()), twin]);
        assert!(matches!(chosen(&points, "0101"), Err(ChoiceError::AmbiguousId { count: 2, .. })));
    }

    #[test]
    fn points_of_two_clusters_under_one_name_are_asked_about() {
        let mut elsewhere = sample::point(2, &two());
        elsewhere.point.cluster = "there".into();
        let points = points(vec![sample::point(1, &two()), elsewhere]);
        assert!(matches!(chosen(&points, "latest"), Err(ChoiceError::SeveralClusters { .. })));
        assert_eq!(points.choose(&web(), Some("here"), &Selector::Latest, false, now()).unwrap().point.id.0[0], 1);
        let nowhere = points.choose(&web(), Some("nowhere"), &Selector::Latest, false, now());
        assert!(matches!(nowhere, Err(ChoiceError::OtherCluster { others, .. }) if others == ["here", "there"]));
    }

    #[test]
    fn a_damaged_snapshot_could_be_the_latest_and_hides_no_point_that_is_named() {
        let damaged = Unreadable { id: Id([0xdd; 32]), reason: "it is damaged".into() };
        let points = Points { points: vec![sample::point(1, &two())], unreadable: vec![damaged], ..Points::default() };
        let asked = points.choose(&web(), None, &Selector::Latest, false, now());
        assert!(matches!(asked, Err(ChoiceError::Unreadable { ids }) if ids == ["dddddddd"]));
        let spoilt = |hour: u8, host: &str| Foreign {
            id: Id([0xee; 32]),
            snapshot: Snapshot {
                time: format!("2026-11-24T{hour:02}:00:00Z"),
                paths: vec!["/shop/web".into()],
                hostname: host.into(),
                ..Snapshot::default()
            },
            reason: Some("its manifest is damaged".into()),
        };
        for (hour, host, refused) in [(2, "web.shop.here", true), (0, "web.shop.here", false), (2, "web.shop.here.partial", false)] {
            let points = Points { points: vec![sample::point(1, &two())], foreign: vec![spoilt(hour, host)], ..Points::default() };
            assert_eq!(chosen(&points, "latest").is_err(), refused, "{hour} {host}");
            assert_eq!(chosen(&points, "2026-11-24T01:30:00Z"), Ok(1));
        }
        assert_eq!(chosen(&points, "0101"), Ok(1));
        assert!(matches!(chosen(&points, "dddd"), Err(ChoiceError::NoPoint { reason: Some(_), .. })));
    }

    #[test]
    fn no_point_and_no_complete_point_are_told_apart() {
        assert!(matches!(chosen(&points(Vec::new()), "latest"), Err(ChoiceError::None { .. })));
        assert!(matches!(chosen(&points(vec![partial(1)]), "latest"), Err(ChoiceError::NoneComplete { partial: 1, .. })));
    }

    #[test]
    fn lesser_points_have_host_names_of_their_own() {
        assert_eq!(hostname(&web(), "prod", PointKind::Normal, true), "web.shop.prod");
        assert_eq!(hostname(&web(), "prod", PointKind::Normal, false), "web.shop.prod.partial");
        assert_eq!(hostname(&web(), "prod", PointKind::Safety, true), "web.shop.prod.safety");
    }
}
