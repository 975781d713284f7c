//! Generated file trees with every kind of entry there is, and what puts them on disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, linkat, lsetxattr, mknodat, utimensat,
};

/// A folder's content by name.
pub type Entries = BTreeMap<Vec<u8>, Node>;

/// A whole volume: its root's attributes and what is in it.
#[derive(Clone, Debug)]
pub struct Tree {
    pub root: Meta,
    pub entries: Entries,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub what: What,
    pub meta: Meta,
}

#[derive(Clone, Debug)]
pub enum What {
    File(Content),
    Dir(Entries),
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    /// A device, for those who may make one; a FIFO for others.
    CharDevice(u64),
    BlockDevice(u64),
    /// Another name of the n-th entry (modulo their number) that is there already and is no folder.
    HardLink(usize),
}

/// Bytes by recipe, so that a failing case stays readable.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    Empty,
    Random {
        seed: u64,
        length: usize,
    },
    /// Compressible, and with runs that repeat between files.
    Text {
        seed: u64,
        length: usize,
    },
    /// Zeros that are written.
    Zeros {
        length: usize,
    },
    /// Pieces of 10,000 random bytes, each after a hole of 300,000 bytes, and a hole at the end.
    Sparse {
        seed: u64,
        pieces: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Meta {
    pub mode: u32,
    /// Only for those who may give files away.
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    pub atime: (i64, u32),
    /// Without the `user.` before the name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub access_acl: bool,
    /// Folders only.
    pub default_acl: bool,
    /// Regular files only, and only for those who may.
    pub capability: bool,
}

/// A generator of numbers that is the same everywhere and for ever (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Names of every sort: plain, alike but for case, spaces, newlines, quotes, UTF-8, not UTF-8, of 255 bytes.
fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-zA-Z0-9_.-]{1,12}".prop_map(String::into_bytes),
        2 => "[a-b]{1,2}".prop_map(String::into_bytes),
        1 => "\\PC{1,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..20),
        1 => any::<u8>().prop_map(|byte| vec![byte; 255]),
        1 => prop_oneof![Just("a\nb"), Just(" "), Just("\"q\\u0041\""), Just("-rf"), Just("é"), Just("e\u{301}"), Just("<&>\u{2028}"), Just("*")]
            .prop_map(|name| name.as_bytes().to_vec()),
    ]
    .prop_map(|name| name.into_iter().take(255).map(|byte| if matches!(byte, 0 | b'/') { b'_' } else { byte }).collect::<Vec<u8>>())
    .prop_filter("a name of its own", |name| name != b"." && name != b".." && name != b"lost+found")
}

fn contents() -> impl Strategy<Value = Content> {
    prop_oneof![
        1 => Just(Content::Empty),
        5 => (any::<u64>(), 1_usize..3000).prop_map(|(seed, length)| Content::Random { seed, length }),
        3 => (0_u64..4, 1_usize..60_000).prop_map(|(seed, length)| Content::Text { seed, length }),
        1 => (any::<u64>(), 500_000_usize..5_000_000).prop_map(|(seed, length)| Content::Random { seed, length }),
        1 => (1_usize..1_000_000).prop_map(|length| Content::Zeros { length }),
        1 => (any::<u64>(), 0_usize..5).prop_map(|(seed, pieces)| Content::Sparse { seed, pieces }),
    ]
}

/// Times that ext4 and its peers can hold: 1902 to 2400.
fn times() -> impl Strategy<Value = (i64, u32)> {
    let nanos = prop_oneof![Just(0), Just(1), Just(999_999_999), 0_u32..1_000_000_000];
    (prop_oneof![4 => 1_000_000_000_i64..1_800_000_000, 1 => -2_140_000_000_i64..0, 1 => 4_300_000_000_i64..13_000_000_000], nanos)
}

fn metas() -> impl Strategy<Value = Meta> {
    let modes = prop_oneof![4 => Just(0o644), 2 => Just(0o755), 4 => 0_u32..0o10000];
    let ids = || prop_oneof![3 => Just(0_u32), 1 => 1_u32..70_000, 1 => Just(4_000_000_000)];
    let xattrs = prop_oneof![3 => Just(BTreeMap::new()), 1 => btree_map("[a-z]{1,9}(\\.[A-Zé]{1,3})?", vec(any::<u8>(), 0..120), 0..3)];
    let rarely = || prop::bool::weighted(0.1);
    (modes, (ids(), ids()), times(), times(), xattrs, rarely(), rarely(), rarely()).prop_map(
        |(mode, owner, mtime, atime, xattrs, access_acl, default_acl, capability)| {
            let mode = if is_root() { mode } else { mode | 0o700 };
            Meta { mode, owner, mtime, atime, xattrs, access_acl, default_acl, capability }
        },
    )
}

fn leaves() -> impl Strategy<Value = What> {
    let targets = prop_oneof![vec(1_u8.., 1..60), Just(b"../x".to_vec()), Just(b"/etc/passwd".to_vec()), Just(b".".to_vec())];
    let device = || (0_u32..4095, 0_u32..1_000_000).prop_map(|(major, minor)| rustix::fs::makedev(major, minor));
    prop_oneof![
        12 => contents().prop_map(What::File),
        2 => targets.prop_map(What::Symlink),
        1 => Just(What::Fifo),
        1 => Just(What::Socket),
        1 => device().prop_map(What::CharDevice),
        1 => device().prop_map(What::BlockDevice),
        2 => any::<usize>().prop_map(What::HardLink),
    ]
}

