//! Does every damage to a repository get a name, spare what it does not touch, and never pass for anything else?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use keepset::model::id::Id;
use keepset::repository::check::Severity;
use keepset::store::{Patience, Store};
use support::compare::{assert_same, compare};
use support::house::{House, JOURNAL, chain, scratch, the_living};
use support::keepset::Keepset;

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn restore(keepset: &Keepset, point: &str, into: &str) -> support::keepset::Ran {
    keepset.run(["restore", "shop/web", "--point", point, "--into", keepset.path(into).to_str().unwrap()])
}

#[test]
fn a_damaged_snapshot_hides_no_other_point_and_is_never_guessed_over() {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    let first = keepset.backup(&live);
    fs::write(live.join("data-web-1/conf/app.yaml"), "changed\n").unwrap();
    let second = keepset.backup(&live);
    flip(&keepset.path(&format!("repository/snapshots/{second}")));

    let list = keepset.run(["list", "--json"]).expect(3);
    let answer: serde_json::Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(answer["points"][0]["id"], *first);
    assert_eq!(answer["unreadable"][0]["id"], *second);
    assert!(list.err.contains(&second[..8]), "{}", list.err);
    keepset.run(["status"]).expect(3);
    // It could be the newest.
    restore(&keepset, "latest", "back").refused(13, &second[..8]);
    restore(&keepset, &second[..8], "back").refused(1, "is no recovery point");
    assert!(!keepset.path("back").exists());
    restore(&keepset, &first[..8], "back").expect(0);
    keepset.run(["forget", "--keep-last", "1"]).refused(13, &second[..8]);
    // The newest that can be read is not given away for a slip of the hand.
    keepset.run(["forget", &first[..8]]).refused(13, "newest complete");
    // The set is protected again as soon as it is backed up, and rules hold again when the damaged one is gone.
    let third = keepset.backup(&live);
    keepset.ok(["forget", &second[..8]]);
    restore(&keepset, "latest", "again").expect(0);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&live.join(claim), &keepset.path("again").join(claim));
    }
    keepset.ok(["forget", &first[..8]]);
    let left = keepset.json(["list"]);
    assert_eq!((left["points"].as_array().unwrap().len(), &left["points"][0]["id"]), (1, &serde_json::json!(third)));
}

#[test]
fn a_damaged_index_object_spares_the_points_that_it_says_nothing_of_and_the_next_backup_is_whole() {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    let first = keepset.backup(&live);
    let before = keepset.objects("index");
    fs::write(live.join("data-web-1/pages"), support::tree::Dice(99).bytes(400_000)).unwrap();
    let second = keepset.backup(&live);
    for object in keepset.objects("index").iter().filter(|object| !before.contains(object)) {
        flip(object);
    }
    restore(&keepset, &first[..8], "first").expect(0);
    let refused = restore(&keepset, &second[..8], "second").refused(1, &second[..8]);
    assert!(refused.err.contains("repair index"), "{}", refused.err);
    assert!(!keepset.path("second/data-web-0").exists());
    // What the damaged object named is stored once more, so that there is a whole point again.
    let packs = keepset.objects("data");
    let third = keepset.backup(&live);
    restore(&keepset, &third[..8], "third").expect(0);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&live.join(claim), &keepset.path("third").join(claim));
    }
    // And the packs are all there: what they say of themselves brings the second point back.
    keepset.ok(["repair", "index"]);
    restore(&keepset, &second[..8], "second").expect(0);
    keepset.ok(["check", "--read-data"]);
    // Now much stands in two packs, and one of them is enough, whichever the index names first.
    for pack in keepset.objects("data").iter().filter(|pack| !packs.contains(pack)) {
        fs::remove_file(pack).unwrap();
    }
    restore(&keepset, &second[..8], "once").expect(0);
    assert_same(&live.join("data-web-1"), &keepset.path("once/data-web-1"));
    let told = keepset.run(["repair", "points", "--json"]).expect(1);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let whole: Vec<bool> = told["points"].as_array().unwrap().iter().map(|point| point["whole"].as_bool().unwrap()).collect();
    assert_eq!(whole, [true, true, false]);
}

