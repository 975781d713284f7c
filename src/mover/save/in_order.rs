//! Chunks of one file that get ready in any order, put in a row.

use std::collections::VecDeque;

use crate::model::content::Content;
use crate::model::id::Id;

/// What is ready up to the first chunk that is not, and what is beyond that.
#[derive(Debug, Default)]
pub struct InOrder {
    content: Content,
    /// The number of the first chunk that is not ready.
    first: usize,
    /// The chunks from there on: an id, and how many times in a row.
    waiting: VecDeque<Option<(Id, u64)>>,
}

impl InOrder {
    /// The number of the next chunk.
    pub fn next(&mut self) -> usize {
        self.waiting.push_back(None);
        self.first + self.waiting.len() - 1
    }

    /// The chunk with this number is stored, and stands there so many times.
    pub fn ready(&mut self, number: usize, id: Id, times: u64) {
        self.waiting[number - self.first] = Some((id, times));
        while let Some(Some((id, times))) = self.waiting.front() {
            self.content.push_times(*id, *times);
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// All chunks, if all are ready.
    pub fn finish(self) -> Option<Content> {
        self.waiting.is_empty().then_some(self.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_stand_in_the_order_of_their_numbers_whatever_order_they_come_in() {
        let id = |byte| Id([byte; 32]);
        let mut chunks = InOrder::default();
        let numbers: Vec<usize> = (0..4).map(|_| chunks.next()).collect();
        chunks.ready(numbers[2], id(2), 3);
        chunks.ready(numbers[0], id(0), 1);
        chunks.ready(numbers[3], id(2), 1);
        chunks.ready(numbers[1], id(1), 1);
        let more = chunks.next();
        chunks.ready(more, id(1), 1);
        let expected: Vec<Id> = [0, 1, 2, 2, 2, 2, 1].map(id).into();
        assert_eq!(chunks.finish(), Some(expected.into()));
        let mut unfinished = InOrder::default();
        unfinished.next();
        assert_eq!(unfinished.finish(), None);
    }
}
