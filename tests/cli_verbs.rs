//! Does each verb of the real program do what its help says, in text and in JSON?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::process::Stdio;

use keepset::clock::Clock;
use keepset::repository::key::Password;
use keepset::repository::{Repository, snapshot};
use keepset::store::{Location, Store};
use support::compare::assert_same;
use support::keepset::{Keepset, Ran};

#[test]
fn what_was_backed_up_is_listed_shown_read_and_restored() {
    let keepset = Keepset::new();
    let root = keepset.set(2);
    let point = keepset.backup(&root);

    let listed = keepset.json(["list"]);
    let row = &listed["points"][0];
    assert_eq!((row["id"].as_str(), row["set"].as_str(), row["cluster"].as_str()), (Some(point.as_str()), Some("shop/web"), Some("test")));
    assert_eq!((row["complete"].as_bool(), row["claims"].as_u64(), row["files"].as_u64()), (Some(true), Some(2), Some(4)));
    assert!(keepset.ok(["list", "shop/web"]).contains(&point[..8]));
    assert_eq!(keepset.json(["list", "shop/other"])["points"].as_array().unwrap().len(), 0);

    let shown = keepset.json(["show", &point[..8]]);
    assert_eq!(shown["manifest"]["claims"][1]["name"], "data-web-1");
    assert!(keepset.ok(["show", "shop/web"]).contains("data-web-1"));

    assert_eq!(keepset.ok(["ls", "latest"]), "data-web-0\ndata-web-1\n");
    assert_eq!(keepset.ok(["ls", "latest", "data-web-1"]), "data-web-1/conf\ndata-web-1/pages\n");
    assert!(keepset.ok(["ls", "-lR", "latest"]).contains("data-web-0/conf/app.yaml"));
    assert_eq!(keepset.ok(["dump", "latest", "data-web-1/conf/app.yaml"]), "ordinal: 1\n");
    keepset.run(["dump", "latest", "data-web-1/conf"]).refused(2, "no regular file");
    keepset.run(["dump", "latest", "data-web-1/none"]).refused(1, "there is no `none` in data-web-1");
    keepset.run(["dump", "latest", "data-web-7/none"]).refused(1, "no claim `data-web-7`");

    let status = keepset.json(["status"]);
    assert_eq!(status["sets"][0]["newest"]["id"], point.as_str());
    assert_eq!(status["locks"].as_array().unwrap().len(), 0);
    assert!(keepset.ok(["check", "--read-data"]).contains("nothing is damaged"));

    let plan = keepset.json(["restore", "shop/web", "--into", "back", "--dry-run"]);
    assert_eq!(plan["plan"]["claims"].as_array().unwrap().len(), 2);
    assert!(!keepset.path("back").exists());
    let restored = keepset.json(["restore", "shop/web", "--into", "back"]);
    assert_eq!(restored["whole"], true);
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));
    assert_same(&root.join("data-web-1"), &keepset.path("back/data-web-1"));
    keepset.run(["restore", "shop/web", "--into", "back"]).refused(13, "");
}

#[test]
fn a_run_leaves_nothing_of_its_own_in_a_folder() {
    let keepset = Keepset::new();
    let root = keepset.set(2);
    keepset.backup(&root);
    keepset.backup(&root);
    assert_eq!(fs::read_dir(keepset.path("repository/x-keepset/runs")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(keepset.path("repository/locks")).unwrap().count(), 0);
}

#[test]
fn a_dry_run_of_a_backup_makes_no_point() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let args = ["backup", "shop/web", "--dry-run", "--from", root.to_str().unwrap()];
    assert!(keepset.ok(args).contains("data-web-0"));
    assert_eq!(keepset.json(args)["plans"][0]["ordinals"].as_array().unwrap().len(), 1);
    assert!(keepset.objects("snapshots").is_empty() && keepset.objects("data").is_empty());
}

