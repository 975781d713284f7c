//! What a walk has met, kept so that what has escaped it can be found at its end.
//!
//! A volume in use changes while it is walked: a file that moves from a folder that the walk has not reached into one that it has been
//! through is met under no name. Every such move leaves a trace: a folder changed after the walk began, or a name that was listed is gone.
//! Without a trace nothing has moved, and nothing is looked at again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::model::entry::{Entry, Time};
use crate::volume::{Origin, Place, Stat, Times};

/// Names that are remembered, 8 bytes each, and folders. Beyond them what has moved is listed as doubtful instead of told for certain.
const NAMES: usize = 1 << 20;
const FOLDERS: usize = 50_000;
/// The kernel stamps files with a clock that is a tick behind.
const TICK: i64 = 2;

/// What one claim's walk has met.
#[derive(Debug)]
pub struct Seen {
    began: Time,
    times: Times,
    hasher: RandomState,
    has_moved: AtomicBool,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    /// A hash of each name and of its folder's inode.
    names: Vec<u64>,
    names_overflow: bool,
    /// The inodes that are in the point: of 64 neighbours a bit for each.
    inodes: HashMap<u64, u64>,
    /// By inode, where each folder was walked.
    folders: HashMap<u64, Arc<Place>>,
    /// Where folders were walked that were then met at another place.
    earlier: Vec<Arc<Place>>,
    folders_overflow: bool,
}

/// Names that a folder had when it was listed, by hash.
#[derive(Debug, Default)]
pub struct Listed {
    hashes: Vec<u64>,
    is_sorted: bool,
    more: Vec<u64>,
}

impl Listed {
    pub fn new(hashes: Vec<u64>) -> Self {
        Listed { hashes, is_sorted: false, more: Vec::new() }
    }

    /// Whether the name is there already.
    pub fn has(&mut self, hash: u64) -> bool {
        if !self.is_sorted {
            self.hashes.sort_unstable();
            self.is_sorted = true;
        }
        self.hashes.binary_search(&hash).is_ok() || self.more.contains(&hash)
    }

    /// Takes the name in; false if it is there already.
    pub fn claim(&mut self, hash: u64) -> bool {
        let is_new = !self.has(hash);
        if is_new {
            self.more.push(hash);
        }
        is_new
    }

    /// The name is not in the point after all: it may come again.
    pub fn release(&mut self, hash: u64) {
        self.hashes.retain(|known| *known != hash);
        self.more.retain(|known| *known != hash);
    }
}

/// What has become of a name that is there at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The name is in the point, or what it stands for is, under another name.
    Saved,
    /// It was made since the walk began: as if the walk had come earlier.
    New,
    /// It was there all the time, and the point has it under no name.
    Escaped,
    /// The same, but the point has another file under the name: the one that had it before.
    Replaced,
    /// New or escaped: nothing tells which.
    Doubtful,
}

impl Seen {
    pub fn new(began: DateTime<Utc>, times: Times) -> Self {
        let began = Time { secs: began.timestamp(), nanos: began.timestamp_subsec_nanos().min(999_999_999) };
        Seen { began, times, hasher: RandomState::new(), has_moved: AtomicBool::new(false), met: Mutex::default() }
    }

    /// The hash of a name in a folder.
    pub fn hash(&self, folder: u64, name: &[u8]) -> u64 {
        self.hasher.hash_one((folder, name))
    }

    /// Something is not where it was when the walk began.
    pub fn moved(&self) {
        self.has_moved.store(true, Ordering::Relaxed);
    }

