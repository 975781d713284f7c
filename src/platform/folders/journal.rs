//! The journal of a restore as a file beside the claims' folders: one line a step, each on disk before the step is taken.
//!
//! Whoever writes it holds a lock on the open file, which the kernel takes away when the process ends: a journal that can be locked
//! belongs to nobody alive.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::model::journal::Journal;
use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::folders::hold;
use crate::platform::folders::root::{Root, text};
use crate::platform::folders::target::{is_mark_of, sync};

const PREFIX: &str = ".keepset-restore-";
/// A closed journal of a restore that changed claims which were there keeps its bytes under this name, until the set's next one does.
const CLOSED: &str = ".keepset-restored-";
/// How long one that died may still seem to hold its journal.
const LET_GO: Duration = Duration::from_secs(2);
/// A journal has a few lines for each claim; one that is longer than all sets together is none.
const LONGEST: u64 = 256 << 20;
/// How often a journal may be exchanged while it is being taken over. Restores that end do so once each; more often does it only one
/// who means harm.
const EXCHANGES: usize = 16;

/// Sets of one name share their claims' folders whatever their namespaces, so they share the journal.
pub(super) fn name(set: &SetName) -> String {
    format!("{PREFIX}{}", set.name)
}

fn closed_name(set: &SetName) -> String {
    format!("{CLOSED}{}", set.name)
}

pub(super) fn is_journal(name: &str) -> bool {
    name.starts_with(PREFIX) || name.starts_with(CLOSED)
}

pub(super) fn read(root: &Root, set: &SetName) -> Result<Option<String>, PlatformError> {
    read_at(root, &name(set))
}

fn read_at(root: &Root, name: &str) -> Result<Option<String>, PlatformError> {
    root.read_file(name, LONGEST).map_err(|e| PlatformError::of_file("read", &root.path_of(name), e))
}

/// The run of the last restore of the set that changed claims and is closed.
pub(super) fn last_run(root: &Root, set: &SetName) -> Result<Option<String>, PlatformError> {
    let Some(text) = read_at(root, &closed_name(set))? else { return Ok(None) };
    Ok(match Journal::read(&text) {
        Ok(Some(journal)) => Some(journal.opening().run.clone()),
        _ => Some("unknown".into()),
    })
}

/// The run of a restore that has begun to change the set's claims and has not filled them all.
pub(super) fn open_run(root: &Root, set: &SetName) -> Result<Option<String>, PlatformError> {
    let Some(text) = read(root, set)? else { return Ok(None) };
    Ok(match Journal::read(&text) {
        Ok(Some(journal)) => (!journal.is_untouched() && !journal.is_settled()).then(|| journal.opening().run.clone()),
        Ok(None) => None,
        Err(_) => Some("unknown".into()),
    })
}

/// The journal has its name only once its first line is written and its lock is held: nobody ever finds it otherwise.
pub(super) async fn open(root: &Root, set: &SetName, first: &str) -> Result<File, PlatformError> {
    let name = name(set);
    let path = root.path_of(&name);
    let making = |e: io::Error| PlatformError::io("create", &path, e);
    let (mut file, beside) = root.make_file(&name).map_err(making)?;
    let written = match lock(&file, &path).await {
        Ok(()) => append(&mut file, &path, first),
        Err(error) => Err(error),
    };
    let placed = written.and_then(|()| match root.rename_new(&beside, &name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PlatformError::JournalThere { path: path.display().to_string() }),
        done => done.map_err(making),
    });
    if placed.is_err() {
        // The error that matters is the one above.
        let _ = root.remove_file(&beside);
    }
    placed?;
    sync(root)?;
    Ok(file)
}

/// Takes over the journal of a process that is gone; `None` where there is no journal. A link, a pipe or a folder under its name is an
/// error.
pub(super) async fn take(root: &Root, set: &SetName) -> Result<Option<(File, String)>, PlatformError> {
    let name = name(set);
    let path = root.path_of(&name);
    let failed = |verb, error| PlatformError::of_file(verb, &path, error);
    for _ in 0..EXCHANGES {
        let Some(mut file) = root.open_file(&name, OFlags::RDWR).map_err(|e| failed("read", e))? else { return Ok(None) };
        lock(&file, &path).await?;
        // Its last owner may have closed the journal between the two calls above.
        if !root.is_still(&name, &file).map_err(|e| failed("read", e))? {
            continue;
        }
        let text = text(&mut file, LONGEST).map_err(|e| failed("read", e))?;
        // What the dead one was writing goes, so that the next line begins where a line begins.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let names = file.metadata().map_err(|e| failed("read", e))?.nlink();
        if whole < text.len() && names > 1 {
            // A journal has one name by the time that its second line is written: this is a file of somebody else.
            return Err(failed("read", io::Error::new(io::ErrorKind::InvalidInput, "it has several names")));
        }
        file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|e| failed("write", e))?;
        return Ok(Some((file, text)));
    }
    Err(PlatformError::JournalHeld { path: path.display().to_string() })
}

pub(super) fn append(file: &mut File, path: &Path, line: &str) -> Result<(), PlatformError> {
    let written = file.metadata().and_then(|before| {
        let added = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        if added.is_err() {
            // Half a line would spoil the next one, and a whole one that counts for nothing would be followed.
            file.set_len(before.len()).and_then(|()| file.seek(SeekFrom::End(0)))?;
        }
        added
    });
    written.map_err(|e| PlatformError::io("write", path, e))
}

