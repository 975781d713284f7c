//! Why a restore must not be, in words and with the way on.

use std::fmt;

use crate::model::set::Ordinal;

/// As many names as a message lists.
const NAMED: usize = 8;

/// Why nothing is touched. The hint names the flag that overrides it, where one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuchOrdinal {
        point: String,
        ordinals: Vec<Ordinal>,
        has: String,
    },
    NoSuchClaim {
        point: String,
        claim: String,
        has: Vec<String>,
    },
    NotSaved {
        point: String,
        claims: Vec<String>,
    },
    BadPath {
        path: String,
    },
    NoSuchPath {
        point: String,
        path: String,
    },
    BadName {
        name: String,
    },
    HoldsData {
        claims: Vec<String>,
    },
    HalfRestored {
        claim: String,
        path: String,
        run: String,
        in_cluster: bool,
    },
    Obstructed {
        path: String,
    },
    ExtraClaims {
        place: String,
        claims: Vec<String>,
    },
    /// What a claim holds is another ordinal's.
    Moved {
        point: String,
        claims: Vec<String>,
    },
    /// Block for files, or the other way round.
    OtherMode {
        claims: Vec<String>,
    },
    NoSuchClass {
        point: String,
        class: String,
        has: Vec<String>,
    },
    /// The point has no record of the set that another could be made of.
    NoObjects {
        point: String,
    },
    CreateRenamed {
        from: String,
        to: String,
    },
    NoRoom {
        place: String,
        needs: u64,
        has: u64,
    },
    CannotStart {
        set: String,
    },
    /// Ordinals would be started whose claims the restore neither fills nor finds.
    Unfilled {
        point: String,
        ordinals: Vec<Ordinal>,
        start: u32,
        saved_start: u32,
    },
    /// A restore of the set is open.
    Open {
        set: String,
        run: String,
        phase: &'static str,
    },
    NotOpen {
        set: String,
    },
    OtherRun {
        run: String,
        asked: String,
    },
    OtherSet {
        open: String,
        asked: String,
    },
    /// All that is left is to close the journal.
    Done {
        run: String,
    },
    BadJournal {
        set: String,
        reason: String,
    },
    BeingUndone {
        run: String,
    },
    AlreadyStarted {
        run: String,
    },
    NoWayBack {
        claims: Vec<String>,
    },
    /// The point is not what it was when the restore began.
    PointChanged {
        point: String,
        claim: String,
    },
    SafetyPartial {
        point: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuchOrdinal { point, ordinals, has } => {
                let asked: Vec<String> = ordinals.iter().map(Ordinal::to_string).collect();
                write!(f, "point {point} has no ordinal {}: it has {has}", asked.join(", "))
            }
            Refusal::NoSuchClaim { point, claim, has } => {
                write!(f, "point {point} has no claim or template {claim}: it has {}", listed(has))
            }
            Refusal::NotSaved { point, claims } => write!(f, "point {point} does not hold {}", listed(claims)),
            Refusal::BadPath { path } => write!(f, "`{}` is no path below a claim's root", path.escape_debug()),
            Refusal::NoSuchPath { point, path } => write!(f, "point {point} has no `{}` in any of the chosen claims", path.escape_debug()),
            Refusal::BadName { name } => write!(f, "`{}` cannot be a claim's name", name.escape_debug()),
            Refusal::HoldsData { claims } => write!(f, "targets hold data: {}", listed(claims)),
            Refusal::HalfRestored { claim, path, run, .. } => write!(f, "claim {claim} at {path} was left half restored by {run}"),
            Refusal::Obstructed { path } => write!(f, "{path} is in the way: it is no folder, or a claim that is being deleted"),
            Refusal::ExtraClaims { place, claims } => {
                write!(f, "{place} holds claims of the set that the point does not have: {}", listed(claims))
            }
            Refusal::Moved { point, claims } => {
                write!(f, "volumes are under other ordinals than in the set's last point {point}: {}", listed(claims))
            }
            Refusal::OtherMode { claims } => {
                write!(f, "claims have another volumeMode (Block or Filesystem) than in the point: {}", listed(claims))
            }
            Refusal::NoSuchClass { point, class, has } => {
                write!(f, "no claim of point {point} has class {class}: there is {}", listed(has))
            }
            Refusal::NoObjects { point } => write!(f, "point {point} has no record of a StatefulSet"),
            Refusal::CreateRenamed { from, to } => {
                write!(f, "set {from} cannot be made under the name {to}: its labels and Service would be those of {from}")
            }
            Refusal::NoRoom { place, needs, has } => write!(f, "{place} has room for {has} bytes and {needs} are needed"),
            Refusal::Unfilled { point, ordinals, start, saved_start } => {
                let ordinals: Vec<String> = ordinals.iter().map(Ordinal::to_string).collect();
                write!(f, "ordinals would start with nothing in their claims, which point {point} does not have: {}", listed(&ordinals))?;
                if start == saved_start { Ok(()) } else { write!(f, " (the set begins at {start}, in the point at {saved_start})") }
            }
            Refusal::CannotStart { set } => write!(f, "no start command is known for set {set}"),
            Refusal::Open { set, run, phase } => write!(f, "restore {run} of set {set} is open: {phase}"),
            Refusal::NotOpen { set } => write!(f, "no restore of set {set} is open here"),
            Refusal::OtherRun { run, asked } => write!(f, "the open restore is {run}, not {asked}"),
            Refusal::OtherSet { open, asked } => write!(f, "the open restore here is one of {open}, not of {asked}"),
            Refusal::Done { run } => write!(f, "restore {run} is done, with every claim filled and nothing to be started"),
            Refusal::BadJournal { set, reason } => write!(f, "the journal of the open restore of set {set} cannot be followed: {reason}"),
            Refusal::BeingUndone { run } => write!(f, "restore {run} is being undone"),
            Refusal::AlreadyStarted { run } => write!(f, "ordinals have been started since restore {run} filled their claims"),
            Refusal::NoWayBack { claims } => write!(f, "no safety point holds what was in {}", listed(claims)),
            Refusal::PointChanged { point, claim } => {
                write!(f, "point {point} does not hold the same claim {claim} as when the restore began")
            }
            Refusal::SafetyPartial { point } => write!(f, "not all that the targets hold could be read: safety point {point} is partial"),
        }
    }
}

