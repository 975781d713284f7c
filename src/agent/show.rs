//! What becomes of work, and when more comes, as metrics.

use chrono::{DateTime, Utc};

use crate::agent::{Agenda, Ending, Look, Outcome, Task};
use crate::telemetry::metrics::{Metrics, OfSet, OfTask, seconds};

/// When sets are backed up, and what was missed since the last look.
pub(super) fn schedules(metrics: &Metrics, agenda: &Agenda, look: &Look, now: DateTime<Utc>) {
    // Nothing is cleared first: a series that is away for a moment ends the patience of an alert.
    for entry in &agenda.entries {
        let Task::Backup(set) = &entry.task else { continue };
        let of_set = OfSet::from(set);
        metrics.suspended.get_or_create(&of_set).set(i64::from(entry.suspended));
        if entry.suspended {
            metrics.next_run.remove(&of_set);
            metrics.interval.remove(&of_set);
            continue;
        }
        metrics.interval.get_or_create(&of_set).set(entry.schedule.interval(now).num_seconds() as f64);
        if let Some(next) = look.next.get(&entry.task) {
            metrics.next_run.get_or_create(&of_set).set(seconds(*next));
        }
    }
    for (task, missed) in &look.missed {
        tracing::warn!("{task}: {missed} of its times went by and will not be run");
        if let Task::Backup(set) = task {
            metrics.missed.get_or_create(&OfSet::from(set)).inc_by(*missed as u64);
        }
    }
}

/// One more task that ended so.
pub(super) fn ended(metrics: &Metrics, task: &Task, began: DateTime<Utc>, outcome: &Outcome) {
    let result = outcome.ending.as_str();
    let well = outcome.ending.is_well();
    match task {
        Task::Backup(set) => metrics.backup_ended(set, if outcome.ending == Ending::Done { "complete" } else { result }),
        Task::Drill(set) => metrics.drill_ended(set, if well { "proven" } else { result }),
        Task::Forget | Task::Prune | Task::Check => {
            metrics.tasks.get_or_create(&OfTask { task: task.kind(), result }).inc();
        }
    }
    if well && *task == Task::Prune {
        metrics.prune_last_success.set(seconds(began));
    }
}
