//! What is directly in a set's folder, whatever its owner does with names meanwhile?
//!
//! The path of the set's folder is the user's own and may lead through links. It is resolved once; everything below it is reached
//! through the open folder, one name at a time, and a link is never followed. A name is a single component, so that `O_NOFOLLOW`
//! is as strict as `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, and works where a sandbox forbids that call.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fstat, linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::model::mover_job::FolderId;

/// The folder that a file system's check fills; an empty one is no data.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A set's folder, open.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    path: PathBuf,
}

/// What a name in the set's folder stands for.
pub(super) enum Found {
    Absent,
    Folder(Folder),
    Link,
    Other,
}

/// A claim's folder, open: it stays this folder whatever its name leads to later.
#[derive(Debug)]
pub(super) struct Folder {
    /// Opened without the right to read, which the user may not have.
    handle: OwnedFd,
    pub id: FolderId,
}

fn id_of(stat: &Stat) -> FolderId {
    FolderId { device: stat.st_dev, inode: stat.st_ino }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Names and kinds in an open folder, without `.` and `..`.
fn entries(folder: BorrowedFd<'_>) -> io::Result<Vec<(OsString, FileType)>> {
    // A descriptor of its own: reading moves the position that duplicates share.
    let listed = openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::new(listed)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => kind_of(&stat),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            },
            kind => kind,
        };
        found.push((OsString::from_vec(name.to_vec()), kind));
    }
    Ok(found)
}

fn open_folder(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

impl Root {
    /// Opens the folder that `path` leads to, links included.
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let path = fs::canonicalize(path)?;
        let folder = openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root { folder, path })
    }

    /// Where the folder was when it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the folder has been removed since it was opened.
    pub(super) fn is_gone(&self) -> bool {
        fstat(&self.folder).is_ok_and(|stat| stat.st_nlink == 0)
    }

    pub(super) fn id(&self) -> io::Result<FolderId> {
        Ok(id_of(&fstat(&self.folder)?))
    }

    /// Names and kinds of everything in the folder.
    pub(super) fn entries(&self) -> io::Result<Vec<(OsString, FileType)>> {
        entries(self.folder.as_fd())
    }

    /// What stands under a claim's name.
    pub(super) fn find(&self, name: &str) -> io::Result<Found> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(error) => return Err(error.into()),
        };
        let stat = fstat(&handle)?;
        Ok(match kind_of(&stat) {
            FileType::Directory => Found::Folder(Folder { handle, id: id_of(&stat) }),
            FileType::Symlink => Found::Link,
            _ => Found::Other,
        })
    }

    /// Makes a folder that nobody else may look into, unless there is something of that name.
    pub(super) fn make_folder(&self, name: &str) -> io::Result<()> {
        match mkdirat(&self.folder, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The text of a regular file of at most `longest` bytes; `None` where there is nothing of that name.
    pub(super) fn read_file(&self, name: &str, longest: u64) -> io::Result<Option<String>> {
        match self.open_file(name, OFlags::RDONLY)? {
            Some(mut file) => text(&mut file, longest).map(Some),
            None => Ok(None),
        }
    }

    /// Opens a regular file of keepset's own. A link, a pipe or anything else under its name is an error of the kind `InvalidInput`.
    pub(super) fn open_file(&self, name: &str, access: OFlags) -> io::Result<Option<File>> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let foreign = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NODEV) => return Err(foreign()),
            Err(error) => return Err(error.into()),
        };
        if kind_of(&fstat(&file)?) == FileType::RegularFile { Ok(Some(file.into())) } else { Err(foreign()) }
    }

    /// Whether the open file still stands under this name.
    pub(super) fn is_still(&self, name: &str, file: &File) -> io::Result<bool> {
        match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(id_of(&stat) == id_of(&fstat(file)?)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A new file under a name that begins with `prefix` and that nobody can guess.
    pub(super) fn make_file(&self, prefix: &str) -> io::Result<(File, String)> {
        let mut random = [0; 8];
        crate::random::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!("{prefix}{}~", HEXLOWER.encode(&random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.folder, name.as_str(), flags, Mode::from_raw_mode(0o644))?;
        Ok((file.into(), name))
    }

    /// Writes a file beside and puts it in its place, on disk, in one step: no reader ever sees a part of it, and what stood under the
    /// name is neither opened nor followed. An error of the kind `AlreadyExists` where something stands there and `replaces` is false.
    pub(super) fn put(&self, name: &str, text: &str, replaces: bool) -> io::Result<()> {
        let (mut file, beside) = self.make_file(name)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| if replaces { self.rename(&beside, name) } else { self.rename_new(&beside, name) });
        if placed.is_err() {
            // The error that matters is the one above.
            let _ = self.remove_file(&beside);
        }
        placed
    }

    /// Opens a folder in this one, to lock and to empty it.
    pub(super) fn open_folder(&self, name: &str) -> io::Result<File> {
        Ok(open_folder(self.folder.as_fd(), name.as_bytes())?.into())
    }

    /// Removes what killed processes left under names of [`Root::make_file`]; `is_ours` tells by the prefix which ones are meant. None that
    /// is being written may be among them.
    pub(super) fn remove_leftovers(&self, is_ours: impl Fn(&str) -> bool) -> io::Result<()> {
        for (name, kind) in self.entries()? {
            let prefix = name.to_str().and_then(prefix_of_made);
            if kind == FileType::RegularFile && prefix.is_some_and(&is_ours) {
                self.remove_file(&name.to_string_lossy())?;
            }
        }
        Ok(())
    }

    /// Gives a file another name, in place of what had it.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.folder, from, &self.folder, to)?)
    }

    /// Gives a file a name that must be free.
    pub(super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat_with(&self.folder, from, &self.folder, to, RenameFlags::NOREPLACE) {
            // File systems of networks and of other systems do not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                linkat(&self.folder, from, &self.folder, to, AtFlags::empty())?;
                self.remove_file(from)
            }
            done => Ok(done?),
        }
    }

    pub(super) fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    /// Removes an empty folder.
    pub(super) fn remove_folder(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.folder, name, AtFlags::REMOVEDIR)?)
    }

    /// Waits until the names in the folder are on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Folder {
    /// Whether nothing is in the folder, an empty `lost+found` folder aside.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        for (name, kind) in entries(self.handle.as_fd())? {
            let may_be_there = name.as_bytes() == LOST_AND_FOUND && kind == FileType::Directory;
            let is_bare = || {
                let inside = open_folder(self.handle.as_fd(), LOST_AND_FOUND)?;
                Ok::<bool, io::Error>(entries(inside.as_fd())?.is_empty())
            };
            if !may_be_there || !is_bare().unwrap_or(false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The folder opened for reading, to lock it.
    pub(super) fn to_lock(&self) -> io::Result<File> {
        Ok(open_folder(self.handle.as_fd(), b".")?.into())
    }

    /// Bytes that the files in the folder take on its file system.
    pub(super) fn used(&self) -> io::Result<u64> {
        let mut bytes = 0u64;
        // Paths instead of open folders: a wide tree has more folders than a process may hold open.
        let mut folders = vec![PathBuf::new()];
        while let Some(path) = folders.pop() {
            let folder = match self.open_below(&path) {
                Ok(folder) => folder,
                // Gone, or something else by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.as_os_str().is_empty() => continue,
                Err(error) => return Err(error.into()),
            };
            for (name, kind) in entries(folder.as_fd())? {
                if kind == FileType::Directory {
                    folders.push(path.join(name));
                } else if let Ok(stat) = statat(&folder, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
                    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                    // A file with several names is counted in parts.
                    bytes = bytes.saturating_add(blocks.saturating_mul(512) / stat.st_nlink.max(1));
                }
            }
        }
        Ok(bytes)
    }

    /// Opens a folder some levels down, level by level, through no link.
    fn open_below(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let mut folder = open_folder(self.handle.as_fd(), b".")?;
        for name in path {
            folder = open_folder(folder.as_fd(), name.as_bytes())?;
        }
        Ok(folder)
    }

    /// Removes everything in the folder. Its own `lost+found` stays, empty.
    pub(super) fn clear(&self) -> io::Result<()> {
        for (name, kind) in entries(self.handle.as_fd())? {
            if kind == FileType::Directory && name.as_bytes() == LOST_AND_FOUND {
                let inside = open_folder(self.handle.as_fd(), LOST_AND_FOUND)?;
                for (name, kind) in entries(inside.as_fd())? {
                    remove_in(inside.as_fd(), &name, kind)?;
                }
            } else {
                remove_in(self.handle.as_fd(), &name, kind)?;
            }
        }
        Ok(())
    }
}

