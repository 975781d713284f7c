//! Holds claims still: a CSI snapshot of each, or one of all, and clones of these for movers to read.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, discovery};
use serde_json::{Value, json};

use crate::model::claim::ClaimId;
use crate::model::manifest::Consistency;
use crate::model::set::SetName;
use crate::model::set_state::{CutClaim, SetState};
use crate::platform::PlatformError;
use crate::platform::kubernetes::api::Wait;
use crate::platform::kubernetes::driver::{self, Driver, Drivers};
use crate::platform::kubernetes::patience::Asked;
use crate::platform::kubernetes::read::Found;
use crate::platform::kubernetes::{Kubernetes, api, names, read, stop};

const SNAPSHOTS: &str = "snapshot.storage.k8s.io";
const GROUPS: &str = "groupsnapshot.storage.k8s.io";

/// What the cluster can do, by driver: the class of its CSI snapshots, and of its group snapshots.
#[derive(Default)]
pub(super) struct Ways {
    single: BTreeMap<String, String>,
    group: BTreeMap<String, String>,
    /// The version in which group snapshots are served.
    group_version: Option<String>,
    /// Classes whose CSI snapshots' contents stay when they are removed.
    kept: BTreeSet<String>,
    /// The user may not look.
    forbidden: bool,
    /// Of the set's claims.
    drivers: Drivers,
}

impl Ways {
    /// What each backup would leave behind.
    pub fn leaks(&self, state: &SetState) -> Vec<String> {
        let drivers: BTreeSet<&str> = state.claims.iter().filter_map(|claim| self.drivers.csi(&claim.name)).collect();
        let kept = drivers.into_iter().filter_map(|driver| self.single.get(driver)).filter(|class| self.kept.contains(*class));
        kept.map(|class| {
            format!("class {class} keeps what a CSI snapshot holds when it is removed (deletionPolicy: Retain): each backup leaves that")
        })
        .collect()
    }
}

/// Of the cluster, and for the claims of the set where there is one.
pub(super) async fn ways(cluster: &Kubernetes, set: &SetName, found: Option<&Found>) -> Result<Ways, PlatformError> {
    let mut ways = Ways::default();
    if let Some(found) = found {
        ways.drivers = driver::drivers(cluster, &read::claims(set, found)).await?;
    }
    let single = resource(SNAPSHOTS, "v1", "VolumeSnapshotClass", "volumesnapshotclasses");
    (ways.single, ways.forbidden) = classes(cluster, &single, &mut ways.kept).await?;
    if ways.single.is_empty() {
        return Ok(ways);
    }
    match cluster.ask(Asked::Reading, || discovery::group(&cluster.client, GROUPS)).await {
        Ok(group) => ways.group_version = Some(group.preferred_version_or_latest().to_owned()),
        Err(error) => tracing::debug!(%error, "group snapshots are not served"),
    }
    if let Some(version) = &ways.group_version {
        let resource = resource(GROUPS, version, "VolumeGroupSnapshotClass", "volumegroupsnapshotclasses");
        (ways.group, _) = classes(cluster, &resource, &mut BTreeSet::new()).await?;
    }
    Ok(ways)
}

impl Ways {
    /// The driver of a claim's volume; `None` where that is none of CSI's, or not known.
    pub fn driver(&self, claim: &str) -> Option<&str> {
        self.drivers.csi(claim)
    }

    /// Drivers that have a class of CSI snapshots; `None` where that may not be looked up.
    pub fn drivers(&self) -> Option<BTreeSet<String>> {
        (!self.forbidden).then(|| self.single.keys().cloned().collect())
    }
}

/// Whether the cluster knows CSI snapshots at all.
pub(super) async fn serves_snapshots(cluster: &Kubernetes) -> bool {
    cluster.ask(Asked::Reading, || discovery::group(&cluster.client, SNAPSHOTS)).await.is_ok()
}

