//! What can go wrong with a volume's files, and whether it is the file's fault or the volume's.

use std::io;

use rustix::io::Errno;

/// One operation on one path failed. The path is whole, from the volume's root as the user gave it, escaped for a terminal.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("cannot {operation} `{path}`")]
    Io { operation: &'static str, path: String, source: io::Error },
    /// Between listing and opening, another kind of file took the name.
    #[error("`{path}` is no longer {expected}")]
    KindChanged { path: String, expected: &'static str },
    /// A folder on the way was exchanged while the walk was below it.
    #[error("folder `{path}` was moved or replaced while it was walked")]
    Moved { path: String },
    /// The root's path leads to another folder than the one that was chosen.
    #[error("`{path}` is not the folder any more that was chosen: it was moved or replaced meanwhile")]
    Exchanged { path: String },
    /// Another filler has the volume.
    #[error("`{path}` is being filled by another mover")]
    Held { path: String },
    /// Something is mounted inside of the volume, which a fill must not touch.
    #[error("`{path}`, inside of the volume, is a mount point")]
    MountPoint { path: String },
    #[error("`{path}` has a flag (immutable or append-only) that forbids to change it")]
    Fixed { path: String },
    #[error("`{name}` is not a name that a folder can hold an entry by")]
    Name { name: String },
    #[error("`{path}` has an extended attribute whose name is not UTF-8")]
    XattrName { path: String },
}

impl VolumeError {
    pub(super) fn new(operation: &'static str, path: String, errno: Errno) -> Self {
        VolumeError::Io { operation, path, source: errno.into() }
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            VolumeError::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }

    /// The entry was there when it was listed and is not there now, or something else is: as if the walk had come later.
    pub fn is_vanished(&self) -> bool {
        match self {
            VolumeError::KindChanged { .. } | VolumeError::Moved { .. } => true,
            _ => matches!(self.errno(), Some(Errno::NOENT | Errno::STALE)),
        }
    }

    /// The name is taken already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// There is no room, for bytes, inodes or by quota: going on with other files makes no sense.
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// The volume cannot be written at all.
    pub fn is_read_only(&self) -> bool {
        self.errno() == Some(Errno::ROFS)
    }

    /// The user may not do that.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::PERM | Errno::ACCESS))
    }

    /// Why, without the path, for a list that names the path already.
    pub fn reason(&self) -> String {
        match self {
            VolumeError::Io { operation, source, .. } => {
                let operation = operation.strip_suffix(" of").or_else(|| operation.strip_suffix(" in")).unwrap_or(operation);
                format!("cannot {operation}: {source}")
            }
            VolumeError::KindChanged { expected, .. } => format!("no longer {expected}"),
            VolumeError::Moved { .. } => "moved or replaced while it was walked".to_owned(),
            VolumeError::Exchanged { .. } => "not the folder any more that was chosen".to_owned(),
            VolumeError::Held { .. } => "being filled by another mover".to_owned(),
            VolumeError::MountPoint { .. } => "a mount point inside of the volume".to_owned(),
            VolumeError::Fixed { .. } => "a flag (immutable or append-only) forbids to change it".to_owned(),
            VolumeError::Name { .. } => "not a name that a folder can hold an entry by".to_owned(),
            VolumeError::XattrName { .. } => "it has an extended attribute whose name is not UTF-8".to_owned(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            VolumeError::Exchanged { .. } => return Some("find out who moves folders there, and run it again".to_owned()),
            VolumeError::Held { .. } => return Some("wait until it has ended, or end it, then try again".to_owned()),
            VolumeError::Name { .. } => return Some("Linux has no such names: restore the rest by `--path`".to_owned()),
            VolumeError::MountPoint { .. } => return Some("unmount it, or restore into another volume".to_owned()),
            VolumeError::Fixed { .. } => return Some("take the flag away with `chattr -i -a`".to_owned()),
            _ => {}
        }
        let text = match self.errno()? {
            Errno::PERM if matches!(self, VolumeError::Io { operation: "create device", .. }) => "devices need root's right CAP_MKNOD",
            Errno::PERM | Errno::ACCESS if matches!(self, VolumeError::Io { operation: "open device", .. }) => {
                "give the set's pods the device's group (`supplementalGroups`), which movers take over; or run movers as root: `--mover-root`"
            }
            Errno::NOSPC => "make room on the volume (bytes or inodes), or use a larger one",
            Errno::DQUOT => "raise the quota of the volume or its owner",
            Errno::ROFS => "mount the volume for writing",
            Errno::PERM | Errno::ACCESS => "run as root, or as the user who owns the files",
            Errno::MFILE => "raise the limit of open files (ulimit -n)",
            Errno::IO => "the device reports damage: see the kernel's log",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
