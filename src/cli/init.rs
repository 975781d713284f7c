//! `keepset init`: makes a repository, after it has seen that the store keeps what a repository needs of it.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::exit::ExitCode;
use crate::cli::output::Tone;
use crate::cli::secret;
use crate::cli::wire::Wire;
use crate::repository::Repository;
use crate::repository::config;
use crate::repository::error::RepositoryError;
use crate::store::{Location, Probe};

/// Make a repository
///
/// Examples:
///   keepset --repo /srv/backups init --generate-password /etc/keepset/password
///   KEEPSET_PASSWORD_FILE=/etc/keepset/password keepset --repo s3://backups/keepset init
///
/// Tries first whether the store refuses to overwrite, lists and deletes, and how far its clock is
/// off. A repository that restic or rustic made needs no init: it opens as it is.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Init {
    /// Write a new random password to FILE, which must not exist, and use it
    #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
    generate_password: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    repository: &'a str,
    id: &'a str,
    password_file: Option<String>,
    store: Found,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    create_only: bool,
    list: bool,
    delete: bool,
    clock_skew_seconds: Option<i64>,
}

/// Makes the repository and says what the store is like.
pub async fn run(args: &Init, wire: &Wire) -> anyhow::Result<ExitCode> {
    let location = wire.location()?.to_owned();
    // Everything that can be known to be wrong is found before anything is made.
    let source = if args.generate_password.is_none() { Some(wire.password()?) } else { None };
    let store = wire.new_store()?;
    if args.generate_password.is_some() {
        Repository::ensure_free(&store).await?;
    } else if store.size(config::KEY).await?.is_some() {
        return Err(RepositoryError::AlreadyThere { location }.into());
    }
    let probe = store.probe(&wire.clock).await?;
    warn(wire, &probe);
    let password = match (source, &args.generate_password) {
        (Some(password), _) => password,
        (None, Some(file)) => secret::generate(file)?,
        (None, None) => wire.password()?,
    };
    let made = Repository::init(store, &password, wire.origin()).await?;
    let output = &wire.output;
    if output.is_json() {
        let store = Found {
            create_only: probe.create_only,
            list: probe.list,
            delete: probe.delete,
            clock_skew_seconds: probe.skew.map(|skew| skew.num_seconds()),
        };
        let password_file = args.generate_password.as_ref().map(|file| file.display().to_string());
        output.json(&Made { repository: &location, id: &made.config().id, password_file, store })?;
        return Ok(ExitCode::Done);
    }
    let place = match location.parse::<Location>()? {
        // An address that was meant for a bucket must not pass for one.
        Location::Folder(folder) => {
            let folder = std::fs::canonicalize(&folder).unwrap_or(folder);
            format!("in folder {} on this machine", folder.display())
        }
        address => format!("at {address}"),
    };
    output.line(&format!("{} repository {} {place}", output.tone(Tone::Good, "made"), &made.config().id[..8]))?;
    if let Some(file) = &args.generate_password {
        output.line(&format!("its password is in {}: without it nobody can read a backup, so keep a copy elsewhere", file.display()))?;
    }
    Ok(ExitCode::Done)
}

/// What the store lacks, said once and early.
fn warn(wire: &Wire, probe: &Probe) {
    let output = &wire.output;
    if !probe.create_only {
        output.warn("this store lets a second writer overwrite an object: never run `init` twice at the same time (docs/stores.md)");
    }
    if !probe.list {
        output.warn("this key may not list objects: backups work, everything else needs that right");
    }
    if !probe.delete {
        output.warn("this key may not delete objects: locks stay until they are stale, and `forget` will not work");
    }
    if let Some(skew) = probe.skew.filter(|skew| skew.num_seconds().abs() > 60) {
        output.warn(&format!("the store's clock and this machine's are {} seconds apart", skew.num_seconds().abs()));
    }
}
