//! The agent in a real cluster, brought there by the chart: schedules, metrics, kills, hand-overs, settings that change, and what is left
//! when it goes: `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::cluster::{Plain, Space, eventually, kubectl, kubectl_with};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The agent of a release `agent` in a space's own namespace. The account, Role and Secret called `keepset` there are the space's.
struct Agent<'a> {
    space: &'a Space,
}

const NAME: &str = "agent-keepset";

impl<'a> Agent<'a> {
    /// Installed by Helm, and ready. `settings` are lines of the settings file, `values` lines of the chart's values.
    ///
    /// The space's own account for jobs is no part of the release, so that of the chart is left out.
    fn install(space: &'a Space, settings: &str, values: &str) -> Agent<'a> {
        let agent = Agent { space };
        agent.helm("install", settings, values, &["--wait", "--timeout=2m"]);
        agent
    }

    fn helm(&self, verb: &str, settings: &str, values: &str, args: &[&str]) {
        let image = std::env::var("KEEPSET_TEST_IMAGE").expect("KEEPSET_TEST_IMAGE is not set: `make e2e` runs this suite");
        let (repository, tag) = image.rsplit_once(':').unwrap();
        let settings: Vec<String> = settings.trim().lines().map(|line| format!("  {line}")).collect();
        let file = self.space.path("values.yaml");
        let all = format!(
            "image: {{repository: {repository}, tag: {tag}, pullPolicy: Never}}\n{}\nsettings:\n  cluster: bed\n  \
             repository: {{url: \"{}\"}}\n{}\n",
            values.trim(),
            self.space.location(),
            settings.join("\n")
        );
        fs::write(&file, all).unwrap();
        let chart = root().join("deploy/chart");
        let own = [verb, "agent", chart.to_str().unwrap(), "--set=rbac.jobAccounts=false", "--values", file.to_str().unwrap()];
        helm(self.space, own.iter().copied().chain(args.iter().copied()));
    }

    /// Other settings for an agent that goes on.
    fn change(&self, settings: &str, values: &str) {
        self.helm("upgrade", settings, values, &[]);
    }

    /// Everything that the chart made is gone.
    fn uninstall(self) {
        helm(self.space, ["uninstall", "agent", "--wait", "--timeout=3m"]);
        for kinds in ["all,serviceaccounts,configmaps,roles,rolebindings", "clusterroles,clusterrolebindings"] {
            eventually(&format!("{kinds} of the chart are gone"), || {
                let made = self.space.admin(["get", kinds, "--selector=app.kubernetes.io/instance=agent", "--output=json"]);
                let made: Value = serde_json::from_str(&made).unwrap();
                // What belongs to no namespace has this one's in its name.
                let ours = |item: &Value| {
                    let name = item["metadata"]["name"].as_str().unwrap();
                    item["metadata"]["namespace"] == *self.space.name || name.starts_with(&self.space.name)
                };
                !made["items"].as_array().unwrap().iter().any(ours)
            });
        }
    }

    /// Its pods that run, by name, with their uids.
    fn pods(&self) -> Vec<(String, String)> {
        let pods = self.space.admin(["get", "pods", "--selector=app.kubernetes.io/instance=agent", "--output=json"]);
        let pods: Value = serde_json::from_str(&pods).unwrap();
        let running = pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        running.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]))).collect()
    }

    /// What it tells Prometheus, asked of one pod.
    fn metrics_of(&self, pod: &str) -> Option<Metrics> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:8080/proxy/metrics", self.space.name);
        let output = Command::new("kubectl").args(["get", "--raw", &path]).output().unwrap();
        output.status.success().then(|| Metrics(String::from_utf8(output.stdout).unwrap()))
    }

    /// The pod that works: the one that says so.
    fn leader(&self) -> Option<(String, Metrics)> {
        let pods = self.pods().into_iter();
        let mut told = pods.filter_map(|(pod, _)| self.metrics_of(&pod).map(|metrics| (pod, metrics)));
        told.find(|(_, metrics)| metrics.value("keepset_leader", &[]) == Some(1.0))
    }

    /// Asks the leader until the answer is yes.
    fn told(&self, what: &str, yes: impl Fn(&Metrics) -> bool) -> Metrics {
        let mut last = None;
        eventually(what, || {
            last = self.leader().map(|(_, metrics)| metrics);
            last.as_ref().is_some_and(&yes)
        });
        last.unwrap()
    }
}

