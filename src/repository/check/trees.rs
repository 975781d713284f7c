//! Every tree of the repository, read once in the order of packs; then, in memory, what the snapshots reach and what they lack there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use crate::model::entry::Kind;
use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::check::layout::Bad;
use crate::repository::check::report::{Findings, Marks};
use crate::repository::check::unreadable;
use crate::repository::codec::{Decoder, MAX_BLOB, check_claim};
use crate::repository::crypto::OVERHEAD;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::pack;
use crate::repository::pack::BlobKind;

/// Bytes read with one request, and unwanted ones between two trees that are read along rather than asked for twice.
const SPAN: u64 = 4 << 20;
const GAP: u64 = 64 << 10;

/// A tree as far as this question goes. Trees are called by the number of their first row in the index.
#[derive(Debug, Default)]
struct Tree {
    children: Vec<u32>,
    /// Findings that its own chunks suffer from.
    marks: Marks,
    /// Its own files of which some bytes cannot be had.
    lost_files: u32,
    /// Its own folders whose trees are in no index.
    lacked_folders: u32,
    /// Blobs that are in no index.
    lacks: Vec<(BlobKind, Id)>,
}

/// All trees, and which of them cannot be had.
#[derive(Debug, Default)]
pub(super) struct Forest {
    good: HashMap<u32, Tree>,
    broken: HashMap<u32, Marks>,
    /// Of each tree that a snapshot reaches.
    sums: HashMap<u32, Sum>,
}

/// What a tree suffers from, and everything below it.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    marks: Marks,
    lost_files: u64,
    lost_folders: u64,
}

/// Neighbouring trees of a pack.
struct Stretch {
    pack: Id,
    bytes: Range<u64>,
    rows: Vec<u32>,
}

impl Forest {
    /// Reads and decodes every tree, also those that no snapshot reaches.
    pub(super) async fn read(
        repository: &Repository,
        index: &Arc<Index>,
        bad: &Arc<Bad>,
        workers: usize,
        findings: &mut Findings,
    ) -> Result<Forest, RepositoryError> {
        let mut forest = Forest::default();
        let rows = (0..index.row_count()).filter(|row| index.row(*row).1 == BlobKind::Tree);
        let (lost, mut rows): (Vec<u32>, Vec<u32>) = rows.partition(|row| marks_at(index, bad, *row) != 0);
        for row in lost {
            forest.break_tree(index, row, marks_at(index, bad, row));
        }
        rows.sort_unstable_by_key(|row| {
            let (_, _, place) = index.row(*row);
            (place.pack, place.offset)
        });
        let read = |stretch: Stretch| {
            let (repository, index, bad) = (repository.clone(), Arc::clone(index), Arc::clone(bad));
            async move {
                let bytes = match repository.store().get_range(&pack::key(&stretch.pack), stretch.bytes.clone()).await {
                    Ok(bytes) => Ok(bytes),
                    Err(error) => Err(unreadable(error)?),
                };
                let work = tokio::task::spawn_blocking(move || match bytes {
                    Ok(bytes) => decode(&repository, &index, &bad, &stretch, &bytes),
                    Err(reason) => Ok(stretch.rows.into_iter().map(|row| (row, Err(reason.clone()))).collect()),
                });
                work.await.map_err(|_| RepositoryError::Stopped)?
            }
        };
        let mut results = futures::stream::iter(stretches(index, &rows)).map(read).buffer_unordered(workers * 2);
        while let Some(trees) = results.try_next().await? {
            for (row, tree) in trees {
                forest.add(index, row, tree, findings);
            }
        }
        drop(results);
        for row in forest.good.keys() {
            forest.broken.remove(row);
        }
        Ok(forest)
    }

    fn add(&mut self, index: &Index, row: u32, tree: Result<Tree, String>, findings: &mut Findings) {
        match tree {
            Ok(tree) => {
                let (id, _, _) = index.row(row);
                self.good.insert(index.first_row(BlobKind::Tree, &id).unwrap_or(row), tree);
            }
            Err(reason) => {
                let (id, _, place) = index.row(row);
                let mark = findings.damage(format!("tree {id}"), format!("in {}: {reason}", pack::key(&place.pack)));
                self.break_tree(index, row, mark);
            }
        }
    }

