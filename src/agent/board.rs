//! Which tasks are to be begun now. Pure: times, last runs and endings are handed in.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::agent::{Ending, Outcome, Task};
use crate::schedule::{SANE, Schedule};

/// After a failure a task waits so long, after each further one twice as long, up to [`LONGEST`].
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
const LONGEST_HELD: Duration = Duration::from_secs(600);
/// Retention waits for backups to end, since it needs the repository alone, but no longer than this.
const FORGET_WAITS: TimeDelta = TimeDelta::hours(1);

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agenda {
    pub entries: Vec<Entry>,
    /// Sets that are worked on at a time.
    pub parallel: usize,
    /// Retention follows backups.
    pub forget: bool,
}

/// One task that comes again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub task: Task,
    pub schedule: Schedule,
    pub suspended: bool,
    /// Something that its set waits for keeps it from being begun: a restore that is open. Its times go by.
    pub held_back: bool,
}

/// What a look at the agenda came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// To be begun now.
    pub begin: Vec<Task>,
    /// How many times of a task went by since the last look and will not be run any more; only what is more than 0.
    pub missed: BTreeMap<Task, usize>,
    /// When each task that is not suspended comes next.
    pub next: BTreeMap<Task, DateTime<Utc>>,
}

/// What is at work, and what became of what was.
#[derive(Debug, Default)]
pub struct Board {
    tasks: BTreeMap<Task, Known>,
    /// Since when points have come that retention has not seen.
    forget_since: Option<DateTime<Utc>>,
    /// No task is begun twice.
    once: bool,
}

#[derive(Debug, Default)]
struct Known {
    running: bool,
    /// When the last one that ended well was begun: the records of it may not be read yet.
    well: Option<DateTime<Utc>>,
    failures: u32,
    not_before: Option<DateTime<Utc>>,
    /// Up to here missed times have been counted.
    counted: Option<DateTime<Utc>>,
}

impl Board {
    /// A board that begins each task once at most.
    pub fn once() -> Self {
        Board { once: true, ..Board::default() }
    }

    /// What to begin now; it counts as at work from here on, until [`Board::ended`]. What waits longest comes first.
    pub fn look(&mut self, agenda: &Agenda, last: &BTreeMap<Task, DateTime<Utc>>, now: DateTime<Utc>) -> Look {
        let mut look = Look::default();
        let mut due = Vec::new();
        for Entry { task, schedule, suspended, held_back } in &agenda.entries {
            let known = self.tasks.entry(task.clone()).or_default();
            let sane = |time: &DateTime<Utc>| *time <= now + SANE;
            let last = last.get(task).copied().filter(sane).max(known.well.filter(sane));
            if *suspended {
                // What goes by meanwhile is meant to.
                known.counted = Some(now);
                continue;
            }
            let seed = task.set().map_or_else(|| task.to_string(), ToString::to_string);
            let found = schedule.due(&seed, last, now);
            look.next.extend(found.next.map(|next| (task.clone(), next)));
            let ready = !held_back && !known.running && known.not_before.is_none_or(|not_before| not_before <= now);
            // What is at work is not missed.
            if !known.running {
                let gone = schedule.gone(&seed, found.now, now);
                let missed = schedule.times(last.max(known.counted).unwrap_or(gone), gone).len();
                if missed > 0 {
                    look.missed.insert(task.clone(), missed);
                }
                known.counted = known.counted.max(Some(gone));
            }
            if let Some(at) = found.now.filter(|_| ready) {
                due.push((at, task.clone()));
            }
        }
        self.tasks.retain(|task, known| known.running || *task == Task::Forget || agenda.entries.iter().any(|entry| entry.task == *task));
        due.sort();
        for (_, task) in due {
            if self.has_room(&task, agenda) {
                self.begin(task, &mut look);
            }
        }
        let wanted = agenda.forget && self.forget_since.is_some_and(|since| !self.is_backing_up() || now - since > FORGET_WAITS);
        let known = self.tasks.entry(Task::Forget).or_default();
        let ready = !known.running && known.not_before.is_none_or(|not_before| not_before <= now);
        if wanted && ready && self.has_room(&Task::Forget, agenda) {
            self.forget_since = None;
            self.begin(Task::Forget, &mut look);
        }
        look
    }

    fn begin(&mut self, task: Task, look: &mut Look) {
        self.tasks.entry(task.clone()).or_default().running = true;
        look.begin.push(task);
    }

