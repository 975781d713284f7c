//! Two real processes at work in one repository at once, on a real MinIO: ours with ours, ours with stock restic. Is what anybody was told
//! to be done whole, and is whoever could not do it told so?
//!
//! One of them is held at each of its requests in turn, or at every few, while the other does all that it came for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keepset::model::id::Id;
use keepset::store::Store;
use keepset::store::fault::Gate;
use object_store::ObjectStoreExt;
use support::bucket::Bucket;
use support::compare::assert_same;
use support::house::JOURNAL;
use support::keepset::{Keepset, Ran};
use support::proxy::{Fate, Proxy, Request};
use support::tree::Dice;

const PRUNE: [&str; 6] = ["prune", "--max-unused", "0", "--wait-lock", "0s", "--json"];
const CLAIMS: [&str; 2] = ["data-web-0", "data-web-1"];

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Lets a program behind the proxy come to the `n`-th of those requests that are not `denied`, then `other` do its work, then the program
/// go on. `None` once there is no such request: the program has succeeded then.
fn in_between<T>(bucket: &Bucket, command: Command, n: usize, denied: fn(&Request) -> bool, other: impl FnOnce() -> T) -> Option<(Ran, T)> {
    let gate = Gate::default();
    let held = gate.clone();
    let mut number = 0;
    bucket.proxy.obey(move |_, request| {
        if denied(request) {
            return Fate::Denied;
        }
        number += 1;
        // The later ones too: what is held for long is tried again.
        if number > n { Fate::Held(held.clone()) } else { Fate::Pass }
    });
    let child = spawn(command);
    let mut ended = bucket.runtime.spawn_blocking(move || Ran::of(child.wait_with_output().unwrap()));
    let early = bucket.runtime.block_on(async {
        tokio::select! {
            () = gate.reached() => None,
            ran = &mut ended => Some(ran.unwrap()),
        }
    });
    if let Some(ran) = early {
        ran.expect(0);
        return None;
    }
    let done = other();
    gate.open();
    let ran = bucket.runtime.block_on(ended).unwrap();
    bucket.proxy.obey(|_, _| Fate::Pass);
    Some((ran, done))
}

fn nothing(_: &Request) -> bool {
    false
}

fn command<S: AsRef<OsStr>>(keepset: &Keepset, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = keepset.command();
    command.args(args);
    command
}

/// How a program that could not do its work ends: by a code of its own, with a reason and a way on.
fn assert_clean_failure(ran: &Ran, about: &str) {
    assert!(ran.code > 0 && ran.out.is_empty(), "{about}: {ran:?}");
    assert!(ran.err.contains("error: ") && ran.err.contains("hint: ") && !ran.err.contains("panicked"), "{about}: {ran:?}");
}

fn backup_args(set: &str, from: &Path) -> Vec<String> {
    ["backup", set, "--wait-lock", "0s", "--from", from.to_str().unwrap()].map(str::to_owned).into()
}

/// Every point restores by the program, bit-exact: known ones as they were kept, new ones as their set's volumes are. How many new ones
/// there are of each set.
fn prove_all(bucket: &Bucket, keepset: &Keepset, sets: &[(&str, PathBuf)], about: &str) -> BTreeMap<String, usize> {
    keepset.run(["check", "--read-data"]).expect(0);
    let mut new = BTreeMap::new();
    let listed = keepset.json(["list"]);
    for point in listed["points"].as_array().unwrap() {
        let (set, id) = (point["set"].as_str().unwrap(), point["id"].as_str().unwrap());
        assert_eq!(point["complete"], true, "{about}: {point}");
        let into = format!("back-{id}");
        keepset.run(["restore", set, "--point", id, "--into", &into]).expect(0);
        let kept = bucket.house.kept.get(&id.parse::<Id>().unwrap());
        let expected = kept.unwrap_or_else(|| {
            *new.entry(set.to_owned()).or_insert(0) += 1;
            &sets.iter().find(|(name, _)| *name == set).unwrap().1
        });
        for claim in fs::read_dir(expected).unwrap() {
            let claim = claim.unwrap();
            assert_same(&claim.path(), &keepset.path(&into).join(claim.file_name()));
        }
    }
    new
}