    fn break_tree(&mut self, index: &Index, row: u32, marks: Marks) {
        let (id, _, _) = index.row(row);
        *self.broken.entry(index.first_row(BlobKind::Tree, &id).unwrap_or(row)).or_default() |= marks;
    }

    pub(super) fn len(&self) -> usize {
        self.good.len()
    }

    /// The tree can be read.
    pub(super) fn has(&self, index: &Index, id: &Id) -> bool {
        index.first_row(BlobKind::Tree, id).is_some_and(|row| self.good.contains_key(&row))
    }

    /// Files and folders that are lost in a tree that some snapshot reaches, and below it; one folder where that is the tree itself.
    pub(super) fn lost(&self, index: &Index, id: &Id) -> (u64, u64) {
        match index.first_row(BlobKind::Tree, id).filter(|row| self.good.contains_key(row)) {
            Some(row) => self.sums.get(&row).map_or((0, 0), |sum| (sum.lost_files, sum.lost_folders)),
            None => (0, 1),
        }
    }

    /// Follows every snapshot's tree down, reports what is missing on the way, and tells each finding the snapshots that it touches. What is
    /// missing may have been named by index objects that cannot be read, whose marks are `unread`. Returns how many blobs are missing.
    pub(super) fn judge(&mut self, index: &Index, roots: &[(Id, Id)], unread: Marks, findings: &mut Findings) -> u64 {
        let mut missing: HashMap<(BlobKind, Id), Marks> = HashMap::new();
        let mut miss = |kind: BlobKind, id: Id, findings: &mut Findings| {
            let what = "it is in no index, though snapshots need it";
            *missing.entry((kind, id)).or_insert_with(|| unread | findings.damage(format!("{} {id}", kind.name()), what))
        };
        let mut todo = Vec::new();
        let mut starts = Vec::new();
        for (snapshot, root) in roots {
            match index.first_row(BlobKind::Tree, root) {
                Some(row) => {
                    todo.push(row);
                    starts.push((*snapshot, row));
                }
                None => {
                    let marks = miss(BlobKind::Tree, *root, findings);
                    findings.touch(*snapshot, marks);
                }
            }
        }
        let mut reached = HashSet::new();
        while let Some(row) = todo.pop() {
            if !reached.insert(row) {
                continue;
            }
            if let Some(tree) = self.good.get_mut(&row) {
                todo.extend(&tree.children);
                for (kind, id) in std::mem::take(&mut tree.lacks) {
                    tree.marks |= miss(kind, id, findings);
                }
            }
        }
        let mut sums = HashMap::new();
        for (snapshot, row) in starts {
            let marks = self.sum(row, &mut sums).marks;
            if marks != 0 {
                findings.touch(snapshot, marks);
            }
        }
        self.sums = sums;
        missing.len() as u64
    }

    /// What a tree and all below it suffer from. Not recursive: repositories may be deep, and hostile.
    fn sum(&self, root: u32, sums: &mut HashMap<u32, Sum>) -> Sum {
        let mut path = vec![(root, 0usize)];
        while let Some((row, next)) = path.last_mut() {
            let row = *row;
            let child = self.good.get(&row).and_then(|tree| tree.children.get(*next));
            *next += 1;
            match child {
                _ if sums.contains_key(&row) => {
                    path.pop();
                }
                Some(child) if !sums.contains_key(child) => path.push((*child, 0)),
                Some(_) => {}
                None => {
                    let sum = match self.good.get(&row) {
                        None => Sum { marks: self.broken.get(&row).copied().unwrap_or_default(), lost_files: 0, lost_folders: 1 },
                        Some(tree) => {
                            let lacked = tree.lacked_folders.into();
                            let own = Sum { marks: tree.marks, lost_files: tree.lost_files.into(), lost_folders: lacked };
                            tree.children.iter().fold(own, |all, child| {
                                let child = sums.get(child).copied().unwrap_or_default();
                                Sum {
                                    marks: all.marks | child.marks,
                                    lost_files: all.lost_files.saturating_add(child.lost_files),
                                    lost_folders: all.lost_folders.saturating_add(child.lost_folders),
                                }
                            })
                        }
                    };
                    sums.insert(row, sum);
                    path.pop();
                }
            }
        }
        sums.get(&root).copied().unwrap_or_default()
    }
}

