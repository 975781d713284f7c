//! Every key of the settings file, with what holds where it is left out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::units::CalendarSpan;
use crate::config::units::Size;
use crate::config::units::Span;
use crate::model::set::SetName;
use crate::retention::Policy;

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
    pub sets: Vec<SetSettings>,
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
    /// Zone in which hours, days and weeks of retention begin; UTC where left out.
    pub time_zone: Option<String>,
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
    pub parallel: Option<u32>,
    pub retention: Option<Retention>,
    /// How the application is started again after a restore, outside Kubernetes.
    pub start: Option<Start>,
}

impl SetSettings {
    /// A set of which nothing is said but its name.
    pub fn named(set: &SetName) -> Self {
        SetSettings {
            matches: Match { namespace: set.namespace.clone(), name: set.name.clone() },
            from: None,
            templates: Vec::new(),
            start_ordinal: None,
            replicas: None,
            stopped: None,
            order: None,
            parallel: None,
            retention: None,
            start: None,
        }
    }
}

/// The set that is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    pub namespace: String,
    pub name: String,
}

/// In which order ordinals are saved. In a set whose primary is ordinal 0, `descending` saves the replicas first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderOfSaving {
    #[default]
    Ascending,
    Descending,
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
