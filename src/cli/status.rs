//! `keepset status`: what is protected, and how old that is.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone, chain_text};
use crate::cli::sets::{self, Found, Looked, Restore};
use crate::cli::table::Table;
use crate::cli::view::{self, PointView};
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::clock::{is_ahead, shown_text};
use crate::config::{SetSettings, Span, schedule_of};
use crate::model::id::Id;
use crate::model::manifest::PointKind;
use crate::model::set::SetName;
use crate::model::standing::Standing;
use crate::repository::Unreadable;
use crate::repository::lock;
use crate::repository::points::{StoredPoint, list_points};

/// A run says how far it is every fifteen seconds at least.
const SILENT: Duration = Duration::from_secs(60);

/// Show which sets are protected, how fresh they are, when they are due, and who uses the repository
///
/// Examples:
///   keepset status
///   keepset status --watch                  again every ten seconds
///   keepset status --json | jq -e '.sets | all(.newest != null)'
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Status {
    /// Show it again and again, so far apart
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true, default_missing_value = "10s", conflicts_with = "json")]
    watch: Option<Span>,

    #[command(flatten)]
    in_cluster: ClusterArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    repository: String,
    sets: Vec<SetView>,
    /// Runs of sets in the cluster, as they last said of themselves.
    running: Vec<Standing>,
    locks: Vec<LockView>,
    unreadable: Vec<Unreadable>,
    /// Sets whose annotations make no sense, and what could not be looked at, in words.
    left_out: Vec<String>,
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
    /// Normal points whose times are ahead of this machine's clock: `latest` passes over them.
    ahead: Vec<Id>,
    complete: usize,
    partial: usize,
    safety: usize,
    /// When the agent backs it up next, RFC 3339; `None` without a schedule, and while that is suspended.
    next: Option<String>,
    /// What somebody has to look after: `ahead`, `partial`, `suspended`, `overdue`, `restoreOpen`, `atZero`.
    attention: Vec<&'static str>,
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

