//! The walk: every folder of the volume, depth first, each entry compared with the previous point and, if need be, handed to the workers.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::exclude::Reach;
use crate::model::id::Id;
use crate::model::mover_job::ProblemKind;
use crate::mover::counters::{add, take_back};
use crate::mover::error::MoverError;
use crate::mover::save::before::Trees;
use crate::mover::save::file::FileJob;
use crate::mover::save::folder::{self, Folder};
use crate::mover::save::seen::Listed;
use crate::mover::save::{Save, Step};
use crate::repository::codec::Encoder;
use crate::repository::entries;
use crate::repository::pack::BlobKind;
use crate::volume::{Dir, DirStack, FileKind, Names, RawEntry, Stat, VolumeError};

/// Folders held open on the way down.
const MAX_OPEN: usize = 128;
/// A folder of at most this many entries is looked at in the order of inodes; a larger one name by name, which takes less memory.
const LISTED: usize = 4096;
/// Names whose memory is given back at a time.
const FORGOTTEN: usize = 1 << 16;
/// How often a folder that goes on changing is listed again before the walk leaves it.
const ROUNDS: u32 = 3;

/// One folder on the way down.
struct Level {
    folder: Arc<Folder>,
    entries: Entries,
    /// The folder's record before it was listed.
    stat: Stat,
    rounds: u32,
    /// Slots of the entries that are left, where they came after the folder was listed.
    late: std::vec::IntoIter<usize>,
    /// What the previous point has in the folder, from behind the next one on.
    before: Before,
    slot: usize,
    /// What may be excluded below.
    reach: Reach,
}

enum Entries {
    Listed(std::vec::IntoIter<RawEntry>),
    Named(Names, usize),
}

/// What is needed to walk.
pub struct Walk<'a> {
    pub save: &'a Save<'a>,
    pub encoder: Encoder,
    pub trees: Trees,
    pub files: Sender<FileJob>,
}

