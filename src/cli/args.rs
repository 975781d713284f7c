//! What can be said on the command line: the global flags and the list of verbs. Each verb's own flags stand in the verb's file.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

use crate::cli::agent::AgentArgs;
use crate::cli::backup::BackupArgs;
use crate::cli::check::CheckArgs;
use crate::cli::completions::Completions;
use crate::cli::demo::Demo;
use crate::cli::diff::Diff;
use crate::cli::doctor::DoctorArgs;
use crate::cli::drill::DrillArgs;
use crate::cli::dump::Dump;
use crate::cli::forget::Forget;
use crate::cli::init::Init;
use crate::cli::list::List;
use crate::cli::ls::Ls;
use crate::cli::man::ManArgs;
use crate::cli::mover::Mover;
use crate::cli::password::PasswordArgs;
use crate::cli::prune::PruneArgs;
use crate::cli::reach::Reach;
use crate::cli::repair::RepairArgs;
use crate::cli::restore::RestoreArgs;
use crate::cli::show::Show;
use crate::cli::status::Status;
use crate::cli::unlock::Unlock;
use crate::config::Size;

/// Backs up and restores the volumes of StatefulSets as one thing: every ordinal, every claim, one recovery point.
#[derive(Debug, Parser)]
#[command(
    name = "keepset",
    version,
    disable_help_subcommand = true,
    long_about = "Backs up and restores the volumes of StatefulSets as one thing: every ordinal, every claim, one recovery point.\n\n\
        Examples:\n  \
        keepset demo                                        see all of it happen, in seconds\n  \
        keepset --repo /srv/backups init                    make a repository\n  \
        keepset backup shop/web --from /srv/shop/web        one point of every ordinal of the set shop/web\n  \
        keepset list                                        the points there are\n  \
        keepset restore shop/web --into /srv/restored       bring the latest back, ordinal by ordinal",
    after_long_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 finished but something could not be read, 10 no repository,\n\
        11 held by another, 12 wrong password, 13 refused by a safety rule, 130 interrupted."
)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb understands.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The repository: a path, file://, s3://bucket/prefix, gs:// or az://
    #[arg(long, short = 'r', global = true, env = "KEEPSET_REPOSITORY", value_name = "LOCATION", hide_env_values = true)]
    pub repo: Option<String>,

    /// Settings; /etc/keepset/keepset.yaml where it exists
    #[arg(long, global = true, env = "KEEPSET_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// A file whose first line is the repository's password; see also KEEPSET_PASSWORD_FILE, _COMMAND and KEEPSET_PASSWORD
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Where the sets live; the machine's name outside Kubernetes
    #[arg(long, global = true, env = "KEEPSET_CLUSTER", value_name = "NAME", hide_env_values = true)]
    pub cluster: Option<String>,

    /// What buffers, packs and index of each worker may take together, such as 64MiB
    #[arg(long, global = true, env = "KEEPSET_MEMORY", value_name = "SIZE", hide_env_values = true)]
    pub memory: Option<Size>,

    /// Answer with JSON
    #[arg(long, global = true)]
    pub json: bool,

    /// Tell only what goes wrong
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Log what is being done; twice in detail, three times everything (or KEEPSET_LOG=filter)
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// The verb's flags as they were given, for a Job that does the same.
    #[arg(skip)]
    pub said: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Demo(Demo),
    Init(Init),
    Backup(BackupArgs),
    Status(Status),
    List(List),
    Show(Show),
    Ls(Ls),
    Diff(Diff),
    Dump(Dump),
    Restore(Box<RestoreArgs>),
    Drill(DrillArgs),
    Doctor(DoctorArgs),
    Check(CheckArgs),
    Forget(Forget),
    Prune(PruneArgs),
    Agent(AgentArgs),
    Repair(RepairArgs),
    Password(PasswordArgs),
    Unlock(Unlock),
    Completions(Completions),
    Man(ManArgs),
    #[command(hide = true)]
    Mover(Mover),
    #[command(hide = true)]
    Reach(Reach),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_password_as_its_value() {
        fn flags(command: &clap::Command, found: &mut Vec<String>) {
            let of_file = |arg: &&clap::Arg| arg.get_value_names().is_some_and(|names| names.iter().all(|name| name == "FILE"));
            let valued = command.get_arguments().filter(|arg| arg.get_action().takes_values() && !of_file(arg));
            found.extend(valued.filter_map(|arg| arg.get_long().map(str::to_owned)));
            command.get_subcommands().for_each(|sub| flags(sub, found));
        }
        let mut found = Vec::new();
        flags(&Args::command(), &mut found);
        assert!(!found.is_empty() && found.iter().all(|flag| !flag.contains("password")), "{found:?}");
    }
}
