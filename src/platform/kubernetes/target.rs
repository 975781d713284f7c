//! Claims as targets of a restore: what is there, what is made, what is taken back.
//!
//! A claim that is being filled carries its run's name as an annotation, which outlives a killed restore.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Preconditions};
use serde_json::{Value, json};

use crate::model::claim::{ClaimId, ClaimPlace, ClaimShape};
use crate::model::mover_job::FillMode;
use crate::model::set::SetName;
use crate::model::set_state::{Room, Target, TargetState, Targets};
use crate::platform::PlatformError;
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::{Kubernetes, api, names, read, stop};

/// How long a mover that was killed may take to be gone.
const LET_GO: Duration = Duration::from_secs(90);

pub(super) async fn read_targets(cluster: &Kubernetes, set: &SetName, claims: &[ClaimId]) -> Result<Targets, PlatformError> {
    let found = read::find(cluster, set).await?;
    let there = match &found {
        Some(found) => found.claims.clone(),
        None => {
            let listed = cluster.list(&cluster.claims(&set.namespace), &ListParams::default()).await;
            listed.map_err(|error| api::failed("list", format!("the claims of {}", set.namespace), error))?
        }
    };
    let mut targets = Targets { place: format!("namespace {}", set.namespace), in_cluster: true, ..Targets::default() };
    let mut names = Vec::new();
    for (number, id) in claims.iter().enumerate() {
        let name = id.name(&set.name);
        let claim = there.iter().find(|claim| claim.metadata.name.as_deref() == Some(&*name));
        targets.claims.push(Target {
            path: format!("{}/{name}", set.namespace),
            state: claim.map_or(TargetState::Absent, state),
            // A claim shares its room with no other.
            room: claim.and_then(capacity).map(|bytes| Room { device: number as u64, bytes }),
            used: 0,
            shape: match (claim, &found) {
                (Some(claim), _) => shape(claim),
                // As large as the set would make it.
                (None, Some(found)) => ClaimShape { capacity: read::wanted(&found.set, &id.template), ..ClaimShape::default() },
                (None, None) => ClaimShape::default(),
            },
            name: name.clone(),
        });
        names.push(name);
    }
    let others = there.iter().filter(|claim| claim.metadata.labels.as_ref().is_none_or(|labels| !labels.contains_key(names::RUN)));
    let mut foreign: Vec<String> = others.filter_map(|claim| claim.metadata.name.clone()).filter(|name| !names.contains(name)).collect();
    foreign.sort();
    targets.foreign = foreign;
    if let Some(found) = &found {
        targets.notes.extend(refuse_fighters(cluster, set).await?);
        let is = stop::running(&found.set);
        let owners = read::owners(&found.set);
        if !owners.is_empty() {
            let note = "may set the number of ordinals back while the set is stopped: suspend it if the restore says so";
            targets.notes.push(format!("{} {note}", owners.join(", ")));
        }
        if is.replicas > 0 {
            targets.notes.push(format!("all {} ordinals of the running set are stopped first", is.replicas));
        }
        targets.running = Some(is);
    } else {
        targets
            .notes
            .push(format!("there is no StatefulSet {set}: its claims are made and filled, and the set that is made later adopts them"));
    }
    Ok(targets)
}

/// A claim is never looked into from outside: one that is there is taken to hold something.
fn state(claim: &PersistentVolumeClaim) -> TargetState {
    let mark = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::HALF_RESTORED));
    match mark {
        _ if claim.metadata.deletion_timestamp.is_some() => TargetState::Obstructed,
        Some(run) => TargetState::HalfRestored(run.clone()),
        None => TargetState::HoldsData,
    }
}

/// What is known of a claim that is there without the set.
fn shape(claim: &PersistentVolumeClaim) -> ClaimShape {
    let spec = claim.spec.clone().unwrap_or_default();
    ClaimShape {
        class: spec.storage_class_name,
        volume_mode: spec.volume_mode,
        capacity: capacity(claim),
        volume: spec.volume_name,
        restored_by: claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::RESTORED_BY).cloned()),
        ..ClaimShape::default()
    }
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<u64> {
    api::bytes(&claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0)
}

/// An autoscaler would start the set again under the restore's hands. A note where nobody may look for one.
async fn refuse_fighters(cluster: &Kubernetes, set: &SetName) -> Result<Option<String>, PlatformError> {
    let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client.clone(), &set.namespace);
    let scalers = match cluster.list(&scalers, &ListParams::default()).await {
        Ok(scalers) => scalers,
        Err(error) if api::code(&error) == 404 => return Ok(None),
        Err(error) if api::code(&error) == 403 => {
            let note =
                "whether an autoscaler scales the set may not be looked up: one that does would start it in the middle of the restore";
            return Ok(Some(note.into()));
        }
        Err(error) => return Err(api::failed("list", "horizontal pod autoscalers", error)),
    };
    let ours = scalers.into_iter().find(|scaler| {
        scaler.spec.as_ref().is_some_and(|spec| spec.scale_target_ref.kind == "StatefulSet" && spec.scale_target_ref.name == set.name)
    });
    match ours {
        Some(scaler) => Err(PlatformError::Autoscaled { set: set.to_string(), scaler: scaler.metadata.name.unwrap_or_default() }),
        None => Ok(None),
    }
}

