//! The entries of a folder's tree, one by one: out of a list where the tree is small, out of the blob while it is unpacked where not.

use std::io::{self, BufRead, Read};
use std::vec;

use crate::model::entry::Entry;
use crate::model::id::Id;
use crate::repository::codec::{Decoder, LARGE};
use crate::repository::error::RepositoryError;
use crate::repository::nodes::Nodes;
use crate::repository::tree;

/// Bytes of a blob that are given back at a time.
const PIECE: usize = 1 << 20;

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
        let pieces = Pieces::of(sealed, opened.start);
        let source: Box<dyn Read + Send> = match plain_length {
            None => Box::new(pieces),
            Some(_) => Box::new(zstd::stream::read::Decoder::with_buffer(pieces).map_err(RepositoryError::Unfaithful)?),
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

/// Bytes whose memory is given back while they are read.
struct Pieces {
    /// The last first.
    pieces: Vec<Box<[u8]>>,
    /// Of the next one so many bytes are read.
    at: usize,
}

impl Pieces {
    /// Of the bytes from `start` on.
    fn of(mut bytes: Vec<u8>, start: usize) -> Pieces {
        let mut pieces = Vec::new();
        while bytes.len() > start {
            let from = bytes.len().saturating_sub(PIECE).max(start);
            pieces.push(bytes[from..].into());
            bytes.truncate(from);
            bytes.shrink_to_fit();
        }
        Pieces { pieces, at: 0 }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.pieces.last().map_or(&[], |piece| &piece[self.at..]))
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
        if self.pieces.last().is_some_and(|piece| piece.len() == self.at) {
            self.pieces.pop();
            self.at = 0;
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(out)?;
        self.consume(length);
        Ok(length)
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
