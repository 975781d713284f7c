//! `keepset man`: the manual pages, made from the same words as the help.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::args::Args;
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;

/// Print the manual page, or write one for each verb
///
/// Examples:
///   keepset man | man -l -
///   keepset man --dir /usr/local/share/man/man1
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ManArgs {
    /// Write keepset.1 and one page for each verb to this folder; it is made where it is absent
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the page on standard output, or writes all of them.
pub fn run(args: &ManArgs, output: Output) -> anyhow::Result<ExitCode> {
    match &args.dir {
        Some(dir) => {
            let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir));
            written.map_err(|error| {
                CliError::failed(format!("cannot write manual pages to {}: {error}", dir.display()), "give a folder that can be written to")
            })?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Args::command()).render(&mut page)?;
            output.bytes(&page)?;
        }
    }
    Ok(ExitCode::Done)
}
