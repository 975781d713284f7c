//! What a mover's pod is like: a pure function of its orders and of the set's own pods.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::model::claim::ClaimShape;
use crate::model::pod_words;
use crate::platform::Resources;
use crate::platform::kubernetes::{api, names, read};

/// The one who runs where nobody says as whom; most images know it as `nonroot`.
pub(super) const NOBODY: i64 = 65_532;

/// Containers of pods that runs make, and that of a Job, by name.
pub(super) const MOVER: &str = "mover";
pub(super) const PROBE: &str = "probe";
pub(super) const JOB: &str = "keepset";

/// Service meshes add a proxy to pods by themselves. A pod that has work to do, and then ends, does not end with it.
const LABELS: [(&str, &str); 1] = [("sidecar.istio.io/inject", "false")];
const ANNOTATIONS: [(&str, &str); 1] = [("linkerd.io/inject", "disabled")];

/// What the user said of movers.
#[derive(Clone, Debug, Default)]
pub struct MoverOptions {
    /// The image that has this very program.
    pub image: String,
    pub image_pull_policy: Option<String>,
    pub image_pull_secrets: Vec<String>,
    /// A Secret of each set's namespace, whose keys become the mover's environment: the repository's password and the store's keys.
    pub secret: String,
    /// The account of movers whose store knows them by it; they get no token of the API server in any case.
    pub service_account: Option<String>,
    /// What the container asks for and may take; it asks for a little where nothing is said.
    pub resources: Resources,
    /// On every pod that is made; over what keeps service meshes out of it, and never over what is keepset's own.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The PriorityClass of movers and of Jobs' pods, which must not be the first to go where room is short.
    pub priority_class: Option<String>,
    /// As root, with the rights to read and give back what belongs to others. Else as the set's own user.
    pub as_root: bool,
    /// As what the program is logged and heard.
    pub log_filter: Option<String>,
}

impl MoverOptions {
    /// The labels of a pod whose own are these.
    pub(super) fn labels(&self, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
        marks(LABELS, &self.labels, own)
    }

    /// The annotations of a pod whose own are these.
    pub(super) fn annotations(&self, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
        marks(ANNOTATIONS, &self.annotations, own)
    }
}

fn marks<const N: usize>(
    usual: [(&str, &str); N],
    said: &BTreeMap<String, String>,
    own: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut marks: BTreeMap<String, String> = usual.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    marks.extend(said.clone());
    marks.extend(own);
    marks
}

/// One mover.
pub(super) struct Orders<'a> {
    pub run: &'a str,
    pub set: &'a str,
    pub ordinal: u32,
    /// The orders as JSON; no secret in them.
    pub job: String,
    pub mounts: Vec<Mount>,
    /// The set's own claim, whose user the mover is.
    pub shape: &'a ClaimShape,
    /// The only node where it can run, by its name.
    pub node: Option<String>,
    /// Where the set's own pods may run.
    pub placement: Placement,
    /// The run's record.
    pub owner: Value,
}

/// What decides where pods may run, as their set says it. Not where its pods want to be beside each other: a mover is none of them.
#[derive(Debug, Default)]
pub(super) struct Placement {
    tolerations: Value,
    node_selector: Value,
    node_affinity: Value,
    /// What the volumes' files are labelled with where SELinux is at work.
    selinux: Value,
}

impl Placement {
    /// Of a set whose container that mounts `template` may have an SELinux label of its own.
    pub fn of(set: &StatefulSet, template: &str) -> Placement {
        let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return Placement::default() };
        let of_pod = spec.security_context.as_ref().and_then(|security| security.se_linux_options.clone());
        let of_container =
            read::who_mounts(spec, template).and_then(|container| container.security_context.as_ref()?.se_linux_options.clone());
        Placement {
            tolerations: json!(spec.tolerations),
            node_selector: json!(spec.node_selector),
            node_affinity: json!(spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone())),
            selinux: json!(of_container.or(of_pod)),
        }
    }
}

/// One volume in the mover.
pub(super) struct Mount {
    /// The claim whose bytes they are, and the one that is mounted.
    pub claim: String,
    pub volume: String,
    pub read_only: bool,
    /// It has no file system, and is seen as a device.
    pub block: bool,
}

