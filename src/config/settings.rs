//! Every key of the settings file, with what holds where it is left out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::drill::DrillSettings;
use crate::config::units::CalendarSpan;
use crate::config::units::Percent;
use crate::config::units::Quantity;
use crate::config::units::Size;
use crate::config::units::Span;
use crate::model::hook::{Hook, Hooks, OnError};
use crate::model::set::SetName;
use crate::platform::Resources;
use crate::retention::Policy;
use crate::schedule::Expression;

/// The whole file. Every part may be left out: flags and environment can say the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// Part of every point's identity. Outside Kubernetes the machine's name where it is left out.
    pub cluster: Option<String>,
    #[serde(default)]
    pub repository: Repository,
    #[serde(default)]
    pub defaults: Defaults,
    #[serde(default)]
    pub kubernetes: Option<Kubernetes>,
    #[serde(default)]
    pub agent: Agent,
    #[serde(default)]
    pub sets: Vec<SetSettings>,
}

/// What `keepset agent` does besides backing sets up, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// Namespaces whose StatefulSets may ask to be backed up by annotation; `*` for all. The agent's own where left out.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Where health and metrics are served; `0.0.0.0:8080` where left out.
    pub listen: Option<SocketAddr>,
    /// Sets that are worked on at a time; 2 where left out.
    pub parallel: Option<u32>,
    /// Retention is applied after backups; true where left out.
    pub forget: Option<bool>,
    pub prune: Option<Upkeep>,
    pub check: Option<Upkeep>,
}

/// When something is done to the whole repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upkeep {
    /// When; Sunday nights where left out.
    pub schedule: Option<Expression>,
    /// Of a check: how much of the data is read and proven too; 5% where left out.
    pub read_data: Option<Percent>,
    /// Never.
    pub suspend: Option<bool>,
}

/// How sets in a cluster are worked on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// The image that movers run: one of this very version.
    pub image: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: Option<String>,
    #[serde(default)]
    pub image_pull_secrets: Vec<String>,
    /// A Secret of each set's namespace whose keys become a mover's environment: the repository's password and the store's keys. `keepset`
    /// where left out.
    pub secret: Option<String>,
    /// The account of movers, where the store knows them by it.
    pub mover_service_account: Option<String>,
    /// What a mover's container asks for and may take.
    #[serde(default)]
    pub mover_resources: ResourceSettings,
    /// On every pod that is made: movers, probes, the pods of Jobs. Where left out, what keeps Istio's and Linkerd's sidecars out of them.
    #[serde(default)]
    pub mover_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub mover_annotations: BTreeMap<String, String>,
    /// The PriorityClass of movers and of Jobs' pods; the cluster's default where left out.
    pub priority_class_name: Option<String>,
    /// Movers run as root.
    pub mover_root: Option<bool>,
    /// StorageClasses of claims, and the class in which the clones of their CSI snapshots are made; their own where left out.
    #[serde(default)]
    pub clone_classes: BTreeMap<String, String>,
    /// How long claims may take to be snapshotted, and movers to begin; 10 minutes where left out.
    pub patience: Option<Span>,
    /// How long an ordinal may take to be ready, and all of them to end; 10 minutes where left out.
    pub deadline: Option<Span>,
}

/// As `resources` of a container. 100m of `cpu` and 128Mi of `memory` are asked for where neither list says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSettings {
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
    #[serde(default)]
    pub limits: BTreeMap<String, Quantity>,
}

impl ResourceSettings {
    /// The same in the words of a platform.
    pub fn resources(&self) -> Resources {
        let quantities = |said: &BTreeMap<String, Quantity>| said.iter().map(|(name, said)| (name.clone(), said.to_string())).collect();
        Resources { requests: quantities(&self.requests), limits: quantities(&self.limits) }
    }
}

/// Where points are kept and how the repository is opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repository {
    /// A path, `file://`, `s3://bucket/prefix`, `gs://` or `az://`.
    pub url: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// A program with its arguments whose first line of output is the password. No shell is involved.
    pub password_command: Option<Vec<String>>,
}

/// What holds for every set that does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    /// Zone of schedules, and in which hours, days and weeks of retention begin; UTC where left out.
    pub time_zone: Option<String>,
    /// When sets that say nothing themselves are backed up.
    pub schedule: Option<Expression>,
    /// Each set begins later than its time by its own part of this; 0 where left out.
    pub jitter: Option<Span>,
    /// How long after its time a backup may still begin; 6 hours where left out.
    pub catch_up: Option<Span>,
    /// Ordinals that are saved or filled at a time; 1 where left out.
    pub parallel: Option<u32>,
    /// What buffers, packs and index of each worker may take together; 64 MiB where left out.
    pub memory: Option<Size>,
    /// How long a run waits for another's exclusive lock before it gives up; 10 minutes where left out.
    pub wait_lock: Option<Span>,
    pub retention: Option<Retention>,
}

/// Which points are kept: each rule keeps the newest point of each of that many buckets; a point that any rule keeps stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    pub keep_last: Option<u32>,
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
    /// Everything younger than this, counted back from the newest point.
    pub within: Option<CalendarSpan>,
    /// Safety points older than this go; without it they all stay.
    pub safety_within: Option<CalendarSpan>,
}

