//! Filling a volume, as a filler meets it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{XattrFlags, setxattr};
use rustix::process::geteuid;

use super::*;
use crate::model::entry::{Attrs, Kind, Time, Xattr};

fn temp() -> (tempfile::TempDir, Target) {
    let temp = tempfile::tempdir().unwrap();
    let target = Target::open(temp.path(), None).unwrap();
    (temp, target)
}

/// Attributes that differ from what anything new has, as far as this user may set them.
fn attrs(mode: u32) -> Attrs {
    let mine = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (uid, gid) = if geteuid().is_root() { (12_345, 54_321) } else { mine };
    let time = |secs, nanos| Time { secs, nanos };
    Attrs { mode, uid, gid, mtime: time(-123_456_789, 987_654_321), atime: time(1_000_000_000, 1), ..Attrs::default() }
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.to_owned(), value: value.to_vec() }
}

/// An ACL as the kernel takes it: what a named user (1000) may besides owner, group, mask and others.
fn acl(owner: u16, user: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    let entries = [(1, owner, none), (2, user, 1000), (4, group, none), (0x10, mask, none), (0x20, other, none)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend([u16::to_le_bytes(tag), u16::to_le_bytes(rights)].concat());
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

fn assert_same(got: &Attrs, wanted: &Attrs, what: &str) {
    let main = |attrs: &Attrs| (attrs.mode, attrs.uid, attrs.gid, attrs.mtime, attrs.xattrs.clone());
    assert_eq!(main(got), main(wanted), "{what}");
}

#[test]
fn every_attribute_comes_back_on_files_folders_and_the_root() {
    let (temp, target) = temp();
    let mut file = attrs(0o6774);
    file.size = 3;
    file.xattrs = vec![xattr("system.posix_acl_access", &acl(7, 6, 5, 7, 4)), xattr("user.a", b""), xattr("user.b", &[0, 255])];
    let mut closed = attrs(0o400);
    closed.xattrs = vec![xattr("user.on_read_only", b"1")];
    let mut dir = attrs(0o3750);
    dir.xattrs = vec![xattr("system.posix_acl_access", &acl(7, 6, 5, 5, 0)), xattr("system.posix_acl_default", &acl(7, 7, 5, 7, 1))];
    if geteuid().is_root() {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]; // cap_net_bind_service=ep
        closed.xattrs = vec![xattr("security.capability", &capability), xattr("trusted.t", b"t"), closed.xattrs[0].clone()];
    }
    let mut root = attrs(0o1711);
    root.xattrs = vec![xattr("user.root", b"r")];

    let sub = target.make_dir(DirId::ROOT, b"sub", &dir).unwrap();
    assert_eq!(target.write_file(sub, b"file", &file, [b"a", b"b", b"c"]).unwrap(), []);
    assert_eq!(target.write_file(sub, b"closed", &closed, [b""]).unwrap(), []);
    let large = target.create_file(sub, b"large", 100).unwrap();
    large.write_at(50, b"late").unwrap();
    assert_eq!(target.finish_file(&large, &file).unwrap(), []);
    assert_eq!(target.finish_dirs(Some(&root), 2).unwrap(), []);
    target.sync().unwrap();

    let read = Dir::open_root(temp.path()).unwrap();
    assert_same(&read.attrs().unwrap(), &root, "root");
    let sub = read.open_child(b"sub").unwrap();
    assert_same(&sub.attrs().unwrap(), &dir, "folder");
    for (name, wanted) in [(&b"file"[..], &file), (b"closed", &closed), (b"large", &file)] {
        let open = sub.open_file(name).unwrap();
        let got = open.stat().attrs(open.xattrs().unwrap());
        assert_same(&got, wanted, &String::from_utf8_lossy(name));
        assert_eq!(got.atime, wanted.atime);
    }
    assert_eq!(fs::read(temp.path().join("sub/file")).unwrap(), b"abc");
    assert_eq!(&fs::read(temp.path().join("sub/large")).unwrap()[48..56], b"\0\0late\0\0");
}

#[test]
fn special_files_and_hard_links_come_back() {
    let (temp, target) = temp();
    let sub = target.make_dir(DirId::ROOT, b"sub", &attrs(0o755)).unwrap();
    let mut kinds = vec![
        (&b"dangling"[..], Kind::Symlink { target: b"/nowhere/\xff".to_vec() }),
        (b"to-dir", Kind::Symlink { target: b"sub".to_vec() }),
        (b"fifo", Kind::Fifo),
        (b"socket", Kind::Socket),
    ];
    if geteuid().is_root() {
        let rdev = rustix::fs::makedev(259, 70_000);
        kinds.extend([(&b"char"[..], Kind::CharDevice { rdev }), (b"block", Kind::BlockDevice { rdev })]);
    }
    for (name, kind) in &kinds {
        let wanted = attrs(if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { 0o1642 });
        assert_eq!(target.make_special(DirId::ROOT, name, kind, &wanted).unwrap(), []);
        target.make_link((DirId::ROOT, name), sub, name).unwrap();
    }
    target.write_file(sub, b"one", &attrs(0o600), [b""]).unwrap();
    target.make_link((sub, b"one"), DirId::ROOT, b"two").unwrap();
    target.finish_dirs(None, 1).unwrap();

    let read = Dir::open_root(temp.path()).unwrap();
    let list = read.list().unwrap();
    for (name, kind) in &kinds {
        let entry = read.special(list.iter().find(|raw| raw.name == *name).unwrap()).unwrap().unwrap();
        assert_eq!(entry.kind, *kind);
        assert_same(&entry.attrs, &attrs(entry.attrs.mode), &format!("{kind:?}"));
        assert_eq!(entry.attrs.mode, if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { 0o1642 });
        assert_eq!(entry.attrs.links, 2);
    }
    let inode = |path: &str| fs::metadata(temp.path().join(path)).unwrap().ino();
    assert_eq!(inode("sub/one"), inode("two"));
}

#[test]
fn nothing_leads_out_of_the_root_whatever_the_names_and_links_say() {
    let outside = tempfile::tempdir().unwrap();
    let (temp, target) = temp();
    let link = Kind::Symlink { target: outside.path().as_os_str().as_encoded_bytes().to_vec() };
    target.make_special(DirId::ROOT, b"link", &link, &attrs(0o777)).unwrap();
    assert!(target.make_dir(DirId::ROOT, b"link", &attrs(0o755)).unwrap_err().is_exists());
    assert!(target.write_file(DirId::ROOT, b"link", &attrs(0o644), [b""]).unwrap_err().is_exists());
    assert!(target.create_file(DirId::ROOT, b"link", 0).unwrap_err().is_exists());
    assert!(matches!(target.open_file(DirId::ROOT, b"link").unwrap_err(), VolumeError::KindChanged { .. }));
    for name in [&b".."[..], b".", b"", b"a/b", b"../x", b"/etc", b"a\0", &[b'x'; 256]] {
        let attrs = attrs(0o644);
        let errors = [
            target.make_dir(DirId::ROOT, name, &attrs).unwrap_err(),
            target.write_file(DirId::ROOT, name, &attrs, [b""]).unwrap_err(),
            target.create_file(DirId::ROOT, name, 0).unwrap_err(),
            target.open_file(DirId::ROOT, name).unwrap_err(),
            target.make_special(DirId::ROOT, name, &Kind::Fifo, &attrs).unwrap_err(),
            target.make_link((DirId::ROOT, b"link"), DirId::ROOT, name).unwrap_err(),
            target.make_link((DirId::ROOT, name), DirId::ROOT, b"new").unwrap_err(),
        ];
        assert!(errors.iter().all(|error| matches!(error, VolumeError::Name { .. })), "{errors:?}");
    }
    // A folder that somebody exchanges for a symlink after it was made, with no handle open.
    let sub = target.make_dir(DirId::ROOT, b"sub", &attrs(0o755)).unwrap();
    fs::remove_dir(temp.path().join("sub")).unwrap();
    symlink(outside.path(), temp.path().join("sub")).unwrap();
    assert!(target.write_file(sub, b"evil", &attrs(0o644), [b""]).is_err());
    assert!(target.finish_dirs(None, 1).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn holes_are_kept_in_small_and_large_files() {
    let (temp, target) = temp();
    let mut bytes = vec![0_u8; 4 << 20];
    bytes[1 << 20] = 1;
    *bytes.last_mut().unwrap() = 2;
    let attrs = Attrs { size: bytes.len() as u64, ..attrs(0o644) };
    target.write_file(DirId::ROOT, b"whole", &attrs, bytes.chunks(700_000)).unwrap();
    let large = target.create_file(DirId::ROOT, b"large", attrs.size).unwrap();
    for (index, chunk) in bytes.chunks(300_001).enumerate().collect::<Vec<_>>().into_iter().rev() {
        large.write_sparse(index as u64 * 300_001, chunk).unwrap();
    }
    for name in ["whole", "large"] {
        assert!(fs::read(temp.path().join(name)).unwrap() == bytes, "{name}");
        assert!(fs::metadata(temp.path().join(name)).unwrap().blocks() * 512 <= 64 << 10, "{name}");
    }
}

#[test]
fn parts_that_do_not_make_up_the_size_are_an_error() {
    let (_temp, target) = temp();
    let attrs = Attrs { size: 5, ..attrs(0o644) };
    let error = target.write_file(DirId::ROOT, b"f", &attrs, [b"abc"]).unwrap_err();
    assert!(error.reason().contains("3 bytes"), "{}", error.reason());
}

#[test]
fn a_tree_deeper_than_path_max_is_made_finished_and_removed() {
    const DEPTH: usize = 2500;
    let (temp, target) = temp();
    let mut ids = vec![DirId::ROOT];
    for _ in 0..DEPTH {
        ids.push(target.make_dir(ids[ids.len() - 1], b"dd", &attrs(0o500)).unwrap());
    }
    target.write_file(ids[DEPTH], b"bottom", &Attrs { size: 1, ..attrs(0o400) }, [b"x"]).unwrap();
    assert_eq!(target.finish_dirs(Some(&attrs(0o755)), 2).unwrap(), []);
    let mut stack = DirStack::new(Arc::new(Dir::open_root(temp.path()).unwrap()), 4);
    for _ in 0..DEPTH {
        let dir = stack.enter(b"dd").unwrap();
        assert_eq!(dir.stat().mode, 0o500);
        assert_eq!(dir.stat().mtime, attrs(0).mtime);
    }
    assert_eq!(stack.current().unwrap().list().unwrap().len(), 1);
    assert!(target.holds_data(|_| true).unwrap());
    fs::create_dir(temp.path().join("lost+found")).unwrap();
    remove(target.root(), b"dd").unwrap();
    assert!(!target.holds_data(|_| true).unwrap());
}

#[test]
fn a_hundred_thousand_files_fit_in_one_folder_and_are_listed_whole_and_twice() {
    let (_temp, target) = temp();
    let dir = target.make_dir(DirId::ROOT, b"many", &attrs(0o755)).unwrap();
    let plain = Attrs { uid: geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), ..attrs(0o644) };
    for number in 0..100_000 {
        target.write_file(dir, number.to_string().as_bytes(), &plain, [b""]).unwrap();
    }
    let read = target.dir(dir).unwrap();
    for _ in 0..2 {
        let names = read.names().unwrap();
        assert_eq!(names.len(), 100_000);
        assert!(names.iter().zip(names.iter().skip(1)).all(|(a, b)| a.0 < b.0));
    }
    assert!(read.list().unwrap().iter().all(|entry| entry.stat.mtime == plain.mtime && entry.stat.mode == 0o644));
}

#[test]
fn what_the_root_hands_down_to_new_entries_does_not_stay() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path();
    setxattr(path, "system.posix_acl_default", &acl(7, 7, 7, 7, 7), XattrFlags::empty()).unwrap();
    setxattr(path, "user.old", b"1", XattrFlags::empty()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o2777)).unwrap();
    if geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(7), Some(8)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o2777)).unwrap();
    }
    let target = Target::open(path, None).unwrap();
    let sub = target.make_dir(DirId::ROOT, b"sub", &attrs(0o755)).unwrap();
    target.write_file(sub, b"f", &attrs(0o640), [b""]).unwrap();
    target.make_special(sub, b"fifo", &Kind::Fifo, &attrs(0o640)).unwrap();
    assert_eq!(target.finish_dirs(Some(&attrs(0o755)), 1).unwrap(), []);
    let root = Dir::open_root(path).unwrap();
    let sub = root.open_child(b"sub").unwrap();
    assert_same(&root.attrs().unwrap(), &attrs(0o755), "root");
    assert_same(&sub.attrs().unwrap(), &attrs(0o755), "folder");
    for entry in sub.list().unwrap() {
        assert_same(&sub.entry_attrs(&entry).unwrap(), &attrs(0o640), "entry");
    }
}

