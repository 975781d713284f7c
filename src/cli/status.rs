//! `keepset status`: what is protected, and how old that is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone};
use crate::cli::table::Table;
use crate::cli::view::{self, PointView};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::model::manifest::PointKind;
use crate::model::set::SetName;
use crate::repository::Unreadable;
use crate::repository::lock;
use crate::repository::points::{StoredPoint, list_points};

/// Show which sets are protected, how fresh they are, and who uses the repository
///
/// Examples:
///   keepset status
///   keepset status --json | jq -e '.sets | all(.newest != null)'
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Status {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    repository: String,
    sets: Vec<SetView>,
    locks: Vec<LockView>,
    unreadable: Vec<Unreadable>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SetView {
    cluster: String,
    set: SetName,
    /// The newest complete point.
    newest: Option<PointView>,
    /// Its age; negative where its time is ahead of this machine's clock.
    age_seconds: Option<i64>,
    complete: usize,
    partial: usize,
    safety: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LockView {
    key: String,
    exclusive: bool,
    /// When it was written, by the store's clock, RFC 3339.
    modified: String,
    holder: String,
}

/// Shows every set that has points or stands in the settings.
pub async fn run(_: &Status, wire: &Wire) -> anyhow::Result<ExitCode> {
    let reader = wire.reader().await?;
    let points = list_points(&reader, None).await?;
    let now = wire.clock.now();
    let mut sets: BTreeMap<(String, SetName), Vec<&StoredPoint>> = BTreeMap::new();
    if !wire.settings.sets.is_empty() {
        let cluster = wire.cluster()?;
        for set in &wire.settings.sets {
            sets.insert((cluster.clone(), SetName::new(&set.matches.namespace, &set.matches.name)?), Vec::new());
        }
    }
    for stored in &points.points {
        sets.entry((stored.point.cluster.clone(), stored.point.set.clone())).or_default().push(stored);
    }
    let newest =
        |points: &[&StoredPoint]| points.iter().rev().find(|p| p.point.complete && p.point.kind == PointKind::Normal).copied().cloned();
    let mut ages = Vec::new();
    let mut views = Vec::new();
    for ((cluster, set), points) in sets {
        let newest = newest(&points);
        let count = |wanted: &dyn Fn(&StoredPoint) -> bool| points.iter().filter(|stored| wanted(stored)).count();
        ages.push(newest.as_ref().map(|stored| words::age(now, stored.point.time)));
        views.push(SetView {
            cluster,
            set,
            age_seconds: newest.as_ref().map(|stored| now.signed_duration_since(stored.point.time).num_seconds()),
            newest: newest.as_ref().map(PointView::of),
            complete: count(&|stored| stored.point.kind == PointKind::Normal && stored.point.complete),
            partial: count(&|stored| stored.point.kind == PointKind::Normal && !stored.point.complete),
            safety: count(&|stored| stored.point.kind == PointKind::Safety),
        });
    }
    let locks = lock::locks(reader.repository()).await?;
    let locks = locks
        .iter()
        .map(|lock| LockView {
            key: lock.key.clone(),
            exclusive: lock.exclusive(),
            modified: lock.modified.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            holder: lock.describe(now),
        })
        .collect();
    let answer =
        Answer { repository: reader.repository().store().location().to_owned(), sets: views, locks, unreadable: points.unreadable.clone() };
    if wire.output.is_json() {
        wire.output.json(&answer)?;
    } else {
        text(&answer, &ages, wire.output)?;
    }
    view::warn_of_unreadable(&points, wire.output);
    Ok(if points.unreadable.is_empty() { ExitCode::Done } else { ExitCode::Partial })
}

fn text(answer: &Answer, ages: &[Option<String>], output: Output) -> anyhow::Result<()> {
    if answer.sets.is_empty() && answer.unreadable.is_empty() {
        output.note("no set is protected yet: `keepset backup` makes the first point");
    } else if !answer.sets.is_empty() {
        let mut table = Table::new(&["set", "cluster", "newest", "age", ">size", ">complete", ">partial", ">safety"]);
        for (set, age) in answer.sets.iter().zip(ages) {
            table.row([
                set.set.to_string(),
                set.cluster.clone(),
                set.newest.as_ref().map_or_else(|| "none".to_owned(), |point| point.id.short()),
                age.clone().unwrap_or_else(|| "never".to_owned()),
                set.newest.as_ref().map_or_else(|| "-".to_owned(), |point| words::bytes(point.bytes)),
                set.complete.to_string(),
                set.partial.to_string(),
                set.safety.to_string(),
            ]);
        }
        output.table(&table)?;
    }
    for lock in &answer.locks {
        let kind = if lock.exclusive { "held exclusively" } else { "in use" };
        output.line(&format!("{} {}", output.tone(Tone::Caution, &format!("{kind}:")), lock.holder))?;
    }
    Ok(())
}
