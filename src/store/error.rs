//! What can go wrong at the store, in the few kinds that callers tell apart.

/// An operation on one object failed for good: retries are over.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach object `{key}` in {location}")]
pub struct StoreError {
    pub kind: ErrorKind,
    pub key: String,
    /// The store's location, without credentials.
    pub location: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    Denied,
    Other,
}

impl StoreError {
    pub(super) fn new(location: &str, key: &str, source: object_store::Error) -> Self {
        let kind = match &source {
            object_store::Error::NotFound { .. } => ErrorKind::NotFound,
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => ErrorKind::AlreadyExists,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => ErrorKind::Denied,
            _ => ErrorKind::Other,
        };
        StoreError { kind, key: key.to_owned(), location: location.to_owned(), source: Box::new(source) }
    }
}
