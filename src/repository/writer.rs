//! New blobs into new packs: what many threads add at once, deduplicated, compressed, sealed, packed and put.
//!
//! Memory is bounded: one open pack of each kind, and a number of full ones that get their name or are on their way to the store; who
//! fills a pack when all of those are taken waits. A pack is in an index before [`Writer::finish`] returns, and no snapshot is made here.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::entry::Entry;
use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::codec::{self, Encoded, Encoder, LARGE, MAX_BLOB};
use crate::repository::error::RepositoryError;
use crate::repository::hash::{Message, id_beside, id_of};
use crate::repository::id_set::IdSet;
use crate::repository::index::{self, Index};
use crate::repository::pack::{self, BlobKind, PackEntry};
use crate::repository::tree;
use crate::repository::tree_blob::TreeBlob;

/// How the writer spends memory and time.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// zstd's level.
    pub level: i32,
    /// Bytes of blobs at which a pack is closed.
    pub pack_size: usize,
    /// Full packs that get their name or are on their way to the store at the same time.
    pub full_packs: usize,
}

impl WriterOptions {
    /// Packs and their number for a budget of `memory` bytes for the whole mover.
    pub fn for_memory(memory: u64) -> Self {
        let (pack_size, full_packs) = match memory >> 20 {
            0..96 => (5 << 20, 2),
            96..192 => (16 << 20, 4),
            192..512 => (16 << 20, 8),
            _ => (32 << 20, 8),
        };
        WriterOptions { level: codec::FAST, pack_size, full_packs }
    }
}

/// Tree packs are smaller: they are read by windows at the next backup's start.
const TREE_PACK: usize = 2 << 20;

/// Blobs of one pack. More tiny ones would make index objects, which hold whole packs, too large to be read in little memory.
const MOST_BLOBS: usize = index::FULL;
const _: () = assert!(MOST_BLOBS <= pack::MAX_ENTRIES);

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    pub id: Id,
    /// Bytes that it takes in a pack; 0 where the repository had it already.
    pub stored: u32,
}

/// All that a writer put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub packs: Vec<Id>,
    pub indexes: Vec<Id>,
    /// Bytes of the packs.
    pub bytes: u64,
}

/// Adds blobs from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    repository: Repository,
    known: Arc<Index>,
    /// Packs of `known` that are as good as gone.
    avoided: HashSet<Id>,
    options: WriterOptions,
    runtime: Handle,
    /// Blobs that this writer took on, by kind.
    fresh: [Mutex<IdSet>; 2],
    open: [Mutex<OpenPack>; 2],
    /// Full packs whose names are still to be hashed: that rides along with the hashing of blobs.
    unnamed: Mutex<Vec<Unnamed>>,
    room: Arc<Semaphore>,
    /// Buffers of packs that have been put, for the next ones.
    buffers: Mutex<Vec<BytesMut>>,
    outcome: Mutex<Outcome>,
    failed: AtomicBool,
}

#[derive(Default)]
struct OpenPack {
    body: BytesMut,
    entries: Vec<PackEntry>,
}

