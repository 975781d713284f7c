//! The walk through the point's trees: makes folders and special files, and gathers what is to be read into batches.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::model::content::Content;
use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::id::Id;
use crate::model::mover_job::Problem;
use crate::model::path_text::path_text;
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::fill::chosen::{Chosen, Scope};
use crate::mover::fill::compare::{Candidate, compare};
use crate::mover::fill::write::{LargeFile, Purpose, Spot};
use crate::mover::fill::{Fill, FirstNames, Link};
use crate::repository::codec::MAX_BLOB;
use crate::repository::crypto::OVERHEAD;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::read_plan::Wanted;
use crate::repository::same_file::FileId;
use crate::volume::{DirId, Old, OldName, VolumeError};

/// A batch is full at this many files or chunks: enough for neighbours in a pack to meet, few enough to be little memory.
const FILES: usize = 4096;
const CHUNKS: usize = 16_384;
/// Files that are there are compared when they have so many bytes together, so that what differs is fetched while the next are compared.
const COMPARED: u64 = 512 << 20;
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
    pub spot: Spot,
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
    pub(super) fill: &'a Fill<'a>,
    chosen: &'a Chosen,
    batches: mpsc::Sender<Arc<Batch>>,
    alive: Arc<Semaphore>,
    small: Vec<SmallFile>,
    wanted: Vec<Wanted<Purpose>>,
    candidates: Vec<Candidate>,
    /// Chunks and bytes of the candidates.
    to_compare: (usize, u64),
    first_names: FirstNames,
    links: Vec<Link>,
    large_files: u64,
}

/// A folder that the walk is in.
struct Level {
    dir: DirId,
    entries: Entries,
    scope: Scope,
    old: Old,
}

