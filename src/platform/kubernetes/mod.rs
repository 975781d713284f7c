//! Sets in a Kubernetes cluster: StatefulSets and their claims, movers as pods beside them.
//!
//! The one place that talks to the API server. Everything that is made here carries its run's label, and the run's ConfigMap owns it, so
//! that the cluster's own garbage collection removes what a run leaves behind. Claims of sets are never owned.

mod api;
mod app;
mod create;
mod cut;
mod doctor;
mod driver;
mod event;
mod exec;
mod fence;
mod hold;
mod journal;
mod mover;
mod names;
mod patience;
mod pod;
mod probe;
mod read;
mod scratch;
mod search;
mod standing;
mod start;
mod stop;
mod submit;
mod target;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::{Api, Client, Config};

use crate::clock::Clock;
use crate::model::claim::{ClaimId, ClaimPlace};
use crate::model::manifest::Consistency;
use crate::model::mover_job::{FillMode, MoverJob};
use crate::model::set::{FoundSet, Ordinal, SetName};
use crate::model::set_state::{CutClaim, SetRun, SetState, Targets};
use crate::model::standing::Standing;
use crate::platform::{InPod, JournalHold, Mover, News, Platform, PlatformError, PodPlace, SetHold};

pub use doctor::{Examined, Inside, Right};
pub use pod::MoverOptions;
pub use scratch::ClusterScratch;
pub use submit::{End, Errand, Settings, Submitted};

/// How long the API server may be silent in the middle of an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// What the user said of the cluster.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// The cluster's name in points' identity.
    pub cluster: String,
    /// Who this process is, to others that want the same set.
    pub holder: String,
    pub clock: Clock,
    pub movers: MoverOptions,
    /// By StorageClass of a claim: the class in which clones of its CSI snapshots are made. Its own where it is not here.
    pub clone_classes: BTreeMap<String, String>,
    /// How long claims may take to be held still, and movers to begin.
    pub patience: Duration,
    /// How long an ordinal may take to be ready, and all of them to end.
    pub deadline: Duration,
}

/// The platform for sets in a cluster.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    /// For commands in pods, which may have nothing to say for longer than any answer may take.
    streams: Client,
    contact: patience::Contact,
    options: KubernetesOptions,
    /// The label of claims that are made here, where they are a drill's.
    drill: Option<String>,
}

impl Kubernetes {
    /// The cluster that this pod runs in, or that the user's kubeconfig names. Nothing is asked of it yet.
    pub async fn connect(options: KubernetesOptions) -> Result<Self, PlatformError> {
        let unknown = |error: &dyn std::error::Error| PlatformError::NoCluster { reason: error.to_string() };
        let mut config = Config::infer().await.map_err(|error| unknown(&error))?;
        // What is asked again, and when, is decided in one place.
        config.default_retry = false;
        (config.connect_timeout, config.read_timeout) = (Some(ANSWER), None);
        let streams = Client::try_from(config.clone()).map_err(|error| unknown(&error))?;
        // Without these a connection whose other end is gone is waited for without end.
        (config.read_timeout, config.write_timeout) = (Some(ANSWER), Some(ANSWER));
        let client = Client::try_from(config).map_err(|error| unknown(&error))?;
        Ok(Kubernetes { client, streams, contact: patience::Contact::default(), options, drill: None })
    }

    /// Where this process is at home: its pod's namespace, or that of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The sets of a namespace, or of all, whose labels a selector matches, written as kubectl takes it; empty, it matches all. By name.
    pub async fn find_sets(&self, namespace: Option<&str>, selector: &str) -> Result<Vec<FoundSet>, PlatformError> {
        search::find_sets(self, namespace, selector).await
    }

    /// The class in which clones of a claim of this class are made.
    fn clone_class<'a>(&'a self, class: &'a str) -> &'a str {
        self.options.clone_classes.get(class).map_or(class, String::as_str)
    }

