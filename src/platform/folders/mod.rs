//! Sets outside Kubernetes: a folder that holds one folder per claim, `<template>-<set>-<ordinal>`, and movers as child processes.

mod child;
mod hold;
mod journal;
mod read;
mod root;
mod scratch;
mod start;
mod target;

pub use scratch::FolderScratch;
pub use start::StartCommand;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::model::claim::{ClaimId, ClaimPlace, is_claim_name};
use crate::model::manifest::Consistency;
use crate::model::mover_job::{FillMode, FolderId, MoverJob};
use crate::model::path_text::path_text;
use crate::model::set::{Ordinal, SetName};
use crate::model::set_state::{CutClaim, SetState, Targets};
use crate::platform::JournalHold;
use crate::platform::Mover;
use crate::platform::Platform;
use crate::platform::PlatformError;
use crate::platform::folders::root::{Folder, Root};

/// Ways to the repository's password: no child process gets them.
pub(super) const SECRET_VARIABLES: [&str; 6] = [
    "KEEPSET_PASSWORD",
    "KEEPSET_PASSWORD_FILE",
    "KEEPSET_PASSWORD_COMMAND",
    "RESTIC_PASSWORD",
    "RESTIC_PASSWORD_FILE",
    "RESTIC_PASSWORD_COMMAND",
];

/// What the user said of the folders.
#[derive(Clone, Debug)]
pub struct FoldersOptions {
    /// The folder that holds the claims' folders. A restore makes it where it is absent.
    pub root: PathBuf,
    /// The repository's folder, where it is one: a set that lies in it, or has it in a claim, is refused.
    pub repository: Option<PathBuf>,
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
    /// Variables of this process that the user's own commands do not get: the ways to the password and to the store's keys.
    pub withheld: Vec<OsString>,
    /// How ordinals are started after a restore.
    pub start_command: Option<StartCommand>,
}

/// The platform for sets that are folders.
///
/// The set's folder is opened once, and each claim's folder when it is first used: movers refuse any other folder that stands at the
/// same path later.
#[derive(Clone, Debug)]
pub struct Folders {
    options: FoldersOptions,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    root: Option<Arc<Root>>,
    /// Open, so that no other folder gets a claim's inode number while movers may still be at work.
    claims: BTreeMap<String, Folder>,
}

impl Folders {
    pub fn new(options: FoldersOptions) -> Self {
        Folders { options, held: Arc::default() }
    }

    /// The set's folder; `None` where it does not exist.
    fn root(&self) -> Result<Option<Arc<Root>>, PlatformError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = held.root.as_ref().filter(|root| !root.is_gone()) {
            return Ok(Some(Arc::clone(root)));
        }
        *held = Held::default();
        let path = &self.options.root;
        match Root::open(path) {
            Ok(root) => {
                utf8(root.path())?;
                keep_apart(&root, self.options.repository.as_deref())?;
                Ok(Some(Arc::clone(held.root.insert(Arc::new(root)))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(PlatformError::NoFolder { path: path.display().to_string() }),
            Err(error) => Err(PlatformError::io("read", path, error)),
        }
    }

    fn present_root(&self) -> Result<Arc<Root>, PlatformError> {
        self.root()?.ok_or_else(|| PlatformError::NoFolder { path: self.options.root.display().to_string() })
    }

    /// The set's folder, which is made where it does not exist.
    fn made_root(&self) -> Result<Arc<Root>, PlatformError> {
        if let Some(root) = self.root()? {
            return Ok(root);
        }
        let path = utf8(&self.options.root)?;
        fs::create_dir_all(path).map_err(|e| PlatformError::io("create", path, e))?;
        self.present_root()
    }

    /// Remembers a claim's folder as the one that movers are to work on.
    fn hold(&self, claim: &str, folder: Folder) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).claims.insert(claim.to_owned(), folder);
    }

    /// The folder that was remembered, or the one that stands there now.
    fn folder_id(&self, claim: &str) -> Result<Option<FolderId>, PlatformError> {
        if let Some(folder) = self.held.lock().unwrap_or_else(PoisonError::into_inner).claims.get(claim) {
            return Ok(Some(folder.id));
        }
        let Some(folder) = target::folder_of(&*self.present_root()?, claim)? else { return Ok(None) };
        let id = folder.id;
        self.hold(claim, folder);
        Ok(Some(id))
    }
}

/// Paths go to movers as text. One that is not UTF-8 would lead to another folder there.
fn utf8(path: &Path) -> Result<&Path, PlatformError> {
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(PlatformError::NotUtf8 { path: path_text(path.as_os_str().as_bytes()) }),
    }
}

