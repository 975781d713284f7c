//! Where text leaves the program: data to standard output, everything else to standard error. Nothing else prints.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::exit::{ExitCode, Verdict, judge};
use crate::cli::table::Table;
use crate::model::pod_words::ANSWER_MARK;
use crate::mover::error::MoverError;
use crate::repository::error::RepositoryError;

/// How the user wants to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    json: bool,
    quiet: bool,
    colour: bool,
    error_colour: bool,
    marked: bool,
}

/// Emphasis that the text can be understood without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Strong,
    Faint,
    Good,
    Caution,
    Bad,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Caution => "33",
            Tone::Bad => "1;31",
        }
    }
}

impl Output {
    /// `colours`: whether the environment allows them at all (`NO_COLOR`, `TERM=dumb`); a terminal is asked for as well.
    pub fn new(json: bool, quiet: bool, colours: bool) -> Self {
        let colour = colours && io::stdout().is_terminal();
        Output { json, quiet, colour, error_colour: colours && io::stderr().is_terminal(), marked: false }
    }

    /// Where `marked`, each line of the answer begins with [`ANSWER_MARK`]. Nothing else does, so that who reads both streams as one can
    /// tell them apart.
    #[must_use]
    pub fn marked(self, marked: bool) -> Self {
        Output { marked, ..self }
    }

    /// One JSON document is wanted instead of text.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Nobody wants to hear how it is going.
    pub fn is_silent(&self) -> bool {
        self.json || self.quiet
    }

    /// The text as a person sees it on standard output.
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        paint(self.colour, tone, text)
    }

    /// One line of data.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        self.answer(&clean(text, self.colour))
    }

    /// A table as lines of data.
    pub fn table(&self, table: &Table) -> Result<(), CliError> {
        table
            .lines()
            .iter()
            .enumerate()
            .try_for_each(|(at, line)| self.line(&if at == 0 { self.tone(Tone::Faint, line) } else { line.clone() }))
    }

    /// The verb's whole answer as one JSON document, indented.
    pub fn json<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        self.answer(&serde_json::to_string_pretty(value).map_err(|e| CliError::Output { what: "standard output", source: e.into() })?)
    }

    /// One line of JSON, for answers of any length.
    pub fn json_line<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        self.answer(&serde_json::to_string(value).map_err(|e| CliError::Output { what: "standard output", source: e.into() })?)
    }

    fn answer(&self, text: &str) -> Result<(), CliError> {
        let mark = if self.marked { ANSWER_MARK } else { "" };
        let lines: String = text.split('\n').flat_map(|line| [mark, line, "\n"]).collect();
        self.bytes(lines.as_bytes())
    }

    /// Bytes as they are. A reader that has gone away (`| head`) is [`io::ErrorKind::BrokenPipe`], which ends the program quietly.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        io::stdout().lock().write_all(bytes).map_err(|source| CliError::Output { what: "standard output", source })
    }

    /// Passes on what is still held back after the last line's end. An answer is complete only after this succeeds.
    pub fn flush(&self) -> Result<(), CliError> {
        io::stdout().lock().flush().map_err(|source| CliError::Output { what: "standard output", source })
    }

    /// A remark beside the data: left out with `--quiet` and `--json`.
    pub fn note(&self, text: &str) {
        if !self.is_silent() {
            complain(&clean(text, self.error_colour));
        }
    }

    /// A message of another process of ours, which was told how much to say.
    pub fn passed_on(&self, text: &str) {
        complain(&clean(text, false));
    }

    /// Something that the user should know even if nothing else is wanted.
    pub fn warn(&self, text: &str) {
        complain(&format!("{} {}", paint(self.error_colour, Tone::Caution, "warning:"), clean(text, false)));
    }

    /// Tells why the program fails, and returns the code that it ends with: one `error:` line with its causes, then the hint on a line of its own;
    /// with `--json` one object on a line.
    pub fn failure(&self, error: &anyhow::Error) -> ExitCode {
        let Verdict { code, hint } = judge(error);
        if let Some(CliError::Output { source, .. }) = error.downcast_ref::<CliError>()
            && source.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::Done;
        }
        let causes = causes(error);
        if self.json {
            let value =
                serde_json::json!({ "error": { "message": causes.first(), "causes": &causes[1..], "hint": hint, "exitCode": code as u8 } });
            complain(&value.to_string());
        } else {
            complain(&format!("{} {}", paint(self.error_colour, Tone::Bad, "error:"), clean(&causes.join(": "), false)));
            if let Some(hint) = hint {
                complain(&format!("{} {}", paint(self.error_colour, Tone::Strong, "hint:"), clean(&hint, false)));
            }
        }
        code
    }
}

/// The error and its causes in one line.
pub fn chain_text(error: &anyhow::Error) -> String {
    causes(error).join(": ")
}

/// The chain of causes without those that only repeat what was said before them.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let passes_on = matches!(cause.downcast_ref(), Some(RepositoryError::Store(_)))
            || matches!(cause.downcast_ref(), Some(MoverError::Repository(_)));
        if passes_on {
            // It says no more than its source does.
            continue;
        }
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let text = text.trim_end_matches('.').to_owned();
        if text.is_empty() {
            continue;
        }
        if let Some(last) = said.last_mut() {
            // Libraries below print their source inside their own text.
            if last.contains(&text) {
                continue;
            }
        }
        said.push(text);
    }
    said
}

fn paint(colour: bool, tone: Tone, text: &str) -> String {
    if colour { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
}

fn complain(text: &str) {
    // There is nowhere left to tell that standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The text with control characters and direction overrides written out, so that a file's name cannot drive the terminal. With `styled`,
/// our own emphasis passes.
fn clean(text: &str, styled: bool) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if styled && let Some(style) = own_style(rest) {
            clean.push_str(style);
            rest = &rest[style.len()..];
            continue;
        }
        match c {
            c if harmless(c) => clean.push(c),
            c if u32::from(c) < 0x100 => clean.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => clean.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(clean)
}

/// An escape sequence that [`paint`] makes, at the beginning of the text.
fn own_style(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("\x1b[")?;
    let end = inner.find('m')?;
    (end <= 4 && inner[..end].bytes().all(|c| c.is_ascii_digit() || c == b';')).then(|| &text[..end + 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\r\n\u{202e}c", false), "a\\x1b[2Jb\\x0d\\x0a\\u{202e}c");
        assert_eq!(clean("a\x1b[2Jb", true), "a\\x1b[2Jb");
        assert_eq!(clean("\x1b[1mbold\x1b[0m", true), "\x1b[1mbold\x1b[0m");
        assert_eq!(clean("grün 🙂", false), "grün 🙂");
    }

    #[test]
    fn a_cause_that_repeats_what_was_said_is_left_out() {
        let error = anyhow::anyhow!("no such host").context("cannot connect: no such host").context("cannot open the bucket");
        assert_eq!(causes(&error), ["cannot open the bucket", "cannot connect: no such host"]);
    }
}
