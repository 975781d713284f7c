//! In which ranges of which packs many blobs are read: in the order of packs, neighbours together.

use crate::model::id::Id;
use crate::repository::index::Location;

/// A blob and what it is wanted for.
#[derive(Clone, Debug)]
pub struct Wanted<T> {
    pub id: Id,
    pub place: Location,
    pub purpose: T,
}

/// One request to the store, and the blobs that it brings. The same blob may be wanted several times in a row.
#[derive(Clone, Debug)]
pub struct Range<T> {
    pub pack: Id,
    pub start: u64,
    pub end: u64,
    /// In the order of their offsets.
    pub blobs: Vec<Wanted<T>>,
}

/// Bytes that nobody wants between two blobs, up to which one request is cheaper than two.
const GAP: u64 = 64 << 10;

/// Requests for all of `wanted`, none longer than `longest` bytes unless a single blob is.
pub fn plan<T>(mut wanted: Vec<Wanted<T>>, longest: u64) -> Vec<Range<T>> {
    wanted.sort_unstable_by_key(|blob| (blob.place.pack, blob.place.offset));
    let mut ranges: Vec<Range<T>> = Vec::new();
    for blob in wanted {
        let start = u64::from(blob.place.offset);
        let end = start + u64::from(blob.place.length);
        match ranges.last_mut() {
            Some(last) if last.pack == blob.place.pack && start <= last.end + GAP && (end - last.start <= longest || end <= last.end) => {
                last.end = last.end.max(end);
                last.blobs.push(blob);
            }
            _ => ranges.push(Range { pack: blob.place.pack, start, end, blobs: vec![blob] }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pack: u8, offset: u32, length: u32) -> Wanted<u32> {
        let place = Location { pack: Id([pack; 32]), pack_end: u32::MAX, offset, length, plain_length: None };
        Wanted { id: Id([0; 32]), place, purpose: offset }
    }

    #[test]
    fn neighbours_are_read_together_and_far_ones_apart() {
        let far = 1 << 20;
        let ranges = plan(vec![wanted(2, 0, 10), wanted(1, 100, 50), wanted(1, 0, 100), wanted(1, far, 7), wanted(1, 100, 50)], 1 << 20);
        let seen: Vec<_> = ranges.iter().map(|range| (range.pack.0[0], range.start, range.end, range.blobs.len())).collect();
        assert_eq!(seen, [(1, 0, 150, 3), (1, u64::from(far), u64::from(far) + 7, 1), (2, 0, 10, 1)]);
    }

    #[test]
    fn no_request_is_longer_than_asked_unless_one_blob_is() {
        let ranges = plan(vec![wanted(1, 0, 600), wanted(1, 600, 600), wanted(1, 1200, 5000)], 1000);
        assert_eq!(ranges.iter().map(|range| range.end - range.start).collect::<Vec<_>>(), [600, 600, 5000]);
    }
}
