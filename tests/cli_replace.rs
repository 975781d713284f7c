//! Does the real program bring a set back over what is there, and out of a repository that is damaged?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::compare::{assert_same, compare};
use support::keepset::Keepset;

/// A repository with one point of two ordinals, and the volumes as the point has them.
fn saved() -> (Keepset, PathBuf, String) {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    let point = keepset.backup(&live);
    let kept = keepset.path("kept");
    fs::create_dir(&kept).unwrap();
    for claim in ["data-web-0", "data-web-1"] {
        assert!(std::process::Command::new("cp").arg("-a").arg(live.join(claim)).arg(&kept).status().unwrap().success());
    }
    (keepset, live, point)
}

fn spoil(live: &Path) {
    fs::write(live.join("data-web-0/pages"), "overwritten").unwrap();
    fs::remove_dir_all(live.join("data-web-1/conf")).unwrap();
    fs::write(live.join("data-web-1/stray"), "new").unwrap();
}

#[test]
fn a_set_is_replaced_in_its_own_place_and_what_was_there_stays_in_a_safety_point() {
    let (keepset, live, point) = saved();
    spoil(&live);
    let into = live.to_str().unwrap();
    keepset.run(["restore", "shop/web", "--into", into]).refused(13, "targets hold data");

    let plan = keepset.ok(["restore", "shop/web", "--into", into, "--replace", "--dry-run"]);
    assert!(plan.contains("over what it holds") && plan.contains("sealed in a safety point first"), "{plan}");
    assert!(live.join("data-web-1/stray").exists(), "a dry run touches nothing");

    let answer = keepset.json(["restore", "shop/web", "--into", into, "--replace"]);
    let safety = answer["safetyPoint"].as_str().unwrap().to_owned();
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&keepset.path("kept").join(claim), &live.join(claim));
    }
    // It is listed as what it is, is nobody's latest, and comes back by its name.
    let listed = keepset.json(["list"]);
    assert_eq!(
        listed["points"].as_array().unwrap().iter().map(|point| point["kind"].as_str().unwrap()).collect::<Vec<_>>(),
        ["normal", "safety"]
    );
    assert_eq!(keepset.json(["show", "latest"])["point"]["id"], point.as_str());
    keepset.ok(["restore", "shop/web", "--point", &safety, "--into", "before"]);
    assert_eq!(fs::read_to_string(keepset.path("before/data-web-0/pages")).unwrap(), "overwritten");
    assert!(keepset.path("before/data-web-1/stray").exists() && !keepset.path("before/data-web-1/conf").exists());

    // Its own rule alone makes it go, and it pushes nothing out.
    keepset.backup(&live);
    let kept = keepset.json(["forget", "--keep-last", "2"]);
    assert_eq!(kept["sets"][0]["forget"].as_array().unwrap().len(), 0);
    keepset.ok(["check", "--read-data"]);
}

#[test]
fn without_a_safety_point_nothing_is_added_to_the_repository() {
    let (keepset, live, _) = saved();
    spoil(&live);
    let before = keepset.objects("snapshots");
    let answer = keepset.json(["restore", "shop/web", "--into", live.to_str().unwrap(), "--replace", "--no-safety"]);
    assert!(answer.get("safetyPoint").is_none());
    assert_eq!(keepset.objects("snapshots"), before);
    assert_same(&keepset.path("kept/data-web-1"), &live.join("data-web-1"));
}

#[test]
fn a_path_is_replaced_and_what_is_beside_it_stays() {
    let (keepset, live, _) = saved();
    spoil(&live);
    keepset.ok(["restore", "shop/web", "--into", live.to_str().unwrap(), "--replace", "--ordinal", "1", "--path", "conf"]);
    assert_same(&keepset.path("kept/data-web-1/conf"), &live.join("data-web-1/conf"));
    assert!(live.join("data-web-1/stray").exists());
    assert_eq!(fs::read_to_string(live.join("data-web-0/pages")).unwrap(), "overwritten", "another ordinal is none of it");
}

