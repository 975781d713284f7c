//! The journal of a restore: what it set out to do and how far it came, a line for each step, written before the step is taken.
//!
//! Whoever comes after a restore that died reads it and either goes on or takes back. What may follow what is a table ([`TABLE`]); a
//! journal that breaks it was not written by a restore.

use serde::{Deserialize, Serialize};

use crate::model::id::Id;
use crate::model::set::{Ordinal, SetName};

/// Journals of a later version are refused.
pub const VERSION: u32 = 1;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// The first line: nothing has been touched yet.
    Opened(Box<Opening>),
    /// What these claims hold, which nobody has touched yet, is sealed in this safety point. One that died before it touched them is no
    /// reason to believe that they still hold that: whoever goes on says it again.
    Safe { point: Id, claims: Vec<String> },
    /// The claim is about to be filled.
    Filling { claim: String },
    /// The claim is filled, proven and on its device.
    Filled {
        claim: String,
        files: u64,
        bytes: u64,
        /// How many things about it did not go as they should.
        problems: u64,
    },
    /// What was put into the claim is away again; it holds what it held before.
    TakenBack { claim: String },
    /// The gate: every claim is filled.
    Proven,
    /// Ordinals are about to be started.
    Starting,
    /// The ordinal is started and ready.
    Started { ordinal: Ordinal },
    /// Not every ordinal got ready.
    Unready,
    /// What was filled is about to be taken back.
    Undoing,
}

/// What a restore set out to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    pub version: u32,
    pub run: String,
    /// When it began, RFC 3339.
    pub time: String,
    /// The set as it will be called.
    pub set: SetName,
    pub point: Id,
    pub claims: Vec<Intent>,
    /// False where the user gave up the way back of claims that hold data.
    pub safety: bool,
    /// The whole plan, in the words of whoever carries it out.
    pub plan: serde_json::Value,
}

/// One claim that is to be filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    pub name: String,
    pub before: Before,
}

/// What a claim held before anything was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Before {
    /// It did not exist.
    Absent,
    /// Nothing, an empty `lost+found` at the root aside.
    Empty,
    Data,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nothing is touched.
    Opened,
    /// Nothing is touched, and a safety point holds what there is.
    Safe,
    Filling,
    /// Every claim is filled and nothing is started.
    Proven,
    /// Ordinals are being started, or some were when the restore died.
    Starting,
    /// Every claim is filled; some ordinals did not get ready in time.
    Unready,
    /// Claims are being taken back.
    Undoing,
}

/// How far one claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It holds what it held before.
    Untouched,
    Filling,
    /// With what [`Step::Filled`] told.
    Filled {
        files: u64,
        bytes: u64,
        problems: u64,
    },
}

/// The kinds of [`Step`] after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Safe,
    Filling,
    Filled,
    TakenBack,
    Proven,
    Starting,
    Started,
    Unready,
    Undoing,
}

/// From which phase which step leads to which phase; everything else is illegal. Once ordinals have been started nothing leads back:
/// their data is the users' again.
pub const TABLE: &[(Phase, Verb, Phase)] = &[
    (Phase::Opened, Verb::Safe, Phase::Safe),
    (Phase::Opened, Verb::Filling, Phase::Filling),
    (Phase::Safe, Verb::Safe, Phase::Safe),
    (Phase::Safe, Verb::Filling, Phase::Filling),
    (Phase::Filling, Verb::Safe, Phase::Filling),
    (Phase::Filling, Verb::Filling, Phase::Filling),
    (Phase::Filling, Verb::Filled, Phase::Filling),
    (Phase::Filling, Verb::TakenBack, Phase::Filling),
    (Phase::Filling, Verb::Proven, Phase::Proven),
    (Phase::Proven, Verb::Starting, Phase::Starting),
    (Phase::Starting, Verb::Started, Phase::Starting),
    (Phase::Starting, Verb::Starting, Phase::Starting),
    (Phase::Starting, Verb::Unready, Phase::Unready),
    (Phase::Unready, Verb::Starting, Phase::Starting),
    (Phase::Opened, Verb::Undoing, Phase::Undoing),
    (Phase::Safe, Verb::Undoing, Phase::Undoing),
    (Phase::Filling, Verb::Undoing, Phase::Undoing),
    (Phase::Proven, Verb::Undoing, Phase::Undoing),
    (Phase::Undoing, Verb::TakenBack, Phase::Undoing),
];

