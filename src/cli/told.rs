//! A run's events on the screen, and how far it is at the set's own place.

use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cli::progress::Shown;
use crate::cli::wire::Wire;
use crate::clock::Clock;
use crate::model::set::SetName;
use crate::model::standing::Standing;
use crate::monitor::{Event, Monitor};
use crate::platform::Platform;

/// The set's place is told no oftener.
const PAUSE: Duration = Duration::from_secs(2);
/// And no more seldom.
const ALIVE: Duration = Duration::from_secs(15);

/// Shows a run of a set, and tells the set's place how far it is until this is dropped.
pub struct Told {
    shown: Shown,
    standing: watch::Sender<Standing>,
    teller: JoinHandle<()>,
}

impl Told {
    pub fn new(verb: &str, set: &SetName, platform: Arc<dyn Platform>, wire: &Wire) -> Self {
        let clock = wire.clock.clone();
        let (standing, mut changes) = watch::channel(Standing::new(verb, set, now(&clock)));
        let teller = tokio::spawn(async move {
            // One that has nothing new to say is not dead.
            while !matches!(timeout(ALIVE, changes.changed()).await, Ok(Err(_))) {
                let mut standing = changes.borrow_and_update().clone();
                standing.at = now(&clock);
                platform.tell(&standing).await;
                sleep(PAUSE).await;
            }
        });
        Told { shown: Shown::new(wire.output), standing, teller }
    }

    /// Takes away what is on the screen, and tells no more.
    pub fn clear(&self) {
        self.teller.abort();
        self.shown.clear();
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.teller.abort();
    }
}

impl Monitor for Told {
    fn event(&self, event: Event) {
        self.standing.send_if_modified(|standing| {
            match &event {
                // A hook's command is for whoever began the run: others may read what is told.
                Event::Step(step) => standing.step = step.split(" `").next().unwrap_or_default().to_owned(),
                Event::Progress { ordinal, progress, total } => standing.note(*ordinal, progress, *total),
                Event::Done { ordinal, progress } => standing.done(*ordinal, progress),
                Event::Warning(_) | Event::Problem { .. } => return false,
            }
            true
        });
        self.shown.event(event);
    }
}

fn now(clock: &Clock) -> String {
    clock.now().to_rfc3339_opts(SecondsFormat::Secs, true)
}
