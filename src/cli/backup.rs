//! `keepset backup`: one recovery point of each set that is named.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use crate::backup::{Backup, BackupOptions, Order, Sealed};
use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::error::CliError;
use crate::cli::exit::{ExitCode, judge};
use crate::cli::output::chain_text;
use crate::cli::output::{Output, Tone};
use crate::cli::stop::Stop;
use crate::cli::submit;
use crate::cli::told::Told;
use crate::cli::view;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{HookSettings, OrderOfSaving, SetSettings, Span};
use crate::model::exclude::{BadPattern, Exclude};
use crate::model::id::Id;
use crate::model::manifest::{ClaimStatus, Consistency};
use crate::model::mover_job::Progress;
use crate::model::set::SetName;
use crate::platform::folders::FoldersOptions;
use crate::platform::{News, Outcome, Platform};
use crate::repository::Repository;

/// Back up sets: one recovery point of all ordinals and claims of each
///
/// Examples:
///   keepset backup shop/web --from /srv/shop/web     a folder per claim: data-web-0, data-web-1, …
///   keepset backup shop/web --from /srv/shop/web --dry-run
///   keepset backup shop/web shop/db                  places and all else from the settings
///   keepset backup --all                             every set of the settings
///
/// A point is sealed last: until then nothing of it exists. Exit code 3 says that it is partial.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct BackupArgs {
    /// The sets
    #[arg(value_name = "NAMESPACE/NAME", required_unless_present = "all")]
    sets: Vec<SetName>,

    /// Every set that the settings name
    #[arg(long, conflicts_with = "sets")]
    all: bool,

    /// The folder that holds one folder per claim, each called TEMPLATE-SET-ORDINAL
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    from: Option<PathBuf>,

    /// A claim template of the set, where it is not to be read from the folders' names; may be repeated
    #[arg(long = "template", value_name = "NAME", conflicts_with = "all")]
    templates: Vec<String>,

    /// The first ordinal, where it is not the lowest that is there
    #[arg(long, value_name = "N", conflicts_with = "all")]
    start_ordinal: Option<u32>,

    /// How many ordinals there should be: one that is gone is then noticed
    #[arg(long, value_name = "N", conflicts_with = "all", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,

    /// Nothing writes to the volumes: all of them are of one moment
    #[arg(long)]
    stopped: bool,

    /// Read the volumes as they are, even where the cluster could snapshot them
    #[arg(long, conflicts_with = "stopped")]
    live: bool,

    /// Read every byte, whatever sizes and times say
    #[arg(long)]
    read_all: bool,

    /// Go on although claims are missing, or fewer than the last complete point had
    #[arg(long)]
    allow_fewer_claims: bool,

    /// Go on although a claim is empty that was not
    #[arg(long)]
    allow_empty: bool,

    /// Go on although a volume is under another ordinal than in the last point
    #[arg(long)]
    allow_moved_volumes: bool,

    /// Leave PATTERN out of every claim, besides what the settings exclude; may be repeated. A path from the claim's root on, where `*` stands for
    /// any part of a name, and `**` for any number of folders
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    exclude: Vec<String>,

    /// Ordinals to save at a time
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: Option<u32>,

    /// In which order ordinals are saved
    #[arg(long, value_enum)]
    order: Option<OrderArg>,

    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// How long to wait for another that holds the repository alone
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,

    #[command(flatten)]
    in_cluster: ClusterArgs,
}

fn pattern(text: &str) -> Result<String, BadPattern> {
    Exclude::new(&[text.to_owned()]).map(|_| text.to_owned())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    Ascending,
    Descending,
}

/// One sealed point.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    set: SetName,
    point: Id,
    complete: bool,
    consistency: Option<Consistency>,
    claims: usize,
    unreadable: u64,
    changed: u64,
    total: Progress,
    seconds: f64,
}

