//! Claims and sets of other kinds in a real cluster: without a file system, with other people's folders, of another class or size, and a set
//! that keepset makes itself. `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use serde_json::{Value, json};
use support::cluster::{Plain, Space, eventually, kubectl, kubectl_with, write_names};

/// Two ordinals of root's, each with a device of 64 MiB.
fn raw_set(space: &Space) {
    space.admin(["label", "namespace", &space.name, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"]);
    space.apply(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: raw}
spec:
  serviceName: raw
  replicas: 2
  selector: {matchLabels: {app: raw}}
  template:
    metadata: {labels: {app: raw}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: localhost/busybox:1
        imagePullPolicy: Never
        command: [sleep, '1000000']
        volumeDevices: [{name: data, devicePath: /dev/raw}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: keepset-csi, volumeMode: Block, resources: {requests: {storage: 64Mi}}}
",
    );
    space.ready("raw", 2);
}

/// A mark of the ordinal at so many MiB.
fn mark(space: &Space, ordinal: u32, word: &str, at: u32) {
    let command = format!("echo {word}-{ordinal} | dd of=/dev/raw bs=1M seek={at} conv=sync,fsync 2>/dev/null");
    space.exec(&format!("raw-{ordinal}"), &command);
}

fn marked(space: &Space, ordinal: u32, at: u32) -> String {
    let read = space.exec(&format!("raw-{ordinal}"), &format!("dd if=/dev/raw bs=1M skip={at} count=1 2>/dev/null | tr -d '\\0'"));
    read.trim().to_owned()
}

#[test]
fn claims_without_a_file_system_come_back_in_place_anew_and_as_sparse_files() {
    let space = Space::new("raw");
    raw_set(&space);
    let set = space.set("raw");
    (0..2).for_each(|ordinal| mark(&space, ordinal, "first", 20));
    let sealed = space.ok(["backup", &set, "--mover-root"]);
    assert!(sealed.out.contains("complete"), "{}", sealed.out);
    (0..2).for_each(|ordinal| mark(&space, ordinal, "second", 20));
    (0..2).for_each(|ordinal| mark(&space, ordinal, "second", 40));
    space.ok(["restore", &set, "--replace", "--mover-root"]);
    space.ready("raw", 2);
    for ordinal in 0..2 {
        assert_eq!((marked(&space, ordinal, 20), marked(&space, ordinal, 40)), (format!("first-{ordinal}"), String::new()));
    }

    // The set and its claims are lost.
    space.admin(["delete", "statefulset", "raw", "--wait=true"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--selector=app=raw", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);
    space.ok(["restore", &set, "--mover-root"]);
    raw_set(&space);
    (0..2).for_each(|ordinal| assert_eq!(marked(&space, ordinal, 20), format!("first-{ordinal}")));

    // Into folders, by keepset and by stock restic.
    let place = space.path("place");
    space.ok(["restore", &set, "--into", place.to_str().unwrap()]);
    let image = File::open(place.join("data-raw-1/data-raw-1.img")).unwrap();
    let mut word = [0; 7];
    image.read_exact_at(&mut word, 20 << 20).unwrap();
    let meta = image.metadata().unwrap();
    assert!(&word == b"first-1" && meta.len() == 64 << 20 && meta.blocks() * 512 < 8 << 20, "{word:?} {meta:?}");
    let place = space.path("by-restic");
    let host = format!("raw.{}.bed", space.name);
    space.restic().run(["restore", "latest", "--host", &host, "--target", place.to_str().unwrap()]);
    File::open(place.join(&set).join("data-raw-1/data-raw-1.img")).unwrap().read_exact_at(&mut word, 20 << 20).unwrap();
    assert_eq!(&word, b"first-1");

    // What has a file system takes no image.
    space.admin(["delete", "statefulset", "raw", "--wait=true"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--selector=app=raw", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);
    for ordinal in 0..2 {
        space.apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data-raw-{ordinal}}}, \
             spec: {{storageClassName: keepset-csi, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}}}"
        ));
    }
    let refused = space.keepset(["restore", &set, "--replace", "--no-safety", "--mover-root"]);
    assert!(refused.code == 13 && refused.err.contains("volumeMode"), "{}", refused.err);
}

/// One ordinal of user 1000, without a group that would open its volume again; with `closes` its root is made 1000's own and closed to others.
fn closed_set(space: &Space, closes: bool) {
    let init = "[{name: close, image: 'localhost/busybox:1', imagePullPolicy: Never, securityContext: {runAsUser: 0}, \
                command: [sh, -c, 'chown 1000:1000 /data && chmod 700 /data'], volumeMounts: [{name: data, mountPath: /data}]}]";
    space.apply(&format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web}}
spec:
  serviceName: web
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      securityContext: {{runAsUser: 1000, runAsGroup: 1000}}
      terminationGracePeriodSeconds: 0
      initContainers: {}
      containers:
      - name: main
        image: localhost/busybox:1
        imagePullPolicy: Never
        command: [sleep, '1000000']
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], storageClassName: keepset-csi, resources: {{requests: {{storage: 64Mi}}}}}}
",
        if closes { init } else { "[]" }
    ));
    space.ready("web", 1);
}

