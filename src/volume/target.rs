//! A volume that is being filled: its root, held by one filler at a time, and what is free where it is.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock, fstatvfs, syncfs};
use rustix::io::{Errno, retry_on_intr};

use crate::model::mover_job::FolderId;
use crate::volume::dir::Dir;
use crate::volume::error::VolumeError;
use crate::volume::finish::Finisher;
use crate::volume::folders::{DirId, Folders};
use crate::volume::handles::Handles;
use crate::volume::limits::open_files;
use crate::volume::old::Old;

/// How long a killed filler may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is free where a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user can still write.
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// `None` where the file system makes inodes as it needs them.
    pub free_inodes: Option<u64>,
}

/// The root of a volume to fill, and every folder made or taken over in it so far. Used from many threads at once; no second one on the
/// same folder meanwhile, in whatever process of this machine.
///
/// What is made is made new: a name that is taken is an error, so that what a repository says twice, or a symlink that it put in the way,
/// leads nowhere. Only a name that stood there before can be taken over or replaced, and each once: an [`Old`] gives them out. Folders are
/// `0700` until [`Target::finish_dirs`], those that were there before as they were.
#[derive(Debug)]
pub struct Target {
    pub(super) root: Arc<Dir>,
    pub(super) folders: RwLock<Folders>,
    pub(super) open: Handles<Dir>,
    pub(super) finisher: Finisher,
    root_listed: AtomicBool,
}

impl Target {
    /// Opens the existing folder `path`, which must be `folder` where that is given, as the root to fill with what is all new. Changes
    /// nothing yet.
    ///
    /// Waits up to ten seconds for another filler of the folder to end, then gives [`VolumeError::Held`].
    pub fn open(path: &Path, folder: Option<FolderId>) -> Result<Target, VolumeError> {
        Target::open_within(path, folder, false, PATIENCE)
    }

    /// As [`Target::open`], to replace what is there.
    pub fn open_to_replace(path: &Path, folder: Option<FolderId>) -> Result<Target, VolumeError> {
        Target::open_within(path, folder, true, PATIENCE)
    }

    pub(super) fn open_within(path: &Path, folder: Option<FolderId>, replaces: bool, patience: Duration) -> Result<Target, VolumeError> {
        let root = Arc::new(Dir::open_root_of(path, folder)?);
        hold(&root, patience)?;
        let finisher = Finisher::new(&root.attrs()?, replaces);
        let kept = usize::try_from(open_files() / 8).unwrap_or(usize::MAX).clamp(8, 512);
        Ok(Target { root, folders: RwLock::default(), open: Handles::new(kept), finisher, root_listed: AtomicBool::new(false) })
    }

    /// The root itself.
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// The names in the root, but for an empty `lost+found` folder, before anything is made in it. A second call gives none.
    pub fn old_root(&self) -> Result<Old, VolumeError> {
        let first = !self.root_listed.swap(true, Ordering::Relaxed);
        Ok(if first { Old::new(DirId::ROOT, self.root.names()?) } else { Old::default() })
    }

    /// Whether there is anything in the root that `counts`, but an empty `lost+found` folder.
    pub fn holds_data(&self, counts: impl Fn(&[u8]) -> bool) -> Result<bool, VolumeError> {
        Ok(self.root.names()?.iter().any(|(name, _)| counts(name)))
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

    /// Waits until everything written to the file system of the root is on its device. An error here means that data may be lost.
    pub fn sync(&self) -> Result<(), VolumeError> {
        syncfs(&*self.root).map_err(|errno| self.root.error("write out", b"", errno))
    }
}

/// Takes the lock that a filler has on its root for as long as it is open.
fn hold(root: &Dir, patience: Duration) -> Result<(), VolumeError> {
    let failed = |errno| root.error("lock folder", b"", errno);
    match flock(root, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(()),
        Err(Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(failed(errno)),
    }
    // The kernel waits without a deadline: in a thread of its own, which lets go of a lock that came too late.
    let waiting = root.as_fd().try_clone_to_owned().map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let held = retry_on_intr(|| flock(&waiting, FlockOperation::LockExclusive));
        let _ = tell.send(held); // nobody listens any more where it came too late
    });
    match told.recv_timeout(patience) {
        Ok(held) => held.map_err(failed),
        Err(_) => Err(VolumeError::Held { path: root.text_of(b"") }),
    }
}
