//! Which of the user's variables does a store read, and can they be sent as they are?
//!
//! Keys, tokens and regions end up in headers and URLs, which cannot hold every character: the library panics on those that they cannot. No
//! value reaches it unchecked.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use object_store::path::Path;
use url::Url;

use crate::store::error::{ErrorKind, StoreError};
use crate::store::location::Location;

/// restic's names, which are read besides those that the library knows.
const OF_RESTIC: &[&str] = &["AZURE_ACCOUNT_NAME", "AZURE_ACCOUNT_KEY", "AZURE_ACCOUNT_SAS"];
/// Values that are documents and paths of files, which never become a header as they are.
const FREE: &[&str] = &[
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_CA_BUNDLE",
];

/// The variables that a store may read, of all that the user has set: without white space at their ends, and fit to be sent.
pub(super) struct Variables<'a> {
    of: BTreeMap<&'a str, &'a str>,
    location: &'a Location,
}

impl<'a> Variables<'a> {
    /// Takes what the store at `location` reads. An empty variable counts as none. An error names the variable, never its value.
    pub(super) fn new(of: &'a HashMap<String, String>, location: &'a Location) -> Result<Self, StoreError> {
        let mut variables = Variables { of: BTreeMap::new(), location };
        for (name, value) in of {
            let trimmed = value.trim();
            if trimmed.is_empty() || !is_read(name, location) {
                continue;
            }
            if let Some(bad) = trimmed.chars().find(|c| !is_sendable(name, *c)) {
                let what = match bad {
                    '\u{fffd}' => "bytes that are no text".to_owned(),
                    bad if bad.is_control() => format!("the control character {:#04x}", u32::from(bad)),
                    _ => "characters outside of ASCII".to_owned(),
                };
                return Err(variables
                    .refuse(format!("{name} holds {what}, which no request can carry"))
                    .with_hint(format!("set {name} again, on one line and without quotes or other additions")));
            }
            if trimmed.len() != value.len() {
                tracing::warn!(variable = name, "white space at the ends of this variable is not used");
            }
            variables.of.insert(name, trimmed);
        }
        Ok(variables)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.of.get(name).copied()
    }

    pub(super) fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    /// The variables of `prefix` that the library knows, in a fixed order.
    pub(super) fn known<K: FromStr>(&self, prefix: &str) -> Vec<(K, &str)> {
        let known = self.of.iter().filter(|(name, _)| name.starts_with(prefix));
        known.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, *value))).collect()
    }

    pub(super) fn refuse(&self, cause: impl Into<String>) -> StoreError {
        StoreError::own(ErrorKind::Settings, "open", &self.location.to_string(), "", cause)
    }

    /// Nothing has been asked of the store yet: what fails here is what the variables say.
    pub(super) fn failed(&self, error: &object_store::Error) -> StoreError {
        let refused = self.refuse(std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string));
        match self.location {
            Location::Azure { .. } if self.get("AZURE_STORAGE_ACCOUNT_NAME").is_none() => {
                refused.with_hint("set AZURE_STORAGE_ACCOUNT_NAME")
            }
            _ => refused,
        }
    }

    pub(super) fn root(&self, prefix: &str) -> Result<Path, StoreError> {
        Path::parse(prefix).map_err(|e| self.refuse(format!("prefix `{prefix}` is no name for objects: {e}")))
    }

    /// The URL in the first of these variables that is set: a server's address without the bucket.
    pub(super) fn endpoint(&self, names: &[&str], bucket: &str) -> Result<Option<Url>, StoreError> {
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, self.get(name)?))) else { return Ok(None) };
        let form = format!("set {name} to the server's address alone: https://HOST or https://HOST:PORT");
        let refuse = |what: String| Err(self.refuse(format!("{name} {what}")).with_hint(form.clone()));
        if !text.contains("://") {
            return refuse("has no https:// in front".to_owned());
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return refuse(format!("is no URL: {error}")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("holds a user name or password".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("has more than an address: a `?` or a `#`".to_owned());
        }
        if url.path().trim_matches('/').rsplit('/').next() == Some(bucket) {
            return refuse(format!("ends in {bucket}, which is named by the repository's address already"));
        }
        Ok(Some(url))
    }

    /// Refuses what would break the URL of every request.
    pub(super) fn fit_for_a_url(&self, what: &str, text: &str) -> Result<(), StoreError> {
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
            None => Ok(()),
            Some(_) => Err(self
                .refuse(format!("{what} has characters that no store takes"))
                .with_hint("use letters, digits, dots and hyphens alone")),
        }
    }

    /// Refuses a file whose content the library puts into a header as it is.
    pub(super) fn check_token_file(&self, name: &str) -> Result<(), StoreError> {
        // A file that cannot be read is an error of the library's, which names it.
        let Some(token) = self.get(name).and_then(|path| std::fs::read_to_string(path).ok()) else { return Ok(()) };
        if token.chars().all(|c| is_sendable("", c)) {
            return Ok(());
        }
        Err(self
            .refuse(format!("the token in the file of {name} holds a line break or other characters that no request can carry"))
            .with_hint("write the token alone into that file, without a line break at its end"))
    }
}

