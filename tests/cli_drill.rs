//! Does a drill tell a point that comes back from one that does not, and leave nothing behind?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::keepset::{Keepset, Ran};

/// A repository with one point of two ordinals.
fn saved() -> (Keepset, PathBuf) {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    fs::create_dir(live.join("data-web-1/closed")).unwrap();
    fs::write(live.join("data-web-1/closed/inside"), "x").unwrap();
    fs::set_permissions(live.join("data-web-1/closed"), fs::Permissions::from_mode(0o555)).unwrap();
    std::os::unix::fs::symlink("pages", live.join("data-web-0/link")).unwrap();
    fs::hard_link(live.join("data-web-0/pages"), live.join("data-web-0/pages-too")).unwrap();
    keepset.backup(&live);
    fs::create_dir(keepset.path("drills")).unwrap();
    (keepset, live)
}

fn drill<'a>(extra: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    ["drill", "shop/web", "--scratch", "drills"].into_iter().chain(extra).collect()
}

fn left(keepset: &Keepset) -> usize {
    fs::read_dir(keepset.path("drills")).unwrap().count()
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn a_point_that_comes_back_is_proven_probed_and_removed_again() {
    let (keepset, live) = saved();
    fs::write(live.join("data-web-0/pages"), "what the set does meanwhile is its own affair").unwrap();
    let probe = "sh -c 'test -s {claim}/conf/app.yaml; grep -q \"ordinal: $KEEPSET_ORDINAL\" {claim:data}/conf/app.yaml; echo seen'";
    let answer = report(&keepset.run(drill(["--probe", probe, "--json"])).expect(0));
    assert_eq!((&answer["proven"], &answer["passed"], &answer["complete"]), (&true.into(), &true.into(), &true.into()), "{answer}");
    let claims = answer["claims"].as_array().unwrap();
    assert_eq!(claims.iter().map(|claim| claim["name"].as_str().unwrap()).collect::<Vec<_>>(), ["data-web-0", "data-web-1"]);
    assert!(
        claims.iter().all(|claim| claim["differences"] == serde_json::json!([]) && claim["bytes"].as_u64() > Some(300_000)),
        "{answer}"
    );
    let probes = answer["probes"].as_array().unwrap();
    assert_eq!(
        probes.iter().map(|probe| (&probe["ordinal"], probe["said"].as_str().unwrap())).collect::<Vec<_>>(),
        [(&0.into(), "seen"), (&1.into(), "seen")]
    );
    assert_eq!(left(&keepset), 0);
    assert!(fs::read_to_string(live.join("data-web-0/pages")).unwrap().starts_with("what the set does"));

    // The verdict is kept, and the next takes its place.
    assert_eq!(keepset.objects("x-keepset/tasks").len(), 1);
    let text = keepset.ok(drill([]));
    assert_eq!(keepset.objects("x-keepset/tasks").len(), 1);
    assert!(text.contains(": proven;") && text.contains("removed again: "), "{text}");
    assert_eq!(left(&keepset), 0);
    assert_eq!(keepset.objects("locks").len(), 0);
}

#[test]
fn a_probe_that_fails_or_hangs_fails_the_drill_with_its_ordinal_and_what_it_said() {
    let (keepset, _) = saved();
    let fails = "sh -c 'echo ordinal {ordinal} is sick; exit {ordinal}'";
    let ran = keepset.run(drill(["--probe", fails])).expect(1);
    assert!(ran.out.contains("proven, but its probe failed"), "{}", ran.out);
    assert!(ran.out.contains("probe of ordinal 1: failed (exit status: 1): ordinal 1 is sick"), "{}", ran.out);
    assert_eq!(left(&keepset), 0);

    let answer = report(&keepset.run(drill(["--probe", "sleep 600", "--probe-timeout", "1s", "--json"])).expect(1));
    assert_eq!((&answer["proven"], &answer["passed"]), (&true.into(), &false.into()));
    assert_eq!((&answer["probes"][0]["exitCode"], answer["probes"][0]["how"].as_str().unwrap()), (&Value::Null, "not done within 1 s"));
    assert_eq!(left(&keepset), 0);

    keepset.run(drill(["--probe", "/nowhere/probe"])).refused(1, "/nowhere/probe");
    keepset.run(drill(["--probe", "a 'b"])).refused(2, "--probe");
    keepset.run(drill(["--profile", "oracle"])).refused(2, "oracle");
    assert_eq!(left(&keepset), 0);
}

#[test]
fn a_damaged_pack_is_found_and_named_and_so_is_a_set_without_a_point() {
    let (keepset, _) = saved();
    let pack = keepset.objects("data").into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let ran = keepset.run(drill([])).expect(1);
    let [error, hint] = ["error: ", "hint: "].map(|word| ran.err.lines().find(|line| line.starts_with(word)).unwrap());
    assert!(error.contains("does not come back: blob ") && error.contains("is damaged") && hint.contains("keepset check"), "{}", ran.err);
    assert!(!ran.err.contains("--resume"), "{}", ran.err);
    assert_eq!(left(&keepset), 0);

    fs::remove_file(&pack).unwrap();
    let ran = keepset.run(drill(["--json"])).expect(1);
    assert!(ran.err.contains("cannot be restored") && ran.out.is_empty(), "{}", ran.err);
    assert_eq!(left(&keepset), 0);

    let ran = keepset.run(["drill", "shop/none", "--scratch", "drills"]).expect(1);
    assert!(ran.err.contains("shop/none"), "{}", ran.err);
    assert_eq!(left(&keepset), 0);
}

/// Runs a drill whose probe never ends, sends it a signal once the probe runs, and gives its end.
fn interrupted(keepset: &Keepset, signal: Signal) -> Ran {
    let begun = keepset.path("begun");
    let probe = format!("sh -c 'touch {}; exec sleep 600'", begun.display());
    let mut command = keepset.command();
    let child = command.args(drill(["--probe", &probe])).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !begun.exists() {
        assert!(Instant::now() < deadline, "the probe was never run");
        std::thread::yield_now();
    }
    assert_eq!(left(keepset), 1, "it is there while it is looked at");
    kill_process(Pid::from_child(&child), signal).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_drill_that_is_interrupted_leaves_nothing_and_what_a_killed_one_leaves_the_next_removes() {
    let (keepset, _) = saved();
    let ran = interrupted(&keepset, Signal::INT);
    assert_eq!(ran.code, 130, "{}", ran.err);
    assert_eq!((left(&keepset), keepset.objects("locks").len()), (0, 0));

    fs::remove_file(keepset.path("begun")).unwrap();
    interrupted(&keepset, Signal::KILL);
    assert_eq!(left(&keepset), 1);
    // Neither another set's drill nor anything that only looks like one is its business.
    fs::create_dir(keepset.path("drills/keepset-drill-shop.web-x-0123456789abcdef")).unwrap();
    fs::create_dir(keepset.path("drills/keepset-drill-shop.web-mine")).unwrap();
    keepset.ok(drill([]));
    assert_eq!(left(&keepset), 2);
}

#[test]
fn drills_of_one_set_at_the_same_time_leave_each_other_alone() {
    let (keepset, _) = saved();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| keepset.ok(drill(["--probe", "test -s {claim}/pages"])));
        }
    });
    assert_eq!(left(&keepset), 0);
}

#[test]
fn whoever_owns_nothing_else_can_drill_and_remove_folders_that_cannot_be_written_to() {
    let keepset = Keepset::of_user(1234);
    let live = keepset.set(1);
    fs::set_permissions(live.join("data-web-0/conf"), fs::Permissions::from_mode(0o555)).unwrap();
    assert!(std::process::Command::new("chown").args(["-R", "1234:1234"]).arg(&live).status().unwrap().success());
    keepset.backup(&live);
    keepset.ok(["drill", "shop/web", "--scratch", "drills"]);
    assert_eq!(left(&keepset), 0);
}
