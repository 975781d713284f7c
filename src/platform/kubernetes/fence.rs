//! Nothing but a drill's own pods for a drill's pods: a NetworkPolicy, and the proof that the cluster's network keeps to it.
//!
//! The proof is a pod that bears the drill's label and tries to reach the API server, whose address every pod is given. Before the policy it
//! must, or nothing would be proven; after it, it must not.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::model::claim::ClaimShape;
use crate::model::pod_words;
use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::kubernetes::mover::{self, Doomed, Stage};
use crate::platform::kubernetes::patience::Asked;
use crate::platform::kubernetes::pod::{self, MoverOptions, Orders, Placement};
use crate::platform::kubernetes::{Kubernetes, api, names};

const LOOK: Duration = Duration::from_millis(500);
/// A pod whose drill was killed ends by itself.
const MOST_SECONDS: u64 = 600;
/// Labels that a StatefulSet's controller gives its pods.
const CONTROLLERS: [&str; 3] = ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "controller-revision-hash"];
const OPT_IN: &str = "the Role in deploy/rbac-drill-app.yaml is not bound there";

/// Returns once no pod of the drill reaches anything but the others of it, and what tells them names.
pub(super) async fn put_up(
    cluster: &Kubernetes,
    run: &str,
    set: &SetName,
    (owner, copy): (Value, &StatefulSet),
) -> Result<(), PlatformError> {
    let no = |reason: String| no(set, reason);
    refuse_open(cluster, set).await?;
    let pod = looking(run, set, &cluster.options.movers, owner, Placement::of(copy, ""));
    let name = pod.metadata.name.clone().unwrap_or_default();
    let pods = cluster.pods(&set.namespace);
    let made = cluster.make(&pods, &name, &pod).await.map_err(|error| api::failed("create", format!("pod {name}"), error))?;
    let _doomed = Doomed { cluster: cluster.clone(), pods: pods.clone(), name: name.clone(), uid: made.metadata.uid };
    let (begun, all, mut is_up) = (Instant::now(), mover::log_of(pod::MOVER), false);
    loop {
        // A server that is away for a moment is out of reach for the pod as well, which proves nothing.
        let pod = pods.get_opt(&name).await.map_err(|error| match is_up {
            true => no(format!("the API server did not answer while its network was tried: {}", api::words(&error))),
            false => api::failed("read", format!("pod {name}"), error),
        })?;
        let stage = pod.map(|pod| mover::stage(&pod, pod::MOVER));
        match &stage {
            Some(Stage::Waiting { reason, hopeless }) => {
                if mover::is_given_up(*hopeless, reason, begun.elapsed(), cluster.options.patience) {
                    return Err(no(format!("the pod that tries its network did not begin: {reason}")));
                }
            }
            Some(Stage::Running | Stage::Ended(_)) => {
                let log = cluster.ask(Asked::Reading, || pods.logs(&name, &all)).await.unwrap_or_default();
                match (log.lines().last(), &stage) {
                    (Some(pod_words::REACHED), Some(Stage::Running)) if !is_up => {
                        make(cluster, set).await?;
                        is_up = true;
                    }
                    (Some(pod_words::CUT_OFF), _) if is_up => return Ok(()),
                    (Some(pod_words::NEVER_REACHED), _) => {
                        return Err(no(
                            "its pods cannot reach even the API server, so that there is nothing to tell a policy's effect by".into()
                        ));
                    }
                    (Some(pod_words::REACHED), Some(Stage::Ended(_))) if is_up => {
                        return Err(no(
                            "the cluster's network does not keep to NetworkPolicies: a pod reaches what its policy forbids".into()
                        ));
                    }
                    (_, Some(Stage::Ended(how))) => return Err(no(format!("the pod that tries its network ended: {how}"))),
                    _ => {}
                }
            }
            None => return Err(no("the pod that tries its network was removed".into())),
        }
        sleep(LOOK).await;
    }
}

/// Refused where another policy of the namespace opens what this one closes.
pub(super) async fn refuse_open(cluster: &Kubernetes, set: &SetName) -> Result<(), PlatformError> {
    let no = |reason: String| no(set, reason);
    let others = cluster.list(&policies(cluster, set), &ListParams::default()).await.map_err(|error| match api::code(&error) {
        403 => no(format!("its NetworkPolicies may not be listed, {OPT_IN}: {}", api::words(&error))),
        _ => api::failed("list", "NetworkPolicies", error),
    })?;
    let own = names::fence(&set.name);
    match others.iter().filter(|policy| policy.metadata.name.as_ref() != Some(&own)).find(|policy| opens(policy, set)) {
        Some(open) => {
            let name = open.metadata.name.as_deref().unwrap_or_default();
            Err(no(format!("NetworkPolicy {name} lets pods of the namespace reach more, or be reached")))
        }
        None => Ok(()),
    }
}

/// Once no pod of the drill is left. One who may not remove it could not have made it either.
pub(super) async fn take_down(cluster: &Kubernetes, set: &SetName) -> Result<(), PlatformError> {
    let name = names::fence(&set.name);
    match cluster.remove(&policies(cluster, set), &name, &api::background()).await {
        Err(error) if api::code(&error) != 403 => Err(api::failed("remove", format!("NetworkPolicy {name}"), error)),
        _ => Ok(()),
    }
}

fn no(set: &SetName, reason: String) -> PlatformError {
    PlatformError::NotFenced { namespace: set.namespace.clone(), reason }
}

fn policies(cluster: &Kubernetes, set: &SetName) -> Api<NetworkPolicy> {
    Api::namespaced(cluster.client.clone(), &set.namespace)
}

