//! Fills claims, one mover per ordinal, and writes each step down before it is taken. It returns only when every claim is whole.

use std::collections::BTreeMap;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use crate::model::journal::{Before, Progress, Step};
use crate::model::mover_job::{ClaimReport, FillClaim, FillMode, MoverJob, MoverReport, Task};
use crate::model::set::{Ordinal, SetName};
use crate::monitor::Event;
use crate::platform::{LastWord, PlatformError, raised};
use crate::repository::lock::Lock;
use crate::restore::Restore;
use crate::restore::error::RestoreError;
use crate::restore::log::Log;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::PlannedFill;

/// Problems of one claim that the monitor is told one by one.
const TOLD: usize = 20;

/// Which way claims are filled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With what the point holds.
    Forth,
    /// With what they held before.
    Back,
}

/// What is to be filled, and everything that this takes.
pub(super) struct Work<'a> {
    pub restore: &'a Restore,
    pub log: &'a Log,
    pub lock: &'a Lock,
    /// Turns true once another has the right to the set.
    pub lost: watch::Receiver<bool>,
    pub options: &'a RestoreOptions,
    pub set: &'a SetName,
    pub claims: Vec<PlannedFill>,
    /// Only these paths below each claim's root; empty for all.
    pub paths: &'a [String],
    pub skip_damaged: bool,
    pub way: Way,
}

/// One mover's share of it.
struct Share<'a> {
    work: &'a Work<'a>,
    run: String,
    ordinal: Ordinal,
    claims: Vec<&'a PlannedFill>,
}