/// Whether a claim may have the name: `<template>-<set>-<ordinal>`.
fn is_of_a_set(name: &str) -> bool {
    let ends_as_one = |(rest, ordinal): (&str, &str)| rest.contains('-') && ordinal.parse::<u32>().is_ok();
    is_claim_name(name) && name.rsplit_once('-').is_some_and(ends_as_one)
}

/// As [`keep_apart`], for a folder that does not exist yet.
fn keep_apart_from_new(path: &Path, repository: Option<&Path>) -> Result<(), PlatformError> {
    let there = path.ancestors().find_map(|above| Root::open(above).ok());
    let (Some(there), Some(repository)) = (there, repository) else { return Ok(()) };
    let inside = fs::canonicalize(repository).is_ok_and(|repository| there.path().starts_with(repository));
    if inside {
        return Err(PlatformError::HoldsRepository { repository: repository.display().to_string(), path: path.display().to_string() });
    }
    Ok(())
}

/// Refuses a set's folder that lies in the repository's, and a repository that lies in one of the set's claims.
fn keep_apart(root: &Root, repository: Option<&Path>) -> Result<(), PlatformError> {
    let Some(repository) = repository else { return Ok(()) };
    let id = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some(FolderId { device: found.dev(), inode: found.ino() })
    };
    let refused = |path: &Path| {
        let repository = repository.display().to_string();
        Err(PlatformError::HoldsRepository { repository, path: path.display().to_string() })
    };
    if let Some(own) = id(repository)
        && root.path().ancestors().any(|above| id(above) == Some(own))
    {
        return refused(root.path());
    }
    // A repository that does not exist yet lies where the nearest folder above it is.
    let there = repository.ancestors().find_map(|path| fs::canonicalize(path).ok());
    let above: Vec<FolderId> = there.iter().flat_map(|path| path.ancestors()).filter_map(id).collect();
    let own = root.id().map_err(|e| PlatformError::io("read", root.path(), e))?;
    let Some(depth) = above.iter().position(|above| *above == own) else { return Ok(()) };
    match depth.checked_sub(1).and_then(|below| there.as_deref()?.ancestors().nth(below)) {
        // In the set's folder and in none of its claims it is only a foreign folder.
        Some(entry) if entry.file_name().and_then(|name| name.to_str()).is_some_and(is_of_a_set) => refused(entry),
        _ => Ok(()),
    }
}

#[async_trait]
impl Platform for Folders {
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError> {
        read::read_set(&*self.present_root()?, &self.options, set)
    }