    fn running(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|(_, known)| known.running).map(|(task, _)| task)
    }

    fn is_backing_up(&self) -> bool {
        self.running().any(|task| matches!(task, Task::Backup(_)))
    }

    /// Sets have their places, the repository as a whole has one.
    fn has_room(&self, task: &Task, agenda: &Agenda) -> bool {
        let (of_sets, of_all): (Vec<&Task>, Vec<&Task>) = self.running().partition(|task| task.set().is_some());
        match task.set() {
            Some(set) => of_sets.len() < agenda.parallel.max(1) && !of_sets.iter().any(|running| running.set() == Some(set)),
            None => of_all.is_empty(),
        }
    }

    /// A task that was begun at `began` has ended, at `now`.
    pub fn ended(&mut self, task: &Task, began: DateTime<Utc>, outcome: &Outcome, now: DateTime<Utc>) {
        let once = self.once;
        let known = self.tasks.entry(task.clone()).or_default();
        known.running = false;
        if outcome.ending.is_well() {
            (known.well, known.failures, known.not_before) = (Some(began), 0, None);
        } else {
            let factor = 2u32.saturating_pow(known.failures.min(10));
            // Whoever waits for another wants to know soon that it is done.
            let longest = if outcome.ending == Ending::Held { LONGEST_HELD } else { LONGEST };
            known.not_before = Some(now + FIRST_WAIT.saturating_mul(factor).min(longest));
            known.failures += 1;
            if *task == Task::Forget {
                self.forget_since = Some(now);
            }
        }
        if once {
            known.not_before = Some(DateTime::<Utc>::MAX_UTC);
        }
        if matches!(task, Task::Backup(_)) && outcome.ending.is_well() {
            self.forget_since = Some(self.forget_since.unwrap_or(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::SetName;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn backup(name: &str) -> Task {
        Task::Backup(SetName::new("shop", name).unwrap())
    }

    fn entry(task: Task, expression: &str) -> Entry {
        let schedule = Schedule {
            expression: expression.parse().unwrap(),
            zone: chrono_tz::UTC,
            jitter: Duration::ZERO,
            catch_up: Duration::from_secs(6 * 3600),
        };
        Entry { task, schedule, suspended: false, held_back: false }
    }

    fn agenda(entries: Vec<Entry>) -> Agenda {
        Agenda { entries, parallel: 2, forget: true }
    }

    fn outcome(ending: Ending) -> Outcome {
        Outcome { ending, detail: String::new() }
    }

    #[test]
    fn sets_have_their_places_and_none_is_worked_on_twice() {
        let mut board = Board::default();
        let sets = agenda(["a", "b", "c"].map(|name| entry(backup(name), "0 * * * *")).into());
        let none = BTreeMap::new();
        assert_eq!(board.look(&sets, &none, at(60)).begin, [backup("a"), backup("b")]);
        assert!(board.look(&sets, &none, at(61)).begin.is_empty());
        board.ended(&backup("a"), at(60), &outcome(Ending::Done), at(62));
        assert_eq!(board.look(&sets, &none, at(62)).begin, [backup("c")]);
        // At work past its next time: that one is due once it has ended.
        assert!(board.look(&sets, &BTreeMap::from([(backup("b"), at(60))]), at(119)).begin.is_empty());
        board.ended(&backup("b"), at(60), &outcome(Ending::Done), at(130));
        let begun = board.look(&sets, &none, at(130)).begin;
        assert!(begun.contains(&backup("a")) && !begun.contains(&backup("c")), "{begun:?}");
    }

    #[test]
    fn a_record_from_the_future_neither_stops_a_task_nor_makes_it_run_again_and_again() {
        let mut board = Board::default();
        let daily = agenda(vec![entry(backup("a"), "0 1 * * *")]);
        let future = BTreeMap::from([(backup("a"), at(1_000_000))]);
        let mut begun = 0;
        for minute in 0..1440 {
            for task in board.look(&daily, &future, at(minute)).begin {
                begun += usize::from(task == backup("a"));
                board.ended(&task, at(minute), &outcome(Ending::Done), at(minute));
            }
        }
        assert_eq!(begun, 1);
    }

    #[test]
    fn what_is_held_back_is_not_begun_and_its_times_are_missed() {
        let mut board = Board::default();
        let mut daily = agenda(vec![entry(backup("a"), "0 1 * * *")]);
        daily.entries[0].held_back = true;
        let mut missed = 0;
        for minute in 0..1440 {
            let look = board.look(&daily, &BTreeMap::new(), at(minute));
            assert!(look.begin.is_empty());
            missed += look.missed.values().sum::<usize>();
        }
        assert_eq!(missed, 1);
    }

    #[test]
    fn a_drill_of_a_set_waits_for_its_backup() {
        let mut board = Board::default();
        let drill = Task::Drill(SetName::new("shop", "a").unwrap());
        let both = agenda(vec![entry(backup("a"), "0 * * * *"), entry(drill.clone(), "0 * * * *")]);
        assert_eq!(board.look(&both, &BTreeMap::new(), at(60)).begin, [backup("a")]);
        board.ended(&backup("a"), at(60), &outcome(Ending::Done), at(61));
        assert!(board.look(&both, &BTreeMap::new(), at(61)).begin.contains(&drill));
    }

    #[test]
    fn what_failed_is_tried_again_ever_later_until_it_is_too_late() {
        let mut board = Board::default();
        let daily = agenda(vec![entry(backup("a"), "0 1 * * *")]);
        let none = BTreeMap::new();
        let (mut begun, mut missed) = (Vec::new(), Vec::new());
        for minute in 0..1440 {
            let look = board.look(&daily, &none, at(minute));
            missed.extend(look.missed.into_values().map(|missed| (minute, missed)));
            if !look.begin.is_empty() {
                begun.push(minute);
                board.ended(&backup("a"), at(minute), &outcome(Ending::Failed), at(minute));
            }
        }
        assert_eq!(begun, [60, 61, 63, 67, 75, 91, 123, 183, 243, 303, 363]);
        // Missed once, and told once.
        assert_eq!(missed, [(420, 1)]);
    }

    #[test]
    fn a_run_by_another_counts_and_one_that_ended_here_counts_before_it_is_read() {
        let mut board = Board::default();
        let hourly = agenda(vec![entry(backup("a"), "0 * * * *")]);
        assert!(board.look(&hourly, &BTreeMap::from([(backup("a"), at(61))]), at(62)).begin.is_empty());
        assert_eq!(board.look(&hourly, &BTreeMap::new(), at(120)).begin, [backup("a")]);
        board.ended(&backup("a"), at(120), &outcome(Ending::Partial), at(121));
        assert_eq!(board.look(&hourly, &BTreeMap::from([(backup("a"), at(61))]), at(122)).begin, [Task::Forget]);
    }

    #[test]
    fn retention_follows_backups_when_none_is_at_work_and_does_not_wait_for_ever() {
        let mut board = Board::default();
        let two = agenda(vec![entry(backup("a"), "0 0 * * *"), entry(backup("b"), "0 0 * * *")]);
        let none = BTreeMap::new();
        assert_eq!(board.look(&two, &none, at(1)).begin.len(), 2);
        board.ended(&backup("a"), at(1), &outcome(Ending::Done), at(2));
        assert!(board.look(&two, &none, at(3)).begin.is_empty());
        board.ended(&backup("b"), at(1), &outcome(Ending::Failed), at(4));
        assert_eq!(board.look(&two, &none, at(4)).begin, [Task::Forget]);
        board.ended(&Task::Forget, at(4), &outcome(Ending::Held), at(5));
        // It is tried again; and although b is at work again by then, not for longer than an hour later.
        let mut begun = Vec::new();
        for minute in 5..120 {
            begun.extend(board.look(&two, &none, at(minute)).begin.into_iter().map(|task| (minute, task)));
        }
        assert_eq!(begun, [(5, backup("b")), (66, Task::Forget)]);
        board.ended(&Task::Forget, at(66), &outcome(Ending::Done), at(67));
        assert!(board.look(&two, &none, at(68)).begin.is_empty());
    }

    #[test]
    fn the_repository_as_a_whole_has_one_task_at_a_time_and_what_is_suspended_none() {
        let mut board = Board::default();
        let mut all = agenda(vec![entry(Task::Prune, "0 0 * * *"), entry(Task::Check, "0 0 * * *"), entry(backup("a"), "0 0 * * *")]);
        all.entries[2].suspended = true;
        let look = board.look(&all, &BTreeMap::new(), at(0));
        assert_eq!(look.begin.len(), 1);
        assert!(!look.next.contains_key(&backup("a")));
        assert_eq!(look.next[&Task::Prune], at(1440));
        board.ended(&look.begin[0], at(0), &outcome(Ending::Done), at(1));
        assert_eq!(board.look(&all, &BTreeMap::new(), at(1)).begin.len(), 1);
    }

    #[test]
    fn once_is_once_and_retention_follows() {
        let mut board = Board::once();
        let two = agenda(vec![entry(backup("a"), "0 0 * * *"), entry(backup("b"), "0 0 * * *")]);
        assert_eq!(board.look(&two, &BTreeMap::new(), at(1)).begin.len(), 2);
        board.ended(&backup("a"), at(1), &outcome(Ending::Failed), at(2));
        board.ended(&backup("b"), at(1), &outcome(Ending::Done), at(2));
        assert_eq!(board.look(&two, &BTreeMap::new(), at(200)).begin, [Task::Forget]);
        board.ended(&Task::Forget, at(200), &outcome(Ending::Failed), at(201));
        assert!(board.look(&two, &BTreeMap::new(), at(400)).begin.is_empty());
    }
}
