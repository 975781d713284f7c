//! How is a folder listed, whatever others have put into it?
//!
//! The library's own list fails as a whole over one name that is no UTF-8.

use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use crate::store::Object;
use crate::store::answers::{Strays, is_object_name};

/// Files that are read in one step, each of which has its deadline.
const STEP: usize = 1024;

/// A list under way.
pub(super) struct Walk {
    entries: walkdir::IntoIter,
    root: std::path::PathBuf,
    strays: Strays,
}

impl Walk {
    /// All objects below `folder`, which is below `root` or the root itself. No folder is an empty list.
    pub(super) fn new(root: &Path, folder: &str, strays: Strays) -> Self {
        let entries = WalkDir::new(root.join(folder)).min_depth(1).follow_links(true).into_iter();
        Walk { entries, root: root.to_owned(), strays }
    }

    /// The next objects, in no order; `None` at the end. Blocks.
    pub(super) fn step(&mut self) -> std::io::Result<Option<Vec<Object>>> {
        let mut objects = Vec::new();
        for _ in 0..STEP {
            match self.entries.next() {
                None if objects.is_empty() => return Ok(None),
                None => break,
                Some(Ok(entry)) => objects.extend(self.object(&entry)?),
                Some(Err(error)) => match error.io_error().map(std::io::Error::kind) {
                    // Deleted meanwhile, or a link that leads nowhere.
                    Some(std::io::ErrorKind::NotFound) => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(Some(objects))
    }

    fn object(&self, entry: &DirEntry) -> std::io::Result<Option<Object>> {
        if !entry.file_type().is_file() {
            return Ok(None);
        }
        let name = entry.path().strip_prefix(&self.root).unwrap_or(entry.path());
        let Some(key) = name.to_str().filter(|name| is_object_name(name)) else {
            self.strays.add(name.to_string_lossy().into_owned());
            return Ok(None);
        };
        if is_temporary(key) {
            return Ok(None);
        }
        match entry.metadata() {
            Ok(meta) => Ok(Some(Object { key: key.to_owned(), size: meta.len(), modified: meta.modified()?.into() })),
            Err(error) if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// `name#1`: what a put writes beside its object before it is linked into place.
fn is_temporary(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.split_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
