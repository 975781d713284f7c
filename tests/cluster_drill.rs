//! Sets in a real cluster, restored on trial in another namespace, looked at, and removed again: `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cluster::{Plain, Space, eventually, ran};
use support::keepset::Ran;

/// keepset in the drills' namespace, on the repository of the set's.
fn drill(space: &Space, drills: &Space, args: &[&str]) -> std::process::Command {
    let set = space.set("web");
    let all = ["drill", &set, "--namespace", &drills.name].into_iter().chain(args.iter().copied());
    let mut command = drills.command(all);
    command.env("KEEPSET_REPOSITORY", space.location());
    command
}

fn run(space: &Space, drills: &Space, args: &[&str]) -> Ran {
    ran(drill(space, drills, args).spawn().unwrap())
}

/// Uids of the set's pods and of all claims beside it.
fn untouched(space: &Space) -> Vec<Value> {
    let uids =
        |kind: &str| space.get(kind)["items"].as_array().unwrap().iter().map(|item| item["metadata"]["uid"].clone()).collect::<Vec<_>>();
    [uids("pods"), uids("persistentvolumeclaims")].concat()
}

fn claims(space: &Space) -> usize {
    space.get("persistentvolumeclaims")["items"].as_array().unwrap().len()
}

#[test]
fn a_set_is_restored_in_another_namespace_proven_probed_and_removed_while_it_runs_on() {
    let space = Space::new("drilled");
    let drills = Space::new("drills");
    space.plain(&Plain { replicas: 2, templates: &["data", "wal"], ..Plain::default() });
    for ordinal in 0..2 {
        space.exec(&format!("web-{ordinal}"), &format!("echo ordinal {ordinal} >/data/word; echo log >/wal/log"));
    }
    space.ok(["backup", &space.set("web")]);
    // What is said of a drill at the set takes a right there; nothing else does.
    let account = format!("--serviceaccount={}:keepset", drills.name);
    space.admin(["create", "rolebinding", "drills", "--role=keepset", &account]);
    space.assert_tidy();
    let before = untouched(&space);

    let busybox = ["--probe-image", "localhost/busybox:1"];
    let seen = "sh -c 'grep -q \"^ordinal {ordinal}$\" {claim:data}/word && test -s /wal/log && echo seen by $(id -u)'";
    let answer = run(&space, &drills, &[&busybox[..], &["--probe", seen, "--json"]].concat());
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    let answer: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&answer["proven"], &answer["passed"]), (&true.into(), &true.into()), "{answer}");
    assert_eq!(answer["claims"].as_array().unwrap().len(), 4, "{answer}");
    assert!(answer["probes"].as_array().unwrap().iter().all(|probe| probe["said"] == "seen by 1000"), "{answer}");
    assert_eq!(claims(&drills), 0);
    drills.assert_tidy();
    assert_eq!(untouched(&space), before, "the running set is untouched");

    let sick = "sh -c 'echo ordinal {ordinal} is sick; exit {ordinal}'";
    let failed = run(&space, &drills, &[&busybox[..], &["--probe", sick]].concat());
    assert_eq!(failed.code, 1, "{}{}", failed.out, failed.err);
    assert!(failed.out.contains("probe of ordinal 1: failed") && failed.out.contains("ordinal 1 is sick"), "{}", failed.out);
    let missing = run(&space, &drills, &["--probe-image", "localhost/none:1", "--probe", "true"]);
    assert!(missing.code == 1 && missing.err.contains("the probe of ordinal 0 did not begin"), "{}", missing.err);
    assert_eq!(claims(&drills), 0);
    let events = space.get("events.events.k8s.io");
    let mut reasons: Vec<&str> = events["items"].as_array().unwrap().iter().filter_map(|event| event["reason"].as_str()).collect();
    reasons.retain(|reason| reason.starts_with("Drill"));
    reasons.sort_unstable();
    assert_eq!(reasons, ["DrillFailed", "DrillFailed", "DrillSucceeded"]);
}

