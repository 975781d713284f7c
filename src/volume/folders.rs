//! The folders of a volume that is being filled: made or taken over, found again by number, finished at the end.

use std::sync::{Arc, PoisonError};

use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;

use crate::model::entry::{Attrs, Time, Xattr};
use crate::model::mover_job::Problem;
use crate::volume::dir::{Dir, check_name};
use crate::volume::error::VolumeError;
use crate::volume::finish::Origin;
use crate::volume::old::{Old, OldName};
use crate::volume::remove::open_to_change;
use crate::volume::stat::FileKind;
use crate::volume::target::Target;

/// A folder that [`Target::make_dir`] made or [`Target::adopt_dir`] took over. Ids are given in order from the root's, parents before children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DirId(u32);

impl DirId {
    /// The volume's root.
    pub const ROOT: DirId = DirId(0);
}

#[derive(Debug, Default)]
pub(super) struct Folders {
    names: Vec<u8>,
    /// Without the root: the folder with id `n` is at `n - 1`.
    list: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    parent: DirId,
    depth: u32,
    name_start: usize,
    name_length: u8,
    origin: Origin,
    attrs: FolderAttrs,
}

/// Of [`Attrs`] what a folder's end needs: a million of them must fit in memory.
#[derive(Debug)]
struct FolderAttrs {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    atime: Time,
    xattrs: Box<[Xattr]>,
}

impl Folders {
    fn get(&self, id: DirId) -> Option<&Folder> {
        self.list.get((id.0 as usize).checked_sub(1)?)
    }

    fn name(&self, folder: &Folder) -> &[u8] {
        &self.names[folder.name_start..folder.name_start + usize::from(folder.name_length)]
    }
}

impl Target {
    /// Makes a folder; its attributes are kept for [`Target::finish_dirs`]. The root's `lost+found`, if the file system has made one, is taken as it is.
    pub fn make_dir(&self, parent: DirId, name: &[u8], attrs: &Attrs) -> Result<DirId, VolumeError> {
        check_name(name)?;
        let dir = self.dir(parent)?;
        match mkdirat(&*dir, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if parent == DirId::ROOT && name == b"lost+found" && dir.stat_of(name)?.kind == FileKind::Dir => {}
            Err(errno) => return Err(dir.change_error("create folder", name, errno)),
        }
        self.add_folder(parent, &dir, name, attrs, Origin::Made)
    }

    /// Takes over a folder that was there before and gives it with the names it holds. Its attributes become `attrs`, or again what they are now.
    ///
    /// [`VolumeError::MountPoint`] if another file system, or another part of this one, is mounted there.
    pub fn adopt_dir(&self, old: &OldName, attrs: Option<&Attrs>) -> Result<(DirId, Old), VolumeError> {
        let parent = self.dir(old.dir())?;
        let dir = open_to_change(&parent, old.name())?;
        let names = dir.names()?;
        let own = if attrs.is_none() { Some(dir.attrs()?) } else { None };
        let attrs = attrs.or(own.as_ref()).expect("one of the two");
        let id = self.add_folder(old.dir(), &parent, old.name(), attrs, Origin::Found)?;
        self.open.insert(u64::from(id.0), Arc::new(dir));
        Ok((id, Old::new(id, names)))
    }

    fn add_folder(&self, parent: DirId, dir: &Dir, name: &[u8], attrs: &Attrs, origin: Origin) -> Result<DirId, VolumeError> {
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        let full = || VolumeError::new("count one more folder for", dir.text_of(name), Errno::OVERFLOW);
        let id = u32::try_from(folders.list.len() + 1).map_err(|_| full())?;
        let depth = folders.get(parent).map_or(0, |folder| folder.depth) + 1;
        let name_start = folders.names.len();
        folders.names.extend_from_slice(name);
        let name_length = u8::try_from(name.len()).map_err(|_| full())?; // it was checked by the caller
        let attrs = FolderAttrs {
            mode: attrs.mode,
            uid: attrs.uid,
            gid: attrs.gid,
            mtime: attrs.mtime,
            atime: attrs.atime,
            xattrs: attrs.xattrs.as_slice().into(),
        };
        folders.list.push(Folder { parent, depth, name_start, name_length, origin, attrs });
        Ok(DirId(id))
    }

