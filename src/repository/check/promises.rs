//! What is left of every point, and does it hold what it claims to hold?

use std::sync::Arc;

use futures::StreamExt;

use crate::model::id::Id;
use crate::model::manifest::ClaimStatus;
use crate::repository::Repository;
use crate::repository::check::layout::Bad;
use crate::repository::check::losses::Losses;
use crate::repository::check::report::{ClaimState, Findings, Lost, PointState};
use crate::repository::check::trees::Forest;
use crate::repository::check::{IN_FLIGHT, reason};
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::points;
use crate::repository::points::StoredPoint;
use crate::repository::reader::Reader;
use crate::repository::snapshot;
use crate::repository::snapshot::Snapshot;

/// The state of every snapshot. Manifests are compared with what is there: a point that is marked as partial or as a safety point keeps its
/// word by being less, and snapshots of other programs promise nothing.
pub(super) async fn check(
    repository: &Repository,
    (index, bad, forest): (&Arc<Index>, &Bad, &Forest),
    snapshots: Vec<(Id, Snapshot)>,
    findings: &mut Findings,
) -> Result<Vec<PointState>, RepositoryError> {
    let reader = Reader::new(repository, Arc::clone(index));
    let mut losses = Losses::new(&reader, bad, forest);
    let judge = |(id, snapshot): (Id, Snapshot)| {
        let reader = &reader;
        async move {
            let judgement = points::judge(reader, id, snapshot.clone()).await;
            (id, snapshot, judgement)
        }
    };
    let mut judged = futures::stream::iter(snapshots).map(judge).buffered(IN_FLIGHT);
    let mut states = Vec::new();
    while let Some((id, snapshot, judgement)) = judged.next().await {
        let passes_for_whole = !snapshot.hostname.ends_with(".partial") && !snapshot.hostname.ends_with(".safety");
        let mut state = PointState {
            id,
            set: points::set_of(&snapshot),
            time: snapshot.time,
            whole: true,
            lost: Lost::default(),
            claims: Vec::new(),
            reason: None,
        };
        match judgement {
            Ok(Ok(point)) => {
                state.claims = claims(&point, &mut losses).await?;
                state.lost = state.claims.iter().fold(Lost::default(), |sum, claim| Lost {
                    files: sum.files.saturating_add(claim.lost.files),
                    folders: sum.folders.saturating_add(claim.lost.folders),
                    paths: Vec::new(),
                });
                if passes_for_whole && !point.defects.is_empty() {
                    state.reason = Some(format!("it passes for a complete point, but {}", point.defects.join("; ")));
                }
            }
            Ok(Err(foreign)) => {
                if let Some(tree) = snapshot.tree {
                    state.lost = losses.below(&tree).await?;
                }
                let why = foreign.reason.filter(|_| passes_for_whole);
                state.reason = why.map(|reason| format!("it looks like a point, but cannot be restored as one: {reason}"));
            }
            // What cannot be read was found before, with all that it touches.
            Err(error) => state.reason = Some(reason(error)?),
        }
        if let Some(reason) = &state.reason {
            let marks = findings.damage(format!("{}/{id}", snapshot::FOLDER), reason.clone());
            findings.touch(id, marks);
        }
        state.whole = !findings.touches(&id);
        states.push(state);
    }
    Ok(states)
}

async fn claims(point: &StoredPoint, losses: &mut Losses<'_>) -> Result<Vec<ClaimState>, RepositoryError> {
    let mut states = Vec::new();
    for claim in point.claims.iter().filter(|claim| claim.record.status == ClaimStatus::Saved) {
        let lost = match claim.tree {
            Some(tree) => losses.below(&tree).await?,
            None => Lost { folders: 1, paths: vec!["/".to_owned()], ..Lost::default() },
        };
        let record = &claim.record;
        states.push(ClaimState { name: record.name.clone(), whole: lost.is_nothing(), files: record.files, lost });
    }
    Ok(states)
}
