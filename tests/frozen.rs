//! Do repositories of earlier versions read, check, restore and go on as they did? Each folder of `tests/data` was made once, by the version
//! that it is named after, and never changes; `tests/testbed/freeze.py` makes the next one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use keepset::repository::codec::id_of;
use serde_json::{Value, json};
use support::compare::assert_same;
use support::keepset::Keepset;
use support::tree::is_root;

/// Every folder of `tests/data`.
const FROZEN: &[&str] = &["v1"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

#[test]
fn every_frozen_repository_is_tested_and_small() {
    let mut there: Vec<String> = fs::read_dir(data()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(there, FROZEN, "a folder that no test reads proves nothing: put it into the table");
    for name in FROZEN {
        let (mut size, mut waiting) = (0, vec![data().join(name)]);
        while let Some(path) = waiting.pop() {
            match path.is_dir() {
                true => waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
                false => size += path.metadata().unwrap().len(),
            }
        }
        assert!((10_000..300_000).contains(&size), "{name}: {size} bytes");
    }
}

/// A copy of the repository, since even readers put a lock into it, and what it must bring back.
fn thawed(name: &str) -> (Keepset, BTreeMap<String, Value>) {
    let keepset = Keepset::bare();
    let status = Command::new("cp").arg("-r").arg(data().join(name).join("repository")).arg(keepset.path("repository")).status().unwrap();
    assert!(status.success());
    fs::copy(data().join(name).join("password"), keepset.path("password")).unwrap();
    let expected = serde_json::from_slice(&fs::read(data().join(name).join("expected.json")).unwrap()).unwrap();
    (keepset.with("KEEPSET_CLUSTER", "frozen"), expected)
}

/// What `freeze.py` noted of a folder, of the folder as it is now.
fn listing(root: &Path) -> BTreeMap<String, Value> {
    let mut seen = BTreeMap::new();
    let mut links: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let full = if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&path)) };
        let meta = fs::symlink_metadata(&full).unwrap();
        let (name, kind) = (HEXLOWER.encode(&path), meta.file_type());
        let mut entry = json!({
            "mode": format!("{:o}", meta.mode()),
            "owner": format!("{}:{}", meta.uid(), meta.gid()),
            "mtime": (i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())).to_string(),
        });
        let xattrs = xattrs(&full);
        if !xattrs.is_empty() {
            entry["xattrs"] = json!(xattrs);
        }
        if kind.is_file() {
            entry["sha256"] = json!(id_of(&fs::read(&full).unwrap()).hex());
        } else if kind.is_symlink() {
            entry["target"] = json!(HEXLOWER.encode(fs::read_link(&full).unwrap().as_os_str().as_bytes()));
        } else if kind.is_char_device() || kind.is_block_device() {
            entry["device"] = json!(meta.rdev());
        } else if kind.is_dir() {
            let slash = if path.is_empty() { &b""[..] } else { b"/" };
            waiting.extend(fs::read_dir(&full).unwrap().map(|child| [&path, slash, child.unwrap().file_name().as_bytes()].concat()));
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            links.entry(meta.ino()).or_default().push(name.clone());
        }
        seen.insert(name, entry);
    }
    for mut group in links.into_values() {
        group.sort();
        for name in &group {
            seen.get_mut(name).unwrap()["links"] = json!(group);
        }
    }
    seen
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != b"security.selinux");
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        (String::from_utf8(name.to_vec()).unwrap(), HEXLOWER.encode(&value[..length]))
    };
    names.map(value).collect()
}

/// Restores a point and compares everything with what was noted; devices and owners only where this user may make them.
fn restores(keepset: &Keepset, point: &str, expected: &Value) {
    let into = keepset.path(&format!("back-{point}"));
    let set = expected["set"].as_str().unwrap();
    let ran = keepset.run(["restore", set, "--point", point, "--into", into.to_str().unwrap()]);
    assert_eq!(ran.code, if is_root() { 0 } else { 3 }, "{ran:?}");
    let claims = expected["claims"].as_object().unwrap();
    assert_eq!(fs::read_dir(&into).unwrap().count(), claims.len());
    for (claim, noted) in claims {
        let found = listing(&into.join(claim));
        let noted = noted.as_object().unwrap();
        let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
        if is_root() {
            assert_eq!(names(found.keys().collect()), names(noted.keys().collect()), "{point} {claim}");
        }
        for (path, found) in &found {
            if is_root() {
                assert_eq!(found, &noted[path], "{point} {claim} {path}");
            } else {
                assert_eq!(
                    (&found["sha256"], &found["target"]),
                    (&noted[path]["sha256"], &noted[path]["target"]),
                    "{point} {claim} {path}"
                );
            }
        }
    }
}

#[test]
fn every_frozen_repository_lists_checks_and_restores_every_point_bit_for_bit() {
    for name in FROZEN {
        let (keepset, expected) = thawed(name);
        let list = keepset.json(["list"]);
        let points = list["points"].as_array().unwrap();
        assert_eq!((points.len(), &list["foreign"], &list["unreadable"]), (expected.len(), &json!([]), &json!([])), "{name}");
        assert!(keepset.ok(["check", "--read-data"]).contains("nothing is damaged"), "{name}");
        for point in points {
            let id = point["id"].as_str().unwrap();
            assert_eq!((&point["set"], &point["complete"]), (&expected[id]["set"], &json!(true)), "{name}");
            restores(&keepset, id, &expected[id]);
        }
    }
}

#[test]
fn every_frozen_repository_can_be_backed_up_to_and_finds_what_it_has() {
    for name in FROZEN {
        let (keepset, expected) = thawed(name);
        let (newest, kept) = expected
            .iter()
            .filter(|(_, point)| point["set"] == "shop/web")
            .max_by_key(|(_, p)| p["claims"].as_object().unwrap().len())
            .unwrap();
        restores(&keepset, newest, kept);
        let live = keepset.path(&format!("back-{newest}"));
        fs::write(live.join("data-web-0/new"), "since then").unwrap();
        let answer = keepset.json(["backup", "shop/web", "--from", live.to_str().unwrap()]);
        let made = &answer["backups"][0];
        // All but the new file and the folders' lists was found in what the old version had stored.
        assert!(made["complete"] == true && made["total"]["newBytes"].as_u64().unwrap() < 100_000, "{name}: {made}");
        keepset.ok(["restore", "shop/web", "--into", keepset.path("again").to_str().unwrap()]);
        for claim in fs::read_dir(&live).unwrap().map(|claim| claim.unwrap().file_name()) {
            assert_same(&live.join(&claim), &keepset.path("again").join(&claim));
        }
        keepset.ok(["check", "--read-data"]);
        restores(&thawed(name).0, newest, kept);
    }
}
