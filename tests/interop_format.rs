//! Are the repository's bytes restic's, in both directions? Stock restic judges the room `repository`, without volumes and movers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use keepset::model::entry::{Attrs, Entry, Kind, Time, Xattr};
use keepset::model::id::Id;
use keepset::repository::Repository;
use keepset::repository::index::Index;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::pack::BlobKind;
use keepset::repository::reader::Reader;
use keepset::repository::snapshot::{self, Snapshot};
use keepset::repository::tree;
use keepset::repository::writer::{Writer, WriterOptions};
use keepset::store::{Location, Store};
use support::restic::Restic;

const PASSWORD: &str = "correct horse — Pferd";

fn password() -> Password {
    Password::chosen(PASSWORD.as_bytes().to_vec())
}

fn origin() -> KeyOrigin {
    KeyOrigin { created: "2026-11-24T02:00:00Z".into(), ..KeyOrigin::default() }
}

fn location(folder: &Path) -> Location {
    folder.to_str().unwrap().parse().unwrap()
}

/// Small packs, so that a few megabytes make many.
const OPTIONS: WriterOptions = WriterOptions { level: 2, pack_size: 1 << 20, full_packs: 2 };

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

fn attrs(mode: u32) -> Attrs {
    let time = Time { secs: 1_700_000_000, nanos: 123_456_789 };
    Attrs { mode, uid: 12_345, gid: 54_321, mtime: time, atime: time, ctime: time, inode: 77, device: 9, links: 1, ..Attrs::default() }
}

/// Names that quoting gets wrong easily: bytes that are not UTF-8, control characters, quotes, what Go calls not printable.
const NAMES: [&[u8]; 17] = [
    b"plain",
    b"with space",
    b"quote\"quote",
    b"back\\slash",
    b"\\x41 is no A",
    b"line\nfeed",
    b"tab\tbell\x07escape\x1b",
    b"delete\x7f",
    b"latin1 \xe9\xff",
    b"cut off \xe2\x82",
    "emoji 😀 and ümlaut".as_bytes(),
    "line separator \u{2028} soft hyphen \u{ad}".as_bytes(),
    "byte order mark \u{feff}".as_bytes(),
    "replacement \u{fffd}".as_bytes(),
    "c1 control \u{85}".as_bytes(),
    b"<html> & 'more'",
    b"%s\\",
];

/// A folder with every kind of entry, and for each file its bytes.
fn entries(add: &mut dyn FnMut(BlobKind, &[u8]) -> Id) -> (Vec<Entry>, HashMap<Vec<u8>, Vec<u8>>) {
    let mut files = HashMap::new();
    let mut entries = Vec::new();
    let mut file = |name: &[u8], chunks: &[Vec<u8>], attrs: Attrs| {
        let content = chunks.iter().map(|chunk| add(BlobKind::Data, chunk)).collect();
        files.insert(name.to_vec(), chunks.concat());
        let attrs = Attrs { size: chunks.concat().len() as u64, ..attrs };
        Entry { name: name.to_vec(), kind: Kind::File { content }, attrs }
    };
    for (i, name) in NAMES.iter().enumerate() {
        entries.push(file(name, &[format!("file {i}\n").into_bytes()], attrs(0o640)));
    }
    entries.push(file(&[b'n'; 255], &[b"longest name".to_vec()], attrs(0o600)));
    entries.push(file(b"empty", &[], attrs(0o444)));
    entries.push(file(b"many chunks", &[noise(1, 900_000), vec![0; 1 << 20], noise(1, 900_000), b"x".repeat(70_000)], attrs(0o644)));
    entries.push(file(b"set-uid", &[b"#!/bin/sh\n".to_vec()], attrs(0o4755)));
    entries.push(file(b"set-gid", &[b"#!/bin/sh\n".to_vec()], attrs(0o2755)));
    let ancient = Time { secs: -1_000_000_000, nanos: 1 };
    entries.push(file(b"from 1938", &[b"old".to_vec()], Attrs { mtime: ancient, atime: Time { secs: 0, nanos: 0 }, ..attrs(0o600) }));
    let xattrs = vec![
        Xattr { name: "user.binary".into(), value: vec![0, 255, 10, 34] },
        Xattr { name: "user.empty".into(), value: Vec::new() },
        Xattr { name: "user.text".into(), value: b"text".to_vec() },
    ];
    entries.push(file(b"with xattrs", &[b"x".to_vec()], Attrs { xattrs, ..attrs(0o600) }));
    for name in [b"link one".as_slice(), b"link two"] {
        entries.push(file(name, &[b"linked".to_vec()], Attrs { inode: 4711, links: 2, ..attrs(0o600) }));
    }
    let inner = vec![Entry { name: b"fifo inside".to_vec(), kind: Kind::Fifo, attrs: attrs(0o600) }];
    for (name, inner, mode) in [(b"folder".as_slice(), inner, 0o1777), (b"empty folder", Vec::new(), 0o2750)] {
        let subtree = Some(add(BlobKind::Tree, &tree::encode(&inner)));
        entries.push(Entry { name: name.to_vec(), kind: Kind::Dir { subtree }, attrs: attrs(mode) });
    }
    for (name, target) in [(b"symlink".as_slice(), b"../no/where".as_slice()), (b"odd symlink", b"latin1 \xe9 \"quoted\"\n")] {
        entries.push(Entry { name: name.to_vec(), kind: Kind::Symlink { target: target.to_vec() }, attrs: attrs(0o777) });
    }
    entries.push(Entry { name: b"fifo".to_vec(), kind: Kind::Fifo, attrs: attrs(0o620) });
    entries.push(Entry { name: b"null".to_vec(), kind: Kind::CharDevice { rdev: 0x103 }, attrs: attrs(0o666) });
    entries.push(Entry { name: b"loop".to_vec(), kind: Kind::BlockDevice { rdev: 0x70b }, attrs: attrs(0o660) });
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    (entries, files)
}

