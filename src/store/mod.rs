//! The one door to the bucket or folder that holds a repository.
//!
//! A store offers whole objects: create-only puts, gets, ranges, lists and deletes. Nothing above this room knows which store it is.

mod answers;
mod error;
#[cfg(any(test, feature = "fault-injection"))]
pub mod fault;
mod location;
mod open;
mod patience;
mod probe;
mod quirks;
mod sweep;
mod variables;
mod walk;

pub use error::{ErrorKind, StoreError};
pub use location::{Location, LocationError};
pub use patience::Patience;
pub use probe::Probe;
pub use sweep::Swept;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::model::path_text::path_text;
use crate::store::answers::Strays;
use crate::store::patience::{About, Contact, persist, within};
use crate::store::quirks::Quirks;
use crate::store::walk::Walk;

/// What a list says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name below the repository's root.
    pub key: String,
    pub size: u64,
    /// By the store's clock.
    pub modified: chrono::DateTime<chrono::Utc>,
}

/// Objects by name, below one root. Cheap to clone. Every call ends: with its result, or with an error when its deadline or the patience
/// for an outage is over.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    root: Path,
    location: Arc<str>,
    /// Where the store is a folder.
    folder: Option<Arc<FilePath>>,
    patience: Patience,
    contact: Arc<Contact>,
    quirks: Arc<Quirks>,
    strays: Strays,
}

impl Store {
    /// Opens what is at `location`, without asking it anything yet, but for a folder, which must be there. `variables` are the user's
    /// `AWS_…`, `GOOGLE_…` and `AZURE_…` variables: keys, endpoint, region and what else these clouds' own tools read.
    pub fn open(location: &Location, variables: &HashMap<String, String>) -> Result<Store, StoreError> {
        let variables = variables::Variables::new(variables, location)?;
        let strays = Strays::default();
        let open::Opened { inner, root, patience, quirks } = match location {
            Location::Folder(folder) => open::folder(location, folder)?,
            Location::S3 { endpoint, bucket, prefix } => open::s3(&variables, endpoint.as_ref(), bucket, prefix, &strays)?,
            Location::Gcs { bucket, prefix } => open::gcs(&variables, bucket, prefix, &strays)?,
            Location::Azure { container, prefix } => open::azure(&variables, container, prefix, &strays)?,
        };
        let folder = location.folder().map(Arc::from);
        let quirks = Arc::new(quirks);
        Ok(Store { inner, root, location: location.to_string().into(), folder, patience, contact: Arc::default(), quirks, strays })
    }

    /// Like [`Store::open`], but makes the folder where it is missing, with its parents. Buckets are never made.
    pub fn create(location: &Location, variables: &HashMap<String, String>) -> Result<Store, StoreError> {
        open::create_root(location)?;
        Store::open(location, variables)
    }

    /// An empty store that lives as long as this value and its clones.
    pub fn memory() -> Self {
        Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory", Patience::local())
    }

    /// Any store of the library, such as one that fails on purpose; `location` is what messages say.
    pub fn from_object_store(inner: Arc<dyn ObjectStore>, location: &str, patience: Patience) -> Self {
        Store {
            inner,
            root: Path::default(),
            location: location.into(),
            folder: None,
            patience,
            contact: Arc::default(),
            quirks: Arc::default(),
            strays: Strays::default(),
        }
    }

    /// The same store, waiting otherwise than its kind does.
    pub fn with_patience(self, patience: Patience) -> Self {
        Store { patience, ..self }
    }

