//! Commands that are run in a set's pods around its cut.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The commands of one set, each list in the order in which its commands are run in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the cut.
    pub pre: Vec<Hook>,
    /// After it.
    pub post: Vec<Hook>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The ordinals in whose pods it is run; none for all.
    pub ordinals: Vec<u32>,
    /// Where left out the first of [`PodState::containers`](crate::model::set_state::PodState::containers).
    pub container: Option<String>,
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// How long it may take.
    pub seconds: u64,
    pub on_error: OnError,
}

/// What a command that fails means for the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnError {
    /// No point is made.
    #[default]
    Fail,
    /// It is told, and the backup goes on.
    Continue,
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnError::Fail => "fail",
            OnError::Continue => "continue",
        })
    }
}
