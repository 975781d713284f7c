//! From a name to a plan: finds the point, proves that all of it is there, looks at the places.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::clock::is_ahead;
use crate::model::claim::ClaimId;
use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::model::journal::Journal;
use crate::model::manifest::PointKind;
use crate::model::moved::{Known, moved};
use crate::model::set::SetName;
use crate::model::set_state::Targets;
use crate::monitor::Event;
use crate::repository::Unreadable;
use crate::repository::browse;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::points::{self, Points, StoredPoint};
use crate::repository::prove::{self, Proof};
use crate::repository::reader::Reader;
use crate::repository::select::Selector;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::log;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::{self, Chosen, Circumstances, PlannedFill, RestorePlan};
use crate::restore::refusal::Refusal;

/// The plan, with everything proven that it stands on.
pub(super) async fn prepare(restore: &Restore, set: &SetName, options: &RestoreOptions) -> Result<RestorePlan, RestoreError> {
    let to = options.to.clone().unwrap_or_else(|| set.clone());
    log::refuse_open(restore.platform.as_ref(), &to).await?;
    let (reader, damaged) = reader(restore).await?;
    // An id may be that of another set's point, which the refusal then names.
    let only = if matches!(options.point, Selector::Id(_)) { None } else { Some(set) };
    let points = points::list_points(&reader, only).await?;
    let now = restore.clock.now();
    let point = points.choose(set, options.cluster.as_deref(), &options.point, options.allow_partial, now)?;
    let paths = plan::clean_paths(&options.paths)?;
    let (chosen, mut left_out) = plan::choose_claims(point, &to, options)?;
    let mut notes = notes(&points, point, options, now);
    if !matches!(options.point, Selector::Id(_)) {
        for ahead in points.ahead(set, Some(&point.point.cluster), now) {
            let text = points::passed_over(ahead);
            restore.monitor.event(Event::Warning(text.clone()));
            notes.push(text);
        }
    }
    let proving = Proving { reader: &reader, point, skip_damaged: options.skip_damaged };
    let chosen = proving.all(chosen, &paths, &mut left_out, &mut notes).await?;
    let ids: Vec<ClaimId> = chosen.iter().map(|claim| claim.id.clone()).collect();
    let targets = restore.platform.read_targets(&to, &ids, options.replace).await?;
    if options.replace && !options.allow_moved_volumes {
        refuse_moved(&reader, &points, &to, &ids, &targets, options, now).await?;
    }
    notes.extend(damaged);
    let circumstances = Circumstances { to, targets, paths, left_out, can_start: restore.platform.can_start(), notes };
    Ok(plan::plan(point, chosen, circumstances, options)?)
}

/// What is replaced should be what the set's last point knew under that ordinal.
async fn refuse_moved(
    reader: &Reader,
    points: &Points,
    to: &SetName,
    ids: &[ClaimId],
    targets: &Targets,
    options: &RestoreOptions,
    now: DateTime<Utc>,
) -> Result<(), RestoreError> {
    let here: Vec<Known<'_>> = ids.iter().zip(&targets.claims).map(|(id, target)| (id, target.name.as_str(), &target.shape)).collect();
    if here.iter().all(|(.., shape)| shape.volume.is_none()) {
        return Ok(());
    }
    let of_target;
    let points = if points.points.iter().any(|point| point.point.set == *to) {
        points
    } else {
        of_target = points::list_points(reader, Some(to)).await?;
        &of_target
    };
    let counts = |point: &&StoredPoint| {
        options.cluster.as_ref().is_none_or(|cluster| *cluster == point.point.cluster) && !is_ahead(point.point.time.to_utc(), now)
    };
    // Oldest first.
    let Some(last) = points.points.iter().rev().filter(counts).find(|point| point.point.set == *to) else { return Ok(()) };
    let recorded: Vec<Known<'_>> =
        last.claims.iter().map(|claim| (&claim.record.id, claim.record.name.as_str(), &claim.record.shape)).collect();
    let moved = moved(here, &recorded);
    if moved.is_empty() {
        return Ok(());
    }
    Err(Refusal::Moved { point: last.point.id.short(), claims: moved.iter().map(ToString::to_string).collect() }.into())
}

/// What the index says, as far as it can be read, and what of it cannot, in words.
async fn reader(restore: &Restore) -> Result<(Reader, Vec<String>), RestoreError> {
    let (index, damaged) = Index::load_readable(&restore.repository).await?;
    let note = |object: &Unreadable| format!("index/{} is damaged: {}", object.id, object.reason);
    Ok((Reader::new(&restore.repository, Arc::new(index)), damaged.iter().map(note).collect()))
}

/// The plan that an open restore set out with. Its claims' root attributes are in the point.
pub(super) fn planned(journal: &Journal) -> Result<RestorePlan, Refusal> {
    let opening = journal.opening();
    serde_json::from_value(opening.plan.clone())
        .map_err(|error| Refusal::BadJournal { set: opening.set.to_string(), reason: error.to_string() })
}

/// How strictly [`aim_at`] looks.
#[derive(Clone, Copy)]
pub(super) struct Aim<'a> {
    /// The claims' trees must be what they are already.
    pub same: bool,
    /// What is absent refuses nothing.
    pub skip_damaged: bool,
    /// Only these paths below each claim's root are needed; empty for all.
    pub paths: &'a [String],
}

