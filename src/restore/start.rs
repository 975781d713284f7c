//! Starts ordinals behind the gate, as the plan says.

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::monitor::Event;
use crate::platform::PlatformError;
use crate::platform::raised;
use crate::restore::error::RestoreError;
use crate::restore::plan::{PlannedStart, RestorePlan};
use crate::restore::{Restore, Restored};

/// Starts what the plan starts. Those that are ready are noted in `restored`, and in the error where a later one is not.
pub(super) async fn start(restore: &Restore, plan: &RestorePlan, restored: &mut Restored) -> Result<(), RestoreError> {
    let outcome = {
        let started = &mut restored.started;
        let work = async {
            match &plan.start {
                PlannedStart::None(_) => Ok(()),
                PlannedStart::Ordered(ordinals) => {
                    for ordinal in ordinals {
                        restore.monitor.event(Event::Step(format!("starting ordinal {ordinal}")));
                        restore.platform.start(&plan.to, *ordinal).await?;
                        started.push(*ordinal);
                    }
                    Ok(())
                }
                PlannedStart::Parallel(ordinals) => {
                    restore.monitor.event(Event::Step(format!("starting {} ordinals at once", ordinals.len())));
                    let mut running: FuturesUnordered<_> = ordinals
                        .iter()
                        .map(|ordinal| async move { (*ordinal, restore.platform.start(&plan.to, *ordinal).await) }.boxed())
                        .collect();
                    let mut failure: Option<PlatformError> = None;
                    while let Some((ordinal, outcome)) = running.next().await {
                        match outcome {
                            Ok(()) => started.push(ordinal),
                            Err(error) => {
                                failure.get_or_insert(error);
                            }
                        }
                    }
                    failure.map_or(Ok(()), Err)
                }
            }
        };
        tokio::select! {
            outcome = work => outcome.map_err(Some),
            () = raised(restore.cancel.clone()) => Err(None),
        }
    };
    let started = || restored.started.iter().map(ToString::to_string).collect();
    match outcome {
        Ok(()) => Ok(()),
        Err(Some(source)) => Err(RestoreError::Unready { started: started(), source }),
        Err(None) => Err(RestoreError::StartInterrupted { started: started() }),
    }
}
