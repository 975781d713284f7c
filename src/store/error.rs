//! What can go wrong at the store, in the few kinds that callers tell apart.

use std::error::Error as _;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use crate::store::answers::Refusal;

/// An operation failed for good: retries are over. The cause follows in the chain, without credentials.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}{location}", of(key))]
pub struct StoreError {
    pub kind: ErrorKind,
    /// What was tried: `put`, `get`, `list`, `delete`, `open`, `create`.
    pub action: &'static str,
    /// The object's name below the root, or empty when it is about the whole store.
    pub key: String,
    /// The store's location, without credentials.
    pub location: String,
    #[source]
    source: Cause,
    /// A hint that knows more than the kind.
    hint: Option<String>,
}

fn of(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("object `{key}` in ") }
}

/// Kinds that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such object.
    NotFound,
    /// There is an object of that name, and it has other bytes.
    AlreadyExists,
    /// The object ends before the range that was asked for.
    TooShort,
    /// The object is longer than any of its sort can be.
    TooLong,
    /// No such folder: nothing was ever put there, or it is not mounted.
    NoSuchFolder,
    /// No such bucket or container.
    NoSuchBucket,
    /// The store knows us, or the file's owner does, and says no.
    Denied,
    /// The store does not accept our key.
    BadCredentials,
    /// There is no key to show.
    NoCredentials,
    /// Our clock and the store's differ too much for signatures.
    ClockSkew,
    /// The bucket is in another region.
    WrongRegion,
    /// No connection: name, address, network or TLS.
    Unreachable,
    /// Whoever answers at that address cannot prove to be the store.
    BadCertificate,
    /// Connected, but no answer within the deadline.
    Timeout,
    /// The store answered that it cannot serve now.
    Busy,
    /// No room, or the quota is used up.
    Full,
    ReadOnly,
    /// The store answers that it cannot do this at all, or does it in a way that is not safe.
    Unsupported,
    /// The object is there, but moved to where it must be brought back from before it can be read.
    Archived,
    /// The settings cannot be used.
    Settings,
    Other,
}

impl ErrorKind {
    /// Whether the same call may succeed a little later.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Busy)
    }
}

/// What the chain shows. The errors of the HTTP client name URLs, which can carry tokens, and repeat their sources; this says it once.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error(transparent)]
    Io(io::Error),
    #[error("{0}")]
    Text(String),
}

impl StoreError {
    pub(super) fn new(action: &'static str, location: &str, key: &str, source: &object_store::Error) -> Self {
        let (mut kind, source, mut hint) = classify(source);
        if action == "list" && kind == ErrorKind::NotFound {
            // No folder is an empty list: it is the bucket that is not there.
            kind = ErrorKind::NoSuchBucket;
            hint = Some("check the bucket's name, and that the endpoint is the server's address without the bucket");
        }
        StoreError { kind, action, key: key.to_owned(), location: location.to_owned(), source, hint: hint.map(str::to_owned) }
    }

    /// An error that no call of the store made.
    pub(super) fn own(kind: ErrorKind, action: &'static str, location: &str, key: &str, cause: impl Into<String>) -> Self {
        StoreError { kind, action, key: key.to_owned(), location: location.to_owned(), source: Cause::Text(cause.into()), hint: None }
    }

