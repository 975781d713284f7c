//! `keepset password`: which passwords open the repository.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::secret::{self, Source};
use crate::cli::table::Table;
use crate::cli::wire::Wire;
use crate::model::id::Id;
use crate::repository::passwords;

/// Add, list and remove the repository's passwords
///
/// Examples:
///   keepset password list
///   keepset password add --new-password-file /etc/keepset/new
///   keepset --password-file /etc/keepset/new password remove 1a2b3c4d
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PasswordArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Make one more password open the repository
    Add(Add),
    /// List the keys, one for each password
    List,
    /// Remove a key: its password no longer opens the repository. The one in use stays
    Remove(Remove),
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Add {
    /// A file whose first line is the new password
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,

    /// Write a new random password to FILE, which must not exist, and add it
    #[arg(long, value_name = "FILE")]
    generate_password: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
struct Remove {
    /// The first digits of the key's id, as `keepset password list` shows it
    key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    key: Id,
}

/// Does one of the three.
pub async fn run(args: &PasswordArgs, wire: &Wire) -> anyhow::Result<ExitCode> {
    let repository = wire.repository().await?;
    let output = &wire.output;
    let (key, done) = match &args.what {
        What::List => {
            let keys = passwords::list(&repository, &wire.password()?).await?;
            if output.is_json() {
                output.json(&serde_json::json!({ "keys": keys }))?;
                return Ok(ExitCode::Done);
            }
            let mut table = Table::new(&["key", "made", "by", "on", "note"]);
            for key in keys {
                let note = match (&key.damaged, key.in_use) {
                    (Some(reason), _) => format!("damaged: {reason}"),
                    (None, true) => "in use".to_owned(),
                    (None, false) => String::new(),
                };
                let made = crate::clock::shown_text(&key.created);
                table.row([key.id.short(), made, key.username, key.hostname, note]);
            }
            output.table(&table)?;
            return Ok(ExitCode::Done);
        }
        What::Add(add) => {
            let new = match (&add.new_password_file, &add.generate_password) {
                (Some(file), _) => Source::File(file.clone()).read()?,
                (None, Some(file)) => secret::generate(file)?,
                (None, None) => return Err(CliError::usage("no new password is given", "give --new-password-file FILE").into()),
            };
            let identity = wire.identity();
            (passwords::add(&repository, &new, &identity.username, &identity.hostname, &wire.clock).await?, "added")
        }
        What::Remove(remove) => (passwords::remove(&repository, &remove.key, &wire.password()?).await?, "removed"),
    };
    if output.is_json() {
        output.json(&Changed { key })?;
    } else {
        output.line(&format!("{done} key {}", key.short()))?;
    }
    Ok(ExitCode::Done)
}
