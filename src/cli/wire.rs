//! From flags, environment and settings to the components that a verb works with. The environment is read here and in `secret`, nowhere else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::SecondsFormat;

use crate::cli::args::Global;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::secret::{Source, Sources};
use crate::clock::Clock;
use crate::config::{self, SetSettings, Settings, Size, Span, Start};
use crate::model::pod_words::{AUTHORITY, SECRET_FOLDER};
use crate::model::set::{SetName, is_dns_name};
use crate::platform::folders::{FoldersOptions, StartCommand};
use crate::platform::{Platform, is_secret};
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::key::{KeyOrigin, Password};
use crate::repository::lock::{LockIdentity, LockOptions};
use crate::repository::reader::Reader;
use crate::store::{Location, Store};

/// Read where no settings file is named.
pub const DEFAULT_CONFIG: &str = "/etc/keepset/keepset.yaml";
/// What a worker may take where nobody says otherwise.
const DEFAULT_MEMORY: u64 = 64 << 20;
const LEAST_MEMORY: u64 = 32 << 20;
/// Between two questions whether an ordinal is ready.
const READY_INTERVAL: Duration = Duration::from_millis(500);

/// Everything a verb is wired from.
#[derive(Clone, Debug)]
pub struct Wire {
    pub output: Output,
    pub settings: Settings,
    pub clock: Clock,
    global: Global,
}

impl Wire {
    /// Loads the settings and lays flags and environment over them.
    pub fn new(global: Global, output: Output) -> anyhow::Result<Self> {
        let mut settings = config_file(&global).map(config::load).transpose()?.unwrap_or_default();
        if let Some(url) = global.repo.as_ref().filter(|url| !url.is_empty()) {
            settings.repository.url = Some(url.clone());
        }
        if let Some(cluster) = &global.cluster {
            settings.cluster = Some(cluster.clone());
        }
        if let Some(memory) = global.memory {
            settings.defaults.memory = Some(memory);
        }
        config::validate(&settings)?;
        Ok(Wire { output, settings, clock: Clock::system(), global })
    }

    /// The settings file word for word; `None` where there is none.
    pub fn settings_text(&self) -> anyhow::Result<Option<String>> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read the settings {}", path.display()));
        config_file(&self.global).map(read).transpose()
    }

    /// The same command line with the settings as they are now.
    pub fn again(&self) -> anyhow::Result<Self> {
        Wire::new(self.global.clone(), self.output)
    }

    /// The flags that another call of this program needs to be wired as this one, settings aside.
    pub fn passed_on(&self) -> Vec<String> {
        self.global.password_file.iter().flat_map(|file| ["--password-file".to_owned(), file.to_string_lossy().into_owned()]).collect()
    }

    /// The verb's flags as they were given.
    pub fn said(&self) -> &[String] {
        &self.global.said
    }

    /// Whether this process is a pod's.
    pub fn is_in_cluster() -> bool {
        std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// The names of those variables of this process that a mover would need too.
    pub fn variables_for_movers() -> Vec<String> {
        let mut names: Vec<String> = store_variables().into_keys().collect();
        names.extend(std::env::var_os("KEEPSET_PASSWORD").map(|_| "KEEPSET_PASSWORD".to_owned()));
        names.sort();
        names
    }

    /// The repository's location as the user wrote it.
    pub fn location(&self) -> Result<&str, CliError> {
        self.settings.repository.url.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            CliError::usage("no repository is given", "give --repo LOCATION, set KEEPSET_REPOSITORY, or repository.url in the settings")
        })
    }

    /// Where the password is read.
    pub fn password_source(&self) -> Result<Source, CliError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let sources = Sources {
            flag_file: self.global.password_file.clone(),
            env_file: set("KEEPSET_PASSWORD_FILE").map(PathBuf::from),
            env_command: set("KEEPSET_PASSWORD_COMMAND").map(|text| text.to_string_lossy().into_owned()),
            env_value: set("KEEPSET_PASSWORD").is_some(),
        };
        sources.choose(&self.settings.repository)
    }

    /// The password itself.
    pub fn password(&self) -> anyhow::Result<Password> {
        Ok(self.password_source()?.read()?)
    }

    /// The store that holds the repository. Nothing is asked of it yet.
    pub fn store(&self) -> anyhow::Result<Store> {
        open_store(self.location()?)
    }

    /// The store of a repository that is about to be made: a folder on disk is created.
    pub fn new_store(&self) -> anyhow::Result<Store> {
        Ok(Store::create(&self.location()?.parse()?, &store_variables())?)
    }

    /// The repository, opened with the user's password.
    pub async fn repository(&self) -> anyhow::Result<Repository> {
        // The location comes first: whoever gave none should not be asked for a password.
        let store = self.store()?;
        let password = self.password()?;
        Ok(Repository::open(store, &password).await?)
    }

    /// The repository with its index, ready to be read. Snapshots are to be listed before this is called again.
    pub async fn reader(&self) -> anyhow::Result<Reader> {
        let repository = self.repository().await?;
        let (index, damaged) = Index::load_readable(&repository).await?;
        for object in damaged {
            self.output.warn(&format!("index/{} is damaged, and what it names is taken for absent: {}", object.id, object.reason));
        }
        Ok(Reader::new(&repository, Arc::new(index)))
    }

    /// What the settings say of one set.
    pub fn set_settings(&self, set: &SetName) -> Option<&SetSettings> {
        self.settings.sets.iter().find(|settings| settings.set().as_ref() == Some(set))
    }

    /// Ordinals at a time: the flag, else the set's, else the defaults', else what does well where the set is.
    pub fn parallel(&self, flag: Option<u32>, set: &SetName, platform: &dyn Platform) -> usize {
        let of_set = self.set_settings(set).and_then(|settings| settings.parallel);
        flag.or(of_set).or(self.settings.defaults.parallel).map_or_else(|| platform.parallel(), |parallel| parallel as usize)
    }

    /// A folder platform that knows nothing of its set yet but the place; its movers are this very program.
    pub fn folders(&self, root: PathBuf) -> anyhow::Result<FoldersOptions> {
        let repository = match self.location().ok().and_then(|location| location.parse().ok()) {
            Some(Location::Folder(folder)) => Some(folder),
            _ => None,
        };
        Ok(FoldersOptions {
            root,
            repository,
            cluster: self.cluster()?,
            withheld: std::env::vars_os().map(|(name, _)| name).filter(|name| is_secret(name)).collect(),
            templates: Vec::new(),
            start: None,
            replicas: None,
            program: std::env::current_exe().context("cannot find this program's own file")?,
            program_args: vec!["mover".to_owned()],
            start_command: None,
        })
    }

    /// How ordinals are started, in the platform's words.
    pub fn start_command(start: &Start) -> StartCommand {
        StartCommand { command: start.command.clone(), ready: start.ready.clone(), deadline: start.deadline.0, interval: READY_INTERVAL }
    }

    /// Who makes keys and locks.
    pub fn identity(&self) -> LockIdentity {
        LockIdentity::this_process(None, username())
    }

    pub fn lock_options(&self, wait: Duration) -> LockOptions {
        LockOptions { identity: self.identity(), wait, clock: self.clock.clone() }
    }

    /// Who makes a key, and when.
    pub fn origin(&self) -> KeyOrigin {
        let identity = self.identity();
        let created = self.clock.local().to_rfc3339_opts(SecondsFormat::Nanos, false);
        KeyOrigin { created, username: identity.username, hostname: identity.hostname }
    }

    /// How long to wait for locks of others: the flag, else the settings, else ten minutes.
    pub fn wait_lock(&self, flag: Option<Span>) -> Duration {
        flag.or(self.settings.defaults.wait_lock).map_or(Duration::from_secs(600), |span| span.0)
    }

    /// The cluster's name: as given, else the machine's.
    pub fn cluster(&self) -> Result<String, CliError> {
        if let Some(cluster) = &self.settings.cluster {
            return Ok(cluster.clone());
        }
        let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        if is_dns_name(&name) {
            return Ok(name);
        }
        Err(CliError::usage(
            format!("the machine's name `{name}` cannot name a cluster"),
            "give --cluster NAME, or cluster in the settings",
        ))
    }

    /// Bytes that a worker may take: as given, else 64 MiB, or half of the cgroup's limit where that is less.
    pub fn memory(&self) -> u64 {
        if let Some(Size(bytes)) = self.settings.defaults.memory {
            return bytes;
        }
        let limit = cgroup_limit().unwrap_or(u64::MAX);
        (limit / 2).clamp(LEAST_MEMORY, DEFAULT_MEMORY)
    }
}