    pub(super) fn io(action: &'static str, location: &str, key: &str, error: io::Error) -> Self {
        let kind = io_kind(&error).unwrap_or(ErrorKind::Other);
        StoreError { kind, action, key: key.to_owned(), location: location.to_owned(), source: Cause::Io(error), hint: None }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether what was asked may have been done although this came back instead of an answer.
    pub fn leaves_doubt(&self) -> bool {
        self.kind.is_passing() || self.kind == ErrorKind::Other
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        if self.hint.is_some() {
            return self.hint.clone();
        }
        let location = &self.location;
        let remote = location.starts_with("s3:") || location.starts_with("gs:") || location.starts_with("az:");
        let hint = match self.kind {
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::TooShort
            | ErrorKind::TooLong
            | ErrorKind::Other
            | ErrorKind::Settings => return None,
            ErrorKind::NoSuchFolder => "check the path and that its disk is mounted; `keepset init` makes a new repository".to_owned(),
            ErrorKind::NoSuchBucket => "check the name, or create the bucket first: keepset does not".to_owned(),
            ErrorKind::Denied if remote => {
                format!("allow this key to list, get, put and delete objects in {location}")
            }
            ErrorKind::Denied => {
                format!("allow this user to read and write {location}, on a filesystem that has hard links")
            }
            ErrorKind::BadCredentials => "check the access key, its secret and, where there is one, the session token".to_owned(),
            ErrorKind::NoCredentials if location.starts_with("s3:") => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is given to the pod or machine".to_owned()
            }
            ErrorKind::NoCredentials if location.starts_with("gs:") => {
                "set GOOGLE_APPLICATION_CREDENTIALS to the path of a key file".to_owned()
            }
            ErrorKind::NoCredentials => "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY".to_owned(),
            ErrorKind::ClockSkew => "set this machine's clock: it differs from the store's by minutes".to_owned(),
            ErrorKind::WrongRegion => "set AWS_REGION to the bucket's region".to_owned(),
            ErrorKind::BadCertificate => {
                "check the endpoint's name; to trust an authority of your own, name its certificates in AWS_CA_BUNDLE or SSL_CERT_FILE, or in a cluster put them into the Secret as its key ca.crt"
                    .to_owned()
            }
            ErrorKind::Unreachable if !location.starts_with("s3:") => "check the address, the network and proxy settings".to_owned(),
            ErrorKind::Unreachable => {
                "check the address (AWS_ENDPOINT_URL where the store is not Amazon's), the network and proxy settings".to_owned()
            }
            ErrorKind::Timeout if remote => {
                "check the network and the load of the store, then run again: what is stored stays stored".to_owned()
            }
            ErrorKind::Timeout => {
                "check the disk or network share below the folder, then run again: what is stored stays stored".to_owned()
            }
            ErrorKind::Busy => "run again when the store has recovered: what is stored stays stored".to_owned(),
            ErrorKind::Full => format!("free some room in {location}, then run again: what is stored stays stored"),
            ErrorKind::ReadOnly => format!("mount the filesystem of {location} for writing"),
            ErrorKind::Unsupported => {
                "use a store that can: docs/stores.md says what keepset asks of one, and which are known to do it".to_owned()
            }
            ErrorKind::Archived => {
                "a lifecycle rule has moved it to an archive: end that rule for the repository's objects, bring them back to the standard \
                 class (with Amazon: restore-object, then copy each onto itself), then run again (docs/stores.md)"
                    .to_owned()
            }
        };
        Some(hint)
    }
}

/// Kind and cause, and a hint that knows more than the kind.
type Classified = (ErrorKind, Cause, Option<&'static str>);

fn classify(error: &object_store::Error) -> Classified {
    let mut deepest: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut text = None;
    while let Some(at) = deepest {
        if let Some(io) = at.downcast_ref::<io::Error>() {
            // Below HTTP an IO error is the network's; the HTTP error has been met before it.
            if let Some(kind) = io_kind(io) {
                return (kind, Cause::Io(copy(io)), None);
            }
        }
        if let Some(http) = at.downcast_ref::<HttpError>() {
            if let Some(refusal) = http.source().and_then(|source| source.downcast_ref::<Refusal>()) {
                return (refusal.kind, Cause::Text(refusal.text.clone()), refusal.hint);
            }
            return match of_certificate(http) {
                Some(refusal) => (refusal.kind, Cause::Text(refusal.text), refusal.hint),
                None => (http_kind(http), Cause::Text(innermost(http)), None),
            };
        }
        let shown = at.to_string();
        // Where no key is given, the library asks the machine it runs on; that address in an error means nobody there had one.
        if shown.contains("169.254.169.254") || shown.contains("metadata.google.internal") || shown.contains("169.254.170.2") {
            let cause = "no key in the settings, and the metadata service of this machine gives none";
            return (ErrorKind::NoCredentials, Cause::Text(cause.to_owned()), None);
        }
        if let Some(answer) = answer(&shown) {
            return (answer.kind().unwrap_or_else(|| variant_kind(error)), Cause::Text(answer.to_string()), answer.hint());
        }
        text = Some(shown);
        deepest = at.source();
    }
    (variant_kind(error), Cause::Text(text.unwrap_or_default()), None)
}

/// By the library's own variant, where nothing below it says more.
fn variant_kind(error: &object_store::Error) -> ErrorKind {
    match error {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => ErrorKind::AlreadyExists,
        object_store::Error::PermissionDenied { .. } => ErrorKind::Denied,
        object_store::Error::Unauthenticated { .. } => ErrorKind::BadCredentials,
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => ErrorKind::Unsupported,
        object_store::Error::InvalidPath { .. } | object_store::Error::UnknownConfigurationKey { .. } => ErrorKind::Settings,
        _ => ErrorKind::Other,
    }
}

fn io_kind(error: &io::Error) -> Option<ErrorKind> {
    Some(match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::Full,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => return error.raw_os_error().map(|_| ErrorKind::Other),
    })
}

