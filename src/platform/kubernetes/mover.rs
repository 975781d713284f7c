//! Movers as pods: made, listened to by their logs, ended.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, LogParams, Preconditions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::model::mover_job::{FailureKind, MoverJob, MoverLine, Task};
use crate::platform::command::one_line;
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::pod::{Mount, Orders, Placement};
use crate::platform::kubernetes::{Kubernetes, api, names, pod, read};
use crate::platform::{Mover, MoverDone, PlatformError};

/// Between two looks at a pod that has not begun.
const LOOK: Duration = Duration::from_millis(200);
/// What holds a pod up may pass by itself within so long: a cache of the kubelet that is behind, a registry that hiccups.
const MAY_PASS: Duration = Duration::from_secs(20);
/// How long a mover that was asked to stop may take to tidy up.
const STOP_GRACE: u32 = 30;
/// So long without a word, and the pod is looked at again.
const QUIET: Duration = Duration::from_secs(30);
/// So long without a word, and nobody waits any longer.
const SILENCE: Duration = Duration::from_secs(300);
/// Lines that a message about a lost mover quotes.
const QUOTED_LINES: usize = 5;

pub(super) async fn start(cluster: &Kubernetes, job: &MoverJob) -> Result<Mover, PlatformError> {
    let set = &job.set;
    let (mounts, template) = mounts(job);
    // Who else may have a claim matters where the claim itself is read as it is: clones have nobody, and targets are proven to.
    let is_live = matches!(&job.task, Task::Save(_)) && mounts.iter().any(|mount| mount.claim == mount.volume);
    let found = if is_live { read::find(cluster, set).await? } else { read::find_alone(cluster, set).await? };
    let recorded = match &job.task {
        Task::Save(claims) => claims.first().map(|claim| claim.shape.clone()),
        Task::Fill(claims) => claims.first().map(|claim| claim.shape.clone()),
        Task::Prove(claims) => claims.first().map(|claim| claim.shape.clone()),
    };
    // A set that is there knows best as whom its pods work.
    let shape = match &found {
        Some(found) => read::run_as(&found.set, &template),
        None => recorded.unwrap_or_default(),
    };
    let live: BTreeSet<&str> = mounts.iter().map(|mount| mount.volume.as_str()).collect();
    let node = match &found {
        Some(found) => co_located(&found.pods, &live, &found.claims)?,
        None => None,
    };
    let orders = Orders {
        run: &job.run,
        set: &set.name,
        ordinal: job.ordinal.0,
        job: serde_json::to_string(job).expect("text and numbers always serialise"),
        mounts,
        shape: &shape,
        node,
        placement: found.as_ref().map(|found| Placement::of(&found.set, &template)).unwrap_or_default(),
        owner: api::owner(cluster, &job.run, set).await?,
    };
    let pod = pod::pod(&orders, &cluster.options.movers);
    let name = pod.metadata.name.clone().unwrap_or_default();
    let pods = cluster.pods(&set.namespace);
    // One of this run and ordinal that is there already is a dead process's, or was started for a call whose answer was lost. Its process
    // must be gone before the next one writes.
    let wait = Wait::new(2 * Duration::from_secs(u64::from(STOP_GRACE)) + MAY_PASS);
    let uid = loop {
        cluster.remove(&pods, &name, &api::background()).await.map_err(|error| api::failed("remove", &name, error))?;
        match cluster.create(&pods, &pod).await {
            Ok(made) => break made.metadata.uid,
            Err(error) if matches!(api::code(&error), 0 | 409 | 502..=504) && wait.again().await => {}
            Err(error) => return Err(api::failed("start", format!("the mover of ordinal {}", job.ordinal), error)),
        }
    };
    let (send, lines) = mpsc::channel(64);
    let (stop, stopped) = oneshot::channel();
    let watched = Watched {
        ordinal: job.ordinal.0,
        name,
        uid,
        pods,
        cluster: cluster.clone(),
        heard: Instant::now(),
        patience: cluster.options.patience,
        said: VecDeque::new(),
        asked: Arc::default(),
    };
    Ok(Mover::new(lines, stop, tokio::spawn(watched.watch(send, stopped))))
}