impl Retention {
    /// The same in retention's words; a rule that is left out is no rule.
    pub fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last.unwrap_or(0),
            hourly: self.hourly.unwrap_or(0),
            daily: self.daily.unwrap_or(0),
            weekly: self.weekly.unwrap_or(0),
            monthly: self.monthly.unwrap_or(0),
            yearly: self.yearly.unwrap_or(0),
            within: self.within.map(|span| span.0),
            safety_within: self.safety_within.map(|span| span.0),
            ..Policy::default()
        }
    }
}

/// One set: how it is found and what is special about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetSettings {
    #[serde(rename = "match")]
    pub matches: Match,
    /// Outside Kubernetes: the folder that holds one folder per claim.
    pub from: Option<PathBuf>,
    /// Claim templates outside Kubernetes, where they are not to be read from the folders' names.
    #[serde(default)]
    pub templates: Vec<String>,
    /// The first ordinal, where it is not the lowest that has a folder.
    pub start_ordinal: Option<u32>,
    /// How many ordinals there should be, where it is not as many as have folders.
    pub replicas: Option<u32>,
    /// Nothing writes to the volumes while they are saved, so all of them are of one moment.
    pub stopped: Option<bool>,
    pub order: Option<OrderOfSaving>,
    /// What no point has, by patterns, of every claim: see [`Exclude`](crate::model::exclude::Exclude).
    pub exclude: Option<Vec<String>>,
    pub parallel: Option<u32>,
    pub retention: Option<Retention>,
    /// When the agent backs it up.
    pub schedule: Option<Expression>,
    pub time_zone: Option<String>,
    pub jitter: Option<Span>,
    pub catch_up: Option<Span>,
    /// The agent leaves it alone.
    pub suspend: Option<bool>,
    /// Commands in the set's pods around the cut, in Kubernetes. Where they are given, annotations of pods do not count.
    pub hooks: Option<HookSettings>,
    /// How the application is started again after a restore, outside Kubernetes.
    pub start: Option<Start>,
    /// Restores on trial.
    pub drill: Option<DrillSettings>,
}

impl SetSettings {
    /// A set of which nothing is said but its name.
    pub fn named(set: &SetName) -> Self {
        SetSettings {
            matches: Match { namespace: set.namespace.clone(), name: Some(set.name.clone()), label_selector: None },
            from: None,
            templates: Vec::new(),
            start_ordinal: None,
            replicas: None,
            stopped: None,
            order: None,
            exclude: None,
            parallel: None,
            retention: None,
            schedule: None,
            time_zone: None,
            jitter: None,
            catch_up: None,
            suspend: None,
            hooks: None,
            start: None,
            drill: None,
        }
    }

    /// The set; `None` where it stands for all that a selector finds.
    pub fn set(&self) -> Option<SetName> {
        SetName::new(&self.matches.namespace, self.matches.name.as_ref()?).ok()
    }
}

/// The set that is meant, or the sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    pub namespace: String,
    pub name: Option<String>,
    /// All StatefulSets of the namespace whose labels match, written as kubectl takes it: `app=web,tier in (db, queue)`.
    pub label_selector: Option<String>,
}

/// In which order ordinals are saved. In a set whose primary is ordinal 0, `descending` saves the replicas first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderOfSaving {
    #[default]
    Ascending,
    Descending,
}

/// Commands around the cut of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookSettings {
    /// Before the cut, in order.
    #[serde(default)]
    pub pre: Vec<HookCommand>,
    /// As soon as it is made, or all is read where nothing can be cut; also after a failure, wherever a command of `pre` was begun.
    #[serde(default)]
    pub post: Vec<HookCommand>,
}

/// One command in a pod. No shell is involved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookCommand {
    /// The ordinals in whose pods it is run; all where left out.
    #[serde(default)]
    pub ordinals: Vec<u32>,
    /// The pod's default container where left out, else the one that mounts a claim, else the first.
    pub container: Option<String>,
    pub command: Vec<String>,
    #[serde(default = "half_a_minute")]
    pub timeout: Span,
    /// What its failure means.
    #[serde(default)]
    pub on_error: OnError,
}

fn half_a_minute() -> Span {
    Span(std::time::Duration::from_secs(30))
}

impl HookSettings {
    /// The same in the words of a plan.
    pub fn hooks(&self) -> Hooks {
        let hook = |hook: &HookCommand| Hook {
            ordinals: hook.ordinals.clone(),
            container: hook.container.clone(),
            command: hook.command.clone(),
            seconds: hook.timeout.0.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            on_error: hook.on_error,
        };
        Hooks { pre: self.pre.iter().map(hook).collect(), post: self.post.iter().map(hook).collect() }
    }
}

/// Commands that start one ordinal. `{ordinal}`, `{set}`, `{namespace}` and `{dir}` (the folder that holds the claims) are replaced
/// in every argument; no shell is involved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    #[serde(default)]
    pub policy: StartPolicy,
    /// Starts the ordinal; it must come back by itself.
    pub command: Vec<String>,
    /// Succeeds once the ordinal is ready; asked again until then. Left out, an ordinal is ready when its command has succeeded.
    pub ready: Option<Vec<String>>,
    /// How long one ordinal may take from its command to ready.
    #[serde(default = "a_minute")]
    pub deadline: Span,
}

fn a_minute() -> Span {
    Span(std::time::Duration::from_secs(60))
}

/// In which order ordinals are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StartPolicy {
    /// One after the other, each ready before the next.
    #[default]
    Ordered,
    /// All at once, which quorum systems need.
    Parallel,
}
