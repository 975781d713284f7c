//! Everything that touches a volume's files: reading them all, and bringing them back. Linux only.
//!
//! Nothing below a volume's root is ever reached by a path: every step is relative to an open folder and refuses to follow a symlink, so
//! that no name, however long, deep or hostile, leads out of the root.
//!
//! - reading: [`Dir`] lists and opens, [`DirStack`] walks to any depth, [`OpenFile`] gives bytes, holes and attributes
//! - writing: [`Target`] makes folders, files and special files, [`TargetFile`] takes bytes in any order, attributes come last
//! - replacing: an [`Old`] gives out the names that were there before, each an [`OldName`] that may be kept, replaced or taken away
//! - a volume without a file system is a [`Device`]: bytes in place
//! - a folder on another file system is a mount point and not part of the volume ([`Dir::is_mount_point`])

mod again;
mod device;
mod dir;
mod error;
mod file;
mod finish;
mod folders;
mod handles;
mod limits;
mod make;
mod old;
mod output;
mod place;
mod remove;
mod stat;
mod target;
#[cfg(test)]
mod tests;
mod times;
mod walk;
mod xattr;

pub use again::Origin;
pub use device::{Device, is_device};
pub use dir::{Dir, Names, RawEntry};
pub use error::VolumeError;
pub use file::OpenFile;
pub use folders::DirId;
pub use handles::Handles;
pub use limits::raise_open_files;
pub use old::{Old, OldName, is_leftover};
pub use output::{TargetFile, leaves_holes, may_have_holes};
pub use place::Place;
pub use remove::{open_to_change, remove, remove_emptied};
pub use stat::{FileKind, Stat};
pub use target::{Room, Target};
pub use times::{Times, dirty_seconds};
pub use walk::DirStack;
