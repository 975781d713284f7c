//! Starts ordinals behind the gate, as the plan says.

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::model::journal::Step;
use crate::model::set::Ordinal;
use crate::monitor::Event;
use crate::platform::PlatformError;
use crate::platform::raised;
use crate::restore::error::RestoreError;
use crate::restore::log::Log;
use crate::restore::plan::{PlannedStart, RestorePlan};
use crate::restore::{Restore, Restored};

/// Starts what the plan starts and is not up yet, each step written down first. Those that are ready are noted in `restored`, and in
/// the error where a later one is not.
pub(super) async fn start(restore: &Restore, plan: &RestorePlan, log: &Log, restored: &mut Restored) -> Result<(), RestoreError> {
    let (ordinals, at_once) = match &plan.start {
        PlannedStart::None(_) => return Ok(()),
        PlannedStart::Ordered(ordinals) => (ordinals, false),
        PlannedStart::Parallel(ordinals) => (ordinals, true),
    };
    let left: Vec<Ordinal> = ordinals.iter().filter(|ordinal| !restored.started.contains(ordinal)).copied().collect();
    if *restore.cancel.borrow() {
        return Err(RestoreError::StartInterrupted { started: Vec::new() });
    }
    log.note(Step::Starting).await?;
    let outcome = {
        let started = &mut restored.started;
        let one = |ordinal: Ordinal| async move { (ordinal, restore.platform.start(&plan.to, ordinal).await) }.boxed();
        let work = async {
            // One after another, each ready before the next; or all of them, each with its chance.
            let size = if at_once { left.len().max(1) } else { 1 };
            for group in left.chunks(size) {
                restore.monitor.event(Event::Step(match group {
                    [ordinal] => format!("starting ordinal {ordinal}"),
                    several => format!("starting {} ordinals at once", several.len()),
                }));
                let mut running: FuturesUnordered<_> = group.iter().copied().map(one).collect();
                let mut failure: Option<PlatformError> = None;
                while let Some((ordinal, outcome)) = running.next().await {
                    match outcome {
                        Ok(()) => {
                            log.note(Step::Started { ordinal }).await.map_err(Stopped::Journal)?;
                            started.push(ordinal);
                        }
                        Err(error) => {
                            failure.get_or_insert(error);
                        }
                    }
                }
                if let Some(error) = failure {
                    return Err(Stopped::Start(error));
                }
            }
            Ok(())
        };
        tokio::select! {
            biased;
            () = raised(restore.cancel.clone()) => Err(Stopped::Interrupt),
            outcome = work => outcome,
        }
    };
    let started = || restored.started.iter().map(ToString::to_string).collect();
    match outcome {
        Ok(()) => Ok(()),
        Err(Stopped::Start(source)) => {
            log.note(Step::Unready).await?;
            Err(RestoreError::Unready { started: started(), source })
        }
        Err(Stopped::Journal(error)) => Err(error),
        Err(Stopped::Interrupt) => Err(RestoreError::StartInterrupted { started: started() }),
    }
}

/// Why not every ordinal is up.
enum Stopped {
    Start(PlatformError),
    Journal(RestoreError),
    Interrupt,
}
