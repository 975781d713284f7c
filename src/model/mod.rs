//! The nouns that every floor shares: plain data, no IO, no async.
//!
//! A file belongs here only if two rooms use it.

pub mod claim;
pub mod content;
pub mod entry;
pub mod exclude;
pub mod hook;
pub mod id;
pub mod journal;
pub mod manifest;
pub mod moved;
pub mod mover_job;
pub mod path_text;
pub mod pod_words;
pub mod point;
pub mod set;
pub mod set_state;
pub mod standing;