    /// Where the store is, for messages; never with credentials.
    pub fn location(&self) -> &str {
        &self.location
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), Path::join)
    }

    fn about<'a>(&'a self, action: &'static str, key: &'a str) -> About<'a> {
        About { action, location: &self.location, key }
    }

    /// Creates the object; it is durable when this returns. An object of that name with the very same bytes is success, since a put
    /// whose answer was lost is sent again; one with other bytes is [`ErrorKind::AlreadyExists`] and stays as it is. A store that has no
    /// create-only put is asked for the name before: there, of two writers of one name at one moment, the later wins unseen.
    pub async fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let about = self.about("put", key);
        let path = self.path(key);
        let size = body.len() as u64;
        persist(self.patience, &self.contact, about, || async {
            if !self.quirks.overwrites() {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                let put = self.inner.put_opts(&path, PutPayload::from_bytes(body.clone()), options);
                match within(self.patience, about, size, put).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind == ErrorKind::AlreadyExists => {
                        return match self.holds(&path, about, &body).await? {
                            Some(true) => Ok(()),
                            Some(false) => Err(error),
                            // Refused for an object that isn't there: another's put of that name was under way and has failed.
                            None => Err(about.own(ErrorKind::Busy, "another put of the same name was under way")),
                        };
                    }
                    // The store has no such put. One that has no put at all says it again below.
                    Err(error) if error.kind == ErrorKind::Unsupported => {}
                    Err(error) => return Err(error),
                }
            }
            match self.holds(&path, about, &body).await? {
                Some(true) => return Ok(()),
                Some(false) => return Err(about.own(ErrorKind::AlreadyExists, "an object of that name is there, with other bytes")),
                None => {}
            }
            let put = self.inner.put_opts(&path, PutPayload::from_bytes(body.clone()), PutOptions::default());
            within(self.patience, about, size, put).await?;
            self.quirks.note_overwrites(&self.location);
            Ok(())
        })
        .await
    }

    /// Whether the object has these bytes; `None` where there is none. Reads it only when its size is right.
    async fn holds(&self, path: &Path, about: About<'_>, body: &Bytes) -> Result<Option<bool>, StoreError> {
        let size = body.len() as u64;
        let found = async {
            match self.inner.get(path).await {
                Ok(got) if got.meta.size != size => Ok(Some(false)),
                Ok(got) => Ok(Some(got.bytes().await? == *body)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        within(self.patience, about, size, found).await
    }

    /// The whole object.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.get_within(key, u64::MAX).await
    }

    /// The whole object; [`ErrorKind::TooLong`] where it has more bytes than `limit`, which is known before any of them come.
    pub async fn get_within(&self, key: &str, limit: u64) -> Result<Bytes, StoreError> {
        let about = self.about("get", key);
        let path = self.path(key);
        persist(self.patience, &self.contact, about, || async {
            let got = within(self.patience, about, 0, self.inner.get(&path)).await?;
            let size = got.meta.size;
            if size > limit {
                return Err(about.own(ErrorKind::TooLong, format!("it has {size} bytes, and {limit} are the most that it can have")));
            }
            let bytes = within(self.patience, about, size, got.bytes()).await?;
            if bytes.len() as u64 == size {
                Ok(bytes)
            } else {
                // A body that was cut on its way: worth another try.
                Err(about.own(ErrorKind::Busy, format!("{} of {size} bytes came", bytes.len())))
            }
        })
        .await
    }

    /// Just these bytes of the object; [`ErrorKind::TooShort`] where it ends before. An empty range is empty without asking.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let about = self.about("get", key);
        let path = self.path(key);
        let size = range.end.saturating_sub(range.start);
        if size == 0 {
            return Ok(Bytes::new());
        }
        persist(self.patience, &self.contact, about, || async {
            let options = GetOptions::new().with_range(Some(range.clone()));
            let got = within(self.patience, about, size, async {
                let got = self.inner.get_opts(&path, options).await?;
                let whole = got.meta.size;
                Ok((whole, if whole >= range.end { got.bytes().await? } else { Bytes::new() }))
            });
            match got.await {
                Ok((whole, _)) if whole < range.end => Err(too_short(about, whole, &range)),
                Ok((_, bytes)) if bytes.len() as u64 == size => Ok(bytes),
                // A body that was cut on its way: worth another try.
                Ok((_, bytes)) => Err(about.own(ErrorKind::Busy, format!("{} of {size} bytes came", bytes.len()))),
                // Stores refuse a range that starts beyond the end in words of their own.
                Err(error) if error.kind == ErrorKind::Other => match within(self.patience, about, 0, self.inner.head(&path)).await {
                    Ok(meta) if meta.size < range.end => Err(too_short(about, meta.size, &range)),
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The object's size, or `None` where there is none.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let about = self.about("get", key);
        let path = self.path(key);
        persist(self.patience, &self.contact, about, || async {
            match within(self.patience, about, 0, self.inner.head(&path)).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
                // The answer to a HEAD has no body that would say why.
                Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Other) => {
                    match within(self.patience, about, 0, self.inner.get(&path)).await {
                        Ok(got) => Ok(Some(got.meta.size)),
                        Err(told) if told.kind == ErrorKind::NotFound => Ok(None),
                        Err(told) => Err(told),
                    }
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// All objects below `folder`, by name; below the root where it is empty. No folder is an empty list. Names that no object of a
    /// repository can have (no UTF-8, an empty part) are passed over, and known to [`Store::strays`] from then on. A list that the store
    /// cuts short is an error.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>, StoreError> {
        let about = self.about("list", folder);
        if let Some(root) = &self.folder {
            return self.walk(root, folder, about).await;
        }
        let prefix = self.path(folder);
        let depth = self.root.parts().count();
        let mut objects = persist(self.patience, &self.contact, about, || async {
            let mut pages = self.inner.list(Some(&prefix)).map_ok(|meta| Object {
                key: meta.location.parts().skip(depth).map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"),
                size: meta.size,
                modified: meta.last_modified,
            });
            let mut objects = Vec::new();
            // The deadline is each step's: a list of millions may take long, but must not stand still.
            while let Some(object) = within(self.patience, about, 0, async { pages.next().await.transpose() }).await? {
                objects.push(object);
            }
            Ok(objects)
        })
        .await?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The list of a folder on disk.
    async fn walk(&self, root: &FilePath, folder: &str, about: About<'_>) -> Result<Vec<Object>, StoreError> {
        let mut objects = persist(self.patience, &self.contact, about, || async {
            let mut walk = Walk::new(root, folder, self.strays.clone());
            let mut objects = Vec::new();
            // The deadline is each step's, as for other stores.
            loop {
                let step = async move {
                    let step = tokio::task::spawn_blocking(move || {
                        let found = walk.step();
                        (walk, found)
                    });
                    let generic = |source| object_store::Error::Generic { store: "folder", source };
                    let (walk, found) = step.await.map_err(|e| generic(e.into()))?;
                    Ok((walk, found.map_err(|e| generic(e.into()))?))
                };
                let (next, found) = within(self.patience, about, 0, step).await?;
                walk = next;
                match found {
                    Some(found) => objects.extend(found),
                    None => return Ok(objects),
                }
            }
        })
        .await?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Names that lists of this store and its clones have passed over, for people: no object of a repository can have them.
    pub fn strays(&self) -> Vec<String> {
        let root = format!("{}/", self.root);
        let names = self.strays.all().into_iter();
        names.map(|name| path_text(name.strip_prefix(&root).filter(|rest| !rest.is_empty()).unwrap_or(&name).as_bytes())).collect()
    }

    /// Deletes the objects, in bulk where the store can; one that is not there counts as deleted. Stops at the first that
    /// is refused.
    pub async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        // Deletes carry no bytes; a thousand are one request, and each gets the time of a kilobyte.
        for batch in keys.chunks(1000) {
            let what = match batch {
                [key] => key.clone(),
                [first, .., last] => format!("{first} … {last}"),
                [] => continue,
            };
            let about = self.about("delete", &what);
            // What is gone need not be asked for again: of a thousand single requests, some few fail on any day.
            let left = Mutex::new(batch.iter().map(|key| self.path(key)).collect::<Vec<_>>());
            persist(self.patience, &self.contact, about, || async {
                if let Some(singly) = self.quirks.deletes_singly() {
                    return self.delete_by(singly, &left, about).await;
                }
                match self.delete_by(&*self.inner, &left, about).await {
                    // Refused for what it is, not for its objects: some stores have no bulk delete, or want other checksums for it.
                    Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Other) => match self.quirks.singly() {
                        Some(singly) => {
                            self.delete_by(singly, &left, about).await?;
                            self.quirks.note_singly(&self.location);
                            Ok(())
                        }
                        None => Err(error),
                    },
                    deleted => deleted,
                }
            })
            .await?;
        }
        Ok(())
    }

    /// One try, which leaves in `left` what is not known to be gone.
    async fn delete_by(&self, store: &dyn ObjectStore, left: &Mutex<Vec<Path>>, about: About<'_>) -> Result<(), StoreError> {
        let paths = left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = (paths.len() as u64) << 10;
        let (mut gone, mut failed) = (HashSet::new(), Vec::new());
        let mut results = store.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
        let deleting = async {
            // One that fails says little of the others, unless it is refused or there are many such.
            while let Some(result) = results.next().await {
                match result {
                    Ok(path) => drop(gone.insert(path)),
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) if failed.len() < FAILURES && about.error(&error).kind.is_passing() => failed.push(error),
                    Err(error) => return Err(error),
                }
            }
            failed.pop().map_or(Ok(()), Err)
        };
        let deleted = within(self.patience, about, bytes, deleting).await;
        left.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| !gone.contains(path));
        deleted
    }
}

/// Deletes of one try that may fail before the rest is left for the next.
const FAILURES: usize = 16;

fn too_short(about: About<'_>, whole: u64, range: &Range<u64>) -> StoreError {
    about.own(ErrorKind::TooShort, format!("it has {whole} bytes, but bytes {} to {} were asked for", range.start, range.end))
}