/// What the mover mounts, and the template of its first claim.
fn mounts(job: &MoverJob) -> (Vec<Mount>, String) {
    let template = |claim: &str| {
        let end = format!("-{}-{}", job.set.name, job.ordinal);
        claim.strip_suffix(&end).unwrap_or(claim).to_owned()
    };
    match &job.task {
        Task::Save(claims) => {
            let mount = |claim: &crate::model::mover_job::SaveClaim| Mount {
                claim: claim.name.clone(),
                volume: claim.volume.clone().unwrap_or_else(|| claim.name.clone()),
                read_only: true,
                block: claim.shape.is_block(),
            };
            (claims.iter().map(mount).collect(), claims.first().map(|claim| template(&claim.name)).unwrap_or_default())
        }
        Task::Fill(claims) => {
            let mount = |claim: &crate::model::mover_job::FillClaim| Mount {
                claim: claim.name.clone(),
                volume: claim.name.clone(),
                read_only: false,
                block: claim.shape.is_block(),
            };
            (claims.iter().map(mount).collect(), claims.first().map(|claim| template(&claim.name)).unwrap_or_default())
        }
        Task::Prove(claims) => {
            let mount = |claim: &crate::model::mover_job::ProveClaim| Mount {
                claim: claim.name.clone(),
                volume: claim.name.clone(),
                read_only: true,
                block: claim.shape.is_block(),
            };
            (claims.iter().map(mount).collect(), claims.first().map(|claim| template(&claim.name)).unwrap_or_default())
        }
    }
}

/// The node of the pod that uses one of the claims now: only there can another pod mount it too.
fn co_located(
    pods: &[Pod],
    volumes: &BTreeSet<&str>,
    claims: &[k8s_openapi::api::core::v1::PersistentVolumeClaim],
) -> Result<Option<String>, PlatformError> {
    let Some(user) = pods.iter().filter(|pod| !has_ended(pod)).find(|pod| claims_of(pod).any(|claim| volumes.contains(claim))) else {
        return Ok(None);
    };
    let used: BTreeSet<&str> = claims_of(user).collect();
    let single = claims.iter().find(|claim| {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
        volumes.contains(name) && used.contains(name) && modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
    });
    if let Some(claim) = single {
        let (claim, pod) = (claim.metadata.name.clone().unwrap_or_default(), user.metadata.name.clone().unwrap_or_default());
        return Err(PlatformError::OnePod { claim, pod });
    }
    Ok(user.spec.as_ref().and_then(|spec| spec.node_name.clone()))
}

/// The claims that the pod mounts, by name.
pub(super) fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// Its containers will never run again; of a pod that a run made, the container that the run put into it.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    // The phase is told a little later than the containers' ends.
    let is_over = |state: &ContainerState| state.terminated.is_some();
    // A sidecar that a mesh adds to a mover has no claim mounted, and runs on when the mover is done.
    let is_runs = pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(names::RUN));
    let counts = |container: &&ContainerStatus| !is_runs || [pod::MOVER, pod::PROBE].contains(&&*container.name);
    let mut containers = status.container_statuses.iter().flatten().filter(counts).peekable();
    let never_again = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Never"));
    let all_over = containers.peek().is_some() && containers.all(|container| container.state.as_ref().is_some_and(is_over));
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) || (never_again && all_over)
}

/// How far a pod is.
pub(super) enum Stage {
    Waiting {
        reason: String,
        /// It will not pass by itself.
        hopeless: bool,
    },
    Running,
    /// In words: how its container ended.
    Ended(String),
}

struct Watched {
    ordinal: u32,
    name: String,
    /// Of the pod that this one started: no other of its name is ended.
    uid: Option<String>,
    pods: Api<Pod>,
    cluster: Kubernetes,
    /// When the mover said something last.
    heard: Instant,
    patience: Duration,
    /// The last lines that were no reports.
    said: VecDeque<String>,
    /// This process wants the mover to end.
    asked: Arc<AtomicBool>,
}

