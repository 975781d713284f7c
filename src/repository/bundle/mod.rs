//! Bundles: copies of many small objects in one, so that a repository of thousands of points is read with tens of requests.
//!
//! Every backup adds a snapshot and some index objects, and every later run reads all that there are. A bundle is a side object that holds
//! such objects as they are stored, one after the other. An object's name is the hash of its bytes, so a bundle cannot say anything wrong
//! of one that it has; and which objects there are, the list of their folder says alone. Nothing but speed depends on bundles: they can be
//! deleted, lag behind, or hold what is gone.

mod fold;
mod gather;

pub use fold::fold;
pub use gather::{Source, gather};

use bytes::Bytes;

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::codec::id_of;
use crate::repository::crypto::OVERHEAD;
use crate::repository::error::RepositoryError;
use crate::store::Object;

/// Where bundles are: `<folder of the originals>.<random>`.
const FOLDER: &str = "x-keepset/bundles";
/// Objects that are stored in more bytes than these are as well read by themselves.
const SMALL: u64 = 64 << 10;
/// A bundle is closed at so many bytes: each mover reads it in one piece, within the memory that it has.
const FULL: usize = 1 << 20;
/// So many small objects are read one by one before it pays to bundle them.
pub const LOOSE: usize = 64;
/// The only form that there is by now; it is a bundle's first byte.
const VERSION: u8 = 1;

/// The bundles of this folder's objects.
async fn bundles(repository: &Repository, folder: &str) -> Result<Vec<Object>, RepositoryError> {
    let mut objects = repository.store().list(FOLDER).await?;
    let prefix = format!("{FOLDER}/{folder}.");
    objects.retain(|object| object.key.starts_with(&prefix));
    Ok(objects)
}

/// What is in a bundle.
async fn open(repository: &Repository, key: &str) -> Result<Vec<(Id, Bytes)>, RepositoryError> {
    let plain = repository.get_side(key).await?;
    decode(plain.into()).ok_or_else(|| RepositoryError::damaged(key, "it is no bundle of a kind that is known here"))
}

/// A version, then each object behind its length: four bytes, little-endian.
pub fn encode(objects: &[Bytes]) -> Vec<u8> {
    let mut plain = vec![VERSION];
    for object in objects {
        plain.extend_from_slice(&u32::try_from(object.len()).expect("small objects").to_le_bytes());
        plain.extend_from_slice(object);
    }
    plain
}

/// The objects of a bundle under the only names that they can have; `None` for bytes that are no bundle. What is shorter than a seal is no
/// object, so that few bytes cannot claim to be many.
pub fn decode(mut plain: Bytes) -> Option<Vec<(Id, Bytes)>> {
    if plain.is_empty() || plain.split_to(1)[0] != VERSION {
        return None;
    }
    let mut objects = Vec::new();
    while !plain.is_empty() {
        let length = usize::try_from(u32::from_le_bytes(*plain.first_chunk()?)).ok()?;
        let _length = plain.split_to(4);
        if length < OVERHEAD || length > plain.len() {
            return None;
        }
        let object = plain.split_to(length);
        objects.push((id_of(&object), object));
    }
    Some(objects)
}

#[cfg(test)]
mod tests;
