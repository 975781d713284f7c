//! Proving: does a volume that was filled hold what the point holds? Every name, every byte and every attribute is read again.
//!
//! One thread walks the point's trees beside the volume's folders; workers read files from the disk rather than from memory, as far as the
//! kernel lets its copies go, and hash them chunk by chunk. Nothing is changed, and a first difference ends nothing: all of them are listed.

use std::collections::HashMap;
use std::iter::Peekable;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{thread, vec};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::model::content::Content;
use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::exclude::{Exclude, Reach};
use crate::model::id::Id;
use crate::model::mover_job::{ClaimReport, Problem, ProblemKind, ProveClaim};
use crate::model::path_text::path_text;
use crate::mover::begun::Begun;
use crate::mover::counters::{Counters, add};
use crate::mover::error::MoverError;
use crate::mover::image::PIECE as IMAGE_PIECE;
use crate::mover::zeros::ZeroChunks;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;
use crate::repository::hash::{Pieces, id_of};
use crate::repository::pack::BlobKind;
use crate::repository::reader::Reader;
use crate::repository::same_file::FileId;
use crate::volume::{Device, Dir, DirStack, FileKind, Names, OpenFile, RawEntry, VolumeError, is_device};

/// What the claims of one mover share.
pub struct Tools {
    pub reader: Arc<Reader>,
    pub counters: Arc<Counters>,
    pub clock: Clock,
    pub runtime: Handle,
    /// Worker threads.
    pub threads: usize,
    /// Set from outside to make the mover give up.
    pub stop: Arc<AtomicBool>,
}

/// Folders held open on the way down.
const MAX_OPEN: usize = 128;
/// A folder of at most this many entries is looked at in the order of inodes; a larger one name by name, which takes less memory.
const IN_LIST: usize = 4096;
/// Files that wait for a worker.
const WAITING: usize = 256;
/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;
/// Problems that are listed; more of them say nothing new, and must not fill the memory.
const LISTED: usize = 10_000;

/// One claim's proof.
struct Proof<'a> {
    tools: &'a Tools,
    claim: &'a ProveClaim,
    /// What the point knows nothing of.
    exclude: Exclude,
    zeros: ZeroChunks,
    problems: Mutex<Vec<Problem>>,
    failure: Mutex<Option<MoverError>>,
    stopping: AtomicBool,
}

/// A file that a worker reads.
struct FileJob {
    dir: Arc<Dir>,
    name: Vec<u8>,
    attrs: Attrs,
    /// A further name of a file whose attributes are compared at the first: a restore gives all names those of the first.
    is_further: bool,
    content: Content,
}

/// A folder on the way down: what the point has in it that is not looked at yet.
struct Level {
    expected: Entries,
    there: There,
    reach: Reach,
}

/// What a folder of the volume holds, in the order of names.
enum There {
    Listed(Peekable<vec::IntoIter<RawEntry>>),
    /// A large one's, looked at name by name.
    Named(Names, usize),
}

/// Compares one claim's volume with its tree. Blocks; for a thread outside of the runtime. What differs is in the report's problems:
/// [`ProblemKind::Differs`] and [`ProblemKind::Unreadable`] for names and bytes, [`ProblemKind::Attribute`] for the rest. An error says
/// that there is no verdict.
pub fn prove_claim(tools: &Tools, claim: &ProveClaim) -> Result<ClaimReport, MoverError> {
    let begun = Begun::now(&tools.clock, &tools.counters);
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let exclude = Exclude::new(&claim.exclude).map_err(|source| MoverError::Exclude { claim: claim.name.clone(), source })?;
    let proof = Proof {
        tools,
        claim,
        exclude,
        zeros: ZeroChunks::default(),
        problems: Mutex::default(),
        failure: Mutex::default(),
        stopping: AtomicBool::new(false),
    };
    if claim.folder.is_none() && is_device(Path::new(&claim.target)) {
        proof.image(&Device::open_to_read(Path::new(&claim.target)).map_err(volume)?)?;
    } else {
        let root = Arc::new(Dir::open_root_of(Path::new(&claim.target), claim.folder).map_err(volume)?);
        let (send, receive) = crossbeam_channel::bounded(WAITING);
        thread::scope(|scope| {
            for _ in 0..tools.threads.max(1) {
                let receive = receive.clone();
                scope.spawn(|| proof.work(receive));
            }
            if let Err(error) = proof.walk(root, &send) {
                proof.fail(error);
            }
            drop(send);
        });
    }
    if let Some(failure) = proof.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    if tools.stop.load(Ordering::Relaxed) {
        return Err(MoverError::Interrupted);
    }
    let mut problems = proof.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(begun.report(&tools.counters, &claim.name, (claim.tree, claim.root.clone()), problems))
}