impl<'a> Planner<'a> {
    pub fn new(fill: &'a Fill<'a>, chosen: &'a Chosen, batches: mpsc::Sender<Arc<Batch>>, alive: Arc<Semaphore>) -> Self {
        Planner {
            fill,
            chosen,
            batches,
            alive,
            small: Vec::new(),
            wanted: Vec::new(),
            candidates: Vec::new(),
            to_compare: (0, 0),
            first_names: FirstNames::new(),
            links: Vec::new(),
            large_files: 0,
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
        let fill = self.fill;
        let old = if fill.replaces() { fill.target.old_root().map_err(|e| fill.volume(e))? } else { Old::default() };
        let mut levels = vec![self.level(DirId::ROOT, &fill.claim.tree, self.chosen.scope(), old)?];
        while let Some(level) = levels.last_mut() {
            if fill.stopped() {
                return Ok(());
            }
            let dir = level.dir;
            let entry = match level.entries.next() {
                Some(Ok(entry)) => entry,
                None => {
                    levels.pop();
                    continue;
                }
                Some(Err(error)) => {
                    let reason = fill.passed_over(error)?;
                    fill.lose_folder(dir, &reason).map_err(|e| fill.volume(e))?;
                    continue;
                }
            };
            let old = level.old.take(&entry.name);
            let depth = levels.len();
            let Some(scope) = levels.last().and_then(|level| self.chosen.below(&level.scope, depth - 1, &entry.name)) else {
                continue;
            };
            match &entry.kind {
                Kind::Dir { subtree } => {
                    if depth > MAX_DEPTH {
                        return Err(RepositoryError::damaged("the point's tree", "its folders are nested without end").into());
                    }
                    let (id, old) = self.folder(dir, &entry, old, &scope).map_err(|e| fill.volume(e))?;
                    add(&fill.tools.counters.dirs, 1);
                    // A folder without a subtree was written by a foreign tool that could not read it.
                    if let Some(tree) = subtree {
                        let level = self.level(id, tree, scope, old)?;
                        levels.push(level);
                    }
                }
                _ if scope.is_some() => {} // a path leads on below what is no folder
                Kind::File { .. } => self.file(dir, entry, old)?,
                _ => self.special(dir, entry, old)?,
            }
        }
        self.compare()?;
        self.send()
    }

    /// A folder on the way to what is wanted that was there keeps its attributes.
    fn folder(&self, dir: DirId, entry: &Entry, old: Option<OldName>, scope: &Scope) -> Result<(DirId, Old), VolumeError> {
        match old {
            Some(old) => self.fill.target.adopt_dir(&old, scope.is_none().then_some(&entry.attrs)),
            None => Ok((self.fill.target.make_dir(dir, &entry.name, &entry.attrs)?, Old::default())),
        }
    }

    fn level(&self, dir: DirId, tree: &Id, scope: Scope, old: Old) -> Result<Level, MoverError> {
        let entries = match self.fill.tools.runtime.block_on(self.fill.tools.reader.entries(tree)) {
            Ok(entries) => entries,
            Err(error) => {
                let reason = self.fill.passed_over(error)?;
                self.fill.lose_folder(dir, &reason).map_err(|e| self.fill.volume(e))?;
                Entries::default()
            }
        };
        Ok(Level { dir, entries, scope, old })
    }

    fn special(&mut self, dir: DirId, entry: Entry, old: Option<OldName>) -> Result<(), MoverError> {
        let Some(old) = self.unless_further_name(dir, &entry, old) else { return Ok(()) };
        let fill = self.fill;
        let kept = match &old {
            Some(old) => self.keep_special(&entry, old).map_err(|e| fill.volume(e))?,
            None => None,
        };
        match kept.map_or_else(|| fill.target.make_special(dir, &entry.name, &entry.kind, &entry.attrs), Ok) {
            Ok(problems) => {
                fill.problems(problems);
                add(&fill.tools.counters.files, 1);
                Ok(())
            }
            Err(error) if error.is_denied() => {
                // Its further names have nothing to be linked to, and are tried, and left out, one by one.
                FileId::of(&entry).map(|file| self.first_names.remove(&file));
                let folder = fill.target.dir(dir).map_err(|e| fill.volume(e))?;
                fill.left_out(&folder.path_of(&entry.name), &error);
                Ok(())
            }
            Err(error) => Err(fill.volume(error)),
        }
    }

    /// Keeps what is there if it is the same, else takes it away.
    fn keep_special(&self, entry: &Entry, old: &OldName) -> Result<Option<Vec<Problem>>, VolumeError> {
        let target = &self.fill.target;
        let stat = target.stat_old(old)?;
        if target.is_special(old, &stat, &entry.kind)? && self.fill.may_stay(&stat) {
            return target.finish_special(old, &entry.kind, &entry.attrs).map(Some);
        }
        target.remove_old(old).map(|()| None)
    }

    /// `None` if the entry is a further name of a file that was there before: then it is linked to that at the end. An entry that only
    /// shares an inode number with another is a file of its own.
    #[allow(clippy::option_option, reason = "a name that is to be filled now may have stood there or not")]
    fn unless_further_name(&mut self, dir: DirId, entry: &Entry, old: Option<OldName>) -> Option<Option<OldName>> {
        let Some(file) = FileId::of(entry) else { return Some(old) };
        let Some(first) = self.first_names.get(&file) else {
            self.first_names.insert(file, (dir, entry.name.clone()));
            return Some(old);
        };
        let spot = old.map_or_else(|| Spot::Free { dir, name: entry.name.as_slice().into() }, Spot::Taken);
        self.links.push(Link { to: first.clone(), spot });
        None
    }

    fn file(&mut self, dir: DirId, entry: Entry, old: Option<OldName>) -> Result<(), MoverError> {
        let Some(old) = self.unless_further_name(dir, &entry, old) else { return Ok(()) };
        let Entry { name, attrs, kind } = entry;
        let Kind::File { content } = kind else { return Ok(()) };
        if let Err(error) = self.prove_size(&name, attrs.size, &content) {
            let reason = self.fill.passed_over(error)?;
            return self.fill.lose_file(dir, &name, &attrs, reason).map_err(|e| self.fill.volume(e));
        }
        let Some(old) = old else { return self.make(dir, name.into(), attrs, content) };
        self.to_compare.0 += content.len();
        self.to_compare.1 = self.to_compare.1.saturating_add(attrs.size);
        self.candidates.push(Candidate { old, attrs, content });
        if self.candidates.len() >= FILES || self.to_compare.0 >= CHUNKS || self.to_compare.1 >= COMPARED {
            self.compare()?;
        }
        Ok(())
    }

    /// Makes sure that the index has all chunks and that they are as long together as the file is said to be.
    fn prove_size(&self, name: &[u8], size: u64, content: &Content) -> Result<(), RepositoryError> {
        let index = self.fill.tools.reader.index();
        let mut found = 0u64;
        for run in content.runs() {
            let id = &run.id;
            let place = index.find(BlobKind::Data, id).ok_or(RepositoryError::Missing { kind: BlobKind::Data.name(), id: *id })?;
            if place.length as usize > MAX_BLOB + OVERHEAD {
                return Err(RepositoryError::damaged(format!("blob {id}"), format_args!("the index claims {} bytes for it", place.length)));
            }
            found = found.saturating_add(place.plain().saturating_mul(run.count.into()));
        }
        if found == size {
            return Ok(());
        }
        let reason = format!("it is said to have {size} bytes and has chunks of {found}");
        Err(RepositoryError::damaged(format!("file `{}`", path_text(name)), reason))
    }

    /// Compares what is there and brings what differs on its way.
    fn compare(&mut self) -> Result<(), MoverError> {
        self.to_compare = (0, 0);
        for differing in compare(self.fill, std::mem::take(&mut self.candidates)) {
            self.change(differing)?;
        }
        Ok(())
    }

    /// A file under a name that is free.
    pub(super) fn make(&mut self, dir: DirId, name: Box<[u8]>, attrs: Attrs, content: Content) -> Result<(), MoverError> {
        let fill = self.fill;
        match content.only() {
            _ if content.is_empty() => {
                let problems = fill.target.write_file(dir, &name, &attrs, std::iter::empty::<&[u8]>()).map_err(|e| fill.volume(e))?;
                fill.problems(problems);
                add(&fill.tools.counters.files, 1);
                Ok(())
            }
            Some(id) => self.small(id, SmallFile { spot: Spot::Free { dir, name }, attrs }),
            _ => {
                let open = fill.target.create_file(dir, &name, attrs.size).map_err(|e| fill.volume(e))?;
                let is_dense = attrs.allocated && !open.allocate(attrs.size).map_err(|e| fill.volume(e))?;
                let number = self.next_large();
                fill.open.insert(number, Arc::new(open));
                // What is all zeros is there: the file is a hole that long, or has got its room.
                let zeros: Vec<bool> = content.runs().iter().map(|run| !is_dense && fill.is_zeros(&run.id)).collect();
                let remaining = content.runs().iter().zip(&zeros).filter(|(_, zeros)| !**zeros).map(|(run, _)| run.count as usize).sum();
                let (spot, lost) = (Spot::Free { dir, name }, AtomicBool::new(false));
                let file =
                    Arc::new(LargeFile { number, spot, beside: None, attrs, is_dense, remaining: AtomicUsize::new(remaining), lost });
                if remaining == 0 {
                    add(&fill.tools.counters.bytes, file.attrs.size);
                    return file.finish(fill).map_err(|e| fill.volume(e));
                }
                let mut at = 0;
                for (run, zeros) in content.runs().iter().zip(zeros) {
                    let length = fill.plain_length(&run.id);
                    if zeros {
                        let all = length.saturating_mul(run.count.into());
                        add(&fill.tools.counters.bytes, all);
                        at += all;
                        continue;
                    }
                    for _ in 0..run.count {
                        self.push(run.id, Purpose::Large(Arc::clone(&file), at))?;
                        at += length;
                    }
                }
                Ok(())
            }
        }
    }

    /// A file whose one chunk is to be fetched.
    pub(super) fn small(&mut self, id: Id, file: SmallFile) -> Result<(), MoverError> {
        self.small.push(file);
        self.push(id, Purpose::Small(self.small.len() - 1))
    }

    pub(super) fn next_large(&mut self) -> u64 {
        self.large_files += 1;
        self.large_files
    }

    /// Wants a chunk, which the index has; sends the batch if it is full.
    pub(super) fn push(&mut self, id: Id, purpose: Purpose) -> Result<(), MoverError> {
        let missing = RepositoryError::Missing { kind: BlobKind::Data.name(), id };
        let place = self.fill.tools.reader.index().find(BlobKind::Data, &id).ok_or(missing)?;
        self.fill.promised.fetch_add(place.plain(), Ordering::Relaxed);
        self.wanted.push(Wanted { id, place, purpose });
        if self.small.len() >= FILES || self.wanted.len() >= CHUNKS { self.send() } else { Ok(()) }
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