/// A journal that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJournal {
    #[error("line {line} cannot be read: {reason}")]
    Line { line: usize, reason: String },
    #[error("{step} cannot follow while it is {phase}")]
    Illegal { step: String, phase: &'static str },
    #[error("it was written by a later version of keepset")]
    Later,
}

/// A journal as far as it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    opening: Opening,
    phase: Phase,
    claims: Vec<Progress>,
    /// For each claim, what it held.
    safety: Vec<Option<Id>>,
    started: Vec<Ordinal>,
}

impl Step {
    /// As a line of the journal, with its end.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("text and numbers always serialise");
        line.push('\n');
        line
    }

    fn verb(&self) -> Option<Verb> {
        Some(match self {
            Step::Opened(_) => return None,
            Step::Safe { .. } => Verb::Safe,
            Step::Filling { .. } => Verb::Filling,
            Step::Filled { .. } => Verb::Filled,
            Step::TakenBack { .. } => Verb::TakenBack,
            Step::Proven => Verb::Proven,
            Step::Starting => Verb::Starting,
            Step::Started { .. } => Verb::Started,
            Step::Unready => Verb::Unready,
            Step::Undoing => Verb::Undoing,
        })
    }
}

impl Progress {
    pub fn is_filled(self) -> bool {
        matches!(self, Progress::Filled { .. })
    }
}

impl Phase {
    /// For people: `the restore is …`.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Opened | Phase::Safe => "opened, nothing touched",
            Phase::Filling => "half filled",
            Phase::Proven => "filled and proven, nothing started",
            Phase::Starting => "starting",
            Phase::Unready => "filled and proven, not every ordinal ready",
            Phase::Undoing => "half undone",
        }
    }
}

impl Journal {
    /// A journal of its first line alone.
    pub fn new(opening: Opening) -> Self {
        let claims = vec![Progress::Untouched; opening.claims.len()];
        let safety = vec![None; opening.claims.len()];
        Journal { opening, phase: Phase::Opened, claims, safety, started: Vec::new() }
    }

