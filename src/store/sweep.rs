//! What did interrupted puts leave in a folder?

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, Utc};

use crate::store::Store;
use crate::store::error::StoreError;

/// Folders below folders that a repository has: `data/00/…`, `x-keepset/runs/…`.
const DEEPEST: usize = 6;

/// What [`Store::sweep`] has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub files: u64,
    pub bytes: u64,
}

impl Store {
    /// Deletes the temporaries that puts have left when they were killed, if they were last written before `before`. They are no objects
    /// to anybody, but take space. Only folders have them; elsewhere nothing is done.
    pub fn sweep(&self, before: DateTime<Utc>) -> Result<Swept, StoreError> {
        let Some(folder) = &self.folder else { return Ok(Swept::default()) };
        let mut swept = Swept::default();
        sweep(folder, SystemTime::from(before), DEEPEST, &mut swept).map_err(|e| StoreError::io("delete", self.location(), "", e))?;
        Ok(swept)
    }
}

fn sweep(folder: &Path, before: SystemTime, depth: usize, swept: &mut Swept) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Not through symlinks: what they lead to is somebody else's.
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if meta.is_dir() && depth > 0 {
            sweep(&entry.path(), before, depth - 1, swept)?;
        } else if meta.is_file() && entry.file_name().to_str().is_some_and(is_leftover) && meta.modified()? < before {
            match fs::remove_file(entry.path()) {
                Ok(()) => {
                    swept.files += 1;
                    swept.bytes += meta.len();
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// `<hexadecimal name or config>#<number>`, as the library writes beside an object. No object of a repository is named so.
fn is_leftover(name: &str) -> bool {
    let Some((object, number)) = name.rsplit_once('#') else { return false };
    let named = object == "config" || (!object.is_empty() && object.chars().all(|c| c.is_ascii_hexdigit() || c == '-'));
    named && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::store::Location;

    #[test]
    fn old_leftovers_go_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Location::Folder(folder.path().to_owned()), &HashMap::new()).unwrap();
        fs::create_dir_all(folder.path().join("data/00")).unwrap();
        let write = |name: &str, seconds: u64| {
            let path = folder.path().join(name);
            fs::write(&path, "123").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        let old = ["data/00/00ab#1", "data/00/00ab#12", "config#1"];
        let kept = ["data/00/00ab", "data/00/notes#1", "data/00/00ab#x", "config", "data/00/#1"];
        old.iter().chain(&kept).for_each(|name| write(name, 1000));
        write("data/00/00cd#1", 3000);

        let swept = store.sweep(DateTime::from_timestamp(2000, 0).unwrap()).unwrap();
        assert_eq!(swept, Swept { files: 3, bytes: 9 });
        old.iter().for_each(|name| assert!(!folder.path().join(name).exists(), "{name}"));
        kept.iter().chain(&["data/00/00cd#1"]).for_each(|name| assert!(folder.path().join(name).exists(), "{name}"));
    }

    #[test]
    fn a_store_without_a_folder_has_nothing_to_sweep() {
        assert_eq!(Store::memory().sweep(DateTime::UNIX_EPOCH).unwrap(), Swept::default());
    }
}
