//! Fills the claims, one mover per ordinal, and is the gate: it returns only when every claim is whole.

use std::collections::BTreeMap;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use crate::model::mover_job::{FillClaim, FillMode, MoverJob, MoverReport, Task};
use crate::model::set::Ordinal;
use crate::monitor::Event;
use crate::platform::LastWord;
use crate::platform::raised;
use crate::repository::lock::Lock;
use crate::restore::error::RestoreError;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::{PlannedFill, RestorePlan};
use crate::restore::{Restore, Restored, RestoredClaim};

/// Problems of one claim that the monitor is told one by one.
const TOLD: usize = 20;

/// One mover's share of a fill.
struct Share<'a> {
    restore: &'a Restore,
    plan: &'a RestorePlan,
    options: &'a RestoreOptions,
    run: &'a str,
    ordinal: Ordinal,
    claims: Vec<&'a PlannedFill>,
}

/// All claims, filled and proven.
pub(super) async fn fill(restore: &Restore, plan: &RestorePlan, options: &RestoreOptions, lock: &Lock) -> Result<Restored, RestoreError> {
    let run = run_id(restore)?;
    let mut by_ordinal: BTreeMap<Ordinal, Vec<&PlannedFill>> = BTreeMap::new();
    for claim in &plan.claims {
        by_ordinal.entry(claim.id.ordinal).or_default().push(claim);
    }
    let (stop, stopped) = watch::channel(false);
    let mut done: Vec<(Ordinal, MoverReport)> = Vec::new();
    let outcome = {
        let work = async {
            let mut waiting = by_ordinal.into_iter();
            let mut running = FuturesUnordered::new();
            let mut failure: Option<RestoreError> = None;
            loop {
                while running.len() < plan.parallel && failure.is_none() && !*stopped.borrow() {
                    let Some((ordinal, claims)) = waiting.next() else { break };
                    let share = Share { restore, plan, options, run: &run, ordinal, claims };
                    let stopped = stopped.clone();
                    running.push(async move { (share.ordinal, share.carry(stopped).await) }.boxed());
                }
                match running.next().await {
                    None => break,
                    Some((ordinal, Ok(report))) => done.push((ordinal, report)),
                    Some((_, Err(error))) => {
                        // What the others say once they are told to stop is an echo of this.
                        failure.get_or_insert(error);
                        stop.send_replace(true);
                    }
                }
            }
            failure.map_or(Ok(()), Err)
        };
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => outcome,
            () = raised(restore.cancel.clone()) => {
                stop.send_replace(true);
                let _ = (&mut work).await;
                Err(RestoreError::Interrupted)
            }
            lost = lock.lost() => {
                stop.send_replace(true);
                let _ = (&mut work).await;
                Err(lost.into())
            }
        }
    };
    let reports: BTreeMap<Ordinal, MoverReport> = done.into_iter().collect();
    match outcome {
        Ok(()) => Ok(restored(plan, &reports)),
        Err(source) => {
            let whole = plan.claims.iter().filter(|claim| reports.contains_key(&claim.id.ordinal)).map(|claim| claim.name.clone());
            Err(RestoreError::Unfilled { done: whole.collect(), source: Box::new(source) })
        }
    }
}

/// Sorts by time for people, and is never given twice.
fn run_id(restore: &Restore) -> Result<String, RestoreError> {
    let mut bytes = [0u8; 4];
    getrandom::fill(&mut bytes).map_err(crate::repository::error::RepositoryError::from)?;
    let time = restore.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true).replace([':', '-'], "").to_lowercase();
    Ok(format!("{time}-{}", data_encoding::HEXLOWER.encode(&bytes)))
}