fn helm<'a>(space: &Space, args: impl IntoIterator<Item = &'a str>) -> String {
    let mut command = Command::new("helm");
    command.args(["--namespace", &space.name]).args(args);
    for kind in ["CACHE", "CONFIG", "DATA"] {
        command.env(format!("HELM_{kind}_HOME"), space.path("helm"));
    }
    said(&command.output().unwrap(), "helm")
}

fn said(output: &Output, what: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {out}{err}");
    out.into_owned()
}

/// A page of metrics.
#[derive(Debug)]
struct Metrics(String);

impl Metrics {
    /// The value of the series that has these labels.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |series: &str| labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\"")));
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let line = self.0.lines().filter(of_name).find(|line| has(line))?;
        line.rsplit(' ').next().unwrap().parse().ok()
    }

    fn names(&self) -> BTreeSet<&str> {
        let series = self.0.lines().filter(|line| !line.starts_with('#'));
        series.filter_map(|line| line.split(['{', ' ']).next()).collect()
    }
}

fn complete(space: &Space, set: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(&space.ok(["list", &space.set(set), "--json"]).out).unwrap();
    list["points"].as_array().unwrap().iter().filter(|point| point["complete"] == true && point["kind"] == "normal").cloned().collect()
}

/// Whether a run of the set `web` is under way in this pod: it has the set's Lease.
fn at_work(space: &Space, pod: &str) -> bool {
    let leases = space.get("leases");
    let of_set = leases["items"].as_array().unwrap().iter().find(|lease| lease["metadata"]["name"] == "keepset-set-web");
    of_set.and_then(|lease| lease["spec"]["holderIdentity"].as_str()).is_some_and(|holder| holder.starts_with(&format!("{pod}/")))
}

/// The pod that works, once a run of it is under way.
fn at_work_now(agent: &Agent) -> String {
    let mut found = String::new();
    eventually("a run is under way", || {
        let Some((leader, _)) = agent.leader() else { return false };
        found = leader;
        at_work(agent.space, &found)
    });
    found
}

/// A namespace for drills, which has the Secret that the space has; the Role there is the chart's.
fn place_for_drills(space: &Space) -> String {
    let drills = format!("{}-drills", space.name);
    kubectl(["create", "namespace", &drills]);
    let secret = space.get("secret/keepset");
    let copy = serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keepset" }, "data": secret["data"] });
    kubectl_with(["--namespace", &drills, "apply", "--filename=-"], &copy.to_string());
    drills
}

const EVERY_MINUTE: &str = "keepset.dev/schedule=* * * * *";