impl Walk<'_> {
    /// Walks from `root` to the end, or until the run stops.
    pub fn run(mut self, root: &Arc<Dir>) {
        let save = self.save;
        let attrs = match root.attrs() {
            Ok(attrs) => normal(attrs, true),
            Err(source) => return save.fail(MoverError::Volume { claim: save.claim.name.clone(), source }),
        };
        let entry = Entry { name: save.claim.name.clone().into_bytes(), kind: Kind::Dir { subtree: None }, attrs };
        let mut stack = DirStack::new(Arc::clone(root), MAX_OPEN);
        let before = save.claim.parent.map(|tree| (None, tree));
        let mut levels = match self.level(None, root, entry, before, true, save.exclude.root()) {
            Ok(level) => vec![level],
            Err(source) => return save.fail(MoverError::Volume { claim: save.claim.name.clone(), source }),
        };
        let mut dir = Arc::clone(root);
        while let Some(level) = levels.last_mut() {
            if save.stopped() {
                return;
            }
            let Some((slot, raw)) = level.next(&dir) else {
                save.step(Step::Leave);
                if level.list_again(save, &dir) {
                    continue;
                }
                if level.before.next.is_some() {
                    level.folder.differs();
                }
                level.folder.walked(save, &mut self.encoder);
                levels.pop();
                if levels.is_empty() {
                    return;
                }
                match stack.leave() {
                    Ok(parent) => dir = parent,
                    // The parent was moved away: what the walk had not reached in it may well be there still, at another place. That is
                    // not as if the walk had come later, so the point is not whole.
                    Err(error) => {
                        if let Some(gone) = levels.pop() {
                            save.problem(&stack.path(), ProblemKind::Unreadable, error.reason());
                            self.abandon(&gone);
                        }
                        if levels.is_empty() {
                            return;
                        }
                        match stack.leave() {
                            Ok(parent) => dir = parent,
                            Err(source) => return save.fail(MoverError::Volume { claim: save.claim.name.clone(), source }),
                        }
                    }
                }
                continue;
            };
            level.folder.wait_for_room(save, slot);
            let raw = match raw {
                Ok(raw) => raw,
                Err((name, error)) => {
                    save.unreadable(&dir.path_of(&name), &error);
                    level.folder.ready(save, &mut self.encoder, slot, None, false);
                    continue;
                }
            };
            let before = level.before(&raw.name);
            let folder = Arc::clone(&level.folder);
            let reach = if raw.stat.kind == FileKind::Dir { save.exclude.below(&level.reach, &raw.name) } else { Reach::default() };
            save.trust.met(raw.stat.ctime.secs, &save.tools.clock);
            let ahead = level.before.ahead;
            match raw.stat.kind {
                FileKind::Dir if !dir.is_mount_point(&raw.stat) => {
                    match self.enter(&mut stack, (&folder, slot), &raw, before, ahead, reach) {
                        Ok((child, level)) => {
                            dir = child;
                            levels.push(level);
                        }
                        Err(error) => {
                            save.unreadable(&dir.path_of(&raw.name), &error);
                            folder.ready(save, &mut self.encoder, slot, None, false);
                        }
                    }
                }
                _ => self.entry(&dir, &folder, slot, raw, before),
            }
        }
    }

    /// Goes down into a folder.
    fn enter(
        &mut self,
        stack: &mut DirStack,
        (parent, slot): (&Arc<Folder>, usize),
        raw: &RawEntry,
        before: Option<Entry>,
        ahead: bool,
        reach: Reach,
    ) -> Result<(Arc<Dir>, Level), VolumeError> {
        self.save.step(Step::List);
        let child = stack.enter(&raw.name)?;
        let enter = || {
            let known = before.as_ref().filter(|before| same_times(&before.attrs, child.stat()));
            if known.is_none() && self.save.seen.may_have_changed(child.stat()) {
                self.save.seen.moved();
            }
            let attrs = match known {
                Some(before) => child.stat().attrs(before.attrs.xattrs.clone()),
                None => child.attrs()?,
            };
            let entry = Entry { name: raw.name.clone(), kind: Kind::Dir { subtree: None }, attrs: normal(attrs, true) };
            let before = before.and_then(|before| match before.kind {
                Kind::Dir { subtree: Some(tree) } => Some((Some(before), tree)),
                _ => None,
            });
            self.level(Some((Arc::clone(parent), slot)), &child, entry, before, ahead, reach)
        };
        match enter() {
            Ok(level) => Ok((Arc::clone(&child), level)),
            Err(error) => {
                // Back up; if even that fails, the next step says so.
                let _ = stack.leave();
                Err(error)
            }
        }
    }

    fn level(
        &mut self,
        parent: Option<(Arc<Folder>, usize)>,
        dir: &Dir,
        entry: Entry,
        before: Option<(Option<Entry>, Id)>,
        ahead: bool,
        reach: Reach,
    ) -> Result<Level, VolumeError> {
        self.save.step(Step::List);
        let mut names = dir.names()?;
        if !reach.is_empty() {
            // Before anything of it is looked at: what is excluded may be what cannot be.
            names.retain(|name| !self.save.exclude.has(&reach, name));
        }
        self.save.seen.enter(dir.stat().inode, dir.place());
        let entries = if names.len() <= LISTED { Entries::Listed(dir.records(&names)?.into_iter()) } else { Entries::Named(names, 0) };
        add(&self.save.tools.counters.dirs, 1);
        let mut trees = Before { ahead, ..Before::default() };
        let before = before.and_then(|(entry, tree)| match self.trees.get(self.save, &tree, ahead) {
            Ok((rest, ahead)) => {
                trees = Before { rest, ahead, ..Before::default() };
                Some(folder::Before { entry, tree })
            }
            Err(error) => {
                // As if there were no previous point here: everything is read, and the new point is whole.
                tracing::warn!(%tree, %error, "a tree of the previous point cannot be read");
                None
            }
        });
        let listed = entries.hashes(self.save, dir.stat().inode);
        let folder = Folder::new(parent, entry, before, entries.len(), listed);
        trees.step(&folder);
        Ok(Level { folder, entries, stat: *dir.stat(), rounds: 0, late: Vec::new().into_iter(), before: trees, slot: 0, reach })
    }

    /// The entries that were not reached are no part of the point.
    fn abandon(&mut self, level: &Level) {
        // Of the entries that are left, those that came late have slots of their own.
        let late = level.late.as_slice();
        for slot in late.iter().copied().chain(level.slot..level.slot + level.entries.len() - late.len()) {
            level.folder.ready(self.save, &mut self.encoder, slot, None, false);
        }
        level.folder.walked(self.save, &mut self.encoder);
    }

    /// Everything but folders to walk into.
    fn entry(&mut self, dir: &Arc<Dir>, folder: &Arc<Folder>, slot: usize, raw: RawEntry, before: Option<Entry>) {
        let save = self.save;
        add(&save.tools.counters.files, 1);
        if let Some((entry, same)) = before.as_ref().and_then(|before| self.reused(before, &raw.stat)) {
            add(&save.tools.counters.bytes, entry.attrs.size);
            let entry = save.settled(dir.place(), entry);
            let same = same && before.is_some_and(|before| before.attrs.links == entry.attrs.links);
            return folder.ready(save, &mut self.encoder, slot, Some(entry), same);
        }
        let done = match raw.stat.kind {
            FileKind::File => {
                let job =
                    FileJob { folder: Arc::clone(folder), slot, dir: Arc::clone(dir), name: raw.name, inode: raw.stat.inode, moves: 0 };
                // Nobody listens only when the run is being stopped.
                let _ = self.files.send(job);
                save.step(Step::Queue);
                return;
            }
            FileKind::Dir => {
                let reason = "another file system is mounted here: kept as an empty folder, unless it is excluded".to_owned();
                save.problem(&dir.path_of(&raw.name), ProblemKind::Unreadable, reason);
                let attrs = normal(raw.stat.attrs(Vec::new()), true);
                let entry = Entry { name: raw.name, kind: Kind::Dir { subtree: None }, attrs };
                Folder::new(Some((Arc::clone(folder), slot)), entry, None, 0, Listed::default()).walked(save, &mut self.encoder);
                return;
            }
            FileKind::Unknown => {
                save.problem(&dir.path_of(&raw.name), ProblemKind::Unreadable, "its kind of file is not known".into());
                Ok(None)
            }
            _ => dir.special(&raw).map(|entry| entry.map(|entry| Entry { attrs: normal(entry.attrs, false), ..entry })),
        };
        match done {
            Ok(entry) => {
                let entry = entry.map(|entry| save.settled(dir.place(), entry));
                let same = entry.is_some() && entry == before;
                if entry.is_none() {
                    take_back(&save.tools.counters.files, 1);
                }
                folder.ready(save, &mut self.encoder, slot, entry, same);
            }
            Err(error) => {
                save.unreadable(&dir.path_of(&raw.name), &error);
                take_back(&save.tools.counters.files, 1);
                folder.ready(save, &mut self.encoder, slot, None, false);
            }
        }
    }

    /// The entry as it stands in the previous point, if the record says that it has not changed since, with the attributes of now.
    fn reused(&self, before: &Entry, stat: &Stat) -> Option<(Entry, bool)> {
        let save = self.save;
        let content_size = if stat.kind == FileKind::File { stat.size } else { 0 };
        let unchanged = same_times(&before.attrs, stat) && before.attrs.size == content_size && save.trust.covers(stat.ctime.secs);
        if !unchanged || !same_kind(&before.kind, stat.kind) {
            return None;
        }
        if let Kind::File { content } = &before.kind {
            let index = save.tools.reader.index();
            if !content.runs().iter().all(|run| index.has(BlobKind::Data, &run.id)) {
                return None;
            }
        }
        let mut attrs = normal(stat.attrs(before.attrs.xattrs.clone()), false);
        attrs.allocated = before.attrs.allocated && !stat.may_have_holes();
        let same = attrs == before.attrs;
        Some((Entry { name: before.name.clone(), kind: before.kind.clone(), attrs }, same))
    }
}

