//! `keepset prune`: gives back the space of what no point needs any more.

use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone};
use crate::cli::progress::Shown;
use crate::cli::stop::Stop;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{Percent, Size, Span};
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::prune::{Amount, Figures, Limits, Prune, PruneError, PruneOptions, PruneReport, YOUNG};

/// As restic has it, and as the flag's help says.
const MAX_UNUSED: Percent = Percent(5.0);

/// Give back the space of what no snapshot needs any more
///
/// Examples:
///   keepset prune --dry-run
///   keepset prune
///   keepset prune --max-unused 0 --max-repack 20GiB
///
/// Backups and restores go on beside it. Packs that nothing needs are first taken out of the index, for
/// which the repository is held alone for a moment; the next prune deletes them. While others work that
/// moment is waited for as long as --wait-lock says; then a later prune goes on from there.
///
/// Snapshots of other programs count like points. If anything that a snapshot needs is missing or
/// damaged, nothing is removed.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PruneArgs {
    /// How much of what is left may be unused: less costs more repacking
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = unused)]
    max_unused: Percent,

    /// Repack no more than this much in one run
    #[arg(long, value_name = "SIZE")]
    max_repack: Option<Size>,

    /// Delete in this very run what it takes out of the index. Safe if every program that reads the
    /// repository takes locks, and its store's lists are current; keepset's `ls`, `dump` and `diff` and
    /// readers of repositories that cannot be written to take none
    #[arg(long, verbatim_doc_comment)]
    now: bool,

    /// Prune even if there is data and not a single snapshot: all of it goes. Without this flag that
    /// is refused, since a copy of a repository that was cut short looks the same
    #[arg(long, verbatim_doc_comment)]
    allow_no_snapshots: bool,

    /// Say what would be done, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// How long to wait for others that use the repository
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,
}

/// As a share of a hundred, or nothing at all.
fn unused(text: &str) -> Result<Percent, String> {
    if text.trim().trim_end_matches('%').trim_end() == "0" { Ok(Percent(0.0)) } else { text.parse() }
}

/// Prunes and tells what became of it.
pub async fn run(args: &PruneArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let repository = wire.repository().await?;
    let report = prune(args, &repository, wire, stop).await?;
    if wire.output.is_json() {
        wire.output.json(&report)?;
    } else {
        text(&report, wire.output)?;
    }
    Ok(ExitCode::Done)
}

/// What `keepset prune` without any flags does, for verbs that end with it.
pub async fn by_default(repository: &Repository, wire: &Wire, wait_lock: Option<Span>, stop: Stop) -> anyhow::Result<PruneReport> {
    let args = PruneArgs { max_unused: MAX_UNUSED, max_repack: None, now: false, allow_no_snapshots: false, dry_run: false, wait_lock };
    prune(&args, repository, wire, stop).await
}

async fn prune(args: &PruneArgs, repository: &Repository, wire: &Wire, stop: Stop) -> anyhow::Result<PruneReport> {
    let shown = Shown::new(wire.output);
    let limits = Limits { max_unused: args.max_unused.0, max_repack: args.max_repack.map(|size| size.0) };
    let prune = Prune {
        repository,
        lock: &wire.lock_options(wire.wait_lock(args.wait_lock)),
        options: PruneOptions {
            limits,
            dry_run: args.dry_run,
            allow_no_snapshots: args.allow_no_snapshots,
            now: args.now,
            young: YOUNG,
            memory: wire.memory(),
        },
        monitor: &shown,
        cancel: stop,
    };
    let report = prune.run().await;
    shown.clear();
    report.map_err(|error| match error {
        PruneError::Interrupted => CliError::Interrupted.into(),
        PruneError::Repository(error @ RepositoryError::Refused { .. }) => CliError::refused(
            error.to_string(),
            "is it whole? bring its folder `snapshots` back; if nothing in it is needed any more, say `--allow-no-snapshots`",
        )
        .into(),
        error @ PruneError::Repository(_) => error.into(),
    })
}

/// The report as people read it.
pub fn text(report: &PruneReport, output: Output) -> anyhow::Result<()> {
    let packs = |amount: &Amount| format!("{} ({})", words::count(amount.packs, "pack", "packs"), words::bytes(amount.bytes));
    output.line(&format!("{} followed", words::count(report.snapshots, "snapshot", "snapshots")))?;
    if let Some(planned) = &report.planned {
        planned_text(planned, packs, output)?;
    }
    if report.rescued > 0 {
        output.line(&format!("{} needed again, and kept", words::count(report.rescued, "pack is", "packs are")))?;
    }
    if report.leftovers > 0 {
        output.line(&format!("{} of interrupted writes removed", words::count(report.leftovers, "leftover", "leftovers")))?;
    }
    if report.dry_run {
        if report.deleted.packs > 0 {
            output.line(&format!("taken out of the index before, to be deleted now: {}", packs(&report.deleted)))?;
        }
        output.line("nothing was changed")?;
        return Ok(());
    }
    if report.deleted.packs > 0 {
        output.line(&output.tone(Tone::Good, &format!("deleted: {}", packs(&report.deleted))))?;
    }
    if report.condemned.packs > 0 {
        output.line(&format!("taken out of the index: {}; the next prune deletes them", packs(&report.condemned)))?;
    }
    if let Some(holder) = &report.waiting_for {
        output.line(&format!("what is unused is marked, and a later prune goes on: the repository was held by {holder}"))?;
    } else if report.deleted.packs + report.condemned.packs == 0 {
        output.line("there is nothing to give back")?;
    }
    Ok(())
}

fn planned_text(planned: &Figures, packs: impl Fn(&Amount) -> String, output: Output) -> anyhow::Result<()> {
    output.line(&format!("all packs            {}", packs(&planned.all)))?;
    output.line(&format!("wholly unused        {}", packs(&planned.unused)))?;
    if planned.orphans.packs > 0 {
        output.line(&format!("in no index          {}", packs(&planned.orphans)))?;
    }
    let live = words::bytes(planned.live_bytes);
    output.line(&format!("to be written anew   {}, of which {live} are used", packs(&planned.repack)))?;
    output.line(&format!("unused, but kept     {}", words::bytes(planned.left_bytes)))?;
    output.line(&format!("to be given back     {}", words::bytes(planned.gain())))?;
    Ok(())
}
