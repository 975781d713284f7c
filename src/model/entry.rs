//! One entry of a volume's tree: what a file is, apart from where its bytes are.

use serde::{Deserialize, Serialize};

use crate::model::content::Content;
use crate::model::id::Id;

/// A name in a directory with everything that a restore must bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as the kernel has it: any bytes but `/` and NUL, 1 to 255 of them.
    pub name: Vec<u8>,
    pub kind: Kind,
    pub attrs: Attrs,
}

/// What kind of file it is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: its bytes are its chunks' bytes, in order.
    File {
        content: Content,
    },
    /// A folder. `None` only while its tree is not known yet.
    Dir {
        subtree: Option<Id>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    /// `rdev` as the kernel encodes it.
    CharDevice {
        rdev: u64,
    },
    BlockDevice {
        rdev: u64,
    },
}

/// The attributes that every kind has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attrs {
    /// Permission, set-id and sticky bits (`0o7777`); the file type is in [`Kind`].
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub atime: Time,
    pub ctime: Time,
    pub inode: u64,
    /// The file system's device number, to tell hard links apart.
    pub device: u64,
    /// Hard links to this inode, as counted when it was read.
    pub links: u64,
    /// Bytes in a regular file; 0 for every other kind.
    pub size: u64,
    /// A regular file that has room on the disk for all of its bytes, though a restore would leave some of them as holes: its zeros were
    /// written, or room was allocated for what is to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allocated: bool,
    /// Sorted by name. POSIX ACLs are among them (`system.posix_acl_access`, `system.posix_acl_default`).
    pub xattrs: Vec<Xattr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xattr {
    pub name: String,
    pub value: Vec<u8>,
}

/// A moment as the kernel has it: seconds since 1970 (may be negative) and nanoseconds after them, below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}
