//! Does a prune by the real program get on with stock restic, which may be at work on the same repository?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use keepset::clock::Clock;

use support::compare::assert_same;
use support::keepset::Keepset;
use support::restic::Restic;
use support::tree::Dice;

fn days_ago(days: u32) -> SystemTime {
    SystemTime::from(Clock::system().now()) - days * Duration::from_secs(24 * 60 * 60)
}

fn restic(keepset: &Keepset) -> Restic {
    let password = fs::read_to_string(keepset.path("password")).unwrap();
    Restic::new(keepset.path("repository").to_str().unwrap(), password.trim())
}

fn packed_bytes(keepset: &Keepset) -> u64 {
    keepset.objects("data").iter().map(|pack| fs::metadata(pack).unwrap().len()).sum()
}

#[test]
fn what_forgotten_points_held_alone_is_given_back_and_the_rest_comes_back_bit_exact() {
    let keepset = Keepset::new();
    let root = keepset.set(2);
    fs::write(root.join("data-web-0/old"), Dice(70).bytes(3_000_000)).unwrap();
    keepset.backup(&root);
    fs::remove_file(root.join("data-web-0/old")).unwrap();
    fs::write(root.join("data-web-1/new"), Dice(71).bytes(200_000)).unwrap();
    keepset.backup(&root);
    keepset.ok(["forget", "--keep-last", "1"]);
    let before = packed_bytes(&keepset);

    let would = keepset.json(["prune", "--dry-run", "--max-unused", "0"]);
    assert!(would["planned"]["repack"]["packs"].as_u64().unwrap() > 0, "{would}");
    assert!(keepset.ok(["prune", "--dry-run"]).contains("nothing was changed"));
    assert_eq!(packed_bytes(&keepset), before);
    assert!(keepset.ok(["prune", "--max-unused", "0"]).contains("the next prune deletes them"));
    restic(&keepset).check();
    let leftover = keepset.path("repository/data/00/00ab#1");
    fs::create_dir_all(leftover.parent().unwrap()).unwrap();
    fs::write(&leftover, "cut short").unwrap();
    fs::File::options().write(true).open(&leftover).unwrap().set_modified(days_ago(2)).unwrap();
    let second = keepset.json(["prune"]);
    assert_eq!((second["condemned"]["packs"].as_u64(), second["leftovers"].as_u64()), (Some(0), Some(1)));
    assert!(!leftover.exists());
    let after = packed_bytes(&keepset);
    assert!(after < 1_100_000 && before > 3_500_000, "{before} bytes before, {after} after");
    assert!(keepset.ok(["prune"]).contains("there is nothing to give back"));
    assert!(keepset.objects("x-keepset").is_empty());

    restic(&keepset).check();
    keepset.ok(["check", "--read-data"]);
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&root.join(claim), &keepset.path("back").join(claim));
    }
    // What the prune wrote is good to build upon.
    keepset.backup(&root);
    restic(&keepset).check();
}

#[test]
fn a_restic_backup_that_relies_on_marked_packs_keeps_them() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    keepset.backup(&root);
    let pages = fs::read(root.join("data-web-0/pages")).unwrap();
    fs::write(root.join("data-web-0/pages"), Dice(80).bytes(300_000)).unwrap();
    keepset.backup(&root);
    keepset.ok(["forget", "--keep-last", "1"]);
    for pack in keepset.objects("data") {
        fs::File::options().write(true).open(pack).unwrap().set_modified(days_ago(7)).unwrap();
    }

    // restic reads its standard input, with its lock held and the index in memory.
    let password = fs::read_to_string(keepset.path("password")).unwrap();
    let mut command = Command::new("restic");
    command.args(["--no-cache", "-q", "backup", "--stdin", "--stdin-filename", "pages", "-r"]).arg(keepset.path("repository"));
    let mut child = command.env("RESTIC_PASSWORD", password.trim()).stdin(Stdio::piped()).spawn().expect("restic must be installed");
    let deadline = Instant::now() + Duration::from_secs(120);
    while keepset.objects("locks").is_empty() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "restic takes no lock");
        std::thread::yield_now();
    }
    let blocked = keepset.json(["prune", "--max-unused", "0", "--wait-lock", "0s"]);
    assert!(blocked["waitingFor"].as_str().unwrap().contains(&format!("pid {}", child.id())), "{blocked}");
    assert!(blocked["planned"]["unused"]["packs"].as_u64().unwrap() > 0, "{blocked}");
    let before = packed_bytes(&keepset);
    child.stdin.take().unwrap().write_all(&pages).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(packed_bytes(&keepset) - before < 50_000, "restic stored nothing but a tree: it relied on what was marked");

    let report = keepset.json(["prune", "--max-unused", "0", "--now"]);
    assert_eq!((report["rescued"].as_u64(), report["waitingFor"].as_str()), (Some(1), None), "{report}");
    let restic = restic(&keepset);
    restic.check();
    assert!(restic.run(["dump", "latest", "pages", "--path", "/pages"]) == pages);
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));
}

#[test]
fn forget_can_prune_at_once() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    keepset.backup(&root);
    fs::write(root.join("data-web-0/pages"), Dice(90).bytes(300_000)).unwrap();
    keepset.backup(&root);
    let answer = keepset.json(["forget", "--keep-last", "1", "--prune"]);
    assert!(answer["prune"]["condemned"]["packs"].as_u64().unwrap() > 0, "{answer}");
    assert!(keepset.ok(["forget", "--keep-last", "1", "--prune"]).contains("deleted: "));
    restic(&keepset).check();
    assert_eq!(keepset.run(["forget", "--keep-last", "1", "--prune", "--dry-run"]).code, 2);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let keepset = Keepset::new();
    for args in [["--max-unused", "101%"], ["--max-unused", "-1"], ["--max-repack", "much"]] {
        assert_eq!(keepset.run(["prune"].iter().chain(&args)).expect(2).out, "");
    }
}
