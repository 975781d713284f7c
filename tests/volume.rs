//! The volume room from outside: any tree that it reads and fills again is the same tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use keepset::volume::{Dir, DirId, DirStack, FileKind, RawEntry, Target};
use proptest::prelude::*;
use support::compare::{assert_same, compare};
use support::mutate::mutate;
use support::tree::trees;

/// Copies as a save and a fill would, without a repository between.
fn copy(from: &Path, to: &Path) {
    let root = Arc::new(Dir::open_root(from).unwrap());
    let target = Target::open(to, None).unwrap();
    let mut stack = DirStack::new(root.clone(), 3);
    let mut seen: HashMap<(u64, u64), (DirId, Vec<u8>)> = HashMap::new();
    let mut todo: Vec<(DirId, std::vec::IntoIter<RawEntry>)> = vec![(DirId::ROOT, root.list().unwrap().into_iter())];
    while let Some((id, entries)) = todo.last_mut() {
        let id = *id;
        let Some(entry) = entries.next() else {
            todo.pop();
            stack.leave().unwrap();
            continue;
        };
        let dir = stack.current().unwrap().clone();
        if entry.stat.kind == FileKind::Dir {
            let child = stack.enter(&entry.name).unwrap();
            let made = target.make_dir(id, &entry.name, &child.attrs().unwrap()).unwrap();
            todo.push((made, child.list().unwrap().into_iter()));
            continue;
        }
        if entry.stat.links > 1 {
            let key = (entry.stat.device, entry.stat.inode);
            if let Some((dir, name)) = seen.get(&key) {
                target.make_link((*dir, name), id, &entry.name).unwrap();
                continue;
            }
            seen.insert(key, (id, entry.name.clone()));
        }
        let problems = match dir.special(&entry).unwrap() {
            Some(special) => target.make_special(id, &entry.name, &special.kind, &special.attrs).unwrap(),
            None => copy_file(&dir, &entry.name, &target, id),
        };
        assert_eq!(problems, []);
    }
    assert_eq!(target.finish_dirs(Some(&root.attrs().unwrap()), 2).unwrap(), []);
}

fn copy_file(dir: &Dir, name: &[u8], target: &Target, id: DirId) -> Vec<keepset::model::mover_job::Problem> {
    let mut file = dir.open_file(name).unwrap();
    let attrs = file.stat().attrs(file.xattrs().unwrap());
    if attrs.size < 5000 {
        let mut buf = vec![0; 5000];
        let length = file.read(&mut buf).unwrap();
        return target.write_file(id, name, &attrs, buf[..length].chunks(1000)).unwrap();
    }
    drop(target.create_file(id, name, attrs.size).unwrap());
    let out = target.open_file(id, name).unwrap();
    let mut from = 0;
    while let Some(extent) = file.next_extent(from).unwrap() {
        let mut buf = vec![0; usize::try_from(extent.end - extent.start).unwrap()];
        assert_eq!(file.read_at(extent.start, &mut buf).unwrap(), buf.len());
        out.write_sparse(extent.start, &buf).unwrap();
        from = extent.end;
    }
    target.finish_file(&out, &attrs).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_read_and_filled_again_is_the_same_before_and_after_changes(tree in trees(60), seed: u64) {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = temp.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (source, first, second) = (at("source"), at("first"), at("second"));
        tree.write(&source);
        copy(&source, &first);
        assert_same(&source, &first);
        mutate(&source, seed, 5);
        copy(&source, &second);
        assert_same(&source, &second);
    }
}

#[test]
fn a_comparison_notices_every_single_difference() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let sh = |command: &str| {
        let status = std::process::Command::new("sh").arg("-ec").arg(command).current_dir(temp.path()).status().unwrap();
        assert!(status.success(), "{command}");
    };
    sh("mkdir -p a/sub; echo text >a/file; ln a/file a/same; cp a/file a/other; ln -s to a/link; mkfifo a/fifo; truncate -s 2M a/holes");
    sh("cp -a a b");
    assert_same(&at("a"), &at("b"));
    for (change, noticed) in [
        ("touch new", "new: is new"),
        ("rm fifo", "fifo: is missing"),
        ("rm fifo; touch fifo", "fifo: kind"),
        ("printf tExt | dd of=file conv=notrunc status=none; touch -r ../a/file file", "file: bytes differ from offset 1"),
        ("chmod 4755 other", "other: mode"),
        ("chmod 700 .", ".: mode"),
        ("touch -d @1.000000001 other", "other: mtime"),
        ("touch -hd @1 link", "link: mtime"),
        ("rm link; ln -s other link; touch -hr ../a/link link", "link: target"),
        ("rm same; cp -p file same; touch -r ../a .", "hard links [\"file\", \"same\"] are no group any more"),
        ("rm other; ln file other; touch -r ../a .", "hard links [\"file\", \"other\", \"same\"] are a new group"),
        ("dd if=/dev/zero of=holes bs=1M count=2 conv=notrunc status=none; touch -r ../a/holes holes", "holes: allocated bytes"),
        ("truncate -s 3M holes", "holes: size"),
    ] {
        sh(&format!("rm -rf b; cp -a a b; cd b; {change}"));
        let found = compare(&at("a"), &at("b"));
        assert!(found.iter().any(|line| line.starts_with(noticed)), "{change}: {found:?}");
    }
    sh("rm -rf b; cp -a a b");
    rustix::fs::setxattr(at("b/file"), "user.x", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    assert!(compare(&at("a"), &at("b")).iter().any(|line| line.starts_with("file: extended attributes")));
    if support::tree::is_root() {
        std::os::unix::fs::lchown(at("b/link"), Some(7), None).unwrap();
        assert!(compare(&at("a"), &at("b")).iter().any(|line| line.starts_with("link: owner")));
    }
}

#[test]
fn changes_of_every_sort_are_made_and_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let before = temp.path().join("before");
    fs::create_dir_all(before.join("sub")).unwrap();
    for file in ["one", "two", "sub/three"] {
        fs::write(before.join(file), file.repeat(100)).unwrap();
    }
    let mut sorts = std::collections::BTreeSet::new();
    for seed in 0..120 {
        let after = temp.path().join("after");
        fs::create_dir(&after).unwrap();
        copy(&before, &after);
        for said in mutate(&after, seed, 1) {
            assert!(!compare(&before, &after).is_empty(), "{said}");
            sorts.extend(said.split(" /").next().map(str::to_owned));
        }
        fs::remove_dir_all(&after).unwrap();
    }
    assert_eq!(sorts.len(), if support::tree::is_root() { 15 } else { 14 }, "{sorts:?}");
}
