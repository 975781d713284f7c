//! Stops a set for a restore, so that nobody uses its claims, and gives back what that took.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{ClaimRetention, SetRun};
use crate::platform::PlatformError;
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::mover::{claims_of, has_ended};
use crate::platform::kubernetes::patience::Asked;
use crate::platform::kubernetes::read::Found;
use crate::platform::kubernetes::{Kubernetes, api, names, read};

/// Pods that do not even begin to end for so long are held up by a sick one, and are removed: their ordinals are out of range.
const STALLED: Duration = Duration::from_secs(45);

/// How the set runs now; `None` where there is none.
pub(super) fn running(set: &StatefulSet) -> SetRun {
    let spec = set.spec.clone().unwrap_or_default();
    SetRun {
        start: spec.ordinals.and_then(|ordinals| ordinals.start).map_or(0, |start| start.max(0).unsigned_abs()),
        replicas: spec.replicas.map_or(1, |replicas| replicas.max(0).unsigned_abs()),
        at_once: spec.pod_management_policy.as_deref() == Some("Parallel"),
        retention: spec
            .persistent_volume_claim_retention_policy
            .map(|policy| ClaimRetention { when_deleted: policy.when_deleted, when_scaled: policy.when_scaled }),
    }
}

pub(super) async fn stop(cluster: &Kubernetes, set: &SetName, claims: &[String]) -> Result<(), PlatformError> {
    let claims: BTreeSet<&str> = claims.iter().map(String::as_str).collect();
    let in_use = |pods: &[&Pod], seconds| {
        let pods = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>().join(", ");
        PlatformError::InUse { set: set.to_string(), pods, seconds }
    };
    if let Some(found) = find_set(cluster, set).await? {
        // Whoever else uses a claim will go on doing so: better found out before the set is down.
        let pods = list_pods(cluster, set).await?;
        let strangers: Vec<&Pod> = pods.iter().filter(|pod| uses(pod, &claims) && !is_of(pod, &found) && !is_mover(pod)).collect();
        if !strangers.is_empty() {
            return Err(in_use(&strangers, 0));
        }
        keep_claims(cluster, set, &found).await?;
        scale(cluster, set, 0).await?;
    }
    let wait = Wait::new(cluster.options.deadline);
    let (mut moved, mut fewest) = (Instant::now(), usize::MAX);
    loop {
        // A set that was deleted with its pods left alone has no less of them.
        let found = find_set(cluster, set).await?;
        if let Some(found) = &found {
            refuse_scaled(set, found)?;
        }
        let pods = list_pods(cluster, set).await?;
        let is_own = |pod: &Pod| found.as_ref().is_some_and(|found| is_of(pod, found));
        let left: Vec<&Pod> = pods.iter().filter(|pod| is_own(pod) || uses(pod, &claims)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if left.len() < fewest || left.iter().any(|pod| pod.metadata.deletion_timestamp.is_some()) {
            (moved, fewest) = (Instant::now(), left.len());
        }
        if moved.elapsed() > STALLED {
            for pod in left.iter().filter(|pod| is_own(pod)) {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let ended = cluster.remove(&cluster.pods(&set.namespace), &name, &api::background()).await;
                ended.map_err(|error| api::failed("end", &name, error))?;
            }
        }
        if !wait.again().await {
            return Err(in_use(&left, cluster.options.deadline.as_secs()));
        }
    }
}

/// A set that deletes the claims of ordinals it gives up would take the very data that is to be replaced, and the way back.
async fn keep_claims(cluster: &Kubernetes, set: &SetName, found: &StatefulSet) -> Result<(), PlatformError> {
    let policy = running(found).retention.unwrap_or_default();
    if policy.when_scaled.as_deref().is_none_or(|policy| policy == "Retain") {
        return Ok(());
    }
    let patched =
        patch_set(cluster, set, &json!({ "spec": { "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Retain" } } })).await?;
    let generation = patched.metadata.generation;
    let wait = Wait::new(cluster.options.patience);
    loop {
        let Some(found) = read::find(cluster, set).await? else { return Ok(()) };
        let seen = found.set.status.as_ref().and_then(|status| status.observed_generation) >= generation;
        if seen && !go_with_pods(set, &found) {
            return Ok(());
        }
        if !wait.again().await {
            return Err(PlatformError::ClaimsOwned { set: set.to_string(), seconds: cluster.options.patience.as_secs() });
        }
    }
}

/// Claims of the set would be deleted with one of its pods.
fn go_with_pods(set: &SetName, found: &Found) -> bool {
    let templates = read::templates(&found.set);
    let is_own =
        |claim: &&PersistentVolumeClaim| claim.metadata.name.as_deref().is_some_and(|name| read::claim_of(name, set, &templates).is_some());
    let mut owners = found.claims.iter().filter(is_own).flat_map(|claim| claim.metadata.owner_references.iter().flatten());
    owners.any(|owner| owner.kind == "Pod")
}

async fn patch_set(cluster: &Kubernetes, set: &SetName, patch: &serde_json::Value) -> Result<StatefulSet, PlatformError> {
    let patched = cluster.change(&cluster.sets(&set.namespace), &set.name, patch).await;
    patched.map_err(|error| api::failed("change", format!("StatefulSet {set}"), error))
}

