//! `keepset list`: the points there are.

use serde::Serialize;

use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::cli::table::Table;
use crate::cli::view::{self, ForeignView, PointView, consistency};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::clock::{shown, shown_text};
use crate::model::set::SetName;
use crate::repository::Unreadable;
use crate::repository::points::{Points, list_points};

/// List the points there are, oldest first
///
/// Examples:
///   keepset list
///   keepset list shop/web
///   keepset list --json | jq -r '.points[] | select(.complete) | .id'
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct List {
    /// Only points of this set
    #[arg(value_name = "NAMESPACE/NAME")]
    set: Option<SetName>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    points: Vec<PointView>,
    foreign: Vec<ForeignView>,
    unreadable: Vec<Unreadable>,
}

/// Lists points, and snapshots of other programs after them; with the exit code for a part where some cannot be read.
pub async fn run(args: &List, wire: &Wire) -> anyhow::Result<ExitCode> {
    let points = list_points(&wire.reader().await?, args.set.as_ref()).await?;
    let listed = Listed {
        points: points.points.iter().map(PointView::of).collect(),
        foreign: points.foreign.iter().filter(|_| args.set.is_none()).map(ForeignView::of).collect(),
        unreadable: points.unreadable.clone(),
    };
    if wire.output.is_json() {
        wire.output.json(&listed)?;
    } else {
        text(&listed, &points, wire.output)?;
    }
    view::warn_of_unreadable(&points, wire.output);
    Ok(if points.unreadable.is_empty() { ExitCode::Done } else { ExitCode::Partial })
}

fn text(listed: &Listed, points: &Points, output: Output) -> anyhow::Result<()> {
    if listed.points.is_empty() && listed.unreadable.is_empty() {
        output.note("there is no point yet");
    } else if !listed.points.is_empty() {
        let mut table = Table::new(&["id", "time", "set", "cluster", "state", "consistency", ">claims", ">files", ">size"]);
        for (view, stored) in listed.points.iter().zip(&points.points) {
            table.row([
                view.id.short(),
                shown(stored.point.time),
                view.set.to_string(),
                view.cluster.clone(),
                view.state().to_owned(),
                consistency(view.consistency).to_owned(),
                view.claims.to_string(),
                view.files.to_string(),
                words::bytes(view.bytes),
            ]);
        }
        output.table(&table)?;
    }
    if !listed.foreign.is_empty() {
        output.note(&format!("{} that are no points:", words::count(listed.foreign.len() as u64, "snapshot", "snapshots")));
        let mut table = Table::new(&["id", "time", "host", "paths", "note"]);
        for view in &listed.foreign {
            table.row([
                view.id.short(),
                shown_text(&view.time),
                view.hostname.clone(),
                view.paths.join(" "),
                view.reason.clone().unwrap_or_default(),
            ]);
        }
        output.table(&table)?;
    }
    Ok(())
}
