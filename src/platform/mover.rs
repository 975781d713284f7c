//! A running mover, as whoever started it sees it: lines that come, a way to stop it, how it ended.

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::model::mover_job::MoverLine;
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

impl Drop for Mover {
    fn drop(&mut self) {
        self.task.abort();
    }
}