/// Backs the sets up one after the other. One that fails does not keep the others from their points; the first failure's code is the
/// program's.
pub async fn run(args: &BackupArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let sets = if args.all { every_set(wire)? } else { args.sets.clone() };
    let outside: Vec<bool> =
        sets.iter().map(|set| cluster::is_submitted(&args.in_cluster, wire, place(args, wire, set).as_ref())).collect();
    if outside.iter().all(|outside| *outside) {
        return submitted(args, wire, &sets, stop).await;
    }
    if outside.contains(&true) {
        let hint = "back them up one kind after the other, or do all of it in this process: --here";
        return Err(CliError::usage("some of these sets are folders here, and some are in the cluster", hint).into());
    }
    // What is wrong with any set's arguments is said before the first one is begun.
    let mut platforms = Vec::new();
    for set in &sets {
        platforms.push(platform(args, wire, set).await?);
    }
    let repository = match wire.repository().await {
        Ok(repository) => repository,
        Err(error) => {
            for (set, platform) in sets.iter().zip(&platforms) {
                failed(args, set, platform.as_ref(), &error).await;
            }
            return Err(error);
        }
    };
    let mut worst = None;
    let mut answers = Vec::new();
    let mut plans = Vec::new();
    for (set, platform) in sets.iter().zip(platforms) {
        let options = options(args, wire, set, platform.as_ref())?;
        let told = Arc::new(Told::new("backup", set, Arc::clone(&platform), wire));
        let backup = Backup {
            repository: Repository::clone(&repository),
            platform: Arc::clone(&platform),
            clock: wire.clock.clone(),
            monitor: told.clone(),
            identity: wire.identity(),
            cancel: stop.clone(),
        };
        let began = Instant::now();
        let code = if args.dry_run {
            backup.plan(set, &options).await.map(|plan| {
                plans.push(plan);
                ExitCode::Done
            })
        } else {
            backup.run(set, &options).await.map(|sealed| {
                let code = if sealed.complete { ExitCode::Done } else { ExitCode::Partial };
                answers.push(answer(set, sealed, began.elapsed().as_secs_f64()));
                code
            })
        };
        told.clear();
        let code = code.map_err(anyhow::Error::new);
        match &code {
            Ok(_) if args.dry_run => {}
            Ok(_) => succeeded(platform.as_ref(), answers.last()).await,
            Err(error) => failed(args, set, platform.as_ref(), error).await,
        }
        match code {
            Ok(code) => worst = worst.or(Some(code).filter(|code| *code != ExitCode::Done)),
            Err(error) if sets.len() == 1 => return Err(error),
            Err(error) => {
                let code = wire.output.failure(&error.context(format!("no point of set {set}")));
                worst = worst.or(Some(code));
                if *stop.borrow() {
                    break;
                }
            }
        }
        if !wire.output.is_json() {
            plans.drain(..).try_for_each(|plan| plan.lines().iter().try_for_each(|line| wire.output.line(line)))?;
            answers.drain(..).try_for_each(|answer| text(&answer, wire.output))?;
        }
    }
    if wire.output.is_json() {
        let answer = if args.dry_run { serde_json::json!({ "plans": plans }) } else { serde_json::json!({ "backups": answers }) };
        wire.output.json(&answer)?;
    }
    Ok(worst.unwrap_or(ExitCode::Done))
}

fn every_set(wire: &Wire) -> anyhow::Result<Vec<SetName>> {
    let sets: Vec<SetName> = wire.settings.sets.iter().filter_map(SetSettings::set).collect();
    if sets.is_empty() {
        return Err(CliError::usage("the settings name no set", "name sets on the command line, or under `sets` in the settings").into());
    }
    Ok(sets)
}

/// The sets' Jobs, one after the other.
async fn submitted(args: &BackupArgs, wire: &Wire, sets: &[SetName], stop: Stop) -> anyhow::Result<ExitCode> {
    let mut worst = None;
    let mut documents = Vec::new();
    for set in sets {
        let mut document = String::new();
        let collect = |line: &str| {
            document.extend([line, "\n"]);
            Ok(())
        };
        let code = if wire.output.is_json() {
            submit::run(&args.in_cluster, wire, ("backup", set, set), stop.clone(), collect).await
        } else {
            submit::run(&args.in_cluster, wire, ("backup", set, set), stop.clone(), |line| wire.output.line(line)).await
        };
        documents.push(document);
        match code {
            Ok(code) => worst = worst.or(Some(code).filter(|code| *code != ExitCode::Done)),
            Err(error) if sets.len() == 1 => return Err(error),
            Err(error) => {
                let code = wire.output.failure(&error.context(format!("no answer for set {set}")));
                worst = worst.or(Some(code));
                if *stop.borrow() {
                    break;
                }
            }
        }
    }
    if let Some(answer) = wire.output.is_json().then(|| merged(&documents)).filter(|answer| !answer.is_empty()) {
        wire.output.json(&answer)?;
    }
    Ok(worst.unwrap_or(ExitCode::Done))
}

/// The answers about sets as one answer about all of them. One that failed gave none.
fn merged(documents: &[String]) -> serde_json::Map<String, serde_json::Value> {
    let mut merged = serde_json::Map::new();
    for (name, value) in documents.iter().filter_map(|text| serde_json::from_str::<serde_json::Map<_, _>>(text).ok()).flatten() {
        match (merged.get_mut(&name), value) {
            (Some(serde_json::Value::Array(there)), serde_json::Value::Array(more)) => there.extend(more),
            (_, value) => {
                merged.insert(name, value);
            }
        }
    }
    merged
}

async fn succeeded(platform: &dyn Platform, answer: Option<&Answer>) {
    let Some(answer) = answer else { return };
    let state = if answer.complete { "complete" } else { "partial" };
    let consistency = answer.consistency.map(|consistency| format!(", consistency {}", view::consistency(consistency))).unwrap_or_default();
    let claims = words::count(answer.claims as u64, "claim", "claims");
    let text = format!("point {}: {state}{consistency}, {claims}", answer.point.short());
    platform.announce(&answer.set, &News { outcome: Outcome::BackupSucceeded, is_fine: answer.complete, text }).await;
}

