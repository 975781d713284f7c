//! What a restore makes that is not there: claims in their shape, and the set itself as the point recorded it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::model::claim::ClaimShape;
use crate::model::set::SetName;
use crate::model::set_state::{SetRun, Target, TargetState, Targets};
use crate::repository::points::StoredPoint;
use crate::restore::options::RestoreOptions;
use crate::restore::plan::Chosen;
use crate::restore::refusal::Refusal;

/// A claim that is made has at least the room that it had, and that the set which is there wants it to have.
pub(super) fn shape(mut shape: ClaimShape, target: &Target, map_class: &BTreeMap<String, String>) -> ClaimShape {
    if target.state == TargetState::Absent {
        shape.capacity = shape.capacity.max(target.shape.capacity);
        if let Some(class) = shape.class.as_ref().and_then(|class| map_class.get(class)) {
            shape.class = Some(class.clone());
        }
    }
    shape
}

/// What there is to know of classes that are mapped. A class that no claim has was meant to be another.
pub(super) fn class_notes(
    point: &StoredPoint,
    chosen: &[Chosen],
    targets: &Targets,
    options: &RestoreOptions,
) -> Result<Vec<String>, Refusal> {
    let has: BTreeSet<&str> = chosen.iter().filter_map(|claim| claim.shape.class.as_deref()).collect();
    if let Some(class) = options.map_class.keys().find(|class| !has.contains(class.as_str())) {
        let has = has.into_iter().map(str::to_owned).collect();
        return Err(Refusal::NoSuchClass { point: point.point.id.short(), class: class.clone(), has });
    }
    let is_made = |class: &str| {
        let mut both = chosen.iter().zip(&targets.claims);
        both.any(|(claim, target)| claim.shape.class.as_deref() == Some(class) && target.state == TargetState::Absent)
    };
    let mapped = options.map_class.iter().filter(|(from, _)| is_made(from));
    let templates = if targets.running.is_some() { "; the set's own templates stay as they are" } else { "" };
    Ok(mapped.map(|(from, to)| format!("claims of class {from} are made in class {to}{templates}")).collect())
}

/// The set and its Service, for the API server: in their namespace, the set at 0.
pub(super) fn objects(point: &StoredPoint, to: &SetName, map_class: &BTreeMap<String, String>) -> Result<Vec<Value>, Refusal> {
    let from = &point.point.set;
    if from.name != to.name {
        return Err(Refusal::CreateRenamed { from: from.name.clone(), to: to.name.clone() });
    }
    let recorded = &point.manifest.set.objects;
    let of_kind = |kind: &str| recorded.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
    let (mut objects, sets) = (of_kind("Service"), of_kind("StatefulSet"));
    match sets.as_slice() {
        [set] if set["metadata"]["name"] == to.name.as_str() => {}
        _ => return Err(Refusal::NoObjects { point: point.point.id.short() }),
    }
    objects.extend(sets);
    for object in &mut objects {
        object["metadata"]["namespace"] = json!(to.namespace);
        if object["kind"] == "StatefulSet" {
            object["spec"]["replicas"] = json!(0);
            for template in object["spec"]["volumeClaimTemplates"].as_array_mut().into_iter().flatten() {
                if let Some(class) = template["spec"]["storageClassName"].as_str().and_then(|class| map_class.get(class)) {
                    template["spec"]["storageClassName"] = json!(class);
                }
            }
        }
    }
    Ok(objects)
}

/// How the set will run once it is made.
pub(super) fn at_zero(point: &StoredPoint) -> SetRun {
    let set = &point.manifest.set;
    SetRun { start: set.start, replicas: 0, at_once: set.pod_management_policy.as_deref() == Some("Parallel"), retention: None }
}
