//! Packs read whole: name, header and every blob proven.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::model::id::Id;
use crate::monitor::{Event, Monitor};
use crate::repository::Repository;
use crate::repository::check::layout::{Bad, Facts};
use crate::repository::check::report::{CheckReport, Findings};
use crate::repository::check::unreadable;
use crate::repository::codec::Decoder;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::pack;
use crate::repository::pack::PackEntry;

/// Bytes got with one request: most packs are smaller.
const WINDOW: u64 = 16 << 20;

/// The share of packs that a run reads: a window of the ids, which are as good as random. Runs with consecutive seeds read consecutive
/// windows, so that `100 / percent` of them read every pack. At least one pack is chosen, and at 100 percent all are.
pub(super) fn choose(packs: Vec<(Id, Facts)>, percent: f64, seed: u64) -> Vec<(Id, Facts)> {
    if percent >= 100.0 || packs.is_empty() {
        return packs;
    }
    let place = |id: &Id| u64::from_be_bytes(id.0[..8].try_into().expect("eight of 32 bytes"));
    // 2^64 places; the width stays clear of 0 and of the whole.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the product is between 0 and 2^64, and casts saturate")]
    let width = ((percent.max(0.0) / 100.0) * 2f64.powi(64)) as u64;
    let start = seed.wrapping_mul(width);
    let chosen: Vec<_> = packs.iter().filter(|(id, _)| place(id).wrapping_sub(start) < width).copied().collect();
    if chosen.is_empty() { packs.into_iter().min_by_key(|(id, _)| place(id).wrapping_sub(start)).into_iter().collect() } else { chosen }
}

/// Reads the packs, as many at a time as there are workers; what is wrong goes into the findings, and lost blobs into `bad`.
pub(super) async fn read(
    repository: &Repository,
    index: &Arc<Index>,
    packs: Vec<(Id, Facts)>,
    workers: usize,
    findings: &mut Findings,
    bad: &mut Bad,
    report: &mut CheckReport,
    monitor: &dyn Monitor,
) -> Result<(), RepositoryError> {
    let total = packs.len();
    let mut told = 0;
    let read = |(id, facts)| read_pack(repository.clone(), Arc::clone(index), id, facts);
    let mut results = futures::stream::iter(packs).map(read).buffer_unordered(workers + 1);
    let mut done = 0;
    while let Some((id, facts, outcome)) = results.try_next().await? {
        match outcome {
            Ok(()) => report.bytes_read += facts.size,
            Err(Wrong { what, lost }) => {
                let marks = findings.damage(pack::key(&id), what);
                for offset in lost {
                    bad.blob(id, offset, marks);
                }
            }
        }
        report.packs_read += 1;
        done += 1;
        if done * 20 / total > told {
            told = done * 20 / total;
            monitor.event(Event::Step(format!("read {done} of {total} packs")));
        }
    }
    Ok(())
}

/// Reads packs that have another size than they should, and puts what they lack into `bad`: their beginning may be good, or nothing.
pub(super) async fn read_cut(repository: &Repository, index: &Arc<Index>, workers: usize, bad: &mut Bad) -> Result<(), RepositoryError> {
    let read = |(id, size)| read_blobs(repository.clone(), Arc::clone(index), id, size);
    let mut results = futures::stream::iter(bad.take_cut()).map(read).buffer_unordered(workers + 1);
    while let Some((id, lost)) = results.try_next().await? {
        let marks = bad.pack(&id);
        for offset in lost {
            bad.blob(id, offset, marks);
        }
    }
    Ok(())
}

/// The offsets of the pack's blobs, as the index has them, that its `size` bytes do not hold.
async fn read_blobs(repository: Repository, index: Arc<Index>, id: Id, size: u64) -> Result<(Id, Vec<u32>), RepositoryError> {
    let entries = entries_of(&index, &id);
    let all = || entries.iter().map(|entry| entry.offset).collect();
    let mut scan = Scan::of(&repository, entries.clone(), None)?;
    let mut at = 0;
    while at < size {
        let end = (at + WINDOW).min(size);
        match repository.store().get_range(&pack::key(&id), at..end).await {
            Ok(bytes) => scan = scan.pushed(bytes).await?,
            Err(error) => {
                unreadable(error)?;
                return Ok((id, all()));
            }
        }
        at = end;
    }
    Ok((id, scan.finish(&id).err().map(|wrong| wrong.lost).unwrap_or_default()))
}

