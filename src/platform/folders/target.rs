//! The claims' folders as targets of a restore: what is there, what is made, what is taken back.
//!
//! While a claim is being filled a mark stands beside it. It outlives a killed restore, so that neither a backup nor another restore
//! takes half a volume for a whole one.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::claim::{ClaimId, ClaimShape, is_claim_name};
use crate::model::mover_job::FillMode;
use crate::model::set::SetName;
use crate::model::set_state::{Room, Target, TargetState, Targets};
use crate::platform::PlatformError;
use crate::platform::folders::{hold, journal};

const MARK: &str = ".keepset-incomplete-";
/// How long a mover that was killed may take to be gone.
const LET_GO: Duration = Duration::from_secs(10);

/// Whether nothing is in the folder, an empty `lost+found` folder aside. Of one that cannot be looked into nobody knows.
pub(super) fn is_empty(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let may_be_there = entry.file_name() == "lost+found" && entry.file_type()?.is_dir();
        if !may_be_there || !fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A mark or a journal: neither a claim nor foreign.
pub(super) fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(MARK) || journal::is_journal(name))
}

/// The run that is filling the claim, if any. A mark that cannot be read is a mark.
pub(super) fn mark_of(root: &Path, claim: &str) -> Option<String> {
    match fs::read_to_string(mark_path(root, claim)) {
        Ok(run) => Some(run.trim().chars().filter(|c| !c.is_control()).take(80).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some("unknown".into()),
    }
}

fn mark_path(root: &Path, claim: &str) -> PathBuf {
    root.join(format!("{MARK}{claim}"))
}

pub(super) fn read_targets(root: &Path, set: &SetName, claims: &[ClaimId], measure: bool) -> Result<Targets, PlatformError> {
    let root = std::path::absolute(root).map_err(|e| PlatformError::io("read", root, e))?;
    let names: Vec<String> = claims.iter().map(|claim| claim.name(&set.name)).collect();
    let targets = names.iter().map(|name| read_target(&root, name, measure)).collect::<Result<Vec<_>, _>>()?;
    let mut foreign = Vec::new();
    match fs::read_dir(&root) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(|e| PlatformError::io("read", &root, e))?.file_name();
                let ours = name.to_str().is_some_and(|name| names.iter().any(|own| own == name)) || is_ours(&name);
                if !ours {
                    foreign.push(name.to_string_lossy().into_owned());
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(PlatformError::io("read", &root, error)),
    }
    foreign.sort();
    Ok(Targets { place: root.display().to_string(), claims: targets, foreign, ..Targets::default() })
}

fn read_target(root: &Path, name: &str, measure: bool) -> Result<Target, PlatformError> {
    let path = folder_of(root, name)?;
    let state = match (mark_of(root, name), fs::symlink_metadata(&path)) {
        (Some(run), _) => TargetState::HalfRestored(run),
        (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => TargetState::Absent,
        (None, Err(error)) => return Err(PlatformError::io("read", &path, error)),
        (None, Ok(meta)) if !meta.is_dir() => TargetState::Obstructed,
        (None, Ok(_)) if is_empty(&path).map_err(|e| PlatformError::io("read", &path, e))? => TargetState::Empty,
        (None, Ok(_)) => TargetState::HoldsData,
    };
    let holds = matches!(state, TargetState::HoldsData | TargetState::HalfRestored(_)) && is_folder(&path);
    let used = if measure && holds { used(&path).map_err(|e| PlatformError::io("read", &path, e))? } else { 0 };
    Ok(Target { name: name.to_owned(), path: path.display().to_string(), state, room: room_at(&path), used, shape: ClaimShape::default() })
}

/// Bytes that the files in the folder take on its file system.
fn used(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                // A file with several names is counted in parts.
                bytes = bytes.saturating_add(meta.blocks().saturating_mul(512) / meta.nlink().max(1));
            }
        }
    }
    Ok(bytes)
}

