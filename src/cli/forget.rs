//! `keepset forget`: retention. Decides which points may go, says why, and removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use chrono_tz::Tz;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone};
use crate::cli::progress::Shown;
use crate::cli::prune;
use crate::cli::stop::{Stop, unless_stopped};
use crate::cli::table::Table;
use crate::cli::view::PointView;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::config::{CalendarSpan, Retention, Span};
use crate::model::id::Id;
use crate::model::manifest::PointKind;
use crate::model::point::Point;
use crate::model::set::{BadSetName, SetName};
use crate::repository::forget::remove_snapshots;
use crate::repository::index::Index;
use crate::repository::lock::{Lock, Mode};
use crate::repository::points::{Points, StoredPoint, list_points};
use crate::repository::prune::PruneReport;
use crate::repository::reader::Reader;
use crate::repository::select::{ChoiceError, Selector};
use crate::repository::{Repository, Unreadable};
use crate::retention::{self, Policy};

/// Forget old points by rules of retention, and say why each stays or goes
///
/// Examples:
///   keepset forget --dry-run                                  by the settings' rules
///   keepset forget --keep-daily 7 --keep-weekly 4
///   keepset forget shop/web --keep-last 3 --keep-within 14d
///   keepset forget 1a2b3c4d                                   this point, whatever the rules say
///
/// Each rule keeps the newest complete point of each of that many hours, days, … The newest complete
/// point of a set always stays, partial ones stay until a newer one is complete, safety points go by
/// --keep-safety-within alone. Space is given back by `keepset prune`, or at once with --prune.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Forget {
    /// Only points of these sets; or exactly these points, by the first digits of their ids
    #[arg(value_name = "NAMESPACE/NAME|ID")]
    which: Vec<Which>,

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
    /// Safety points younger than this; without it all of them stay
    #[arg(long, value_name = "SPAN")]
    keep_safety_within: Option<CalendarSpan>,

    /// A point named by its id may be its set's newest complete one
    #[arg(long)]
    allow_newest: bool,

    /// Say what would go, and remove nothing
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Then give back the space of what no snapshot needs any more, as `keepset prune` does
    #[arg(long, conflicts_with = "dry_run")]
    prune: bool,

    /// How long to wait for others that use the repository
    #[arg(long, value_name = "SPAN")]
    wait_lock: Option<Span>,
}

/// What the user names: a set, or one point.
#[derive(Clone, Debug)]
enum Which {
    Set(SetName),
    Id(String),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(Selector::Id(prefix)) = text.parse() {
            return Ok(Which::Id(prefix));
        }
        text.parse().map(Which::Set).map_err(|error: BadSetName| format!("{error}; nor is it the beginning of an id"))
    }
}

impl Forget {
    fn sets(&self) -> Vec<&SetName> {
        self.which.iter().filter_map(|which| if let Which::Set(set) = which { Some(set) } else { None }).collect()
    }

    fn ids(&self) -> Vec<&str> {
        self.which.iter().filter_map(|which| if let Which::Id(id) = which { Some(id.as_str()) } else { None }).collect()
    }

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
            safety_within: self.keep_safety_within,
        };
        (rules != Retention::default()).then_some(rules)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    dry_run: bool,
    sets: Vec<SetAnswer>,
    /// Damaged snapshots that were named: of which set they were is not known.
    unreadable: Vec<Unreadable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prune: Option<PruneReport>,
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
    let shown = Shown::new(wire.output);
    let lock = unless_stopped(stop.clone(), async { Ok(Lock::acquire(&repository, Mode::Exclusive, &options, &shown).await?) }).await;
    shown.clear();
    let lock = lock?;
    let work = async {
        let (answer, ids) = decide(args, wire, &repository).await?;
        remove_snapshots(&repository, &lock, &ids).await?;
        Ok(answer)
    };
    let result = unless_stopped(stop.clone(), work).await;
    let released = lock.release().await;
    let mut answer = result?;
    released?;
    if args.prune {
        answer.prune = Some(prune::by_default(&repository, wire, args.wait_lock, stop).await?);
    }
    tell(&answer, wire.output)
}

