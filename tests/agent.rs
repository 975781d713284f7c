//! The agent as a process, on sets of folders: what is due is done, told, and ends well when the agent is told to stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use support::cluster::eventually;
use support::keepset::{Keepset, Ran};
use support::kill::signal;

/// Every minute, so that a time that came just now is always due.
const EVERY_MINUTE: &str = "* * * * *";

struct Running {
    child: Child,
    at: SocketAddr,
}

/// Settings of the set `shop/web` in `live`, served at `at`.
fn settings(keepset: &Keepset, at: SocketAddr, set: &str) {
    let text = format!(
        "cluster: test\ndefaults: {{retention: {{keepLast: 1}}}}\nagent: {{listen: '{at}', prune: {{schedule: '@yearly'}}, check: {{schedule: '@yearly'}}}}\n\
         sets:\n- {{match: {{namespace: shop, name: web}}, from: live, {set}}}\n"
    );
    // Whole or not at all, as the kubelet replaces a mounted file.
    fs::write(keepset.path("settings.new"), text).unwrap();
    fs::rename(keepset.path("settings.new"), keepset.path("settings.yaml")).unwrap();
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn points(keepset: &Keepset) -> usize {
    keepset.json(["list"])["points"].as_array().unwrap().len()
}

impl Running {
    fn begin(keepset: &Keepset, at: SocketAddr) -> Running {
        let log = fs::File::create(keepset.path("log")).unwrap();
        let child = keepset.command().args(["agent", "--grace", "60s"]).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        Running { child, at }
    }

    /// The answer's first line and its body; `None` where nobody answers.
    fn get(&self, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(self.at).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.lines().next()?.to_owned(), body.to_owned()))
    }

    fn is_ok(&self, path: &str) -> bool {
        self.get(path).is_some_and(|(status, _)| status.contains(" 200 "))
    }

    /// The value of a metric by its name and labels as they are written.
    fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn end(mut self) -> i32 {
        signal(self.child.id(), rustix::process::Signal::TERM);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

#[test]
fn once_does_what_is_due_applies_retention_and_finds_nothing_to_do_right_after() {
    let keepset = Keepset::new();
    keepset.set(2);
    settings(&keepset, free(), "schedule: '@yearly'");
    assert_eq!(keepset.json(["agent", "--once"])["tasks"].as_array().unwrap().len(), 0);
    // Its last time was within the last minute.
    settings(&keepset, free(), &format!("schedule: '{EVERY_MINUTE}'"));
    let done = keepset.json(["agent", "--once"]);
    let shown: Vec<(&str, &str)> =
        done["tasks"].as_array().unwrap().iter().map(|task| (task["task"].as_str().unwrap(), task["result"].as_str().unwrap())).collect();
    assert_eq!(shown, [("backup", "done"), ("forget", "done")], "{done}");
    assert_eq!(done["tasks"][0]["set"], "shop/web");
    assert_eq!(points(&keepset), 1);
    // A second point, by hand, and the next once keeps one.
    settings(&keepset, free(), "schedule: '@hourly', catchUp: 1m, suspend: true");
    assert_eq!(keepset.json(["agent", "--once"])["tasks"].as_array().unwrap().len(), 0);
}

#[test]
fn what_fails_is_told_and_so_is_its_way_on_and_the_other_sets_get_their_points() {
    let keepset = Keepset::new();
    keepset.set(1);
    settings(&keepset, free(), &format!("schedule: '{EVERY_MINUTE}'"));
    let mut text = fs::read_to_string(keepset.path("settings.yaml")).unwrap();
    text.push_str(&format!("- {{match: {{namespace: shop, name: gone}}, from: nowhere, schedule: '{EVERY_MINUTE}'}}\n"));
    fs::write(keepset.path("settings.yaml"), text).unwrap();
    let Ran { code, out, .. } = keepset.run(["agent", "--once"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("backup of shop/gone: failed: ") && out.contains("nowhere") && out.contains("hint: "), "{out}");
    assert!(out.contains("backup of shop/web: done: point "), "{out}");
    assert_eq!(points(&keepset), 1);
}

#[test]
fn an_agent_that_cannot_begin_says_why() {
    let keepset = Keepset::new();
    fs::write(keepset.path("settings.yaml"), "sets: [{match: {namespace: a}}]\n").unwrap();
    keepset.run(["agent"]).refused(2, "says neither name nor labelSelector");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    keepset.set(1);
    settings(&keepset, taken.local_addr().unwrap(), "schedule: '@daily'");
    let ran = keepset.run(["agent"]).expect(1);
    assert!(ran.err.contains("agent.listen"), "{}", ran.err);
}

#[test]
fn it_works_by_its_settings_as_they_are_now_and_tells_how_it_goes() {
    let keepset = Keepset::new();
    keepset.set(2);
    let at = free();
    settings(&keepset, at, "schedule: '@yearly'");
    let agent = Running::begin(&keepset, at);
    eventually("the agent is ready", || agent.is_ok("/readyz"));
    assert!(agent.is_ok("/livez") && !agent.is_ok("/nothing"));
    assert_eq!(agent.metric("keepset_leader"), Some(1.0));
    assert_eq!(points(&keepset), 0);

    // A file that is wrong changes nothing, and is told.
    fs::write(keepset.path("settings.yaml"), "cluster: test\nsetts: []\n").unwrap();
    eventually("the settings are found wrong", || agent.metric("keepset_settings_valid") == Some(0.0));
    assert!(fs::read_to_string(keepset.path("log")).unwrap().contains("unknown key `setts`"));

    settings(&keepset, at, &format!("schedule: '{EVERY_MINUTE}'"));
    let success = r#"keepset_backups_total{namespace="shop",set="web",result="complete"}"#;
    eventually("a backup has been made", || agent.metric(success) >= Some(1.0));
    assert_eq!(agent.metric("keepset_settings_valid"), Some(1.0));
    let of_set = |name: &str| agent.metric(&format!(r#"{name}{{namespace="shop",set="web"}}"#));
    eventually("the point is seen", || of_set("keepset_set_last_success_timestamp_seconds").is_some());
    assert!(of_set("keepset_backup_read_bytes") > Some(600_000.0) && of_set("keepset_set_interval_seconds") == Some(60.0));
    assert!(of_set("keepset_mover_memory_peak_bytes") > Some(1_000_000.0));
    eventually("retention was applied", || agent.metric(r#"keepset_tasks_total{task="forget",result="done"}"#) >= Some(1.0));
    assert!(agent.metric("keepset_repository_size_bytes").is_some() && agent.metric("keepset_repository_reachable") == Some(1.0));

    // With the repository away it goes on, and says so.
    fs::rename(keepset.path("repository"), keepset.path("away")).unwrap();
    eventually("the repository is missed", || agent.metric("keepset_repository_reachable") == Some(0.0));
    assert!(agent.is_ok("/readyz"));
    fs::rename(keepset.path("away"), keepset.path("repository")).unwrap();
    eventually("the repository is back", || agent.metric("keepset_repository_reachable") == Some(1.0));
    assert_eq!(agent.end(), 0);
    assert!(points(&keepset) >= 1);
    assert!(keepset.objects("locks").is_empty());
}

/// The log up to and with the line that has these words.
fn read_up_to(lines: &mut impl Iterator<Item = String>, words: &str) -> Vec<String> {
    let mut read = Vec::new();
    for line in lines {
        let is_it = line.contains(words);
        read.push(line);
        if is_it {
            return read;
        }
    }
    panic!("the agent ended before it said `{words}`: {}", read.join("\n"));
}

/// An agent that has everything to do at once is told to stop as soon as it has begun `task`.
fn stopped_while(task: &str, grace: &str) {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    let drills = keepset.path("drills");
    fs::create_dir(&drills).unwrap();
    let text = format!(
        "cluster: test\ndefaults: {{retention: {{keepLast: 1}}}}\n\
         agent: {{listen: '{}', prune: {{schedule: '{EVERY_MINUTE}'}}, check: {{schedule: '{EVERY_MINUTE}', readData: 100%}}}}\n\
         sets:\n- {{match: {{namespace: shop, name: web}}, from: live, schedule: '{EVERY_MINUTE}', drill: {{scratch: {}, schedule: '{EVERY_MINUTE}'}}}}\n",
        free(),
        drills.display(),
    );
    fs::write(keepset.path("settings.yaml"), text).unwrap();
    let mut child = keepset.command().args(["agent", "--grace", grace]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let before = read_up_to(&mut lines, &format!("{task}: begins"));
    signal(child.id(), rustix::process::Signal::TERM);
    let log = before.into_iter().chain(lines).collect::<Vec<_>>().join("\n");
    let about = format!("{task} with {grace}: {log}");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{about}");
    // What was begun has ended, well where there was time for it, and nothing of it is left.
    let said = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    let ends = ["done", "partial", "failed", "refused", "held", "interrupted"].map(|ending| said(&format!(": {ending}")));
    assert!(ends.iter().sum::<usize>() >= said(": begins") && said("given up") == 0, "{about}");
    assert!(grace == "0s" || said(&format!("{task}: done")) == 1, "{about}");
    assert!(keepset.objects("locks").is_empty(), "{about}");
    assert_eq!(fs::read_dir(&drills).unwrap().count(), 0, "{about}");
    // The next one goes on as if nothing had been.
    keepset.ok(["agent", "--once"]);
    keepset.ok(["check", "--read-data"]);
    let restored = keepset.path("restored");
    keepset.ok(["restore", "shop/web", "--into", restored.to_str().unwrap()]);
    for claim in ["data-web-0", "data-web-1"] {
        support::compare::assert_same(&live.join(claim), &restored.join(claim));
    }
}

#[test]
fn whatever_is_at_work_when_the_agent_is_told_to_stop_is_finished_or_ended_cleanly() {
    std::thread::scope(|scope| {
        for task in ["backup of shop/web", "forget", "prune", "check", "drill of shop/web"] {
            scope.spawn(move || ["0s", "60s"].into_iter().for_each(|grace| stopped_while(task, grace)));
        }
    });
}

#[test]
fn status_tells_when_sets_are_due_and_what_somebody_has_to_look_after() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let attention = |keepset: &Keepset| keepset.json(["status"])["sets"][0]["attention"].clone();
    settings(&keepset, free(), "schedule: '@yearly'");
    let status = keepset.json(["status"]);
    assert!(status["sets"][0]["next"].as_str().unwrap().ends_with("-01-01T00:00:00Z"), "{status}");
    keepset.backup(&root);
    assert_eq!(attention(&keepset), serde_json::json!([]));
    settings(&keepset, free(), "schedule: '@yearly', suspend: true");
    assert_eq!(attention(&keepset), serde_json::json!(["suspended"]));
    let text = keepset.ok(["status"]);
    assert!(text.contains("suspended") && text.contains("attention"), "{text}");
}
