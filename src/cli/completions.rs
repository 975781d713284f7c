//! `keepset completions`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::Args;
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;

/// Print a shell's completion script
///
/// Examples:
///   keepset completions bash > /etc/bash_completion.d/keepset
///   keepset completions fish > ~/.config/fish/completions/keepset.fish
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Completions {
    /// The shell to print for
    shell: Shell,
}

/// Prints the script on standard output.
pub fn run(args: &Completions, output: Output) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "keepset", &mut script);
    output.bytes(&script)?;
    Ok(ExitCode::Done)
}
