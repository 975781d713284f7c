//! The worker's role: carries one ordinal's volumes to the repository or back. It knows one repository, some folders, and its orders.

mod begun;
pub mod counters;
pub mod error;
pub mod fill;
mod image;
pub mod prove;
pub mod save;
mod zeros;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::model::mover_job::{ClaimReport, MoverJob, MoverReport, Task, report_key};
use crate::mover::counters::Counters;
use crate::mover::error::MoverError;
use crate::repository::Repository;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::prune::record::Records;
use crate::repository::reader::Reader;
use crate::repository::writer::{Writer, WriterOptions};

/// Carries the orders out. When this returns a report, everything that it speaks of is durable. `stop` makes it give up soon;
/// `counters` tell how far it is.
pub async fn run(
    job: MoverJob,
    repository: Repository,
    clock: Clock,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
) -> Result<MoverReport, MoverError> {
    match carry_out(job, repository, clock, counters, Arc::clone(&stop)).await {
        // The repository's workers stop when this one is told to, and do not know why.
        Err(MoverError::Repository(RepositoryError::Stopped)) if stop.load(Ordering::Relaxed) => Err(MoverError::Interrupted),
        done => done,
    }
}

async fn carry_out(
    job: MoverJob,
    repository: Repository,
    clock: Clock,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
) -> Result<MoverReport, MoverError> {
    crate::volume::raise_open_files();
    // The run's lock stands already. Who saves does not rely on packs that a prune has marked; who fills reads them as any other.
    let avoided = async {
        let records = if matches!(job.task, Task::Save(_)) { Records::load(&repository).await? } else { Records::default() };
        Ok(records.packs())
    };
    let ((index, _), avoided) = tokio::try_join!(Index::load_readable(&repository), avoided)?;
    let index = Arc::new(index);
    let reader = Arc::new(Reader::new(&repository, Arc::clone(&index)));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = Handle::current();
    let MoverJob { run, ordinal, memory, task, .. } = job;
    let mut report = MoverReport {
        run,
        ordinal,
        total: counters.progress(),
        claims: Vec::new(),
        new_packs: Vec::new(),
        new_indexes: Vec::new(),
        old_indexes: Vec::new(),
    };
    match task {
        Task::Save(claims) => {
            report.old_indexes = index.objects().to_vec();
            let writer = Writer::avoiding(&repository, index, avoided, WriterOptions::for_memory(memory));
            let chunker = repository.config().chunker()?;
            let tools = save::Tools {
                writer: writer.clone(),
                reader,
                chunker,
                counters: Arc::clone(&counters),
                clock,
                runtime,
                threads,
                stop,
                #[cfg(test)]
                hook: None,
            };
            let saved = blocking(move || claims.iter().map(|claim| save::save_claim(&tools, claim)).collect()).await;
            if let Err(MoverError::Repository(RepositoryError::Stopped)) = saved {
                // Whoever was stopped does not know why; the writer does.
                writer.finish().await?;
                return Err(RepositoryError::Stopped.into());
            }
            report.claims = saved?;
            let written = writer.finish().await?;
            (report.new_packs, report.new_indexes) = (written.packs, written.indexes);
            report.total = counters.progress();
            let plain = serde_json::to_vec(&report).expect("text and numbers always serialise");
            repository.put_side(&report_key(&report.run, report.ordinal), &plain).await?;
        }
        Task::Fill(claims) => {
            let requests = usize::try_from((memory >> 20) / 6).unwrap_or(32).clamp(4, 32);
            let tools = fill::Tools { reader, counters: Arc::clone(&counters), clock, runtime, threads, requests, stop };
            report.claims = blocking(move || claims.iter().map(|claim| fill::fill_claim(&tools, claim)).collect()).await?;
            report.total = counters.progress();
        }
        Task::Prove(claims) => {
            let tools = prove::Tools { reader, counters: Arc::clone(&counters), clock, runtime, threads, stop };
            report.claims = blocking(move || claims.iter().map(|claim| prove::prove_claim(&tools, claim)).collect()).await?;
            report.total = counters.progress();
        }
    }
    Ok(report)
}

async fn blocking(work: impl FnOnce() -> Result<Vec<ClaimReport>, MoverError> + Send + 'static) -> Result<Vec<ClaimReport>, MoverError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(RepositoryError::Stopped.into()),
    }
}