    /// How far the runs of the sets in a namespace, or in all, are; also of runs that died, until the next run of their set. By set.
    pub async fn standings(&self, namespace: Option<&str>) -> Result<Vec<Standing>, PlatformError> {
        standing::list(self, namespace).await
    }

    /// The right to be the one of several equal agents that works, kept in the Lease `keepset-agent` at home; waits for nobody longer than it
    /// takes to see whether they live.
    pub async fn lead(&self) -> Result<SetHold, PlatformError> {
        hold::lead(self).await
    }

    fn sets(&self, namespace: &str) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn records(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

#[async_trait]
impl Platform for Kubernetes {
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError> {
        read::read_set(self, set).await
    }

    async fn hold_set(&self, set: &SetName) -> Result<SetHold, PlatformError> {
        hold::take(self, set).await
    }

    async fn cut(&self, run: &str, set: &SetName, claims: &[ClaimId], consistency: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        cut::cut(self, run, set, claims, consistency).await
    }

    async fn open_cut(&self, run: &str, set: &SetName, cuts: Vec<CutClaim>) -> Result<Vec<CutClaim>, PlatformError> {
        cut::open(self, run, set, cuts).await
    }

    async fn run_in_pod(&self, set: &SetName, place: &PodPlace, command: &[String]) -> Result<InPod, PlatformError> {
        exec::begin(self, set, place, command).await
    }

    async fn tidy(&self, run: &str, set: &SetName) -> Result<(), PlatformError> {
        let name = names::run(run);
        self.remove(&self.records(&set.namespace), &name, &api::background()).await.map_err(|error| api::failed("remove", name, error))
    }

    async fn stop(&self, set: &SetName, claims: &[String]) -> Result<(), PlatformError> {
        stop::stop(self, set, claims).await
    }

    async fn give_back(&self, set: &SetName, was: &SetRun, replicas: Option<u32>) -> Result<(), PlatformError> {
        stop::give_back(self, set, was, replicas).await
    }

    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], _measure: bool) -> Result<Targets, PlatformError> {
        target::read_targets(self, set, claims).await
    }

    async fn read_journal(&self, set: &SetName) -> Result<Option<String>, PlatformError> {
        journal::read(self, set).await
    }

    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
        journal::open(self, set, first).await
    }

    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        journal::take(self, set).await
    }

    async fn append_journal(&self, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        journal::append(self, hold, line).await
    }

    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError> {
        journal::close(self, hold).await
    }

    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
        target::open_claim(self, run, claim, mode).await
    }

    async fn refuse_disturbed(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        target::refuse_disturbed(self, run, claim).await
    }

    async fn refuse_changed(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        target::refuse_changed(self, run, claim).await
    }

    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        target::close_claim(self, run, claim).await
    }

    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError> {
        target::abandon_claim(self, run, claim, remove).await
    }

    /// The key does not travel: the pod opens the repository with the password of its namespace's Secret.
    async fn start_mover(&self, job: &MoverJob, _secret: &[u8]) -> Result<Mover, PlatformError> {
        mover::start(self, job).await
    }

    /// Ordinals tend to be spread over nodes, and so are their movers.
    fn parallel(&self) -> usize {
        4
    }

    /// A set that is there can be started; where none is, nothing can.
    fn can_start(&self) -> bool {
        false
    }

    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
        start::start(self, set, ordinal).await
    }

    async fn make_set(&self, set: &SetName, objects: &[serde_json::Value]) -> Result<(), PlatformError> {
        create::make_set(self, set, objects).await
    }

    async fn announce_claims(&self, set: &SetName, claims: &[String], news: &News) {
        event::announce_claims(self, set, claims, news).await;
    }

    async fn tell(&self, standing: &Standing) {
        standing::tell(self, standing).await;
    }

    async fn announce(&self, set: &SetName, news: &News) {
        event::announce(self, set, news).await;
    }
}
