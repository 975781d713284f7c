//! Reads a set from the API server: its identity is built from claim templates and ordinals, never from what names look like.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};
use serde_json::Value;

use crate::model::claim::{ClaimId, ClaimShape};
use crate::model::manifest::{Consistency, SetRecord};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{ClaimState, PodState, SetState};
use crate::platform::PlatformError;
use crate::platform::kubernetes::{Kubernetes, api, cut, journal, names};

/// A set and what stands around it, as the API server told it in one go.
pub(super) struct Found {
    pub set: StatefulSet,
    /// All claims of the namespace.
    pub claims: Vec<PersistentVolumeClaim>,
    /// All pods of the namespace.
    pub pods: Vec<Pod>,
}

pub(super) async fn read_set(cluster: &Kubernetes, set: &SetName) -> Result<SetState, PlatformError> {
    let found = find(cluster, set).await?.ok_or_else(|| PlatformError::NoSet { set: set.to_string() })?;
    let mut state = state(&cluster.options.cluster, set, &found);
    let ways = cut::ways(cluster, set, Some(&found)).await?;
    let (offers, note) = cut::offers(&found, &state, &ways);
    state.offers = offers;
    state.notes.extend(note);
    if matches!(offers, Consistency::Group | Consistency::Volume) {
        state.notes.extend(ways.leaks(&state));
        state.notes.extend(kept_clones(cluster, &state).await?);
    }
    state.set.objects = objects(cluster, set, &found.set).await?;
    (state.open_restore, state.last_restore) = journal::runs(cluster, set).await?;
    Ok(state)
}

/// Clones of CSI snapshots whose volumes would outlive them.
async fn kept_clones(cluster: &Kubernetes, state: &SetState) -> Result<Vec<String>, PlatformError> {
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let of_claims = state.claims.iter().filter_map(|claim| claim.shape.class.as_deref());
    let names: BTreeSet<&str> = of_claims.map(|class| cluster.clone_class(class)).collect();
    let mut notes = Vec::new();
    for name in names {
        match cluster.get(&classes, name).await {
            Ok(Some(class)) if class.reclaim_policy.as_deref() == Some("Retain") => notes.push(format!(
                "class {name} keeps volumes when their claims are removed (reclaimPolicy: Retain): those of this backup's clones too; kubernetes.cloneClasses in the settings names another for them"
            )),
            Ok(_) => {}
            // Nothing depends on it.
            Err(error) if api::code(&error) == 403 => return Ok(notes),
            Err(error) => return Err(api::failed("read", format!("StorageClass {name}"), error)),
        }
    }
    Ok(notes)
}

/// `None` where the namespace has no such set.
pub(super) async fn find(cluster: &Kubernetes, set: &SetName) -> Result<Option<Found>, PlatformError> {
    let (sets, claims, pods) = (cluster.sets(&set.namespace), cluster.claims(&set.namespace), cluster.pods(&set.namespace));
    let all = ListParams::default();
    let (found, claims, pods) = tokio::join!(cluster.get(&sets, &set.name), cluster.list(&claims, &all), cluster.list(&pods, &all));
    let Some(found) = found.map_err(|error| api::failed("read", format!("StatefulSet {set}"), error))? else { return Ok(None) };
    let claims = claims.map_err(|error| api::failed("list", format!("the claims of {}", set.namespace), error))?;
    let pods = pods.map_err(|error| api::failed("list", format!("the pods of {}", set.namespace), error))?;
    Ok(Some(Found { set: found, claims, pods }))
}

/// The set's own claims.
pub(super) fn claims<'f>(set: &SetName, found: &'f Found) -> Vec<&'f PersistentVolumeClaim> {
    let templates = templates(&found.set);
    let is_own = |claim: &&PersistentVolumeClaim| {
        let name = claim.metadata.name.as_deref();
        name.is_some_and(|name| claim_of(name, set, &templates).is_some())
    };
    found.claims.iter().filter(is_own).collect()
}

