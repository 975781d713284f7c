//! Folders under way: each waits for its entries, in whatever order they get ready, then becomes a tree and an entry of its parent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::mover::counters::add;
use crate::mover::save::Save;
use crate::repository::codec::Encoder;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::tree;

/// A folder whose entries are being saved.
pub struct Folder {
    /// The parent and this folder's place in it; `None` for the volume's root.
    parent: Option<(Arc<Folder>, usize)>,
    /// The folder itself, without its subtree.
    entry: Entry,
    /// What the previous point has in this place.
    before: Option<Before>,
    slots: Mutex<Vec<Option<Entry>>>,
    /// Entries that are not ready, and one for the walk while it is in the folder.
    pending: AtomicUsize,
    changed: AtomicBool,
}

/// The same folder in the previous point.
pub struct Before {
    /// Its entry there; `None` for the volume's root.
    pub entry: Option<Entry>,
    pub tree: Id,
    /// How many entries it had.
    pub count: usize,
}

impl Folder {
    /// A folder of `count` entries.
    pub fn new(parent: Option<(Arc<Folder>, usize)>, entry: Entry, before: Option<Before>, count: usize) -> Arc<Self> {
        let changed = before.as_ref().is_none_or(|before| before.count != count);
        Arc::new(Folder {
            parent,
            entry,
            before,
            slots: Mutex::new(vec![None; count]),
            pending: AtomicUsize::new(count + 1),
            changed: AtomicBool::new(changed),
        })
    }

    /// The entry at `slot` is ready, or is none at all. `same`: it is what the previous point has there.
    pub fn ready(self: &Arc<Self>, save: &Save, encoder: &mut Encoder, slot: usize, entry: Option<Entry>, same: bool) {
        if !same {
            self.changed.store(true, Ordering::Relaxed);
        }
        if let Some(entry) = entry {
            self.slots.lock().unwrap_or_else(PoisonError::into_inner)[slot] = Some(entry);
        }
        self.one_less(save, encoder);
    }

    /// The walk has been through the folder.
    pub fn walked(self: &Arc<Self>, save: &Save, encoder: &mut Encoder) {
        self.one_less(save, encoder);
    }

    /// Whoever makes the last entry ready closes the folder, and its parent if that was the last there, and so on: a loop, since trees
    /// can be deeper than a stack.
    fn one_less(self: &Arc<Self>, save: &Save, encoder: &mut Encoder) {
        let mut folder = Arc::clone(self);
        while folder.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let (entry, same) = match folder.close(save, encoder) {
                Ok(closed) => closed,
                Err(error) => return save.fail(error.into()),
            };
            let Some((parent, slot)) = &folder.parent else {
                *save.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
                return;
            };
            if !same {
                parent.changed.store(true, Ordering::Relaxed);
            }
            parent.slots.lock().unwrap_or_else(PoisonError::into_inner)[*slot] = Some(entry);
            folder = Arc::clone(parent);
        }
    }

    fn close(&self, save: &Save, encoder: &mut Encoder) -> Result<(Entry, bool), RepositoryError> {
        let slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        let known = self.before.as_ref().filter(|_| !self.changed.load(Ordering::Relaxed)).map(|before| before.tree);
        let tree = if let Some(tree) = known {
            tree
        } else {
            let entries: Vec<Entry> = slots.into_iter().flatten().collect();
            let plain = tree::encode(&entries);
            drop(entries);
            let added = save.tools.writer.add(encoder, BlobKind::Tree, &plain)?;
            if added.stored > 0 {
                add(&save.tools.counters.new_bytes, plain.len() as u64);
                add(&save.tools.counters.stored_bytes, u64::from(added.stored));
            }
            added.id
        };
        let mut entry = self.entry.clone();
        entry.kind = Kind::Dir { subtree: Some(tree) };
        let same = self.before.as_ref().is_some_and(|before| before.entry.as_ref() == Some(&entry));
        Ok((entry, same))
    }
}
