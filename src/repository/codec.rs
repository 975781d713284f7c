//! A blob's way between plain bytes and bytes as a pack holds them: compress, prove, seal; and back: open, decompress, compare ids.

use std::io::{self, Read};
use std::ops::Range;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy};

use crate::model::id::Id;
use crate::repository::crypto::{Cipher, IV, MasterKey, TAG};
use crate::repository::error::RepositoryError;
use crate::repository::hash::Pieces;
pub use crate::repository::hash::id_of;
use crate::repository::pack::BlobKind;

/// A blob of the restic format is smaller than this: the format has 32-bit lengths, and no writer makes one near it. What claims to be
/// larger is damaged or hostile.
pub const MAX_BLOB: usize = 1 << 30;
/// A blob up to this size may have been compressed to anything: zeros shrink a thousandfold and more.
const MAX_SHRUNK_CHUNK: u64 = 128 << 20;
/// What is larger unpacks to at most this many times its size.
const MAX_RATIO: u64 = 512;
/// The longest tree, unpacked: the format has 32-bit lengths. A folder of sparse files shrinks many thousandfold.
pub const MAX_TREE: u64 = u32::MAX as u64;
/// A tree that is longer unpacked never stands in memory as a whole: it is made, proven and read as a stream.
pub const LARGE: u64 = 4 << 20;
/// The same for chunks that are only proven, and everything whose kind is not known. Chunkers make none that is longer.
const LARGE_CHUNK: u64 = 16 << 20;

/// Whether a blob of `length` bytes in its pack may claim `plain` bytes before it was compressed. A few kilobytes that unpack to a gigabyte
/// are an attack on memory where they are a chunk; a tree's reader does not hold what it unpacks to.
pub fn check_claim(kind: BlobKind, length: u32, plain: u32) -> Result<(), String> {
    let (length, plain) = (u64::from(length), u64::from(plain));
    if kind == BlobKind::Tree && plain <= MAX_TREE {
        return Ok(());
    }
    if plain > MAX_BLOB as u64 || plain > MAX_SHRUNK_CHUNK.max(length.saturating_mul(MAX_RATIO)) {
        return Err(format!("its {length} bytes claim to unpack to {plain}"));
    }
    Ok(())
}

/// zstd's level where nobody says otherwise, tuned: its single-probe search with a window as long as most chunks and shorter matches.
/// On binaries and sources that takes a quarter more time than the level itself and saves three percent, which is what keeps repositories
/// no larger than restic's.
pub const FAST: i32 = 2;
/// Blobs below this have little to search in: the next level costs them little time and saves another two percent.
const SMALL: usize = 128 << 10;
const TUNED: [CParameter; 4] =
    [CParameter::Strategy(Strategy::ZSTD_fast), CParameter::WindowLog(20), CParameter::HashLog(17), CParameter::MinMatch(5)];

/// What a compressor of this level is set to besides.
pub(super) fn parameters(level: i32) -> impl Iterator<Item = CParameter> {
    TUNED.into_iter().filter(move |_| level == FAST)
}

/// The hash of everything that comes out of `source`, which must be `length` bytes.
pub(super) fn hash_all(source: &mut impl Read, length: u64) -> io::Result<Id> {
    let mut buffer = vec![0; 128 << 10];
    let (mut hash, mut found) = (Pieces::default(), 0);
    loop {
        let got = match source.read(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        found += got as u64;
        if found > length || (got == 0 && found < length) {
            return Err(io::Error::other(format!("{} bytes instead of {length}", if got == 0 { "fewer" } else { "more" })));
        }
        if got == 0 {
            return Ok(hash.finish());
        }
        hash.add(&buffer[..got]);
    }
}

/// First bytes of what a repository takes for one of its own small objects: JSON, compressed JSON, a bundle. A chunk that begins so is never
/// stored raw: sealed, it would be such an object, whose content anybody chooses who can write a file into a volume, and who then needs
/// nothing but the right to copy it to another name in the store. JSON may have white space before it.
pub(crate) const SEALED_BEGIN: [u8; 8] = [b'{', b'[', 1, 2, b' ', b'\t', b'\n', b'\r'];

/// A blob as it goes into a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes in the pack, envelope and all.
    pub length: u32,
    /// Bytes before compression; `None` where it was stored raw.
    pub plain_length: Option<u32>,
}

