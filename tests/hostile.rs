//! Is a repository that was made to do harm refused, or harmless? Each is made by hand with the right key, then every verb that reads is
//! run on it, within little memory, with a folder beside the target that must stay as it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use keepset::model::entry::{Attrs, Entry, Kind};
use keepset::model::id::Id;
use keepset::monitor::Silent;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::codec::id_of;
use keepset::repository::hash::Pieces;
use keepset::repository::index::{self, Index};
use keepset::repository::key::Password;
use keepset::repository::pack::{BlobKind, PackEntry};
use keepset::repository::prove::{packs_present, prove};
use keepset::repository::reader::Reader;
use keepset::repository::snapshot::{self, Snapshot};
use keepset::store::Store;
use support::crafted::{Crafted, dir, file, manifest, nodes_of};
use support::keepset::{Keepset, Ran};
use support::tree::Dice;

/// Address space that each process may take, in KiB.
const MEMORY: u64 = 1_500_000;

/// What a restore must do.
#[derive(Clone, Copy, Debug)]
enum Restore {
    /// Bring it back: there is no harm in it.
    Back,
    /// Bring the data back, and say that something is lacking.
    Lacking,
    /// Refuse with these words.
    Refused(&'static str),
}
use Restore::{Back, Lacking, Refused};

struct Trap {
    keepset: Keepset,
    point: Id,
}

/// A repository whose point `build` makes: it gives the root tree.
fn trap(build: impl FnOnce(&mut Crafted) -> Id) -> Trap {
    let keepset = Keepset::bare();
    let password = Password::generate().unwrap();
    fs::write(keepset.path("password"), password.reveal()).unwrap();
    fs::create_dir_all(keepset.path("out/beside")).unwrap();
    fs::write(keepset.path("out/beside/canary"), "alive").unwrap();
    fs::set_permissions(keepset.path("out/beside/canary"), fs::Permissions::from_mode(0o600)).unwrap();
    let location = keepset.path("repository").to_str().unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let point = runtime.block_on(async {
        let store = Store::create(&location, &std::collections::HashMap::new()).unwrap();
        let mut crafted = Crafted::new(store).await.with_password(&password).await;
        let root = build(&mut crafted);
        crafted.index().await;
        crafted.snapshot(root, 4).await
    });
    Trap { keepset, point }
}

/// The same of one claim with these nodes in its root.
fn claim(build: impl FnOnce(&mut Crafted) -> Vec<String>) -> Trap {
    trap(|crafted| {
        let nodes = build(crafted);
        let tree = crafted.tree(&nodes_of(&nodes));
        crafted.root(manifest(&[(0, tree)]).as_bytes(), &[("data-web-0", tree)])
    })
}

/// Everything below a folder but one part of it: names, kinds, modes, owners, times and bytes.
fn everything(root: &Path, but: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        if path == but {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        // A folder's time and links tell what came and went in it; the target comes and goes.
        let (time, links) = if meta.is_dir() { (0, 0) } else { (meta.mtime_nsec(), meta.nlink()) };
        seen.push(format!("{} {:o} {} {links} {time} {}", path.display(), meta.mode(), meta.uid(), id_of(&bytes)));
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    seen.sort();
    seen
}

impl Trap {
    fn run(&self, args: &[&str]) -> Ran {
        let plain = self.keepset.command();
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(format!("ulimit -v {MEMORY}; exec \"$@\"")).arg("sh").arg(plain.get_program()).args(args);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        let ran = Ran::of(limited.current_dir(self.keepset.dir.path()).stdin(Stdio::null()).output().unwrap());
        let told = format!("{args:?}: {ran:?}");
        assert!(matches!(ran.code, 0 | 1 | 2 | 3 | 13), "{told}");
        assert!(!ran.err.contains("panicked"), "{told}");
        if !matches!(args[0], "check" | "repair" | "list" | "status") && matches!(ran.code, 1 | 2 | 13) {
            assert!(ran.err.contains("error: "), "{told}");
        }
        let text = if args[0] == "dump" { ran.err.clone() } else { format!("{}{}", ran.out, ran.err) };
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{told}");
        ran
    }

    /// Runs every verb that reads; `damaged` is what a check must find.
    fn spring(self, damaged: bool, restore: Restore) -> (Keepset, PathBuf) {
        let id = self.point.hex();
        let target = self.keepset.path("out/target");
        let before = everything(self.keepset.dir.path(), &target);
        for args in [
            &["list", "--json"][..],
            &["status"],
            &["show", &id],
            &["ls", "-lR", &id],
            &["dump", &id, "data-web-0/x"],
            &["forget", "--keep-last", "1", "--dry-run"],
        ] {
            self.run(args);
        }
        for args in [&["check", "--read-data", "--json"], &["repair", "points", "--read-data"]] {
            let ran = self.run(args);
            assert!(ran.code == i32::from(damaged), "{args:?}: {ran:?}");
        }
        let ran = self.run(&["restore", "shop/web", "--point", &id, "--into", target.to_str().unwrap()]);
        match restore {
            Back => assert_eq!(ran.code, 0, "{ran:?}"),
            Lacking => assert_eq!(ran.code, 3, "{ran:?}"),
            Refused(words) => {
                assert!(matches!(ran.code, 1 | 13) && ran.err.contains(words) && ran.err.contains("hint: "), "{words}: {ran:?}");
                assert!(!target.join("data-web-0").exists(), "{words}");
            }
        }
        // Locks come and go; nothing else may.
        let locks = |line: &String| !line.contains("/repository");
        let left = |list: Vec<String>| list.into_iter().filter(locks).collect::<Vec<_>>();
        assert_eq!(left(everything(self.keepset.dir.path(), &target)), left(before));
        (self.keepset, target)
    }
}

#[test]
fn names_that_are_no_step_down_are_refused() {
    for name in ["..", "", "/etc/cron.d/x", "a\\u0000b", "..\\\\x2f..\\\\x2fbeside"] {
        let trap = claim(|crafted| vec![file(name, &[crafted.data(b"evil")], 4)]);
        trap.spring(true, Refused("is damaged"));
    }
    let long = "n".repeat(256);
    claim(|crafted| vec![file(&long, &[crafted.data(b"evil")], 4)]).spring(false, Refused("is not a name"));
}

#[test]
fn a_name_twice_is_refused_so_that_nothing_is_written_through_a_link() {
    let link = |to: &str| format!(r#"{{"name":"x","type":"symlink","mode":134218239,"linktarget":"{to}"}}"#);
    claim(|crafted| vec![link("../../beside/canary"), file("x", &[crafted.data(b"evil")], 4)]).spring(true, Refused("is damaged"));
    claim(|crafted| {
        let inner = crafted.tree(&nodes_of(&[file("canary", &[id_of(b"evil")], 4)]));
        crafted.data(b"evil");
        vec![link("../../beside"), dir("x", &inner)]
    })
    .spring(true, Refused("is damaged"));
    // A link alone is data: it comes back as a link, and nobody follows it.
    let (_keepset, target) = claim(|_| vec![link("../../beside/canary")]).spring(false, Back);
    assert!(target.join("data-web-0/x").is_symlink());
}

#[test]
fn hard_links_do_not_leave_the_volume_and_special_files_are_what_they_were() {
    let (_keepset, target) = claim(|crafted| {
        let evil = crafted.data(b"evil");
        vec![
            r#"{"name":"a","type":"symlink","mode":134218239,"linktarget":"../../beside/canary","inode":5,"device_id":9,"links":2}"#
                .to_owned(),
            format!(r#"{{"name":"b","type":"file","mode":511,"size":4,"inode":5,"device_id":9,"links":2,"content":["{evil}"]}}"#),
        ]
    })
    .spring(false, Back);
    let shared = target.join("data-web-0/b");
    assert!(!shared.is_symlink() && fs::read(&shared).unwrap() == b"evil", "an inode number makes no file another's name");

    if support::tree::is_root() {
        // As root a volume comes back as it was, devices and set-id programs too: who can make a point can write to the volume anyway.
        let (_keepset, target) = claim(|crafted| {
            let program = crafted.data(b"evil");
            vec![
                r#"{"name":"disk","type":"dev","mode":67108992,"device":2049}"#.to_owned(),
                format!(r#"{{"name":"su","type":"file","mode":8389101,"size":4,"uid":12345,"content":["{program}"]}}"#),
            ]
        })
        .spring(false, Back);
        assert!(fs::metadata(target.join("data-web-0/disk")).unwrap().file_type().is_block_device());
        let su = fs::metadata(target.join("data-web-0/su")).unwrap();
        assert_eq!((su.mode() & 0o7777, su.uid()), (0o4755, 12345));
    }
}

#[test]
fn attributes_that_no_file_can_have_are_lacking_and_the_data_is_back() {
    let (_keepset, target) = claim(|crafted| {
        let data = crafted.data(b"data");
        let xattrs = format!(r#"[{{"name":"","value":"eA=="}},{{"name":"user.{}","value":"eA=="}},{{"name":"x","value":null}}]"#, "y".repeat(300));
        vec![format!(
            r#"{{"name":"x","type":"file","mode":4294967295,"size":4,"uid":4294967295,"mtime":"9999-12-31T23:59:59.999999999-23:59","extended_attributes":{xattrs},"content":["{data}"]}}"#
        )]
    })
    .spring(false, Lacking);
    assert_eq!(fs::read(target.join("data-web-0/x")).unwrap(), b"data");
}

#[test]
fn sizes_that_lie_are_refused() {
    for (chunks, size) in [(0, 1), (1, u64::MAX), (2, 9)] {
        claim(|crafted| vec![file("x", &vec![crafted.data(b"data"); chunks], size)]).spring(false, Refused("is damaged"));
    }
}

#[test]
fn folders_that_hold_each_other_again_and_again_are_refused_and_deep_ones_come_back() {
    // Forty trees, each of which names the next one twice: 2^40 folders.
    claim(|crafted| {
        let mut tree = crafted.tree(&nodes_of(&[]));
        for _ in 0..40 {
            tree = crafted.tree(&nodes_of(&[dir("a", &tree), dir("b", &tree)]));
        }
        vec![dir("x", &tree)]
    })
    .restore_only(Refused("name each other billions of times"));
    // Twelve of them: more than anybody can have saved, going by the manifest.
    claim(|crafted| {
        let mut tree = crafted.tree(&nodes_of(&[]));
        for _ in 0..12 {
            tree = crafted.tree(&nodes_of(&[dir("a", &tree), dir("b", &tree)]));
        }
        vec![dir("x", &tree)]
    })
    .spring(false, Refused("its manifest says 4"));
    let (keepset, target) = trap(|crafted| {
        let mut tree = crafted.tree(&nodes_of(&[file("end", &[], 0)]));
        for _ in 0..2000 {
            tree = crafted.tree(&nodes_of(&[dir("d", &tree)]));
        }
        let manifest = manifest(&[(0, tree)]).replace(r#""dirs":1"#, r#""dirs":2000"#);
        crafted.root(manifest.as_bytes(), &[("data-web-0", tree)])
    })
    .spring(false, Back);
    let cleared = Command::new("rm").arg("-rf").arg(&target).current_dir(keepset.dir.path()).status().unwrap();
    assert!(cleared.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_levels_cost_no_stack() {
    let mut crafted = Crafted::new(Store::memory()).await;
    let mut tree = crafted.tree(&nodes_of(&[file("end", &[Id([9; 32])], 4)]));
    for _ in 0..50_000 {
        tree = crafted.tree(&nodes_of(&[dir("d", &tree)]));
    }
    let root = crafted.root(manifest(&[(0, tree)]).as_bytes(), &[("data-web-0", tree)]);
    crafted.index().await;
    crafted.snapshot(root, 4).await;
    let repository = crafted.repository;
    let report = check(&repository, &CheckOptions { read_data: None, seed: 0, workers: 2 }, &Silent).await.unwrap();
    assert_eq!((report.trees, report.missing_blobs, report.points[0].claims[0].lost.files), (50_004, 1, 1));
    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    let claim = Entry { name: b"c".to_vec(), kind: Kind::Dir { subtree: Some(tree) }, attrs: Attrs::default() };
    let proof = prove(&reader, vec![claim], &packs_present(&repository).await.unwrap()).await.unwrap();
    assert_eq!((proof.entries, proof.absent_count), (50_002, 1));
}

impl Trap {
    /// For trees without end, which `ls -R` lists without end.
    fn restore_only(self, restore: Restore) {
        for args in [&["check", "--read-data"][..], &["list"], &["show", &self.point.hex()]] {
            self.run(args).expect(0);
        }
        let target = self.keepset.path("out/target");
        let ran = self.run(&["restore", "shop/web", "--point", &self.point.hex(), "--into", target.to_str().unwrap()]);
        let Refused(words) = restore else { panic!("it ends") };
        assert!(ran.code == 1 && ran.err.contains(words), "{ran:?}");
        assert!(!target.join("data-web-0").exists());
    }
}

/// A zstd frame of `begin`, so many megabytes of `filling`, and `end`; and how long that is.
fn bomb(begin: &[u8], filling: u8, end: &[u8], megabytes: u64) -> (Vec<u8>, u32) {
    let length = megabytes << 20;
    let plain = begin.chain(std::io::repeat(filling).take(length - (begin.len() + end.len()) as u64)).chain(end);
    (zstd::encode_all(plain, 1).unwrap(), u32::try_from(length).unwrap())
}

struct Hashing<'a>(&'a mut Pieces);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_few_kilobytes_that_unpack_to_hundreds_of_megabytes_are_refused_wherever_they_stand() {
    let (frame, length) = bomb(b"", 0, b"", 256);
    // The ids are never compared: nobody unpacks that far.
    let fake = Id([0xb0; 32]);
    claim(|crafted| {
        crafted.add_as(BlobKind::Data, fake, &frame, Some(length));
        vec![file("x", &[fake], length.into())]
    })
    .spring(true, Refused("claim to unpack to"));
    // Trees are unpacked piece by piece: they cost time, and no memory.
    let (frame, length) = bomb(b"{\"nodes\":[", b' ', b"]}", 64);
    claim(|crafted| {
        crafted.add_as(BlobKind::Tree, fake, &frame, Some(length));
        vec![dir("x", &fake)]
    })
    .spring(true, Refused("its bytes are not those that its name says"));
    let mut right = Pieces::default();
    std::io::copy(&mut zstd::Decoder::new(&frame[..]).unwrap(), &mut Hashing(&mut right)).unwrap();
    let right = right.finish();
    claim(|crafted| {
        crafted.add_as(BlobKind::Tree, right, &frame, Some(length));
        vec![dir("x", &right)]
    })
    .spring(false, Back);
    let (frame, length) = bomb(b"{\"nodes\":[{\"name\":\"", b'x', b"\",\"type\":\"fifo\"}]}", 64);
    let mut right = Pieces::default();
    std::io::copy(&mut zstd::Decoder::new(&frame[..]).unwrap(), &mut Hashing(&mut right)).unwrap();
    let right = right.finish();
    claim(|crafted| {
        crafted.add_as(BlobKind::Tree, right, &frame, Some(length));
        vec![dir("x", &right)]
    })
    .spring(true, Refused("one of its nodes has more than"));
    // A frame that unpacks to more than the index says.
    claim(|crafted| {
        crafted.add_as(BlobKind::Tree, fake, &frame, Some(100));
        vec![dir("x", &fake)]
    })
    .spring(true, Refused("is damaged"));
    for folder in [index::FOLDER, snapshot::FOLDER] {
        let trap = claim(|crafted| vec![file("x", &[crafted.data(b"data")], 4)]);
        let (frame, _) = bomb(b"{", b' ', b"}", 256);
        let sealed = trap.seal(&[&[2], &frame[..]].concat());
        let name = id_of(&sealed).hex();
        fs::write(trap.keepset.path(&format!("repository/{folder}/{name}")), sealed).unwrap();
        for args in [&["list"][..], &["status"], &["check"], &["check", "--read-data"]] {
            let ran = trap.run(args);
            let told = format!("{}{}", ran.out, ran.err);
            assert!(told.contains(&name[..8]) && told.contains("grows beyond"), "{args:?}: {told}");
        }
        // It spares the point that is not in it.
        let target = trap.keepset.path("out/target");
        let ran = trap.run(&["restore", "shop/web", "--point", &trap.point.hex(), "--into", target.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[test]
fn objects_of_absurd_size_are_not_read() {
    let trap = claim(|crafted| vec![file("x", &[crafted.data(b"data")], 4)]);
    let name = "a".repeat(64);
    // Terabytes of hole: more than any machine's memory.
    let huge = |key: &str| fs::File::create(trap.keepset.path("repository").join(key)).unwrap().set_len(1 << 42).unwrap();
    for folder in ["snapshots", "index", "keys", "x-keepset/runs"] {
        fs::create_dir_all(trap.keepset.path("repository").join(folder)).unwrap();
        huge(&format!("{folder}/{name}"));
    }
    let ran = trap.run(&["check"]);
    let told = |line: &&str| (line.starts_with("damaged: ") || line.starts_with("note: ")) && line.contains("it is far too long");
    assert_eq!((ran.code, ran.out.lines().filter(told).count()), (1, 4), "{ran:?}");
    let ran = trap.run(&["restore", "shop/web", "--point", &trap.point.hex(), "--into", trap.keepset.path("out/target").to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    fs::create_dir_all(trap.keepset.path("repository/locks")).unwrap();
    huge(&format!("locks/{name}"));
    let mut lone = trap.keepset.command();
    let ran = Ran::of(lone.args(["check", "--wait-lock", "0s"]).output().unwrap()).refused(11, "an unreadable lock");
    assert!(ran.err.contains(&name), "{}", ran.err);
    huge("config");
    trap.keepset.run(["list"]).refused(1, "it is far too long");
}

impl Trap {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        keepset::repository::crypto::MasterKey::from_bytes(&[7; 64]).cipher().seal(plain).unwrap()
    }

    /// Puts an object of `folder` in plain JSON.
    fn put(&self, folder: &str, json: &[u8]) -> Id {
        let sealed = self.seal(json);
        let id = id_of(&sealed);
        fs::write(self.keepset.path(&format!("repository/{folder}/{id}")), sealed).unwrap();
        id
    }
}

#[test]
fn index_objects_and_headers_that_lie_are_found_out() {
    let data = id_of(b"data");
    let good = || claim(|crafted| vec![file("x", &[crafted.data(b"data")], 4)]);
    for (offset, length, plain_length) in
        [(u32::MAX, u32::MAX, None), (0, u32::MAX, None), (0, 0, None), (4_000_000_000, 36, None), (0, 36, Some(u32::MAX)), (3, 36, None)]
    {
        let trap = good();
        // The only object that says where the chunk is.
        let old = trap.keepset.objects("index").remove(0);
        let packs = trap.keepset.objects("data").into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().parse::<Id>().unwrap());
        let lie = PackEntry { id: data, kind: BlobKind::Data, offset, length, plain_length };
        let lies: Vec<(Id, Vec<PackEntry>)> = packs.map(|pack| (pack, vec![lie])).collect();
        trap.put("index", &index::encode(&lies));
        let both = trap.run(&["check", "--read-data"]);
        assert_eq!(both.code, 1, "{both:?}");
        fs::remove_file(old).unwrap();
        trap.spring(true, Refused("error: "));
    }
    // A header that lists something else than there is: restores go by the index, a check tells.
    let trap = trap(|crafted| {
        crafted.data(b"data");
        let tree = crafted.tree(&nodes_of(&[file("x", &[data], 4)]));
        crafted.root(manifest(&[(0, tree)]).as_bytes(), &[("data-web-0", tree)])
    });
    let pack = trap.keepset.objects("data").remove(0);
    let bytes = fs::read(&pack).unwrap();
    let header = trap.seal(&[0xff; 41 * 1000]);
    let length = u32::try_from(header.len()).unwrap().to_le_bytes();
    fs::write(&pack, [&bytes[..40], &header, &length].concat()).unwrap();
    let ran = trap.run(&["check", "--read-data"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn manifests_that_lead_elsewhere_or_nowhere_are_refused_or_harmless() {
    let with = |change: &dyn Fn(String) -> String| {
        trap(|crafted| {
            let data = crafted.data(b"data");
            let tree = crafted.tree(&nodes_of(&[file("x", &[data], 4)]));
            let manifest = change(manifest(&[(0, tree)]));
            crafted.root(manifest.as_bytes(), &[("data-web-0", tree)])
        })
    };
    let name = |name: &'static str| move |text: String| text.replace(r#""name":"data-web-0""#, &format!(r#""name":"{name}""#));
    for bad in ["../beside", "", "data-web-00", "a\\u0000b"] {
        with(&name(bad)).spring(true, Refused("not one that the set can have"));
    }
    let template = |text: String| text.replace(r#""template":"data","name":"data-web-0""#, r#""template":"../x","name":"../x-web-0""#);
    with(&template).spring(true, Refused("not one that the set can have"));
    with(&|text| text.replace(r#""ordinal":0"#, r#""ordinal":4294967295"#)).spring(true, Refused("not one that the set can have"));
    with(&|text| text.replace(r#""replicas":2"#, r#""replicas":4294967295"#).replace(r#""start":0"#, r#""start":4294967295"#))
        .spring(false, Back);
    with(&|text| {
        text.replace(r#""bytes":10"#, r#""bytes":18446744073709551615"#).replace(r#""files":3"#, r#""files":18446744073709551615"#)
    })
    .spring(false, Back);
    with(&|text| text.replace(r#""cluster":"here""#, "\"cluster\":\"\\u001b[2J\\u202e\"")).spring(false, Back);
    with(&|text| text.replace(r#""version":1"#, r#""version":99"#)).spring(true, Refused("later version"));
    with(&|_| format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).spring(true, Refused("cannot be read"));
    with(&|_| String::new()).spring(true, Refused("cannot be read"));
    // A hundred thousand claims, none of which is there.
    let many = |text: String| {
        let (head, rest) = text.split_once(r#"{"ordinal":0"#).unwrap();
        let (claim, tail) = rest.split_once('}').unwrap();
        let claims: Vec<String> =
            (0..20_000).map(|n| format!(r#"{{"ordinal":{n}{}}}"#, claim.replace("data-web-0", &format!("data-web-{n}")))).collect();
        format!("{head}{}{tail}", claims.join(","))
    };
    with(&many).spring(true, Refused("is partial"));
}

#[test]
fn snapshots_of_absurd_times_and_names_are_listed_without_harm() {
    let trap = claim(|crafted| vec![file("x", &[crafted.data(b"data")], 4)]);
    let tree = {
        let list = trap.run(&["list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list.out).unwrap();
        assert_eq!(list["points"][0]["id"], *trap.point.hex());
        let sealed = fs::read(trap.keepset.path(&format!("repository/snapshots/{}", trap.point))).unwrap();
        let plain = keepset::repository::crypto::MasterKey::from_bytes(&[7; 64]).cipher().open(&sealed).unwrap();
        let snapshot: Snapshot = serde_json::from_slice(&zstd::decode_all(&plain[1..]).unwrap()).unwrap();
        snapshot.tree
    };
    let base = Snapshot { tree, paths: vec!["/shop/web".into()], hostname: "web.shop.here".into(), ..Snapshot::default() };
    let times =
        ["9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z", "", "yesterday", "+262142-01-01T00:00:00Z"];
    for time in times {
        trap.put("snapshots", &serde_json::to_vec(&Snapshot { time: time.into(), ..base.clone() }).unwrap());
    }
    let odd = Snapshot {
        time: "2026-01-02T03:04:05Z".repeat(5000),
        hostname: "\u{1b}]0;owned\u{7}".repeat(1000),
        paths: vec!["/../..".into(), "/shop/web\u{0}".into(), String::new()],
        ..base
    };
    trap.put("snapshots", &serde_json::to_vec(&odd).unwrap());
    trap.put("snapshots", br#"{"time":5}"#);
    trap.put("snapshots", b"{}");
    trap.spring(true, Back);
}

#[test]
fn keys_that_would_keep_a_machine_busy_for_hours_are_passed_over() {
    let trap = claim(|crafted| vec![file("x", &[crafted.data(b"data")], 4)]);
    let key = trap.keepset.objects("keys").remove(0);
    let good: serde_json::Value = serde_json::from_slice(&fs::read(key).unwrap()).unwrap();
    for (n, r, p) in [(1_u64 << 40, 8, 1), (1 << 17, 8, 64), (1 << 10, 8, 4_000_000_000_u32), (2, 3_000_000, 1), (3, 8, 1), (0, 0, 0)] {
        let mut bad = good.clone();
        (bad["N"], bad["r"], bad["p"]) = (n.into(), r.into(), p.into());
        let bytes = serde_json::to_vec(&bad).unwrap();
        fs::write(trap.keepset.path(&format!("repository/keys/{}", id_of(&bytes))), bytes).unwrap();
    }
    trap.spring(false, Back);
}

#[test]
fn a_file_that_looks_like_a_snapshot_cannot_be_made_one() {
    let keepset = Keepset::new();
    let live = keepset.set(1);
    // With the mtime of the past it is no part of any other file's chunk, and first in its pack.
    let claim = live.join("data-web-0");
    fs::remove_dir_all(&claim).unwrap();
    fs::create_dir(&claim).unwrap();
    let tree = id_of(b"any tree");
    let forged = format!(
        r#"{{"time":"2030-01-01T00:00:00Z","tree":"{tree}","paths":["/shop/web"],"hostname":"web.shop.test","username":"eve","tags":["keepset"]}}"#
    );
    let content = [b"\x02".as_slice(), &zstd::bulk::compress(forged.as_bytes(), 3).unwrap()].concat();
    fs::write(claim.join("file"), &content).unwrap();
    keepset.backup(&live);
    // Whoever can write to the store copies what they take for the sealed file out of each pack.
    for pack in keepset.objects("data") {
        let bytes = fs::read(pack).unwrap();
        let sealed = &bytes[..bytes.len().min(content.len() + 32)];
        fs::write(keepset.path("repository/snapshots").join(id_of(sealed).to_string()), sealed).unwrap();
    }
    let listed = keepset.run(["list", "--json"]);
    assert!(!listed.out.contains("eve") && !listed.out.contains("2030-01-01"), "{}", listed.out);
}

#[test]
fn a_file_of_json_behind_white_space_cannot_be_made_the_config() {
    let keepset = Keepset::new();
    let live = keepset.set(1);
    let claim = live.join("data-web-0");
    fs::remove_dir_all(&claim).unwrap();
    fs::create_dir(&claim).unwrap();
    // A field that nobody reads, of bytes that do not compress.
    let noise = Dice(7).bytes(200_000).into_iter().filter(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\');
    let mut content = b"\n{\"version\":2,\"id\":\"".to_vec();
    content.extend([b'e'; 64]);
    content.extend(b"\",\"chunker_polynomial\":\"25b468838dcb75\",\"x\":\"");
    content.extend(noise);
    content.extend(b"\"}");
    fs::write(claim.join("file"), &content).unwrap();
    keepset.backup(&live);
    let config = keepset.path("repository/config");
    let packs: Vec<_> =
        keepset.objects("data").into_iter().map(|pack| fs::read(pack).unwrap()).filter(|bytes| bytes.len() > content.len()).collect();
    assert!(!packs.is_empty(), "no pack holds the file");
    for bytes in packs {
        fs::remove_file(&config).unwrap();
        fs::write(&config, &bytes[..content.len() + 32]).unwrap();
        assert_ne!(keepset.run(["list"]).code, 0, "a file of a volume was taken for the config");
    }
}
