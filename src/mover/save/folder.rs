//! Folders under way: each waits for its entries, in whatever order they get ready, then becomes a tree and an entry of its parent.
//!
//! The entries of a folder with little in it wait in a list. Those of a large one go into its tree in the order of their names, each as soon
//! as all before it are there, so that only a window of them is ever in memory; as long as they are those of the previous point's tree,
//! not even that is made.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::mover::counters::add;
use crate::mover::save::Save;
use crate::mover::save::seen::Listed;
use crate::repository::codec::{Encoder, LARGE};
use crate::repository::error::RepositoryError;
use crate::repository::tree;
use crate::repository::tree_blob::TreeBlob;

/// A folder of more entries is large from the start.
const LISTED: usize = 4096;
/// Entries of a large folder that the walk is ahead of the first that is not ready; and bytes of JSON that those come to that are.
const AHEAD: usize = 4096;
const HEAVY: u64 = 2 * LARGE;
/// How long the walk waits before it looks whether the run has stopped.
const LOOK: Duration = Duration::from_millis(100);

/// A folder whose entries are being saved.
pub struct Folder {
    /// The parent and this folder's place in it; `None` for the volume's root.
    parent: Option<(Arc<Folder>, usize)>,
    /// The folder itself, without its subtree.
    entry: Entry,
    /// What the previous point has in this place.
    before: Option<Before>,
    state: Mutex<State>,
    /// Entries have gone into the tree.
    moved: Condvar,
    /// Entries that it was listed with.
    count: usize,
    /// The names that it was listed with, those that came since and were saved too among them.
    listed: Mutex<Listed>,
    /// Entries that are not ready, and one for the walk while it is in the folder.
    pending: AtomicUsize,
    changed: AtomicBool,
}

/// The same folder in the previous point.
pub struct Before {
    /// Its entry there; `None` for the volume's root.
    pub entry: Option<Entry>,
    pub tree: Id,
}

#[derive(Default)]
struct State {
    /// The slot of the first entry that is not in the tree yet.
    first: usize,
    /// What is known of the slots from there on.
    slots: VecDeque<Slot>,
    /// Bytes of JSON that the entries in the slots come to.
    weight: u64,
    /// Entries whose names came after the folder was listed, in the order of their slots, which follow those of the others; and by name
    /// those of them that are not in the tree yet.
    late: Vec<Slot>,
    late_names: BTreeMap<Vec<u8>, usize>,
    /// The last name in the tree.
    last: Vec<u8>,
    tree: Tree,
}

enum Slot {
    Waiting,
    /// An entry, or none at all; and whether it is what the previous point has there.
    Ready(Option<Entry>, bool),
}

/// What has become of the entries before the first slot.
#[derive(Default)]
enum Tree {
    /// There are none: all wait in their slots.
    #[default]
    Listed,
    /// So many are those that the previous point's tree begins with.
    Same(usize),
    Blob(Box<TreeBlob>),
}

impl Folder {
    /// A folder that was listed with `count` entries.
    pub fn new(parent: Option<(Arc<Folder>, usize)>, entry: Entry, before: Option<Before>, count: usize, listed: Listed) -> Arc<Self> {
        // A folder of which nothing is known begins as one whose first entry is new.
        let tree = if count > LISTED { Tree::Same(0) } else { Tree::Listed };
        let changed = AtomicBool::new(before.is_none());
        let (state, listed) = (Mutex::new(State { tree, ..State::default() }), Mutex::new(listed));
        let (moved, pending) = (Condvar::new(), AtomicUsize::new(count + 1));
        Arc::new(Folder { parent, entry, before, state, moved, count, listed, pending, changed })
    }