#[test]
fn times_that_are_none_and_owners_that_are_nobody_become_problems() {
    let (_temp, target) = temp();
    let mut bad = attrs(0o644);
    bad.uid = u32::MAX;
    bad.mtime.nanos = 0x3fff_ffff; // to the kernel: now
    let problems = target.write_file(DirId::ROOT, b"f", &bad, [b""]).unwrap();
    let reasons: Vec<&str> = problems.iter().map(|problem| problem.reason.split(" not set").next().unwrap()).collect();
    assert_eq!(reasons, ["owner 4294967295:54321", "times"]);
    assert_eq!(problems[0].path, "f");
}

/// Runs `work` in a thread that has no rights but nobody's; nothing if this process is not root and cannot become somebody else.
fn as_nobody(work: impl FnOnce() + Send + 'static) {
    use rustix::process::{Gid, Uid};
    if !geteuid().is_root() {
        return;
    }
    let dropped = std::thread::spawn(|| {
        rustix::thread::set_thread_groups(&[]).unwrap();
        let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        work();
    });
    dropped.join().unwrap();
}

#[test]
fn without_rights_data_comes_back_and_the_owner_is_a_problem_without_its_set_id_bits() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = temp.path().to_owned();
    as_nobody(move || {
        let target = Target::open(&path, None).unwrap();
        let set_id = Attrs { size: 1, uid: 0, gid: 0, ..attrs(0o6755) };
        let problems = target.write_file(DirId::ROOT, b"f", &set_id, [b"x"]).unwrap();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].reason.starts_with("owner 0:0 not set"), "{problems:?}");
        let meta = fs::metadata(path.join("f")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.size(), meta.mtime()), (0o755, 1, set_id.mtime.secs));
        let error = target.make_special(DirId::ROOT, b"dev", &Kind::BlockDevice { rdev: 1 }, &set_id).unwrap_err();
        assert!(error.is_denied() && error.hint().unwrap().contains("CAP_MKNOD"));
        let closed = Attrs { uid: 65_534, gid: 65_534, ..attrs(0o000) };
        let sub = target.make_dir(DirId::ROOT, b"sub", &closed).unwrap();
        let deep = target.make_dir(sub, b"deep", &closed).unwrap();
        assert_eq!(target.write_file(deep, b"f", &closed, [b""]).unwrap(), []);
        assert_eq!(target.finish_dirs(None, 1).unwrap(), []);
        assert_eq!(fs::metadata(path.join("sub")).unwrap().mode() & 0o7777, 0);
    });
}

