//! Extended attributes, POSIX ACLs among them: few calls where there are none, any size where there are.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{fgetxattr, flistxattr, flistxattr_query, lgetxattr, llistxattr, llistxattr_query};
use rustix::io::Errno;

use crate::model::entry::Xattr;

/// What was read, or that a name was no UTF-8, which the repository's format cannot hold.
pub(super) enum ReadXattrs {
    All(Vec<Xattr>),
    BadName,
}

/// Where the attributes are: on an open file, or behind a path whose last part is not followed.
#[derive(Clone, Copy)]
pub(super) enum XattrsOf<'a> {
    Fd(BorrowedFd<'a>),
    Path(&'a [u8]),
}

/// The path by which calls that know no `at` form reach `name` in an open folder: only its last part can be a symlink, and `l*` calls do not follow that.
pub(super) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// All attributes, sorted by name. A file system without any gives none.
pub(super) fn read(of: XattrsOf<'_>) -> Result<ReadXattrs, Errno> {
    let mut space = [0_u8; 1024];
    let found = match list(of, &mut space) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(ReadXattrs::All(Vec::new())),
        Ok(length) => read_each(of, &space[..length])?,
        Err(Errno::RANGE) => read_each(of, &list_long(of)?)?,
        Err(errno) => return Err(errno),
    };
    Ok(found)
}

/// The attributes' names, each ended by a NUL.
pub(super) fn list_long(of: XattrsOf<'_>) -> Result<Vec<u8>, Errno> {
    loop {
        let needed = match of {
            XattrsOf::Fd(fd) => flistxattr_query(fd),
            XattrsOf::Path(path) => llistxattr_query(path),
        }?;
        if needed == 0 {
            return Ok(Vec::new());
        }
        let mut space = vec![0; needed + 256];
        match list(of, &mut space) {
            Err(Errno::RANGE) => {} // another process added one meanwhile
            Ok(length) => {
                space.truncate(length);
                return Ok(space);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn list(of: XattrsOf<'_>, space: &mut [u8]) -> Result<usize, Errno> {
    match of {
        XattrsOf::Fd(fd) => flistxattr(fd, space),
        XattrsOf::Path(path) => llistxattr(path, space),
    }
}

fn read_each(of: XattrsOf<'_>, names: &[u8]) -> Result<ReadXattrs, Errno> {
    let mut found = Vec::new();
    let mut space = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(text) = str::from_utf8(name) else { return Ok(ReadXattrs::BadName) };
        match value(of, name, &mut space) {
            Ok(value) => found.push(Xattr { name: text.to_owned(), value }),
            Err(Errno::NODATA) => {} // removed since the list
            Err(errno) => return Err(errno),
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(ReadXattrs::All(found))
}

/// The kernel's limit of one value (`XATTR_SIZE_MAX`).
const LONGEST: usize = 64 << 10;

fn value(of: XattrsOf<'_>, name: &[u8], space: &mut Vec<u8>) -> Result<Vec<u8>, Errno> {
    let mut size = 1024;
    loop {
        space.resize(size, 0);
        let got = match of {
            XattrsOf::Fd(fd) => fgetxattr(fd, name, space.as_mut_slice()),
            XattrsOf::Path(path) => lgetxattr(path, name, space.as_mut_slice()),
        };
        match got {
            Ok(length) => return Ok(space[..length].to_vec()),
            Err(Errno::RANGE) if size < LONGEST => size = LONGEST,
            Err(errno) => return Err(errno),
        }
    }
}
