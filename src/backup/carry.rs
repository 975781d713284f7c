//! Carries a plan out: one mover per ordinal, the first alone where the plan says so, and all of them or none.

use std::collections::BTreeMap;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use crate::backup::Backup;
use crate::backup::error::BackupError;
use crate::backup::options::BackupOptions;
use crate::backup::plan::{BackupPlan, PlannedOrdinal};
use crate::model::mover_job::{MoverJob, MoverReport, Problem, SaveClaim, Task};
use crate::model::set::SetName;
use crate::model::set_state::CutClaim;
use crate::monitor::Event;
use crate::platform::{LastWord, PlatformError, SetHold, raised};
use crate::repository::lock::Lock;

/// By claim: what movers read.
pub(super) type Cuts = BTreeMap<String, CutClaim>;

/// Problems of one claim that the monitor is told one by one; the point has the full list.
const TOLD: usize = 20;

/// Every ordinal's report, in the plan's order. The first thing that goes wrong stops all movers, and is the error.
pub(super) async fn carry(
    backup: &Backup,
    plan: &BackupPlan,
    cuts: &Cuts,
    options: &BackupOptions,
    run: &str,
    (lock, hold): (&Lock, &SetHold),
) -> Result<Vec<MoverReport>, BackupError> {
    let (stop, stopped) = watch::channel(false);
    let work = async {
        let mut waiting = plan.ordinals.iter().enumerate();
        let mut running = FuturesUnordered::new();
        let mut reports: Vec<Option<MoverReport>> = plan.ordinals.iter().map(|_| None).collect();
        let mut failure = None;
        let start = |(number, ordinal)| {
            let stopped = stopped.clone();
            async move { (number, save(backup, plan, ordinal, cuts, options, run, stopped).await) }.boxed()
        };
        loop {
            let begun = reports.iter().any(Option::is_some);
            let room = if plan.first_alone && !begun { 1 } else { plan.parallel };
            while running.len() < room && failure.is_none() && !*stopped.borrow() {
                match waiting.next() {
                    Some(next) => running.push(start(next)),
                    None => break,
                }
            }
            match running.next().await {
                None => break,
                Some((number, Ok(report))) => reports[number] = Some(report),
                Some((_, Err(error))) => {
                    // What the others say once they are told to stop is an echo of this.
                    failure.get_or_insert(error);
                    stop.send_replace(true);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(reports),
        }
    };
    tokio::pin!(work);
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        () = raised(backup.cancel.clone()) => {
            stop.send_replace(true);
            // Movers take their locks away and end; what they say about it is no news.
            let _ = (&mut work).await;
            Err(BackupError::Interrupted)
        }
        lost = lock.lost() => {
            stop.send_replace(true);
            let _ = (&mut work).await;
            Err(lost.into())
        }
        () = raised(hold.lost()) => {
            stop.send_replace(true);
            let _ = (&mut work).await;
            Err(PlatformError::SetLost { set: format!("{}/{}", plan.set.namespace, plan.set.name) }.into())
        }
    };
    let reports = outcome?;
    reports.into_iter().collect::<Option<Vec<_>>>().ok_or(BackupError::Interrupted)
}

/// One mover from start to report.
async fn save(
    backup: &Backup,
    plan: &BackupPlan,
    ordinal: &PlannedOrdinal,
    cuts: &Cuts,
    options: &BackupOptions,
    run: &str,
    stopped: watch::Receiver<bool>,
) -> Result<MoverReport, BackupError> {
    let number = ordinal.ordinal;
    let names: Vec<&str> = ordinal.claims.iter().map(|claim| claim.name.as_str()).collect();
    backup.monitor.event(Event::Step(format!("saving ordinal {number}: {}", names.join(", "))));
    let total = ordinal.claims.iter().try_fold(0u64, |sum, claim| Some(sum.saturating_add(claim.parent_bytes?)));
    let job = job(plan, ordinal, cuts, options, run);
    let secret = backup.repository.master_key().to_bytes();
    let mover = backup.platform.start_mover(&job, secret.as_slice()).await?;
    drop(secret);
    let progress = |progress| backup.monitor.event(Event::Progress { ordinal: number, progress, total });
    let report = match mover.see_through(stopped, progress).await? {
        LastWord::Report(report) => report,
        LastWord::Failed { error, hint, kind } => return Err(BackupError::Mover { ordinal: number.0, error, hint, kind }),
        LastWord::Nothing => return Err(BackupError::BadReport { ordinal: number.0, what: "nothing".into() }),
    };
    check(&report, ordinal, run)?;
    backup.monitor.event(Event::Done { ordinal: number, progress: report.total });
    for claim in &report.claims {
        tell(backup, &claim.name, &claim.problems);
    }
    Ok(report)
}

fn job(plan: &BackupPlan, ordinal: &PlannedOrdinal, cuts: &Cuts, options: &BackupOptions, run: &str) -> MoverJob {
    let claims = ordinal
        .claims
        .iter()
        .map(|claim| SaveClaim {
            name: claim.name.clone(),
            source: cuts.get(&claim.name).map(|cut| cut.source.clone()).unwrap_or_default(),
            folder: None,
            volume: cuts.get(&claim.name).and_then(|cut| cut.volume.clone()),
            shape: claim.shape.clone(),
            parent: claim.parent,
            parent_cut: claim.parent_cut,
            change_detection: claim.change_detection,
            exclude: plan.exclude.clone(),
        })
        .collect();
    MoverJob {
        run: run.to_owned(),
        set: SetName { namespace: plan.set.namespace.clone(), name: plan.set.name.clone() },
        ordinal: ordinal.ordinal,
        repository: options.location.clone(),
        memory: options.memory,
        task: Task::Save(claims),
    }
}

/// A report counts only if it answers what was asked, claim by claim.
fn check(report: &MoverReport, ordinal: &PlannedOrdinal, run: &str) -> Result<(), BackupError> {
    let bad = |what: String| Err(BackupError::BadReport { ordinal: ordinal.ordinal.0, what });
    if report.run != run || report.ordinal != ordinal.ordinal {
        return bad(format!("on ordinal {} of run {}", report.ordinal, report.run));
    }
    let asked: Vec<&str> = ordinal.claims.iter().map(|claim| claim.name.as_str()).collect();
    let mut told: Vec<&str> = report.claims.iter().map(|claim| claim.name.as_str()).collect();
    told.sort_by_key(|name| asked.iter().position(|asked| asked == name));
    if asked != told {
        return bad(format!("on other claims: {}", told.join(", ")));
    }
    Ok(())
}

fn tell(backup: &Backup, claim: &str, problems: &[Problem]) {
    for problem in problems.iter().take(TOLD) {
        backup.monitor.event(Event::Problem { claim: claim.to_owned(), problem: problem.clone() });
    }
    if problems.len() > TOLD {
        backup.monitor.event(Event::Warning(format!("claim {claim}: {} more like these; the point has the list", problems.len() - TOLD)));
    }
}
