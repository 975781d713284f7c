//! Which packs may go, and which are worth writing anew? A pure decision.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::model::id::Id;
use crate::repository::error::RepositoryError;
use crate::repository::index::{Index, Location};
use crate::repository::pack;
use crate::repository::reach::Rows;

/// What is known of the repository.
pub struct Inventory<'a> {
    pub index: &'a Index,
    /// The blobs that snapshots need, by their first rows.
    pub needed: &'a Rows,
    /// The packs that the store lists, and their sizes.
    pub present: &'a HashMap<Id, u64>,
    /// Packs to leave alone this time, whatever is in them.
    pub spared: &'a HashSet<Id>,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Percent of what is left that may be unused; 100 and more repacks nothing.
    pub max_unused: f64,
    /// Bytes of packs that may be repacked.
    pub max_repack: Option<u64>,
}

/// Packs, and bytes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    pub packs: u64,
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// Packs of which nothing is needed, among them such as the index names and the store does not have.
    pub unused: Vec<Id>,
    /// Packs that no index object names.
    pub orphans: Vec<Id>,
    /// Packs to be written anew with what is needed of them.
    pub repack: Vec<Id>,
    /// The rows by which the needed blobs of those are read, each blob once.
    pub live: Vec<u32>,
    pub figures: Figures,
}

/// The decision in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// All packs that are there.
    pub all: Amount,
    /// Packs of which nothing is needed.
    pub unused: Amount,
    /// Packs that no index object names.
    pub orphans: Amount,
    /// Packs to be written anew.
    pub repack: Amount,
    /// What is needed of those.
    pub live_bytes: u64,
    /// Unused bytes that stay, since they are few.
    pub left_bytes: u64,
}

impl Figures {
    /// Bytes that are gained once all is done.
    pub fn gain(&self) -> u64 {
        (self.unused.bytes + self.orphans.bytes + self.repack.bytes).saturating_sub(self.live_bytes)
    }
}

#[derive(Clone, Copy, Default)]
struct Use {
    kept: u64,
    unused: u64,
}

/// Decides. Of a blob that stands in several packs one copy is kept, where most else is kept. An error names a pack that snapshots need and
/// that is not there in full: then nothing must be removed.
pub fn plan(inventory: &Inventory, limits: Limits) -> Result<PrunePlan, RepositoryError> {
    let (packs, kept) = judge(inventory)?;
    let size = |id: &Id| inventory.present.get(id).copied().unwrap_or_default();
    let mut plan = PrunePlan::default();
    let mut kept_bytes = 0;
    let mut left = 0;
    let mut worst: Vec<(Id, Use)> = Vec::new();
    for (id, used) in &packs {
        kept_bytes += used.kept;
        if inventory.spared.contains(id) {
            continue;
        }
        if used.kept == 0 {
            plan.unused.push(*id);
            if inventory.present.contains_key(id) {
                plan.figures.unused.add(size(id));
            }
        } else if used.unused > 0 {
            left += used.unused;
            worst.push((*id, *used));
        }
    }
    plan.orphans = inventory.present.keys().filter(|id| !packs.contains_key(id) && !inventory.spared.contains(id)).copied().collect();
    plan.orphans.sort_unstable();
    plan.orphans.iter().for_each(|id| plan.figures.orphans.add(size(id)));

    let share = |used: &Use| used.unused as f64 / (used.unused + used.kept) as f64;
    worst.sort_by(|(a, x), (b, y)| share(y).total_cmp(&share(x)).then(a.cmp(b)));
    let allowed = allowed(kept_bytes, limits.max_unused);
    for (id, used) in worst {
        let bytes = plan.figures.repack.bytes + size(&id);
        if left <= allowed || limits.max_repack.is_some_and(|most| bytes > most) {
            continue;
        }
        left -= used.unused;
        plan.figures.repack.add(size(&id));
        plan.figures.live_bytes += used.kept;
        plan.repack.push(id);
    }
    let repacked: HashSet<&Id> = plan.repack.iter().collect();
    plan.live = kept.iter().filter(|row| repacked.contains(&inventory.index.row(*row).2.pack)).collect();
    plan.figures.all = Amount { packs: inventory.present.len() as u64, bytes: inventory.present.values().sum() };
    plan.figures.left_bytes = left;
    Ok(plan)
}

