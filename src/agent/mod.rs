//! The agent: does what is due, for as long as it runs, or once.
//!
//! One loop looks every few seconds. What is due is decided by the [`Board`], which is pure; what there is to do, and doing it, is the
//! [`World`]'s. Of several agents of one cluster the one with the Lease works and the others wait, which spares work and nothing else: a
//! set's own hold and the repository's locks keep two runs apart.

mod at_work;
mod board;
mod health;
mod show;
mod task;
mod world;

pub use board::{Agenda, Board, Entry, Look};
pub use health::{Health, serve};
pub use task::{Ending, Outcome, Task};
pub use world::World;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::agent::at_work::{AtWork, Ended};
use crate::clock::Clock;
use crate::platform::{SetHold, raised};
use crate::telemetry::metrics::Metrics;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(5);
/// How long a task may take to end cleanly once it has been told to.
const CLEANLY: Duration = Duration::from_secs(15);

/// Everything that an agent works with.
#[derive(Clone)]
pub struct Agent {
    pub world: Arc<dyn World>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    /// How long what is at work may take to end by itself once somebody wants the agent to stop.
    pub grace: Duration,
    /// Turns true when somebody does.
    pub stop: watch::Receiver<bool>,
}

impl Agent {
    /// Works whenever it is the one to, until it is told to stop; returns when all that it had begun has ended.
    ///
    /// What is at work goes on whether or not this agent still is the one, and is known to it when it is again.
    pub async fn run(&self) {
        let (mut board, mut at_work, mut hold) = (Board::default(), AtWork::default(), None);
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = raised(self.stop.clone()) => break,
                ended = at_work.next() => self.finish(&mut board, ended),
                _ = tick.tick() => {
                    self.health.alive(&self.clock);
                    tokio::select! {
                        // Whatever is asked of cluster and repository may take longer than the time that is left.
                        () = raised(self.stop.clone()) => break,
                        () = self.turn(&mut hold, &mut board, &mut at_work) => {}
                    }
                }
            }
        }
        self.drain(&mut board, &mut at_work).await;
        self.metrics.leader.set(0);
        if let Some(hold) = hold {
            hold.release().await;
        }
    }

    /// One time round: takes the lead where it is to be had, and looks at what is due where this agent has it.
    async fn turn(&self, hold: &mut Option<SetHold>, board: &mut Board, at_work: &mut AtWork) {
        if hold.as_ref().is_some_and(|hold| *hold.lost().borrow()) {
            tracing::warn!("another agent works now; what this one has begun goes on to its end");
            *hold = None;
            self.metrics.leader.set(0);
            // What the other knows changes, and this one would go on telling what was.
            self.metrics.forget_sets();
        }
        if hold.is_none() {
            match self.world.lead().await {
                Ok(Some(taken)) => {
                    tracing::info!("this agent works");
                    self.metrics.leader.set(1);
                    *hold = Some(taken);
                }
                // One that waits is as ready as one that works.
                Ok(None) => return self.health.ready(),
                Err(error) => return tracing::warn!("cannot tell which agent works: {error}"),
            }
        }
        if let Err(error) = self.look(board, at_work).await {
            tracing::warn!("cannot tell what is due: {error}");
        }
    }

    /// Begins what is due.
    async fn look(&self, board: &mut Board, at_work: &mut AtWork) -> Result<(), String> {
        let (agenda, last) = match tokio::join!(self.world.agenda(), self.world.last()) {
            (Ok(agenda), Ok(last)) => (agenda, last),
            (agenda, last) => {
                let errors: Vec<String> = [agenda.err(), last.err()].into_iter().flatten().collect();
                return Err(errors.join("; "));
            }
        };
        self.health.ready();
        let now = self.clock.now();
        let look = board.look(&agenda, &last, now);
        show::schedules(&self.metrics, &agenda, &look, now);
        for task in look.begin {
            tracing::info!("{task}: begins");
            at_work.begin(&self.world, task, now);
        }
        Ok(())
    }

    fn finish(&self, board: &mut Board, Ended { task, began, outcome }: Ended) {
        if outcome.ending.is_well() {
            tracing::info!("{task}: {outcome}");
        } else {
            tracing::warn!("{task}: {outcome}");
        }
        show::ended(&self.metrics, &task, began, &outcome);
        board.ended(&task, began, &outcome, self.clock.now());
    }

    /// Lets what is at work come to its end: by itself, then when told to, then not at all.
    async fn drain(&self, board: &mut Board, at_work: &mut AtWork) {
        for (patience, then) in
            [(self.grace, "the time is up: what is at work is ended cleanly"), (CLEANLY, "what is at work does not end, and is given up")]
        {
            let all = async {
                while !at_work.is_empty() {
                    let ended = at_work.next().await;
                    self.finish(board, ended);
                }
            };
            if timeout(patience, all).await.is_ok() {
                return;
            }
            tracing::warn!("{then}");
            at_work.interrupt();
        }
        at_work.give_up().await;
    }

    /// Does what is due now, each task once, and what follows from it. What ended is returned, in that order; an error says that nobody could tell
    /// what is due.
    pub async fn once(&self) -> Result<Vec<(Task, Outcome)>, String> {
        let (mut board, mut at_work, mut all) = (Board::once(), AtWork::default(), Vec::new());
        loop {
            match self.look(&mut board, &mut at_work).await {
                Ok(()) => {}
                Err(error) if at_work.is_empty() => return Err(error),
                // What is at work must not be cut off for it.
                Err(error) => tracing::warn!("cannot tell what else is due: {error}"),
            }
            if at_work.is_empty() {
                return Ok(all);
            }
            tokio::select! {
                () = raised(self.stop.clone()) => {
                    self.drain(&mut board, &mut at_work).await;
                    return Ok(all);
                }
                // While one is at work another may become due.
                () = sleep(LOOK) => {}
                ended = at_work.next() => {
                    all.push((ended.task.clone(), ended.outcome.clone()));
                    self.finish(&mut board, ended);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
