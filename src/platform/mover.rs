//! A running mover, as whoever started it sees it: lines that come, a way to stop it, how it ended.

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::model::mover_job::{FailureKind, MoverLine, MoverReport, Progress};
use crate::platform::PlatformError;

/// How a mover ended: with a report or a failure of its own as its last line, or else lost.
pub type MoverDone = Result<(), PlatformError>;

/// A worker on one ordinal. Dropping it ends the worker at once.
#[derive(Debug)]
pub struct Mover {
    lines: mpsc::Receiver<MoverLine>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<MoverDone>,
}

impl Mover {
    /// `task` sends what the worker says to `lines`, asks it to end cleanly when `stop` fires, and returns how it ended. Aborting `task`
    /// must end the worker.
    pub fn new(lines: mpsc::Receiver<MoverLine>, stop: oneshot::Sender<()>, task: JoinHandle<MoverDone>) -> Self {
        Mover { lines, stop: Some(stop), task }
    }

    /// The next line; `None` once there will be no more.
    pub async fn next(&mut self) -> Option<MoverLine> {
        self.lines.recv().await
    }

    /// Asks the worker to give up cleanly; lines go on coming until it has.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A worker that has ended already needs no asking.
            let _ = stop.send(());
        }
    }

    /// Listens until the end, passing progress on, and asks the worker to give up once `stop` turns true.
    pub async fn see_through(mut self, stop: watch::Receiver<bool>, mut progress: impl FnMut(Progress)) -> Result<LastWord, PlatformError> {
        let mut last = LastWord::Nothing;
        let stop = raised(stop);
        tokio::pin!(stop);
        let mut asked = false;
        loop {
            let line = tokio::select! {
                line = self.next() => line,
                () = &mut stop, if !asked => {
                    asked = true;
                    self.stop();
                    continue;
                }
            };
            match line {
                None => break,
                Some(MoverLine::Progress(counted)) => progress(counted),
                Some(MoverLine::Report(report)) => last = LastWord::Report(report),
                Some(MoverLine::Failed { error, hint, kind }) => last = LastWord::Failed { error, hint, kind },
            }
        }
        self.finish().await.map(|()| last)
    }

    /// Waits for the end. Ok says only that the last line was a report or a failure and has been delivered.
    pub async fn finish(mut self) -> MoverDone {
        // Whoever waits without listening must not block the worker.
        self.lines.close();
        match (&mut self.task).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }
}

/// How a mover that was not lost ended.
#[derive(Clone, Debug, PartialEq)]
pub enum LastWord {
    Report(MoverReport),
    Failed { error: String, hint: Option<String>, kind: FailureKind },
    Nothing,
}

/// Returns once the flag is true; never where nobody can raise it any more.
pub async fn raised(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|raised| *raised).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.task.abort();
    }
}