#[test]
fn a_difference_between_points_is_told_by_its_kind() {
    use std::os::unix::fs::PermissionsExt;
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let first = keepset.backup(&root);
    let claim = root.join("data-web-0");
    fs::write(claim.join("new"), "12345").unwrap();
    fs::write(claim.join("conf/app.yaml"), "ordinal: 0, changed\n").unwrap();
    fs::set_permissions(claim.join("pages"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = keepset.backup(&root);
    assert_eq!(keepset.ok(["diff", &first, &first]), "");
    let text = keepset.ok(["diff", &first, &second]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["+ data-web-0/new  5 B", "U data-web-0/pages", "M data-web-0/conf/app.yaml  11 B -> 20 B"]);
    let back = keepset.ok(["diff", &second, &first]);
    assert!(back.contains("- data-web-0/new  5 B"), "{back}");
}

#[test]
fn forgetting_follows_the_rules_and_says_why() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let points: Vec<String> = (0..3).map(|_| keepset.backup(&root)).collect();
    let dry = keepset.json(["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(dry["sets"][0]["forget"].as_array().unwrap().len(), 2);
    assert_eq!(keepset.objects("snapshots").len(), 3);
    let text = keepset.ok(["forget", "--keep-last", "1"]);
    assert!(text.contains("1 point kept, 2 forgotten"), "{text}");
    let left = keepset.json(["list"]);
    assert_eq!(left["points"].as_array().unwrap().len(), 1);
    assert_eq!(left["points"][0]["id"], points[2].as_str());
    assert!(keepset.objects("locks").is_empty());
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));
}

#[test]
fn a_password_is_added_used_and_removed() {
    let keepset = Keepset::new();
    keepset.ok(["password", "add", "--generate-password", "second"]);
    let keys = keepset.json(["password", "list"]);
    let in_use = keys["keys"].as_array().unwrap().iter().find(|key| key["inUse"] == true).unwrap()["id"].as_str().unwrap().to_owned();
    keepset.run(["password", "remove", &in_use[..8]]).expect(13);
    keepset.ok(["--password-file", "second", "password", "remove", &in_use[..8]]);
    keepset.run(["list"]).refused(12, "opens no key");
    keepset.ok(["--password-file", "second", "list"]);
}

#[test]
fn settings_name_the_sets_and_how_they_start() {
    let keepset = Keepset::new();
    let root = keepset.set(3);
    let settings = format!(
        "cluster: test\nrepository: {{url: {repo}, passwordFile: {password}}}\nsets:\n  - match: {{namespace: shop, name: web}}\n    \
         from: {root}\n    start:\n      command: [sh, -c, 'echo {{ordinal}} >> {log}']\n      deadline: 30s\n",
        repo = keepset.path("repository").display(),
        password = keepset.path("password").display(),
        root = root.display(),
        log = keepset.path("started").display(),
    );
    fs::write(keepset.path("settings.yaml"), settings).unwrap();
    let answer = keepset.json(["backup", "--all"]);
    assert_eq!(answer["backups"][0]["complete"], true);
    fs::rename(&root, keepset.path("before")).unwrap();
    let restored = keepset.json(["restore", "shop/web"]);
    assert_eq!(restored["started"], serde_json::json!([0, 1, 2]));
    assert_eq!(fs::read_to_string(keepset.path("started")).unwrap(), "0\n1\n2\n");
    for ordinal in 0..3 {
        let claim = format!("data-web-{ordinal}");
        assert_same(&keepset.path("before").join(&claim), &root.join(&claim));
    }
}

#[test]
fn an_interrupt_stops_cleanly_with_130_and_leaves_no_lock() {
    let keepset = Keepset::new();
    let root = keepset.set(2);
    keepset.backup(&root);
    let fifo = keepset.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let settings = format!(
        "cluster: test\nsets:\n  - match: {{namespace: shop, name: web}}\n    start: {{command: [sh, -c, 'echo up > {}; sleep 600'], deadline: 1h}}\n",
        fifo.display()
    );
    fs::write(keepset.path("settings.yaml"), settings).unwrap();
    let mut command = keepset.command();
    command.args(["restore", "shop/web", "--into", "back"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Opening waits until the start command of the first ordinal runs.
    let mut said = String::new();
    fs::File::open(&fifo).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "up\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).expect(130);
    assert!(ran.err.contains("error: interrupted"), "{}", ran.err);
    assert!(keepset.objects("locks").is_empty());
    // The data was there before anything was started.
    assert_same(&root.join("data-web-1"), &keepset.path("back/data-web-1"));
}

#[test]
fn standard_output_is_data_and_errors_are_json_where_asked() {
    let keepset = Keepset::new();
    let ran = keepset.run(["list"]).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "there is no point yet\n"));
    assert_eq!(keepset.run(["list", "--quiet"]).expect(0).err, "");
    let ran = keepset.run(["show", "abcd", "--json"]).expect(1);
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["error"]["exitCode"], 1);
    assert!(error["error"]["message"].as_str().unwrap().contains("abcd") && error["error"]["hint"].is_string());
    assert_eq!(ran.out, "");
}

