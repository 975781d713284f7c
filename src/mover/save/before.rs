//! The previous point's trees, decoded ahead of the walk in the order in which the walk will ask for them.

use std::collections::HashMap;
use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender};

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::mover::save::Save;
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
        let Ok(entries) = load(save, &id) else { continue };
        todo.extend(entries.iter().rev().filter_map(|entry| match entry.kind {
            Kind::Dir { subtree } => subtree,
            _ => None,
        }));
        if sender.send((id, entries)).is_err() {
            return;
        }
    }
}

fn load(save: &Save, id: &Id) -> Result<Vec<Entry>, RepositoryError> {
    save.tools.runtime.block_on(save.tools.reader.tree(id))
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

    /// The entries of the tree.
    pub fn get(&mut self, save: &Save, id: &Id) -> Result<Vec<Entry>, RepositoryError> {
        if let Some(entries) = self.stash.remove(id) {
            return Ok(entries);
        }
        while let Ok((next, entries)) = self.receiver.recv() {
            if next == *id {
                return Ok(entries);
            }
            if self.order.len() == STASH
                && let Some(oldest) = self.order.pop_front()
            {
                self.stash.remove(&oldest);
            }
            self.order.push_back(next);
            self.stash.insert(next, entries);
        }
        load(save, id)
    }
}
