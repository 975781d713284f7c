//! Where restic would cut: its Rabin fingerprint chunker, for repositories that restic filled first.
//!
//! A chunk ends after the first byte, at 512 KiB or later, where the fingerprint of the last 64 bytes has twenty zero bits at its low
//! end, and after 8 MiB at the latest. The fingerprint is those 64 bytes read as a polynomial over GF(2), modulo the repository's own
//! irreducible polynomial of degree 53. restic skips the bytes before the last window of the minimum, so no fingerprint that is ever
//! judged depends on anything but its 64 bytes: the search can run in several places at once and still cut where restic cuts.

use std::sync::Arc;

/// Bytes that a fingerprint covers.
const WINDOW: usize = 64;
/// Bytes of the shortest chunk that is not a file's last.
const MIN: usize = 512 << 10;
/// Bytes of the longest chunk.
const MAX: usize = 8 << 20;
/// A fingerprint with none of these bits set is a cut.
const MASK: u64 = (1 << 20) - 1;
const DEGREE: u32 = 53;

/// Stretches that are searched side by side: a step waits for its table, so several wait together (four: 2.5 times as fast as one).
const LANES: usize = 4;
/// Bytes of each of them; what is searched in vain behind a cut stays small against a chunk.
const LANE: usize = 4 << 10;

struct Tables {
    /// By the byte that a step shifts above the degree: what brings the fingerprint back below it.
    reduce: [u64; 256],
    /// By the byte that leaves the window: its share of the fingerprint.
    leave: [u64; 256],
}

/// Finds restic's cut points in a byte stream that is handed over piece by piece. Cloning shares the tables.
#[derive(Clone)]
pub struct Rabin(Arc<Tables>);

impl Rabin {
    /// A chunker for repositories whose `chunker_polynomial` is `polynomial`: an irreducible one of degree 53, as [`is_usable`] tells.
    /// With any other number it cuts too, within the same bounds, but not where restic would.
    pub fn new(polynomial: u64) -> Rabin {
        let mut tables = Tables { reduce: [0; 256], leave: [0; 256] };
        for byte in 0..256u64 {
            let above = byte << DEGREE;
            tables.reduce[byte as usize] = above | remainder(above, polynomial);
        }
        for byte in 0..256u64 {
            // One step further than the window reaches: the byte leaves in the same step in which the next one enters.
            tables.leave[byte as usize] = (0..WINDOW).fold(byte, |print, _| tables.step(print, 0));
        }
        Rabin(Arc::new(tables))
    }

    /// No chunk but a file's last is shorter.
    pub fn min(&self) -> usize {
        MIN
    }

    /// No chunk is longer.
    pub fn max(&self) -> usize {
        MAX
    }

    /// The length of the chunk that begins where `buffer` begins, or `None` while its end is not in `buffer` yet.
    ///
    /// `scanned` is 0 for a new chunk and then kept by the caller between calls for the same chunk: bytes before it were searched
    /// already, and `buffer` must still begin with them. A cut sets it back to 0. A buffer of 8 MiB always holds a cut. At a file's end
    /// the caller takes what is left as the last chunk.
    pub fn find_cut(&self, buffer: &[u8], scanned: &mut usize) -> Option<usize> {
        let tables = &*self.0;
        let end = buffer.len().min(MAX);
        let mut at = (MIN - 1).max(*scanned);
        let mut cut = None;
        while at < end && cut.is_none() {
            cut = if end - at >= LANES * LANE { tables.search_lanes(buffer, at) } else { tables.search(buffer, at, end) };
            at += LANES * LANE;
        }
        let length = cut.map(|last| last + 1).or((end == MAX).then_some(MAX));
        *scanned = if length.is_some() { 0 } else { end.max(*scanned) };
        length
    }
}

impl std::fmt::Debug for Rabin {
    /// Without the tables: whoever knows the polynomial can tell contents by their chunks' lengths.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rabin")
    }
}

impl Tables {
    #[inline(always)]
    fn step(&self, print: u64, enter: u8) -> u64 {
        ((print << 8) | u64::from(enter)) ^ self.reduce[(print >> (DEGREE - 8)) as usize & 0xff]
    }

    #[inline(always)]
    fn slide(&self, print: u64, enter: u8, leave: u8) -> u64 {
        self.step(print, enter) ^ self.leave[usize::from(leave)]
    }

    /// The fingerprint of the window that ends before `at`.
    fn print_before(&self, buffer: &[u8], at: usize) -> u64 {
        buffer[at - WINDOW..at].iter().fold(0, |print, byte| self.step(print, *byte))
    }

    /// The first place in `at..end` whose byte is a chunk's last.
    fn search(&self, buffer: &[u8], at: usize, end: usize) -> Option<usize> {
        let mut print = self.print_before(buffer, at);
        for (i, (enter, leave)) in buffer[at..end].iter().zip(&buffer[at - WINDOW..]).enumerate() {
            print = self.slide(print, *enter, *leave);
            if print & MASK == 0 {
                return Some(at + i);
            }
        }
        None
    }

