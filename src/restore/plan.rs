//! What a restore would do, or why it must not: pure functions of the point, the places and the user's options.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::claim::{ClaimId, ClaimPlace, ClaimShape, is_claim_name};
use crate::model::entry::Attrs;
use crate::model::id::Id;
use crate::model::journal::Before;
use crate::model::manifest::{ClaimStatus, Consistency};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{Room, SetRun, Target, TargetState, Targets};
use crate::repository::points::{StoredClaim, StoredPoint};
use crate::restore::make;
use crate::restore::options::{RestoreOptions, StartMode};
use crate::restore::refusal::Refusal;

/// One set that would be back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorePlan {
    pub point: Id,
    /// When the point's backup began, RFC 3339.
    pub time: String,
    pub cluster: String,
    pub complete: bool,
    pub consistency: Consistency,
    /// The set as it was saved, and as it will be called.
    pub from: SetName,
    pub to: SetName,
    /// Where the claims go, in words for people.
    pub place: String,
    /// In ordinal order, then by template.
    pub claims: Vec<PlannedFill>,
    /// Only these paths below each claim's root; empty for all.
    pub paths: Vec<String>,
    /// Claims of the point that stay out, by their saved names.
    pub left_out: Vec<String>,
    /// What stands beside the targets and is none of theirs.
    pub foreign: Vec<String>,
    /// What claims hold that is to be replaced is sealed in a safety point first; false where none holds anything, or the user gave that up.
    pub safety: bool,
    /// What the repository cannot give any more is left out and listed, instead of ending the restore.
    pub skip_damaged: bool,
    pub parallel: usize,
    /// The set as it runs now, where it is one that is stopped first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<SetRun>,
    /// What is made before anything is started, as the point recorded it: the set, which is not there, at 0 ordinals, and its Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create: Vec<Value>,
    pub start: PlannedStart,
    /// What the user should know before it begins.
    pub notes: Vec<String>,
}

/// One claim that would be filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedFill {
    #[serde(flatten)]
    pub id: ClaimId,
    /// Its name in the point, and the one that it will have.
    pub saved_as: String,
    pub name: String,
    /// In words for people: the folder's path.
    pub target: String,
    /// What is there now; data is replaced.
    pub before: Before,
    pub tree: Id,
    #[serde(skip)]
    pub root: Attrs,
    pub files: u64,
    pub bytes: u64,
    /// Bytes of room that it needs, as far as can be known: without holes, hard links once.
    pub room: u64,
    #[serde(default)]
    pub shape: ClaimShape,
    /// What the point that it is filled from excludes, by patterns: it stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl PlannedFill {
    /// The claim as a place of the set `to`.
    pub fn place(&self, to: &SetName) -> ClaimPlace {
        ClaimPlace { set: to.clone(), id: self.id.clone(), name: self.name.clone(), shape: self.shape.clone() }
    }
}

/// How the ordinals would be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlannedStart {
    /// One after another, each ready before the next.
    Ordered(Vec<Ordinal>),
    /// All at once.
    Parallel(Vec<Ordinal>),
    /// None, for this reason.
    None(String),
}

/// One claim that was chosen, not yet placed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen {
    pub id: ClaimId,
    pub saved_as: String,
    pub name: String,
    pub tree: Id,
    pub root: Attrs,
    pub files: u64,
    pub bytes: u64,
    pub room: u64,
    pub shape: ClaimShape,
}

