//! A folder of a volume that is open: lists it, opens what is in it, reads what cannot be opened.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, StatxAttributes, StatxFlags, fstat, openat, readlinkat, seek, statat, statx,
};
use rustix::io::Errno;

use crate::model::entry::{Attrs, Entry, Kind, Xattr};
use crate::model::mover_job::FolderId;
use crate::volume::error::VolumeError;
use crate::volume::file::{self, OpenFile};
use crate::volume::place::Place;
use crate::volume::stat::{FileKind, Stat};
use crate::volume::xattr::{self, ReadXattrs, XattrsOf};

/// One call's worth of names: about five hundred.
const LIST_BUFFER: usize = 16 << 10;

/// The folder at a file system's root that its check fills with what it finds. While it is empty it is the file system's own; what is in
/// it is the user's data.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// An open folder. Shared between threads by `Arc`; everything is relative to it and nothing follows a symlink.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    stat: Stat,
    place: Arc<Place>,
    is_root: bool,
    /// Listing moves the descriptor's position: one at a time.
    listing: Mutex<()>,
}

/// A name in a folder and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    pub name: Vec<u8>,
    pub stat: Stat,
}

/// The names in a folder, sorted as bytes, in one allocation for all: a hundred thousand take a few megabytes.
#[derive(Debug, Default)]
pub struct Names {
    text: Vec<u8>,
    entries: Vec<NameAt>,
}

#[derive(Clone, Copy, Debug)]
struct NameAt {
    start: u32,
    length: u8,
    kind: FileKind,
    inode: u64,
}

impl NameAt {
    fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        &text[start..start + usize::from(self.length)]
    }
}

impl Names {
    /// Gives the memory of the first names back; those behind them get lower indexes.
    pub fn forget(&mut self, count: usize) {
        self.entries.drain(..count);
        self.entries.shrink_to_fit();
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name at `index` in the order of bytes, and the kind that the listing gave: `Unknown` where the file system does not tell.
    pub fn get(&self, index: usize) -> Option<(&[u8], FileKind)> {
        self.entries.get(index).map(|at| (self.name(at), at.kind))
    }

    /// Where the name stands in the order of bytes.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|at| self.name(at).cmp(name)).ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], FileKind)> {
        self.entries.iter().map(|at| (self.name(at), at.kind))
    }

    /// Forgets all others.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        let text = &self.text;
        self.entries.retain(|at| keep(at.of(text)));
    }

    /// As [`Names::iter`], with the inode that the listing gave.
    pub fn with_inodes(&self) -> impl Iterator<Item = (&[u8], FileKind, u64)> {
        self.entries.iter().map(|at| (self.name(at), at.kind, at.inode))
    }

    /// The names whose inode the listing gave as this one.
    pub fn with_inode(&self, inode: u64) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter(move |at| at.inode == inode).map(|at| self.name(at))
    }

    fn name(&self, at: &NameAt) -> &[u8] {
        at.of(&self.text)
    }

    fn push(&mut self, name: &[u8], kind: FileKind, inode: u64) -> Result<(), Errno> {
        let length = u8::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        let start = u32::try_from(self.text.len()).map_err(|_| Errno::OVERFLOW)?;
        self.entries.push(NameAt { start, length, kind, inode });
        self.text.extend_from_slice(name);
        Ok(())
    }

    fn sort(&mut self) {
        let text = &self.text;
        self.entries.sort_unstable_by_key(|at| at.of(text));
    }
}

/// Refuses what is no single step down: empty, `.`, `..`, longer than 255 bytes, or with a slash or NUL in it.
pub(super) fn check_name(name: &[u8]) -> Result<(), VolumeError> {
    let fine = (1..=255).contains(&name.len()) && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, b'/' | 0));
    if fine { Ok(()) } else { Err(VolumeError::Name { name: crate::model::path_text::path_text(name) }) }
}

/// Opens a folder for reading. Listing should not touch its atime, which only its owner (or root) may ask for.
pub(super) fn open_dir(at: BorrowedFd<'_>, name: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    match openat(at, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(at, name, flags, Mode::empty()),
        other => other,
    }
}