impl Proof<'_> {
    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.tools.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: MoverError) {
        self.stopping.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn problem(&self, path: &[u8], kind: ProblemKind, reason: impl Into<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        // An attribute never pushes out bytes that differ.
        if problems.len() < LISTED || (kind != ProblemKind::Attribute && problems.len() < 2 * LISTED) {
            problems.push(Problem { path: path_text(path), kind, reason: reason.into() });
        }
    }

    fn differs(&self, path: &[u8], reason: impl Into<String>) {
        self.problem(path, ProblemKind::Differs, reason);
    }

    fn unreadable(&self, path: &[u8], error: &VolumeError) {
        self.problem(path, ProblemKind::Unreadable, error.reason());
    }

    /// Through all folders of the point, and all that the volume has in them.
    fn walk(&self, root: Arc<Dir>, files: &Sender<FileJob>) -> Result<(), MoverError> {
        let volume = |source: VolumeError| MoverError::Volume { claim: self.claim.name.clone(), source };
        let mut found = root.attrs().map_err(volume)?;
        if rustix::process::geteuid().as_raw() != found.uid {
            // A volume's root may belong to root while its content does not: only an owner can set times, so that no restore could have.
            found.mtime = self.claim.root.mtime;
        }
        self.attributes(b"", &self.claim.root, &found);
        // The first name of each file of the point that has several, and the inode that it has here.
        let mut linked: HashMap<FileId, (u64, Vec<u8>)> = HashMap::new();
        let mut stack = DirStack::new(Arc::clone(&root), MAX_OPEN);
        let mut dir = root;
        let mut levels = vec![self.level(&dir, &self.claim.tree, self.exclude.root())?];
        while let Some(level) = levels.last_mut() {
            if self.stopped() {
                return Ok(());
            }
            let Some(entry) = level.expected.next().transpose()? else {
                while let Some(name) = level.there.next_before(None) {
                    self.differs(&dir.path_of(&name), "the point does not have it");
                }
                levels.pop();
                if !levels.is_empty() {
                    dir = stack.leave().map_err(volume)?;
                }
                continue;
            };
            let path = dir.path_of(&entry.name);
            while let Some(name) = level.there.next_before(Some(entry.name.as_slice())) {
                self.differs(&dir.path_of(&name), "the point does not have it");
            }
            let raw = match level.there.take(&dir, &entry.name) {
                Some(Ok(raw)) => raw,
                Some(Err(error)) if !error.is_vanished() => {
                    self.unreadable(&path, &error);
                    continue;
                }
                None | Some(Err(_)) => {
                    self.differs(&path, "it is not there");
                    continue;
                }
            };
            if raw.stat.kind != FileKind::from(&entry.kind) {
                self.differs(&path, format!("it is {} instead of {}", in_words(raw.stat.kind), in_words(FileKind::from(&entry.kind))));
                continue;
            }
            let mut is_further = false;
            if !matches!(entry.kind, Kind::Dir { .. }) {
                add(&self.tools.counters.files, 1);
            }
            if let Some(file) = FileId::of(&entry) {
                let first = linked.entry(file).or_insert_with(|| (raw.stat.inode, path.clone()));
                is_further = first.0 == raw.stat.inode && first.1 != path;
                if first.0 != raw.stat.inode {
                    self.differs(&path, format!("it is no further name of `{}`", path_text(&first.1)));
                }
            }
            match entry.kind {
                Kind::Dir { subtree } => {
                    let child = match stack.enter(&entry.name) {
                        Ok(child) => child,
                        Err(error) => {
                            self.unreadable(&path, &error);
                            continue;
                        }
                    };
                    match child.attrs() {
                        Ok(attrs) => self.attributes(&path, &entry.attrs, &attrs),
                        Err(error) => self.unreadable(&path, &error),
                    }
                    match subtree {
                        Some(tree) => {
                            let reach = self.exclude.below(&level.reach, &entry.name);
                            levels.push(self.level(&child, &tree, reach)?);
                            dir = child;
                        }
                        // Without a subtree it was written by a foreign tool that could not read it.
                        None => drop(stack.leave().map_err(volume)?),
                    }
                }
                Kind::File { content } => {
                    let job = FileJob { dir: Arc::clone(&dir), name: entry.name, attrs: entry.attrs, is_further, content };
                    // Nobody listens only when the proof is being given up.
                    let _ = files.send(job);
                }
                _ => self.special(&dir, &path, &entry, &raw, is_further),
            }
        }
        Ok(())
    }

    fn level(&self, dir: &Dir, tree: &Id, reach: Reach) -> Result<Level, MoverError> {
        add(&self.tools.counters.dirs, 1);
        let expected = self.tools.runtime.block_on(self.tools.reader.entries(tree))?;
        match There::of(dir, |name| !self.exclude.has(&reach, name)) {
            Ok(there) => Ok(Level { expected, there, reach }),
            Err(error) => {
                self.unreadable(&dir.path_of(b""), &error);
                Ok(Level { expected: Entries::default(), there: There::Listed(Vec::new().into_iter().peekable()), reach })
            }
        }
    }

    fn special(&self, dir: &Dir, path: &[u8], expected: &Entry, raw: &RawEntry, is_further: bool) {
        match dir.special(raw) {
            Ok(Some(found)) => {
                if found.kind != expected.kind {
                    self.differs(path, "it leads elsewhere");
                }
                if !is_further {
                    self.attributes(path, &expected.attrs, &found.attrs);
                }
            }
            Ok(None) => self.differs(path, "it is of another kind by now"),
            Err(error) => self.unreadable(path, &error),
        }
    }

    /// Owner, mode, time and extended attributes. Those of `security.` that the point does not have may be the machine's own.
    fn attributes(&self, path: &[u8], expected: &Attrs, found: &Attrs) {
        let mut others = Vec::new();
        if found.mode != expected.mode {
            others.push(format!("mode {:o} instead of {:o}", found.mode, expected.mode));
        }
        if (found.uid, found.gid) != (expected.uid, expected.gid) {
            others.push(format!("owner {}:{} instead of {}:{}", found.uid, found.gid, expected.uid, expected.gid));
        }
        if found.mtime != expected.mtime {
            others.push("another time of change".to_owned());
        }
        let lacks = expected.xattrs.iter().filter(|xattr| !found.xattrs.contains(xattr)).map(|xattr| &xattr.name);
        let more = found
            .xattrs
            .iter()
            .filter(|xattr| !xattr.name.starts_with("security.") && !expected.xattrs.iter().any(|expected| expected.name == xattr.name));
        others.extend(lacks.map(|name| format!("without its {name}")));
        others.extend(more.map(|xattr| format!("with a {} of its own", xattr.name)));
        if !others.is_empty() {
            self.problem(path, ProblemKind::Attribute, others.join(", "));
        }
    }

    /// A volume without a file system: the image from its first byte to its last, and zeros beyond it.
    fn image(&self, device: &Device) -> Result<(), MoverError> {
        let volume = |source: VolumeError| MoverError::Volume { claim: self.claim.name.clone(), source };
        let mut entries = self.tools.runtime.block_on(self.tools.reader.tree(&self.claim.tree))?;
        let (Some(Entry { kind: Kind::File { content }, attrs, .. }), true) = (entries.pop(), entries.is_empty()) else {
            return Err(MoverError::NoImage { claim: self.claim.name.clone() });
        };
        if device.size() < attrs.size {
            self.differs(b"", format!("it has {} bytes instead of {}", device.size(), attrs.size));
            return Ok(());
        }
        let (mut at, mut buffer) = (0, Vec::new());
        let beyond = std::iter::repeat(None);
        for chunk in content.iter().map(Some).chain(beyond) {
            let length = match chunk {
                Some(id) => self.length(id, b"")?,
                None => IMAGE_PIECE.min(device.size() - at),
            };
            if self.stopped() || (chunk.is_none() && length == 0) {
                break;
            }
            if at.saturating_add(length) > device.size() {
                self.differs(b"", "its chunks have more bytes together than it has");
                return Ok(());
            }
            buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
            device.read_at(at, &mut buffer).map_err(volume)?;
            add(&self.tools.counters.moved_bytes, length);
            let is_right = chunk.map_or_else(|| buffer.iter().all(|byte| *byte == 0), |id| id_of(&buffer) == *id);
            if !is_right {
                self.differs(b"", format!("bytes {at} to {} are others", at + length));
            }
            if chunk.is_some() {
                add(&self.tools.counters.bytes, length);
            }
            at += length;
        }
        add(&self.tools.counters.files, 1);
        Ok(())
    }

    /// Bytes of a chunk.
    fn length(&self, id: &Id, path: &[u8]) -> Result<u64, MoverError> {
        let place = self.tools.reader.index().find(BlobKind::Data, id);
        let lost = || RepositoryError::damaged(format!("chunk {id} of `{}`", path_text(path)), "it is in no index");
        Ok(place.ok_or_else(lost)?.plain())
    }

    fn work(&self, files: Receiver<FileJob>) {
        let mut buffer = vec![0; PIECE];
        // Even when stopping, what comes is taken, so that the walk never waits for room.
        for job in files {
            if self.stopped() {
                continue;
            }
            let path = job.dir.path_of(&job.name);
            match job.dir.open_file(&job.name) {
                Ok(file) => {
                    if let Err(error) = self.file(&path, &job, &file, &mut buffer) {
                        self.fail(error);
                    }
                }
                Err(error) => self.unreadable(&path, &error),
            }
        }
    }

    fn file(&self, path: &[u8], job: &FileJob, file: &OpenFile, buffer: &mut [u8]) -> Result<(), MoverError> {
        match file.xattrs() {
            Ok(_) if job.is_further => {}
            Ok(xattrs) => self.attributes(path, &job.attrs, &file.stat().attrs(xattrs)),
            Err(error) => self.problem(path, ProblemKind::Attribute, format!("its extended attributes cannot be read: {error}")),
        }
        if file.stat().size != job.attrs.size {
            self.differs(path, format!("it has {} bytes instead of {}", file.stat().size, job.attrs.size));
            return Ok(());
        }
        // What was written to it is on the disk already, and so the kernel's copy can go: the disk is asked.
        file.advise_done(0..file.stat().size);
        let mut at = 0u64;
        let mut extent = 0..0;
        for id in &job.content {
            if self.stopped() {
                return Ok(());
            }
            let length = self.length(id, path)?;
            let end = at.saturating_add(length);
            if file.stat().may_have_holes() && end <= job.attrs.size {
                if extent.end <= at {
                    // Without an answer the chunk is read like any other.
                    extent = file.next_extent(at).map_or(at..end, |found| found.unwrap_or(u64::MAX..u64::MAX));
                }
                if extent.start >= end && self.zeros.id(length) == *id {
                    at = end;
                    continue;
                }
            }
            let mut pieces = Pieces::default();
            let mut from = at;
            while from < end {
                let wanted = usize::try_from(end - from).unwrap_or(PIECE).min(PIECE);
                match file.read_at(from, &mut buffer[..wanted]) {
                    Ok(0) => {
                        self.differs(path, format!("it ends at byte {from}, within what the point has"));
                        return Ok(());
                    }
                    Ok(got) => {
                        pieces.add(&buffer[..got]);
                        from += got as u64;
                        add(&self.tools.counters.moved_bytes, got as u64);
                    }
                    Err(error) => {
                        self.problem(path, ProblemKind::Unreadable, error.to_string());
                        return Ok(());
                    }
                }
            }
            if pieces.finish() != *id {
                self.differs(path, format!("bytes {at} to {end} are others"));
                return Ok(());
            }
            at = end;
        }
        add(&self.tools.counters.bytes, at);
        file.advise_done(0..at);
        if at != job.attrs.size {
            self.differs(path, format!("its chunks have {at} bytes together, and it has {}", job.attrs.size));
        }
        Ok(())
    }
}

