//! Where restore meets backup: what a restore's targets hold is sealed by a backup of those claims, handed to it as a function.

use std::sync::Arc;

use futures::FutureExt;

use crate::backup::{Backup, BackupOptions};
use crate::cli::stop::Stop;
use crate::cli::wire::Wire;
use crate::monitor::Monitor;
use crate::platform::Platform;
use crate::repository::Repository;
use crate::restore::{Restore, SafetyFailure, SafetyPoint, SealSafety};

/// A restore, and the backup that seals its safety points by `options`.
pub(super) fn wired(
    wire: &Wire,
    repository: Repository,
    platform: Arc<dyn Platform>,
    monitor: Arc<dyn Monitor>,
    stop: Stop,
    options: BackupOptions,
) -> Restore {
    let backup = Backup {
        repository: repository.clone(),
        platform: Arc::clone(&platform),
        clock: wire.clock.clone(),
        monitor: Arc::clone(&monitor),
        identity: wire.identity(),
        cancel: stop.clone(),
    };
    let seal_safety = seal_by(backup, options);
    Restore { repository, platform, clock: wire.clock.clone(), monitor, identity: wire.identity(), cancel: stop, seal_safety }
}

/// Seals safety points by `backup`; which claims, whoever calls it says.
pub fn seal_by(backup: Backup, options: BackupOptions) -> SealSafety {
    Arc::new(move |set, claims, exclude, stopped| {
        let (backup, options) = (backup.clone(), BackupOptions { safety: Some(claims), exclude, stopped, ..options.clone() });
        async move {
            match backup.run(&set, &options).await {
                Ok(sealed) => Ok(SafetyPoint { point: sealed.point, complete: sealed.complete }),
                Err(error) => {
                    let (hint, kind) = (error.hint(), error.kind());
                    Err(SafetyFailure { error: format!("{:#}", anyhow::Error::new(error)), hint, kind })
                }
            }
        }
        .boxed()
    })
}