#[test]
fn a_root_folder_that_is_closed_to_others_is_saved_by_its_own_user_and_comes_back_with_its_mode_and_owner() {
    let space = Space::new("closed");
    space.admin(["label", "namespace", &space.name, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"]);
    closed_set(&space, true);
    space.exec("web-0", "umask 077 && mkdir /data/base && echo row >/data/base/1");
    let told = || space.exec("web-0", "stat -c '%a %u %g' /data /data/base /data/base/1 && cat /data/base/1");
    let before = told();
    assert!(before.starts_with("700 1000 1000\n700 1000 1000\n600 1000 1000\n"), "{before}");
    let set = space.set("web");
    let sealed: Value = serde_json::from_str(&space.ok(["backup", &set, "--json"]).out).unwrap();
    let sealed = &sealed["backups"][0];
    assert_eq!((&sealed["complete"], &sealed["unreadable"]), (&true.into(), &0.into()), "{sealed}");

    // In place, as the same user.
    space.exec("web-0", "chmod 755 /data/base && echo other >/data/base/1");
    space.ok(["restore", &set, "--replace"]);
    space.ready("web", 1);
    assert_eq!(told(), before);

    // Into a volume whose root is root's: who it was comes back by root alone, and the pods can read it.
    space.admin(["delete", "statefulset", "web", "--wait=true"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);
    space.ok(["restore", &set, "--mover-root"]);
    closed_set(&space, false);
    assert_eq!(told(), before);

    // What is closed to the pods' own user is said, not passed over; root saves it and gives it back.
    space.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: other}, spec: {restartPolicy: Never, containers: [{name: c, image: 'localhost/busybox:1', \
         imagePullPolicy: Never, command: [sh, -c, 'mkdir /v/theirs && echo secret >/v/theirs/it && chown -R 70:70 /v/theirs && chmod 700 /v/theirs'], \
         volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, persistentVolumeClaim: {claimName: data-web-0}}]}}",
    );
    eventually("it is closed", || space.get("pod/other")["status"]["phase"] == "Succeeded");
    space.admin(["delete", "pod", "other"]);
    let partial = space.keepset(["backup", &set]);
    assert!(partial.code == 3 && format!("{}{}", partial.out, partial.err).contains("theirs"), "{}{}", partial.out, partial.err);
    space.ok(["backup", &set, "--mover-root"]);
    space.exec("web-0", "rm -r /data/base");
    space.ok(["restore", &set, "--replace", "--mover-root"]);
    space.ready("web", 1);
    assert_eq!(space.exec("web-0", "stat -c '%a %u %g' /data/theirs /data/base/1"), "700 70 70\n600 1000 1000\n");
}