/// Classes by driver: one that leaves nothing behind before one that does, and the default one before others. Nothing where they are not
/// served, or may not be listed.
async fn classes(
    cluster: &Kubernetes,
    resource: &ApiResource,
    kept: &mut BTreeSet<String>,
) -> Result<(BTreeMap<String, String>, bool), PlatformError> {
    let classes: Api<DynamicObject> = Api::all_with(cluster.client.clone(), resource);
    let mut listed = match cluster.list(&classes, &ListParams::default()).await {
        Ok(listed) => listed,
        Err(error) if api::code(&error) == 404 => return Ok((BTreeMap::new(), false)),
        Err(error) if api::code(&error) == 403 => return Ok((BTreeMap::new(), true)),
        Err(error) => return Err(api::failed("list", resource.plural.clone(), error)),
    };
    let is_default = |class: &DynamicObject| {
        let annotations = class.metadata.annotations.iter().flatten();
        annotations.into_iter().any(|(name, value)| name.ends_with("snapshot.storage.kubernetes.io/is-default-class") && value == "true")
    };
    let is_kept = |class: &DynamicObject| class.data["deletionPolicy"] == "Retain";
    kept.extend(listed.iter().filter(|class| is_kept(class)).filter_map(|class| class.metadata.name.clone()));
    // A later one takes the place of an earlier one.
    listed.sort_by_key(|class| (!is_kept(class), is_default(class)));
    let by_driver = listed.into_iter().filter_map(|class| {
        let driver = class.data.get("driver")?.as_str()?.to_owned();
        Some((driver, class.metadata.name?))
    });
    Ok((by_driver.collect(), false))
}

/// Pure: the best that can be done for all of the set's claims, and why it is no better.
pub(super) fn offers(found: &Found, state: &SetState, ways: &Ways) -> (Consistency, Option<String>) {
    let there: BTreeSet<&str> = state.claims.iter().filter(|claim| claim.source.is_some()).map(|claim| claim.name.as_str()).collect();
    let mut drivers = BTreeSet::new();
    for name in &there {
        let why = match ways.drivers.of(name) {
            Some(Driver::Csi(driver)) if ways.single.contains_key(driver) => {
                drivers.insert(driver);
                continue;
            }
            _ if ways.forbidden => {
                let note = "whether CSI snapshots can be made may not be looked up: the volumes are read as they are";
                return (Consistency::Fuzzy, Some(note.into()));
            }
            Some(Driver::Csi(driver)) => format!("there is no VolumeSnapshotClass for its driver {driver}"),
            Some(Driver::None(why)) => why.clone(),
            None => "nothing says which CSI driver has its volume".to_owned(),
        };
        return (Consistency::Fuzzy, Some(format!("claim {name} cannot be snapshotted, and all volumes are read as they are: {why}")));
    }
    let one_driver = drivers.len() == 1 && drivers.iter().all(|driver| ways.group.contains_key(*driver));
    if one_driver && selector(found).is_some_and(|selector| selects(found, &selector) == there) {
        (Consistency::Group, None)
    } else {
        (Consistency::Volume, None)
    }
}

/// The labels that the set's claims carry.
fn selector(found: &Found) -> Option<BTreeMap<String, String>> {
    found.set.spec.as_ref()?.selector.match_labels.clone().filter(|labels| !labels.is_empty())
}

fn selects<'f>(found: &'f Found, selector: &BTreeMap<String, String>) -> BTreeSet<&'f str> {
    let carries = |labels: &BTreeMap<String, String>| selector.iter().all(|(name, value)| labels.get(name) == Some(value));
    let claims = found.claims.iter().filter(|claim| claim.metadata.labels.as_ref().is_some_and(carries));
    claims.filter_map(|claim| claim.metadata.name.as_deref()).collect()
}

