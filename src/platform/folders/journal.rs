//! The journal of a restore as a file beside the claims' folders: one line a step, each on disk before the step is taken.
//!
//! Whoever writes it holds a lock on the open file, which the kernel takes away when the process ends: a journal that can be locked
//! belongs to nobody alive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::journal::Journal;
use crate::model::set::SetName;
use crate::platform::PlatformError;
use crate::platform::folders::hold;
use crate::platform::folders::target::sync;

const PREFIX: &str = ".keepset-restore-";
/// A closed journal of a restore that changed claims which were there keeps its bytes under this name, until the set's next one does.
const CLOSED: &str = ".keepset-restored-";
/// How long one that died may still seem to hold its journal.
const LET_GO: Duration = Duration::from_secs(2);
/// A journal has a few lines for each claim; one that is longer than all sets together is none.
const LONGEST: u64 = 256 << 20;

/// Sets of one name share their claims' folders whatever their namespaces, so they share the journal.
pub(super) fn path(root: &Path, set: &SetName) -> PathBuf {
    root.join(format!("{PREFIX}{}", set.name))
}

fn closed_path(root: &Path, set: &SetName) -> PathBuf {
    root.join(format!("{CLOSED}{}", set.name))
}

pub(super) fn is_journal(name: &str) -> bool {
    name.starts_with(PREFIX) || name.starts_with(CLOSED)
}

pub(super) fn read(root: &Path, set: &SetName) -> Result<Option<String>, PlatformError> {
    read_at(&path(root, set))
}

fn read_at(path: &Path) -> Result<Option<String>, PlatformError> {
    match File::open(path) {
        Ok(mut file) => text(&mut file).map(Some).map_err(|e| PlatformError::io("read", path, e)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PlatformError::io("read", path, error)),
    }
}

/// The run of the last restore of the set that changed claims and is closed.
pub(super) fn last_run(root: &Path, set: &SetName) -> Result<Option<String>, PlatformError> {
    let Some(text) = read_at(&closed_path(root, set))? else { return Ok(None) };
    Ok(match Journal::read(&text) {
        Ok(Some(journal)) => Some(journal.opening().run.clone()),
        _ => Some("unknown".into()),
    })
}

/// The run of a restore that has begun to change the set's claims and has not filled them all.
pub(super) fn open_run(root: &Path, set: &SetName) -> Result<Option<String>, PlatformError> {
    let Some(text) = read(root, set)? else { return Ok(None) };
    Ok(match Journal::read(&text) {
        Ok(Some(journal)) => (!journal.is_untouched() && !journal.is_settled()).then(|| journal.opening().run.clone()),
        Ok(None) => None,
        Err(_) => Some("unknown".into()),
    })
}

/// The journal has its name only once its first line is written and its lock is held: nobody ever finds it otherwise.
pub(super) async fn open(root: &Path, set: &SetName, first: &str) -> Result<File, PlatformError> {
    let path = path(root, set);
    fs::create_dir_all(root).map_err(|e| PlatformError::io("create", root, e))?;
    let making = |e: io::Error| PlatformError::io("create", &path, e);
    let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(root).map_err(making)?;
    lock(file.as_file(), &path).await?;
    append(file.as_file_mut(), &path, first)?;
    match fs::hard_link(file.path(), &path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PlatformError::JournalThere { path: path.display().to_string() });
        }
        Err(error) => return Err(making(error)),
    }
    let (file, other_name) = file.into_parts();
    other_name.close().map_err(making)?;
    sync(root)?;
    Ok(file)
}

pub(super) async fn take(root: &Path, set: &SetName) -> Result<Option<(File, String)>, PlatformError> {
    let path = path(root, set);
    let failed = |verb, error| PlatformError::io(verb, &path, error);
    loop {
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", error)),
        };
        lock(&file, &path).await?;
        // Its last owner may have closed the journal between the two calls above.
        let there = match fs::symlink_metadata(&path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("read", error)),
        };
        let mine = file.metadata().map_err(|e| failed("read", e))?;
        if (mine.dev(), mine.ino()) != (there.dev(), there.ino()) {
            continue;
        }
        let text = text(&mut file).map_err(|e| failed("read", e))?;
        // What the dead one was writing goes, so that the next line begins where a line begins.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|e| failed("write", e))?;
        return Ok(Some((file, text)));
    }
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

pub(super) fn close(root: &Path, set: &SetName) -> Result<(), PlatformError> {
    let path = path(root, set);
    // A backup that began before this restore must see that there was one: it may have read claims from before and from after it.
    let may_disturb = |text: String| Journal::read(&text).map_or(true, |journal| journal.is_some_and(|journal| journal.may_disturb()));
    let closed = if read_at(&path)?.is_some_and(may_disturb) { fs::rename(&path, closed_path(root, set)) } else { fs::remove_file(&path) };
    closed.map_err(|e| PlatformError::io("remove", &path, e))?;
    sync(root)
}

async fn lock(file: &File, path: &Path) -> Result<(), PlatformError> {
    if hold::lock(file, path, LET_GO).await? { Ok(()) } else { Err(PlatformError::JournalHeld { path: path.display().to_string() }) }
}

fn text(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    if file.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(io::Error::other("it is too long to be a journal"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(read(root.path(), &web()).unwrap(), None);
        let mut file = open(root.path(), &web(), "first\n").await.unwrap();
        append(&mut file, &path(root.path(), &web()), "second\n").unwrap();
        assert_eq!(read(root.path(), &web()).unwrap().as_deref(), Some("first\nsecond\n"));
        assert!(matches!(open(root.path(), &web(), "other\n").await, Err(PlatformError::JournalThere { .. })));
        assert!(open(root.path(), &"shop/db".parse().unwrap(), "other\n").await.is_ok());
        close(root.path(), &web()).unwrap();
        assert_eq!(read(root.path(), &web()).unwrap(), None);
    }

    #[tokio::test]
    async fn a_journal_is_taken_over_from_the_dead_only() {
        let root = tempfile::tempdir().unwrap();
        assert!(take(root.path(), &web()).await.unwrap().is_none());
        let file = open(root.path(), &web(), "first\n").await.unwrap();
        assert!(matches!(at_once(take(root.path(), &web())).await, Err(PlatformError::JournalHeld { .. })));
        drop(file);
        assert!(matches!(open(root.path(), &web(), "other\n").await, Err(PlatformError::JournalThere { .. })));
        let (_file, text) = take(root.path(), &web()).await.unwrap().unwrap();
        assert_eq!(text, "first\n");
        assert!(matches!(at_once(take(root.path(), &web())).await, Err(PlatformError::JournalHeld { .. })));
    }

    #[tokio::test]
    async fn a_journal_that_is_not_opened_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let _file = open(root.path(), &web(), "first\n").await.unwrap();
        assert!(open(root.path(), &web(), "other\n").await.is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_line_that_was_torn_by_a_crash_does_not_spoil_the_next() {
        let root = tempfile::tempdir().unwrap();
        drop(open(root.path(), &web(), "first\nsec").await.unwrap());
        let (mut file, text) = take(root.path(), &web()).await.unwrap().unwrap();
        assert_eq!(text, "first\nsec");
        append(&mut file, &path(root.path(), &web()), "third\n").unwrap();
        assert_eq!(read(root.path(), &web()).unwrap().as_deref(), Some("first\nthird\n"));
    }
}
