//! Which CSI driver has a claim's volume: the volume itself says, or else its class, or else the claim.
//!
//! Volumes and classes are of the whole cluster. Who may not read them knows less, and takes nothing for known that is not.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use serde_json::json;

use crate::platform::PlatformError;
use crate::platform::kubernetes::{Kubernetes, api};

/// Who was asked to make a claim's volume: written where that is done when the claim is made, and nowhere else.
const PROVISIONER: [&str; 2] = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// Volumes read at a time.
const AT_ONCE: usize = 8;
/// What every volume has; the one field beside them is what kind it is.
const OF_ANY_KIND: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// What is known of one claim's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Csi(String),
    /// No driver can snapshot it: why, in words.
    None(String),
}

/// By claim; of those that have volumes.
#[derive(Debug, Default)]
pub(super) struct Drivers(BTreeMap<String, Driver>);

impl Drivers {
    pub fn of(&self, claim: &str) -> Option<&Driver> {
        self.0.get(claim)
    }

    /// The driver's name, where it is one of CSI's.
    pub fn csi(&self, claim: &str) -> Option<&str> {
        match self.0.get(claim)? {
            Driver::Csi(name) => Some(name),
            Driver::None(_) => None,
        }
    }
}

impl FromIterator<(String, Driver)> for Drivers {
    fn from_iter<I: IntoIterator<Item = (String, Driver)>>(known: I) -> Self {
        Drivers(known.into_iter().collect())
    }
}

/// Asks for each volume, and for the classes of those that it may not read.
pub(super) async fn drivers(cluster: &Kubernetes, claims: &[&PersistentVolumeClaim]) -> Result<Drivers, PlatformError> {
    let named: Vec<&str> = claims.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.as_deref()).collect();
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let volumes = read(cluster, &volumes, "PersistentVolume", &named).await?;
    let without = claims.iter().filter_map(|claim| claim.spec.as_ref()).filter(|spec| {
        let read = spec.volume_name.as_deref().is_some_and(|name| volumes.contains_key(name));
        !read
    });
    let mut classes: Vec<&str> = without.filter_map(|spec| spec.storage_class_name.as_deref()).filter(|name| !name.is_empty()).collect();
    classes.sort_unstable();
    classes.dedup();
    let all: Api<StorageClass> = Api::all(cluster.client.clone());
    let classes = read(cluster, &all, "StorageClass", &classes).await?;
    let of = |claim: &&PersistentVolumeClaim| {
        let spec = claim.spec.as_ref()?;
        let volume = spec.volume_name.as_deref().and_then(|name| volumes.get(name));
        let class = spec.storage_class_name.as_deref().and_then(|name| classes.get(name));
        Some((claim.metadata.name.clone()?, driver(claim, volume, class)))
    };
    Ok(claims.iter().filter_map(of).collect())
}

/// Those of these names that are there, as far as they may be read.
async fn read<K>(cluster: &Kubernetes, all: &Api<K>, kind: &'static str, names: &[&str]) -> Result<BTreeMap<String, K>, PlatformError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync,
{
    let mut there = BTreeMap::new();
    // Who may not read the first may read none: nothing more is asked.
    let (first, others) = names.split_at(names.len().min(1));
    for some in std::iter::once(first).chain(others.chunks(AT_ONCE)) {
        let asked = some.iter().map(|name| async move { (*name, cluster.get(all, name).await) });
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok(object) => there.extend(object.map(|object| (name.to_owned(), object))),
                Err(error) if api::code(&error) == 403 => return Ok(there),
                Err(error) => return Err(api::failed("read", format!("{kind} {name}"), error)),
            }
        }
    }
    Ok(there)
}

/// Pure: what says most counts. A volume of an in-tree plugin is none of CSI's, also where a CSI driver serves it by now: clusters refuse to
/// snapshot it.
fn driver(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>, class: Option<&StorageClass>) -> Driver {
    if let Some(volume) = volume {
        return of_volume(volume);
    }
    // By hand: the class says nothing of the volume.
    let by_class = class.filter(|class| class.provisioner != "kubernetes.io/no-provisioner");
    if let Some(class) = by_class {
        return provisioned(&class.provisioner, &format!("its class {}", class.metadata.name.as_deref().unwrap_or_default()));
    }
    let annotations = claim.metadata.annotations.as_ref();
    match annotations.and_then(|annotations| PROVISIONER.iter().find_map(|name| annotations.get(*name))) {
        Some(provisioner) => provisioned(provisioner, "the claim"),
        None => {
            let why =
                "nothing says which CSI driver has its volume: neither claim nor class name one, and its PersistentVolume may not be read";
            Driver::None(why.to_owned())
        }
    }
}