/// The claims that the options choose from the point, in ordinal order, then by template; and the saved names of those they do not.
pub(super) fn choose_claims(point: &StoredPoint, to: &SetName, options: &RestoreOptions) -> Result<(Vec<Chosen>, Vec<String>), Refusal> {
    let short = || point.point.id.short();
    let ordinals: BTreeSet<Ordinal> = point.claims.iter().map(|claim| claim.record.id.ordinal).collect();
    let unknown: Vec<Ordinal> = options.ordinals.iter().filter(|ordinal| !ordinals.contains(ordinal)).copied().collect();
    if !unknown.is_empty() {
        return Err(Refusal::NoSuchOrdinal { point: short(), ordinals: unknown, has: ranges(&ordinals) });
    }
    let matches = |claim: &StoredClaim, wanted: &str| {
        claim.record.id.template == wanted || claim.record.name == wanted || claim.record.id.name(&to.name) == wanted
    };
    if let Some(unknown) = options.claims.iter().find(|wanted| !point.claims.iter().any(|claim| matches(claim, wanted))) {
        let templates: BTreeSet<String> = point.claims.iter().map(|claim| claim.record.id.template.clone()).collect();
        return Err(Refusal::NoSuchClaim { point: short(), claim: unknown.clone(), has: templates.into_iter().collect() });
    }

    let mut chosen = Vec::new();
    let mut left_out = Vec::new();
    let mut not_saved = Vec::new();
    for claim in &point.claims {
        let record = &claim.record;
        let wanted = (options.ordinals.is_empty() || options.ordinals.contains(&record.id.ordinal))
            && (options.claims.is_empty() || options.claims.iter().any(|wanted| matches(claim, wanted)));
        let asked_for = wanted && !(options.ordinals.is_empty() && options.claims.is_empty());
        match (wanted, record.status, claim.tree) {
            (false, ..) => left_out.push(record.name.clone()),
            (true, ClaimStatus::Saved, Some(tree)) => {
                let name = record.id.name(&to.name);
                if !is_claim_name(&name) {
                    return Err(Refusal::BadName { name });
                }
                let (files, bytes) = (record.files, record.bytes);
                let saved_as = record.name.clone();
                let (root, mut shape) = (claim.root.clone(), record.shape.clone());
                if shape.is_block() {
                    // Its claim must have room for all of the image, whatever its volume was said to have.
                    shape.capacity = Some(shape.capacity.unwrap_or(0).max(bytes));
                }
                chosen.push(Chosen { id: record.id.clone(), saved_as, name, tree, root, files, bytes, room: bytes, shape });
            }
            // Of a partial point everything that there is was asked for; a claim named by hand is one that must be there.
            (true, ..) if asked_for => not_saved.push(record.name.clone()),
            (true, ..) => left_out.push(record.name.clone()),
        }
    }
    if !not_saved.is_empty() || chosen.is_empty() {
        let claims = if not_saved.is_empty() { left_out } else { not_saved };
        return Err(Refusal::NotSaved { point: short(), claims });
    }
    chosen.sort_by(|a, b| a.id.cmp(&b.id));
    Ok((chosen, left_out))
}

/// `0 to 2, 5` of numbers in order.
fn ranges(ordinals: &BTreeSet<Ordinal>) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for ordinal in ordinals {
        match spans.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(ordinal.0) => *last = ordinal.0,
            _ => spans.push((ordinal.0, ordinal.0)),
        }
    }
    let spans: Vec<String> =
        spans.into_iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") }).collect();
    if spans.is_empty() { "none".into() } else { spans.join(", ") }
}

/// Paths as movers take them: without leading, trailing and doubled slashes. `..` is refused.
pub(super) fn clean_paths(paths: &[String]) -> Result<Vec<String>, Refusal> {
    let clean = |path: &String| {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.is_empty() || parts.contains(&"..") || path.contains('\0') {
            return Err(Refusal::BadPath { path: path.clone() });
        }
        Ok(parts.join("/"))
    };
    paths.iter().map(clean).collect()
}

/// What is known about where and how, apart from the point and the claims.
pub(super) struct Circumstances {
    pub to: SetName,
    pub targets: Targets,
    pub paths: Vec<String>,
    pub left_out: Vec<String>,
    /// The platform knows how to start ordinals.
    pub can_start: bool,
    pub notes: Vec<String>,
}

