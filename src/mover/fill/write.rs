//! One worker: opens the chunks of a range and writes each to every place where it belongs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::model::entry::Attrs;
use crate::model::id::Id;
use crate::mover::counters::add;
use crate::mover::fill::Fill;
use crate::mover::fill::plan::Batch;
use crate::repository::codec::Decoder;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::read_plan::Range;
use crate::volume::{DirId, VolumeError};

/// What a chunk is for.
pub enum Purpose {
    /// All of the batch's small file of this number.
    Small(usize),
    /// Bytes of a larger file from an offset on.
    Large(Arc<LargeFile>, u64),
}

/// A file of several chunks, made before the first of them is read.
pub struct LargeFile {
    pub number: u64,
    pub dir: DirId,
    pub name: Box<[u8]>,
    pub attrs: Attrs,
    /// Chunks that are not written yet.
    pub remaining: AtomicUsize,
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

    /// Writes everything that the range brings.
    pub fn range(&mut self, batch: &Batch, range: &Range<Purpose>, bytes: Bytes) {
        let fill = self.fill;
        add(&fill.tools.counters.stored_bytes, bytes.len() as u64);
        let mut at = 0;
        while let Some(first) = range.blobs.get(at) {
            if fill.stopped() {
                return;
            }
            // The same chunk for several places is opened once.
            let same = range.blobs[at..].iter().take_while(|blob| blob.place == first.place && blob.id == first.id).count();
            let start = usize::try_from(u64::from(first.place.offset) - range.start).expect("within the range");
            self.sealed.clear();
            self.sealed.extend_from_slice(&bytes[start..start + first.place.length as usize]);
            let spare;
            let plain = match self.decoder.decode(&first.id, &mut self.sealed, first.place.plain_length) {
                Ok(plain) => plain,
                Err(error) => match elsewhere(fill, &first.id, error) {
                    Ok(plain) => {
                        spare = plain;
                        &spare
                    }
                    Err(error) => return fill.fail(error),
                },
            };
            for blob in &range.blobs[at..at + same] {
                if let Err(error) = write(fill, batch, &blob.purpose, plain) {
                    return fill.fail_volume(error);
                }
            }
            at += same;
        }
    }
}

/// A damaged chunk may stand in another pack too.
fn elsewhere(fill: &Fill, id: &Id, error: RepositoryError) -> Result<Vec<u8>, RepositoryError> {
    if fill.tools.reader.index().places(BlobKind::Data, id).nth(1).is_none() {
        return Err(error);
    }
    fill.tools.runtime.block_on(fill.tools.reader.chunk(id))
}

fn write(fill: &Fill, batch: &Batch, purpose: &Purpose, plain: &[u8]) -> Result<(), VolumeError> {
    let counters = &fill.tools.counters;
    add(&counters.bytes, plain.len() as u64);
    add(&counters.moved_bytes, plain.len() as u64);
    match purpose {
        Purpose::Small(number) => {
            let file = &batch.small[*number];
            fill.problems(fill.target.write_file(file.dir, &file.name, &file.attrs, [plain])?);
            add(&counters.files, 1);
        }
        Purpose::Large(file, at) => {
            let open = fill.open.get_or_open(file.number, || fill.target.open_file(file.dir, &file.name))?;
            open.write_sparse(*at, plain)?;
            if file.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
                fill.problems(fill.target.finish_file(&open, &file.attrs)?);
                fill.open.remove(file.number);
                add(&counters.files, 1);
            }
        }
    }
    Ok(())
}
