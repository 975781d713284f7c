//! The one table of exit codes, and which error leads to which.

use crate::backup::BackupError;
use crate::cli::error::CliError;
use crate::config::ConfigError;
use crate::drill::DrillError;
use crate::model::mover_job::FailureKind;
use crate::mover::error::MoverError;
use crate::platform::PlatformError;
use crate::repository::error::RepositoryError;
use crate::repository::select::ChoiceError;
use crate::restore::RestoreError;
use crate::retention::RetentionError;
use crate::store::{ErrorKind, LocationError, StoreError};
use crate::telemetry::BadFilter;

/// How the program ends. The numbers are a promise; `docs/exit-codes.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    Done = 0,
    Failed = 1,
    /// Arguments or settings that make no sense.
    Usage = 2,
    /// Finished, but something could not be read (the point is partial) or not every attribute could be set.
    Partial = 3,
    NoRepository = 10,
    /// Somebody else holds it.
    Locked = 11,
    WrongPassword = 12,
    /// A safety rule says no; the text names the flag that overrides it.
    Refused = 13,
    Interrupted = 130,
}

impl ExitCode {
    /// The code that another process of ours ended with; `None` where it is none of ours.
    pub fn of(number: i32) -> Option<Self> {
        use ExitCode::{Done, Failed, Interrupted, Locked, NoRepository, Partial, Refused, Usage, WrongPassword};
        [Done, Failed, Usage, Partial, NoRepository, Locked, WrongPassword, Refused, Interrupted]
            .into_iter()
            .find(|code| *code as i32 == number)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}

/// What an error means to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub code: ExitCode,
    pub hint: Option<String>,
}

/// The outermost cause that says something decides, for the code and for the hint each.
pub fn judge(error: &anyhow::Error) -> Verdict {
    let mut verdict = Verdict { code: ExitCode::Failed, hint: None };
    let mut decided = false;
    for cause in error.chain() {
        let Some((code, hint)) = known(cause) else { continue };
        if !decided && let Some(code) = code {
            verdict.code = code;
            decided = true;
        }
        if verdict.hint.is_none() {
            verdict.hint = hint;
        }
    }
    verdict
}

type Known = (Option<ExitCode>, Option<String>);

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Known> {
    if let Some(error) = cause.downcast_ref::<CliError>() {
        return Some((Some(error.code()), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<ConfigError>() {
        return Some((Some(ExitCode::Usage), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<BadFilter>() {
        return Some((Some(ExitCode::Usage), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<RetentionError>() {
        return Some((Some(ExitCode::Usage), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<LocationError>() {
        return Some((Some(ExitCode::Usage), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<ChoiceError>() {
        let code = if error.is_refusal() { ExitCode::Refused } else { ExitCode::Failed };
        return Some((Some(code), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<BackupError>() {
        return Some((Some(of_failure(error.kind())), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<RestoreError>() {
        return Some((Some(of_failure(error.kind())), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<DrillError>() {
        return Some((Some(of_failure(error.kind())), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<PlatformError>() {
        return Some((None, error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<MoverError>() {
        return Some((Some(of_failure(error.kind())), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<RepositoryError>() {
        return Some((of_repository(error), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        let code = match error.kind {
            ErrorKind::NoSuchFolder | ErrorKind::NoSuchBucket => Some(ExitCode::NoRepository),
            ErrorKind::Settings => Some(ExitCode::Usage),
            _ => None,
        };
        return Some((code, error.hint()));
    }
    None
}

/// What a worker's failure means for the whole.
pub fn of_failure(kind: FailureKind) -> ExitCode {
    match kind {
        FailureKind::Failed => ExitCode::Failed,
        FailureKind::Refused => ExitCode::Refused,
        FailureKind::Locked => ExitCode::Locked,
        FailureKind::Interrupted => ExitCode::Interrupted,
    }
}

fn of_repository(error: &RepositoryError) -> Option<ExitCode> {
    Some(match error {
        RepositoryError::NoRepository { .. } => ExitCode::NoRepository,
        RepositoryError::WrongPassword { .. } => ExitCode::WrongPassword,
        RepositoryError::Locked { .. } | RepositoryError::LockLost { .. } => ExitCode::Locked,
        RepositoryError::AlreadyThere { .. } | RepositoryError::Unfinished { .. } | RepositoryError::Refused { .. } => ExitCode::Refused,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_own_code() {
        let location = || "/r".to_owned();
        let cases: Vec<(anyhow::Error, ExitCode)> = vec![
            (anyhow::anyhow!("anything"), ExitCode::Failed),
            (CliError::usage("m", "h").into(), ExitCode::Usage),
            (CliError::refused("m", "h").into(), ExitCode::Refused),
            (CliError::Interrupted.into(), ExitCode::Interrupted),
            (RetentionError::KeepsNothing.into(), ExitCode::Usage),
            (RepositoryError::NoRepository { location: location() }.into(), ExitCode::NoRepository),
            (RepositoryError::WrongPassword { location: location() }.into(), ExitCode::WrongPassword),
            (RepositoryError::Locked { location: location(), holder: "h".into() }.into(), ExitCode::Locked),
            (RepositoryError::AlreadyThere { location: location() }.into(), ExitCode::Refused),
            (BackupError::Interrupted.into(), ExitCode::Interrupted),
            (BackupError::Repository(RepositoryError::Locked { location: location(), holder: "h".into() }).into(), ExitCode::Locked),
            (RestoreError::Choice(ChoiceError::NoneComplete { set: "a/b".into(), partial: 1 }).into(), ExitCode::Refused),
            (RestoreError::Interrupted.into(), ExitCode::Interrupted),
        ];
        for (error, code) in cases {
            assert_eq!(judge(&error).code, code, "{error:#}");
        }
    }

    #[test]
    fn the_outermost_cause_decides_and_the_first_hint_is_given() {
        let inner = RepositoryError::WrongPassword { location: "/r".into() };
        let verdict = judge(&anyhow::Error::new(inner).context("no point of set a/b"));
        assert_eq!(verdict.code, ExitCode::WrongPassword);
        assert!(verdict.hint.unwrap().contains("KEEPSET_PASSWORD_FILE"));
    }
}