/// Makes the claims those of `point` of `set`, proven: their trees and root attributes.
pub(super) async fn aim_at(
    restore: &Restore,
    set: &SetName,
    point: Id,
    claims: impl Iterator<Item = &mut PlannedFill>,
    aim: Aim<'_>,
) -> Result<(), RestoreError> {
    let (reader, _) = reader(restore).await?;
    let points = points::list_points(&reader, Some(set)).await?;
    let point = points.find(&point.hex())?;
    let present = prove::packs_present(reader.repository()).await?;
    for claim in claims {
        let stored = point.claims.iter().find(|stored| stored.record.id == claim.id);
        let changed = || Refusal::PointChanged { point: point.point.id.short(), claim: claim.name.clone() };
        let (tree, root) = stored.and_then(|stored| Some((stored.tree?, stored.root.clone()))).ok_or_else(changed)?;
        if aim.same && tree != claim.tree {
            return Err(changed().into());
        }
        (claim.tree, claim.root, claim.exclude) = (tree, root, point.manifest.exclude.clone());
        let entries = if aim.paths.is_empty() {
            vec![Entry { name: claim.name.clone().into_bytes(), kind: Kind::Dir { subtree: Some(tree) }, attrs: claim.root.clone() }]
        } else {
            at_paths(&reader, &tree, aim.paths, &mut vec![false; aim.paths.len()]).await?
        };
        let proof = prove::prove(&reader, entries, &present).await?;
        if !proof.holds() && !aim.skip_damaged {
            return Err(unproven(point, &proof));
        }
    }
    Ok(())
}

fn unproven(point: &StoredPoint, proof: &Proof) -> RestoreError {
    RestoreError::Unproven { point: point.point.id.short(), count: proof.absent_count, absent: proof.absent.join(", ") }
}

/// What claims are proven with.
struct Proving<'a> {
    reader: &'a Reader,
    point: &'a StoredPoint,
    /// What is absent is noted, and refuses nothing.
    skip_damaged: bool,
}

impl Proving<'_> {
    /// The chosen claims with what they need of room. Those that have none of the paths drop out.
    async fn all(
        &self,
        chosen: Vec<Chosen>,
        paths: &[String],
        left_out: &mut Vec<String>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Chosen>, RestoreError> {
        let present = prove::packs_present(self.reader.repository()).await?;
        let mut found = vec![false; paths.len()];
        let mut proven = Vec::new();
        for mut claim in chosen {
            let entries = if paths.is_empty() {
                vec![Entry {
                    name: claim.saved_as.clone().into_bytes(),
                    kind: Kind::Dir { subtree: Some(claim.tree) },
                    attrs: claim.root.clone(),
                }]
            } else {
                at_paths(self.reader, &claim.tree, paths, &mut found).await?
            };
            if entries.is_empty() {
                left_out.push(claim.saved_as);
                continue;
            }
            let proof = prove::prove(self.reader, entries, &present).await?;
            if !proof.holds() {
                if !self.skip_damaged {
                    return Err(unproven(self.point, &proof));
                }
                notes.push(format!("of {} the repository lacks {}: {}", claim.saved_as, proof.absent_count, proof.absent.join(", ")));
            }
            claim.room = proof.room;
            if paths.is_empty() {
                refuse_excess(self.point, &claim.saved_as, &proof)?;
            } else {
                (claim.files, claim.bytes) = (proof.files, proof.room);
            }
            proven.push(claim);
        }
        match found.iter().position(|found| !found) {
            Some(number) => Err(Refusal::NoSuchPath { point: self.point.point.id.short(), path: paths[number].clone() }.into()),
            None => Ok(proven),
        }
    }
}

/// Folders that name each other again and again hold more than anybody saved, and would fill any disk.
fn refuse_excess(point: &StoredPoint, saved_as: &str, proof: &Proof) -> Result<(), RestoreError> {
    let Some(claim) = point.claims.iter().find(|claim| claim.record.name == saved_as) else { return Ok(()) };
    let told = claim.record.files.saturating_add(claim.record.dirs);
    // Room for doubt about how things are counted, and none for a flood.
    if proof.entries <= told.saturating_mul(2).saturating_add(1000) {
        return Ok(());
    }
    let reason = format!("its folders hold {} entries, and its manifest says {told}", proof.entries);
    Err(RepositoryError::damaged(format!("claim {saved_as} of point {}", point.point.id.short()), reason).into())
}

async fn at_paths(reader: &Reader, tree: &Id, paths: &[String], found: &mut [bool]) -> Result<Vec<Entry>, RestoreError> {
    let mut entries = Vec::new();
    for (path, found) in paths.iter().zip(found) {
        if let Some(entry) = browse::entry_at(reader, tree, path).await? {
            *found = true;
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// What the choice of the point passed over, in words.
fn notes(points: &Points, chosen: &StoredPoint, options: &RestoreOptions, now: DateTime<Utc>) -> Vec<String> {
    let mut notes = Vec::new();
    if options.point == Selector::Latest {
        let same = |point: &&StoredPoint| point.point.set == chosen.point.set && point.point.cluster == chosen.point.cluster;
        let newer = points
            .points
            .iter()
            .filter(same)
            .filter(|point| point.point.time > chosen.point.time && !is_ahead(point.point.time.to_utc(), now));
        let passed: Vec<String> = newer.filter(|p| p.point.kind == PointKind::Normal).map(|p| p.point.id.short()).collect();
        if !passed.is_empty() {
            notes.push(format!("newer, but partial and so passed over: {}", passed.join(", ")));
        }
    }
    if !chosen.point.complete {
        notes.push(format!("the point is partial: {}", chosen.defects.join("; ")));
    }
    for foreign in &points.foreign {
        if let Some(reason) = &foreign.reason {
            notes.push(format!("snapshot {} looks like a point and is none: {reason}", foreign.id.short()));
        }
    }
    notes.extend(points.unreadable.iter().map(|damaged| format!("snapshot {} cannot be read: {}", damaged.id.short(), damaged.reason)));
    notes
}