#[test]
fn of_backups_at_once_every_point_is_whole_be_they_of_one_set_or_of_two() {
    let bucket = Bucket::new("writers");
    // Another set, with much that the first one has too.
    let other = bucket.house.path("other");
    fs::create_dir_all(other.join("data-db-0")).unwrap();
    fs::copy(bucket.house.live().join("data-web-0/pages"), other.join("data-db-0/pages")).unwrap();
    fs::write(other.join("data-db-0/rows"), Dice(77).bytes(50_000)).unwrap();
    let sets = [("shop/web", bucket.house.live()), ("shop/db", other)];
    let backup = |number: usize| backup_args(sets[number].0, &sets[number].1);
    let count = |of: &[usize]| {
        let mut count = BTreeMap::new();
        of.iter().for_each(|number| *count.entry(sets[*number].0.to_owned()).or_insert(0) += 1);
        count
    };
    let mut held = 0;
    for n in (0..).step_by(5) {
        let name = format!("held-{n}");
        bucket.copy(&name);
        let (one, beside) = (bucket.keepset(&name), bucket.beside(&name));
        let second = n % 2;
        let both = in_between(&bucket, command(&one, backup(0)), n, nothing, || beside.run(backup(second)));
        let Some((first, other)) = both else { break };
        first.expect(0);
        other.expect(0);
        let about = format!("held at request {n}");
        assert_eq!(prove_all(&bucket, &beside, &sets, &about), count(&[0, second]), "{about}");
        bucket.restic(&name).check();
        held += 1;
    }
    assert!(held >= 8, "{held}");
    // And as they come, two of one set and one of another.
    for round in 0..3 {
        let name = format!("free-{round}");
        bucket.copy(&name);
        let beside = bucket.beside(&name);
        let children = [0, 1, 0].map(|number| spawn(command(&beside, backup(number))));
        for child in children {
            Ran::of(child.wait_with_output().unwrap()).expect(0);
        }
        assert_eq!(prove_all(&bucket, &beside, &sets, &name), count(&[0, 0, 1]), "{name}");
        bucket.restic(&name).check();
    }
}

/// Volumes as they were at the older point: a backup finds all that it stores in packs that a forget of that point and a prune take away.
fn on_thin_ice(prefix: &str) -> (Bucket, Id) {
    let bucket = Bucket::new(prefix);
    let (older, _) = bucket.ages();
    fs::remove_dir_all(bucket.house.live()).unwrap();
    let status = Command::new("cp").arg("-a").arg(&bucket.house.kept[&older]).arg(bucket.house.live()).status().unwrap();
    assert!(status.success());
    (bucket, older)
}

const FORGET: [&str; 4] = ["forget", "--keep-last", "1", "--prune"];

#[test]
fn a_stock_forget_and_prune_beside_a_backup_is_refused_or_comes_before_it() {
    let (bucket, older) = on_thin_ice("stock-beside");
    let (mut refused, mut pruned) = (0, 0);
    for n in (0..).step_by(3) {
        let name = n.to_string();
        let store = bucket.copy(&name);
        let keepset = bucket.keepset(&name);
        let restic = bucket.restic(&name);
        let forget = || Ran::of(restic.try_run(FORGET));
        let Some((backup, forgot)) = in_between(&bucket, command(&keepset, bucket.backup_args()), n, nothing, forget) else { break };
        let about = format!("held at request {n}, restic: {}: {}, backup: {}: {}", forgot.code, forgot.err, backup.code, backup.err);
        if forgot.code == 0 {
            pruned += 1;
        } else {
            assert!(forgot.err.contains("already locked") && backup.code == 0, "{about}");
            refused += 1;
        }
        if backup.code != 0 {
            assert_clean_failure(&backup, &about);
        }
        let gone = if forgot.code == 0 { vec![older] } else { Vec::new() };
        assert_eq!(bucket.prove(&store, &gone, &about), usize::from(backup.code == 0), "{about}");
        restic.check();
        keepset.run(bucket.backup_args()).expect(0);
        assert_eq!(bucket.prove(&store, &gone, &about), 1 + usize::from(backup.code == 0), "{about}");
    }
    assert!(refused >= 6 && pruned >= 1, "{refused} refused, {pruned} pruned");
}

