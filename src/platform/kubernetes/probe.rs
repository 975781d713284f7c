//! A probe as a pod: the user's command beside the claims of one ordinal of a drill, without a token, without any Secret.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::model::claim::{ClaimPlace, ClaimShape};
use crate::model::set::{Ordinal, SetName};
use crate::platform::command::one_line;
use crate::platform::kubernetes::mover::{self, Doomed, Stage};
use crate::platform::kubernetes::pod::{self, MoverOptions};
use crate::platform::kubernetes::{Kubernetes, api, names};
use crate::platform::scratch::Words;
use crate::platform::{PlatformError, Probe, ProbeEnd};

const LOOK: Duration = Duration::from_millis(300);
/// Lines of its log that are told, and as many bytes.
const TOLD_LINES: i64 = 20;
const TOLD_BYTES: i64 = 4096;
/// A pod whose drill was killed ends by itself so long after its time.
const SPARE: Duration = Duration::from_secs(60);

/// Runs it to its end, or to the end of its time. Dropping this removes the pod.
pub(super) async fn run(
    cluster: &Kubernetes,
    run: &str,
    (set, ordinal): (&SetName, Ordinal),
    claims: &[ClaimPlace],
    probe: &Probe,
) -> Result<ProbeEnd, PlatformError> {
    let what = || format!("the probe of ordinal {ordinal}");
    let owner = api::owner(cluster, run, set).await?;
    let options = &cluster.options;
    let deadline = options.patience + probe.timeout + SPARE;
    let pod = pod((run, set, ordinal), claims, probe, &options.movers, (owner, deadline));
    let name = pod.metadata.name.clone().unwrap_or_default();
    let pods = cluster.pods(&set.namespace);
    let made = cluster.make(&pods, &name, &pod).await.map_err(|error| api::failed("start", what(), error))?;
    let doomed = Doomed { cluster: cluster.clone(), pods: pods.clone(), name: name.clone(), uid: made.metadata.uid };
    let made = Instant::now();
    let mut began = None;
    let end = loop {
        let Some(pod) = cluster.get(&pods, &name).await.map_err(|error| api::failed("read", format!("pod {name}"), error))? else {
            break ProbeEnd { exit_code: None, how: "its pod was removed".into(), said: String::new() };
        };
        match mover::stage(&pod, pod::PROBE) {
            Stage::Waiting { reason, hopeless } => {
                if mover::is_given_up(hopeless, &reason, made.elapsed(), options.patience) {
                    return Err(PlatformError::ProbeNotBegun { ordinal: ordinal.0, pod: name, reason });
                }
            }
            Stage::Running if began.get_or_insert_with(Instant::now).elapsed() > probe.timeout => {
                let said = said(cluster, set, &name).await;
                break ProbeEnd { exit_code: None, how: format!("not done within {} s", probe.timeout.as_secs()), said };
            }
            Stage::Running => {}
            Stage::Ended(how) => {
                break ProbeEnd { exit_code: exit_code(&pod), how, said: said(cluster, set, &name).await };
            }
        }
        sleep(LOOK).await;
    };
    doomed.end().await;
    Ok(end)
}

/// The end of its log on one line; what cannot be read was not said.
async fn said(cluster: &Kubernetes, set: &SetName, pod: &str) -> String {
    let params = LogParams { tail_lines: Some(TOLD_LINES), limit_bytes: Some(TOLD_BYTES), ..mover::log_of(pod::PROBE) };
    match cluster.pods(&set.namespace).logs(pod, &params).await {
        Ok(text) => one_line(&text).strip_prefix(": ").unwrap_or_default().to_owned(),
        Err(error) => {
            tracing::debug!(%error, pod, "its log cannot be read");
            String::new()
        }
    }
}

fn exit_code(pod: &Pod) -> Option<i32> {
    Some(mover::state_of(pod, pod::PROBE)?.terminated.as_ref()?.exit_code)
}

