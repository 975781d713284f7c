//! Movers as child processes of this very program: one path for folders and clusters, and one that a test can kill.
//!
//! The orders go down standard input, the repository's key after them, on a line of its own; then the pipe stays open, so that a mover
//! whose parent died, or wants it to stop, reads the end of it. Reports come back as lines on standard output.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use data_encoding::BASE64;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::model::mover_job::{MoverJob, MoverLine};
use crate::platform::Mover;
use crate::platform::MoverDone;
use crate::platform::PlatformError;
use crate::platform::command::one_line;
use crate::platform::folders::SECRET_VARIABLES;

/// How long a mover that was asked to stop may take to tidy up.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// Lines of standard error that a message about a lost mover quotes.
const QUOTED_LINES: usize = 5;

pub(super) fn start(program: &Path, arguments: &[String], job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError> {
    let failed = |source| PlatformError::MoverStart { ordinal: job.ordinal.0, program: program.display().to_string(), source };
    let mut orders = Zeroizing::new(serde_json::to_vec(job).map_err(|e| failed(e.into()))?);
    // Reserved first, so that no reallocation leaves a copy of the key behind.
    orders.reserve_exact(2 + BASE64.encode_len(secret.len()));
    orders.push(b'\n');
    orders.extend_from_slice(Zeroizing::new(BASE64.encode(secret)).as_bytes());
    orders.push(b'\n');

    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for secret in SECRET_VARIABLES {
        command.env_remove(secret);
    }
    // Buffers of a megabyte come and go on many threads. With glibc's arena for each of them, and its growing threshold for giving memory
    // back, they would stay twice as large as what is in use; other allocators do not look at these.
    command.env("MALLOC_ARENA_MAX", "1");
    // A group of its own: an interrupt typed at the terminal reaches the parent alone, which then stops its movers in order.
    let child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;

    let (send, lines) = mpsc::channel(64);
    let (stop, stopped) = oneshot::channel();
    let ordinal = job.ordinal.0;
    Ok(Mover::new(lines, stop, tokio::spawn(watch(ordinal, child, orders, send, stopped))))
}

/// Sees one mover through to its end.
async fn watch(
    ordinal: u32,
    mut child: Child,
    orders: Zeroizing<Vec<u8>>,
    lines: mpsc::Sender<MoverLine>,
    mut stopped: oneshot::Receiver<()>,
) -> MoverDone {
    let lost = |source: io::Error| PlatformError::MoverLost { ordinal, status: source.to_string(), said: String::new() };
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(lost(io::ErrorKind::BrokenPipe.into()));
    };
    let talk = tokio::spawn(pass_on(ordinal, stderr));
    let mut stdin = Some(give_orders(stdin, &orders).await);
    drop(orders);

    let mut stdout = BufReader::new(stdout).lines();
    let mut ended_in_words = false;
    let mut kill_at = None;
    let mut asked = false;
    loop {
        let kill = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            line = stdout.next_line() => match line.map_err(lost)? {
                None => break,
                Some(line) => {
                    let parsed: MoverLine = serde_json::from_str(&line)
                        .map_err(|_| PlatformError::MoverLine { ordinal, line: line.chars().filter(|c| !c.is_control()).take(200).collect() })?;
                    ended_in_words = !matches!(parsed, MoverLine::Progress(_));
                    // Nobody may be listening any more; the mover's end counts all the same.
                    let _ = lines.send(parsed).await;
                }
            },
            // An error is the handle dropped without asking; the abort that follows it ends everything.
            Ok(()) = &mut stopped, if !asked => {
                asked = true;
                stdin = None;
                kill_at = Some(tokio::time::Instant::now() + STOP_GRACE);
            }
            () = kill => {
                child.start_kill().map_err(lost)?;
                kill_at = None;
            }
        }
    }
    let status = child.wait().await.map_err(lost)?;
    drop(stdin);
    let said = talk.await.unwrap_or_default();
    if ended_in_words { Ok(()) } else { Err(PlatformError::MoverLost { ordinal, status: status.to_string(), said }) }
}

/// Hands back the pipe, to be kept open. A mover that dies before it has read everything is noticed by its silence.
async fn give_orders(mut stdin: ChildStdin, orders: &[u8]) -> ChildStdin {
    if let Err(error) = stdin.write_all(orders).await {
        tracing::debug!(%error, "a mover did not read its orders");
    }
    stdin
}