#[test]
fn a_backup_beside_a_stock_forget_and_prune_comes_before_it_or_is_told_that_the_repository_is_held() {
    let (bucket, _) = on_thin_ice("stock-held");
    let all: Vec<Id> = bucket.house.kept.keys().copied().collect();
    let (mut refused, mut sealed) = (0, 0);
    for n in (0..).step_by(3) {
        let name = n.to_string();
        let store = bucket.copy(&name);
        let keepset = bucket.beside(&name);
        let forget = bucket.proxied_restic(&name).command(FORGET);
        let Some((forgot, backup)) = in_between(&bucket, forget, n, nothing, || keepset.run(bucket.backup_args())) else { break };
        let about = format!("restic held at request {n}: {}: {}, backup: {}: {}", forgot.code, forgot.err, backup.code, backup.err);
        if backup.code == 0 {
            sealed += 1;
        } else {
            assert_eq!(backup.code, 11, "{about}");
            assert_clean_failure(&backup, &about);
            assert_eq!(forgot.code, 0, "{about}");
            refused += 1;
        }
        // What it forgets depends on whether it saw the new point, which is the newest and stays.
        let gone: &[Id] = if forgot.code == 0 { &all } else { &[] };
        assert_eq!(bucket.prove(&store, gone, &about), usize::from(backup.code == 0), "{about}");
        bucket.restic(&name).check();
        keepset.run(bucket.backup_args()).expect(0);
        assert_eq!(bucket.prove(&store, gone, &about), 1 + usize::from(backup.code == 0), "{about}");
    }
    assert!(refused >= 6 && sealed >= 2, "{refused} refused, {sealed} sealed");
}

