//! A volume without a file system, saved as one file.
//!
//! It is cut at fixed distances: what is rewritten in place stays where it was, and so all else of it is found again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crossbeam_channel::bounded;

use crate::model::entry::{Attrs, Entry, Kind, Time};
use crate::model::id::Id;
use crate::model::manifest::ChangeDetection;
use crate::model::mover_job::{ClaimReport, SaveClaim};
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::image::{PIECE, name_of};
use crate::mover::save::Tools;
use crate::mover::save::in_order::InOrder;
use crate::repository::codec::Encoder;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::volume::{Device, VolumeError};

/// Saves the claim's device. Blocks; for a thread outside of the runtime. Nothing is durable before the writer is finished.
pub fn save_image(tools: &Tools, claim: &SaveClaim) -> Result<ClaimReport, MoverError> {
    let cut = tools.clock.now();
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let device = Device::open_to_read(Path::new(&claim.source)).map_err(volume)?;
    let image = Image { tools, pieces: Mutex::default(), zeros: Mutex::default(), failed: AtomicBool::new(false) };
    let read = thread::scope(|scope| {
        let (send, pieces) = bounded::<(usize, Vec<u8>)>(1);
        let (give, spare) = bounded::<Vec<u8>>(tools.threads + 2);
        let workers: Vec<_> = (0..tools.threads.max(1))
            .map(|_| {
                let (pieces, give, image) = (pieces.clone(), give.clone(), &image);
                scope.spawn(move || image.store_all(&pieces, &give))
            })
            .collect();
        drop((pieces, give));
        let read = image.read(&device, &send, &spare);
        drop(send);
        let stored: Result<Vec<()>, RepositoryError> =
            workers.into_iter().map(|worker| worker.join().unwrap_or(Err(RepositoryError::Stopped))).collect();
        // Why nobody takes pieces any more says more than that nobody does.
        stored.map_err(MoverError::from).and(read.map_err(|error| error.in_claim(&claim.name)))
    });
    read?;
    let pieces = std::mem::take(&mut *image.pieces.lock().unwrap_or_else(PoisonError::into_inner));
    let content = pieces.finish().expect("every piece is stored, or there was an error");
    let moment = Time { secs: cut.timestamp(), nanos: cut.timestamp_subsec_nanos().min(999_999_999) };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let attrs = Attrs { uid, gid, mtime: moment, atime: moment, ctime: moment, links: 1, ..Attrs::default() };
    let entry = Entry {
        name: name_of(&claim.name).into_bytes(),
        kind: Kind::File { content },
        attrs: Attrs { mode: 0o600, size: device.size(), ..attrs.clone() },
    };
    let mut encoder = tools.writer.encoder()?;
    let tree = tools.writer.add_entries(&mut encoder, &[entry])?.0.id;
    add(&tools.counters.files, 1);
    Ok(ClaimReport {
        name: claim.name.clone(),
        tree,
        root: Attrs { mode: 0o755, ..attrs },
        files: 1,
        dirs: 0,
        bytes: device.size(),
        cut: cut.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        change_detection: Some(ChangeDetection::Content),
        clock_lag: 0,
        problems: Vec::new(),
    })
}

struct Image<'a> {
    tools: &'a Tools,
    pieces: Mutex<InOrder>,
    /// Of a whole piece of zeros, once it is stored.
    zeros: Mutex<Option<Id>>,
    /// A worker has given up.
    failed: AtomicBool,
}

/// Why the device was not read to its end.
enum Unread {
    Volume(VolumeError),
    Interrupted,
    /// Nobody takes what is read.
    Stopped,
}

impl Unread {
    fn in_claim(self, claim: &str) -> MoverError {
        match self {
            Unread::Volume(source) => MoverError::Volume { claim: claim.to_owned(), source },
            Unread::Interrupted => MoverError::Interrupted,
            Unread::Stopped => RepositoryError::Stopped.into(),
        }
    }
}

impl Image<'_> {
    fn read(
        &self,
        device: &Device,
        pieces: &crossbeam_channel::Sender<(usize, Vec<u8>)>,
        spare: &crossbeam_channel::Receiver<Vec<u8>>,
    ) -> Result<(), Unread> {
        let size = device.size();
        for number in 0..size.div_ceil(PIECE) {
            if self.tools.stop.load(Ordering::Relaxed) {
                return Err(Unread::Interrupted);
            }
            if self.failed.load(Ordering::Relaxed) {
                return Err(Unread::Stopped);
            }
            let at = number * PIECE;
            let mut piece = spare.try_recv().unwrap_or_default();
            piece.resize(usize::try_from(PIECE.min(size - at)).unwrap_or(usize::MAX), 0);
            device.read_at(at, &mut piece).map_err(Unread::Volume)?;
            add(&self.tools.counters.moved_bytes, piece.len() as u64);
            let number = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            pieces.send((number, piece)).map_err(|_| Unread::Stopped)?;
        }
        Ok(())
    }

    fn store_all(
        &self,
        pieces: &crossbeam_channel::Receiver<(usize, Vec<u8>)>,
        spare: &crossbeam_channel::Sender<Vec<u8>>,
    ) -> Result<(), RepositoryError> {
        let stored = self.tools.writer.encoder().and_then(|mut encoder| {
            pieces.iter().try_for_each(|(number, piece)| {
                let id = self.store(&mut encoder, &piece)?;
                self.pieces.lock().unwrap_or_else(PoisonError::into_inner).ready(number, id, 1);
                add(&self.tools.counters.bytes, piece.len() as u64);
                // Where nobody reads any more, it is not needed.
                let _ = spare.try_send(piece);
                Ok(())
            })
        });
        if stored.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        stored
    }

    fn store(&self, encoder: &mut Encoder, piece: &[u8]) -> Result<Id, RepositoryError> {
        let is_zeros = piece.len() as u64 == PIECE && piece.iter().all(|byte| *byte == 0);
        let known = *self.zeros.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(id)) = (is_zeros, known) {
            return Ok(id);
        }
        let added = self.tools.writer.add(encoder, BlobKind::Data, piece)?;
        if added.stored > 0 {
            add(&self.tools.counters.new_bytes, piece.len() as u64);
            add(&self.tools.counters.stored_bytes, u64::from(added.stored));
        }
        if is_zeros {
            *self.zeros.lock().unwrap_or_else(PoisonError::into_inner) = Some(added.id);
        }
        Ok(added.id)
    }
}