async fn make(cluster: &Kubernetes, set: &SetName) -> Result<(), PlatformError> {
    let policy = policy(set);
    match cluster.make(&policies(cluster, set), &names::fence(&set.name), &policy).await {
        Ok(_) => Ok(()),
        Err(error) if api::code(&error) == 403 => {
            Err(no(set, format!("its NetworkPolicy cannot be made, {OPT_IN}: {}", api::words(&error))))
        }
        Err(error) => Err(api::failed("create", format!("NetworkPolicy {}", names::fence(&set.name)), error)),
    }
}

/// Policies add up: whether this one lets pods of a drill do what theirs does not.
fn opens(policy: &NetworkPolicy, set: &SetName) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let own = [(names::MANAGED_BY, names::MANAGER), (names::DRILL, set.name.as_str())];
    // Those of its controller may have any value.
    let has = |key: &str, value: &str| own.contains(&(key, value)) || CONTROLLERS.contains(&key);
    let has_key = |wanted: &str| own.iter().any(|(key, _)| *key == wanted) || CONTROLLERS.contains(&wanted);
    let selector = spec.pod_selector.clone().unwrap_or_default();
    let selects = selector.match_labels.iter().flatten().all(|(key, value)| has(key, value))
        && selector.match_expressions.iter().flatten().all(|wanted| match wanted.operator.as_str() {
            "In" => wanted.values.iter().flatten().any(|value| has(&wanted.key, value)),
            "Exists" => has_key(&wanted.key),
            "NotIn" => !wanted.values.iter().flatten().any(|value| own.contains(&(wanted.key.as_str(), value.as_str()))),
            "DoesNotExist" => !has_key(&wanted.key),
            _ => true,
        });
    let rules = spec.ingress.iter().flatten().count() + spec.egress.iter().flatten().count();
    selects && rules > 0
}

/// Names are looked up by what the cluster has for that, wherever they point to: what is behind them is out of reach.
fn policy(set: &SetName) -> NetworkPolicy {
    let own = json!({ "podSelector": { "matchLabels": { names::DRILL: set.name } } });
    let dns = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } } });
    api::object(json!({
        "metadata": { "name": names::fence(&set.name), "labels": { names::MANAGED_BY: names::MANAGER, names::DRILL: set.name } },
        "spec": {
            "podSelector": { "matchLabels": { names::DRILL: set.name } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": [own] }],
            "egress": [
                { "to": [own] },
                { "to": [dns], "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }] },
            ],
        },
    }))
}

/// A pod of this very program, with no Secret and nothing else of a mover's.
fn looking(run: &str, set: &SetName, movers: &MoverOptions, owner: Value, placement: Placement) -> Pod {
    let shape = ClaimShape::default();
    let orders =
        Orders { run, set: &set.name, ordinal: 0, job: String::new(), mounts: Vec::new(), shape: &shape, node: None, placement, owner };
    let options = MoverOptions { as_root: false, service_account: None, priority_class: None, ..movers.clone() };
    let mut pod = serde_json::to_value(pod::pod(&orders, &options)).expect("an object always serialises");
    pod["metadata"]["name"] = json!(format!("{}-fence", names::mover(run, 0)));
    pod["metadata"]["labels"][names::DRILL] = json!(set.name);
    let spec = &mut pod["spec"];
    spec["activeDeadlineSeconds"] = json!(MOST_SECONDS);
    spec["terminationGracePeriodSeconds"] = json!(1);
    spec["containers"][0]["args"] = json!(["reach"]);
    spec["containers"][0]["env"] = json!([]);
    spec["containers"][0]["envFrom"] = json!([]);
    for path in ["/volumes", "/containers/0/volumeMounts"] {
        if let Some(list) = spec.pointer_mut(path).and_then(Value::as_array_mut) {
            list.retain(|item| item["name"] != pod::SECRET_FILES);
        }
    }
    api::object(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_lets_everybody_out_is_noticed_and_one_that_holds_everybody_is_none_of_them() {
        let set: SetName = "drills/web".parse().unwrap();
        let opens = |selector: Value, egress: Value| {
            let spec = json!({ "podSelector": selector, "policyTypes": ["Egress"], "egress": egress });
            opens(&api::object(json!({ "metadata": { "name": "p" }, "spec": spec })), &set)
        };
        assert!(opens(json!({}), json!([{}])));
        assert!(!opens(json!({}), json!([])), "what holds all pods is no harm");
        assert!(!opens(json!({ "matchLabels": { "app": "web" } }), json!([{}])), "copies have no label of the original's");
        let expression =
            |key: &str, operator: &str| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": ["web"] }] });
        assert!(opens(expression("app", "NotIn"), json!([{}])) && !opens(expression("app", "In"), json!([{}])));
        assert!(opens(expression(names::DRILL, "In"), json!([{}])));
        assert!(opens(json!({ "matchLabels": { "statefulset.kubernetes.io/pod-name": "web-0" } }), json!([{}])));
    }

    #[test]
    fn the_pod_that_looks_is_fenced_in_as_the_application_will_be_and_knows_no_secret() {
        let set: SetName = "drills/web".parse().unwrap();
        let movers =
            MoverOptions { secret: "keepset".into(), as_root: true, service_account: Some("mover".into()), ..MoverOptions::default() };
        let pod = serde_json::to_value(looking("r", &set, &movers, json!({}), Placement::default())).unwrap();
        let policy = serde_json::to_value(policy(&set)).unwrap();
        assert_eq!(pod["metadata"]["labels"][names::DRILL], policy["spec"]["podSelector"]["matchLabels"][names::DRILL]);
        assert!(!pod.to_string().contains("secretRef") && !pod.to_string().contains("secretName"), "{pod}");
        assert!(pod["spec"].get("serviceAccountName").is_none(), "{pod}");
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["ingress"].as_array().unwrap().len(), 1, "nobody else comes in: {policy}");
    }
}
