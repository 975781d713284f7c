//! The one door to the bucket or folder that holds a repository.
//!
//! A store offers whole objects: create-only puts, gets, ranges, lists and deletes. Nothing above this room knows which store it is.

mod error;

pub use error::{ErrorKind, StoreError};

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

/// What a list says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name below the repository's root.
    pub key: String,
    pub size: u64,
    /// By the store's clock.
    pub modified: chrono::DateTime<chrono::Utc>,
}

/// Objects by name, below one root. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    root: Path,
    location: Arc<str>,
}

impl Store {
    /// An empty store that lives as long as this value and its clones.
    pub fn memory() -> Self {
        Store { inner: Arc::new(object_store::memory::InMemory::new()), root: Path::default(), location: "memory".into() }
    }

    /// Where the store is, for messages; never with credentials.
    pub fn location(&self) -> &str {
        &self.location
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.root.clone(), Path::join)
    }

    fn error(&self, key: &str, source: object_store::Error) -> StoreError {
        StoreError::new(&self.location, key, source)
    }

    /// Creates the object; it is durable when this returns. An object of that name with the very same bytes is success, since a put
    /// whose answer was lost is sent again; one with other bytes is [`ErrorKind::AlreadyExists`] and stays as it is.
    pub async fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(&self.path(key), PutPayload::from_bytes(body.clone()), options).await {
            Ok(_) => Ok(()),
            Err(error @ object_store::Error::AlreadyExists { .. }) => {
                if self.get(key).await? == body {
                    Ok(())
                } else {
                    Err(self.error(key, error))
                }
            }
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// The whole object.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let got = self.inner.get(&self.path(key)).await.map_err(|e| self.error(key, e))?;
        got.bytes().await.map_err(|e| self.error(key, e))
    }

    /// Just these bytes of the object; an error where it is shorter.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(&self.path(key), range).await.map_err(|e| self.error(key, e))
    }

    /// The object's size, or `None` where there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(key, error)),
        }
    }

    /// All objects below `folder`, by name. No folder is an empty list.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>, StoreError> {
        let depth = self.root.parts().count();
        let mut objects: Vec<Object> = self
            .inner
            .list(Some(&self.path(folder)))
            .map_ok(|meta| Object {
                key: meta.location.parts().skip(depth).map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"),
                size: meta.size,
                modified: meta.last_modified,
            })
            .try_collect()
            .await
            .map_err(|e| self.error(folder, e))?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Deletes the objects, in bulk where the store can; one that is not there counts as deleted.
    pub async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key))).collect();
        let mut results = self.inner.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.error(keys.first().map_or("", String::as_str), error)),
            }
        }
        Ok(())
    }
}
