//! `keepset show`: one point's manifest.

use serde::Serialize;

use crate::cli::exit::ExitCode;
use crate::cli::table::Table;
use crate::cli::view::{self, PointView};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::clock::shown;
use crate::model::manifest::{ClaimStatus, Manifest};
use crate::repository::points::{StoredPoint, list_points};

/// Show what a point holds: its set, and each claim with how it was saved
///
/// Examples:
///   keepset show 1a2b3c4d
///   keepset show shop/web          the latest complete point of that set
///   keepset show latest --json
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Show {
    /// The first digits of a point's id, NAMESPACE/NAME, or latest
    point: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    point: PointView,
    manifest: &'a Manifest,
}

/// Shows one point.
pub async fn run(args: &Show, wire: &Wire) -> anyhow::Result<ExitCode> {
    let points = list_points(&wire.reader().await?, None).await?;
    let stored = view::pick(&points, &args.point, wire)?;
    if wire.output.is_json() {
        wire.output.json(&Shown { point: PointView::of(stored), manifest: &stored.manifest })?;
    } else {
        for line in lines(stored) {
            wire.output.line(&line)?;
        }
    }
    Ok(ExitCode::Done)
}

/// The point in words: a few lines of facts and a table of claims.
pub fn lines(stored: &StoredPoint) -> Vec<String> {
    let view = PointView::of(stored);
    let set = &stored.manifest.set;
    let fact = |name: &str, value: String| format!("{name:<12} {value}");
    let mut lines = vec![
        fact("point", view.id.hex()),
        fact("set", format!("{} in cluster {}", view.set, view.cluster)),
        fact("time", shown(stored.point.time)),
        fact("state", format!("{}, consistency {}", view.state(), view::consistency(view.consistency))),
    ];
    let last = set.start.saturating_add(set.replicas.saturating_sub(1));
    lines.push(fact("ordinals", if set.replicas == 0 { "none".into() } else { format!("{} to {last}", set.start) }));
    if !stored.manifest.exclude.is_empty() {
        lines.push(fact("excluded", format!("{} (of every claim)", stored.manifest.exclude.join(", "))));
    }
    lines.extend(stored.defects.iter().map(|defect| fact("not complete", defect.clone())));
    lines.push(String::new());
    let mut table = Table::new(&["claim", "status", ">files", ">folders", ">size", "consistency", ">changed", ">unreadable"]);
    for claim in &stored.manifest.claims {
        let status = match claim.status {
            ClaimStatus::Saved => "saved".to_owned(),
            ClaimStatus::Missing => "missing".to_owned(),
            ClaimStatus::Skipped => format!("skipped: {}", claim.reason.as_deref().unwrap_or("no reason given")),
        };
        table.row([
            claim.name.clone(),
            status,
            claim.files.to_string(),
            claim.dirs.to_string(),
            words::bytes(claim.bytes),
            view::consistency(claim.consistency).to_owned(),
            claim.changed.to_string(),
            claim.unreadable.to_string(),
        ]);
    }
    lines.extend(table.lines());
    lines
}
