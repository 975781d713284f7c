//! How far runs are, told in the ConfigMaps that own what they make.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams};
use tokio::time::timeout;

use crate::model::set::SetName;
use crate::model::standing::Standing;
use crate::platform::PlatformError;
use crate::platform::kubernetes::{Kubernetes, api, names};

const TEXT: &str = "standing";
/// Nobody waits longer for word of a run.
const WITHIN: Duration = Duration::from_secs(10);

/// In all records of this process's runs of the set: a restore's, and that of the backup which seals its safety point. What cannot be written is
/// told next time.
pub(super) async fn tell(cluster: &Kubernetes, standing: &Standing) {
    let set = &standing.set;
    let records = cluster.records(&set.namespace);
    let told = timeout(WITHIN, async {
        let holder = &cluster.options.holder;
        let is_own = |record: &ConfigMap| record.data.as_ref().and_then(|data| data.get("holder")) == Some(holder);
        for mut record in records.list(&of_runs(Some(set))).await?.into_iter().filter(is_own) {
            let name = record.metadata.name.clone().unwrap_or_default();
            record.data.get_or_insert_default().insert(TEXT.to_owned(), serde_json::to_string(standing).unwrap_or_default());
            // One that its run removes just now is not made again: it is for the version that was read.
            records.replace(&name, &PostParams::default(), &record).await?;
        }
        kube::Result::Ok(())
    });
    match told.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = api::words(&error), %set, "how far the run is could not be told"),
        Err(_) => tracing::debug!(%set, "how far the run is was not told in time"),
    }
}

/// Of the runs in a namespace, or in all; also of dead ones that nobody has cleared away yet. By set.
pub(super) async fn list(cluster: &Kubernetes, namespace: Option<&str>) -> Result<Vec<Standing>, PlatformError> {
    let records = namespace.map_or_else(|| Api::all(cluster.client.clone()), |namespace| cluster.records(namespace));
    let records = cluster.list(&records, &of_runs(None)).await.map_err(|error| api::failed("list", "run records", error))?;
    // One without a word is younger than its run's first, or a drill's.
    let texts = records.iter().filter_map(|record| record.data.as_ref()?.get(TEXT));
    let mut standings: Vec<Standing> = texts.filter_map(|text| serde_json::from_str(text).ok()).collect();
    standings.sort_by(|one, other| (&one.set, &one.since).cmp(&(&other.set, &other.since)));
    // A restore and the backup that seals its safety point have a record each, and say the same.
    standings.dedup();
    Ok(standings)
}

fn of_runs(set: Option<&SetName>) -> ListParams {
    let of_set = set.map_or_else(|| format!("{}={}", names::MANAGED_BY, names::MANAGER), |set| names::of_set(&set.name));
    ListParams::default().labels(&format!("{of_set},{}", names::RUN))
}