#[test]
fn what_asks_for_it_is_backed_up_pruned_checked_and_drilled_by_schedule_and_metrics_tell() {
    let space = Space::new("agent");
    let drills = place_for_drills(&space);
    let own = &space.name;
    let settings = format!(
        "defaults: {{retention: {{keepLast: 1}}, catchUp: 1m}}\n\
         agent: {{namespaces: [{own}], prune: {{schedule: \"* * * * *\"}}, check: {{schedule: \"* * * * *\", readData: 100%}}}}"
    );
    let agent = Agent::install(&space, &settings, "");
    space.etcd();
    space.etcdctl("put key old");
    let set = [("namespace", own.as_str()), ("set", "etcd")];
    assert!(complete(&space, "etcd").is_empty(), "a set that asks for nothing was backed up");

    space.admin(["annotate", "statefulset", "etcd", EVERY_MINUTE]);
    let first =
        agent.told("the first point", |metrics| metrics.value("keepset_set_last_success_timestamp_seconds", &set).unwrap_or(0.0) > 0.0);
    assert_eq!(first.value("keepset_set_interval_seconds", &set), Some(60.0), "{first:?}");
    assert_eq!(first.value("keepset_set_last_point_complete", &set), Some(1.0), "{first:?}");
    let points = complete(&space, "etcd");
    assert!(!points.is_empty() && points[0]["consistency"] == "group", "{points:?}");

    let drill = format!("sets:\n- match: {{namespace: {own}, name: etcd}}\n  drill: {{schedule: \"* * * * *\", namespace: {drills}}}");
    agent.change(&format!("{settings}\n{drill}"), "");
    let result = |metrics: &Metrics, name: &str, result: &str| metrics.value(name, &[set[0], set[1], ("result", result)]).unwrap_or(0.0);
    let later = agent.told("two points were made, upkeep was done, a drill has proven a point", |metrics| {
        let task = |task: &str| metrics.value("keepset_tasks_total", &[("task", task), ("result", "done")]).unwrap_or(0.0);
        result(metrics, "keepset_backups_total", "complete") >= 2.0
            && ["forget", "prune", "check"].into_iter().all(|name| task(name) >= 1.0)
            && result(metrics, "keepset_drills_total", "proven") >= 1.0
            && metrics.value("keepset_drill_last_proven", &set) == Some(1.0)
    });
    assert_eq!(later.value("keepset_check_last_sound", &[]), Some(1.0));
    assert_eq!(later.value("keepset_repository_reachable", &[]), Some(1.0));
    // One may have been sealed since, whose retention is still to come.
    assert!(later.value("keepset_set_points", &[set[0], set[1], ("kind", "complete")]).unwrap() <= 2.0, "{later:?}");
    // All that is described is told, and nothing else.
    let page = fs::read_to_string(root().join("docs/agent.md")).unwrap();
    let described: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).filter(|name| name.starts_with("keepset_")).collect();
    let names = later.names();
    let told: BTreeSet<&str> = names.iter().copied().filter(|name| name.starts_with("keepset_")).collect();
    assert!(told.is_subset(&described), "{:?}", told.difference(&described).collect::<Vec<_>>());
    // Nothing was left out here.
    let untold: Vec<&&str> = described.difference(&told).filter(|name| **name != "keepset_missed_schedules_total").collect();
    assert!(untold.is_empty(), "{untold:?}");

    agent.uninstall();
    // What it made is as good as what a person makes.
    space.ok(["check", "--read-data"]);
    space.restic().run(["check", "--read-data"]);
    assert!(!complete(&space, "etcd").is_empty());
    assert_eq!(space.exec("etcd-0", "etcdctl get key --print-value-only"), "old\n");
    space.assert_tidy();
    kubectl(["delete", "namespace", &drills, "--wait=false"]);
}

/// A set whose backups take so long that something can happen meanwhile, which is looked after by an agent with these values.
fn slow<'a>(space: &'a Space, values: &str) -> (Agent<'a>, String) {
    space.plain(&Plain { replicas: 1, ..Plain::default() });
    let settings = format!(
        "agent: {{namespaces: [{own}]}}\nsets:\n- match: {{namespace: {own}, name: web}}\n  schedule: \"* * * * *\"\n  hooks:\n    pre: [{{command: [sleep, \"15\"], timeout: 1m}}]",
        own = space.name
    );
    (Agent::install(space, &settings, values), settings)
}

