//! Questions about the cluster itself: what this account may, what is served, and whether a mover's pod begins.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::model::claim::ClaimShape;
use crate::model::pod_words;
use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::kubernetes::mover::{self, Doomed, Stage};
use crate::platform::kubernetes::patience::Asked;
use crate::platform::kubernetes::pod::{self, Orders, Placement};
use crate::platform::kubernetes::{Kubernetes, api, cut, read};

/// Questions at a time.
const IN_FLIGHT: usize = 8;
const LOOK: std::time::Duration = std::time::Duration::from_millis(300);
/// A pod that only looks around takes no longer.
const MOST_SECONDS: u64 = 300;

/// One thing that an account may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub group: String,
    /// With its subresource, as roles have it: `pods/log`.
    pub resource: String,
    pub verb: String,
    /// Not in a namespace.
    pub whole_cluster: bool,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

/// What the API server says of itself, of this account, and of a set.
#[derive(Clone, Debug)]
pub struct Examined {
    pub version: String,
    /// Of the rights that were asked about.
    pub lacking: Vec<Right>,
    pub serves_snapshots: bool,
    /// Drivers that have a class of CSI snapshots; `None` where that may not be looked up.
    pub classes: Option<BTreeSet<String>>,
    /// The set's claims that have volumes, each with the driver that made it; `None` where no set is, or it may not be read.
    pub claims: Option<Vec<(String, Option<String>)>>,
}

/// What became of a pod that is like a mover's.
#[derive(Clone, Debug)]
pub enum Inside {
    /// The API server refused it.
    NotMade(String),
    NotBegun(String),
    Ended {
        /// The document that it answered with.
        findings: Option<String>,
        how: String,
    },
}

impl Kubernetes {
    /// Asks all that can be asked without making anything. An error says that the API server does not answer.
    pub async fn examine(&self, set: &SetName, rights: Vec<Right>) -> Result<Examined, PlatformError> {
        let version = self.ask(Asked::Reading, || self.client.apiserver_version()).await;
        let version = version.map_err(|error| api::failed("ask", "the API server", error))?.git_version;
        let answers: Vec<(Right, bool)> = futures::stream::iter(rights)
            .map(|right| async move { self.may(set, &right).await.map(|may| (right, may)) })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        let lacking = answers.into_iter().filter(|(_, may)| !may).map(|(right, _)| right).collect();
        let serves_snapshots = cut::serves_snapshots(self).await;
        let found = match read::find(self, set).await {
            // What may not be read is told among the rights.
            Err(PlatformError::Cluster { code: 403, .. }) => None,
            found => found?,
        };
        let ways = cut::ways(self, set, found.as_ref()).await?;
        let classes = ways.drivers();
        let claims = found.map(|found| {
            let state = read::state(&self.options.cluster, set, &found);
            let bound = state.claims.iter().filter(|claim| claim.source.is_some());
            bound.map(|claim| (claim.name.clone(), ways.driver(&claim.name).map(str::to_owned))).collect()
        });
        Ok(Examined { version, lacking, serves_snapshots, classes, claims })
    }

