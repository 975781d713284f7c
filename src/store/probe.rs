//! Does the store keep what a repository needs of it?

use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;

use crate::clock::Clock;
use crate::store::error::{ErrorKind, StoreError};
use crate::store::{Patience, Store};

/// What [`Store::probe`] found. Putting and getting work when there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether a second create of the same name was refused by the store and left the first as it was. Where it was not, of two writers of
    /// one name at one moment the later wins unseen. All names but that of `config` are random or made of the content.
    pub create_only: bool,
    /// Whether objects can be listed.
    pub list: bool,
    /// Whether objects can be deleted; not so in append-only stores.
    pub delete: bool,
    /// How far the store's clock is ahead of ours (negative: behind), to the second.
    pub skew: Option<TimeDelta>,
}

impl Store {
    /// Tries everything that a repository does, on an object of its own below `x-keepset/probe/`, which it deletes again, also where it
    /// fails. An error when an object cannot be put and read back.
    pub async fn probe(&self, clock: &Clock) -> Result<Probe, StoreError> {
        let folder = "x-keepset/probe";
        let mut random = [0; 16];
        let no_randomness = |e: getrandom::Error| StoreError::own(ErrorKind::Other, "put", self.location(), folder, e.to_string());
        crate::random::fill(&mut random).map_err(no_randomness)?;
        let key = format!("{folder}/{}", data_encoding::HEXLOWER.encode(&random));
        // First what changes nothing: what has no bucket at its end has no objects either, though a put may seem to work.
        if let Err(error) = self.list(folder).await
            && error.kind != ErrorKind::Denied
        {
            return Err(error);
        }
        let found = self.try_out(folder, &key, clock).await;
        if found.is_err() {
            // Without waiting for an outage to end: the error is to be told.
            let hasty = self.clone().with_patience(Patience { outage: Duration::ZERO, ..self.patience });
            hasty.delete(std::slice::from_ref(&key)).await.ok();
        }
        found
    }

    async fn try_out(&self, folder: &str, key: &String, clock: &Clock) -> Result<Probe, StoreError> {
        let first = Bytes::from_static(b"keepset: may this store be trusted? this object may be deleted\n");
        let second = Bytes::from_static(b"keepset: this one should never have been put\n");

        let before = clock.now();
        self.put_new(key, first.clone()).await?;
        let after = clock.now();
        let refused = match self.put_new(key, second).await {
            Ok(()) => false,
            Err(error) if error.kind == ErrorKind::AlreadyExists => true,
            Err(error) => return Err(error),
        };
        let back = self.get(key).await?;
        let listed = match self.list(folder).await {
            Ok(objects) => objects.into_iter().find(|object| object.key == *key),
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
        let delete = match self.delete(std::slice::from_ref(key)).await {
            Ok(()) => self.size(key).await?.is_none(),
            Err(error) if error.kind == ErrorKind::Denied => false,
            Err(error) => return Err(error),
        };
        // A name that was looked up before it was put is refused too, but by us.
        let create_only = refused && back == first && !self.quirks.overwrites();
        Ok(Probe { create_only, list: listed.is_some(), delete, skew })
    }
}