#[test]
fn a_drill_that_is_interrupted_leaves_nothing_and_what_a_killed_one_leaves_the_next_removes() {
    let space = Space::new("cut-off");
    let drills = Space::new("cut-off-drills");
    space.plain(&Plain { replicas: 1, ..Plain::default() });
    space.exec("web-0", "echo here >/data/word");
    space.ok(["backup", &space.set("web")]);
    let endless = ["--probe-image", "localhost/busybox:1", "--probe", "sleep 1000000", "--probe-timeout", "1h"];
    let interrupted = |signal: Signal| {
        let child = drill(&space, &drills, &endless).spawn().unwrap();
        eventually("the probe runs", || {
            let pods = drills.get("pods");
            let mut pods = pods["items"].as_array().unwrap().iter();
            pods.any(|pod| pod["metadata"]["name"].as_str().unwrap().ends_with("-probe") && pod["status"]["phase"] == "Running")
        });
        assert_eq!(claims(&drills), 1);
        kill_process(Pid::from_child(&child), signal).unwrap();
        ran(child)
    };
    let stopped = interrupted(Signal::INT);
    assert_eq!(stopped.code, 130, "{}", stopped.err);
    assert_eq!(claims(&drills), 0);
    drills.assert_tidy();

    interrupted(Signal::KILL);
    // A claim that somebody else made is not the next one's to remove, whatever it is called.
    drills.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-web-drill-7, labels: {keepset.dev/drill: web-drill}}, \
         spec: {accessModes: [ReadWriteOnce], storageClassName: keepset-csi, resources: {requests: {storage: 8Mi}}}}",
    );
    assert_eq!(claims(&drills), 2);
    let again = run(&space, &drills, &["--probe-image", "localhost/busybox:1", "--probe", "grep here {claim}/word"]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    assert_eq!(drills.admin(["get", "persistentvolumeclaims", "--output=name"]).trim(), "persistentvolumeclaim/data-web-drill-7");
    drills.assert_tidy();
}

/// Does for a namespace what a network that keeps to NetworkPolicies does, as far as drills need it: pods that bear a drill's label reach
/// each other only, once there is a policy.
struct Enforcer {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Enforcer {
    fn new(namespace: &str) -> Enforcer {
        let (over, namespace) = (Arc::new(AtomicBool::new(false)), namespace.to_owned());
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let table = format!("keepset-{namespace}").replace('-', "_");
            let ask = |args: &[&str]| {
                let answer = Command::new("kubectl").args(["--namespace", &namespace, "get"]).args(args).output().unwrap();
                String::from_utf8(answer.stdout).unwrap()
            };
            while !ended.load(Ordering::Relaxed) {
                let is_fenced = !ask(&["networkpolicies", "--output=name"]).is_empty();
                let pods = ask(&["pods", "--selector=keepset.dev/drill", "--output=jsonpath={.items[*].status.podIP}"]);
                let own = pods.split_whitespace().collect::<Vec<_>>().join(", ");
                // Made first, so that there is one to delete.
                let mut rules = format!("table inet {table}\ndelete table inet {table}\n");
                if is_fenced && !own.is_empty() {
                    rules += &format!(
                        "table inet {table} {{\nset own {{ type ipv4_addr; elements = {{ {own} }}; }}\nchain out {{\n\
                         type filter hook prerouting priority -150;\nct state new ip saddr @own ip daddr != @own drop\n}}\n}}\n"
                    );
                }
                nft(&rules);
            }
            nft(&format!("table inet {table}\ndelete table inet {table}\n"));
        });
        Enforcer { over, thread: Some(thread) }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn nft(rules: &str) {
    let mut nft = Command::new("nft").args(["--file", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{rules}");
}

/// Nothing of a drill's application is there any more.
fn assert_no_app(drills: &Space) {
    eventually("all that was started is gone", || {
        drills.admin(["get", "statefulsets,services,networkpolicies,pods", "--selector=keepset.dev/drill", "--output=name"]).is_empty()
    });
    assert_eq!(claims(drills), 0);
    drills.assert_tidy();
}

#[test]
fn an_application_is_started_on_trial_where_it_can_reach_nobody_but_itself_and_nowhere_else() {
    let space = Space::new("started");
    let drills = Space::new("started-drills");
    let command = "test ! -e /data/broken || exit 1";
    space.plain(&Plain { replicas: 2, command, ..Plain::default() });
    space.ok(["backup", &space.set("web")]);
    space.assert_tidy();
    let before = untouched(&space);
    let asked = ["--start-app", "--timeout", "30s", "--json"];

    // What bears the name there is nobody's to clear away.
    drills
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: keepset-restore-web, labels: {keepset.dev/set: web}}, data: {last: r}}");
    let refused = run(&space, &drills, &asked);
    assert!(refused.code == 13 && refused.err.contains("has been restored there in earnest"), "{}", refused.err);
    drills.admin(["delete", "configmap", "keepset-restore-web"]);
    let refused = run(&space, &drills, &asked);
    assert!(refused.code == 13 && refused.err.contains("deploy/rbac-drill-app.yaml"), "{}", refused.err);
    drills.admin(["apply", "--filename", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac-drill-app.yaml")]);
    // The bed's network does not keep to policies. What was proven by then stays proven.
    let refused = run(&space, &drills, &asked);
    assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
    let answer: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!((&answer["proven"], &answer["passed"]), (&true.into(), &false.into()), "{answer}");
    assert!(answer["app"]["reason"].as_str().unwrap().contains("does not keep to NetworkPolicies"), "{answer}");
    assert_no_app(&drills);

    let _enforcer = Enforcer::new(&drills.name);
    drills.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}}",
    );
    let refused = run(&space, &drills, &asked);
    assert!(refused.code == 13 && refused.err.contains("NetworkPolicy open lets"), "{}", refused.err);
    drills.admin(["delete", "networkpolicy", "open"]);
    let started = run(&space, &drills, &asked);
    assert_eq!(started.code, 0, "{}{}", started.out, started.err);
    let answer: Value = serde_json::from_str(&started.out).unwrap();
    assert_eq!((&answer["passed"], &answer["app"]["ready"]), (&true.into(), &serde_json::json!([0, 1])), "{answer}");
    assert_no_app(&drills);

