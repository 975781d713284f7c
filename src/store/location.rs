//! Where a repository is: how its address is written, read and shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

/// The address of a repository. Reads what users write (`/srv/backup`, `file:///srv/backup`, `s3://bucket/prefix`, `gs://bucket/prefix`,
/// `az://container/prefix`) and what restic's users have written for years (`s3:http://host:9000/bucket/prefix`, `gs:bucket:/prefix`,
/// `azure:container:/prefix`, `local:/srv/backup`). Never holds credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// Amazon S3, or what speaks its language at `endpoint`.
    S3 {
        /// From the address; the one of the settings where it is `None`.
        endpoint: Option<Url>,
        bucket: String,
        prefix: String,
    },
    /// Google Cloud Storage.
    Gcs { bucket: String, prefix: String },
    /// Azure Blob Storage.
    Azure { container: String, prefix: String },
}

/// The address of a repository cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    #[error("the repository's address is empty")]
    Empty,
    #[error("repository address {0}: `{1}` is not supported")]
    UnknownScheme(String, String),
    #[error("repository address {0} names no {1}")]
    NoBucket(String, &'static str),
    #[error("repository address {0} holds a user name or password")]
    Credentials(String),
    #[error("repository address {0}: {1}")]
    BadUrl(String, String),
    #[error("repository address {0} begins with a quotation mark")]
    Quoted(String),
    #[error("repository address {0} begins with `~`, which only a shell replaces")]
    Home(String),
    #[error("repository address {0} is no address that is known, and could be a host or a folder")]
    Unclear(String),
}

impl LocationError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            LocationError::Empty => Some("give a path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix".to_owned()),
            LocationError::UnknownScheme(_, scheme) if scheme == "b2" => {
                Some("B2 speaks S3: use s3://bucket/prefix with AWS_ENDPOINT_URL=https://s3.<region>.backblazeb2.com; it has no create-only put (docs/stores.md)"
                    .to_owned())
            }
            LocationError::UnknownScheme(..) => {
                Some("use a path, file://, s3://, gs:// or az://; a path that looks like an address starts with ./".to_owned())
            }
            LocationError::NoBucket(..) | LocationError::BadUrl(..) => Some("write s3://bucket/prefix, gs://bucket/prefix or az://container/prefix".to_owned()),
            LocationError::Credentials(_) => {
                Some("give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: addresses end up in logs and process lists".to_owned())
            }
            LocationError::Quoted(_) => Some("write it without quotation marks: files of variables keep them as they are".to_owned()),
            LocationError::Home(_) => Some("write the whole path of the folder".to_owned()),
            LocationError::Unclear(text) => Some(format!(
                "write s3://bucket/prefix, with the host in AWS_ENDPOINT_URL, or s3:https://host/bucket/prefix; a folder is ./{text}"
            )),
        }
    }
}

/// Schemes that restic knows and keepset does not.
const FOREIGN: &[&str] = &["sftp", "rest", "rclone", "b2", "swift", "http", "https", "ftp"];

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        // What surrounds an address comes from files of variables and Secrets.
        let text = text.trim();
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        if text.starts_with(['"', '\'', '`']) {
            return Err(LocationError::Quoted(without_user(text)));
        }
        if text.starts_with('~') {
            return Err(LocationError::Home(without_user(text)));
        }
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            return folder(text);
        };
        let scheme = scheme.to_ascii_lowercase();
        let url_rest = rest.strip_prefix("//");
        match (scheme.as_str(), url_rest) {
            ("file", Some(_)) => {
                let bad = |what: &str| LocationError::BadUrl(text.to_owned(), what.to_owned());
                let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
                url.to_file_path().map(Location::Folder).map_err(|()| bad("a file address is file:///followed/by/an/absolute/path"))
            }
            ("local", None) => Ok(Location::Folder(rest.into())),
            ("s3", Some(rest)) => {
                let (bucket, prefix) = bucket_and_prefix(text, rest, "bucket")?;
                Ok(Location::S3 { endpoint: None, bucket, prefix })
            }
            ("s3", None) => s3_of_restic(text, rest),
            ("gs", Some(rest)) => bucket_and_prefix(text, rest, "bucket").map(|(bucket, prefix)| Location::Gcs { bucket, prefix }),
            ("az" | "azure", Some(rest)) => {
                bucket_and_prefix(text, rest, "container").map(|(container, prefix)| Location::Azure { container, prefix })
            }
            ("gs", None) => {
                bucket_and_prefix(text, &rest.replacen(":/", "/", 1), "bucket").map(|(bucket, prefix)| Location::Gcs { bucket, prefix })
            }
            ("azure", None) => bucket_and_prefix(text, &rest.replacen(":/", "/", 1), "container")
                .map(|(container, prefix)| Location::Azure { container, prefix }),
            (other, rest) if rest.is_some() || FOREIGN.contains(&other) => {
                // The address may hold a password (`rest:https://user:pass@host`): only what is safe is shown.
                Err(LocationError::UnknownScheme(without_user(text), scheme))
            }
            _ => folder(text),
        }
    }
}

