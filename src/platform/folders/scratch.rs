//! A folder for a drill: new, this drill's alone, and gone when it is over. What a killed drill left, the next one of the set removes.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::claim::ClaimPlace;
use crate::model::set::{Ordinal, SetName};
use crate::platform::command;
use crate::platform::folders::root::{Root, empty, folders_in};
use crate::platform::folders::{Folders, FoldersOptions, hold};
use crate::platform::scratch::Words;
use crate::platform::{Platform, PlatformError, Probe, ProbeEnd, Scratch};

/// How long a mover that was killed may take to be gone.
const LET_GO: Duration = Duration::from_secs(10);
/// Digits that tell one drill's folder from another's.
const DIGITS: usize = 16;

/// A folder below one that the user chose.
pub struct FolderScratch {
    /// Where it is made.
    beside: PathBuf,
    set: SetName,
    /// The root is set when the place is taken.
    options: FoldersOptions,
    /// The folder itself, locked as long as the drill lives.
    held: Option<Held>,
}

/// A drill's folder, its name, and the folder that it is in.
struct Held {
    beside: Root,
    name: String,
    folder: File,
}

impl FolderScratch {
    /// For drills of `set` in a new folder in `beside`; of `options` all but the root counts.
    pub fn new(beside: PathBuf, set: SetName, options: FoldersOptions) -> Self {
        FolderScratch { beside, set, options, held: None }
    }

    fn prefix(&self) -> String {
        format!("keepset-drill-{}.{}-", self.set.namespace, self.set.name)
    }

    /// Folders of drills of this set whose process is gone.
    async fn sweep(&self, beside: &Root) -> Result<(), PlatformError> {
        let failed = |error| PlatformError::io("read", &self.beside, error);
        let is_ours = |name: &str| {
            name.strip_prefix(&self.prefix()).is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(|c| c.is_ascii_hexdigit()))
        };
        for (name, _) in beside.entries().map_err(failed)? {
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            let Ok(folder) = beside.open_folder(name) else { continue };
            let path = beside.path_of(name);
            let own = folder.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
            if own && hold::lock(&folder, &path, Duration::ZERO).await? {
                tracing::info!(path = %path.display(), "removing what a dead drill left behind");
                remove(beside, name, &folder).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Scratch for FolderScratch {
    async fn open(&mut self) -> Result<(), PlatformError> {
        fs::create_dir_all(&self.beside).map_err(|e| PlatformError::io("create", &self.beside, e))?;
        let beside = Root::open(&self.beside).map_err(|e| PlatformError::io("read", &self.beside, e))?;
        self.beside = beside.path().to_owned();
        self.sweep(&beside).await?;
        loop {
            let mut random = [0; DIGITS / 2];
            let failed = |error| PlatformError::io("create", &self.beside, error);
            crate::random::fill(&mut random).map_err(|error| failed(io::Error::other(error.to_string())))?;
            let name = format!("{}{}", self.prefix(), data_encoding::HEXLOWER.encode(&random));
            let root = beside.path_of(&name);
            let failed = |error| PlatformError::io("create", &root, error);
            beside.make_folder(&name).map_err(failed)?;
            let folder = beside.open_folder(&name).map_err(failed)?;
            // Another drill may have taken it for a dead one's before it was locked.
            let is_held = hold::lock(&folder, &root, LET_GO).await?;
            if is_held && beside.is_still(&name, &folder).map_err(failed)? {
                self.options.root = root;
                self.held = Some(Held { beside, name, folder });
                return Ok(());
            }
        }
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::new(Folders::new(self.options.clone()))
    }

    fn set(&self) -> &SetName {
        &self.set
    }

    fn place(&self) -> String {
        self.options.root.display().to_string()
    }

    fn root_of(&self, claim: &str) -> String {
        self.options.root.join(claim).display().to_string()
    }

    async fn probe(&self, _run: &str, ordinal: Ordinal, claims: &[ClaimPlace], probe: &Probe) -> Result<ProbeEnd, PlatformError> {
        let paths: Vec<String> = claims.iter().map(|claim| self.root_of(&claim.name)).collect();
        let words = Words::new(&self.set, ordinal, claims, &paths);
        let (ended, said) = command::run(&words.command(probe), &words.variables, &self.options.withheld, probe.timeout).await?;
        let how = ended.map_or_else(|| format!("not done within {} s", probe.timeout.as_secs()), |status| status.to_string());
        let said = said.strip_prefix(": ").unwrap_or_default().to_owned();
        Ok(ProbeEnd { exit_code: ended.and_then(|status| status.code()), how, said })
    }

    async fn clear(&mut self) -> Result<(), PlatformError> {
        if let Some(held) = &self.held {
            remove(&held.beside, &held.name, &held.folder).await?;
            self.held = None;
        }
        Ok(())
    }
}

/// Removes the folder and all in it, once no mover is at work there any more. Whatever has its name by then, only this folder is emptied.
async fn remove(beside: &Root, name: &str, folder: &File) -> Result<(), PlatformError> {
    let path = beside.path_of(name);
    let failed = |error| PlatformError::io("remove", &path, error);
    for (claim, open) in folders_in(folder.as_fd()).map_err(failed)? {
        let path = path.join(claim);
        if !hold::lock(&open, &path, LET_GO).await? {
            return Err(PlatformError::ClaimHeld { path: path.display().to_string() });
        }
    }
    empty(folder.as_fd(), true).map_err(failed)?;
    if beside.is_still(name, folder).map_err(failed)? { beside.remove_folder(name).map_err(failed) } else { Ok(()) }
}
