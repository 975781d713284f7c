//! Do the names of one inode that a walk meets one after the other have the same content?

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Mutex, PoisonError};

use crate::model::entry::Entry;
use crate::repository::same_file::FileId;

/// Inodes that are remembered. Beyond them names are kept as they are read, and a restore tells them apart all the same.
const REMEMBERED: usize = 100_000;

/// The first name of each inode that has several.
#[derive(Debug, Default)]
pub struct Links(Mutex<HashMap<u64, First>>);

#[derive(Debug)]
struct First {
    file: FileId,
    path: Box<[u8]>,
}

impl Links {
    /// Takes in an entry that was read. Gives the path of the first name of its inode if that was read as another file: the inode was given
    /// to another file meanwhile, or the file changed between its names.
    pub fn meet(&self, entry: &Entry, path: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        let file = FileId::of(entry)?;
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = seen.len() < REMEMBERED;
        match seen.entry(entry.attrs.inode) {
            Slot::Occupied(first) if first.get().file == file => None,
            Slot::Occupied(first) => Some(first.get().path.to_vec()),
            Slot::Vacant(slot) => {
                if has_room {
                    slot.insert(First { file, path: path().into() });
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::entry::{Attrs, Kind};
    use crate::model::id::Id;

    use super::*;

    #[test]
    fn a_name_whose_inode_was_read_as_another_file_is_noticed() {
        let links = Links::default();
        let entry = |inode, content: u8, links| Entry {
            name: b"x".to_vec(),
            kind: Kind::File { content: vec![Id([content; 32])].into() },
            attrs: Attrs { inode, links, size: 1, ..Attrs::default() },
        };
        assert_eq!(links.meet(&entry(7, 1, 2), || b"first".to_vec()), None);
        assert_eq!(links.meet(&entry(7, 1, 3), || b"second".to_vec()), None);
        assert_eq!(links.meet(&entry(8, 2, 2), || b"other".to_vec()), None);
        assert_eq!(links.meet(&entry(7, 2, 2), || b"third".to_vec()).unwrap(), b"first");
        assert_eq!(links.meet(&entry(7, 3, 1), || b"alone".to_vec()), None);
    }
}