impl Watched {
    async fn watch(mut self, lines: mpsc::Sender<MoverLine>, mut stopped: oneshot::Receiver<()>) -> MoverDone {
        // Whoever drops the mover aborts this; the pod must not outlive it.
        let doomed = Doomed { cluster: self.cluster.clone(), pods: self.pods.clone(), name: self.name.clone(), uid: self.uid.clone() };
        let asked = Arc::clone(&self.asked);
        let done = {
            let listen = self.listen(&lines);
            tokio::pin!(listen);
            loop {
                tokio::select! {
                    done = &mut listen => break done,
                    Ok(()) = &mut stopped, if !asked.load(Ordering::Relaxed) => {
                        asked.store(true, Ordering::Relaxed);
                        let grace = DeleteParams { grace_period_seconds: Some(STOP_GRACE), ..DeleteParams::default() };
                        if let Err(error) = doomed.cluster.remove(&doomed.pods, &doomed.name, &grace).await {
                            tracing::debug!(%error, pod = doomed.name, "it could not be asked to stop");
                        }
                    }
                }
            }
        };
        doomed.end().await;
        done
    }

    /// Passes lines on until the pod has ended.
    async fn listen(&mut self, lines: &mpsc::Sender<MoverLine>) -> MoverDone {
        self.begun().await?;
        self.heard = Instant::now();
        let mut in_words = false;
        let mut tail = None;
        loop {
            // The log may break off though the pod lives: a kubelet that restarts, a server that closes long connections.
            in_words |= self.follow(lines, tail).await;
            match self.stage().await? {
                Some(Stage::Ended(_) | Stage::Waiting { .. }) | None if in_words => return Ok(()),
                Some(Stage::Running) if self.heard.elapsed() > SILENCE => {
                    let (ordinal, pod, seconds) = (self.ordinal, self.name.clone(), SILENCE.as_secs());
                    return Err(PlatformError::MoverSilent { ordinal, pod, seconds });
                }
                Some(Stage::Running) => {}
                Some(Stage::Ended(how) | Stage::Waiting { reason: how, .. }) => {
                    // What it said last may have come while nobody listened.
                    if self.follow(lines, Some(100)).await {
                        return Ok(());
                    }
                    return Err(self.lost(how));
                }
                None => return Err(self.lost("its pod was removed".into())),
            }
            tail = Some(100);
            sleep(LOOK).await;
        }
    }

    /// Waits until its container runs, or has run.
    async fn begun(&self) -> Result<(), PlatformError> {
        let began = Instant::now();
        loop {
            match self.stage().await? {
                Some(Stage::Running | Stage::Ended(_)) => return Ok(()),
                Some(Stage::Waiting { reason, hopeless }) if is_given_up(hopeless, &reason, began.elapsed(), self.patience) => {
                    return Err(self.not_begun(reason));
                }
                Some(Stage::Waiting { .. }) => {}
                None => return Err(self.lost("its pod was removed before it began".into())),
            }
            sleep(LOOK).await;
        }
    }

    async fn stage(&self) -> Result<Option<Stage>, PlatformError> {
        let pod = self.cluster.get(&self.pods, &self.name).await;
        Ok(pod.map_err(|error| api::failed("read", format!("pod {}", self.name), error))?.map(|pod| stage(&pod, pod::MOVER)))
    }

    /// Follows the log to its end as it is now. True once a report or a failure has been passed on.
    async fn follow(&mut self, lines: &mpsc::Sender<MoverLine>, tail: Option<i64>) -> bool {
        let of = LogParams { follow: true, tail_lines: tail, ..log_of(pod::MOVER) };
        let stream = self.pods.log_stream(&self.name, &of).await;
        let mut text = match stream {
            Ok(stream) => stream.lines(),
            Err(error) => {
                tracing::debug!(%error, pod = self.name, "its log cannot be read now");
                return false;
            }
        };
        let mut in_words = false;
        // A connection whose other end is gone says nothing for ever; a mover that lives speaks several times a second.
        while let Ok(Some(Ok(line))) = timeout(QUIET, text.next()).await {
            self.heard = Instant::now();
            match serde_json::from_str::<MoverLine>(&line) {
                // Somebody else told it to end, who is no user of ours: why, its pod knows better.
                Ok(MoverLine::Failed { kind: FailureKind::Interrupted, .. }) if !self.asked.load(Ordering::Relaxed) => {}
                Ok(parsed) => {
                    in_words |= !matches!(parsed, MoverLine::Progress(_));
                    // Nobody may be listening any more; the mover's end counts all the same.
                    let _ = lines.send(parsed).await;
                }
                // Its own log comes by the same way.
                Err(_) => {
                    tracing::info!(ordinal = self.ordinal, "{line}");
                    self.said.push_back(line);
                    if self.said.len() > QUOTED_LINES {
                        self.said.pop_front();
                    }
                }
            }
        }
        in_words
    }

