//! Which locks stand in a repository, which of them are in the way, and which may be removed.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::lock::nonce;
use crate::repository::lock::record::LockRecord;
use crate::store::{ErrorKind, Object};

/// Locks not refreshed for this long are stale: restic's limit.
fn stale_after() -> TimeDelta {
    TimeDelta::minutes(30)
}

/// One lock object.
#[derive(Clone, Debug)]
pub struct Standing {
    pub key: String,
    /// When it was written, by the store's clock.
    pub modified: DateTime<Utc>,
    /// `None` where it cannot be read: damaged, or sealed by another key. It counts as exclusive then.
    pub record: Option<LockRecord>,
}

impl Standing {
    /// Nobody else may hold anything beside it.
    pub fn exclusive(&self) -> bool {
        self.record.as_ref().is_none_or(|record| record.exclusive)
    }

    /// For people: who holds it.
    pub fn describe(&self, now: DateTime<Utc>) -> String {
        match &self.record {
            Some(record) => record.describe(now),
            None => format!("an unreadable lock, `{}`", self.key),
        }
    }

    pub(super) fn is_of(&self, nonce: &str) -> bool {
        self.nonce() == Some(nonce)
    }

    /// One of our own.
    pub(super) fn is_ours(&self) -> bool {
        self.nonce().is_some()
    }

    /// The same lock, perhaps refreshed. Of other programs' it is not known.
    pub(super) fn is_the_same_as(&self, other: &Standing) -> bool {
        self.is_ours() && self.nonce() == other.nonce()
    }

    fn nonce(&self) -> Option<&str> {
        self.record.as_ref().and_then(|record| record.keepset.as_ref()).map(|ours| ours.nonce.as_str())
    }
}

/// Not refreshed for half an hour by the store's clock and by its owner's, so that no single wrong clock makes a lock of the living look
/// stale.
pub(super) fn is_stale(lock: &Standing, store_now: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    store_now - lock.modified > stale_after() && lock.record.as_ref().is_none_or(|record| now - record.time.to_utc() > stale_after())
}

/// All locks, by name. One that is removed while this reads is left out.
pub async fn locks(repository: &Repository) -> Result<Vec<Standing>, RepositoryError> {
    Ok(locks_but(repository, None).await?.1)
}

/// The names of all locks that the store lists, and what each says but the one named `own`.
pub(super) async fn locks_but(repository: &Repository, own: Option<&str>) -> Result<(Vec<String>, Vec<Standing>), RepositoryError> {
    let mut keys = Vec::new();
    let mut standing = Vec::new();
    for object in repository.store().list("locks").await? {
        let Some(id) = object.key.strip_prefix("locks/").and_then(|name| name.parse::<Id>().ok()) else { continue };
        keys.push(object.key.clone());
        if own == Some(object.key.as_str()) {
            continue;
        }
        let record = match repository.get_sealed("locks", &id).await {
            Ok(plain) => serde_json::from_slice(&plain).ok(),
            Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound => continue,
            Err(error @ RepositoryError::Store(_)) => return Err(error),
            Err(_) => None,
        };
        standing.push(Standing { key: object.key, modified: object.modified, record });
    }
    Ok((keys, standing))
}

/// Removes the locks whose owners are gone: processes of this machine that ended, and locks not refreshed for 30 minutes by the store's
/// clock and their owner's; with `all` every lock, for users who know that nothing runs. `hostname` is this machine's. Returns what was
/// removed.
pub async fn unlock(repository: &Repository, all: bool, hostname: &str, clock: &Clock) -> Result<Vec<Standing>, RepositoryError> {
    let standing = locks(repository).await?;
    if standing.is_empty() {
        return Ok(standing);
    }
    let (store_now, now) = (store_now(repository).await?, clock.now());
    let gone = |lock: &Standing| {
        let dead = |record: &LockRecord| record.owner_is_dead() || (record.keepset.is_none() && record.looks_dead_to_restic(hostname));
        all || lock.record.as_ref().is_some_and(dead) || is_stale(lock, store_now, now)
    };
    let removed: Vec<Standing> = standing.into_iter().filter(gone).collect();
    remove(repository, &removed).await?;
    Ok(removed)
}

/// Removes those of our own locks whose owners are provably gone, and returns the others. Stale locks of other programs stay: a restic
/// that was asleep does not know that its lock is stale.
pub(super) async fn reap(repository: &Repository, standing: Vec<Standing>, clock: &Clock) -> Result<Vec<Standing>, RepositoryError> {
    let now = clock.now();
    let ours = |lock: &Standing| lock.record.as_ref().is_some_and(|record| record.keepset.is_some());
    // The store's time costs three requests: ask for it only if the owner's clock says that a lock is old.
    let old = |lock: &Standing| ours(lock) && lock.record.as_ref().is_some_and(|record| now - record.time.to_utc() > stale_after());
    let store_now = if standing.iter().any(old) { Some(store_now(repository).await?) } else { None };
    let (gone, alive): (Vec<_>, Vec<_>) = standing.into_iter().partition(|lock| {
        lock.record.as_ref().is_some_and(LockRecord::owner_is_dead)
            || (ours(lock) && store_now.is_some_and(|store_now| is_stale(lock, store_now, now)))
    });
    remove(repository, &gone).await?;
    Ok(alive)
}

async fn remove(repository: &Repository, locks: &[Standing]) -> Result<(), RepositoryError> {
    let keys: Vec<String> = locks.iter().map(|lock| lock.key.clone()).collect();
    if !keys.is_empty() {
        repository.store().delete(&keys).await?;
    }
    Ok(())
}

/// The store's own idea of now: that of an object written for the purpose. Takes along what others have left that were killed while they asked.
async fn store_now(repository: &Repository) -> Result<DateTime<Utc>, RepositoryError> {
    let key = format!("x-keepset/clock/{}", nonce()?);
    let store = repository.store();
    store.put_new(&key, Bytes::from_static(b"now")).await?;
    let listed = store.list("x-keepset/clock").await;
    let now = listed.as_ref().ok().and_then(|listed| listed.iter().find(|object| object.key == key)).map(|object| object.modified);
    // Nobody asks for so long.
    let of_the_dead = |object: &&Object| now.is_some_and(|now| now - object.modified > stale_after());
    let left = listed.iter().flatten().filter(of_the_dead).map(|object| object.key.clone());
    store.delete(&left.chain([key.clone()]).collect::<Vec<_>>()).await?;
    listed?;
    match now {
        Some(now) => Ok(now),
        None => Err(RepositoryError::damaged(format!("the store's list of `{key}`"), "an object just written is not in it")),
    }
}
