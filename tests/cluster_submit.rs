//! Sets in a real cluster, backed up and restored by Jobs that somebody outside submits, who may do no more than that: `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cluster::{Plain, Space, eventually, ran};

fn write_word(space: &Space, word: &str) {
    for pod in ["web-0", "web-1"] {
        space.exec(pod, &format!("echo {word} {pod} >/data/word"));
    }
}

fn assert_word(space: &Space, word: &str) {
    for pod in ["web-0", "web-1"] {
        assert_eq!(space.exec(pod, "cat /data/word"), format!("{word} {pod}\n"));
    }
}

fn points(space: &Space) -> Vec<Value> {
    let list: Value = serde_json::from_str(&space.ok(["list", "--json"]).out).unwrap();
    list["points"].as_array().unwrap().clone()
}

/// Notes of the set's events of that reason, with the reporting words that they came with.
fn notes(space: &Space, reason: &str) -> Vec<String> {
    let events = space.get("events.events.k8s.io");
    let ours =
        events["items"].as_array().unwrap().iter().filter(|event| {
            event["reason"] == reason && event["regarding"]["kind"] == "StatefulSet" && event["regarding"]["name"] == "web"
        });
    ours.map(|event| format!("{}: {}", event["type"].as_str().unwrap(), event["note"].as_str().unwrap())).collect()
}

fn jobs(space: &Space) -> usize {
    space.get("jobs")["items"].as_array().unwrap().len()
}

#[test]
fn a_job_that_somebody_outside_submits_does_the_work_and_its_answer_messages_exit_code_and_events_come_back() {
    let space = Space::new("job");
    space.plain(&Plain { replicas: 2, ..Plain::default() });
    write_word(&space, "first");
    let set = space.set("web");

    let planned = space.outside(["backup", &set, "--dry-run"]);
    assert!(planned.code == 0 && planned.out.contains("data-web-1"), "{planned:?}");
    assert!(points(&space).is_empty());

    let sealed = space.outside(["backup", &set]);
    assert_eq!(sealed.code, 0, "{}", sealed.err);
    let point = points(&space)[0]["id"].as_str().unwrap()[..8].to_owned();
    assert!(sealed.out.starts_with(&format!("point {point} of {set}: complete, consistency group\n")), "{}", sealed.out);
    assert!(!sealed.out.contains("ordinal") && sealed.err.contains("ordinal 1: "), "messages are no answer: {sealed:?}");
    assert_eq!(notes(&space, "BackupSucceeded"), [format!("Normal: point {point}: complete, consistency group, 2 claims")]);

    write_word(&space, "second");
    let refused = space.outside(["restore", &set]);
    assert_eq!((refused.code, refused.out.as_str()), (13, ""), "{}", refused.err);
    assert!(refused.err.contains("hint: ") && refused.err.contains("--replace"), "{}", refused.err);
    assert_word(&space, "second");
    let failed = notes(&space, "RestoreFailed");
    assert!(failed.len() == 1 && failed[0].starts_with("Warning: "), "{failed:?}");

    // A settings file of this machine holds there as well.
    let settings = space.path("settings.yaml");
    fs::write(&settings, "kubernetes: {deadline: 4m}\n").unwrap();
    let restored = space.outside(["restore", &set, "--replace", "--json", "--config", settings.to_str().unwrap()]);
    assert_eq!(restored.code, 0, "{}", restored.err);
    let answer: Value = serde_json::from_str(&restored.out).unwrap();
    assert_eq!(answer["started"], serde_json::json!([0, 1]), "{answer}");
    assert_word(&space, "first");
    assert_eq!(notes(&space, "RestoreSucceeded"), [format!("Normal: 2 claims from point {point}")]);
    space.assert_tidy();

    // The account under which Jobs run is not the one that submits them: by itself that can do none of this.
    let here = space.outside(["backup", &set, "--here"]);
    assert_ne!(here.code, 0, "{}", here.out);
}

#[test]
fn whoever_lets_go_of_a_job_is_told_how_to_see_it_again_and_it_goes_on() {
    let space = Space::new("let-go");
    space.plain(&Plain { replicas: 2, ..Plain::default() });
    write_word(&space, "first");
    let set = space.set("web");
    let child = space.command_outside(["backup", &set]).spawn().unwrap();
    eventually("its pod is there", || !space.admin(["get", "pods", "--selector=job-name", "--output=name"]).is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let let_go = ran(child);
    assert_eq!(let_go.code, 130, "{}", let_go.err);
    let job = space.get("jobs")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(let_go.err.contains(&format!("kubectl --namespace {} logs --follow job/{job}", space.name)), "{}", let_go.err);
    eventually("the point is there", || points(&space).len() == 1);
}

#[test]
fn a_job_that_cannot_begin_is_told_with_its_cause_and_removed() {
    let space = Space::new("no-job");
    space.plain(&Plain { replicas: 1, ..Plain::default() });
    let set = space.set("web");
    let no_image = ran(space.command_outside(["backup", &set]).env("KEEPSET_IMAGE", "localhost/none:1").spawn().unwrap());
    assert!(no_image.code == 1 && no_image.err.contains("ErrImagePull"), "{}", no_image.err);
    space.admin(["create", "quota", "tight", "--hard=pods=1"]);
    let no_quota = space.outside(["backup", &set]);
    assert!(no_quota.code == 1 && no_quota.err.contains("exceeded quota: tight"), "{}", no_quota.err);
    eventually("no job is left", || jobs(&space) == 0);
    let folder = space.outside(["--repo", "/srv/backups", "backup", &set]);
    assert!(folder.code == 2 && folder.err.contains("--here"), "{}", folder.err);
    assert_eq!(jobs(&space), 0);
}

#[test]
fn an_etcd_of_three_members_comes_back_by_jobs_with_its_identities_and_the_keys_of_the_point() {
    let space = Space::new("etcd-job");
    space.etcd();
    let etcdctl = |command: &str| space.etcdctl(command);
    etcdctl("put key old");
    let members = etcdctl("member list");
    let set = space.set("etcd");
    space.written_during(space.command_outside(["backup", &set]).spawn().unwrap());
    etcdctl("put key new");
    etcdctl("put later x");
    space.remove_set_and_claims("etcd");
    let restored = space.outside(["restore", &set]);
    assert_eq!(restored.code, 0, "{}", restored.err);
    space.etcd();
    assert_eq!(etcdctl("member list"), members);
    assert_eq!(etcdctl("get key --print-value-only"), "old\n");
    assert_eq!(etcdctl("get later --print-value-only"), "");
    let checked = space.ok(["check", "--read-data"]);
    assert_eq!(checked.code, 0, "{}", checked.out);
}
