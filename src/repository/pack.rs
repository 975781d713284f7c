//! Packs: blobs one after another, a sealed header that lists them, and the header's length. The object's name is the SHA-256 of it all.

use crate::model::id::Id;
use crate::repository::crypto::{Cipher, OVERHEAD};
use crate::repository::error::RepositoryError;

/// What a blob holds. Packs hold one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// A chunk of files' bytes.
    Data,
    /// One folder's entries.
    Tree,
}

impl BlobKind {
    /// As indexes write it.
    pub fn name(self) -> &'static str {
        match self {
            BlobKind::Data => "data",
            BlobKind::Tree => "tree",
        }
    }
}

/// One blob of a pack: where it is and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    pub id: Id,
    pub kind: BlobKind,
    pub offset: u32,
    /// Bytes in the pack, envelope and all.
    pub length: u32,
    /// Bytes before compression; `None` where it is stored raw.
    pub plain_length: Option<u32>,
}

/// A header lists at most this many blobs, so that it stays below the 16 MiB that restic reads.
pub const MAX_ENTRIES: usize = 400_000;
const MAX_HEADER: usize = 16 << 20;
const PLAIN_ENTRY: usize = 37;
const COMPRESSED_ENTRY: usize = 41;

/// `data/<first two digits>/<id>`.
pub fn key(id: &Id) -> String {
    let hex = id.hex();
    format!("data/{}/{hex}", &hex[..2])
}

/// The id in a pack's object name.
pub fn id_of_key(key: &str) -> Option<Id> {
    key.strip_prefix("data/")?.rsplit('/').next()?.parse().ok()
}

/// Bytes that a blob takes in its pack: its own and its entry in the header.
pub fn share(length: u32, plain_length: Option<u32>) -> u64 {
    u64::from(length) + if plain_length.is_some() { COMPRESSED_ENTRY } else { PLAIN_ENTRY } as u64
}

/// Bytes that a pack of these entries has.
pub fn size_of(entries: &[PackEntry]) -> u64 {
    entries.iter().map(|entry| share(entry.length, entry.plain_length)).sum::<u64>() + (OVERHEAD + 4) as u64
}

/// The sealed header and its length: what follows the blobs.
pub fn encode_header(entries: &[PackEntry], cipher: &Cipher) -> Result<Vec<u8>, RepositoryError> {
    let mut plain = Vec::with_capacity(entries.len() * COMPRESSED_ENTRY);
    for entry in entries {
        let base = match entry.kind {
            BlobKind::Data => 0,
            BlobKind::Tree => 1,
        };
        plain.push(if entry.plain_length.is_some() { base + 2 } else { base });
        plain.extend_from_slice(&entry.length.to_le_bytes());
        if let Some(length) = entry.plain_length {
            plain.extend_from_slice(&length.to_le_bytes());
        }
        plain.extend_from_slice(&entry.id.0);
    }
    let mut header = cipher.seal(&plain)?;
    let length = u32::try_from(header.len()).expect("bounded by MAX_ENTRIES");
    header.extend_from_slice(&length.to_le_bytes());
    Ok(header)
}

/// Bytes that the header takes at the end of a pack, its length field included, as the last four bytes say. `size` is the pack's.
pub fn header_size(last_four: [u8; 4], size: u64) -> Result<usize, String> {
    let length = u32::from_le_bytes(last_four) as usize;
    if length <= OVERHEAD || length > MAX_HEADER + OVERHEAD || (length + 4) as u64 > size {
        return Err(format!("its header claims {length} of {size} bytes"));
    }
    Ok(length + 4)
}

/// The entries of a header as [`header_size`] found it; offsets are counted up from 0. `blobs` is how many bytes stand before it.
pub fn decode_header(header: &[u8], blobs: u64, cipher: &Cipher) -> Result<Vec<PackEntry>, String> {
    let sealed = header.get(..header.len().saturating_sub(4)).unwrap_or_default();
    let plain = cipher.open(sealed).map_err(|e| e.to_string())?;
    let mut entries = Vec::with_capacity(plain.len() / PLAIN_ENTRY);
    let mut rest = &plain[..];
    let mut offset = 0u64;
    while let [tag, tail @ ..] = rest {
        let kind = if tag & 1 == 0 { BlobKind::Data } else { BlobKind::Tree };
        let fields = match tag {
            0 | 1 => PLAIN_ENTRY - 1,
            2 | 3 => COMPRESSED_ENTRY - 1,
            other => return Err(format!("its header has an entry of unknown kind {other}")),
        };
        if tail.len() < fields {
            return Err("its header ends within an entry".to_owned());
        }
        let number = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().expect("four bytes"));
        let length = number(0);
        let plain_length = (*tag >= 2).then(|| number(4));
        let id = Id(tail[fields - 32..fields].try_into().expect("32 bytes"));
        let place = u32::try_from(offset).map_err(|_| "it claims more than 4 GiB".to_owned())?;
        entries.push(PackEntry { id, kind, offset: place, length, plain_length });
        offset += u64::from(length);
        rest = &tail[fields..];
    }
    if offset != blobs {
        return Err(format!("its header lists {offset} bytes of blobs where {blobs} stand"));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::crypto::MasterKey;

    fn entry(n: u8, length: u32, plain_length: Option<u32>, offset: u32) -> PackEntry {
        PackEntry { id: Id([n; 32]), kind: BlobKind::Data, offset, length, plain_length }
    }

    #[test]
    fn a_header_tells_what_was_put_into_it() {
        let cipher = MasterKey::random().unwrap().cipher();
        let entries = [entry(1, 100, None, 0), entry(2, 50, Some(80), 100), entry(3, 40, None, 150)];
        let header = encode_header(&entries, &cipher).unwrap();
        assert_eq!(size_of(&entries), 190 + header.len() as u64);
        let last = header[header.len() - 4..].try_into().unwrap();
        assert_eq!(header_size(last, size_of(&entries)).unwrap(), header.len());
        assert_eq!(decode_header(&header, 190, &cipher).unwrap(), entries);
        assert!(decode_header(&header, 191, &cipher).is_err());
    }

    #[test]
    fn headers_that_lie_about_their_length_are_refused() {
        for (claim, size) in [(0u32, 100), (32, 100), (97, 100), (u32::MAX, u64::MAX)] {
            assert!(header_size(claim.to_le_bytes(), size).is_err(), "{claim} of {size}");
        }
    }

    #[test]
    fn a_packs_name_and_key_match_each_other() {
        let id = Id([0x3c; 32]);
        assert_eq!(id_of_key(&key(&id)), Some(id));
        assert_eq!(id_of_key("data/3c/short"), None);
        assert_eq!(id_of_key("index/3c"), None);
    }
}
