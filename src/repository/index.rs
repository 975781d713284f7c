//! Which blob is where: the index objects, and all of them in memory as one sorted table.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::id::Id;
use crate::repository::bundle::{self, Source};
use crate::repository::error::RepositoryError;
use crate::repository::pack::{BlobKind, PackEntry};
use crate::repository::{Listed, Repository, Unreadable};
use crate::store::ErrorKind;

/// Where index objects are.
pub const FOLDER: &str = "index";
/// A writer closes an index object at this many blobs: small enough to be made and read in little memory.
pub const FULL: usize = 16_384;
/// Rows of a table that is kept while others work: five megabytes.
const REMEMBERED: usize = 100_000;

/// The place of one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub pack: Id,
    /// Where the pack's last known blob ends: ranges up to here can be read.
    pub pack_end: u32,
    pub offset: u32,
    pub length: u32,
    pub plain_length: Option<u32>,
}

impl Location {
    /// Bytes of the blob once it is opened.
    pub fn plain(&self) -> u64 {
        u64::from(self.plain_length.unwrap_or(self.length.saturating_sub(32)))
    }
}

/// One row of the table: 48 bytes a blob.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: Id,
    /// The number of the pack, and the kind in the lowest bit.
    pack_and_kind: u32,
    offset: u32,
    length: u32,
    /// 0 where it is stored raw: no compressed blob is empty.
    plain_length: u32,
}

impl Slot {
    fn kind(&self) -> BlobKind {
        if self.pack_and_kind & 1 == 0 { BlobKind::Data } else { BlobKind::Tree }
    }
}

/// All blobs of all index objects. A blob that stands in several packs has a row for each.
#[derive(Clone, Debug, Default)]
pub struct Index {
    slots: Vec<Slot>,
    packs: Vec<Id>,
    /// Where the last blob of each pack ends that is in the table.
    ends: Vec<u32>,
    /// The index object that names each pack, by its number.
    named_by: Vec<u32>,
    /// The index objects that the table was made from.
    objects: Vec<Id>,
    /// The rows were let go: see [`Index::remembered`].
    is_outline: bool,
    loose: usize,
}

impl Index {
    /// Gets and reads every index object. Begins anew where one goes meanwhile: a prune or a repair has put others in its place before.
    pub async fn load(repository: &Repository) -> Result<Self, RepositoryError> {
        match Index::load_from(repository, Source::Originals).await? {
            (index, damaged) if damaged.is_empty() => Ok(index),
            (_, damaged) => Err(RepositoryError::damaged(format!("{FOLDER}/{}", damaged[0].id), &damaged[0].reason)),
        }
    }

    /// As [`Index::load`], but is content with copies, and leaves out objects that are damaged and tells which: what only they name is then
    /// absent. For whoever harms nothing by not knowing all, as readers do, and writers that store a chunk once more; never for what removes.
    pub async fn load_readable(repository: &Repository) -> Result<(Self, Vec<Unreadable>), RepositoryError> {
        Index::load_from(repository, Source::Copies).await
    }