/// Whether there is any name in the folder.
fn has_entries(fd: &OwnedFd) -> Result<bool, Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); LIST_BUFFER];
    let mut raw = RawDir::new(fd, &mut space);
    while let Some(entry) = raw.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Dir {
    /// Opens a volume's root. The path itself is the user's and may lead through symlinks; nothing below it may.
    pub fn open_root(path: &Path) -> Result<Dir, VolumeError> {
        let place = Place::root(path.as_os_str().as_bytes());
        let fd =
            open_dir(CWD, path.as_os_str().as_bytes(), true).map_err(|errno| VolumeError::new("open folder", place.text_of(b""), errno))?;
        Dir::from_fd(fd, place, true)
    }

    /// As [`Dir::open_root`]; [`VolumeError::Exchanged`] unless the path leads to this very folder.
    pub fn open_root_of(path: &Path, folder: Option<FolderId>) -> Result<Dir, VolumeError> {
        let dir = Dir::open_root(path)?;
        let is_it = |folder: FolderId| folder.device == dir.stat.device && folder.inode == dir.stat.inode;
        if folder.is_none_or(is_it) { Ok(dir) } else { Err(VolumeError::Exchanged { path: dir.text_of(b"") }) }
    }

    pub(super) fn from_fd(fd: OwnedFd, place: Arc<Place>, is_root: bool) -> Result<Dir, VolumeError> {
        let stat = fstat(&fd).map_err(|errno| VolumeError::new("look at", place.text_of(b""), errno))?.into();
        Ok(Dir { fd, stat, place, is_root, listing: Mutex::new(()) })
    }

    /// Opens a folder in this one. [`VolumeError::KindChanged`] if the name is something else (a symlink, say) by now.
    pub fn open_child(&self, name: &[u8]) -> Result<Dir, VolumeError> {
        check_name(name)?;
        match open_dir(self.fd.as_fd(), name, false) {
            Ok(fd) => Dir::from_fd(fd, self.place.child(name), false),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(VolumeError::KindChanged { path: self.text_of(name), expected: "a folder" }),
            Err(errno) => Err(self.error("open folder", name, errno)),
        }
    }

    /// The folder's own record when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Where the folder is.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The path of `name` below the volume's root, in bytes; the folder's own if `name` is empty.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.place.path_of(name)
    }

    /// Whether `child`, a folder in this one, is on another file system: a mount point, whose content is not part of the volume.
    ///
    /// As with `--one-file-system` elsewhere, a walk keeps it as an empty folder and says so in its list of problems.
    pub fn is_mount_point(&self, child: &Stat) -> bool {
        child.kind == FileKind::Dir && child.device != self.stat.device
    }

    /// The names in the folder, sorted as bytes, without looking at what is behind them. An empty `lost+found` folder at the volume's root
    /// does not count; one that cannot be looked into does.
    pub fn names(&self) -> Result<Names, VolumeError> {
        let mut names = Names::default();
        self.read_names(&mut names).map_err(|errno| self.error("list folder", b"", errno))?;
        names.sort();
        Ok(names)
    }

    fn read_names(&self, names: &mut Names) -> Result<(), Errno> {
        let _one_at_a_time = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        seek(&self.fd, SeekFrom::Start(0))?;
        let mut space = [MaybeUninit::<u8>::uninit(); LIST_BUFFER];
        let mut raw = RawDir::new(&self.fd, &mut space);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || (self.is_root && self.is_empty_lost_and_found(entry.file_name())) {
                continue;
            }
            names.push(name, entry.file_type().into(), entry.ino())?;
        }
        Ok(())
    }

    fn is_empty_lost_and_found(&self, name: &CStr) -> bool {
        name.to_bytes() == LOST_AND_FOUND
            && open_dir(self.fd.as_fd(), LOST_AND_FOUND, false).is_ok_and(|fd| matches!(has_entries(&fd), Ok(false)))
    }

    /// The names in the folder, sorted as bytes, with the record of each. What vanishes between the two is left out, as if the list had come later.
    pub fn list(&self) -> Result<Vec<RawEntry>, VolumeError> {
        self.records(&self.names()?)
    }

    /// The record of each of these names of the folder, in their order. What has vanished is left out.
    pub fn records(&self, names: &Names) -> Result<Vec<RawEntry>, VolumeError> {
        // In inode order a cold disk or a network volume reads each block of inodes once.
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_unstable_by_key(|index| names.entries[*index].inode);
        let mut stats = vec![None; names.len()];
        for index in order {
            let name = names.name(&names.entries[index]);
            stats[index] = match self.stat_of(name) {
                Ok(stat) => Some(stat),
                Err(error) if error.is_vanished() => None,
                Err(error) => return Err(error),
            };
        }
        let entry = |(index, stat): (usize, Option<Stat>)| Some(RawEntry { name: names.name(&names.entries[index]).to_vec(), stat: stat? });
        Ok(stats.into_iter().enumerate().filter_map(entry).collect())
    }

    /// The record of one entry; a symlink's own, not its target's.
    pub fn stat_of(&self, name: &[u8]) -> Result<Stat, VolumeError> {
        check_name(name)?;
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.into()),
            Err(errno) => Err(self.error("look at", name, errno)),
        }
    }

    /// The folder's own attributes, extended ones and ACLs among them.
    pub fn attrs(&self) -> Result<Attrs, VolumeError> {
        Ok(self.stat.attrs(self.read_xattrs(b"", XattrsOf::Fd(self.fd.as_fd()))?))
    }

    /// The attributes of an entry that cannot be opened (symlink, FIFO, socket, device), given its record.
    pub fn entry_attrs(&self, entry: &RawEntry) -> Result<Attrs, VolumeError> {
        Ok(entry.stat.attrs(self.xattrs_of(&entry.name)?))
    }

    /// The whole entry, if it is neither a regular file nor a folder, nor of a kind unknown to us: for those three `None`.
    pub fn special(&self, entry: &RawEntry) -> Result<Option<Entry>, VolumeError> {
        let kind = match entry.stat.kind {
            FileKind::File | FileKind::Dir | FileKind::Unknown => return Ok(None),
            FileKind::Symlink => Kind::Symlink { target: self.read_link(&entry.name)? },
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            FileKind::CharDevice => Kind::CharDevice { rdev: entry.stat.rdev },
            FileKind::BlockDevice => Kind::BlockDevice { rdev: entry.stat.rdev },
        };
        Ok(Some(Entry { name: entry.name.clone(), kind, attrs: self.entry_attrs(entry)? }))
    }

    /// The extended attributes of an entry without opening it; a symlink's own.
    pub fn xattrs_of(&self, name: &[u8]) -> Result<Vec<Xattr>, VolumeError> {
        check_name(name)?;
        self.read_xattrs(name, XattrsOf::Path(&xattr::proc_path(self.fd.as_fd(), name)))
    }

    fn read_xattrs(&self, name: &[u8], of: XattrsOf<'_>) -> Result<Vec<Xattr>, VolumeError> {
        match xattr::read(of) {
            Ok(ReadXattrs::All(xattrs)) => Ok(xattrs),
            Ok(ReadXattrs::BadName) => Err(VolumeError::XattrName { path: self.text_of(name) }),
            Err(errno) => Err(self.error("read the extended attributes of", name, errno)),
        }
    }

    /// A symlink's target, byte by byte as it stands.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, VolumeError> {
        check_name(name)?;
        match readlinkat(&self.fd, name, Vec::with_capacity(256)) {
            Ok(target) => Ok(target.into_bytes()),
            Err(Errno::INVAL) => Err(VolumeError::KindChanged { path: self.text_of(name), expected: "a symlink" }),
            Err(errno) => Err(self.error("read symlink", name, errno)),
        }
    }

    /// Opens a regular file for reading, without blocking and, where allowed, without touching its atime.
    ///
    /// What the name leads to may be another file than the one that was listed: [`OpenFile::stat`] tells which. [`VolumeError::KindChanged`] if it
    /// is no regular file any more.
    pub fn open_file(&self, name: &[u8]) -> Result<OpenFile, VolumeError> {
        check_name(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(&self.fd, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => openat(&self.fd, name, flags, Mode::empty()),
            other => other,
        };
        match opened {
            Ok(fd) => file::regular(fd, || self.text_of(name)),
            // A symlink; a socket or a device without a driver.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                Err(VolumeError::KindChanged { path: self.text_of(name), expected: "a regular file" })
            }
            Err(errno) => Err(self.error("open", name, errno)),
        }
    }

    /// Opens the parent by `..`, if that is still the folder of `device` and `inode` that it was on the way down.
    pub(super) fn open_parent(&self, place: &Arc<Place>, device: u64, inode: u64, is_root: bool) -> Result<Option<Dir>, VolumeError> {
        let Ok(fd) = open_dir(self.fd.as_fd(), b"..", false) else { return Ok(None) };
        let dir = Dir::from_fd(fd, place.clone(), is_root)?;
        Ok((dir.stat.device == device && dir.stat.inode == inode).then_some(dir))
    }

    /// The whole path of `name` as messages show it.
    pub(super) fn text_of(&self, name: &[u8]) -> String {
        self.place.text_of(name)
    }

    /// As [`Dir::error`], for what changes the folder or the entry: names the flag that forbids it even to root.
    pub(super) fn change_error(&self, operation: &'static str, name: &[u8], errno: Errno) -> VolumeError {
        let fixed = |name: &[u8]| {
            let found = statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH, StatxFlags::TYPE);
            found.is_ok_and(|found| found.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND))
        };
        match errno {
            Errno::PERM if fixed(name) => VolumeError::Fixed { path: self.text_of(name) },
            Errno::PERM if fixed(b"") => VolumeError::Fixed { path: self.text_of(b"") },
            Errno::BUSY => VolumeError::MountPoint { path: self.text_of(name) },
            errno => self.error(operation, name, errno),
        }
    }

    /// Whether `child`, a folder in this one, is where something is mounted: another file system, or a part of this one a second time.
    pub(super) fn is_mounted_on(&self, child: &Dir) -> bool {
        let root = || statx(&child.fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE);
        self.is_mount_point(&child.stat) || root().is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    pub(super) fn error(&self, operation: &'static str, name: &[u8], errno: Errno) -> VolumeError {
        VolumeError::new(operation, self.text_of(name), errno)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{FileType, Mode, XattrFlags, lsetxattr, mknodat, setxattr};

    use super::*;

    fn temp() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        (temp, dir)
    }

    #[test]
    fn names_come_sorted_as_bytes_with_those_that_are_not_utf_8_and_the_longest() {
        let (temp, dir) = temp();
        let long = vec![b'l'; 255];
        let names: Vec<&[u8]> = vec![b"\n", b" ", b"-", b"A", b"B", b"\\", b"a", b"a b", b"ab", &long, "\u{e4}".as_bytes(), b"\xff\xfe"];
        for name in names.iter().rev() {
            fs::write(temp.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        let got: Vec<Vec<u8>> = dir.list().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(got, names);
        for name in names {
            let mut text = vec![0; 300];
            let read = dir.open_file(name).unwrap().read(&mut text).unwrap();
            assert_eq!(&text[..read], name);
        }
    }

    #[test]
    fn an_empty_lost_and_found_folder_at_the_root_does_not_count() {
        let (temp, dir) = temp();
        let names = || dir.names().unwrap().iter().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect::<Vec<_>>();
        fs::create_dir_all(temp.path().join("lost+found")).unwrap();
        fs::create_dir_all(temp.path().join("sub/lost+found")).unwrap();
        assert_eq!(names(), ["sub"]);
        fs::write(temp.path().join("lost+found/#1234"), "found").unwrap();
        assert_eq!(names(), ["lost+found", "sub"]);
        assert_eq!(dir.open_child(b"sub").unwrap().names().unwrap().len(), 1);
        fs::remove_dir_all(temp.path().join("lost+found")).unwrap();
        fs::write(temp.path().join("lost+found"), "a file").unwrap();
        assert_eq!(dir.names().unwrap().len(), 2);
    }

    #[test]
    fn every_kind_that_is_not_opened_is_read_with_its_attributes() {
        let (temp, dir) = temp();
        symlink("/nowhere/\u{e4}", temp.path().join("link")).unwrap();
        let _listener = UnixListener::bind(temp.path().join("sock")).unwrap();
        mknodat(&dir, "fifo", FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        let kinds = |dir: &Dir| -> Vec<(Kind, u32)> {
            let list = dir.list().unwrap();
            list.iter().map(|raw| dir.special(raw).unwrap().unwrap()).map(|entry| (entry.kind, entry.attrs.mode)).collect()
        };
        let target = "/nowhere/\u{e4}".as_bytes().to_vec();
        let found = kinds(&dir);
        assert_eq!(found[0], (Kind::Fifo, 0o640));
        assert_eq!(found[1], (Kind::Symlink { target }, 0o777));
        assert_eq!(found[2].0, Kind::Socket);
        if rustix::process::geteuid().is_root() {
            let rdev = rustix::fs::makedev(259, 70_000);
            mknodat(&dir, "a-dev", FileType::CharacterDevice, Mode::RUSR, rdev).unwrap();
            mknodat(&dir, "b-dev", FileType::BlockDevice, Mode::RUSR, rdev).unwrap();
            lsetxattr(temp.path().join("link"), "trusted.k", b"v", XattrFlags::empty()).unwrap();
            assert_eq!(kinds(&dir)[..2], [(Kind::CharDevice { rdev }, 0o400), (Kind::BlockDevice { rdev }, 0o400)]);
            assert_eq!(dir.xattrs_of(b"link").unwrap(), [Xattr { name: "trusted.k".into(), value: b"v".to_vec() }]);
        }
    }

    #[test]
    fn attributes_are_those_that_the_kernel_shows_elsewhere_extended_ones_sorted_and_large() {
        let (temp, dir) = temp();
        let sub = temp.path().join("sub");
        fs::create_dir(&sub).unwrap();
        for (name, size) in [("user.z", 3000), ("user.a", 0), ("user.m", 1)] {
            setxattr(&sub, name, &vec![7; size], XattrFlags::empty()).unwrap();
        }
        let attrs = dir.open_child(b"sub").unwrap().attrs().unwrap();
        let meta = fs::metadata(&sub).unwrap();
        assert_eq!((attrs.mode, attrs.uid, attrs.gid), (meta.mode() & 0o7777, meta.uid(), meta.gid()));
        assert_eq!((attrs.inode, attrs.device, attrs.links, attrs.size), (meta.ino(), meta.dev(), meta.nlink(), 0));
        assert_eq!((attrs.mtime.secs, i64::from(attrs.mtime.nanos)), (meta.mtime(), meta.mtime_nsec()));
        let sizes: Vec<(&str, usize)> = attrs.xattrs.iter().map(|xattr| (xattr.name.as_str(), xattr.value.len())).collect();
        assert_eq!(sizes, [("user.a", 0), ("user.m", 1), ("user.z", 3000)]);
    }

    #[test]
    fn many_extended_attributes_do_not_overflow_the_first_buffer() {
        let (temp, dir) = temp();
        let names: Vec<String> = (0..12).map(|number| format!("user.{number:0>200}")).collect();
        fs::write(temp.path().join("f"), "").unwrap();
        for name in &names {
            setxattr(temp.path().join("f"), name, &[1], XattrFlags::empty()).unwrap();
        }
        let xattrs = dir.open_file(b"f").unwrap().xattrs().unwrap();
        assert_eq!(xattrs.iter().map(|xattr| &xattr.name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_name_that_became_another_kind_or_vanished_says_so_and_never_blocks() {
        let (temp, dir) = temp();
        symlink("/etc/passwd", temp.path().join("link")).unwrap();
        fs::create_dir(temp.path().join("dir")).unwrap();
        mknodat(&dir, "fifo", FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _listener = UnixListener::bind(temp.path().join("sock")).unwrap();
        for name in ["link", "dir", "fifo", "sock"] {
            let error = dir.open_file(name.as_bytes()).unwrap_err();
            assert!(matches!(error, VolumeError::KindChanged { .. }), "{name}: {error}");
            assert!(error.to_string().contains(name));
        }
        assert!(matches!(dir.read_link(b"dir").unwrap_err(), VolumeError::KindChanged { .. }));
        for error in [
            dir.open_file(b"gone").unwrap_err(),
            dir.open_child(b"gone").unwrap_err(),
            dir.read_link(b"gone").unwrap_err(),
            dir.xattrs_of(b"gone").unwrap_err(),
            dir.stat_of(b"gone").unwrap_err(),
        ] {
            assert!(error.is_vanished(), "{error}");
        }
    }

    #[test]
    fn reading_does_not_touch_access_times() {
        let (temp, dir) = temp();
        let path = temp.path().join("f");
        fs::write(&path, "text").unwrap();
        let old = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH).set_modified(std::time::UNIX_EPOCH);
        fs::File::open(&path).unwrap().set_times(old).unwrap();
        dir.open_file(b"f").unwrap().read(&mut [0; 9]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().atime(), 0);
    }

    #[test]
    fn a_folder_on_another_file_system_is_a_mount_point_and_one_on_the_same_is_not() {
        let root = Dir::open_root(Path::new("/")).unwrap();
        assert!(root.is_mount_point(&root.stat_of(b"proc").unwrap()));
        let (temp, dir) = temp();
        fs::create_dir(temp.path().join("sub")).unwrap();
        assert!(!dir.is_mount_point(&dir.stat_of(b"sub").unwrap()));
    }
}