impl There {
    /// What counts of it.
    fn of(dir: &Dir, counts: impl Fn(&[u8]) -> bool) -> Result<There, VolumeError> {
        let mut names = dir.names()?;
        names.retain(counts);
        Ok(if names.len() <= IN_LIST { There::Listed(dir.records(&names)?.into_iter().peekable()) } else { There::Named(names, 0) })
    }

    /// The next name, if it stands before this one.
    fn next_before(&mut self, name: Option<&[u8]>) -> Option<Vec<u8>> {
        let is_before = |next: &[u8]| name.is_none_or(|name| next < name);
        match self {
            There::Listed(list) => list.next_if(|raw| is_before(&raw.name)).map(|raw| raw.name),
            There::Named(names, next) => {
                let name = names.get(*next).map(|(name, _)| name).filter(|name| is_before(name))?.to_vec();
                *next += 1;
                Some(name)
            }
        }
    }

    /// The next entry, if it has this name.
    fn take(&mut self, dir: &Dir, name: &[u8]) -> Option<Result<RawEntry, VolumeError>> {
        match self {
            There::Listed(list) => list.next_if(|raw| raw.name == name).map(Ok),
            There::Named(names, next) => {
                names.get(*next).filter(|(next, _)| *next == name)?;
                *next += 1;
                Some(dir.stat_of(name).map(|stat| RawEntry { name: name.to_vec(), stat }))
            }
        }
    }
}

fn in_words(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "a file",
        FileKind::Dir => "a folder",
        FileKind::Symlink => "a symlink",
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::CharDevice => "a character device",
        FileKind::BlockDevice => "a block device",
        FileKind::Unknown => "something unknown",
    }
}
