//! The background task that keeps a lock fresh.

use std::sync::Arc;
use std::time::Duration;

use crate::repository::error::RepositoryError;
use crate::repository::lock::{Core, key, put};

/// Between refreshes; restic waits 5 minutes.
const EVERY: Duration = Duration::from_secs(2 * 60);
/// Between attempts after one failed.
const RETRY: Duration = Duration::from_secs(10);

/// Refreshes until the lock is lost or the task is aborted.
pub(super) async fn run(core: Arc<Core>) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match once(&core).await {
            Ok(()) => EVERY,
            Err(RepositoryError::LockLost { reason, .. }) => {
                tracing::error!(reason, "the lock on the repository was lost");
                return;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lock on the repository could not be refreshed, trying again");
                RETRY
            }
        };
    }
}

/// New object first, old one away after it: there is no moment without a lock. A lock that is too old or gone already is not renewed,
/// since others may have acted on its absence.
async fn once(core: &Core) -> Result<(), RepositoryError> {
    let mut state = core.state.lock().await;
    core.prove(&mut state).await?;
    let fresh = match put(&core.repository, core.exclusive, &core.nonce, &core.options).await {
        Ok(fresh) => fresh,
        Err(error) => {
            state.uncertain = true;
            return Err(error);
        }
    };
    let previous = std::mem::replace(&mut state.current, fresh.current);
    state.written = fresh.written;
    state.old.push(previous);
    let keys: Vec<String> = state.old.iter().map(key).collect();
    core.repository.store().delete(&keys).await?;
    state.old.clear();
    Ok(())
}
