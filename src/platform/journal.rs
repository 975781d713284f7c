//! The right to write one open journal.

use std::fs::File;

use crate::model::set::SetName;

/// Nobody else writes the journal as long as this lives; it ends with the process that has it, however that ends.
#[derive(Debug)]
pub struct JournalHold {
    pub(super) set: SetName,
    /// Where the journal is a file: open, and locked by its descriptor.
    pub(super) file: Option<File>,
    /// Where it is an object of the API server: the version that this one has read or written last.
    pub(super) version: Option<String>,
}
