//! Where a call stands until a test lets it through.

use std::sync::Arc;

use tokio::sync::watch;

/// Calls wait at it, tests wait for them, and open it. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    reached: bool,
    open: bool,
}

impl Gate {
    /// Returns once a call has come to the gate.
    pub async fn reached(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|state| state.reached).await;
    }

    /// Lets every call through, those that wait and those that come.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        self.0.send_modify(|state| state.reached = true);
        let _ = self.0.subscribe().wait_for(|state| state.open).await;
    }
}
