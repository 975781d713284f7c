//! What runs that died have left behind, and what is still good of it.

use std::sync::Arc;

use crate::backup::Backup;
use crate::model::mover_job::{RUNS, begun_key};
use crate::monitor::Event;
use crate::repository::adopt::adopt;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::lock::Lock;

impl Backup {
    /// The side objects of runs: none unless others work now or have died.
    pub(super) async fn traces(&self) -> Result<Vec<String>, RepositoryError> {
        let objects = self.repository.store().list(RUNS).await?;
        Ok(objects.into_iter().map(|object| object.key).collect())
    }

    /// Takes over what the dead had stored, unless others are at work: then another run does. Returns the index with it.
    pub(super) async fn take_over(&self, lock: &Lock, traces: Vec<String>, index: Arc<Index>) -> Result<Arc<Index>, RepositoryError> {
        if traces.is_empty() {
            return Ok(index);
        }
        let Some(packs) = adopt(&self.repository, lock, &index).await? else { return Ok(index) };
        self.repository.store().delete(&traces).await?;
        if packs == 0 {
            return Ok(index);
        }
        self.monitor.event(Event::Step(format!("taking over {packs} packs of a run that died")));
        Ok(Arc::new(index.reload(&self.repository).await?))
    }

    /// Leaves a trace for the case that this run dies.
    pub(super) async fn begin(&self, run: &str) -> Result<(), RepositoryError> {
        self.repository.put_side(&begun_key(run), self.clock.now().to_rfc3339().as_bytes()).await
    }
}
