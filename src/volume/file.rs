//! A regular file that is open for reading.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, SeekFrom, fadvise, fstat, seek};
use rustix::io::{Errno, pread, retry_on_intr};

use crate::model::entry::Xattr;
use crate::volume::error::VolumeError;
use crate::volume::stat::{FileKind, Stat};
use crate::volume::xattr::{self, ReadXattrs, XattrsOf};

/// Below this size a file is read whole: asking for holes would cost more than reading them.
const SMALLEST_WITH_HOLES: u64 = 64 << 10;

/// A regular file, open for reading, with its record at the time it was opened.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    stat: Stat,
    at: u64,
}

impl OpenFile {
    pub(super) fn new(fd: OwnedFd, stat: Stat) -> Self {
        OpenFile { fd, stat, at: 0 }
    }

    /// The file's record when it was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Reads on from where the last `read` ended; 0 only at the end of the file, else the buffer is filled unless the file ends before.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.read_at(self.at, buf)?;
        self.at += got as u64;
        Ok(got)
    }

    /// Reads at an offset, as much as fits and is there. Does not move where [`OpenFile::read`] goes on; may be called from any thread.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buf.len() {
            match retry_on_intr(|| pread(&self.fd, &mut buf[got..], offset + got as u64))? {
                0 => break,
                more => got += more,
            }
            // A file whose size is known needs no second call to learn that it has ended.
            if offset + got as u64 == self.stat.size {
                break;
            }
        }
        Ok(got)
    }

    /// Where the next `read` goes on.
    pub fn seek_to(&mut self, offset: u64) {
        self.at = offset;
    }

    /// All extended attributes, sorted by name.
    pub fn xattrs(&self) -> io::Result<Vec<Xattr>> {
        match xattr::read(XattrsOf::Fd(self.fd.as_fd()))? {
            ReadXattrs::All(xattrs) => Ok(xattrs),
            ReadXattrs::BadName => Err(io::Error::new(io::ErrorKind::InvalidData, "an extended attribute's name is not UTF-8")),
        }
    }

    /// The first run of data at or after `from`, up to the size at opening; `None` if only a hole, or nothing, is left.
    ///
    /// Where the file system knows no holes, or the file has none, that is the rest of the file.
    pub fn next_extent(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.stat.size;
        if from >= size {
            return Ok(None);
        }
        if size <= SMALLEST_WITH_HOLES || !self.stat.may_have_holes() {
            return Ok(Some(from..size));
        }
        let start = match seek(&self.fd, SeekFrom::Data(from)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(from..size)),
            Err(errno) => return Err(errno.into()),
        };
        if start >= size {
            return Ok(None);
        }
        let end = match seek(&self.fd, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size, // cut shorter meanwhile: reading will notice
            Err(errno) => return Err(errno.into()),
        };
        Ok((start < end).then_some(start..end))
    }

    /// Tells the kernel that the file will be read from front to back. Worth a call for large files only.
    pub fn advise_sequential(&self) {
        let _ = fadvise(&self.fd, 0, None, Advice::Sequential); // a hint: nothing depends on it
    }

    /// Tells the kernel that the pages of this range are not needed again, so that a backup does not push the application's out.
    pub fn advise_done(&self, range: Range<u64>) {
        if let Some(length) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) {
            let _ = fadvise(&self.fd, range.start, Some(length), Advice::DontNeed); // a hint too
        }
    }

    /// The file's record now.
    pub fn restat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.fd)?.into())
    }

    /// Whether size, mtime or ctime are others now than in `before`: then bytes read since may mix two states.
    pub fn changed_since(&self, before: &Stat) -> io::Result<bool> {
        Ok(self.restat()?.differs_in_content(before))
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes sure that what was opened is a regular file; a caller has opened it without following symlinks and without blocking.
pub(super) fn regular(fd: OwnedFd, path: impl Fn() -> String) -> Result<OpenFile, VolumeError> {
    let stat: Stat = fstat(&fd).map_err(|errno| VolumeError::new("look at", path(), errno))?.into();
    if stat.kind != FileKind::File {
        return Err(VolumeError::KindChanged { path: path(), expected: "a regular file" });
    }
    Ok(OpenFile::new(fd, stat))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use crate::model::entry::Time;
    use crate::volume::dir::Dir;

    use super::*;

    fn extents(file: &OpenFile) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(extent) = file.next_extent(from).unwrap() {
            from = extent.end;
            found.push(extent);
        }
        found
    }

    #[test]
    fn holes_are_told_and_everything_outside_them_is_data() {
        let temp = tempfile::tempdir().unwrap();
        let file = File::create(temp.path().join("f")).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.write_all_at(&[2; 10], (5 << 20) + 5).unwrap();
        File::create(temp.path().join("hole")).unwrap().set_len(1 << 20).unwrap();
        std::fs::write(temp.path().join("full"), vec![0; 100_000]).unwrap();
        std::fs::write(temp.path().join("empty"), "").unwrap();
        let dir = Dir::open_root(temp.path()).unwrap();
        let sparse = dir.open_file(b"f").unwrap();
        let found = extents(&sparse);
        assert!(
            found.iter().any(|extent| extent.contains(&(1 << 20))) && found.iter().any(|extent| extent.contains(&((5 << 20) + 5))),
            "{found:?}"
        );
        let mut last = 0;
        for extent in found.into_iter().chain(std::iter::once(10 << 20..10 << 20)) {
            let mut hole = vec![9; usize::try_from(extent.start - last).unwrap()];
            assert_eq!(sparse.read_at(last, &mut hole).unwrap(), hole.len());
            assert!(hole.iter().all(|byte| *byte == 0));
            last = extent.end;
        }
        assert_eq!(extents(&dir.open_file(b"hole").unwrap()), []);
        assert_eq!(extents(&dir.open_file(b"full").unwrap()), vec![Range { start: 0, end: 100_000 }]);
        assert_eq!(extents(&dir.open_file(b"empty").unwrap()), []);
    }

    #[test]
    fn a_file_is_read_to_its_end_even_if_it_grows_and_no_further_if_it_shrinks() {
        let temp = tempfile::tempdir().unwrap();
        let mut writer = File::create(temp.path().join("f")).unwrap();
        writer.write_all(&[1; 1000]).unwrap();
        let mut file = Dir::open_root(temp.path()).unwrap().open_file(b"f").unwrap();
        let mut buf = vec![0; 600];
        assert_eq!(file.read(&mut buf).unwrap(), 600);
        writer.write_all(&[2; 500]).unwrap();
        assert_eq!(file.read(&mut buf).unwrap(), 600);
        assert_eq!(file.read(&mut buf).unwrap(), 300);
        assert_eq!(file.read(&mut buf).unwrap(), 0);
        writer.set_len(100).unwrap();
        file.seek_to(50);
        assert_eq!(file.read(&mut buf).unwrap(), 50);
    }

    #[test]
    fn a_change_of_bytes_or_only_of_times_while_reading_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let writer = File::create(temp.path().join("f")).unwrap();
        writer.write_all_at(b"old", 0).unwrap();
        let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        writer.set_times(old).unwrap();
        let file = Dir::open_root(temp.path()).unwrap().open_file(b"f").unwrap();
        assert!(!file.changed_since(file.stat()).unwrap());
        assert_eq!(file.stat().mtime, Time::default());
        writer.write_all_at(b"new", 0).unwrap();
        assert!(file.changed_since(file.stat()).unwrap());
    }
}