/// A full pack with its header, hashed in part.
struct Unnamed {
    body: BytesMut,
    entries: Vec<PackEntry>,
    message: Message,
    room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Outcome {
    written: Written,
    unindexed: Vec<(Id, Vec<PackEntry>)>,
    error: Option<RepositoryError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panicking thread fails the run anyway; what it leaves behind here is whole.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Writer {
    /// `known` are the blobs that need not be stored again. Must be made within a tokio runtime, which does the uploads.
    pub fn new(repository: &Repository, known: Arc<Index>, options: WriterOptions) -> Self {
        Writer::avoiding(repository, known, HashSet::new(), options)
    }

    /// As [`Writer::new`], but blobs that are `known` in packs of `avoided` alone are stored again.
    pub fn avoiding(repository: &Repository, known: Arc<Index>, avoided: HashSet<Id>, options: WriterOptions) -> Self {
        Writer {
            shared: Arc::new(Shared {
                repository: repository.clone(),
                known,
                avoided,
                options,
                runtime: Handle::current(),
                fresh: Default::default(),
                open: Default::default(),
                unnamed: Mutex::default(),
                room: Arc::new(Semaphore::new(options.full_packs)),
                buffers: Mutex::default(),
                outcome: Mutex::default(),
                failed: AtomicBool::new(false),
            }),
        }
    }

    /// The tools that each adding thread needs.
    pub fn encoder(&self) -> Result<Encoder, RepositoryError> {
        Encoder::new(self.shared.repository.master_key(), self.shared.options.level)
    }

    /// Stores the blob unless the repository or this writer has it. Blocks while there is no room for another full pack: for threads
    /// outside of the runtime only.
    pub fn add(&self, encoder: &mut Encoder, kind: BlobKind, plain: &[u8]) -> Result<Added, RepositoryError> {
        let shared = &self.shared;
        if shared.failed.load(Ordering::Relaxed) {
            return Err(RepositoryError::Stopped);
        }
        if plain.len() > MAX_BLOB {
            let what = format!("a {} of {} bytes", if kind == BlobKind::Tree { "folder's tree" } else { "chunk" }, plain.len());
            return Err(RepositoryError::Refused { what, reason: "no reader takes one of more than 1 GiB".to_owned() });
        }
        let id = self.id_of(plain);
        let mut places = shared.known.places(kind, &id);
        if places.any(|place| !shared.avoided.contains(&place.pack)) || !lock(&shared.fresh[kind as usize]).insert(id) {
            return Ok(Added { id, stored: 0 });
        }
        let (encoded, sealed) = encoder.encode(plain)?;
        self.push(id, kind, encoded, sealed)?;
        Ok(Added { id, stored: encoded.length })
    }

    /// A tree that is made entry by entry, for [`Writer::add_tree`].
    pub fn tree(&self) -> Result<TreeBlob, RepositoryError> {
        TreeBlob::new(self.shared.options.level)
    }

    /// Stores a tree of these entries, sorted by name, as [`Writer::add`] does: in little memory, however many chunks their files have. Tells
    /// how many bytes it has, too.
    pub fn add_entries(&self, encoder: &mut Encoder, entries: &[Entry]) -> Result<(Added, u64), RepositoryError> {
        if entries.iter().map(tree::text_size).sum::<u64>() <= LARGE {
            let plain = tree::encode(entries);
            return Ok((self.add(encoder, BlobKind::Tree, &plain)?, plain.len() as u64));
        }
        let mut blob = self.tree()?;
        entries.iter().try_for_each(|entry| blob.push(entry))?;
        self.add_tree(blob)
    }

    /// Stores the tree unless the repository or this writer has it, and tells how many bytes it has. A large one gets a pack of its own. Blocks
    /// as [`Writer::add`] does.
    pub fn add_tree(&self, tree: TreeBlob) -> Result<(Added, u64), RepositoryError> {
        let shared = &self.shared;
        if shared.failed.load(Ordering::Relaxed) {
            return Err(RepositoryError::Stopped);
        }
        let (id, encoded, sealed) = tree.finish(&shared.repository.master_key().cipher())?;
        let mut places = shared.known.places(BlobKind::Tree, &id);
        if places.any(|place| !shared.avoided.contains(&place.pack)) || !lock(&shared.fresh[BlobKind::Tree as usize]).insert(id) {
            return Ok((Added { id, stored: 0 }, 0));
        }
        let Encoded { length, plain_length } = encoded;
        if sealed.len() < TREE_PACK {
            self.push(id, BlobKind::Tree, encoded, &sealed)?;
        } else {
            let entries = vec![PackEntry { id, kind: BlobKind::Tree, offset: 0, length, plain_length }];
            let body = Bytes::from(sealed).try_into_mut().unwrap_or_else(|sealed| BytesMut::from(&sealed[..]));
            self.send_off(OpenPack { body, entries })?;
        }
        Ok((Added { id, stored: length }, plain_length.unwrap_or(length).into()))
    }

    /// Stores a blob as some pack has it, without asking who else has it. Whoever calls this has proven that these bytes open as `id`.
    /// Blocks as [`Writer::add`] does.
    pub fn add_sealed(&self, id: Id, kind: BlobKind, plain_length: Option<u32>, sealed: &[u8]) -> Result<(), RepositoryError> {
        if self.shared.failed.load(Ordering::Relaxed) {
            return Err(RepositoryError::Stopped);
        }
        let length = u32::try_from(sealed.len()).map_err(|_| RepositoryError::damaged(format!("blob {id}"), "it has more than 4 GiB"))?;
        self.push(id, kind, Encoded { length, plain_length }, sealed)
    }

    fn push(&self, id: Id, kind: BlobKind, encoded: Encoded, sealed: &[u8]) -> Result<(), RepositoryError> {
        let shared = &self.shared;
        let Encoded { length, plain_length } = encoded;
        let full = {
            let mut open = lock(&shared.open[kind as usize]);
            if open.body.capacity() == 0 {
                open.body = lock(&shared.buffers).pop().unwrap_or_default();
            }
            let offset = u32::try_from(open.body.len()).expect("packs stay below 4 GiB");
            open.body.extend_from_slice(sealed);
            open.entries.push(PackEntry { id, kind, offset, length, plain_length });
            let target = if kind == BlobKind::Tree { TREE_PACK.min(shared.options.pack_size) } else { shared.options.pack_size };
            let is_full = open.body.len() >= target || open.entries.len() >= MOST_BLOBS;
            is_full.then(|| std::mem::take(&mut *open))
        };
        full.map_or(Ok(()), |full| self.send_off(full))
    }

    /// Closes a full pack and leaves it to be named and put.
    fn send_off(&self, full: OpenPack) -> Result<(), RepositoryError> {
        let shared = &self.shared;
        let room = match Arc::clone(&shared.room).try_acquire_owned() {
            Ok(room) => room,
            Err(_) => {
                // Packs that wait for their names take room too, and only threads like this one give them names.
                self.name_one();
                shared.runtime.block_on(Arc::clone(&shared.room).acquire_owned()).map_err(|_| RepositoryError::Stopped)?
            }
        };
        let unnamed = self.close(full, room)?;
        lock(&shared.unnamed).push(unnamed);
        Ok(())
    }

    /// The blob's id, while a full pack's name is hashed along with it.
    fn id_of(&self, plain: &[u8]) -> Id {
        /// Below this, looking for a pack costs more than it saves.
        const WORTH_IT: usize = 16 << 10;
        let unnamed = if plain.len() < WORTH_IT { None } else { lock(&self.shared.unnamed).pop() };
        let Some(mut unnamed) = unnamed else { return id_of(plain) };
        let id = id_beside(plain, &mut unnamed.message, &unnamed.body);
        if unnamed.body.len() - unnamed.message.taken() < WORTH_IT {
            self.upload(unnamed);
        } else {
            lock(&self.shared.unnamed).push(unnamed);
        }
        id
    }

    fn name_one(&self) {
        let unnamed = lock(&self.shared.unnamed).pop();
        if let Some(unnamed) = unnamed {
            self.upload(unnamed);
        }
    }

    fn close(&self, open: OpenPack, room: OwnedSemaphorePermit) -> Result<Unnamed, RepositoryError> {
        let mut body = open.body;
        body.extend_from_slice(&pack::encode_header(&open.entries, &self.shared.repository.master_key().cipher())?);
        Ok(Unnamed { body, entries: open.entries, message: Message::default(), room })
    }

    fn upload(&self, unnamed: Unnamed) {
        let id = unnamed.message.finish(&unnamed.body);
        let writer = self.clone();
        self.shared.runtime.spawn(async move {
            if let Err(error) = writer.put(id, unnamed.body.freeze(), unnamed.entries).await {
                writer.shared.failed.store(true, Ordering::Relaxed);
                lock(&writer.shared.outcome).error.get_or_insert(error);
            }
            drop(unnamed.room);
        });
    }

    async fn put(&self, id: Id, body: Bytes, entries: Vec<PackEntry>) -> Result<(), RepositoryError> {
        let size = body.len() as u64;
        self.shared.repository.store().put_new(&pack::key(&id), body.clone()).await?;
        // A large tree's is not worth its memory.
        if size <= 2 * self.shared.options.pack_size as u64
            && let Ok(mut buffer) = body.try_into_mut()
        {
            buffer.clear();
            lock(&self.shared.buffers).push(buffer);
        }
        let full = {
            let mut outcome = lock(&self.shared.outcome);
            outcome.written.packs.push(id);
            outcome.written.bytes += size;
            outcome.unindexed.push((id, entries));
            let blobs: usize = outcome.unindexed.iter().map(|(_, entries)| entries.len()).sum();
            (blobs >= index::FULL).then(|| std::mem::take(&mut outcome.unindexed))
        };
        match full {
            Some(packs) => self.put_index(&packs).await,
            None => Ok(()),
        }
    }

    async fn put_index(&self, packs: &[(Id, Vec<PackEntry>)]) -> Result<(), RepositoryError> {
        let id = self.shared.repository.put_sealed(index::FOLDER, &index::encode(packs)).await?;
        lock(&self.shared.outcome).written.indexes.push(id);
        Ok(())
    }

    /// Puts what is still open, waits for every upload and puts the index. After this everything that was added can be read; after an
    /// error nothing refers to what was put.
    pub async fn finish(self) -> Result<Written, RepositoryError> {
        let shared = &self.shared;
        for unnamed in std::mem::take(&mut *lock(&shared.unnamed)) {
            self.upload(unnamed);
        }
        for open in &shared.open {
            let open = std::mem::take(&mut *lock(open));
            if !open.entries.is_empty() && !shared.failed.load(Ordering::Relaxed) {
                let room = Arc::clone(&shared.room).acquire_owned().await.map_err(|_| RepositoryError::Stopped)?;
                self.upload(self.close(open, room)?);
            }
        }
        let all = u32::try_from(shared.options.full_packs).expect("a few packs");
        drop(shared.room.acquire_many(all).await.map_err(|_| RepositoryError::Stopped)?);
        let rest = {
            let mut outcome = lock(&shared.outcome);
            if let Some(error) = outcome.error.take() {
                return Err(error);
            }
            std::mem::take(&mut outcome.unindexed)
        };
        if !rest.is_empty() {
            self.put_index(&rest).await?;
        }
        Ok(std::mem::take(&mut lock(&shared.outcome).written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::key::{KeyOrigin, Password};
    use crate::repository::reader::Reader;
    use crate::store::Store;

    async fn repository() -> Repository {
        Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn blobs_of_many_threads_are_stored_once_and_come_back() {
        let repository = repository().await;
        let options = WriterOptions { level: 1, pack_size: 100_000, full_packs: 2 };
        let writer = Writer::new(&repository, Arc::default(), options);
        let blob = |n: usize| format!("blob {n} ").repeat(n * 7 + 1).into_bytes();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let writer = writer.clone();
                std::thread::spawn(move || {
                    let mut encoder = writer.encoder().unwrap();
                    (0..200).map(|n| u64::from(writer.add(&mut encoder, BlobKind::Data, &blob(n)).unwrap().stored)).sum::<u64>()
                })
            })
            .collect();
        let stored: u64 = tokio::task::spawn_blocking(|| threads.into_iter().map(|thread| thread.join().unwrap()).sum()).await.unwrap();
        let written = writer.finish().await.unwrap();
        assert!(written.bytes > stored && written.bytes < stored + 20_000 + 64 * written.packs.len() as u64);
        let index = Arc::new(Index::load(&repository).await.unwrap());
        assert_eq!(index.len(), 200);
        let reader = Reader::new(&repository, index);
        for n in 0..200 {
            assert_eq!(reader.chunk(&id_of(&blob(n))).await.unwrap(), blob(n));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_repository_has_is_not_stored_again_and_kinds_are_kept_apart() {
        let repository = repository().await;
        let options = WriterOptions { level: 1, pack_size: 100_000, full_packs: 1 };
        let writer = Writer::new(&repository, Arc::default(), options);
        let add = |writer: Writer, kind| {
            tokio::task::spawn_blocking(move || writer.add(&mut writer.encoder().unwrap(), kind, b"{\"nodes\":[]}\n").unwrap())
        };
        assert!(add(writer.clone(), BlobKind::Data).await.unwrap().stored > 0);
        assert!(add(writer.clone(), BlobKind::Tree).await.unwrap().stored > 0);
        assert_eq!(writer.finish().await.unwrap().packs.len(), 2);
        let index = Arc::new(Index::load(&repository).await.unwrap());
        let writer = Writer::new(&repository, Arc::clone(&index), options);
        assert_eq!(add(writer.clone(), BlobKind::Data).await.unwrap().stored, 0);
        assert_eq!(writer.finish().await.unwrap(), Written::default());
        assert_eq!(Reader::new(&repository, index).tree(&id_of(b"{\"nodes\":[]}\n")).await.unwrap(), []);
    }
}