impl Level {
    /// The next entry and its slot.
    #[allow(clippy::type_complexity, reason = "read in one place")]
    fn next(&mut self, dir: &Dir) -> Option<(usize, Result<RawEntry, (Vec<u8>, VolumeError)>)> {
        let entry = match &mut self.entries {
            Entries::Listed(list) => Ok(list.next()?),
            Entries::Named(names, next) => {
                let name = names.get(*next)?.0.to_vec();
                *next += 1;
                if *next == FORGOTTEN {
                    names.forget(std::mem::take(next));
                }
                match dir.stat_of(&name) {
                    Ok(stat) => Ok(RawEntry { name, stat }),
                    Err(error) => Err((name, error)),
                }
            }
        };
        let slot = self.late.next().unwrap_or_else(|| {
            self.slot += 1;
            self.slot - 1
        });
        Some((slot, entry))
    }

    /// Before the walk leaves the folder: if it changed since it was listed, the names that came are the next entries.
    fn list_again(&mut self, save: &Save, dir: &Dir) -> bool {
        let now = match dir.restat() {
            Ok(now) if self.stat.differs_in_content(&now) => now,
            _ => return false,
        };
        save.seen.moved();
        if self.rounds == ROUNDS {
            return false;
        }
        (self.rounds, self.stat) = (self.rounds + 1, now);
        let Ok(names) = dir.names() else { return false };
        let mut came = Vec::new();
        let mut slots = Vec::new();
        for (name, _) in names.iter() {
            // What is gone again is as if it had never come.
            if !save.exclude.has(&self.reach, name)
                && !self.folder.is_listed(save, name)
                && let Ok(stat) = dir.stat_of(name)
                && let Some(slot) = self.folder.claim(save, name)
            {
                came.push(RawEntry { name: name.to_vec(), stat });
                slots.push(slot);
            }
        }
        (self.entries, self.late) = (Entries::Listed(came.into_iter()), slots.into_iter());
        // What is left of the previous point's entries is not there any more; and what came late is read.
        if self.before.next.take().is_some() {
            self.folder.differs();
        }
        self.before = Before::default();
        self.entries.len() > 0
    }

