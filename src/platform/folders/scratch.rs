//! A folder for a drill: new, this drill's alone, and gone when it is over. What a killed drill left, the next one of the set removes.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::claim::ClaimPlace;
use crate::model::set::{Ordinal, SetName};
use crate::platform::command;
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
    held: Option<File>,
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
    async fn sweep(&self) -> Result<(), PlatformError> {
        let failed = |error| PlatformError::io("read", &self.beside, error);
        let is_ours = |name: &str| {
            name.strip_prefix(&self.prefix()).is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(|c| c.is_ascii_hexdigit()))
        };
        for entry in fs::read_dir(&self.beside).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let named = path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours);
            let own = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw());
            if !named || !own {
                continue;
            }
            let Ok(folder) = File::open(&path) else { continue };
            if hold::lock(&folder, &path, Duration::ZERO).await? {
                tracing::info!(path = %path.display(), "removing what a dead drill left behind");
                remove(&path).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Scratch for FolderScratch {
    async fn open(&mut self) -> Result<(), PlatformError> {
        self.beside = std::path::absolute(&self.beside).map_err(|e| PlatformError::io("read", &self.beside, e))?;
        fs::create_dir_all(&self.beside).map_err(|e| PlatformError::io("create", &self.beside, e))?;
        self.sweep().await?;
        loop {
            let mut random = [0; DIGITS / 2];
            let failed = |error| PlatformError::io("create", &self.beside, error);
            crate::random::fill(&mut random).map_err(|error| failed(io::Error::other(error.to_string())))?;
            let root = self.beside.join(format!("{}{}", self.prefix(), data_encoding::HEXLOWER.encode(&random)));
            let failed = |error| PlatformError::io("create", &root, error);
            DirBuilder::new().mode(0o700).create(&root).map_err(failed)?;
            let folder = File::open(&root).map_err(failed)?;
            // Another drill may have taken it for a dead one's before it was locked.
            let is_held = hold::lock(&folder, &root, LET_GO).await?;
            let inode = folder.metadata().map_err(failed)?.ino();
            if is_held && fs::symlink_metadata(&root).is_ok_and(|meta| meta.ino() == inode) {
                (self.options.root, self.held) = (root, Some(folder));
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
        let (ended, said) = command::run(&words.command(probe), &words.variables, probe.timeout).await?;
        let how = ended.map_or_else(|| format!("not done within {} s", probe.timeout.as_secs()), |status| status.to_string());
        let said = said.strip_prefix(": ").unwrap_or_default().to_owned();
        Ok(ProbeEnd { exit_code: ended.and_then(|status| status.code()), how, said })
    }

    async fn clear(&mut self) -> Result<(), PlatformError> {
        if self.held.is_some() {
            remove(&self.options.root).await?;
            self.held = None;
        }
        Ok(())
    }
}

/// Removes the folder and all in it, once no mover is at work there any more.
async fn remove(root: &Path) -> Result<(), PlatformError> {
    let failed = |error| PlatformError::io("remove", root, error);
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir())
            && let Ok(claim) = File::open(&path)
            && !hold::lock(&claim, &path, LET_GO).await?
        {
            return Err(PlatformError::ClaimHeld { path: path.display().to_string() });
        }
    }
    match fs::remove_dir_all(root) {
        // Folders come back with the modes that they had, which may keep even their owner from emptying them.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_removable(root).and_then(|()| fs::remove_dir_all(root)).map_err(failed)
        }
        done => done.map_err(failed),
    }
}

fn make_removable(root: &Path) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}
