//! The walk through the point's trees: makes folders and special files, and gathers what is to be read into batches.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::id::Id;
use crate::model::path_text::path_text;
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::fill::{Fill, FirstNames, LargeFile, Link, Purpose};
use crate::repository::codec::MAX_BLOB;
use crate::repository::crypto::OVERHEAD;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::read_plan::Wanted;
use crate::volume::{DirId, VolumeError};

/// A batch is full at this many files or chunks: enough for neighbours in a pack to meet, few enough to be little memory.
const FILES: usize = 4096;
const CHUNKS: usize = 16_384;
/// No folder of any file system is nested deeper; a tree that is must be one that contains itself.
const MAX_DEPTH: usize = 100_000;

/// Files to fill together.
pub struct Batch {
    pub small: Vec<SmallFile>,
    wanted: Mutex<Vec<Wanted<Purpose>>>,
    /// Given back when the last chunk of the batch is written.
    _alive: OwnedSemaphorePermit,
}

/// A file of one chunk, written in one go.
pub struct SmallFile {
    pub dir: DirId,
    pub name: Box<[u8]>,
    pub attrs: Attrs,
}

impl Batch {
    /// The chunks to be read; empty after the first call.
    pub fn take_wanted(&self) -> Vec<Wanted<Purpose>> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Walks the trees of one claim.
pub struct Planner<'a> {
    fill: &'a Fill<'a>,
    batches: mpsc::Sender<Arc<Batch>>,
    alive: Arc<Semaphore>,
    small: Vec<SmallFile>,
    wanted: Vec<Wanted<Purpose>>,
    first_names: FirstNames,
    links: Vec<Link>,
    large_files: u64,
    chosen: Chosen,
}

/// Which paths are wanted.
struct Chosen {
    /// Each as its components; empty for all.
    paths: Vec<Vec<String>>,
    found: Vec<bool>,
}

/// A folder that the walk is in.
struct Level {
    dir: DirId,
    entries: std::vec::IntoIter<Entry>,
    /// Which of the chosen paths lead on below it; `None` once one of them has been reached: all below is wanted.
    wanted: Option<Vec<usize>>,
}

impl<'a> Planner<'a> {
    pub fn new(fill: &'a Fill<'a>, batches: mpsc::Sender<Arc<Batch>>, alive: Arc<Semaphore>) -> Self {
        let components = |path: &String| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let paths: Vec<Vec<String>> = fill.claim.paths.iter().map(components).collect();
        let found = vec![false; paths.len()];
        Planner {
            fill,
            batches,
            alive,
            small: Vec::new(),
            wanted: Vec::new(),
            first_names: FirstNames::new(),
            links: Vec::new(),
            large_files: 0,
            chosen: Chosen { paths, found },
        }
    }

    /// Walks to the end, or until something fails; the links that are to be made at the end.
    pub fn run(mut self) -> Vec<Link> {
        match self.walk() {
            Ok(()) => self.links,
            Err(error) => {
                self.fill.fail(error);
                Vec::new()
            }
        }
    }

    fn walk(&mut self) -> Result<(), MoverError> {
        let all = self.chosen.paths.is_empty() || self.chosen.paths.iter().any(Vec::is_empty);
        let wanted = (!all).then(|| (0..self.chosen.paths.len()).collect());
        let mut levels = vec![self.level(DirId::ROOT, &self.fill.claim.tree, wanted)?];
        while let Some(level) = levels.last_mut() {
            if self.fill.stopped() {
                return Ok(());
            }
            let Some(entry) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let dir = level.dir;
            let depth = levels.len();
            let Some(below) = self.chosen.below(levels.last().and_then(|level| level.wanted.as_deref()), depth - 1, &entry.name) else {
                continue;
            };
            let reached = below.is_none();
            match &entry.kind {
                Kind::Dir { subtree } => {
                    if depth > MAX_DEPTH {
                        return Err(RepositoryError::damaged("the point's tree", "its folders are nested without end").into());
                    }
                    let id = self.fill.target.make_dir(dir, &entry.name, &entry.attrs).map_err(|e| self.volume(e))?;
                    add(&self.fill.tools.counters.dirs, 1);
                    // A folder without a subtree was written by a foreign tool that could not read it.
                    if let Some(tree) = subtree {
                        let level = self.level(id, tree, below)?;
                        levels.push(level);
                    }
                }
                _ if !reached => {}
                Kind::File { .. } => self.file(dir, entry)?,
                _ => self.special(dir, &entry)?,
            }
        }
        if let Some(missing) = self.chosen.found.iter().position(|found| !found).filter(|_| !all) {
            let path = self.fill.claim.paths[missing].clone();
            return Err(MoverError::NoSuchPath { claim: self.fill.claim.name.clone(), path });
        }
        self.send()
    }

    fn level(&self, dir: DirId, tree: &Id, wanted: Option<Vec<usize>>) -> Result<Level, MoverError> {
        let entries = self.fill.tools.runtime.block_on(self.fill.tools.reader.tree(tree))?;
        Ok(Level { dir, entries: entries.into_iter(), wanted })
    }

    fn volume(&self, source: VolumeError) -> MoverError {
        MoverError::Volume { claim: self.fill.claim.name.clone(), source }
    }

