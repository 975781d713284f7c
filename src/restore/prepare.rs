//! From a name to a plan: finds the point, proves that all of it is there, looks at the places.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::claim::ClaimId;
use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::model::manifest::PointKind;
use crate::model::set::SetName;
use crate::repository::browse;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::points::{self, Points, StoredPoint};
use crate::repository::prove::{self, Proof};
use crate::repository::reader::Reader;
use crate::repository::select::Selector;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::{self, Chosen, Circumstances, Refusal, RestorePlan};

/// The plan, with everything proven that it stands on.
pub(super) async fn prepare(restore: &Restore, set: &SetName, options: &RestoreOptions) -> Result<RestorePlan, RestoreError> {
    let (index, damaged) = Index::load_readable(&restore.repository).await?;
    let reader = Reader::new(&restore.repository, Arc::new(index));
    // An id may be that of another set's point, which the refusal then names.
    let only = if matches!(options.point, Selector::Id(_)) { None } else { Some(set) };
    let points = points::list_points(&reader, only).await?;
    let point = points.choose(set, options.cluster.as_deref(), &options.point, options.allow_partial)?;
    let to = options.to.clone().unwrap_or_else(|| set.clone());
    let paths = plan::clean_paths(&options.paths)?;
    let (chosen, mut left_out) = plan::choose_claims(point, &to, options)?;
    let chosen = prove_all(&reader, point, chosen, &paths, &mut left_out).await?;
    let ids: Vec<ClaimId> = chosen.iter().map(|claim| claim.id.clone()).collect();
    let targets = restore.platform.read_targets(&to, &ids).await?;
    let mut notes = notes(&points, point, options);
    notes.extend(
        damaged.iter().map(|object| format!("index/{} is damaged, but names nothing that is needed: {}", object.id, object.reason)),
    );
    let circumstances = Circumstances { to, targets, paths, left_out, can_start: restore.platform.can_start(), notes };
    Ok(plan::plan(point, chosen, circumstances, options)?)
}

/// The chosen claims with what they need of room. Those that have none of the paths drop out.
async fn prove_all(
    reader: &Reader,
    point: &StoredPoint,
    chosen: Vec<Chosen>,
    paths: &[String],
    left_out: &mut Vec<String>,
) -> Result<Vec<Chosen>, RestoreError> {
    let present = prove::packs_present(reader.repository()).await?;
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
            at_paths(reader, &claim.tree, paths, &mut found).await?
        };
        if entries.is_empty() {
            left_out.push(claim.saved_as);
            continue;
        }
        let proof = prove_claim(reader, point, entries, &present).await?;
        claim.room = proof.room;
        if paths.is_empty() {
            refuse_excess(point, &claim.saved_as, &proof)?;
        }
        if !paths.is_empty() {
            (claim.files, claim.bytes) = (proof.files, proof.room);
        }
        proven.push(claim);
    }
    match found.iter().position(|found| !found) {
        Some(number) => Err(Refusal::NoSuchPath { point: point.point.id.short(), path: paths[number].clone() }.into()),
        None => Ok(proven),
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

async fn prove_claim(reader: &Reader, point: &StoredPoint, entries: Vec<Entry>, present: &HashMap<Id, u64>) -> Result<Proof, RestoreError> {
    let proof = prove::prove(reader, entries, present).await?;
    if proof.holds() {
        return Ok(proof);
    }
    let absent = proof.absent.join(", ");
    Err(RestoreError::Unproven { point: point.point.id.short(), count: proof.absent_count, absent })
}

/// What the choice of the point passed over, in words.
fn notes(points: &Points, chosen: &StoredPoint, options: &RestoreOptions) -> Vec<String> {
    let mut notes = Vec::new();
    if options.point == Selector::Latest {
        let same = |point: &&StoredPoint| point.point.set == chosen.point.set && point.point.cluster == chosen.point.cluster;
        let newer = points.points.iter().filter(same).filter(|point| point.point.time > chosen.point.time);
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
