//! Sets in a real cluster, with a real kubelet, CSI snapshots and MinIO, worked on under exactly the rights of `deploy/`: `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use keepset::clock::Clock;
use keepset::model::claim::ClaimShape;
use keepset::platform::kubernetes::{Kubernetes, KubernetesOptions, MoverOptions};
use serde_json::Value;
use support::cluster::{Plain, Space, eventually, kubectl, ran, write_names};

fn assert_names(space: &Space, plain: &Plain, words: &str) {
    for ordinal in plain.start..plain.start + plain.replicas {
        for template in plain.templates {
            let pod = format!("{}-{ordinal}", plain.name);
            assert_eq!(space.exec(&pod, &format!("cat /{template}/d/who")), format!("{words} {pod} {template}\n"));
        }
    }
}

/// The pods in the order in which their containers began, as they wrote it down themselves.
fn in_order_of_start(space: &Space, plain: &Plain) -> Vec<u32> {
    let mut began: Vec<(f64, u32)> = (plain.start..plain.start + plain.replicas)
        .map(|ordinal| (space.exec(&format!("{}-{ordinal}", plain.name), "cat /tmp/began").trim().parse().unwrap(), ordinal))
        .collect();
    began.sort_by(|a, b| a.0.total_cmp(&b.0));
    began.into_iter().map(|(_, ordinal)| ordinal).collect()
}

fn newest(space: &Space, set: &str) -> Value {
    let list: Value = serde_json::from_str(&space.ok(["list", set, "--json"]).out).unwrap();
    list["points"].as_array().unwrap().last().unwrap().clone()
}

