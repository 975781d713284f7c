//! Takes an open restore back: every claim holds again what it held before.

use std::collections::BTreeSet;

use crate::model::claim::ClaimId;
use crate::model::id::Id;
use crate::model::journal::{Before, Journal, Phase, Progress, Step};
use crate::model::mover_job::{FillMode, Problem};
use crate::model::set_state::TargetState;
use crate::monitor::Event;
use crate::platform::SetHold;
use crate::repository::lock::Lock;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::fill::{Way, Work};
use crate::restore::log::Log;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::{PlannedFill, PlannedStart, RestorePlan};
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
    if matches!((journal.phase(), &plan.start), (Phase::Proven, PlannedStart::None(_))) {
        return Err(Refusal::Done { run: journal.opening().run.clone() });
    }
    let mut undo = UndoPlan { emptied: Vec::new(), refilled: Vec::new(), left: Vec::new() };
    for claim in &plan.claims {
        if !matches!(journal.progress(&claim.name), Some(Progress::Filling | Progress::Filled { .. })) {
            continue;
        }
        match (claim.before, journal.safety_of(&claim.name)) {
            (Before::Absent | Before::Empty, _) => undo.emptied.push(claim.clone()),
            (Before::Data, Some(_)) => undo.refilled.push(claim.clone()),
            (Before::Data, None) => undo.left.push(claim.name.clone()),
        }
    }
    if undo.left.is_empty() || give_up { Ok(undo) } else { Err(Refusal::NoWayBack { claims: undo.left }) }
}

/// Carries it out, each step written down first. With what could not be made as it was.
pub(super) async fn carry_out(
    restore: &Restore,
    log: &Log,
    options: &RestoreOptions,
    held: (&Lock, &SetHold),
) -> Result<(UndoPlan, Vec<Problem>), RestoreError> {
    let done = prepare::planned(&log.journal().await)?;
    plan(&log.journal().await, &done, !options.safety)?;
    if done.was.is_some() {
        // It may have died before it had stopped the set, or somebody may have started it since.
        let names: Vec<String> = done.claims.iter().map(|claim| claim.name.clone()).collect();
        restore.platform.stop(&done.to, &names).await?;
    }
    reconcile(restore, &done, log).await?;
    let journal = log.journal().await;
    let mut undo = plan(&journal, &done, !options.safety)?;
    let points: BTreeSet<Id> = undo.refilled.iter().filter_map(|claim| journal.safety_of(&claim.name)).collect();
    for point in points {
        let of_point = undo.refilled.iter_mut().filter(|claim| journal.safety_of(&claim.name) == Some(point));
        prepare::aim_at(restore, &done.to, point, of_point, Aim { same: false, skip_damaged: false, paths: &[] }).await?;
    }
    if journal.phase() != Phase::Undoing {
        log.note(Step::Undoing).await?;
    }
    let run = &journal.opening().run;
    for claim in &undo.emptied {
        restore.monitor.event(Event::Step(format!("taking back {}", claim.name)));
        restore.platform.open_claim(run, &claim.place(&done.to), FillMode::Replace).await?;
        restore.platform.abandon_claim(run, &claim.place(&done.to), claim.before == Before::Absent).await?;
        log.note(Step::TakenBack { claim: claim.name.clone() }).await?;
    }
    let claims = undo.refilled.clone();
    let (lock, lost) = (held.0, held.1.lost());
    let work = Work { restore, log, lock, lost, options, set: &done.to, claims, paths: &[], skip_damaged: false, way: Way::Back };
    let reports = work.carry_out().await?;
    for claim in done.claims.iter().filter(|claim| undo.left.contains(&claim.name)) {
        // No backup may take the set for whole as it is now.
        restore.platform.open_claim(run, &claim.place(&done.to), FillMode::Replace).await?;
    }
    if let Some(was) = &done.was {
        restore.platform.give_back(&done.to, was, Some(was.replicas)).await?;
    }
    let problems = reports.into_values().flat_map(|report| report.claims).flat_map(|claim| claim.problems).collect();
    Ok((undo, problems))
}

/// Holds the journal of a restore that died against what is there. A claim that held nothing, was about to be filled and bears no mark of
/// the run is not the run's: if it holds nothing it counts as untouched, and if it holds anything, somebody else put it there. A claim
/// that was filled needs no mark any more.
pub(super) async fn reconcile(restore: &Restore, plan: &RestorePlan, log: &Log) -> Result<(), RestoreError> {
    let journal = log.journal().await;
    let run = &journal.opening().run;
    let ids: Vec<ClaimId> = plan.claims.iter().map(|claim| claim.id.clone()).collect();
    let targets = restore.platform.read_targets(&plan.to, &ids, false).await?;
    for (claim, target) in plan.claims.iter().zip(targets.claims) {
        let is_ours = matches!(&target.state, TargetState::HalfRestored(marked) if marked == run);
        match journal.progress(&claim.name) {
            // It died between the note and the mark.
            Some(Progress::Filled { .. } | Progress::Untouched) if is_ours => {
                restore.platform.close_claim(run, &claim.place(&plan.to)).await?;
            }
            Some(Progress::Filling) if !is_ours && claim.before != Before::Data && journal.phase() == Phase::Filling => {
                log.note(Step::TakenBack { claim: claim.name.clone() }).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