impl Share<'_> {
    /// Opens the ordinal's claims, lets a mover fill them, and closes them; or takes back what it opened.
    async fn carry(&self, stopped: watch::Receiver<bool>) -> Result<MoverReport, RestoreError> {
        let platform = &self.restore.platform;
        let mut opened: Vec<&str> = Vec::new();
        let filled = self.open_and_fill(&mut opened, stopped).await;
        match filled {
            Ok(report) => {
                for claim in opened {
                    platform.close_claim(self.run, claim).await?;
                }
                Ok(report)
            }
            Err(error) => {
                for claim in opened {
                    if let Err(error) = platform.abandon_claim(self.run, claim).await {
                        let text = format!("claim {claim} is left half restored, since it could not be taken back: {error}");
                        self.restore.monitor.event(Event::Warning(text));
                    }
                }
                Err(error)
            }
        }
    }

    async fn open_and_fill<'s>(&'s self, opened: &mut Vec<&'s str>, stopped: watch::Receiver<bool>) -> Result<MoverReport, RestoreError> {
        let names: Vec<&str> = self.claims.iter().map(|claim| claim.name.as_str()).collect();
        self.restore.monitor.event(Event::Step(format!("filling ordinal {}: {}", self.ordinal, names.join(", "))));
        let mut claims = Vec::new();
        for claim in &self.claims {
            let target = self.restore.platform.open_claim(self.run, &claim.name).await?;
            opened.push(&claim.name);
            let paths = self.plan.paths.clone();
            claims.push(FillClaim {
                name: claim.name.clone(),
                tree: claim.tree,
                root: claim.root.clone(),
                target,
                paths,
                mode: FillMode::New,
                skip_damaged: false,
            });
        }
        let job = MoverJob {
            run: self.run.to_owned(),
            set: self.plan.to.clone(),
            ordinal: self.ordinal,
            repository: self.options.location.clone(),
            memory: self.options.memory,
            task: Task::Fill(claims),
        };
        self.mover(&job, stopped).await
    }

    async fn mover(&self, job: &MoverJob, stopped: watch::Receiver<bool>) -> Result<MoverReport, RestoreError> {
        let ordinal = self.ordinal;
        let monitor = &self.restore.monitor;
        let total = Some(self.claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.bytes)));
        let secret = self.restore.repository.master_key().to_bytes();
        let mover = self.restore.platform.start_mover(job, secret.as_slice()).await?;
        drop(secret);
        let progress = |progress| monitor.event(Event::Progress { ordinal, progress, total });
        let report = match mover.see_through(stopped, progress).await? {
            LastWord::Report(report) => report,
            LastWord::Failed { error, hint, kind } => return Err(RestoreError::Mover { ordinal: ordinal.0, error, hint, kind }),
            LastWord::Nothing => return Err(RestoreError::BadReport { ordinal: ordinal.0, what: "nothing".into() }),
        };
        self.check(&report)?;
        monitor.event(Event::Done { ordinal, progress: report.total });
        for claim in &report.claims {
            for problem in claim.problems.iter().take(TOLD) {
                monitor.event(Event::Problem { claim: claim.name.clone(), problem: problem.clone() });
            }
            if claim.problems.len() > TOLD {
                let text = format!("claim {}: {} more like these", claim.name, claim.problems.len() - TOLD);
                monitor.event(Event::Warning(text));
            }
        }
        Ok(report)
    }

    /// The gate's own look: the report must name the very trees that were asked for.
    fn check(&self, report: &MoverReport) -> Result<(), RestoreError> {
        let bad = |what: String| Err(RestoreError::BadReport { ordinal: self.ordinal.0, what });
        if report.run != self.run || report.ordinal != self.ordinal {
            return bad(format!("on ordinal {} of run {}", report.ordinal, report.run));
        }
        for claim in &self.claims {
            match report.claims.iter().find(|told| told.name == claim.name) {
                Some(told) if told.tree == claim.tree => {}
                Some(told) => return bad(format!("tree {} in claim {} instead of {}", told.tree.short(), claim.name, claim.tree.short())),
                None => return bad(format!("nothing on claim {}", claim.name)),
            }
        }
        Ok(())
    }
}

fn restored(plan: &RestorePlan, reports: &BTreeMap<Ordinal, MoverReport>) -> Restored {
    let total = reports.values().map(|report| report.total).sum();
    let told = |claim: &PlannedFill| reports.get(&claim.id.ordinal)?.claims.iter().find(|told| told.name == claim.name);
    let claims = plan
        .claims
        .iter()
        .filter_map(|claim| {
            let told = told(claim)?;
            Some(RestoredClaim {
                name: claim.name.clone(),
                ordinal: claim.id.ordinal,
                target: claim.target.clone(),
                files: told.files,
                bytes: told.bytes,
                problems: told.problems.clone(),
            })
        })
        .collect();
    Restored { point: plan.point, claims, started: Vec::new(), total }
}