/// The pod. It passes the `restricted` profile of Pod Security.
fn pod(
    (run, set, ordinal): (&str, &SetName, Ordinal),
    claims: &[ClaimPlace],
    probe: &Probe,
    movers: &MoverOptions,
    (owner, deadline): (Value, Duration),
) -> Pod {
    let mounts: Vec<(String, Option<String>)> = claims
        .iter()
        .map(|claim| match probe.mounts.get(&claim.id.template) {
            Some(mount) => (mount.path.clone(), mount.sub_path.clone()),
            None => (names::root(&claim.name), None),
        })
        .collect();
    let paths: Vec<String> = mounts.iter().map(|(path, _)| path.clone()).collect();
    let words = Words::new(set, ordinal, claims, &paths);
    let mut variables: Vec<Value> = words.variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    variables.push(json!({ "name": "HOME", "value": "/tmp" }));
    let mut volumes: Vec<Value> = claims
        .iter()
        .enumerate()
        .map(|(number, claim)| json!({ "name": format!("volume-{number}"), "persistentVolumeClaim": { "claimName": claim.name } }))
        .collect();
    let (mut volume_mounts, mut devices) = (Vec::new(), Vec::new());
    for (number, ((path, sub_path), claim)) in mounts.iter().zip(claims).enumerate() {
        let name = format!("volume-{number}");
        if claim.shape.is_block() {
            devices.push(json!({ "name": name, "devicePath": path }));
        } else {
            volume_mounts.push(json!({ "name": name, "mountPath": path, "subPath": sub_path }));
        }
    }
    if !paths.iter().any(|path| path.trim_end_matches('/') == "/tmp") {
        volumes.push(json!({ "name": "tmp", "emptyDir": {} }));
        volume_mounts.push(json!({ "name": "tmp", "mountPath": "/tmp" }));
    }
    let shape = claims.first().map(|claim| claim.shape.clone()).unwrap_or_default();
    // Movers that are not root have made the files their own: only their user can read all of them.
    let user = shape.uid.filter(|uid| *uid != 0).or_else(|| probe.user.filter(|uid| movers.as_root && *uid > 0));
    let shape = ClaimShape { uid: user, ..shape };
    let secrets: Vec<Value> = movers.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    let mut security = pod::container_security(false);
    // A database writes a lock or a socket beside its own programs; what it writes there goes with the pod.
    security["readOnlyRootFilesystem"] = json!(false);
    api::object(json!({
        "metadata": {
            "name": format!("{}-probe", names::mover(run, ordinal.0)),
            "labels": movers.labels(names::labels(run, &set.name)),
            "annotations": movers.annotations(BTreeMap::new()),
            "ownerReferences": [owner],
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": deadline.as_secs(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 5,
            "imagePullSecrets": secrets,
            "securityContext": pod::pod_security(&shape, false),
            "containers": [{
                "name": pod::PROBE,
                "image": probe.image,
                "imagePullPolicy": probe.image_pull_policy,
                "command": words.command(probe),
                "env": variables,
                "resources": pod::resources(&probe.resources),
                "securityContext": security,
                "volumeMounts": volume_mounts,
                "volumeDevices": devices,
            }],
            "volumes": volumes,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::claim::ClaimId;
    use crate::platform::{ProbeMount, Resources};

    fn built(as_root: bool, uid: Option<i64>) -> Value {
        let set: SetName = "drills/web-drill".parse().unwrap();
        let claims = ["data", "wal"].map(|template| {
            let id = ClaimId { ordinal: Ordinal(3), template: template.into() };
            ClaimPlace { set: set.clone(), name: id.name("web-drill"), id, shape: ClaimShape { uid, ..ClaimShape::default() } }
        });
        let mount = ProbeMount { path: "/var/lib/db".into(), sub_path: Some("pg".into()) };
        let probe = Probe {
            command: ["check", "{claim:data}", "{claim:wal}"].map(str::to_owned).to_vec(),
            image: Some("db:1".into()),
            user: Some(999),
            resources: Resources { limits: [("memory".to_owned(), "1Gi".to_owned())].into(), ..Resources::default() },
            timeout: Duration::from_secs(60),
            mounts: [("data".to_owned(), mount)].into(),
            ..Probe::default()
        };
        let movers = MoverOptions { secret: "keepset".into(), as_root, ..MoverOptions::default() };
        let built = pod(("r", &set, Ordinal(3)), &claims, &probe, &movers, (json!({}), Duration::from_secs(7)));
        serde_json::to_value(built).unwrap()
    }

    #[test]
    fn a_probe_sees_the_claims_where_the_set_has_them_and_neither_a_token_nor_a_secret() {
        let pod = built(false, Some(70));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["command"], json!(["check", "/var/lib/db", "/volumes/wal-web-drill-3"]));
        assert_eq!(container["volumeMounts"][0], json!({ "name": "volume-0", "mountPath": "/var/lib/db", "subPath": "pg" }));
        assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
        assert!(container.get("envFrom").is_none() && !pod.to_string().contains("secretRef"), "{pod}");
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], json!(true));
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(pod["spec"]["activeDeadlineSeconds"], json!(7));
        assert_eq!(container["resources"], json!({ "requests": { "cpu": "100m" }, "limits": { "memory": "1Gi" } }));
    }

    #[test]
    fn a_probe_is_judged_by_its_own_container() {
        let container = |name: &str, code: i32| {
            json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": code } } })
        };
        let statuses = json!([container("linkerd-proxy", 0), container("probe", 3)]);
        let pod: Pod = api::object(json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": statuses } }));
        assert_eq!(exit_code(&pod), Some(3));
        assert_eq!(built(false, None)["metadata"]["labels"]["sidecar.istio.io/inject"], "false");
    }

    #[test]
    fn a_probe_runs_as_whoever_can_read_what_was_restored() {
        let user = |as_root, uid| built(as_root, uid)["spec"]["securityContext"]["runAsUser"].clone();
        assert_eq!((user(false, Some(70)), user(true, Some(70))), (json!(70), json!(70)), "the set's own user");
        assert_eq!(user(false, None), json!(pod::NOBODY), "the mover's");
        assert_eq!(user(true, None), json!(999), "the files are whose they were, and only the probe knows whose");
    }
}