pub(super) async fn cut(
    cluster: &Kubernetes,
    run: &str,
    set: &SetName,
    claims: &[ClaimId],
    consistency: Consistency,
) -> Result<Vec<CutClaim>, PlatformError> {
    let names: Vec<String> = claims.iter().map(|claim| claim.name(&set.name)).collect();
    if consistency == Consistency::Stopped {
        // What is said to be stopped is looked at once more: what is written to is no such thing.
        let claims = names.iter().map(String::as_str).collect();
        stop::refuse_restarted(cluster, set, &claims).await?;
    }
    if matches!(consistency, Consistency::Fuzzy | Consistency::Stopped) {
        let as_it_is = |name: String| CutClaim { source: names::root(&name), name, volume: None, moment: None };
        return Ok(names.into_iter().map(as_it_is).collect());
    }
    let found = read::find(cluster, set).await?.ok_or_else(|| PlatformError::NoSet { set: set.to_string() })?;
    let ways = ways(cluster, set, Some(&found)).await?;
    let owner = api::owner(cluster, run, set).await?;
    let cutting = Cutting { cluster, run, set, found: &found, ways: &ways, owner };
    let snapshots = match (consistency, selector(&found)) {
        (Consistency::Group, Some(selector)) => cutting.all_at_once(&names, &selector).await?,
        _ => cutting.each(&names).await?,
    };
    let held = snapshots.into_iter().map(|snapshot| CutClaim {
        source: names::root(&snapshot.claim),
        name: snapshot.claim,
        volume: Some(snapshot.name),
        moment: Some(snapshot.moment),
    });
    Ok(held.collect())
}

/// Clones of what was cut, in the same order: a cut's volume is its CSI snapshot until then.
pub(super) async fn open(cluster: &Kubernetes, run: &str, set: &SetName, cuts: Vec<CutClaim>) -> Result<Vec<CutClaim>, PlatformError> {
    if cuts.iter().all(|cut| cut.moment.is_none()) {
        return Ok(cuts);
    }
    let found = read::find(cluster, set).await?.ok_or_else(|| PlatformError::NoSet { set: set.to_string() })?;
    let owner = api::owner(cluster, run, set).await?;
    let cutting = Cutting { cluster, run, set, found: &found, ways: &Ways::default(), owner };
    let snapshots: Vec<Snapshot> =
        cuts.into_iter().filter_map(|cut| Some(Snapshot { claim: cut.name, name: cut.volume?, moment: cut.moment? })).collect();
    try_join_all(snapshots.iter().map(|snapshot| cutting.clone_of(snapshot))).await
}

struct Cutting<'a> {
    cluster: &'a Kubernetes,
    run: &'a str,
    set: &'a SetName,
    found: &'a Found,
    ways: &'a Ways,
    owner: Value,
}

/// A CSI snapshot whose moment is known.
struct Snapshot {
    claim: String,
    name: String,
    moment: String,
}