    for ordinal in 0..2 {
        space.exec(&format!("web-{ordinal}"), "touch /data/broken");
    }
    space.ok(["backup", &space.set("web")]);
    space.assert_tidy();
    let child = drill(&space, &drills, &asked).spawn().unwrap();
    eventually("the application is there", || drills.admin(["get", "pods", "--output=name"]).lines().any(|pod| pod == "pod/web-0"));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    ran(child);
    let failed = run(&space, &drills, &asked);
    assert_eq!(failed.code, 1, "{}{}", failed.out, failed.err);
    let answer: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!((&answer["proven"], &answer["passed"]), (&true.into(), &false.into()), "{answer}");
    assert!(answer["app"]["reason"].as_str().unwrap().starts_with("ordinal 0 was not ready within 30 s"), "{answer}");
    assert_no_app(&drills);
    assert_eq!(untouched(&space), before, "the running set is untouched");
}

#[test]
fn an_etcd_of_three_members_is_drilled_by_a_job_and_each_copy_answers_alone() {
    let space = Space::new("etcd-drilled");
    let drills = Space::new("etcd-drills");
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/cluster/etcd.yaml")).unwrap();
    // Another test of this bed may have one too, at the same addresses.
    let manifest = manifest.replace("10.96.77.1", "10.96.78.1");
    space.apply(&manifest);
    space.ready("etcd", 3);
    let etcdctl = |command: &str| space.etcdctl(command);
    etcdctl("put key old");
    let members = etcdctl("member list");
    space.ok(["backup", &space.set("etcd")]);
    etcdctl("put key new");

    let settings = drills.path("settings.yaml");
    let probe = r#"
        etcd --name=etcd-$KEEPSET_ORDINAL --data-dir=$KEEPSET_CLAIM/etcd --force-new-cluster --listen-peer-urls=http://127.0.0.1:2380 \
          --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 >/tmp/log 2>&1 &
        until etcdctl get key --print-value-only 2>/dev/null | grep .; do kill -0 $! || { tail -n 5 /tmp/log; exit 1; }; sleep 1; done"#;
    let text = format!(
        "sets:\n- match: {{namespace: {}, name: etcd}}\n  drill:\n    namespace: {}\n    probe:\n      image: localhost/etcd:1\n      \
         timeout: 2m\n      command:\n      - sh\n      - -c\n      - |{probe}\n",
        space.name, drills.name
    );
    fs::write(&settings, text).unwrap();
    let set = space.set("etcd");
    let mut command = drills.command_outside(["drill", &set, "--json", "--config", settings.to_str().unwrap()]);
    let answer = ran(command.env("KEEPSET_REPOSITORY", space.location()).spawn().unwrap());
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    let answer: Value = serde_json::from_str(&answer.out).unwrap();
    let said: Vec<&str> = answer["probes"].as_array().unwrap().iter().map(|probe| probe["said"].as_str().unwrap()).collect();
    assert_eq!(said, ["old", "old", "old"], "{answer}");
    assert_eq!(claims(&drills), 0);
    assert_eq!((etcdctl("get key --print-value-only"), etcdctl("member list")), ("new\n".to_owned(), members), "the set ran on");
}