impl Refusal {
    /// The way on.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Refusal::NoSuchOrdinal { .. } => "leave `--ordinal` out to restore all that the point has, or choose another `--point`".into(),
            Refusal::NoSuchClaim { .. } => "name a template, or a claim as `keepset show` does".into(),
            Refusal::NotSaved { .. } => "choose the others with `--claim` or `--ordinal`, or an older `--point`".into(),
            Refusal::BadPath { .. } => "give it as `dir/file`, without `..`".into(),
            Refusal::NoSuchPath { .. } => "`keepset ls POINT CLAIM` shows what is there".into(),
            Refusal::BadName { .. } => "choose a shorter `--to`".into(),
            Refusal::HoldsData { .. } => "say `--replace`: it seals what they hold in a safety point, then makes them equal to the point; or choose another name with `--to`, or an empty folder with `--into`".into(),
            Refusal::HalfRestored { path, in_cluster: true, .. } => {
                let (namespace, claim) = path.split_once('/').unwrap_or(("", path));
                format!(
                    "`--replace --no-safety` makes it equal to a point; or, once you know that it is whole: `kubectl --namespace {namespace} annotate persistentvolumeclaim {claim} keepset.dev/half-restored-`"
                )
            }
            Refusal::HalfRestored { claim, path, .. } => {
                format!(
                    "`--replace --no-safety` makes it equal to a point; or remove {path} and `.keepset-incomplete-{claim}` beside it; or choose another `--into`"
                )
            }
            Refusal::Obstructed { .. } => "move it away, or choose another place with `--into`".into(),
            Refusal::ExtraClaims { .. } => "they would be started beside older data: move them away, or say `--allow-extra-claims`".into(),
            Refusal::Moved { .. } => "put them back under their own claims; or say `--allow-moved-volumes`, and what they hold is replaced all the same".into(),
            Refusal::OtherMode { .. } => "restore into other claims, or with `--into` into a folder".into(),
            Refusal::NoSuchClass { .. } => "`keepset show` tells the class of each claim".into(),
            Refusal::NoObjects { .. } => "make the set by your own means; it adopts the claims".into(),
            Refusal::CreateRenamed { .. } => "leave `--create-set` out and make the set by your own means; it adopts the claims".into(),
            Refusal::NoRoom { .. } => "make room, choose another place with `--into`, or say `--ignore-room`".into(),
            Refusal::Unfilled { .. } => "give the set the point's ordinals, or say `--start none` and start it by hand".into(),
            Refusal::CannotStart { .. } => "set one in the settings, or say `--start none`".into(),
            Refusal::Open { .. } => "`keepset restore` with `--resume` goes on with it, with `--undo` takes it back".into(),
            Refusal::NotOpen { .. } => "leave `--resume` and `--undo` out to begin one".into(),
            Refusal::OtherRun { .. } => "leave the run out, or name that one".into(),
            Refusal::OtherSet { open, .. } => format!("name it: `keepset restore {open}` with `--resume` or `--undo`"),
            Refusal::Done { .. } => "`--resume` closes it; the way back is a restore of the safety point".into(),
            Refusal::BadJournal { set, .. } => {
                let name = set.rsplit('/').next().unwrap_or(set);
                format!(
                    "a later version of keepset may follow it; if nothing can, move it away (the ConfigMap `keepset-restore-{name}`, or among folders `.keepset-restore-{name}`) and `--replace` all claims"
                )
            }
            Refusal::BeingUndone { .. } => "`--undo` goes on with that".into(),
            Refusal::AlreadyStarted { .. } => {
                "`--resume` starts the rest, `--resume --start none` leaves it at that; the way back is a restore of the safety point".into()
            }
            Refusal::NoWayBack { .. } => {
                "`--resume` finishes the restore; `--undo --no-safety` takes the other claims back and leaves these half restored".into()
            }
            Refusal::PointChanged { .. } => "another program rewrote it; `--undo` takes the restore back".into(),
            Refusal::SafetyPartial { .. } => "`--no-safety` goes on without a way back to what is there".into(),
        })
    }
}

pub(super) fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}