/// A folder itself, not a link to one.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Free room where `path` is or would be made.
fn room_at(path: &Path) -> Option<Room> {
    let there = path.ancestors().find(|path| path.is_dir())?;
    let device = fs::metadata(there).ok()?.dev();
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(Room { device, bytes: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

/// A claim's name may come from a repository that somebody else wrote: it must not lead out of the root.
fn folder_of(root: &Path, claim: &str) -> Result<PathBuf, PlatformError> {
    if is_claim_name(claim) {
        Ok(root.join(claim))
    } else {
        Err(PlatformError::NotAClaim { path: claim.escape_debug().to_string(), what: "no folder's name" })
    }
}

pub(super) fn open_claim(root: &Path, run: &str, claim: &str, mode: FillMode) -> Result<String, PlatformError> {
    let root = std::path::absolute(root).map_err(|e| PlatformError::io("create", root, e))?;
    let path = folder_of(&root, claim)?;
    fs::create_dir_all(&root).map_err(|e| PlatformError::io("create", &root, e))?;
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(PlatformError::io("read", &path, error)),
        Ok(meta) if !meta.is_dir() => {
            return Err(PlatformError::NotAClaim { path: path.display().to_string(), what: "no folder" });
        }
        Ok(_) if mode == FillMode::Replace => {}
        Ok(_) if is_empty(&path).map_err(|e| PlatformError::io("read", &path, e))? => {}
        Ok(_) => return Err(PlatformError::HoldsData { path: path.display().to_string() }),
    }
    // The mark is on disk before the first byte: a claim that exists without one is whole.
    let mark = mark_path(&root, claim);
    let mut options = OpenOptions::new();
    match mode {
        FillMode::New => options.write(true).create_new(true),
        FillMode::Replace => options.write(true).create(true).truncate(true),
    };
    options
        .open(&mark)
        .and_then(|mut file| file.write_all(run.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|e| PlatformError::io("create", &mark, e))?;
    // Closed to others until the volume root's own mode comes back.
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // Nothing has been filled, so the mark need not stay; the error that matters is the one above.
            let _ = fs::remove_file(&mark);
            Err(PlatformError::io("create", &path, error))
        }
        _ => sync(&root).map(|()| path.display().to_string()),
    }
}

pub(super) fn close_claim(root: &Path, run: &str, claim: &str) -> Result<(), PlatformError> {
    let (root, _) = marked(root, run, claim)?;
    remove_mark(&root, claim)
}

pub(super) async fn abandon_claim(root: &Path, run: &str, claim: &str, remove: bool) -> Result<(), PlatformError> {
    let (root, path) = marked(root, run, claim)?;
    let failed = |e| PlatformError::io("remove", &path, e);
    if is_folder(&path) {
        let _alone = alone(&path).await?;
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder && entry.file_name() == "lost+found" {
                // The file system's own stays, and what the restore put into it goes.
                for inside in fs::read_dir(entry.path()).into_iter().flatten() {
                    remove_entry(&inside.map_err(failed)?).map_err(failed)?;
                }
                continue;
            }
            remove_entry(&entry).map_err(failed)?;
        }
        if remove {
            // It stays where it cannot go: a mount point, or one that kept its lost+found.
            let _ = fs::remove_dir(&path);
        }
    }
    remove_mark(&root, claim)
}

fn remove_entry(entry: &fs::DirEntry) -> io::Result<()> {
    if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }
}

/// The folder's lock, which its mover holds while it is at work: one that has just been killed may still have calls under way.
async fn alone(path: &Path) -> Result<File, PlatformError> {
    let folder = File::open(path).map_err(|e| PlatformError::io("read", path, e))?;
    if hold::lock(&folder, path, LET_GO).await? { Ok(folder) } else { Err(PlatformError::ClaimHeld { path: path.display().to_string() }) }
}

/// The root and the claim's folder, if `run` is the one that fills it.
fn marked(root: &Path, run: &str, claim: &str) -> Result<(PathBuf, PathBuf), PlatformError> {
    let root = std::path::absolute(root).map_err(|e| PlatformError::io("read", root, e))?;
    let path = folder_of(&root, claim)?;
    if mark_of(&root, claim).as_deref() == Some(run) {
        Ok((root, path))
    } else {
        Err(PlatformError::NotOurs { claim: claim.to_owned(), place: root.display().to_string(), run: run.to_owned() })
    }
}

fn remove_mark(root: &Path, claim: &str) -> Result<(), PlatformError> {
    let mark = mark_path(root, claim);
    fs::remove_file(&mark).map_err(|e| PlatformError::io("remove", &mark, e))?;
    sync(root)
}