#[test]
fn what_may_not_be_read_says_so_and_what_belongs_to_others_is_read_nevertheless() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("secret", 0o600), ("open", 0o644)] {
        fs::write(path.join(name), "text").unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(path.join("closed")).unwrap();
    fs::set_permissions(path.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    as_nobody(move || {
        let dir = Dir::open_root(&path).unwrap();
        assert_eq!(dir.list().unwrap().len(), 3);
        assert_eq!(dir.open_file(b"open").unwrap().read(&mut [0; 9]).unwrap(), 4);
        for error in [dir.open_file(b"secret").unwrap_err(), dir.open_child(b"closed").unwrap_err()] {
            assert!(error.is_denied() && error.hint().is_some(), "{error}");
            assert!(error.reason().ends_with("Permission denied (os error 13)"), "{}", error.reason());
        }
    });
}

#[test]
fn room_is_what_the_file_system_says() {
    let (_temp, target) = temp();
    let room = target.room().unwrap();
    assert!(room.free_bytes > 0 && room.free_bytes <= room.total_bytes);
}

#[test]
fn removing_takes_all_kinds_and_follows_no_symlink() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("keep"), "").unwrap();
    let (temp, target) = temp();
    symlink(outside.path(), temp.path().join("link")).unwrap();
    fs::create_dir_all(temp.path().join("a/b/c")).unwrap();
    fs::create_dir_all(temp.path().join("a/lost+found")).unwrap();
    fs::write(temp.path().join("a/b/f"), "").unwrap();
    fs::create_dir(temp.path().join("z")).unwrap();
    for name in [b"link", &b"a"[..], b"z", b"gone already"] {
        remove(target.root(), name).unwrap();
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    assert!(outside.path().join("keep").exists());
}