/// The pack that holds the most: the one of the large file of ordinal 1 and whatever stands beside it.
fn damage(keepset: &Keepset, how: impl Fn(&Path)) {
    let pack = keepset.objects("data").into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    how(&pack);
}

#[test]
fn all_that_is_whole_comes_back_from_a_damaged_repository_and_the_rest_is_listed() {
    let flip = |pack: &Path| {
        let mut bytes = fs::read(pack).unwrap();
        bytes[100] ^= 1;
        fs::write(pack, bytes).unwrap();
    };
    let delete = |pack: &Path| fs::remove_file(pack).unwrap();
    for how in [&flip as &dyn Fn(&Path), &delete] {
        let (keepset, _, _) = saved();
        damage(&keepset, how);
        let refused = keepset.run(["restore", "shop/web", "--into", "back"]);
        assert_eq!(refused.code, 1, "{}", refused.err);
        assert!(refused.err.contains("hint: "), "{}", refused.err);
        if keepset.path("back/.keepset-restore-web").exists() {
            keepset.ok(["restore", "shop/web", "--undo", "--into", "back"]);
        }
        let ran = keepset.run(["restore", "shop/web", "--into", "back", "--skip-damaged", "--json"]).expect(3);
        let answer: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(answer["whole"], false);
        let claims = answer["claims"].as_array().unwrap();
        let lost: Vec<String> = claims
            .iter()
            .flat_map(|claim| claim["problems"].as_array().unwrap().iter().map(|problem| (claim["name"].as_str().unwrap(), problem)))
            .filter(|(_, problem)| problem["kind"] == "lost")
            .map(|(claim, problem)| format!("{claim}/{}", problem["path"].as_str().unwrap()))
            .collect();
        assert!(!lost.is_empty());
        // What is not there is what is listed, and all else is as it was.
        for claim in ["data-web-0", "data-web-1"] {
            for difference in compare(&keepset.path("kept").join(claim), &keepset.path("back").join(claim)) {
                let path = difference.strip_suffix(": is missing").unwrap_or_else(|| panic!("{difference}, and it is there"));
                assert!(lost.contains(&format!("{claim}/{path}")), "{difference}, and not among {lost:?}");
            }
        }
        for path in &lost {
            assert!(!keepset.path("back").join(path).exists(), "{path} is lost, and half of it must not be there");
        }
    }
}

#[test]
fn a_point_with_exclusions_is_complete_says_so_and_leaves_them_alone() {
    let (keepset, live, _) = saved();
    let (into, snapshots) = (live.to_str().unwrap(), live.join("data-web-0/.snapshot"));
    fs::create_dir(&snapshots).unwrap();
    let mounted = support::keepset::Tmpfs::mount(snapshots.clone(), "1m");
    fs::write(snapshots.join("hourly"), "of the filer").unwrap();
    keepset.run(["backup", "shop/web", "--from", into]).expect(3);
    let refused = keepset.run(["backup", "shop/web", "--from", into, "--exclude", "**"]).expect(2);
    assert!(refused.err.contains("would exclude all of the volume"), "{}", refused.err);

    let plan = keepset.ok(["backup", "shop/web", "--from", into, "--exclude", ".snapshot", "--dry-run"]);
    assert!(plan.contains("excluded from every claim: .snapshot"), "{plan}");
    keepset.run(["backup", "shop/web", "--from", into, "--exclude", ".snapshot"]).expect(0);
    let shown = keepset.ok(["show", "shop/web"]);
    assert!(shown.contains("excluded     .snapshot (of every claim)") && shown.contains("complete"), "{shown}");

    spoil(&live);
    let answer = keepset.json(["restore", "shop/web", "--into", into, "--replace"]);
    let safety = answer["safetyPoint"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(snapshots.join("hourly")).unwrap(), "of the filer");
    assert!(!live.join("data-web-1/stray").exists());
    let safety = keepset.json(["show", safety.as_str()]);
    assert_eq!(
        (&safety["manifest"]["exclude"], &safety["point"]["complete"]),
        (&serde_json::json!([".snapshot"]), &serde_json::json!(true))
    );
    drop(mounted);
}