fn record(root: Id, host: &str) -> Snapshot {
    Snapshot {
        time: "2026-11-24T02:15:00.123456789+01:00".into(),
        tree: Some(root),
        paths: vec!["/prod/web".into()],
        hostname: host.into(),
        program_version: "keepset test".into(),
        ..Snapshot::default()
    }
}

/// Where an entry that restic restored differs from what we stored.
fn compare(entry: &Entry, folder: &Path, bytes: Option<&Vec<u8>>) -> Vec<String> {
    let path = folder.join(OsStr::from_bytes(&entry.name));
    let meta = match std::fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(error) => return vec![format!("{}: {error}", path.display())],
    };
    let mut wrong = Vec::new();
    let mut expect = |what: &str, good: bool| {
        if !good {
            wrong.push(format!("{}: {what}: {meta:?}", path.display()));
        }
    };
    let kind = meta.file_type();
    match &entry.kind {
        Kind::File { .. } => expect("bytes", kind.is_file() && std::fs::read(&path).ok().as_ref() == bytes),
        Kind::Dir { .. } => expect("kind", kind.is_dir()),
        Kind::Symlink { target } => {
            let found = std::fs::read_link(&path).unwrap_or_default().into_os_string().into_vec();
            // restic before 0.16 does not know `linktarget_raw` and takes the text beside it.
            expect("target", found == *target || found == String::from_utf8_lossy(target).as_bytes());
        }
        Kind::Fifo => expect("kind", kind.is_fifo()),
        Kind::Socket => expect("kind", kind.is_socket()),
        Kind::CharDevice { rdev } => expect("device", kind.is_char_device() && meta.rdev() == *rdev),
        Kind::BlockDevice { rdev } => expect("device", kind.is_block_device() && meta.rdev() == *rdev),
    }
    expect("owner", (meta.uid(), meta.gid()) == (entry.attrs.uid, entry.attrs.gid));
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        expect("mode", meta.mode() & 0o7777 == entry.attrs.mode);
    }
    expect("mtime", (meta.mtime(), meta.mtime_nsec()) == (entry.attrs.mtime.secs, i64::from(entry.attrs.mtime.nanos)));
    for xattr in &entry.attrs.xattrs {
        let mut value = [0u8; 100];
        let length = rustix::fs::lgetxattr(&path, &xattr.name, &mut value);
        expect("xattr", length.is_ok_and(|length| value[..length] == xattr.value));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_write_is_checked_listed_dumped_and_restored_by_restic() {
    assert_eq!(rustix::process::geteuid().as_raw(), 0, "owners and devices can be compared by root only: run the tests as root");
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("repository");
    let store = Store::create(&location(&folder), &HashMap::new()).unwrap();
    let repository = Repository::init(store, &password(), origin()).await.unwrap();
    let writer = Writer::new(&repository, Arc::new(Index::load(&repository).await.unwrap()), OPTIONS);

    let (entries, files, root) = {
        let writer = writer.clone();
        tokio::task::spawn_blocking(move || {
            let mut encoder = writer.encoder().unwrap();
            let mut add = |kind, plain: &[u8]| writer.add(&mut encoder, kind, plain).unwrap().id;
            let (entries, files) = entries(&mut add);
            let root = add(BlobKind::Tree, &tree::encode(&entries));
            (entries, files, root)
        })
        .await
        .unwrap()
    };
    writer.finish().await.unwrap();
    let id = snapshot::save(&repository, &record(root, "web.prod.test")).await.unwrap();

    let restic = Restic::new(folder.to_str().unwrap(), PASSWORD);
    restic.check();
    let snapshots = restic.snapshots();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0]["id"], id.hex());
    assert_eq!(snapshots[0]["hostname"], "web.prod.test");

    let listed = restic.text(["ls", "--json", "latest"]);
    let count = listed.lines().filter(|line| line.contains("\"struct_type\":\"node\"")).count();
    assert_eq!(count, entries.len() + 1, "all entries and the one in the folder");
    assert_eq!(restic.run(["dump", "latest", "/many chunks"]), files[b"many chunks".as_slice()]);

    let target = work.path().join("restored");
    let restored = restic.restore("latest", &target, "/");
    let mut wrong: Vec<String> = entries.iter().flat_map(|entry| compare(entry, &restored, files.get(&entry.name))).collect();
    let inode = |name: &str| std::fs::metadata(restored.join(name)).map(|meta| (meta.ino(), meta.nlink())).ok();
    if inode("link one") != inode("link two") {
        wrong.push("the two hard links are two files".into());
    }
    assert_eq!(wrong, [] as [String; 0]);
}