async fn decide(args: &Forget, wire: &Wire, repository: &Repository) -> anyhow::Result<(Answer, Vec<Id>)> {
    let (index, _) = Index::load_readable(repository).await?;
    let points = list_points(&Reader::new(repository, index.into()), None).await?;
    if !args.ids().is_empty() {
        return named(args, &points);
    }
    if let Some(damaged) = points.unreadable.first() {
        return Err(CliError::refused(
            format!("snapshot {} cannot be read, and could be of any set: {}", damaged.id.short(), damaged.reason),
            "`keepset check` tells what is damaged; `keepset forget ID` removes the snapshot, and rules hold again",
        )
        .into());
    }
    let cluster = wire.cluster()?;
    let chosen = args.sets();
    for set in &chosen {
        if !points.points.iter().any(|stored| stored.point.set == **set && stored.point.cluster == cluster) {
            let message = format!("there is no point of set {set} in cluster {cluster}");
            if chosen.len() > 1 {
                // The others' rules hold all the same.
                wire.output.warn(&message);
                continue;
            }
            return Err(CliError::failed(message, "`keepset list` shows every point").into());
        }
    }
    let elsewhere = points.points.iter().filter(|stored| stored.point.cluster != cluster).count();
    if elsewhere > 0 {
        let text = words::count(elsewhere as u64, "point of another cluster is", "points of other clusters are");
        wire.output.note(&format!("{text} left alone: --cluster NAME chooses another"));
    }
    let mut sets: BTreeMap<&SetName, Vec<Point>> = BTreeMap::new();
    for stored in points.points.iter().filter(|stored| stored.point.cluster == cluster) {
        if chosen.is_empty() || chosen.contains(&&stored.point.set) {
            sets.entry(&stored.point.set).or_default().push(stored.point.clone());
        }
    }
    let zone: Tz = wire.settings.defaults.time_zone.as_deref().unwrap_or("UTC").parse().unwrap_or(Tz::UTC);
    let mut answer = Answer { dry_run: args.dry_run, sets: Vec::new(), unreadable: Vec::new(), prune: None };
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

/// Exactly the points that are named, and damaged snapshots by their ids: the way to be rid of one.
fn named(args: &Forget, points: &Points) -> anyhow::Result<(Answer, Vec<Id>)> {
    if !args.sets().is_empty() || args.rules().is_some() {
        return Err(CliError::usage("ids are given beside sets or rules", "name points by their ids alone, or let rules choose").into());
    }
    let mut sets: BTreeMap<(&str, &SetName), Vec<Judged>> = BTreeMap::new();
    let mut unreadable: Vec<Unreadable> = Vec::new();
    let mut ids: BTreeSet<Id> = BTreeSet::new();
    for prefix in args.ids() {
        let damaged: Vec<&Unreadable> = points.unreadable.iter().filter(|damaged| damaged.id.hex().starts_with(prefix)).collect();
        let stored = match (points.find(prefix), damaged.as_slice()) {
            (Ok(stored), []) => stored,
            (Err(ChoiceError::NoPoint { .. } | ChoiceError::NoSuchId { .. }), [damaged]) => {
                if ids.insert(damaged.id) {
                    unreadable.push((*damaged).clone());
                }
                continue;
            }
            (Err(error), []) => return Err(error.into()),
            (found, damaged) => {
                let count = damaged.len() + usize::from(found.is_ok());
                return Err(ChoiceError::AmbiguousId { prefix: prefix.to_owned(), count }.into());
            }
        };
        let point = &stored.point;
        let same = |other: &&StoredPoint| other.point.set == point.set && other.point.cluster == point.cluster;
        let complete = |other: &&StoredPoint| other.point.complete && other.point.kind == PointKind::Normal;
        let newest = points.points.iter().rev().filter(same).find(complete);
        if newest.is_some_and(|newest| newest.point.id == point.id) && !args.allow_newest {
            return Err(CliError::refused(
                format!("point {} is the newest complete one of set {}", point.id.short(), point.set),
                "back the set up first, or say `--allow-newest`",
            )
            .into());
        }
        if ids.insert(point.id) {
            let judged = Judged { point: PointView::of(stored), reasons: vec!["named".to_owned()] };
            sets.entry((&point.cluster, &point.set)).or_default().push(judged);
        }
    }
    let sets = sets
        .into_iter()
        .map(|((cluster, set), forget)| SetAnswer { cluster: cluster.to_owned(), set: set.clone(), keep: Vec::new(), forget })
        .collect();
    Ok((Answer { dry_run: args.dry_run, sets, unreadable, prune: None }, ids.into_iter().collect()))
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
    let verb = if answer.dry_run { "would be forgotten" } else { "forgotten" };
    for damaged in &answer.unreadable {
        output.line(&format!("snapshot {} {verb}: {}", damaged.id.short(), damaged.reason))?;
    }
    if answer.sets.is_empty() && answer.unreadable.is_empty() {
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
            table.row([
                verb.to_owned(),
                view.id.short(),
                crate::clock::shown_text(&view.time),
                view.state().to_owned(),
                judged.reasons.join(", "),
            ]);
        }
        output.table(&table)?;
        let (kept, gone) = (set.keep.len() as u64, set.forget.len() as u64);
        output.line(&format!("{} kept, {gone} {verb}", words::count(kept, "point", "points")))?;
    }
    if let Some(pruned) = &answer.prune {
        prune::text(pruned, output)?;
    }
    Ok(ExitCode::Done)
}
