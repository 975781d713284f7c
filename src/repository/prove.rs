//! Is everything present that some trees need? What a restore asks before it touches anything, and a seal when in doubt.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::index::{Index, Location};
use crate::repository::pack::{self, BlobKind};
use crate::repository::reader::Reader;
use crate::repository::same_file::FileId;

const IN_FLIGHT: usize = 4;
/// As many absences as a report names; the rest are counted.
const NAMED: usize = 10;
/// A chunk that shrinks more than this is a run of zeros, which a restore leaves as a hole.
const HOLE_RATIO: u64 = 1000;
const HOLE_BYTES: u64 = 64 << 10;
/// More entries than any file system holds: forty small trees, each of which names the next one twice, come to more.
const MOST_ENTRIES: u64 = 1 << 32;

/// What is below some trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Entries that are no folders.
    pub files: u64,
    /// Entries of every kind, as many as a restore would make.
    pub entries: u64,
    /// Bytes of room that the files take once restored: without holes, hard links counted once.
    pub room: u64,
    /// What is absent, in words, the first few; empty for a proof.
    pub absent: Vec<String>,
    /// How many things are absent altogether.
    pub absent_count: u64,
}

impl Proof {
    pub fn holds(&self) -> bool {
        self.absent_count == 0
    }

    fn miss(&mut self, what: String) {
        self.absent_count += 1;
        if self.absent.len() < NAMED {
            self.absent.push(what);
        }
    }
}

/// The packs that the store has and their sizes, by one list of it.
pub async fn packs_present(repository: &Repository) -> Result<HashMap<Id, u64>, RepositoryError> {
    let objects = repository.store().list("data").await?;
    Ok(objects.iter().filter_map(|object| Some((pack::id_of_key(&object.key)?, object.size))).collect())
}

/// Whether every blob below these entries is in the index, in a pack that is `present` and long enough to hold it. Trees are read and proven by their hashes; of
/// chunks no byte is read.
pub async fn prove(reader: &Reader, entries: Vec<Entry>, present: &HashMap<Id, u64>) -> Result<Proof, RepositoryError> {
    let mut proof = Proof::default();
    let mut links = HashSet::new();
    // The trees at one depth, and how many times each is there.
    let mut level = HashMap::new();
    for entry in entries {
        take(reader.index(), &entry, 1, present, &mut links, &mut level, &mut proof);
    }
    while !level.is_empty() {
        if proof.entries > MOST_ENTRIES {
            proof.miss("an end of its folders, which name each other billions of times".to_owned());
            break;
        }
        // In the order of the packs, so that neighbours come with one request.
        let mut wanted: Vec<(Location, Id, u64)> = Vec::new();
        for (id, times) in level.drain() {
            match place(reader.index(), BlobKind::Tree, &id, present) {
                Some(place) => wanted.push((place, id, times)),
                None => proof.miss(format!("tree {id}")),
            }
        }
        wanted.sort_unstable_by_key(|(place, ..)| (place.pack, place.offset));
        // Tasks of their own: opening and parsing keep all cores busy.
        let mut trees = futures::stream::iter(wanted)
            .map(|(_, id, times)| {
                let reader = reader.clone();
                tokio::spawn(async move { (id, times, reader.entries(&id).await) })
            })
            .buffered(IN_FLIGHT);
        while let Some(read) = trees.next().await {
            let (id, times, tree) = read.map_err(|_| RepositoryError::Stopped)?;
            let read = tree.and_then(|mut entries| {
                entries.try_for_each(|entry| {
                    take(reader.index(), &entry?, times, present, &mut links, &mut level, &mut proof);
                    Ok(())
                })
            });
            match read {
                Ok(()) => {}
                Err(RepositoryError::Damaged { reason, .. }) => proof.miss(format!("tree {id}, which is damaged: {reason}")),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(proof)
}

/// Takes in an entry of a tree that is there so many times.
fn take(
    index: &Index,
    entry: &Entry,
    times: u64,
    present: &HashMap<Id, u64>,
    links: &mut HashSet<FileId>,
    level: &mut HashMap<Id, u64>,
    proof: &mut Proof,
) {
    proof.entries = proof.entries.saturating_add(times);
    match &entry.kind {
        Kind::Dir { subtree: Some(subtree) } => {
            let all = level.entry(*subtree).or_default();
            *all = all.saturating_add(times);
            return;
        }
        Kind::Dir { subtree: None } => return proof.miss(format!("what is in folder {}", shown(entry))),
        _ => proof.files = proof.files.saturating_add(times),
    }
    let Kind::File { content } = &entry.kind else { return };
    let counts = FileId::of(entry).is_none_or(|file| links.insert(file));
    for run in content.runs() {
        match place(index, BlobKind::Data, &run.id, present) {
            None => proof.miss(format!("chunk {} of file {}", run.id, shown(entry))),
            Some(place) if counts => {
                let plain = place.plain();
                let is_hole = !entry.attrs.allocated && plain >= HOLE_BYTES && u64::from(place.length) < plain / HOLE_RATIO;
                let room = if is_hole { 0 } else { plain.saturating_mul(times).saturating_mul(run.count.into()) };
                proof.room = proof.room.saturating_add(room);
            }
            Some(_) => {}
        }
    }
}

fn place(index: &Index, kind: BlobKind, id: &Id, present: &HashMap<Id, u64>) -> Option<Location> {
    index
        .places(kind, id)
        .find(|place| present.get(&place.pack).is_some_and(|size| *size > u64::from(place.offset) + u64::from(place.length)))
}

fn shown(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.name).escape_debug().to_string()
}