async fn failed(args: &BackupArgs, set: &SetName, platform: &dyn Platform, error: &anyhow::Error) {
    // Whoever holds the set tells of it.
    if !args.dry_run && judge(error).code != ExitCode::Locked {
        platform.announce(set, &News { outcome: Outcome::BackupFailed, is_fine: false, text: chain_text(error) }).await;
    }
}

/// The folder of its claims, for a set that is not in the cluster.
fn place(args: &BackupArgs, wire: &Wire, set: &SetName) -> Option<PathBuf> {
    args.from.clone().or_else(|| wire.set_settings(set).and_then(|settings| settings.from.clone()))
}

/// Where one set is, by flag or by settings.
async fn platform(args: &BackupArgs, wire: &Wire, set: &SetName) -> anyhow::Result<Arc<dyn Platform>> {
    let none = SetSettings::named(set);
    let settings = wire.set_settings(set).unwrap_or(&none);
    let place = place(args, wire, set);
    let templates = if args.templates.is_empty() { settings.templates.clone() } else { args.templates.clone() };
    let (start, replicas) = (args.start_ordinal.or(settings.start_ordinal), args.replicas.or(settings.replicas));
    cluster::platform(&args.in_cluster, wire, place, |folders| FoldersOptions { templates, start, replicas, ..folders }).await
}

fn options(args: &BackupArgs, wire: &Wire, set: &SetName, platform: &dyn Platform) -> Result<BackupOptions, CliError> {
    let settings = wire.set_settings(set);
    let order = match (args.order, settings.and_then(|set| set.order)) {
        (Some(OrderArg::Descending), _) | (None, Some(OrderOfSaving::Descending)) => Order::Descending,
        _ => Order::Ascending,
    };
    let mut exclude = settings.and_then(|set| set.exclude.clone()).unwrap_or_default();
    exclude.extend(args.exclude.iter().cloned());
    // Each is fine by itself: together they may be too many.
    Exclude::new(&exclude)
        .map_err(|error| CliError::usage(format!("what set {set} excludes: {error}"), "name fewer, or shorter, patterns"))?;
    Ok(BackupOptions {
        parallel: wire.parallel(args.parallel, set, platform),
        order,
        live: args.live,
        stopped: args.stopped || settings.and_then(|set| set.stopped).unwrap_or(false),
        read_all: args.read_all,
        allow_fewer_claims: args.allow_fewer_claims,
        allow_empty: args.allow_empty,
        allow_moved_volumes: args.allow_moved_volumes,
        safety: None,
        exclude,
        hooks: settings.and_then(|set| set.hooks.as_ref()).map(HookSettings::hooks),
        memory: wire.memory(),
        location: wire.location()?.to_owned(),
        wait_lock: wire.wait_lock(args.wait_lock),
    })
}

fn answer(set: &SetName, sealed: Sealed, seconds: f64) -> Answer {
    let saved = || sealed.manifest.claims.iter().filter(|claim| claim.status == ClaimStatus::Saved);
    Answer {
        set: set.clone(),
        point: sealed.point,
        complete: sealed.complete,
        consistency: saved().map(|claim| claim.consistency).min(),
        claims: saved().count(),
        unreadable: saved().map(|claim| claim.unreadable).sum(),
        changed: saved().map(|claim| claim.changed).sum(),
        total: sealed.total,
        seconds,
    }
}

fn text(answer: &Answer, output: Output) -> Result<(), CliError> {
    let total = &answer.total;
    let state = if answer.complete { output.tone(Tone::Good, "complete") } else { output.tone(Tone::Caution, "partial") };
    let consistency = answer.consistency.map(|consistency| format!(", consistency {}", view::consistency(consistency))).unwrap_or_default();
    output.line(&format!("point {} of {}: {state}{consistency}", output.tone(Tone::Strong, &answer.point.short()), answer.set))?;
    output.line(&format!(
        "  {} in {} of {}; new {}, stored {}; {}",
        words::bytes(total.bytes),
        words::count(total.files, "file", "files"),
        words::count(answer.claims as u64, "claim", "claims"),
        words::bytes(total.new_bytes),
        words::bytes(total.stored_bytes),
        words::duration(std::time::Duration::from_secs_f64(answer.seconds))
    ))?;
    if answer.unreadable > 0 {
        let what = words::count(answer.unreadable, "entry", "entries");
        output.warn(&format!(
            "{what} could not be read: `keepset show {}` tells which claims, their list is in the point",
            answer.point.short()
        ));
    }
    if answer.changed > 0 {
        output.note(&format!("  {} went on changing while being read", words::count(answer.changed, "file", "files")));
    }
    Ok(())
}