impl Cutting<'_> {
    /// A CSI snapshot of each, all asked for at once.
    async fn each(&self, claims: &[String]) -> Result<Vec<Snapshot>, PlatformError> {
        try_join_all(claims.iter().map(|claim| self.one(claim))).await
    }

    async fn one(&self, claim: &str) -> Result<Snapshot, PlatformError> {
        let snapshots = self.snapshots();
        let (name, what) = (names::cut(self.run, claim), format!("claim {claim}"));
        let class = self.ways.driver(claim).and_then(|driver| self.ways.single.get(driver));
        let spec = json!({ "volumeSnapshotClassName": class, "source": { "persistentVolumeClaimName": claim } });
        let object = self.object(&snapshot_resource(), &name, spec);
        self.cluster.make(&snapshots, &name, &object).await.map_err(|error| api::failed("snapshot", &what, error))?;
        let moment = self.moment(&snapshots, &name, &what).await?;
        Ok(Snapshot { claim: claim.to_owned(), name, moment })
    }

    /// One CSI snapshot of all of them, of one moment.
    async fn all_at_once(&self, claims: &[String], selector: &BTreeMap<String, String>) -> Result<Vec<Snapshot>, PlatformError> {
        let version = self.ways.group_version.as_deref().unwrap_or("v1");
        let resource = resource(GROUPS, version, "VolumeGroupSnapshot", "volumegroupsnapshots");
        let groups: Api<DynamicObject> = Api::namespaced_with(self.cluster.client.clone(), &self.set.namespace, &resource);
        let name = names::cut(self.run, &self.set.name);
        let class = claims.first().and_then(|claim| self.ways.group.get(self.ways.driver(claim)?));
        let object = self.object(
            &resource,
            &name,
            json!({
                "volumeGroupSnapshotClassName": class, "source": { "selector": { "matchLabels": selector } },
            }),
        );
        let what = format!("set {}", self.set);
        self.cluster.make(&groups, &name, &object).await.map_err(|error| api::failed("snapshot", &what, error))?;
        let moment = self.moment(&groups, &name, &what).await?;
        let snapshots = self.snapshots();
        let wait = Wait::new(self.cluster.options.patience);
        let members = loop {
            let listed = self.cluster.list(&snapshots, &ListParams::default()).await;
            let members = members(listed.map_err(|error| api::failed("list", "CSI snapshots", error))?, &name);
            if claims.iter().all(|claim| members.contains_key(claim)) {
                break members;
            }
            if !wait.again().await {
                return Err(self.late(&what, &format!("{} of {} members are there", members.len(), claims.len())));
            }
        };
        let of = |claim: &String| Snapshot { claim: claim.clone(), name: members[claim].clone(), moment: moment.clone() };
        Ok(claims.iter().map(of).collect())
    }

    /// When the snapshot was cut, as soon as that is told. An error that it shows may pass: only time ends the wait.
    async fn moment(&self, api: &Api<DynamicObject>, name: &str, what: &str) -> Result<String, PlatformError> {
        let wait = Wait::new(self.cluster.options.patience);
        loop {
            let status = self.status(api, name, what).await?;
            if let Some(moment) = status["creationTime"].as_str() {
                return Ok(moment.to_owned());
            }
            if !wait.again().await {
                return Err(self.late(what, status["error"]["message"].as_str().unwrap_or("its driver does not answer")));
            }
        }
    }

    async fn status(&self, api: &Api<DynamicObject>, name: &str, what: &str) -> Result<Value, PlatformError> {
        let failed = |error| api::failed("read", format!("the CSI snapshot of {what}"), error);
        let read = self.cluster.ask(Asked::Reading, || api.get(name)).await;
        Ok(read.map_err(failed)?.data["status"].clone())
    }

    fn late(&self, what: &str, last: &str) -> PlatformError {
        PlatformError::NotCut { what: what.to_owned(), seconds: self.cluster.options.patience.as_secs(), reason: last.to_owned() }
    }

    /// A volume of the snapshot's content, which a mover will read.
    async fn clone_of(&self, snapshot: &Snapshot) -> Result<CutClaim, PlatformError> {
        let snapshots = self.snapshots();
        let what = format!("claim {}", snapshot.claim);
        let wait = Wait::new(self.cluster.options.patience);
        let restore_size = loop {
            let status = self.status(&snapshots, &snapshot.name, &what).await?;
            if status["readyToUse"] == true {
                break status["restoreSize"].as_str().and_then(api::bytes).unwrap_or(0);
            }
            if !wait.again().await {
                return Err(self.late(&what, status["error"]["message"].as_str().unwrap_or("it is not ready to be used")));
            }
        };
        let claim = self.found.claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(&*snapshot.claim));
        let spec = claim.and_then(|claim| claim.spec.clone()).unwrap_or_default();
        let has = claim.and_then(|claim| claim.status.as_ref()?.capacity.as_ref()?.get("storage").and_then(|has| api::bytes(&has.0)));
        let name = names::cut(self.run, &snapshot.claim);
        let clone = api::object(json!({
            "metadata": self.meta(&name),
            "spec": {
                "storageClassName": spec.storage_class_name.as_deref().map(|class| self.cluster.clone_class(class)),
                "accessModes": spec.access_modes,
                "volumeMode": spec.volume_mode,
                "dataSource": { "apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": snapshot.name },
                "resources": { "requests": { "storage": restore_size.max(has.unwrap_or(0)).to_string() } },
            },
        }));
        let made = self.cluster.make(&self.cluster.claims(&self.set.namespace), &name, &clone).await;
        made.map_err(|error| api::failed("clone", &what, error))?;
        Ok(CutClaim {
            name: snapshot.claim.clone(),
            source: names::root(&snapshot.claim),
            volume: Some(name),
            moment: Some(snapshot.moment.clone()),
        })
    }

    fn snapshots(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client.clone(), &self.set.namespace, &snapshot_resource())
    }

    fn meta(&self, name: &str) -> Value {
        json!({ "name": name, "labels": names::labels(self.run, &self.set.name), "ownerReferences": [self.owner] })
    }

    fn object(&self, resource: &ApiResource, name: &str, spec: Value) -> DynamicObject {
        api::object(json!({ "apiVersion": resource.api_version, "kind": resource.kind, "metadata": self.meta(name), "spec": spec }))
    }
}

