//! Does bad input end in a clear error with a way on, and is nothing lost by it?

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::compare::assert_same;
use support::keepset::{Keepset, Ran, Tmpfs};
use support::tree::Dice;

#[test]
fn a_wrong_password_exits_with_12() {
    let keepset = Keepset::new();
    fs::write(keepset.path("wrong"), "not the password\n").unwrap();
    let ran = keepset.run(["--password-file", "wrong", "list"]).refused(12, "opens no key of the repository");
    assert!(!ran.err.contains("not the password"), "{}", ran.err);
}

#[test]
fn a_place_without_a_repository_exits_with_10() {
    let keepset = Keepset::bare().with("KEEPSET_PASSWORD", "x");
    keepset.run(["list"]).refused(10, "repository");
    fs::create_dir(keepset.path("repository")).unwrap();
    keepset.run(["list"]).refused(10, "there is no repository at");
}

#[test]
fn a_repository_is_never_made_over_another() {
    let keepset = Keepset::new();
    let config = fs::read(keepset.path("repository/config")).unwrap();
    keepset.run(["init", "--generate-password", "other"]).refused(13, "there is a repository at");
    assert!(!keepset.path("other").exists());
    let anew = Keepset::bare().at(keepset.path("repository").to_str().unwrap());
    anew.run(["init", "--generate-password", "password"]).refused(13, "there is a repository at");
    assert!(!anew.path("password").exists());
    assert_eq!(fs::read(keepset.path("repository/config")).unwrap(), config);
}

#[test]
fn no_password_and_no_repository_are_errors_of_usage() {
    let keepset = Keepset::bare();
    fs::create_dir(keepset.path("repository")).unwrap();
    keepset.run(["list"]).refused(2, "no password is given");
    let mut command = keepset.command();
    command.env_remove("KEEPSET_REPOSITORY").arg("list");
    Ran::of(command.output().unwrap()).refused(2, "no repository is given");
}

#[test]
fn a_key_that_no_request_can_carry_is_an_error_of_usage() {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"] {
        let keepset = Keepset::bare()
            .at("s3://bucket/prefix")
            .with("KEEPSET_PASSWORD", "x")
            .with("AWS_ACCESS_KEY_ID", "id")
            .with("AWS_SECRET_ACCESS_KEY", "secret")
            .with(name, "geheim\nnis");
        let ran = keepset.run(["list"]).refused(2, &format!("{name} holds the control character 0x0a"));
        assert!(!ran.err.contains("geheim"), "{}", ran.err);
        let ran = keepset.run(["init", "--json"]).expect(2);
        assert!(ran.err.contains(name) || ran.out.contains(name), "{ran:?}");
        assert!(keepset.run(["doctor"]).expect(1).out.contains(name));
    }
    // The rest of what cannot be the address of a store is told as early.
    for value in ["127.0.0.1:9000", "localhost:9000", "http://127.0.0.1:9000/bucket"] {
        let keepset = Keepset::bare().at("s3://bucket/prefix").with("KEEPSET_PASSWORD", "x").with("AWS_ENDPOINT_URL", value);
        keepset.run(["init"]).refused(2, "AWS_ENDPOINT_URL ");
    }
}

#[test]
fn an_unreachable_bucket_is_reported_with_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let keepset = Keepset::bare()
        .at("s3://bucket/prefix")
        .with("KEEPSET_PASSWORD", "x")
        .with("AWS_ACCESS_KEY_ID", "id")
        .with("AWS_SECRET_ACCESS_KEY", "geheim")
        .with("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}"));
    let ran = keepset.run(["list"]).refused(1, "s3://bucket/prefix");
    assert!(ran.err.contains("check the address") && !ran.err.contains("geheim"), "{}", ran.err);
}

#[test]
fn a_location_with_credentials_or_of_no_kind_is_an_error_of_usage() {
    for (location, words) in [
        ("s3://id:geheim@host/bucket", "holds a user name or password"),
        ("ftp://host/x", "`ftp` is not supported"),
        ("", "no repository is given"),
    ] {
        let keepset = Keepset::bare().at(location).with("KEEPSET_PASSWORD", "x");
        let ran = keepset.run(["list"]).refused(2, words);
        assert!(!ran.err.contains("geheim"), "{}", ran.err);
    }
}