#[test]
fn a_running_set_is_backed_up_at_one_moment_and_restored_over_what_it_became() {
    let space = Space::new("running");
    let plain = Plain::default();
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let sealed = space.ok(["backup", &set]);
    assert!(sealed.out.contains("complete, consistency group"), "{}", sealed.out);
    space.assert_tidy();
    write_names(&space, &plain, "second");
    let refused = space.keepset(["restore", &set]);
    assert!(refused.code == 13 && refused.err.contains("--replace"), "{}", refused.err);
    let restored = space.ok(["restore", &set, "--replace"]);
    assert!(restored.out.contains("started, in this order: 0, 1, 2"), "{}", restored.out);
    assert_names(&space, &plain, "first");
    assert_eq!(in_order_of_start(&space, &plain), [0, 1, 2]);
    space.assert_tidy();

    // What it was is in the safety point, which stock restic reads as any other.
    let safety = newest(&space, &set);
    assert_eq!(safety["kind"], "safety");
    let dumped = space.restic().run(["dump", safety["id"].as_str().unwrap(), &format!("/{set}/data-web-1/d/who")]);
    assert_eq!(String::from_utf8(dumped).unwrap(), "second web-1 data\n");
    let place = space.path("by-restic");
    space.restic().run(["restore", "latest", "--host", &format!("web.{}.bed", space.name), "--target", place.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(place.join(&set).join("data-web-2/d/who")).unwrap(), "first web-2 data\n");
    space.restic().run(["check"]);
}

#[test]
fn eleven_ordinals_from_three_on_with_two_templates_come_back_under_their_own_numbers_in_numeric_order() {
    let space = Space::new("eleven");
    let plain = Plain { start: 3, replicas: 11, templates: &["data", "log"], policy: "Parallel", ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    space.ok(["backup", &set]);
    space.remove_set_and_claims("web");

    // The set is gone: its claims are made and filled, and the set that is applied later adopts them.
    let restored = space.ok(["restore", &set]);
    assert!(restored.out.contains("22 claims") && !restored.out.contains("started"), "{}", restored.out);
    eventually("the movers are gone", || space.admin(["get", "pods", "--output=name"]).is_empty());
    space.plain(&plain);
    assert_names(&space, &plain, "first");

    // The set is at 0, and its claims are lost: each is Ready before the next is started, whatever the set's own policy.
    space.admin(["scale", "statefulset", "web", "--replicas=0"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);
    let restored = space.ok(["restore", &set, "--start", "ordered"]);
    assert!(restored.out.contains("started, in this order: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13"), "{}", restored.out);
    assert_names(&space, &plain, "first");
    assert_eq!(in_order_of_start(&space, &plain), (3..14).collect::<Vec<u32>>());
}

#[test]
fn a_volume_without_snapshots_is_read_beside_its_busy_writer_and_what_changed_is_listed() {
    let space = Space::new("live");
    // A pod that asks for nothing gets next to nothing where there is other work, and would not write while its file is read.
    space.apply(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: busy}, spec: {limits: [{type: Container, defaultRequest: {cpu: 300m}}]}}",
    );
    let command = "{ head -c 30000000 /dev/urandom >/data/busy; while true; do echo more >>/data/busy; done; } & :";
    let plain = Plain { class: "keepset-plain", replicas: 1, command, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let planned = space.ok(["backup", &set, "--dry-run"]);
    assert!(planned.out.contains("data-web-0 cannot be snapshotted"), "{}", planned.out);
    let sealed: Value = serde_json::from_str(&space.ok(["backup", &set, "--json"]).out).unwrap();
    let sealed = &sealed["backups"][0];
    assert_eq!((&sealed["complete"], &sealed["consistency"]), (&true.into(), &"fuzzy".into()));
    assert_eq!(sealed["changed"], 1, "{sealed}");
    let shown = space.ok(["dump", sealed["point"].as_str().unwrap(), "data-web-0/d/who"]);
    assert_eq!(shown.out, "first web-0 data\n");
}

#[test]
fn claims_that_would_go_with_their_ordinals_outlive_the_stop_and_the_policy_is_given_back() {
    let space = Space::new("scaled");
    let plain = Plain { when_scaled: "Delete", ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let uids = |space: &Space| -> Vec<String> {
        let claims = space.get("persistentvolumeclaims");
        claims["items"].as_array().unwrap().iter().map(|claim| claim["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    };
    let before = uids(&space);
    space.ok(["backup", &set]);
    write_names(&space, &plain, "second");
    space.ok(["restore", &set, "--replace"]);
    assert_names(&space, &plain, "first");
    assert_eq!(uids(&space), before, "the very same claims");
    let policy = &space.get("statefulset/web")["spec"]["persistentVolumeClaimRetentionPolicy"];
    assert_eq!(policy["whenScaled"], "Delete");
}

#[test]
fn one_path_of_one_ordinal_comes_back_into_a_running_set_and_the_rest_stays() {
    let space = Space::new("part");
    let plain = Plain { templates: &["data", "log"], ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    space.exec("web-1", "echo old >/data/other");
    let set = space.set("web");
    space.ok(["backup", &set]);
    write_names(&space, &plain, "second");
    space.exec("web-1", "echo new >/data/other");
    space.ok(["restore", &set, "--ordinal", "1", "--claim", "data", "--path", "d", "--replace"]);
    space.ready("web", 3);
    assert_eq!(space.exec("web-1", "cat /data/d/who /data/other /log/d/who"), "first web-1 data\nnew\nsecond web-1 log\n");
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "second web-0 data\n");
}

#[test]
fn whoever_would_scale_the_set_back_is_refused_or_noticed_and_the_restore_is_resumed_or_undone() {
    let space = Space::new("fought");
    let plain = Plain::default();
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    space.ok(["backup", &set]);
    write_names(&space, &plain, "second");
    space.apply(
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: scaler}, spec: {minReplicas: 2, maxReplicas: 4, \
         scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: web}}}",
    );
    let refused = space.keepset(["restore", &set, "--replace"]);
    assert!(refused.code == 13 && refused.err.contains("kubectl delete hpa scaler"), "{}", refused.err);
    space.admin(["delete", "hpa", "scaler"]);
    space.ready("web", 3);

    // One who sets the number of ordinals back as soon as it is another one.
    space.admin(["label", "statefulset", "web", "kustomize.toolkit.fluxcd.io/name=shop"]);
    let planned = space.ok(["restore", &set, "--replace", "--dry-run"]);
    assert!(planned.out.contains("Flux Kustomization shop"), "{}", planned.out);
    let restore = space.command(["restore", &set, "--replace"]).spawn().unwrap();
    eventually("the set is stopped", || space.get("statefulset/web")["spec"]["replicas"] == 0);
    space.admin(["scale", "statefulset", "web", "--replicas=3"]);
    let failed = ran(restore);
    assert_ne!(failed.code, 0, "{}", failed.out);
    assert!(failed.err.contains("was scaled back to 3") && failed.err.contains("Flux Kustomization shop"), "{}", failed.err);
    if journal_lines(&space) == 0 {
        // It was noticed before the first claim was touched.
        space.ready("web", 3);
        assert_names(&space, &plain, "second");
        space.ok(["restore", &set, "--replace"]);
    } else {
        space.ok(["restore", &set, "--resume"]);
    }
    assert_names(&space, &plain, "first");
}

#[test]
fn of_two_runs_of_one_set_one_works_and_the_other_says_who_holds_it() {
    let space = Space::new("two");
    let plain = Plain::default();
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let first = space.command(["backup", &set]).spawn().unwrap();
    let second = space.command(["backup", &set]).spawn().unwrap();
    let mut both = [ran(first), ran(second)];
    both.sort_by_key(|ran| ran.code);
    assert_eq!(both.each_ref().map(|ran| ran.code), [0, 11], "{both:?}");
    assert!(both[1].err.contains("is in use by"), "{}", both[1].err);
}

#[test]
fn a_mover_that_cannot_begin_or_is_lost_is_told_with_its_cause_and_nothing_is_left() {
    let space = Space::new("lost");
    let plain = Plain { replicas: 1, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let no_image = ran(space.command(["backup", &set]).env("KEEPSET_IMAGE", "localhost/none:1").spawn().unwrap());
    assert!(no_image.code == 1 && no_image.err.contains("ErrImagePull"), "{}", no_image.err);
    let no_secret = ran(space.command(["backup", &set]).env("KEEPSET_SECRET", "none").spawn().unwrap());
    assert!(no_secret.code == 1 && no_secret.err.contains("secret \"none\" not found"), "{}", no_secret.err);
    space.admin(["create", "quota", "tight", "--hard=pods=1"]);
    let no_quota = space.keepset(["backup", &set]);
    assert!(no_quota.code == 1 && no_quota.err.contains("exceeded quota: tight"), "{}", no_quota.err);
    space.admin(["delete", "quota", "tight"]);
    let killed = space.command(["backup", &set]).spawn().unwrap();
    eventually("a mover is there", || {
        let mover = space.admin(["get", "pods", "--selector=keepset.dev/run", "--output=name"]);
        !mover.is_empty() && {
            space.admin(["delete", mover.trim(), "--grace-period=0", "--force", "--ignore-not-found"]);
            true
        }
    });
    let killed = ran(killed);
    assert!(killed.code == 1 && killed.err.contains("ordinal 0"), "{}", killed.err);
    space.assert_tidy();
    space.ok(["backup", &set]);
    let list: Value = serde_json::from_str(&space.ok(["list", "--json"]).out).unwrap();
    assert_eq!(list["points"].as_array().unwrap().len(), 1, "{list}");
}

#[test]
fn an_etcd_of_three_members_comes_back_with_its_identities_and_the_keys_of_the_point() {
    let space = Space::new("etcd");
    space.etcd();
    let etcdctl = |command: &str| space.etcdctl(command);
    for key in 0..20 {
        etcdctl(&format!("put key-{key} old-{key}"));
    }
    let members = etcdctl("member list");
    let set = space.set("etcd");
    space.written_during(space.command(["backup", &set]).spawn().unwrap());
    etcdctl("put key-0 new");
    etcdctl("put later x");
    space.remove_set_and_claims("etcd");
    space.ok(["restore", &set]);
    space.etcd();
    assert_eq!(etcdctl("member list"), members);
    for key in 0..20 {
        assert_eq!(etcdctl(&format!("get key-{key} --print-value-only")), format!("old-{key}\n"));
    }
    assert_eq!(etcdctl("get later --print-value-only"), "");
    assert!(etcdctl("endpoint health --cluster").matches("is healthy").count() >= 3 || !etcdctl("endpoint status --cluster").is_empty());
    let checked = space.ok(["check", "--read-data"]);
    assert!(checked.code == 0, "{}", checked.out);
}

#[test]
fn the_bed_is_the_real_thing() {
    let version: Value = serde_json::from_str(&kubectl(["version", "--output=json"])).unwrap();
    assert!(version["serverVersion"]["gitVersion"].as_str().unwrap().starts_with("v1."), "{version}");
}

/// Lines of the open journal; 0 where none is open.
fn journal_lines(space: &Space) -> usize {
    let text = space.admin(["get", "configmap", "keepset-restore-web", "--ignore-not-found", "--output=jsonpath={.data.journal}"]);
    text.lines().count()
}

#[test]
fn a_restore_killed_at_any_line_of_its_journal_is_resumed_to_the_same_end_or_undone_to_the_state_before() {
    let space = Space::new("killed");
    let plain = Plain { replicas: 2, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    let point = space.ok(["backup", &set, "--json"]);
    let point: Value = serde_json::from_str(&point.out).unwrap();
    let point = point["backups"][0]["point"].as_str().unwrap();
    let (mut undone, mut resumed) = (0, 0);
    for lines in 1.. {
        write_names(&space, &plain, "second");
        let mut restore = space.command(["restore", &set, "--point", point, "--replace"]).spawn().unwrap();
        let mut ended = false;
        eventually("the journal is as long, or the restore is over", || {
            ended = restore.try_wait().unwrap().is_some();
            ended || journal_lines(&space) >= lines
        });
        restore.kill().unwrap();
        restore.wait().unwrap();
        if ended {
            break;
        }
        let about = format!("killed at line {lines}");
        let undo = space.keepset(["restore", &set, "--undo"]);
        if lines % 2 == 1 && undo.code == 0 {
            space.ready("web", 2);
            assert_names(&space, &plain, "second");
            undone += 1;
            continue;
        }
        if undo.code == 0 {
            // It had come to its end meanwhile, or had changed nothing yet.
            space.ready("web", 2);
            continue;
        }
        assert!(undo.code == 13, "{about}: {}", undo.err);
        space.ok(["restore", &set, "--resume"]);
        space.ready("web", 2);
        assert_names(&space, &plain, "first");
        resumed += 1;
    }
    assert!(undone > 1 && resumed > 1, "{undone} {resumed}");
    space.assert_tidy();
}

#[test]
fn claims_that_have_no_volume_are_going_or_are_used_by_strangers_are_noticed_before_anything_is_touched() {
    let space = Space::new("odd");
    let plain = Plain { replicas: 2, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    space.ok(["backup", &set]);

    // A stranger who has the volume keeps the restore from it, and is named.
    space.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: stranger}, spec: {terminationGracePeriodSeconds: 0, \
         securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}, \
         containers: [{name: c, image: 'localhost/busybox:1', imagePullPolicy: Never, command: [sleep, '1000000'], \
         securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, volumeMounts: [{name: v, mountPath: /v}]}], \
         volumes: [{name: v, persistentVolumeClaim: {claimName: data-web-1}}]}}",
    );
    space.admin(["wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s"]);
    let used = space.keepset(["restore", &set, "--replace", "--timeout", "10s"]);
    assert!(used.code == 1 && used.err.contains("in use by stranger"), "{}", used.err);
    space.ready("web", 2);
    space.admin(["delete", "pod", "stranger"]);

    // A claim that is being deleted goes as soon as it is free: nothing may be restored into it.
    space.admin(["delete", "persistentvolumeclaim", "data-web-1", "--wait=false"]);
    let going = space.keepset(["restore", &set, "--replace"]);
    assert!(going.code == 13 && going.err.contains("data-web-1"), "{}", going.err);
    let planned = space.ok(["backup", &set, "--dry-run"]);
    assert!(planned.out.contains("claim data-web-1 is being deleted"), "{}", planned.out);
    space.admin(["delete", "pod", "web-1"]);
    space.ready("web", 2);

    // A claim without a volume has nothing to save.
    space.admin(["scale", "statefulset", "web", "--replicas=0"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--output=name"]).is_empty());
    space.admin(["delete", "persistentvolumeclaim", "data-web-1"]);
    space.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-web-1, labels: {app: web}}, \
         spec: {storageClassName: keepset-csi-wffc, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}}",
    );
    let unbound = space.keepset(["backup", &set]);
    assert!(unbound.code == 13 && unbound.err.contains("data-web-1"), "{}", unbound.err);

    // A class that binds with the first pod: the mover is that pod.
    space.admin(["delete", "persistentvolumeclaims", "--all"]);
    space.admin(["delete", "statefulset", "web"]);
    let late = Plain { name: "late", class: "keepset-csi-wffc", replicas: 2, ..Plain::default() };
    space.plain(&late);
    write_names(&space, &late, "first");
    let set = space.set("late");
    space.ok(["backup", &set]);
    space.remove_set_and_claims("late");
    space.ok(["restore", &set]);
    space.plain(&late);
    assert_names(&space, &late, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_to_the_contract_of_places() {
    let space = Space::new("contract");
    let options = KubernetesOptions {
        cluster: "bed".into(),
        holder: "the contract".into(),
        clock: Clock::system(),
        movers: MoverOptions::default(),
        clone_classes: BTreeMap::new(),
        patience: Duration::from_secs(60),
        deadline: Duration::from_secs(60),
    };
    let cluster = Kubernetes::connect(options).await.unwrap();
    let shape = ClaimShape { class: Some("keepset-csi".into()), capacity: Some(64 << 20), ..ClaimShape::default() };
    support::contract::is_kept(&cluster, &space.set("web").parse().unwrap(), &shape).await;
}

#[test]
fn a_set_comes_back_under_another_name_in_another_namespace() {
    let (space, other) = (Space::new("from"), Space::new("to"));
    let plain = Plain { replicas: 2, start: 4, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    space.ok(["backup", &space.set("web")]);
    other.admin(["create", "rolebinding", "guest", "--role=keepset", &format!("--serviceaccount={}:keepset", space.name)]);
    space.ok(["restore", &space.set("web"), "--to", &other.set("copy")]);
    let copy = Plain { name: "copy", ..plain };
    other.plain(&copy);
    assert_eq!(other.exec("copy-5", "cat /data/d/who"), "first web-5 data\n");
    assert_names(&space, &Plain { name: "web", ..copy }, "first");
}
