//! One worker: opens the chunks of a range and writes each to every place where it belongs.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::model::entry::Attrs;
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;
use crate::mover::fill::plan::{Batch, SmallFile};
use crate::repository::codec::Decoder;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::read_plan::{Range, Wanted};
use crate::store::ErrorKind;
use crate::volume::{DirId, OldName, TargetFile, VolumeError};

/// What a chunk is for.
pub enum Purpose {
    /// All of the batch's small file of this number.
    Small(usize),
    /// Bytes of a larger file from an offset on.
    Large(Arc<LargeFile>, u64),
}

/// Where a file is to be.
pub enum Spot {
    /// A name that is free.
    Free { dir: DirId, name: Box<[u8]> },
    /// The place of a file that was there before.
    Taken(OldName),
}

/// A file of several chunks, made or opened before the first of them is read.
pub struct LargeFile {
    pub number: u64,
    pub spot: Spot,
    /// The name that it is written under, if it takes the place of another file when it is whole. Without one, in a place that was taken,
    /// the old file itself is written over.
    pub beside: Option<Box<[u8]>>,
    pub attrs: Attrs,
    /// It is to have room for all of its bytes and could not get it at once, so that its zeros are written.
    pub is_dense: bool,
    /// Chunks that are not written yet.
    pub remaining: AtomicUsize,
    /// One of its chunks cannot be had.
    pub lost: AtomicBool,
}

impl Spot {
    pub fn dir(&self) -> DirId {
        match self {
            Spot::Free { dir, .. } => *dir,
            Spot::Taken(old) => old.dir(),
        }
    }

    pub fn name(&self) -> &[u8] {
        match self {
            Spot::Free { name, .. } => name,
            Spot::Taken(old) => old.name(),
        }
    }
}

impl LargeFile {
    fn name_meanwhile(&self) -> &[u8] {
        self.beside.as_deref().unwrap_or(self.spot.name())
    }

    fn open(&self, fill: &Fill) -> Result<Arc<TargetFile>, VolumeError> {
        fill.open.get_or_open(self.number, || fill.target.open_file(self.spot.dir(), self.name_meanwhile()))
    }

    fn write(&self, fill: &Fill, at: u64, plain: &[u8]) -> Result<(), VolumeError> {
        if self.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        let open = self.open(fill)?;
        match (&self.spot, &self.beside) {
            _ if self.is_dense => open.write_at(at, plain),
            // Zeros are written over what was there, rather than room given back.
            (Spot::Taken(_), None) if self.attrs.allocated => open.write_at(at, plain),
            (Spot::Taken(_), None) => open.write_over(at, plain),
            _ => open.write_sparse(at, plain),
        }
    }

    /// One chunk less to wait for; with the last one the file is finished.
    fn count_down(&self, fill: &Fill) -> Result<(), VolumeError> {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 { self.finish(fill) } else { Ok(()) }
    }

    /// After its last chunk: sets its attributes and puts it in its place; or takes it away, if a part of it is lost.
    pub fn finish(&self, fill: &Fill) -> Result<(), VolumeError> {
        let target = &fill.target;
        if self.lost.load(Ordering::Relaxed) {
            fill.open.remove(self.number);
            return target.discard_file(self.spot.dir(), self.name_meanwhile());
        }
        let open = self.open(fill)?;
        let problems = match (&self.spot, &self.beside) {
            (Spot::Free { .. }, _) => target.finish_file(&open, &self.attrs)?,
            (Spot::Taken(_), None) => target.finish_over(&open, &self.attrs)?,
            (Spot::Taken(old), Some(beside)) => {
                let problems = target.finish_beside(&open, old, &self.attrs)?;
                target.put_over(old, beside)?;
                problems
            }
        };
        fill.problems(problems);
        fill.open.remove(self.number);
        add(&fill.tools.counters.files, 1);
        Ok(())
    }
}

