//! Makes what the targets hold safe before it is replaced. Who seals the safety point is handed in: backup and restore never meet.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::model::claim::ClaimId;
use crate::model::id::Id;
use crate::model::journal::{Before, Progress, Step};
use crate::model::mover_job::FailureKind;
use crate::model::set::SetName;
use crate::monitor::Event;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::log::Log;
use crate::restore::plan::{PlannedFill, RestorePlan};
use crate::restore::refusal::Refusal;

/// Seals a safety point of these claims of the set, as they are, but for what these patterns exclude; with `true`, of a set that is stopped.
pub type SealSafety =
    Arc<dyn Fn(SetName, Vec<ClaimId>, Vec<String>, bool) -> BoxFuture<'static, Result<SafetyPoint, SafetyFailure>> + Send + Sync>;

/// A safety point that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafetyPoint {
    pub point: Id,
    /// All that the claims hold is in it.
    pub complete: bool,
}

/// No safety point was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct SafetyFailure {
    pub error: String,
    pub hint: Option<String>,
    pub kind: FailureKind,
}

/// Seals what the plan is going to replace and nobody has touched yet. Whoever goes on with a restore that died does it again: its
/// claims may have been in use since.
pub(super) async fn make_safe(restore: &Restore, plan: &RestorePlan, log: &Log) -> Result<(), RestoreError> {
    let journal = log.journal().await;
    let untouched = |claim: &&PlannedFill| claim.before == Before::Data && journal.progress(&claim.name) == Some(Progress::Untouched);
    let claims: Vec<&PlannedFill> = plan.claims.iter().filter(untouched).collect();
    if !plan.safety || claims.is_empty() {
        return Ok(());
    }
    restore.monitor.event(Event::Step("sealing what the targets hold in a safety point".into()));
    let ids: Vec<ClaimId> = claims.iter().map(|claim| claim.id.clone()).collect();
    // What the restore does not touch need not be made safe, and an undo must not touch it either.
    let exclude = claims.first().map(|claim| claim.exclude.clone()).unwrap_or_default();
    let SafetyPoint { point, complete } =
        (restore.seal_safety)(plan.to.clone(), ids, exclude, plan.was.is_some()).await.map_err(RestoreError::Safety)?;
    if !complete {
        return Err(Refusal::SafetyPartial { point: point.short() }.into());
    }
    log.note(Step::Safe { point, claims: claims.iter().map(|claim| claim.name.clone()).collect() }).await
}
