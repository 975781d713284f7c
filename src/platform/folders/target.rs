//! The claims' folders as targets of a restore: what is there, what is made, what is taken back.
//!
//! While a claim is being filled a mark stands beside it. It outlives a killed restore, so that neither a backup nor another restore
//! takes half a volume for a whole one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::model::claim::{ClaimId, ClaimShape, is_claim_name};
use crate::model::mover_job::{FillMode, FolderId};
use crate::model::set::SetName;
use crate::model::set_state::{Room, Target, TargetState, Targets};
use crate::platform::PlatformError;
use crate::platform::folders::root::{Folder, Found, Root};
use crate::platform::folders::{hold, journal};

const MARK: &str = ".keepset-incomplete-";
/// How long a mover that was killed may take to be gone.
const LET_GO: Duration = Duration::from_secs(10);
/// A mark holds the id of a run.
const LONGEST_MARK: u64 = 4096;
const LONGEST_RUN: usize = 80;

/// A mark or a journal: neither a claim nor foreign.
pub(super) fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(MARK) || journal::is_journal(name))
}

/// The run that is filling the claim, if any. A mark that cannot be read is a mark; what a link under its name leads to is not read, and
/// what names no run (a file that somebody gave the mark's name as a second one) is not quoted.
pub(super) fn mark_of(root: &Root, claim: &str) -> Option<String> {
    match root.read_file(&mark_name(claim), LONGEST_MARK) {
        Ok(Some(run)) if is_run(run.trim()) => Some(run.trim().to_owned()),
        Ok(None) => None,
        Ok(Some(_)) | Err(_) => Some("unknown".into()),
    }
}