/// The plan to fill `chosen` claims of `point`.
pub(super) fn plan(
    point: &StoredPoint,
    chosen: Vec<Chosen>,
    circumstances: Circumstances,
    options: &RestoreOptions,
) -> Result<RestorePlan, Refusal> {
    let Circumstances { to, targets, paths, left_out, can_start, mut notes } = circumstances;
    let create = if options.create_set && targets.running.is_none() { make::objects(point, &to, &options.map_class)? } else { Vec::new() };
    notes.extend(make::class_notes(point, &chosen, &targets, options)?);
    // A set that will have been made is one at 0.
    let made = (!create.is_empty()).then(|| make::at_zero(point));
    let running = targets.running.as_ref().or(made.as_ref());
    let before = what_is_there(&targets, options)?;
    let holds_data = before.contains(&Before::Data);
    // Who names ordinals or claims knows that others stand there.
    let whole = options.ordinals.is_empty() && options.claims.is_empty();
    if whole && !options.allow_extra_claims {
        let known: BTreeSet<String> = point.claims.iter().map(|claim| claim.record.id.name(&to.name)).collect();
        let is_extra = |name: &&String| {
            let template = ClaimId::of_name(name, &to.name).map(|id| id.template);
            let is_ours = template.is_some_and(|template| point.manifest.set.templates.contains(&template));
            is_ours && !known.contains(*name)
        };
        let extra: Vec<String> = targets.foreign.iter().filter(is_extra).cloned().collect();
        if !extra.is_empty() {
            return Err(Refusal::ExtraClaims { place: targets.place, claims: extra });
        }
    }
    if !options.ignore_room {
        refuse_room(&chosen, &targets, &before)?;
    }
    refuse_other_mode(&chosen, &targets)?;
    if !point.manifest.exclude.is_empty() {
        notes.push(format!("the point does not have what was excluded, and it stays as it is: {}", point.manifest.exclude.join(", ")));
    }
    let start = planned_start(point, &chosen, (&to, running), &targets.foreign, can_start, options)?;
    let claims = chosen
        .into_iter()
        .zip(targets.claims.iter().zip(before))
        .map(|(claim, (target, before))| PlannedFill {
            id: claim.id,
            saved_as: claim.saved_as,
            name: claim.name,
            target: target.path.clone(),
            before,
            tree: claim.tree,
            root: claim.root,
            files: claim.files,
            bytes: claim.bytes,
            room: claim.room,
            shape: make::shape(claim.shape, target, &options.map_class),
            exclude: point.manifest.exclude.clone(),
        })
        .collect();
    Ok(RestorePlan {
        point: point.point.id,
        time: point.point.time.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        cluster: point.point.cluster.clone(),
        complete: point.point.complete,
        consistency: point.point.consistency,
        from: point.point.set.clone(),
        to,
        place: targets.place,
        claims,
        paths,
        left_out,
        foreign: targets.foreign,
        safety: options.safety && holds_data,
        skip_damaged: options.skip_damaged,
        parallel: options.parallel.max(1),
        was: targets.running,
        create,
        start,
        notes: notes.into_iter().chain(targets.notes).collect(),
    })
}

/// What each target holds, if it may be filled.
fn what_is_there(targets: &Targets, options: &RestoreOptions) -> Result<Vec<Before>, Refusal> {
    let mut before = Vec::new();
    let mut full = Vec::new();
    for target in &targets.claims {
        before.push(match &target.state {
            TargetState::Absent => Before::Absent,
            TargetState::Empty => Before::Empty,
            TargetState::HoldsData => {
                full.push(target.path.clone());
                Before::Data
            }
            // Half of one point and half of something else is worth no safety point.
            TargetState::HalfRestored(_) if options.replace && !options.safety => Before::Data,
            TargetState::HalfRestored(run) => {
                let (claim, path, in_cluster) = (target.name.clone(), target.path.clone(), targets.in_cluster);
                return Err(Refusal::HalfRestored { claim, path, run: run.clone(), in_cluster });
            }
            TargetState::Obstructed => return Err(Refusal::Obstructed { path: target.path.clone() }),
        });
    }
    if full.is_empty() || options.replace { Ok(before) } else { Err(Refusal::HoldsData { claims: full }) }
}

/// An image needs a device, and files a file system.
fn refuse_other_mode(chosen: &[Chosen], targets: &Targets) -> Result<(), Refusal> {
    let differs = |(claim, target): &(&Chosen, &Target)| {
        target.state != TargetState::Absent && target.shape.volume_mode.is_some() && claim.shape.is_block() != target.shape.is_block()
    };
    let claims: Vec<String> = chosen.iter().zip(&targets.claims).filter(differs).map(|(_, target)| target.name.clone()).collect();
    if claims.is_empty() { Ok(()) } else { Err(Refusal::OtherMode { claims }) }
}

