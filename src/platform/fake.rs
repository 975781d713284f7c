//! A platform for tests: places as data, movers as a function, everything that was asked of it written down.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::model::claim::ClaimId;
use crate::model::mover_job::{FillMode, MoverJob, MoverLine};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{SetState, Target, TargetState, Targets};
use crate::platform::JournalHold;
use crate::platform::Mover;
use crate::platform::Platform;
use crate::platform::PlatformError;

/// What a mover says to its job.
pub type Work = Box<dyn Fn(&MoverJob) -> Vec<MoverLine> + Send + Sync>;

#[derive(Default)]
pub struct Fake {
    pub state: SetState,
    /// Movers say this; one without words waits until it is stopped.
    pub work: Option<Work>,
    /// Claims that are not absent.
    pub targets: Vec<(String, TargetState)>,
    pub foreign: Vec<String>,
    /// Claims that hold data by the time they are opened.
    pub unopened: Vec<String>,
    /// Ordinals that can be started; `None` for a platform that starts none.
    pub starts: Option<BTreeSet<u32>>,
    /// The open journal of the only set.
    pub journal: std::sync::Arc<Mutex<Option<String>>>,
    /// `open data-web-0` (`reopen` to replace), `mover 0`, `close …`, `abandon …`, `stop 0`, `start 0`, in the order in which they came.
    pub log: std::sync::Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[async_trait]
impl Platform for Fake {
    async fn read_set(&self, _set: &SetName) -> Result<SetState, PlatformError> {
        Ok(self.state.clone())
    }

    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], _measure: bool) -> Result<Targets, PlatformError> {
        let target = |claim: &ClaimId| {
            let name = claim.name(&set.name);
            let state = self.targets.iter().find(|(other, _)| *other == name).map_or(TargetState::Absent, |(_, state)| state.clone());
            Target { path: format!("/fake/{name}"), name, state, room: None, used: 0 }
        };
        Ok(Targets { place: "/fake".into(), claims: claims.iter().map(target).collect(), foreign: self.foreign.clone() })
    }

    async fn read_journal(&self, _set: &SetName) -> Result<Option<String>, PlatformError> {
        Ok(self.journal.lock().unwrap().clone())
    }

    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
        let mut journal = self.journal.lock().unwrap();
        if journal.is_some() {
            return Err(PlatformError::JournalThere { path: "/fake/journal".into() });
        }
        *journal = Some(first.to_owned());
        Ok(JournalHold { set: set.clone(), file: None })
    }

    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        let text = self.journal.lock().unwrap().clone();
        Ok(text.map(|text| (JournalHold { set: set.clone(), file: None }, text)))
    }

    async fn append_journal(&self, _hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        self.journal.lock().unwrap().as_mut().expect("an open journal").push_str(line);
        Ok(())
    }

    async fn close_journal(&self, _hold: JournalHold) -> Result<(), PlatformError> {
        self.journal.lock().unwrap().take().expect("an open journal");
        Ok(())
    }

    async fn open_claim(&self, _run: &str, claim: &str, mode: FillMode) -> Result<String, PlatformError> {
        if self.unopened.iter().any(|name| name == claim) {
            return Err(PlatformError::HoldsData { path: format!("/fake/{claim}") });
        }
        let verb = if mode == FillMode::New { "open" } else { "reopen" };
        self.note(format!("{verb} {claim}"));
        Ok(format!("/fake/{claim}"))
    }

    async fn close_claim(&self, _run: &str, claim: &str) -> Result<(), PlatformError> {
        self.note(format!("close {claim}"));
        Ok(())
    }

    async fn abandon_claim(&self, _run: &str, claim: &str, _remove: bool) -> Result<(), PlatformError> {
        self.note(format!("abandon {claim}"));
        Ok(())
    }

    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError> {
        assert_eq!(secret.len(), 64, "the master key");
        self.note(format!("mover {}", job.ordinal));
        let said = self.work.as_ref().map(|work| work(job)).unwrap_or_default();
        let (send, lines) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let (log, ordinal) = (self.log.clone(), job.ordinal);
        let task = tokio::spawn(async move {
            if said.is_empty() && stopped.await.is_ok() {
                log.lock().unwrap().push(format!("stop {ordinal}"));
                return Err(PlatformError::MoverLost { ordinal: ordinal.0, status: "stopped".into(), said: String::new() });
            }
            for line in said {
                let _ = send.send(line).await;
            }
            Ok(())
        });
        Ok(Mover::new(lines, stop, task))
    }

    fn can_start(&self) -> bool {
        self.starts.is_some()
    }

    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
        self.note(format!("start {ordinal}"));
        match &self.starts {
            Some(starts) if starts.contains(&ordinal.0) => Ok(()),
            Some(_) => Err(PlatformError::Deadline { ordinal: ordinal.0, what: "ready", seconds: 1, said: String::new() }),
            None => Err(PlatformError::NoStart { set: set.to_string() }),
        }
    }
}
