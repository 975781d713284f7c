//! A run that is done in the cluster for somebody outside: a Job that runs this very program, and its pod's log.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::AsyncBufReadExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::kubernetes::mover::{Stage, is_given_up, log_of, stage, state_of};
use crate::platform::kubernetes::pod::{self, MoverOptions};
use crate::platform::kubernetes::{Kubernetes, api, names};

/// The account of `deploy/rbac.yaml`.
const ACCOUNT: &str = "keepset";
/// How long an ended Job stays, so that it can be asked how it went.
const KEPT_SECONDS: u32 = 24 * 60 * 60;
/// For a clean stop, which ends movers first.
const GRACE_SECONDS: u32 = 120;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// What others put beside the program may take so long to end by itself.
const COMPANY: Duration = Duration::from_secs(10);
/// A refusal of the Job's pod that lasts so long does not pass by itself.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What the Job is to do. No secret in it: the pod takes those from the Secret that movers take theirs from.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The set that is worked on; the Job is made in its namespace.
    pub set: SetName,
    /// The program's arguments, the verb first.
    pub arguments: Vec<String>,
    /// Its variables; they win over the Secret's.
    pub variables: Vec<(&'static str, String)>,
    /// The text of a settings file, which it finds at its usual place.
    pub settings: Option<Settings>,
}

/// A settings file for the Job's pod.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: String,
    pub file: String,
    pub text: String,
}

/// How the Job's pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The program's own exit code.
    Exited(i32),
    /// It has not run, and will not: the Job is removed.
    NotBegun(String),
    /// Nobody knows how far it came.
    Lost(String),
}

/// A Job that was made.
pub struct Submitted {
    pub namespace: String,
    pub name: String,
    jobs: Api<Job>,
    pods: Api<Pod>,
    cluster: Kubernetes,
    events: Api<Event>,
    patience: Duration,
}

impl Kubernetes {
    /// Makes the Job. It goes on whatever becomes of this process.
    pub async fn submit(&self, errand: &Errand) -> Result<Submitted, PlatformError> {
        let namespace = &errand.set.namespace;
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let job = job(errand, &self.options.movers);
        let made = self.create(&jobs, &job).await;
        let made = made.map_err(|error| api::failed("create", format!("a job in {namespace}"), error))?;
        Ok(Submitted {
            namespace: namespace.clone(),
            name: made.metadata.name.unwrap_or_default(),
            jobs,
            pods: self.pods(namespace),
            cluster: self.clone(),
            events: Api::namespaced(self.client.clone(), namespace),
            patience: self.options.patience,
        })
    }
}

/// The Job: one pod, once. A restore that dies is not begun anew but resumed, by whoever comes next.
fn job(errand: &Errand, options: &MoverOptions) -> Job {
    let labels = [(names::MANAGED_BY, names::MANAGER), (names::SET, &errand.set.name)];
    let labels = BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let verb = errand.arguments.first().map_or("", String::as_str);
    let variables: Vec<Value> = errand.variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let (secret, secret_mount) = pod::secret_files(&options.secret);
    let mut volumes = vec![json!({ "name": "scratch", "emptyDir": {} }), secret];
    let mut mounts = vec![json!({ "name": "scratch", "mountPath": "/tmp" }), secret_mount];
    let mut annotations = BTreeMap::new();
    if let Some(settings) = &errand.settings {
        // By way of an annotation they need no object of their own, and no right to make one.
        annotations.insert(names::SETTINGS.to_owned(), settings.text.clone());
        let field = json!({ "fieldPath": format!("metadata.annotations['{}']", names::SETTINGS) });
        volumes.push(json!({ "name": "settings", "downwardAPI": { "items": [{ "path": settings.file, "fieldRef": field }] } }));
        mounts.push(json!({ "name": "settings", "mountPath": settings.folder, "readOnly": true }));
    }
    let pull_secrets: Vec<Value> = options.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    api::object(json!({
        "metadata": { "generateName": names::job(verb, &errand.set.name), "labels": labels },
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": { "labels": options.labels(labels), "annotations": options.annotations(annotations) },
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": ACCOUNT,
                    "priorityClassName": options.priority_class,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "imagePullSecrets": pull_secrets,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": pod::NOBODY,
                        "runAsGroup": pod::NOBODY,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": pod::JOB,
                        "image": options.image,
                        "imagePullPolicy": options.image_pull_policy,
                        "args": errand.arguments,
                        "env": variables,
                        "envFrom": [{ "secretRef": { "name": options.secret } }],
                        "resources": pod::resources(&options.resources),
                        "securityContext": pod::container_security(false),
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    }))
}