/// One thread's tools for sealing blobs.
pub struct Encoder {
    cipher: Cipher,
    compressor: Compressor<'static>,
    /// For blobs below [`SMALL`].
    small: Compressor<'static>,
    probe: Compressor<'static>,
    proof: Decompressor<'static>,
    proven: Vec<u8>,
    sealed: Vec<u8>,
}

impl Encoder {
    /// Contexts are made once: zstd's own take longer to make than a small blob to compress.
    pub fn new(key: &MasterKey, level: i32) -> Result<Self, RepositoryError> {
        let make = || -> io::Result<Self> {
            let mut compressor = Compressor::new(level)?;
            let mut small = Compressor::new(if level == FAST { FAST + 1 } else { level })?;
            for compressor in [&mut compressor, &mut small] {
                compressor.set_parameter(CParameter::ChecksumFlag(false))?;
                compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
            }
            for parameter in parameters(level) {
                compressor.set_parameter(parameter)?;
            }
            let mut probe = Compressor::new(1)?;
            probe.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
            Ok(Encoder {
                cipher: key.cipher(),
                compressor,
                small,
                probe,
                proof: Decompressor::new()?,
                proven: Vec::new(),
                sealed: Vec::new(),
            })
        };
        make().map_err(RepositoryError::Unfaithful)
    }

    /// Compresses where that pays, proves that decompression gives the same bytes while the plain ones are at hand, and seals. The
    /// returned bytes are valid until the next call.
    pub fn encode(&mut self, plain: &[u8]) -> Result<(Encoded, &[u8]), RepositoryError> {
        let room = IV + zstd::zstd_safe::compress_bound(plain.len()).max(plain.len()) + TAG;
        if self.sealed.len() < room {
            self.sealed.resize(room, 0);
        }
        let mut length = plain.len();
        let mut plain_length = None;
        let looks_sealed = plain.first().is_some_and(|first| SEALED_BEGIN.contains(first));
        if looks_sealed || self.pays(plain)? {
            let compressor = if plain.len() < SMALL { &mut self.small } else { &mut self.compressor };
            let compressed = compressor.compress_to_buffer(plain, &mut self.sealed[IV..]).map_err(RepositoryError::Unfaithful)?;
            let claimed = u32::try_from(plain.len()).expect("chunkers and trees stay below 4 GiB");
            // What a reader would take for an attack on its memory is stored raw: no point may rest on a blob that is refused later.
            let opened = u32::try_from(compressed).unwrap_or(u32::MAX);
            if (looks_sealed || compressed < plain.len()) && check_claim(BlobKind::Data, opened, claimed).is_ok() {
                self.prove(plain, compressed)?;
                length = compressed;
                plain_length = Some(claimed);
            }
        }
        if plain_length.is_none() {
            self.sealed[IV..IV + length].copy_from_slice(plain);
        }
        let sealed = &mut self.sealed[..IV + length + TAG];
        self.cipher.seal_in_place(sealed)?;
        let length = u32::try_from(sealed.len()).expect("chunkers and trees stay below 4 GiB");
        Ok((Encoded { length, plain_length }, sealed))
    }

    /// A compressor or memory that garbles bytes must not go unnoticed until a restore.
    fn prove(&mut self, plain: &[u8], compressed: usize) -> Result<(), RepositoryError> {
        self.proven.clear();
        self.proven.reserve(plain.len());
        self.proof.decompress_to_buffer(&self.sealed[IV..IV + compressed], &mut self.proven).map_err(RepositoryError::Unfaithful)?;
        if self.proven == plain {
            Ok(())
        } else {
            Err(RepositoryError::Unfaithful(io::Error::other("decompressed bytes differ from the source")))
        }
    }