/// What is written without a scheme is a folder, unless it reads like an address with a slip: then a backup that was meant for a bucket would
/// stay on this machine.
fn folder(text: &str) -> Result<Location, LocationError> {
    let is_marked = text.starts_with('/') || text.starts_with("./") || text.starts_with("../");
    let Some((first, rest)) = text.split_once('/').filter(|_| !is_marked) else { return Ok(Location::Folder(text.into())) };
    let has_port = first.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()));
    let is_host = first.trim_matches('.').contains('.') || first.contains('@') || has_port;
    let is_scheme = rest.starts_with('/') && is_scheme(first.trim_end_matches(':').trim_end());
    if is_host || is_scheme || text.contains("://") {
        return Err(LocationError::Unclear(without_user(text)));
    }
    Ok(Location::Folder(text.into()))
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.len() < 10 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '+')
}

fn without_user(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, after)) => format!("{}…@{after}", &before[..before.find("//").map_or(0, |at| at + 2)]),
        None => text.to_owned(),
    }
}

fn bucket_and_prefix(text: &str, rest: &str, what: &'static str) -> Result<(String, String), LocationError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err(LocationError::Credentials(without_user(text)));
    }
    if bucket.is_empty() {
        return Err(LocationError::NoBucket(text.to_owned(), what));
    }
    if bucket.contains(char::is_whitespace) {
        return Err(LocationError::BadUrl(without_user(text), format!("the {what}'s name holds white space")));
    }
    Ok((bucket.to_owned(), prefix.trim_matches(|c: char| c == '/' || c.is_whitespace()).to_owned()))
}

/// `s3:host/bucket/prefix` and `s3:http://host:9000/bucket/prefix`, where the host is the endpoint.
fn s3_of_restic(text: &str, rest: &str) -> Result<Location, LocationError> {
    let address = if rest.starts_with("http://") || rest.starts_with("https://") { rest.to_owned() } else { format!("https://{rest}") };
    let mut url = Url::parse(&address).map_err(|e| LocationError::BadUrl(without_user(text), e.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LocationError::Credentials(without_user(text)));
    }
    let path = rest.strip_prefix("http://").or(rest.strip_prefix("https://")).unwrap_or(rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let (bucket, prefix) = bucket_and_prefix(text, path.trim_start_matches('/'), "bucket")?;
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    // Amazon's own endpoint is the one of the region, which the settings name.
    let amazon = url.host_str().is_some_and(|host| host == "s3.amazonaws.com");
    Ok(Location::S3 { endpoint: (!amazon).then_some(url), bucket, prefix })
}

impl Location {
    /// The folder, where the repository is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Location::Folder(path) => Some(path),
            Location::S3 { .. } | Location::Gcs { .. } | Location::Azure { .. } => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Location::Folder(path) => return write!(f, "{}", path.display()),
            Location::S3 { endpoint: Some(endpoint), bucket, prefix } => {
                return write!(f, "s3:{}/{bucket}{}{prefix}", endpoint.as_str().trim_end_matches('/'), slash(prefix));
            }
            Location::S3 { endpoint: None, bucket, prefix } => ("s3", bucket, prefix),
            Location::Gcs { bucket, prefix } => ("gs", bucket, prefix),
            Location::Azure { container, prefix } => ("az", container, prefix),
        };
        write!(f, "{scheme}://{bucket}{}{prefix}", slash(prefix))
    }
}

