//! `keepset restore`: brings a set back as one thing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::backup::BackupOptions;
use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone, chain_text};
use crate::cli::point_args::PointArgs;
use crate::cli::safety::wired;
use crate::cli::stop::Stop;
use crate::cli::submit;
use crate::cli::told::Told;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{Span, StartPolicy};
use crate::model::id::Id;
use crate::model::mover_job::{Problem, Progress};
use crate::model::set::{Ordinal, SetName};
use crate::platform::folders::FoldersOptions;
use crate::platform::{News, Outcome, Platform};
use crate::restore::{RestoreOptions, Restored, StartMode, Undone};

/// Bring a set back: data first, ordinal by ordinal, then the application in order
///
/// Examples:
///   keepset restore shop/web --into /srv/restored             the latest complete point
///   keepset restore shop/web --into /srv/restored --point 1a2b3c4d
///   keepset restore shop/web --into /srv/restored --point "2026-11-24 08:00" --ordinal 1
///   keepset restore shop/web --into /tmp/look --claim data --path conf/app.yaml
///   keepset restore shop/web --into /srv/restored --dry-run
///
///   keepset restore shop/web --replace                        in its own place, over what is there
///   keepset restore shop/web --resume                         goes on with one that was cut off
///
/// Everything that the point needs is proven present before anything is written. Targets that hold
/// data are refused, or with --replace sealed in a safety point first and then made equal to the
/// point: stop the application before. No ordinal is started before every claim is filled and proven.
/// A restore that was cut off stays open until it is resumed or undone.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RestoreArgs {
    /// The set
    #[arg(value_name = "NAMESPACE/NAME")]
    set: SetName,

    #[command(flatten)]
    which: PointArgs,

    /// Make the claims' folders in DIR; the set's `from` of the settings where left out
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,

    /// Give the set another name
    #[arg(long, value_name = "NAMESPACE/NAME")]
    to: Option<SetName>,

    /// Only this ordinal; may be repeated
    #[arg(long = "ordinal", value_name = "N")]
    ordinals: Vec<u32>,

    /// Only claims of this template, or this claim; may be repeated
    #[arg(long = "claim", value_name = "NAME")]
    claims: Vec<String>,

    /// Only this path below each claim's root, written as `ls` shows it (`\\` is a backslash, `\xNN` a byte); may be repeated
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,

    /// Make claims that had class FROM in class TO; may be repeated
    #[arg(long = "map-class", value_name = "FROM=TO", value_parser = mapping)]
    map_class: Vec<(String, String)>,

    /// Make the set too, and its Service, as the point recorded them, where it is not there; --dry-run shows both
    #[arg(long, conflicts_with = "into")]
    create_set: bool,

    /// Make targets that hold data equal to the point; what they hold is sealed in a safety point first
    #[arg(long)]
    replace: bool,

    /// With --replace: seal no safety point, and give up the way back. With --undo: leave half restored what has none
    #[arg(long)]
    no_safety: bool,

    /// Go on with the open restore of the set from where it was cut off
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true, conflicts_with_all = WHAT)]
    resume: Option<Option<String>>,

    /// Take the open restore of the set back: every claim holds again what it held before
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true, conflicts_with_all = WHAT, conflicts_with_all = ["resume", "start"])]
    undo: Option<Option<String>>,

    /// Restore all that is whole where the repository is damaged, and list the rest
    #[arg(long)]
    skip_damaged: bool,

    /// The target may hold claims of the set that the point does not have
    #[arg(long)]
    allow_extra_claims: bool,

    /// Go on although a volume is under another ordinal than in the set's last point
    #[arg(long)]
    allow_moved_volumes: bool,

    /// Begin although there seems to be too little room
    #[arg(long)]
    ignore_room: bool,

    /// How the ordinals are started once all claims are proven
    #[arg(long, value_enum)]
    start: Option<StartArg>,

    /// Ordinals to fill at a time
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: Option<u32>,

    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// How long to wait for another that holds the repository alone
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,

    #[command(flatten)]
    in_cluster: ClusterArgs,
}