impl Submitted {
    /// Passes each line that the Job says on, from its first one, and returns how it ended. To be dropped at any time: the Job goes on.
    pub async fn attach(&self, mut told: impl FnMut(&str)) -> Result<End, PlatformError> {
        let pod = match self.begun().await? {
            Ok(pod) => pod,
            Err(reason) => {
                self.withdraw().await;
                return Ok(End::NotBegun(reason));
            }
        };
        let mut seen = 0;
        loop {
            // The log may break off though the pod lives: a laptop that slept, a server that closes long connections.
            self.follow(&pod, &mut seen, &mut told).await;
            let found = self.cluster.get(&self.pods, &pod).await.map_err(|error| api::failed("read", format!("pod {pod}"), error))?;
            let Some(found) = found else { return Ok(End::Lost("its pod was removed".into())) };
            if let Some(end) = end(&found) {
                // What it said last may have come while nobody listened.
                self.follow(&pod, &mut seen, &mut told).await;
                self.leave_behind(&pod).await?;
                return Ok(end);
            }
            sleep(LOOK).await;
        }
    }

    /// The Job's pod, once its container runs or has run; else why it does not.
    async fn begun(&self) -> Result<Result<String, String>, PlatformError> {
        let began = Instant::now();
        let mut refused_since = None;
        let of_job = ListParams::default().labels(&format!("job-name={}", self.name));
        loop {
            let pods = self.cluster.list(&self.pods, &of_job).await;
            let pods = pods.map_err(|error| api::failed("list", format!("the pods of job {}", self.name), error))?;
            let reason = match pods.first() {
                None => match self.refusal().await {
                    Some(reason) => {
                        let since = *refused_since.get_or_insert_with(Instant::now);
                        if since.elapsed() > REFUSED_FOR {
                            return Ok(Err(reason));
                        }
                        reason
                    }
                    None => "the cluster made no pod for it".to_owned(),
                },
                Some(pod) => match stage(pod, pod::JOB) {
                    Stage::Running | Stage::Ended(_) => return Ok(Ok(pod.metadata.name.clone().unwrap_or_default())),
                    Stage::Waiting { hopeless, reason } => {
                        if is_given_up(hopeless, &reason, began.elapsed(), self.patience) {
                            return Ok(Err(reason));
                        }
                        reason
                    }
                },
            };
            if began.elapsed() > self.patience {
                return Ok(Err(reason));
            }
            sleep(LOOK).await;
        }
    }

    /// Why the cluster makes no pod: a quota, Pod Security, no account. `None` also where nobody may ask.
    async fn refusal(&self) -> Option<String> {
        let about = format!("involvedObject.kind=Job,involvedObject.name={},reason=FailedCreate", self.name);
        match self.cluster.list(&self.events, &ListParams::default().fields(&about)).await {
            Ok(events) => events.into_iter().find_map(|event| event.message),
            Err(error) => {
                tracing::debug!(%error, "the job's events cannot be read");
                None
            }
        }
    }

