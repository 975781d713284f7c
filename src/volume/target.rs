//! A volume that is being filled: makes folders, files, links and special files below a root, and never outside it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstatvfs, linkat, mkdirat, mknodat, openat, statat, symlinkat, syncfs, unlinkat};
use rustix::io::Errno;

use crate::model::entry::{Attrs, Kind, Time, Xattr};
use crate::model::mover_job::Problem;
use crate::volume::dir::{Dir, check_name};
use crate::volume::error::VolumeError;
use crate::volume::finish::Finisher;
use crate::volume::handles::Handles;
use crate::volume::limits::open_files;
use crate::volume::output::TargetFile;
use crate::volume::stat::FileKind;
use crate::volume::walk::DirStack;

/// A folder that [`Target::make_dir`] made. Ids are given in order from the root's, parents before children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(u32);

impl DirId {
    /// The volume's root.
    pub const ROOT: DirId = DirId(0);
}

/// What is free where a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user can still write.
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// `None` where the file system makes inodes as it needs them.
    pub free_inodes: Option<u64>,
}

/// The root of a volume to fill, and every folder made in it so far. Used from many threads at once.
///
/// Everything is made new: a name that is taken is an error, so that what a repository says twice, or a symlink that it put in the way, leads
/// nowhere. Folders are `0700` until [`Target::finish_dirs`].
#[derive(Debug)]
pub struct Target {
    root: Arc<Dir>,
    folders: RwLock<Folders>,
    open: Handles<Dir>,
    finisher: Finisher,
}

#[derive(Debug, Default)]
struct Folders {
    names: Vec<u8>,
    /// Without the root: the folder with id `n` is at `n - 1`.
    list: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    parent: DirId,
    depth: u32,
    name_start: usize,
    name_length: u8,
    attrs: FolderAttrs,
}

/// Of [`Attrs`] what a folder's end needs: a million of them must fit in memory.
#[derive(Debug)]
struct FolderAttrs {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    atime: Time,
    xattrs: Box<[Xattr]>,
}

impl Folders {
    fn get(&self, id: DirId) -> Option<&Folder> {
        self.list.get((id.0 as usize).checked_sub(1)?)
    }

    fn name(&self, folder: &Folder) -> &[u8] {
        &self.names[folder.name_start..folder.name_start + usize::from(folder.name_length)]
    }
}

impl Target {
    /// Opens the existing folder `path` as the root to fill. Changes nothing yet.
    pub fn open(path: &Path) -> Result<Target, VolumeError> {
        let root = Arc::new(Dir::open_root(path)?);
        let finisher = Finisher::new(&root.attrs()?);
        let kept = usize::try_from(open_files() / 8).unwrap_or(usize::MAX).clamp(8, 512);
        Ok(Target { root, folders: RwLock::default(), open: Handles::new(kept), finisher })
    }

    /// The root itself.
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// Whether there is anything in the root but a `lost+found` folder.
    pub fn holds_data(&self) -> Result<bool, VolumeError> {
        Ok(!self.root.names()?.is_empty())
    }

    /// What is free on the file system of the root.
    pub fn room(&self) -> Result<Room, VolumeError> {
        let found = fstatvfs(&*self.root).map_err(|errno| self.root.error("ask for the room in", b"", errno))?;
        Ok(Room {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_inodes: (found.f_files > 0).then_some(found.f_favail),
        })
    }

