//! How a run's events look: bars on a terminal, plain lines elsewhere, nothing where nobody reads.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::Mutex;

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

#[derive(Default)]
struct State {
    bars: BTreeMap<Ordinal, ProgressBar>,
    problems: u32,
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
            let bar = bars.add(ProgressBar::new(0));
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
            Event::Step(text) => self.tell(|| self.output.note(&text)),
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
        ProblemKind::Attribute => "an attribute could not be set",
    };
    let reason = if problem.reason.is_empty() { String::new() } else { format!(": {}", problem.reason) };
    format!("{claim}/{}: {what}{reason}", problem.path.trim_start_matches('/'))
}