    /// Three samples of 4 KiB tell random bytes from others at a hundredth of the cost of compressing them.
    fn pays(&mut self, plain: &[u8]) -> Result<bool, RepositoryError> {
        const SAMPLE: usize = 4096;
        if plain.len() < 16 * SAMPLE {
            return Ok(!plain.is_empty());
        }
        let mut sample = [0u8; SAMPLE + 512];
        for at in [0, (plain.len() - SAMPLE) / 2, plain.len() - SAMPLE] {
            let size = self.probe.compress_to_buffer(&plain[at..at + SAMPLE], &mut sample[..]).map_err(RepositoryError::Unfaithful)?;
            if size < SAMPLE - SAMPLE / 32 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One thread's tools for opening blobs.
pub struct Decoder {
    cipher: Cipher,
    decompressor: Decompressor<'static>,
    plain: Vec<u8>,
}

impl Decoder {
    pub fn new(key: &MasterKey) -> Result<Self, RepositoryError> {
        Ok(Decoder { cipher: key.cipher(), decompressor: Decompressor::new().map_err(RepositoryError::Unfaithful)?, plain: Vec::new() })
    }

    /// Opens `sealed` in place, decompresses it if `plain_length` says that it was compressed, and proves that the bytes are those of
    /// `id`. The returned bytes are valid until the next call.
    pub fn decode<'a>(&'a mut self, id: &Id, sealed: &'a mut [u8], plain_length: Option<u32>) -> Result<&'a [u8], RepositoryError> {
        let damaged = |reason: &dyn std::fmt::Display| RepositoryError::damaged(format!("blob {id}"), reason);
        let opened = self.cipher.open_in_place(sealed).map_err(|e| damaged(&e))?;
        let plain: &[u8] = match plain_length {
            None => opened,
            Some(length) => {
                check_claim(BlobKind::Data, u32::try_from(opened.len()).unwrap_or(u32::MAX), length).map_err(|e| damaged(&e))?;
                let length = length as usize;
                self.plain.clear();
                self.plain.reserve(length);
                self.decompressor.decompress_to_buffer(opened, &mut self.plain).map_err(|e| damaged(&e))?;
                if self.plain.len() != length {
                    return Err(damaged(&format_args!("{} bytes instead of {length}", self.plain.len())));
                }
                &self.plain
            }
        };
        if id_of(plain) == *id { Ok(plain) } else { Err(damaged(&"its bytes are not those that its name says")) }
    }

    /// Opens `sealed` in place and proves it as [`Decoder::decode`] does, in little memory whatever it unpacks to. Gives where its bytes are,
    /// compressed as they were.
    pub fn open_proven(&mut self, id: &Id, sealed: &mut [u8], plain_length: Option<u32>) -> Result<Range<usize>, RepositoryError> {
        let damaged = |reason: &dyn std::fmt::Display| RepositoryError::damaged(format!("blob {id}"), reason);
        let opened: &[u8] = self.cipher.open_in_place(sealed).map_err(|e| damaged(&e))?;
        let range = IV..IV + opened.len();
        let found = match plain_length {
            None => id_of(opened),
            Some(length) => {
                let mut frame = zstd::stream::read::Decoder::with_buffer(opened).map_err(RepositoryError::Unfaithful)?;
                hash_all(&mut frame, length.into()).map_err(|e| damaged(&e))?
            }
        };
        if found == *id { Ok(range) } else { Err(damaged(&"its bytes are not those that its name says")) }
    }

    /// Proves a blob of whichever kind, as [`Decoder::decode`] does, in little memory.
    pub fn prove(&mut self, id: &Id, sealed: &mut [u8], plain_length: Option<u32>) -> Result<(), RepositoryError> {
        if plain_length.is_none_or(|length| u64::from(length) <= LARGE_CHUNK) {
            self.decode(id, sealed, plain_length).map(|_| ())
        } else {
            self.open_proven(id, sealed, plain_length).map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_blob_comes_back_as_it_was(seed in any::<u64>(), length in 0usize..200_000, alphabet in 1u64..256) {
            let mut state = seed | 1;
            let plain: Vec<u8> = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state % alphabet) as u8
                })
                .collect();
            let key = MasterKey::random().unwrap();
            let mut encoder = Encoder::new(&key, 1).unwrap();
            let (encoded, sealed) = encoder.encode(&plain).unwrap();
            let mut sealed = sealed.to_vec();
            prop_assert_eq!(sealed.len(), encoded.length as usize);
            let mut decoder = Decoder::new(&key).unwrap();
            prop_assert_eq!(decoder.decode(&id_of(&plain), &mut sealed, encoded.plain_length).unwrap(), &plain[..]);
        }
    }

    #[test]
    fn what_shrinks_to_less_than_a_reader_takes_is_stored_raw() {
        let key = MasterKey::random().unwrap();
        let mut encoder = Encoder::new(&key, FAST).unwrap();
        let plain = vec![0; usize::try_from(MAX_SHRUNK_CHUNK).unwrap() + 1];
        let (encoded, sealed) = encoder.encode(&plain).unwrap();
        assert_eq!(encoded.plain_length, None);
        let mut sealed = sealed.to_vec();
        assert!(Decoder::new(&key).unwrap().decode(&id_of(&plain), &mut sealed, None).unwrap() == plain);
    }

    #[test]
    fn what_begins_as_a_sealed_object_does_is_never_stored_raw() {
        let key = MasterKey::random().unwrap();
        let mut encoder = Encoder::new(&key, FAST).unwrap();
        for first in SEALED_BEGIN {
            for length in [1, 2, 100, 300_000] {
                let mut plain = vec![0u8; length];
                crate::random::fill(&mut plain).unwrap();
                plain[0] = first;
                let (encoded, sealed) = encoder.encode(&plain).unwrap();
                assert!(encoded.plain_length.is_some(), "{first}, {length} bytes");
                let mut sealed = sealed.to_vec();
                assert!(!SEALED_BEGIN.contains(&key.cipher().open(&sealed).unwrap()[0]));
                assert!(Decoder::new(&key).unwrap().decode(&id_of(&plain), &mut sealed, encoded.plain_length).unwrap() == plain);
            }
        }
    }

    #[test]
    fn bytes_under_a_wrong_name_are_refused() {
        let key = MasterKey::random().unwrap();
        let mut sealed = Encoder::new(&key, 1).unwrap().encode(b"right").unwrap().1.to_vec();
        assert!(Decoder::new(&key).unwrap().decode(&id_of(b"wrong"), &mut sealed, None).is_err());
    }

    #[test]
    fn random_bytes_are_stored_raw_and_text_is_compressed() {
        let key = MasterKey::random().unwrap();
        let mut encoder = Encoder::new(&key, 1).unwrap();
        let mut random = vec![0u8; 300_000];
        crate::random::fill(&mut random).unwrap();
        assert_eq!(encoder.encode(&random).unwrap().0.plain_length, None);
        let text = b"select * from accounts; ".repeat(10_000);
        assert!(encoder.encode(&text).unwrap().0.length < 10_000);
    }

    #[test]
    fn a_frame_that_claims_more_than_it_holds_is_damaged_and_costs_no_memory() {
        let key = MasterKey::random().unwrap();
        let mut encoder = Encoder::new(&key, 1).unwrap();
        let text = b"abc ".repeat(1000);
        let sealed = encoder.encode(&text).unwrap().1.to_vec();
        let mut decoder = Decoder::new(&key).unwrap();
        for claimed in [1u32, 3999, 4001, u32::MAX] {
            assert!(decoder.decode(&id_of(&text), &mut sealed.clone(), Some(claimed)).is_err(), "{claimed}");
        }
    }
}
