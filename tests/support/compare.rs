//! Two folders side by side: every difference that a user could notice, in words.
//!
//! Written apart from the code under test, and for trees of any depth.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, lgetxattr, llistxattr, openat, readlinkat, statat};
use rustix::io::{Errno, read};

/// Everything in which `b` differs from `a`: entries, kinds, bytes, modes, owners, mtimes to the nanosecond, extended attributes and ACLs, symlinks'
/// targets, devices, hard-link groups, and holes (roughly). Empty if they are alike. The roots themselves count, as path `.`; `lost+found` in them does not.
pub fn compare(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (open(CWD, a.as_os_str().as_encoded_bytes()), open(CWD, b.as_os_str().as_encoded_bytes()));
    // One level of recursion per level of the tree, which may be thousands.
    let compared = std::thread::Builder::new().stack_size(256 << 20).spawn(move || {
        let mut comparison = Comparison::default();
        comparison.xattrs(".", (&a, b"."), (&b, b"."));
        comparison.inodes(".", &fstat(&a).unwrap(), &fstat(&b).unwrap());
        comparison.folders("", &a, &b);
        comparison.hard_links();
        comparison.found
    });
    compared.unwrap().join().unwrap()
}

/// Panics with the differences if there are any.
pub fn assert_same(a: &Path, b: &Path) {
    let found = compare(a, b);
    assert!(found.is_empty(), "{} and {} differ:\n{}", a.display(), b.display(), found.join("\n"));
}

#[derive(Default)]
struct Comparison {
    found: Vec<String>,
    /// Paths by inode, for each side.
    links: [BTreeMap<(u64, u64), Vec<String>>; 2],
}

type Place<'a> = (&'a OwnedFd, &'a [u8]);

fn open(dir: impl std::os::fd::AsFd, name: &[u8]) -> OwnedFd {
    openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn names(dir: &OwnedFd, is_root: bool) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Dir::read_from(dir).unwrap().map(|entry| entry.unwrap().file_name().to_bytes().to_vec()).collect();
    names.retain(|name| name != b"." && name != b".." && !(is_root && name == b"lost+found"));
    names.sort();
    names
}

impl Comparison {
    fn say(&mut self, path: &str, what: &str, a: impl Debug, b: impl Debug) {
        self.found.push(format!("{path}: {what} {a:?} became {b:?}"));
    }

    fn differ<T: PartialEq + Debug>(&mut self, path: &str, what: &str, a: T, b: T) {
        if a != b {
            self.say(path, what, a, b);
        }
    }

    fn folders(&mut self, at: &str, a: &OwnedFd, b: &OwnedFd) {
        let (in_a, in_b) = (names(a, at.is_empty()), names(b, at.is_empty()));
        let path = |name: &[u8]| format!("{at}{}", name.escape_ascii());
        for name in in_a.iter().filter(|name| in_b.binary_search(name).is_err()) {
            self.found.push(format!("{}: is missing", path(name)));
        }
        for name in in_b.iter().filter(|name| in_a.binary_search(name).is_err()) {
            self.found.push(format!("{}: is new", path(name)));
        }
        for name in in_a.iter().filter(|name| in_b.binary_search(name).is_ok()) {
            self.entries(&path(name), (a, name), (b, name));
        }
    }

    fn entries(&mut self, path: &str, a: Place<'_>, b: Place<'_>) {
        let stat = |(dir, name): Place<'_>| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let (in_a, in_b) = (stat(a), stat(b));
        let kind = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
        if kind(&in_a) != kind(&in_b) {
            self.say(path, "kind", kind(&in_a), kind(&in_b));
            return;
        }
        self.inodes(path, &in_a, &in_b);
        self.xattrs(path, a, b);
        match kind(&in_a) {
            FileType::Directory => return self.folders(&format!("{path}/"), &open(a.0, a.1), &open(b.0, b.1)),
            FileType::RegularFile => self.files(path, (open(a.0, a.1), &in_a), (open(b.0, b.1), &in_b)),
            FileType::Symlink => {
                let target = |(dir, name): Place<'_>| readlinkat(dir, name, Vec::new()).unwrap();
                self.differ(path, "target", target(a), target(b));
            }
            _ => self.differ(path, "device", in_a.st_rdev, in_b.st_rdev),
        }
        for (links, stat) in self.links.iter_mut().zip([in_a, in_b]) {
            links.entry((stat.st_dev, stat.st_ino)).or_default().push(path.to_owned());
        }
    }

