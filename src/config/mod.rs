//! What may be set, where it is set and whether it fits together.
//!
//! Settings are plain data: the file is read here, environment and flags are laid over it by `cli`, and nothing below this floor
//! reads either. `config/keepset.yaml` shows every key, `config/minimal.yaml` the least.

mod error;
mod load;
mod settings;
mod units;
mod validate;

pub use error::ConfigError;
pub use load::{load, parse};
pub use settings::{Defaults, Match, OrderOfSaving, Repository, Retention, SetSettings, Settings, Start, StartPolicy};
pub use units::{CalendarSpan, Percent, Size, Span};
pub use validate::validate;
