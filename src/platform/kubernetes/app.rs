//! An application on trial: started on what a drill restored, as the point recorded it, where it can reach nobody but itself.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use crate::model::set::SetName;
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::{Kubernetes, api, fence, hold, journal, names, start, stop};
use crate::platform::{App, AppEnd, PlatformError};

/// Nobody mourns what such a pod had no time to write.
const GRACE: i64 = 10;

/// Starts its ordinals. One that is not ready in time is told in what is returned, and no further ones are begun.
pub(super) async fn run(cluster: &Kubernetes, run: &str, set: &SetName, app: &App) -> Result<AppEnd, PlatformError> {
    let owner = api::owner(cluster, run, set).await?;
    let (service, copy) = copies(app, set, run, Some(&owner))?;
    fence::put_up(cluster, run, set, (owner, &copy)).await?;
    let there = |kind: &str| no(set, &format!("somebody has made a {kind} of that name there meanwhile"));
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), &set.namespace);
    let name = service.metadata.name.clone().unwrap_or_default();
    cluster.make(&services, &name, &service).await.map_err(|error| match api::code(&error) {
        409 => there("Service"),
        _ => api::failed("create", format!("Service {name}"), error),
    })?;
    cluster.make(&cluster.sets(&set.namespace), &set.name, &copy).await.map_err(|error| match api::code(&error) {
        409 => there("StatefulSet"),
        _ => api::failed("create", format!("StatefulSet {set}"), error),
    })?;
    let mut end = AppEnd::default();
    let size = if app.at_once { app.ordinals.len().max(1) } else { 1 };
    for group in app.ordinals.chunks(size) {
        let started = join_all(group.iter().map(|ordinal| start::start(cluster, set, *ordinal))).await;
        for (ordinal, started) in group.iter().zip(started) {
            match started {
                Ok(()) => end.ready.push(*ordinal),
                Err(error @ PlatformError::Deadline { .. }) => {
                    end.reason.get_or_insert_with(|| error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        if end.reason.is_some() {
            break;
        }
    }
    Ok(end)
}

/// What can be said before anything is restored.
pub(super) async fn refuse(cluster: &Kubernetes, set: &SetName, app: &App) -> Result<(), PlatformError> {
    copies(app, set, "", None)?;
    fence::refuse_open(cluster, set).await
}

fn no(set: &SetName, reason: &str) -> PlatformError {
    PlatformError::NoCopy { set: set.to_string(), reason: reason.to_owned() }
}

/// A set of that name is or was there, and no drill's: what a drill clears away would not be its own.
pub(super) async fn refuse_present(cluster: &Kubernetes, set: &SetName) -> Result<(), PlatformError> {
    if stop::find_set(cluster, set).await?.is_some_and(|there| !names::is_drills(&there.metadata)) {
        return Err(no(set, "a StatefulSet of that name is there"));
    }
    // One that lives says so.
    hold::take(cluster, set).await?.release().await;
    if journal::is_in_earnest(cluster, set).await? { Err(no(set, "a set of that name has been restored there in earnest")) } else { Ok(()) }
}

/// Waits until the copy of a dead drill is gone, whose record has been removed.
pub(super) async fn gone(cluster: &Kubernetes, set: &SetName, within: Duration) -> Result<(), PlatformError> {
    let wait = Wait::new(within);
    loop {
        if stop::find_set(cluster, set).await?.is_none() {
            return Ok(());
        }
        if !wait.again().await {
            return Err(PlatformError::NoCopy { set: set.to_string(), reason: "that of an earlier drill is still there".into() });
        }
    }
}

/// The set at 0 and a Service without an address for its names. Both bear no label and no annotation of the original's, so that nobody who
/// looks for it (an operator, a monitor, keepset's own agent) takes this for it; and its pods are nobody to the API server.
fn copies(app: &App, set: &SetName, run: &str, owner: Option<&Value>) -> Result<(Service, StatefulSet), PlatformError> {
    let of_kind = |kind: &'static str| app.recorded.iter().filter(move |object| object["kind"] == kind);
    let recorded = of_kind("StatefulSet").find(|object| object["metadata"]["name"] == set.name.as_str());
    let recorded = recorded.ok_or_else(|| no(set, "the point did not record it"))?;
    let labels = json!({ names::MANAGED_BY: names::MANAGER, names::DRILL: set.name });
    let meta = |name: &str| json!({ "name": name, "namespace": set.namespace, "labels": labels, "ownerReferences": owner.into_iter().collect::<Vec<_>>() });

    let mut spec = recorded["spec"].clone();
    if let Some(why) = reaches_out(&spec["template"]["spec"]) {
        return Err(no(set, &why));
    }
    spec["replicas"] = json!(0);
    spec["selector"] = json!({ "matchLabels": { names::DRILL: set.name } });
    spec["template"]["metadata"] = json!({ "labels": labels });
    let pod = &mut spec["template"]["spec"];
    pod["automountServiceAccountToken"] = json!(false);
    pod["terminationGracePeriodSeconds"] = json!(pod["terminationGracePeriodSeconds"].as_i64().unwrap_or(GRACE).clamp(0, GRACE));
    // Near to pods and far from pods that are not there.
    let node_affinity = pod["affinity"]["nodeAffinity"].clone();
    pod["affinity"] = if node_affinity.is_null() { Value::Null } else { json!({ "nodeAffinity": node_affinity }) };
    // As urgent as the original it would drive that away where room is short.
    for field in ["serviceAccountName", "serviceAccount", "topologySpreadConstraints", "priorityClassName", "priority", "preemptionPolicy"]
    {
        pod.as_object_mut().map(|pod| pod.remove(field));
    }
    for container in containers_mut(pod) {
        for port in container["ports"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("hostPort");
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("persistentVolumeClaimRetentionPolicy");
    }
    // One that its controller makes beside those that were restored goes with them.
    for template in spec["volumeClaimTemplates"].as_array_mut().into_iter().flatten() {
        let name = template["metadata"]["name"].clone();
        template["metadata"] = json!({ "name": name, "labels": labels, "annotations": { names::MADE_BY: run } });
    }
    let name = spec["serviceName"].as_str().filter(|name| !name.is_empty()).unwrap_or(&set.name).to_owned();
    let ports =
        of_kind("Service").find(|object| object["metadata"]["name"] == name.as_str()).map(|service| service["spec"]["ports"].clone());
    let service = json!({
        "metadata": meta(&name),
        "spec": {
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": { names::DRILL: set.name },
            "ports": ports.map(without_node_ports),
        },
    });
    let copy = json!({ "metadata": meta(&set.name), "spec": spec });
    // What a bucket says is not one of ours to be sure of.
    let typed = |error: serde_json::Error| no(set, &format!("what the point recorded of it makes no sense: {error}"));
    Ok((serde_json::from_value(service).map_err(typed)?, serde_json::from_value(copy).map_err(typed)?))
}

/// Volumes that are nobody else's.
const OWN_VOLUMES: [&str; 6] = ["name", "configMap", "secret", "emptyDir", "downwardAPI", "ephemeral"];
/// With one of these a container can leave the network that it was given, or speak for others in it.
const TOO_CAPABLE: [&str; 7] = ["ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "NET_ADMIN", "NET_RAW", "BPF"];

/// What pods have that no policy keeps them from.
fn reaches_out(pod: &Value) -> Option<String> {
    if let Some(field) = ["hostNetwork", "hostPID", "hostIPC"].into_iter().find(|field| pod[field] == true) {
        return Some(format!("its pods share what is their node's ({field})"));
    }
    for container in containers(pod) {
        let name = container["name"].as_str().unwrap_or_default();
        let security = &container["securityContext"];
        if security["privileged"] == true || security["procMount"] == "Unmasked" {
            return Some(format!("container {name} is privileged"));
        }
        let added = security["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(capability) = added.map(|name| name.trim_start_matches("CAP_")).find(|name| TOO_CAPABLE.contains(name)) {
            return Some(format!("container {name} has the capability {capability}"));
        }
        // These are the kubelet's own calls, which no policy of the pod's holds.
        if HANDLERS.iter().any(|path| {
            ["httpGet", "tcpSocket"].iter().any(|kind| container.pointer(path).is_some_and(|call| call[*kind]["host"].is_string()))
        }) {
            return Some(format!("a probe or hook of container {name} calls another host"));
        }
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let has_token = |source: &Value| source.get("serviceAccountToken").is_some();
        let is_own = |kind: &String| match kind.as_str() {
            "projected" => !volume["projected"]["sources"].as_array().into_iter().flatten().any(has_token),
            kind => OWN_VOLUMES.contains(&kind),
        };
        if let Some(kind) = volume.as_object().into_iter().flat_map(|volume| volume.keys()).find(|kind| !is_own(kind)) {
            return Some(format!("volume {} is one that others have too ({kind})", volume["name"].as_str().unwrap_or_default()));
        }
    }
    None
}

const HANDLERS: [&str; 5] = ["/lifecycle/postStart", "/lifecycle/preStop", "/livenessProbe", "/readinessProbe", "/startupProbe"];

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|kind| pod[kind].as_array().into_iter().flatten())
}

fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let lists =
        pod.as_object_mut().into_iter().flat_map(|pod| pod.iter_mut()).filter(|(key, _)| *key == "initContainers" || *key == "containers");
    lists.flat_map(|(_, list)| list.as_array_mut().into_iter().flatten())
}

fn without_node_ports(mut ports: Value) -> Value {
    for port in ports.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        port.remove("nodePort");
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::Ordinal;

    fn recorded(host_network: bool) -> App {
        let set = json!({
            "kind": "StatefulSet",
            "metadata": { "name": "web", "annotations": { "keepset.dev/schedule": "@daily" }, "labels": { "app": "web" } },
            "spec": {
                "replicas": 3, "serviceName": "names", "ordinals": { "start": 2 }, "selector": { "matchLabels": { "app": "web" } },
                "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Delete" },
                "template": {
                    "metadata": { "labels": { "app": "web" }, "annotations": { "sidecar": "yes" } },
                    "spec": {
                        "hostNetwork": host_network, "serviceAccountName": "web", "terminationGracePeriodSeconds": 600, "priorityClassName": "high",
                        "affinity": { "podAntiAffinity": {}, "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } }, "containers": [{ "name": "c", "ports": [{ "containerPort": 1, "hostPort": 1 }] }],
                    },
                },
            },
        });
        let service = json!({
            "kind": "Service", "metadata": { "name": "names", "annotations": { "dns": "public" } },
            "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }], "selector": { "app": "web" } },
        });
        App { recorded: vec![service, set], ordinals: vec![Ordinal(2)], at_once: false }
    }

    #[test]
    fn a_copy_is_taken_for_the_original_by_nobody_and_is_nobody_to_the_api_server() {
        let set: SetName = "drills/web".parse().unwrap();
        let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "r", "uid": "u" });
        let (service, copy) = copies(&recorded(false), &set, "run", Some(&owner)).unwrap();
        let (service, copy) = (&serde_json::to_value(service).unwrap(), &serde_json::to_value(copy).unwrap());
        let own = json!({ names::DRILL: "web" });
        assert_eq!((&copy["spec"]["selector"]["matchLabels"], &service["spec"]["selector"]), (&own, &own));
        for object in [service, copy, &copy["spec"]["template"]] {
            assert!(object["metadata"].get("annotations").is_none(), "{object}");
            assert_eq!(object["metadata"]["labels"], json!({ names::MANAGED_BY: "keepset", names::DRILL: "web" }));
        }
        let pod = &copy["spec"]["template"]["spec"];
        assert_eq!((&pod["automountServiceAccountToken"], pod.get("serviceAccountName")), (&json!(false), None));
        assert_eq!(
            (&pod["terminationGracePeriodSeconds"], &pod["affinity"]),
            (&json!(GRACE), &json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } }))
        );
        assert_eq!((pod.get("priorityClassName"), &pod["containers"][0]["ports"]), (None, &json!([{ "containerPort": 1 }])));
        assert_eq!((&copy["spec"]["replicas"], &copy["spec"]["ordinals"]["start"]), (&json!(0), &json!(2)));
        assert!(copy["spec"].get("persistentVolumeClaimRetentionPolicy").is_none());
        assert_eq!((&service["metadata"]["name"], &service["spec"]["clusterIP"]), (&json!("names"), &json!("None")));
        assert_eq!((service["spec"].get("type"), &service["spec"]["ports"]), (None, &json!([{ "port": 80 }])));
    }

    #[test]
    fn what_no_policy_can_hold_and_what_no_point_recorded_is_not_started() {
        let set: SetName = "drills/web".parse().unwrap();
        let refused = |app: &App| matches!(copies(app, &set, "run", None), Err(PlatformError::NoCopy { .. }));
        assert!(refused(&recorded(true)));
        let with = |field: &str, value: Value| {
            let mut app = recorded(false);
            app.recorded[1]["spec"]["template"]["spec"][field] = value;
            app
        };
        assert!(refused(&with("hostPID", json!(true))));
        assert!(refused(&with("initContainers", json!([{ "name": "i", "securityContext": { "privileged": true } }]))));
        assert!(refused(&with("volumes", json!([{ "name": "v", "nfs": { "server": "a", "path": "/" } }]))));
        assert!(refused(&with("volumes", json!([{ "name": "v", "projected": { "sources": [{ "serviceAccountToken": {} }] } }]))));
        assert!(refused(&with("volumes", json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "shared" } }]))));
        let container = |field: &str, value: Value| with("containers", json!([{ "name": "c", field: value }]));
        assert!(refused(&container("lifecycle", json!({ "preStop": { "httpGet": { "host": "coordinator.shop.svc", "port": 80 } } }))));
        assert!(!refused(&container("readinessProbe", json!({ "httpGet": { "port": 80 } }))));
        assert!(refused(&container("securityContext", json!({ "capabilities": { "add": ["NET_ADMIN"] } }))));
        assert!(!refused(&with("volumes", json!([{ "name": "v", "configMap": { "name": "c" } }, { "name": "t", "emptyDir": {} }]))));
        assert!(refused(&App { recorded: Vec::new(), ..recorded(false) }));
    }
}