#[test]
fn an_unknown_settings_key_is_refused_with_its_line_and_the_nearest_key() {
    let keepset = Keepset::bare();
    fs::write(keepset.path("settings.yaml"), "cluster: test\nrepository:\n  pasword_file: /p\n").unwrap();
    let ran = keepset.run(["list"]).refused(2, "settings.yaml:3: unknown key `pasword_file`");
    assert!(ran.err.contains("did you mean `passwordFile`?"), "{}", ran.err);
    let missing = keepset.run(["list", "--config", "nowhere.yaml"]);
    missing.refused(2, "cannot read settings file nowhere.yaml");
}

#[test]
fn flags_that_make_no_sense_are_errors_of_usage() {
    let keepset = Keepset::new();
    for line in [
        "",
        "fly",
        "backup",
        "backup web --from live",
        "backup shop/web --all",
        "backup shop/web --from live --parallel 0",
        "backup shop/web --from live --order sideways",
        "backup shop/web",
        "restore shop/web",
        "restore shop/web --into x --point yesterday",
        "restore shop/web --into x --ordinal -1",
        "restore shop/web --into x --start never",
        "check --read-data=0",
        "check --read-data=half",
        "forget",
        "forget --keep-last many",
        "forget --keep-last 0",
        "forget --keep-within soon",
        "list --memory 1MiB",
        "list --memory lots",
        "password add",
        "dump latest",
        "completions klingon",
        "list --password geheim",
    ] {
        let keepset_set = keepset.set(1);
        if line.starts_with("forget") && keepset.objects("snapshots").is_empty() {
            keepset.backup(&keepset_set);
        }
        let ran = keepset.run(line.split_whitespace()).expect(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{line}: {ran:?}");
    }
}

#[test]
fn files_that_cannot_be_read_make_the_point_partial_and_exit_with_3() {
    use std::os::unix::fs::PermissionsExt;
    let nobody = 65_534;
    let keepset = Keepset::of_user(nobody);
    let root = keepset.set(2);
    let secret = root.join("data-web-1/secret");
    fs::write(&secret, "root's own").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();

    let ran = keepset.run(["backup", "shop/web", "--from", root.to_str().unwrap()]).expect(3);
    assert!(ran.out.contains("partial"), "{}", ran.out);
    assert!(ran.err.contains("data-web-1/secret") && ran.err.contains("Permission denied"), "{}", ran.err);
    let listed = keepset.json(["list"]);
    assert_eq!(listed["points"][0]["complete"], false);
    keepset.run(["restore", "shop/web", "--into", "back"]).refused(13, "complete");
    let ran = keepset.run(["restore", "shop/web", "--into", "back", "--allow-partial"]);
    assert!(ran.code == 0 || ran.code == 3, "{ran:?}");
    assert_eq!(fs::read(keepset.path("back/data-web-1/pages")).unwrap(), fs::read(root.join("data-web-1/pages")).unwrap());
    assert!(!keepset.path("back/data-web-1/secret").exists());
}

#[test]
fn a_full_repository_fails_the_backup_and_keeps_the_points_before_it() {
    let keepset = Keepset::bare();
    let disk = Tmpfs::mount(keepset.path("disk"), "6m");
    let keepset = keepset.at(disk.0.join("repository").to_str().unwrap());
    keepset.ok(["init", "--generate-password", "password"]);
    let root = keepset.set(1);
    let first = keepset.backup(&root);
    fs::write(root.join("data-web-0/more"), Dice(7).bytes(16 << 20)).unwrap();
    let ran = keepset.run(["backup", "shop/web", "--from", root.to_str().unwrap()]).refused(1, "No space left on device");
    assert!(ran.err.contains("free some room"), "{}", ran.err);

    let listed = keepset.json(["list"]);
    assert_eq!(listed["points"].as_array().unwrap().len(), 1);
    fs::remove_file(root.join("data-web-0/more")).unwrap();
    keepset.ok(["restore", "shop/web", "--into", "back", "--point", &first]);
    for file in ["pages", "conf/app.yaml"] {
        assert_eq!(fs::read(keepset.path("back/data-web-0").join(file)).unwrap(), fs::read(root.join("data-web-0").join(file)).unwrap());
    }
}

#[test]
fn a_full_target_fails_the_restore_and_leaves_no_half_of_a_claim() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    fs::write(root.join("data-web-0/more"), (0u32..3 << 20).map(|at| (at >> 5) as u8).collect::<Vec<_>>()).unwrap();
    keepset.backup(&root);
    let disk = Tmpfs::mount(keepset.path("disk"), "1m");
    let target = disk.0.join("back");
    let target = target.to_str().unwrap();
    keepset.run(["restore", "shop/web", "--into", target]).refused(13, "room");
    keepset.run(["restore", "shop/web", "--into", target, "--ignore-room"]).refused(1, "No space left on device");
    let left: Vec<_> = fs::read_dir(target).map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect()).unwrap_or_default();
    assert!(left.iter().all(|name: &std::ffi::OsString| name != "data-web-0"), "{left:?}");
    keepset.ok(["restore", "shop/web", "--into", "elsewhere"]);
    assert_same(&root.join("data-web-0"), &keepset.path("elsewhere/data-web-0"));
}

