//! Starts ordinals of a set that is stopped, and waits for each to be ready.

use k8s_openapi::api::core::v1::Pod;

use crate::model::set::{Ordinal, SetName};
use crate::platform::PlatformError;
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::{Kubernetes, api, stop};

pub(super) async fn start(cluster: &Kubernetes, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
    stop::grow(cluster, set, ordinal).await?;
    let name = format!("{}-{ordinal}", set.name);
    let wait = Wait::new(cluster.options.deadline);
    loop {
        let pod = cluster.get(&cluster.pods(&set.namespace), &name).await;
        let pod = pod.map_err(|error| api::failed("read", format!("pod {name}"), error))?;
        if pod.as_ref().is_some_and(is_ready) {
            return Ok(());
        }
        if !wait.again().await {
            let how = pod.as_ref().map_or_else(|| "it does not exist".to_owned(), how);
            let (seconds, said) = (cluster.options.deadline.as_secs(), format!(": pod {name}: {how}"));
            return Err(PlatformError::Deadline { ordinal: ordinal.0, what: "ready", seconds, said });
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// What keeps the pod from being ready, as far as it says.
fn how(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status.container_statuses.iter().flatten().find_map(|container| container.state.as_ref()?.waiting.clone());
    if let Some(waiting) = waiting {
        let message = waiting.message.map(|message| format!(": {message}")).unwrap_or_default();
        return format!("{}{message}", waiting.reason.unwrap_or_default());
    }
    let failing = status.conditions.iter().flatten().find(|condition| condition.status == "False" && condition.message.is_some());
    let message = failing.and_then(|condition| condition.message.clone());
    message.or(status.phase).unwrap_or_else(|| "nothing is known of it".into())
}