fn is_run(text: &str) -> bool {
    text.len() <= LONGEST_RUN && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether the name, or what it begins with before it was whole, is a mark of one of the set's claims.
pub(super) fn is_mark_of(name: &str, set: &SetName) -> bool {
    name.strip_prefix(MARK).is_some_and(|claim| ClaimId::of_name(claim, &set.name).is_some())
}

fn mark_name(claim: &str) -> String {
    format!("{MARK}{claim}")
}

/// What is at the place of a restore; `root` is `None` where `path` does not exist yet.
pub(super) fn read_targets(
    root: Option<&Root>,
    path: &Path,
    set: &SetName,
    claims: &[ClaimId],
    measure: bool,
) -> Result<Targets, PlatformError> {
    let names: Vec<String> = claims.iter().map(|claim| claim.name(&set.name)).collect();
    let Some(root) = root else {
        let claims = names.iter().map(|name| absent(path, name)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Targets { place: path.display().to_string(), claims, ..Targets::default() });
    };
    let targets = names.iter().map(|name| read_target(root, name, measure)).collect::<Result<Vec<_>, _>>()?;
    let entries = root.entries().map_err(|e| PlatformError::io("read", root.path(), e))?;
    let is_own = |name: &OsStr| name.to_str().is_some_and(|name| names.iter().any(|own| own == name)) || is_ours(name);
    let mut foreign: Vec<String> =
        entries.iter().filter(|(name, _)| !is_own(name)).map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    foreign.sort();
    Ok(Targets { place: root.path().display().to_string(), claims: targets, foreign, ..Targets::default() })
}

fn absent(path: &Path, name: &str) -> Result<Target, PlatformError> {
    let path = path.join(checked(name)?);
    let room = room_at(&path);
    let state = TargetState::Absent;
    Ok(Target { name: name.to_owned(), path: path.display().to_string(), state, room, used: 0, shape: ClaimShape::default() })
}

fn read_target(root: &Root, name: &str, measure: bool) -> Result<Target, PlatformError> {
    let path = root.path_of(checked(name)?);
    let failed = |e| PlatformError::io("read", &path, e);
    let found = root.find(name).map_err(failed)?;
    let state = match (mark_of(root, name), &found) {
        (Some(run), _) => TargetState::HalfRestored(run),
        (None, Found::Absent) => TargetState::Absent,
        (None, Found::Link | Found::Other) => TargetState::Obstructed,
        (None, Found::Folder(folder)) if folder.is_empty().map_err(failed)? => TargetState::Empty,
        (None, Found::Folder(_)) => TargetState::HoldsData,
    };
    let used = match &found {
        Found::Folder(folder) if measure && matches!(state, TargetState::HoldsData | TargetState::HalfRestored(_)) => {
            folder.used().map_err(failed)?
        }
        _ => 0,
    };
    // Another file system may be mounted on the claim's own folder; a link is not looked behind.
    let room = room_at(if matches!(found, Found::Folder(_)) { &path } else { root.path() });
    Ok(Target { name: name.to_owned(), path: path.display().to_string(), state, room, used, shape: ClaimShape::default() })
}

/// Free room where `path` is or would be made.
fn room_at(path: &Path) -> Option<Room> {
    let there = path.ancestors().find(|path| path.is_dir())?;
    let device = fs::metadata(there).ok()?.dev();
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(Room { device, bytes: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

/// A claim's name may come from a repository that somebody else wrote: it must not lead out of the root.
fn checked(claim: &str) -> Result<&str, PlatformError> {
    if is_claim_name(claim) {
        Ok(claim)
    } else {
        Err(PlatformError::NotAClaim { path: claim.escape_debug().to_string(), what: "no folder's name" })
    }
}

/// The folder of a claim that is there.
pub(super) fn folder_of(root: &Root, claim: &str) -> Result<Option<Folder>, PlatformError> {
    let path = root.path_of(checked(claim)?);
    match root.find(claim).map_err(|e| PlatformError::io("read", &path, e))? {
        Found::Absent => Ok(None),
        Found::Folder(folder) => Ok(Some(folder)),
        Found::Link => Err(PlatformError::NotAClaim { path: path.display().to_string(), what: "a symbolic link" }),
        Found::Other => Err(PlatformError::NotAClaim { path: path.display().to_string(), what: "no folder" }),
    }
}

/// Marks the claim as half restored and gives its folder, which is made where it is absent.
pub(super) fn open_claim(root: &Root, run: &str, claim: &str, mode: FillMode) -> Result<Folder, PlatformError> {
    let path = root.path_of(checked(claim)?);
    let holds_data = || PlatformError::HoldsData { path: path.display().to_string() };
    let before = folder_of(root, claim)?;
    let is_empty = |folder: &Folder| folder.is_empty().map_err(|e| PlatformError::io("read", &path, e));
    if let Some(folder) = &before
        && mode == FillMode::New
        && !is_empty(folder)?
    {
        return Err(holds_data());
    }
    // The mark is on disk before the first byte: a claim that exists without one is whole.
    let mark = mark_name(claim);
    root.put(&mark, run, mode == FillMode::Replace).map_err(|e| PlatformError::io("create", &root.path_of(&mark), e))?;
    // Closed to others until the volume root's own mode comes back.
    if let Err(error) = root.make_folder(claim) {
        // Nothing has been filled, so the mark need not stay; the error that matters is the one above.
        let _ = root.remove_file(&mark);
        return Err(PlatformError::io("create", &path, error));
    }
    let is_other = |folder: &Folder| before.as_ref().is_some_and(|before| before.id != folder.id);
    let folder = folder_of(root, claim)?.ok_or_else(|| PlatformError::Exchanged { path: path.display().to_string() })?;
    if is_other(&folder) {
        return Err(PlatformError::Exchanged { path: path.display().to_string() });
    }
    if mode == FillMode::New && !is_empty(&folder)? {
        return Err(holds_data());
    }
    sync(root)?;
    Ok(folder)
}

pub(super) fn close_claim(root: &Root, run: &str, claim: &str) -> Result<(), PlatformError> {
    marked(root, run, claim)?;
    remove_mark(root, claim)
}

/// Empties the claim's folder, which `run` has marked, and with `remove` takes it away. `filled` is the folder that the run opened, where
/// it did: another one under its name is left alone.
pub(super) async fn abandon_claim(
    root: &Root,
    run: &str,
    claim: &str,
    filled: Option<FolderId>,
    remove: bool,
) -> Result<(), PlatformError> {
    marked(root, run, claim)?;
    let path = root.path_of(claim);
    if let Found::Folder(folder) = root.find(claim).map_err(|e| PlatformError::io("remove", &path, e))? {
        if filled.is_some_and(|filled| filled != folder.id) {
            return Err(PlatformError::Exchanged { path: path.display().to_string() });
        }
        let _alone = alone(&folder, &path).await?;
        folder.clear().map_err(|e| PlatformError::io("remove", &path, e))?;
        if remove {
            // It stays where it cannot go: a mount point, or one that kept its lost+found.
            let _ = root.remove_folder(claim);
        }
    }
    remove_mark(root, claim)
}

/// The folder's lock, which its mover holds while it is at work: one that has just been killed may still have calls under way.
async fn alone(folder: &Folder, path: &Path) -> Result<File, PlatformError> {
    let open = folder.to_lock().map_err(|e| PlatformError::io("read", path, e))?;
    if hold::lock(&open, path, LET_GO).await? { Ok(open) } else { Err(PlatformError::ClaimHeld { path: path.display().to_string() }) }
}

/// Makes sure that `run` is the one that fills the claim.
fn marked(root: &Root, run: &str, claim: &str) -> Result<(), PlatformError> {
    checked(claim)?;
    if mark_of(root, claim).as_deref() == Some(run) {
        Ok(())
    } else {
        Err(PlatformError::NotOurs { claim: claim.to_owned(), place: root.path().display().to_string(), run: run.to_owned() })
    }
}

fn remove_mark(root: &Root, claim: &str) -> Result<(), PlatformError> {
    let mark = mark_name(claim);
    root.remove_file(&mark).map_err(|e| PlatformError::io("remove", &root.path_of(&mark), e))?;
    sync(root)
}

pub(super) fn sync(root: &Root) -> Result<(), PlatformError> {
    root.sync().map_err(|e: io::Error| PlatformError::io("write", root.path(), e))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::set::Ordinal;

    fn claims() -> Vec<ClaimId> {
        (0..4).map(|ordinal| ClaimId { ordinal: Ordinal(ordinal), template: "data".into() }).collect()
    }

    fn at(root: &tempfile::TempDir) -> Root {
        Root::open(root.path()).unwrap()
    }

    fn opened(root: &tempfile::TempDir) -> PathBuf {
        open_claim(&at(root), "run-1", "data-web-0", FillMode::New).unwrap();
        root.path().join("data-web-0")
    }

    fn states(root: &Path) -> Vec<TargetState> {
        let targets = read_targets(Some(&Root::open(root).unwrap()), root, &"shop/web".parse().unwrap(), &claims(), false).unwrap();
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
        let targets = read_targets(Some(&at(&root)), root.path(), &"shop/web".parse().unwrap(), &claims(), false).unwrap();
        assert_eq!(targets.foreign, ["notes"]);
        assert!(targets.claims[3].room.is_some_and(|room| room.bytes > 0));
    }

    #[test]
    fn a_place_that_does_not_exist_yet_has_room_and_absent_targets() {
        let root = tempfile::tempdir().unwrap();
        let targets = read_targets(None, &root.path().join("a/b"), &"shop/web".parse().unwrap(), &claims(), false).unwrap();
        assert!(targets.claims.iter().all(|target| target.state == TargetState::Absent && target.room.is_some()));
    }

    #[test]
    fn a_claim_is_marked_from_opening_until_it_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let path = opened(&root);
        assert!(path.is_dir());
        assert_eq!(states(root.path())[0], TargetState::HalfRestored("run-1".into()));
        assert!(open_claim(&at(&root), "run-2", "data-web-0", FillMode::New).is_err());
        assert!(close_claim(&at(&root), "run-2", "data-web-0").is_err());
        close_claim(&at(&root), "run-1", "data-web-0").unwrap();
        assert_eq!(states(root.path())[0], TargetState::Empty);
    }

    #[tokio::test]
    async fn an_abandoned_claim_is_gone_and_links_out_of_it_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        for (remove, state) in [(false, TargetState::Empty), (true, TargetState::Absent)] {
            let path = opened(&root);
            fs::create_dir_all(path.join("a/b")).unwrap();
            std::os::unix::fs::symlink(outside.path(), path.join("link")).unwrap();
            abandon_claim(&at(&root), "run-1", "data-web-0", None, remove).await.unwrap();
            assert_eq!(states(root.path())[0], state);
        }
        assert!(outside.path().join("precious").exists());
    }

    #[tokio::test]
    async fn a_claim_is_not_emptied_under_a_mover_that_still_works() {
        let root = tempfile::tempdir().unwrap();
        let path = opened(&root);
        fs::write(path.join("half"), "x").unwrap();
        let mover = File::open(&path).unwrap();
        mover.lock().unwrap();
        tokio::time::pause();
        let held = abandon_claim(&at(&root), "run-1", "data-web-0", None, true).await;
        tokio::time::resume();
        assert!(matches!(held, Err(PlatformError::ClaimHeld { .. })), "{held:?}");
        assert!(path.join("half").exists());
        drop(mover);
        abandon_claim(&at(&root), "run-1", "data-web-0", None, true).await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_claim_that_holds_data_is_opened_to_be_replaced_only_and_never_abandoned_unopened() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data-web-0")).unwrap();
        fs::write(root.path().join("data-web-0/rows"), "x").unwrap();
        assert!(matches!(open_claim(&at(&root), "run-1", "data-web-0", FillMode::New), Err(PlatformError::HoldsData { .. })));
        let refused = abandon_claim(&at(&root), "run-1", "data-web-0", None, true).await;
        assert!(matches!(refused, Err(PlatformError::NotOurs { .. })));
        assert!(root.path().join("data-web-0/rows").exists());
        open_claim(&at(&root), "run-1", "data-web-0", FillMode::Replace).unwrap();
        open_claim(&at(&root), "run-2", "data-web-0", FillMode::Replace).unwrap();
        assert_eq!(states(root.path())[0], TargetState::HalfRestored("run-2".into()));
        assert!(root.path().join("data-web-0/rows").exists());
    }

    #[test]
    fn what_a_claim_holds_is_measured_where_it_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data-web-1/a")).unwrap();
        fs::write(root.path().join("data-web-1/a/rows"), vec![1; 100_000]).unwrap();
        let used = |measure| {
            let targets = read_targets(Some(&at(&root)), root.path(), &"shop/web".parse().unwrap(), &claims(), measure).unwrap();
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
            assert!(open_claim(&at(&root), "run-1", bad, FillMode::New).is_err(), "{bad}");
        }
    }
}