    fn inodes(&mut self, path: &str, a: &Stat, b: &Stat) {
        if !FileType::from_raw_mode(a.st_mode).is_symlink() {
            self.differ(path, "mode", format!("{:04o}", a.st_mode & 0o7777), format!("{:04o}", b.st_mode & 0o7777));
        }
        self.differ(path, "owner", (a.st_uid, a.st_gid), (b.st_uid, b.st_gid));
        self.differ(path, "mtime", (a.st_mtime, a.st_mtime_nsec), (b.st_mtime, b.st_mtime_nsec));
    }

    fn xattrs(&mut self, path: &str, a: Place<'_>, b: Place<'_>) {
        let all = |(dir, name): Place<'_>| {
            let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
            path.extend(name);
            let mut names = vec![0; 64 << 10];
            let length = match llistxattr(&path, names.as_mut_slice()) {
                Err(Errno::OPNOTSUPP) => 0,
                other => other.unwrap(),
            };
            let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && name != b"security.selinux");
            let value = |name: &[u8]| {
                let mut value = vec![0; 64 << 10];
                let length = lgetxattr(&path, name, value.as_mut_slice()).unwrap();
                (name.escape_ascii().to_string(), value[..length].escape_ascii().to_string())
            };
            names.map(value).collect::<BTreeMap<String, String>>()
        };
        self.differ(path, "extended attributes", all(a), all(b));
    }

    fn files(&mut self, path: &str, a: (OwnedFd, &Stat), b: (OwnedFd, &Stat)) {
        self.differ(path, "size", a.1.st_size, b.1.st_size);
        if let Some(offset) = first_difference(&a.0, &b.0) {
            self.found.push(format!("{path}: bytes differ from offset {offset}"));
        }
        let allocated = |stat: &Stat| stat.st_blocks * 512;
        let has_holes = a.1.st_size - allocated(a.1) >= 256 << 10;
        if has_holes && allocated(b.1) > allocated(a.1) + (128 << 10) {
            self.say(path, "allocated bytes", allocated(a.1), allocated(b.1));
        }
    }

    fn hard_links(&mut self) {
        let [a, b] = std::mem::take(&mut self.links).map(|links| {
            let mut groups: Vec<Vec<String>> = links.into_values().filter(|group| group.len() > 1).collect();
            groups.sort();
            groups
        });
        for group in a.iter().filter(|group| !b.contains(group)) {
            self.found.push(format!("hard links {group:?} are no group any more"));
        }
        for group in b.iter().filter(|group| !a.contains(group)) {
            self.found.push(format!("hard links {group:?} are a new group"));
        }
    }
}

fn first_difference(a: &OwnedFd, b: &OwnedFd) -> Option<u64> {
    let (mut in_a, mut in_b) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    let mut offset = 0;
    loop {
        let (got_a, got_b) = (fill(a, &mut in_a), fill(b, &mut in_b));
        if let Some(at) = in_a[..got_a].iter().zip(&in_b[..got_b]).position(|(a, b)| a != b) {
            return Some(offset + at as u64);
        }
        if got_a != got_b {
            return Some(offset + got_a.min(got_b) as u64);
        }
        if got_a == 0 {
            return None;
        }
        offset += got_a as u64;
    }
}

fn fill(file: &OwnedFd, buf: &mut [u8]) -> usize {
    let mut got = 0;
    while got < buf.len() {
        match read(file, &mut buf[got..]).unwrap() {
            0 => break,
            more => got += more,
        }
    }
    got
}