/// The members of a group, by claim.
fn members(snapshots: Vec<DynamicObject>, group: &str) -> BTreeMap<String, String> {
    let of_group = snapshots.into_iter().filter(|member| member.data["status"]["volumeGroupSnapshotName"] == *group);
    let by_claim = of_group.filter_map(|member| {
        let claim = member.data["spec"]["source"]["persistentVolumeClaimName"].as_str()?.to_owned();
        Some((claim, member.metadata.name?))
    });
    by_claim.collect()
}

fn snapshot_resource() -> ApiResource {
    resource(SNAPSHOTS, "v1", "VolumeSnapshot", "volumesnapshots")
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::Ordinal;
    use crate::model::set_state::ClaimState;

    #[test]
    fn why_no_claim_is_snapshotted_is_told_of_the_claim_that_cannot_be() {
        let set = api::object(json!({ "metadata": { "name": "web" }, "spec": { "selector": {}, "serviceName": "", "template": {} } }));
        let found = Found { set, claims: Vec::new(), pods: Vec::new() };
        let claim = |ordinal: u32| {
            let id = ClaimId { ordinal: Ordinal(ordinal), template: "data".into() };
            let name = id.name("web");
            let source = Some(names::root(&name));
            ClaimState { id, name, source, empty: false, shape: Default::default(), retained: false, half_restored: None }
        };
        let state = SetState { claims: vec![claim(0), claim(1)], ..SetState::default() };
        let told = |second: Option<Driver>| {
            let mut known = vec![("data-web-0".to_owned(), Driver::Csi("csi.a".into()))];
            known.extend(second.map(|driver| ("data-web-1".to_owned(), driver)));
            let single = BTreeMap::from([("csi.a".to_owned(), "class".to_owned())]);
            offers(&found, &state, &Ways { single, drivers: known.into_iter().collect(), ..Ways::default() })
        };
        assert_eq!(told(Some(Driver::Csi("csi.a".into()))), (Consistency::Volume, None));
        let why = |driver| {
            let (consistency, note) = told(driver);
            assert_eq!(consistency, Consistency::Fuzzy);
            note.unwrap().strip_prefix("claim data-web-1 cannot be snapshotted, and all volumes are read as they are: ").unwrap().to_owned()
        };
        assert_eq!(why(Some(Driver::Csi("csi.b".into()))), "there is no VolumeSnapshotClass for its driver csi.b");
        assert_eq!(why(Some(Driver::None("its volume is of NFS".into()))), "its volume is of NFS");
        assert_eq!(why(None), "nothing says which CSI driver has its volume");
    }
}