#[test]
fn a_repository_that_lost_its_config_or_key_says_so_and_is_never_made_anew() {
    let keepset = Keepset::new();
    keepset.backup(&keepset.set(1));
    let [config, key] = ["config", "keys"].map(|name| keepset.objects(name).remove(0));
    let good = fs::read(&config).unwrap();
    for bad in [None, Some(Vec::new()), Some(good[..good.len() - 1].to_vec()), Some(good.iter().rev().copied().collect())] {
        match bad {
            None => fs::remove_file(&config).unwrap(),
            Some(bytes) => fs::write(&config, bytes).unwrap(),
        }
        keepset.run(["list"]).refused(1, "the repository's config");
        let init = keepset.run(["init", "--generate-password", "other"]);
        assert!(init.code != 0 && !keepset.path("other").exists() && keepset.objects("keys").len() == 1, "{init:?}");
    }
    fs::write(&config, good).unwrap();
    keepset.ok(["list"]);
    let good = fs::read(&key).unwrap();
    for bad in [None, Some(Vec::new()), Some(good[..good.len() - 1].to_vec())] {
        match bad {
            None => fs::remove_file(&key).unwrap(),
            Some(bytes) => fs::write(&key, bytes).unwrap(),
        }
        let ran = keepset.run(["list"]);
        assert!(matches!(ran.code, 1 | 12) && ran.err.contains("hint: ") && ran.out.is_empty(), "{ran:?}");
    }
    fs::write(&key, good).unwrap();
    keepset.ok(["list"]);
}

/// What a damage leaves of some objects: `None` is deleted.
type Damage = (&'static str, Vec<(String, Option<Vec<u8>>)>);

/// Every damage of one object, `objects` being all of its folder.
fn damages(number: usize, objects: &[(String, Vec<u8>)]) -> Vec<Damage> {
    let (key, good) = &objects[number];
    let one = |how: &'static str, bytes: Option<Vec<u8>>| (how, vec![(key.clone(), bytes)]);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        Some(bytes)
    };
    let mut all = vec![
        one("deleted", None),
        one("emptied", Some(Vec::new())),
        one("cut by a byte", Some(good[..good.len() - 1].to_vec())),
        one("cut to half", Some(good[..good.len() / 2].to_vec())),
        one("flipped at its start", flipped(0)),
        one("flipped inside", flipped(good.len() / 2)),
        one("flipped near its end", flipped(good.len() - 30)),
        one("flipped at its end", flipped(good.len() - 1)),
    ];
    if objects.len() > 1 {
        let (other, its) = &objects[(number + 1) % objects.len()];
        all.push(("swapped with its neighbour", vec![(key.clone(), Some(its.clone())), (other.clone(), Some(good.clone()))]));
        let (_, oldest) = &objects[usize::from(number == 0)];
        all.push(one("replaced by an older one", Some(oldest.clone())));
    }
    all
}

async fn put(store: &Store, key: &str, bytes: Option<Vec<u8>>) {
    store.delete(&[key.to_owned()]).await.unwrap();
    if let Some(bytes) = bytes {
        store.put_new(key, bytes.into()).await.unwrap();
    }
}