    fn not_begun(&self, reason: String) -> PlatformError {
        PlatformError::MoverNotBegun { ordinal: self.ordinal, pod: self.name.clone(), reason }
    }

    fn lost(&self, status: String) -> PlatformError {
        let said = one_line(&self.said.iter().cloned().collect::<Vec<_>>().join("\n"));
        PlatformError::MoverLost { ordinal: self.ordinal, status, said }
    }
}

/// What the reason of a container that cannot be made begins with.
const CANNOT_BE_MADE: &str = "its container cannot be made";

/// A pod that has been waiting for so long, for this reason, will not begin by itself any more, or not soon enough.
pub(super) fn is_given_up(hopeless: bool, reason: &str, waited: Duration, patience: Duration) -> bool {
    hopeless || (reason.starts_with(CANNOT_BE_MADE) && waited > MAY_PASS) || waited > patience
}

/// The log of one container: the API server refuses to choose among several.
pub(super) fn log_of(container: &str) -> LogParams {
    LogParams { container: Some(container.to_owned()), ..LogParams::default() }
}

/// The state of the container of that name: others in the pod, such as a mesh's sidecar, are none of ours.
pub(super) fn state_of<'p>(pod: &'p Pod, container: &str) -> Option<&'p ContainerState> {
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    statuses.find(|status| status.name == container)?.state.as_ref()
}

/// Pure: what the API server says of a pod, judged by the container of ours that it was made for.
pub(super) fn stage(pod: &Pod, container: &str) -> Stage {
    let status = pod.status.clone().unwrap_or_default();
    match state_of(pod, container).cloned() {
        Some(ContainerState { terminated: Some(end), .. }) => {
            let reason = end.reason.unwrap_or_else(|| "ended".into());
            let evicted = status.reason.clone().map(|reason| format!("{reason}, ")).unwrap_or_default();
            let why = disrupted(&status).map(|why| format!(": {why}")).unwrap_or_default();
            Stage::Ended(format!("{evicted}{reason}, exit code {}{why}", end.exit_code))
        }
        Some(ContainerState { running: Some(_), .. }) => Stage::Running,
        _ if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) => {
            let said = [status.reason.clone(), status.message.clone(), disrupted(&status)].into_iter().flatten().collect::<Vec<_>>();
            Stage::Ended(if said.is_empty() { "ended".into() } else { said.join(": ") })
        }
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            let reason = waiting.reason.unwrap_or_default();
            let message = waiting.message.map(|message| format!(": {message}")).unwrap_or_default();
            let cannot = [
                "ErrImagePull",
                "ImagePullBackOff",
                "ErrImageNeverPull",
                "InvalidImageName",
                "CreateContainerConfigError",
                "CreateContainerError",
                "RunContainerError",
            ];
            if cannot.contains(&&*reason) {
                let hopeless = matches!(&*reason, "ErrImageNeverPull" | "InvalidImageName");
                Stage::Waiting { reason: format!("{CANNOT_BE_MADE}: {reason}{message}"), hopeless }
            } else {
                Stage::Waiting { reason: format!("it is waiting: {reason}{message}"), hopeless: false }
            }
        }
        _ => {
            let conditions = status.conditions.iter().flatten();
            let unscheduled = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
            let reason = unscheduled.and_then(|condition| condition.message.clone()).unwrap_or_else(|| "it is pending".into());
            Stage::Waiting { reason, hopeless: false }
        }
    }
}

/// Why the cluster ends the pod: an eviction, a drain, a node that is gone, a pod of more weight.
fn disrupted(status: &PodStatus) -> Option<String> {
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")?;
    let said = [condition.reason.clone(), condition.message.clone()].into_iter().flatten().collect::<Vec<_>>();
    Some(said.join(": "))
}

/// Removes the pod in any case, also where its watcher is aborted.
pub(super) struct Doomed {
    pub cluster: Kubernetes,
    pub pods: Api<Pod>,
    pub name: String,
    pub uid: Option<String>,
}

