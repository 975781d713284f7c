//! Makes what the targets hold safe before it is replaced. Who seals the safety point is handed in: backup and restore never meet.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::model::claim::ClaimId;
use crate::model::id::Id;
use crate::model::journal::{Before, Step};
use crate::model::mover_job::FailureKind;
use crate::model::set::SetName;
use crate::monitor::Event;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::log::Log;
use crate::restore::plan::RestorePlan;
use crate::restore::refusal::Refusal;

/// Seals a safety point of these claims of the set, as they are.
pub type SealSafety = Arc<dyn Fn(SetName, Vec<ClaimId>) -> BoxFuture<'static, Result<SafetyPoint, SafetyFailure>> + Send + Sync>;

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

/// Seals the safety point that the plan calls for, unless the journal has one already.
pub(super) async fn make_safe(restore: &Restore, plan: &RestorePlan, log: &Log) -> Result<(), RestoreError> {
    if !plan.safety || log.journal().await.safety_point().is_some() {
        return Ok(());
    }
    let claims: Vec<ClaimId> = plan.claims.iter().filter(|claim| claim.before == Before::Data).map(|claim| claim.id.clone()).collect();
    restore.monitor.event(Event::Step("sealing what the targets hold in a safety point".into()));
    let SafetyPoint { point, complete } = (restore.seal_safety)(plan.to.clone(), claims).await.map_err(RestoreError::Safety)?;
    if !complete {
        return Err(Refusal::SafetyPartial { point: point.short() }.into());
    }
    log.note(Step::Safe { point }).await
}