#[test]
fn clones_of_a_class_that_keeps_its_volumes_are_made_in_another_where_one_is_named() {
    let space = Space::new("kept");
    let class: Value = serde_json::from_str(&kubectl(["get", "storageclass", "keepset-csi", "--output=json"])).unwrap();
    let kept = "keepset-csi-kept";
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": kept }, "provisioner": class["provisioner"],
        "parameters": class["parameters"], "volumeBindingMode": class["volumeBindingMode"], "reclaimPolicy": "Retain",
    });
    kubectl_with(["apply", "--filename=-"], &class.to_string());
    let plain = Plain { replicas: 1, class: kept, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let volumes = || {
        let volumes: Value = serde_json::from_str(&kubectl(["get", "persistentvolumes", "--output=json"])).unwrap();
        volumes["items"].as_array().unwrap().iter().filter(|volume| volume["spec"]["claimRef"]["namespace"] == *space.name).count()
    };
    let warning = format!("class {kept} keeps volumes");
    assert!(space.ok(["backup", &set, "--dry-run"]).out.contains(&warning));
    let settings = space.path("keepset.yaml");
    fs::write(&settings, format!("kubernetes: {{cloneClasses: {{{kept}: keepset-csi}}}}\n")).unwrap();
    let settings = settings.to_str().unwrap();
    assert!(!space.ok(["--config", settings, "backup", &set, "--dry-run"]).out.contains("keeps volumes"));
    space.ok(["--config", settings, "backup", &set]);
    space.assert_tidy();
    eventually("the clone's volume is gone", || volumes() == 1);
    kubectl(["delete", "storageclass", kept]);
}

#[test]
fn claims_come_back_in_another_class_and_larger_and_the_set_is_made_if_somebody_asks_for_it() {
    let space = Space::new("made");
    let plain = Plain { replicas: 2, start: 3, ..Plain::default() };
    space.plain(&plain);
    space.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: None, selector: {app: web}}}");
    write_names(&space, &plain, "first");
    let set = space.set("web");
    space.ok(["backup", &set]);
    space.admin(["delete", "service,statefulset", "web", "--wait=true"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);

    let asked = ["restore", &set, "--create-set", "--map-class", "keepset-csi=keepset-ext4"];
    let planned = space.ok(asked.into_iter().chain(["--dry-run"]));
    for expected in
        ["claims of class keepset-csi are made in class keepset-ext4", "\"StatefulSet\"", "\"localhost/busybox:1\"", "start, each"]
    {
        assert!(planned.out.contains(expected), "{expected}: {}", planned.out);
    }
    // Making sets is a right of its own.
    let refused = space.keepset(asked);
    assert!(refused.code == 1 && refused.err.contains("forbidden") && refused.err.contains("--resume"), "{}", refused.err);
    let role = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac-create-set.yaml");
    space.admin(["apply", "--filename", role]);
    let restored = space.ok(["restore", &set, "--resume"]);
    assert!(restored.out.contains("started, in this order: 3, 4"), "{}", restored.out);
    space.ready("web", 2);
    assert_eq!(space.exec("web-4", "cat /data/d/who"), "first web-4 data\n");
    let claim = space.get("persistentvolumeclaim/data-web-4");
    assert_eq!(claim["spec"]["storageClassName"], "keepset-ext4");
    let made = space.get("statefulset/web");
    assert_eq!(made["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"], "keepset-ext4");
    assert_eq!(space.get("service/web")["spec"]["clusterIP"], "None");
    let events = space.get("events.events.k8s.io");
    let of_claim = |event: &&Value| event["regarding"]["name"] == "data-web-4" && event["reason"] == "RestoreSucceeded";
    assert_eq!(events["items"].as_array().unwrap().iter().filter(of_claim).count(), 1);

    // A set that wants more room than the point had gets it.
    space.admin(["delete", "statefulset", "web", "--wait=true"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);
    let mut larger = made;
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        larger["metadata"].as_object_mut().unwrap().remove(field);
    }
    larger["spec"]["replicas"] = 0.into();
    larger["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] = "96Mi".into();
    space.apply(&larger.to_string());
    space.ok(["restore", &set]);
    space.ready("web", 2);
    let claim = space.get("persistentvolumeclaim/data-web-3");
    assert_eq!(
        (claim["spec"]["resources"]["requests"]["storage"].as_str(), claim["spec"]["storageClassName"].as_str()),
        (Some("100663296"), Some("keepset-csi"))
    );
    assert_eq!(space.exec("web-3", "cat /data/d/who"), "first web-3 data\n");
}
