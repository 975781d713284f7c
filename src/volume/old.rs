//! What stood in the volume before it is filled, and what becomes of it: compared, kept, replaced beside its old self, or taken away.

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::model::entry::{Attrs, Kind};
use crate::model::mover_job::Problem;
use crate::volume::dir::Names;
use crate::volume::error::VolumeError;
use crate::volume::file::OpenFile;
use crate::volume::finish::Origin;
use crate::volume::folders::DirId;
use crate::volume::output::TargetFile;
use crate::volume::stat::{FileKind, Stat};
use crate::volume::target::Target;

/// What every name begins with under which a file is made that takes another's place when it is whole. Reserved: what is left of a killed
/// fill is known by it.
const BESIDE: &[u8] = b".keepset-fill-";

/// Whether a name is one that only a fill gives, until it ends.
pub fn is_leftover(name: &[u8]) -> bool {
    name.strip_prefix(BESIDE).is_some_and(|rest| rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit))
}

/// The names that a folder held before anything was made in it, each to be had once.
#[derive(Debug, Default)]
pub struct Old {
    dir: DirId,
    names: Names,
    taken: Vec<bool>,
}

/// A name of a folder that stood there before this run. What it stands for may be replaced; what this run has made never has one.
#[derive(Debug)]
pub struct OldName {
    dir: DirId,
    name: Box<[u8]>,
}

impl Old {
    pub(super) fn new(dir: DirId, names: Names) -> Self {
        let taken = vec![false; names.len()];
        Old { dir, names, taken }
    }

    /// The name, if it was there and has not been taken.
    pub fn take(&mut self, name: &[u8]) -> Option<OldName> {
        let at = self.names.find(name)?;
        (!std::mem::replace(&mut self.taken[at], true)).then(|| OldName { dir: self.dir, name: name.into() })
    }
}

impl OldName {
    pub fn dir(&self) -> DirId {
        self.dir
    }

    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Target {
    /// The record of the entry; a symlink's own.
    pub fn stat_old(&self, old: &OldName) -> Result<Stat, VolumeError> {
        self.dir(old.dir)?.stat_of(&old.name)
    }

    /// Opens a regular file to compare what is in it.
    pub fn open_old(&self, old: &OldName) -> Result<OpenFile, VolumeError> {
        self.dir(old.dir)?.open_file(&old.name)
    }

    /// Whether the entry is this symlink, FIFO, socket or device, attributes aside.
    pub fn is_special(&self, old: &OldName, stat: &Stat, kind: &Kind) -> Result<bool, VolumeError> {
        Ok(match (stat.kind, kind) {
            (FileKind::Symlink, Kind::Symlink { target }) => self.dir(old.dir)?.read_link(&old.name)? == *target,
            (FileKind::Fifo, Kind::Fifo) | (FileKind::Socket, Kind::Socket) => true,
            (FileKind::CharDevice, Kind::CharDevice { rdev }) | (FileKind::BlockDevice, Kind::BlockDevice { rdev }) => stat.rdev == *rdev,
            _ => false,
        })
    }

    /// Whether the entry is another name of what `name` in `dir` is.
    pub fn is_link(&self, dir: DirId, name: &[u8], old: &OldName) -> Result<bool, VolumeError> {
        Ok(self.dir(dir)?.stat_of(name)?.is_same_inode(&self.stat_old(old)?))
    }

    /// Sets the attributes of a symlink, FIFO, socket or device that stays. Gives those that could not be set.
    pub fn finish_special(&self, old: &OldName, kind: &Kind, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        let dir = self.dir(old.dir)?;
        self.finisher.unopened(&dir, &old.name, matches!(kind, Kind::Symlink { .. }), attrs, Origin::Found)
    }

    /// Sets the attributes of a regular file whose bytes stay. Gives those that could not be set.
    pub fn finish_kept(&self, old: &OldName, file: &OpenFile, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        let dir = self.dir(old.dir)?;
        self.finisher.kept(&dir, &old.name, file, attrs)
    }

    /// Takes the entry, which is no folder, away.
    pub fn remove_old(&self, old: &OldName) -> Result<(), VolumeError> {
        let dir = self.dir(old.dir)?;
        unlinkat(&*dir, &*old.name, AtFlags::empty()).map_err(|errno| dir.change_error("remove", &old.name, errno))
    }

    /// Opens a regular file that has no other name, to write some of its bytes anew; from now on only its owner may look into it. It gets
    /// `size` bytes; those that it had not are hole.
    pub fn open_over(&self, old: &OldName, size: u64) -> Result<TargetFile, VolumeError> {
        let dir = self.dir(old.dir)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&*dir, &*old.name, flags, Mode::empty()) {
            Err(Errno::ACCESS) => {
                let mode = Mode::from_raw_mode(0o600);
                let readable = dir.open_file(&old.name)?;
                fchmod(&readable, mode).map_err(|errno| dir.change_error("set the mode of", &old.name, errno))?;
                openat(&*dir, &*old.name, flags, Mode::empty())
            }
            other => other,
        };
        let fd = fd.map_err(|errno| dir.change_error("open", &old.name, errno))?;
        fchmod(&fd, Mode::from_raw_mode(0o600)).map_err(|errno| dir.change_error("set the mode of", &old.name, errno))?;
        let file = TargetFile::new(fd, &dir, &old.name);
        file.set_len(size)?;
        Ok(file)
    }