impl Doomed {
    pub async fn end(mut self) {
        let name = std::mem::take(&mut self.name);
        remove(&self.cluster, &self.pods, &name, self.uid.take()).await;
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let (cluster, pods) = (self.cluster.clone(), self.pods.clone());
        let (name, uid) = (std::mem::take(&mut self.name), self.uid.take());
        if !name.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(async move { remove(&cluster, &pods, &name, uid).await }));
        }
    }
}

async fn remove(cluster: &Kubernetes, pods: &Api<Pod>, name: &str, uid: Option<String>) {
    let exactly = DeleteParams { preconditions: Some(Preconditions { uid, resource_version: None }), ..api::background() };
    match cluster.remove(pods, name, &exactly).await {
        // Another of its name is another's.
        Err(error) if api::code(&error) != 409 => {
            tracing::warn!(error = api::words(&error), "a mover's pod is left for the next run to tidy away");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_status(status: serde_json::Value) -> Pod {
        api::object(json!({ "metadata": { "name": "m" }, "status": status }))
    }

    #[test]
    fn what_holds_a_pod_up_is_told_and_what_is_hopeless_is_known() {
        let waiting = |reason: &str| {
            with_status(json!({ "phase": "Pending", "containerStatuses": [{
                "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason, "message": "why" } },
            }] }))
        };
        let told = |pod: &Pod| match stage(pod, pod::MOVER) {
            Stage::Waiting { reason, hopeless } => (reason, hopeless),
            _ => panic!("it waits"),
        };
        assert_eq!(told(&waiting("ErrImageNeverPull")), ("its container cannot be made: ErrImageNeverPull: why".into(), true));
        assert_eq!(
            told(&waiting("CreateContainerConfigError")),
            ("its container cannot be made: CreateContainerConfigError: why".into(), false)
        );
        assert_eq!(told(&waiting("ContainerCreating")), ("it is waiting: ContainerCreating: why".into(), false));
        let unscheduled = with_status(json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available" },
        ] }));
        assert_eq!(told(&unscheduled), ("0/1 nodes are available".into(), false));
    }

    #[test]
    fn an_end_is_told_with_its_cause() {
        let ended = |status| match stage(&with_status(status), pod::MOVER) {
            Stage::Ended(how) => how,
            _ => panic!("it has ended"),
        };
        assert_eq!(ended(json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" })), "Evicted: low on memory");
        let killed = json!({ "phase": "Failed", "containerStatuses": [{
            "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
        }] });
        assert_eq!(ended(killed), "OOMKilled, exit code 137");
        let drained = json!({ "phase": "Running", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        }], "containerStatuses": [{
            "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 130, "reason": "Error" } },
        }] });
        assert_eq!(ended(drained), "Error, exit code 130: EvictionByEvictionAPI: Eviction API: evicting");
    }

    /// Sorted by name, as kubelets do.
    fn beside_a_sidecar(mover: serde_json::Value, sidecar: serde_json::Value) -> Pod {
        let container =
            |name: &str, state| json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        let mut pod = with_status(json!({ "phase": "Running", "containerStatuses": [
            container("istio-proxy", sidecar), container("mover", mover), container("vault-agent", json!({ "running": {} })),
        ] }));
        pod.metadata.labels = Some([(names::RUN.to_owned(), "r".to_owned())].into());
        pod.spec = Some(api::object(json!({ "restartPolicy": "Never", "containers": [] })));
        pod
    }

    #[test]
    fn a_pod_is_judged_by_the_container_of_ours_whatever_a_mesh_adds() {
        let (running, over) = (json!({ "running": {} }), json!({ "terminated": { "exitCode": 0, "reason": "Completed" } }));
        let done = beside_a_sidecar(over.clone(), running.clone());
        assert!(matches!(stage(&done, pod::MOVER), Stage::Ended(how) if how == "Completed, exit code 0"));
        assert!(has_ended(&done), "nothing in it writes to a claim any more");
        let works = beside_a_sidecar(running.clone(), over);
        assert!(matches!(stage(&works, pod::MOVER), Stage::Running) && !has_ended(&works));
        let waits = beside_a_sidecar(json!({ "waiting": { "reason": "PodInitializing" } }), running);
        assert!(matches!(stage(&waits, pod::MOVER), Stage::Waiting { .. }) && !has_ended(&waits));
        let mut of_others = done;
        of_others.metadata.labels = None;
        assert!(!has_ended(&of_others), "any container of a pod that is not ours may write");
    }
}