    /// The same for `LANES * LANE` bytes from `at`.
    fn search_lanes(&self, buffer: &[u8], at: usize) -> Option<usize> {
        let starts: [usize; LANES] = std::array::from_fn(|lane| at + lane * LANE);
        let mut prints = starts.map(|start| self.print_before(buffer, start));
        let enter = starts.map(|start| words(buffer, start));
        let leave = starts.map(|start| words(buffer, start - WINDOW));
        for word in 0..LANE / 8 {
            let mut entering: [u64; LANES] = std::array::from_fn(|lane| u64::from_le_bytes(enter[lane][word]));
            let mut leaving: [u64; LANES] = std::array::from_fn(|lane| u64::from_le_bytes(leave[lane][word]));
            for _ in 0..8 {
                for lane in 0..LANES {
                    prints[lane] = self.slide(prints[lane], entering[lane] as u8, leaving[lane] as u8);
                    entering[lane] >>= 8;
                    leaving[lane] >>= 8;
                }
                if prints.iter().any(|print| print & MASK == 0) {
                    return self.first_of(buffer, &starts, word * 8);
                }
            }
        }
        None
    }

    /// Some lane has a cut among the eight bytes from `done` on, and no lane has one before: another lane may still have an earlier one.
    #[cold]
    fn first_of(&self, buffer: &[u8], starts: &[usize], done: usize) -> Option<usize> {
        starts.iter().find_map(|start| self.search(buffer, start + done, start + LANE))
    }
}

fn words(buffer: &[u8], start: usize) -> &[[u8; 8]; LANE / 8] {
    let words = buffer[start..start + LANE].as_chunks().0;
    words.try_into().expect("a lane is as many words long")
}

/// A new secret polynomial for a repository's `config`: irreducible and of degree 53, as restic demands of every repository.
pub fn random_polynomial() -> Result<u64, getrandom::Error> {
    loop {
        // About one candidate in 26 is irreducible, once the ones that x divides are left out.
        let candidate = crate::random::number()? & ((1 << DEGREE) - 1) | (1 << DEGREE) | 1;
        if is_irreducible(candidate) {
            return Ok(candidate);
        }
    }
}

/// Whether restic takes this polynomial in a repository's `config`, and writes such ones itself: irreducible and of degree 53.
pub fn is_usable(polynomial: u64) -> bool {
    degree(polynomial) == Some(DEGREE) && is_irreducible(polynomial)
}

/// Whether no polynomial of a lower degree, 1 aside, divides this one. Bit `n` is the coefficient of x^n over GF(2).
///
/// Ben-Or's test: the product of all irreducible polynomials whose degree divides `i` is x^(2^i) - x, so one of degree `n` that shares no
/// factor with it for any `i` up to `n / 2` has no factor at all.
fn is_irreducible(polynomial: u64) -> bool {
    let Some(top @ 1..) = degree(polynomial) else { return false };
    let mut power = remainder(0b10, polynomial);
    for _ in 1..=top / 2 {
        power = multiply(power, power, polynomial);
        if greatest_divisor(polynomial, power ^ remainder(0b10, polynomial)) != 1 {
            return false;
        }
    }
    true
}

fn degree(polynomial: u64) -> Option<u32> {
    polynomial.checked_ilog2()
}

/// `value` modulo `by`, which is not 0.
fn remainder(mut value: u64, by: u64) -> u64 {
    while let (Some(high), Some(low)) = (degree(value), degree(by)) {
        if high < low {
            break;
        }
        value ^= by << (high - low);
    }
    value
}

/// `a * b` modulo `by`; both are remainders of `by` already.
fn multiply(mut a: u64, mut b: u64, by: u64) -> u64 {
    let top = degree(by).unwrap_or(0);
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        // The top coefficient is known before the shift, so a degree of 63 does not run over.
        let carry = top > 0 && a >> (top - 1) & 1 == 1;
        a <<= 1;
        if carry {
            a ^= by;
        }
        b >>= 1;
    }
    product
}