    /// The folder, open. The ones used last stay open; others are opened again from their nearest open ancestor.
    pub fn dir(&self, id: DirId) -> Result<Arc<Dir>, VolumeError> {
        if let Some(dir) = self.kept(id) {
            return Ok(dir);
        }
        let (from, way) = self.way(&self.folders.read().unwrap_or_else(PoisonError::into_inner), id);
        self.follow(from, &way)
    }

    fn kept(&self, id: DirId) -> Option<Arc<Dir>> {
        if id == DirId::ROOT { Some(self.root.clone()) } else { self.open.get(u64::from(id.0)) }
    }

    /// The nearest open ancestor, and from there the steps down, the last one first.
    fn way(&self, folders: &Folders, id: DirId) -> (Arc<Dir>, Vec<(DirId, Vec<u8>)>) {
        let mut way = Vec::new();
        let mut at = id;
        loop {
            if let Some(open) = self.kept(at) {
                return (open, way);
            }
            let Some(folder) = folders.get(at) else { return (self.root.clone(), way) };
            way.push((at, folders.name(folder).to_vec()));
            at = folder.parent;
        }
    }

    fn follow(&self, from: Arc<Dir>, way: &[(DirId, Vec<u8>)]) -> Result<Arc<Dir>, VolumeError> {
        let mut dir = from;
        for (id, name) in way.iter().rev() {
            dir = self.open.insert(u64::from(id.0), Arc::new(dir.open_child(name)?));
        }
        Ok(dir)
    }

    /// Sets the attributes of all folders made or taken over, deepest first, then the root's if they are given. Call it once, after everything else; `threads` share
    /// the work. Gives what could not be set.
    pub fn finish_dirs(&self, root: Option<&Attrs>, threads: usize) -> Result<Vec<Problem>, VolumeError> {
        let folders = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<(u32, DirId)> = (1..).zip(&folders.list).map(|(id, folder)| (folder.depth, DirId(id))).collect();
        order.sort_unstable_by_key(|(depth, id)| (std::cmp::Reverse(*depth), *id));
        let mut problems = Vec::new();
        // A folder may become closed to us when it is finished: all that are deeper come before.
        for level in order.chunk_by(|a, b| a.0 == b.0) {
            let share = level.len().div_ceil(threads.max(1)).max(64);
            let finish = |ids: &[(u32, DirId)]| -> Result<Vec<Problem>, VolumeError> {
                let mut problems = Vec::new();
                for (_, id) in ids {
                    problems.extend(self.finish_one(&folders, *id)?);
                }
                Ok(problems)
            };
            if level.len() <= share {
                problems.extend(finish(level)?);
                continue;
            }
            let results: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = level.chunks(share).map(|ids| scope.spawn(|| finish(ids))).collect();
                workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
            });
            for result in results {
                problems.extend(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
        }
        if let Some(attrs) = root {
            problems.extend(self.finisher.root(&self.root, attrs)?);
        }
        Ok(problems)
    }

    fn finish_one(&self, folders: &Folders, id: DirId) -> Result<Vec<Problem>, VolumeError> {
        let Some(folder) = folders.get(id) else { return Ok(Vec::new()) };
        let (from, way) = self.way(folders, id);
        let dir = self.follow(from, &way)?;
        let kept = &folder.attrs;
        let attrs = Attrs {
            mode: kept.mode,
            uid: kept.uid,
            gid: kept.gid,
            mtime: kept.mtime,
            atime: kept.atime,
            xattrs: kept.xattrs.to_vec(),
            ..Attrs::default()
        };
        let problems = self.finisher.dir(&dir, &attrs, folder.origin)?;
        self.open.remove(u64::from(id.0));
        Ok(problems)
    }
}