    async fn load_from(repository: &Repository, source: Source) -> Result<(Self, Vec<Unreadable>), RepositoryError> {
        let mut tries = 3;
        loop {
            tries -= 1;
            let mut index = Index::default();
            let listed = repository.listed(FOLDER).await?;
            match index.read_readable(repository, (listed, source)).await {
                Ok(unreadable) => return Ok((index, unreadable)),
                Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound && tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_readable(&mut self, repository: &Repository, objects: (Vec<Listed>, Source)) -> Result<Vec<Unreadable>, RepositoryError> {
        let mut unreadable = Vec::new();
        let see = |id, packs: Result<&[(Id, Vec<PackEntry>)], RepositoryError>| match packs {
            Err(RepositoryError::Damaged { reason, .. }) => {
                tracing::debug!(index = %id, reason, "an index object is damaged, and what it names is taken for absent");
                unreadable.push(Unreadable { id, reason });
                Ok(())
            }
            packs => packs.map(|_| ()),
        };
        self.read(repository, objects, see).await?;
        unreadable.sort_by_key(|damaged| damaged.id);
        Ok(unreadable)
    }

    /// As [`Index::load`], but `see` is shown the packs of each object before they join the table, and decides about one that cannot be
    /// read: `Ok` leaves it out.
    pub async fn load_with(
        repository: &Repository,
        see: impl FnMut(Id, Result<&[(Id, Vec<PackEntry>)], RepositoryError>) -> Result<(), RepositoryError>,
    ) -> Result<Self, RepositoryError> {
        let mut index = Index::default();
        index.read(repository, (repository.listed(FOLDER).await?, Source::Originals), see).await?;
        Ok(index)
    }

    /// What [`Index::reload`] needs after other work, which is to have the memory meanwhile: a small table as it is, of a large one which packs
    /// and objects there were, but no row, so that all is read again then.
    pub fn remembered(index: Arc<Index>) -> Arc<Index> {
        if index.slots.len() <= REMEMBERED {
            return index;
        }
        Arc::new(Index {
            packs: index.packs.clone(),
            objects: index.objects.clone(),
            is_outline: true,
            loose: index.loose,
            ..Index::default()
        })
    }

    /// The same as [`Index::load_readable`] by now; reads only what has come since, unless something has gone.
    pub async fn reload(&self, repository: &Repository) -> Result<Self, RepositoryError> {
        let listed = repository.listed(FOLDER).await?;
        let known: HashSet<&Id> = self.objects.iter().collect();
        let new: Vec<Listed> = listed.iter().filter(|object| !known.contains(&object.id)).copied().collect();
        let (mut index, new) =
            if !self.is_outline && new.len() + known.len() == listed.len() { (self.clone(), new) } else { (Index::default(), listed) };
        index.read_readable(repository, (new, Source::Copies)).await?;
        Ok(index)
    }

    async fn read(
        &mut self,
        repository: &Repository,
        objects: (Vec<Listed>, Source),
        mut see: impl FnMut(Id, Result<&[(Id, Vec<PackEntry>)], RepositoryError>) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        let loose = bundle::gather(repository, FOLDER, objects, decode, |id, packs| match packs {
            Ok(packs) => {
                see(id, Ok(&packs))?;
                for (pack, entries) in packs {
                    self.push(pack, &entries);
                }
                self.objects.push(id);
                Ok(())
            }
            Err(error) => see(id, Err(error)),
        });
        let loose = loose.await?;
        self.loose += loose;
        self.sort();
        Ok(())
    }

    /// Of packs whose entries are known, from no index object.
    pub fn of_packs(packs: impl IntoIterator<Item = (Id, Vec<PackEntry>)>) -> Self {
        let mut index = Index::default();
        for (pack, entries) in packs {
            index.push(pack, &entries);
        }
        index.sort();
        index
    }

    fn push(&mut self, pack: Id, entries: &[PackEntry]) {
        let number = u32::try_from(self.packs.len()).expect("fewer than 2^31 packs") << 1;
        self.packs.push(pack);
        self.named_by.push(u32::try_from(self.objects.len()).expect("fewer index objects than packs"));
        self.ends.push(entries.iter().map(|entry| entry.offset.saturating_add(entry.length)).max().unwrap_or(0));
        self.slots.extend(entries.iter().map(|entry| Slot {
            id: entry.id,
            pack_and_kind: number | u32::from(entry.kind == BlobKind::Tree),
            offset: entry.offset,
            length: entry.length,
            plain_length: entry.plain_length.unwrap_or(0),
        }));
    }

    fn sort(&mut self) {
        // All rows of one blob stand together.
        let order = |slot: &Slot| (slot.pack_and_kind & 1, slot.pack_and_kind, slot.offset);
        self.slots.sort_unstable_by(|a, b| a.id.cmp(&b.id).then_with(|| order(a).cmp(&order(b))));
        self.slots.shrink_to_fit();
    }

    /// Every place of the blob; the first is as good as the others unless it is damaged.
    pub fn places<'a>(&'a self, kind: BlobKind, id: &'a Id) -> impl Iterator<Item = Location> + 'a {
        self.slots[self.first(id)..]
            .iter()
            .take_while(move |slot| slot.id == *id)
            .filter(move |slot| slot.kind() == kind)
            .map(|slot| self.location(slot))
    }

    /// One place of the blob.
    pub fn find(&self, kind: BlobKind, id: &Id) -> Option<Location> {
        self.places(kind, id).next()
    }

    pub fn has(&self, kind: BlobKind, id: &Id) -> bool {
        self.find(kind, id).is_some()
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The packs that the index objects name, in no order; one that two objects name is here twice.
    pub fn packs(&self) -> &[Id] {
        &self.packs
    }

    /// The index objects that the table was made from, in no order.
    pub fn objects(&self) -> &[Id] {
        &self.objects
    }

    /// How many small index objects were read one by one, and would better be bundled.
    pub fn loose(&self) -> usize {
        self.loose
    }

    /// The index objects that name any of these packs.
    pub fn objects_naming(&self, packs: &HashSet<Id>) -> HashSet<Id> {
        let named = self.packs.iter().zip(&self.named_by).filter(|(pack, _)| packs.contains(pack));
        named.filter_map(|(_, object)| self.objects.get(*object as usize).copied()).collect()
    }

    /// Every row, by id.
    pub fn rows(&self) -> impl Iterator<Item = (Id, BlobKind, Location)> + '_ {
        self.slots.iter().map(|slot| (slot.id, slot.kind(), self.location(slot)))
    }

    /// Where rows of this id stand, or would.
    fn first(&self, id: &Id) -> usize {
        // Eight bytes tell nearly all ids apart and compare as one number.
        let head = |id: &Id| u64::from_be_bytes(id.0[..8].try_into().expect("eight of 32 bytes"));
        let wanted = head(id);
        let near = self.slots.partition_point(|slot| head(&slot.id) < wanted);
        near + self.slots[near..].iter().take_while(|slot| slot.id < *id).count()
    }

    /// The number of the blob's first row: one number for each blob, wherever it stands.
    pub fn first_row(&self, kind: BlobKind, id: &Id) -> Option<u32> {
        let first = self.first(id);
        let within = self.slots[first..].iter().take_while(|slot| slot.id == *id).position(|slot| slot.kind() == kind)?;
        u32::try_from(first + within).ok()
    }

    /// The row of this number, below [`Index::row_count`].
    pub fn row(&self, row: u32) -> (Id, BlobKind, Location) {
        let slot = &self.slots[row as usize];
        (slot.id, slot.kind(), self.location(slot))
    }

    /// Rows in the table as far as they can be numbered: 2^32, which would take 200 GiB of memory.
    pub fn row_count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn location(&self, slot: &Slot) -> Location {
        Location {
            pack: self.packs[(slot.pack_and_kind >> 1) as usize],
            pack_end: self.ends[(slot.pack_and_kind >> 1) as usize],
            offset: slot.offset,
            length: slot.length,
            plain_length: (slot.plain_length != 0).then_some(slot.plain_length),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct IndexObject {
    packs: Vec<PackRecord>,
}

#[derive(Serialize, Deserialize)]
struct PackRecord {
    id: Id,
    blobs: Vec<BlobRecord>,
}

#[derive(Serialize, Deserialize)]
struct BlobRecord {
    id: Id,
    #[serde(rename = "type")]
    kind: KindName,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Data,
    Tree,
}

/// The JSON of an index object.
pub fn encode(packs: &[(Id, Vec<PackEntry>)]) -> Vec<u8> {
    let packs = packs
        .iter()
        .map(|(id, entries)| PackRecord {
            id: *id,
            blobs: entries
                .iter()
                .map(|entry| BlobRecord {
                    id: entry.id,
                    kind: match entry.kind {
                        BlobKind::Data => KindName::Data,
                        BlobKind::Tree => KindName::Tree,
                    },
                    offset: entry.offset,
                    length: entry.length,
                    uncompressed_length: entry.plain_length,
                })
                .collect(),
        })
        .collect();
    serde_json::to_vec(&IndexObject { packs }).expect("ids and numbers always serialise")
}

/// Puts index objects that describe these packs, each about as large as a writer makes them, and returns their ids.
pub async fn put_all(repository: &Repository, packs: Vec<(Id, Vec<PackEntry>)>) -> Result<Vec<Id>, RepositoryError> {
    let mut written = Vec::new();
    let mut part = Vec::new();
    let mut blobs = 0;
    for pack in packs {
        blobs += pack.1.len();
        part.push(pack);
        if blobs >= FULL {
            written.push(repository.put_sealed(FOLDER, &encode(&part)).await?);
            part.clear();
            blobs = 0;
        }
    }
    if !part.is_empty() {
        written.push(repository.put_sealed(FOLDER, &encode(&part)).await?);
    }
    Ok(written)
}

/// The packs of an index object and their entries; `Err` tells what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Vec<(Id, Vec<PackEntry>)>, String> {
    let object: IndexObject = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let entry = |blob: BlobRecord| PackEntry {
        id: blob.id,
        kind: match blob.kind {
            KindName::Data => BlobKind::Data,
            KindName::Tree => BlobKind::Tree,
        },
        offset: blob.offset,
        length: blob.length,
        // restic writes 0 for blobs that are stored raw in some versions.
        plain_length: blob.uncompressed_length.filter(|length| *length != 0),
    };
    Ok(object.packs.into_iter().map(|pack| (pack.id, pack.blobs.into_iter().map(entry).collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8, kind: BlobKind, offset: u32) -> PackEntry {
        PackEntry { id: Id([n; 32]), kind, offset, length: 100, plain_length: n.is_multiple_of(2).then_some(200) }
    }

    #[test]
    fn what_goes_into_an_index_is_found_again_and_nothing_else() {
        let packs = vec![
            (Id([0xa0; 32]), vec![entry(3, BlobKind::Data, 0), entry(2, BlobKind::Data, 100)]),
            (Id([0xb0; 32]), vec![entry(3, BlobKind::Tree, 0), entry(2, BlobKind::Data, 7)]),
        ];
        let decoded = decode(&encode(&packs)).unwrap();
        assert_eq!(decoded, packs);
        let index = Index::of_packs(decoded);
        assert_eq!(index.len(), 4);
        assert_eq!(index.find(BlobKind::Tree, &Id([3; 32])).unwrap().pack, Id([0xb0; 32]));
        assert_eq!(index.find(BlobKind::Data, &Id([3; 32])).unwrap().plain_length, None);
        assert_eq!(index.places(BlobKind::Data, &Id([2; 32])).count(), 2);
        assert!(!index.has(BlobKind::Tree, &Id([2; 32])));
        assert!(!index.has(BlobKind::Data, &Id([4; 32])));
    }

    #[tokio::test]
    async fn a_reloaded_index_knows_what_came_and_forgets_what_went() {
        use crate::repository::key::{KeyOrigin, Password};
        use crate::store::Store;
        let store = Store::memory();
        let repository = Repository::init(store.clone(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
        let object = |n: u8| encode(&[(Id([n; 32]), vec![entry(n, BlobKind::Data, 0)])]);
        let first = repository.put_sealed(FOLDER, &object(1)).await.unwrap();
        let index = Index::load(&repository).await.unwrap();
        repository.put_sealed(FOLDER, &object(2)).await.unwrap();
        let index = index.reload(&repository).await.unwrap();
        assert!(index.has(BlobKind::Data, &Id([1; 32])) && index.has(BlobKind::Data, &Id([2; 32])));
        store.delete(&[format!("{FOLDER}/{first}")]).await.unwrap();
        let index = index.reload(&repository).await.unwrap();
        assert!(!index.has(BlobKind::Data, &Id([1; 32])) && index.has(BlobKind::Data, &Id([2; 32])));
        assert_eq!(index.packs(), [Id([2; 32])]);
    }

    #[tokio::test]
    async fn a_large_index_that_was_put_aside_is_read_again_and_a_small_one_is_kept() {
        use crate::repository::key::{KeyOrigin, Password};
        use crate::store::Store;
        let repository = Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
        let packs = |number: usize| {
            let id = |n: usize| crate::repository::hash::id_of(&n.to_le_bytes());
            let blobs = (0..number).map(|n| PackEntry { id: id(n), ..entry(1, BlobKind::Data, 0) });
            [(Id([number.to_le_bytes()[0]; 32]), blobs.collect::<Vec<_>>())]
        };
        repository.put_sealed(FOLDER, &encode(&packs(10))).await.unwrap();
        let small = Arc::new(Index::load(&repository).await.unwrap());
        assert_eq!(Index::remembered(Arc::clone(&small)).len(), 10);
        repository.put_sealed(FOLDER, &encode(&packs(REMEMBERED))).await.unwrap();
        let large = Arc::new(small.reload(&repository).await.unwrap());
        let outline = Index::remembered(Arc::clone(&large));
        assert_eq!((outline.len(), outline.packs(), outline.objects()), (0, large.packs(), large.objects()));
        assert_eq!(outline.reload(&repository).await.unwrap().len(), large.len());
    }

    #[test]
    fn json_that_is_no_index_is_refused() {
        for bad in ["", "[]", "{}", r#"{"packs":[{"id":"00","blobs":[]}]}"#, r#"{"packs":[{"blobs":[]}]}"#] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