/// Reads a pack whole. `Some` says what is wrong with its blobs, which are those of its header: by offset, without gaps.
pub(in crate::repository) async fn damage(
    repository: &Repository,
    id: &Id,
    size: u64,
    entries: Vec<PackEntry>,
) -> Result<Option<String>, RepositoryError> {
    let mut scan = Scan::of(repository, entries, None)?;
    let mut at = 0;
    while at < size {
        let end = (at + WINDOW).min(size);
        scan = scan.pushed(repository.store().get_range(&pack::key(id), at..end).await?).await?;
        at = end;
    }
    Ok(scan.finish(id).err().map(|wrong| wrong.what))
}

/// What is wrong with a pack.
struct Wrong {
    what: String,
    /// Offsets of blobs that are not to be had.
    lost: Vec<u32>,
}

type Outcome = (Id, Facts, Result<(), Wrong>);

async fn read_pack(repository: Repository, index: Arc<Index>, id: Id, facts: Facts) -> Result<Outcome, RepositoryError> {
    let key = pack::key(&id);
    let gone = |reason: String, index: &Index| Wrong { what: reason, lost: entries_of(index, &id).iter().map(|e| e.offset).collect() };
    let header = match repository.store().get_range(&key, facts.header_at..facts.size).await {
        Ok(header) => header,
        Err(error) => return Ok((id, facts, Err(gone(unreadable(error)?, &index)))),
    };
    let mut scan = Scan::new(&repository, &index, id, facts, &header)?;
    let mut at = 0;
    while at < facts.size {
        let end = (at + WINDOW).min(facts.size);
        let bytes = match repository.store().get_range(&key, at..end).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok((id, facts, Err(gone(unreadable(error)?, &index)))),
        };
        scan = scan.pushed(bytes).await?;
        at = end;
    }
    Ok((id, facts, scan.finish(&id)))
}

/// What the index says of one pack, by offset.
fn entries_of(index: &Index, id: &Id) -> Vec<PackEntry> {
    let rows = index.rows().filter(|(_, _, place)| place.pack == *id);
    let mut entries: Vec<PackEntry> = rows
        .map(|(id, kind, place)| PackEntry { id, kind, offset: place.offset, length: place.length, plain_length: place.plain_length })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.offset);
    entries.dedup();
    entries
}

/// One pack on its way through: fed in pieces, so that a pack of any size needs the memory of its largest blob.
struct Scan {
    hash: Sha256,
    decoder: Decoder,
    /// By offset, without gaps.
    entries: Vec<PackEntry>,
    next: usize,
    /// Bytes of the entry `next` so far.
    pending: Vec<u8>,
    header: Option<String>,
    lost: Vec<u32>,
    reason: Option<String>,
}

impl Scan {
    fn new(repository: &Repository, index: &Index, id: Id, facts: Facts, header: &[u8]) -> Result<Self, RepositoryError> {
        let listed =
            header
                .last_chunk()
                .ok_or_else(|| "it has no header".to_owned())
                .and_then(|last| pack::header_size(*last, facts.size))
                .and_then(|size| {
                    if size == header.len() { Ok(()) } else { Err(format!("its header has {size} bytes instead of {}", header.len())) }
                })
                .and_then(|()| pack::decode_header(header, facts.header_at, &repository.master_key().cipher()))
                .map_err(|reason| format!("its header is damaged: {reason}"))
                .and_then(|entries| {
                    if agree(index, &id, facts, &entries) { Ok(entries) } else { Err("its header and the index disagree".to_owned()) }
                });
        // Restores go by the index; without a good header, so does this. It costs a walk through the whole index.
        let (entries, header) = match listed {
            Ok(entries) => (entries, None),
            Err(reason) => (entries_of(index, &id), Some(reason)),
        };
        Scan::of(repository, entries, header)
    }

