//! What can be mended in a damaged repository.

pub mod index;