/// As [`find`], without what stands around it.
pub(super) async fn find_alone(cluster: &Kubernetes, set: &SetName) -> Result<Option<Found>, PlatformError> {
    let found = cluster.get(&cluster.sets(&set.namespace), &set.name).await;
    let found = found.map_err(|error| api::failed("read", format!("StatefulSet {set}"), error))?;
    Ok(found.map(|set| Found { set, claims: Vec::new(), pods: Vec::new() }))
}

/// Pure: the set's identity and its claims.
pub(super) fn state(cluster: &str, set: &SetName, found: &Found) -> SetState {
    let spec = found.set.spec.clone().unwrap_or_default();
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).map_or(0, |start| start.max(0).unsigned_abs());
    let replicas = spec.replicas.map_or(1, |replicas| replicas.max(0).unsigned_abs());
    let templates = templates(&found.set);
    let in_range = |ordinal: u32| ordinal >= start && ordinal - start < replicas;

    let mut there: BTreeMap<ClaimId, &PersistentVolumeClaim> = BTreeMap::new();
    let mut foreign = Vec::new();
    for claim in &found.claims {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        match claim_of(name, set, &templates) {
            Some(id) => drop(there.insert(id, claim)),
            // A run's own clones are nobody's data.
            None if claim.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(names::RUN)) => {}
            None => foreign.push(name.to_owned()),
        }
    }
    foreign.sort();
    let expected = (0..replicas)
        .flat_map(|number| templates.iter().map(move |template| ClaimId { ordinal: Ordinal(start + number), template: template.clone() }));
    let mut ids: Vec<ClaimId> = there.keys().cloned().chain(expected).collect();
    ids.sort();
    ids.dedup();

    let mut notes = set_notes(&found.set);
    let claims = ids
        .into_iter()
        .map(|id| {
            let name = id.name(&set.name);
            let claim = there.get(&id);
            let (bound, note) = claim.map_or((false, None), |claim| bound(&name, claim));
            notes.extend(note);
            ClaimState {
                source: bound.then(|| names::root(&name)),
                empty: false,
                shape: claim.map(|claim| shape(&found.set, claim, found, &id)).unwrap_or_default(),
                retained: !in_range(id.ordinal.0),
                half_restored: claim.and_then(|claim| claim.metadata.annotations.as_ref()?.get(names::HALF_RESTORED).cloned()),
                name,
                id,
            }
        })
        .collect();
    let record = SetRecord {
        cluster: cluster.to_owned(),
        namespace: set.namespace.clone(),
        name: set.name.clone(),
        uid: found.set.metadata.uid.clone(),
        generation: found.set.metadata.generation,
        start,
        replicas,
        pod_management_policy: spec.pod_management_policy,
        service_name: spec.service_name,
        templates,
        objects: Vec::new(),
    };
    SetState { set: record, claims, foreign, notes, pods: Some(pods(set, found)), ..SetState::default() }
}

/// The set's own pods, by their names and their controller.
fn pods(set: &SetName, found: &Found) -> Vec<PodState> {
    let owned =
        |pod: &&Pod| pod.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == found.set.metadata.uid.as_ref());
    let mut pods: Vec<PodState> = found.pods.iter().filter(owned).filter_map(|pod| pod_of(set, pod, &templates(&found.set))).collect();
    pods.sort_by_key(|pod| pod.ordinal);
    pods
}

fn pod_of(set: &SetName, pod: &Pod, templates: &[String]) -> Option<PodState> {
    let name = pod.metadata.name.clone()?;
    let ordinal = Ordinal(name.strip_prefix(set.name.as_str())?.strip_prefix('-')?.parse().ok()?);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let annotations = pod.metadata.annotations.iter().flatten();
    let of_others = |name: &str| name.contains("velero.io/") || name.contains("k8up.io/");
    Some(PodState {
        ordinal,
        name,
        running: phase == Some("Running") && pod.metadata.deletion_timestamp.is_none(),
        containers: pod.spec.as_ref().map(|spec| containers(spec, usual(pod, spec, templates))).unwrap_or_default(),
        annotations: annotations.filter(|(name, _)| of_others(name)).map(|(name, value)| (name.clone(), value.clone())).collect(),
    })
}

