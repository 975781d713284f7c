//! `keepset forget`: retention. Decides which points may go, says why, and removes them.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone};
use crate::cli::stop::{Stop, unless_stopped};
use crate::cli::table::Table;
use crate::cli::view::PointView;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{CalendarSpan, Retention, Span};
use crate::model::id::Id;
use crate::model::point::Point;
use crate::model::set::SetName;
use crate::monitor::Silent;
use crate::repository::Repository;
use crate::repository::forget::remove_snapshots;
use crate::repository::index::Index;
use crate::repository::lock::{Lock, Mode};
use crate::repository::points::{Points, list_points};
use crate::repository::reader::Reader;
use crate::retention::{self, Policy};

/// Forget old points by rules of retention, and say why each stays or goes
///
/// Examples:
///   keepset forget --dry-run                                  by the settings' rules
///   keepset forget --keep-daily 7 --keep-weekly 4
///   keepset forget shop/web --keep-last 3 --keep-within 14d
///
/// Each rule keeps the newest complete point of each of that many hours, days, … The newest complete
/// point of a set always stays, partial ones stay until a newer one is complete, safety points are
/// left alone. Space is not given back by this: `keepset prune` does that.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Forget {
    /// Only points of these sets
    #[arg(value_name = "NAMESPACE/NAME")]
    sets: Vec<SetName>,

    /// The newest points
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// One point of each of the last hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<u32>,
    /// One of each day
    #[arg(long, value_name = "N")]
    keep_daily: Option<u32>,
    /// One of each ISO week
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u32>,
    /// One of each month
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u32>,
    /// One of each year
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u32>,
    /// Everything younger than this before the newest point, such as 14d or 1y6m
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<CalendarSpan>,

    /// Say what would go, and remove nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// How long to wait for others that use the repository
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,
}

impl Forget {
    /// The rules on the command line; `None` where there is none, so that the settings' hold.
    fn rules(&self) -> Option<Retention> {
        let rules = Retention {
            keep_last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
        };
        (rules != Retention::default()).then_some(rules)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    dry_run: bool,
    sets: Vec<SetAnswer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SetAnswer {
    cluster: String,
    set: SetName,
    keep: Vec<Judged>,
    forget: Vec<Judged>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Judged {
    point: PointView,
    reasons: Vec<String>,
}

/// Decides under an exclusive lock, so that nobody's point comes or goes in between; a dry run takes none.
pub async fn run(args: &Forget, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let repository = wire.repository().await?;
    if args.dry_run {
        let (answer, _) = unless_stopped(stop, decide(args, wire, &repository)).await?;
        return tell(&answer, wire.output);
    }
    let options = wire.lock_options(wire.wait_lock(args.wait_lock));
    let lock = unless_stopped(stop.clone(), async { Ok(Lock::acquire(&repository, Mode::Exclusive, &options, &Silent).await?) }).await?;
    let work = async {
        let (answer, ids) = decide(args, wire, &repository).await?;
        remove_snapshots(&repository, &lock, &ids).await?;
        Ok(answer)
    };
    let result = unless_stopped(stop, work).await;
    let released = lock.release().await;
    let answer = result?;
    released?;
    tell(&answer, wire.output)
}

async fn decide(args: &Forget, wire: &Wire, repository: &Repository) -> anyhow::Result<(Answer, Vec<Id>)> {
    let index = Index::load(repository).await?;
    let points = list_points(&Reader::new(repository, index.into()), None).await?;
    let cluster = wire.cluster()?;
    for set in &args.sets {
        if !points.points.iter().any(|stored| stored.point.set == *set && stored.point.cluster == cluster) {
            return Err(CliError::failed(
                format!("there is no point of set {set} in cluster {cluster}"),
                "`keepset list` shows every point",
            )
            .into());
        }
    }
    let elsewhere = points.points.iter().filter(|stored| stored.point.cluster != cluster).count();
    if elsewhere > 0 {
        let text = words::count(elsewhere as u64, "point of another cluster is", "points of other clusters are");
        wire.output.note(&format!("{text} left alone: --cluster NAME chooses another"));
    }
    let mut sets: BTreeMap<&SetName, Vec<Point>> = BTreeMap::new();
    for stored in points.points.iter().filter(|stored| stored.point.cluster == cluster) {
        if args.sets.is_empty() || args.sets.contains(&stored.point.set) {
            sets.entry(&stored.point.set).or_default().push(stored.point.clone());
        }
    }
    let zone: Tz = wire.settings.defaults.time_zone.as_deref().unwrap_or("UTC").parse().unwrap_or(Tz::UTC);
    let mut answer = Answer { dry_run: args.dry_run, sets: Vec::new() };
    let mut ids = Vec::new();
    for (set, of_set) in sets {
        let decisions = retention::decide(&of_set, &policy(args, wire, set)?, wire.clock.now(), &zone)?;
        let (keep, forget): (Vec<_>, Vec<_>) = decisions.into_iter().partition(|decision| decision.keep);
        ids.extend(forget.iter().map(|decision| decision.id));
        let judged = |decisions: Vec<retention::Decision>| judged(&points, decisions);
        answer.sets.push(SetAnswer { cluster: cluster.clone(), set: set.clone(), keep: judged(keep), forget: judged(forget) });
    }
    Ok((answer, ids))
}

fn judged(points: &Points, decisions: Vec<retention::Decision>) -> Vec<Judged> {
    let stored = |id: Id| points.points.iter().find(|stored| stored.point.id == id);
    decisions
        .into_iter()
        .filter_map(|decision| Some(Judged { point: PointView::of(stored(decision.id)?), reasons: decision.reasons }))
        .collect()
}

/// The flags' rules, else the set's, else the defaults'.
fn policy(args: &Forget, wire: &Wire, set: &SetName) -> Result<Policy, CliError> {
    let of_set = wire.set_settings(set).and_then(|settings| settings.retention);
    let rules = args.rules().or(of_set).or(wire.settings.defaults.retention);
    rules.map(|rules| rules.policy()).ok_or_else(|| {
        CliError::usage(
            format!("no rule says which points of set {set} to keep"),
            "give --keep-last 3 --keep-daily 7 or the like, or defaults.retention in the settings",
        )
    })
}

fn tell(answer: &Answer, output: Output) -> anyhow::Result<ExitCode> {
    if output.is_json() {
        output.json(answer)?;
        return Ok(ExitCode::Done);
    }
    if answer.sets.is_empty() {
        output.note("there is no point to judge");
    }
    for set in &answer.sets {
        output.line(&output.tone(Tone::Strong, &format!("{} in cluster {}", set.set, set.cluster)))?;
        let mut table = Table::new(&["", "id", "time", "state", "why"]);
        let mut rows: Vec<(&Judged, &str)> = set.keep.iter().map(|judged| (judged, "keep")).collect();
        rows.extend(set.forget.iter().map(|judged| (judged, "forget")));
        rows.sort_by(|(a, _), (b, _)| b.point.time.cmp(&a.point.time));
        for (judged, verb) in rows {
            let view = &judged.point;
            table.row([verb.to_owned(), view.id.short(), view.time.replace('T', " "), view.state().to_owned(), judged.reasons.join(", ")]);
        }
        output.table(&table)?;
        let (kept, gone) = (set.keep.len() as u64, set.forget.len() as u64);
        let verb = if answer.dry_run { "would be forgotten" } else { "forgotten" };
        output.line(&format!("{} kept, {gone} {verb}", words::count(kept, "point", "points")))?;
    }
    Ok(ExitCode::Done)
}