/// A repository whose older point was forgotten and not pruned: a prune deletes packs, and writes those anew that the newer point shares.
fn littered(prefix: &str) -> (Bucket, Id) {
    let mut bucket = Bucket::new(prefix);
    let (older, newer) = bucket.ages();
    bucket.runtime.block_on(bucket.base.delete(&format!("snapshots/{older}").as_str().into())).unwrap();
    bucket.house.kept.remove(&older);
    (bucket, newer)
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn packs(bucket: &Bucket, store: &Store) -> Vec<String> {
    let mut packs: Vec<String> = bucket.runtime.block_on(store.list("data")).unwrap().into_iter().map(|object| object.key).collect();
    packs.sort();
    packs
}

/// What is in the target is bit for bit what was saved: whole claims, and no part of one.
fn assert_only_whole_claims(bucket: &Bucket, point: &Id, back: &Path) {
    for entry in fs::read_dir(back).into_iter().flatten() {
        let name = entry.unwrap().file_name();
        if name != JOURNAL {
            assert_same(&bucket.house.kept[point].join(&name), &back.join(&name));
        }
    }
}

fn assert_back(bucket: &Bucket, point: &Id, back: &Path) {
    for claim in CLAIMS {
        assert_same(&bucket.house.kept[point].join(claim), &back.join(claim));
    }
}

#[test]
fn a_prune_beside_a_restore_deletes_nothing_that_was_there_when_the_restore_took_its_lock() {
    let (bucket, newer) = littered("prune-beside");
    // While others work a prune spares packs that are younger than they. Here none is.
    let aging = Proxy::before(bucket.minio);
    aging.obey(|_, request| if request.path.contains("prefix=") && request.path.contains("data") { Fate::Aged } else { Fate::Pass });
    let (mut waited, mut pruned) = (0, 0);
    for n in (0..).step_by(2) {
        let name = n.to_string();
        let store = bucket.copy(&name);
        let before = packs(&bucket, &store);
        let (keepset, beside) = (bucket.keepset(&name), bucket.beside_through(&aging, &name));
        let restore = command(&keepset, ["restore", "shop/web", "--into", "back"]);
        // The second one would delete what the first had taken out of the index.
        let prunes = || {
            let prune = || beside.run(PRUNE.into_iter().chain(["--now"])).expect(0);
            let reports = [prune(), prune()];
            (reports.map(|ran| json(&ran)), packs(&bucket, &store))
        };
        let Some((ran, (reports, left))) = in_between(&bucket, restore, n, nothing, prunes) else { break };
        let about = format!("held at request {n}: {reports:?}");
        assert_eq!(ran.code, 0, "{about}: {}", ran.err);
        assert_back(&bucket, &newer, &keepset.path("back"));
        if reports[0]["waitingFor"].is_null() {
            assert!(before.iter().any(|pack| !left.contains(pack)), "{about}");
            pruned += 1;
        } else {
            assert!(reports.iter().all(|report| report["waitingFor"].as_str().unwrap().contains("a shared lock of pid")), "{about}");
            assert!(before.iter().all(|pack| left.contains(pack)), "{about}");
            waited += 1;
        }
        // Once nobody is in its way, it finishes.
        for _ in 0..2 {
            assert!(json(&beside.run(PRUNE).expect(0))["waitingFor"].is_null(), "{about}");
        }
        assert!(before.iter().any(|pack| !packs(&bucket, &store).contains(pack)), "{about}");
        assert_eq!(bucket.prove(&store, &[], &about), 0, "{about}");
        bucket.restic(&name).check();
    }
    assert!(waited >= 6 && pruned >= 1, "{waited} waited, {pruned} pruned");
}

#[test]
fn a_point_that_is_forgotten_and_pruned_beside_its_restore_is_back_or_was_gone_before() {
    let bucket = Bucket::new("forget-beside");
    let (older, _) = bucket.ages();
    let (mut refused, mut gone) = (0, 0);
    for n in (0..).step_by(3) {
        let name = n.to_string();
        bucket.copy(&name);
        let (keepset, beside) = (bucket.keepset(&name), bucket.beside(&name));
        let restore = command(&keepset, ["restore", "shop/web", "--point", &older.hex(), "--into", "back"]);
        let forget = || beside.run(FORGET.into_iter().chain(["--wait-lock", "0s"]));
        let Some((ran, forgot)) = in_between(&bucket, restore, n, nothing, forget) else { break };
        let about = format!("held at request {n}: forget: {}: {}, restore: {}: {}", forgot.code, forgot.err, ran.code, ran.err);
        if forgot.code == 0 {
            gone += 1;
        } else {
            assert_eq!(forgot.code, 11, "{about}");
            assert_clean_failure(&forgot, &about);
            assert_eq!(ran.code, 0, "{about}");
            refused += 1;
        }
        if ran.code == 0 {
            assert_back(&bucket, &older, &keepset.path("back"));
        } else {
            assert_clean_failure(&ran, &about);
            assert!(!keepset.path("back").exists() || fs::read_dir(keepset.path("back")).unwrap().count() == 0, "{about}");
        }
    }
    assert!(refused >= 6 && gone >= 1, "{refused} refused, {gone} gone");
}

#[test]
fn a_restore_without_the_right_to_lock_outlives_one_prune_and_says_so_if_two_have_taken_what_it_needs() {
    let (bucket, newer) = littered("unlocked");
    let writes: fn(&Request) -> bool = |request| request.method != "GET" && request.method != "HEAD";
    let (mut whole, mut failed) = (0, 0);
    for (n, prunes) in (0..).flat_map(|n| [(n, 1), (n, 2)]) {
        let name = format!("{n}-{prunes}");
        let store = bucket.copy(&name);
        let before = packs(&bucket, &store);
        let (keepset, beside) = (bucket.keepset(&name), bucket.beside(&name));
        let restore = command(&keepset, ["restore", "shop/web", "--into", "back"]);
        let prune = || {
            for _ in 0..prunes {
                assert!(json(&beside.run(PRUNE).expect(0))["waitingFor"].is_null());
            }
            packs(&bucket, &store)
        };
        let Some((ran, left)) = in_between(&bucket, restore, n, writes, prune) else { break };
        let about = format!("held at request {n} during {prunes} prunes: {}: {}", ran.code, ran.err);
        assert_eq!(before.iter().all(|pack| left.contains(pack)), prunes == 1, "{about}");
        let back = keepset.path("back");
        assert_only_whole_claims(&bucket, &newer, &back);
        if ran.code != 0 {
            assert_eq!((ran.code, prunes), (1, 2), "{about}");
            assert_clean_failure(&ran, &about);
            let again: &[&str] = if back.join(JOURNAL).exists() { &["--resume"] } else { &[] };
            keepset.run(["restore", "shop/web", "--into", "back"].iter().chain(again)).expect(0);
            failed += 1;
        } else {
            assert!(ran.err.contains("no lock is held"), "{about}");
            whole += 1;
        }
        assert_back(&bucket, &newer, &back);
    }
    assert!(whole >= 10 && failed >= 1, "{whole} whole, {failed} failed");
}
