//! A drill: brings a set's point back beside the original, proves every byte of it, lets the user's command look at it, and removes it all.
//!
//! It goes the very way that a restore goes, so that what it proves is what a restore will do. The original is never touched; what the drill
//! made is removed whatever comes of it.

mod error;
mod mounts;
mod proof;
mod report;

pub use error::DrillError;
pub use report::{AppReport, DrillReport, DrilledClaim, ProbeReport};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::drill::proof::Proof;
use crate::model::claim::ClaimPlace;
use crate::model::mover_job::{FailureKind, ProblemKind};
use crate::model::set::{Ordinal, SetName};
use crate::monitor::{Event, Monitor};
use crate::platform::{App, AppEnd, News, Outcome, PlatformError, Probe, Scratch, raised};
use crate::repository::lock::{Lock, LockIdentity, LockOptions, Mode};
use crate::repository::points::{self, StoredPoint};
use crate::repository::reader::Reader;
use crate::repository::select::Selector;
use crate::repository::tasks::{self, Kind, Record};
use crate::repository::{Repository, index::Index, run};
use crate::restore::{PlannedFill, Restore, RestoreOptions, RestorePlan, Restored, SafetyFailure, SealSafety, StartMode};

/// Everything that drills of any set work with.
#[derive(Clone)]
pub struct Drill {
    pub repository: Repository,
    pub clock: Clock,
    pub monitor: Arc<dyn Monitor>,
    /// Who this process is, to others that want the repository.
    pub identity: LockIdentity,
    /// Turns true when the user wants it to stop.
    pub cancel: watch::Receiver<bool>,
}

/// What the user may decide about a drill.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    pub point: Selector,
    /// The cluster whose points count; `None` where only one has any.
    pub cluster: Option<String>,
    /// A partial point will do.
    pub allow_partial: bool,
    /// Looks at each ordinal once all are proven. Where it does not say where claims are mounted, they are where the set's own pods have them.
    pub probe: Option<Probe>,
    /// Starts the application on what was restored, once it is proven and probed.
    pub start_app: bool,
    /// Movers at the same time; at least 1.
    pub parallel: usize,
    /// Bytes for each mover.
    pub memory: u64,
    /// The repository as the user wrote it: what movers are told.
    pub location: String,
    /// How long to wait for whoever holds the repository alone.
    pub wait_lock: Duration,
}

impl Default for DrillOptions {
    fn default() -> Self {
        let RestoreOptions { parallel, memory, location, wait_lock, .. } = RestoreOptions::default();
        DrillOptions {
            point: Selector::Latest,
            cluster: None,
            allow_partial: false,
            probe: None,
            start_app: false,
            parallel,
            memory,
            location,
            wait_lock,
        }
    }
}