pub(super) fn sync(root: &Path) -> Result<(), PlatformError> {
    File::open(root).and_then(|folder| folder.sync_all()).map_err(|e| PlatformError::io("write", root, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::Ordinal;

    fn claims() -> Vec<ClaimId> {
        (0..4).map(|ordinal| ClaimId { ordinal: Ordinal(ordinal), template: "data".into() }).collect()
    }

    fn states(root: &Path) -> Vec<TargetState> {
        let targets = read_targets(root, &"shop/web".parse().unwrap(), &claims(), false).unwrap();
        targets.claims.into_iter().map(|target| target.state).collect()
    }

    #[test]
    fn targets_are_told_apart_by_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data-web-0/lost+found")).unwrap();
        fs::create_dir_all(root.path().join("data-web-1/sub")).unwrap();
        fs::write(root.path().join("data-web-2"), "").unwrap();
        fs::write(root.path().join("notes"), "").unwrap();
        let expected = [TargetState::Empty, TargetState::HoldsData, TargetState::Obstructed, TargetState::Absent];
        assert_eq!(states(root.path()), expected);
        let targets = read_targets(root.path(), &"shop/web".parse().unwrap(), &claims(), false).unwrap();
        assert_eq!(targets.foreign, ["notes"]);
        assert!(targets.claims[3].room.is_some_and(|room| room.bytes > 0));
    }

    #[test]
    fn a_place_that_does_not_exist_yet_has_room_and_absent_targets() {
        let root = tempfile::tempdir().unwrap();
        let targets = read_targets(&root.path().join("a/b"), &"shop/web".parse().unwrap(), &claims(), false).unwrap();
        assert!(targets.claims.iter().all(|target| target.state == TargetState::Absent && target.room.is_some()));
    }

    #[test]
    fn a_claim_is_marked_from_opening_until_it_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let path = open_claim(root.path(), "run-1", "data-web-0", FillMode::New).unwrap();
        assert!(Path::new(&path).is_dir());
        assert_eq!(states(root.path())[0], TargetState::HalfRestored("run-1".into()));
        assert!(open_claim(root.path(), "run-2", "data-web-0", FillMode::New).is_err());
        assert!(close_claim(root.path(), "run-2", "data-web-0").is_err());
        close_claim(root.path(), "run-1", "data-web-0").unwrap();
        assert_eq!(states(root.path())[0], TargetState::Empty);
    }

    #[tokio::test]
    async fn an_abandoned_claim_is_gone_and_links_out_of_it_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        for (remove, state) in [(false, TargetState::Empty), (true, TargetState::Absent)] {
            let path = open_claim(root.path(), "run-1", "data-web-0", FillMode::New).unwrap();
            fs::create_dir_all(Path::new(&path).join("a/b")).unwrap();
            std::os::unix::fs::symlink(outside.path(), Path::new(&path).join("link")).unwrap();
            abandon_claim(root.path(), "run-1", "data-web-0", remove).await.unwrap();
            assert_eq!(states(root.path())[0], state);
        }
        assert!(outside.path().join("precious").exists());
    }

    #[tokio::test]
    async fn a_claim_is_not_emptied_under_a_mover_that_still_works() {
        let root = tempfile::tempdir().unwrap();
        let path = open_claim(root.path(), "run-1", "data-web-0", FillMode::New).unwrap();
        fs::write(Path::new(&path).join("half"), "x").unwrap();
        let mover = File::open(&path).unwrap();
        mover.lock().unwrap();
        tokio::time::pause();
        let held = abandon_claim(root.path(), "run-1", "data-web-0", true).await;
        tokio::time::resume();
        assert!(matches!(held, Err(PlatformError::ClaimHeld { .. })), "{held:?}");
        assert!(Path::new(&path).join("half").exists());
        drop(mover);
        abandon_claim(root.path(), "run-1", "data-web-0", true).await.unwrap();
        assert!(!Path::new(&path).exists());
    }

    #[tokio::test]
    async fn a_claim_that_holds_data_is_opened_to_be_replaced_only_and_never_abandoned_unopened() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data-web-0")).unwrap();
        fs::write(root.path().join("data-web-0/rows"), "x").unwrap();
        assert!(matches!(open_claim(root.path(), "run-1", "data-web-0", FillMode::New), Err(PlatformError::HoldsData { .. })));
        let refused = abandon_claim(root.path(), "run-1", "data-web-0", true).await;
        assert!(matches!(refused, Err(PlatformError::NotOurs { .. })));
        assert!(root.path().join("data-web-0/rows").exists());
        open_claim(root.path(), "run-1", "data-web-0", FillMode::Replace).unwrap();
        open_claim(root.path(), "run-2", "data-web-0", FillMode::Replace).unwrap();
        assert_eq!(states(root.path())[0], TargetState::HalfRestored("run-2".into()));
        assert!(root.path().join("data-web-0/rows").exists());
    }

    #[test]
    fn what_a_claim_holds_is_measured_where_it_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data-web-1/a")).unwrap();
        fs::write(root.path().join("data-web-1/a/rows"), vec![1; 100_000]).unwrap();
        let used = |measure| {
            let targets = read_targets(root.path(), &"shop/web".parse().unwrap(), &claims(), measure).unwrap();
            targets.claims.into_iter().map(|target| target.used).collect::<Vec<_>>()
        };
        assert_eq!(used(false), [0; 4]);
        let used = used(true);
        assert!((100_000..300_000).contains(&used[1]), "{used:?}");
        assert_eq!((used[0], used[2], used[3]), (0, 0, 0));
    }

    #[test]
    fn a_name_that_leads_out_of_the_root_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for bad in ["../x", "..", "a/b", ""] {
            assert!(open_claim(root.path(), "run-1", bad, FillMode::New).is_err(), "{bad}");
        }
    }
}