#[test]
fn help_begins_with_examples_and_completions_know_the_verbs() {
    let keepset = Keepset::bare();
    for verb in [
        "demo",
        "init",
        "backup",
        "status",
        "list",
        "show",
        "ls",
        "diff",
        "dump",
        "restore",
        "check",
        "forget",
        "password",
        "unlock",
        "completions",
        "man",
    ] {
        let help = keepset.ok([verb, "--help"]);
        let (examples, usage) = (help.find("Examples:"), help.find("Usage:"));
        assert!(examples.is_some() && examples < usage, "{verb}: {help}");
        assert!(keepset.ok(["completions", "bash"]).contains(verb), "{verb}");
    }
    assert!(!keepset.ok(["--help"]).contains("mover"));
}

#[test]
fn manual_pages_say_what_the_help_says_and_there_is_one_for_each_verb() {
    let keepset = Keepset::bare();
    let page = keepset.ok(["man"]);
    assert!(page.contains(".TH keepset 1") && page.contains("keepset restore shop/web"), "{page}");
    let pages = keepset.dir.path().join("man");
    fs::write(&pages, "in the way").unwrap();
    keepset.run(["man", "--dir", "man"]).refused(1, "cannot write manual pages to man");
    fs::remove_file(&pages).unwrap();
    keepset.ok(["man", "--dir", "man"]);
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("keepset.1").contains("keepset\\-backup(1)"), "{}", page("keepset.1"));
    assert!(page("keepset-restore.1").contains("\\-\\-skip\\-damaged"), "{}", page("keepset-restore.1"));
    assert!(!pages.join("keepset-mover.1").exists());
}

#[test]
fn the_demo_brings_everything_back() {
    let keepset = Keepset::bare();
    let answer = keepset.json(["demo", "--dir", "demo"]);
    assert_eq!(answer["differences"], serde_json::json!([]));
    assert_eq!(answer["started"], serde_json::json!(["web-0", "web-1", "web-2"]));
    assert!(answer["secondStoredBytes"].as_u64() < answer["firstStoredBytes"].as_u64());
    assert!(answer["compared"].as_u64().unwrap() > 100);
    keepset.run(["demo", "--dir", "demo"]).refused(13, "is not empty");
    assert!(keepset.ok(["demo"]).lines().count() <= 40);
}

#[test]
fn the_time_in_a_row_of_the_list_names_that_point_in_any_zone() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let mut points = Vec::new();
    for text in ["first", "second", "third"] {
        fs::write(root.join("data-web-0/conf/app.yaml"), text).unwrap();
        points.push(keepset.backup(&root));
        redate(&keepset, &mut points);
    }
    let keepset = keepset.with("TZ", "EST5EDT,M3.2.0,M11.1.0");
    let listed = keepset.ok(["list"]);
    for (point, text) in points.iter().zip(["first", "second", "third"]) {
        let row = listed.lines().find(|line| line.starts_with(&point[..8])).unwrap();
        let time = row.split("  ").nth(1).unwrap();
        assert!(time.ends_with(" -05:00") || time.ends_with(" -04:00"), "{row}");
        let back = format!("back-{text}");
        keepset.ok(["restore", "shop/web", "--into", &back, "--point", time]);
        assert_eq!(fs::read_to_string(keepset.path(&back).join("data-web-0/conf/app.yaml")).unwrap(), text);
    }
    let shown = keepset.ok(["show", &points[0][..8]]);
    assert!(shown.contains(listed.lines().nth(1).unwrap().split("  ").nth(1).unwrap()), "{shown}");
    assert!(keepset.json(["list"])["points"].as_array().unwrap().iter().all(|point| point["time"].as_str().unwrap().ends_with('Z')));
}

/// Dates the newest of the points hours apart from the others, as machines of different zones record it, with fractions of a second.
fn redate(keepset: &Keepset, points: &mut [String]) {
    let newest = points.len() - 1;
    let id = points[newest].clone();
    let number = i32::try_from(newest).unwrap();
    let zone = chrono::FixedOffset::east_opt(3600 * 5 * number).unwrap();
    let time = (Clock::system().now() - chrono::TimeDelta::hours(12 - 4 * i64::from(number))).with_timezone(&zone).to_rfc3339();
    points[newest] = dated(keepset, &id, &time);
    fs::remove_file(keepset.path("repository/snapshots").join(id)).unwrap();
}