#[test]
fn a_read_only_target_and_a_read_only_repository_are_named_as_such() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    keepset.backup(&root);
    let disk = Tmpfs::mount(keepset.path("disk"), "16m");
    let copy = Command::new("cp").arg("-r").arg(keepset.path("repository")).arg(&disk.0).status().unwrap();
    assert!(copy.success());
    disk.read_only();
    let target = disk.0.join("back");
    keepset.run(["restore", "shop/web", "--into", target.to_str().unwrap()]).expect(1);

    let read_only = disk.0.join("repository");
    let location = read_only.to_str().unwrap();
    let backup = ["--repo", location, "backup", "shop/web", "--from", root.to_str().unwrap()];
    let ran = keepset.run(backup).refused(1, "Read-only file system");
    assert!(ran.err.contains("mount the filesystem"), "{}", ran.err);
    // What was saved comes back from it all the same.
    keepset.ok(["--repo", location, "restore", "shop/web", "--into", "back"]);
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));
}

/// One kind of damage to one object.
fn damage(object: &Path, kind: &str) {
    let mut bytes = fs::read(object).unwrap();
    match kind {
        "flipped" => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }
        "truncated" => bytes.truncate(bytes.len() * 2 / 3),
        "emptied" => bytes.clear(),
        _ => return fs::remove_file(object).unwrap(),
    }
    fs::remove_file(object).unwrap();
    fs::write(object, bytes).unwrap();
}

#[test]
fn a_damaged_object_of_any_kind_is_never_taken_for_data() {
    let keepset = Keepset::new();
    let root = keepset.set(2);
    keepset.backup(&root);
    for folder in ["config", "keys", "data", "index", "snapshots"] {
        for object in keepset.objects(folder) {
            for kind in ["flipped", "truncated", "emptied", "deleted"] {
                let what = format!("{} {kind}", object.strip_prefix(keepset.path("repository")).unwrap().display());
                let whole = fs::read(&object).unwrap();
                damage(&object, kind);

                let back = keepset.path("back");
                let ran = keepset.run(["restore", "shop/web", "--into", "back"]);
                assert!(!ran.err.contains("panicked"), "{what}: {ran:?}");
                if ran.code == 0 {
                    // Only where the damage was nothing that this restore needed.
                    (0..2).for_each(|n| assert_same(&root.join(format!("data-web-{n}")), &back.join(format!("data-web-{n}"))));
                } else {
                    assert!(ran.err.contains("error: ") && ran.out.is_empty(), "{what}: {ran:?}");
                    for claim in ["data-web-0", "data-web-1"] {
                        if back.join(claim).exists() {
                            assert_same(&root.join(claim), &back.join(claim));
                        }
                    }
                }
                let ran = keepset.run(["check", "--read-data"]);
                // A deleted snapshot is a point less, which nobody can see from what is left.
                let unseen = folder == "snapshots" && kind == "deleted";
                assert!(unseen || ran.code != 0, "{what}: {ran:?}");
                assert!(!ran.err.contains("panicked"), "{what}: {ran:?}");

                fs::write(&object, whole).unwrap();
                let _ = fs::remove_dir_all(&back);
            }
        }
    }
    keepset.ok(["check", "--read-data"]);
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&root.join(claim), &keepset.path("back").join(claim));
    }
}

/// A folder beside the one that is asked for, with the name that a lossy conversion gives that.
fn twins(keepset: &Keepset) -> (PathBuf, PathBuf) {
    let odd = keepset.dir.path().join(OsStr::from_bytes(b"odd\xff"));
    let twin = keepset.path("odd\u{fffd}");
    for (folder, text) in [(&odd, "asked for"), (&twin, "another one")] {
        fs::create_dir_all(folder.join("data-web-0")).unwrap();
        fs::write(folder.join("data-web-0/rows"), text).unwrap();
    }
    (odd, twin)
}

