//! A command at work in a pod, as whoever began it sees it: what it says, what is said to it, how it ended.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where a command is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    pub pod: String,
    pub container: String,
}

/// How a command in a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    /// There is no such program in the container, or it cannot be run; nothing was begun.
    NotStarted(String),
    /// Nobody knows: the pod went, or the way to it.
    Lost(String),
}

/// A command in a pod. Dropping it ends its input, and loses it from sight.
#[derive(Debug)]
pub struct InPod {
    words: Option<mpsc::Sender<String>>,
    lines: mpsc::Receiver<String>,
    task: JoinHandle<Ended>,
}

impl InPod {
    /// `task` passes words on to the command's input, which ends with them; sends what the command says, error output too, to `lines`; and
    /// returns how it ended. Aborting `task` must end the input.
    pub fn new(words: mpsc::Sender<String>, lines: mpsc::Receiver<String>, task: JoinHandle<Ended>) -> Self {
        InPod { words: Some(words), lines, task }
    }

    /// A way to say lines to the command from elsewhere; its input does not end while one is kept. `None` once muted.
    pub fn words(&self) -> Option<mpsc::Sender<String>> {
        self.words.clone()
    }

    /// Ends its input, and lets it go on.
    pub fn mute(&mut self) {
        self.words = None;
    }

    /// The next line that it says; `None` once there will be no more.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Waits for its end. What it has said and nobody has heard is lost.
    pub async fn end(&mut self) -> Ended {
        // Whoever waits without listening must not block it.
        self.lines.close();
        match (&mut self.task).await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ended::Lost("it was given up".into()),
        }
    }
}

#[cfg(test)]
impl InPod {
    /// As when the way to it breaks.
    pub fn abort(&mut self) {
        self.task.abort();
    }
}

impl Drop for InPod {
    fn drop(&mut self) {
        self.task.abort();
    }
}
