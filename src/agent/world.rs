//! What an agent asks of the rest of the program.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::agent::{Agenda, Outcome, Task};
use crate::platform::SetHold;

/// Settings, sets, records and the work itself, behind one seam. Errors are one line for the log: the agent looks again soon.
#[async_trait]
pub trait World: Send + Sync {
    /// The right to be the one agent that works; `None` where another has it.
    async fn lead(&self) -> Result<Option<SetHold>, String>;

    /// What is to be done and when, as the settings and the sets say now. Asked every few seconds.
    async fn agenda(&self) -> Result<Agenda, String>;

    /// When each task was last begun, as far as it came to an end that counts: the newest point of a set, whoever made it. Asked every
    /// few seconds.
    async fn last(&self) -> Result<BTreeMap<Task, DateTime<Utc>>, String>;

    /// Does it. `interrupted` turns true when it is to end as soon as it cleanly can. Dropped, it is given up.
    async fn carry_out(&self, task: &Task, interrupted: watch::Receiver<bool>) -> Outcome;
}
