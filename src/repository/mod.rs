//! The repository: a restic v2 repository, byte for byte, with our rules on top (`docs/format.md`).
//!
//! It knows the store and nothing else of the world: neither files on disk nor platforms. Everything that is stored is sealed with the
//! master key, which each password opens. Order of writes is the transaction: packs, then the index that names them, then the snapshot.

pub mod adopt;
pub mod browse;
pub mod bundle;
pub mod check;
pub mod chunk;
pub mod codec;
pub mod config;
pub mod crypto;
pub mod entries;
pub mod error;
pub mod forget;
pub mod hash;
pub mod header;
pub mod id_set;
pub mod index;
pub mod key;
pub mod lock;
pub mod nodes;
pub mod pack;
pub mod passwords;
pub mod points;
pub mod prove;
pub mod prune;
pub mod reach;
pub mod read_plan;
pub mod reader;
pub mod repair;
pub mod run;
pub mod same_file;
pub mod select;
pub mod snapshot;
pub mod tasks;
pub mod tree;
pub mod tree_blob;
pub mod writer;

use std::cell::RefCell;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use zstd::bulk::Decompressor;
use zstd::zstd_safe;

use crate::model::id::Id;
use crate::repository::codec::id_of;
use crate::repository::config::Config;
use crate::repository::crypto::MasterKey;
use crate::repository::error::RepositoryError;
use crate::repository::key::{KeyObject, KeyOrigin, Password};
use crate::store::{ErrorKind, Object, Store};

/// An open repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    master: MasterKey,
    config: Config,
}

/// The byte that stands before a compressed object; an uncompressed one begins with `{` or `[`.
const COMPRESSED: u8 = 2;
/// An index object that claims to be larger, stored or unpacked, is damaged or hostile: writers close theirs at a few MiB.
const MAX_INDEX: usize = 128 << 20;
/// The same for every other small object: snapshots, locks, keys, side objects, `config`.
pub(crate) const MAX_SMALL: usize = 16 << 20;

/// An object as the list of its folder names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: Id,
    /// Bytes as it is stored.
    pub size: u64,
}

/// A snapshot or index object that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unreadable {
    pub id: Id,
    pub reason: String,
}