    async fn cut(&self, _: &str, set: &SetName, claims: &[ClaimId], _: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        let root = self.present_root()?;
        let as_it_is = |claim: &ClaimId| {
            let name = claim.name(&set.name);
            let path = root.path_of(&name).display().to_string();
            // One that is gone is its mover's to report, which is not started.
            if let Some(folder) = target::folder_of(&root, &name)? {
                self.hold(&name, folder);
            }
            // Folders cannot be held still: movers read them as they are.
            Ok(CutClaim { source: path, name, volume: None, moment: None })
        };
        claims.iter().map(as_it_is).collect()
    }

    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], measure: bool) -> Result<Targets, PlatformError> {
        let path = std::path::absolute(&self.options.root).map_err(|e| PlatformError::io("read", &self.options.root, e))?;
        let root = self.root()?;
        if root.is_none() {
            keep_apart_from_new(utf8(&path)?, self.options.repository.as_deref())?;
        }
        target::read_targets(root.as_deref(), &path, set, claims, measure)
    }

    async fn read_journal(&self, set: &SetName) -> Result<Option<String>, PlatformError> {
        self.root()?.map_or(Ok(None), |root| journal::read(&root, set))
    }

    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
        let file = journal::open(&*self.made_root()?, set, first).await?;
        Ok(JournalHold { set: set.clone(), file: Some(file), version: None })
    }

    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        let Some(root) = self.root()? else { return Ok(None) };
        let taken = journal::take(&root, set).await?;
        Ok(taken.map(|(file, text)| (JournalHold { set: set.clone(), file: Some(file), version: None }, text)))
    }

    async fn append_journal(&self, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        let path = self.options.root.join(journal::name(&hold.set));
        match &mut hold.file {
            Some(file) => journal::append(file, &path, line),
            None => Err(PlatformError::io("write", &path, io::ErrorKind::NotFound.into())),
        }
    }

    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError> {
        journal::close(&*self.present_root()?, &hold.set)
    }

    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
        let root = self.made_root()?;
        let folder = target::open_claim(&root, run, &claim.name, mode)?;
        self.hold(&claim.name, folder);
        Ok(root.path_of(&claim.name).display().to_string())
    }

    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        target::close_claim(&*self.present_root()?, run, &claim.name)
    }

    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError> {
        let root = self.present_root()?;
        let filled = self.held.lock().unwrap_or_else(PoisonError::into_inner).claims.get(&claim.name).map(|folder| folder.id);
        target::abandon_claim(&root, run, &claim.name, filled, remove).await?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).claims.remove(&claim.name);
        Ok(())
    }

    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError> {
        let mut job = job.clone();
        for (claim, folder) in job.task.folders() {
            // Without a folder to compare with, a mover would take whatever the path leads to by then.
            let exchanged = || PlatformError::Exchanged { path: self.options.root.join(claim).display().to_string() };
            *folder = Some(self.folder_id(claim)?.ok_or_else(exchanged)?);
        }
        child::start(&self.options.program, &self.options.program_args, &job, secret)
    }

    fn can_start(&self) -> bool {
        self.options.start_command.is_some()
    }

    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
        match &self.options.start_command {
            Some(command) => start::start(command, self.present_root()?.path(), &self.options.withheld, set, ordinal).await,
            None => Err(PlatformError::NoStart { set: set.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    use crate::model::claim::ClaimShape;
    use crate::volume::Dir;

    use super::*;

    fn folders(root: &Path, repository: Option<&Path>) -> Folders {
        Folders::new(FoldersOptions {
            root: root.to_owned(),
            repository: repository.map(Path::to_owned),
            withheld: Vec::new(),
            cluster: "here".into(),
            templates: Vec::new(),
            start: None,
            replicas: None,
            program: "/nowhere".into(),
            program_args: Vec::new(),
            start_command: None,
        })
    }

    fn web() -> SetName {
        "shop/web".parse().unwrap()
    }

    fn claim() -> (ClaimId, ClaimPlace) {
        let id = ClaimId { ordinal: Ordinal(0), template: "data".into() };
        let place = ClaimPlace { set: web(), id: id.clone(), name: "data-web-0".into(), shape: ClaimShape::default() };
        (id, place)
    }

    /// What only root may see and change, and the ways to it that a set's owner has.
    fn victim(beside: &Path) -> PathBuf {
        let victim = beside.join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("shadow"), "root:secret").unwrap();
        victim
    }

    fn is_untouched(victim: &Path) {
        let names: Vec<_> = fs::read_dir(victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["shadow"]);
        assert_eq!(fs::read_to_string(victim.join("shadow")).unwrap(), "root:secret");
    }

    /// As a mover does it: the folder at the claim's path, if it is the one that was handed to it.
    fn opened_by_mover(folders: &Folders, path: &str) -> Option<Dir> {
        let folder = folders.folder_id("data-web-0").ok()?;
        Dir::open_root_of(Path::new(path), folder).ok()
    }

    #[test]
    fn an_owner_who_swaps_folders_for_links_gains_nothing() {
        // In memory, where waiting for the disk costs nothing.
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let victim = victim(place.path());
        let root = place.path().join("set");
        fs::create_dir_all(root.join("data-web-0")).unwrap();
        symlink(&victim, root.join("evil")).unwrap();
        let stop = AtomicBool::new(false);
        let ((id, claim), mut reached) = (claim(), 0);
        let harm = fs::metadata(&victim).unwrap().ino();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let links = [".keepset-incomplete-data-web-0", ".keepset-restore-web", ".keepset-restored-web"];
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, root.join("evil"), CWD, root.join("data-web-0"), RenameFlags::EXCHANGE);
                    let planted = root.join(links[round % links.len()]);
                    if round % 7 == 0 {
                        let _ = fs::remove_file(&planted);
                    }
                    let _ = symlink(victim.join("shadow"), &planted);
                    round += 1;
                }
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                runtime.block_on(async {
                    for round in 0..3000 {
                        let folders = folders(&root, None);
                        let _ = folders.read_set(&web()).await;
                        if let Ok(cuts) = folders.cut("run", &web(), std::slice::from_ref(&id), Consistency::Fuzzy).await
                            && let Some(dir) = opened_by_mover(&folders, &cuts[0].source)
                        {
                            assert_ne!(dir.stat().inode, harm);
                            reached += 1;
                        }
                        if let Ok(path) = folders.open_claim("run", &claim, FillMode::Replace).await
                            && let Some(dir) = opened_by_mover(&folders, &path)
                        {
                            assert_ne!(dir.stat().inode, harm);
                        }
                        let _ = folders.abandon_claim("run", &claim, round % 2 == 0).await;
                        if let Ok(hold) = folders.open_journal(&web(), "first\n").await {
                            let _ = folders.close_journal(hold).await;
                        }
                        if let Ok(Some((mut hold, text))) = folders.take_journal(&web()).await {
                            assert!(!text.contains("secret"));
                            let _ = folders.append_journal(&mut hold, "line\n").await;
                        }
                        let targets = folders.read_targets(&web(), std::slice::from_ref(&id), true).await;
                        assert!(!format!("{targets:?}").contains("secret"));
                    }
                });
            }));
            stop.store(true, Ordering::Relaxed);
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
        });
        is_untouched(&victim);
        assert!(reached > 0, "the claim's own folder was never reached: the test proves nothing");
    }

    #[tokio::test]
    async fn a_mark_that_is_a_link_is_replaced_and_neither_read_nor_cut() {
        let place = tempfile::tempdir().unwrap();
        let victim = victim(place.path());
        let root = place.path().join("set");
        fs::create_dir_all(root.join("data-web-0")).unwrap();
        let mark = root.join(".keepset-incomplete-data-web-0");
        symlink(victim.join("shadow"), &mark).unwrap();
        let ((id, claim), folders) = (claim(), folders(&root, None));
        let targets = folders.read_targets(&web(), &[id], false).await.unwrap();
        assert_eq!(format!("{:?}", targets.claims[0].state), "HalfRestored(\"unknown\")");
        assert!(folders.open_claim("run-1", &claim, FillMode::New).await.is_err());
        folders.open_claim("run-1", &claim, FillMode::Replace).await.unwrap();
        assert_eq!(fs::read_to_string(&mark).unwrap(), "run-1");
        assert!(fs::symlink_metadata(&mark).unwrap().is_file());
        is_untouched(&victim);
    }

    #[tokio::test]
    async fn a_folder_under_the_claims_name_that_the_run_did_not_open_stays() {
        let root = tempfile::tempdir().unwrap();
        let ((_, claim), folders) = (claim(), folders(root.path(), None));
        let path = PathBuf::from(folders.open_claim("run-1", &claim, FillMode::New).await.unwrap());
        fs::rename(&path, root.path().join("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "x").unwrap();
        let refused = folders.abandon_claim("run-1", &claim, true).await;
        assert!(matches!(refused, Err(PlatformError::Exchanged { .. })), "{refused:?}");
        assert!(path.join("precious").exists());
    }

    #[tokio::test]
    async fn a_repository_in_a_claim_or_around_the_set_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("set");
        fs::create_dir_all(root.join("data-web-0/backups/repository")).unwrap();
        symlink(root.join("data-web-0/backups"), place.path().join("link")).unwrap();
        for inside in [
            root.join("data-web-0/backups/repository"),
            place.path().join("link/repository"),
            place.path().join("link/new"),
            place.path().to_owned(),
        ] {
            let refused = folders(&root, Some(&inside)).read_set(&web()).await;
            assert!(matches!(refused, Err(PlatformError::HoldsRepository { .. })), "{}: {refused:?}", inside.display());
        }
        for apart in [root.join("repository"), place.path().join("repository")] {
            folders(&root, Some(&apart)).read_set(&web()).await.unwrap();
        }
        let (id, _) = claim();
        let refused =
            folders(&place.path().join("link/new/place"), Some(&root.join("data-web-0"))).read_targets(&web(), &[id], false).await;
        assert!(matches!(refused, Err(PlatformError::HoldsRepository { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_path_that_is_not_utf_8_is_refused_and_its_twin_left_alone() {
        use std::ffi::OsStr;

        let place = tempfile::tempdir().unwrap();
        let bad = place.path().join(OsStr::from_bytes(b"bad\xff"));
        let twin = place.path().join("bad\u{fffd}");
        for folder in [&bad, &twin] {
            fs::create_dir_all(folder.join("data-web-0")).unwrap();
        }
        let (_, claim) = claim();
        for error in [
            folders(&bad, None).read_set(&web()).await.unwrap_err(),
            folders(&bad, None).open_claim("run", &claim, FillMode::New).await.unwrap_err(),
            folders(&bad.join("new"), None).open_claim("run", &claim, FillMode::New).await.unwrap_err(),
        ] {
            assert!(matches!(&error, PlatformError::NotUtf8 { path } if path.contains("\\xff")), "{error}");
        }
        assert_eq!(fs::read_dir(&twin).unwrap().count(), 1);
    }
}
