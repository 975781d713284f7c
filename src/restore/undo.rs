//! Takes an open restore back: every claim holds again what it held before.

use crate::model::journal::{Before, Journal, Phase, Progress, Step};
use crate::model::mover_job::FillMode;
use crate::monitor::Event;
use crate::repository::lock::Lock;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::fill::{Way, Work};
use crate::restore::log::Log;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::{PlannedFill, RestorePlan};
use crate::restore::prepare::{self, Aim};
use crate::restore::refusal::Refusal;

/// What an undo has to do.
#[derive(Debug, PartialEq)]
pub(super) struct UndoPlan {
    /// Emptied, and removed where they were absent.
    pub emptied: Vec<PlannedFill>,
    /// Filled again from the safety point.
    pub refilled: Vec<PlannedFill>,
    /// Left as they are: no safety point holds what they held.
    pub left: Vec<String>,
}

/// Pure: what the journal calls for. `give_up` leaves claims half restored that have no safety point, instead of refusing.
pub(super) fn plan(journal: &Journal, plan: &RestorePlan, give_up: bool) -> Result<UndoPlan, Refusal> {
    if matches!(journal.phase(), Phase::Starting | Phase::Unready) {
        return Err(Refusal::AlreadyStarted { run: journal.opening().run.clone() });
    }
    let mut undo = UndoPlan { emptied: Vec::new(), refilled: Vec::new(), left: Vec::new() };
    for claim in &plan.claims {
        if !matches!(journal.progress(&claim.name), Some(Progress::Filling | Progress::Filled { .. })) {
            continue;
        }
        match (claim.before, journal.safety_point()) {
            (Before::Absent | Before::Empty, _) => undo.emptied.push(claim.clone()),
            (Before::Data, Some(_)) => undo.refilled.push(claim.clone()),
            (Before::Data, None) => undo.left.push(claim.name.clone()),
        }
    }
    if undo.left.is_empty() || give_up { Ok(undo) } else { Err(Refusal::NoWayBack { claims: undo.left }) }
}

/// Carries it out, each step written down first.
pub(super) async fn carry_out(restore: &Restore, log: &Log, options: &RestoreOptions, lock: &Lock) -> Result<UndoPlan, RestoreError> {
    let journal = log.journal().await;
    let done = prepare::planned(&journal)?;
    let mut undo = plan(&journal, &done, !options.safety)?;
    if let (Some(point), false) = (journal.safety_point(), undo.refilled.is_empty()) {
        prepare::aim_at(restore, &done.to, point, &mut undo.refilled, Aim { same: false, skip_damaged: false }).await?;
    }
    if journal.phase() != Phase::Undoing {
        log.note(Step::Undoing).await?;
    }
    let run = &journal.opening().run;
    for claim in &undo.emptied {
        restore.monitor.event(Event::Step(format!("taking back {}", claim.name)));
        restore.platform.open_claim(run, &claim.name, FillMode::Replace).await?;
        restore.platform.abandon_claim(run, &claim.name, claim.before == Before::Absent).await?;
        log.note(Step::TakenBack { claim: claim.name.clone() }).await?;
    }
    let claims = undo.refilled.clone();
    let work = Work { restore, log, lock, options, set: &done.to, claims, paths: &[], skip_damaged: false, way: Way::Back };
    work.carry_out().await?;
    Ok(undo)
}
