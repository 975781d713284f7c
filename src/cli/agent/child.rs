//! One verb of this program, run as a process of its own: what an agent does anybody can do by hand, and what it does cannot take the agent with it.

use std::io::Write;
use std::process::Stdio;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use crate::agent::Ending;
use crate::cli::exit::ExitCode;
use crate::config::Settings;
use crate::model::pod_words::ATTACHED;
use crate::platform::raised;

/// How a verb ended.
pub struct Ran {
    pub ending: Ending,
    /// Its answer; `None` where it gave none.
    pub answer: Option<Value>,
    /// The last thing that it complained of, in one line.
    pub complaint: String,
}

/// What [`Output::failure`](crate::cli::output::Output::failure) wrote, in one line; `None` for any other line.
fn failure(line: &str) -> Option<String> {
    let error = serde_json::from_str::<Value>(line).ok()?.get("error")?.clone();
    let causes = error["causes"].as_array().into_iter().flatten();
    let mut text: Vec<&str> = std::iter::once(&error["message"]).chain(causes).filter_map(Value::as_str).collect();
    let hint = error["hint"].as_str().map(|hint| format!("hint: {hint}"));
    text.extend(hint.as_deref());
    Some(text.join(": "))
}

/// Runs the verb with these settings, its messages in the log after `about`. `interrupted` makes it end as Ctrl-C would; dropping the future
/// kills it.
pub async fn run(arguments: &[String], settings: &Settings, about: &str, interrupted: watch::Receiver<bool>) -> anyhow::Result<Ran> {
    let mut file = NamedTempFile::with_prefix("keepset-settings-").context("cannot write settings to a temporary file")?;
    // JSON is YAML.
    file.write_all(&serde_json::to_vec(settings)?).context("cannot write settings to a temporary file")?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .args(["--json", "--quiet", "--config"])
        .arg(file.path())
        .args(arguments)
        .env_remove(ATTACHED)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C on a terminal is for the agent alone, which passes it on when the time has come.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run this program again")?;
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answer = async {
        let mut text = Vec::new();
        if let Some(mut stdout) = stdout {
            stdout.read_to_end(&mut text).await?;
        }
        Ok::<_, std::io::Error>(text)
    };
    let complaint = async {
        let mut last = String::new();
        let Some(stderr) = stderr else { return last };
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match failure(&line) {
                Some(failure) => last = failure,
                None => tracing::info!("{about}: {line}"),
            }
        }
        last
    };
    let interrupt = async {
        raised(interrupted).await;
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::INT);
        }
        std::future::pending::<()>().await;
    };
    let (text, complaint, status) = tokio::select! {
        ended = async { tokio::join!(answer, complaint, child.wait()) } => ended,
        () = interrupt => unreachable!("it only ever interrupts"),
    };
    let status = status.context("cannot tell how it ended")?;
    let ending = match status.code().and_then(ExitCode::of) {
        Some(ExitCode::Done) => Ending::Done,
        Some(ExitCode::Partial) => Ending::Partial,
        Some(ExitCode::Locked) => Ending::Held,
        Some(ExitCode::Refused) => Ending::Refused,
        Some(ExitCode::Interrupted) => Ending::Interrupted,
        _ => Ending::Failed,
    };
    let complaint = if complaint.is_empty() && !matches!(ending, Ending::Done | Ending::Partial) { status.to_string() } else { complaint };
    Ok(Ran { ending, answer: serde_json::from_slice(&text?).ok(), complaint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_one_line_with_its_causes_and_its_hint() {
        let line = r#"{"error":{"message":"no point","causes":["the bucket is gone"],"hint":"make it","exitCode":10}}"#;
        assert_eq!(failure(line).unwrap(), "no point: the bucket is gone: hint: make it");
        assert_eq!(failure("warning: a file changed"), None);
        assert_eq!(failure("{}"), None);
    }
}
