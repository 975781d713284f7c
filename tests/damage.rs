//! Does every damage to a repository get a name, spare what it does not touch, and never pass for anything else?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::path::Path;

use support::compare::assert_same;
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
    let third = keepset.backup(&live);
    restore(&keepset, &third[..8], "third").expect(0);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&live.join(claim), &keepset.path("third").join(claim));
    }
    // And the packs are all there: what they say of themselves brings the second point back.
    keepset.ok(["repair", "index"]);
    restore(&keepset, &second[..8], "second").expect(0);
    keepset.ok(["check", "--read-data"]);
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
