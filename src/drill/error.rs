//! What keeps a drill from a verdict.

use std::error::Error;

use crate::model::mover_job::FailureKind;
use crate::platform::PlatformError;
use crate::repository::error::RepositoryError;
use crate::restore::RestoreError;

/// A drill that has no report.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The point cannot be brought back: that is a verdict too.
    #[error("point {point} does not come back")]
    NotBack {
        point: String,
        #[source]
        source: Box<RestoreError>,
    },
    /// Nothing was begun.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("what was restored could not be read again: {error} (ordinal {ordinal})")]
    Mover { ordinal: u32, error: String, hint: Option<String>, kind: FailureKind },
    #[error("the mover of ordinal {ordinal} reported {what}")]
    BadReport { ordinal: u32, what: String },
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl DrillError {
    /// Of a restore of this point. What of it is in place, and that it could be gone on with, is nobody's affair: it is removed.
    pub(super) fn not_back(point: String, error: RestoreError) -> Self {
        let source = match error {
            RestoreError::Unfilled { source, .. } => source,
            other => Box::new(other),
        };
        DrillError::NotBack { point, source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            DrillError::NotBack { source, .. } => source.hint(),
            DrillError::Restore(error) => error.hint(),
            DrillError::Mover { hint, .. } => hint.clone(),
            DrillError::Platform(error) => error.hint(),
            DrillError::Repository(error) => error.hint(),
            DrillError::BadReport { .. } | DrillError::Interrupted => None,
        }
    }

    /// What the exit code depends on.
    pub fn kind(&self) -> FailureKind {
        match self {
            DrillError::NotBack { source, .. } => source.kind(),
            DrillError::Restore(error) => error.kind(),
            DrillError::Mover { kind, .. } => *kind,
            DrillError::Interrupted => FailureKind::Interrupted,
            DrillError::Platform(error) => error.kind(),
            DrillError::Repository(RepositoryError::Locked { .. } | RepositoryError::LockLost { .. }) => FailureKind::Locked,
            DrillError::BadReport { .. } | DrillError::Repository(_) => FailureKind::Failed,
        }
    }

    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        text
    }
}
