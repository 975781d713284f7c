//! Does the index come back from the packs, whatever became of it? Stock restic judges the outcome.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use keepset::repository::Repository;
use keepset::repository::index;
use keepset::repository::key::Password;
use keepset::store::Store;

use support::compare::assert_same;
use support::keepset::Keepset;
use support::restic::Restic;
use support::tree::Dice;

/// A repository of two points, whose index is in several objects, and the live set that the second is of.
fn two_points() -> (Keepset, PathBuf, String) {
    let keepset = Keepset::new();
    let root = keepset.set(2);
    keepset.backup(&root);
    fs::write(root.join("data-web-1/more"), Dice(77).bytes(500_000)).unwrap();
    let point = keepset.backup(&root);
    assert!(keepset.objects("index").len() >= 4, "{:?}", keepset.objects("index"));
    (keepset, root, point)
}

fn restic(keepset: &Keepset) -> Restic {
    let password = fs::read_to_string(keepset.path("password")).unwrap();
    Restic::new(keepset.path("repository").to_str().unwrap(), password.trim())
}

/// keepset and restic find nothing wrong, and the point comes back bit-exact.
#[track_caller]
fn assert_mended(keepset: &Keepset, root: &Path, point: &str) {
    let checked = keepset.json(["check", "--read-data"]);
    assert_eq!(checked["findings"], serde_json::json!([]));
    restic(keepset).check();
    keepset.ok(["restore", "shop/web", "--point", point, "--into", "back"]);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&root.join(claim), &keepset.path("back").join(claim));
    }
}

fn count(answer: &serde_json::Value, field: &str) -> usize {
    answer[field].as_array().unwrap().len()
}

#[test]
fn a_sound_index_is_left_as_it_is() {
    let (keepset, root, point) = two_points();
    let before = keepset.objects("index");
    let answer = keepset.json(["repair", "index"]);
    assert_eq!((answer["kept"].as_u64(), count(&answer, "written")), (Some(before.len() as u64), 0));
    keepset.ok(["repair", "index", "--read-all-packs"]);
    assert_eq!(keepset.objects("index"), before);
    assert_mended(&keepset, &root, &point);
}

#[test]
fn an_index_of_which_every_object_is_gone_comes_back_from_the_packs() {
    let (keepset, root, point) = two_points();
    for object in keepset.objects("index") {
        fs::remove_file(object).unwrap();
    }
    assert_eq!(keepset.run(["check"]).code, 1);
    let would = keepset.json(["repair", "index", "--dry-run"]);
    assert_eq!((count(&would, "packsAdded"), count(&would, "written")), (keepset.objects("data").len(), 0));
    assert!(keepset.objects("index").is_empty(), "a dry run writes nothing");
    keepset.ok(["repair", "index"]);
    assert_mended(&keepset, &root, &point);
}

#[test]
fn objects_that_are_gone_damaged_or_cut_short_are_replaced_and_the_others_kept() {
    let (keepset, root, point) = two_points();
    let objects = keepset.objects("index");
    fs::remove_file(&objects[0]).unwrap();
    let mut bytes = fs::read(&objects[1]).unwrap();
    bytes[30] ^= 1;
    fs::write(&objects[1], bytes).unwrap();
    fs::write(&objects[2], "").unwrap();
    let answer = keepset.json(["repair", "index"]);
    assert_eq!((answer["kept"].as_u64(), count(&answer, "unreadable")), (Some(objects.len() as u64 - 3), 2));
    assert!(objects[3].exists() && !objects[1].exists() && !objects[2].exists());
    assert_mended(&keepset, &root, &point);
}

#[test]
fn a_pack_that_is_gone_leaves_the_index_and_one_that_lost_its_header_is_named() {
    let (keepset, root, _) = two_points();
    let mut packs = keepset.objects("data");
    packs.sort_by_key(|pack| fs::metadata(pack).unwrap().len());
    let largest = packs.pop().unwrap();
    fs::remove_file(&largest).unwrap();
    let answer = keepset.json(["repair", "index"]);
    assert_eq!((count(&answer, "packsGone"), count(&answer, "replaced")), (1, 1));
    assert_eq!(answer["packsGone"][0], largest.file_name().unwrap().to_str().unwrap());
    let findings = keepset.run(["check", "--json"]).out;
    assert!(findings.contains("in no index") && !findings.contains("it is gone"), "{findings}");
    // What was lost is still at hand: the next backup stores it again, and everything is whole.
    keepset.ok(["backup", "shop/web", "--read-all", "--from", root.to_str().unwrap()]);
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));

    for object in keepset.objects("index") {
        fs::remove_file(object).unwrap();
    }
    let cut = &packs[0];
    fs::write(cut, &fs::read(cut).unwrap()[..40]).unwrap();
    let ran = keepset.run(["repair", "index"]).expect(3);
    assert!(ran.out.contains(&cut.file_name().unwrap().to_str().unwrap()[..8]), "{}", ran.out);
}

#[test]
fn an_index_object_that_lies_is_found_out_when_all_packs_are_read() {
    let (keepset, root, point) = two_points();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let password = Password::chosen(fs::read_to_string(keepset.path("password")).unwrap().trim().into());
        let store = Store::open(&keepset.path("repository").to_str().unwrap().parse().unwrap(), &Default::default()).unwrap();
        let repository = Repository::open(store, &password).await.unwrap();
        let ids = repository.ids(index::FOLDER).await.unwrap();
        let mut packs = index::decode(&repository.get_sealed(index::FOLDER, &ids[0]).await.unwrap()).unwrap();
        packs[0].1[0].length += 1;
        repository.put_sealed(index::FOLDER, &index::encode(&packs)).await.unwrap();
        repository.store().delete(&[format!("{}/{}", index::FOLDER, ids[0])]).await.unwrap();
    });
    assert_eq!(keepset.run(["check"]).code, 1);
    assert_eq!(count(&keepset.json(["repair", "index"]), "written"), 0, "it reads well");
    assert_eq!(count(&keepset.json(["repair", "index", "--read-all-packs"]), "packsCorrected"), 1);
    assert_mended(&keepset, &root, &point);
}
