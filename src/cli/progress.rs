//! How a run's events look: bars on a terminal, plain lines elsewhere, nothing where nobody reads.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::Output;
use crate::cli::words;
use crate::model::mover_job::{Problem, ProblemKind, Progress};
use crate::model::set::Ordinal;
use crate::monitor::{Event, Monitor};

/// Problems beyond this many are only counted: the point holds the whole list.
const MOST_PROBLEMS: u32 = 20;

/// Shows a run on standard error. Warnings and problems are told even where progress is not.
pub struct Shown {
    output: Output,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

/// Steps that only count on (`read 3 of 90 packs`) are told this often where lines stay.
const COUNT_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    bars: BTreeMap<Ordinal, ProgressBar>,
    /// What is being done, below the bars.
    step: Option<ProgressBar>,
    problems: u32,
    /// The last step that was told as a line, and when.
    told: Option<(String, Instant)>,
}

impl State {
    /// Whether the step does more than count on from the last one, or enough time has passed.
    fn is_news(&mut self, step: &str, now: Instant) -> bool {
        let words: String = step.chars().filter(|c| !c.is_ascii_digit()).collect();
        let counts = step
            .split_once(" of ")
            .is_some_and(|(a, b)| a.ends_with(|c: char| c.is_ascii_digit()) && b.starts_with(|c: char| c.is_ascii_digit()));
        if counts && self.told.as_ref().is_some_and(|(last, at)| *last == words && now.duration_since(*at) < COUNT_EVERY) {
            return false;
        }
        self.told = Some((words, now));
        true
    }
}

impl Shown {
    /// Bars where standard error is a terminal and text is wanted.
    pub fn new(output: Output) -> Self {
        let draws = !output.is_silent() && io::stderr().is_terminal();
        let bars = draws.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Shown { output, bars, state: Mutex::default() }
    }

    /// Takes the bars off the screen; to be called when the run is over, whatever came of it.
    pub fn clear(&self) {
        if let (Some(bars), Ok(mut state)) = (&self.bars, self.state.lock()) {
            state.bars.values().for_each(ProgressBar::finish_and_clear);
            state.bars.clear();
            if let Some(step) = state.step.take() {
                step.finish_and_clear();
            }
            // The terminal may be gone, which is no reason to fail.
            let _ = bars.clear();
        }
    }

    fn tell(&self, tell: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(tell),
            None => tell(),
        }
    }

    fn bar<'a>(&self, bars: &MultiProgress, state: &'a mut State, ordinal: Ordinal, total: Option<u64>) -> &'a ProgressBar {
        let bar = state.bars.entry(ordinal).or_insert_with(|| {
            let bar = bars.insert(0, ProgressBar::new(0));
            bar.set_prefix(format!("ordinal {ordinal}"));
            bar
        });
        match total {
            Some(total) if bar.length() != Some(total) => {
                bar.set_style(style("{prefix:>12} {bar:28.cyan/dim} {bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}  {msg:.dim}"));
                bar.set_length(total);
            }
            None if bar.length().is_some() => {
                bar.set_style(style("{prefix:>12} {spinner} {bytes:>10} {bytes_per_sec:>12}  {msg:.dim}"));
                bar.unset_length();
            }
            _ => {}
        }
        bar
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

impl Monitor for Shown {
    fn event(&self, event: Event) {
        // A panic elsewhere while an event was shown must not stop the run.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Step(text) => match &self.bars {
                Some(bars) => {
                    let spinner = || bars.add(ProgressBar::new_spinner().with_style(style("{prefix:>12} {spinner} {msg}")));
                    let step = state.step.get_or_insert_with(spinner);
                    step.enable_steady_tick(Duration::from_millis(120));
                    step.set_message(plain(&text));
                }
                None if state.is_news(&text, Instant::now()) => self.output.note(&text),
                None => {}
            },
            Event::Progress { ordinal, progress, total } => {
                if let Some(bars) = &self.bars {
                    let bar = self.bar(bars, &mut state, ordinal, total);
                    bar.set_message(words::count(progress.files, "file", "files"));
                    bar.set_position(progress.bytes);
                }
            }
            Event::Done { ordinal, progress } => {
                if let Some(bar) = state.bars.remove(&ordinal) {
                    bar.finish_and_clear();
                }
                self.tell(|| self.output.note(&done(ordinal, &progress)));
            }
            Event::Warning(text) => self.tell(|| self.output.warn(&text)),
            Event::Problem { claim, problem } => {
                state.problems += 1;
                let text = match state.problems {
                    n if n <= MOST_PROBLEMS => problem_text(&claim, &problem),
                    n if n == MOST_PROBLEMS + 1 => "more of the kind are not shown here".to_owned(),
                    _ => return,
                };
                self.tell(|| self.output.warn(&text));
            }
        }
    }
}

/// A claim's name must not move the cursor; nothing else in a message can.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn done(ordinal: Ordinal, progress: &Progress) -> String {
    let files = words::count(progress.files, "file", "files");
    format!("  ordinal {ordinal}: {files}, {}", words::bytes(progress.bytes))
}

/// One problem in a sentence.
pub fn problem_text(claim: &str, problem: &Problem) -> String {
    let what = match problem.kind {
        ProblemKind::Unreadable => "not read",
        ProblemKind::Changed => "went on changing while it was read",
        ProblemKind::Vanished => "vanished before it could be read",
        ProblemKind::Moved => "was moved while the volume was read",
        ProblemKind::Attribute => "an attribute could not be set",
        ProblemKind::Lost => "lost in the repository",
        ProblemKind::Differs => "not as in the point",
    };
    let reason = if problem.reason.is_empty() { String::new() } else { format!(": {}", problem.reason) };
    format!("{claim}/{}: {what}{reason}", problem.path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_only_count_on_are_told_now_and_then() {
        let mut state = State::default();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let steps = [
            ("read 1 of 9 packs", 0),
            ("read 2 of 9 packs", 1),
            ("read 8 of 9 packs", 11),
            ("saving ordinal 0", 12),
            ("saving ordinal 1", 12),
        ];
        let told: Vec<&str> = steps.into_iter().filter(|(step, at)| state.is_news(step, after(*at))).map(|(step, _)| step).collect();
        assert_eq!(told, ["read 1 of 9 packs", "read 8 of 9 packs", "saving ordinal 0", "saving ordinal 1"]);
    }
}
