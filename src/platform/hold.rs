//! The right to work on one set, as long as it is kept.

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// No other run of the set begins as long as this lives. Dropping it lets the right run out by itself.
#[derive(Debug)]
pub struct SetHold(Option<Kept>);

#[derive(Debug)]
struct Kept {
    release: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
    lost: watch::Receiver<bool>,
}

impl SetHold {
    /// For places where nobody else can come in between, or something else keeps them out.
    pub fn unneeded() -> Self {
        SetHold(None)
    }

    /// `keeper` keeps the right until `release` fires, gives it up then and ends; `lost` turns true once it could not keep it.
    pub fn kept(keeper: JoinHandle<()>, release: oneshot::Sender<()>, lost: watch::Receiver<bool>) -> Self {
        SetHold(Some(Kept { release, keeper, lost }))
    }

    /// Turns true once the right is lost; never where none is needed.
    pub fn lost(&self) -> watch::Receiver<bool> {
        match &self.0 {
            Some(kept) => kept.lost.clone(),
            None => watch::channel(false).1,
        }
    }

    /// Gives the right up and returns when others can have it.
    pub async fn release(mut self) {
        if let Some(kept) = self.0.take() {
            // A keeper that has ended has nothing to give up any more.
            let _ = kept.release.send(());
            let _ = kept.keeper.await;
        }
    }
}
