//! What can go wrong where sets live.

use std::io;

use crate::model::mover_job::FailureKind;

/// A platform could not do what it was asked; the message names the thing and the place.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("cannot {verb} {path}")]
    Io {
        /// `read`, `create`, `remove`.
        verb: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no folder {path}")]
    NoFolder { path: String },
    #[error("{path} has the name of a claim but is {what}")]
    NotAClaim { path: String, what: &'static str },
    #[error("the folders of {place} can be read in two ways: `{short}-…` and `{long}-…` may be two templates of one set, or two sets")]
    Ambiguous { place: String, short: String, long: String },
    #[error("ordinal {ordinal} of set {set} is too far from ordinal {first}: {claims} claims would be missing between them")]
    Scattered { set: String, first: u32, ordinal: u32, claims: u64 },
    #[error("ordinals {start} to {start} + {replicas} of set {set} are out of range")]
    BadRange { set: String, start: u32, replicas: u32 },
    #[error("{path} is not empty")]
    HoldsData { path: String },
    #[error("claim {claim} in {place} is not being restored by run {run}")]
    NotOurs { claim: String, place: String, run: String },
    #[error("a restore is open already: {path}")]
    JournalThere { path: String },
    #[error("the restore of {path} is at work in another process")]
    JournalHeld { path: String },
    #[error("a mover is still at work in {path}")]
    ClaimHeld { path: String },
    #[error("cannot start the mover of ordinal {ordinal} by {program}")]
    MoverStart {
        ordinal: u32,
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("the mover of ordinal {ordinal} ended without a report ({status}){said}")]
    MoverLost { ordinal: u32, status: String, said: String },
    #[error("the mover of ordinal {ordinal} wrote a line that nobody understands: {line}")]
    MoverLine { ordinal: u32, line: String },
    #[error("no start command is set for set {set}")]
    NoStart { set: String },
    #[error("cannot run `{command}`")]
    Spawn {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("the start command of ordinal {ordinal} failed: `{command}` ended with {status}{said}")]
    StartFailed { ordinal: u32, command: String, status: String, said: String },
    #[error("ordinal {ordinal} was not {what} within {seconds} s{said}")]
    Deadline { ordinal: u32, what: &'static str, seconds: u64, said: String },
}

impl PlatformError {
    pub(super) fn io(verb: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        PlatformError::Io { verb, path: path.display().to_string(), source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            PlatformError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as a user who may read and write there".into()
            }
            PlatformError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some room, or choose another place".into()
            }
            PlatformError::NoFolder { .. } => "give the folder that holds one folder per claim, `<template>-<set>-<ordinal>`".into(),
            PlatformError::NotAClaim { .. } => {
                "links are never followed: put the folder itself there (a bind mount does), or give the entry another name".into()
            }
            PlatformError::Ambiguous { short, long, .. } => {
                format!("name the set's templates: `--template {short} --template {long}` if both are its own, `--template {short}` if not")
            }
            PlatformError::Scattered { .. } => "give the range with `--start-ordinal` and `--replicas`".into(),
            PlatformError::BadRange { .. } => {
                "`--start-ordinal` and `--replicas` together must stay below 4294967296, and be no more than 100000".into()
            }
            PlatformError::HoldsData { .. } => "choose an empty place with `--into`".into(),
            PlatformError::JournalThere { .. } => "`keepset restore … --resume` goes on with it, `--undo` takes it back".into(),
            PlatformError::JournalHeld { .. } | PlatformError::ClaimHeld { .. } => "wait for it, or end it, and try again".into(),
            PlatformError::NoStart { .. } => "set a start command for the set in the settings, or say `--start none`".into(),
            PlatformError::StartFailed { .. } | PlatformError::Deadline { .. } => {
                "the data is restored and proven; start the rest by hand once the cause is found".into()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// What the exit code depends on.
    pub fn kind(&self) -> FailureKind {
        match self {
            PlatformError::NotAClaim { .. }
            | PlatformError::Ambiguous { .. }
            | PlatformError::Scattered { .. }
            | PlatformError::HoldsData { .. }
            | PlatformError::NotOurs { .. }
            | PlatformError::JournalThere { .. } => FailureKind::Refused,
            PlatformError::JournalHeld { .. } | PlatformError::ClaimHeld { .. } => FailureKind::Locked,
            _ => FailureKind::Failed,
        }
    }
}