/// A worker's tools.
pub struct Writer<'a> {
    fill: &'a Fill<'a>,
    decoder: Decoder,
    sealed: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(fill: &'a Fill<'a>) -> Result<Self, RepositoryError> {
        Ok(Writer { fill, decoder: Decoder::new(fill.tools.reader.repository().master_key())?, sealed: Vec::new() })
    }

    /// Writes everything that the range was to bring: from its bytes, or, where they are damaged or could not be got, from wherever else.
    pub fn range(&mut self, batch: &Batch, range: &Range<Purpose>, got: Result<Bytes, RepositoryError>) -> Result<(), MoverError> {
        let fill = self.fill;
        match &got {
            Ok(bytes) => add(&fill.tools.counters.stored_bytes, bytes.len() as u64),
            Err(error) if error.is_damage() => {}
            Err(_) => return got.map(|_| ()).map_err(MoverError::from),
        }
        // The same chunk for several places is opened once.
        for same in range.blobs.chunk_by(|a, b| a.place == b.place && a.id == b.id) {
            if fill.stopped() {
                return Ok(());
            }
            let done = match self.plain(&same[0], range.start, &got) {
                Ok(plain) => same.iter().try_for_each(|blob| write(fill, batch, &blob.purpose, &plain)),
                Err(error) => {
                    let reason = fill.passed_over(error)?;
                    same.iter().try_for_each(|blob| lose(fill, batch, &blob.purpose, &reason))
                }
            };
            done.map_err(|error| fill.volume(error))?;
            let length = fill.plain_length(&same[0].id).saturating_mul(same.len() as u64);
            fill.promised.fetch_sub(length, Ordering::Relaxed);
        }
        Ok(())
    }

    fn plain(
        &mut self,
        blob: &Wanted<Purpose>,
        start: u64,
        got: &Result<Bytes, RepositoryError>,
    ) -> Result<Cow<'_, [u8]>, RepositoryError> {
        if let Ok(bytes) = got {
            let from = usize::try_from(u64::from(blob.place.offset) - start).expect("within the range");
            self.sealed.clear();
            self.sealed.extend_from_slice(&bytes[from..from + blob.place.length as usize]);
            if let Ok(plain) = self.decoder.decode(&blob.id, &mut self.sealed, blob.place.plain_length) {
                return Ok(Cow::Borrowed(plain));
            }
        }
        // Bytes that were damaged on their way are got once more, and the chunk may stand in another pack too. A pack that is gone with a
        // thousand chunks is not asked for a thousand times.
        let reader = &self.fill.tools.reader;
        let is_gone = matches!(got, Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound);
        if is_gone && self.fill.claim.skip_damaged && reader.index().places(BlobKind::Data, &blob.id).nth(1).is_none() {
            return Err(RepositoryError::damaged(format!("pack {}", blob.place.pack), "it is not in the store"));
        }
        self.fill.tools.runtime.block_on(reader.chunk(&blob.id)).map(Cow::Owned)
    }
}

fn write(fill: &Fill, batch: &Batch, purpose: &Purpose, plain: &[u8]) -> Result<(), VolumeError> {
    let counters = &fill.tools.counters;
    match purpose {
        Purpose::Small(number) => {
            let SmallFile { spot, attrs } = &batch.small[*number];
            fill.problems(match spot {
                Spot::Free { dir, name } => fill.target.write_file(*dir, name, attrs, [plain])?,
                Spot::Taken(old) => fill.target.replace_file(old, attrs, [plain])?,
            });
            add(&counters.files, 1);
        }
        Purpose::Large(file, at) => {
            file.write(fill, *at, plain)?;
            file.count_down(fill)?;
        }
    }
    add(&counters.bytes, plain.len() as u64);
    add(&counters.moved_bytes, plain.len() as u64);
    Ok(())
}

/// A chunk cannot be had: a file that was to be new is not made, one that was to take another's place does not.
fn lose(fill: &Fill, batch: &Batch, purpose: &Purpose, reason: &str) -> Result<(), VolumeError> {
    match purpose {
        Purpose::Small(number) => {
            let SmallFile { spot, attrs } = &batch.small[*number];
            fill.lose_file(spot.dir(), spot.name(), attrs, reason.to_owned())
        }
        Purpose::Large(file, _) => {
            if !file.lost.swap(true, Ordering::Relaxed) {
                fill.lose_file(file.spot.dir(), file.spot.name(), &file.attrs, reason.to_owned())?;
            }
            file.count_down(fill)
        }
    }
}
