//! What the kernel says about an inode in one call.

use crate::model::entry::{Attrs, Kind, Time, Xattr};

/// The kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
    /// A kind that Linux does not have today.
    Unknown,
}

impl From<rustix::fs::FileType> for FileKind {
    fn from(kind: rustix::fs::FileType) -> Self {
        use rustix::fs::FileType;
        match kind {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Dir,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Unknown => FileKind::Unknown,
        }
    }
}

impl From<&Kind> for FileKind {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::File { .. } => FileKind::File,
            Kind::Dir { .. } => FileKind::Dir,
            Kind::Symlink { .. } => FileKind::Symlink,
            Kind::Fifo => FileKind::Fifo,
            Kind::Socket => FileKind::Socket,
            Kind::CharDevice { .. } => FileKind::CharDevice,
            Kind::BlockDevice { .. } => FileKind::BlockDevice,
        }
    }
}

/// An inode's record, without extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: FileKind,
    /// `0o7777`: permission, set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    pub inode: u64,
    /// The file system's number, as the kernel encodes it.
    pub device: u64,
    /// For devices: which one.
    pub rdev: u64,
    /// Bytes; for symlinks the target's length.
    pub size: u64,
    /// Units of 512 bytes that are allocated.
    pub blocks: u64,
    pub mtime: Time,
    pub atime: Time,
    pub ctime: Time,
}

impl Stat {
    /// The attributes of an entry, with the extended ones that were read apart.
    pub fn attrs(&self, xattrs: Vec<Xattr>) -> Attrs {
        Attrs {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            inode: self.inode,
            device: self.device,
            links: self.links,
            size: if self.kind == FileKind::File { self.size } else { 0 },
            allocated: false,
            xattrs,
        }
    }

    /// The same inode of the same file system.
    pub fn is_same_inode(&self, other: &Stat) -> bool {
        self.inode == other.inode && self.device == other.device
    }

    /// Size, mtime or ctime differ: bytes may have changed in between.
    pub fn differs_in_content(&self, other: &Stat) -> bool {
        self.size != other.size || self.mtime != other.mtime || self.ctime != other.ctime
    }

    /// Fewer blocks than bytes: there are holes, or the file system compresses.
    pub fn may_have_holes(&self) -> bool {
        self.kind == FileKind::File && self.blocks.saturating_mul(512) < self.size
    }
}

impl From<rustix::fs::Stat> for Stat {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_lossless,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "the kernel's field types differ by architecture; sizes and block counts are never negative, nanoseconds fit in 32 bits"
    )]
    fn from(raw: rustix::fs::Stat) -> Self {
        Stat {
            kind: rustix::fs::FileType::from_raw_mode(raw.st_mode).into(),
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            links: raw.st_nlink as u64,
            inode: raw.st_ino as u64,
            device: raw.st_dev as u64,
            rdev: raw.st_rdev as u64,
            size: raw.st_size as u64,
            blocks: raw.st_blocks as u64,
            mtime: Time { secs: raw.st_mtime as i64, nanos: raw.st_mtime_nsec as u32 },
            atime: Time { secs: raw.st_atime as i64, nanos: raw.st_atime_nsec as u32 },
            ctime: Time { secs: raw.st_ctime as i64, nanos: raw.st_ctime_nsec as u32 },
        }
    }
}