async fn scale(cluster: &Kubernetes, set: &SetName, replicas: u32) -> Result<(), PlatformError> {
    let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let sets = cluster.sets(&set.namespace);
    let scaled = cluster.ask(Asked::Repeatable, || sets.patch_scale(&set.name, &params, &patch)).await;
    scaled.map(|_| ()).map_err(|error| api::failed("scale", format!("StatefulSet {set}"), error))
}

/// Makes the set at least as large; several at once, and others, may do so too.
pub(super) async fn grow(cluster: &Kubernetes, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
    let wait = Wait::new(cluster.options.patience);
    loop {
        let found = find_set(cluster, set).await?.ok_or_else(|| PlatformError::NoSet { set: set.to_string() })?;
        let is = running(&found);
        let wanted = ordinal.0.saturating_sub(is.start).saturating_add(1);
        if is.replicas >= wanted {
            return Ok(());
        }
        // For this version alone: the last of several writes would else make the set smaller than an earlier one did.
        let patch = json!({ "metadata": { "resourceVersion": found.metadata.resource_version }, "spec": { "replicas": wanted } });
        match patch_set(cluster, set, &patch).await {
            Err(PlatformError::Cluster { code: 409, .. }) if wait.again().await => {}
            grown => return grown.map(|_| ()),
        }
    }
}

/// Somebody else has a word in how many ordinals there are, and has said it.
pub(super) fn refuse_scaled(set: &SetName, found: &StatefulSet) -> Result<(), PlatformError> {
    let replicas = running(found).replicas;
    if replicas == 0 {
        return Ok(());
    }
    Err(PlatformError::ScaledBack { set: set.to_string(), replicas, owners: read::owners(found).join(", ") })
}

/// The pod is one of the set's own.
fn is_of(pod: &Pod, set: &StatefulSet) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// The pod may still write to one of the claims.
fn uses(pod: &Pod, claims: &BTreeSet<&str>) -> bool {
    !has_ended(pod) && claims_of(pod).any(|claim| claims.contains(claim))
}

/// Refused where anybody uses one of the claims; by the set's own pods only where it runs again.
pub(super) async fn refuse_restarted(cluster: &Kubernetes, set: &SetName, claims: &BTreeSet<&str>) -> Result<(), PlatformError> {
    let used = refuse_users(cluster, set, claims, |_| false).await;
    if used.is_err()
        && let Some(found) = find_set(cluster, set).await?
    {
        refuse_scaled(set, &found)?;
    }
    used
}

/// Refused where anybody but movers of the run uses the claim, or the set runs again.
pub(super) async fn refuse_used(cluster: &Kubernetes, run: &str, set: &SetName, claim: &str) -> Result<(), PlatformError> {
    if let Some(found) = find_set(cluster, set).await? {
        refuse_scaled(set, &found)?;
    }
    let is_ours = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::RUN)).is_some_and(|of| of == run);
    refuse_users(cluster, set, &BTreeSet::from([claim]), is_ours).await
}

/// Refused where a pod that is none of `ours` may write to one of the claims.
async fn refuse_users(
    cluster: &Kubernetes,
    set: &SetName,
    claims: &BTreeSet<&str>,
    ours: impl Fn(&Pod) -> bool,
) -> Result<(), PlatformError> {
    let pods = list_pods(cluster, set).await?;
    match pods.iter().find(|pod| uses(pod, claims) && !ours(pod)) {
        Some(pod) => {
            let pods = pod.metadata.name.clone().unwrap_or_default();
            Err(PlatformError::InUse { set: set.to_string(), pods, seconds: 0 })
        }
        None => Ok(()),
    }
}

fn is_mover(pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(names::RUN))
}

/// In one write: a set that has its old policy for a moment while its ordinals are still given up would lose the claims of those that end.
pub(super) async fn give_back(cluster: &Kubernetes, set: &SetName, was: &SetRun, replicas: Option<u32>) -> Result<(), PlatformError> {
    let Some(found) = find_set(cluster, set).await? else { return Ok(()) };
    let is = running(&found);
    let mut spec = serde_json::Map::new();
    if let Some(policy) = was.retention.as_ref().filter(|policy| is.retention.as_ref() != Some(policy)) {
        let policy = json!({ "whenDeleted": policy.when_deleted, "whenScaled": policy.when_scaled });
        spec.insert("persistentVolumeClaimRetentionPolicy".into(), policy);
    }
    if let Some(replicas) = replicas.filter(|replicas| *replicas != is.replicas) {
        spec.insert("replicas".into(), json!(replicas));
    }
    if spec.is_empty() {
        return Ok(());
    }
    patch_set(cluster, set, &json!({ "spec": spec })).await.map(|_| ())
}

pub(super) async fn find_set(cluster: &Kubernetes, set: &SetName) -> Result<Option<StatefulSet>, PlatformError> {
    let found = cluster.get(&cluster.sets(&set.namespace), &set.name).await;
    found.map_err(|error| api::failed("read", format!("StatefulSet {set}"), error))
}

async fn list_pods(cluster: &Kubernetes, set: &SetName) -> Result<Vec<Pod>, PlatformError> {
    let listed = cluster.list(&cluster.pods(&set.namespace), &ListParams::default()).await;
    listed.map_err(|error| api::failed("list", format!("the pods of {}", set.namespace), error))
}
