//! A regular file that is being written: at any offset, zeros left as holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, copy_file_range, fallocate};
use rustix::io::{Errno, retry_on_intr};

use crate::volume::dir::Dir;
use crate::volume::error::VolumeError;
use crate::volume::file::OpenFile;
use crate::volume::place::Place;

/// The unit in which zeros are looked for: a page, and a block of most file systems.
const BLOCK: usize = 4 << 10;

/// The shortest run of zeros that becomes a hole: shorter ones would cost more in extents than they save.
const HOLE: usize = 64 << 10;

/// Bytes that the kernel is asked to copy at once, so that a stop is noticed soon.
const COPY: usize = 128 << 20;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A file of a [`crate::volume::Target`], open for writing. Writes may come from many threads, in any order.
#[derive(Debug)]
pub struct TargetFile {
    file: File,
    place: Arc<Place>,
    name: Box<[u8]>,
}

impl TargetFile {
    pub(super) fn new(fd: OwnedFd, dir: &Dir, name: &[u8]) -> Self {
        TargetFile { file: fd.into(), place: dir.place().clone(), name: name.into() }
    }

    /// Writes all of it at the offset, zeros and all: for bytes that replace others.
    pub fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), VolumeError> {
        self.file.write_all_at(buf, offset).map_err(|source| self.error("write", source))
    }

    /// Gives the file room for all of its first `size` bytes; what is hole there reads as zeros as before. `false` where the file system
    /// cannot do that: then all of it has to be written.
    pub fn allocate(&self, size: u64) -> Result<bool, VolumeError> {
        if size == 0 {
            return Ok(true);
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), 0, size)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(errno) => Err(self.error("allocate room for", errno.into())),
        }
    }

    /// Writes at an offset where the file is still a hole, and leaves runs of zeros as that.
    ///
    /// The repository has no map of holes: every run of at least 64 KiB of zeros becomes one, and shorter ones at either end of `buf`, which may go
    /// on in its neighbours. The file's length must have been set before.
    pub fn write_sparse(&self, offset: u64, buf: &[u8]) -> Result<(), VolumeError> {
        for_data_runs(offset, buf, |at, data| self.write_at(at, data))
    }

    /// Writes over what is there: all of `buf`, the zeros that [`TargetFile::write_sparse`] leaves out as holes where the file system makes them.
    pub fn write_over(&self, offset: u64, buf: &[u8]) -> Result<(), VolumeError> {
        let mut done = offset;
        for_data_runs(offset, buf, |at, data| {
            self.clear(done, at - done)?;
            done = at + data.len() as u64;
            self.write_at(at, data)
        })?;
        self.clear(done, offset + buf.len() as u64 - done)
    }

    /// Makes these bytes zero, by a hole if there can be one.
    fn clear(&self, mut offset: u64, mut length: u64) -> Result<(), VolumeError> {
        if length == 0 {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(self.error("make a hole in", errno.into())),
        }
        while length > 0 {
            let part = length.min(BLOCK as u64);
            self.write_at(offset, &ZEROS[..usize::try_from(part).unwrap_or(BLOCK)])?;
            (offset, length) = (offset + part, length - part);
        }
        Ok(())
    }

    /// Copies a range of another file of the volume to the same place here, where this one is still a hole; holes stay holes. Where the
    /// file system can, both share the blocks from then on.
    pub fn copy_from(&self, from: &OpenFile, range: Range<u64>) -> Result<(), VolumeError> {
        let failed = |source| self.error("copy what has not changed into", source);
        let mut at = range.start;
        while let Some(extent) = from.next_extent(at).map_err(failed)?.filter(|extent| extent.start < range.end) {
            at = extent.end.min(range.end);
            self.copy_data(from, extent.start..at).map_err(failed)?;
            if at == range.end {
                break;
            }
        }
        Ok(())
    }

    fn copy_data(&self, from: &OpenFile, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(COPY);
            let (mut here, mut there) = (at, at);
            match copy_file_range(from, Some(&mut here), &self.file, Some(&mut there), length) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(copied) => at += copied as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                    return self.copy_by_hand(from, at..range.end);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn copy_by_hand(&self, from: &OpenFile, range: Range<u64>) -> io::Result<()> {
        let mut buf = vec![0; 256 << 10];
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buf.len());
            match from.read_at(at, &mut buf[..length])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => {
                    self.file.write_all_at(&buf[..got], at)?;
                    at += got as u64;
                }
            }
        }
        Ok(())
    }

    /// Makes the file `size` bytes long; what was not written is a hole.
    pub fn set_len(&self, size: u64) -> Result<(), VolumeError> {
        self.file.set_len(size).map_err(|source| self.error("set the length of", source))
    }

    /// Writes the parts one after the other into the empty file of `size` bytes at its end, with room for all of them if it is `allocated`.
    pub(super) fn write_whole<P: AsRef<[u8]>>(
        &self,
        size: u64,
        allocated: bool,
        parts: impl IntoIterator<Item = P>,
    ) -> Result<(), VolumeError> {
        let may_have_holes = may_have_holes(size) && (!allocated || self.allocate(size)?);
        if may_have_holes {
            self.set_len(size)?;
        }
        let mut offset = 0;
        for part in parts {
            let part = part.as_ref();
            if may_have_holes {
                self.write_sparse(offset, part)?;
            } else if !part.is_empty() {
                self.write_at(offset, part)?;
            }
            offset += part.len() as u64;
        }
        if offset == size {
            return Ok(());
        }
        let text = format!("its parts are {offset} bytes, its size is {size}");
        Err(self.error("write all of", io::Error::new(io::ErrorKind::InvalidData, text)))
    }

    /// The file's path below the volume's root.
    pub fn path(&self) -> Vec<u8> {
        self.place.path_of(&self.name)
    }

    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> VolumeError {
        VolumeError::Io { operation, path: self.place.text_of(&self.name), source }
    }
}