/// The pod. It passes the `restricted` profile of Pod Security unless the user asked for root.
pub(super) fn pod(orders: &Orders<'_>, options: &MoverOptions) -> Pod {
    let volumes = orders
        .mounts
        .iter()
        .enumerate()
        .map(|(number, mount)| json!({ "name": format!("volume-{number}"), "persistentVolumeClaim": { "claimName": mount.volume } }));
    // A clone is attached so that it can be written: its file system may have to replay its journal. Only the container must not.
    let mounts = orders.mounts.iter().enumerate().filter(|(_, mount)| !mount.block).map(|(number, mount)| {
        json!({ "name": format!("volume-{number}"), "mountPath": names::root(&mount.claim), "readOnly": mount.read_only })
    });
    let devices: Vec<Value> = orders
        .mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.block)
        .map(|(number, mount)| json!({ "name": format!("volume-{number}"), "devicePath": names::root(&mount.claim) }))
        .collect();
    let scratch = json!({ "name": "scratch", "emptyDir": {} });
    let scratch_mount = json!({ "name": "scratch", "mountPath": "/tmp" });
    let (secret, secret_mount) = secret_files(&options.secret);
    let mut environment = vec![
        json!({ "name": pod_words::JOB, "value": orders.job }),
        // Buffers of a megabyte come and go on many threads: with an arena for each they would stay twice as large as what is in use.
        json!({ "name": "MALLOC_ARENA_MAX", "value": "1" }),
    ];
    environment.extend(options.log_filter.iter().map(|filter| json!({ "name": "KEEPSET_LOG", "value": filter })));
    let placement = &orders.placement;
    let (affinity, node_selector) = match &orders.node {
        // The set's pod runs there: it may, whatever its template says by now.
        Some(node) => {
            let term = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] });
            let required = json!({ "nodeSelectorTerms": [term] });
            (json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } }), Value::Null)
        }
        None if placement.node_affinity.is_null() => (Value::Null, placement.node_selector.clone()),
        None => (json!({ "nodeAffinity": placement.node_affinity }), placement.node_selector.clone()),
    };
    let mut security = pod_security(orders.shape, options.as_root);
    security["seLinuxOptions"] = placement.selinux.clone();
    let secrets: Vec<Value> = options.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    api::object(json!({
        "metadata": {
            "name": names::mover(orders.run, orders.ordinal),
            "labels": options.labels(names::labels(orders.run, orders.set)),
            "annotations": options.annotations([("keepset.dev/ordinal".to_owned(), orders.ordinal.to_string())].into()),
            "ownerReferences": [orders.owner],
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "serviceAccountName": options.service_account,
            "priorityClassName": options.priority_class,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 60,
            "imagePullSecrets": secrets,
            "tolerations": placement.tolerations,
            "nodeSelector": node_selector,
            "affinity": affinity,
            "securityContext": security,
            "containers": [{
                "name": MOVER,
                "image": options.image,
                "imagePullPolicy": options.image_pull_policy,
                "args": ["mover"],
                "env": environment,
                "envFrom": [{ "secretRef": { "name": options.secret } }],
                "resources": resources(&options.resources),
                "securityContext": container_security(options.as_root),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts.chain([scratch_mount, secret_mount]).collect::<Vec<_>>(),
                "volumeDevices": devices,
            }],
            "volumes": volumes.chain([scratch, secret]).collect::<Vec<_>>(),
        },
    }))
}

/// The name of the volume that has the Secret's keys as files.
pub(super) const SECRET_FILES: &str = "keepset-secret";

/// A volume with the Secret's keys as files, and its mount: what is a path in a store's variables can be in the Secret as well.
pub(super) fn secret_files(secret: &str) -> (Value, Value) {
    // That there is no such Secret its use as environment tells better: a volume would be waited for.
    let source = json!({ "secretName": secret, "optional": true, "defaultMode": 0o444 });
    (
        json!({ "name": SECRET_FILES, "secret": source }),
        json!({ "name": SECRET_FILES, "mountPath": pod_words::SECRET_FOLDER, "readOnly": true }),
    )
}

/// What a container asks for and may take: as it was said, and a little of what nothing is said about.
pub(super) fn resources(said: &Resources) -> Value {
    let mut requests = said.requests.clone();
    for (name, usual) in [("cpu", "100m"), ("memory", "128Mi")] {
        // The API server takes a limit for the request that is left out.
        if !said.limits.contains_key(name) {
            requests.entry(name.to_owned()).or_insert_with(|| usual.to_owned());
        }
    }
    json!({ "requests": requests, "limits": said.limits })
}