/// Logs what the mover says beside its reports, and keeps the end of it for a message.
async fn pass_on(ordinal: u32, stderr: tokio::process::ChildStderr) -> String {
    let mut last = VecDeque::new();
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!(ordinal, "{line}");
        last.push_back(line);
        if last.len() > QUOTED_LINES {
            last.pop_front();
        }
    }
    one_line(&last.into_iter().collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mover_job::Task;
    use crate::model::set::Ordinal;

    fn job() -> MoverJob {
        MoverJob {
            run: "run-1".into(),
            set: "shop/web".parse().unwrap(),
            ordinal: Ordinal(3),
            repository: "/srv/repository".into(),
            memory: 1,
            task: Task::Save(Vec::new()),
        }
    }

    fn scripted(script: &str) -> Mover {
        start(Path::new("sh"), &["-c".into(), script.into()], &job(), b"the key's bytes").unwrap()
    }

    const FAILED: &str = r#"{"failed":{"error":"%s","hint":null,"kind":"failed"}}"#;

    #[tokio::test]
    async fn a_mover_gets_its_orders_and_the_key_on_two_lines_and_no_other_way() {
        let script = format!(
            r#"read -r job; read -r key; tr '\0' ' ' < /proc/$$/environ | grep -q "$key" && exit 9
            printf '{FAILED}\n' "$(echo "$job" | tr -d '"') $key""#
        );
        let mut mover = scripted(&script);
        let Some(MoverLine::Failed { error, .. }) = mover.next().await else { panic!("no last line") };
        assert!(error.contains("run:run-1") && error.ends_with(&BASE64.encode(b"the key's bytes")), "{error}");
        assert_eq!(mover.next().await, None);
        mover.finish().await.unwrap();
    }

    #[tokio::test]
    async fn lines_arrive_in_order_and_the_last_one_ends_the_mover() {
        let progress = r#"{"progress":{"files":1,"dirs":0,"bytes":2,"movedBytes":2,"newBytes":2,"storedBytes":2}}"#;
        let mut mover = scripted(&format!("echo '{progress}'; printf '{FAILED}\\n' disk"));
        assert!(matches!(mover.next().await, Some(MoverLine::Progress(progress)) if progress.files == 1));
        assert!(matches!(mover.next().await, Some(MoverLine::Failed { .. })));
        mover.finish().await.unwrap();
    }

    #[tokio::test]
    async fn a_mover_that_dies_without_a_word_is_lost_with_what_it_said() {
        let mut mover = scripted("echo 'out of luck' >&2; kill -9 $$");
        assert_eq!(mover.next().await, None);
        let error = mover.finish().await.unwrap_err().to_string();
        assert!(error.contains("ordinal 3") && error.contains("out of luck") && error.contains('9'), "{error}");
    }

    #[tokio::test]
    async fn a_mover_that_is_asked_to_stop_reads_the_end_of_its_input() {
        let mut mover = scripted(&format!("cat >/dev/null; printf '{FAILED}\\n' stopped"));
        mover.stop();
        assert!(matches!(mover.next().await, Some(MoverLine::Failed { error, .. }) if error == "stopped"));
        mover.finish().await.unwrap();
    }

    #[tokio::test]
    async fn a_line_that_is_no_report_is_an_error_and_no_panic() {
        let mover = scripted("echo hello; sleep 600");
        assert!(matches!(mover.finish().await, Err(PlatformError::MoverLine { .. })));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = start(Path::new("/nowhere/keepset"), &[], &job(), b"").unwrap_err();
        assert!(error.to_string().contains("/nowhere/keepset"), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_mover_is_ended_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let mut mover = scripted(&format!(
            r#"echo '{{"progress":{{"files":'$$',"dirs":0,"bytes":0,"movedBytes":0,"newBytes":0,"storedBytes":0}}}}'; exec sleep 600 > {}"#,
            path.display()
        ));
        let Some(MoverLine::Progress(progress)) = mover.next().await else { panic!("no line") };
        drop(mover);
        let stat = format!("/proc/{}/stat", progress.files);
        // The abort is carried out at the task's next turn: give it turns, not time.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
