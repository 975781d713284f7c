//! Do the probes that come with keepset tell data that a real database starts on from data that it does not?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::cluster::eventually;
use support::keepset::Keepset;

/// The first user's id of a name in the system's list.
fn uid(name: &str) -> u32 {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = users.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    user.split(':').nth(2).unwrap().parse().unwrap()
}

/// A repository and the set `shop/web` of one claim, both of a user's.
fn of_user(uid: u32) -> (Keepset, PathBuf) {
    let keepset = Keepset::of_user(uid);
    let claim = keepset.path("live/data-web-0");
    for folder in [&claim, &keepset.path("drills")] {
        fs::create_dir_all(folder).unwrap();
        std::os::unix::fs::chown(folder, Some(uid), Some(uid)).unwrap();
    }
    (keepset, claim)
}

/// What the drill of a new point says of the probe.
fn probed(keepset: &Keepset, profile: &str, code: i32) -> Value {
    keepset.ok(["backup", "shop/web", "--from", "live", "--stopped"]);
    let ran = keepset.run(["drill", "shop/web", "--scratch", "drills", "--profile", profile, "--json"]).expect(code);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["proven"], true, "{report}");
    report["probes"][0].clone()
}

#[test]
fn a_postgresql_that_crashed_recovers_in_a_drill_and_one_with_a_broken_control_file_fails() {
    let postgres = uid("postgres");
    let (keepset, claim) = of_user(postgres);
    let programs = fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).max().unwrap().join("bin");
    let data = claim.join("pgdata");
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(programs.join(program));
        command.args(args).uid(postgres).gid(postgres).current_dir(keepset.dir.path()).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "{program} {args:?}");
    };
    let (data_text, here) = (data.to_str().unwrap(), keepset.dir.path().to_str().unwrap());
    run("initdb", &["--no-sync", "--auth=trust", "--username=postgres", "--pgdata", data_text]);
    let options = format!("-c listen_addresses= -c unix_socket_directories={here} -c fsync=off");
    run("pg_ctl", &["start", "--wait", "--silent", "--pgdata", data_text, "--log", &format!("{here}/log"), "--options", &options]);
    let rows = "CREATE TABLE t AS SELECT generate_series(1, 10000) AS n";
    run("psql", &["--host", here, "--username=postgres", "--quiet", "--command", rows, "postgres"]);
    run("pg_ctl", &["stop", "--mode=immediate", "--silent", "--pgdata", data_text]);

    let passed = probed(&keepset, "postgresql", 0);
    let said = passed["said"].as_str().unwrap();
    assert!(said.contains("redo done") && said.contains("keepset = \"alive\""), "{said}");

    fs::File::options().write(true).open(data.join("global/pg_control")).unwrap().write_all_at(&[0; 512], 0).unwrap();
    let failed = probed(&keepset, "postgresql", 1);
    assert!(failed["said"].as_str().unwrap().contains("FATAL"), "{failed}");
}

#[test]
fn the_files_of_a_redis_that_was_killed_pass_in_a_drill_and_a_broken_one_fails() {
    let (keepset, claim) = of_user(1234);
    let socket = keepset.path("socket");
    // One program with several names, of which the package with its tools has this one.
    let mut server = Command::new("redis-check-rdb")
        .arg0("redis-server")
        .args(["--port", "0", "--appendonly", "yes", "--unixsocket"])
        .arg(&socket)
        .arg("--dir")
        .arg(&claim)
        .uid(1234)
        .gid(1234)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let tell = |words: &[&str]| {
        let answer = Command::new("redis-cli").arg("-s").arg(&socket).args(words).output().unwrap();
        String::from_utf8_lossy(&answer.stdout).trim() == "OK"
    };
    eventually("Redis answers", || tell(&["SET", "key", "value"]));
    assert!(tell(&["SAVE"]) && tell(&["SET", "key", "later"]));
    server.kill().unwrap();
    server.wait().unwrap();

    let passed = probed(&keepset, "redis", 0);
    assert!(passed["said"].as_str().unwrap().contains("RDB looks OK"), "{passed}");

    let snapshot: &Path = &claim.join("dump.rdb");
    fs::File::options().write(true).open(snapshot).unwrap().write_all_at(b"broken", 40).unwrap();
    probed(&keepset, "redis", 1);
}
