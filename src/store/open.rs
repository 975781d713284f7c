//! How a location and the user's variables become a store.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore};
use url::Url;

use crate::store::answers::{Connector, Strays};
use crate::store::error::{ErrorKind, StoreError};
use crate::store::location::Location;
use crate::store::patience::{Patience, retry_config};
use crate::store::quirks::Quirks;
use crate::store::variables::Variables;

/// What opening yields.
pub(super) struct Opened {
    /// The library's store.
    pub(super) inner: Arc<dyn ObjectStore>,
    /// Below it is the repository.
    pub(super) root: Path,
    /// How long calls wait.
    pub(super) patience: Patience,
    pub(super) quirks: Quirks,
}

/// Creates the folder of a repository on disk, readable by its owner only. Buckets are made by their owners.
pub(super) fn create_root(location: &Location) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(folder) = location.folder() else { return Ok(()) };
    // Names of objects tell when and how much is backed up: nobody else's business.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| StoreError::io("create", &location.to_string(), "", e))
}

pub(super) fn folder(location: &Location, folder: &FilePath) -> Result<Opened, StoreError> {
    let shown = location.to_string();
    let no_folder = |kind, cause: &str| StoreError::own(kind, "open", &shown, "", cause);
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(no_folder(ErrorKind::NoSuchFolder, "it is not a folder")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(no_folder(ErrorKind::NoSuchFolder, "no such folder")),
        Err(e) => return Err(StoreError::io("open", &shown, "", e)),
    }
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| StoreError::new("open", &shown, "", &e))?;
    // Written beside, synced, linked into place only where nothing is, the folder synced: durable and never half there.
    Ok(Opened { inner: Arc::new(store.with_fsync(true)), root: Path::default(), patience: Patience::local(), quirks: Quirks::default() })
}

/// Deadlines are ours and grow with the bytes of a call: the client's own, which do not, are off. Certificates are trusted that the system
/// trusts, and those of the bundle that AWS's own tools read.
fn client_options(variables: &Variables<'_>, allow_http: bool) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_user_agent(object_store::HeaderValue::from_static(concat!("keepset/", env!("CARGO_PKG_VERSION"))))
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(allow_http);
    if let Some(path) = variables.get("AWS_CA_BUNDLE") {
        let bad = |cause: String| variables.refuse(format!("the certificates of AWS_CA_BUNDLE ({path}) cannot be used: {cause}"));
        let bundle = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&bundle).map_err(|e| bad(e.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("it holds none".to_owned()));
        }
        options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    Ok(options)
}

