//! A verb that is done in the cluster: a Job there does it, and this process shows what it says and ends as it ends.
//!
//! A pod's log has both of its streams in one. So the Job marks its answer, line by line, and all else is a message: see
//! [`Output::marked`](crate::cli::output::Output::marked).

use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};

use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::stop::{Stop, stopped};
use crate::cli::wire::{DEFAULT_CONFIG, Wire};
use crate::model::pod_words::{ANSWER_MARK, ATTACHED};
use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::kubernetes::{End, Errand, Settings};
use crate::store::Location;

/// What the Job is told in other ways, or what concerns this machine alone.
const NOT_PASSED_ON: [&str; 7] = ["repo", "config", "password_file", "image", "secret", "here", "all"];

/// The flags of the verb as they were given, in the form `--name=value`; not what the environment says, nor the sets.
pub fn said(command: &Command, matches: &ArgMatches) -> Vec<String> {
    let mut said = Vec::new();
    let Some((verb, matches)) = matches.subcommand() else { return said };
    let Some(command) = command.find_subcommand(verb) else { return said };
    for arg in command.get_arguments() {
        let (id, action) = (arg.get_id().as_str(), arg.get_action());
        let Some(long) = arg.get_long() else { continue };
        let tells = matches!(action, ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version);
        if tells || NOT_PASSED_ON.contains(&id) || matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        match action {
            ArgAction::SetTrue => said.push(format!("--{long}")),
            ArgAction::Count => said.extend((0..matches.get_count(id)).map(|_| format!("--{long}"))),
            _ => {
                for occurrence in matches.get_raw_occurrences(id).into_iter().flatten() {
                    let mut values = occurrence.map(|value| format!("--{long}={}", value.to_string_lossy())).peekable();
                    if values.peek().is_none() {
                        said.push(format!("--{long}"));
                    }
                    said.extend(values);
                }
            }
        }
    }
    said
}

/// Makes the Job in the namespace of `place`, gives each line of its answer to `answer`, and returns the code that it ends with.
pub async fn run(
    args: &ClusterArgs,
    wire: &Wire,
    (verb, set, place): (&str, &SetName, &SetName),
    mut stop: Stop,
    mut answer: impl FnMut(&str) -> Result<(), CliError>,
) -> anyhow::Result<ExitCode> {
    let errand = errand(args, wire, verb, set, place)?;
    let job = cluster::kubernetes(args, wire).await?.submit(&errand).await.map_err(|error| not_made(&error))?;
    let (namespace, name) = (&job.namespace, &job.name);
    wire.output.note(&format!("job {name} in {namespace} does it; Ctrl-C lets go of it, and it goes on"));
    let mut told = Ok(());
    let attached = job.attach(|line| match line.strip_prefix(ANSWER_MARK) {
        Some(line) if told.is_ok() => told = answer(line),
        Some(_) => {}
        None => wire.output.passed_on(line),
    });
    let again = format!("`kubectl --namespace {namespace} logs --follow job/{name}` shows it again");
    let end = tokio::select! {
        end = attached => end,
        () = stopped(&mut stop) => {
            let hint = format!("{again}, `kubectl --namespace {namespace} delete job {name}` stops it cleanly");
            return Err(CliError::LetGo { message: format!("let go of job {name}, which goes on in {namespace}"), hint }.into());
        }
    };
    told?;
    match end {
        Ok(End::Exited(code)) => {
            Ok(ExitCode::of(code)
                .ok_or_else(|| CliError::failed(format!("job {name} in {namespace} ended with exit code {code}"), again))?)
        }
        Ok(End::NotBegun(reason)) => {
            let hint = format!("it is removed, and nothing was done; has {namespace} the account and the Secret that keepset needs there?");
            Err(CliError::failed(format!("job {name} in {namespace} did not begin: {reason}"), hint).into())
        }
        Ok(End::Lost(how)) => {
            let message = format!("job {name} in {namespace} was lost: {how}");
            let hint = match verb {
                "restore" => format!("if it was at work already, `keepset restore {set} --resume` goes on with it, `--undo` takes it back"),
                "drill" => "what it left behind, the next drill of the set removes".to_owned(),
                _ => "a backup that is lost leaves no point and nothing that harms: begin it again".to_owned(),
            };
            Err(CliError::failed(message, hint).into())
        }
        Err(error) => {
            Err(CliError::failed(format!("nobody tells how job {name} in {namespace} is: {error}"), format!("it goes on; {again}")).into())
        }
    }
}