    /// Sets a file's attributes after its last byte, as [`Target::finish_file`] does, where [`Target::open_over`] had opened it.
    pub fn finish_over(&self, file: &TargetFile, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        self.finisher.file(file, attrs, Origin::Found)
    }

    /// Makes an empty file (`0600`) of `size` bytes of hole beside the old one, whose place it takes with [`Target::put_over`]. Gives its name.
    pub fn create_beside(&self, old: &OldName, size: u64) -> Result<(Box<[u8]>, TargetFile), VolumeError> {
        let dir = self.dir(old.dir)?;
        loop {
            let mut random = [0; 8];
            crate::random::fill(&mut random).map_err(|_| dir.error("make a name beside", &old.name, Errno::IO))?;
            let name: Box<[u8]> = [BESIDE, format!("{:016x}", u64::from_ne_bytes(random)).as_bytes()].concat().into();
            match self.create(&dir, &name, 0o600) {
                Err(error) if error.is_exists() => {}
                made => {
                    let file = TargetFile::new(made?, &dir, &name);
                    file.set_len(size)?;
                    return Ok((name, file));
                }
            }
        }
    }

    /// Lets the file beside the old one take its place, in one step.
    pub fn put_over(&self, old: &OldName, beside: &[u8]) -> Result<(), VolumeError> {
        let dir = self.dir(old.dir)?;
        renameat(&*dir, beside, &*dir, &*old.name).map_err(|errno| dir.change_error("replace", &old.name, errno))
    }

    /// Replaces a file by a small one, `parts` in order being its bytes: beside the old one and then in its place, or after it where there
    /// is no room for both. Gives the attributes that could not be set.
    pub fn replace_file<P: AsRef<[u8]>>(
        &self,
        old: &OldName,
        attrs: &Attrs,
        parts: impl IntoIterator<Item = P> + Clone,
    ) -> Result<Vec<Problem>, VolumeError> {
        let (beside, file) = match self.create_beside(old, 0) {
            Err(error) if error.is_full() => return self.replace_after(old, attrs, parts),
            made => made?,
        };
        match file.write_whole(attrs.size, attrs.allocated, parts.clone()) {
            Err(error) if error.is_full() => {
                drop(file); // its room comes back only then
                self.discard_file(old.dir, &beside)?;
                return self.replace_after(old, attrs, parts);
            }
            written => written?,
        }
        let problems = self.finish_beside(&file, old, attrs)?;
        self.put_over(old, &beside)?;
        Ok(problems)
    }

    fn replace_after<P: AsRef<[u8]>>(
        &self,
        old: &OldName,
        attrs: &Attrs,
        parts: impl IntoIterator<Item = P>,
    ) -> Result<Vec<Problem>, VolumeError> {
        self.remove_old(old)?;
        self.write_file(old.dir, &old.name, attrs, parts)
    }

    /// Sets the attributes of a file beside `old` after its last byte; what cannot be set is told of the old one's name.
    pub fn finish_beside(&self, file: &TargetFile, old: &OldName, attrs: &Attrs) -> Result<Vec<Problem>, VolumeError> {
        let dir = self.dir(old.dir)?;
        self.finisher.beside(file, &dir, &old.name, attrs)
    }
}