pub(super) fn s3(
    variables: &Variables<'_>,
    endpoint: Option<&Url>,
    bucket: &str,
    prefix: &str,
    strays: &Strays,
) -> Result<Opened, StoreError> {
    let has_key = variables.any(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SKIP_SIGNATURE"]);
    let has_role =
        variables.any(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]);
    if !has_key && !has_role {
        // Going on would quietly use another identity than the one that was asked for.
        for name in ["AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
            if variables.get(name).is_some() {
                return Err(variables.refuse(format!("{name} is set, but profiles are not read")).with_hint(
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure export-credentials --format env` prints them)",
                ));
            }
        }
    }
    variables.fit_for_a_url("bucket name", bucket)?;
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        variables.get(name).map_or(Ok(()), |region| variables.fit_for_a_url(name, region))?;
    }
    variables.check_token_file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?;
    let endpoint = match endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => variables.endpoint(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"], bucket)?,
    };
    let transport = transport(variables, endpoint.as_ref(), "AWS_ALLOW_HTTP")?;
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(Connector { strays: strays.clone() })
        .with_client_options(client_options(variables, transport.plain_http)?)
        .with_retry(retry_config())
        // A signature over the body costs a SHA-256 of every byte on both ends. TLS and loopback keep bytes whole by themselves.
        .with_unsigned_payload(transport.keeps_bytes_whole);
    for (key, value) in variables.known::<AmazonS3ConfigKey>("AWS_") {
        if !matches!(key, AmazonS3ConfigKey::Bucket | AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    let builder = builder.with_bucket_name(bucket);
    let store = builder.clone().build().map_err(|e| variables.failed(&e))?;
    Ok(Opened { inner: Arc::new(store), root: variables.root(prefix)?, patience: Patience::remote(), quirks: Quirks::of_s3(builder) })
}

pub(super) fn gcs(variables: &Variables<'_>, bucket: &str, prefix: &str, strays: &Strays) -> Result<Opened, StoreError> {
    let endpoint = variables.endpoint(&["GOOGLE_BASE_URL"], bucket)?;
    let transport = transport(variables, endpoint.as_ref(), "GOOGLE_ALLOW_HTTP")?;
    let mut builder =
        GoogleCloudStorageBuilder::new().with_client_options(client_options(variables, transport.plain_http)?).with_retry(retry_config());
    builder = builder.with_http_connector(Connector { strays: strays.clone() });
    for (key, value) in variables.known::<GoogleConfigKey>("GOOGLE_") {
        if !matches!(key, GoogleConfigKey::Bucket | GoogleConfigKey::BaseUrl) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    let store = builder.with_bucket_name(bucket).build().map_err(|e| variables.failed(&e))?;
    Ok(Opened { inner: Arc::new(store), root: variables.root(prefix)?, patience: Patience::remote(), quirks: Quirks::default() })
}

pub(super) fn azure(variables: &Variables<'_>, container: &str, prefix: &str, strays: &Strays) -> Result<Opened, StoreError> {
    variables.fit_for_a_url("container name", container)?;
    for name in ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_ACCOUNT_NAME"] {
        variables.get(name).map_or(Ok(()), |account| variables.fit_for_a_url(name, account))?;
    }
    let endpoint = variables.endpoint(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"], container)?;
    let transport = transport(variables, endpoint.as_ref(), "AZURE_ALLOW_HTTP")?;
    let mut builder =
        MicrosoftAzureBuilder::new().with_client_options(client_options(variables, transport.plain_http)?).with_retry(retry_config());
    builder = builder.with_http_connector(Connector { strays: strays.clone() });
    // restic's names for the same things.
    for (name, key) in [
        ("AZURE_ACCOUNT_NAME", AzureConfigKey::AccountName),
        ("AZURE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
        ("AZURE_ACCOUNT_SAS", AzureConfigKey::SasKey),
    ] {
        if let Some(value) = variables.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (key, value) in variables.known::<AzureConfigKey>("AZURE_") {
        if !matches!(key, AzureConfigKey::ContainerName) {
            builder = builder.with_config(key, value);
        }
    }
    let store = builder.with_container_name(container).build().map_err(|e| variables.failed(&e))?;
    Ok(Opened { inner: Arc::new(store), root: variables.root(prefix)?, patience: Patience::remote(), quirks: Quirks::default() })
}

struct Transport {
    plain_http: bool,
    keeps_bytes_whole: bool,
}

/// Plain HTTP goes to this machine only, unless the user says otherwise.
fn transport(variables: &Variables<'_>, endpoint: Option<&Url>, allowing: &str) -> Result<Transport, StoreError> {
    let Some(endpoint) = endpoint.filter(|url| url.scheme() != "https") else {
        return Ok(Transport { plain_http: false, keeps_bytes_whole: true });
    };
    if endpoint.scheme() != "http" {
        return Err(variables.refuse(format!("endpoint scheme `{}` is neither http nor https", endpoint.scheme())));
    }
    let loopback = match endpoint.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let allowed =
        variables.get(allowing).is_some_and(|value| ["1", "true", "yes", "on", "y"].contains(&value.to_ascii_lowercase().as_str()));
    if !loopback && !allowed {
        let host = endpoint.host_str().unwrap_or_default();
        return Err(variables
            .refuse(format!("the endpoint at {host} is plain http"))
            .with_hint(format!("use https, or set {allowing}=true where the network between is trusted")));
    }
    Ok(Transport { plain_http: true, keeps_bytes_whole: loopback })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::error::Error as _;

    use super::*;
    use crate::store::Store;

    fn open(location: &str, variables: &[(&str, &str)]) -> Result<Store, StoreError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Store::open(&location.parse().unwrap(), &variables)
    }

    const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "geheim")];

    #[test]
    fn a_missing_folder_is_told_with_its_path() {
        let error = open("/nowhere/at/all", &[]).unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::NoSuchFolder, "cannot open /nowhere/at/all"));
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_file_is_no_repository() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(open(file.path().to_str().unwrap(), &[]).unwrap_err().kind, ErrorKind::NoSuchFolder);
    }

    #[test]
    fn a_profile_without_a_key_is_refused() {
        for name in ["AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            let error = open("s3://bucket", &[(name, "prod")]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Settings);
            assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
            assert!(open("s3://bucket", &[(name, "prod"), KEY[0], KEY[1]]).is_ok());
        }
    }

    #[test]
    fn plain_http_goes_to_this_machine_only() {
        for (endpoint, good) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000", true),
            ("http://[::1]:9000", true),
            ("https://minio.example.com", true),
            ("http://minio.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("ftp://minio.example.com", false),
        ] {
            assert_eq!(open("s3://bucket/a", &[KEY[0], KEY[1], ("AWS_ENDPOINT_URL", endpoint)]).is_ok(), good, "{endpoint}");
        }
        let error = open("s3:http://minio.example.com/bucket", &KEY).unwrap_err();
        assert!(error.hint().unwrap().contains("AWS_ALLOW_HTTP=true"));
        assert!(open("s3:http://minio.example.com/bucket", &[KEY[0], KEY[1], ("AWS_ALLOW_HTTP", "true")]).is_ok());
    }

    #[test]
    fn half_a_key_is_refused() {
        let error = open("s3://bucket", &KEY[1..]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Settings);
        assert!(!format!("{error:?}").contains("geheim"));
    }

    #[test]
    fn azure_and_google_open_by_their_own_variables_and_restics() {
        let key = "bm90IGEga2V5";
        assert!(open("az://container/a", &[("AZURE_STORAGE_ACCOUNT_NAME", "x"), ("AZURE_STORAGE_ACCOUNT_KEY", key)]).is_ok());
        assert!(open("azure:container:/a", &[("AZURE_ACCOUNT_NAME", "x"), ("AZURE_ACCOUNT_KEY", key)]).is_ok());
        assert!(open("az://container/a", &[]).is_err());
        assert!(open("gs://bucket/a", &[]).is_ok());
    }

    #[test]
    fn a_missing_key_file_or_account_is_told_by_name() {
        let error = open("gs://bucket", &[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such.json")]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Settings);
        assert!(error.source().unwrap().to_string().contains("/no/such.json"), "{error:?}");
        assert!(open("az://container", &[]).unwrap_err().hint().unwrap().contains("AZURE_STORAGE_ACCOUNT_NAME"));
    }

    #[test]
    fn a_bundle_of_certificates_is_read_or_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = file.path().to_str().unwrap();
        for path in ["/no/such.pem", empty] {
            let error = open("s3://bucket", &[KEY[0], KEY[1], ("AWS_CA_BUNDLE", path)]).unwrap_err();
            assert!(error.source().unwrap().to_string().contains(path), "{error:?}");
        }
    }

    #[test]
    fn a_prefix_that_climbs_is_refused() {
        assert_eq!(open("s3://bucket/a/../b", &KEY).unwrap_err().kind, ErrorKind::Settings);
    }

    #[test]
    fn a_new_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        Store::create(&Location::Folder(folder.clone()), &HashMap::new()).unwrap();
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