fn of_volume(volume: &PersistentVolume) -> Driver {
    if let Some(csi) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) {
        return Driver::Csi(csi.driver.clone());
    }
    let spec = json!(volume.spec);
    let kind = spec.as_object().and_then(|spec| spec.keys().find(|key| !OF_ANY_KIND.contains(&&***key)).cloned());
    let (name, kind) = (volume.metadata.name.as_deref().unwrap_or_default(), kind.unwrap_or_else(|| "unknown".to_owned()));
    Driver::None(format!("its volume {name} is of the kind {kind}, which CSI snapshots do not cover{}", migrated(&kind)))
}

fn provisioned(provisioner: &str, by: &str) -> Driver {
    match provisioner.strip_prefix("kubernetes.io/") {
        Some(plugin) => Driver::None(format!(
            "{by} names the in-tree plugin {provisioner}, whose volumes CSI snapshots do not cover{}",
            migrated(plugin)
        )),
        None => Driver::Csi(provisioner.to_owned()),
    }
}

/// Plugins of the time before CSI, as volumes and as classes name them, and the drivers that serve their volumes now.
const MIGRATED: [(&str, &str, &str); 7] = [
    ("awsElasticBlockStore", "aws-ebs", "ebs.csi.aws.com"),
    ("azureDisk", "azure-disk", "disk.csi.azure.com"),
    ("azureFile", "azure-file", "file.csi.azure.com"),
    ("cinder", "cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "gce-pd", "pd.csi.storage.gke.io"),
    ("portworxVolume", "portworx-volume", "pxd.portworx.com"),
    ("vsphereVolume", "vsphere-volume", "csi.vsphere.vmware.com"),
];

fn migrated(kind: &str) -> String {
    let known = MIGRATED.iter().find(|(volume, plugin, _)| [*volume, *plugin].contains(&kind));
    known.map(|(_, _, driver)| format!("; those of a class of {driver} can be")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn claim(annotations: Value) -> PersistentVolumeClaim {
        api::object(json!({ "metadata": { "name": "data-web-0", "annotations": annotations }, "spec": { "volumeName": "pv-1" } }))
    }

    fn volume(kind: &str, source: Value) -> PersistentVolume {
        api::object(
            json!({ "metadata": { "name": "pv-1" }, "spec": { "capacity": { "storage": "1Gi" }, "storageClassName": "c", kind: source } }),
        )
    }

    fn class(provisioner: &str) -> StorageClass {
        api::object(json!({ "metadata": { "name": "fast" }, "provisioner": provisioner }))
    }

    fn csi(name: &str) -> Driver {
        Driver::Csi(name.to_owned())
    }

    fn why(driver: Driver) -> String {
        match driver {
            Driver::None(why) => why,
            Driver::Csi(name) => panic!("{name} can"),
        }
    }

    #[test]
    fn a_volume_that_was_made_by_hand_says_its_driver_itself() {
        let (bare, made) = (claim(json!({})), volume("csi", json!({ "driver": "disk.example", "volumeHandle": "v" })));
        assert_eq!(driver(&bare, Some(&made), None), csi("disk.example"));
        let stale = claim(json!({ PROVISIONER[0]: "of.another.cluster" }));
        assert_eq!(driver(&stale, Some(&made), Some(&class("third"))), csi("disk.example"));
    }

    #[test]
    fn a_class_says_the_driver_where_volumes_may_not_be_read_and_then_the_claim() {
        let said = claim(json!({ PROVISIONER[1]: "of.the.claim" }));
        assert_eq!(driver(&said, None, Some(&class("of.the.class"))), csi("of.the.class"));
        assert_eq!(driver(&said, None, Some(&class("kubernetes.io/no-provisioner"))), csi("of.the.claim"));
        assert_eq!(driver(&said, None, None), csi("of.the.claim"));
        assert!(why(driver(&claim(json!({})), None, None)).contains("nothing says which CSI driver"));
    }

    #[test]
    fn volumes_from_before_csi_are_told_with_the_driver_that_could() {
        // The controller names the CSI driver in the claim, though the volume is an in-tree one, which no cluster snapshots.
        let migrated = claim(json!({ PROVISIONER[0]: "ebs.csi.aws.com" }));
        let in_tree = volume("awsElasticBlockStore", json!({ "volumeID": "v" }));
        let told = why(driver(&migrated, Some(&in_tree), None));
        assert!(told.contains("pv-1 is of the kind awsElasticBlockStore") && told.contains("a class of ebs.csi.aws.com can be"), "{told}");
        let told = why(driver(&migrated, None, Some(&class("kubernetes.io/aws-ebs"))));
        assert!(told.contains("class fast names the in-tree plugin kubernetes.io/aws-ebs"), "{told}");
        assert!(why(driver(&migrated, Some(&volume("nfs", json!({ "server": "a", "path": "/" }))), None)).ends_with("do not cover"));
    }
}