    /// The entry of this name in the previous point: both are in the order of names, so that one pass over each is enough.
    fn before(&mut self, name: &[u8]) -> Option<Entry> {
        while let Some(before) = self.before.next.take_if(|before| before.name.as_slice() <= name) {
            self.before.step(&self.folder);
            if before.name == name {
                return Some(before);
            }
            self.folder.differs();
        }
        None
    }
}

/// A folder's entries in the previous point.
#[derive(Default)]
struct Before {
    next: Option<Entry>,
    rest: entries::Entries,
    /// The trees of its folders are decoded ahead.
    ahead: bool,
}

impl Before {
    /// Goes on to the next entry.
    fn step(&mut self, folder: &Folder) {
        self.next = match self.rest.next() {
            Some(Ok(entry)) => Some(entry),
            None => None,
            Some(Err(error)) => {
                // What is left of it is read as if it were new.
                tracing::warn!(%error, "a tree of the previous point cannot be read to its end");
                folder.differs();
                None
            }
        };
    }
}

impl Entries {
    fn hashes(&self, save: &Save, folder: u64) -> Listed {
        let hash = |name: &[u8]| save.seen.hash(folder, name);
        Listed::new(match self {
            Entries::Listed(list) => list.as_slice().iter().map(|entry| hash(&entry.name)).collect(),
            Entries::Named(names, _) => names.iter().map(|(name, _)| hash(name)).collect(),
        })
    }

    fn len(&self) -> usize {
        match self {
            Entries::Listed(list) => list.len(),
            Entries::Named(names, next) => names.len() - next,
        }
    }
}

/// Attributes as points keep them: no access times, which reading itself changes, and the device number only where it tells hard links
/// apart.
pub fn normal(mut attrs: Attrs, is_dir: bool) -> Attrs {
    attrs.atime = attrs.mtime;
    if is_dir || attrs.links <= 1 {
        attrs.device = 0;
    }
    attrs
}

fn same_times(before: &Attrs, stat: &Stat) -> bool {
    before.inode == stat.inode && before.mtime == stat.mtime && before.ctime == stat.ctime
}

fn same_kind(before: &Kind, now: FileKind) -> bool {
    matches!(
        (before, now),
        (Kind::File { .. }, FileKind::File)
            | (Kind::Symlink { .. }, FileKind::Symlink)
            | (Kind::Fifo, FileKind::Fifo)
            | (Kind::Socket, FileKind::Socket)
            | (Kind::CharDevice { .. }, FileKind::CharDevice)
            | (Kind::BlockDevice { .. }, FileKind::BlockDevice)
    )
}
