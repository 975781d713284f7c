//! Lets movers read again what was restored, one per ordinal, and gathers what is not as it should be.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use crate::drill::error::DrillError;
use crate::drill::{Drill, DrillOptions, by_ordinal};
use crate::model::mover_job::{MoverJob, MoverReport, Problem, ProveClaim, Task};
use crate::model::set::Ordinal;
use crate::monitor::Event;
use crate::platform::{LastWord, Scratch};
use crate::restore::{PlannedFill, RestorePlan};

/// What is proven, and everything that this takes.
pub(super) struct Proof<'a> {
    pub drill: &'a Drill,
    pub run: &'a str,
    pub plan: &'a RestorePlan,
    pub scratch: &'a dyn Scratch,
    pub options: &'a DrillOptions,
}

impl Proof<'_> {
    /// What is not as in the point, by the claims' names there. A claim without an entry was not looked at.
    pub async fn carry_out(&self) -> Result<BTreeMap<String, Vec<Problem>>, DrillError> {
        // A first error drops the other movers, which ends them.
        let reports: Vec<MoverReport> = futures::stream::iter(by_ordinal(self.plan))
            .map(|(ordinal, claims)| self.mover(ordinal, claims))
            .buffer_unordered(self.options.parallel.max(1))
            .try_collect()
            .await?;
        Ok(reports.into_iter().flat_map(|report| report.claims).map(|claim| (claim.name, claim.problems)).collect())
    }

    async fn mover(&self, ordinal: Ordinal, claims: Vec<&PlannedFill>) -> Result<MoverReport, DrillError> {
        let monitor = &self.drill.monitor;
        monitor.event(Event::Step(format!("proving ordinal {ordinal}")));
        let total = Some(claims.iter().fold(0u64, |sum, claim| sum.saturating_add(claim.bytes)));
        let prove = |claim: &&PlannedFill| ProveClaim {
            name: claim.name.clone(),
            tree: claim.tree,
            root: claim.root.clone(),
            target: self.scratch.root_of(&claim.name),
            folder: None,
            shape: claim.shape.clone(),
            exclude: claim.exclude.clone(),
        };
        let job = MoverJob {
            run: self.run.to_owned(),
            set: self.plan.to.clone(),
            ordinal,
            repository: self.options.location.clone(),
            memory: self.options.memory,
            task: Task::Prove(claims.iter().map(prove).collect()),
        };
        let secret = self.drill.repository.master_key().to_bytes();
        let mover = self.scratch.platform().start_mover(&job, secret.as_slice()).await?;
        drop(secret);
        let progress = |progress| monitor.event(Event::Progress { ordinal, progress, total });
        let report = match mover.see_through(self.drill.cancel.clone(), progress).await? {
            LastWord::Report(report) => report,
            _ if *self.drill.cancel.borrow() => return Err(DrillError::Interrupted),
            LastWord::Failed { error, hint, kind } => return Err(DrillError::Mover { ordinal: ordinal.0, error, hint, kind }),
            LastWord::Nothing => return Err(DrillError::BadReport { ordinal: ordinal.0, what: "nothing".into() }),
        };
        for claim in &claims {
            if !report.claims.iter().any(|told| told.name == claim.name && told.tree == claim.tree) {
                return Err(DrillError::BadReport { ordinal: ordinal.0, what: format!("nothing on claim {}", claim.name) });
            }
        }
        monitor.event(Event::Done { ordinal, progress: report.total });
        Ok(report)
    }
}
