//! Everything that touches a volume's files: reading them all, and bringing them back. Linux only.
//!
//! Nothing below a volume's root is ever reached by a path: every step is relative to an open folder and refuses to follow a symlink, so
//! that no name, however long, deep or hostile, leads out of the root.
//!
//! - reading: [`Dir`] lists and opens, [`DirStack`] walks to any depth, [`OpenFile`] gives bytes, holes and attributes
//! - a folder on another file system is a mount point and not part of the volume ([`Dir::is_mount_point`])

mod dir;
mod error;
mod file;
mod limits;
mod place;
mod stat;
mod walk;
mod xattr;

pub use dir::{Dir, Names, RawEntry};
pub use error::VolumeError;
pub use file::OpenFile;
pub use limits::raise_open_files;
pub use place::Place;
pub use stat::{FileKind, Stat};
pub use walk::DirStack;