/// Flags that say what is restored: an open restore knows that already.
const WHAT: [&str; 14] = [
    "point",
    "from_cluster",
    "to",
    "ordinals",
    "claims",
    "paths",
    "map_class",
    "create_set",
    "replace",
    "skip_damaged",
    "allow_partial",
    "allow_extra_claims",
    "allow_moved_volumes",
    "dry_run",
];

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("write it as FROM=TO".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StartArg {
    /// As the set itself says
    AsSet,
    /// One after the other, each ready before the next
    Ordered,
    /// All at once
    Parallel,
    /// Leave them stopped
    None,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    set: SetName,
    point: Id,
    /// What the targets held before.
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_point: Option<Id>,
    /// Nothing was lacking.
    whole: bool,
    claims: Vec<ClaimAnswer>,
    started: Vec<Ordinal>,
    total: Progress,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimAnswer {
    name: String,
    ordinal: Ordinal,
    target: String,
    files: u64,
    bytes: u64,
    problems: Vec<Problem>,
    /// Told by a process that died, whose restore this one went on with.
    earlier_problems: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UndoneAnswer<'a> {
    set: &'a SetName,
    undone: &'a str,
    claims: &'a [String],
    /// What it was taken back to; left in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_point: Option<Id>,
    /// Left half restored.
    left: &'a [String],
    /// What could not be made as it was.
    problems: &'a [Problem],
}

/// Restores, or says what would be done.
pub async fn run(args: &RestoreArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let target = args.to.as_ref().unwrap_or(&args.set);
    if cluster::is_submitted(&args.in_cluster, wire, place(args, wire).as_ref()) {
        return submit::run(&args.in_cluster, wire, ("restore", &args.set, target), stop, |line| wire.output.line(line)).await;
    }
    let platform = platform(args, wire).await?;
    let done = here(args, wire, Arc::clone(&platform), stop).await;
    let news = match &done {
        // What was only planned leaves the set as it was.
        _ if args.dry_run => None,
        Ok(came) if args.undo.is_some() => Some((Outcome::RestoreUndone, came.text.clone())),
        Ok(came) => Some((Outcome::RestoreSucceeded, came.text.clone())),
        Err(error) => Some((Outcome::RestoreFailed, chain_text(error))),
    };
    if let Some((outcome, text)) = news {
        let is_fine = matches!(&done, Ok(came) if came.code == ExitCode::Done);
        let news = News { outcome, is_fine, text };
        platform.announce(target, &news).await;
        platform.announce_claims(target, done.as_ref().map_or(&[], |came| came.claims.as_slice()), &news).await;
    }
    done.map(|came| came.code)
}

/// What came of it.
struct Came {
    code: ExitCode,
    /// In one line.
    text: String,
    /// The claims that are others now.
    claims: Vec<String>,
}

async fn here(args: &RestoreArgs, wire: &Wire, platform: Arc<dyn Platform>, stop: Stop) -> anyhow::Result<Came> {
    let options = options(args, wire, platform.as_ref())?;
    let repository = wire.repository().await?;
    let told = Arc::new(Told::new("restore", args.to.as_ref().unwrap_or(&args.set), Arc::clone(&platform), wire));
    let safety = BackupOptions {
        parallel: options.parallel,
        memory: options.memory,
        location: options.location.clone(),
        wait_lock: options.wait_lock,
        ..BackupOptions::default()
    };
    let restore = wired(wire, repository, platform, told.clone(), stop, safety);
    let output = &wire.output;
    if args.dry_run {
        let plan = restore.plan(&args.set, &options).await?;
        if output.is_json() {
            output.json(&serde_json::json!({ "plan": plan }))?;
        } else {
            plan.lines().iter().try_for_each(|line| output.line(line))?;
        }
        return Ok(Came { code: ExitCode::Done, text: String::new(), claims: Vec::new() });
    }
    let began = Instant::now();
    if let Some(run) = &args.undo {
        let undone = restore.undo(&args.set, run.as_deref(), &options).await;
        told.clear();
        let undone = undone?;
        let claims = words::count(undone.claims.len() as u64, "claim holds", "claims hold");
        let text = format!("restore {} is undone: {claims} again what was there before", undone.run);
        return Ok(Came { code: tell_undone(&args.set, &undone, *output)?, text, claims: undone.claims });
    }
    let restored = match &args.resume {
        Some(run) => restore.resume(&args.set, run.as_deref(), &options).await,
        None => restore.run(&args.set, &options).await,
    };
    told.clear();
    let answer = answer(args, restored?, began.elapsed());
    if output.is_json() {
        output.json(&answer)?;
    } else {
        text(&answer, *output)?;
    }
    let count = words::count(answer.claims.len() as u64, "claim", "claims");
    let lacks = if answer.whole { "" } else { "; not all of it could be given back" };
    let text = format!("{count} from point {}{lacks}", answer.point.short());
    let claims = answer.claims.into_iter().map(|claim| claim.name).collect();
    Ok(Came { code: if answer.whole { ExitCode::Done } else { ExitCode::Partial }, text, claims })
}

/// The folder of the claims, for a set that is not in the cluster.
fn place(args: &RestoreArgs, wire: &Wire) -> Option<PathBuf> {
    let settings = wire.set_settings(args.to.as_ref().unwrap_or(&args.set));
    args.into.clone().or_else(|| settings.and_then(|set| set.from.clone()))
}

async fn platform(args: &RestoreArgs, wire: &Wire) -> anyhow::Result<Arc<dyn Platform>> {
    // The place and the start belong to the set that will be there.
    let settings = wire.set_settings(args.to.as_ref().unwrap_or(&args.set));
    let place = place(args, wire);
    let start_command = settings.and_then(|set| set.start.as_ref()).map(Wire::start_command);
    let templates = settings.map(|set| set.templates.clone()).unwrap_or_default();
    cluster::platform(&args.in_cluster, wire, place, |folders| FoldersOptions { start_command, templates, ..folders }).await
}

fn options(args: &RestoreArgs, wire: &Wire, platform: &dyn Platform) -> Result<RestoreOptions, CliError> {
    let set = args.to.as_ref().unwrap_or(&args.set);
    let start = match args.start {
        None | Some(StartArg::AsSet) => StartMode::AsSet,
        Some(StartArg::Ordered) => StartMode::Ordered,
        Some(StartArg::Parallel) => StartMode::Parallel,
        Some(StartArg::None) => StartMode::None,
    };
    if args.resume.is_some() && !matches!(args.start, None | Some(StartArg::None)) {
        return Err(CliError::usage("an open restore starts its ordinals as it set out to", "leave --start out, or say --start none"));
    }
    if (args.create_set || !args.map_class.is_empty()) && place(args, wire).is_some() {
        return Err(CliError::usage("folders have no classes and no StatefulSet", "leave --map-class and --create-set out"));
    }
    let policy = wire.set_settings(set).and_then(|set| set.start.as_ref()).map(|start| start.policy);
    Ok(RestoreOptions {
        point: args.which.point.clone(),
        cluster: args.which.cluster(wire),
        allow_partial: args.which.allow_partial,
        ordinals: args.ordinals.iter().copied().map(Ordinal).collect(),
        claims: args.claims.clone(),
        paths: args.paths.clone(),
        to: args.to.clone(),
        allow_extra_claims: args.allow_extra_claims,
        allow_moved_volumes: args.allow_moved_volumes,
        map_class: args.map_class.iter().cloned().collect(),
        create_set: args.create_set,
        replace: args.replace,
        safety: !args.no_safety,
        skip_damaged: args.skip_damaged,
        ignore_room: args.ignore_room,
        start,
        starts_at_once: policy.map(|policy| policy == StartPolicy::Parallel),
        parallel: wire.parallel(args.parallel, set, platform),
        memory: wire.memory(),
        location: wire.location()?.to_owned(),
        wait_lock: wire.wait_lock(args.wait_lock),
    })
}

fn answer(args: &RestoreArgs, restored: Restored, took: Duration) -> Answer {
    let whole = restored.is_whole();
    let claims = restored.claims.into_iter().map(|claim| ClaimAnswer {
        name: claim.name,
        ordinal: claim.ordinal,
        target: claim.target,
        files: claim.files,
        bytes: claim.bytes,
        problems: claim.problems,
        earlier_problems: claim.earlier_problems,
    });
    Answer {
        set: args.to.clone().unwrap_or_else(|| args.set.clone()),
        point: restored.point,
        safety_point: restored.safety_point,
        whole,
        claims: claims.collect(),
        started: restored.started,
        total: restored.total,
        seconds: took.as_secs_f64(),
    }
}

fn text(answer: &Answer, output: Output) -> Result<(), CliError> {
    let total = &answer.total;
    output.line(&format!(
        "{} {} from point {}: {} in {} of {}; {}",
        output.tone(Tone::Good, "restored"),
        answer.set,
        answer.point.short(),
        words::bytes(total.bytes),
        words::count(total.files, "file", "files"),
        words::count(answer.claims.len() as u64, "claim", "claims"),
        words::duration(Duration::from_secs_f64(answer.seconds))
    ))?;
    for claim in &answer.claims {
        let problems = match claim.problems.len() as u64 + claim.earlier_problems {
            0 => String::new(),
            n => output.tone(Tone::Caution, &format!("  ({})", words::count(n, "problem", "problems"))),
        };
        output.line(&format!("  {}{problems}", claim.target))?;
    }
    if let Some(point) = &answer.safety_point {
        output.line(&format!("what was there before is in safety point {}", point.short()))?;
    }
    if !answer.started.is_empty() {
        let started: Vec<String> = answer.started.iter().map(ToString::to_string).collect();
        output.line(&format!("started, in this order: {}", started.join(", ")))?;
    }
    Ok(())
}

fn tell_undone(set: &SetName, undone: &Undone, output: Output) -> anyhow::Result<ExitCode> {
    let Undone { run, claims, safety_point, left, problems } = undone;
    if output.is_json() {
        output.json(&UndoneAnswer { set, undone: run, claims, safety_point: *safety_point, left, problems })?;
    } else {
        let count = words::count(claims.len() as u64, "claim holds", "claims hold");
        output.line(&format!("{} restore {run} of {set}: {count} again what was there before", output.tone(Tone::Good, "undone")))?;
        claims.iter().try_for_each(|claim| output.line(&format!("  {claim}")))?;
        for claim in left {
            output.line(&output.tone(Tone::Caution, &format!("  {claim}  (left half restored)")))?;
        }
    }
    Ok(if left.is_empty() && problems.is_empty() { ExitCode::Done } else { ExitCode::Partial })
}
