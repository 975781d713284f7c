//! Which sets there are.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, ListParams};

use crate::model::set::{FoundSet, SetName};
use crate::platform::PlatformError;
use crate::platform::kubernetes::patience::Asked;
use crate::platform::kubernetes::{Kubernetes, api};

/// So many sets are asked for at once.
const PAGE: u32 = 500;

pub(super) async fn find_sets(cluster: &Kubernetes, namespace: Option<&str>, selector: &str) -> Result<Vec<FoundSet>, PlatformError> {
    let sets: Api<StatefulSet> = match namespace {
        Some(namespace) => cluster.sets(namespace),
        None => Api::all(cluster.client.clone()),
    };
    let what = || match namespace {
        Some(namespace) => format!("the StatefulSets of {namespace}"),
        None => "all StatefulSets".to_owned(),
    };
    let mut found = Vec::new();
    let mut params = ListParams::default().labels(selector).limit(PAGE);
    loop {
        let page = cluster.ask(Asked::Reading, || sets.list(&params)).await.map_err(|error| api::failed("list", what(), error))?;
        for set in page.items {
            let (Some(namespace), Some(name)) = (&set.metadata.namespace, &set.metadata.name) else { continue };
            // One that the API server has and that a set of ours cannot be called is nobody's to back up.
            let Ok(name) = SetName::new(namespace, name) else { continue };
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).map_or(1, |replicas| replicas.max(0).unsigned_abs());
            found.push(FoundSet { set: name, annotations: set.metadata.annotations.unwrap_or_default(), replicas });
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    found.sort_by(|one, other| one.set.cmp(&other.set));
    Ok(found)
}