#[test]
fn a_set_at_a_path_that_is_no_text_is_refused_and_no_other_taken() {
    let keepset = Keepset::new();
    let (odd, twin) = twins(&keepset);
    let ran = keepset.run([OsStr::new("backup"), OsStr::new("shop/web"), OsStr::new("--from"), odd.as_os_str()]);
    assert!(ran.refused(13, "is not UTF-8").err.contains("odd\\xff"));
    assert!(keepset.objects("snapshots").is_empty());
    keepset.backup(&keepset.set(1));
    for extra in [&[][..], &["--replace"][..]] {
        let mut args = vec![OsStr::new("restore"), OsStr::new("shop/web"), OsStr::new("--into"), odd.as_os_str()];
        args.extend(extra.iter().map(OsStr::new));
        keepset.run(args).refused(13, "is not UTF-8");
    }
    assert_eq!(fs::read_to_string(twin.join("data-web-0/rows")).unwrap(), "another one");
}

#[test]
fn each_name_that_ls_shows_can_be_dumped_and_restored_alone() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    let claim = root.join("data-web-0");
    let names: [&[u8]; 7] = [b"bs\\x0a", b"bs\n", b"\xffraw", b"a\\b", b"two\\\\", "gr\u{f6}\u{df}e".as_bytes(), b"\\x41"];
    for (number, name) in names.iter().enumerate() {
        fs::write(claim.join(OsStr::from_bytes(name)), number.to_string()).unwrap();
    }
    fs::write(claim.join("A"), "plain").unwrap();
    keepset.backup(&root);
    let listed = keepset.ok(["ls", "latest", "data-web-0"]);
    let mut seen = BTreeSet::new();
    for line in listed.lines().filter(|line| !line.ends_with("/conf")) {
        let saved = keepset.ok(["dump", "latest", line]);
        for name in names {
            fs::write(claim.join(OsStr::from_bytes(name)), "later").unwrap();
        }
        let path = line.strip_prefix("data-web-0/").unwrap();
        let into = root.to_str().unwrap();
        keepset.ok(["restore", "shop/web", "--into", into, "--path", path, "--replace", "--no-safety"]);
        let changed: Vec<&[u8]> =
            names.into_iter().filter(|name| fs::read(claim.join(OsStr::from_bytes(name))).unwrap() != b"later").collect();
        if let [name] = changed[..] {
            assert_eq!(fs::read_to_string(claim.join(OsStr::from_bytes(name))).unwrap(), saved, "{line}");
            seen.insert(name.to_vec());
        } else {
            assert!(changed.is_empty() && ["pages", "A"].contains(&path), "{line} is {changed:?}");
        }
    }
    assert_eq!(seen.len(), names.len());
    // As a person writes it: a single backslash that begins no escape stands for itself.
    assert_eq!(keepset.ok(["dump", "latest", "data-web-0/a\\b"]), "3");
}

#[test]
fn a_repository_in_what_it_saves_or_fills_is_refused() {
    let keepset = Keepset::bare();
    let root = keepset.set(1);
    fs::create_dir(root.join("data-web-0/backups")).unwrap();
    symlink(root.join("data-web-0/backups"), keepset.path("by-link")).unwrap();
    let keepset = keepset.at("by-link");
    keepset.ok(["init", "--generate-password", "password"]);
    let live = root.to_str().unwrap();
    keepset.run(["backup", "shop/web", "--from", live]).refused(13, "lie inside of one another");

    let keepset = Keepset::new();
    let root = keepset.set(1);
    keepset.backup(&root);
    for inside in ["repository", "repository/data", "repository/new/deeper"] {
        keepset.run(["restore", "shop/web", "--into", inside]).refused(13, "lie inside of one another");
        assert!(!keepset.path("repository/new").exists());
    }
    keepset.run(["drill", "shop/web", "--scratch", "repository/data"]).refused(13, "lie inside of one another");
    // Moved into the claim: what is to be replaced holds the points that it would come back from.
    fs::rename(keepset.path("repository"), root.join("data-web-0/backups")).unwrap();
    let live = root.to_str().unwrap();
    let keepset = keepset.at(root.join("data-web-0/backups").to_str().unwrap());
    keepset.run(["restore", "shop/web", "--into", live, "--replace"]).refused(13, "lie inside of one another");
    assert!(root.join("data-web-0/backups/config").exists());
    // Beside the claims it is in nobody's way.
    fs::rename(root.join("data-web-0/backups"), root.join("repository")).unwrap();
    let keepset = keepset.at(root.join("repository").to_str().unwrap());
    keepset.backup(&root);
    keepset.ok(["restore", "shop/web", "--into", live, "--replace"]);
}