    fn special(&mut self, dir: DirId, entry: &Entry) -> Result<(), MoverError> {
        if self.is_further_name(dir, entry) {
            return Ok(());
        }
        match self.fill.target.make_special(dir, &entry.name, &entry.kind, &entry.attrs) {
            Ok(problems) => {
                self.fill.problems(problems);
                add(&self.fill.tools.counters.files, 1);
                Ok(())
            }
            Err(error) if error.is_denied() => {
                // Its further names have nothing to be linked to, and are tried, and left out, one by one.
                self.first_names.remove(&(entry.attrs.device, entry.attrs.inode));
                let folder = self.fill.target.dir(dir).map_err(|e| self.volume(e))?;
                self.fill.left_out(&folder.path_of(&entry.name), &error);
                Ok(())
            }
            Err(error) => Err(self.volume(error)),
        }
    }

    /// Whether the entry is a hard link to one that was there before: then it is made at the end.
    fn is_further_name(&mut self, dir: DirId, entry: &Entry) -> bool {
        if entry.attrs.links <= 1 {
            return false;
        }
        let inode = (entry.attrs.device, entry.attrs.inode);
        match self.first_names.get(&inode) {
            Some(first) => {
                self.links.push(Link { to: first.clone(), dir, name: entry.name.clone() });
                true
            }
            None => {
                self.first_names.insert(inode, (dir, entry.name.clone()));
                false
            }
        }
    }

    fn file(&mut self, dir: DirId, entry: Entry) -> Result<(), MoverError> {
        if self.is_further_name(dir, &entry) {
            return Ok(());
        }
        let Entry { name, attrs, kind } = entry;
        let Kind::File { content } = kind else { return Ok(()) };
        let index = self.fill.tools.reader.index();
        let find = |id: &Id| {
            let place = index.find(BlobKind::Data, id).ok_or(RepositoryError::Missing { kind: BlobKind::Data.name(), id: *id })?;
            if place.length as usize > MAX_BLOB + OVERHEAD {
                return Err(RepositoryError::damaged(format!("blob {id}"), format_args!("the index claims {} bytes for it", place.length)));
            }
            Ok(place)
        };
        if let [id] = content[..] {
            let place = find(&id)?;
            if place.plain() != attrs.size {
                return Err(size_lie(&name, attrs.size, place.plain()).into());
            }
            self.wanted.push(Wanted { id, place, purpose: Purpose::Small(self.small.len()) });
            self.small.push(SmallFile { dir, name: name.into(), attrs });
        } else if content.is_empty() {
            if attrs.size != 0 {
                return Err(size_lie(&name, attrs.size, 0).into());
            }
            let problems = self.fill.target.write_file(dir, &name, &attrs, std::iter::empty::<&[u8]>()).map_err(|e| self.volume(e))?;
            self.fill.problems(problems);
            add(&self.fill.tools.counters.files, 1);
        } else {
            let mut at = 0u64;
            let mut places = Vec::with_capacity(content.len());
            for id in content {
                let place = find(&id)?;
                places.push((id, place, at));
                at = at.saturating_add(place.plain());
            }
            if at != attrs.size {
                return Err(size_lie(&name, attrs.size, at).into());
            }
            self.fill.target.create_file(dir, &name, attrs.size).map_err(|e| self.volume(e))?;
            self.large_files += 1;
            let remaining = AtomicUsize::new(places.len());
            let file = Arc::new(LargeFile { number: self.large_files, dir, name: name.into(), attrs, remaining });
            for (id, place, at) in places {
                self.wanted.push(Wanted { id, place, purpose: Purpose::Large(Arc::clone(&file), at) });
                if self.wanted.len() >= CHUNKS {
                    self.send()?;
                }
            }
        }
        if self.small.len() >= FILES || self.wanted.len() >= CHUNKS {
            self.send()?;
        }
        Ok(())
    }

    /// Sends what has been gathered; waits while enough batches are under way.
    fn send(&mut self) -> Result<(), MoverError> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let runtime = &self.fill.tools.runtime;
        let alive = runtime.block_on(Arc::clone(&self.alive).acquire_owned()).map_err(|_| RepositoryError::Stopped)?;
        let batch = Batch { small: std::mem::take(&mut self.small), wanted: Mutex::new(std::mem::take(&mut self.wanted)), _alive: alive };
        runtime.block_on(self.batches.send(Arc::new(batch))).map_err(|_| RepositoryError::Stopped.into())
    }
}

fn size_lie(name: &[u8], size: u64, chunks: u64) -> RepositoryError {
    RepositoryError::damaged(format!("file `{}`", path_text(name)), format!("it is said to have {size} bytes and has chunks of {chunks}"))
}

impl Chosen {
    /// What is wanted below `name` in a folder `depth` levels below the root, of whose paths `wanted` are left: nothing (`None`), all
    /// (`Some(None)`), or some paths.
    fn below(&mut self, wanted: Option<&[usize]>, depth: usize, name: &[u8]) -> Option<Option<Vec<usize>>> {
        let Some(wanted) = wanted else { return Some(None) };
        let text = path_text(name);
        let fits = |part: &String| part.as_bytes() == name || *part == text;
        let on: Vec<usize> = wanted.iter().copied().filter(|path| self.paths[*path].get(depth).is_some_and(fits)).collect();
        let mut reached = false;
        for path in &on {
            if self.paths[*path].len() == depth + 1 {
                self.found[*path] = true;
                reached = true;
            }
        }
        match (on.is_empty(), reached) {
            (true, _) => None,
            (false, true) => Some(None),
            (false, false) => Some(Some(on)),
        }
    }
}