#[test]
fn of_two_agents_one_works_and_the_other_takes_over_whether_the_first_is_ended_or_killed() {
    let space = Space::new("agents");
    let (agent, _) = slow(&space, "replicas: 2\nterminationGracePeriodSeconds: 60");
    let pods = agent.pods();
    assert_eq!(pods.len(), 2);
    let leading = || pods.iter().filter_map(|(pod, _)| agent.metrics_of(pod)?.value("keepset_leader", &[])).sum::<f64>();
    eventually("one of them works", || leading() == 1.0);

    // Killed in the middle of a run, as by a node that goes: no point of it, and another's run makes the next one.
    let killed = at_work_now(&agent);
    let before = complete(&space, "web").len();
    space.admin(["delete", "pod", &killed, "--grace-period=0", "--force"]);
    eventually("the other works", || agent.leader().is_some_and(|(pod, _)| pod != killed));
    eventually("it makes the next point", || complete(&space, "web").len() > before);

    // Ended in the middle of a run: it is finished, and the Lease is given up at once.
    eventually("there are two again", || agent.pods().len() == 2);
    let ended = at_work_now(&agent);
    let before = complete(&space, "web").len();
    space.admin(["delete", "pod", &ended, "--wait=true"]);
    assert!(complete(&space, "web").len() > before, "the run that was under way was not finished");
    eventually("the other works", || agent.leader().is_some_and(|(pod, _)| pod != ended));
    agent.uninstall();
    space.assert_tidy();
    space.ok(["check", "--read-data"]);
}

#[test]
fn a_drill_that_is_at_work_when_its_agent_is_ended_is_finished_or_ended_cleanly() {
    let space = Space::new("ended");
    let drills = place_for_drills(&space);
    space.plain(&Plain { replicas: 1, ..Plain::default() });
    space.ok(["backup", &space.set("web")]);
    let settings = |seconds: u32| {
        format!(
            "agent: {{namespaces: [{own}]}}\nsets:\n- match: {{namespace: {own}, name: web}}\n  drill:\n    schedule: \"* * * * *\"\n    \
             namespace: {drills}\n    probe: {{image: localhost/busybox:1, command: [sleep, \"{seconds}\"], timeout: 20m}}",
            own = space.name
        )
    };
    let agent = Agent::install(&space, &settings(15), "terminationGracePeriodSeconds: 80");
    let there = |kinds: &str| kubectl(["--namespace", &drills, "get", kinds, "--output=name"]);
    let probe_runs = || {
        let pods = "--output=jsonpath={range .items[*]}{.metadata.name} {.status.phase}{\"\\n\"}{end}";
        kubectl(["--namespace", &drills, "get", "pods", pods]).lines().any(|pod| pod.ends_with("-probe Running"))
    };
    let verdicts = || {
        let events = space.get("events.events.k8s.io");
        events["items"].as_array().unwrap().iter().filter(|event| event["reason"] == "DrillSucceeded").count()
    };
    for (seconds, finished) in [(15, true), (1000, false)] {
        agent.change(&settings(seconds), "terminationGracePeriodSeconds: 80");
        eventually("a probe of that length runs", || {
            let pods = kubectl(["--namespace", &drills, "get", "pods", "--output=json"]);
            probe_runs() && pods.contains(&format!("\"{seconds}\""))
        });
        let before = verdicts();
        let (pod, _) = agent.leader().unwrap();
        space.admin(["delete", "pod", &pod, "--wait=true"]);
        if finished {
            assert!(verdicts() > before, "the drill was not finished");
        }
        // The next agent may be at one again, but nothing of that run is left.
        space.admin(["scale", "deployment", NAME, "--replicas=0"]);
        eventually("all that was drilled is gone", || there("pods,persistentvolumeclaims").is_empty());
        space.admin(["scale", "deployment", NAME, "--replicas=1"]);
    }
    agent.uninstall();
    space.ok(["check", "--read-data"]);
    kubectl(["delete", "namespace", &drills, "--wait=false"]);
}

