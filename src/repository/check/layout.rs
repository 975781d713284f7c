//! Is each pack there as the index describes it? Names and sizes only; no pack is read.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use crate::model::id::Id;
use crate::repository::check::report::{Findings, Marks};
use crate::repository::codec::MAX_BLOB;
use crate::repository::crypto::OVERHEAD;
use crate::repository::index::Index;
use crate::repository::pack;
use crate::repository::pack::{BlobKind, PackEntry};
use crate::store::Object;

/// What the index says of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub blobs: u32,
    /// Where its blobs end and its header begins.
    pub header_at: u64,
    pub size: u64,
    /// Hash of all that is said: two descriptions are the same or not.
    pub hash: Id,
}

/// Gathers what the index objects say of packs, while they are loaded.
#[derive(Debug, Default)]
pub(super) struct Layout {
    packs: BTreeMap<Id, Option<Facts>>,
    /// Packs of which the index says what cannot be, or two things.
    lies: HashMap<Id, Marks>,
}

/// Places whose blobs are not to be had.
#[derive(Debug, Default)]
pub(super) struct Bad {
    /// Blobs of these packs are lost where they end after so many bytes.
    packs: HashMap<Id, (Marks, u64)>,
    /// By pack and offset.
    blobs: HashMap<(Id, u32), Marks>,
    /// Packs that have another size than they should, with that size.
    cut: Vec<(Id, u64)>,
}

impl Bad {
    /// Packs that have another size than they should, with that size: what of them is good can only be told by reading.
    pub(super) fn take_cut(&mut self) -> Vec<(Id, u64)> {
        std::mem::take(&mut self.cut)
    }

    /// The finding about a pack as a whole.
    pub(super) fn pack(&self, id: &Id) -> Marks {
        self.packs.get(id).map_or(0, |(marks, _)| *marks)
    }

    pub(super) fn blob(&mut self, pack: Id, offset: u32, marks: Marks) {
        *self.blobs.entry((pack, offset)).or_default() |= marks;
    }

    /// The marks of one place; 0 where nothing bad is known of it.
    pub(super) fn place(&self, pack: Id, offset: u32, length: u32) -> Marks {
        let lost = |(marks, usable): &(Marks, u64)| if u64::from(offset) + u64::from(length) > *usable { *marks } else { 0 };
        self.packs.get(&pack).map_or(0, lost) | self.blobs.get(&(pack, offset)).copied().unwrap_or_default()
    }

    /// The marks of a blob; 0 where one of its places is good, `None` where it has none.
    pub(super) fn of(&self, index: &Index, kind: BlobKind, id: &Id) -> Option<Marks> {
        let mut all = None;
        for place in index.places(kind, id) {
            let marks = self.place(place.pack, place.offset, place.length);
            if marks == 0 {
                return Some(0);
            }
            all = Some(all.unwrap_or_default() | marks);
        }
        all
    }
}

impl Layout {
    /// Takes in what one index object says.
    pub(super) fn see(&mut self, object: &Id, packs: &[(Id, Vec<PackEntry>)], findings: &mut Findings) {
        for (id, entries) in packs {
            let key = pack::key(id);
            let mut lie = |findings: &mut Findings, what: String| *self.lies.entry(*id).or_default() |= findings.damage(&key, what);
            let facts = match facts(entries) {
                Ok(facts) => Some(facts),
                Err(reason) => {
                    lie(findings, format!("index/{object} describes it wrongly: {reason}"));
                    None
                }
            };
            if facts.is_some() && entries.iter().any(|entry| entry.kind != entries[0].kind) {
                findings.note(&key, "it holds chunks and trees, as repositories of version 1 had them");
            }
            match self.packs.get(id) {
                None => {
                    self.packs.insert(*id, facts);
                }
                Some(known) if *known == facts => findings.note(&key, format!("index/{object} and another index object describe it")),
                Some(_) => {
                    lie(findings, format!("index/{object} and another index object describe it differently"));
                    self.packs.insert(*id, None);
                }
            }
        }
    }

