//! A platform for tests: places as data, movers as a function, everything that was asked of it written down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::model::claim::{ClaimId, ClaimPlace, ClaimShape};
use crate::model::manifest::Consistency;
use crate::model::mover_job::{FillMode, MoverJob, MoverLine};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{CutClaim, SetRun, SetState, Target, TargetState, Targets};
use crate::platform::JournalHold;
use crate::platform::Mover;
use crate::platform::Platform;
use crate::platform::PlatformError;
use crate::platform::{Ended, InPod, PodPlace};

/// How a command in a pod ends.
pub type Command = Box<dyn Fn(&[String]) -> Option<Ended> + Send + Sync>;

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
    /// A set that can be stopped and started; `None` for a place that knows of none.
    pub running: Option<SetRun>,
    /// How commands in pods end, by their arguments; one without an end goes on until its input ends. Without it there are no pods.
    pub commands: Option<Command>,
    /// Containers have no `sh`.
    pub without_shell: bool,
    /// When cuts are made; `None` where claims are read as they are.
    pub moment: Option<String>,
    /// Claims that were opened, by name: the run that did it while it has not closed them.
    pub opened: Mutex<BTreeMap<String, Option<String>>>,
    /// The open journal of the only set.
    pub journal: std::sync::Arc<Mutex<Option<String>>>,
    /// `open data-web-0` (`reopen` to replace), `mover 0`, `close …`, `abandon …`, `stop 0`, `start 0`, in the order in which they came.
    pub log: std::sync::Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }

    fn state(&self, name: &str) -> TargetState {
        match self.opened.lock().unwrap().get(name) {
            Some(Some(run)) => TargetState::HalfRestored(run.clone()),
            Some(None) => TargetState::HoldsData,
            None => self.targets.iter().find(|(other, _)| other == name).map_or(TargetState::Absent, |(_, state)| state.clone()),
        }
    }

    fn refuse_unmarked(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        if self.state(&claim.name) == TargetState::HalfRestored(run.to_owned()) {
            return Ok(());
        }
        Err(PlatformError::NotOurs { claim: claim.name.clone(), place: "/fake".into(), run: run.to_owned() })
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// Notes something when it goes without having been disarmed.
struct Alone(Option<(std::sync::Arc<Mutex<Vec<String>>>, String)>);

impl Alone {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some((log, what)) = self.0.take() {
            log.lock().unwrap().push(what);
        }
    }
}

#[async_trait]
impl Platform for Fake {
    async fn read_set(&self, _set: &SetName) -> Result<SetState, PlatformError> {
        Ok(self.state.clone())
    }

    async fn cut(&self, _: &str, set: &SetName, claims: &[ClaimId], consistency: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        if self.running.is_some() {
            self.note(format!("cut {consistency:?}").to_lowercase());
        }
        let cut = |claim: &ClaimId| {
            let name = claim.name(&set.name);
            CutClaim { source: format!("/fake/{name}"), name, volume: None, moment: self.moment.clone() }
        };
        Ok(claims.iter().map(cut).collect())
    }

