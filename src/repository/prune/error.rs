//! What ends a prune before it is done.

use crate::repository::error::RepositoryError;

/// Nothing is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error("nothing more was removed")]
    Repository(#[from] RepositoryError),
    #[error("interrupted")]
    Interrupted,
}
