//! `keepset check`: is everything there, and as it was stored?

use crate::cli::exit::ExitCode;
use crate::cli::losses;
use crate::cli::output::{Output, Tone};
use crate::cli::progress::Shown;
use crate::cli::stop::{Stop, unless_stopped};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{Percent, Span};
use crate::repository::check::{CheckOptions, CheckReport, check};
use crate::repository::lock::{Lock, Mode};

/// Check that the repository is whole, and name what is not and the points it touches
///
/// Examples:
///   keepset check                       the structure: every pack, index, tree and snapshot
///   keepset check --read-data           every byte of every pack as well
///   keepset check --read-data=5%        a twentieth of the packs, another one each day
///
/// Exit code 1 says that something is damaged. Nothing is changed.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    /// Read and prove the packs too: all, or this share of them
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
    read_data: Option<Percent>,

    /// How long to wait for another that holds the repository alone
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,
}

/// Checks, and tells what is damaged and which points that touches.
pub async fn run(args: &CheckArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let report = checked(args.read_data, args.wait_lock, wire, stop).await?;
    if wire.output.is_json() {
        wire.output.json(&report)?;
    } else {
        text(&report, wire.output)?;
    }
    Ok(if report.is_sound() { ExitCode::Done } else { ExitCode::Failed })
}

/// Checks under a shared lock, so that no prune removes what is being looked at.
pub async fn checked(read_data: Option<Percent>, wait_lock: Option<Span>, wire: &Wire, stop: Stop) -> anyhow::Result<CheckReport> {
    let repository = wire.repository().await?;
    let shown = Shown::new(wire.output);
    let options = wire.lock_options(wire.wait_lock(wait_lock));
    let lock = unless_stopped(stop.clone(), async { Ok(Lock::acquire(&repository, Mode::Reading, &options, &shown).await?) }).await?;
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    // The day chooses which share is read, so that a daily check of 5 % has seen most of the packs in a month.
    let seed = u64::try_from(wire.clock.now().timestamp() / 86_400).unwrap_or(0);
    let options = CheckOptions { read_data: read_data.map(|percent| percent.0), seed, workers };
    let report = unless_stopped(stop, async { Ok(check(&repository, &options, &shown).await?) }).await;
    shown.clear();
    let released = lock.release().await;
    let report = report?;
    if let Err(error) = released {
        wire.output.warn(&format!("the lock could not be removed: {error}; `keepset unlock` does it"));
    }
    Ok(report)
}

fn text(report: &CheckReport, output: Output) -> anyhow::Result<()> {
    losses::findings(report, output)?;
    if !report.is_sound() {
        losses::points(report.points.iter(), false, output)?;
    }
    let read = match report.packs_read {
        0 => "no pack's bytes read (--read-data does)".to_owned(),
        packs => format!("{} read and proven ({})", words::count(packs, "pack", "packs"), words::bytes(report.bytes_read)),
    };
    output.line(&format!(
        "{}, {}, {}, {}; {read}",
        words::count(report.snapshots, "snapshot", "snapshots"),
        words::count(report.trees, "tree", "trees"),
        words::count(report.blobs, "blob", "blobs"),
        words::count(report.packs, "pack", "packs"),
    ))?;
    if report.is_sound() {
        return Ok(output.line(&output.tone(Tone::Good, "nothing is damaged"))?);
    }
    output.line(&output.tone(Tone::Bad, "something is damaged"))?;
    output.note("`keepset repair points` tells what can be done");
    Ok(())
}
