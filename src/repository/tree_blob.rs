//! A tree of any size as a sealed blob, made entry by entry in the memory of what it shrinks to.

use std::io::{self, Write};

use zstd::stream::write::Encoder as Frame;

use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::repository::codec::{self, Encoded, MAX_BLOB, MAX_TREE};
use crate::repository::crypto::{Cipher, IV, TAG};
use crate::repository::error::RepositoryError;
use crate::repository::hash::Pieces;
use crate::repository::nodes::{MOST_NODE, most_runs};
use crate::repository::tree;

/// JSON that is gathered before it is compressed.
const PIECE: usize = 64 << 10;

/// A tree that is being made. Its entries come in the order of their names.
pub struct TreeBlob {
    text: String,
    is_empty: bool,
    /// Of the file that has the most.
    runs: usize,
    body: Body,
}

/// What has been compressed already, behind the room for the envelope's beginning.
struct Body {
    frame: Frame<'static, Vec<u8>>,
    hash: Pieces,
    plain: u64,
}

impl TreeBlob {
    pub fn new(level: i32) -> Result<Self, RepositoryError> {
        let make = || -> io::Result<_> {
            let mut frame = Frame::new(vec![0; IV], level)?;
            for parameter in codec::parameters(level) {
                frame.set_parameter(parameter)?;
            }
            Ok(frame)
        };
        let frame = make().map_err(RepositoryError::Unfaithful)?;
        let body = Body { frame, hash: Pieces::default(), plain: 0 };
        Ok(TreeBlob { text: tree::BEGIN.to_owned(), is_empty: true, runs: 0, body })
    }

    /// Adds the next entry. Refuses what no reader would take.
    pub fn push(&mut self, entry: &Entry) -> Result<(), RepositoryError> {
        let node = tree::node_size(entry);
        if node > MOST_NODE as u64 {
            let what = format!("the entry `{}` with {node} bytes of attributes", entry.name.escape_ascii());
            return Err(RepositoryError::Refused { what, reason: format!("no reader takes one of more than {MOST_NODE}") });
        }
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        if let Kind::File { content } = &entry.kind {
            self.runs = self.runs.max(content.runs().len());
        }
        let body = &mut self.body;
        tree::encode_entry(&mut self.text, entry, &mut |text| if text.len() < PIECE { Ok(()) } else { body.take(text) })
    }

    /// Ends the tree, proves that it can be read, and seals it.
    pub(super) fn finish(mut self, cipher: &Cipher) -> Result<(Id, Encoded, Vec<u8>), RepositoryError> {
        self.text.push_str(tree::END);
        self.body.take(&mut self.text)?;
        let Body { frame, hash, plain } = self.body;
        let mut sealed = frame.finish().map_err(RepositoryError::Unfaithful)?;
        let id = hash.finish();
        // A compressor or memory that garbles bytes must not go unnoticed until a restore.
        let mut proof = zstd::stream::read::Decoder::with_buffer(&sealed[IV..]).map_err(RepositoryError::Unfaithful)?;
        if codec::hash_all(&mut proof, plain).map_err(RepositoryError::Unfaithful)? != id {
            return Err(RepositoryError::Unfaithful(io::Error::other("decompressed bytes differ from the source")));
        }
        sealed.extend_from_slice(&[0; TAG]);
        if self.runs > most_runs(sealed.len()) {
            let what = "a file whose chunks repeat in one pattern for terabytes".to_owned();
            return Err(RepositoryError::Refused { what, reason: "no reader has the memory for it".to_owned() });
        }
        if sealed.len() > MAX_BLOB {
            let what = format!("a folder's tree of {} bytes", sealed.len());
            return Err(RepositoryError::Refused { what, reason: format!("no reader takes one of more than {MAX_BLOB}") });
        }
        cipher.seal_in_place(&mut sealed)?;
        let length = u32::try_from(sealed.len()).expect("at most a gigabyte");
        Ok((id, Encoded { length, plain_length: Some(u32::try_from(plain).expect("at most what a reader takes")) }, sealed))
    }
}