    async fn may(&self, set: &SetName, right: &Right) -> Result<bool, PlatformError> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let (resource, subresource) = right.resource.split_once('/').map_or((right.resource.as_str(), None), |(one, two)| (one, Some(two)));
        let namespace = (!right.whole_cluster).then_some(&set.namespace);
        let review: SelfSubjectAccessReview = api::object(json!({
            "metadata": {},
            "spec": { "resourceAttributes": {
                "group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb, "namespace": namespace,
            } },
        }));
        let params = PostParams::default();
        let answer = self.ask(Asked::Reading, || reviews.create(&params, &review)).await;
        let answer = answer.map_err(|error| api::failed("ask", format!("whether this account may {right}"), error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Starts a pod like a mover's, that looks at the repository from there and says what it found; everything of it goes again.
    pub async fn look_inside(&self, run: &str, set: &SetName, repository: Option<&str>) -> Result<Inside, PlatformError> {
        let looked = self.inside(run, set, repository).await;
        let tidied = crate::platform::Platform::tidy(self, run, set).await;
        let looked = looked?;
        tidied.map(|()| looked)
    }

    async fn inside(&self, run: &str, set: &SetName, repository: Option<&str>) -> Result<Inside, PlatformError> {
        let owner = match api::owner(self, run, set).await {
            Ok(owner) => owner,
            Err(PlatformError::Cluster { code: 403, reason, .. }) => return Ok(Inside::NotMade(reason)),
            Err(error) => return Err(error),
        };
        let found = match read::find(self, set).await {
            Ok(found) => found,
            Err(PlatformError::Cluster { code: 403, .. }) => None,
            Err(error) => return Err(error),
        };
        let template = found.as_ref().and_then(|found| read::templates(&found.set).into_iter().next()).unwrap_or_default();
        let shape = found.as_ref().map_or_else(ClaimShape::default, |found| read::run_as(&found.set, &template));
        let placement = found.as_ref().map(|found| Placement::of(&found.set, &template)).unwrap_or_default();
        let orders =
            Orders { run, set: &set.name, ordinal: 0, job: String::new(), mounts: Vec::new(), shape: &shape, node: None, placement, owner };
        let pod = looking(&orders, &self.options.movers, repository);
        let name = pod.metadata.name.clone().unwrap_or_default();
        let pods = self.pods(&set.namespace);
        let made = match self.make(&pods, &name, &pod).await {
            Ok(made) => made,
            Err(error) if matches!(api::code(&error), 403 | 422) => return Ok(Inside::NotMade(api::words(&error))),
            Err(error) => return Err(api::failed("create", format!("pod {name}"), error)),
        };
        let doomed = Doomed { cluster: self.clone(), pods: pods.clone(), name: name.clone(), uid: made.metadata.uid };
        let began = Instant::now();
        let end = loop {
            let Some(pod) = self.get(&pods, &name).await.map_err(|error| api::failed("read", format!("pod {name}"), error))? else {
                break Inside::NotBegun("it was removed".into());
            };
            match mover::stage(&pod, pod::MOVER) {
                Stage::Waiting { reason, hopeless } => {
                    if mover::is_given_up(hopeless, &reason, began.elapsed(), self.options.patience) {
                        break Inside::NotBegun(reason);
                    }
                }
                Stage::Running => {}
                Stage::Ended(how) => {
                    let params = mover::log_of(pod::MOVER);
                    let log = self.ask(Asked::Reading, || pods.logs(&name, &params)).await.unwrap_or_default();
                    break Inside::Ended { findings: answer(&log), how };
                }
            }
            tokio::time::sleep(LOOK).await;
        };
        doomed.end().await;
        Ok(end)
    }
}

/// A mover's pod, but for what it is asked to do.
fn looking(orders: &Orders<'_>, options: &pod::MoverOptions, repository: Option<&str>) -> Pod {
    let mut pod = serde_json::to_value(pod::pod(orders, options)).expect("an object always serialises");
    let spec = &mut pod["spec"];
    spec["activeDeadlineSeconds"] = json!(MOST_SECONDS);
    spec["containers"][0]["args"] = json!(["doctor", "--json"]);
    if let Some(variables) = spec["containers"][0]["env"].as_array_mut() {
        variables.retain(|variable| variable["name"] != pod_words::JOB);
        // Its answer is told from its messages by a mark on each line.
        variables.push(json!({ "name": pod_words::ATTACHED, "value": "true" }));
        variables.extend(repository.map(|location| json!({ "name": "KEEPSET_REPOSITORY", "value": location })));
    }
    api::object::<Pod>(pod)
}

/// The lines of its log that are its answer.
fn answer(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix(pod_words::ANSWER_MARK)).collect();
    (!lines.is_empty() && serde_json::from_str::<Value>(&lines.join("\n")).is_ok()).then(|| lines.join("\n"))
}
