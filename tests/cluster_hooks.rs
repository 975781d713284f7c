//! Commands in the pods of a set around a backup's cut, in a real cluster: the application is held no longer than it must be, and never for
//! good, whatever becomes of keepset. `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::cluster::{Plain, Space, eventually, ran};

/// Counts in /data/counter as long as nobody holds it by /data/frozen.
const COUNTING: &str = "{ n=0; while true; do test -e /data/frozen || { n=$((n+1)); echo $n >/data/counter; }; usleep 20000; done; } & :";
/// Holds it, and writes down how far it had come once it surely stands still.
const HOLD: &str = "touch /data/frozen; sleep 1; cp /data/counter /data/seen";
const GO: &str = "rm /data/frozen; echo >>/tmp/gone";

fn counting() -> Plain {
    Plain { replicas: 2, command: COUNTING, ..Plain::default() }
}

/// A planted fault of the test bed's driver, until it is dropped.
struct Fault(PathBuf);

impl Fault {
    fn new(name: &str, text: &str) -> Fault {
        let path = PathBuf::from(std::env::var("KEEPSET_BED_FAULTS").unwrap()).join(name);
        std::fs::write(&path, text).unwrap();
        Fault(path)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn is_held(space: &Space, pod: &str) -> bool {
    space.exec(pod, "test -e /data/frozen && echo held || echo free") == "held\n"
}

fn counter(space: &Space, pod: &str) -> u64 {
    // A counter that is just being written is empty.
    space.exec(pod, "cat /data/counter").trim().parse().unwrap_or(0)
}

fn goes_on(space: &Space, pod: &str) {
    assert!(!is_held(space, pod), "{pod} is held");
    let before = counter(space, pod);
    eventually(&format!("{pod} counts on"), || counter(space, pod) > before);
}

/// A settings file with these hooks.
fn settings(space: &Space, hooks: &Value) -> String {
    let path = space.path("keepset.yaml");
    // YAML takes JSON as it is.
    std::fs::write(&path, json!({ "sets": [{ "match": { "namespace": space.name, "name": "web" }, "hooks": hooks }] }).to_string())
        .unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn annotations_hold_the_application_while_it_is_cut_and_no_longer() {
    let space = Space::new("held");
    space.plain(&counting());
    let [hold, go] = [HOLD, GO].map(|command| json!(["sh", "-c", command]).to_string());
    space.admin([
        "annotate",
        "pods",
        "web-0",
        "web-1",
        &format!("pre.hook.backup.velero.io/command={hold}"),
        "pre.hook.backup.velero.io/container=main",
        &format!("post.hook.backup.velero.io/command={go}"),
        "k8up.io/backupcommand=pg_dump",
    ]);
    let set = space.set("web");
    let planned = space.ok(["backup", &set, "--dry-run"]);
    for expected in
        ["first run, in this order:\n  in web-0 (container main): sh -c", "held still, run:", "k8up.io/backupcommand of web-0, web-1"]
    {
        assert!(planned.out.contains(expected), "{}", planned.out);
    }
    assert!(!is_held(&space, "web-0"), "a dry run runs nothing");

    // CSI snapshots that are long in becoming ready are of a moment long past: nobody is held for their sake.
    let slow = Fault::new("ready.wait", "20");
    let mut backup = space.command(["backup", &set, "--json"]).spawn().unwrap();
    let gone = |pod: &str| space.exec(pod, "cat /tmp/gone 2>/dev/null | wc -l").trim() == "1";
    eventually("both have been held and let go", || gone("web-0") && gone("web-1"));
    assert_eq!(backup.try_wait().unwrap(), None, "the backup goes on");
    drop(slow);
    ["web-0", "web-1"].iter().for_each(|pod| goes_on(&space, pod));
    let mut looks = 0;
    eventually("the backup ends", || {
        // The snapshotter looks again for a quarter of an hour only where something changes, if its own cache lagged behind once.
        looks += 1;
        let changed = format!("keepset.dev/look={looks}");
        let kinds = "volumegroupsnapshotcontents,volumesnapshotcontents";
        Command::new("kubectl").args(["annotate", kinds, "--all", "--overwrite", &changed]).output().unwrap();
        backup.try_wait().unwrap().is_some()
    });
    let sealed = ran(backup);
    assert_eq!(sealed.code, 0, "{}", sealed.err);
    let sealed: Value = serde_json::from_str(&sealed.out).unwrap();
    let point = sealed["backups"][0]["point"].as_str().unwrap();
    for pod in ["web-0", "web-1"] {
        let saved = |name: &str| space.ok(["dump", point, &format!("data-{pod}/{name}")]).out;
        assert_eq!(saved("counter"), saved("seen"), "it stood still when it was cut");
        assert_eq!(saved("frozen"), "");
    }
    space.assert_tidy();
}

#[test]
fn an_application_is_let_go_by_its_own_container_when_keepset_is_killed() {
    let space = Space::new("killed");
    space.plain(&counting());
    let hook = |command: &str| json!([{ "command": ["sh", "-c", command] }]);
    let settings = settings(&space, &json!({ "pre": hook(HOLD), "post": hook(GO) }));
    let set = space.set("web");
    let slow = Fault::new("CreateVolumeGroupSnapshot.wait", "60");
    let mut backup = space.command(["--config", &settings, "backup", &set]).spawn().unwrap();
    let seen = |pod: &str| space.exec(pod, "ls /data").contains("seen");
    eventually("both are held", || seen("web-0") && seen("web-1"));
    assert!(is_held(&space, "web-0") && is_held(&space, "web-1"), "until the cut");
    backup.kill().unwrap();
    backup.wait().unwrap();
    eventually("both are let go", || !is_held(&space, "web-0") && !is_held(&space, "web-1"));
    drop(slow);
    ["web-0", "web-1"].iter().for_each(|pod| goes_on(&space, pod));
    let list: Value = serde_json::from_str(&space.ok(["list", &set, "--json"]).out).unwrap();
    assert_eq!(list["points"], json!([]));
}

#[test]
fn a_hook_that_fails_means_no_point_and_lets_go_whatever_was_held() {
    let space = Space::new("failing");
    space.plain(&counting());
    let failing = "test $HOSTNAME = web-0 || { echo the log is full; exit 3; }";
    let endless = "touch /data/frozen; trap '' TERM; while true; do sleep 1; touch /data/frozen; done";
    let set = space.set("web");
    let post = json!([{ "command": ["sh", "-c", "rm -f /data/frozen"] }]);
    let go_by = |hooks: Value, expected: &[&str]| {
        let settings = settings(&space, &hooks);
        let failed = space.keepset(["--config", &settings, "backup", &set]);
        assert_eq!(failed.code, 1, "{}", failed.err);
        for expected in expected {
            assert!(failed.err.contains(expected), "{}", failed.err);
        }
        ["web-0", "web-1"].iter().for_each(|pod| goes_on(&space, pod));
    };
    let hold = json!({ "command": ["touch", "/data/frozen"] });
    go_by(
        json!({ "pre": [hold, { "command": ["sh", "-c", failing] }], "post": post }),
        &["pod web-1 (container main)", "ended with exit code 3: the log is full", "hint: no point was made"],
    );
    go_by(
        json!({ "pre": [{ "command": ["sh", "-c", endless], "timeout": "2s" }], "post": post }),
        &["pod web-0 (container main)", "did not end within 2 s"],
    );
    go_by(json!({ "pre": [hold, { "command": ["/no/such"] }], "post": post }), &["pod web-0", "`/no/such`"]);

    // The same is told and passed over where it is said so.
    let lenient = json!({ "pre": [hold, { "command": ["sh", "-c", failing], "onError": "continue" }], "post": post });
    let settings = settings(&space, &lenient);
    let sealed = space.ok(["--config", &settings, "backup", &set]);
    assert!(sealed.err.contains("ended with exit code 3"), "{}", sealed.err);
    space.assert_tidy();
}