#[test]
fn a_start_command_gets_no_keys_of_the_store() {
    let keepset = Keepset::new().with("AWS_SECRET_ACCESS_KEY", "geheim").with("AZURE_STORAGE_ACCOUNT_KEY", "geheim");
    let keepset = keepset.with("GOOGLE_SERVICE_ACCOUNT", "geheim").with("AWS_SESSION_TOKEN", "geheim").with("RESTIC_PASSWORD", "geheim");
    let root = keepset.set(1);
    let log = keepset.path("variables").display().to_string();
    let settings = format!(
        "cluster: test\nsets:\n  - match: {{namespace: shop, name: web}}\n    start: {{command: [sh, -c, 'env > {log}'], deadline: 1m}}\n"
    );
    fs::write(keepset.path("settings.yaml"), settings).unwrap();
    keepset.backup(&root);
    keepset.ok(["restore", "shop/web", "--into", "back", "--start", "ordered"]);
    let variables = fs::read_to_string(&log).unwrap();
    assert!(variables.contains("KEEPSET_ORDINAL=0") && !variables.contains("geheim") && !variables.contains("PASSWORD"), "{variables}");
}

#[test]
fn a_user_without_rights_saves_and_restores_extended_attributes() {
    let keepset = Keepset::of_user(65534);
    let root = keepset.set(1);
    let name = |folder: &Path| folder.join("data-web-0/pages");
    for path in [root.clone(), root.join("data-web-0"), root.join("data-web-0/conf"), root.join("data-web-0/conf/app.yaml"), name(&root)] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    rustix::fs::setxattr(name(&root), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(root.join("data-web-0/conf"), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    keepset.backup(&root);
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    assert_same(&root.join("data-web-0"), &keepset.path("back/data-web-0"));
    keepset.ok(["restore", "shop/web", "--into", "back", "--replace"]);
    keepset.ok(["drill", "shop/web", "--scratch", "drills"]);
}

#[test]
fn an_answer_that_cannot_be_written_in_full_is_a_failure() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    fs::write(root.join("data-web-0/tail"), "the end has no newline").unwrap();
    keepset.backup(&root);
    for line in [
        "dump latest data-web-0/tail",
        "dump latest data-web-0/conf/app.yaml",
        "list",
        "list --json",
        "show latest",
        "ls latest",
        "status --json",
        "man",
        "completions bash",
        "--help",
        "dump --help",
        "--version",
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(keepset.command().args(line.split(' ')).stdout(full).output().unwrap());
        assert!(ran.code == 1 && ran.err.contains("standard output"), "{line}: {ran:?}");
        let (reader, gone) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Ran::of(keepset.command().args(line.split(' ')).stdout(gone).output().unwrap());
        assert!(ran.code == 0 && ran.err.is_empty(), "{line}: {ran:?}");
    }
}

#[test]
fn waiting_for_a_lock_ends_at_the_first_signal() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    keepset.backup(&root);
    // A lock that cannot be read stands in everybody's way.
    fs::write(keepset.path("repository/locks").join("0".repeat(64)), "").unwrap();
    let waiting = |line: &str| {
        let mut child = keepset.command().args(line.split(' ')).args(["--wait-lock", "10m"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("waiting for") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{line} ended: {said}");
        }
        (child, lines)
    };
    for line in [
        format!("backup shop/web --from {}", root.display()),
        "restore shop/web --into back".to_owned(),
        "drill shop/web --scratch scratch".to_owned(),
        "forget --keep-last 1".to_owned(),
        "check".to_owned(),
        "prune".to_owned(),
    ] {
        let (mut child, _lines) = waiting(&line);
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    }
    assert!(!keepset.path("back/data-web-0").exists());
}

#[test]
fn an_address_with_a_slip_makes_no_repository() {
    for (slip, words) in [
        ("\"s3://bucket/k\"", "quotation mark"),
        ("~/backups", "`~`"),
        ("s3.us-west-002.backblazeb2.com/bucket/k", "could be a host"),
        ("s3//bucket/k", "could be a host"),
        ("s3 ://bucket/k", "could be a host"),
    ] {
        let keepset = Keepset::bare().at(slip).with("KEEPSET_PASSWORD", "x");
        keepset.run(["init"]).refused(2, words);
        let by_flag = keepset.run(["init", "--repo", slip]);
        by_flag.refused(2, words);
        let names: Vec<_> = fs::read_dir(keepset.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["settings.yaml"], "{slip}");
    }
    let keepset = Keepset::bare().at(" ./my.folder\n").with("KEEPSET_PASSWORD", "x");
    let made = keepset.ok(["init"]);
    assert!(made.contains(&format!("folder {} on this machine", keepset.path("my.folder").display())), "{made}");
    assert!(keepset.path("my.folder/config").exists());
}
