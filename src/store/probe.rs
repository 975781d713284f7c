//! Does the store keep what a repository needs of it?

use bytes::Bytes;
use chrono::TimeDelta;

use crate::clock::Clock;
use crate::store::Store;
use crate::store::error::{ErrorKind, StoreError};

/// What [`Store::probe`] found. Putting and getting work when there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether a second create of the same name was refused and left the first as it was. Where it was not, two writers can overwrite
    /// each other's objects unseen.
    pub create_only: bool,
    /// Whether objects can be listed.
    pub list: bool,
    /// Whether objects can be deleted; not so in append-only stores.
    pub delete: bool,
    /// How far the store's clock is ahead of ours (negative: behind), to the second.
    pub skew: Option<TimeDelta>,
}

impl Store {
    /// Tries everything that a repository does, on an object of its own below `x-keepset/probe/`, which it deletes again.
    /// An error when an object cannot be put and read back.
    pub async fn probe(&self, clock: &Clock) -> Result<Probe, StoreError> {
        let folder = "x-keepset/probe";
        let mut random = [0; 16];
        let no_randomness = |e: getrandom::Error| StoreError::own(ErrorKind::Other, "put", self.location(), folder, e.to_string());
        getrandom::fill(&mut random).map_err(no_randomness)?;
        let key = format!("{folder}/{}", data_encoding::HEXLOWER.encode(&random));
        let first = Bytes::from_static(b"keepset: may this store be trusted? this object may be deleted\n");
        let second = Bytes::from_static(b"keepset: this one should never have been put\n");

        let before = clock.now();
        self.put_new(&key, first.clone()).await?;
        let after = clock.now();
        let refused = match self.put_new(&key, second).await {
            Ok(()) => false,
            Err(error) if error.kind == ErrorKind::AlreadyExists => true,
            Err(error) => {
                self.delete(std::slice::from_ref(&key)).await.ok();
                return Err(error);
            }
        };
        let back = self.get(&key).await?;
        let listed = match self.list(folder).await {
            Ok(objects) => objects.into_iter().find(|object| object.key == key),
            Err(error) if error.kind == ErrorKind::Denied => None,
            Err(error) => return Err(error),
        };
        // Whole seconds on most stores: half a round trip on both sides of the put is within what can be told.
        let skew = listed.as_ref().map(|object| {
            let early = object.modified - before;
            let late = object.modified - after;
            let skew = if early < TimeDelta::zero() { early } else { late.max(TimeDelta::zero()) };
            TimeDelta::seconds(if skew.num_milliseconds().abs() < 1000 { 0 } else { skew.num_seconds() })
        });
        let delete = match self.delete(std::slice::from_ref(&key)).await {
            Ok(()) => self.size(&key).await?.is_none(),
            Err(error) if error.kind == ErrorKind::Denied => false,
            Err(error) => return Err(error),
        };
        Ok(Probe { create_only: refused && back == first, list: listed.is_some(), delete, skew })
    }
}
