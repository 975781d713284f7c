//! One file: read, cut into chunks, and checked that it did not change while it was read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_channel::{Sender, TrySendError};

use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::id::Id;
use crate::model::mover_job::ProblemKind;
use crate::mover::counters::{add, take_back};
use crate::mover::save::folder::Folder;
use crate::mover::save::in_order::InOrder;
use crate::mover::save::walk::normal;
use crate::mover::save::{Save, Step};
use crate::repository::chunk::HOLE;
use crate::repository::codec::Encoder;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::volume::{Dir, OpenFile, Place, VolumeError, leaves_holes, may_have_holes};

/// Bytes read at once from a large file.
const STEP: usize = 256 << 10;
/// A file that changes while it is read is read again: this often while it is small, once up to a size, and never beyond it, where a
/// second pass would take long and find it changed again.
const RETRIES_SMALL: u32 = 3;
const SMALL: u64 = 16 << 20;
const MEDIUM: u64 = 1 << 30;
/// A file that is renamed is followed this often.
const MOVES: u8 = 8;

/// A regular file that must be read.
pub struct FileJob {
    pub folder: Arc<Folder>,
    pub slot: usize,
    pub dir: Arc<Dir>,
    pub name: Vec<u8>,
    /// What the name led to when it was listed.
    pub inode: u64,
    /// How often it was followed to a new name.
    pub moves: u8,
}

/// A chunk of a larger file, cut and not looked at yet.
pub struct ChunkJob {
    file: Arc<LargeFile>,
    number: usize,
    bytes: Vec<u8>,
}

/// A file of several chunks, which get ready in any order.
struct LargeFile {
    chunks: Mutex<InOrder>,
    /// Chunks that are not ready, and one for the reader while it reads.
    pending: AtomicUsize,
    /// Set by the reader at the end; `None` if what was read is not to be used.
    done: Mutex<Option<Done>>,
}

struct Done {
    folder: Arc<Folder>,
    slot: usize,
    place: Arc<Place>,
    name: Vec<u8>,
    attrs: Attrs,
}

/// The chunk of nothing but zeros that a long hole is made of, once it is stored.
#[derive(Default)]
pub struct Hole(OnceLock<Id>);

impl Hole {
    fn id(&self, save: &Save) -> Result<Id, RepositoryError> {
        if let Some(id) = self.0.get() {
            return Ok(*id);
        }
        // An encoder of its own: one that has seen a chunk of this length would keep the memory for it.
        let id = store(save, &mut save.tools.writer.encoder()?, &vec![0u8; HOLE])?;
        Ok(*self.0.get_or_init(|| id))
    }
}

/// One worker's way of reading and storing.
pub struct FileWorker<'a> {
    pub save: &'a Save<'a>,
    pub encoder: Encoder,
    pub chunks: Sender<ChunkJob>,
    /// Buffers of chunks that are stored, shared by all workers.
    pub spare: &'a Mutex<Vec<Vec<u8>>>,
}

