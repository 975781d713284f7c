//! Which passwords open a repository, and how one is replaced without a moment in which none does.

use chrono::SecondsFormat;
use serde::Serialize;

use crate::clock::Clock;
use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::crypto::MasterKey;
use crate::repository::error::RepositoryError;
use crate::repository::key;
use crate::repository::key::{KeyObject, KeyOrigin, Password};

/// One key object, as people see it: no password can be told from it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    pub id: Id,
    /// RFC 3339, by the clock of who made it.
    pub created: String,
    pub username: String,
    pub hostname: String,
    /// The password in use opens this one.
    pub in_use: bool,
    /// Why it can open nothing, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Every key, by id. `current` is the password in use.
pub async fn list(repository: &Repository, current: &Password) -> Result<Vec<KeyInfo>, RepositoryError> {
    let in_use = opened_by(repository, current).await.ok().flatten();
    let keys = key::list(repository.store()).await?.into_iter().map(|(id, key)| match key {
        Ok(key) => {
            KeyInfo { id, created: key.created, username: key.username, hostname: key.hostname, in_use: in_use == Some(id), damaged: None }
        }
        Err(reason) => {
            KeyInfo { id, created: String::new(), username: String::new(), hostname: String::new(), in_use: false, damaged: Some(reason) }
        }
    });
    Ok(keys.collect())
}

/// Makes `password` open the repository too, and returns once it was proven to: the key is read back from the store and opened. A
/// password that opens it already is refused.
pub async fn add(
    repository: &Repository,
    password: &Password,
    username: &str,
    hostname: &str,
    clock: &Clock,
) -> Result<Id, RepositoryError> {
    let store = repository.store();
    if let Some(id) = opened_by(repository, password).await? {
        return Err(refused("the new password", format!("it opens the repository already, by key {}", id.short())));
    }
    let created = clock.local().to_rfc3339_opts(SecondsFormat::Nanos, false);
    let origin = KeyOrigin { created, username: username.to_owned(), hostname: hostname.to_owned() };
    let id = key::save(store, &KeyObject::new(repository.master_key(), password, origin)?).await?;
    prove(repository, &id, password).await?;
    Ok(id)
}

/// Removes the key that `prefix`, the first digits of its id, names. `current` must open the repository by a key that stays: so neither
/// the last usable key can go, nor the one in use before another was proven.
pub async fn remove(repository: &Repository, prefix: &str, current: &Password) -> Result<Id, RepositoryError> {
    let store = repository.store();
    let keys: Vec<Id> = key::list(store).await?.into_iter().map(|(id, _)| id).filter(|id| id.hex().starts_with(prefix)).collect();
    let what = || format!("removing key `{}`", prefix.chars().take(64).collect::<String>());
    let id = match keys.as_slice() {
        _ if prefix.is_empty() => return Err(refused(what(), "no digits of its id are given")),
        [] => return Err(refused(what(), "there is no such key")),
        [id] => *id,
        several => return Err(refused(what(), format!("{} keys begin with it", several.len()))),
    };
    if !opens_without(repository, &id, current).await? {
        return Err(refused(what(), "the password in use opens no other key, so the repository could be closed for good"));
    }
    store.delete(&[object_key(&id)]).await?;
    Ok(id)
}

/// Replaces the password in use: the new one is added and proven to open the repository before every key of the old one goes. Returns the new
/// key's id. Whatever fails or is killed in between leaves the old one, both or the new one; as long as the old one opens, the same call
/// finishes the work.
pub async fn replace(
    repository: &Repository,
    current: &Password,
    new: &Password,
    username: &str,
    hostname: &str,
    clock: &Clock,
) -> Result<Id, RepositoryError> {
    if current.reveal() == new.reveal() {
        return Err(refused("the new password", "it is the one in use"));
    }
    let wrong = || RepositoryError::WrongPassword { location: repository.store().location().to_owned() };
    let first = opened_by(repository, current).await?.ok_or_else(wrong)?;
    let id = match opened_by(repository, new).await? {
        // An earlier call came as far as that.
        Some(id) => id,
        None => add(repository, new, username, hostname, clock).await?,
    };
    let keys = key::list(repository.store()).await?.into_iter();
    let mut old: Vec<String> = keys.filter(|(_, object)| opens(repository, object, current)).map(|(id, _)| object_key(&id)).collect();
    if !old.contains(&object_key(&first)) {
        old.push(object_key(&first));
    }
    repository.store().delete(&old).await?;
    Ok(id)
}

