//! The right to work on one set: a Lease, renewed as long as its holder lives.
//!
//! Whether another holder lives is told by watching the Lease change, not by comparing clocks.

use std::time::Duration;

use chrono::SecondsFormat;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::clock::Clock;
use crate::model::set::SetName;
use crate::platform::kubernetes::patience::{Asked, OUTAGE};
use crate::platform::kubernetes::{Kubernetes, api, names};
use crate::platform::{PlatformError, SetHold};

/// A holder that has not renewed its Lease for so long is dead.
const LIFE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_secs(1);

/// The right to work on the set. What dead runs of it left behind is removed first.
pub(super) async fn take(cluster: &Kubernetes, set: &SetName) -> Result<SetHold, PlatformError> {
    let labels = json!({ names::MANAGED_BY: names::MANAGER, names::SET: set.name });
    let held = |holder: &str| PlatformError::SetHeld { set: set.to_string(), holder: holder.to_owned() };
    let keeper = lease(cluster, (&set.namespace, names::lease(&set.name), labels), held).await?;
    sweep(cluster, set).await?;
    Ok(keeper.kept())
}

/// The right to be the agent that works.
pub(super) async fn lead(cluster: &Kubernetes) -> Result<SetHold, PlatformError> {
    let labels = json!({ names::MANAGED_BY: names::MANAGER });
    let held = |holder: &str| PlatformError::Led { holder: holder.to_owned() };
    Ok(lease(cluster, (cluster.namespace(), names::LEADER.to_owned(), labels), held).await?.kept())
}

async fn lease(
    cluster: &Kubernetes,
    (namespace, name, labels): (&str, String, Value),
    held: impl Fn(&str) -> PlatformError,
) -> Result<Keeper, PlatformError> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let began = Instant::now();
    let hold = new_hold()?;
    let mut seen: Option<String> = None;
    let lease = loop {
        let lease = cluster.get(&leases, &name).await.map_err(|error| api::failed("read", format!("lease {name}"), error))?;
        let Some(lease) = lease else {
            let lease: Lease = api::object(json!({
                "metadata": { "name": name, "labels": labels, "annotations": { names::HOLD: hold } },
                "spec": spec(cluster),
            }));
            match cluster.create(&leases, &lease).await {
                Ok(lease) => break lease,
                Err(error) if api::code(&error) == 409 => continue,
                Err(error) => return Err(api::failed("create", format!("lease {name}"), error)),
            }
        };
        if is_of(&lease, &hold) {
            // Taken, and the answer was lost.
            break lease;
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        let is_same = seen.is_none() || seen == version;
        if !holder.is_empty() && !is_same {
            return Err(held(&holder));
        }
        if holder.is_empty() || began.elapsed() >= LIFE {
            let meta = json!({ "resourceVersion": version, "annotations": { names::HOLD: hold } });
            let patch = Patch::Merge(json!({ "metadata": meta, "spec": spec(cluster) }));
            let params = PatchParams::default();
            match cluster.ask(Asked::Once, || leases.patch(&name, &params, &patch)).await {
                Ok(lease) => break lease,
                Err(error) if api::code(&error) == 409 => return Err(held("another that was faster")),
                Err(error) => return Err(api::failed("write", format!("lease {name}"), error)),
            }
        }
        seen = version;
        sleep(LOOK).await;
    };
    let version = lease.metadata.resource_version;
    Ok(Keeper { leases, name, version, hold, holder: cluster.options.holder.clone(), clock: cluster.options.clock.clone() })
}