/// The annotation by which kubectl too knows which container is meant where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The container that is meant where none is named: a mesh may have put its proxy before the application.
fn usual<'p>(pod: &'p Pod, spec: &'p PodSpec, templates: &[String]) -> Option<&'p str> {
    let said = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    let said = said.and_then(|said| runnable(spec).find(|container| container.name == *said));
    said.or_else(|| templates.iter().find_map(|template| who_mounts(spec, template))).map(|container| &*container.name)
}

/// All containers in which a command can be run, `first` before the others.
fn containers(spec: &PodSpec, first: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = runnable(spec).map(|container| container.name.clone()).collect();
    names.sort_by_key(|name| first != Some(name));
    names
}

/// Containers that run as long as the pod does: its own, and init containers that are sidecars.
fn runnable(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(is_sidecar))
}

/// In the set's own order.
pub(super) fn templates(set: &StatefulSet) -> Vec<String> {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.filter_map(|template| template.metadata.name.clone()).collect()
}

/// The claim's identity in the set, if it is one of the set's: one of its templates, its name, and an ordinal as Kubernetes writes it.
pub(super) fn claim_of(claim: &str, set: &SetName, templates: &[String]) -> Option<ClaimId> {
    templates.iter().find_map(|template| {
        let digits = claim.strip_prefix(template.as_str())?.strip_prefix('-')?.strip_prefix(set.name.as_str())?.strip_prefix('-')?;
        let ordinal: u32 = digits.parse().ok()?;
        (ordinal.to_string() == digits).then(|| ClaimId { ordinal: Ordinal(ordinal), template: template.clone() })
    })
}

/// Whether the claim has a volume, and what a user should know of it.
fn bound(name: &str, claim: &PersistentVolumeClaim) -> (bool, Option<String>) {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if phase != "Bound" {
        return (false, Some(format!("claim {name} has no volume: it is {phase}")));
    }
    let deleted = claim.metadata.deletion_timestamp.is_some();
    (true, deleted.then(|| format!("claim {name} is being deleted, and is there only as long as something uses it")))
}

/// What is unusual about the set itself.
fn set_notes(set: &StatefulSet) -> Vec<String> {
    let mut notes = Vec::new();
    let status = set.status.clone().unwrap_or_default();
    let behind = status.observed_generation.is_some_and(|seen| set.metadata.generation.is_some_and(|is| seen < is));
    if behind || (status.update_revision.is_some() && status.current_revision != status.update_revision) {
        notes.push("a rollout is under way: ordinals run different revisions".into());
    }
    if set.metadata.deletion_timestamp.is_some() {
        notes.push("the set is being deleted".into());
    }
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = status.ready_replicas.unwrap_or(0);
    if ready < wanted {
        notes.push(format!("{ready} of {wanted} ordinals are ready"));
    }
    notes
}

/// Who else may have a word in how many ordinals the set has: named, so that a user can hold them back.
pub(super) fn owners(set: &StatefulSet) -> Vec<String> {
    let meta = &set.metadata;
    let mut owners: Vec<String> = meta
        .owner_references
        .iter()
        .flatten()
        .filter(|owner| owner.controller == Some(true))
        .map(|owner| format!("{} {}", owner.kind, owner.name))
        .collect();
    let marks = meta.labels.iter().flatten().chain(meta.annotations.iter().flatten());
    for (mark, name) in marks {
        let tool = match mark.as_str() {
            "argocd.argoproj.io/instance" | "argocd.argoproj.io/tracking-id" => "Argo CD application",
            "kustomize.toolkit.fluxcd.io/name" => "Flux Kustomization",
            "helm.toolkit.fluxcd.io/name" => "Flux HelmRelease",
            _ => continue,
        };
        owners.push(format!("{tool} {}", name.split(':').next().unwrap_or(name)));
    }
    owners.sort();
    owners.dedup();
    owners
}

