//! What can go wrong in a restore.

use crate::model::mover_job::FailureKind;
use crate::platform::PlatformError;
use crate::repository::error::RepositoryError;
use crate::repository::select::ChoiceError;
use crate::restore::refusal::Refusal;
use crate::restore::safety::SafetyFailure;

/// A restore that is not done.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("point {point} cannot be restored: {count} things are absent from the repository: {absent}")]
    Unproven { point: String, count: u64, absent: String },
    #[error("the set is not back and nothing was started{}", kept(done))]
    Unfilled {
        /// Claims that are whole, in place and proven.
        done: Vec<String>,
        /// The run whose journal stays open, since claims are changed.
        open: Option<String>,
        #[source]
        source: Box<RestoreError>,
    },
    #[error("no safety point could be made of what the targets hold: {0}")]
    Safety(SafetyFailure),
    #[error("{error} (ordinal {ordinal})")]
    Mover { ordinal: u32, error: String, hint: Option<String>, kind: FailureKind },
    #[error("the mover of ordinal {ordinal} reported {what}")]
    BadReport { ordinal: u32, what: String },
    #[error("every claim is restored and proven, but not every ordinal is up ({})", ready(started))]
    Unready {
        started: Vec<String>,
        #[source]
        source: PlatformError,
    },
    #[error("interrupted while ordinals were started: every claim is restored and proven ({})", ready(started))]
    StartInterrupted { started: Vec<String> },
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

fn kept(done: &[String]) -> String {
    if done.is_empty() { String::new() } else { format!("; whole and in place: {}", done.join(", ")) }
}

fn ready(started: &[String]) -> String {
    if started.is_empty() { "none is ready".into() } else { format!("ready: {}", started.join(", ")) }
}

impl From<Refusal> for RestoreError {
    fn from(refusal: Refusal) -> Self {
        RestoreError::Refused(refusal)
    }
}

impl RestoreError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RestoreError::Choice(error) => error.hint(),
            RestoreError::Refused(refusal) => refusal.hint(),
            RestoreError::Unproven { .. } => {
                Some("`keepset check` names what is damaged, and `keepset repair index` mends an index; choose another point with `--point`, or single claims with `--claim`".into())
            }
            RestoreError::Unfilled { open, source, .. } => {
                let ways = open.as_ref().map(|run| format!("restore {run} is open: `--resume` goes on with it, `--undo` takes it back"));
                let hints: Vec<String> = source.hint().into_iter().chain(ways).collect();
                (!hints.is_empty()).then(|| hints.join("; "))
            }
            RestoreError::Safety(failure) => failure.hint.clone(),
            RestoreError::Mover { hint, .. } => hint.clone(),
            RestoreError::Unready { source, .. } => {
                let on = "`--resume` starts the rest, `--resume --start none` leaves it at that";
                Some(source.hint().map_or_else(|| on.to_owned(), |hint| format!("{hint}; {on}")))
            }
            RestoreError::StartInterrupted { .. } => Some("`--resume` starts the rest, `--resume --start none` leaves it at that".into()),
            RestoreError::Platform(error) => error.hint(),
            RestoreError::Repository(error) => error.hint(),
            RestoreError::BadReport { .. } | RestoreError::Interrupted => None,
        }
    }

    /// What the exit code depends on.
    pub fn kind(&self) -> FailureKind {
        match self {
            RestoreError::Choice(error) if error.is_refusal() => FailureKind::Refused,
            RestoreError::Refused(_) => FailureKind::Refused,
            RestoreError::Unfilled { source, .. } => source.kind(),
            RestoreError::Mover { kind, .. } => *kind,
            RestoreError::Safety(failure) => failure.kind,
            RestoreError::Interrupted | RestoreError::StartInterrupted { .. } => FailureKind::Interrupted,
            RestoreError::Platform(error) => error.kind(),
            RestoreError::Repository(RepositoryError::Locked { .. }) => FailureKind::Locked,
            RestoreError::Repository(RepositoryError::Refused { .. }) => FailureKind::Refused,
            RestoreError::Choice(_)
            | RestoreError::Unproven { .. }
            | RestoreError::BadReport { .. }
            | RestoreError::Unready { .. }
            | RestoreError::Repository(_) => FailureKind::Failed,
        }
    }
}