    /// Ends a Job whose program has ended: its pod, and so the Job, would last as long as a sidecar that does not end by itself.
    async fn leave_behind(&self, pod: &str) -> Result<(), PlatformError> {
        let since = Instant::now();
        loop {
            let found = self.cluster.get(&self.pods, pod).await.map_err(|error| api::failed("read", format!("pod {pod}"), error))?;
            let Some(name) = found.as_ref().and_then(company) else { return Ok(()) };
            if since.elapsed() > COMPANY {
                tracing::info!(job = self.name, container = name, "it is removed: this container does not end by itself");
                self.withdraw().await;
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// A Job that has not begun must not begin when nobody expects it any more, and one that is over must not last for ever.
    async fn withdraw(&self) {
        if let Err(error) = self.cluster.remove(&self.jobs, &self.name, &api::background()).await {
            tracing::warn!(error = api::words(&error), job = self.name, "it could not be removed");
        }
    }

    /// Passes on what the log has beyond the first `seen` lines, to its end as it is now.
    async fn follow(&self, pod: &str, seen: &mut usize, told: &mut impl FnMut(&str)) {
        let log = match self.pods.log_stream(pod, &LogParams { follow: true, ..log_of(pod::JOB) }).await {
            Ok(log) => log,
            Err(error) => {
                tracing::debug!(%error, pod, "its log cannot be read now");
                return;
            }
        };
        let mut log = pin!(log);
        let mut line = Vec::new();
        let mut number = 0;
        while matches!(log.read_until(b'\n', &mut line).await, Ok(1..)) {
            // One that broke off comes again, whole.
            let Some((b'\n', text)) = line.split_last() else { return };
            number += 1;
            if number > *seen {
                *seen = number;
                told(&String::from_utf8_lossy(text));
            }
            line.clear();
        }
    }
}

/// Pure: how the pod ended; `None` while it lives.
fn end(pod: &Pod) -> Option<End> {
    let Stage::Ended(how) = stage(pod, pod::JOB) else { return None };
    let ended = state_of(pod, pod::JOB).and_then(|state| state.terminated.as_ref());
    // Beyond 128 a signal ended it, but for the one that the program passes on itself.
    Some(match ended {
        Some(ended) if ended.exit_code <= 128 || ended.exit_code == 130 => End::Exited(ended.exit_code),
        _ => End::Lost(how),
    })
}

/// Pure: a container that others put beside the program, and that still runs.
fn company(pod: &Pod) -> Option<&str> {
    let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let runs = statuses.find(|status| status.name != pod::JOB && status.state.as_ref().is_some_and(|state| state.running.is_some()))?;
    Some(&runs.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(settings: Option<Settings>) -> Value {
        let errand = Errand {
            set: "shop/web".parse().unwrap(),
            arguments: ["backup", "shop/web", "--here"].map(str::to_owned).into(),
            variables: vec![("KEEPSET_CLUSTER", "home".into())],
            settings,
        };
        let priority_class = Some("storage".into());
        let options = MoverOptions { image: "keepset:1".into(), secret: "keys".into(), priority_class, ..MoverOptions::default() };
        serde_json::to_value(job(&errand, &options)).unwrap()
    }

    #[test]
    fn a_job_runs_once_as_nobody_under_the_account_of_the_role_with_the_secret_as_its_environment() {
        let job = built(None);
        assert_eq!((&job["spec"]["backoffLimit"], &job["metadata"]["generateName"]), (&json!(0), &json!("keepset-backup-web-")));
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!((&pod["serviceAccountName"], &pod["restartPolicy"]), (&json!("keepset"), &json!("Never")));
        assert_eq!(pod["priorityClassName"], "storage");
        assert_eq!((&pod["securityContext"]["runAsNonRoot"], &pod["volumes"][2]), (&json!(true), &json!(null)));
        assert_eq!(pod["volumes"][1]["secret"]["secretName"], "keys");
        assert_eq!(pod["containers"][0]["volumeMounts"][1]["mountPath"], "/run/keepset/secret");
        let container = &pod["containers"][0];
        assert_eq!(container["args"], json!(["backup", "shop/web", "--here"]));
        assert_eq!(container["envFrom"], json!([{ "secretRef": { "name": "keys" } }]));
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        // A label that movers bear: with it a dead run's sweep would take the Job's own pod along.
        assert!(job["spec"]["template"]["metadata"]["labels"][names::RUN].is_null());
    }

    #[test]
    fn settings_travel_word_for_word_to_where_the_program_looks_for_them() {
        let text = "cluster: home # 'quoted' \"twice\"\n";
        let job = built(Some(Settings { folder: "/etc/keepset".into(), file: "keepset.yaml".into(), text: text.into() }));
        let template = &job["spec"]["template"];
        assert_eq!(template["metadata"]["annotations"]["keepset.dev/settings"], text);
        let item = &template["spec"]["volumes"][2]["downwardAPI"]["items"][0];
        assert_eq!(
            (&item["path"], &item["fieldRef"]["fieldPath"]),
            (&json!("keepset.yaml"), &json!("metadata.annotations['keepset.dev/settings']"))
        );
        assert_eq!(template["spec"]["containers"][0]["volumeMounts"][2]["mountPath"], "/etc/keepset");
    }

    #[test]
    fn the_programs_own_exit_codes_pass_and_all_other_ends_are_losses() {
        let ended = |code: i32, reason: &str| {
            end(&api::object(json!({ "metadata": { "name": "p" }, "status": { "phase": "Failed", "containerStatuses": [{
                "name": "keepset", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": code, "reason": reason } },
            }] } })))
        };
        assert_eq!(ended(13, "Error"), Some(End::Exited(13)));
        assert_eq!(ended(130, "Error"), Some(End::Exited(130)));
        assert_eq!(ended(137, "OOMKilled"), Some(End::Lost("OOMKilled, exit code 137".into())));
        assert_eq!(end(&api::object(json!({ "metadata": { "name": "p" }, "status": { "phase": "Running" } }))), None);
        let evicted = json!({ "metadata": { "name": "p" }, "status": { "phase": "Failed", "reason": "Evicted" } });
        assert_eq!(end(&api::object(evicted)), Some(End::Lost("Evicted".into())));
    }

    #[test]
    fn a_job_ends_as_its_program_does_whatever_runs_on_beside_it() {
        let pod = |program: Value, sidecar: Value| -> Pod {
            let container =
                |name: &str, state| json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
            let statuses = [container("istio-proxy", sidecar), container("keepset", program)];
            api::object(json!({ "metadata": { "name": "p" }, "status": { "phase": "Running", "containerStatuses": statuses } }))
        };
        let (running, over) = (json!({ "running": {} }), |code: i32| json!({ "terminated": { "exitCode": code } }));
        let done = pod(over(3), running.clone());
        assert_eq!((end(&done), company(&done)), (Some(End::Exited(3)), Some("istio-proxy")));
        assert_eq!(company(&pod(over(3), over(0))), None);
        assert_eq!(end(&pod(running, over(0))), None, "the proxy's end is not the Job's");
        let template = &built(None)["spec"]["template"]["metadata"];
        assert_eq!(
            (&template["labels"]["sidecar.istio.io/inject"], &template["annotations"]["linkerd.io/inject"]),
            (&json!("false"), &json!("disabled"))
        );
    }
}
