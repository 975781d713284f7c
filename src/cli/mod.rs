//! The command line: arguments in, exit code out. One file per verb; what they share is wiring and output.

mod args;
mod backup;
mod check;
mod completions;
mod demo;
mod diff;
mod dump;
mod entries;
mod error;
mod exit;
mod forget;
mod init;
mod list;
mod losses;
mod ls;
mod mover;
mod output;
mod password;
mod progress;
mod prune;
mod repair;
mod restore;
pub mod safety;
mod secret;
mod show;
mod status;
mod stop;
mod table;
mod unlock;
mod view;
mod wire;
mod words;

pub use exit::ExitCode;

use std::ffi::OsString;

use clap::Parser;

use crate::cli::args::{Args, Verb};
use crate::cli::output::Output;
use crate::cli::stop::unless_stopped;
use crate::cli::wire::Wire;
use crate::telemetry;

/// Runs one command line from its arguments (the program's name first) to its exit code, and prints what there is to say.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come as errors too, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
        }
    };
    let output = Output::new(args.global.json, args.global.quiet, colours());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.failure(&anyhow::Error::new(error).context("cannot start worker threads")),
    };
    let code = match runtime.block_on(run(args, output)) {
        Ok(code) => code,
        Err(error) => output.failure(&error),
    };
    // Reads that were given up must not hold the process.
    runtime.shutdown_background();
    code
}

async fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let filter = std::env::var("KEEPSET_LOG").or_else(|_| std::env::var("RUST_LOG")).ok();
    telemetry::start(&telemetry::Settings { filter, verbosity: args.global.verbose, plain: !colours() })?;
    let stop = stop::listen(output)?;
    // Asked for by the arms that need it: a mover gets all it needs from its parent, and a shell wants its completions whatever the settings.
    let wire = || Wire::new(args.global, output);
    match args.verb {
        Verb::Demo(args) => demo::run(&args, &wire()?, stop).await,
        Verb::Init(args) => unless_stopped(stop, init::run(&args, &wire()?)).await,
        Verb::Backup(args) => backup::run(&args, &wire()?, stop).await,
        Verb::Status(args) => unless_stopped(stop, status::run(&args, &wire()?)).await,
        Verb::List(args) => unless_stopped(stop, list::run(&args, &wire()?)).await,
        Verb::Show(args) => unless_stopped(stop, show::run(&args, &wire()?)).await,
        Verb::Ls(args) => unless_stopped(stop, ls::run(&args, &wire()?)).await,
        Verb::Diff(args) => unless_stopped(stop, diff::run(&args, &wire()?)).await,
        Verb::Dump(args) => unless_stopped(stop, dump::run(&args, &wire()?)).await,
        Verb::Restore(args) => restore::run(&args, &wire()?, stop).await,
        Verb::Check(args) => check::run(&args, &wire()?, stop).await,
        Verb::Forget(args) => forget::run(&args, &wire()?, stop).await,
        Verb::Prune(args) => prune::run(&args, &wire()?, stop).await,
        Verb::Repair(args) => repair::run(&args, &wire()?, stop).await,
        Verb::Password(args) => unless_stopped(stop, password::run(&args, &wire()?)).await,
        Verb::Unlock(args) => unless_stopped(stop, unlock::run(&args, &wire()?)).await,
        Verb::Completions(args) => completions::run(&args, output),
        Verb::Mover(_) => mover::run(output, stop).await,
    }
}

/// Whether the environment allows colours: <https://no-color.org>, and terminals that know none.
fn colours() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
