//! The previous point's trees, decoded ahead of the walk in the order in which the walk will ask for them.

use std::collections::HashMap;
use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender};

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::mover::save::Save;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;

/// Trees decoded ahead.
pub const AHEAD: usize = 64;
/// Trees that came before they were asked for, because the walk took another way.
const STASH: usize = 256;

/// Decodes the tree `root` and all below it, parents first, and sends them until nobody listens. A tree that cannot be read is left
/// out: who needs it asks for it again, and learns why.
pub fn ahead(save: &Save, root: Id, sender: &Sender<(Id, Vec<Entry>)>) {
    let mut todo = vec![root];
    while let Some(id) = todo.pop() {
        if save.stopped() {
            return;
        }
        // Large trees, and what is below them, are read by the walk itself: to hold one twice would take too much memory.
        if save.tools.reader.is_large(&id) {
            continue;
        }
        let Ok(entries) = load(save, &id).and_then(Entries::collect_all) else { continue };
        todo.extend(entries.iter().rev().filter_map(|entry| match entry.kind {
            Kind::Dir { subtree } => subtree,
            _ => None,
        }));
        if sender.send((id, entries)).is_err() {
            return;
        }
    }
}

fn load(save: &Save, id: &Id) -> Result<Entries, RepositoryError> {
    save.tools.runtime.block_on(save.tools.reader.entries(id))
}

/// The walk's side.
pub struct Trees {
    receiver: Receiver<(Id, Vec<Entry>)>,
    stash: HashMap<Id, Vec<Entry>>,
    order: VecDeque<Id>,
}

impl Trees {
    pub fn new(receiver: Receiver<(Id, Vec<Entry>)>) -> Self {
        Trees { receiver, stash: HashMap::new(), order: VecDeque::new() }
    }

    /// The entries of the tree, and whether the trees below it are decoded ahead. `ahead`: this one is, unless it is too large.
    pub fn get(&mut self, save: &Save, id: &Id, ahead: bool) -> Result<(Entries, bool), RepositoryError> {
        if let Some(entries) = self.stash.remove(id) {
            return Ok((entries.into(), ahead));
        }
        if !ahead || save.tools.reader.is_large(id) {
            return Ok((load(save, id)?, false));
        }
        while let Ok((next, entries)) = self.receiver.recv() {
            if next == *id {
                return Ok((entries.into(), ahead));
            }
            if self.order.len() == STASH
                && let Some(oldest) = self.order.pop_front()
            {
                self.stash.remove(&oldest);
            }
            self.order.push_back(next);
            self.stash.insert(next, entries);
        }
        Ok((load(save, id)?, ahead))
    }
}
