//! What is missing to back up and restore, and how to get it: from what was found out to findings, each with its fix. Nothing here asks anybody.

mod cluster;
mod repository;

pub use cluster::{Place, Rights, inside, of_cluster};
pub use repository::{of_locks, of_repository, of_store};

use serde::{Deserialize, Serialize};

/// One precondition, met or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its name, which stays.
    pub check: String,
    /// What it was asked of, where that is not this process and its repository: a set, or a pod of its namespace.
    pub of: Option<String>,
    pub state: State,
    /// What was found, on one line.
    pub detail: String,
    /// What makes it right: a command for a shell, to be taken as it is, or a sentence where no command can.
    pub fix: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Ok,
    /// Something works less well, or only some things work.
    Warning,
    /// Backups or restores do not work.
    Failed,
}

impl Finding {
    pub fn ok(check: &str, detail: impl Into<String>) -> Finding {
        Finding { check: check.to_owned(), of: None, state: State::Ok, detail: detail.into(), fix: None }
    }

    pub fn warning(check: &str, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { state: State::Warning, fix: Some(fix.into()), ..Finding::ok(check, detail) }
    }

    pub fn failed(check: &str, detail: impl Into<String>, fix: Option<String>) -> Finding {
        Finding { state: State::Failed, fix, ..Finding::ok(check, detail) }
    }

    /// The same, asked of this.
    #[must_use]
    pub fn of(self, of: impl Into<String>) -> Finding {
        Finding { of: Some(of.into()), ..self }
    }
}
