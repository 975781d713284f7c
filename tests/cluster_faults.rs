//! A real cluster that fails in the middle of a run, or is not what it was: the reason is told, nothing is lost, nothing is left behind.
//! `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cluster::{Plain, Space, eventually, eventually_or, kubectl_with, ran, write_names};

/// Who takes a part of the bed away has it alone.
static BED: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    BED.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    BED.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn bed() -> PathBuf {
    PathBuf::from(std::env::var("KEEPSET_BED").unwrap())
}

/// A program of the bed that is ended until this is dropped.
struct Away(&'static str);

impl Away {
    fn new(service: &'static str) -> Away {
        run_service("stop", service);
        Away(service)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        run_service("start", self.0);
        eventually("the API server answers", || {
            Command::new("kubectl").args(["get", "--raw", "/readyz"]).output().unwrap().status.success()
        });
    }
}

fn run_service(verb: &str, service: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/cluster/service.sh");
    let done = Command::new(script).arg("--bed").arg(bed()).args([verb, service]).status().unwrap();
    assert!(done.success(), "{verb} {service}");
}

/// keepset at work, with what it says on its error output in a file. No mover of an earlier run is there any more.
fn begun(space: &Space, name: &str, args: &[&str]) -> (Child, PathBuf) {
    eventually("movers of earlier runs are gone", || movers(space).is_empty());
    let log = space.path(name);
    let child = space.command(args.iter().copied()).stderr(File::create(&log).unwrap()).spawn().unwrap();
    (child, log)
}

fn said(log: &PathBuf) -> String {
    fs::read_to_string(log).unwrap()
}

/// A set whose movers take many seconds: they have a tenth of a core.
fn slow_set(space: &Space) -> Plain {
    let command = "test -e /data/big || head -c 20000000 /dev/urandom >/data/big";
    let plain = Plain { replicas: 2, command, ..Plain::default() };
    space.plain(&plain);
    write_names(space, &plain, "first");
    eventually("the data is there", || {
        (0..2).all(|ordinal| space.exec(&format!("web-{ordinal}"), "stat -c %s /data/big").trim() == "20000000")
    });
    space.apply("{apiVersion: v1, kind: LimitRange, metadata: {name: slow}, spec: {limits: [{type: Container, default: {cpu: 100m}, defaultRequest: {cpu: 10m}}]}}");
    plain
}

fn a_mover_runs(space: &Space) {
    eventually("a mover runs", || {
        let phases = "--output=jsonpath={.items[*].status.phase}";
        space.admin(["get", "pods", "--selector=keepset.dev/run", phases]).contains("Running")
    });
}

fn movers(space: &Space) -> Vec<String> {
    let names = space.admin(["get", "pods", "--selector=keepset.dev/run", "--output=name"]);
    names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect()
}

fn points(space: &Space) -> usize {
    let list: Value = serde_json::from_str(&space.ok(["list", "--json"]).out).unwrap();
    list["points"].as_array().unwrap().len()
}

/// The notes of the set's warnings.
fn warnings(space: &Space) -> String {
    let events = space.get("events.events.k8s.io");
    let ours = events["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["kind"] == "StatefulSet");
    let ours = ours.filter(|event| event["reportingController"] == "keepset.dev/keepset" && event["type"] == "Warning");
    ours.map(|event| format!("{} {}\n", event["reason"].as_str().unwrap(), event["note"].as_str().unwrap())).collect()
}

#[test]
fn an_api_server_that_is_away_for_seconds_ends_neither_a_backup_nor_a_restore() {
    let _bed = alone();
    let space = Space::new("apiserver");
    slow_set(&space);
    let set = space.set("web");
    let outlast = |name: &str, args: &[&str]| {
        let (child, log) = begun(&space, name, args);
        a_mover_runs(&space);
        let away = Away::new("kube-apiserver");
        eventually_or("the outage is noticed", || said(&log).contains("the API server does not answer, trying again"), || said(&log));
        drop(away);
        let done = ran(child);
        assert_eq!(done.code, 0, "{}", said(&log));
        done
    };
    let sealed = outlast("backup.log", &["backup", &set]);
    assert!(sealed.out.contains("complete, consistency group"), "{}", sealed.out);
    space.exec("web-1", "echo second >/data/d/who");
    outlast("restore.log", &["restore", &set, "--replace"]);
    space.ready("web", 2);
    assert_eq!(space.exec("web-1", "cat /data/d/who"), "first web-1 data\n");
    space.assert_tidy();
    assert_eq!(points(&space), 2, "and the safety point");
}

#[test]
fn a_store_that_is_away_for_seconds_is_waited_for_by_movers() {
    let _bed = alone();
    let space = Space::new("store");
    slow_set(&space);
    let set = space.set("web");
    let (child, log) = begun(&space, "backup.log", &["backup", &set]);
    a_mover_runs(&space);
    let away = Away::new("minio");
    eventually("the outage is noticed", || {
        movers(&space).iter().any(|mover| {
            let log = Command::new("kubectl").args(["--namespace", &space.name, "logs", mover]).output().unwrap();
            String::from_utf8_lossy(&log.stdout).contains("store does not answer")
        })
    });
    drop(away);
    let sealed = ran(child);
    assert!(sealed.code == 0 && sealed.out.contains("complete"), "{}{}", sealed.out, said(&log));
    space.assert_tidy();
    space.ok(["check", "--read-data"]);
}

#[test]
fn a_bucket_that_goes_midway_ends_the_backup_with_its_name_and_what_was_there_before_is_all_there_when_it_is_back() {
    let _bed = alone();
    let space = Space::new("bucket");
    let set = space.set("web");
    slow_set(&space);
    space.ok(["backup", &set]);
    (0..2).for_each(|ordinal| drop(space.exec(&format!("web-{ordinal}"), "head -c 20000000 /dev/urandom >/data/big")));
    let (child, log) = begun(&space, "backup.log", &["backup", &set]);
    a_mover_runs(&space);
    let bucket = bed().join("minio").join(std::env::var("KEEPSET_BED_BUCKET").unwrap());
    let aside = bed().join("minio-aside");
    fs::rename(&bucket, &aside).unwrap();
    let failed = ran(child);
    fs::rename(&aside, &bucket).unwrap();
    assert_eq!(failed.code, 1, "{}", said(&log));
    let name = format!("s3://{}", bucket.file_name().unwrap().to_str().unwrap());
    assert!(said(&log).contains(&name) && said(&log).contains("hint: "), "{}", said(&log));
    let warnings = warnings(&space);
    assert!(warnings.contains("BackupFailed") && warnings.contains(&name), "{warnings}");
    space.assert_tidy();
    assert_eq!(points(&space), 1);
    space.ok(["check", "--read-data"]);
    space.ok(["backup", &set]);
}

#[test]
fn an_evicted_mover_is_told_with_who_did_it_and_nothing_is_lost_or_left() {
    let _bed = shared();
    let space = Space::new("evicted");
    slow_set(&space);
    let set = space.set("web");
    let (child, log) = begun(&space, "backup.log", &["backup", &set]);
    a_mover_runs(&space);
    let mover = movers(&space).remove(0);
    let eviction = format!(
        "{{\"apiVersion\": \"policy/v1\", \"kind\": \"Eviction\", \"metadata\": {{\"name\": \"{mover}\", \"namespace\": \"{}\"}}}}",
        space.name
    );
    let path = format!("/api/v1/namespaces/{}/pods/{mover}/eviction", space.name);
    kubectl_with(["create", "--raw", &path, "--filename=-"], &eviction);
    let failed = ran(child);
    assert_eq!(failed.code, 1, "nobody interrupted it: {}", said(&log));
    assert!(said(&log).contains("EvictionByEvictionAPI") || said(&log).contains("its pod was removed"), "{}", said(&log));
    assert!(warnings(&space).contains("BackupFailed the mover of ordinal"), "{}", warnings(&space));
    space.assert_tidy();
    assert_eq!(points(&space), 0);

    // The same in the middle of a restore leaves a journal, and a way on. A tenth of a core would have filled the claims too soon.
    space.ok(["backup", &set]);
    space.exec("web-0", "head -c 20000000 /dev/urandom >/data/big; echo second >/data/d/who");
    let settings = space.path("keepset.yaml");
    fs::write(&settings, "kubernetes: {moverResources: {requests: {cpu: 1m}, limits: {cpu: 10m}}}\n").unwrap();
    let restore = ["--config", settings.to_str().unwrap(), "restore", &set, "--replace", "--no-safety"];
    let (child, log) = begun(&space, "restore.log", &restore);
    a_mover_runs(&space);
    space.admin(["delete", "pods", "--selector=keepset.dev/run", "--wait=false"]);
    let cut_off = ran(child);
    assert!(cut_off.code == 1 && said(&log).contains("--resume"), "{} {}", cut_off.code, said(&log));
    space.ok(["restore", &set, "--resume"]);
    space.ready("web", 2);
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "first web-0 data\n");
    space.assert_tidy();
}

#[test]
fn movers_that_no_node_takes_are_given_up_with_the_schedulers_words() {
    let _bed = alone();
    let space = Space::new("cordoned");
    let plain = Plain { replicas: 1, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let settings = space.path("keepset.yaml");
    fs::write(&settings, "kubernetes: {patience: 15s}\n").unwrap();
    let set = space.set("web");
    let nodes = space.admin(["get", "nodes", "--output=name"]);
    let node = nodes.trim();
    space.admin(["cordon", node]);
    let failed = space.keepset(["--config", settings.to_str().unwrap(), "backup", &set]);
    space.admin(["uncordon", node]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    assert!(failed.err.contains("did not begin") && failed.err.contains("unschedulable"), "{}", failed.err);
    assert!(warnings(&space).contains("unschedulable"), "{}", warnings(&space));
    space.assert_tidy();
    space.ok(["backup", &set]);
}

#[test]
fn a_restore_that_is_interrupted_while_its_set_still_stops_starts_it_again_as_it_was() {
    let _bed = shared();
    let space = Space::new("stopping");
    let plain = Plain { replicas: 1, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    space.ok(["backup", &set]);
    // Its first process has no ear for SIGTERM, so that each of its pods takes all of this time to end.
    let grace = r#"{"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 15}}}}"#;
    space.admin(["patch", "statefulset", "web", "--patch", grace]);
    space.admin(["rollout", "status", "statefulset/web", "--timeout=60s"]);
    write_names(&space, &plain, "second");
    let (child, log) = begun(&space, "restore.log", &["restore", &set, "--replace"]);
    eventually("its pod is going", || !space.get("pod/web-0")["metadata"]["deletionTimestamp"].is_null());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let stopped = ran(child);
    assert!(stopped.code == 130 && said(&log).contains("nothing was started"), "{} {}", stopped.code, said(&log));
    space.ready("web", 1);
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "second web-0 data\n");
    let resumed = space.keepset(["restore", &set, "--resume"]);
    assert!(resumed.code != 0 && resumed.err.contains("no restore"), "{} {}", resumed.code, resumed.err);
    space.ok(["restore", &set, "--replace"]);
    space.ready("web", 1);
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "first web-0 data\n");
    space.assert_tidy();
}

#[test]
fn status_shows_a_run_that_is_under_way_and_no_more_once_it_is_over() {
    let _bed = alone();
    let space = Space::new("standing");
    let plain = Plain { replicas: 1, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let (set, settings) = (space.set("web"), space.path("keepset.yaml"));
    fs::write(&settings, format!("sets: [{{match: {{namespace: {}, name: web}}}}]\n", space.name)).unwrap();
    let settings = settings.to_str().unwrap();
    let running = || {
        let status: Value = serde_json::from_str(&space.ok(["--config", settings, "status", "--json"]).out).unwrap();
        status["running"].as_array().unwrap().clone()
    };
    assert!(running().is_empty());
    let node = space.admin(["get", "nodes", "--output=name"]);
    space.admin(["cordon", node.trim()]);
    let (child, log) = begun(&space, "backup.log", &["backup", &set]);
    let mut shown = Vec::new();
    eventually("the run is shown", || {
        shown = running();
        shown.first().is_some_and(|run| run["step"].as_str().unwrap().starts_with("saving ordinal 0"))
    });
    assert_eq!((shown.len(), &shown[0]["verb"], shown[0]["set"].as_str()), (1, &Value::from("backup"), Some(set.as_str())));
    let text = space.ok(["--config", settings, "status"]).out;
    assert!(text.contains(&format!("running: backup of {set} for ")), "{text}");
    space.admin(["uncordon", node.trim()]);
    assert_eq!(ran(child).code, 0, "{}", said(&log));
    assert!(running().is_empty());
    space.assert_tidy();
}

/// Gives each claim of the two ordinals the other's volume, the set being at 0.
fn swap_volumes(space: &Space) {
    space.admin(["scale", "statefulset", "web", "--replicas=0"]);
    eventually("no pod is left", || space.admin(["get", "pods", "--output=name"]).is_empty());
    let volume = |claim: &str| space.get(&format!("persistentvolumeclaim/{claim}"))["spec"]["volumeName"].as_str().unwrap().to_owned();
    let volumes = [volume("data-web-0"), volume("data-web-1")];
    for volume in &volumes {
        space.admin(["patch", "persistentvolume", volume, "--patch", r#"{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}"#]);
    }
    space.admin(["delete", "persistentvolumeclaims", "--all", "--wait=true"]);
    for (claim, volume) in ["data-web-1", "data-web-0"].iter().zip(&volumes) {
        space.admin(["patch", "persistentvolume", volume, "--type=json", "--patch", r#"[{"op": "remove", "path": "/spec/claimRef"}]"#]);
        space.apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {claim}, labels: {{app: web}}}}, \
             spec: {{storageClassName: keepset-csi, volumeName: {volume}, accessModes: [ReadWriteOnce], \
             resources: {{requests: {{storage: 64Mi}}}}}}}}"
        ));
    }
    space.admin(["scale", "statefulset", "web", "--replicas=2"]);
    space.ready("web", 2);
}

#[test]
fn a_volume_that_was_put_under_another_ordinal_is_neither_saved_nor_replaced_unless_that_is_meant() {
    let _bed = shared();
    let space = Space::new("swapped");
    let plain = Plain { replicas: 2, ..Plain::default() };
    space.plain(&plain);
    write_names(&space, &plain, "first");
    let set = space.set("web");
    space.ok(["backup", &set]);
    swap_volumes(&space);
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "first web-1 data\n");

    let refused = space.keepset(["backup", &set]);
    assert_eq!(refused.code, 13, "{}", refused.err);
    for expected in ["data-web-0 has volume pvc-", "which was that of data-web-1", "--allow-moved-volumes"] {
        assert!(refused.err.contains(expected), "{}", refused.err);
    }
    let refused = space.keepset(["restore", &set, "--replace", "--ordinal", "0"]);
    assert!(refused.code == 13 && refused.err.contains("which was that of data-web-1"), "{}", refused.err);
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "first web-1 data\n", "nothing was touched");

    // The whole set can be put right from the point, if somebody says so; from then on it is as it should be.
    space.ok(["restore", &set, "--replace", "--allow-moved-volumes"]);
    space.ready("web", 2);
    assert_eq!(space.exec("web-0", "cat /data/d/who"), "first web-0 data\n");
    space.ok(["backup", &set]);
}