    fn of(repository: &Repository, entries: Vec<PackEntry>, header: Option<String>) -> Result<Self, RepositoryError> {
        Ok(Scan {
            hash: Sha256::new(),
            decoder: Decoder::new(repository.master_key())?,
            entries,
            next: 0,
            pending: Vec::new(),
            header,
            lost: Vec::new(),
            reason: None,
        })
    }

    /// Takes in more of the pack, on a thread that may be kept busy.
    async fn pushed(mut self, bytes: bytes::Bytes) -> Result<Self, RepositoryError> {
        let work = tokio::task::spawn_blocking(move || {
            self.push(&bytes);
            self
        });
        work.await.map_err(|_| RepositoryError::Stopped)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(entry) = self.entries.get(self.next)
            && let Some(sealed) = self.pending.get_mut(at..at + entry.length as usize)
        {
            if let Err(error) = self.decoder.prove(&entry.id, sealed, entry.plain_length) {
                self.lost.push(entry.offset);
                let reason = match error {
                    RepositoryError::Damaged { what, reason } => format!("{what}: {reason}"),
                    error => error.to_string(),
                };
                self.reason.get_or_insert(reason);
            }
            at += entry.length as usize;
            self.next += 1;
        }
        if self.next == self.entries.len() {
            self.pending.clear();
        } else {
            self.pending.drain(..at);
        }
    }

    fn finish(mut self, id: &Id) -> Result<(), Wrong> {
        self.lost.extend(self.entries[self.next..].iter().map(|entry| entry.offset));
        let mut wrongs = Vec::new();
        if let Some(reason) = self.reason {
            wrongs.push(format!("{} of its {} blobs are damaged, the first: {reason}", self.lost.len(), self.entries.len()));
        }
        wrongs.extend(self.header);
        if wrongs.is_empty() && Id(self.hash.finalize().into()) != *id {
            wrongs.push("its bytes are not those that its name says".to_owned());
        }
        if wrongs.is_empty() && !self.lost.is_empty() {
            wrongs.push("it ends before its last blob".to_owned());
        }
        if wrongs.is_empty() { Ok(()) } else { Err(Wrong { what: wrongs.join("; "), lost: self.lost }) }
    }
}

/// The header lists exactly what the index says of the pack.
fn agree(index: &Index, id: &Id, facts: Facts, entries: &[PackEntry]) -> bool {
    entries.len() == facts.blobs as usize
        && entries.iter().all(|entry| {
            index.places(entry.kind, &entry.id).any(|place| {
                let same = (place.offset, place.length, place.plain_length) == (entry.offset, entry.length, entry.plain_length);
                place.pack == *id && same
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FACTS: Facts = Facts { blobs: 1, header_at: 40, size: 113, hash: Id([0; 32]) };

    proptest! {
        #[test]
        fn consecutive_runs_read_every_pack(ids in prop::collection::btree_set(any::<[u8; 32]>(), 1..50), percent in 1f64..100.0, seed in any::<u32>()) {
            let packs: Vec<_> = ids.iter().map(|id| (Id(*id), FACTS)).collect();
            let runs = (100.0 / percent).ceil() as u64;
            let mut read = std::collections::BTreeSet::new();
            for run in 0..=runs {
                let chosen = choose(packs.clone(), percent, u64::from(seed) + run);
                prop_assert!(!chosen.is_empty());
                read.extend(chosen.into_iter().map(|(id, _)| id.0));
            }
            prop_assert_eq!(read, ids);
        }
    }

    #[test]
    fn all_packs_are_read_at_a_hundred_percent_and_about_a_tenth_at_ten() {
        let packs: Vec<_> = (0..1000u32).map(|n| (Id(Sha256::digest(n.to_be_bytes()).into()), FACTS)).collect();
        assert_eq!(choose(packs.clone(), 100.0, 7).len(), 1000);
        let tenth = choose(packs.clone(), 10.0, 7).len();
        assert!((60..140).contains(&tenth), "{tenth}");
        assert_eq!(choose(packs, 0.0, 7).len(), 1);
    }
}
