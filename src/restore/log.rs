//! The open journal of one restore: a step is legal and written down before it is taken.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::model::journal::{BadJournal, Intent, Journal, Opening, Step, VERSION};
use crate::model::set::SetName;
use crate::platform::{JournalHold, Platform};
use crate::restore::error::RestoreError;
use crate::restore::plan::RestorePlan;
use crate::restore::refusal::Refusal;

/// One restore's journal, and the right to write it.
pub(super) struct Log {
    platform: Arc<dyn Platform>,
    open: Mutex<(Journal, JournalHold)>,
}

impl Log {
    /// Begins the journal of `plan`. Nothing is touched yet.
    pub async fn begin(platform: Arc<dyn Platform>, plan: &RestorePlan, run: String, time: String) -> Result<Self, RestoreError> {
        let opening = Opening {
            version: VERSION,
            run,
            time,
            set: plan.to.clone(),
            point: plan.point,
            claims: plan.claims.iter().map(|claim| Intent { name: claim.name.clone(), before: claim.before }).collect(),
            safety: plan.safety,
            plan: serde_json::to_value(plan).expect("text and numbers always serialise"),
        };
        let journal = Journal::new(opening.clone());
        let hold = platform.open_journal(&plan.to, &Step::Opened(Box::new(opening)).to_line()).await?;
        Ok(Log { platform, open: Mutex::new((journal, hold)) })
    }

    /// Takes the open journal over from a restore that died. One that died before its first line was whole had touched nothing: it is
    /// closed, and none is open.
    pub async fn take(platform: Arc<dyn Platform>, set: &SetName, run: Option<&str>) -> Result<Self, RestoreError> {
        let none = || Refusal::NotOpen { set: set.to_string() };
        let Some((hold, text)) = platform.take_journal(set).await? else { return Err(none().into()) };
        let Some(journal) = read(set, &text)? else {
            platform.close_journal(hold).await?;
            return Err(none().into());
        };
        if journal.opening().set != *set {
            return Err(Refusal::OtherSet { open: journal.opening().set.to_string(), asked: set.to_string() }.into());
        }
        match run {
            Some(asked) if asked != journal.opening().run => {
                Err(Refusal::OtherRun { run: journal.opening().run.clone(), asked: asked.to_owned() }.into())
            }
            _ => Ok(Log { platform, open: Mutex::new((journal, hold)) }),
        }
    }

    /// Writes a step down. When this returns an error the step must not be taken.
    pub async fn note(&self, step: Step) -> Result<(), RestoreError> {
        let mut open = self.open.lock().await;
        let mut journal = open.0.clone();
        let set = journal.opening().set.clone();
        journal.follow(&step).map_err(|error| bad(&set, &error))?;
        self.platform.append_journal(&mut open.1, &step.to_line()).await?;
        open.0 = journal;
        Ok(())
    }

    /// As far as it goes now.
    pub async fn journal(&self) -> Journal {
        self.open.lock().await.0.clone()
    }

    /// The restore is over.
    pub async fn close(self) -> Result<(), RestoreError> {
        let (_, hold) = self.open.into_inner();
        Ok(self.platform.close_journal(hold).await?)
    }
}

/// Refused where a restore of the set is open.
pub(super) async fn refuse_open(platform: &dyn Platform, set: &SetName) -> Result<(), RestoreError> {
    let Some(text) = platform.read_journal(set).await? else { return Ok(()) };
    match read(set, &text)? {
        Some(journal) => {
            let opening = journal.opening();
            Err(Refusal::Open { set: opening.set.to_string(), run: opening.run.clone(), phase: journal.phase().word() }.into())
        }
        // It died before it could say what it was about to do; whoever opens the next journal must take this one away.
        None => Ok(()),
    }
}

fn read(set: &SetName, text: &str) -> Result<Option<Journal>, RestoreError> {
    Journal::read(text).map_err(|error| bad(set, &error))
}

fn bad(set: &SetName, error: &BadJournal) -> RestoreError {
    Refusal::BadJournal { set: set.to_string(), reason: error.to_string() }.into()
}