/// What a volume that holds data gives out at its root.
fn to_replace(path: &std::path::Path) -> (Target, Old) {
    let target = Target::open_to_replace(path, None).unwrap();
    let old = target.old_root().unwrap();
    (target, old)
}

#[test]
fn a_volume_has_one_filler_and_the_next_waits_until_that_one_is_gone() {
    let (temp, first) = temp();
    let error = Target::open_within(temp.path(), None, true, Duration::ZERO).unwrap_err();
    assert!(matches!(error, VolumeError::Held { .. }) && error.hint().is_some(), "{error}");
    Dir::open_root(temp.path()).unwrap(); // readers are not concerned
    let path = temp.path().to_owned();
    let (opening, opens) = std::sync::mpsc::channel();
    let second = std::thread::spawn(move || {
        opening.send(()).unwrap();
        Target::open(&path, None)
    });
    opens.recv().unwrap();
    drop(first);
    second.join().unwrap().unwrap();
}

#[test]
fn a_name_that_stood_there_is_given_out_once_and_one_that_was_made_never() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("dir")).unwrap();
    fs::write(temp.path().join("dir/old"), "old").unwrap();
    let (target, mut old) = to_replace(temp.path());
    assert!(old.take(b"missing").is_none());
    let dir = old.take(b"dir").unwrap();
    assert!(old.take(b"dir").is_none());
    let (id, mut inside) = target.adopt_dir(&dir, Some(&attrs(0o750))).unwrap();
    target.write_file(id, b"new", &Attrs { size: 1, ..attrs(0o600) }, [b"x"]).unwrap();
    assert!(inside.take(b"new").is_none() && inside.take(b"old").is_some());
    assert!(target.old_root().unwrap().take(b"dir").is_none(), "the root's names are given once");
    for error in [
        target.write_file(id, b"new", &attrs(0o600), [b""]).unwrap_err(),
        target.make_dir(id, b"new", &attrs(0o700)).unwrap_err(),
        target.write_file(id, b"old", &attrs(0o600), [b""]).unwrap_err(),
    ] {
        assert!(error.is_exists(), "{error}");
    }
}

