//! The demo's own eyes: reads two folders with the plain system calls that any program uses, and tells every difference.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};

use crate::model::path_text::path_text;

/// Everything about one file that a restore promises to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    size: u64,
    rdev: u64,
    /// SHA-256 of a file's bytes, or a link's target.
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first name of the same inode, where it has several.
    same_as: Option<PathBuf>,
}

/// A folder and all below it, as it was when it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    seen: BTreeMap<PathBuf, Seen>,
    /// Regular files and their bytes.
    pub files: u64,
    pub bytes: u64,
}

impl Picture {
    /// Reads every byte and every attribute.
    pub fn take(root: &Path) -> io::Result<Picture> {
        let mut picture = Picture::default();
        let mut inodes = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(relative) = waiting.pop() {
            let path = root.join(&relative);
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                let mut below = fs::read_dir(&path)?.map(|entry| Ok(relative.join(entry?.file_name()))).collect::<io::Result<Vec<_>>>()?;
                // Sorted, so that the first name of an inode is the same in both pictures.
                below.sort_by(|a, b| b.cmp(a));
                waiting.extend(below);
            }
            if relative.as_os_str().is_empty() {
                // The folder that holds the claims is nobody's volume.
                continue;
            }
            let same_as = if metadata.is_dir() || metadata.nlink() == 1 {
                None
            } else {
                Some(inodes.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone())
            };
            if metadata.is_file() {
                picture.files += 1;
                picture.bytes += metadata.len();
            }
            picture.seen.insert(relative, look(&path, &metadata, same_as)?);
        }
        Ok(picture)
    }

    /// How many files, folders and all else were looked at.
    pub fn entries(&self) -> usize {
        self.seen.len()
    }

    /// Every difference in words; none is the proof.
    pub fn differences(&self, other: &Picture) -> Vec<String> {
        let mut found = Vec::new();
        for (path, before) in &self.seen {
            let name = path_text(path.as_os_str().as_bytes());
            match other.seen.get(path) {
                None => found.push(format!("{name} is missing")),
                Some(after) => found.extend(parts(before, after).into_iter().map(|part| format!("{name} has another {part}"))),
            }
        }
        let extra = other.seen.keys().filter(|path| !self.seen.contains_key(*path));
        found.extend(extra.map(|path| format!("{} is extra", path_text(path.as_os_str().as_bytes()))));
        found
    }
}

fn parts(a: &Seen, b: &Seen) -> Vec<&'static str> {
    let parts = [
        ("kind", a.kind == b.kind),
        ("mode", a.mode == b.mode),
        ("owner", a.owner == b.owner),
        ("time", a.mtime == b.mtime),
        ("size", a.size == b.size),
        ("device number", a.rdev == b.rdev),
        ("content", a.content == b.content),
        ("set of extended attributes", a.xattrs == b.xattrs),
        ("hard link", a.same_as == b.same_as),
    ];
    parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect()
}

fn look(path: &Path, metadata: &Metadata, same_as: Option<PathBuf>) -> io::Result<Seen> {
    let kind = metadata.file_type();
    let (kind, content) = if kind.is_file() {
        ("file", hash(path)?)
    } else if kind.is_dir() {
        ("folder", Vec::new())
    } else if kind.is_symlink() {
        ("symlink", fs::read_link(path)?.into_os_string().as_bytes().to_vec())
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else if kind.is_socket() {
        ("socket", Vec::new())
    } else {
        ("device", Vec::new())
    };
    Ok(Seen {
        kind,
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if metadata.is_file() { metadata.len() } else { 0 },
        rdev: metadata.rdev(),
        content,
        xattrs: xattrs(path)?,
        same_as,
    })
}

fn hash(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The most that the kernel lets a name list or a value have.
const XATTR_MOST: usize = 64 << 10;

fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0u8; XATTR_MOST];
    let length = match llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; XATTR_MOST];
        let length = lgetxattr(path, CString::new(name)?, value.as_mut_slice())?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_difference_escapes_the_proof() {
        use std::os::unix::fs::PermissionsExt;
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            fs::write(dir.path().join("same"), "x").unwrap();
            fs::write(dir.path().join("bytes"), "x").unwrap();
            fs::write(dir.path().join("mode"), "x").unwrap();
        }
        fs::write(b.path().join("bytes"), "y").unwrap();
        fs::set_permissions(b.path().join("mode"), fs::Permissions::from_mode(0o611)).unwrap();
        fs::write(a.path().join("only"), "").unwrap();
        fs::hard_link(b.path().join("same"), b.path().join("extra")).unwrap();
        for dir in [&a, &b] {
            let at = std::time::UNIX_EPOCH;
            for entry in fs::read_dir(dir.path()).unwrap() {
                File::open(entry.unwrap().path()).unwrap().set_modified(at).unwrap();
            }
        }
        let found = Picture::take(a.path()).unwrap().differences(&Picture::take(b.path()).unwrap());
        let expected =
            ["bytes has another content", "mode has another mode", "only is missing", "same has another hard link", "extra is extra"];
        assert_eq!(found, expected);
    }
}