/// Restores the point: `Ok` if all of it is back, else why not. What is in the target afterwards is bit for bit what was saved, whole claims
/// and no part of one.
async fn restored(house: &House, store: &Store, point: &Id) -> Result<(), String> {
    let place = scratch();
    let (kept, back) = (&house.kept[point], place.path().join("back"));
    let outcome = house.restore(store, point, &back, the_living()).await;
    let mut there = 0;
    for claim in fs::read_dir(&back).into_iter().flatten() {
        let name = claim.unwrap().file_name();
        if name == JOURNAL {
            continue; // one claim is whole and another is not: it can be resumed and undone
        }
        assert_eq!(compare(&kept.join(&name), &back.join(&name)), Vec::<String>::new(), "{outcome:?}");
        there += 1;
    }
    assert!(outcome.is_err() || there == fs::read_dir(kept).unwrap().count());
    outcome.map(|_| ()).map_err(|error| chain(error.as_ref()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_of_every_object_is_found_and_a_point_restores_exactly_if_it_is_said_to_be_whole() {
    let (house, memory) = House::with_two_points().await;
    let mut seen = BTreeSet::new();
    for folder in ["config", "keys", "snapshots", "index", "data"] {
        let base = Store::from_object_store(Arc::new(memory.fork()), "memory", Patience::local());
        let mut objects = Vec::new();
        for object in base.list("").await.unwrap().into_iter().filter(|object| object.key.split('/').next() == Some(folder)) {
            objects.push((object.key.clone(), base.get(&object.key).await.unwrap().to_vec()));
        }
        assert!(!objects.is_empty(), "{folder}");
        for number in 0..objects.len() {
            for (how, changes) in damages(number, &objects) {
                let case = format!("{} {how}", objects[number].0);
                let store = Store::from_object_store(Arc::new(memory.fork()), "memory", Patience::local());
                let changed: Vec<String> = changes.iter().map(|(key, _)| key.clone()).collect();
                for (key, bytes) in changes {
                    put(&store, &key, bytes).await;
                }
                if matches!(folder, "config" | "keys") {
                    let error = house.check(&store).await.expect_err(&case);
                    let told = chain(error.as_ref());
                    let words = if folder == "config" { "config" } else { "key" };
                    assert!(told.contains(words), "{case}: {told}");
                    continue;
                }
                let report = house.check(&store).await.unwrap();
                let unnoticeable = how == "deleted" && folder == "snapshots";
                assert_eq!(report.is_sound(), unnoticeable, "{case}: {report:?}");
                if how != "deleted" || folder == "data" {
                    for key in &changed {
                        let named = report.findings.iter().any(|f| f.severity == Severity::Damage && f.object == *key);
                        assert!(named, "{case}: {key} is not named in {:?}", report.findings);
                    }
                }
                let touched: BTreeSet<Id> = report.findings.iter().flat_map(|finding| finding.points.iter().copied()).collect();
                let mut lost = 0;
                for point in house.kept.keys() {
                    let state = report.points.iter().find(|state| state.id == *point);
                    let outcome = restored(&house, &store, point).await;
                    assert_eq!(state.is_some_and(|state| state.whole), outcome.is_ok(), "{case}: {point} {outcome:?}: {report:?}");
                    if let Some(state) = state {
                        assert_eq!(touched.contains(point), !state.whole, "{case}");
                        let claims = state.claims.iter().all(|claim| claim.whole == claim.lost.is_nothing());
                        assert!(claims && (state.whole || state.reason.is_some() || !state.lost.is_nothing()), "{case}: {state:?}");
                    }
                    lost += usize::from(outcome.is_err());
                }
                seen.insert((folder, lost));
            }
        }
    }
    for kind in [("data", 0), ("data", 1), ("data", 2), ("index", 1), ("index", 2), ("snapshots", 1)] {
        assert!(seen.contains(&kind), "the matrix has a case of {kind:?}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_locks_keep_everybody_out_and_damaged_side_objects_nobody() {
    let (house, memory) = House::with_two_points().await;
    let store = || Store::from_object_store(Arc::new(memory.fork()), "memory", Patience::local());
    let base = store();
    let repository = house.open(&base).await.unwrap();
    let lock = repository
        .put_sealed("locks", br#"{"time":"2126-01-01T00:00:00Z","exclusive":false,"hostname":"elsewhere","username":"u","pid":7}"#)
        .await
        .unwrap();
    repository.put_side("x-keepset/runs/old.0", b"{}").await.unwrap();
    let point = *house.kept.keys().next().unwrap();
    restored(&house, &base, &point).await.unwrap();
    for (key, keeps_out) in [(format!("locks/{lock}"), true), ("x-keepset/runs/old.0".to_owned(), false)] {
        let object = [(key.clone(), base.get(&key).await.unwrap().to_vec())];
        for (how, changes) in damages(0, &object) {
            let store = store();
            for (key, bytes) in changes {
                put(&store, &key, bytes).await;
            }
            let report = house.check(&store).await.unwrap();
            let found: Vec<_> = report.findings.iter().map(|finding| (finding.object.as_str(), finding.points.len())).collect();
            let expected = if how == "deleted" { vec![] } else { vec![(key.as_str(), 0)] };
            assert_eq!(found, expected, "{key} {how}");
            assert!(report.points.iter().all(|point| point.whole));
            let outcome = restored(&house, &store, &point).await;
            match outcome {
                Err(error) if keeps_out && how != "deleted" => assert!(error.contains(&key) && error.contains("held by"), "{error}"),
                outcome => assert_eq!(outcome, Ok(()), "{key} {how}"),
            }
        }
    }
}

#[test]
fn a_damaged_pack_is_told_down_to_points_claims_and_files_and_what_is_whole_restores() {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    let first = keepset.backup(&live);
    let before = keepset.objects("data");
    let lost = live.join("data-web-1/lost");
    fs::create_dir_all(lost.join("deep")).unwrap();
    fs::write(lost.join("deep/table"), support::tree::Dice(99).bytes(400_000)).unwrap();
    let second = keepset.backup(&live);
    keepset.ok(["check", "--read-data"]);
    let large = |path: &&std::path::PathBuf| !before.contains(path) && fs::metadata(path).unwrap().len() > 300_000;
    let pack = keepset.objects("data").iter().find(large).unwrap().clone();
    flip(&pack);
    keepset.ok(["check"]);
    let name = pack.file_name().unwrap().to_str().unwrap();

    let check = keepset.run(["check", "--read-data"]).expect(1);
    let line = check.out.lines().find(|line| line.contains(name)).unwrap();
    assert!(line.starts_with("damaged: ") && line.contains(&format!("{} shop/web 20", &second[..8])), "{line}");
    assert!(!check.out.contains(&first[..8]), "{}", check.out);
    assert!(check.out.contains("data-web-1: 1 file lost: lost/deep/table"), "{}", check.out);
    assert!(check.out.contains("1 of 2 points are whole"), "{}", check.out);

    let told = keepset.run(["repair", "points", "shop/web", "--read-data", "--json"]).expect(1);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let [old, new] = [&told["points"][0], &told["points"][1]];
    assert_eq!((&old["id"], &old["whole"], &old["lost"]["files"]), (&first.clone().into(), &true.into(), &0.into()));
    assert_eq!((&new["id"], &new["whole"], &new["set"]), (&second.clone().into(), &false.into(), &"shop/web".into()));
    assert_eq!((&new["claims"][0]["whole"], &new["claims"][1]["whole"]), (&true.into(), &false.into()));
    assert_eq!(new["claims"][1]["lost"], serde_json::json!({"files": 1, "folders": 0, "paths": ["lost/deep/table"]}));
    let text = keepset.run(["repair", "points", "--read-data"]).expect(1);
    assert!(text.out.contains("1 of 2 claims are whole"), "{}", text.out);
    assert!(text.err.contains(&format!("--point {} --claim data-web-0", &second[..8])), "{}", text.err);
    keepset.run(["repair", "points", "shop/other"]).refused(1, "no point of set shop/other");

    restore(&keepset, &second[..8], "second").refused(1, "is damaged");
    assert!(!keepset.path("second/data-web-1").exists());
    let into = keepset.path("part");
    keepset.ok(["restore", "shop/web", "--point", &second[..8], "--claim", "data-web-0", "--into", into.to_str().unwrap()]);
    assert_same(&live.join("data-web-0"), &into.join("data-web-0"));
    restore(&keepset, &first[..8], "first").expect(0);
}
