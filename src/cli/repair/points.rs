//! `keepset repair points`: what can still be restored of each point. Writes nothing.

use serde::Serialize;

use crate::cli::check::checked;
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::losses;
use crate::cli::output::Output;
use crate::cli::stop::Stop;
use crate::cli::wire::Wire;
use crate::config::{Percent, Span};
use crate::model::set::SetName;
use crate::repository::check::PointState;

/// Say of each point what can still be restored
///
/// Examples:
///   keepset repair points                        as far as packs are there and trees can be read
///   keepset repair points shop/web --read-data   every byte read and proven
///
/// Lists claims that are whole and counts files that are lost. Nothing is written: lost bytes come back
/// from nowhere but a copy of the repository. `restore --skip-damaged` brings all back that can be read,
/// `restore --claim` a claim that is whole; `forget ID` forgets a point that is of no use. The next backup stores
/// again whatever is still in the volumes, once no index names the damaged packs: move them out of the
/// repository's data folder and run `repair index`. Exit code 1 says that some point is damaged.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct PointsArgs {
    /// Only points of this set
    #[arg(value_name = "NAMESPACE/NAME")]
    set: Option<SetName>,

    /// Read and prove the packs too: all, or this share of them
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
    read_data: Option<Percent>,

    /// How long to wait for another that holds the repository alone
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,
}

#[derive(Serialize)]
struct Answer<'a> {
    points: Vec<&'a PointState>,
}

/// Checks the repository and tells of its points. Snapshots that cannot be read are told of whatever set is asked for.
pub async fn run(args: &PointsArgs, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let report = checked(args.read_data, args.wait_lock, wire, stop).await?;
    let of_set = |point: &&PointState| args.set.is_none() || point.set == args.set || (point.set.is_none() && point.time.is_empty());
    let points: Vec<&PointState> = report.points.iter().filter(of_set).collect();
    if let Some(set) = &args.set
        && points.is_empty()
    {
        return Err(CliError::failed(format!("there is no point of set {set}"), "`keepset list` shows every point").into());
    }
    let whole = points.iter().all(|point| point.whole);
    if wire.output.is_json() {
        wire.output.json(&Answer { points })?;
    } else {
        losses::points(points.iter().copied(), true, wire.output)?;
        if !whole {
            ways_on(&points, wire.output)?;
        }
    }
    Ok(if whole { ExitCode::Done } else { ExitCode::Failed })
}

/// What the user can do, with a damaged point as the example.
fn ways_on(points: &[&PointState], output: Output) -> anyhow::Result<()> {
    let damaged = points.iter().rev().filter(|point| !point.whole);
    let mut mended = damaged.clone().filter(|point| point.reason.is_none());
    if let Some((point, claim)) = mended.find_map(|point| Some((point, point.claims.iter().find(|claim| claim.whole)?)))
        && let Some(set) = &point.set
    {
        output.note(&format!(
            "restore what is whole: keepset restore {set} --point {} --claim {} --into DIR",
            point.id.short(),
            claim.name
        ));
    }
    if let Some((point, set)) = damaged.clone().find_map(|point| Some((point, point.set.as_ref()?))) {
        output.note(&format!(
            "restore all that can be read of a damaged one: keepset restore {set} --point {} --skip-damaged --into DIR",
            point.id.short()
        ));
    }
    if let Some(point) = damaged.clone().next() {
        output.note(&format!("make a new point: keepset backup; then forget a damaged one: keepset forget {}", point.id.short()));
    }
    Ok(())
}
