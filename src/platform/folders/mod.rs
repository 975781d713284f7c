//! Sets outside Kubernetes: a folder that holds one folder per claim, `<template>-<set>-<ordinal>`, and movers as child processes.

mod child;
mod hold;
mod journal;
mod read;
mod scratch;
mod start;
mod target;

pub use scratch::FolderScratch;
pub use start::StartCommand;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::model::claim::{ClaimId, ClaimPlace};
use crate::model::manifest::Consistency;
use crate::model::mover_job::{FillMode, MoverJob};
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{CutClaim, SetState, Targets};
use crate::platform::JournalHold;
use crate::platform::Mover;
use crate::platform::Platform;
use crate::platform::PlatformError;

/// Ways to the repository's password: no child process gets them.
pub(super) const SECRET_VARIABLES: [&str; 3] = ["KEEPSET_PASSWORD", "KEEPSET_PASSWORD_FILE", "KEEPSET_PASSWORD_COMMAND"];

/// What the user said of the folders.
#[derive(Clone, Debug)]
pub struct FoldersOptions {
    /// The folder that holds the claims' folders. A restore makes it where it is absent.
    pub root: PathBuf,
    /// The cluster's name in points' identity.
    pub cluster: String,
    /// The set's claim templates in its own order; empty to take them from the folders' names.
    pub templates: Vec<String>,
    /// The first ordinal; `None` for the lowest that is there.
    pub start: Option<u32>,
    /// How many ordinals there are; `None` for up to the highest that is there.
    pub replicas: Option<u32>,
    /// This very program: its verb `mover` is the worker.
    pub program: PathBuf,
    /// What makes it a mover: `["mover"]`.
    pub program_args: Vec<String>,
    /// How ordinals are started after a restore.
    pub start_command: Option<StartCommand>,
}

/// The platform for sets that are folders.
#[derive(Clone, Debug)]
pub struct Folders {
    options: FoldersOptions,
}

impl Folders {
    pub fn new(options: FoldersOptions) -> Self {
        Folders { options }
    }
}

#[async_trait]
impl Platform for Folders {
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError> {
        read::read_set(&self.options, set)
    }

    async fn cut(&self, _: &str, set: &SetName, claims: &[ClaimId], _: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        read::as_they_are(&self.options.root, set, claims)
    }

    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], measure: bool) -> Result<Targets, PlatformError> {
        target::read_targets(&self.options.root, set, claims, measure)
    }

    async fn read_journal(&self, set: &SetName) -> Result<Option<String>, PlatformError> {
        journal::read(&self.options.root, set)
    }

    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
        let file = journal::open(&self.options.root, set, first).await?;
        Ok(JournalHold { set: set.clone(), file: Some(file), version: None })
    }

    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        let taken = journal::take(&self.options.root, set).await?;
        Ok(taken.map(|(file, text)| (JournalHold { set: set.clone(), file: Some(file), version: None }, text)))
    }

    async fn append_journal(&self, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        let path = journal::path(&self.options.root, &hold.set);
        match &mut hold.file {
            Some(file) => journal::append(file, &path, line),
            None => Err(PlatformError::io("write", &path, std::io::ErrorKind::NotFound.into())),
        }
    }

    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError> {
        journal::close(&self.options.root, &hold.set)
    }

    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
        target::open_claim(&self.options.root, run, &claim.name, mode)
    }

    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        target::close_claim(&self.options.root, run, &claim.name)
    }

    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError> {
        target::abandon_claim(&self.options.root, run, &claim.name, remove).await
    }

    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError> {
        child::start(&self.options.program, &self.options.program_args, job, secret)
    }

    fn can_start(&self) -> bool {
        self.options.start_command.is_some()
    }

    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
        match &self.options.start_command {
            Some(command) => start::start(command, &self.options.root, set, ordinal).await,
            None => Err(PlatformError::NoStart { set: set.to_string() }),
        }
    }
}
