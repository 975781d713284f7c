//! What the user may decide about a backup.

use std::time::Duration;

use crate::model::claim::ClaimId;
use crate::model::hook::Hooks;

/// Everything that is not the set itself.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Movers at the same time; at least 1.
    pub parallel: usize,
    pub order: Order,
    /// The user vouches that nothing writes to the claims.
    pub stopped: bool,
    /// Read the claims as they are, even where they could be held still.
    pub live: bool,
    /// Read every byte, whatever sizes and times say.
    pub read_all: bool,
    /// Claims may be missing, or fewer than the last complete point had.
    pub allow_fewer_claims: bool,
    /// A claim may be empty that was not.
    pub allow_empty: bool,
    /// Volumes may be under another ordinal than in the last point.
    pub allow_moved_volumes: bool,
    /// A safety point of these claims alone, as they are, whole set or not; `None` for a normal point.
    pub safety: Option<Vec<ClaimId>>,
    /// What no point has, by patterns, of every claim: see [`Exclude`](crate::model::exclude::Exclude).
    pub exclude: Vec<String>,
    /// Commands around the cut; `None` for what the pods themselves ask for.
    pub hooks: Option<Hooks>,
    /// Bytes for each mover.
    pub memory: u64,
    /// The repository as the user wrote it: what movers are told.
    pub location: String,
    /// How long to wait for whoever holds the repository alone.
    pub wait_lock: Duration,
}

/// In which order ordinals are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Ascending,
    Descending,
}

impl Default for BackupOptions {
    fn default() -> Self {
        BackupOptions {
            parallel: 1,
            order: Order::default(),
            stopped: false,
            live: false,
            read_all: false,
            allow_fewer_claims: false,
            allow_empty: false,
            allow_moved_volumes: false,
            safety: None,
            exclude: Vec::new(),
            hooks: None,
            memory: 64 << 20,
            location: String::new(),
            wait_lock: Duration::from_secs(600),
        }
    }
}