    pub fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Relaxed)
    }

    /// Whether the folder may have changed since the walk began. A server's clock does not tell.
    pub fn may_have_changed(&self, folder: &Stat) -> bool {
        self.times != Times::Own || folder.mtime.max(folder.ctime).secs >= self.began.secs - TICK
    }

    /// A folder is being walked here.
    pub fn enter(&self, inode: u64, place: &Arc<Place>) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.folders.len() < FOLDERS {
            let earlier = met.folders.insert(inode, Arc::clone(place));
            met.earlier.extend(earlier);
        } else {
            met.folders_overflow = true;
        }
    }

    /// A folder is in the point; it was listed, or listed again, with these names.
    pub fn close(&self, listed: Listed) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        for hashes in [listed.hashes, listed.more] {
            if met.names.len() + hashes.len() <= NAMES {
                met.names.extend(hashes);
            } else {
                met.names_overflow = true;
            }
        }
    }

    /// These entries are in the point.
    pub fn saved<'a>(&self, entries: impl Iterator<Item = &'a Entry>) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let (block, bit) = block_of(entry.attrs.inode);
            *met.inodes.entry(block).or_default() |= bit;
        }
    }

    /// Before the first question at the end.
    pub fn sort(&self) {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).names.sort_unstable();
    }

    /// What has become of a name in the folder with this inode; `origin` is asked only where what it leads to was not met.
    pub fn fate<E>(&self, folder: u64, (name, inode): (&[u8], u64), origin: impl FnOnce() -> Result<Origin, E>) -> Result<Fate, E> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let is_met = |inode| {
            let (block, bit) = block_of(inode);
            met.inodes.get(&block).is_some_and(|bits| bits & bit != 0)
        };
        if is_met(inode) {
            return Ok(Fate::Saved);
        }
        let origin = origin()?;
        if is_met(origin.inode) {
            return Ok(Fate::Saved);
        }
        let is_named = met.names.binary_search(&self.hash(folder, name)).is_ok();
        Ok(match self.fate_of_unmet(origin.born, met.names_overflow) {
            Fate::Escaped if is_named => Fate::Replaced,
            Fate::Doubtful if is_named => Fate::Saved,
            fate => fate,
        })
    }

    /// The same for a folder that stands at this place. Called once for each.
    pub fn fate_of_folder(&self, inode: u64, born: Option<Time>, path: &[u8]) -> Fate {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        match met.folders.get(&inode) {
            Some(place) if place.path_of(b"") == path => {
                met.folders.remove(&inode);
                Fate::Saved
            }
            Some(_) => Fate::Saved,
            None if met.folders_overflow => Fate::Saved,
            None => self.fate_of_unmet(born, false),
        }
    }

    fn fate_of_unmet(&self, born: Option<Time>, overflow: bool) -> Fate {
        match born {
            Some(born) if self.times == Times::Own && born > self.began => Fate::New,
            Some(_) if self.times == Times::Own && !overflow => Fate::Escaped,
            _ => Fate::Doubtful,
        }
    }

    /// After all questions: where folders were walked that are there no more, without those below one of them.
    pub fn gone(&self) -> Vec<Vec<u8>> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let mut paths: Vec<Vec<u8>> = met.folders.values().chain(&met.earlier).map(|place| place.path_of(b"")).collect();
        paths.sort();
        let mut tops: Vec<Vec<u8>> = Vec::new();
        for path in paths {
            let is_below = |top: &Vec<u8>| path.strip_prefix(top.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'));
            if !tops.last().is_some_and(is_below) {
                tops.push(path);
            }
        }
        tops
    }
}

fn block_of(inode: u64) -> (u64, u64) {
    (inode >> 6, 1 << (inode & 63))
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;

    use super::*;

    #[test]
    fn what_moved_is_told_from_what_is_new_and_from_what_was_saved() {
        let seen = Seen::new(Clock::manual(10_000_000).now(), Times::Own);
        let entry = |inode| Entry {
            name: b"x".to_vec(),
            kind: crate::model::entry::Kind::Fifo,
            attrs: crate::model::entry::Attrs { inode, ..Default::default() },
        };
        seen.close(Listed::new(vec![seen.hash(1, b"b"), seen.hash(1, b"a")]));
        seen.saved([entry(70), entry(71)].iter());
        seen.sort();
        let fate = |name: &str, inode, born| {
            let born = Some(Time { secs: born, nanos: 0 });
            seen.fate::<()>(1, (name.as_bytes(), inode), || Ok(Origin { inode, born })).unwrap()
        };
        assert_eq!(fate("a", 70, 0), Fate::Saved);
        assert_eq!(fate("c", 71, 0), Fate::Saved);
        assert_eq!(fate("c", 72, 9_999), Fate::Escaped);
        assert_eq!(fate("b", 72, 9_999), Fate::Replaced);
        assert_eq!(fate("c", 72, 10_001), Fate::New);
        let unborn = seen.fate::<()>(1, (b"c", 72), || Ok(Origin { inode: 72, born: None }));
        assert_eq!(unborn, Ok(Fate::Doubtful));
        assert_eq!(seen.fate(1, (b"c", 72), || Err(())), Err(()));
    }

    #[test]
    fn a_name_is_taken_in_once_until_it_is_released() {
        let mut listed = Listed::new(vec![9, 3]);
        assert!(!listed.claim(3) && listed.claim(4) && !listed.claim(4));
        listed.release(3);
        assert!(listed.claim(3));
    }
}