/// Targets on one file system share its room.
fn refuse_room(chosen: &[Chosen], targets: &Targets, before: &[Before]) -> Result<(), Refusal> {
    let mut rooms: BTreeMap<u64, (u64, u64, &str)> = BTreeMap::new();
    for (claim, (target, before)) in chosen.iter().zip(targets.claims.iter().zip(before)) {
        // How large a device is, only its mover sees.
        if let Some(Room { device, bytes }) = target.room.filter(|_| !target.shape.is_block()) {
            let room = rooms.entry(device).or_insert((0, bytes, &target.path));
            // What is replaced gives its room back.
            let freed = if *before == Before::Data { target.used } else { 0 };
            room.0 = room.0.saturating_add(claim.room.saturating_sub(freed));
        }
    }
    match rooms.into_values().find(|(needs, has, _)| needs > has) {
        Some((needs, has, place)) => Err(Refusal::NoRoom { place: place.to_owned(), needs, has }),
        None => Ok(()),
    }
}

/// An ordinal that is neither filled nor there would come up empty, beside peers that are not.
fn refuse_unfilled(
    point: &StoredPoint,
    chosen: &[Chosen],
    ordinals: &[Ordinal],
    (to, set): (&str, &SetRun),
    others: &[String],
) -> Result<(), Refusal> {
    let lacks = |ordinal: &&Ordinal| {
        point.manifest.set.templates.iter().any(|template| {
            let id = ClaimId { ordinal: **ordinal, template: template.clone() };
            !chosen.iter().any(|claim| claim.id == id) && !others.contains(&id.name(to))
        })
    };
    let lacking: Vec<Ordinal> = ordinals.iter().filter(lacks).copied().collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Refusal::Unfilled { point: point.point.id.short(), ordinals: lacking, start: set.start, saved_start: point.manifest.set.start })
}

