//! `keepset unlock`: removes locks of the dead.

use serde::Serialize;

use crate::cli::exit::ExitCode;
use crate::cli::wire::Wire;
use crate::repository::lock;

/// Remove locks whose owners are gone
///
/// Examples:
///   keepset unlock
///   keepset unlock --all          every lock: only if you know that nothing runs
///
/// An owner is gone when its process on this machine has ended, or when nobody refreshed the lock for
/// 30 minutes by the store's clock and its own.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Unlock {
    /// Remove the locks of the living as well
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    removed: Vec<String>,
    left: Vec<String>,
}

/// Removes what may go and tells what stays.
pub async fn run(args: &Unlock, wire: &Wire) -> anyhow::Result<ExitCode> {
    let repository = wire.repository().await?;
    let removed = lock::unlock(&repository, args.all, &wire.identity().hostname, &wire.clock).await?;
    let left = lock::locks(&repository).await?;
    let now = wire.clock.now();
    let output = &wire.output;
    let describe = |locks: &[lock::Standing]| locks.iter().map(|lock| lock.describe(now)).collect::<Vec<_>>();
    let answer = Answer { removed: describe(&removed), left: describe(&left) };
    if output.is_json() {
        output.json(&answer)?;
        return Ok(ExitCode::Done);
    }
    if answer.removed.is_empty() {
        output.line("no lock to remove")?;
    }
    for lock in &answer.removed {
        output.line(&format!("removed: {lock}"))?;
    }
    for lock in &answer.left {
        output.line(&format!("left: {lock}"))?;
    }
    Ok(ExitCode::Done)
}