impl Drill {
    /// Drills `set` in `scratch`, which is opened here and cleared at the end whatever comes of it. The report is the verdict, good or bad; an
    /// error says that the point could not be brought back, or that there is no verdict. The set's own place is told of either.
    pub async fn run(&self, set: &SetName, scratch: &mut dyn Scratch, options: &DrillOptions) -> Result<DrillReport, DrillError> {
        let (began, started) = (Instant::now(), self.clock.now());
        let done = match scratch.open().await {
            Ok(()) => self.carry_out(set, scratch, options).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = scratch.clear().await {
            let text = format!("what the drill made in {} is left for the next one to remove: {error}", scratch.place());
            self.monitor.event(Event::Warning(text));
        }
        let done = done.map(|report| DrillReport { seconds: began.elapsed().as_secs_f64(), ..report });
        let (outcome, is_fine, text) = match &done {
            Ok(report) if report.passed => (Outcome::DrillSucceeded, report.is_whole(), report.summary()),
            Ok(report) => (Outcome::DrillFailed, false, report.summary()),
            Err(error) => (Outcome::DrillFailed, false, error.chain()),
        };
        let news = News { outcome, is_fine, text };
        let cluster = match &done {
            Ok(report) => Some(report.cluster.as_str()),
            // Being stopped, or kept waiting, is no verdict.
            Err(error) if matches!(error.kind(), FailureKind::Interrupted | FailureKind::Locked) => None,
            Err(_) => options.cluster.as_deref(),
        };
        if let Some(cluster) = cluster {
            self.note(cluster, set, started, &news).await;
        }
        scratch.platform().announce(set, &news).await;
        done
    }

    /// Notes the verdict in the repository, for `status` and the agent. One that may not be written to is drilled all the same.
    async fn note(&self, cluster: &str, set: &SetName, time: DateTime<Utc>, news: &News) {
        let kind = Kind::Drill { cluster: cluster.to_owned(), set: set.clone() };
        let record = Record::new(kind, time, news.outcome == Outcome::DrillSucceeded, news.text.clone());
        if let Err(error) = tasks::record(&self.repository, &record).await {
            self.monitor.event(Event::Warning(format!("the verdict is not noted in the repository: {error}")));
        }
    }

    async fn carry_out(&self, set: &SetName, scratch: &dyn Scratch, options: &DrillOptions) -> Result<DrillReport, DrillError> {
        let lock_options = LockOptions { identity: self.identity.clone(), wait: options.wait_lock, clock: self.clock.clone() };
        let lock = tokio::select! {
            lock = Lock::acquire(&self.repository, Mode::Reading, &lock_options, self.monitor.as_ref()) => lock?,
            () = raised(self.cancel.clone()) => return Err(DrillError::Interrupted),
        };
        let done = tokio::select! {
            done = self.restore_and_look(set, scratch, options) => done,
            lost = lock.lost() => Err(lost.into()),
        };
        if let Err(error) = lock.release().await {
            self.monitor.event(Event::Warning(format!("the lock could not be removed: {error}; `keepset unlock` does it")));
        }
        done
    }

    async fn restore_and_look(&self, set: &SetName, scratch: &dyn Scratch, options: &DrillOptions) -> Result<DrillReport, DrillError> {
        let restore = self.restore(scratch);
        let mut wanted = RestoreOptions {
            point: options.point.clone(),
            cluster: options.cluster.clone(),
            allow_partial: options.allow_partial,
            to: Some(scratch.set().clone()),
            // Nothing is started, and what others have there stays.
            allow_extra_claims: true,
            start: StartMode::None,
            parallel: options.parallel,
            memory: options.memory,
            location: options.location.clone(),
            wait_lock: options.wait_lock,
            ..RestoreOptions::default()
        };
        // The trees that the claims must be equal to; and from here on it is this very point.
        let plan = restore.plan(set, &wanted).await?;
        wanted.point = Selector::Id(plan.point.hex());
        let app = if options.start_app { Some(self.app(&plan).await?) } else { None };
        if let Some(app) = &app {
            scratch.refuse_app(app).await?;
        }
        let restored = restore.run(set, &wanted).await.map_err(|error| DrillError::not_back(plan.point.short(), error))?;
        let run = run::new_id(&self.clock)?;
        let looked = self.look(&run, &plan, restored, scratch, (options, app)).await;
        if let Err(error) = scratch.platform().tidy(&run, scratch.set()).await {
            self.monitor.event(Event::Warning(format!("what run {run} made is left for the next drill to remove: {error}")));
        }
        looked
    }

    /// The restored claims, proven, and looked at by the probe if they are what they should be.
    async fn look(
        &self,
        run: &str,
        plan: &RestorePlan,
        restored: Restored,
        scratch: &dyn Scratch,
        (options, app): (&DrillOptions, Option<App>),
    ) -> Result<DrillReport, DrillError> {
        let proof = Proof { drill: self, run, plan, scratch, options };
        let mut proven = proof.carry_out().await?;
        let claims: Vec<DrilledClaim> = plan
            .claims
            .iter()
            .map(|claim| {
                let told = restored.claims.iter().find(|told| told.name == claim.name);
                let mut problems = told.map(|told| told.problems.clone()).unwrap_or_default();
                let (mut differences, mut others): (Vec<_>, Vec<_>) =
                    proven.remove(&claim.name).unwrap_or_default().into_iter().partition(|problem| problem.kind != ProblemKind::Attribute);
                // What cannot be made where the drill runs, a device without the right to make one, says nothing about the point.
                differences.retain(|lacks| !problems.iter().any(|told| told.kind == ProblemKind::Unreadable && told.path == lacks.path));
                // What the restore told already is not told twice.
                others.retain(|problem| !problems.iter().any(|told| told.path == problem.path));
                problems.extend(others);
                DrilledClaim {
                    name: claim.saved_as.clone(),
                    ordinal: claim.id.ordinal,
                    files: told.map_or(0, |told| told.files),
                    bytes: told.map_or(0, |told| told.bytes),
                    differences,
                    problems,
                }
            })
            .collect();
        let is_proven = claims.iter().all(|claim| claim.differences.is_empty());
        let mut probes = Vec::new();
        if let (Some(probe), true) = (&options.probe, is_proven) {
            let probe = self.placed(probe, plan).await?;
            probes = self.probe(run, &probe, plan, scratch).await?;
        }
        let app = match app.filter(|_| is_proven && probes.iter().all(|probe| probe.passed)) {
            Some(app) => Some(self.start(run, &app, scratch).await?),
            None => None,
        };
        Ok(DrillReport {
            cluster: plan.cluster.clone(),
            set: plan.from.clone(),
            point: plan.point,
            time: plan.time.clone(),
            complete: plan.complete,
            consistency: plan.consistency,
            place: scratch.place(),
            proven: is_proven,
            passed: is_proven && probes.iter().all(|probe| probe.passed) && app.as_ref().is_none_or(|app| app.passed),
            claims,
            probes,
            app,
            seconds: 0.0,
        })
    }

    /// Ordinal by ordinal: a probe may take all that the machine has.
    async fn probe(&self, run: &str, probe: &Probe, plan: &RestorePlan, scratch: &dyn Scratch) -> Result<Vec<ProbeReport>, DrillError> {
        let mut reports = Vec::new();
        for (ordinal, claims) in by_ordinal(plan) {
            self.monitor.event(Event::Step(format!("probing ordinal {ordinal}")));
            let claims: Vec<ClaimPlace> = claims.iter().map(|claim| claim.place(&plan.to)).collect();
            let began = Instant::now();
            let end = tokio::select! {
                end = scratch.probe(run, ordinal, &claims, probe) => end?,
                () = raised(self.cancel.clone()) => return Err(DrillError::Interrupted),
            };
            reports.push(ProbeReport {
                ordinal,
                passed: end.passed(),
                exit_code: end.exit_code,
                how: end.how,
                said: end.said,
                seconds: began.elapsed().as_secs_f64(),
            });
        }
        Ok(reports)
    }

    /// The application as the point recorded it: the ordinals that it ran with. What a scaled down set has left behind is no part of it.
    async fn app(&self, plan: &RestorePlan) -> Result<App, DrillError> {
        let set = self.stored(plan).await?.manifest.set;
        let at_once = set.pod_management_policy.as_deref() == Some("Parallel");
        let ordinals: Vec<Ordinal> = (set.start..set.start.saturating_add(set.replicas)).map(Ordinal).collect();
        let there = by_ordinal(plan);
        if let Some(missing) = ordinals.iter().find(|ordinal| !there.contains_key(ordinal)) {
            let reason = format!("the point has no claim of ordinal {missing}");
            return Err(PlatformError::NoCopy { set: plan.from.to_string(), reason }.into());
        }
        Ok(App { recorded: set.objects, ordinals, at_once })
    }

    /// The application on what was restored.
    async fn start(&self, run: &str, app: &App, scratch: &dyn Scratch) -> Result<AppReport, DrillError> {
        self.monitor.event(Event::Step("starting the application".to_owned()));
        let began = Instant::now();
        let end = tokio::select! {
            end = scratch.start_app(run, app) => end,
            () = raised(self.cancel.clone()) => return Err(DrillError::Interrupted),
        };
        let end = match end {
            // What was proven stays proven.
            Err(error @ (PlatformError::NotFenced { .. } | PlatformError::NoCopy { .. })) => {
                AppEnd { ready: Vec::new(), reason: Some(error.to_string()) }
            }
            end => end?,
        };
        Ok(AppReport { passed: end.reason.is_none(), ready: end.ready, reason: end.reason, seconds: began.elapsed().as_secs_f64() })
    }

    /// The probe with the claims where the set's own pods have them, for those of which the user said nothing.
    async fn placed(&self, probe: &Probe, plan: &RestorePlan) -> Result<Probe, DrillError> {
        let mut mounts = mounts::of_set(&self.stored(plan).await?.manifest.set);
        mounts.extend(probe.mounts.clone());
        Ok(Probe { mounts, ..probe.clone() })
    }

    async fn stored(&self, plan: &RestorePlan) -> Result<StoredPoint, DrillError> {
        let (index, _) = Index::load_readable(&self.repository).await?;
        let points = points::list_points(&Reader::new(&self.repository, Arc::new(index)), Some(&plan.from)).await?;
        Ok(points.find(&plan.point.hex()).map_err(crate::restore::RestoreError::from)?.clone())
    }

    /// A restore to the scratch. It seals nothing: whatever it would replace is nobody's.
    fn restore(&self, scratch: &dyn Scratch) -> Restore {
        let seal_safety: SealSafety = Arc::new(|set, _, _, _| {
            let error = format!("a drill replaces nothing, and {set} holds something");
            async move { Err(SafetyFailure { error, hint: None, kind: FailureKind::Failed }) }.boxed()
        });
        Restore {
            repository: self.repository.clone(),
            platform: scratch.platform(),
            clock: self.clock.clone(),
            monitor: Arc::clone(&self.monitor),
            identity: self.identity.clone(),
            cancel: self.cancel.clone(),
            seal_safety,
        }
    }
}

fn by_ordinal(plan: &RestorePlan) -> BTreeMap<Ordinal, Vec<&PlannedFill>> {
    let mut ordinals: BTreeMap<Ordinal, Vec<&PlannedFill>> = BTreeMap::new();
    for claim in &plan.claims {
        ordinals.entry(claim.id.ordinal).or_default().push(claim);
    }
    ordinals
}