impl Work<'_> {
    /// All claims, filled and proven. On an error claims that held nothing before are taken back; others stay as they are, and the
    /// journal says which.
    pub async fn carry_out(&self) -> Result<BTreeMap<Ordinal, MoverReport>, RestoreError> {
        let run = self.log.journal().await.opening().run.clone();
        let mut by_ordinal: BTreeMap<Ordinal, Vec<&PlannedFill>> = BTreeMap::new();
        for claim in &self.claims {
            by_ordinal.entry(claim.id.ordinal).or_default().push(claim);
        }
        let (stop, stopped) = watch::channel(false);
        let mut done: BTreeMap<Ordinal, MoverReport> = BTreeMap::new();
        let outcome = {
            let work = async {
                let mut waiting = by_ordinal.into_iter();
                let mut running = FuturesUnordered::new();
                let mut failure: Option<RestoreError> = None;
                loop {
                    while running.len() < self.options.parallel.max(1) && failure.is_none() && !*stopped.borrow() {
                        let Some((ordinal, claims)) = waiting.next() else { break };
                        let share = Share { work: self, run: run.clone(), ordinal, claims };
                        let stopped = stopped.clone();
                        running.push(async move { (share.ordinal, share.carry(stopped).await) }.boxed());
                    }
                    match running.next().await {
                        None => break,
                        Some((ordinal, Ok(report))) => {
                            done.insert(ordinal, report);
                        }
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
                () = raised(self.restore.cancel.clone()) => {
                    stop.send_replace(true);
                    let _ = (&mut work).await;
                    Err(RestoreError::Interrupted)
                }
                lost = self.lock.lost() => {
                    stop.send_replace(true);
                    let _ = (&mut work).await;
                    Err(lost.into())
                }
                () = raised(self.lost.clone()) => {
                    stop.send_replace(true);
                    let _ = (&mut work).await;
                    Err(PlatformError::SetLost { set: self.set.to_string() }.into())
                }
            }
        };
        outcome.map(|()| done)
    }
}

impl Share<'_> {
    /// Opens the ordinal's claims, lets a mover fill them, and closes them; or takes back what it opened.
    async fn carry(&self, stopped: watch::Receiver<bool>) -> Result<MoverReport, RestoreError> {
        let mut opened: Vec<&PlannedFill> = Vec::new();
        let filled = match self.open_and_fill(&mut opened, stopped).await {
            Ok(report) => self.undisturbed(&opened).await.map(|()| report),
            Err(error) => Err(error),
        };
        match filled {
            Ok(report) => {
                for claim in opened {
                    // A claim that bears the mark of its run, or that was filled by it, is what the run may put its hand on; so there
                    // must be no moment between the two.
                    self.work.log.note(self.end_of(claim, &report)).await?;
                    self.work.restore.platform.close_claim(&self.run, &claim.place(self.work.set)).await?;
                }
                Ok(report)
            }
            Err(error) => {
                for claim in opened {
                    if claim.before != Before::Data && self.work.way == Way::Forth {
                        self.take_back(claim).await;
                    }
                }
                Err(error)
            }
        }
    }

    async fn undisturbed(&self, opened: &[&PlannedFill]) -> Result<(), RestoreError> {
        for claim in opened {
            self.work.restore.platform.refuse_disturbed(&self.run, &claim.place(self.work.set)).await?;
        }
        Ok(())
    }

    fn end_of(&self, claim: &PlannedFill, report: &MoverReport) -> Step {
        if self.work.way == Way::Back {
            return Step::TakenBack { claim: claim.name.clone() };
        }
        let told = report.claims.iter().find(|told| told.name == claim.name);
        let of = |count: fn(&ClaimReport) -> u64| told.map_or(0, count);
        Step::Filled {
            claim: claim.name.clone(),
            files: of(|told| told.files),
            bytes: of(|told| told.bytes),
            problems: of(|told| told.problems.len() as u64),
        }
    }

    /// Unless somebody else is at work on it by now: the journal is asked first, which only one can write.
    async fn take_back(&self, claim: &PlannedFill) {
        if *self.work.lost.borrow() || self.work.log.note(Step::Filling { claim: claim.name.clone() }).await.is_err() {
            return;
        }
        let remove = claim.before == Before::Absent;
        let taken = match self.work.restore.platform.abandon_claim(&self.run, &claim.place(self.work.set), remove).await {
            Ok(()) => self.work.log.note(Step::TakenBack { claim: claim.name.clone() }).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = taken {
            let text = format!("claim {} is left half restored, since it could not be taken back: {error}", claim.name);
            self.work.restore.monitor.event(Event::Warning(text));
        }
    }

    async fn open_and_fill<'s>(
        &'s self,
        opened: &mut Vec<&'s PlannedFill>,
        stopped: watch::Receiver<bool>,
    ) -> Result<MoverReport, RestoreError> {
        let names: Vec<&str> = self.claims.iter().map(|claim| claim.name.as_str()).collect();
        let verb = if self.work.way == Way::Forth { "filling" } else { "taking back" };
        self.work.restore.monitor.event(Event::Step(format!("{verb} ordinal {}: {}", self.ordinal, names.join(", "))));
        let journal = self.work.log.journal().await;
        let mut claims = Vec::new();
        for claim in &self.claims {
            // What a dead run began to fill is not empty any more.
            let begun = journal.progress(&claim.name) != Some(Progress::Untouched);
            let mode = if begun || claim.before == Before::Data { FillMode::Replace } else { FillMode::New };
            if self.work.way == Way::Forth {
                self.work.log.note(Step::Filling { claim: claim.name.clone() }).await?;
            }
            let target = match self.work.restore.platform.open_claim(&self.run, &claim.place(self.work.set), mode).await {
                Ok(target) => target,
                Err(error) => {
                    if !begun {
                        // Whatever is there is not of this run: nobody is to take it away as if it were.
                        self.work.log.note(Step::TakenBack { claim: claim.name.clone() }).await?;
                    }
                    return Err(error.into());
                }
            };
            opened.push(claim);
            claims.push(FillClaim {
                name: claim.name.clone(),
                tree: claim.tree,
                root: claim.root.clone(),
                target,
                folder: None,
                shape: claim.shape.clone(),
                paths: self.work.paths.to_vec(),
                exclude: claim.exclude.clone(),
                mode,
                skip_damaged: self.work.skip_damaged,
            });
        }
        let job = MoverJob {
            run: self.run.clone(),
            set: self.work.set.clone(),
            ordinal: self.ordinal,
            repository: self.work.options.location.clone(),
            memory: self.work.options.memory,
            task: Task::Fill(claims),
        };
        self.mover(&job, stopped).await
    }

    async fn mover(&self, job: &MoverJob, stopped: watch::Receiver<bool>) -> Result<MoverReport, RestoreError> {
        let ordinal = self.ordinal;
        let restore = self.work.restore;
        let monitor = &restore.monitor;
        let total = Some(self.claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.bytes)));
        let secret = restore.repository.master_key().to_bytes();
        let mover = restore.platform.start_mover(job, secret.as_slice()).await?;
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
