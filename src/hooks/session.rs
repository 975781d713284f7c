//! One command in one pod with a deadline, on a leash that ends it when we are gone, or under a guard that runs it then.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::hooks::plan::PlannedHook;
use crate::model::set::SetName;
use crate::platform::{Ended, InPod, Platform, PlatformError, one_line, raised};

/// A guard that hears nothing for so long lets the application go.
const SILENCE: Duration = Duration::from_secs(30);
/// How often it is told that we live.
const BEAT: Duration = Duration::from_secs(5);
/// How long a guard may take to be there, and a command that is given up to end.
const GRACE: Duration = Duration::from_secs(10);
/// As much of a command's output as is quoted.
const QUOTED_LINES: usize = 10;

/// Runs its arguments, and kills them once its input ends: what is given up must not hold an application still after it was let go.
const LEASH: &str = r#"
exec 3<&0 4>&2 2>/dev/null
"$@" </dev/null 2>&4 3<&- 4>&- & command=$!
( read -r word <&3; kill -9 "$command" ) >/dev/null 4>&- & leash=$!
exec 3<&- 4>&-
wait "$command"; code=$?
kill "$leash"
exit "$code"
"#;

/// Waits with its arguments from the second on. It runs them when told to, when its input ends, and when it has heard nothing for as many
/// seconds as its first argument says. All of it is in a child, which outlives a kubelet that kills the first process of a broken connection.
const GUARD: &str = r#"
limit=$1; shift
exec 3<&0 4>&2 </dev/null 2>/dev/null
(
  echo armed
  while :; do
    sleep "$limit" >/dev/null 3<&- 4>&- & timer=$!
    (
      word=; read -r word <&3
      kill "$timer"
      case $word in run) exit 10 ;; beat) exit 11 ;; *) exit 12 ;; esac
    ) & reader=$!
    # A timer that was killed was killed by the reader, which ends by itself.
    wait "$timer" && kill "$reader"
    wait "$reader"
    case $? in
      10) echo told; "$@" 2>&4 3<&- 4>&-; exit $? ;;
      11) ;;
      *) ( echo alone ); exec "$@" >/dev/null 3<&- 4>&- ;;
    esac
  done
) & exec 3<&- 4>&-
wait $!
"#;

/// How a command came to its end, and the end of what it said.
pub(super) struct Outcome {
    pub how: How,
    pub said: String,
}

pub(super) enum How {
    Ended(Ended),
    /// The deadline passed. With a leash it was killed.
    TimedOut,
    /// The user wants an end. With a leash it was killed.
    Interrupted,
}

/// Runs the command to its end or its deadline, or until `stop` turns true.
pub(super) async fn run(
    platform: &dyn Platform,
    set: &SetName,
    hook: &PlannedHook,
    stop: Option<&watch::Receiver<bool>>,
) -> Result<Outcome, PlatformError> {
    let deadline = Instant::now() + Duration::from_secs(hook.seconds);
    let mut leashed: Vec<String> = ["sh", "-c", LEASH, "keepset-leash"].map(str::to_owned).into();
    leashed.extend(hook.command.iter().cloned());
    let outcome = run_as(platform, set, hook, &leashed, deadline, stop).await?;
    if let How::Ended(Ended::NotStarted(reason)) = &outcome.how {
        tracing::debug!(pod = hook.pod, reason, "no shell is there: a command that takes too long cannot be ended");
        return run_as(platform, set, hook, &hook.command, deadline, stop).await;
    }
    Ok(outcome)
}

async fn run_as(
    platform: &dyn Platform,
    set: &SetName,
    hook: &PlannedHook,
    command: &[String],
    deadline: Instant,
    stop: Option<&watch::Receiver<bool>>,
) -> Result<Outcome, PlatformError> {
    let mut said = VecDeque::new();
    let Ok(command) = timeout_at(deadline, platform.run_in_pod(set, &hook.place(), command)).await else {
        return Ok(Outcome { how: How::TimedOut, said: String::new() });
    };
    let mut command = command?;
    let stopped = async {
        match stop {
            Some(stop) => raised(stop.clone()).await,
            None => std::future::pending().await,
        }
    };
    let given_up = tokio::select! {
        ended = timeout_at(deadline, listen(&mut command, &mut said)) => match ended {
            Ok(ended) => return Ok(Outcome { how: How::Ended(ended), said: quoted(&said) }),
            Err(_) => How::TimedOut,
        },
        () = stopped => How::Interrupted,
    };
    // Its end is waited for: it must not hold the application still after that has been let go.
    command.mute();
    if timeout_at(Instant::now() + GRACE, listen(&mut command, &mut said)).await.is_err() {
        tracing::warn!("a command that took too long goes on in its container");
    }
    Ok(Outcome { how: given_up, said: quoted(&said) })
}

