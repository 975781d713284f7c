//! Makes what is not there yet: files, links and special files, each under a name that must be free.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mknodat, openat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::model::entry::{Attrs, Kind};
use crate::model::mover_job::Problem;
use crate::volume::dir::{Dir, check_name};
use crate::volume::error::VolumeError;
use crate::volume::finish::Origin;
use crate::volume::folders::DirId;
use crate::volume::output::TargetFile;
use crate::volume::target::Target;

impl Target {
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
        made.map_err(|errno| dir.change_error(operation, name, errno))?;
        self.finisher.unopened(&dir, name, matches!(kind, Kind::Symlink { .. }), attrs, Origin::Made)
    }

    /// Makes one more name for an entry that is there already.
    pub fn make_link(&self, existing: (DirId, &[u8]), parent: DirId, name: &[u8]) -> Result<(), VolumeError> {
        check_name(existing.1)?;
        check_name(name)?;
        let (from, to) = (self.dir(existing.0)?, self.dir(parent)?);
        linkat(&*from, existing.1, &*to, name, AtFlags::empty()).map_err(|errno| to.change_error("create hard link", name, errno))
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
        file.write_whole(attrs.size, attrs.allocated, parts)?;
        self.finisher.file(&file, attrs, Origin::Made)
    }

    /// Makes an empty regular file (`0600`) of `size` bytes that are all hole, to be written in any order and then finished.
    pub fn create_file(&self, parent: DirId, name: &[u8], size: u64) -> Result<TargetFile, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        let file = TargetFile::new(self.create(&dir, name, 0o600)?, &dir, name);
        file.set_len(size)?;
        Ok(file)
    }

    pub(super) fn create(&self, dir: &Dir, name: &[u8], mode: u32) -> Result<OwnedFd, VolumeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Mode::from_raw_mode(mode)).map_err(|errno| dir.change_error("create file", name, errno))
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
        self.finisher.file(file, attrs, Origin::Made)
    }

    /// Takes a file away that this run has made and cannot finish.
    pub fn discard_file(&self, parent: DirId, name: &[u8]) -> Result<(), VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        unlinkat(&*dir, name, AtFlags::empty()).map_err(|errno| dir.change_error("remove", name, errno))
    }
}