#[test]
fn settings_are_taken_up_without_a_restart_and_those_that_make_no_sense_leave_the_old_in_force() {
    let space = Space::new("settings");
    let (agent, settings) = slow(&space, "");
    let set = [("namespace", space.name.as_str()), ("set", "web")];
    agent.told("the set is known", |metrics| metrics.value("keepset_set_interval_seconds", &set) == Some(60.0));
    let pods = agent.pods();

    agent.change(&format!("{settings}\n  suspend: true"), "");
    agent.told("it is suspended", |metrics| metrics.value("keepset_set_suspended", &set) == Some(1.0));
    agent.change(&format!("{settings}\n  suspend: perhaps"), "");
    agent.told("it says that it cannot use them", |metrics| metrics.value("keepset_settings_valid", &[]) == Some(0.0));
    let log = space.admin(["logs", &format!("deployment/{NAME}")]);
    assert!(log.contains("/etc/keepset/keepset.yaml:") && log.contains("cannot be used"), "{log}");
    agent.told("it is suspended still", |metrics| metrics.value("keepset_set_suspended", &set) == Some(1.0));
    agent.change(&settings.replace("* * * * *", "0 0 * * *"), "");
    agent.told("it has another schedule", |metrics| {
        metrics.value("keepset_settings_valid", &[]) == Some(1.0)
            && metrics.value("keepset_set_suspended", &set) == Some(0.0)
            && metrics.value("keepset_set_interval_seconds", &set) == Some(86400.0)
    });
    assert_eq!(agent.pods(), pods, "the pod is another");
    let restarts = space.get(&format!("pod/{}", pods[0].0))["status"]["containerStatuses"][0]["restartCount"].clone();
    assert_eq!(restarts, 0);
    agent.uninstall();
}

#[test]
fn a_cron_job_does_what_is_due_and_uninstalling_leaves_points_claims_and_sets() {
    let space = Space::new("cron");
    space.plain(&Plain { replicas: 2, ..Plain::default() });
    space.exec("web-1", "echo mine >/data/word");
    space.admin(["annotate", "statefulset", "web", EVERY_MINUTE, "keepset.dev/retention=keepLast=1"]);
    let agent = Agent::install(&space, "", "mode: cronjob\ncronjob: {schedule: \"* * * * *\", successfulJobsHistoryLimit: 9}");
    let done = || space.get("jobs")["items"].as_array().unwrap().iter().filter(|job| job["status"]["succeeded"] == 1).count();
    eventually("a job was done", || done() >= 1);
    let first = complete(&space, "web");
    assert_eq!(first.len(), 1);
    eventually("another was done", || done() >= 2);
    let second = complete(&space, "web");
    assert!(second.len() == 1 && second[0]["id"] != first[0]["id"], "{second:?}");
    let events = space.get("events.events.k8s.io");
    assert!(events["items"].as_array().unwrap().iter().any(|event| event["reason"] == "BackupSucceeded"));
    agent.uninstall();
    space.assert_tidy();
    space.ready("web", 2);
    let claims = space.get("persistentvolumeclaims");
    assert_eq!(claims["items"].as_array().unwrap().len(), 2);
    // And the point is one that brings the set back.
    space.exec("web-1", "rm /data/word");
    space.ok(["restore", &space.set("web"), "--replace"]);
    assert_eq!(space.exec("web-1", "cat /data/word"), "mine\n");
}