impl Body {
    /// Compresses what has been gathered.
    fn take(&mut self, text: &mut String) -> Result<(), RepositoryError> {
        self.plain += text.len() as u64;
        if self.plain > MAX_TREE {
            let what = format!("a folder's tree of more than {MAX_TREE} bytes");
            let reason = "the format has no room for one: spread what is in the folder over several".to_owned();
            return Err(RepositoryError::Refused { what, reason });
        }
        self.hash.add(text.as_bytes());
        self.frame.write_all(text.as_bytes()).map_err(RepositoryError::Unfaithful)?;
        text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::content::Content;
    use crate::model::entry::{Attrs, Xattr};
    use crate::repository::codec::{Decoder, FAST, LARGE, check_claim, id_of};
    use crate::repository::crypto::MasterKey;
    use crate::repository::entries::Entries;
    use crate::repository::pack::BlobKind;

    /// Through a blob and back.
    fn there_and_back(entries: &[Entry]) -> (Id, Encoded, Vec<Entry>) {
        let key = MasterKey::random().unwrap();
        let mut blob = TreeBlob::new(FAST).unwrap();
        for entry in entries {
            blob.push(entry).unwrap();
        }
        let (id, encoded, sealed) = blob.finish(&key.cipher()).unwrap();
        assert_eq!(sealed.len(), encoded.length as usize);
        check_claim(BlobKind::Tree, encoded.length, encoded.plain_length.unwrap()).unwrap();
        let back = Entries::open(&mut Decoder::new(&key).unwrap(), &id, sealed, encoded.plain_length).unwrap();
        (id, encoded, back.collect_all().unwrap())
    }

    proptest! {
        #[test]
        fn a_tree_made_entry_by_entry_is_the_same_as_one_made_at_once(entries in tree::tests::entries()) {
            let (id, _, back) = there_and_back(&entries);
            prop_assert_eq!(id, id_of(&tree::encode(&entries)));
            prop_assert_eq!(back, entries);
        }
    }

    fn file(name: &str, content: Content, xattrs: Vec<Xattr>) -> Entry {
        Entry { name: name.into(), kind: Kind::File { content }, attrs: Attrs { xattrs, ..Attrs::default() } }
    }

    #[test]
    fn what_a_writer_makes_of_extremes_a_reader_takes() {
        let mut hole = Content::default();
        hole.push(Id([1; 32]));
        hole.push_times(Id([2; 32]), 300_000);
        hole.push(Id([3; 32]));
        let xattrs = || vec![Xattr { name: "user.big".into(), value: vec![0; 60_000] }];
        let many = (0..200).map(|n| file(&format!("{n:04}"), Content::default(), xattrs())).collect();
        let names = (0..40_000).map(|n| file(&format!("{n:06}"), vec![Id([7; 32])].into(), Vec::new())).collect();
        for (entries, least) in [(vec![file("disk.img", hole, Vec::new())], 1000), (many, 500), (names, 20)] {
            let entries: Vec<Entry> = entries;
            let (_, encoded, back) = there_and_back(&entries);
            let plain = u64::from(encoded.plain_length.unwrap());
            assert!(plain > LARGE && plain / u64::from(encoded.length) > least, "{encoded:?}");
            assert!(back == entries, "{} entries", back.len());
        }
    }

    #[test]
    fn an_entry_that_no_reader_takes_is_refused_by_the_writer() {
        let value = vec![0; 1 << 20];
        let xattrs = (0..50).map(|n| Xattr { name: format!("user.{n}"), value: value.clone() }).collect();
        let error = TreeBlob::new(FAST).unwrap().push(&file("x", Content::default(), xattrs)).unwrap_err();
        assert!(matches!(error, RepositoryError::Refused { .. }), "{error}");
    }

    #[test]
    fn a_large_tree_that_is_damaged_gives_no_entry() {
        let key = MasterKey::random().unwrap();
        let mut hole = Content::default();
        hole.push_times(Id([2; 32]), 100_000);
        let mut blob = TreeBlob::new(FAST).unwrap();
        blob.push(&file("disk.img", hole, Vec::new())).unwrap();
        let (id, encoded, sealed) = blob.finish(&key.cipher()).unwrap();
        let plain = encoded.plain_length.unwrap();
        let open = |id: &Id, sealed: Vec<u8>, plain| Entries::open(&mut Decoder::new(&key).unwrap(), id, sealed, Some(plain));
        assert!(open(&id, sealed.clone(), plain).is_ok());
        assert!(open(&Id([0; 32]), sealed.clone(), plain).is_err());
        assert!(open(&id, sealed.clone(), plain - 1).is_err() && open(&id, sealed.clone(), plain + 1).is_err());
        let mut flipped = sealed;
        flipped[IV + 3] ^= 1;
        assert!(open(&id, flipped, plain).is_err());
    }
}
