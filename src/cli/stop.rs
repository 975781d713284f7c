//! Ctrl-C: once stops cleanly, twice at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::Output;

/// Becomes true once somebody wants the program to stop.
pub type Stop = watch::Receiver<bool>;

/// Listens for the rest of the process: the first SIGINT or SIGTERM is passed on, the second ends the process on the spot.
pub fn listen(output: Output) -> Result<Stop, CliError> {
    let failed = |source: std::io::Error| CliError::failed(format!("cannot listen for signals: {source}"), "");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => {}
                Some(()) = terminate.recv() => {}
                else => return,
            }
            if asked {
                #[allow(clippy::exit, clippy::disallowed_methods, reason = "the second Ctrl-C means now")]
                std::process::exit(ExitCode::Interrupted as i32);
            }
            asked = true;
            output.note("stopping cleanly; once more stops at once");
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}

/// Runs work that leaves nothing behind, and drops it as soon as somebody wants to stop.
pub async fn unless_stopped<T>(mut stop: Stop, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        result = work => result,
        () = stopped(&mut stop) => Err(CliError::Interrupted.into()),
    }
}

/// Returns once somebody wants to stop.
pub async fn stopped(stop: &mut Stop) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_until_somebody_stops_it() {
        let (sender, stop) = watch::channel(false);
        assert_eq!(unless_stopped(stop.clone(), async { Ok(7) }).await.unwrap(), 7);
        sender.send_replace(true);
        let error = unless_stopped(stop, std::future::pending::<anyhow::Result<()>>()).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(CliError::Interrupted)));
    }
}
