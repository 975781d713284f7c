//! Single blobs back out of packs: trees through a few cached windows of their packs, chunks one by one.
//!
//! Trees of one backup lie next to each other in the order of the walk, so that a walk through them needs few requests. Whoever reads
//! many chunks reads them in the order of packs instead (`repository::read_plan`).

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::model::entry::Entry;
use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::codec::{self, Decoder, LARGE, MAX_BLOB};
use crate::repository::crypto::OVERHEAD;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;
use crate::repository::index::{Index, Location};
use crate::repository::pack::{self, BlobKind};

/// Bytes of one window, and windows kept.
const WINDOW: u64 = 512 << 10;
const WINDOWS: usize = 6;

/// Reads blobs that an index knows. Cheap to clone: clones share their windows.
#[derive(Clone)]
pub struct Reader {
    repository: Repository,
    index: Arc<Index>,
    windows: Arc<Mutex<Vec<(Id, u64, Bytes)>>>,
    decoders: Arc<Mutex<Vec<Decoder>>>,
}

impl Reader {
    pub fn new(repository: &Repository, index: Arc<Index>) -> Self {
        Reader { repository: repository.clone(), index, windows: Arc::default(), decoders: Arc::default() }
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The entries of a tree, sorted by name, in a list: for folders that are known to be small.
    pub async fn tree(&self, id: &Id) -> Result<Vec<Entry>, RepositoryError> {
        self.entries(id).await?.collect_all()
    }

    /// The entries of a tree of any size.
    pub async fn entries(&self, id: &Id) -> Result<Entries, RepositoryError> {
        self.opened(BlobKind::Tree, id, |decoder, sealed, plain_length| Entries::open(decoder, id, sealed, plain_length)).await
    }

    /// Whether the tree is one that [`Reader::entries`] gives while it is unpacked.
    pub fn is_large(&self, id: &Id) -> bool {
        self.index.find(BlobKind::Tree, id).is_some_and(|place| place.plain() > LARGE)
    }

    /// The bytes of a chunk.
    pub async fn chunk(&self, id: &Id) -> Result<Vec<u8>, RepositoryError> {
        self.blob(BlobKind::Data, id).await
    }

    /// A blob's plain bytes, proven by their hash. Bytes that came wrong are got once more; where the blob stands in several packs and one
    /// of them is damaged or gone, the next is tried.
    pub async fn blob(&self, kind: BlobKind, id: &Id) -> Result<Vec<u8>, RepositoryError> {
        self.opened(kind, id, |decoder, mut sealed, plain_length| Ok(decoder.decode(id, &mut sealed, plain_length)?.to_vec())).await
    }

    /// What `open` makes of a blob: of the first of its places where that succeeds.
    async fn opened<T>(
        &self,
        kind: BlobKind,
        id: &Id,
        open: impl Fn(&mut Decoder, Vec<u8>, Option<u32>) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let mut failure = RepositoryError::Missing { kind: kind.name(), id: *id };
        for place in self.index.places(kind, id) {
            let mut tried = self.opened_at(kind, id, place, &open).await;
            if let Err(RepositoryError::Damaged { .. }) = tried {
                self.windows.lock().unwrap_or_else(PoisonError::into_inner).retain(|(pack, ..)| *pack != place.pack);
                tried = self.opened_at(kind, id, place, &open).await;
            }
            match tried {
                Ok(opened) => return Ok(opened),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn opened_at<T>(
        &self,
        kind: BlobKind,
        id: &Id,
        place: Location,
        open: &impl Fn(&mut Decoder, Vec<u8>, Option<u32>) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        if !(OVERHEAD..=MAX_BLOB + OVERHEAD).contains(&(place.length as usize)) {
            return Err(RepositoryError::damaged(format!("blob {id}"), format_args!("the index claims {} bytes for it", place.length)));
        }
        let claim = place.plain_length.map_or(Ok(()), |plain| codec::check_claim(kind, place.length, plain));
        claim.map_err(|reason| RepositoryError::damaged(format!("blob {id}"), reason))?;
        let (start, end) = (u64::from(place.offset), u64::from(place.offset) + u64::from(place.length));
        let mut sealed = Vec::new();
        if kind == BlobKind::Tree && u64::from(place.length) <= WINDOW {
            sealed.reserve_exact(place.length as usize);
            for number in start / WINDOW..=(end - 1) / WINDOW {
                let window = self.window(place, number).await?;
                let base = number * WINDOW;
                let part = start.max(base) - base..end.min(base + WINDOW) - base;
                let bytes = usize::try_from(part.start).ok().zip(usize::try_from(part.end).ok());
                let bytes = bytes.and_then(|(from, to)| window.get(from..to));
                let cut = || RepositoryError::damaged(format!("pack {}", place.pack), "it ends before its last blob");
                sealed.extend_from_slice(bytes.ok_or_else(cut)?);
            }
        } else {
            sealed = self.repository.store().get_range(&pack::key(&place.pack), start..end).await?.into();
        }
        let pool = || self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = pool().pop();
        let mut decoder = match spare {
            Some(decoder) => decoder,
            None => Decoder::new(self.repository.master_key())?,
        };
        let opened = open(&mut decoder, sealed, place.plain_length)?;
        pool().push(decoder);
        Ok(opened)
    }

    async fn window(&self, place: Location, number: u64) -> Result<Bytes, RepositoryError> {
        let windows = || self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut windows = windows();
            if let Some(at) = windows.iter().position(|(pack, n, _)| *pack == place.pack && *n == number) {
                windows[..=at].rotate_right(1);
                return Ok(windows[0].2.clone());
            }
        }
        let range = number * WINDOW..((number + 1) * WINDOW).min(u64::from(place.pack_end));
        let bytes = self.repository.store().get_range(&pack::key(&place.pack), range).await?;
        let mut windows = windows();
        windows.truncate(WINDOWS - 1);
        windows.insert(0, (place.pack, number, bytes.clone()));
        Ok(bytes)
    }
}