/// Unused bytes that may stay beside so many used ones.
fn allowed(used: u64, percent: f64) -> u64 {
    if percent >= 100.0 {
        return u64::MAX;
    }
    let percent = percent.max(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor, but for absurd sizes, too large")]
    let bytes = (used as f64 * percent / (100.0 - percent)) as u64;
    bytes
}

/// What of each pack is kept, and the rows of all blobs that are.
fn judge(inventory: &Inventory) -> Result<(BTreeMap<Id, Use>, Rows), RepositoryError> {
    let index = inventory.index;
    let mut packs: BTreeMap<Id, Use> = index.packs().iter().map(|id| (*id, Use::default())).collect();
    let mut kept = Rows::none(index);
    let mut choices: Vec<(u32, u32)> = Vec::new();
    let mut at = 0;
    while at < index.row_count() {
        let end = end_of_blob(index, at);
        let places = distinct(index, at, end);
        let mut usable = places.iter().filter(|(_, place)| is_there(inventory, place));
        match (inventory.needed.has(at), usable.next(), usable.next()) {
            (false, ..) => settle(&mut packs, &mut kept, &places, None),
            (true, Some((row, _)), None) => settle(&mut packs, &mut kept, &places, Some(*row)),
            (true, Some(_), Some(_)) => choices.push((at, end)),
            (true, None, _) => {
                let (id, kind, place) = index.row(at);
                let reason = format!("it is gone or ends too early, and {} {id}, which snapshots need, is nowhere else", kind.name());
                return Err(RepositoryError::damaged(format!("pack {}", place.pack), reason));
            }
        }
        at = end;
    }
    // Only now is it known where most is kept.
    for (at, end) in choices {
        let places = distinct(index, at, end);
        let usable = places.iter().filter(|(_, place)| is_there(inventory, place));
        let best = usable.max_by_key(|(_, place)| (packs.get(&place.pack).map_or(0, |used| used.kept), std::cmp::Reverse(place.pack)));
        settle(&mut packs, &mut kept, &places, best.map(|(row, _)| *row));
    }
    Ok((packs, kept))
}

/// The row after the last one of the blob whose first row is `at`.
fn end_of_blob(index: &Index, at: u32) -> u32 {
    let (id, kind, _) = index.row(at);
    (at..index.row_count()).find(|row| (index.row(*row).0, index.row(*row).1) != (id, kind)).unwrap_or(index.row_count())
}

/// The places of a blob; one that two index objects name counts once.
fn distinct(index: &Index, at: u32, end: u32) -> Vec<(u32, Location)> {
    let mut places: Vec<(u32, Location)> = Vec::with_capacity(1);
    for row in at..end {
        let (_, _, place) = index.row(row);
        if !places.iter().any(|(_, known)| (known.pack, known.offset) == (place.pack, place.offset)) {
            places.push((row, place));
        }
    }
    places
}

fn is_there(inventory: &Inventory, place: &Location) -> bool {
    inventory.present.get(&place.pack).is_some_and(|size| *size > u64::from(place.offset) + u64::from(place.length))
}

/// One place of a blob is kept, or none; the others are room that is wasted.
fn settle(packs: &mut BTreeMap<Id, Use>, kept: &mut Rows, places: &[(u32, Location)], best: Option<u32>) {
    for (row, place) in places {
        let used = packs.entry(place.pack).or_default();
        let share = pack::share(place.length, place.plain_length);
        if best == Some(*row) {
            used.kept += share;
            kept.insert(*row);
        } else {
            used.unused += share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::pack::{BlobKind, PackEntry};
    use proptest::prelude::*;

    /// Packs of blobs by number; a blob may stand in several packs, and a pack may be described twice.
    fn index(packs: &[Vec<u8>]) -> (Index, HashMap<Id, u64>) {
        let described: Vec<(Id, Vec<PackEntry>)> = packs
            .iter()
            .enumerate()
            .map(|(number, blobs)| {
                let entry = |(at, blob): (usize, &u8)| PackEntry {
                    id: Id([*blob; 32]),
                    kind: if blob % 5 == 0 { BlobKind::Tree } else { BlobKind::Data },
                    offset: at as u32 * 1000,
                    length: 1000,
                    plain_length: None,
                };
                (Id([number as u8; 32]), blobs.iter().enumerate().map(entry).collect())
            })
            .collect();
        let present = described.iter().map(|(id, entries)| (*id, pack::size_of(entries))).collect();
        let twice = described.iter().filter(|(id, _)| id.0[0] % 7 == 3).cloned().collect::<Vec<_>>();
        (Index::of_packs(described.into_iter().chain(twice)), present)
    }

    fn needed(index: &Index, blobs: impl IntoIterator<Item = u8>) -> Rows {
        let mut rows = Rows::none(index);
        for blob in blobs {
            let first = [BlobKind::Data, BlobKind::Tree].into_iter().find_map(|kind| index.first_row(kind, &Id([blob; 32])));
            first.map(|row| rows.insert(row));
        }
        rows
    }

    proptest! {
        #[test]
        fn each_needed_blob_stays_or_is_written_anew_once_and_limits_are_kept(
            packs in prop::collection::vec(prop::collection::btree_set(0u8..60, 1..8).prop_map(|set| set.into_iter().collect::<Vec<u8>>()), 1..30),
            wanted in prop::collection::btree_set(0u8..60, 0..60),
            orphans in 0u8..3,
            max_unused in 0f64..110.0,
            max_repack in prop::option::of(0u64..40_000),
        ) {
            let (index, mut present) = index(&packs);
            present.extend((0..orphans).map(|n| (Id([200 + n; 32]), 5000)));
            let rows = needed(&index, wanted.iter().copied());
            let inventory = Inventory { index: &index, needed: &rows, present: &present, spared: &HashSet::new() };
            let plan = plan(&inventory, Limits { max_unused, max_repack }).unwrap();
            let going: HashSet<&Id> = plan.unused.iter().chain(&plan.orphans).chain(&plan.repack).collect();
            prop_assert_eq!(going.len(), plan.unused.len() + plan.orphans.len() + plan.repack.len(), "no pack goes twice");
            prop_assert_eq!(plan.orphans.len(), usize::from(orphans));
            let mut copied = HashSet::new();
            for row in &plan.live {
                let (id, _, place) = index.row(*row);
                prop_assert!(plan.repack.contains(&place.pack) && copied.insert(id) && wanted.contains(&id.0[0]));
            }
            for row in rows.iter() {
                let (id, kind, _) = index.row(row);
                let stays = index.places(kind, &id).any(|place| !going.contains(&place.pack));
                prop_assert!(stays || copied.contains(&id), "{:?} is lost", id);
            }
            for id in &plan.unused {
                let needed_here = index.rows().any(|(blob, kind, place)| {
                    place.pack == *id && rows.has(index.first_row(kind, &blob).unwrap()) && index.places(kind, &blob).all(|at| at.pack == *id)
                });
                prop_assert!(!needed_here);
            }
            prop_assert!(max_repack.is_none_or(|most| plan.figures.repack.bytes <= most));
            if max_repack.is_none() {
                let used: u64 = 1037 * rows.iter().count() as u64;
                prop_assert!(plan.figures.left_bytes <= allowed(used, max_unused));
            }
        }
    }

    #[test]
    fn a_pack_that_is_gone_stops_everything_if_it_is_needed_and_leaves_the_index_if_not() {
        let (index, mut present) = index(&[vec![1, 2], vec![3]]);
        present.remove(&Id([0; 32]));
        let limits = Limits { max_unused: 0.0, max_repack: None };
        let spared = HashSet::new();
        let decide = |rows: &Rows| plan(&Inventory { index: &index, needed: rows, present: &present, spared: &spared }, limits);
        let refused = decide(&needed(&index, [2, 3])).unwrap_err();
        assert!(refused.to_string().contains("it is gone or ends too early"), "{refused}");
        let plan = decide(&needed(&index, [3])).unwrap();
        assert_eq!((plan.unused, plan.figures.unused), (vec![Id([0; 32])], Amount::default()));
    }

    #[test]
    fn the_worst_packs_are_written_anew_first_and_spared_ones_are_left_alone() {
        let (index, present) = index(&[vec![1, 2, 3, 4], vec![6, 7, 8, 9], vec![11, 12, 13, 14], vec![16, 17]]);
        let rows = needed(&index, [1, 2, 3, 6, 11, 12]);
        let decide = |spared: &[Id], max_unused| {
            let spared: HashSet<Id> = spared.iter().copied().collect();
            let inventory = Inventory { index: &index, needed: &rows, present: &present, spared: &spared };
            let plan = plan(&inventory, Limits { max_unused, max_repack: None }).unwrap();
            (plan.repack, plan.unused)
        };
        let id = |n: u8| Id([n; 32]);
        assert_eq!(decide(&[], 0.0), (vec![id(1), id(2), id(0)], vec![id(3)]));
        assert_eq!(decide(&[], 34.0), (vec![id(1)], vec![id(3)]));
        assert_eq!(decide(&[id(1), id(3)], 0.0), (vec![id(2), id(0)], vec![]));
    }
}