    /// A leash runs its command at once, and a guard once it is told to, or left.
    async fn run_in_pod(&self, set: &SetName, place: &PodPlace, command: &[String]) -> Result<InPod, PlatformError> {
        let Some(commands) = &self.commands else { return Err(PlatformError::NoPods { set: set.to_string() }) };
        let (words, mut said) = mpsc::channel::<String>(4);
        let (send, lines) = mpsc::channel::<String>(4);
        if self.without_shell && command[0] == "sh" {
            return Ok(InPod::new(words, lines, tokio::spawn(async { Ended::NotStarted("there is no sh".into()) })));
        }
        let guarded = command.iter().position(|word| word == "keepset-guard").map(|at| &command[at + 2..]);
        let leashed = command.iter().position(|word| word == "keepset-leash").map(|at| &command[at + 1..]);
        let argv = guarded.or(leashed).unwrap_or(command);
        let what = format!("in {}/{}: {}", place.pod, place.container, argv.join(" "));
        let (log, ended, guarded) = (self.log.clone(), commands(argv), guarded.is_some());
        if !guarded {
            self.note(what.clone());
        }
        let task = tokio::spawn(async move {
            // Aborted with its input: a guard acts alone then.
            let alone = Alone(guarded.then(|| (log.clone(), format!("alone {what}"))));
            if guarded {
                let _ = send.send("armed".into()).await;
                while let Some(word) = said.recv().await {
                    if word == "run\n" {
                        log.lock().unwrap().push(format!("told {what}"));
                        let _ = send.send("told".into()).await;
                        break;
                    }
                }
            }
            let ended = match ended {
                Some(ended) => ended,
                None => {
                    while said.recv().await.is_some() {}
                    Ended::Code(137)
                }
            };
            let _ = send.send("its last word".into()).await;
            alone.disarm();
            ended
        });
        Ok(InPod::new(words, lines, task))
    }

    async fn stop(&self, _set: &SetName, claims: &[String]) -> Result<(), PlatformError> {
        if self.running.is_some() {
            self.note(format!("stop set, {} claims", claims.len()));
        }
        Ok(())
    }

    async fn give_back(&self, _set: &SetName, _was: &SetRun, replicas: Option<u32>) -> Result<(), PlatformError> {
        self.note(format!("give back, replicas {replicas:?}"));
        Ok(())
    }

    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], _measure: bool) -> Result<Targets, PlatformError> {
        let target = |claim: &ClaimId| {
            let name = claim.name(&set.name);
            let state = self.state(&name);
            Target { path: format!("/fake/{name}"), name, state, room: None, used: 0, shape: ClaimShape::default() }
        };
        let claims = claims.iter().map(target).collect();
        let (foreign, running) = (self.foreign.clone(), self.running.clone());
        Ok(Targets { place: "/fake".into(), claims, foreign, running, ..Targets::default() })
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
        Ok(JournalHold { set: set.clone(), file: None, version: None })
    }

    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        let text = self.journal.lock().unwrap().clone();
        Ok(text.map(|text| (JournalHold { set: set.clone(), file: None, version: None }, text)))
    }

    async fn append_journal(&self, _hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        self.journal.lock().unwrap().as_mut().expect("an open journal").push_str(line);
        Ok(())
    }

    async fn close_journal(&self, _hold: JournalHold) -> Result<(), PlatformError> {
        self.journal.lock().unwrap().take().expect("an open journal");
        Ok(())
    }

    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
        let is_taken = mode == FillMode::New && matches!(self.state(&claim.name), TargetState::HalfRestored(_) | TargetState::HoldsData);
        if is_taken || self.unopened.contains(&claim.name) {
            return Err(PlatformError::HoldsData { path: format!("/fake/{}", claim.name) });
        }
        let verb = if mode == FillMode::New { "open" } else { "reopen" };
        self.opened.lock().unwrap().insert(claim.name.clone(), Some(run.to_owned()));
        self.note(format!("{verb} {}", claim.name));
        Ok(format!("/fake/{}", claim.name))
    }

    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        self.refuse_unmarked(run, claim)?;
        self.opened.lock().unwrap().insert(claim.name.clone(), None);
        self.note(format!("close {}", claim.name));
        Ok(())
    }

    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, _remove: bool) -> Result<(), PlatformError> {
        self.refuse_unmarked(run, claim)?;
        self.opened.lock().unwrap().remove(&claim.name);
        self.note(format!("abandon {}", claim.name));
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

/// The suite that folders and clusters are held to; it names this crate as they do.
#[path = "../../tests/support/contract.rs"]
mod contract;

#[tokio::test]
async fn the_fake_keeps_to_the_contract_of_places() {
    contract::is_kept(&Fake::default(), &"shop/web".parse().unwrap(), &ClaimShape::default()).await;
}