/// Whether a store at this location looks at the variable.
fn is_read(name: &str, location: &Location) -> bool {
    let lower = name.to_ascii_lowercase();
    let known = match location {
        Location::Folder(_) => return false,
        Location::S3 { .. } => name.starts_with("AWS_") && (AmazonS3ConfigKey::from_str(&lower).is_ok() || names_a_profile(name)),
        Location::Gcs { .. } => name.starts_with("GOOGLE_") && GoogleConfigKey::from_str(&lower).is_ok(),
        Location::Azure { .. } => name.starts_with("AZURE_") && (AzureConfigKey::from_str(&lower).is_ok() || OF_RESTIC.contains(&name)),
    };
    known || name == "AWS_CA_BUNDLE"
}

fn names_a_profile(name: &str) -> bool {
    matches!(name, "AWS_PROFILE" | "AWS_SHARED_CREDENTIALS_FILE" | "AWS_CONFIG_FILE")
}

/// What a header can hold; documents and paths may hold more.
fn is_sendable(name: &str, c: char) -> bool {
    if FREE.contains(&name) || name.ends_with("_FILE") && !c.is_control() || names_a_profile(name) {
        return c != '\u{fffd}';
    }
    matches!(c, ' '..='~')
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::store::Store;

    const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "geheim")];

    fn open(location: &str, variables: &[(&str, &str)]) -> Result<Store, StoreError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Store::open(&location.parse().unwrap(), &variables)
    }

    fn refused(location: &str, variables: &[(&str, &str)]) -> String {
        let error = open(location, variables).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Settings, "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        error.source().unwrap().to_string()
    }

    #[test]
    fn white_space_at_the_ends_of_a_variable_is_not_used() {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"] {
            let value = if name == "AWS_ENDPOINT_URL" { " https://minio.example.com\r\n" } else { "\tgeheim\r\n" };
            let set: HashMap<String, String> = KEY.iter().chain(&[(name, value)]).map(|(n, v)| ((*n).into(), (*v).into())).collect();
            let location = "s3://bucket".parse().unwrap();
            assert_eq!(Variables::new(&set, &location).ok().unwrap().get(name), Some(value.trim()));
            assert!(open("s3://bucket", &[KEY[0], KEY[1], (name, value)]).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_value_that_no_header_can_hold_is_refused_by_its_name() {
        for (location, names) in [
            ("s3://bucket", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"][..]),
            ("gs://bucket", &["GOOGLE_BEARER_TOKEN", "GOOGLE_BASE_URL"]),
            ("az://container", &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_ACCOUNT_SAS", "AZURE_STORAGE_ENDPOINT"]),
        ] {
            for name in names {
                for value in ["geheim\nnis", "geheim\0", "geheim\u{7f}x", "geheimniß", "geheim\u{fffd}"] {
                    let cause = refused(location, &[(name, value)]);
                    assert!(cause.starts_with(&format!("{name} holds ")), "{cause}");
                }
            }
        }
    }

    #[test]
    fn a_variable_that_the_store_does_not_read_may_hold_anything() {
        for other in ["AWS_PAGER", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"] {
            assert!(open("s3://bucket", &[KEY[0], KEY[1], (other, "a\nb")]).is_ok(), "{other}");
        }
    }

    #[test]
    fn a_bucket_or_region_that_breaks_the_url_is_refused() {
        refused("s3://büro", &[KEY[0], KEY[1]]);
        // White space is refused where the address is read.
        for location in ["s3://my bucket/a", "az://my container", "s3:http://127.0.0.1:9/a b/c"] {
            let error = location.parse::<Location>().unwrap_err();
            assert!(error.to_string().contains("white space") && error.hint().is_some(), "{location}: {error}");
        }
        assert!(refused("s3://bucket", &[KEY[0], KEY[1], ("AWS_REGION", "us east")]).contains("AWS_REGION"));
        assert!(refused("az://container", &[("AZURE_STORAGE_ACCOUNT_NAME", "x/y")]).contains("AZURE_STORAGE_ACCOUNT_NAME"));
    }

    #[test]
    fn an_endpoint_is_a_servers_address_alone() {
        for (value, what) in [
            ("127.0.0.1:9000", "has no https://"),
            ("localhost:9000", "has no https://"),
            ("https://", "is no URL"),
            ("https://geheim:geheim@minio.example.com", "user name"),
            ("https://minio.example.com/bucket", "ends in bucket"),
            ("https://minio.example.com/bucket/", "ends in bucket"),
            ("https://minio.example.com/?x=y", "more than an address"),
        ] {
            let cause = refused("s3://bucket/a", &[KEY[0], KEY[1], ("AWS_ENDPOINT_URL", value)]);
            assert!(cause.starts_with("AWS_ENDPOINT_URL ") && cause.contains(what), "{value}: {cause}");
        }
        assert!(open("s3://bucket/a", &[KEY[0], KEY[1], ("AWS_ENDPOINT_URL", "https://host/storage/v1/s3")]).is_ok());
    }

    #[test]
    fn a_token_file_that_breaks_a_header_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "geheim\n").unwrap();
        let path = file.path().to_str().unwrap();
        let name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
        let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"), (name, path)];
        assert!(refused("s3://bucket", &variables).contains(name));
        std::fs::write(file.path(), "geheim").unwrap();
        assert!(open("s3://bucket", &variables).is_ok());
    }
}
