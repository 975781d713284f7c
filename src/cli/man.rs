//! `keepset man`: the manual pages, made from the same words as the help.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::args::Args;
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
    /// Write keepset.1 and one page for each verb to this folder, which must be there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the page on standard output, or writes all of them.
pub fn run(args: &ManArgs, output: Output) -> anyhow::Result<ExitCode> {
    match &args.dir {
        Some(dir) => {
            clap_mangen::generate_to(Args::command(), dir).with_context(|| format!("cannot write manual pages to {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Args::command()).render(&mut page)?;
            output.bytes(&page)?;
        }
    }
    Ok(ExitCode::Done)
}
