//! What became of a run, as an Event of the StatefulSet, where whoever describes the set will see it.

use std::time::Duration;

use chrono::SecondsFormat;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::model::set::SetName;
use crate::platform::kubernetes::{Kubernetes, api};
use crate::platform::{News, Outcome};

/// Nobody waits longer for an Event.
const WITHIN: Duration = Duration::from_secs(10);
/// What the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;
const LONGEST_INSTANCE: usize = 128;

/// Best effort: a run is no worse for an Event that cannot be made.
pub(super) async fn announce(cluster: &Kubernetes, set: &SetName, news: &News) {
    let made = timeout(WITHIN, async {
        // Events of a set that is gone would be found by nobody.
        let Some(uid) = cluster.sets(&set.namespace).get_opt(&set.name).await?.and_then(|set| set.metadata.uid) else { return Ok(()) };
        make(cluster, &About { version: "apps/v1", kind: "StatefulSet", namespace: &set.namespace, name: &set.name, uid: &uid }, news).await
    });
    told(made.await, set);
}

/// The same at claims, in as long as nobody minds.
pub(super) async fn announce_claims(cluster: &Kubernetes, set: &SetName, claims: &[String], news: &News) {
    let made = timeout(WITHIN, async {
        for name in claims {
            let claim = cluster.claims(&set.namespace).get_opt(name).await?;
            let Some(uid) = claim.and_then(|claim| claim.metadata.uid) else { continue };
            make(cluster, &About { version: "v1", kind: "PersistentVolumeClaim", namespace: &set.namespace, name, uid: &uid }, news)
                .await?;
        }
        Ok(())
    });
    told(made.await, set);
}

/// What an Event is about.
struct About<'a> {
    version: &'static str,
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

async fn make(cluster: &Kubernetes, about: &About<'_>, news: &News) -> kube::Result<()> {
    let now = cluster.options.clock.now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), about.namespace);
    events.create(&PostParams::default(), &event(about, &cluster.options.holder, &now, news)).await.map(|_| ())
}

fn told(made: Result<kube::Result<()>, Elapsed>, set: &SetName) {
    match made {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, %set, "an event could not be made"),
        Err(_) => tracing::debug!(%set, "an event was not made in time"),
    }
}

fn event(about: &About<'_>, holder: &str, now: &str, news: &News) -> Event {
    let (reason, action) = match news.outcome {
        Outcome::BackupSucceeded => ("BackupSucceeded", "Backup"),
        Outcome::BackupFailed => ("BackupFailed", "Backup"),
        Outcome::RestoreSucceeded => ("RestoreSucceeded", "Restore"),
        Outcome::RestoreFailed => ("RestoreFailed", "Restore"),
        Outcome::DrillSucceeded => ("DrillSucceeded", "Drill"),
        Outcome::DrillFailed => ("DrillFailed", "Drill"),
        Outcome::RestoreUndone => ("RestoreUndone", "Restore"),
    };
    api::object(json!({
        "metadata": { "generateName": "keepset-", "namespace": about.namespace },
        "eventTime": now,
        "type": if news.is_fine { "Normal" } else { "Warning" },
        "reason": reason,
        "action": action,
        "note": cut(&news.text, LONGEST_NOTE),
        "reportingController": "keepset.dev/keepset",
        "reportingInstance": cut(holder, LONGEST_INSTANCE),
        "regarding": {
            "apiVersion": about.version, "kind": about.kind, "namespace": about.namespace, "name": about.name, "uid": about.uid,
        },
    }))
}

/// The first line, and no more than so many bytes of it.
fn cut(text: &str, most: usize) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let end = (0..=most.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_sets_own_and_never_longer_than_the_api_server_takes() {
        let news = News { outcome: Outcome::BackupFailed, is_fine: false, text: format!("no room\n{}", "ü".repeat(9)) };
        let about = About { version: "apps/v1", kind: "StatefulSet", namespace: "shop", name: "web", uid: "u" };
        let event = serde_json::to_value(event(&about, "host/1", "2026-11-24T08:00:00.000000Z", &news)).unwrap();
        assert_eq!((&event["reason"], &event["type"], &event["note"]), (&json!("BackupFailed"), &json!("Warning"), &json!("no room")));
        assert_eq!((&event["regarding"]["kind"], &event["regarding"]["uid"]), (&json!("StatefulSet"), &json!("u")));
        assert_eq!(cut(&"ü".repeat(600), 1023).len(), 1022);
    }
}