/// An IO error can't be cloned; its number says all that there is.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// What is wrong with the server's certificate, where that is the failure: it stays wrong, so that no repetition helps.
pub(super) fn of_certificate(error: &HttpError) -> Option<Refusal> {
    let text = innermost(error);
    let is_authority = text.contains("CaUsedAsEndEntity");
    let hint = "the server shows the certificate of an authority as its own: make it one with basicConstraints=CA:FALSE (openssl req -x509 makes \
                CA:TRUE), signed by your authority, and trust that by AWS_CA_BUNDLE or SSL_CERT_FILE";
    let is_bad = is_authority || text.contains("certificate");
    is_bad.then(|| Refusal { kind: ErrorKind::BadCertificate, text, hint: is_authority.then_some(hint) })
}

fn http_kind(error: &HttpError) -> ErrorKind {
    match error.kind() {
        HttpErrorKind::Timeout => ErrorKind::Timeout,
        HttpErrorKind::Decode => ErrorKind::Other,
        // An unknown transport error is worth another try as well: all our operations may be repeated.
        _ => ErrorKind::Unreachable,
    }
}

fn innermost(error: &HttpError) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    deepest.to_string()
}

/// A store's answer that says no.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

/// What stores answer to a session token that is not, or no longer, theirs.
const STALE_TOKEN: &[&str] =
    &["ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId", "InvalidSecurityToken", "TokenRefreshRequired"];

/// Reads the answer out of the library's text, the only place where it stands. The library's tests and ours against MinIO hold its form.
fn answer(shown: &str) -> Option<Answer> {
    if shown.starts_with("Received redirect without LOCATION") {
        return Some(Answer { status: 301, code: "PermanentRedirect".to_owned(), message: String::new() });
    }
    if let Some(rest) = shown.strip_prefix("DeleteObjects request failed for key ") {
        // One of many that were to be deleted: the answer as a whole was 200.
        let (rest, code) = rest.strip_suffix(')')?.rsplit_once(" (code: ")?;
        let message = rest.split_once(": ").map_or("", |(_, message)| message);
        let status = if code == "AccessDenied" { 403 } else { 200 };
        return Some(Answer { status, code: code.to_owned(), message: in_a_line(message) });
    }
    let rest = shown.strip_prefix("Server returned non-2xx status code: ").or_else(|| {
        // A 200 whose body tells of a failure.
        shown.strip_prefix("Server returned error response: ")
    })?;
    let status = rest.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(200);
    Some(Answer::read(status, rest))
}

/// The text of an XML element, cut to what fits in a line.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(in_a_line(text))
}

fn in_a_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