fn config_file(global: &Global) -> Option<&Path> {
    let usual = Path::new(DEFAULT_CONFIG);
    global.config.as_deref().or_else(|| usual.exists().then_some(usual))
}

/// The store at a location, with what the environment says of it. Nothing is asked of it yet.
pub fn open_store(location: &str) -> anyhow::Result<Store> {
    Ok(Store::open(&location.parse()?, &store_variables())?)
}

/// The variables from which stores take endpoints, regions and keys.
fn store_variables() -> HashMap<String, String> {
    let ours = |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| ours(name))
        // What is no UTF-8 stays visible, so that the store refuses it by its name instead of another key being used.
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    with_authority(variables, Path::new(SECRET_FOLDER))
}

/// In a pod of ours the certificates of an authority of the user's own are a key of the Secret: they are trusted unless a bundle is named.
fn with_authority(mut variables: HashMap<String, String>, secret: &Path) -> HashMap<String, String> {
    const BUNDLE: &str = "AWS_CA_BUNDLE";
    let of_secret = secret.join(AUTHORITY);
    if variables.get(BUNDLE).is_none_or(String::is_empty) && of_secret.is_file() {
        variables.insert(BUNDLE.to_owned(), of_secret.to_string_lossy().into_owned());
    }
    variables
}

/// The user's name for locks and keys, where people read it.
fn username() -> String {
    ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty())).unwrap_or_default()
}

/// The memory limit of this process's control group, version 2 or 1; `None` where there is none.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let files = [
        format!("/sys/fs/cgroup/{own}/memory.max"),
        "/sys/fs/cgroup/memory.max".into(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".into(),
    ];
    files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_in_the_secret_is_trusted_unless_a_bundle_is_named() {
        let secret = tempfile::tempdir().unwrap();
        let bundle = |said: &[(&str, &str)]| {
            let said = said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            with_authority(said, secret.path()).remove("AWS_CA_BUNDLE")
        };
        assert_eq!(bundle(&[]), None);
        let file = secret.path().join("ca.crt");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
        let of_secret = Some(file.to_string_lossy().into_owned());
        assert_eq!((bundle(&[]), bundle(&[("AWS_CA_BUNDLE", "")])), (of_secret.clone(), of_secret));
        assert_eq!(bundle(&[("AWS_CA_BUNDLE", "/etc/own.pem")]).as_deref(), Some("/etc/own.pem"));
    }
}