/// Shows every set that has points, stands in the settings or asks to be backed up.
pub async fn run(args: &Status, wire: &Wire) -> anyhow::Result<ExitCode> {
    let Some(Span(pause)) = args.watch else { return shown(args, wire).await };
    loop {
        if std::io::stdout().is_terminal() {
            // To the top left corner, and all below it is wiped: see ECMA-48, CUP and ED.
            wire.output.bytes(b"\x1b[H\x1b[J")?;
        }
        // What cannot be asked now may be there again next time.
        if let Err(error) = shown(args, wire).await {
            wire.output.failure(&error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// The sets of settings and cluster, and what runs of them. A cluster that does not answer hides no point.
async fn search(args: &Status, wire: &Wire) -> (Found, Vec<Standing>) {
    let found = async {
        let cluster = sets::connect(&args.in_cluster, wire).await?;
        let standings = async {
            match &cluster {
                Some(cluster) => sets::standings(&wire.settings, cluster).await,
                None => (Vec::new(), Vec::new()),
            }
        };
        let looked = Looked::new();
        let (mut found, (running, unknown)) = tokio::join!(sets::search(&wire.settings, cluster.as_ref(), &looked), standings);
        found.left_out.extend(unknown);
        anyhow::Ok((found, running))
    };
    found.await.unwrap_or_else(|error| {
        wire.output.warn(&format!("what the cluster has is not shown: {}", chain_text(&error)));
        let found = Found { settings: wire.settings.clone(), left_out: Vec::new(), restores: BTreeMap::new(), looked: Looked::new() };
        (found, Vec::new())
    })
}

async fn shown(args: &Status, wire: &Wire) -> anyhow::Result<ExitCode> {
    let reader = wire.reader().await?;
    let (points, (found, running)) = tokio::join!(list_points(&reader, None), search(args, wire));
    let points = points?;
    let now = wire.clock.now();
    let mut sets: BTreeMap<(String, SetName), Vec<&StoredPoint>> = BTreeMap::new();
    let mut settings: BTreeMap<SetName, &SetSettings> = BTreeMap::new();
    let own = if found.settings.sets.is_empty() { None } else { Some(wire.cluster()?) };
    for set in &found.settings.sets {
        if let (Some(name), Some(own)) = (set.set(), &own) {
            sets.insert((own.clone(), name.clone()), Vec::new());
            settings.insert(name, set);
        }
    }
    for stored in &points.points {
        sets.entry((stored.point.cluster.clone(), stored.point.set.clone())).or_default().push(stored);
    }
    let mut ages = Vec::new();
    let mut views = Vec::new();
    for ((cluster, set), points) in sets {
        let ahead = |stored: &StoredPoint| is_ahead(stored.point.time.to_utc(), now);
        let of_kind = || points.iter().rev().filter(|stored| stored.point.kind == PointKind::Normal);
        // A time ahead of the clock says nothing of how things stand.
        let normal = || of_kind().filter(|stored| !ahead(stored));
        let newest = normal().find(|stored| stored.point.complete).copied();
        let count = |wanted: &dyn Fn(&StoredPoint) -> bool| points.iter().filter(|stored| wanted(stored)).count();
        let here = settings.get(&set).filter(|_| own.as_ref() == Some(&cluster));
        let schedule = here.and_then(|here| schedule_of(&found.settings, here));
        let is_suspended = here.is_some_and(|here| here.suspend == Some(true));
        let last = normal().next().map(|stored| stored.point.time.to_utc());
        let next = schedule.as_ref().filter(|_| !is_suspended).and_then(|schedule| {
            let due = schedule.due(&set.to_string(), last, now);
            due.now.map(|_| now).or(due.next)
        });
        let is_old =
            |stored: &StoredPoint| schedule.as_ref().is_some_and(|schedule| now - stored.point.time.to_utc() > schedule.interval(now) * 2);
        let restore = here.and_then(|_| found.restores.get(&set)).copied().unwrap_or(Restore::None);
        let attention = [
            ("ahead", of_kind().any(|stored| ahead(stored))),
            ("partial", normal().next().is_some_and(|stored| !stored.point.complete)),
            ("overdue", !is_suspended && newest.is_some_and(is_old)),
            ("suspended", schedule.is_some() && is_suspended),
            ("restoreOpen", restore != Restore::None),
            ("atZero", restore == Restore::AtZero),
        ];
        ages.push(newest.map(|stored| words::age(now, stored.point.time)));
        views.push(SetView {
            cluster,
            set,
            age_seconds: newest.map(|stored| now.signed_duration_since(stored.point.time).num_seconds()),
            newest: newest.map(PointView::of),
            ahead: of_kind().filter(|stored| ahead(stored)).map(|stored| stored.point.id).collect(),
            complete: count(&|stored| stored.point.kind == PointKind::Normal && stored.point.complete),
            partial: count(&|stored| stored.point.kind == PointKind::Normal && !stored.point.complete),
            safety: count(&|stored| stored.point.kind == PointKind::Safety),
            next: next.map(|next| next.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
            attention: attention.into_iter().filter(|(_, holds)| *holds).map(|(word, _)| word).collect(),
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
    let answer = Answer {
        repository: reader.repository().store().location().to_owned(),
        sets: views,
        running,
        locks,
        unreadable: points.unreadable.clone(),
        left_out: found.left_out,
    };
    if wire.output.is_json() {
        wire.output.json(&answer)?;
    } else {
        text(&answer, &ages, now, wire.output)?;
    }
    view::warn_of_unreadable(&points, wire.output);
    Ok(if points.unreadable.is_empty() { ExitCode::Done } else { ExitCode::Partial })
}

fn text(answer: &Answer, ages: &[Option<String>], now: DateTime<Utc>, output: Output) -> anyhow::Result<()> {
    if answer.sets.is_empty() && answer.unreadable.is_empty() {
        output.note("no set is protected yet: `keepset backup` makes the first point");
    } else if !answer.sets.is_empty() {
        let mut table = Table::new(&["set", "cluster", "newest", "age", ">size", ">complete", ">partial", ">safety", "next", "attention"]);
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
                set.next.as_ref().map_or_else(|| "-".to_owned(), |next| shown_text(next)),
                set.attention.iter().map(|word| spoken(word)).collect::<Vec<_>>().join(", "),
            ]);
        }
        output.table(&table)?;
    }
    for complaint in &answer.left_out {
        output.line(&output.tone(Tone::Caution, complaint))?;
    }
    for standing in &answer.running {
        output.line(&format!("{} {}", output.tone(Tone::Caution, "running:"), running(standing, now)))?;
    }
    for lock in &answer.locks {
        let kind = if lock.exclusive { "held exclusively" } else { "in use" };
        output.line(&format!("{} {}", output.tone(Tone::Caution, &format!("{kind}:")), lock.holder))?;
    }
    Ok(())
}

/// A run in a line.
fn running(standing: &Standing, now: DateTime<Utc>) -> String {
    let ago = |time: &str| DateTime::parse_from_rfc3339(time).ok().map(|time| now.signed_duration_since(time).to_std().unwrap_or_default());
    let mut line = format!("{} of {}", standing.verb, standing.set);
    if let Some(since) = ago(&standing.since) {
        line += &format!(" for {}", words::duration(since));
    }
    if !standing.step.is_empty() {
        line += &format!(": {}", standing.step);
    }
    let (bytes, ordinals) = (standing.bytes(), &standing.ordinals);
    if !ordinals.is_empty() {
        // What is not begun yet is not known here.
        let done = ordinals.values().filter(|ordinal| ordinal.done).count();
        line += &format!("; {}, {} done", words::bytes(bytes), words::count(done as u64, "ordinal", "ordinals"));
    }
    match ago(&standing.at) {
        Some(silent) if silent > SILENT => line + &format!("; not heard of for {}", words::duration(silent)),
        _ => line,
    }
}

/// What JSON calls so, for people.
fn spoken(word: &str) -> &str {
    match word {
        "restoreOpen" => "a restore is open (--resume or --undo)",
        "ahead" => "a point's time is ahead of the clock",
        "atZero" => "the set is at 0",
        "partial" => "the last point is partial",
        word => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mover_job::Progress;
    use crate::model::set::Ordinal;

    #[test]
    fn a_run_that_is_silent_is_told_from_one_that_is_at_work() {
        let at = |time: &str| DateTime::parse_from_rfc3339(time).unwrap().to_utc();
        let mut standing = Standing::new("backup", &"shop/web".parse().unwrap(), "2026-11-24T08:00:00Z".into());
        assert_eq!(running(&standing, at("2026-11-24T08:00:05Z")), "backup of shop/web for 5.0 s");
        standing.step = "saving ordinal 1: data-web-1".into();
        standing.done(Ordinal(0), &Progress { bytes: 1 << 20, ..Progress::default() });
        standing.note(Ordinal(1), &Progress { bytes: 1 << 20, ..Progress::default() }, Some(1 << 30));
        standing.at = "2026-11-24T08:01:00Z".into();
        let line = running(&standing, at("2026-11-24T08:01:10Z"));
        assert_eq!(line, "backup of shop/web for 1 m 10 s: saving ordinal 1: data-web-1; 2.0 MiB, 1 ordinal done");
        let line = running(&standing, at("2026-11-24T08:11:00Z"));
        assert!(line.ends_with("; not heard of for 10 m 0 s"), "{line}");
    }
}
