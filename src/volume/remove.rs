//! Takes away what was there before: any entry, a folder with everything below it.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::volume::dir::{Dir, check_name};
use crate::volume::error::VolumeError;
use crate::volume::stat::{FileKind, Stat};
use crate::volume::walk::DirStack;

/// Folders held open on the way down.
const OPEN: usize = 64;

/// Opens a folder below a volume's root to change what is in it. As its owner, but not root, gives himself the right to first.
///
/// [`VolumeError::MountPoint`] if something is mounted there.
pub fn open_to_change(parent: &Dir, name: &[u8]) -> Result<Dir, VolumeError> {
    let stat = parent.stat_of(name)?;
    make_accessible(parent, name, &stat);
    let dir = parent.open_child(name)?;
    if parent.is_mounted_on(&dir) {
        return Err(VolumeError::MountPoint { path: parent.text_of(name) });
    }
    Ok(dir)
}

/// Where that fails, what is tried next fails too and says why.
fn make_accessible(parent: &Dir, name: &[u8], stat: &Stat) {
    if stat.kind != FileKind::Dir || stat.mode & 0o700 == 0o700 || geteuid().is_root() {
        return;
    }
    // Through a descriptor that only names the entry, so that no symlink is followed.
    if let Ok(fd) = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        let _ = chmodat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(stat.mode | 0o700), AtFlags::empty());
    }
}

/// Removes `name` from `dir`, a folder with everything below it, to any depth. Stops at a mount point with an error. What is gone
/// already is no error.
///
/// The caller has made sure that nothing of it is needed.
pub fn remove(dir: &Arc<Dir>, name: &[u8]) -> Result<(), VolumeError> {
    check_name(name)?;
    let mut stack = DirStack::new(dir.clone(), OPEN);
    let mut todo = match step(&mut stack, name)? {
        Some(names) => vec![(name.to_vec(), names, 0)],
        None => return Ok(()),
    };
    while let Some((folder, names, next)) = todo.last_mut() {
        if let Some((name, _)) = names.get(*next) {
            *next += 1;
            let name = name.to_vec();
            if let Some(names) = step(&mut stack, &name)? {
                todo.push((name, names, 0));
            }
            continue;
        }
        let parent = stack.leave()?;
        unlinkat(&*parent, folder.as_slice(), AtFlags::REMOVEDIR).map_err(|errno| parent.change_error("remove folder", folder, errno))?;
        todo.pop();
    }
    Ok(())
}

/// Removes the folder `name` of `dir` if nothing is in it; else, or if something is mounted there, it stays, which is an error where it `must` go.
pub fn remove_emptied(dir: &Dir, name: &[u8], must: bool) -> Result<(), VolumeError> {
    check_name(name)?;
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) if !must => Ok(()),
        Err(errno) => Err(dir.change_error("remove folder", name, errno)),
    }
}

/// Removes an entry of the current folder that is no folder; enters one that is and gives its names.
fn step(stack: &mut DirStack, name: &[u8]) -> Result<Option<crate::volume::Names>, VolumeError> {
    let dir = stack.current().cloned().expect("a stack stands somewhere until leaving fails");
    match unlinkat(&*dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR | Errno::PERM) if dir.stat_of(name).is_ok_and(|stat| stat.kind == FileKind::Dir) => {}
        Err(errno) => return Err(dir.change_error("remove", name, errno)),
    }
    Ok(Some(stack.enter_to_change(name)?.names()?))
}
