//! The command line: arguments in, exit code out. One file per verb; what they share is wiring and output.

mod agent;
mod args;
mod backup;
mod check;
mod cluster;
mod completions;
mod demo;
mod diff;
mod doctor;
mod drill;
mod dump;
mod entries;
mod error;
mod exit;
mod forget;
mod init;
mod list;
mod losses;
mod ls;
mod man;
mod mover;
mod output;
mod password;
mod point_args;
mod progress;
mod prune;
mod reach;
mod repair;
mod restore;
pub mod safety;
mod secret;
mod sets;
mod show;
mod status;
mod stop;
mod submit;
mod table;
mod told;
mod unlock;
mod view;
mod wire;
mod words;

pub use exit::ExitCode;

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};

use crate::cli::args::{Args, Verb};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::stop::unless_stopped;
use crate::cli::wire::Wire;
use crate::model::pod_words::ATTACHED;
use crate::telemetry;

/// Runs one command line from its arguments (the program's name first) to its exit code, and prints what there is to say.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match parse(arguments.into_iter().collect()) {
        Ok(args) => args,
        Err(error) => {
            if error.use_stderr() {
                // There is nowhere left to report that standard error is gone.
                let _ = error.print();
                return ExitCode::Usage;
            }
            // Help and version come as errors too, and go to standard output.
            let output = Output::new(false, false, colours());
            let printed = error.print().map_err(|source| CliError::Output { what: "standard output", source });
            return match printed.and_then(|()| output.flush()) {
                Ok(()) => ExitCode::Done,
                Err(error) => output.failure(&error.into()),
            };
        }
    };
    let output = Output::new(args.global.json, args.global.quiet, colours()).marked(std::env::var_os(ATTACHED).is_some());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.failure(&anyhow::Error::new(error).context("cannot start worker threads")),
    };
    // Standard output holds back what follows the last line's end: only a flush shows whether all of the answer was written.
    let code = match runtime.block_on(run(args, output)).and_then(|code| output.flush().map(|()| code).map_err(Into::into)) {
        Ok(code) => code,
        Err(error) => output.failure(&error),
    };
    // Reads that were given up must not hold the process.
    runtime.shutdown_background();
    code
}

fn parse(arguments: Vec<OsString>) -> Result<Args, clap::Error> {
    let mut command = Args::command();
    if arguments.first().is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == "kubectl-keepset")) {
        // A plugin of kubectl is found by its file's name, and called by other words.
        command = command.bin_name("kubectl keepset");
    }
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut args = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    args.global.said = submit::said(&command, &matches);
    Ok(args)
}

async fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let filter = std::env::var("KEEPSET_LOG").or_else(|_| std::env::var("RUST_LOG")).ok();
    // Of what an agent does nothing but its log tells.
    let verbosity = args.global.verbose.max(u8::from(matches!(args.verb, Verb::Agent(_))));
    telemetry::start(&telemetry::Settings { filter, verbosity, plain: !colours() })?;
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
        Verb::Doctor(args) => unless_stopped(stop, doctor::run(&args, &wire()?)).await,
        Verb::Drill(args) => drill::run(&args, &wire()?, stop).await,
        Verb::Check(args) => check::run(&args, &wire()?, stop).await,
        Verb::Forget(args) => forget::run(&args, &wire()?, stop).await,
        Verb::Prune(args) => prune::run(&args, &wire()?, stop).await,
        Verb::Agent(args) => agent::run(&args, wire()?, stop).await,
        Verb::Repair(args) => repair::run(&args, &wire()?, stop).await,
        Verb::Password(args) => unless_stopped(stop, password::run(&args, &wire()?)).await,
        Verb::Unlock(args) => unless_stopped(stop, unlock::run(&args, &wire()?)).await,
        Verb::Completions(args) => completions::run(&args, output),
        Verb::Man(args) => man::run(&args, output),
        Verb::Reach(_) => unless_stopped(stop, reach::run(output)).await,
        Verb::Mover(_) if mover::is_pod() => mover::run_in_pod(&wire()?, stop).await,
        Verb::Mover(_) => mover::run(output, stop).await,
    }
}

/// Whether the environment allows colours: <https://no-color.org>, and terminals that know none.
fn colours() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_of_kubectl_is_called_by_kubectls_words() {
        let usage = |program: &str| parse([program, "restore"].map(OsString::from).into()).unwrap_err().to_string();
        let of_plugin = usage("/usr/local/bin/kubectl-keepset");
        assert!(of_plugin.contains("Usage: kubectl keepset restore"), "{of_plugin}");
        let of_program = usage("/usr/local/bin/keepset");
        assert!(of_program.contains("Usage: keepset restore"), "{of_program}");
    }

    #[test]
    fn the_image_runs_the_program_as_the_test_beds_image_does() {
        let image = include_str!("../../deploy/Containerfile");
        let of_bed = include_str!("../../tests/testbed/cluster/load-image.sh");
        assert!(image.contains("\nUSER 65532:65532\n") && of_bed.contains(" --user 65532:65532"));
        assert!(image.contains("\nENTRYPOINT [\"/usr/local/bin/keepset\"]\n"), "{image}");
        assert!(of_bed.contains(" --entrypoint \"/usr/local/bin/$binary\""), "{of_bed}");
        // Every base has a tag, and Rust is the one that the package asks for.
        let bases: Vec<&str> = image.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
        assert!(bases.len() == 2 && bases.iter().all(|base| base.contains(':') && !base.contains(":latest")), "{bases:?}");
        assert!(bases[0].contains(concat!(":", env!("CARGO_PKG_RUST_VERSION"), "-")), "{bases:?}");
    }
}