fn new_hold() -> Result<String, PlatformError> {
    let mut bytes = [0; 8];
    let no_chance = |error: getrandom::Error| PlatformError::Cluster {
        verb: "take",
        what: "a lease".into(),
        code: 0,
        reason: format!("no randomness: {error}"),
    };
    crate::random::fill(&mut bytes).map_err(no_chance)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn spec(cluster: &Kubernetes) -> Value {
    json!({ "holderIdentity": cluster.options.holder, "leaseDurationSeconds": LIFE.as_secs(), "renewTime": now(&cluster.options.clock) })
}

fn now(clock: &Clock) -> String {
    clock.now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

struct Keeper {
    leases: Api<Lease>,
    name: String,
    version: Option<String>,
    /// Tells this hold from every other.
    hold: String,
    holder: String,
    clock: Clock,
}

impl Keeper {
    fn kept(self) -> SetHold {
        let (release, released) = oneshot::channel();
        let (lose, lost) = watch::channel(false);
        SetHold::kept(tokio::spawn(self.keep(released, lose)), release, lost)
    }

    /// Renews the Lease until it is released, or lost. Every write is for the version of the one before: another holder's is never
    /// overwritten. An API server that does not answer hands the Lease to nobody either; and whoever can reach it, and so takes the set over,
    /// removes this one's movers first and leaves its journal no line to write. So an outage alone is no loss before it is a long one.
    async fn keep(mut self, mut released: oneshot::Receiver<()>, lose: watch::Sender<bool>) {
        let mut tick = interval(RENEW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut renewed, mut released_at) = (Instant::now(), None);
        loop {
            if released_at.is_some() {
                tick.tick().await;
            } else {
                tokio::select! {
                    _ = &mut released => released_at = Some(Instant::now()),
                    _ = tick.tick() => {}
                }
            }
            match timeout(RENEW, self.renew(released_at.is_some())).await {
                Ok(Ok(())) => renewed = Instant::now(),
                Ok(Err(error)) if matches!(api::code(&error), 404 | 409) => {
                    lose.send_replace(true);
                    return;
                }
                Ok(Err(error)) => tracing::warn!(error = api::words(&error), lease = self.name, "the lease could not be renewed"),
                Err(_) => tracing::warn!(lease = self.name, "the lease could not be renewed in time"),
            }
            // Nobody waits longer for a Lease to be given up than others would wait for it to run out.
            if released_at.is_some_and(|at: Instant| renewed >= at || at.elapsed() + RENEW > LIFE) {
                return;
            }
            if renewed.elapsed() + RENEW > OUTAGE {
                lose.send_replace(true);
                return;
            }
        }
    }

    async fn renew(&mut self, ends: bool) -> kube::Result<()> {
        let holder = if ends { "" } else { self.holder.as_str() };
        let spec = json!({ "holderIdentity": holder, "renewTime": now(&self.clock) });
        let mut version = self.version.clone();
        for first in [true, false] {
            let patch = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
            match self.leases.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(lease) => {
                    self.version = lease.metadata.resource_version;
                    break;
                }
                Err(error) if first && api::code(&error) == 409 => {
                    let lease = self.leases.get(&self.name).await?;
                    if !is_of(&lease, &self.hold) {
                        return Err(error);
                    }
                    // The answer to the write before was lost.
                    version = lease.metadata.resource_version;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The Lease as it was written last is this hold's.
fn is_of(lease: &Lease, hold: &str) -> bool {
    lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::HOLD)).is_some_and(|of| of == hold)
}

/// Removes what dead runs of the set left behind. Whoever holds the set is the only run of it that lives.
pub(super) async fn sweep(cluster: &Kubernetes, set: &SetName) -> Result<(), PlatformError> {
    let records = cluster.records(&set.namespace);
    let of_set = ListParams::default().labels(&format!("{},{}", names::of_set(&set.name), names::RUN));
    let left = cluster.list(&records, &of_set).await.map_err(|error| api::failed("list", "run records", error))?;
    for record in left {
        let name = record.metadata.name.unwrap_or_default();
        tracing::info!(record = name, "removing what a dead run left behind");
        cluster.remove(&records, &name, &api::background()).await.map_err(|error| api::failed("remove", &name, error))?;
    }
    let pods = cluster.pods(&set.namespace);
    for pod in cluster.list(&pods, &of_set).await.map_err(|error| api::failed("list", "movers", error))? {
        let name = pod.metadata.name.unwrap_or_default();
        cluster.remove(&pods, &name, &api::background()).await.map_err(|error| api::failed("remove", &name, error))?;
    }
    Ok(())
}