fn errand(args: &ClusterArgs, wire: &Wire, verb: &str, set: &SetName, place: &SetName) -> anyhow::Result<Errand> {
    let image = cluster::image(args, wire)?;
    let mut variables = vec![(ATTACHED, "true".to_owned()), ("KEEPSET_IMAGE", image), ("KEEPSET_SECRET", cluster::secret(args, wire))];
    // What the Secret says of the repository holds where nobody says it here.
    if let Ok(location) = wire.location() {
        if matches!(location.parse()?, Location::Folder(_)) {
            let hint = "give the address of a bucket, or do it in this process: --here";
            return Err(CliError::usage(format!("a job in the cluster cannot reach {location}, a folder of this machine"), hint).into());
        }
        variables.push(("KEEPSET_REPOSITORY", location.to_owned()));
    }
    variables.extend(wire.settings.cluster.iter().map(|cluster| ("KEEPSET_CLUSTER", cluster.clone())));
    let mut arguments = vec![verb.to_owned(), set.to_string()];
    arguments.extend_from_slice(wire.said());
    arguments.push("--here".to_owned());
    let usual = Path::new(DEFAULT_CONFIG);
    let name = |name: Option<&std::ffi::OsStr>| name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let settings = wire.settings_text()?.map(|text| Settings {
        folder: name(usual.parent().map(Path::as_os_str)),
        file: name(usual.file_name()),
        text,
    });
    Ok(Errand { set: place.clone(), arguments, variables, settings })
}

fn not_made(error: &PlatformError) -> CliError {
    let hint = match error {
        PlatformError::Cluster { code: 403, .. } => Some(
            "the Role in `deploy/rbac-submit.yaml` is all that is needed for a job; with --here this process does the work itself".into(),
        ),
        other => other.hint(),
    };
    CliError::Failed { message: error.to_string(), hint }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::cli::args::Args;

    fn parsed(words: &[&str]) -> (String, Vec<String>) {
        let mut command = Args::command();
        let matches = command.try_get_matches_from_mut(words).unwrap();
        let args = Args::from_arg_matches(&matches).unwrap();
        (format!("{args:?}"), said(&command, &matches))
    }

    #[test]
    fn a_job_understands_the_same_as_this_process_did() {
        let lines: [&[&str]; 5] = [
            &["backup", "shop/web", "-vv", "--json", "--live", "-p", "3", "--order", "descending", "--timeout", "5m", "--mover-root"],
            &["--quiet", "backup", "shop/web", "--dry-run", "--allow-empty", "--template", "a", "--template=b"],
            &["restore", "shop/web", "--point", "2026-11-24 08:00", "--ordinal", "1", "--ordinal=2", "--to", "x/y", "--path=a b=c"],
            &["restore", "shop/web", "--resume"],
            &["restore", "shop/web", "--undo=20261124t080000z-0a1b2c3d", "--no-safety"],
        ];
        for line in lines {
            let (meant, flags) = parsed(&[&["keepset"], line].concat());
            let verb = if line.contains(&"backup") { "backup" } else { "restore" };
            let again: Vec<&str> = ["keepset", verb, "shop/web"].into_iter().chain(flags.iter().map(String::as_str)).collect();
            assert_eq!(parsed(&again).0, meant, "{again:?}");
        }
    }

    #[test]
    fn what_concerns_this_machine_alone_stays_here() {
        let line = ["keepset", "-r", "s3://b/p", "--config=c", "backup", "--all", "--password-file", "p", "--image", "i", "--secret", "s"];
        assert!(parsed(&line).1.is_empty(), "{:?}", parsed(&line).1);
    }
}
