//! Looks once more at a folder that may have changed since it was listed.

use rustix::fs::{AtFlags, StatxFlags, fstat, statx};

use crate::model::entry::Time;
use crate::volume::dir::{Dir, check_name};
use crate::volume::error::VolumeError;
use crate::volume::stat::Stat;

/// An inode and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub inode: u64,
    /// `None` where the file system does not keep it.
    pub born: Option<Time>,
}

impl Dir {
    /// The folder's own record now; [`Dir::stat`] is that of when it was opened.
    pub fn restat(&self) -> Result<Stat, VolumeError> {
        fstat(self).map(Stat::from).map_err(|errno| self.error("look at", b"", errno))
    }

    /// The names in the folder that lead to this inode now, as far as a listing tells.
    pub fn names_of(&self, inode: u64) -> Result<Vec<Vec<u8>>, VolumeError> {
        Ok(self.names()?.with_inode(inode).map(<[u8]>::to_vec).collect())
    }

    /// Where what has this name comes from; of the folder itself if `name` is empty.
    pub fn origin_of(&self, name: &[u8]) -> Result<Origin, VolumeError> {
        if !name.is_empty() {
            check_name(name)?;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let found = statx(self, name, flags, StatxFlags::INO | StatxFlags::BTIME).map_err(|errno| self.error("look at", name, errno))?;
        let knows = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Origin { inode: found.stx_ino, born: knows.then_some(Time { secs: found.stx_btime.tv_sec, nanos: found.stx_btime.tv_nsec }) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_renamed_file_is_found_by_its_inode_and_its_birth_stays() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        fs::write(temp.path().join("a"), "text").unwrap();
        let before = dir.origin_of(b"a").unwrap();
        assert_eq!(dir.names_of(before.inode).unwrap(), [b"a"]);
        fs::rename(temp.path().join("a"), temp.path().join("b")).unwrap();
        fs::hard_link(temp.path().join("b"), temp.path().join("c")).unwrap();
        assert_eq!(dir.names_of(before.inode).unwrap(), [b"b", b"c"]);
        assert_eq!(dir.origin_of(b"b").unwrap(), before);
        assert!(dir.origin_of(b"a").unwrap_err().is_vanished());
        assert_eq!(dir.origin_of(b"").unwrap().inode, dir.stat().inode);
        assert_ne!(dir.restat().unwrap(), *dir.stat());
    }
}
