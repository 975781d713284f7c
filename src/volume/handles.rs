//! Open handles by number, never more than a bound, the ones in use staying.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A bounded cache of open folders or files. Two generations: what is asked for moves to the young one; when that is full, the old one is let go.
///
/// At most twice `capacity` handles are kept, besides those that callers still hold.
#[derive(Debug)]
pub struct Handles<V> {
    generations: Mutex<Generations<V>>,
    capacity: usize,
}

#[derive(Debug)]
struct Generations<V> {
    young: HashMap<u64, Arc<V>>,
    old: HashMap<u64, Arc<V>>,
}

impl<V> Handles<V> {
    pub fn new(capacity: usize) -> Self {
        Handles { generations: Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }), capacity: capacity.max(1) }
    }

    /// The handle with this number, if it is still open.
    pub fn get(&self, number: u64) -> Option<Arc<V>> {
        let (found, dropped) = {
            let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = generations.young.get(&number) {
                return Some(found.clone());
            }
            let found = generations.old.remove(&number)?;
            (found.clone(), generations.put(number, found, self.capacity))
        };
        drop(dropped); // closes what was let go outside the lock
        Some(found)
    }

    /// The handle with this number, opened by `open` if it is not. Two threads may open the same at once; both then share one.
    pub fn get_or_open<E>(&self, number: u64, open: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        match self.get(number) {
            Some(found) => Ok(found),
            None => Ok(self.insert(number, Arc::new(open()?))),
        }
    }

    /// Keeps a handle; gives the one that is kept, which is another if a thread was faster.
    pub fn insert(&self, number: u64, handle: Arc<V>) -> Arc<V> {
        let (kept, dropped) = {
            let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = generations.young.get(&number).cloned().or_else(|| generations.old.remove(&number)).unwrap_or(handle);
            (kept.clone(), generations.put(number, kept, self.capacity))
        };
        drop(dropped);
        kept
    }

    /// Lets go of a handle that is not needed again.
    pub fn remove(&self, number: u64) {
        let dropped = {
            let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
            (generations.young.remove(&number), generations.old.remove(&number))
        };
        drop(dropped);
    }
}

impl<V> Generations<V> {
    /// Gives what is let go for it.
    fn put(&mut self, number: u64, handle: Arc<V>, capacity: usize) -> HashMap<u64, Arc<V>> {
        self.young.insert(number, handle);
        if self.young.len() <= capacity {
            return HashMap::new();
        }
        let let_go = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        if let Some(last) = self.old.remove(&number) {
            self.young.insert(number, last);
        }
        let_go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_in_use_stays_and_the_number_of_handles_is_bounded() {
        let handles = Handles::new(10);
        let mut opened = 0;
        for round in 0..1000_u64 {
            let mut open = |number: u64| {
                handles.get_or_open(number, || {
                    opened += u32::from(number == 7);
                    Ok::<u64, ()>(number)
                })
            };
            assert_eq!(*open(7).unwrap(), 7);
            assert_eq!(*open(100 + round).unwrap(), 100 + round);
            let generations = handles.generations.lock().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 20);
        }
        assert_eq!(opened, 1);
        handles.remove(7);
        assert!(handles.get(7).is_none());
    }
}
