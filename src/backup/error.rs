//! What can go wrong in a backup.

use crate::backup::plan::Refusal;
use crate::hooks::HookError;
use crate::model::mover_job::FailureKind;
use crate::platform::PlatformError;
use crate::repository::error::RepositoryError;
use crate::store::StoreError;

/// A backup that made no point.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("{error} (ordinal {ordinal})")]
    Mover { ordinal: u32, error: String, hint: Option<String>, kind: FailureKind },
    #[error("the mover of ordinal {ordinal} reported {what}")]
    BadReport { ordinal: u32, what: String },
    #[error("{what} disappeared from the repository while the backup ran")]
    Vanished { what: String },
    #[error("the store did not confirm the point, which may have been made or not")]
    Unconfirmed(#[source] StoreError),
    #[error("interrupted: no point was made")]
    Interrupted,
    #[error(transparent)]
    Hook(HookError),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<HookError> for BackupError {
    fn from(error: HookError) -> Self {
        match error {
            HookError::Interrupted => BackupError::Interrupted,
            error => BackupError::Hook(error),
        }
    }
}

impl From<Refusal> for BackupError {
    fn from(refusal: Refusal) -> Self {
        BackupError::Refused(refusal)
    }
}

impl BackupError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            BackupError::Refused(refusal) => refusal.hint(),
            BackupError::Mover { hint, .. } => hint.clone(),
            BackupError::Vanished { .. } => {
                Some("did another program prune it without a lock? `keepset repair index` takes what is gone out of the index; then run the backup again".into())
            }
            BackupError::Unconfirmed(_) => {
                Some("once the store answers, `keepset list` tells: a point that it shows is whole; else run the backup again".into())
            }
            BackupError::Hook(error) => error.hint(),
            BackupError::Platform(error) => error.hint(),
            BackupError::Repository(error) => error.hint(),
            BackupError::BadReport { .. } | BackupError::Interrupted => None,
        }
    }

    /// What the exit code depends on.
    pub fn kind(&self) -> FailureKind {
        match self {
            BackupError::Refused(_) => FailureKind::Refused,
            BackupError::Mover { kind, .. } => *kind,
            BackupError::Interrupted => FailureKind::Interrupted,
            BackupError::Hook(HookError::Platform(error)) | BackupError::Platform(error) => error.kind(),
            BackupError::Repository(RepositoryError::Locked { .. }) => FailureKind::Locked,
            BackupError::Repository(RepositoryError::Refused { .. }) => FailureKind::Refused,
            BackupError::Repository(_)
            | BackupError::Hook(_)
            | BackupError::BadReport { .. }
            | BackupError::Vanished { .. }
            | BackupError::Unconfirmed(_) => FailureKind::Failed,
        }
    }
}