/// The key by which this password opens this very repository.
async fn opened_by(repository: &Repository, password: &Password) -> Result<Option<Id>, RepositoryError> {
    let ours = |master: &MasterKey| *master.to_bytes() == *repository.master_key().to_bytes();
    match key::open(repository.store(), password, ours).await {
        Ok((id, master)) => Ok(ours(&master).then_some(id)),
        Err(RepositoryError::WrongPassword { .. } | RepositoryError::Closed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The key as it is in the store opens with `password` and holds this repository's master key.
async fn prove(repository: &Repository, id: &Id, password: &Password) -> Result<(), RepositoryError> {
    let damaged = |reason: String| RepositoryError::damaged(format!("new key {id}"), reason);
    let stored = key::list(repository.store()).await?.into_iter().find(|(found, _)| found == id);
    let (_, object) = stored.ok_or_else(|| damaged("it is not in the store after it was put".to_owned()))?;
    match object.and_then(|object| object.open(password)).map_err(damaged)? {
        Some(master) if *master.to_bytes() == *repository.master_key().to_bytes() => Ok(()),
        Some(_) => Err(damaged("it holds another master key".to_owned())),
        None => Err(damaged("the password does not open it".to_owned())),
    }
}

async fn opens_without(repository: &Repository, without: &Id, password: &Password) -> Result<bool, RepositoryError> {
    let mut others = key::list(repository.store()).await?.into_iter().filter(|(id, _)| id != without);
    Ok(others.any(|(_, object)| opens(repository, &object, password)))
}

/// This key opens with the password, and holds this repository's master key.
fn opens(repository: &Repository, object: &Result<KeyObject, String>, password: &Password) -> bool {
    let master = object.as_ref().ok().and_then(|object| object.open(password).ok().flatten());
    master.is_some_and(|master| *master.to_bytes() == *repository.master_key().to_bytes())
}

fn object_key(id: &Id) -> String {
    format!("{}/{id}", key::FOLDER)
}

fn refused(what: impl Into<String>, reason: impl Into<String>) -> RepositoryError {
    RepositoryError::Refused { what: what.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::store::Store;

    async fn repository(password: &Password) -> Repository {
        Repository::init(Store::memory(), password, KeyOrigin::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_second_password_opens_and_the_first_may_go_only_by_it() {
        let (first, second) = (Password::generate().unwrap(), Password::generate().unwrap());
        let repository = repository(&first).await;
        let clock = Clock::system();
        let only = list(&repository, &first).await.unwrap()[0].id;
        assert!(remove(&repository, &only.hex(), &first).await.is_err(), "the last one");
        let new = add(&repository, &second, "root", "vm", &clock).await.unwrap();
        assert!(add(&repository, &second, "root", "vm", &clock).await.is_err(), "twice");
        assert!(remove(&repository, &only.hex(), &first).await.is_err(), "the one in use");
        assert!(remove(&repository, "", &second).await.is_err());
        assert!(remove(&repository, "zz", &second).await.is_err());
        assert_eq!(remove(&repository, &only.short(), &second).await.unwrap(), only);
        let left = list(&repository, &second).await.unwrap();
        assert_eq!((left.len(), left[0].id, left[0].in_use, left[0].username.as_str()), (1, new, true, "root"));
        assert_eq!(opened_by(&repository, &first).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_replaced_password_opens_nothing_and_the_new_one_opens() {
        let (old, new) = (Password::generate().unwrap(), Password::generate().unwrap());
        let repository = repository(&old).await;
        let id = replace(&repository, &old, &new, "root", "vm", &Clock::system()).await.unwrap();
        assert_eq!(opened_by(&repository, &old).await.unwrap(), None);
        assert_eq!(opened_by(&repository, &new).await.unwrap().unwrap(), id);
        assert!(replace(&repository, &old, &new, "root", "vm", &Clock::system()).await.is_err());
        assert!(replace(&repository, &new, &new, "root", "vm", &Clock::system()).await.is_err());
        assert!(opened_by(&repository, &new).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_replacement_that_came_half_way_is_finished_and_takes_every_key_of_the_old_password() {
        let (old, new) = (Password::generate().unwrap(), Password::generate().unwrap());
        let repository = repository(&old).await;
        // The same password twice, as stock restic allows; and the new one, of a call that died before it removed anything.
        let twin = KeyObject::new(repository.master_key(), &old, KeyOrigin::default()).unwrap();
        key::save(repository.store(), &twin).await.unwrap();
        let id = add(&repository, &new, "root", "vm", &Clock::system()).await.unwrap();
        assert_eq!(replace(&repository, &old, &new, "root", "vm", &Clock::system()).await.unwrap(), id);
        let left = list(&repository, &new).await.unwrap();
        assert_eq!(left.iter().map(|key| key.id).collect::<Vec<_>>(), [id]);
    }

    #[tokio::test]
    async fn a_damaged_key_is_listed_as_such_and_does_not_count_as_a_way_in() {
        let password = Password::generate().unwrap();
        let repository = repository(&password).await;
        repository.store().put_new(&object_key(&Id([9; 32])), bytes::Bytes::from_static(b"{}")).await.unwrap();
        let keys = list(&repository, &password).await.unwrap();
        assert_eq!(keys.iter().filter(|key| key.damaged.is_some()).count(), 1);
        let good = keys.iter().find(|key| key.in_use).unwrap().id;
        assert!(remove(&repository, &good.hex(), &password).await.is_err());
        remove(&repository, &Id([9; 32]).hex(), &password).await.unwrap();
    }
}