/// Trees of up to about `size` entries.
pub fn trees(size: u32) -> impl Strategy<Value = Tree> {
    let node = |what: BoxedStrategy<What>| (what, metas()).prop_map(|(what, meta)| Node { what, meta });
    let nodes = node(leaves().boxed()).prop_recursive(4, size, 8, move |inner| {
        let dirs = btree_map(names(), inner, 0..8).prop_map(What::Dir);
        node(dirs.boxed())
    });
    let width = usize::try_from(size / 4 + 2).unwrap();
    (metas(), btree_map(names(), nodes, 0..width)).prop_map(|(root, entries)| Tree { root, entries })
}

impl Tree {
    /// Puts the tree into `root`, an empty folder that exists.
    pub fn write(&self, root: &Path) {
        let mut linkable = Vec::new();
        write_entries(&self.entries, root, &mut linkable);
        set_meta(root, &self.root, Kind::Dir);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Dir,
    Symlink,
    Other,
}

fn write_entries(entries: &Entries, dir: &Path, linkable: &mut Vec<PathBuf>) {
    for (name, node) in entries {
        let path = dir.join(OsStr::from_bytes(name));
        let special = |kind| mknodat(CWD, &path, kind, Mode::RWXU, 0).unwrap();
        let device = |kind, rdev| {
            if is_root() { mknodat(CWD, &path, kind, Mode::RWXU, rdev).unwrap() } else { special(FileType::Fifo) }
        };
        let mut kind = Kind::Other;
        match &node.what {
            What::Dir(entries) => {
                kind = Kind::Dir;
                fs::create_dir(&path).unwrap();
                write_entries(entries, &path, linkable);
            }
            What::HardLink(number) if !linkable.is_empty() => {
                let existing = &linkable[number % linkable.len()];
                linkat(CWD, existing, CWD, &path, AtFlags::empty()).unwrap();
                continue;
            }
            What::File(_) | What::HardLink(_) => {
                kind = Kind::File;
                let content = if let What::File(content) = node.what { content } else { Content::Empty };
                content.write(&File::create_new(&path).unwrap());
            }
            What::Symlink(target) => {
                kind = Kind::Symlink;
                symlink(OsStr::from_bytes(target), &path).unwrap();
            }
            What::Fifo => special(FileType::Fifo),
            What::Socket => special(FileType::Socket),
            What::CharDevice(rdev) => device(FileType::CharacterDevice, *rdev),
            What::BlockDevice(rdev) => device(FileType::BlockDevice, *rdev),
        }
        set_meta(&path, &node.meta, kind);
        if kind != Kind::Dir {
            linkable.push(path);
        }
    }
}

impl Content {
    fn write(self, file: &File) {
        match self {
            Content::Empty => {}
            Content::Random { seed, length } => file.write_all_at(&Dice(seed).bytes(length), 0).unwrap(),
            Content::Text { seed, length } => {
                let mut dice = Dice(seed);
                let words: Vec<String> = (0..200).map(|_| format!("{:x} ", dice.below(100_000))).collect();
                let text: String = std::iter::from_fn(|| Some(words[dice.below(200)].as_str())).take(length / 2 + 1).collect();
                file.write_all_at(&text.as_bytes()[..length.min(text.len())], 0).unwrap();
            }
            Content::Zeros { length } => file.write_all_at(&vec![0; length], 0).unwrap(),
            Content::Sparse { seed, pieces } => {
                let mut dice = Dice(seed);
                for piece in 0..pieces {
                    let offset = (piece as u64 + 1) * 300_000 + piece as u64 * 10_000;
                    file.write_all_at(&dice.bytes(10_000), offset).unwrap();
                }
                file.set_len((pieces as u64 + 1) * 310_000).unwrap();
            }
        }
    }
}

/// An ACL in the kernel's form: owner and others as in the mode, group and a named user (1000) below a mask.
pub fn acl(mode: u32) -> Vec<u8> {
    let rights = |shift: u32| u16::try_from(mode >> shift & 7).unwrap();
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1, rights(6), u32::MAX), (2, 6, 1000), (4, 5, u32::MAX), (0x10, rights(3), u32::MAX), (0x20, rights(0), u32::MAX)]
    {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(rights));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

fn set_meta(path: &Path, meta: &Meta, kind: Kind) {
    if is_root() {
        let (uid, gid) = meta.owner;
        chownat(CWD, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let set = |name: &str, value: &[u8]| lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    if matches!(kind, Kind::File | Kind::Dir) {
        for (name, value) in &meta.xattrs {
            set(&format!("user.{name}"), value);
        }
    }
    if kind != Kind::Symlink {
        chmod(path, Mode::from_raw_mode(meta.mode)).unwrap();
        if meta.access_acl {
            set("system.posix_acl_access", &acl(meta.mode));
        }
    }
    if kind == Kind::Dir && meta.default_acl {
        set("system.posix_acl_default", &acl(meta.mode));
    }
    if kind == Kind::File && meta.capability && is_root() {
        set("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    let time = |(secs, nanos): (i64, u32)| Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time(meta.atime), last_modification: time(meta.mtime) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