pub(super) async fn open_claim(cluster: &Kubernetes, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
    let (set, name) = (&claim.set, &claim.name);
    stop::refuse_used(cluster, run, set, name).await?;
    let claims = cluster.claims(&set.namespace);
    let there = cluster.get(&claims, name).await.map_err(|error| api::failed("read", what(claim), error))?;
    match there {
        Some(there) if mode == FillMode::New && !is_made_by(&there, run) => {
            return Err(PlatformError::HoldsData { path: format!("{}/{name}", set.namespace) });
        }
        Some(_) => mark(cluster, claim, json!({ names::HALF_RESTORED: run })).await?,
        None => {
            let found = stop::find_set(cluster, set).await?;
            let made = cluster.make(&claims, name, &claim_of(cluster, run, claim, found.as_ref())).await;
            let made = made.map_err(|error| api::failed("create", what(claim), error))?;
            if !is_made_by(&made, run) {
                return Err(PlatformError::HoldsData { path: format!("{}/{name}", set.namespace) });
            }
        }
    }
    Ok(names::root(name))
}

/// The labels of a claim that is made. What a tool tracks its own objects by is given only by the set that is there: it knows such a claim for
/// the set's, and one without a set would be taken away before the set comes. A drill's claims bear nothing of the original's.
fn labels_of(claim: &ClaimPlace, drill: Option<&str>, found: Option<&StatefulSet>) -> BTreeMap<String, String> {
    if let Some(drill) = drill {
        return [(names::DRILL.to_owned(), drill.to_owned())].into();
    }
    let recorded = claim.shape.labels.iter().filter(|(name, _)| !names::is_tracking(name));
    let mut labels: BTreeMap<String, String> = recorded.map(|(name, value)| (name.clone(), value.clone())).collect();
    if let Some(spec) = found.and_then(|set| set.spec.as_ref()) {
        // As the controller does.
        let mut templates = spec.volume_claim_templates.iter().flatten();
        let template = templates.find(|template| template.metadata.name.as_ref() == Some(&claim.id.template));
        labels.extend(template.and_then(|template| template.metadata.labels.clone()).unwrap_or_default());
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
    }
    labels
}

/// The claim as the set's controller would make it, in the shape that it had.
fn claim_of(cluster: &Kubernetes, run: &str, claim: &ClaimPlace, found: Option<&StatefulSet>) -> PersistentVolumeClaim {
    let shape = &claim.shape;
    let labels = labels_of(claim, cluster.drill.as_deref(), found);
    let mut class = shape.class.as_deref();
    if cluster.drill.is_some() {
        // Its volume goes with it, as a clone's does.
        class = class.map(|class| cluster.clone_class(class));
    }
    let modes = if shape.access_modes.is_empty() { vec!["ReadWriteOnce".to_owned()] } else { shape.access_modes.clone() };
    api::object(json!({
        "metadata": {
            "name": claim.name,
            "labels": labels,
            "annotations": { names::HALF_RESTORED: run, names::MADE_BY: run },
        },
        "spec": {
            "storageClassName": class,
            "accessModes": modes,
            "volumeMode": shape.volume_mode,
            "resources": { "requests": { "storage": shape.capacity.unwrap_or(1 << 30).to_string() } },
        },
    }))
}

pub(super) async fn close_claim(cluster: &Kubernetes, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
    refuse_unmarked(cluster, run, claim).await?;
    mark(cluster, claim, json!({ names::HALF_RESTORED: null, names::RESTORED_BY: run })).await
}