    /// Makes a folder; its attributes are kept for [`Target::finish_dirs`]. The root's `lost+found`, if the file system has made one, is taken as it is.
    pub fn make_dir(&self, parent: DirId, name: &[u8], attrs: &Attrs) -> Result<DirId, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        match mkdirat(&*dir, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if parent == DirId::ROOT && name == b"lost+found" && dir.stat_of(name)?.kind == FileKind::Dir => {}
            Err(errno) => return Err(dir.error("create folder", name, errno)),
        }
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        let full = || VolumeError::new("count one more folder for", dir.text_of(name), Errno::OVERFLOW);
        let id = u32::try_from(folders.list.len() + 1).map_err(|_| full())?;
        let depth = folders.get(parent).map_or(0, |folder| folder.depth) + 1;
        let name_start = folders.names.len();
        folders.names.extend_from_slice(name);
        let name_length = u8::try_from(name.len()).map_err(|_| full())?; // it was checked above
        let attrs = FolderAttrs {
            mode: attrs.mode,
            uid: attrs.uid,
            gid: attrs.gid,
            mtime: attrs.mtime,
            atime: attrs.atime,
            xattrs: attrs.xattrs.as_slice().into(),
        };
        folders.list.push(Folder { parent, depth, name_start, name_length, attrs });
        Ok(DirId(id))
    }

    /// The folder, open. The ones used last stay open; others are opened again from their nearest open ancestor.
    pub fn dir(&self, id: DirId) -> Result<Arc<Dir>, VolumeError> {
        if let Some(dir) = self.kept(id) {
            return Ok(dir);
        }
        let (from, way) = self.way(&self.folders.read().unwrap_or_else(PoisonError::into_inner), id);
        self.follow(from, &way)
    }

    fn kept(&self, id: DirId) -> Option<Arc<Dir>> {
        if id == DirId::ROOT { Some(self.root.clone()) } else { self.open.get(u64::from(id.0)) }
    }

    /// The nearest open ancestor, and from there the steps down, the last one first.
    fn way(&self, folders: &Folders, id: DirId) -> (Arc<Dir>, Vec<(DirId, Vec<u8>)>) {
        let mut way = Vec::new();
        let mut at = id;
        loop {
            if let Some(open) = self.kept(at) {
                return (open, way);
            }
            let Some(folder) = folders.get(at) else { return (self.root.clone(), way) };
            way.push((at, folders.name(folder).to_vec()));
            at = folder.parent;
        }
    }

    fn follow(&self, from: Arc<Dir>, way: &[(DirId, Vec<u8>)]) -> Result<Arc<Dir>, VolumeError> {
        let mut dir = from;
        for (id, name) in way.iter().rev() {
            dir = self.open.insert(u64::from(id.0), Arc::new(dir.open_child(name)?));
        }
        Ok(dir)
    }

    /// Makes a symlink, FIFO, socket or device with its attributes. Devices need `CAP_MKNOD`: see [`VolumeError::is_denied`].
    ///
    /// Gives the attributes that could not be set. Regular files and folders are not made here and refused.
    pub fn make_special(&self, parent: DirId, name: &[u8], kind: &Kind, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        let mode = Mode::from_raw_mode(attrs.mode & 0o700);
        let (operation, made) = match kind {
            Kind::Symlink { target } => ("create symlink", symlinkat(target.as_slice(), &*dir, name)),
            Kind::Fifo => ("create FIFO", mknodat(&*dir, name, FileType::Fifo, mode, 0)),
            Kind::Socket => ("create socket", mknodat(&*dir, name, FileType::Socket, mode, 0)),
            Kind::CharDevice { rdev } => ("create device", mknodat(&*dir, name, FileType::CharacterDevice, mode, *rdev)),
            Kind::BlockDevice { rdev } => ("create device", mknodat(&*dir, name, FileType::BlockDevice, mode, *rdev)),
            Kind::File { .. } | Kind::Dir { .. } => ("create special file", Err(Errno::INVAL)),
        };
        made.map_err(|errno| dir.error(operation, name, errno))?;
        self.finisher.unopened(&dir, name, matches!(kind, Kind::Symlink { .. }), attrs)
    }

    /// Makes one more name for an entry that is there already.
    pub fn make_link(&self, existing: (DirId, &[u8]), parent: DirId, name: &[u8]) -> Result<(), VolumeError> {
        check_name(existing.1)?;
        check_name(name)?;
        let (from, to) = (self.dir(existing.0)?, self.dir(parent)?);
        linkat(&*from, existing.1, &*to, name, AtFlags::empty()).map_err(|errno| to.error("create hard link", name, errno))
    }

    /// Makes a whole regular file: `parts` in order are its bytes. Gives the attributes that could not be set.
    pub fn write_file<P: AsRef<[u8]>>(
        &self,
        parent: DirId,
        name: &[u8],
        attrs: &Attrs,
        parts: impl IntoIterator<Item = P>,
    ) -> Result<Vec<Problem>, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        // With the right owner from the start, the final mode saves a call; else nobody else may look before the owner is set.
        let mode = if self.finisher.is_mine(attrs) { attrs.mode & 0o777 } else { 0o600 };
        let file = TargetFile::new(self.create(&dir, name, mode)?, &dir, name);
        file.write_whole(attrs.size, parts)?;
        self.finisher.file(&file, attrs)
    }

    /// Makes an empty regular file (`0600`) of `size` bytes that are all hole, to be written in any order and then finished.
    pub fn create_file(&self, parent: DirId, name: &[u8], size: u64) -> Result<TargetFile, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        let file = TargetFile::new(self.create(&dir, name, 0o600)?, &dir, name);
        file.set_len(size)?;
        Ok(file)
    }

    fn create(&self, dir: &Dir, name: &[u8], mode: u32) -> Result<OwnedFd, VolumeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Mode::from_raw_mode(mode)).map_err(|errno| dir.error("create file", name, errno))
    }

    /// Opens a file that [`Target::create_file`] made, to write more of it.
    pub fn open_file(&self, parent: DirId, name: &[u8]) -> Result<TargetFile, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&*dir, name, flags, Mode::empty()) {
            Ok(fd) => Ok(TargetFile::new(fd, &dir, name)),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
                Err(VolumeError::KindChanged { path: dir.text_of(name), expected: "a regular file" })
            }
            Err(errno) => Err(dir.error("open", name, errno)),
        }
    }

    /// Sets a file's attributes after its last byte: nothing may be written to it afterwards. Gives those that could not be set.
    pub fn finish_file(&self, file: &TargetFile, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        self.finisher.file(file, attrs)
    }

    /// Sets the attributes of all folders made, deepest first, then the root's if they are given. Call it once, after everything else; `threads` share
    /// the work. Gives what could not be set.
    pub fn finish_dirs(&self, root: Option<&Attrs>, threads: usize) -> Result<Vec<Problem>, VolumeError> {
        let folders = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<(u32, DirId)> = (1..).zip(&folders.list).map(|(id, folder)| (folder.depth, DirId(id))).collect();
        order.sort_unstable_by_key(|(depth, id)| (std::cmp::Reverse(*depth), *id));
        let mut problems = Vec::new();
        // A folder may become closed to us when it is finished: all that are deeper come before.
        for level in order.chunk_by(|a, b| a.0 == b.0) {
            let share = level.len().div_ceil(threads.max(1)).max(64);
            let finish = |ids: &[(u32, DirId)]| -> Result<Vec<Problem>, VolumeError> {
                let mut problems = Vec::new();
                for (_, id) in ids {
                    problems.extend(self.finish_one(&folders, *id)?);
                }
                Ok(problems)
            };
            if level.len() <= share {
                problems.extend(finish(level)?);
                continue;
            }
            let results: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = level.chunks(share).map(|ids| scope.spawn(|| finish(ids))).collect();
                workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
            });
            for result in results {
                problems.extend(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
        }
        if let Some(attrs) = root {
            problems.extend(self.finisher.root(&self.root, attrs)?);
        }
        Ok(problems)
    }

    fn finish_one(&self, folders: &Folders, id: DirId) -> Result<Vec<Problem>, VolumeError> {
        let Some(folder) = folders.get(id) else { return Ok(Vec::new()) };
        let (from, way) = self.way(folders, id);
        let dir = self.follow(from, &way)?;
        let kept = &folder.attrs;
        let attrs = Attrs {
            mode: kept.mode,
            uid: kept.uid,
            gid: kept.gid,
            mtime: kept.mtime,
            atime: kept.atime,
            xattrs: kept.xattrs.to_vec(),
            ..Attrs::default()
        };
        let problems = self.finisher.dir(&dir, &attrs)?;
        self.open.remove(u64::from(id.0));
        Ok(problems)
    }

    /// Waits until everything written to the file system of the root is on its device. An error here means that data may be lost.
    pub fn sync(&self) -> Result<(), VolumeError> {
        syncfs(&*self.root).map_err(|errno| self.root.error("write out", b"", errno))
    }

    /// Removes everything in the root but a `lost+found` folder, to any depth. Stops at a mount point with an error.
    ///
    /// The caller has made sure that nothing of it is needed.
    pub fn clear(&self) -> Result<(), VolumeError> {
        let mut stack = DirStack::new(self.root.clone(), 64);
        let mut todo = vec![(self.root.names()?, 0)];
        while let Some((names, next)) = todo.last_mut() {
            let Some((name, _)) = names.get(*next) else {
                todo.pop();
                if let Some((names, next)) = todo.last_mut() {
                    let parent = stack.leave()?;
                    let name = names.get(*next).map(|(name, _)| name).unwrap_or_default();
                    unlinkat(&*parent, name, AtFlags::REMOVEDIR).map_err(|errno| parent.error("remove folder", name, errno))?;
                    *next += 1;
                }
                continue;
            };
            let dir = stack.current().cloned().unwrap_or_else(|| self.root.clone());
            match unlinkat(&*dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => *next += 1,
                Err(Errno::ISDIR | Errno::PERM) if is_dir(&dir, name) => {
                    let child = stack.enter(name)?;
                    if dir.is_mount_point(child.stat()) {
                        return Err(dir.error("remove mount point", name, Errno::XDEV));
                    }
                    todo.push((child.names()?, 0));
                }
                Err(errno) => return Err(dir.error("remove", name, errno)),
            }
        }
        Ok(())
    }
}

