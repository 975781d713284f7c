//! What may be set, where it is set and whether it fits together.
//!
//! Settings are plain data: the file is read here, environment and flags are laid over it by `cli`, and nothing below this floor
//! reads either. `config/keepset.yaml` shows every key, `config/minimal.yaml` the least.

mod drill;
mod error;
mod load;
mod resolve;
mod settings;
mod units;
mod validate;

pub use drill::{DrillSettings, ProbeSettings, profile};
pub use error::ConfigError;
pub use load::{load, parse};
pub use resolve::{Resolved, resolve, schedule_of};
pub use settings::{
    Agent, Defaults, HookCommand, HookSettings, Match, OrderOfSaving, Repository, Retention, SetSettings, Settings, Start, StartPolicy,
    Upkeep,
};
pub use units::{CalendarSpan, Percent, Quantity, Size, Span};
pub use validate::validate;
