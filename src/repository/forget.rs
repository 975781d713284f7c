//! Taking points out of the repository: their snapshot objects go, their bytes stay until a prune finds them unused.

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::lock::Lock;
use crate::repository::snapshot;

/// Removes the snapshots. `lock` must be an exclusive one on this repository; it is proven first. One that is gone already counts as
/// removed; an error in between leaves some of them.
pub async fn remove_snapshots(repository: &Repository, lock: &Lock, ids: &[Id]) -> Result<(), RepositoryError> {
    if !lock.is_exclusive() {
        return Err(RepositoryError::Refused { what: "removing snapshots".to_owned(), reason: "the lock is not exclusive".to_owned() });
    }
    lock.prove().await?;
    let keys: Vec<String> = ids.iter().map(|id| format!("{}/{id}", snapshot::FOLDER)).collect();
    if !keys.is_empty() {
        repository.store().delete(&keys).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::monitor::Silent;
    use crate::repository::key::{KeyOrigin, Password};
    use crate::repository::lock::{LockIdentity, LockOptions, Mode};
    use crate::repository::snapshot::Snapshot;
    use crate::store::Store;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn only_the_named_snapshots_go_and_only_under_an_exclusive_lock_that_still_stands() {
        let repository = Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
        let mut ids = Vec::new();
        for second in 1..4 {
            let snapshot = Snapshot { time: format!("2026-01-02T03:04:0{second}Z"), ..Snapshot::default() };
            ids.push(snapshot::save(&repository, &snapshot).await.unwrap());
        }
        let identity = LockIdentity::this_process(None, "root".into());
        let options = LockOptions { identity, wait: Duration::ZERO, clock: Clock::system() };
        let shared = Lock::acquire(&repository, Mode::Shared, &options, &Silent).await.unwrap();
        assert!(remove_snapshots(&repository, &shared, &ids).await.is_err());
        shared.release().await.unwrap();
        let lock = Lock::acquire(&repository, Mode::Exclusive, &options, &Silent).await.unwrap();
        remove_snapshots(&repository, &lock, &ids[..2]).await.unwrap();
        assert_eq!(repository.ids(snapshot::FOLDER).await.unwrap(), ids[2..]);
        let locks = repository.store().list("locks").await.unwrap();
        repository.store().delete(&[locks[0].key.clone()]).await.unwrap();
        assert!(matches!(remove_snapshots(&repository, &lock, &ids[2..]).await, Err(RepositoryError::LockLost { .. })));
        assert_eq!(repository.ids(snapshot::FOLDER).await.unwrap(), ids[2..]);
    }
}