    /// Follows a journal's text. A last line without its end was being written when the writer died and counts for nothing; `None` where
    /// that leaves no line at all.
    pub fn read(text: &str) -> Result<Option<Self>, BadJournal> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut journal: Option<Journal> = None;
        for (number, line) in whole.lines().enumerate() {
            let bad = |reason: String| BadJournal::Line { line: number + 1, reason };
            let step: Step = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
            match (&mut journal, step) {
                (None, Step::Opened(opening)) if opening.version > VERSION => return Err(BadJournal::Later),
                (None, Step::Opened(opening)) => journal = Some(Journal::new(*opening)),
                (None, _) => return Err(bad("it is not the beginning of a restore".into())),
                (Some(journal), step) => journal.follow(&step)?,
            }
        }
        Ok(journal)
    }

    /// Takes one step, if the table and the claims' own progress allow it; changes nothing otherwise.
    pub fn follow(&mut self, step: &Step) -> Result<(), BadJournal> {
        let illegal = || BadJournal::Illegal { step: step.to_line().trim_end().to_owned(), phase: self.phase.word() };
        let verb = step.verb().ok_or_else(illegal)?;
        let row = TABLE.iter().find(|(from, by, _)| (*from, *by) == (self.phase, verb)).ok_or_else(illegal)?;
        let place = |claim: &String| self.opening.claims.iter().position(|intent| intent.name == *claim).ok_or_else(illegal);
        match step {
            Step::Filling { claim } => {
                let place = place(claim)?;
                let not_safe_yet = self.opening.safety && self.opening.claims[place].before == Before::Data && self.safety[place].is_none();
                if not_safe_yet {
                    return Err(illegal());
                }
                self.claims[place] = Progress::Filling;
            }
            Step::Filled { claim, files, bytes, problems } => {
                let place = place(claim)?;
                if self.claims[place] != Progress::Filling {
                    return Err(illegal());
                }
                self.claims[place] = Progress::Filled { files: *files, bytes: *bytes, problems: *problems };
            }
            Step::TakenBack { claim } => {
                let place = place(claim)?;
                self.claims[place] = Progress::Untouched;
            }
            Step::Proven if !self.claims.iter().all(|claim| claim.is_filled()) => return Err(illegal()),
            Step::Safe { point, claims } => {
                let places = claims.iter().map(place).collect::<Result<Vec<_>, _>>()?;
                if places.iter().any(|place| self.claims[*place] != Progress::Untouched) {
                    return Err(illegal());
                }
                places.into_iter().for_each(|place| self.safety[place] = Some(*point));
            }
            Step::Started { ordinal } => self.started.push(*ordinal),
            _ => {}
        }
        self.phase = row.2;
        Ok(())
    }

    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The safety point that holds what the claim held.
    pub fn safety_of(&self, claim: &str) -> Option<Id> {
        let place = self.opening.claims.iter().position(|intent| intent.name == claim)?;
        self.safety[place]
    }

    /// The last safety point that was made.
    pub fn safety_point(&self) -> Option<Id> {
        self.safety.iter().rev().find_map(|point| *point)
    }

    /// The ordinals that were started and ready, in that order.
    pub fn started(&self) -> &[Ordinal] {
        &self.started
    }

    /// The claims with how far each is, in the opening's order.
    pub fn claims(&self) -> impl Iterator<Item = (&Intent, Progress)> {
        self.opening.claims.iter().zip(self.claims.iter().copied())
    }

    pub fn progress(&self, claim: &str) -> Option<Progress> {
        self.claims().find(|(intent, _)| intent.name == claim).map(|(_, progress)| progress)
    }

    /// No claim holds anything but what it held before.
    pub fn is_untouched(&self) -> bool {
        self.claims.iter().all(|claim| *claim == Progress::Untouched)
    }

    /// Claims that were there before have been opened to be changed, whatever they hold now: who read the set before may have read some
    /// of them since.
    pub fn may_disturb(&self) -> bool {
        let was_there = self.opening.claims.iter().any(|claim| claim.before != Before::Absent);
        was_there && !matches!(self.phase, Phase::Opened | Phase::Safe)
    }

    /// Every claim holds the whole of its point: what is open is only the start.
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Proven | Phase::Starting | Phase::Unready)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opening(claims: &[(&str, Before)]) -> Opening {
        Opening {
            version: VERSION,
            run: "run-1".into(),
            time: "2026-11-24T08:00:00Z".into(),
            set: "shop/web".parse().unwrap(),
            point: Id([7; 32]),
            claims: claims.iter().map(|(name, before)| Intent { name: (*name).to_owned(), before: *before }).collect(),
            safety: true,
            plan: serde_json::Value::Null,
        }
    }

    fn two() -> Journal {
        Journal::new(opening(&[("data-web-0", Before::Data), ("data-web-1", Before::Absent)]))
    }

    fn safe() -> Step {
        Step::Safe { point: Id([9; 32]), claims: vec!["data-web-0".into()] }
    }

    fn filling(claim: u32) -> Step {
        Step::Filling { claim: format!("data-web-{claim}") }
    }

    fn filled(claim: u32) -> Step {
        Step::Filled { claim: format!("data-web-{claim}"), files: 3, bytes: 30, problems: 0 }
    }

    fn taken_back(claim: u32) -> Step {
        Step::TakenBack { claim: format!("data-web-{claim}") }
    }

    fn after(steps: &[Step]) -> Result<Journal, BadJournal> {
        let mut journal = two();
        for step in steps {
            journal.follow(step)?;
        }
        Ok(journal)
    }

    fn whole() -> Vec<Step> {
        let started = |ordinal| Step::Started { ordinal: Ordinal(ordinal) };
        vec![safe(), filling(0), filled(0), filling(1), filled(1), Step::Proven, Step::Starting, started(0), started(1)]
    }

    #[test]
    fn a_restore_that_goes_well_reads_back_from_its_lines() {
        let journal = after(&whole()).unwrap();
        let mut text = Step::Opened(Box::new(two().opening)).to_line();
        whole().iter().for_each(|step| text.push_str(&step.to_line()));
        assert_eq!(Journal::read(&text), Ok(Some(journal.clone())));
        assert_eq!(journal.started(), [Ordinal(0), Ordinal(1)]);
        assert!(journal.is_settled());
        text.push_str("{\"unrea");
        assert_eq!(Journal::read(&text), Ok(Some(journal)), "a torn last line counts for nothing");
        assert_eq!(Journal::read("{\"opened\":{\"ver"), Ok(None));
    }

    #[test]
    fn the_gate_opens_only_when_every_claim_is_filled() {
        assert!(matches!(after(&[safe(), filling(0), filled(0), Step::Proven]), Err(BadJournal::Illegal { .. })));
        assert!(matches!(after(&[safe(), filling(0), filled(0), filling(1), Step::Proven]), Err(BadJournal::Illegal { .. })));
        assert!(after(&[safe(), filling(0), filled(0), filling(1), filled(1), Step::Proven]).is_ok());
    }

    #[test]
    fn nothing_leads_back_once_ordinals_are_started() {
        for steps in [7, 8, 9] {
            let journal = after(&whole()[..steps]).unwrap();
            assert!(journal.clone().follow(&Step::Undoing).is_err());
            let mut unready = journal;
            unready.follow(&Step::Unready).unwrap();
            assert!(unready.clone().follow(&Step::Undoing).is_err());
            assert!(unready.follow(&Step::Starting).is_ok());
        }
        assert!(after(&[&whole()[..6], &[Step::Undoing, taken_back(0), taken_back(1)]].concat()).unwrap().is_untouched());
    }

    #[test]
    fn a_claim_that_is_not_of_the_restore_or_out_of_turn_is_illegal() {
        assert!(after(&[filling(2)]).is_err());
        assert!(after(&[filled(0)]).is_err());
        assert!(after(&[safe(), filling(0), filled(0), filled(0)]).is_err());
        assert!(after(&[safe(), filling(0), filled(0), filling(0)]).is_ok(), "who goes on may have to compare it once more");
        assert!(after(&[safe(), filling(0), filling(0), taken_back(0), filling(0)]).is_ok(), "who goes on says so again");
        assert!(after(&[safe(), safe()]).is_ok(), "what nobody has touched may have changed since");
        assert!(after(&[safe(), filling(0), safe()]).is_err(), "it would hold half of each");
        assert!(after(&[filling(0)]).is_err(), "what it holds is not safe yet");
        assert!(after(&[filling(1)]).is_ok(), "it holds nothing");
    }

    #[test]
    fn what_is_no_journal_says_in_which_line() {
        let first = Step::Opened(Box::new(two().opening)).to_line();
        assert!(matches!(Journal::read("{}\n"), Err(BadJournal::Line { line: 1, .. })));
        assert!(matches!(Journal::read(&Step::Proven.to_line()), Err(BadJournal::Line { line: 1, .. })));
        assert!(matches!(Journal::read(&format!("{first}nonsense\n")), Err(BadJournal::Line { line: 2, .. })));
        assert!(matches!(Journal::read(&format!("{first}{first}")), Err(BadJournal::Illegal { .. })));
        let later = Opening { version: VERSION + 1, ..two().opening };
        assert_eq!(Journal::read(&Step::Opened(Box::new(later)).to_line()), Err(BadJournal::Later));
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(safe()),
            (0u32..3).prop_map(filling),
            (0u32..3).prop_map(filled),
            (0u32..3).prop_map(taken_back),
            Just(Step::Proven),
            Just(Step::Starting),
            (0u32..3).prop_map(|ordinal| Step::Started { ordinal: Ordinal(ordinal) }),
            Just(Step::Unready),
            Just(Step::Undoing),
        ]
    }

    proptest! {
        /// Whatever is tried in whatever order: nothing is started before all is filled, and nothing is taken back after a start.
        #[test]
        fn no_order_of_steps_starts_too_early_or_takes_back_too_late(steps in prop::collection::vec(any_step(), 0..40)) {
            let mut journal = two();
            let mut has_started = false;
            for step in steps {
                let before = journal.clone();
                match journal.follow(&step) {
                    Err(_) => prop_assert_eq!(&journal, &before),
                    Ok(()) => {
                        has_started |= step == Step::Starting;
                        if has_started {
                            prop_assert!(journal.claims().all(|(_, progress)| progress.is_filled()));
                        }
                        prop_assert_eq!(journal.is_settled(), matches!(journal.phase(), Phase::Proven | Phase::Starting | Phase::Unready));
                    }
                }
            }
        }
    }
}