fn shape(set: &StatefulSet, claim: &PersistentVolumeClaim, found: &Found, id: &ClaimId) -> ClaimShape {
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let pod_name = format!("{}-{}", set.metadata.name.as_deref().unwrap_or_default(), id.ordinal);
    let pod = found.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(&*pod_name));
    let has = status.capacity.as_ref().and_then(|capacity| api::bytes(&capacity.get("storage")?.0));
    let capacity = [wanted(set, &id.template), asked(&spec), has].into_iter().flatten().max();
    ClaimShape {
        class: spec.storage_class_name,
        access_modes: spec.access_modes.unwrap_or_default(),
        volume_mode: spec.volume_mode,
        capacity,
        volume: spec.volume_name,
        restored_by: claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::RESTORED_BY).cloned()),
        labels: claim.metadata.labels.clone().unwrap_or_default(),
        node: pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone()),
        ..run_as(set, &id.template)
    }
}

/// Bytes that the set asks for in claims of this template.
pub(super) fn wanted(set: &StatefulSet, template: &str) -> Option<u64> {
    let mut templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let template = templates.find(|other| other.metadata.name.as_deref() == Some(template))?;
    asked(template.spec.as_ref()?)
}

fn asked(spec: &PersistentVolumeClaimSpec) -> Option<u64> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage").and_then(|quantity| api::bytes(&quantity.0))
}

/// As whom the set's pods work on the volumes of this template.
pub(super) fn run_as(set: &StatefulSet, template: &str) -> ClaimShape {
    let Some(pod) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return ClaimShape::default() };
    let security = pod.security_context.clone().unwrap_or_default();
    let own = who_mounts(pod, template).and_then(|container| container.security_context.clone()).unwrap_or_default();
    ClaimShape {
        uid: own.run_as_user.or(security.run_as_user),
        gid: own.run_as_group.or(security.run_as_group),
        fs_group: security.fs_group,
        groups: security.supplemental_groups.unwrap_or_default(),
        ..ClaimShape::default()
    }
}

/// The container that works on the volumes of this template.
pub(super) fn who_mounts<'p>(pod: &'p PodSpec, template: &str) -> Option<&'p Container> {
    pod.containers.iter().find(|container| {
        let mounts = container.volume_mounts.iter().flatten().any(|mount| mount.name == template);
        mounts || container.volume_devices.iter().flatten().any(|device| device.name == template)
    })
}

/// The set and its Service as a user would write them: without what the server added.
async fn objects(cluster: &Kubernetes, set: &SetName, found: &StatefulSet) -> Result<Vec<Value>, PlatformError> {
    let mut objects = vec![stripped("apps/v1", "StatefulSet", serde_json::to_value(found).unwrap_or_default())];
    if let Some(name) = found.spec.as_ref().and_then(|spec| spec.service_name.as_deref()).filter(|name| !name.is_empty()) {
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), &set.namespace);
        match cluster.get(&services, name).await {
            Ok(Some(service)) => objects.push(stripped("v1", "Service", serde_json::to_value(service).unwrap_or_default())),
            Ok(None) => {}
            Err(error) if api::code(&error) == 403 => tracing::info!(service = name, "it may not be read, and is not recorded"),
            Err(error) => return Err(api::failed("read", format!("Service {name}"), error)),
        }
    }
    Ok(objects)
}

