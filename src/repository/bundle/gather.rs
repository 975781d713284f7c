//! Reads all objects of a folder, with as few requests as bundles allow.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::Semaphore;

use crate::model::id::Id;
use crate::repository::bundle::{LOOSE, SMALL, bundles, open};
use crate::repository::error::RepositoryError;
use crate::repository::{Listed, Repository};
use crate::store::ErrorKind;

/// Requests at the same time: what is waited for is the store's answer, not its bytes.
const REQUESTS: u64 = 32;
/// Stored KiB on their way at the same time, so that many large objects take no more memory than two did.
const ROOM: u64 = 2 << 10;
/// Bundles that are read at the same time: one is got while another is opened.
const BUNDLES: usize = 2;

/// Where objects are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From bundles where they have them: a copy is as good as its original for whoever reads.
    Copies,
    /// Each by itself: for whoever looks after the originals.
    Originals,
}

/// Reads the `listed` objects of `folder`, and hands each to `see`, in no order: as what `parse` makes of its plain bytes, or as the error that
/// it is. An error of `see` ends it. Returns how many small objects were read by themselves.
pub async fn gather<T: Send + 'static>(
    repository: &Repository,
    folder: &'static str,
    (listed, source): (Vec<Listed>, Source),
    parse: fn(&[u8]) -> Result<T, String>,
    mut see: impl FnMut(Id, Result<T, RepositoryError>) -> Result<(), RepositoryError>,
) -> Result<usize, RepositoryError> {
    let reading = Reading { repository: repository.clone(), folder, parse };
    let mut rest: BTreeMap<Id, u64> = listed.into_iter().map(|object| (object.id, object.size)).collect();
    let small = |rest: &BTreeMap<Id, u64>| rest.values().filter(|size| **size <= SMALL).count();
    if source == Source::Copies && small(&rest) >= LOOSE {
        let wanted: Arc<HashSet<Id>> = Arc::new(rest.keys().copied().collect());
        let keys = match bundles(repository, folder).await {
            Err(RepositoryError::Store(error)) if error.kind == ErrorKind::Denied => Vec::new(),
            listed => listed?.into_iter().map(|object| object.key).collect(),
        };
        let mut copies =
            futures::stream::iter(keys).map(|key| tokio::spawn(reading.clone().bundle(key, Arc::clone(&wanted)))).buffer_unordered(BUNDLES);
        while let Some(read) = copies.next().await {
            for (id, parsed) in read.map_err(|_| RepositoryError::Stopped)?? {
                if rest.remove(&id).is_some() {
                    see(id, parsed)?;
                }
            }
        }
    }
    let loose = small(&rest);
    let room = Arc::new(Semaphore::new(ROOM as usize));
    // Tasks of their own: opening and parsing keep all cores busy.
    let mut objects = futures::stream::iter(rest)
        .map(|(id, size)| {
            let (reading, room) = (reading.clone(), Arc::clone(&room));
            tokio::spawn(async move {
                let share = (size >> 10).clamp(ROOM / REQUESTS, ROOM) as u32;
                let held = room.acquire_many_owned(share).await;
                (id, reading.original(id).await, held)
            })
        })
        .buffer_unordered(REQUESTS as usize);
    while let Some(read) = objects.next().await {
        let (id, parsed, _held) = read.map_err(|_| RepositoryError::Stopped)?;
        see(id, parsed)?;
    }
    Ok(loose)
}

struct Reading<T> {
    repository: Repository,
    folder: &'static str,
    parse: fn(&[u8]) -> Result<T, String>,
}

impl<T> Clone for Reading<T> {
    fn clone(&self) -> Self {
        Reading { repository: self.repository.clone(), ..*self }
    }
}

impl<T> Reading<T> {
    async fn original(self, id: Id) -> Result<T, RepositoryError> {
        let plain = self.repository.get_sealed(self.folder, &id).await?;
        self.parsed(id, &plain)
    }

    fn parsed(&self, id: Id, plain: &[u8]) -> Result<T, RepositoryError> {
        (self.parse)(plain).map_err(|reason| RepositoryError::damaged(format!("{}/{id}", self.folder), reason))
    }

    /// What is wanted of a bundle; nothing where it went meanwhile or is damaged, since the originals are there.
    async fn bundle(self, key: String, wanted: Arc<HashSet<Id>>) -> Result<Vec<(Id, Result<T, RepositoryError>)>, RepositoryError> {
        let objects = match open(&self.repository, &key).await {
            Ok(objects) => objects,
            Err(RepositoryError::Store(error)) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Archived) => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::debug!(%error, "a bundle is passed over");
                return Ok(Vec::new());
            }
        };
        let wanted = objects.into_iter().filter(|(id, _)| wanted.contains(id));
        let read = wanted.map(|(id, sealed)| {
            let plain = self.repository.unseal(self.folder, &id, &sealed);
            (id, plain.and_then(|plain| self.parsed(id, &plain)))
        });
        Ok(read.collect())
    }
}
