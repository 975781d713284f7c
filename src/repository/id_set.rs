//! A set of ids that only grows: forty-odd bytes for each, and never twice that while it grows.

use crate::model::id::Id;

/// Ids of one piece of the list, which grows by pieces so that it is never copied.
const PIECE: usize = 1 << 12;
/// No id has this number.
const FREE: u32 = u32::MAX;

/// The ids, in a list, and a table of their numbers in it.
#[derive(Debug)]
pub struct IdSet {
    pieces: Vec<Vec<Id>>,
    length: u32,
    /// A number of an id, or [`FREE`], at every place; the length is a power of two.
    table: Vec<u32>,
    /// What ids are multiplied with to find their place, lest someone makes content whose ids all meet at one.
    factor: u64,
}

impl Default for IdSet {
    fn default() -> Self {
        let mut random = [0; 8];
        // Without random bytes, which no system lacks, it is a set all the same.
        let _ = crate::random::fill(&mut random);
        IdSet { pieces: Vec::new(), length: 0, table: vec![FREE; 64], factor: u64::from_ne_bytes(random) | 1 }
    }
}

impl IdSet {
    /// Takes the id in; whether it is new.
    ///
    /// Panics at 2^32 - 1 ids, which would take 170 GB of memory.
    pub fn insert(&mut self, id: Id) -> bool {
        let Err(place) = self.find(&id) else { return false };
        assert!(self.length < FREE, "a run of less than 2^32 blobs");
        self.table[place] = self.length;
        if (self.length as usize).is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        self.pieces.last_mut().expect("made when it is needed").push(id);
        self.length += 1;
        if self.length as usize * 4 > self.table.len() * 3 {
            self.grow();
        }
        true
    }

    /// The place in the table of the id, or the one where it would be.
    fn find(&self, id: &Id) -> Result<usize, usize> {
        let mut place = self.home(id);
        loop {
            match self.table[place] {
                FREE => return Err(place),
                number if self.get(number) == id => return Ok(place),
                _ => place = (place + 1) & (self.table.len() - 1),
            }
        }
    }

    fn get(&self, number: u32) -> &Id {
        &self.pieces[number as usize / PIECE][number as usize % PIECE]
    }

    fn home(&self, id: &Id) -> usize {
        let head = u64::from_ne_bytes(id.0[..8].try_into().expect("eight of 32 bytes"));
        let mixed = head.wrapping_mul(self.factor) >> (64 - self.table.len().trailing_zeros());
        usize::try_from(mixed).expect("below the table's length")
    }

    fn grow(&mut self) {
        self.table = vec![FREE; self.table.len() * 2];
        for number in 0..self.length {
            if let Err(place) = self.find(self.get(number)) {
                self.table[place] = number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::hash::id_of;

    #[test]
    fn an_id_is_new_once_among_any_number() {
        let mut set = IdSet::default();
        for round in [true, false] {
            for number in 0..50_000u32 {
                assert_eq!(set.insert(id_of(&number.to_le_bytes())), round, "{number}");
            }
        }
        // Ids that differ in their last byte alone are different ones too.
        for last in 0..=255 {
            let mut id = [7; 32];
            id[31] = last;
            assert!(set.insert(Id(id)), "{last}");
        }
    }
}