fn planned_start(
    point: &StoredPoint,
    chosen: &[Chosen],
    (to, running): (&SetName, Option<&SetRun>),
    foreign: &[String],
    can_start: bool,
    options: &RestoreOptions,
) -> Result<PlannedStart, Refusal> {
    let ordinals: BTreeSet<Ordinal> = chosen.iter().map(|claim| claim.id.ordinal).collect();
    let mut ordinals: Vec<Ordinal> = ordinals.into_iter().collect();
    // A set of which only a part is restored is stopped as a whole, and so it comes up as a whole.
    let comes_up_again = running.is_some_and(|set| set.replicas > 0);
    if let Some(set) = running {
        let replicas = if set.replicas > 0 { set.replicas } else { point.manifest.set.replicas };
        ordinals = (0..replicas).map(|number| Ordinal(set.start.saturating_add(number))).collect();
    }
    let can_start = can_start || running.is_some();
    if let (Some(set), true) = (running, options.start != StartMode::None) {
        refuse_unfilled(point, chosen, &ordinals, (&to.name, set), foreign)?;
    }
    match options.start {
        StartMode::None => Ok(PlannedStart::None("as asked".into())),
        StartMode::Ordered | StartMode::Parallel if !can_start => Err(Refusal::CannotStart { set: to.to_string() }),
        StartMode::Ordered => Ok(PlannedStart::Ordered(ordinals)),
        StartMode::Parallel => Ok(PlannedStart::Parallel(ordinals)),
        StartMode::AsSet if !can_start => Ok(PlannedStart::None("nothing here is known to start them".into())),
        StartMode::AsSet if !comes_up_again && (!options.claims.is_empty() || !options.paths.is_empty()) => {
            Ok(PlannedStart::None("only a part of the volumes is restored".into()))
        }
        StartMode::AsSet => {
            let recorded = || point.manifest.set.pod_management_policy.as_deref() == Some("Parallel");
            let at_once = options.starts_at_once.or(running.map(|set| set.at_once)).unwrap_or_else(recorded);
            Ok(if at_once { PlannedStart::Parallel(ordinals) } else { PlannedStart::Ordered(ordinals) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::points::sample;

    fn web() -> SetName {
        "shop/web".parse().unwrap()
    }

    /// Ordinals 9 to 11 with two templates.
    fn point() -> StoredPoint {
        let claims: Vec<_> = (9..12).flat_map(|ordinal| [sample::claim("data", ordinal), sample::claim("wal", ordinal)]).collect();
        sample::point(7, &claims)
    }

    fn options() -> RestoreOptions {
        RestoreOptions { parallel: 2, ..RestoreOptions::default() }
    }

    fn made(point: &StoredPoint, options: &RestoreOptions, change: impl FnOnce(&mut Circumstances)) -> Result<RestorePlan, Refusal> {
        let to = options.to.clone().unwrap_or_else(web);
        let (chosen, left_out) = choose_claims(point, &to, options)?;
        let claims = chosen
            .iter()
            .map(|claim| Target {
                name: claim.name.clone(),
                path: format!("/srv/{}", claim.name),
                state: TargetState::Absent,
                room: Some(Room { device: 1, bytes: 1 << 30 }),
                used: 0,
                shape: ClaimShape::default(),
            })
            .collect();
        let targets = Targets { place: "/srv".into(), claims, ..Targets::default() };
        let mut circumstances = Circumstances { to, targets, paths: Vec::new(), left_out, can_start: true, notes: Vec::new() };
        change(&mut circumstances);
        plan(point, chosen, circumstances, options)
    }

    fn names(plan: &RestorePlan) -> Vec<&str> {
        plan.claims.iter().map(|claim| claim.name.as_str()).collect()
    }

    #[test]
    fn all_claims_come_back_in_ordinal_order_as_numbers() {
        let plan = made(&point(), &options(), |_| ()).unwrap();
        assert_eq!(names(&plan), ["data-web-9", "wal-web-9", "data-web-10", "wal-web-10", "data-web-11", "wal-web-11"]);
        assert_eq!(plan.start, PlannedStart::Ordered(vec![Ordinal(9), Ordinal(10), Ordinal(11)]));
        assert_eq!(plan.left_out, Vec::<String>::new());
    }

    #[test]
    fn fewer_ordinals_can_be_asked_for_and_the_rest_is_named() {
        let some = RestoreOptions { ordinals: vec![Ordinal(10)], ..options() };
        let plan = made(&point(), &some, |_| ()).unwrap();
        assert_eq!(names(&plan), ["data-web-10", "wal-web-10"]);
        assert_eq!(plan.left_out, ["data-web-9", "wal-web-9", "data-web-11", "wal-web-11"]);
        assert_eq!(plan.start, PlannedStart::Ordered(vec![Ordinal(10)]));
    }

    #[test]
    fn more_ordinals_than_were_saved_are_refused_with_what_there_is() {
        let more = RestoreOptions { ordinals: vec![Ordinal(11), Ordinal(12)], ..options() };
        let refusal = made(&point(), &more, |_| ()).unwrap_err();
        assert_eq!(refusal.to_string(), "point 07070707 has no ordinal 12: it has 9 to 11");
    }

    #[test]
    fn a_claim_is_chosen_by_its_template_or_by_its_name() {
        let by_template = RestoreOptions { claims: vec!["wal".into()], ..options() };
        assert_eq!(names(&made(&point(), &by_template, |_| ()).unwrap()), ["wal-web-9", "wal-web-10", "wal-web-11"]);
        let by_name = RestoreOptions { claims: vec!["data-web-10".into()], ..options() };
        assert_eq!(names(&made(&point(), &by_name, |_| ()).unwrap()), ["data-web-10"]);
        let unknown = RestoreOptions { claims: vec!["logs".into()], ..options() };
        let refusal = made(&point(), &unknown, |_| ()).unwrap_err();
        assert_eq!(refusal.to_string(), "point 07070707 has no claim or template logs: it has data, wal");
    }

    #[test]
    fn another_name_for_the_set_renames_every_claim_and_no_ordinal() {
        let renamed = RestoreOptions { to: Some("test/web-copy".parse().unwrap()), ordinals: vec![Ordinal(10)], ..options() };
        let plan = made(&point(), &renamed, |_| ()).unwrap();
        assert_eq!(names(&plan), ["data-web-copy-10", "wal-web-copy-10"]);
        assert_eq!(plan.claims[0].saved_as, "data-web-10");
    }

    #[test]
    fn a_target_that_holds_data_is_refused_with_the_flag_that_helps() {
        let refusal = made(&point(), &options(), |c| c.targets.claims[3].state = TargetState::HoldsData).unwrap_err();
        assert_eq!(refusal.to_string(), "targets hold data: /srv/wal-web-10");
        assert!(refusal.hint().unwrap().contains("--into"));
        assert!(refusal.hint().unwrap().contains("--replace"));
        assert!(made(&point(), &options(), |c| c.targets.claims[3].state = TargetState::Empty).is_ok());
    }

    #[test]
    fn data_is_replaced_where_that_is_asked_for_and_made_safe_unless_that_is_given_up() {
        let full = |c: &mut Circumstances| c.targets.claims[3].state = TargetState::HoldsData;
        let replace = RestoreOptions { replace: true, ..options() };
        let plan = made(&point(), &replace, full).unwrap();
        assert_eq!(
            plan.claims.iter().filter(|claim| claim.before == Before::Data).map(|claim| &*claim.name).collect::<Vec<_>>(),
            ["wal-web-10"]
        );
        assert!(plan.safety);
        assert!(!made(&point(), &replace, |_| ()).unwrap().safety, "there is nothing to be made safe");
        assert!(!made(&point(), &RestoreOptions { safety: false, ..replace.clone() }, full).unwrap().safety);
        let half = |c: &mut Circumstances| c.targets.claims[0].state = TargetState::HalfRestored("run-3".into());
        assert!(matches!(made(&point(), &replace, half), Err(Refusal::HalfRestored { .. })));
        assert!(made(&point(), &RestoreOptions { safety: false, ..replace }, half).is_ok());
    }

    #[test]
    fn what_is_replaced_gives_its_room_back() {
        let replace = RestoreOptions { replace: true, ..options() };
        let tight = |bytes, used| {
            move |c: &mut Circumstances| {
                c.targets.claims.iter_mut().for_each(|t| t.room = Some(Room { device: 1, bytes }));
                c.targets.claims[3].state = TargetState::HoldsData;
                c.targets.claims[3].used = used;
            }
        };
        assert!(made(&point(), &replace, tight(5000, 1000)).is_ok());
        assert!(matches!(made(&point(), &replace, tight(5000, 999)), Err(Refusal::NoRoom { needs: 5001, .. })));
        assert!(
            matches!(made(&point(), &replace, tight(4999, 9000)), Err(Refusal::NoRoom { needs: 5000, .. })),
            "one claim's room is not another's"
        );
    }

    #[test]
    fn a_half_restored_or_obstructed_target_is_refused() {
        let half = TargetState::HalfRestored("run-3".into());
        assert!(matches!(made(&point(), &options(), |c| c.targets.claims[0].state = half), Err(Refusal::HalfRestored { .. })));
        let file = TargetState::Obstructed;
        assert!(matches!(made(&point(), &options(), |c| c.targets.claims[0].state = file), Err(Refusal::Obstructed { .. })));
    }

    #[test]
    fn a_foreign_folder_is_left_alone_and_a_claim_that_the_point_lacks_is_asked_about() {
        let foreign = |c: &mut Circumstances| c.targets.foreign = vec!["notes".into(), "data-db-0".into(), "logs-web-12".into()];
        assert_eq!(made(&point(), &options(), foreign).unwrap().foreign.len(), 3);
        let extra = |c: &mut Circumstances| c.targets.foreign = vec!["data-web-12".into(), "notes".into()];
        let refusal = made(&point(), &options(), extra).unwrap_err();
        assert_eq!(refusal, Refusal::ExtraClaims { place: "/srv".into(), claims: vec!["data-web-12".into()] });
        assert!(refusal.hint().unwrap().contains("--allow-extra-claims"));
        assert!(made(&point(), &RestoreOptions { allow_extra_claims: true, ..options() }, extra).is_ok());
        let one = RestoreOptions { ordinals: vec![Ordinal(9)], ..options() };
        assert!(made(&point(), &one, extra).is_ok(), "who names an ordinal knows that others stand there");
    }

    #[test]
    fn targets_on_one_file_system_share_its_room() {
        let tight = |bytes| move |c: &mut Circumstances| c.targets.claims.iter_mut().for_each(|t| t.room = Some(Room { device: 1, bytes }));
        assert!(made(&point(), &options(), tight(6000)).is_ok());
        let refusal = made(&point(), &options(), tight(5999)).unwrap_err();
        assert!(matches!(refusal, Refusal::NoRoom { needs: 6000, has: 5999, .. }), "{refusal}");
        assert!(made(&point(), &RestoreOptions { ignore_room: true, ..options() }, tight(0)).is_ok());
        let apart = |c: &mut Circumstances| {
            for (device, target) in c.targets.claims.iter_mut().enumerate() {
                target.room = Some(Room { device: device as u64, bytes: 1000 });
            }
        };
        assert!(made(&point(), &options(), apart).is_ok());
    }

    #[test]
    fn what_a_partial_point_lacks_is_left_out_and_refused_where_it_is_asked_for() {
        let mut claims = vec![sample::claim("data", 0), sample::claim("data", 1)];
        claims[1].status = ClaimStatus::Missing;
        let partial = sample::point(7, &claims);
        let plan = made(&partial, &options(), |_| ()).unwrap();
        assert_eq!((names(&plan), plan.left_out.clone()), (vec!["data-web-0"], vec!["data-web-1".to_owned()]));
        let asked = RestoreOptions { ordinals: vec![Ordinal(1)], ..options() };
        assert_eq!(made(&partial, &asked, |_| ()).unwrap_err().to_string(), "point 07070707 does not hold data-web-1");
    }

    #[test]
    fn ordinals_start_as_the_set_says_unless_somebody_says_otherwise() {
        let all = vec![Ordinal(9), Ordinal(10), Ordinal(11)];
        let start = |options: &RestoreOptions, policy: Option<&str>, can_start| {
            let mut point = point();
            point.manifest.set.pod_management_policy = policy.map(str::to_owned);
            made(&point, options, |c| c.can_start = can_start).map(|plan| plan.start)
        };
        assert_eq!(start(&options(), Some("Parallel"), true), Ok(PlannedStart::Parallel(all.clone())));
        assert_eq!(start(&options(), Some("OrderedReady"), true), Ok(PlannedStart::Ordered(all.clone())));
        assert!(matches!(start(&options(), None, false), Ok(PlannedStart::None(_))));
        let told = RestoreOptions { starts_at_once: Some(true), ..options() };
        assert_eq!(start(&told, Some("OrderedReady"), true), Ok(PlannedStart::Parallel(all.clone())));
        let ordered = RestoreOptions { start: StartMode::Ordered, ..options() };
        assert_eq!(start(&ordered, Some("Parallel"), true), Ok(PlannedStart::Ordered(all)));
        assert!(matches!(start(&ordered, None, false), Err(Refusal::CannotStart { .. })));
        let none = RestoreOptions { start: StartMode::None, ..options() };
        assert!(matches!(start(&none, None, true), Ok(PlannedStart::None(_))));
        let part = RestoreOptions { claims: vec!["wal".into()], ..options() };
        assert!(matches!(start(&part, None, true), Ok(PlannedStart::None(_))));
    }

    #[test]
    fn a_claim_that_is_made_is_never_smaller_than_it_was_nor_than_the_set_wants_it_and_of_the_class_that_was_asked_for() {
        let shape = |class: &str, capacity| ClaimShape { class: Some(class.into()), capacity: Some(capacity), ..ClaimShape::default() };
        let mut claims = [sample::claim("data", 0), sample::claim("data", 1)];
        claims.iter_mut().for_each(|claim| claim.shape = shape("slow", 2000));
        let point = sample::point(7, &claims);
        let mapped = RestoreOptions { map_class: [("slow".to_owned(), "fast".to_owned())].into(), ..options() };
        let plan = made(&point, &mapped, |c| {
            c.targets.claims[0].shape.capacity = Some(3000);
            (c.targets.claims[1].state, c.targets.claims[1].shape) = (TargetState::Empty, shape("slow", 2000));
        })
        .unwrap();
        let shapes: Vec<_> = plan.claims.iter().map(|claim| (claim.shape.class.as_deref(), claim.shape.capacity)).collect();
        assert_eq!(shapes, [(Some("fast"), Some(3000)), (Some("slow"), Some(2000))], "one that is there stays what it is");
        let unknown = RestoreOptions { map_class: [("other".to_owned(), "fast".to_owned())].into(), ..options() };
        assert_eq!(made(&point, &unknown, |_| ()).unwrap_err().to_string(), "no claim of point 07070707 has class other: there is slow");
    }

    #[test]
    fn a_set_that_is_not_there_is_made_at_0_as_it_was_recorded_if_somebody_asks_for_it() {
        let mut point = point();
        let asked = RestoreOptions { create_set: true, ..options() };
        let nothing_starts = |c: &mut Circumstances| c.can_start = false;
        assert!(matches!(made(&point, &asked, nothing_starts), Err(Refusal::NoObjects { .. })));
        (point.manifest.set.start, point.manifest.set.replicas) = (9, 3);
        point.manifest.set.objects = vec![
            serde_json::json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "web", "namespace": "shop" },
                "spec": { "replicas": 3, "volumeClaimTemplates": [{ "spec": { "storageClassName": "slow" } }] } }),
            serde_json::json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "shop" }, "spec": {} }),
            serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "web" } }),
        ];
        let to = RestoreOptions { to: Some("test/web".parse().unwrap()), ..asked.clone() };
        let plan = made(&point, &to, nothing_starts).unwrap();
        let kinds: Vec<&str> = plan.create.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Service", "StatefulSet"], "nothing else is made of what a bucket says");
        assert!(plan.create.iter().all(|object| object["metadata"]["namespace"] == "test"));
        assert_eq!(plan.create[1]["spec"]["replicas"], 0);
        assert_eq!(plan.start, PlannedStart::Ordered(vec![Ordinal(9), Ordinal(10), Ordinal(11)]));
        assert!(plan.was.is_none() && plan.lines().iter().any(|line| line.contains("\"StatefulSet\"")), "{:?}", plan.lines());
        let renamed = RestoreOptions { to: Some("test/copy".parse().unwrap()), ..asked.clone() };
        assert!(matches!(made(&point, &renamed, nothing_starts), Err(Refusal::CreateRenamed { .. })));
        let there = made(&point, &asked, |c| c.targets.running = Some(SetRun { start: 9, replicas: 0, ..SetRun::default() })).unwrap();
        assert_eq!(there.create, Vec::<Value>::new(), "a set that is there is not made");
    }

    #[test]
    fn paths_stay_below_the_claims_root() {
        assert_eq!(clean_paths(&["/a//b/./c/".into()]), Ok(vec!["a/b/c".to_owned()]));
        for bad in ["", "/", ".", "..", "a/../b", "a\0b"] {
            assert!(matches!(clean_paths(&[bad.into()]), Err(Refusal::BadPath { .. })), "{bad}");
        }
    }

    #[test]
    fn the_plan_reads_well() {
        let some = RestoreOptions { ordinals: vec![Ordinal(9), Ordinal(10)], claims: vec!["data".into()], ..options() };
        let plan = made(&point(), &some, |c| c.notes = vec!["newer, but partial and so passed over: 08080808".into()]).unwrap();
        assert_eq!(
            plan.lines(),
            [
                "restore shop/web of cluster here from point 07070707",
                &format!("the point is complete, of {}", crate::clock::shown_text("2026-11-24T07:00:00Z")),
                "into /srv: 2 ordinals, 2 claims",
                "  ordinal 9: data-web-9 (1000 B in 10 files)",
                "  ordinal 10: data-web-10 (1000 B in 10 files)",
                "up to 2 ordinals at a time",
                "then start nothing: only a part of the volumes is restored",
                "in the point, not restored: wal-web-9, wal-web-10, data-web-11, wal-web-11",
                "newer, but partial and so passed over: 08080808",
            ]
        );
    }
}