#[test]
fn an_agent_elsewhere_looks_after_sets_of_the_namespaces_that_it_was_given_and_may_look_at_no_other() {
    let space = Space::new("elsewhere");
    let (given, other) = (format!("{}-given", space.name), format!("{}-other", space.name));
    let secret = space.get("secret/keepset");
    let copy = serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keepset" }, "data": secret["data"] });
    for namespace in [&given, &other] {
        kubectl(["create", "namespace", namespace]);
        kubectl_with(["--namespace", namespace, "apply", "--filename=-"], &copy.to_string());
    }
    let agent = Agent::install(&space, &format!("agent: {{namespaces: [{given}]}}"), "");
    agent.change(&format!("agent: {{namespaces: [{given}]}}"), "rbac: {snapshotClasses: false}");
    let account = format!("--as=system:serviceaccount:{}:{NAME}", space.name);
    let may = |namespace: &str, verb: &str, what: &str| {
        let mut asked = Command::new("kubectl");
        asked.args(["--namespace", namespace, "auth", "can-i", verb, what, &account]).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().unwrap().success()
    };
    for (verb, what) in [("create", "pods"), ("watch", "statefulsets"), ("patch", "persistentvolumeclaims"), ("create", "leases")] {
        assert!(may(&given, verb, what), "{verb} {what}");
        assert!(!may(&other, verb, what), "{verb} {what} elsewhere");
    }
    assert!(may(&space.name, "create", "leases") && !may(&space.name, "create", "pods"));
    assert!(!may(&given, "get", "secrets") && !may(&given, "list", "secrets"));
    agent.told("it works", |_| true);
    agent.uninstall();
    for namespace in [&given, &other] {
        kubectl(["delete", "namespace", namespace, "--wait=false"]);
    }
}

/// The `sh` blocks of the page on getting started, in order, but those that say why they are not run here.
fn steps() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/getting-started.md")).unwrap();
    let mut parts = page.split("```");
    let mut steps = Vec::new();
    while let (Some(prose), Some(block)) = (parts.next(), parts.next()) {
        let (kind, text) = block.split_once('\n').unwrap();
        assert_eq!(kind, "sh", "a block of another kind: {text}");
        if !prose.trim_end().lines().last().is_some_and(|line| line.starts_with("<!-- not run: ")) {
            steps.push(text.to_owned());
        }
    }
    steps
}

#[test]
fn every_step_of_the_page_on_getting_started_does_what_it_says() {
    let space = Space::new("start");
    let bed = PathBuf::from(std::env::var("KEEPSET_BED").unwrap());
    let testbed = root().join("tests/testbed");
    let minio = said(&Command::new(testbed.join("minio.sh")).output().unwrap(), "minio.sh");
    let mut load = Command::new(testbed.join("cluster/load-image.sh"));
    load.args(["--bed", bed.to_str().unwrap(), "localhost/minio:bed", minio.trim()]);
    said(&load.output().unwrap(), "load-image.sh");

    // There is no registry here, and no name service. The set's time was half an hour ago, and so will not come again in the middle of this.
    let deploy = space.path("deploy");
    said(&Command::new("cp").args(["-r", root().join("deploy").to_str().unwrap(), deploy.to_str().unwrap()]).output().unwrap(), "cp");
    let image = std::env::var("KEEPSET_TEST_IMAGE").unwrap();
    let (repository, tag) = image.rsplit_once(':').unwrap();
    let due = said(&Command::new("date").args(["--utc", "--date=-30 minutes", "+%-M %-H * * *"]).output().unwrap(), "date");
    for name in ["minio", "init", "values", "web"] {
        let file = deploy.join(format!("examples/minio/{name}.yaml"));
        let text = fs::read_to_string(&file).unwrap();
        let here = text
            .replace("registry.example.com/keepset:0.1.0", &image)
            .replace("repository: registry.example.com/keepset, tag: 0.1.0", &format!("repository: {repository}, tag: {tag}"))
            .replace("docker.io/library/busybox:1.37", "localhost/busybox:1")
            .replace("quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z", "localhost/minio:bed")
            .replace("0 * * * *", due.trim());
        assert_ne!(here, text, "{name}");
        fs::write(file, here).unwrap();
    }
    let steps = steps();
    assert!(steps.len() >= 9, "{} steps", steps.len());
    for step in steps {
        let address = "$(kubectl --namespace minio get service minio --output jsonpath={.spec.clusterIP})";
        let here = step.replace("minio.minio.svc", address);
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &here]).current_dir(space.path("")).stdin(Stdio::null());
        for kind in ["CACHE", "CONFIG", "DATA"] {
            shell.env(format!("HELM_{kind}_HOME"), space.path("helm"));
        }
        said(&shell.output().unwrap(), &step);
    }
}