pub(super) fn pod_security(shape: &ClaimShape, as_root: bool) -> Value {
    // What belongs to root is saved by a mover that was asked to be root, or listed as unreadable.
    let user = shape.uid.filter(|uid| *uid != 0).unwrap_or(NOBODY);
    let (uid, gid) = if as_root { (0, 0) } else { (user, shape.gid.filter(|gid| *gid != 0).unwrap_or(user)) };
    json!({
        "runAsNonRoot": !as_root,
        "runAsUser": uid,
        "runAsGroup": gid,
        "fsGroup": shape.fs_group,
        "supplementalGroups": shape.groups,
        // Any other policy would change the owner of every file that is to be saved.
        "fsGroupChangePolicy": shape.fs_group.map(|_| "OnRootMismatch"),
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

pub(super) fn container_security(as_root: bool) -> Value {
    let rights: &[&str] =
        if as_root { &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID"] } else { &[] };
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": rights },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(as_root: bool, shape: &ClaimShape, node: Option<&str>) -> Value {
        built_with(as_root, shape, node, Placement::default())
    }

    fn built_with(as_root: bool, shape: &ClaimShape, node: Option<&str>, placement: Placement) -> Value {
        let orders = Orders {
            run: "20261124t080000z-0a1b2c3d",
            set: "web",
            ordinal: 3,
            job: "{}".into(),
            mounts: vec![Mount { claim: "data-web-3".into(), volume: "clone-3".into(), read_only: true, block: shape.is_block() }],
            shape,
            node: node.map(str::to_owned),
            placement,
            owner: json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "keepset-run-x", "uid": "u" }),
        };
        let options = MoverOptions {
            image: "keepset:1".into(),
            secret: "keepset".into(),
            priority_class: Some("storage".into()),
            as_root,
            ..MoverOptions::default()
        };
        serde_json::to_value(pod(&orders, &options)).unwrap()
    }

    #[test]
    fn a_mover_is_the_sets_own_user_and_passes_the_restricted_profile() {
        let shape = ClaimShape { uid: Some(999), gid: Some(998), fs_group: Some(997), ..ClaimShape::default() };
        let pod = built(false, &shape, None);
        let security = &pod["spec"]["securityContext"];
        assert_eq!((&security["runAsUser"], &security["runAsGroup"], &security["fsGroup"]), (&json!(999), &json!(998), &json!(997)));
        assert_eq!((&security["runAsNonRoot"], &security["seccompProfile"]["type"]), (&json!(true), &json!("RuntimeDefault")));
        let container = &pod["spec"]["containers"][0]["securityContext"];
        assert_eq!((&container["allowPrivilegeEscalation"], &container["capabilities"]["drop"]), (&json!(false), &json!(["ALL"])));
        assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["readOnly"], json!(true));
        assert!(
            pod["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"].is_null(),
            "a dirty clone must be able to replay its journal"
        );
    }

    #[test]
    fn a_mover_asks_for_what_was_said_and_for_a_little_where_nothing_was() {
        let of = |requests: &[(&str, &str)], limits: &[(&str, &str)]| {
            let map = |list: &[(&str, &str)]| list.iter().map(|(name, much)| ((*name).to_owned(), (*much).to_owned())).collect();
            resources(&Resources { requests: map(requests), limits: map(limits) })
        };
        assert_eq!(of(&[], &[]), json!({ "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": {} }));
        assert_eq!(of(&[], &[("cpu", "50m")]), json!({ "requests": { "memory": "128Mi" }, "limits": { "cpu": "50m" } }));
        let said = of(&[("cpu", "2"), ("memory", "1Gi")], &[("memory", "2Gi")]);
        assert_eq!(said, json!({ "requests": { "cpu": "2", "memory": "1Gi" }, "limits": { "memory": "2Gi" } }));
    }

    #[test]
    fn root_is_asked_for_by_name_and_has_no_right_that_it_does_not_need() {
        let pod = built(true, &ClaimShape::default(), None);
        assert_eq!(pod["spec"]["securityContext"]["runAsUser"], json!(0));
        let rights = pod["spec"]["containers"][0]["securityContext"]["capabilities"].to_string();
        assert!(rights.contains("CHOWN") && !rights.contains("SYS_ADMIN"), "{rights}");
        assert_eq!(built(false, &ClaimShape::default(), None)["spec"]["securityContext"]["runAsUser"], json!(NOBODY));
    }

    #[test]
    fn a_mover_runs_where_the_sets_pods_may_and_not_where_they_want_each_other() {
        let set: StatefulSet = api::object(json!({ "metadata": {}, "spec": {
            "serviceName": "", "selector": {},
            "template": { "spec": {
                "nodeSelector": { "disk": "fast" },
                "tolerations": [{ "key": "db", "operator": "Exists" }],
                "affinity": {
                    "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                        { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] },
                    ] } },
                    "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "kubernetes.io/hostname" }] },
                },
                "securityContext": { "seLinuxOptions": { "level": "s0:c1" } },
                "containers": [{ "name": "db", "securityContext": { "seLinuxOptions": { "level": "s0:c2" } },
                    "volumeMounts": [{ "name": "data", "mountPath": "/d" }] }],
            } },
        } }));
        let pod = built_with(false, &ClaimShape::default(), None, Placement::of(&set, "data"));
        let spec = &pod["spec"];
        assert_eq!((&spec["nodeSelector"]["disk"], &spec["tolerations"][0]["key"]), (&json!("fast"), &json!("db")));
        assert!(spec["affinity"]["nodeAffinity"].is_object() && spec["affinity"]["podAntiAffinity"].is_null(), "{spec}");
        assert_eq!(spec["securityContext"]["seLinuxOptions"]["level"], "s0:c2");
        let other = built_with(false, &ClaimShape::default(), None, Placement::of(&set, "wal"));
        assert_eq!(other["spec"]["securityContext"]["seLinuxOptions"]["level"], "s0:c1");
        let bound = built_with(false, &ClaimShape::default(), Some("node-1"), Placement::of(&set, "data"));
        assert!(bound["spec"]["nodeSelector"].is_null() && bound["spec"]["affinity"].to_string().contains("node-1"));
    }

    #[test]
    fn a_claim_without_a_file_system_is_a_device_and_its_group_is_the_movers() {
        let shape = ClaimShape { volume_mode: Some("Block".into()), groups: vec![6], ..ClaimShape::default() };
        let pod = built(false, &shape, None);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["volumeDevices"], json!([{ "name": "volume-0", "devicePath": "/volumes/data-web-3" }]));
        let mounted: Vec<_> = container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["name"]).collect();
        assert_eq!(mounted, ["scratch", SECRET_FILES], "no claim");
        assert_eq!(pod["spec"]["securityContext"]["supplementalGroups"], json!([6]));
    }

    #[test]
    fn service_meshes_leave_a_mover_alone_unless_the_settings_say_otherwise() {
        let said = |list: &[(&str, &str)]| list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = MoverOptions::default();
        let own = || names::labels("r", "web");
        assert_eq!(options.labels(own())["sidecar.istio.io/inject"], "false");
        assert_eq!(options.annotations(BTreeMap::new())["linkerd.io/inject"], "disabled");
        let labels = said(&[("sidecar.istio.io/inject", "true"), ("team", "storage"), (names::RUN, "another")]);
        let options = MoverOptions { labels, annotations: said(&[("linkerd.io/inject", "enabled")]), ..options };
        let labels = options.labels(own());
        assert_eq!((&*labels["sidecar.istio.io/inject"], &*labels["team"], &*labels[names::RUN]), ("true", "storage", "r"));
        assert_eq!(options.annotations(BTreeMap::new())["linkerd.io/inject"], "enabled");
        let pod = built(false, &ClaimShape::default(), None);
        let meta = &pod["metadata"];
        assert_eq!(
            (&meta["labels"]["sidecar.istio.io/inject"], &meta["annotations"]["linkerd.io/inject"]),
            (&json!("false"), &json!("disabled"))
        );
        assert_eq!(meta["annotations"]["keepset.dev/ordinal"], "3");
    }

    #[test]
    fn a_mover_has_the_secrets_keys_as_files_too() {
        let pod = built(false, &ClaimShape::default(), None);
        let of = |list: &Value| list.as_array().unwrap().iter().find(|item| item["name"] == SECRET_FILES).cloned().unwrap();
        let (volume, mount) = (of(&pod["spec"]["volumes"]), of(&pod["spec"]["containers"][0]["volumeMounts"]));
        assert_eq!((&volume["secret"]["secretName"], &volume["secret"]["optional"]), (&json!("keepset"), &json!(true)));
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!("/run/keepset/secret"), &json!(true)));
    }

    #[test]
    fn a_mover_has_the_priority_that_the_settings_give_it() {
        assert_eq!(built(false, &ClaimShape::default(), None)["spec"]["priorityClassName"], "storage");
    }

    #[test]
    fn a_claim_that_only_one_node_can_mount_binds_its_mover_to_it() {
        let terms = built(false, &ClaimShape::default(), Some("node-1"))["spec"]["affinity"].to_string();
        assert!(terms.contains("metadata.name") && terms.contains("node-1"), "{terms}");
        assert!(built(false, &ClaimShape::default(), None)["spec"]["affinity"].is_null());
    }
}