pub(super) fn close(root: &Root, set: &SetName) -> Result<(), PlatformError> {
    let name = name(set);
    // A backup that began before this restore must see that there was one: it may have read claims from before and from after it.
    let may_disturb = |text: String| Journal::read(&text).map_or(true, |journal| journal.is_some_and(|journal| journal.may_disturb()));
    let closed =
        if read_at(root, &name)?.is_some_and(may_disturb) { root.rename(&name, &closed_name(set)) } else { root.remove_file(&name) };
    closed.map_err(|e| PlatformError::io("remove", &root.path_of(&name), e))?;
    // Only who holds the journal writes marks of the set, so what a killed process had begun to write is nobody's.
    root.remove_leftovers(|prefix| prefix == name || is_mark_of(prefix, set)).map_err(|e| PlatformError::io("remove", root.path(), e))?;
    sync(root)
}

async fn lock(file: &File, path: &Path) -> Result<(), PlatformError> {
    if hold::lock(file, path, LET_GO).await? { Ok(()) } else { Err(PlatformError::JournalHeld { path: path.display().to_string() }) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn at(root: &tempfile::TempDir) -> Root {
        Root::open(root.path()).unwrap()
    }

    fn web() -> SetName {
        "shop/web".parse().unwrap()
    }

    /// With a clock that runs ahead, so that nobody waits for one who lives.
    async fn at_once<T>(call: impl Future<Output = T>) -> T {
        tokio::time::pause();
        let result = call.await;
        tokio::time::resume();
        result
    }

    #[tokio::test]
    async fn one_journal_is_open_for_a_set_and_its_lines_stay_in_order() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(&at(&root), &web()).unwrap(), None);
        let mut file = open(&at(&root), &web(), "first\n").await.unwrap();
        append(&mut file, root.path(), "second\n").unwrap();
        assert_eq!(read(&at(&root), &web()).unwrap().as_deref(), Some("first\nsecond\n"));
        assert!(matches!(open(&at(&root), &web(), "other\n").await, Err(PlatformError::JournalThere { .. })));
        assert!(open(&at(&root), &"shop/db".parse().unwrap(), "other\n").await.is_ok());
        close(&at(&root), &web()).unwrap();
        assert_eq!(read(&at(&root), &web()).unwrap(), None);
    }

    #[tokio::test]
    async fn a_journal_is_taken_over_from_the_dead_only() {
        let root = tempfile::tempdir().unwrap();
        assert!(take(&at(&root), &web()).await.unwrap().is_none());
        let file = open(&at(&root), &web(), "first\n").await.unwrap();
        assert!(matches!(at_once(take(&at(&root), &web())).await, Err(PlatformError::JournalHeld { .. })));
        drop(file);
        assert!(matches!(open(&at(&root), &web(), "other\n").await, Err(PlatformError::JournalThere { .. })));
        let (_file, text) = take(&at(&root), &web()).await.unwrap().unwrap();
        assert_eq!(text, "first\n");
        assert!(matches!(at_once(take(&at(&root), &web())).await, Err(PlatformError::JournalHeld { .. })));
    }

    #[tokio::test]
    async fn a_journal_that_is_not_opened_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let _file = open(&at(&root), &web(), "first\n").await.unwrap();
        assert!(open(&at(&root), &web(), "other\n").await.is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_line_that_was_torn_by_a_crash_does_not_spoil_the_next() {
        let root = tempfile::tempdir().unwrap();
        drop(open(&at(&root), &web(), "first\nsec").await.unwrap());
        let (mut file, text) = take(&at(&root), &web()).await.unwrap().unwrap();
        assert_eq!(text, "first\nsec");
        append(&mut file, root.path(), "third\n").unwrap();
        assert_eq!(read(&at(&root), &web()).unwrap().as_deref(), Some("first\nthird\n"));
    }

    #[tokio::test]
    async fn a_link_or_a_folder_in_the_journals_place_is_refused() {
        for plant in ["link", "dangling", "folder"] {
            let root = tempfile::tempdir().unwrap();
            let victim = tempfile::tempdir().unwrap();
            fs::write(victim.path().join("shadow"), "root:secret\n").unwrap();
            let place = root.path().join(name(&web()));
            match plant {
                "link" => symlink(victim.path().join("shadow"), &place).unwrap(),
                "dangling" => symlink(victim.path().join("absent"), &place).unwrap(),
                _ => fs::create_dir(&place).unwrap(),
            }
            for error in [take(&at(&root), &web()).await.unwrap_err(), read(&at(&root), &web()).unwrap_err()] {
                assert!(matches!(&error, PlatformError::NotOurFile { .. }), "{plant}: {error}");
                assert!(!error.to_string().contains("secret"), "{error}");
            }
            assert!(open(&at(&root), &web(), "first\n").await.is_err(), "{plant}");
            assert_eq!(fs::read_to_string(victim.path().join("shadow")).unwrap(), "root:secret\n");
            assert!(!victim.path().join("absent").exists());
        }
    }

    #[tokio::test]
    async fn what_a_killed_process_began_to_write_goes_with_the_journal() {
        let root = tempfile::tempdir().unwrap();
        let _file = open(&at(&root), &web(), "first\n").await.unwrap();
        let left = [".keepset-incomplete-data-web-0565708c90e1bdacb~", ".keepset-restore-web565708c90e1bdacb~"];
        let other = [".keepset-incomplete-data-db-0565708c90e1bdacb~", ".keepset-incomplete-data-web-0", "notes-web-0565708c90e1bdacb~"];
        left.iter().chain(&other).for_each(|name| fs::write(root.path().join(name), "x").unwrap());
        close(&at(&root), &web()).unwrap();
        assert!(left.iter().all(|name| !root.path().join(name).exists()));
        assert!(other.iter().all(|name| root.path().join(name).exists()));
    }
}
