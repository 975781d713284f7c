//! What makes a mover give up. Trouble with single files does not: that is a list in its report.

use crate::model::exclude::BadPattern;
use crate::model::mover_job::FailureKind;
use crate::repository::error::RepositoryError;
use crate::volume::VolumeError;

/// The whole of a mover's work failed.
#[derive(Debug, thiserror::Error)]
pub enum MoverError {
    #[error("claim {claim}: its volume failed")]
    Volume { claim: String, source: VolumeError },
    #[error("claim {claim}: the target `{target}` holds data")]
    TargetHoldsData { claim: String, target: String },
    #[error("claim {claim}: what is to be excluded makes no sense")]
    Exclude { claim: String, source: BadPattern },
    #[error("claim {claim}: the point has no `{path}`")]
    NoSuchPath { claim: String, path: String },
    #[error("claim {claim}: its device has {has} bytes, and the image {needs}")]
    TooSmall { claim: String, needs: u64, has: u64 },
    #[error("claim {claim}: the point holds files, and the target has no file system")]
    NoImage { claim: String },
    #[error("claim {claim}: a part of an image cannot be restored")]
    WholeOnly { claim: String },
    #[error("the repository failed")]
    Repository(#[from] RepositoryError),
    #[error("interrupted")]
    Interrupted,
}

impl MoverError {
    /// The way on, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            MoverError::Volume { source, .. } => source.hint(),
            MoverError::TargetHoldsData { .. } => Some("restore into an empty folder".to_owned()),
            MoverError::TooSmall { .. } => Some("make the claim larger".to_owned()),
            MoverError::NoImage { .. } => Some("restore it into a claim with `volumeMode: Filesystem`".to_owned()),
            MoverError::WholeOnly { .. } => Some("leave `--path` out, or restore it into a folder with `--into`".to_owned()),
            MoverError::NoSuchPath { .. } => Some("`keepset ls` shows the paths that the point has".to_owned()),
            MoverError::Repository(error) => error.hint(),
            MoverError::Exclude { .. } | MoverError::Interrupted => None,
        }
    }

    /// As the exit code depends on it.
    pub fn kind(&self) -> FailureKind {
        match self {
            MoverError::TargetHoldsData { .. }
            | MoverError::TooSmall { .. }
            | MoverError::NoImage { .. }
            | MoverError::WholeOnly { .. } => FailureKind::Refused,
            MoverError::Interrupted => FailureKind::Interrupted,
            MoverError::Repository(RepositoryError::Locked { .. }) | MoverError::Volume { source: VolumeError::Held { .. }, .. } => {
                FailureKind::Locked
            }
            _ => FailureKind::Failed,
        }
    }
}