/// Every entry of a tree and of all below it, by path.
async fn walk(reader: &Reader, root: Id) -> Vec<(Vec<u8>, Entry)> {
    let (mut found, mut queue) = (Vec::new(), vec![(Vec::new(), root)]);
    while let Some((path, id)) = queue.pop() {
        for entry in reader.tree(&id).await.unwrap() {
            let path = [path.as_slice(), b"/", &entry.name].concat();
            if let Kind::Dir { subtree } = entry.kind {
                queue.push((path.clone(), subtree.unwrap()));
            }
            found.push((path, entry));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_restic_writes_is_opened_listed_and_read_by_us() {
    let work = tempfile::tempdir().unwrap();
    let (folder, source) = (work.path().join("repository"), work.path().join("source"));
    std::fs::create_dir_all(source.join("folder/deeper")).unwrap();
    let mut bytes: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for (i, name) in NAMES.iter().enumerate() {
        let content = if i == 0 { noise(3, 3_000_000) } else { format!("file {i}\n").into_bytes() };
        std::fs::write(source.join("folder").join(OsStr::from_bytes(name)), &content).unwrap();
        bytes.insert([b"/folder/", *name].concat(), content);
    }
    std::os::unix::fs::symlink("to \"nowhere\"\nat all", source.join("symlink")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, source.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o640), 0)
        .unwrap();
    std::fs::write(source.join("attributed"), b"x").unwrap();
    rustix::fs::lsetxattr(source.join("attributed"), "user.note", b"\x00\xff", rustix::fs::XattrFlags::empty()).unwrap();
    std::fs::hard_link(source.join("attributed"), source.join("again")).unwrap();

    let restic = Restic::init(&folder, PASSWORD);
    restic.run([
        OsStr::new("backup"),
        source.as_os_str(),
        OsStr::new("--host"),
        OsStr::new("theirs"),
        OsStr::new("--tag"),
        OsStr::new("a,b"),
    ]);

    let wrong = Repository::open(Store::open(&location(&folder), &HashMap::new()).unwrap(), &Password::chosen(b"wrong".to_vec())).await;
    assert!(wrong.is_err());
    let repository = Repository::open(Store::open(&location(&folder), &HashMap::new()).unwrap(), &password()).await.unwrap();
    let snapshots = snapshot::list(&repository).await.unwrap();
    let [(id, record)] = &snapshots[..] else { panic!("{} snapshots", snapshots.len()) };
    assert_eq!(id.hex(), restic.snapshots()[0]["id"].as_str().unwrap());
    assert_eq!((record.hostname.as_str(), record.tags.len()), ("theirs", 2));
    assert_eq!(record.paths, [source.to_str().unwrap()]);

    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    let prefix = source.as_os_str().as_bytes();
    let mut seen = 0;
    for (path, entry) in walk(&reader, record.tree.unwrap()).await {
        let Some(below) = path.strip_prefix(prefix) else { continue };
        seen += 1;
        let mut content = None;
        if let Kind::File { content: ids } = &entry.kind {
            let mut all = Vec::new();
            for id in ids {
                all.extend(reader.chunk(id).await.unwrap());
            }
            if let Some(expected) = bytes.get(below) {
                assert!(*expected == all, "{}", String::from_utf8_lossy(below));
            }
            content = Some(all);
        }
        let parent = Path::new(OsStr::from_bytes(&path)).parent().unwrap();
        let wrong = compare(&entry, parent, content.as_ref());
        assert_eq!(wrong, [] as [String; 0]);
        let meta = std::fs::symlink_metadata(OsStr::from_bytes(&path)).unwrap();
        assert_eq!(entry.attrs.inode, meta.ino(), "{}", String::from_utf8_lossy(below));
        // restic counts the links of files alone.
        if meta.is_file() {
            assert_eq!(entry.attrs.links, meta.nlink(), "{}", String::from_utf8_lossy(below));
        }
        assert_eq!((entry.attrs.ctime.secs, i64::from(entry.attrs.ctime.nanos)), (meta.ctime(), meta.ctime_nsec()));
    }
    assert_eq!(seen, NAMES.len() + 7, "all files, two folders, four others and the source itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_prunes_one_of_our_snapshots_and_leaves_the_others_whole() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("repository");
    let repository = Repository::init(Store::create(&location(&folder), &HashMap::new()).unwrap(), &password(), origin()).await.unwrap();
    let mut saved = Vec::new();
    for round in 0..3u64 {
        let writer = Writer::new(&repository, Arc::new(Index::load(&repository).await.unwrap()), OPTIONS);
        let adding = writer.clone();
        let root = tokio::task::spawn_blocking(move || {
            let mut encoder = adding.encoder().unwrap();
            let mut add = |kind, plain: &[u8]| adding.add(&mut encoder, kind, plain).unwrap().id;
            // Two of three files are the next round's, too.
            let entries: Vec<Entry> = (round..round + 3)
                .map(|number| {
                    let content =
                        vec![add(BlobKind::Data, &noise(number + 1, 400_000)), add(BlobKind::Data, &number.to_le_bytes().repeat(9_000))]
                            .into();
                    Entry { name: format!("file {number}").into_bytes(), kind: Kind::File { content }, attrs: attrs(0o600) }
                })
                .collect();
            add(BlobKind::Tree, &tree::encode(&entries))
        })
        .await
        .unwrap();
        writer.finish().await.unwrap();
        saved.push((snapshot::save(&repository, &record(root, &format!("{round}.prod.test"))).await.unwrap(), root));
    }
    let restic = Restic::new(folder.to_str().unwrap(), PASSWORD);
    restic.run(["forget", "--prune", "--max-unused", "0", &saved[1].0.hex()]);
    restic.check();

    let left: Vec<Id> = snapshot::list(&repository).await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left.len(), 2);
    let reader = Reader::new(&repository, Arc::new(Index::load(&repository).await.unwrap()));
    for (round, (id, root)) in [(0, saved[0]), (2, saved[2])] {
        assert!(left.contains(&id));
        for (number, entry) in (round..).zip(reader.tree(&root).await.unwrap()) {
            let Kind::File { content } = &entry.kind else { panic!("{entry:?}") };
            assert_eq!(reader.chunk(&content[0]).await.unwrap(), noise(number + 1, 400_000));
            assert_eq!(reader.chunk(&content[1]).await.unwrap(), number.to_le_bytes().repeat(9_000));
        }
    }
}
