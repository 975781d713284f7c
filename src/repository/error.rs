//! What can go wrong in a repository.

use crate::model::id::Id;
use crate::store::{ErrorKind, StoreError};

/// Every way in which the repository fails. Sources stay out of the text: whoever prints walks the chain.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error("there is no repository at {location}")]
    NoRepository { location: String },
    #[error("there is a repository at {location} already")]
    AlreadyThere { location: String },
    #[error("at {location} are keys that the password does not open, and no config: a repository was begun there, or has lost it")]
    Unfinished { location: String },
    #[error("the password opens no key of the repository at {location}")]
    WrongPassword { location: String },
    #[error("the repository at {location} is held by {holder}")]
    Locked { location: String, holder: String },
    #[error("the lock on the repository at {location} was lost: {reason}")]
    LockLost { location: String, reason: String },
    #[error("{what} is damaged: {reason}")]
    Damaged { what: String, reason: String },
    #[error("the repository does not open: {what}: {reason}")]
    Closed { what: String, reason: String },
    #[error("{kind} {id} is in no index of the repository")]
    Missing { kind: &'static str, id: Id },
    #[error("{what} is not something that this version reads: {reason}")]
    Unsupported { what: String, reason: String },
    #[error("{what} is refused: {reason}")]
    Refused { what: String, reason: String },
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the system gave no random bytes")]
    Random(#[from] getrandom::Error),
    #[error("a chunk did not survive compression unchanged")]
    Unfaithful(#[source] std::io::Error),
    #[error("a worker stopped before its work was done")]
    Stopped,
}

impl RepositoryError {
    /// `what` (an object or blob) holds bytes that cannot be right.
    pub fn damaged(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        RepositoryError::Damaged { what: what.into(), reason: reason.to_string() }
    }

    /// `what` (the config, a key) is damaged or gone, and without it nothing can be read.
    pub fn closed(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        RepositoryError::Closed { what: what.into(), reason: reason.to_string() }
    }

    /// Whether the repository itself lacks what was asked for, or holds it wrongly: asking again does not help, and everything else may be
    /// whole. A store that cannot be reached, or refuses, is none.
    pub fn is_damage(&self) -> bool {
        match self {
            RepositoryError::Damaged { .. } | RepositoryError::Missing { .. } => true,
            RepositoryError::Store(error) => matches!(error.kind, ErrorKind::NotFound | ErrorKind::TooShort),
            _ => false,
        }
    }

    /// Why, in one line, for a list that names what it is about.
    pub fn reason(&self) -> String {
        match self {
            RepositoryError::Store(error) => error.to_string(),
            other => other.to_string(),
        }
    }

    /// The way on, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            RepositoryError::NoRepository { .. } => "make one with `keepset init`, or check --repo".to_owned(),
            RepositoryError::AlreadyThere { .. } => "use it as it is: `keepset list`; or choose another place".to_owned(),
            RepositoryError::Unfinished { .. } => "give the password of these keys to go on with them, or choose another place".to_owned(),
            RepositoryError::WrongPassword { .. } => "check KEEPSET_PASSWORD_FILE, KEEPSET_PASSWORD_COMMAND or KEEPSET_PASSWORD".to_owned(),
            RepositoryError::Locked { .. } => "wait for it with --wait-lock, or remove locks of the dead with `keepset unlock`".to_owned(),
            RepositoryError::LockLost { .. } => "run it again: nothing was sealed".to_owned(),
            RepositoryError::Closed { .. } => {
                "put that object back from a copy of the repository, such as an older version in the bucket; where only the config is gone, \
                 `keepset init` with the same password makes another for what is there"
                    .to_owned()
            }
            RepositoryError::Damaged { .. } | RepositoryError::Missing { .. } => {
                "`keepset check --read-data` names everything that is damaged and the points it touches".to_owned()
            }
            RepositoryError::Store(_) if self.is_damage() => {
                "run it again, in case a prune came in between; `keepset check` names everything that is damaged and the points it touches"
                    .to_owned()
            }
            _ => return None,
        })
    }
}
