//! Takes the kernel's lock on an open file or folder, which ends with the process that has it.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::platform::PlatformError;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// True once the lock is had. Waits as long as `patience` for one that is dying: a child that it was about to start has its descriptors
/// until it is another program, and a mover that was killed may still have calls under way.
pub(super) async fn lock(file: &File, path: &Path, patience: Duration) -> Result<bool, PlatformError> {
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(PlatformError::io("lock", path, error)),
        }
    }
}