pub(super) async fn abandon_claim(cluster: &Kubernetes, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError> {
    let there = refuse_unmarked(cluster, run, claim).await?;
    let claims = cluster.claims(&claim.set.namespace);
    if !remove || !is_made_by(&there, run) {
        // What held something before is filled again from the safety point, never emptied.
        return Err(PlatformError::NotOurs { claim: claim.name.clone(), place: claim.set.namespace.clone(), run: run.to_owned() });
    }
    let exactly = Preconditions { uid: there.metadata.uid.clone(), resource_version: None };
    let removal = DeleteParams { preconditions: Some(exactly), ..api::background() };
    cluster.remove(&claims, &claim.name, &removal).await.map_err(|error| api::failed("remove", what(claim), error))?;
    // It is there as long as a mover has it.
    let wait = Wait::new(LET_GO);
    loop {
        let left = cluster.get(&claims, &claim.name).await.map_err(|error| api::failed("read", what(claim), error))?;
        if left.is_none_or(|left| left.metadata.uid != there.metadata.uid) {
            return Ok(());
        }
        if !wait.again().await {
            return Err(PlatformError::ClaimHeld { path: what(claim) });
        }
    }
}

/// Refused where the claim was in other hands since the run opened it.
pub(super) async fn refuse_disturbed(cluster: &Kubernetes, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
    refuse_unmarked(cluster, run, claim).await?;
    stop::refuse_used(cluster, run, &claim.set, &claim.name).await
}

/// Refused where the claim is not the one that the run filled and closed.
pub(super) async fn refuse_changed(cluster: &Kubernetes, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
    let there = cluster.get(&cluster.claims(&claim.set.namespace), &claim.name).await;
    let there = there.map_err(|error| api::failed("read", what(claim), error))?;
    let is_as_filled = there.as_ref().is_some_and(|there| {
        let by = there.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::RESTORED_BY));
        by.is_some_and(|by| by == run) && state(there) == TargetState::HoldsData
    });
    if is_as_filled { Ok(()) } else { Err(PlatformError::ClaimChanged { claim: what(claim), run: run.to_owned() }) }
}

fn is_made_by(claim: &PersistentVolumeClaim, run: &str) -> bool {
    claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::MADE_BY)).is_some_and(|by| by == run)
}

/// The claim, if it is `run` that fills it.
async fn refuse_unmarked(cluster: &Kubernetes, run: &str, claim: &ClaimPlace) -> Result<PersistentVolumeClaim, PlatformError> {
    let there = cluster.get(&cluster.claims(&claim.set.namespace), &claim.name).await;
    let there = there.map_err(|error| api::failed("read", what(claim), error))?;
    let is_ours = |claim: &PersistentVolumeClaim| state(claim) == TargetState::HalfRestored(run.to_owned());
    there.filter(is_ours).ok_or_else(|| PlatformError::NotOurs {
        claim: claim.name.clone(),
        place: format!("namespace {}", claim.set.namespace),
        run: run.to_owned(),
    })
}

async fn mark(cluster: &Kubernetes, claim: &ClaimPlace, annotations: Value) -> Result<(), PlatformError> {
    let mut patch = json!({ "metadata": { "annotations": annotations } });
    if cluster.drill.is_none() {
        // A dead drill's, once a restore in earnest has it: no later drill clears it away.
        patch["metadata"]["labels"] = json!({ names::DRILL: null });
    }
    let marked = cluster.change(&cluster.claims(&claim.set.namespace), &claim.name, &patch).await;
    marked.map(|_| ()).map_err(|error| api::failed("mark", what(claim), error))
}

fn what(claim: &ClaimPlace) -> String {
    format!("claim {}/{}", claim.set.namespace, claim.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::Ordinal;

    #[test]
    fn no_tool_takes_a_restored_claim_for_one_of_its_own_that_is_gone() {
        let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let labels = map(&[
            ("app", "web"),
            ("app.kubernetes.io/instance", "shop"),
            ("app.kubernetes.io/managed-by", "Helm"),
            ("app.kubernetes.io/name", "web"),
            ("argocd.argoproj.io/instance", "shop"),
            ("helm.toolkit.fluxcd.io/name", "shop"),
            ("kustomize.toolkit.fluxcd.io/namespace", "flux"),
        ]);
        let claim = ClaimPlace {
            set: "other/web".parse().unwrap(),
            id: ClaimId { ordinal: Ordinal(0), template: "data".into() },
            name: "data-web-0".into(),
            shape: ClaimShape { labels, ..ClaimShape::default() },
        };
        assert_eq!(labels_of(&claim, None, None), map(&[("app", "web"), ("app.kubernetes.io/name", "web")]));
        assert_eq!(labels_of(&claim, Some("web-drill"), None), map(&[(names::DRILL, "web-drill")]));
        let set: StatefulSet = api::object(json!({ "metadata": {}, "spec": {
            "serviceName": "", "template": {},
            "selector": { "matchLabels": { "app.kubernetes.io/instance": "mine" } },
            "volumeClaimTemplates": [
                { "metadata": { "name": "wal", "labels": { "tier": "wal" } }, "spec": {} },
                { "metadata": { "name": "data", "labels": { "tier": "data" } }, "spec": {} },
            ],
        } }));
        let of_set = [("app", "web"), ("app.kubernetes.io/instance", "mine"), ("app.kubernetes.io/name", "web"), ("tier", "data")];
        assert_eq!(labels_of(&claim, None, Some(&set)), map(&of_set));
    }
}
