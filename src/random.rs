//! The one place that asks for random bytes.
#![allow(clippy::disallowed_methods, reason = "this is the room that the ban points to")]

/// Fills `bytes` with random ones of the system. A test may have seeded this thread; then they follow from the seed.
pub fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    #[cfg(any(test, feature = "fault-injection"))]
    if seeded::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}

/// A random number of the system, as by [`fill`].
pub fn number() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(any(test, feature = "fault-injection"))]
pub use seeded::Seeded;

#[cfg(any(test, feature = "fault-injection"))]
mod seeded {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex, PoisonError};

    thread_local! {
        static SOURCE: RefCell<Option<Seeded>> = const { RefCell::new(None) };
    }

    /// Bytes that follow from a seed, for tests that must come out the same twice. Clones go on with the same stream. Builds for users have none
    /// of it.
    #[derive(Clone, Debug)]
    pub struct Seeded(Arc<Mutex<u64>>);

    impl Seeded {
        pub fn new(seed: u64) -> Self {
            Seeded(Arc::new(Mutex::new(seed)))
        }

        /// This thread draws from here until it draws from another source, or ends.
        pub fn serve_this_thread(&self) {
            SOURCE.set(Some(self.clone()));
        }

        /// This thread draws from the system again.
        pub fn leave_this_thread() {
            SOURCE.set(None);
        }

        /// splitmix64.
        fn next(&self) -> u64 {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    /// False where this thread draws from the system.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        SOURCE.with_borrow(|source| {
            let Some(source) = source else { return false };
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&source.next().to_le_bytes()[..part.len()]);
            }
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_the_system_others() {
        let draw = || {
            let mut bytes = [0; 20];
            fill(&mut bytes).unwrap();
            (bytes, number().unwrap())
        };
        let seeded = |seed| {
            Seeded::new(seed).serve_this_thread();
            let drawn = draw();
            Seeded::leave_this_thread();
            drawn
        };
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        assert_ne!(draw(), draw());
    }
}
