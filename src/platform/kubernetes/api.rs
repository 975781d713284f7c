//! The API server's answers in the platform's words, and waiting for what it will say.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::Instant;

use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::kubernetes::{Kubernetes, names};

/// Between two looks at something that will change.
const LOOK: Duration = Duration::from_millis(250);

/// An error of a call, with what was to be done to what.
pub(super) fn failed(verb: &'static str, what: impl Into<String>, error: kube::Error) -> PlatformError {
    PlatformError::Cluster { verb, what: what.into(), code: code(&error), reason: words(&error) }
}

/// The API server's own words, or what kept it from having any.
pub(super) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The API server's code for a refusal, 0 for any other error.
pub(super) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Removes at once from sight, and what it owns after it.
pub(super) fn background() -> DeleteParams {
    DeleteParams::background()
}

/// Looking again and again at something that will change, until the time is up.
pub(super) struct Wait {
    deadline: Instant,
}

impl Wait {
    pub fn new(within: Duration) -> Self {
        Wait { deadline: Instant::now() + within }
    }

    /// True after a pause; false at once where the time is up.
    pub async fn again(&self) -> bool {
        if Instant::now() + LOOK > self.deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
        true
    }
}

/// What owns all that the run makes; made where it is not there yet. As an owner reference.
pub(super) async fn owner(cluster: &Kubernetes, run: &str, set: &SetName) -> Result<serde_json::Value, PlatformError> {
    let name = names::run(run);
    let records = cluster.records(&set.namespace);
    let record: ConfigMap = object(json!({
        "metadata": { "name": name, "labels": names::labels(run, &set.name) },
        "data": { "set": set.to_string(), "holder": cluster.options.holder },
    }));
    // Most calls of a run find it there.
    let there = cluster.get(&records, &name).await.map_err(|error| failed("read", &name, error))?;
    let made = match there {
        Some(record) => Ok(record),
        None => cluster.make(&records, &name, &record).await,
    };
    let record = match made {
        // Another call of the run was faster.
        Err(error) if code(&error) == 409 => records.get(&name).await,
        made => made,
    };
    let record = record.map_err(|error| failed("create", &name, error))?;
    Ok(json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": record.metadata.uid }))
}

/// An object of its JSON, which is written here and so always one.
pub(super) fn object<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).expect("what is written here is an object of its kind")
}

/// Bytes of a quantity such as `10Gi`, `1.5M` or `1e9`; `None` where it is none.
pub(super) fn bytes(quantity: &str) -> Option<u64> {
    let end = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = match quantity[end..].chars().next() {
        // `1e3` and `1E3` are numbers; `1E` alone is exa.
        Some('e' | 'E') if quantity.len() > end + 1 => (quantity, ""),
        _ => quantity.split_at(end),
    };
    let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.0)?;
    let unit: f64 = match suffix {
        "" => 1.0,
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    // Sizes of volumes are far below 2^53.
    Some((number * unit).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        for (text, expected) in [("1Gi", 1 << 30), ("1500M", 1_500_000_000), ("1e3", 1000), ("12", 12), ("1.5Ki", 1536), ("100m", 1)] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for bad in ["", "Gi", "1Zi", "-1Gi", "1 Gi"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