fn stripped(version: &str, kind: &str, mut object: Value) -> Value {
    let mut meta = serde_json::Map::new();
    for key in ["name", "namespace", "labels", "annotations"] {
        if let Some(value) = object["metadata"].get(key) {
            meta.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(Value::Object(annotations)) = meta.get_mut("annotations") {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let mut spec = object["spec"].take();
    if let Some(spec) = spec.as_object_mut() {
        // Addresses belong to the cluster; that there is none belongs to the Service.
        if spec.get("clusterIP").is_some_and(|ip| ip != "None") {
            spec.remove("clusterIP");
        }
        spec.remove("clusterIPs");
    }
    for template in spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(template) = template.as_object_mut() {
            template.remove("status");
        }
    }
    serde_json::json!({ "apiVersion": version, "kind": kind, "metadata": meta, "spec": spec })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn web() -> SetName {
        "shop/web".parse().unwrap()
    }

    fn set(change: impl FnOnce(&mut Value)) -> StatefulSet {
        let mut set = json!({
            "metadata": { "name": "web", "uid": "u-1", "generation": 4 },
            "spec": {
                "replicas": 2, "ordinals": { "start": 9 }, "serviceName": "web", "podManagementPolicy": "Parallel",
                "selector": { "matchLabels": { "app": "web" } },
                "template": { "spec": {
                    "securityContext": { "runAsUser": 70, "fsGroup": 71 },
                    "containers": [
                        { "name": "side", "image": "x" },
                        { "name": "db", "image": "x", "securityContext": { "runAsUser": 72 }, "volumeMounts": [{ "name": "data", "mountPath": "/d" }] },
                    ],
                } },
                "volumeClaimTemplates": [
                    { "metadata": { "name": "data" }, "spec": { "resources": { "requests": { "storage": "1Gi" } } } },
                    { "metadata": { "name": "wal" }, "spec": {} },
                ],
            },
        });
        change(&mut set);
        api::object(set)
    }

    fn claim(name: &str, phase: &str) -> PersistentVolumeClaim {
        api::object(json!({
            "metadata": { "name": name, "labels": { "app": "web" } },
            "spec": { "storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "2Gi" } } },
            "status": { "phase": phase, "capacity": { "storage": "3Gi" } },
        }))
    }

    fn found(claims: &[(&str, &str)]) -> Found {
        Found { set: set(|_| ()), claims: claims.iter().map(|(name, phase)| claim(name, phase)).collect(), pods: Vec::new() }
    }

    #[test]
    fn claims_are_built_from_templates_and_ordinals_as_numbers() {
        let there = ["data-web-9", "wal-web-9", "data-web-10", "data-web-11", "data-web-1-0", "data-web-09", "data-db-9", "log-web-9"];
        let found = found(&there.map(|name| (name, "Bound")));
        let state = state("here", &web(), &found);
        let names: Vec<(&str, bool, bool)> =
            state.claims.iter().map(|claim| (claim.name.as_str(), claim.source.is_some(), claim.retained)).collect();
        assert_eq!(
            names,
            [
                ("data-web-9", true, false),
                ("wal-web-9", true, false),
                ("data-web-10", true, false),
                ("wal-web-10", false, false),
                ("data-web-11", true, true),
            ]
        );
        assert_eq!(state.foreign, ["data-db-9", "data-web-09", "data-web-1-0", "log-web-9"]);
        assert_eq!((state.set.start, state.set.replicas, state.set.uid.as_deref()), (9, 2, Some("u-1")));
    }

    #[test]
    fn a_set_whose_name_ends_in_a_number_keeps_its_claims_from_its_neighbours() {
        let set: SetName = "shop/web-1".parse().unwrap();
        assert_eq!(claim_of("data-web-1-0", &set, &["data".into()]).map(|id| id.ordinal.0), Some(0));
        assert_eq!(claim_of("data-web-1-0", &web(), &["data".into()]), None);
        assert_eq!(claim_of("data-web-1", &web(), &["data".into()]).map(|id| id.ordinal.0), Some(1));
    }

    #[test]
    fn pods_are_the_sets_own_with_what_they_say_to_backup_tools() {
        let pod = |name: &str, owner: &str, phase: &str| -> Pod {
            api::object(json!({
                "metadata": {
                    "name": name, "annotations": { "team": "a", "pre.hook.backup.velero.io/command": "/sync" },
                    "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": owner }],
                },
                "spec": { "containers": [{ "name": "db", "image": "x" }, { "name": "side", "image": "x" }] },
                "status": { "phase": phase },
            }))
        };
        let pods = vec![pod("web-10", "u-1", "Running"), pod("web-9", "u-1", "Pending"), pod("web-11", "another", "Running")];
        let state = state("here", &web(), &Found { pods, ..found(&[]) });
        let pods = state.pods.unwrap();
        assert_eq!(pods.iter().map(|pod| (pod.name.as_str(), pod.running)).collect::<Vec<_>>(), [("web-9", false), ("web-10", true)]);
        assert_eq!(pods[0].containers, ["db", "side"]);
        assert_eq!(pods[0].annotations.keys().collect::<Vec<_>>(), ["pre.hook.backup.velero.io/command"]);
    }

    #[test]
    fn a_hook_without_a_container_goes_where_the_claim_is_mounted() {
        let first = |change: &dyn Fn(&mut Value)| {
            let mut pod = json!({
                "metadata": { "name": "web-9" },
                "spec": {
                    "initContainers": [{ "name": "chown", "image": "x" }, { "name": "agent", "image": "x", "restartPolicy": "Always" }],
                    "containers": [
                        { "name": "istio-proxy", "image": "x" },
                        { "name": "db", "image": "x", "volumeMounts": [{ "name": "data", "mountPath": "/d" }] },
                    ],
                },
            });
            change(&mut pod);
            pod_of(&web(), &api::object(pod), &["wal".into(), "data".into()]).unwrap().containers
        };
        assert_eq!(first(&|_| {}), ["db", "istio-proxy", "agent"], "init containers that end are none");
        let says = |name: &'static str| move |pod: &mut Value| pod["metadata"]["annotations"] = json!({ DEFAULT_CONTAINER: name });
        assert_eq!(first(&says("istio-proxy"))[0], "istio-proxy");
        assert_eq!(first(&says("agent"))[0], "agent");
        assert_eq!(first(&says("chown"))[0], "db", "no command can be run there");
        let unmounted = first(&|pod| pod["spec"]["containers"][1]["volumeMounts"] = json!([]));
        assert_eq!(unmounted, ["istio-proxy", "db", "agent"]);
    }

    #[test]
    fn a_claim_without_a_volume_is_missing_and_one_that_goes_is_told() {
        let mut found = found(&[("data-web-9", "Pending"), ("wal-web-9", "Bound")]);
        found.claims[1].metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        let state = state("here", &web(), &found);
        assert_eq!(state.claims[0].source, None);
        assert!(state.claims[1].source.is_some());
        let notes = state.notes.join("\n");
        assert!(notes.contains("data-web-9 has no volume") && notes.contains("wal-web-9 is being deleted"), "{notes}");
    }

    #[test]
    fn a_shape_has_the_largest_size_and_the_user_who_mounts_the_volume() {
        let found = found(&[("data-web-9", "Bound"), ("wal-web-9", "Bound")]);
        let state = state("here", &web(), &found);
        let shape = &state.claims[0].shape;
        assert_eq!((shape.capacity, shape.class.as_deref()), (Some(3 << 30), Some("fast")));
        assert_eq!((shape.uid, shape.gid, shape.fs_group), (Some(72), None, Some(71)));
        assert_eq!(state.claims[1].shape.uid, Some(70), "nobody mounts it, so the pod's own user");
    }

    #[test]
    fn whoever_may_fight_over_the_number_of_ordinals_is_named() {
        let set = set(|set| {
            set["metadata"]["labels"] = json!({ "kustomize.toolkit.fluxcd.io/name": "shop" });
            set["metadata"]["ownerReferences"] =
                json!([{ "apiVersion": "v1", "kind": "Cluster", "name": "pg", "uid": "x", "controller": true }]);
        });
        assert_eq!(owners(&set), ["Cluster pg", "Flux Kustomization shop"]);
    }

    #[test]
    fn recorded_objects_have_nothing_of_the_server() {
        let set = set(|set| {
            set["status"] = json!({ "replicas": 2 });
            set["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a" });
        });
        let object = stripped("apps/v1", "StatefulSet", serde_json::to_value(set).unwrap());
        assert_eq!(object["metadata"], json!({ "name": "web", "annotations": { "team": "a" } }));
        assert!(object.get("status").is_none() && object["spec"]["replicas"] == 2);
    }
}