impl FileWorker<'_> {
    /// Reads a file and makes its entry ready, now or when its last chunk is stored.
    pub fn file(&mut self, job: FileJob) {
        let save = self.save;
        if save.stopped() {
            return;
        }
        save.step(Step::Open);
        let opened = job.dir.open_file(&job.name);
        if opened.as_ref().is_ok_and(|file| file.stat().inode != job.inode) {
            // Another file has its name; it may go on under one of its own, as logs do when they are rotated.
            save.seen.moved();
            if let Some((name, slot)) = new_name(save, &job) {
                add(&save.tools.counters.files, 1);
                let moved = FileJob { folder: Arc::clone(&job.folder), slot, dir: Arc::clone(&job.dir), name, inode: job.inode, moves: 1 };
                self.open(moved);
            }
        }
        self.opened(job, opened);
        save.step(Step::Done);
    }

    fn open(&mut self, job: FileJob) {
        let opened = job.dir.open_file(&job.name);
        self.opened(job, opened);
    }

    fn opened(&mut self, job: FileJob, opened: Result<OpenFile, VolumeError>) {
        let save = self.save;
        let read = match opened {
            Ok(file) => self.read(&job, file),
            Err(error) => Err(ReadError::Volume(error)),
        };
        let (path, files) = (|| job.dir.path_of(&job.name), &save.tools.counters.files);
        match read {
            Ok(()) => return,
            Err(ReadError::Volume(error)) => {
                if error.is_vanished() {
                    job.folder.release(save, &job.name);
                    if let Some((name, slot)) = new_name(save, &job) {
                        save.seen.moved();
                        job.folder.ready(save, &mut self.encoder, job.slot, None, false);
                        return self.open(FileJob { name, slot, moves: job.moves + 1, ..job });
                    }
                }
                save.unreadable(&path(), &error);
            }
            Err(ReadError::Io(error)) => save.problem(&path(), ProblemKind::Unreadable, format!("cannot read: {error}")),
            Err(ReadError::Repository(error)) => return save.fail(error.into()),
        }
        take_back(files, 1);
        job.folder.ready(save, &mut self.encoder, job.slot, None, false);
    }

    fn read(&mut self, job: &FileJob, mut file: OpenFile) -> Result<(), ReadError> {
        let path = || job.dir.path_of(&job.name);
        let mut tries = 0;
        loop {
            let stat = *file.stat();
            self.save.step(Step::Read);
            let large = stat.size > self.save.tools.chunker.min() as u64;
            let content = if large { Content::Large(self.large(&file)?) } else { Content::Small(self.small(&mut file)?) };
            self.save.step(Step::Look);
            let changed = file.changed_since(&stat)?;
            let retries = if stat.size <= SMALL { RETRIES_SMALL } else { u32::from(stat.size <= MEDIUM) };
            if changed && tries < retries {
                tries += 1;
                file = job.dir.open_file(&job.name)?;
                continue;
            }
            if changed {
                self.save.problem(&path(), ProblemKind::Changed, format!("it changed while it was read, {} times", tries + 1));
            }
            let xattrs = match file.xattrs() {
                Ok(xattrs) => xattrs,
                Err(error) => {
                    self.save.problem(&path(), ProblemKind::Unreadable, format!("cannot read its extended attributes: {error}"));
                    Vec::new()
                }
            };
            let counters = &self.save.tools.counters;
            let mut attrs = normal(stat.attrs(xattrs), false);
            match content {
                Content::Small((id, size, has_zeros)) => {
                    attrs.size = size;
                    attrs.allocated = has_zeros && !stat.may_have_holes();
                    add(&counters.bytes, size);
                    let entry = Entry { name: job.name.clone(), kind: Kind::File { content: id.into_iter().collect() }, attrs };
                    let entry = self.save.settled(job.dir.place(), entry);
                    job.folder.ready(self.save, &mut self.encoder, job.slot, Some(entry), false);
                }
                Content::Large((large, size, has_zeros)) => {
                    attrs.size = size;
                    attrs.allocated = has_zeros && !stat.may_have_holes();
                    add(&counters.bytes, size);
                    let place = Arc::clone(job.dir.place());
                    let done = Done { folder: Arc::clone(&job.folder), slot: job.slot, place, name: job.name.clone(), attrs };
                    *large.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                    large.one_less(self.save, &mut self.encoder);
                }
            }
            return Ok(());
        }
    }

    /// A file of at most one chunk, what was read of it, and whether a restore makes holes of some of it.
    fn small(&mut self, file: &mut OpenFile) -> Result<(Option<Id>, u64, bool), ReadError> {
        let mut buffer = self.buffer();
        let size = usize::try_from(file.stat().size).expect("at most the chunker's smallest chunk");
        // One byte of room more tells whether it has grown, but only the size at opening is taken: growth shows as a change.
        buffer.resize(size, 0);
        file.seek_to(0);
        let got = file.read(&mut buffer)?;
        buffer.truncate(got);
        add(&self.save.tools.counters.moved_bytes, got as u64);
        let id = if got == 0 { None } else { Some(store(self.save, &mut self.encoder, &buffer)?) };
        let has_zeros = may_have_holes(got as u64) && leaves_holes(0, &buffer);
        self.recycle(buffer);
        Ok((id, got as u64, has_zeros))
    }

    /// A larger file, its chunks handed out or stored here; up to the size that it had when it was opened. Tells that, and whether a restore
    /// makes holes of some of it.
    fn large(&mut self, file: &OpenFile) -> Result<(Arc<LargeFile>, u64, bool), ReadError> {
        let save = self.save;
        let chunker = &save.tools.chunker;
        let large = Arc::new(LargeFile { chunks: Mutex::default(), pending: AtomicUsize::new(1), done: Mutex::new(None) });
        file.advise_sequential();
        let size = file.stat().size;
        let mut at = 0u64;
        let mut data = file.next_extent(0)?.unwrap_or(size..size);
        // Where the hole before `data` begins.
        let mut hole = 0;
        let mut buffer = self.buffer();
        let mut scanned = 0;
        // Of a file with holes nobody asks.
        let mut has_zeros = file.stat().may_have_holes();
        loop {
            if save.stopped() {
                return Err(ReadError::Repository(RepositoryError::Stopped));
            }
            if at >= data.end && at < size {
                hole = at;
                data = file.next_extent(at)?.unwrap_or(size..size);
            }
            let whole = data.start.saturating_sub(at) / HOLE as u64;
            if buffer.is_empty() && whole > 0 {
                // Whole chunks of a hole: known without reading or hashing.
                let id = save.hole.id(save)?;
                let mut chunks = large.chunks.lock().unwrap_or_else(PoisonError::into_inner);
                let number = chunks.next();
                chunks.ready(number, id, whole);
                drop(chunks);
                at += whole * HOLE as u64;
                continue;
            }
            let have = buffer.len();
            let room = STEP.min(chunker.max() - have);
            if at < data.start.min(size) {
                let zeros = usize::try_from(data.start.min(size) - at).map_or(room, |hole| hole.min(room));
                buffer.resize(have + zeros, 0);
                at += zeros as u64;
            } else if at < size {
                let wanted = usize::try_from(data.end - at).map_or(room, |left| left.min(room));
                buffer.resize(have + wanted, 0);
                let got = file.read_at(at, &mut buffer[have..])?;
                buffer.truncate(have + got);
                at += got as u64;
                add(&save.tools.counters.moved_bytes, got as u64);
                if got < wanted {
                    // Cut shorter meanwhile: what is left of it is the file, and the change is noticed later.
                    if !buffer.is_empty() {
                        has_zeros = has_zeros || leaves_holes(at - buffer.len() as u64, &buffer);
                        self.hand_out(&large, buffer)?;
                    }
                    return Ok((large, at, has_zeros));
                }
            }
            if let Some(cut) = chunker.find_cut(&buffer, &mut scanned) {
                let mut rest = self.buffer();
                has_zeros = has_zeros || leaves_holes(at - buffer.len() as u64, &buffer[..cut]);
                let left = (buffer.len() - cut) as u64;
                if at <= data.start && at - left >= hole {
                    // Nothing but hole is left over: it begins anew, and goes on in whole chunks.
                    at -= left;
                } else {
                    rest.extend_from_slice(&buffer[cut..]);
                }
                buffer.truncate(cut);
                self.hand_out(&large, buffer)?;
                buffer = rest;
                scanned = 0;
            } else if at == size {
                if buffer.is_empty() {
                    self.recycle(buffer);
                } else {
                    has_zeros = has_zeros || leaves_holes(at - buffer.len() as u64, &buffer);
                    self.hand_out(&large, buffer)?;
                }
                return Ok((large, at, has_zeros));
            }
        }
    }

    /// Gives the chunk to whoever has time; if nobody has, stores it here.
    fn hand_out(&mut self, file: &Arc<LargeFile>, bytes: Vec<u8>) -> Result<(), RepositoryError> {
        let number = {
            let mut chunks = file.chunks.lock().unwrap_or_else(PoisonError::into_inner);
            chunks.next()
        };
        file.pending.fetch_add(1, Ordering::Relaxed);
        match self.chunks.try_send(ChunkJob { file: Arc::clone(file), number, bytes }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => self.try_chunk(job),
        }
    }

    /// Stores a chunk that was handed out.
    pub fn chunk(&mut self, job: ChunkJob) {
        if self.save.stopped() {
            return;
        }
        if let Err(error) = self.try_chunk(job) {
            self.save.fail(error.into());
        }
    }

    fn try_chunk(&mut self, job: ChunkJob) -> Result<(), RepositoryError> {
        let id = store(self.save, &mut self.encoder, &job.bytes)?;
        self.recycle(job.bytes);
        job.file.chunks.lock().unwrap_or_else(PoisonError::into_inner).ready(job.number, id, 1);
        job.file.one_less(self.save, &mut self.encoder);
        Ok(())
    }

    fn buffer(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn recycle(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

impl LargeFile {
    fn one_less(&self, save: &Save, encoder: &mut Encoder) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // Without `done` the reader gave the file up, or reads it again into another one.
        let Some(done) = self.done.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let chunks = std::mem::take(&mut *self.chunks.lock().unwrap_or_else(PoisonError::into_inner));
        let content = chunks.finish().expect("no chunk is pending");
        let entry = Entry { name: done.name, kind: Kind::File { content }, attrs: done.attrs };
        let entry = save.settled(&done.place, entry);
        done.folder.ready(save, encoder, done.slot, Some(entry), false);
    }
}

/// A name in the folder that the file which was listed under the job's name has now, if it came after the folder was listed. Whoever gets it
/// is the one to read it, into the slot that comes with it.
fn new_name(save: &Save, job: &FileJob) -> Option<(Vec<u8>, usize)> {
    if job.moves == MOVES {
        return None;
    }
    let names = job.dir.names_of(job.inode).ok()?;
    names.into_iter().find_map(|name| job.folder.claim(save, &name).map(|slot| (name, slot)))
}

enum Content {
    Small((Option<Id>, u64, bool)),
    Large((Arc<LargeFile>, u64, bool)),
}

/// Whose fault it is decides what happens: a file's is listed, the repository's ends the run.
enum ReadError {
    Volume(VolumeError),
    Io(std::io::Error),
    Repository(RepositoryError),
}

impl From<VolumeError> for ReadError {
    fn from(error: VolumeError) -> Self {
        ReadError::Volume(error)
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<RepositoryError> for ReadError {
    fn from(error: RepositoryError) -> Self {
        ReadError::Repository(error)
    }
}

fn store(save: &Save, encoder: &mut Encoder, plain: &[u8]) -> Result<Id, RepositoryError> {
    let added = save.tools.writer.add(encoder, BlobKind::Data, plain)?;
    if added.stored > 0 {
        add(&save.tools.counters.new_bytes, plain.len() as u64);
        add(&save.tools.counters.stored_bytes, u64::from(added.stored));
    }
    Ok(added.id)
}