#[test]
fn what_stays_and_what_is_replaced_has_the_records_attributes_and_no_others() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path();
    for name in ["kept", "replaced", "over"] {
        fs::write(path.join(name), "12345").unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o4777)).unwrap();
        setxattr(path.join(name), "system.posix_acl_access", &acl(7, 7, 7, 7, 7), XattrFlags::empty()).unwrap();
        setxattr(path.join(name), "user.old", b"1", XattrFlags::empty()).unwrap();
    }
    fs::create_dir(path.join("dir")).unwrap();
    setxattr(path.join("dir"), "system.posix_acl_default", &acl(7, 7, 7, 7, 7), XattrFlags::empty()).unwrap();
    symlink("to", path.join("link")).unwrap();
    if geteuid().is_root() {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        setxattr(path.join("kept"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    }
    let (target, mut old) = to_replace(path);
    let mut wanted = Attrs { size: 5, ..attrs(0o2640) };
    wanted.xattrs = vec![xattr("user.new", b"2")];
    let kept = old.take(b"kept").unwrap();
    assert_eq!(target.finish_kept(&kept, &target.open_old(&kept).unwrap(), &wanted).unwrap(), []);
    assert_eq!(target.replace_file(&old.take(b"replaced").unwrap(), &wanted, [b"abcde"]).unwrap(), []);
    let over = target.open_over(&old.take(b"over").unwrap(), 5).unwrap();
    over.write_over(1, b"xyz").unwrap();
    assert_eq!(target.finish_over(&over, &wanted).unwrap(), []);
    let link = old.take(b"link").unwrap();
    let kind = Kind::Symlink { target: b"to".to_vec() };
    assert!(target.is_special(&link, &target.stat_old(&link).unwrap(), &kind).unwrap());
    assert_eq!(target.finish_special(&link, &kind, &attrs(0o777)).unwrap(), []);
    let (dir, _) = target.adopt_dir(&old.take(b"dir").unwrap(), Some(&wanted)).unwrap();
    target.write_file(dir, b"new", &Attrs { size: 0, ..wanted.clone() }, [b""]).unwrap();
    assert_eq!(target.finish_dirs(Some(&attrs(0o755)), 1).unwrap(), []);
    let root = Dir::open_root(path).unwrap();
    for entry in root.list().unwrap() {
        if entry.name != b"link" {
            assert_same(&root.entry_attrs(&entry).unwrap(), &wanted, &String::from_utf8_lossy(&entry.name));
        }
    }
    let dir = root.open_child(b"dir").unwrap();
    assert_same(&dir.entry_attrs(&dir.list().unwrap()[0]).unwrap(), &wanted, "new");
    let link = root.list().unwrap().into_iter().find(|entry| entry.name == b"link").unwrap();
    assert_eq!((link.stat.uid, link.stat.mtime), (attrs(0).uid, attrs(0).mtime));
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    assert_eq!((read("kept"), read("replaced"), read("over")), ("12345".into(), "abcde".into(), "1xyz5".into()));
    assert_eq!(root.names().unwrap().len(), 5, "nothing is left over");
}

#[test]
fn bytes_written_over_others_are_those_and_their_zeros_are_holes() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("f"), vec![7; 1 << 20]).unwrap();
    let (target, mut old) = to_replace(temp.path());
    let old = old.take(b"f").unwrap();
    let mut new = vec![0; 600_000];
    new[300_000] = 1;
    let (beside, copy) = target.create_beside(&old, 2 << 20).unwrap();
    let file = target.open_over(&old, 2 << 20).unwrap();
    file.write_over(100_001, &new).unwrap();
    let mut wanted = vec![7; 1 << 20];
    wanted[100_001..700_001].copy_from_slice(&new);
    wanted.resize(2 << 20, 0);
    assert!(fs::read(temp.path().join("f")).unwrap() == wanted);
    assert!(fs::metadata(temp.path().join("f")).unwrap().blocks() * 512 < 600 << 10);
    let from = target.open_old(&old).unwrap();
    copy.copy_from(&from, 50_000..900_000).unwrap();
    copy.copy_from(&from, 1_500_000..2 << 20).unwrap();
    let beside = temp.path().join(std::ffi::OsStr::new(std::str::from_utf8(&beside).unwrap()));
    wanted[..50_000].fill(0);
    wanted[900_000..].fill(0);
    assert!(fs::read(&beside).unwrap() == wanted);
    assert!(fs::metadata(&beside).unwrap().blocks() * 512 < 450 << 10);
    assert!(is_leftover(beside.file_name().unwrap().as_encoded_bytes()) && !is_leftover(b".keepset-fill-notes"));
}

#[test]
fn a_flag_that_forbids_changes_is_named_with_the_way_to_take_it_off() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    fs::write(&path, "old").unwrap();
    let chattr = |flag: &str| std::process::Command::new("chattr").arg(flag).arg(&path).stderr(std::process::Stdio::null()).status();
    if !chattr("+i").is_ok_and(|status| status.success()) {
        return; // not everybody, nor every file system, can set it
    }
    let (target, mut old) = to_replace(temp.path());
    let old = old.take(b"f").unwrap();
    let refused = [
        target.remove_old(&old).unwrap_err(),
        target.replace_file(&old, &Attrs { size: 1, ..attrs(0o600) }, [b"x"]).unwrap_err(),
        target.open_over(&old, 3).unwrap_err(),
        remove(target.root(), b"f").unwrap_err(),
    ];
    chattr("-i").unwrap();
    for error in refused {
        assert!(matches!(error, VolumeError::Fixed { .. }) && error.hint().unwrap().contains("chattr"), "{error}");
    }
}