    /// Compares with what the store lists below `data/`. `all_read` says that every index object could be read.
    pub(super) fn compare(&self, listed: &[Object], all_read: bool, findings: &mut Findings) -> Bad {
        let mut sizes = HashMap::with_capacity(listed.len());
        for object in listed {
            match pack::id_of_key(&object.key).filter(|id| pack::key(id) == object.key) {
                Some(id) => {
                    sizes.insert(id, object.size);
                }
                None => findings.note(&object.key, "it is no pack; keepset passes it over, but other programs may stumble over it"),
            }
        }
        let mut bad = Bad::default();
        // What is not known to be where it is said to be counts as lost.
        bad.packs.extend(self.lies.iter().map(|(id, marks)| (*id, (*marks, 0))));
        for (id, facts) in &self.packs {
            let key = pack::key(id);
            let (what, usable) = match (sizes.get(id), facts) {
                (None, _) => ("it is gone".to_owned(), 0),
                (Some(0), _) => ("it is empty".to_owned(), 0),
                (Some(size), Some(facts)) if *size != facts.size => {
                    bad.cut.push((*id, *size));
                    (format!("it has {size} bytes instead of {}", facts.size), *size)
                }
                _ => continue,
            };
            let lost = bad.packs.entry(*id).or_insert((0, usable));
            *lost = (lost.0 | findings.damage(key, what), lost.1.min(usable));
        }
        for id in sizes.keys().filter(|id| !self.packs.contains_key(id)) {
            let what = if all_read {
                "it is in no index: left by an interrupted backup or a prune, or of a backup that runs now"
            } else {
                "it is in no index that can be read: `keepset repair index` looks into it"
            };
            findings.note(pack::key(id), what);
        }
        bad
    }

    /// Packs that are there as they should be, by id.
    pub(super) fn sound<'a>(&'a self, bad: &'a Bad) -> impl Iterator<Item = (Id, Facts)> + 'a {
        self.packs.iter().filter(|(id, _)| !bad.packs.contains_key(*id)).filter_map(|(id, facts)| Some((*id, (*facts)?)))
    }

    pub(super) fn len(&self) -> usize {
        self.packs.len()
    }
}

/// Blobs must stand one after the other from the first byte on: so the size follows from them.
fn facts(entries: &[PackEntry]) -> Result<Facts, String> {
    let mut sorted: Vec<&PackEntry> = entries.iter().collect();
    sorted.sort_unstable_by_key(|entry| entry.offset);
    let mut end = 0u64;
    let mut hash = Sha256::new();
    for entry in &sorted {
        if u64::from(entry.offset) != end {
            let how = if u64::from(entry.offset) > end { "a gap" } else { "an overlap" };
            return Err(format!("there is {how} at byte {end}"));
        }
        let too_long = |length: u32| length as usize > MAX_BLOB + OVERHEAD;
        if (entry.length as usize) < OVERHEAD || too_long(entry.length) || entry.plain_length.is_some_and(too_long) {
            return Err(format!("no blob is as short or as long as the one at byte {end}"));
        }
        end += u64::from(entry.length);
        hash.update(entry.id.0);
        hash.update([u8::from(entry.kind == BlobKind::Tree), u8::from(entry.plain_length.is_some())]);
        hash.update(entry.length.to_le_bytes());
        hash.update(entry.plain_length.unwrap_or_default().to_le_bytes());
    }
    match u32::try_from(entries.len()) {
        Ok(blobs) if blobs > 0 => Ok(Facts { blobs, header_at: end, size: pack::size_of(entries), hash: Id(hash.finalize().into()) }),
        _ => Err("it lists no blobs".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u32, length: u32) -> PackEntry {
        PackEntry { id: Id([1; 32]), kind: BlobKind::Data, offset, length, plain_length: None }
    }

    #[test]
    fn blobs_must_fill_a_pack_without_gaps_and_overlaps_whatever_their_order() {
        let good = facts(&[entry(40, 50), entry(0, 40)]).unwrap();
        assert_eq!((good.blobs, good.header_at, good.size), (2, 90, 90 + 2 * 37 + 36));
        assert_eq!(facts(&[entry(0, 40), entry(40, 50)]).unwrap(), good);
        assert_ne!(facts(&[entry(0, 40), PackEntry { id: Id([2; 32]), ..entry(40, 50) }]).unwrap(), good);
        for bad in [
            vec![],
            vec![entry(1, 40)],
            vec![entry(0, 40), entry(41, 40)],
            vec![entry(0, 40), entry(39, 40)],
            vec![entry(0, 40), entry(0, 40)],
            vec![entry(0, 31)],
            vec![entry(0, u32::MAX)],
            vec![PackEntry { plain_length: Some(u32::MAX), ..entry(0, 40) }],
        ] {
            assert!(facts(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_blob_is_lost_only_if_each_of_its_places_is_bad() {
        let (one, two) = (Id([1; 32]), Id([2; 32]));
        let index = Index::of_packs([(one, vec![entry(0, 40), entry(40, 40)]), (two, vec![entry(0, 40)])]);
        let mut bad = Bad::default();
        bad.packs.insert(one, (1, 50));
        assert_eq!(bad.of(&index, BlobKind::Data, &Id([1; 32])), Some(0));
        assert_eq!((bad.place(one, 0, 40), bad.place(one, 40, 40)), (0, 1));
        bad.blob(one, 0, 2);
        bad.blob(two, 0, 4);
        assert_eq!(bad.of(&index, BlobKind::Data, &Id([1; 32])), Some(7));
        assert_eq!(bad.of(&index, BlobKind::Tree, &Id([1; 32])), None);
    }
}