async fn listen(command: &mut InPod, said: &mut VecDeque<String>) -> Ended {
    while let Some(line) = command.line().await {
        said.push_back(line);
        if said.len() > QUOTED_LINES {
            said.pop_front();
        }
    }
    command.end().await
}

fn quoted(said: &VecDeque<String>) -> String {
    one_line(&said.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
}

/// A guard in a container, with the command that lets the application go.
pub(super) struct Guard {
    command: InPod,
    beats: JoinHandle<()>,
}

/// What a guard did when it was told to let go.
pub(super) enum Answer {
    /// It had waited until now, and ran its command.
    Told(Outcome),
    /// It had run its command before; with the reason, in words.
    Before(String),
    /// Nobody knows what it did.
    Lost(String),
}

impl Guard {
    /// Plants a guard; `Err(Ok(reason))` where the container cannot have one.
    pub async fn plant(platform: &dyn Platform, set: &SetName, hook: &PlannedHook) -> Result<Self, Result<String, PlatformError>> {
        let mut guard: Vec<String> = ["sh", "-c", GUARD, "keepset-guard"].map(str::to_owned).into();
        guard.push(SILENCE.as_secs().to_string());
        guard.extend(hook.command.iter().cloned());
        let deadline = Instant::now() + GRACE;
        let Ok(begun) = timeout_at(deadline, platform.run_in_pod(set, &hook.place(), &guard)).await else {
            return Err(Ok("the API server does not answer".into()));
        };
        let mut command = begun.map_err(Err)?;
        match timeout_at(deadline, command.line()).await {
            Ok(Some(line)) if line == "armed" => {}
            Ok(Some(line)) => return Err(Ok(format!("it says `{line}`"))),
            Ok(None) => {
                return Err(Ok(match command.end().await {
                    Ended::Code(code) => format!("it ends with exit code {code}"),
                    Ended::NotStarted(reason) | Ended::Lost(reason) => reason,
                }));
            }
            Err(_) => return Err(Ok("it does not answer".into())),
        }
        let words = command.words();
        let beats = tokio::spawn(async move {
            let Some(words) = words else { return };
            loop {
                sleep(BEAT).await;
                if words.send("beat\n".into()).await.is_err() {
                    break;
                }
            }
        });
        Ok(Guard { command, beats })
    }

    /// As when the connection to it breaks.
    #[cfg(test)]
    pub fn cut_off(&mut self) {
        self.beats.abort();
        self.command.abort();
    }

    /// Tells it to run its command, and waits for that.
    pub async fn let_go(mut self, seconds: u64) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        self.beats.abort();
        if let Some(words) = self.command.words() {
            // One that has ended hears nothing, and says so below.
            let _ = words.send("run\n".into()).await;
        }
        match timeout_at(deadline, self.command.line()).await {
            Ok(Some(line)) if line == "told" => {}
            Ok(Some(line)) if line == "alone" => return Answer::Before("the guard there had heard nothing of this program".into()),
            Ok(Some(line)) => return Answer::Lost(format!("the guard there said `{line}`")),
            Ok(None) => return Answer::Lost("the guard there ended".into()),
            Err(_) => return Answer::Lost("the guard there does not answer".into()),
        }
        let mut said = VecDeque::new();
        let how = match timeout_at(deadline, listen(&mut self.command, &mut said)).await {
            Ok(ended) => How::Ended(ended),
            Err(_) => How::TimedOut,
        };
        Answer::Told(Outcome { how, said: quoted(&said) })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.beats.abort();
    }
}