fn slash(prefix: &str) -> &str {
    if prefix.is_empty() { "" } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match text.parse::<Location>() {
            Ok(location) => location.to_string(),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn an_address_is_shown_as_it_was_written() {
        for text in [
            "/srv/backup",
            "backup",
            "./s3",
            "s3://bucket",
            "s3://bucket/a/b",
            "gs://bucket/a",
            "az://container/a",
            "s3:http://127.0.0.1:9000/bucket/a/b",
            "s3:https://minio.example.com/bucket",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn addresses_of_restic_are_understood() {
        assert_eq!(shown("s3:s3.amazonaws.com/bucket/a"), "s3://bucket/a");
        assert_eq!(shown("s3:minio.example.com:9000/bucket/a/"), "s3:https://minio.example.com:9000/bucket/a");
        assert_eq!(shown("s3:http://localhost:9000/bucket"), "s3:http://localhost:9000/bucket");
        assert_eq!(shown("gs:bucket:/a/b"), "gs://bucket/a/b");
        assert_eq!(shown("azure:container:/a"), "az://container/a");
        assert_eq!(shown("local:/srv/backup"), "/srv/backup");
        assert_eq!(shown("file:///srv/back%20up"), "/srv/back up");
    }

    #[test]
    fn prefixes_lose_their_outer_slashes_only() {
        assert_eq!(shown("s3://bucket//a/b//"), "s3://bucket/a/b");
    }

    #[test]
    fn a_folder_whose_name_has_a_colon_is_a_folder() {
        for text in ["backup:2024", "C:stuff", "/a:b//c", "./a b://c", "./s3.host/b", "backups/a.b/c", "my.folder", "2024-01-01T10:00"] {
            assert_eq!(text.parse(), Ok(Location::Folder(text.into())), "{text}");
        }
    }

    #[test]
    fn an_address_with_a_slip_is_no_folder() {
        for text in [" s3://b/k", "s3://b/k\n", "\ts3://b/k/ "] {
            assert_eq!(shown(text), "s3://b/k", "{text:?}");
        }
        assert_eq!(" /srv/backup\n".parse(), Ok(Location::Folder("/srv/backup".into())));
        for text in [
            "\"s3://b/k\"",
            "'s3://b/k'",
            "\"/srv/backup\"",
            "~/backups",
            "~",
            "s3.us-west-002.backblazeb2.com/b/k",
            "localhost:9000/b/k",
            "s3//b/k",
            "http//x/y",
            "s3 ://b/k",
            "s3_x://b/k",
            "anna:geheim@host/b",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.hint().is_some(), "{text}");
            assert!(!format!("{error} {:?}", error.hint()).contains("geheim"), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_refused_without_showing_its_password() {
        let error = "rest:https://anna:geheim@host/x".parse::<Location>().unwrap_err();
        assert_eq!(error.to_string(), "repository address rest:https://…@host/x: `rest` is not supported");
        assert!("ssh://host/x".parse::<Location>().unwrap_err().hint().is_some());
        assert!("b2:bucket:a".parse::<Location>().unwrap_err().hint().unwrap().contains("AWS_ENDPOINT_URL"));
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_shown() {
        for text in ["s3:http://anna:geheim@host/bucket", "s3://anna:geheim@bucket/a", "gs://anna:geheim@bucket"] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(matches!(error, LocationError::Credentials(_)), "{text}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("geheim"));
        }
    }

    #[test]
    fn an_address_without_a_bucket_is_refused() {
        for text in ["s3://", "s3:///a", "gs://", "az:///a", "s3:http://host", "s3:http://host/", ""] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_address_panics_and_what_is_shown_reads_back(text in "(s3|gs|az|file|azure|local|x)?(:|://)?[a-z@:/ü%. ]{0,20}") {
            if let Ok(location) = text.parse::<Location>() {
                let again = location.to_string().parse::<Location>();
                if !matches!(location, Location::Folder(_)) {
                    proptest::prop_assert_eq!(again, Ok(location));
                }
            }
        }
    }
}
