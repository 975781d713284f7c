//! Errors of the command line itself; all others come from the rooms below.

use crate::cli::exit::ExitCode;

/// Something that only the command line can know to be wrong.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Arguments that are each fine and together are not.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    #[error("{message}")]
    Failed { message: String, hint: Option<String> },
    /// A safety rule says no; the hint names the flag that overrides it or the way round.
    #[error("{message}")]
    Refused { message: String, hint: String },
    #[error("interrupted")]
    Interrupted,
    /// Interrupted as well, but what was begun goes on elsewhere.
    #[error("{message}")]
    LetGo { message: String, hint: String },
    #[error("cannot write to {what}")]
    Output {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl CliError {
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        CliError::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        CliError::Failed { message: message.into(), hint: Some(hint.into()) }
    }

    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        CliError::Refused { message: message.into(), hint: hint.into() }
    }

    pub(super) fn code(&self) -> ExitCode {
        match self {
            CliError::Usage { .. } => ExitCode::Usage,
            CliError::Failed { .. } | CliError::Output { .. } => ExitCode::Failed,
            CliError::Refused { .. } => ExitCode::Refused,
            CliError::Interrupted | CliError::LetGo { .. } => ExitCode::Interrupted,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CliError::Usage { hint, .. } | CliError::Failed { hint, .. } => hint.clone(),
            CliError::Refused { hint, .. } | CliError::LetGo { hint, .. } => Some(hint.clone()),
            CliError::Interrupted | CliError::Output { .. } => None,
        }
    }
}