fn is_dir(dir: &Dir, name: &[u8]) -> bool {
    statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::fs::{XattrFlags, setxattr};
    use rustix::process::geteuid;

    use super::*;

    fn temp() -> (tempfile::TempDir, Target) {
        let temp = tempfile::tempdir().unwrap();
        let target = Target::open(temp.path()).unwrap();
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
    fn a_tree_deeper_than_path_max_is_made_finished_and_cleared() {
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
        assert!(target.holds_data().unwrap());
        fs::create_dir(temp.path().join("lost+found")).unwrap();
        if geteuid().is_root() {
            target.clear().unwrap();
            assert!(!target.holds_data().unwrap());
            assert!(temp.path().join("lost+found").exists());
        }
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
        let target = Target::open(path).unwrap();
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
            let target = Target::open(&path).unwrap();
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
    fn clearing_removes_all_kinds_and_follows_no_symlink() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("keep"), "").unwrap();
        let (temp, target) = temp();
        symlink(outside.path(), temp.path().join("link")).unwrap();
        fs::create_dir_all(temp.path().join("a/b/c")).unwrap();
        fs::create_dir_all(temp.path().join("a/lost+found")).unwrap();
        fs::write(temp.path().join("a/b/f"), "").unwrap();
        fs::create_dir(temp.path().join("z")).unwrap();
        target.clear().unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        assert!(outside.path().join("keep").exists());
    }
}