fn marks_at(index: &Index, bad: &Bad, row: u32) -> Marks {
    let (_, _, place) = index.row(row);
    bad.place(place.pack, place.offset, place.length)
}

/// Cuts rows, sorted by place, into what single requests fetch.
fn stretches(index: &Index, rows: &[u32]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for row in rows {
        let (_, _, place) = index.row(*row);
        // What claims to be longer than any blob is asked for up to the limit, and then does not decode.
        let length = u64::from(place.length).min((MAX_BLOB + OVERHEAD) as u64);
        let bytes = u64::from(place.offset)..u64::from(place.offset) + length;
        match stretches.last_mut() {
            Some(last)
                if last.pack == place.pack && bytes.start <= last.bytes.end + GAP && bytes.end.saturating_sub(last.bytes.start) <= SPAN =>
            {
                last.bytes.end = last.bytes.end.max(bytes.end);
                last.rows.push(*row);
            }
            _ => stretches.push(Stretch { pack: place.pack, bytes, rows: vec![*row] }),
        }
    }
    stretches
}

type Decoded = Vec<(u32, Result<Tree, String>)>;

fn decode(repository: &Repository, index: &Index, bad: &Bad, stretch: &Stretch, bytes: &[u8]) -> Result<Decoded, RepositoryError> {
    let mut decoder = Decoder::new(repository.master_key())?;
    let decode_row = |row: &u32| {
        let (id, _, place) = index.row(*row);
        let tree = usize::try_from(u64::from(place.offset) - stretch.bytes.start)
            .ok()
            .and_then(|from| bytes.get(from..from.checked_add(place.length as usize)?))
            .ok_or_else(|| "its pack ends before it".to_owned())
            .and_then(|sealed| place.plain_length.map_or(Ok(()), |plain| check_claim(BlobKind::Tree, place.length, plain)).map(|()| sealed))
            .and_then(|sealed| match Entries::open(&mut decoder, &id, sealed.to_vec(), place.plain_length) {
                Ok(entries) => grow(index, bad, entries),
                Err(RepositoryError::Damaged { reason, .. }) => Err(reason),
                Err(error) => Err(error.to_string()),
            });
        (*row, tree)
    };
    Ok(stretch.rows.iter().map(decode_row).collect())
}

fn grow(index: &Index, bad: &Bad, entries: Entries) -> Result<Tree, String> {
    let mut grown = Tree::default();
    // Each once: a tree can name the same few again and again.
    let mut lacks = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        match entry.kind {
            Kind::File { content } => {
                let mut whole = true;
                for id in content.runs().iter().map(|run| run.id) {
                    match bad.of(index, BlobKind::Data, &id) {
                        Some(0) => continue,
                        Some(marks) => grown.marks |= marks,
                        None => {
                            lacks.insert((BlobKind::Data, id));
                        }
                    }
                    whole = false;
                }
                grown.lost_files += u32::from(!whole);
            }
            Kind::Dir { subtree: Some(id) } => match index.first_row(BlobKind::Tree, &id) {
                Some(row) => grown.children.push(row),
                None => {
                    grown.lacked_folders += 1;
                    lacks.insert((BlobKind::Tree, id));
                }
            },
            Kind::Dir { subtree: None } => {
                return Err(format!("the folder `{}` in it has no tree", String::from_utf8_lossy(&entry.name).escape_debug()));
            }
            Kind::Symlink { .. } | Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {}
        }
    }
    grown.lacks = lacks.into_iter().collect();
    Ok(grown)
}