/// The folders right in an open folder, open, without those that cannot be opened.
pub(super) fn folders_in(folder: BorrowedFd<'_>) -> io::Result<Vec<(OsString, File)>> {
    let folders = entries(folder)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(folders.filter_map(|(name, _)| Some((name.clone(), open_folder(folder, name.as_bytes()).ok()?.into()))).collect())
}

/// Removes everything in an open folder, whatever its name leads to by now. With `opens_up` folders that keep their owner from emptying
/// them are opened first: they come back with the modes that they had.
pub(super) fn empty(folder: BorrowedFd<'_>, opens_up: bool) -> io::Result<()> {
    for (name, kind) in entries(folder)? {
        match remove_in(folder, &name, kind) {
            Err(error) if opens_up && error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(folder, &name)?;
                remove_in(folder, &name, kind)?;
            }
            done => done?,
        }
    }
    Ok(())
}

/// Gives the owner the right to empty a folder and all folders below it. Follows no link.
fn open_up(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut waiting = vec![PathBuf::from(name)];
    while let Some(path) = waiting.pop() {
        let mut parent = openat(at, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for step in path.parent().into_iter().flat_map(Path::iter) {
            parent = openat(&parent, step, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        }
        let Some(name) = path.file_name() else { continue };
        // By a descriptor that only names the folder, which needs no right to read it.
        let named = openat(&parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let own = format!("/proc/self/fd/{}", named.as_raw_fd());
        rustix::fs::chmodat(CWD, own, Mode::RWXU, AtFlags::empty())?;
        for (inside, kind) in entries(named.as_fd())? {
            if kind == FileType::Directory {
                waiting.push(path.join(inside));
            }
        }
    }
    Ok(())
}

/// The prefix of a name that [`Root::make_file`] gave.
fn prefix_of_made(name: &str) -> Option<&str> {
    let (prefix, digits) = name.strip_suffix('~').and_then(|name| name.split_at_checked(name.len().checked_sub(16)?))?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(prefix)
}

/// Removes an entry of an open folder and all below it.
fn remove_in(folder: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> io::Result<()> {
    if kind == FileType::Directory {
        // The standard library goes down by descriptors and follows no link; this path leads to the open folder whatever its name is.
        fs::remove_dir_all(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
    } else {
        Ok(unlinkat(folder, name, AtFlags::empty())?)
    }
}

/// The text of an open file of at most `longest` bytes.
pub(super) fn text(file: &mut File, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    if file.take(longest + 1).read_to_string(&mut text)? as u64 > longest {
        return Err(io::Error::other("it is too long to be one of keepset's files"));
    }
    Ok(text)
}
