//! A file's chunks in order, equal neighbours counted instead of repeated: a hole of terabytes takes the room of one chunk.

use std::fmt;
use std::ops::Index;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use crate::model::id::Id;

/// So many times the same chunk in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: Id,
    /// At least 1.
    pub count: u32,
}

/// The ids of a file's chunks. Two are equal exactly if they have the same ids in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// No two neighbours have the same id, unless the first is as long as a run can be.
    runs: Vec<Run>,
}

impl Content {
    /// Adds a chunk at the end.
    pub fn push(&mut self, id: Id) {
        self.push_times(id, 1);
    }

    /// Adds a chunk at the end so many times.
    pub fn push_times(&mut self, id: Id, times: u64) {
        let mut left = times;
        if let Some(last) = self.runs.last_mut().filter(|last| last.id == id) {
            let more = u32::try_from(left).unwrap_or(u32::MAX).min(u32::MAX - last.count);
            last.count += more;
            left -= u64::from(more);
        }
        while left > 0 {
            if self.runs.is_empty() {
                // Most files have one chunk.
                self.runs.reserve_exact(1);
            }
            let count = u32::try_from(left).unwrap_or(u32::MAX);
            self.runs.push(Run { id, count });
            left -= u64::from(count);
        }
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.count as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The chunk, if there is just one.
    pub fn only(&self) -> Option<Id> {
        match self.runs[..] {
            [Run { id, count: 1 }] => Some(id),
            _ => None,
        }
    }

    /// The chunks, equal neighbours together.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Every chunk, one by one.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(Place::default())
    }

    /// The chunks from a place on that [`Iter::place`] gave.
    pub fn iter_from(&self, place: Place) -> Iter<'_> {
        Iter { runs: &self.runs, place }
    }
}

/// A place between two chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    run: usize,
    /// Chunks of the run that are before it.
    done: u32,
}

/// The chunks of a [`Content`], one by one.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    runs: &'a [Run],
    place: Place,
}

impl Iter<'_> {
    /// Where the next chunk is.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Id;

    fn next(&mut self) -> Option<&'a Id> {
        let run = self.runs.get(self.place.run)?;
        self.place.done += 1;
        if self.place.done == run.count {
            self.place = Place { run: self.place.run + 1, done: 0 };
        }
        Some(&run.id)
    }
}

impl<'a> IntoIterator for &'a Content {
    type Item = &'a Id;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Index<usize> for Content {
    type Output = Id;

    /// Walks there, and panics beyond the end.
    fn index(&self, number: usize) -> &Id {
        self.iter().nth(number).expect("within the file")
    }
}

impl FromIterator<Id> for Content {
    fn from_iter<I: IntoIterator<Item = Id>>(ids: I) -> Self {
        let mut content = Content::default();
        for id in ids {
            content.push(id);
        }
        content
    }
}

impl From<Vec<Id>> for Content {
    fn from(ids: Vec<Id>) -> Self {
        ids.into_iter().collect()
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the ids of chunks")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Content, A::Error> {
                let mut content = Content::default();
                while let Some(id) = ids.next_element()? {
                    content.push(id);
                }
                Ok(content)
            }
        }
        deserializer.deserialize_seq(Ids)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_come_back_in_order_however_often_each_is_there(runs in proptest::collection::vec((0u8..3, 1u64..5), 0..20)) {
            let ids: Vec<Id> = runs.iter().flat_map(|(byte, times)| std::iter::repeat_n(Id([*byte; 32]), *times as usize)).collect();
            let mut content = Content::default();
            for (byte, times) in &runs {
                content.push_times(Id([*byte; 32]), *times);
            }
            prop_assert_eq!(&content, &Content::from(ids.clone()));
            prop_assert_eq!(content.iter().copied().collect::<Vec<_>>(), ids.clone());
            prop_assert_eq!(content.len(), ids.len());
            for (number, id) in ids.iter().enumerate() {
                prop_assert_eq!(&content[number], id);
            }
            prop_assert_eq!(content.only(), (ids.len() == 1).then(|| ids[0]));
            prop_assert!(content.runs().is_sorted_by(|a, b| a.id != b.id));
        }
    }

    #[test]
    fn more_chunks_than_one_run_can_count_are_all_there() {
        let mut content = Content::default();
        content.push_times(Id([1; 32]), (1 << 33) - 5);
        content.push_times(Id([1; 32]), 5);
        assert_eq!(content.len(), 1 << 33);
        let mut other = Content::default();
        other.push_times(Id([1; 32]), 1 << 33);
        assert_eq!(content, other);
    }
}
