//! Does the doctor find what is missing, and does its fix, taken as it is, make it right?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use serde_json::Value;
use support::keepset::Keepset;
use support::minio::Minio;

/// Name and state of each finding, and the fix of the first that is not well.
fn doctor(keepset: &Keepset, sets: &[&str], code: i32) -> (Vec<(String, String)>, Option<String>) {
    let ran = keepset.run(["doctor", "--json"].iter().chain(sets)).expect(code);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    let findings = answer["findings"].as_array().unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let bad = findings.iter().find(|finding| finding["state"] != "ok");
    let fix = bad.map(|finding| text(finding, "fix"));
    (findings.iter().map(|finding| (text(finding, "check"), text(finding, "state"))).collect(), fix)
}

const ALL: [&str; 9] =
    ["settings", "password", "store", "store-create-only", "store-list", "store-delete", "store-clock", "repository", "locks"];

#[test]
fn all_is_well_with_a_repository_that_works_and_nothing_is_left_in_it() {
    let keepset = Keepset::new();
    let live = keepset.set(2);
    keepset.backup(&live);
    let settings = format!("cluster: test\nsets: [{{match: {{namespace: shop, name: web}}, from: {}}}]\n", live.display());
    fs::write(keepset.path("settings.yaml"), settings).unwrap();
    let before = keepset.objects("");
    let (found, fix) = doctor(&keepset, &["shop/web"], 0);
    let expected: Vec<_> = ALL.iter().chain(&["set"]).map(|check| ((*check).to_owned(), "ok".to_owned())).collect();
    assert_eq!((found, fix), (expected, None));
    assert_eq!(keepset.objects(""), before);
    let text = keepset.ok(["doctor", "--all"]);
    assert!(text.contains("ok       repository: the password opens") && text.contains("set (shop/web): 2 claims have folders"), "{text}");

    fs::remove_dir_all(&live).unwrap();
    let (found, fix) = doctor(&keepset, &["shop/web"], 1);
    assert_eq!(found.last().unwrap(), &("set".to_owned(), "failed".to_owned()));
    assert!(fix.unwrap().contains("folder"));
}

#[test]
fn a_repository_that_is_not_there_is_made_by_the_very_fix() {
    let keepset = Keepset::bare();
    fs::write(keepset.path("password"), "a password\n").unwrap();
    fs::create_dir(keepset.path("repository")).unwrap();
    let (found, fix) = doctor(&keepset, &[], 1);
    assert_eq!(found.last().unwrap(), &("repository".to_owned(), "failed".to_owned()), "{found:?}");
    let fix = fix.unwrap();
    let words: Vec<&str> = fix.split(' ').collect();
    assert_eq!(words[0], "keepset");
    keepset.ok(&words[1..]);
    assert_eq!(doctor(&keepset, &[], 0).1, None);
}

#[test]
fn a_wrong_password_a_missing_one_and_a_store_that_is_nowhere_are_told_apart() {
    let keepset = Keepset::new();
    fs::write(keepset.path("password"), "another\n").unwrap();
    let (found, _) = doctor(&keepset, &[], 1);
    assert_eq!(found.last().unwrap(), &("repository".to_owned(), "failed".to_owned()), "{found:?}");
    fs::remove_file(keepset.path("password")).unwrap();
    let (found, fix) = doctor(&keepset, &[], 1);
    assert_eq!(found[1], ("password".to_owned(), "failed".to_owned()));
    assert!(fix.unwrap().contains("KEEPSET_PASSWORD_FILE"), "{found:?}");
    assert_eq!(found.iter().filter(|(_, state)| state != "ok").count(), 1, "the store is well: {found:?}");
    let nowhere = keepset.at("s3:http://127.0.0.1:1/bucket/prefix").with("AWS_ACCESS_KEY_ID", "a").with("AWS_SECRET_ACCESS_KEY", "b");
    let (found, _) = doctor(&nowhere, &[], 1);
    assert_eq!(found.last().unwrap(), &("store".to_owned(), "failed".to_owned()), "{found:?}");
}

#[test]
fn the_lock_of_a_run_that_nobody_keeps_goes_by_the_fix() {
    let keepset = Keepset::new();
    let folder = keepset.path("repository/locks");
    fs::create_dir_all(&folder).unwrap();
    let lock = folder.join("0".repeat(64));
    fs::write(&lock, "not even a lock").unwrap();
    assert!(Command::new("touch").args(["--date", "2 hours ago"]).arg(&lock).status().unwrap().success());
    let (found, fix) = doctor(&keepset, &[], 0);
    assert_eq!(found.last().unwrap(), &("locks".to_owned(), "warning".to_owned()), "{found:?}");
    assert_eq!(fix.as_deref(), Some("keepset unlock"));
    keepset.ok(["unlock"]);
    assert_eq!(doctor(&keepset, &[], 0).1, None);
}

#[test]
fn a_key_that_may_not_do_all_is_found_and_one_that_only_may_not_delete_backs_up_and_restores() {
    let minio = Minio::shared();
    let place = |keepset: Keepset, key: HashMap<String, String>| {
        key.iter().fold(keepset.at(&minio.location("rights")), |keepset, (name, value)| keepset.with(name, value))
    };
    let keepset = Keepset::bare();
    fs::write(keepset.path("password"), "a password\n").unwrap();
    let keepset = place(keepset, minio.variables());
    keepset.ok(["init"]);
    let live = keepset.set(1);
    keepset.backup(&live);
    assert_eq!(doctor(&keepset, &[], 0).1, None);

    let keepset = place(keepset, minio.variables_without(&["s3:DeleteObject"]));
    let (found, fix) = doctor(&keepset, &[], 0);
    let bad = |found: Vec<(String, String)>| found.into_iter().filter(|(_, state)| state != "ok").collect::<Vec<_>>();
    assert_eq!(bad(found), [("store-delete".to_owned(), "warning".to_owned())]);
    assert!(fix.unwrap().contains("s3:DeleteObject"));
    let ran = keepset.run(["backup", "shop/web", "--from", live.to_str().unwrap()]).expect(0);
    assert!(ran.err.contains("the lock could not be removed"), "{}", ran.err);
    let restored = keepset.path("restored");
    keepset.ok(["restore", "shop/web", "--into", restored.to_str().unwrap()]);
    support::compare::assert_same(&live.join("data-web-0"), &restored.join("data-web-0"));

    for (action, check) in [("s3:ListBucket", "store-list"), ("s3:PutObject", "store")] {
        let keepset = place(Keepset::bare(), minio.variables_without(&[action]));
        fs::write(keepset.path("password"), "a password\n").unwrap();
        let (found, fix) = doctor(&keepset, &[], 1);
        assert!(found.contains(&(check.to_owned(), "failed".to_owned())), "{action}: {found:?}");
        assert!(!fix.unwrap().is_empty());
    }
}
