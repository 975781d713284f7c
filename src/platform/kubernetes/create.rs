//! Makes a set that is not there, as a point recorded it.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::kubernetes::{Kubernetes, api};

/// One that somebody else has made meanwhile is as good.
pub(super) async fn make_set(cluster: &Kubernetes, set: &SetName, objects: &[Value]) -> Result<(), PlatformError> {
    for object in objects {
        match object["kind"].as_str() {
            Some("Service") => {
                let services: Api<Service> = Api::namespaced(cluster.client.clone(), &set.namespace);
                make(cluster, &services, object).await?;
            }
            Some("StatefulSet") => make(cluster, &cluster.sets(&set.namespace), object).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn make<K>(cluster: &Kubernetes, api: &Api<K>, object: &Value) -> Result<(), PlatformError>
where
    K: Clone + DeserializeOwned + Debug + Serialize + Send + Sync,
{
    let what = format!("{} {}", object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default());
    // What a bucket says is not one of ours to be sure of.
    let no_object = |error: serde_json::Error| PlatformError::Cluster {
        verb: "make",
        what: what.clone(),
        code: 0,
        reason: format!("what the point recorded is none: {error}"),
    };
    let typed: K = serde_json::from_value(object.clone()).map_err(no_object)?;
    match cluster.create(api, &typed).await {
        Err(error) if api::code(&error) != 409 => Err(api::failed("make", what, error)),
        _ => Ok(()),
    }
}