impl Answer {
    /// By its body, which is XML where it says something.
    pub(super) fn read(status: u16, body: &str) -> Self {
        Answer { status, code: element(body, "Code").unwrap_or_default(), message: element(body, "Message").unwrap_or_default() }
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            code if STALE_TOKEN.contains(&code) => {
                "AWS_SESSION_TOKEN is stale or belongs to another key: set a new one, or unset it where the key needs none"
            }
            "InvalidBucketName" => "check the bucket's name: 3 to 63 small letters, digits, dots and hyphens",
            "" if self.status == 400 => {
                "check the bucket's name (small letters, digits, dots and hyphens), the region and the endpoint: the store cannot read the request"
            }
            _ => return None,
        })
    }

    pub(super) fn kind(&self) -> Option<ErrorKind> {
        Some(match self.code.as_str() {
            "NoSuchBucket" | "ContainerNotFound" => ErrorKind::NoSuchBucket,
            "RequestTimeTooSkewed" | "RequestExpired" => ErrorKind::ClockSkew,
            "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated" => ErrorKind::Archived,
            "NotImplemented" | "MethodNotAllowed" => ErrorKind::Unsupported,
            code if STALE_TOKEN.contains(&code) => ErrorKind::BadCredentials,
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthenticationFailed" => ErrorKind::BadCredentials,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => ErrorKind::WrongRegion,
            "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" | "EntityTooLarge" => ErrorKind::Full,
            "InvalidRange" => ErrorKind::TooShort,
            "SlowDown" | "ServiceUnavailable" | "InternalError" | "ServerBusy" | "OperationTimedOut" | "SlowDownWrite" | "SlowDownRead" => {
                ErrorKind::Busy
            }
            _ => match self.status {
                401 => ErrorKind::BadCredentials,
                403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                405 | 501 => ErrorKind::Unsupported,
                408 | 429 | 500..=599 => ErrorKind::Busy,
                416 => ErrorKind::TooShort,
                _ => return None,
            },
        })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store answered")?;
        // What one of many was answered has no status of its own.
        if self.status != 200 {
            write!(f, " {}", self.status)?;
        }
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_io(error: io::Error) -> StoreError {
        StoreError::new(
            "put",
            "/srv/backup",
            "data/00/00ab",
            &object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) },
        )
    }

    #[test]
    fn a_full_disk_is_named_as_such() {
        let error = from_io(io::Error::from_raw_os_error(28));
        assert_eq!(error.kind, ErrorKind::Full);
        assert_eq!(error.to_string(), "cannot put object `data/00/00ab` in /srv/backup");
        assert_eq!(error.source().unwrap().to_string(), "No space left on device (os error 28)");
        assert!(error.hint().unwrap().contains("free some room in /srv/backup"));
    }

    #[test]
    fn a_read_only_filesystem_and_missing_rights_are_named_as_such() {
        assert_eq!(from_io(io::Error::from_raw_os_error(30)).kind, ErrorKind::ReadOnly);
        assert_eq!(from_io(io::Error::from_raw_os_error(13)).kind, ErrorKind::Denied);
    }

    #[test]
    fn an_answer_of_the_store_is_read_without_its_url() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>RequestTimeTooSkewed</Code>\
                    <Message>The difference is too large.</Message><Resource>/bucket/x?token=geheim</Resource></Error>";
        let source = object_store::Error::PermissionDenied { path: "x".to_owned(), source: body.into() };
        let error = StoreError::new("get", "s3://bucket", "x", &source);
        assert_eq!(error.kind, ErrorKind::ClockSkew);
        assert_eq!(error.source().unwrap().to_string(), "the store answered 403: RequestTimeTooSkewed: The difference is too large.");
        assert!(!format!("{error:?}").contains("geheim"));
    }

    #[test]
    fn one_object_that_may_not_be_deleted_is_told_as_the_store_tells_it() {
        let source = "DeleteObjects request failed for key locks/00: Access Denied. (code: AccessDenied)";
        let error =
            StoreError::new("delete", "s3://bucket", "locks/00", &object_store::Error::Generic { store: "S3", source: source.into() });
        assert_eq!(
            (error.kind, error.source().unwrap().to_string().as_str()),
            (ErrorKind::Denied, "the store answered 403: AccessDenied: Access Denied.")
        );
    }

    fn answered(status: &str, code: &str) -> StoreError {
        let body = format!("Server returned non-2xx status code: {status}: <Error><Code>{code}</Code><Message>m</Message></Error>");
        StoreError::new("get", "s3://bucket", "x", &object_store::Error::Generic { store: "S3", source: body.into() })
    }

    #[test]
    fn what_a_store_cannot_do_is_an_answer_and_no_outage() {
        for (status, code) in [("501 Not Implemented", ""), ("405 Method Not Allowed", ""), ("400 Bad Request", "NotImplemented")] {
            let error = answered(status, code);
            assert!(error.kind == ErrorKind::Unsupported && !error.leaves_doubt() && !error.kind.is_passing(), "{error:?}");
            assert!(error.hint().unwrap().contains("docs/stores.md"));
        }
    }

    #[test]
    fn an_archived_object_and_a_stale_token_are_told_with_the_way_on() {
        for code in ["InvalidObjectState", "BlobArchived"] {
            let error = answered("403 Forbidden", code);
            assert_eq!(error.kind, ErrorKind::Archived);
            assert!(error.hint().unwrap().contains("lifecycle rule"));
        }
        for code in STALE_TOKEN {
            let error = answered("400 Bad Request", code);
            assert_eq!(error.kind, ErrorKind::BadCredentials);
            assert!(error.hint().unwrap().contains("AWS_SESSION_TOKEN"));
        }
        assert!(answered("400 Bad Request", "InvalidBucketName").hint().unwrap().contains("small letters"));
    }

    #[test]
    fn an_authority_that_is_shown_as_the_servers_own_certificate_is_told() {
        for (cause, hint) in [
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "CA:FALSE"),
            ("invalid peer certificate: UnknownIssuer", "AWS_CA_BUNDLE"),
        ] {
            let source = Box::new(HttpError::new(HttpErrorKind::Connect, io::Error::other(cause)));
            let error = StoreError::new("get", "s3://bucket", "x", &object_store::Error::Generic { store: "S3", source });
            assert_eq!(error.kind, ErrorKind::BadCertificate);
            assert!(error.hint().unwrap().contains(hint), "{error:?}");
        }
    }

    #[test]
    fn an_answer_without_a_body_goes_by_its_status() {
        for (status, kind) in [("503 Service Unavailable", ErrorKind::Busy), ("401 Unauthorized", ErrorKind::BadCredentials)] {
            let body = format!("Server returned non-2xx status code: {status}: ");
            let error = object_store::Error::Generic { store: "S3", source: body.into() };
            assert_eq!(StoreError::new("get", "s3://bucket", "x", &error).kind, kind);
        }
    }
}
