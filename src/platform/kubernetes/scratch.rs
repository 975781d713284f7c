//! Claims for a drill: in another namespace, under a name and a label of their own, and gone when it is over.
//!
//! A drill holds a Lease of its own, so that whatever bears its label while it has that is a dead drill's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{DeleteParams, ListParams, Preconditions};

use crate::model::claim::ClaimPlace;
use crate::model::set::{Ordinal, SetName};
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::{Kubernetes, api, app, fence, hold, journal, names, probe};
use crate::platform::{App, AppEnd, Platform, PlatformError, Probe, ProbeEnd, Scratch, SetHold, raised};

/// How long pods and claims may take to be gone.
const LET_GO: Duration = Duration::from_secs(120);

/// A place in a namespace that the user chose.
pub struct ClusterScratch {
    cluster: Kubernetes,
    set: SetName,
    hold: Option<SetHold>,
    starts_app: bool,
}

impl ClusterScratch {
    /// For drills of `set` in `namespace`, which has the Role and the Secret that the set's own has.
    pub fn new(cluster: Kubernetes, set: &SetName, namespace: &str) -> Self {
        let set = SetName { namespace: namespace.to_owned(), name: names::drill(&set.name) };
        ClusterScratch { cluster: Kubernetes { drill: Some(set.name.clone()), ..cluster }, set, hold: None, starts_app: false }
    }

    /// The same for drills that start the application. It keeps its name, which its members know each other by: the namespace is another than
    /// the set's own.
    pub fn with_app(cluster: Kubernetes, set: &SetName, namespace: &str) -> Self {
        let set = SetName { namespace: namespace.to_owned(), name: set.name.clone() };
        ClusterScratch { cluster: Kubernetes { drill: Some(set.name.clone()), ..cluster }, set, hold: None, starts_app: true }
    }

    /// Removes what drills of this set made here: whoever holds the drill's Lease is the only one that lives.
    async fn sweep(&self) -> Result<(), PlatformError> {
        let namespace = &self.set.namespace;
        let claims = self.cluster.claims(namespace);
        let cluster = &self.cluster;
        hold::sweep(cluster, &self.set).await?;
        journal::remove_drills(cluster, &self.set).await?;
        let of_drill = ListParams::default().labels(&format!("{}={}", names::DRILL, self.set.name));
        let wait = Wait::new(LET_GO);
        loop {
            let left = cluster.list(&claims, &of_drill).await.map_err(|error| api::failed("list", "claims of drills", error))?;
            // A label may be anybody's; that the claim was made by a run, and for a drill, both must say.
            let left: Vec<_> = left
                .into_iter()
                .filter(|claim| claim.metadata.annotations.as_ref().is_some_and(|notes| notes.contains_key(names::MADE_BY)))
                .collect();
            let Some(first) = left.first() else { break };
            let path = format!("{namespace}/{}", first.metadata.name.clone().unwrap_or_default());
            for claim in left.into_iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
                let exactly = Preconditions { uid: claim.metadata.uid, resource_version: None };
                let name = claim.metadata.name.unwrap_or_default();
                let removal = DeleteParams { preconditions: Some(exactly), ..api::background() };
                let removed = cluster.remove(&claims, &name, &removal).await;
                removed.map_err(|error| api::failed("remove", format!("claim {namespace}/{name}"), error))?;
            }
            if !wait.again().await {
                return Err(PlatformError::ClaimHeld { path });
            }
        }
        if !self.starts_app {
            return Ok(());
        }
        // No pod is left that had one of the claims.
        app::gone(cluster, &self.set, LET_GO).await?;
        fence::take_down(cluster, &self.set).await
    }
}

#[async_trait]
impl Scratch for ClusterScratch {
    async fn open(&mut self) -> Result<(), PlatformError> {
        let held = SetName { name: format!("{}.drill", self.set.name), ..self.set.clone() };
        let hold = hold::take(&self.cluster, &held).await?;
        if self.starts_app
            && let Err(error) = app::refuse_present(&self.cluster, &self.set).await
        {
            // What is there is not this drill's to clear away.
            hold.release().await;
            return Err(error);
        }
        self.hold = Some(hold);
        self.sweep().await
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::new(self.cluster.clone())
    }

    fn set(&self) -> &SetName {
        &self.set
    }

    fn place(&self) -> String {
        format!("namespace {}, as {}", self.set.namespace, self.set.name)
    }

    fn root_of(&self, claim: &str) -> String {
        names::root(claim)
    }

    async fn probe(&self, run: &str, ordinal: Ordinal, claims: &[ClaimPlace], probe: &Probe) -> Result<ProbeEnd, PlatformError> {
        probe::run(&self.cluster, run, (&self.set, ordinal), claims, probe).await
    }

    async fn refuse_app(&self, app: &App) -> Result<(), PlatformError> {
        app::refuse(&self.cluster, &self.set, app).await
    }

    async fn start_app(&self, run: &str, app: &App) -> Result<AppEnd, PlatformError> {
        let lost = || PlatformError::SetLost { set: self.set.to_string() };
        let hold = self.hold.as_ref().ok_or_else(lost)?;
        // Whoever runs the set in earnest says so; and nobody else is it as long as the application is there.
        let own = hold::take(&self.cluster, &self.set).await?;
        let end = tokio::select! {
            biased;
            () = raised(hold.lost()) => Err(lost()),
            () = raised(own.lost()) => Err(lost()),
            end = app::run(&self.cluster, run, &self.set, app) => end,
        };
        own.release().await;
        end
    }

    async fn clear(&mut self) -> Result<(), PlatformError> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        if *hold.lost().borrow() {
            // What is there may be another drill's by now, which removes what is left of this one.
            return Err(PlatformError::SetLost { set: self.set.to_string() });
        }
        let swept = self.sweep().await;
        hold.release().await;
        swept
    }
}
