//! The entries of a folder's tree, one by one: out of a list where the tree is small, out of the blob while it is unpacked where not.

use std::io::{Cursor, Read};
use std::vec;

use crate::model::entry::Entry;
use crate::model::id::Id;
use crate::repository::codec::{Decoder, LARGE};
use crate::repository::error::RepositoryError;
use crate::repository::nodes::Nodes;
use crate::repository::tree;

/// Entries in the order of their names, each proven to be of the tree before the first is given. After an error nothing more comes.
#[derive(Default)]
pub struct Entries(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Ended,
    Listed(vec::IntoIter<Entry>),
    Streamed(Box<(Id, Nodes<Box<dyn Read + Send>>)>),
}

impl Entries {
    /// Opens a tree's blob. Takes the memory of a few megabytes, or of the sealed blob where that is more, whatever it unpacks to.
    pub fn open(decoder: &mut Decoder, id: &Id, mut sealed: Vec<u8>, plain_length: Option<u32>) -> Result<Self, RepositoryError> {
        let damaged = |reason| RepositoryError::damaged(format!("tree {id}"), reason);
        if plain_length.map_or(sealed.len() as u64, u64::from) <= LARGE {
            let entries = tree::decode(decoder.decode(id, &mut sealed, plain_length)?).map_err(damaged)?;
            return Ok(Entries(Inner::Listed(entries.into_iter())));
        }
        let opened = decoder.open_proven(id, &mut sealed, plain_length)?;
        let length = sealed.len();
        sealed.truncate(opened.end);
        let mut opened_bytes = Cursor::new(sealed);
        opened_bytes.set_position(opened.start as u64);
        let source: Box<dyn Read + Send> = match plain_length {
            None => Box::new(opened_bytes),
            Some(_) => Box::new(zstd::stream::read::Decoder::with_buffer(opened_bytes).map_err(RepositoryError::Unfaithful)?),
        };
        Ok(Entries(Inner::Streamed(Box::new((*id, Nodes::new(source, length))))))
    }

    /// All of them.
    pub fn collect_all(self) -> Result<Vec<Entry>, RepositoryError> {
        match self.0 {
            Inner::Listed(entries) => Ok(entries.collect()),
            _ => self.collect(),
        }
    }
}

impl From<Vec<Entry>> for Entries {
    /// Entries that are sorted by name.
    fn from(entries: Vec<Entry>) -> Self {
        Entries(Inner::Listed(entries.into_iter()))
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, RepositoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &mut self.0 {
            Inner::Ended => return None,
            Inner::Listed(entries) => return entries.next().map(Ok),
            Inner::Streamed(stream) => {
                let (id, nodes) = &mut **stream;
                nodes.next_entry().map_err(|reason| RepositoryError::damaged(format!("tree {id}"), reason))
            }
        };
        if !matches!(next, Ok(Some(_))) {
            self.0 = Inner::Ended;
        }
        next.transpose()
    }
}