    /// The previous point has an entry before those that are not ready yet which is not there any more.
    pub fn differs(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Waits while the walk is too far ahead of the entries that are ready to give out this slot.
    pub fn wait_for_room(&self, save: &Save, slot: usize) {
        let mut state = self.state();
        // Of names that came late none waits: entries behind them may wait for them.
        // The first slot that is not ready never waits for the walk, unless it is the one that the walk is at.
        while slot > state.first
            && slot < self.count
            && !matches!(state.tree, Tree::Listed)
            && (slot - state.first >= AHEAD || state.weight > HEAVY)
            && !save.stopped()
        {
            state = self.moved.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The folder's own inode.
    pub fn inode(&self) -> u64 {
        self.entry.attrs.inode
    }

    /// Takes in a name that was not there when the folder was listed, and gives its slot. `None` if it was, if it has been taken in already, or
    /// if names behind it are in the tree. Only while an entry is not ready, or the walk is in the folder.
    pub fn claim(&self, save: &Save, name: &[u8]) -> Option<usize> {
        let mut state = self.state();
        let comes_too_late = !matches!(state.tree, Tree::Listed) && name <= state.last.as_slice();
        if comes_too_late || !self.listed().claim(save.seen.hash(self.inode(), name)) {
            return None;
        }
        self.differs();
        self.pending.fetch_add(1, Ordering::AcqRel);
        let number = state.late.len();
        state.late.push(Slot::Waiting);
        state.late_names.insert(name.to_vec(), number);
        Some(self.count + number)
    }

    /// Whether the folder was listed with the name, or it has been taken in since.
    pub fn is_listed(&self, save: &Save, name: &[u8]) -> bool {
        self.listed().has(save.seen.hash(self.inode(), name))
    }

    /// The name is not in the point after all: if it comes again, it may be taken in again.
    pub fn release(&self, save: &Save, name: &[u8]) {
        self.differs();
        self.listed().release(save.seen.hash(self.inode(), name));
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry at `slot` is ready, or is none at all. `same`: it is what the previous point has there.
    pub fn ready(self: &Arc<Self>, save: &Save, encoder: &mut Encoder, slot: usize, entry: Option<Entry>, same: bool) {
        match self.put(save, slot, entry, same) {
            Ok(()) => self.one_less(save, encoder),
            Err(error) => save.fail(error.into()),
        }
    }

    /// The walk has been through the folder.
    pub fn walked(self: &Arc<Self>, save: &Save, encoder: &mut Encoder) {
        self.one_less(save, encoder);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, save: &Save, slot: usize, entry: Option<Entry>, same: bool) -> Result<(), RepositoryError> {
        if !same {
            self.differs();
        }
        let mut state = self.state();
        if let Some(number) = slot.checked_sub(self.count) {
            state.late[number] = Slot::Ready(entry, false);
        } else {
            state.weight += entry.as_ref().map_or(0, tree::text_size);
            let at = slot - state.first;
            while state.slots.len() <= at {
                state.slots.push_back(Slot::Waiting);
            }
            state.slots[at] = Slot::Ready(entry, same);
        }
        if matches!(state.tree, Tree::Listed) {
            if state.weight <= LARGE {
                return Ok(());
            }
            state.tree = Tree::Same(0);
        }
        while let Some(Slot::Ready(front, _)) = state.slots.front() {
            if let (Some(front), Some((name, number))) = (front, state.late_names.first_key_value())
                && *name < front.name
            {
                let number = *number;
                let Slot::Ready(entry, same) = std::mem::replace(&mut state.late[number], Slot::Waiting) else { break };
                state.late_names.pop_first();
                self.add(save, &mut state, entry, same)?;
                continue;
            }
            let Some(Slot::Ready(entry, same)) = state.slots.pop_front() else { break };
            state.first += 1;
            state.weight -= entry.as_ref().map_or(0, tree::text_size);
            self.add(save, &mut state, entry, same)?;
        }
        drop(state);
        self.moved.notify_all();
        Ok(())
    }

    /// Takes the next entry into the tree.
    fn add(&self, save: &Save, state: &mut State, entry: Option<Entry>, same: bool) -> Result<(), RepositoryError> {
        if let Some(entry) = &entry {
            save.seen.saved(std::iter::once(entry));
            state.last.clear();
            state.last.extend_from_slice(&entry.name);
        }
        if let Tree::Same(count) = &mut state.tree
            && same
            && !self.changed.load(Ordering::Relaxed)
        {
            *count += 1;
            return Ok(());
        }
        let Some(entry) = entry else { return Ok(()) };
        self.blob(save, &mut state.tree)?.push(&entry)
    }

    /// The blob with all entries so far.
    fn blob<'a>(&self, save: &Save, tree: &'a mut Tree) -> Result<&'a mut TreeBlob, RepositoryError> {
        if !matches!(tree, Tree::Blob(_)) {
            let mut blob = save.tools.writer.tree()?;
            if let (Tree::Same(count), Some(before)) = (&tree, &self.before)
                && *count > 0
            {
                let entries = save.tools.runtime.block_on(save.tools.reader.entries(&before.tree))?;
                for entry in entries.take(*count) {
                    blob.push(&entry?)?;
                }
            }
            *tree = Tree::Blob(Box::new(blob));
        }
        match tree {
            Tree::Blob(blob) => Ok(blob),
            Tree::Listed | Tree::Same(_) => unreachable!("made above"),
        }
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
            if let Err(error) = parent.put(save, *slot, Some(entry), same) {
                return save.fail(error.into());
            }
            folder = Arc::clone(parent);
        }
    }

    fn close(&self, save: &Save, encoder: &mut Encoder) -> Result<(Entry, bool), RepositoryError> {
        let mut state = self.state();
        save.seen.close(std::mem::take(&mut *self.listed()));
        save.seen.saved(state.slots.iter().chain(&state.late).filter_map(Slot::as_entry));
        let known = self.before.as_ref().filter(|_| !self.changed.load(Ordering::Relaxed)).map(|before| before.tree);
        let tree = if let Some(tree) = known {
            tree
        } else {
            let (slots, mut late) = (std::mem::take(&mut state.slots), std::mem::take(&mut state.late));
            let numbers: Vec<usize> = std::mem::take(&mut state.late_names).into_values().collect();
            let late = numbers.into_iter().filter_map(|number| std::mem::replace(&mut late[number], Slot::Waiting).entry());
            let (added, size) = match std::mem::replace(&mut state.tree, Tree::Listed) {
                Tree::Listed => {
                    let mut entries: Vec<Entry> = slots.into_iter().filter_map(Slot::entry).collect();
                    let listed = entries.len();
                    entries.extend(late);
                    if entries.len() > listed {
                        entries.sort_by(|a, b| a.name.cmp(&b.name));
                    }
                    save.tools.writer.add_entries(encoder, &entries)?
                }
                mut tree => {
                    let blob = self.blob(save, &mut tree)?;
                    for entry in late {
                        blob.push(&entry)?;
                    }
                    let Tree::Blob(blob) = tree else { unreachable!("made above") };
                    save.tools.writer.add_tree(*blob)?
                }
            };
            if added.stored > 0 {
                add(&save.tools.counters.new_bytes, size);
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

impl Slot {
    fn as_entry(&self) -> Option<&Entry> {
        match self {
            Slot::Ready(Some(entry), _) => Some(entry),
            _ => None,
        }
    }

    fn entry(self) -> Option<Entry> {
        match self {
            Slot::Waiting => None,
            Slot::Ready(entry, _) => entry,
        }
    }
}
