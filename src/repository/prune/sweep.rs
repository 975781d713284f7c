//! Deletes what earlier calls took out of the index.

use chrono::TimeDelta;

use crate::model::id::Id;
use crate::repository::error::RepositoryError;
use crate::repository::lock::Lock;
use crate::repository::pack;
use crate::repository::prune::{Prune, PruneError, PruneReport};

/// What puts of killed processes leave in a folder is swept once it is so old: no put takes as long.
const LEFTOVERS_AFTER: TimeDelta = TimeDelta::days(1);

/// Deletes condemned packs, then the records of which nothing is left to do; and what interrupted puts have left. A dry run only counts.
/// To be called once everything that is needed was found in packs that stay: before, a condemned pack may be the last that has it.
pub(super) async fn sweep(
    prune: &Prune<'_>,
    lock: &Lock,
    condemned: &[(Id, u64)],
    spent: &[String],
    report: &mut PruneReport,
) -> Result<(), PruneError> {
    condemned.iter().for_each(|(_, size)| report.deleted.add(*size));
    if prune.options.dry_run {
        return Ok(());
    }
    let store = prune.repository.store();
    if !condemned.is_empty() {
        prune.step(format!("deleting {} packs", condemned.len()));
        lock.prove().await?;
        let keys: Vec<String> = condemned.iter().map(|(id, _)| pack::key(id)).collect();
        store.delete(&keys).await.map_err(RepositoryError::from)?;
    }
    store.delete(spent).await.map_err(RepositoryError::from)?;
    let (store, before) = (store.clone(), prune.lock.clock.now() - LEFTOVERS_AFTER);
    let swept = tokio::task::spawn_blocking(move || store.sweep(before)).await.map_err(|_| RepositoryError::Stopped)?;
    report.leftovers += swept.map_err(RepositoryError::from)?.files;
    Ok(())
}
