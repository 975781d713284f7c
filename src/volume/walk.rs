//! A cursor over folders, depth first, to any depth with few of them open.

use std::sync::Arc;

use crate::volume::dir::Dir;
use crate::volume::error::VolumeError;
use crate::volume::place::Place;
use crate::volume::remove::open_to_change;

/// The folders from the root to where a walk is. Of these at most `max_open` are held open here; an `Arc` that was handed out keeps its own.
///
/// The way back up goes through `..` if that is still the folder that the walk came from, else from the nearest open ancestor down by names.
#[derive(Debug)]
pub struct DirStack {
    levels: Vec<Level>,
    max_open: usize,
}

#[derive(Debug)]
struct Level {
    place: Arc<Place>,
    device: u64,
    inode: u64,
    dir: Option<Arc<Dir>>,
}

impl Level {
    fn new(dir: Arc<Dir>) -> Self {
        Level { place: dir.place().clone(), device: dir.stat().device, inode: dir.stat().inode, dir: Some(dir) }
    }
}

impl DirStack {
    /// A stack that stands at the root, which stays open always; `max_open` (at least 2 are held) counts it.
    pub fn new(root: Arc<Dir>, max_open: usize) -> Self {
        DirStack { levels: vec![Level::new(root)], max_open: max_open.max(2) }
    }

    /// The folder where the walk is. `None` only after a [`DirStack::leave`] that failed.
    pub fn current(&self) -> Option<&Arc<Dir>> {
        self.levels.last().and_then(|level| level.dir.as_ref())
    }

    /// Levels below the root.
    pub fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// The path below the root, in bytes; empty at the root.
    pub fn path(&self) -> Vec<u8> {
        self.levels.last().map(|level| level.place.path_of(b"")).unwrap_or_default()
    }

    /// Opens a folder of the current one and goes there. On an error the walk stays where it is.
    pub fn enter(&mut self, name: &[u8]) -> Result<Arc<Dir>, VolumeError> {
        let dir = self.reopened(self.levels.len() - 1)?.open_child(name)?;
        Ok(self.push(dir))
    }

    /// As [`DirStack::enter`], to change what is in the folder: see [`open_to_change`].
    pub fn enter_to_change(&mut self, name: &[u8]) -> Result<Arc<Dir>, VolumeError> {
        let dir = open_to_change(&*self.reopened(self.levels.len() - 1)?, name)?;
        Ok(self.push(dir))
    }

    fn push(&mut self, dir: Dir) -> Arc<Dir> {
        let dir = Arc::new(dir);
        self.levels.push(Level::new(dir.clone()));
        if let Some(index) = self.levels.len().checked_sub(self.max_open).filter(|index| *index > 0) {
            self.levels[index].dir = None;
        }
        dir
    }

    /// Goes back to the parent and gives it; at the root it stays there and gives the root.
    ///
    /// [`VolumeError::Moved`] if the parent is not there any more: the walk has gone up nevertheless, and can go on up.
    pub fn leave(&mut self) -> Result<Arc<Dir>, VolumeError> {
        if self.levels.len() > 1 {
            let left = self.levels.pop().and_then(|level| level.dir);
            let is_root = self.levels.len() == 1;
            if let (Some(left), Some(parent)) = (left, self.levels.last_mut())
                && parent.dir.is_none()
            {
                parent.dir = left.open_parent(&parent.place, parent.device, parent.inode, is_root)?.map(Arc::new);
            }
        }
        self.reopened(self.levels.len() - 1)
    }

    /// The folder at `index`, opened again from the nearest open ancestor if it was closed.
    fn reopened(&mut self, index: usize) -> Result<Arc<Dir>, VolumeError> {
        let open = (0..=index).rev().find_map(|at| self.levels[at].dir.clone().map(|dir| (at, dir)));
        let (from, mut dir) = open.expect("the root is never closed");
        for level in &self.levels[from + 1..=index] {
            let moved = || VolumeError::Moved { path: level.place.text_of(b"") };
            let child = match dir.open_child(level.place.name()) {
                Ok(child) => child,
                Err(error) if error.is_vanished() => return Err(moved()),
                Err(error) => return Err(error),
            };
            if child.stat().device != level.device || child.stat().inode != level.inode {
                return Err(moved());
            }
            dir = Arc::new(child);
        }
        self.levels[index].dir = Some(dir.clone());
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, mkdirat};

    use super::*;

    fn root(path: &std::path::Path) -> Arc<Dir> {
        Arc::new(Dir::open_root(path).unwrap())
    }

    #[test]
    fn a_tree_deeper_than_path_max_is_walked_down_and_up_with_three_folders_open() {
        const DEPTH: usize = 3000;
        crate::volume::raise_open_files(); // the temporary directory's removal holds one per level
        let temp = tempfile::tempdir().unwrap();
        let mut stack = DirStack::new(root(temp.path()), 3);
        for _ in 0..DEPTH {
            mkdirat(&**stack.current().unwrap(), "dd", Mode::RWXU).unwrap();
            stack.enter(b"dd").unwrap();
        }
        assert_eq!(stack.depth(), DEPTH);
        assert_eq!(stack.path().len(), DEPTH * 3 - 1);
        assert!(stack.levels.iter().filter(|level| level.dir.is_some()).count() <= 3);
        for depth in (0..DEPTH).rev() {
            let dir = stack.leave().unwrap();
            assert_eq!(dir.names().unwrap().len(), 1, "{depth}");
            assert_eq!(stack.depth(), depth);
        }
        assert_eq!(stack.leave().unwrap().path_of(b""), b"");
    }

    #[test]
    fn a_folder_moved_away_under_the_walk_is_told_and_the_walk_goes_on_above_it() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b/c/d")).unwrap();
        std::fs::create_dir(temp.path().join("other")).unwrap();
        let mut stack = DirStack::new(root(temp.path()), 2);
        for name in ["a", "b", "c", "d"] {
            stack.enter(name.as_bytes()).unwrap();
        }
        std::fs::rename(temp.path().join("a/b/c/d"), temp.path().join("other/d")).unwrap();
        assert!(stack.leave().is_ok(), "c is still open");
        std::fs::rename(temp.path().join("a/b/c"), temp.path().join("other/c")).unwrap();
        assert!(stack.leave().is_ok(), "b is reached by name");
        std::fs::rename(temp.path().join("a"), temp.path().join("gone")).unwrap();
        let error = stack.enter(b"c").unwrap_err();
        assert!(error.is_vanished());
        let mut stack = DirStack::new(root(temp.path()), 2);
        stack.enter(b"gone").unwrap();
        stack.enter(b"b").unwrap();
        std::fs::rename(temp.path().join("gone/b"), temp.path().join("other/b")).unwrap();
        std::fs::remove_dir(temp.path().join("gone")).unwrap();
        let error = stack.leave().unwrap_err();
        assert!(matches!(error, VolumeError::Moved { .. }), "{error}");
        assert_eq!(stack.leave().unwrap().path_of(b""), b"");
    }

    #[test]
    fn a_symlink_is_never_entered() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", temp.path().join("link")).unwrap();
        let mut stack = DirStack::new(root(temp.path()), 8);
        assert!(matches!(stack.enter(b"link").unwrap_err(), VolumeError::KindChanged { .. }));
        for name in [&b".."[..], b".", b"", b"a/b", b"link/", b"a\0b", &[b'x'; 256]] {
            assert!(matches!(stack.enter(name).unwrap_err(), VolumeError::Name { .. }), "{name:?}");
        }
        assert_eq!(stack.depth(), 0);
    }
}