/// Another point of the same content, dated by a clock that was 400 days ahead; its id.
fn point_of_the_future(keepset: &Keepset) -> String {
    let point = keepset.json(["list"])["points"][0]["id"].as_str().unwrap().to_owned();
    dated(keepset, &point, &(Clock::system().now() + chrono::TimeDelta::days(400)).to_rfc3339())
}

/// A copy of the point with another time; its id.
fn dated(keepset: &Keepset, point: &str, time: &str) -> String {
    let place = Location::Folder(keepset.path("repository"));
    let password = fs::read_to_string(keepset.path("password")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&place, &HashMap::new()).unwrap();
        let repository = Repository::open(store, &Password::chosen(password.trim().as_bytes().to_vec())).await.unwrap();
        let mut snapshot = snapshot::load(&repository, &point.parse().unwrap()).await.unwrap();
        time.clone_into(&mut snapshot.time);
        snapshot::save(&repository, &snapshot).await.unwrap().hex()
    })
}

#[test]
fn a_point_of_the_future_is_not_the_latest_and_every_verb_says_so() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let first = keepset.backup(&root);
    let future = point_of_the_future(&keepset);
    fs::write(root.join("data-web-0/conf/app.yaml"), "the right one\n").unwrap();
    let second = keepset.backup(&root);

    let passed = format!("point {} of shop/web is passed over", &future[..8]);
    for line in ["dump latest data-web-0/conf/app.yaml", "ls latest", "show shop/web", "restore shop/web --into back"] {
        let ran = keepset.run(line.split(' ')).expect(0);
        assert!(ran.err.contains(&passed) && ran.err.contains("keepset forget"), "{line}: {}", ran.err);
    }
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));
    assert_eq!(keepset.ok(["dump", "latest", "data-web-0/conf/app.yaml"]), "the right one\n");
    let plan = keepset.json(["restore", "shop/web", "--into", "other", "--dry-run"]);
    assert!(plan["plan"]["notes"].to_string().contains(&passed), "{plan}");
    let status = keepset.json(["status"]);
    let set = &status["sets"][0];
    assert_eq!((set["newest"]["id"].as_str(), set["ahead"][0].as_str()), (Some(second.as_str()), Some(future.as_str())));
    assert_eq!(set["attention"][0], "ahead");
    assert_eq!(keepset.ok(["dump", &future[..8], "data-web-0/conf/app.yaml"]), "ordinal: 0\n");

    for id in [first, second] {
        fs::remove_file(keepset.path("repository/snapshots").join(id)).unwrap();
    }
    keepset.run(["restore", "shop/web", "--into", "third"]).refused(13, &future[..8]);
}

#[test]
fn a_repository_that_lost_all_snapshots_is_pruned_only_with_a_flag() {
    let keepset = Keepset::new();
    let live = keepset.set(1);
    let point = keepset.backup(&live);
    let (snapshots, away) = (keepset.path("repository/snapshots"), keepset.path("away"));
    fs::rename(&snapshots, &away).unwrap();
    fs::create_dir(&snapshots).unwrap();
    keepset.run(["prune"]).refused(13, "no snapshot at all");
    keepset.run(["prune", "--dry-run"]).expect(0);
    fs::remove_dir(&snapshots).unwrap();
    fs::rename(&away, &snapshots).unwrap();
    keepset.ok(["restore", "shop/web", "--point", &point, "--into", keepset.path("back").to_str().unwrap()]);
    keepset.ok(["check", "--read-data"]);
    fs::remove_dir_all(&snapshots).unwrap();
    keepset.ok(["prune", "--allow-no-snapshots", "--now"]);
    assert_eq!(keepset.objects("data").len(), 0);
}

#[test]
fn a_damaged_pack_heals_by_the_steps_of_the_runbook() {
    let keepset = Keepset::new();
    let live = keepset.set(1);
    let point = keepset.backup(&live);
    let largest = |keepset: &Keepset| keepset.objects("data").into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let pack = largest(&keepset);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    keepset.run(["check", "--read-data"]).expect(1);
    keepset.run(["repair", "points", "--read-data"]).expect(1);
    fs::rename(&pack, keepset.path("kept")).unwrap();
    keepset.ok(["repair", "index"]);
    keepset.backup(&live);
    keepset.ok(["check", "--read-data"]);
    keepset.ok(["repair", "points", "--read-data"]);
    let back = keepset.path("back");
    keepset.ok(["restore", "shop/web", "--point", &point, "--into", back.to_str().unwrap()]);
    assert_same(&live.join("data-web-0"), &back.join("data-web-0"));
}
