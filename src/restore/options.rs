//! What the user may decide about a restore.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::set::{Ordinal, SetName};
use crate::repository::select::Selector;

/// Everything that is neither the set's name nor the place.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    pub point: Selector,
    /// The cluster whose points count; `None` where only one has any.
    pub cluster: Option<String>,
    /// A partial point will do.
    pub allow_partial: bool,
    /// Only these; empty for all.
    pub ordinals: Vec<Ordinal>,
    /// Only these templates or claims; empty for all.
    pub claims: Vec<String>,
    /// Only these paths below each claim's root; empty for all.
    pub paths: Vec<String>,
    /// The set's new name; `None` to keep it.
    pub to: Option<SetName>,
    /// The place may hold claims of the set that the point does not have.
    pub allow_extra_claims: bool,
    /// Volumes may be under another ordinal than in the last point of the set that is there.
    pub allow_moved_volumes: bool,
    /// Claims that are made are of this class instead of that.
    pub map_class: BTreeMap<String, String>,
    /// A set that is not there is made as the point recorded it, once its claims are filled.
    pub create_set: bool,
    /// Claims that hold data are made equal to the point.
    pub replace: bool,
    /// Seal what they hold in a safety point first, and refuse if that cannot be done in full.
    pub safety: bool,
    /// Leave out and list what the repository cannot give any more, instead of refusing.
    pub skip_damaged: bool,
    /// Begin although the room seems too little.
    pub ignore_room: bool,
    pub start: StartMode,
    /// What the settings say of [`StartMode::AsSet`]: all at once, or in order; `None` to go by the point.
    pub starts_at_once: Option<bool>,
    /// Movers at the same time; at least 1.
    pub parallel: usize,
    /// Bytes for each mover.
    pub memory: u64,
    /// The repository as the user wrote it: what movers are told.
    pub location: String,
    /// How long to wait for whoever holds the repository alone.
    pub wait_lock: Duration,
}

/// How ordinals are started once all are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartMode {
    /// As the set's own policy says: in order, or at once. Nothing where the platform cannot start any.
    #[default]
    AsSet,
    /// One after another, each ready before the next.
    Ordered,
    /// All at once.
    Parallel,
    None,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        RestoreOptions {
            point: Selector::Latest,
            cluster: None,
            allow_partial: false,
            ordinals: Vec::new(),
            claims: Vec::new(),
            paths: Vec::new(),
            to: None,
            allow_extra_claims: false,
            allow_moved_volumes: false,
            map_class: BTreeMap::new(),
            create_set: false,
            replace: false,
            safety: true,
            skip_damaged: false,
            ignore_room: false,
            start: StartMode::default(),
            starts_at_once: None,
            parallel: 1,
            memory: 64 << 20,
            location: String::new(),
            wait_lock: Duration::from_secs(600),
        }
    }
}
