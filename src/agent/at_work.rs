//! The tasks that are at work.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use crate::agent::{Ending, Outcome, Task, World};

/// A task that ended, and when it had begun.
pub(super) struct Ended {
    pub task: Task,
    pub began: DateTime<Utc>,
    pub outcome: Outcome,
}

/// All that was begun and has not ended.
#[derive(Default)]
pub(super) struct AtWork {
    running: JoinSet<Outcome>,
    begun: HashMap<Id, (Task, DateTime<Utc>)>,
    interrupt: watch::Sender<bool>,
}

impl AtWork {
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub fn begin(&mut self, world: &Arc<dyn World>, task: Task, now: DateTime<Utc>) {
        let (world, interrupted, doing) = (Arc::clone(world), self.interrupt.subscribe(), task.clone());
        let handle = self.running.spawn(async move { world.carry_out(&doing, interrupted).await });
        self.begun.insert(handle.id(), (task, now));
    }

    /// The next one to end; never where nothing is at work.
    pub async fn next(&mut self) -> Ended {
        loop {
            let (id, outcome) = match self.running.join_next_with_id().await {
                None => std::future::pending().await,
                Some(Ok((id, outcome))) => (id, outcome),
                // It panicked. Whoever waits for it must hear of its end all the same.
                Some(Err(error)) => (error.id(), Outcome { ending: Ending::Failed, detail: format!("it was lost: {error}") }),
            };
            if let Some((task, began)) = self.begun.remove(&id) {
                return Ended { task, began, outcome };
            }
        }
    }

    /// Tells all to end as soon as they cleanly can.
    pub fn interrupt(&self) {
        self.interrupt.send_replace(true);
    }

    /// Ends all on the spot.
    pub async fn give_up(&mut self) {
        self.running.shutdown().await;
        self.begun.clear();
    }
}