impl Repository {
    /// Makes a new repository in an empty store: the first key, then `config`, create-only; that is the moment from which it exists. Where
    /// that was interrupted between the two, the same password takes it up again: the key that is there is used.
    pub async fn init(store: Store, password: &Password, origin: KeyOrigin) -> Result<Self, RepositoryError> {
        let there = || RepositoryError::AlreadyThere { location: store.location().to_owned() };
        if store.size(config::KEY).await?.is_some() {
            return Err(there());
        }
        let (made, master) = match key::open(&store, password, |_| true).await {
            Ok((_, master)) => (None, master),
            Err(RepositoryError::WrongPassword { .. } | RepositoryError::Closed { .. }) if Self::has_lost_config(&store).await? => {
                return Err(Self::lost_config());
            }
            Err(RepositoryError::WrongPassword { .. }) if store.list(key::FOLDER).await?.is_empty() => {
                let master = MasterKey::random()?;
                (Some(key::save(&store, &KeyObject::new(&master, password, origin)?).await?), master)
            }
            // Whose keys are these? Perhaps those of a repository that lost its config: they must not be buried under another's.
            Err(RepositoryError::WrongPassword { .. } | RepositoryError::Closed { .. }) => {
                return Err(RepositoryError::Unfinished { location: store.location().to_owned() });
            }
            Err(error) => return Err(error),
        };
        let config = Config::random()?;
        let plain = serde_json::to_vec(&config).expect("strings and numbers always serialise");
        match store.put_new(config::KEY, master.cipher().seal(&plain)?.into()).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                // Somebody was faster: a key of ours opens nothing there.
                if let Some(id) = made
                    && let Err(error) = store.delete(&[format!("{}/{id}", key::FOLDER)]).await
                {
                    tracing::warn!(%error, %id, "a key that opens nothing stays behind");
                }
                Err(there())
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Repository { inner: Arc::new(Inner { store, master, config }) }),
        }
    }

    /// Refuses a place that holds a repository, also one that lost its config: what a new password makes there would close for good what
    /// the old ones open.
    pub async fn ensure_free(store: &Store) -> Result<(), RepositoryError> {
        if store.size(config::KEY).await?.is_some() {
            return Err(RepositoryError::AlreadyThere { location: store.location().to_owned() });
        }
        if Self::has_lost_config(store).await? { Err(Self::lost_config()) } else { Ok(()) }
    }

    /// Opens a repository of ours, of restic's or of rustic's.
    pub async fn open(store: Store, password: &Password) -> Result<Self, RepositoryError> {
        let sealed = Self::config_object(&store).await?;
        let (_, master) = key::open(&store, password, |master| master.cipher().open(&sealed).is_ok()).await?;
        Self::with_config(store, master, &sealed)
    }

    /// Opens with a master key that another process opened before.
    pub async fn with_key(store: Store, master: MasterKey) -> Result<Self, RepositoryError> {
        let sealed = Self::config_object(&store).await?;
        Self::with_config(store, master, &sealed)
    }

    async fn config_object(store: &Store) -> Result<bytes::Bytes, RepositoryError> {
        match store.get_within(config::KEY, MAX_SMALL as u64).await {
            Ok(sealed) => Ok(sealed),
            Err(error) if error.kind == ErrorKind::NotFound => Err(match Self::has_lost_config(store).await? {
                true => Self::lost_config(),
                false => RepositoryError::NoRepository { location: store.location().to_owned() },
            }),
            Err(error) if error.kind == ErrorKind::TooLong => Err(RepositoryError::closed("the repository's config", "it is far too long")),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a store without a `config` holds what a repository holds: then it is no fresh place. Keys do not count: an `init` that died
    /// leaves one.
    async fn has_lost_config(store: &Store) -> Result<bool, RepositoryError> {
        Ok(!store.list(snapshot::FOLDER).await?.is_empty() || !store.list(index::FOLDER).await?.is_empty())
    }

    fn lost_config() -> RepositoryError {
        RepositoryError::closed("the repository's config", "it is gone, though a repository's objects are there")
    }

    fn with_config(store: Store, master: MasterKey, sealed: &[u8]) -> Result<Self, RepositoryError> {
        let what = "the repository's config";
        let plain = master.cipher().open(sealed).map_err(|e| RepositoryError::closed(what, e))?;
        let config: Config = serde_json::from_slice(&plain).map_err(|e| RepositoryError::closed(what, e))?;
        if config.version != 2 {
            return Err(RepositoryError::Unsupported {
                what: format!("a repository of version {}", config.version),
                reason: "version 2 is read and written; `restic migrate upgrade_repo_v2` brings version 1 up to it".to_owned(),
            });
        }
        Ok(Repository { inner: Arc::new(Inner { store, master, config }) })
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// To be handed to a worker over a pipe, and nowhere else.
    pub fn master_key(&self) -> &MasterKey {
        &self.inner.master
    }

    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Compresses, seals and puts `plain` as a new object of `folder`; the object's id is its name there.
    pub async fn put_sealed(&self, folder: &str, plain: &[u8]) -> Result<Id, RepositoryError> {
        let mut body = vec![COMPRESSED];
        body.extend_from_slice(&zstd::bulk::compress(plain, 3).map_err(RepositoryError::Unfaithful)?);
        let sealed = self.master_key().cipher().seal(&body)?;
        let id = id_of(&sealed);
        self.store().put_new(&format!("{folder}/{id}"), sealed.into()).await?;
        Ok(id)
    }

    /// The plain bytes of an object of `folder`; proven by its name and by its seal.
    pub async fn get_sealed(&self, folder: &str, id: &Id) -> Result<Vec<u8>, RepositoryError> {
        match self.store().get_within(&format!("{folder}/{id}"), limit(folder) as u64).await {
            Err(error) if error.kind == ErrorKind::TooLong => Err(RepositoryError::damaged(format!("{folder}/{id}"), "it is far too long")),
            got => self.unseal(folder, id, &got?),
        }
    }

    /// The plain bytes of what is stored as an object of `folder`; proven as by [`Repository::get_sealed`].
    fn unseal(&self, folder: &str, id: &Id, sealed: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let damaged = |reason: &dyn std::fmt::Display| RepositoryError::damaged(format!("{folder}/{id}"), reason);
        if id_of(sealed) != *id {
            return Err(damaged(&"its bytes are not those that its name says"));
        }
        let plain = self.master_key().cipher().open(sealed).map_err(|e| damaged(&e))?;
        match plain.first() {
            Some(b'{' | b'[') => Ok(plain),
            Some(&COMPRESSED) => decompress(&plain[1..], limit(folder)).map_err(|e| damaged(&e)),
            _ => Err(damaged(&"it is neither JSON nor compressed")),
        }
    }

    /// Seals and puts a side object: an extension of ours under `x-keepset/`, which nothing but speed or comfort may depend on.
    pub async fn put_side(&self, key: &str, plain: &[u8]) -> Result<(), RepositoryError> {
        let sealed = self.master_key().cipher().seal(plain)?;
        Ok(self.store().put_new(key, sealed.into()).await?)
    }

    /// As [`Repository::put_side`], under a name of its own: `prefix` and 32 random digits. Returns it.
    pub async fn put_side_named(&self, prefix: &str, plain: &[u8]) -> Result<String, RepositoryError> {
        let mut random = [0u8; 16];
        crate::random::fill(&mut random)?;
        let key = format!("{prefix}{}", HEXLOWER.encode(&random));
        self.put_side(&key, plain).await?;
        Ok(key)
    }

    /// The plain bytes of a side object.
    pub async fn get_side(&self, key: &str) -> Result<Vec<u8>, RepositoryError> {
        let sealed = match self.store().get_within(key, MAX_SMALL as u64).await {
            Err(error) if error.kind == ErrorKind::TooLong => return Err(RepositoryError::damaged(key, "it is far too long")),
            got => got?,
        };
        self.master_key().cipher().open(&sealed).map_err(|e| RepositoryError::damaged(key, e))
    }

    /// The ids of all objects of `folder` (`snapshots`, `index`, `locks`); other names are passed over.
    pub async fn ids(&self, folder: &str) -> Result<Vec<Id>, RepositoryError> {
        Ok(self.listed(folder).await?.into_iter().map(|object| object.id).collect())
    }

    /// As [`Repository::ids`], with sizes.
    pub async fn listed(&self, folder: &str) -> Result<Vec<Listed>, RepositoryError> {
        let objects = self.store().list(folder).await?;
        let listed = |object: &Object| Some(Listed { id: object.key.rsplit('/').next()?.parse().ok()?, size: object.size });
        Ok(objects.iter().filter_map(listed).collect())
    }
}

/// Bytes beyond which an object of this folder is damaged or hostile.
fn limit(folder: &str) -> usize {
    if folder == index::FOLDER { MAX_INDEX } else { MAX_SMALL }
}

/// The plain bytes of a small object, at most `limit` of them.
fn decompress(bytes: &[u8], limit: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        /// Made once for each thread: making one takes longer than unpacking with it.
        static UNPACKER: RefCell<Decompressor<'static>> = RefCell::default();
    }
    /// As a frame that claims to grow more must show it first.
    const PLAUSIBLE: usize = 64;
    let claimed = zstd_safe::get_frame_content_size(bytes).ok().flatten().and_then(|size| usize::try_from(size).ok());
    if let Some(size) = claimed.filter(|size| *size <= limit.min(bytes.len().saturating_mul(PLAUSIBLE))) {
        let mut plain = Vec::with_capacity(size);
        if UNPACKER.with_borrow_mut(|unpacker| unpacker.decompress_to_buffer(bytes, &mut plain)).is_ok() {
            return Ok(plain);
        }
    }
    decompress_slowly(bytes, limit)
}

/// zstd frames of foreign writers may lack their content size, so the room grows as needed, up to a bound.
fn decompress_slowly(bytes: &[u8], limit: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut plain = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::new(bytes)?;
    decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() > limit {
        return Err(std::io::Error::other(format!("it grows beyond {} MiB", limit >> 20)));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_objects_unpack_whether_they_say_their_size_or_not_and_within_bounds() {
        use std::io::Write;
        let plain = b"{\"packs\":[]}".repeat(100);
        let sized = zstd::bulk::compress(&plain, 3).unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(&plain).unwrap();
        let unsized_ = encoder.finish().unwrap();
        assert_eq!(
            (zstd_safe::get_frame_content_size(&sized).unwrap(), zstd_safe::get_frame_content_size(&unsized_).unwrap()),
            (Some(1200), None)
        );
        for frame in [&sized, &unsized_, &[&sized[..], &unsized_].concat(), &zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap()] {
            let whole = decompress(frame, 2 << 20).unwrap();
            assert_eq!(whole, decompress_slowly(frame, 2 << 20).unwrap());
            assert_eq!(decompress(frame, whole.len()).unwrap(), whole);
            assert!(decompress(frame, whole.len() - 1).unwrap_err().to_string().contains("grows beyond"));
            assert!(decompress(&frame[..frame.len() - 1], 2 << 20).is_err());
        }
        // A context that has met a broken frame is as good as before.
        assert_eq!(decompress(&sized, 2 << 20).unwrap(), plain);
    }

    #[tokio::test]
    async fn a_repository_opens_with_its_password_only() {
        let store = Store::memory();
        let password = Password::generate().unwrap();
        assert!(matches!(Repository::open(store.clone(), &password).await, Err(RepositoryError::NoRepository { .. })));
        let made = Repository::init(store.clone(), &password, KeyOrigin::default()).await.unwrap();
        let opened = Repository::open(store.clone(), &password).await.unwrap();
        assert_eq!(opened.config(), made.config());
        let other = Password::generate().unwrap();
        assert!(matches!(Repository::open(store.clone(), &other).await, Err(RepositoryError::WrongPassword { .. })));
        assert!(matches!(Repository::init(store, &password, KeyOrigin::default()).await, Err(RepositoryError::AlreadyThere { .. })));
    }

    #[tokio::test]
    async fn sealed_objects_come_back_and_damaged_ones_do_not() {
        let store = Store::memory();
        let repository = Repository::init(store.clone(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
        let id = repository.put_sealed("snapshots", b"{}").await.unwrap();
        assert_eq!(repository.get_sealed("snapshots", &id).await.unwrap(), b"{}");
        assert_eq!(repository.ids("snapshots").await.unwrap(), [id]);
        let key = format!("snapshots/{id}");
        let mut bytes = store.get(&key).await.unwrap().to_vec();
        bytes[20] ^= 1;
        store.delete(std::slice::from_ref(&key)).await.unwrap();
        store.put_new(&key, bytes.into()).await.unwrap();
        assert!(matches!(repository.get_sealed("snapshots", &id).await, Err(RepositoryError::Damaged { .. })));
    }
}