fn greatest_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, remainder(a, b));
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The polynomial of a repository that stock restic made.
    const POLYNOMIAL: u64 = 0x3d_a335_8b4d_c173;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
    }

    /// Bit by bit and window by window, from the definition alone.
    fn is_cut(window: &[u8]) -> bool {
        let mut print = 0u64;
        for bit in window.iter().flat_map(|byte| (0..8).rev().map(move |n| u64::from(byte >> n & 1))) {
            print = print << 1 | bit;
            if print >> DEGREE & 1 == 1 {
                print ^= POLYNOMIAL;
            }
        }
        print & MASK == 0
    }

    fn lengths(rabin: &Rabin, data: &[u8], piece: usize) -> Vec<usize> {
        let (mut lengths, mut start, mut seen, mut scanned) = (Vec::new(), 0, 0, 0);
        while start < data.len() {
            match rabin.find_cut(&data[start..seen], &mut scanned) {
                Some(length) => {
                    lengths.push(length);
                    start += length;
                    seen = seen.max(start);
                }
                None if seen == data.len() => {
                    lengths.push(seen - start);
                    start = seen;
                }
                None => seen = (seen + piece).min(data.len()),
            }
        }
        lengths
    }

    #[test]
    fn every_cut_is_where_the_definition_says_and_nowhere_earlier() {
        let data = noise(7, 12 << 20);
        let rabin = Rabin::new(POLYNOMIAL);
        let (mut start, cuts) = (0, lengths(&rabin, &data, 1 << 20));
        assert!(cuts.len() > 4, "{cuts:?}");
        for length in &cuts[..cuts.len() - 1] {
            assert!(is_cut(&data[start + length - WINDOW..start + length]), "{length}");
            // A whole scan bit by bit would take minutes: the stretch before the cut must hold no other.
            for earlier in (start + length - 5_000).max(start + MIN)..start + length {
                assert!(!is_cut(&data[earlier - WINDOW..earlier]));
            }
            start += length;
        }
    }

    #[test]
    fn lanes_and_the_single_search_agree() {
        let data = noise(99, 24 << 20);
        let rabin = Rabin::new(POLYNOMIAL);
        let mut start = 0;
        for length in lengths(&rabin, &data, data.len()) {
            let end = data.len().min(start + MAX);
            let single = (start + MIN <= end).then(|| rabin.0.search(&data[start..end], MIN - 1, end - start)).flatten();
            assert_eq!(length, single.map_or(end - start, |last| last + 1));
            start += length;
        }
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive() {
        let data = noise(3, 6 << 20);
        let rabin = Rabin::new(POLYNOMIAL);
        let whole = lengths(&rabin, &data, data.len());
        for piece in [1_009, 65_536, (1 << 20) + 1] {
            assert_eq!(lengths(&rabin, &data, piece), whole, "{piece}");
        }
    }

    #[test]
    fn zeros_are_cut_at_the_minimum_and_a_stream_without_cuts_at_the_maximum() {
        let rabin = Rabin::new(POLYNOMIAL);
        assert_eq!(lengths(&rabin, &vec![0; 3 * MIN + 5], 1 << 16), [MIN, MIN, MIN, 5]);
        assert_eq!(lengths(&rabin, &vec![1; MAX + 5], 1 << 16), [MAX, 5]);
        assert_eq!(lengths(&rabin, &[], 1), [] as [usize; 0]);
        assert_eq!(lengths(&rabin, &[0; 100], 1), [100]);
    }

    #[test]
    fn only_irreducible_polynomials_of_degree_53_are_usable_and_the_others_harm_nothing() {
        assert!(is_usable(POLYNOMIAL));
        for bad in [0, 1, 2, 7, POLYNOMIAL ^ 1, POLYNOMIAL ^ 2, POLYNOMIAL << 1, u64::MAX] {
            assert!(!is_usable(bad), "{bad:#x}");
            let cuts = lengths(&Rabin::new(bad), &noise(1, 3 << 20), 1 << 20);
            assert_eq!(cuts.iter().sum::<usize>(), 3 << 20);
        }
    }

    #[test]
    fn irreducible_polynomials_of_a_low_degree_are_the_ones_that_trial_division_finds() {
        for candidate in 0..1u64 << 11 {
            let divided = (2..candidate).any(|by| degree(by) < degree(candidate) && remainder(candidate, by) == 0);
            assert_eq!(is_irreducible(candidate), candidate > 1 && !divided, "{candidate:#b}");
        }
    }

    #[test]
    fn random_polynomials_differ_and_are_fit_for_use() {
        let (one, other) = (random_polynomial().unwrap(), random_polynomial().unwrap());
        assert_ne!(one, other);
        assert!(is_usable(one) && is_usable(other));
    }

    proptest! {
        #[test]
        fn a_product_of_two_polynomials_is_never_irreducible(a in 2u64..1 << 27, b in 2u64..1 << 27) {
            let product = (0..27).filter(|n| b >> n & 1 == 1).fold(0, |sum, n| sum ^ a << n);
            prop_assert!(!is_irreducible(product));
            prop_assert_eq!(remainder(product, a), 0);
        }

        #[test]
        fn a_slid_window_has_the_fingerprint_of_a_fresh_one(data in proptest::collection::vec(any::<u8>(), WINDOW + 1..300)) {
            let rabin = Rabin::new(POLYNOMIAL);
            let mut print = rabin.0.print_before(&data, WINDOW);
            for at in WINDOW..data.len() {
                print = rabin.0.slide(print, data[at], data[at - WINDOW]);
                prop_assert_eq!(print, rabin.0.print_before(&data, at + 1));
            }
        }
    }
}