impl AsFd for TargetFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a file of this size is written with holes where it has long runs of zeros.
pub fn may_have_holes(size: u64) -> bool {
    size >= HOLE as u64
}

/// Whether [`TargetFile::write_sparse`] would leave any of these bytes as a hole.
pub fn leaves_holes(offset: u64, buf: &[u8]) -> bool {
    let mut written = 0;
    let all: Result<(), ()> = for_data_runs(offset, buf, |_, data| {
        written += data.len();
        Ok(())
    });
    all.is_ok() && written < buf.len()
}

/// Calls `write` for all of `buf` but the runs of zeros that are to be holes. Blocks are counted from the file's start.
fn for_data_runs<E>(offset: u64, buf: &[u8], mut write: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let to_boundary = (BLOCK as u64 - offset % BLOCK as u64) % BLOCK as u64;
    let first = usize::try_from(to_boundary).unwrap_or(BLOCK).min(buf.len());
    let mut data_from = 0; // of the run of data that is not written yet
    let mut zeros_from: Option<usize> = None; // of the run of zeros that is being measured
    let mut at = 0;
    let flush = |from: usize, to: usize, write: &mut dyn FnMut(u64, &[u8]) -> Result<(), E>| {
        if from < to { write(offset + from as u64, &buf[from..to]) } else { Ok(()) }
    };
    while at < buf.len() {
        let end = if at < first { first } else { (at + BLOCK).min(buf.len()) };
        let block = &buf[at..end];
        if block == &ZEROS[..block.len()] {
            zeros_from.get_or_insert(at);
        } else if let Some(from) = zeros_from.take()
            && (from == 0 || at - from >= HOLE)
        {
            flush(data_from, from, &mut write)?;
            data_from = at;
        }
        at = end;
    }
    let end = zeros_from.unwrap_or(buf.len());
    flush(data_from, end, &mut write)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(offset: u64, buf: &[u8]) -> Vec<(u64, usize)> {
        let mut found = Vec::new();
        let all: Result<(), ()> = for_data_runs(offset, buf, |at, data| {
            found.push((at, data.len()));
            Ok(())
        });
        all.unwrap();
        found
    }

    #[test]
    fn long_runs_of_zeros_inside_and_any_at_the_ends_are_left_out() {
        let mut buf = vec![0; 400 << 10];
        assert_eq!(runs(0, &buf), []);
        assert_eq!(runs(5, &buf), []);
        assert!(leaves_holes(5, &buf) && !leaves_holes(5, &vec![1; 400 << 10]));
        buf[100 << 10] = 1;
        assert_eq!(runs(0, &buf), [(100 << 10, 4096)]);
        buf[120 << 10] = 1; // 16 KiB between: not worth a hole
        assert_eq!(runs(0, &buf), [(100 << 10, 24 << 10)]);
        buf[300 << 10] = 1;
        assert_eq!(runs(0, &buf), [(100 << 10, 24 << 10), (300 << 10, 4096)]);
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_zero_and_what_is_written_is_not_changed(
            offset in 0_u64..20_000,
            pieces in proptest::collection::vec((any::<bool>(), 1_usize..100_000), 1..8),
        ) {
            let buf: Vec<u8> = pieces.iter().flat_map(|(zero, length)| std::iter::repeat_n(u8::from(!zero), *length)).collect();
            let mut got = vec![0; buf.len()];
            let all: Result<(), ()> = for_data_runs(offset, &buf, |at, data| {
                let from = usize::try_from(at - offset).unwrap();
                got[from..from + data.len()].copy_from_slice(data);
                Ok(())
            });
            all.unwrap();
            prop_assert!(got == buf);
        }
    }
}
