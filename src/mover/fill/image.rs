//! An image into a volume without a file system. Only what differs is written, and nothing where both are zeros.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::model::content::Content;
use crate::model::entry::{Entry, Kind};
use crate::model::id::Id;
use crate::model::mover_job::{ClaimReport, FillClaim, Problem, ProblemKind};
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::fill::Tools;
use crate::mover::image::PIECE;
use crate::repository::error::RepositoryError;
use crate::repository::hash::id_of;
use crate::repository::pack::BlobKind;
use crate::volume::{Device, VolumeError};

/// Most threads that get, open and write pieces.
const THREADS: usize = 8;

/// A run of the device: a chunk of the image, or, beyond its end, what must be zeros.
struct Run {
    at: u64,
    length: u64,
    chunk: Option<Id>,
}

/// Makes the claim's device equal to the image, with zeros beyond its end, and syncs it. Blocks; for a thread outside of the runtime.
///
/// With `skip_damaged`, an image of which a chunk is absent is listed as lost, and the device stays as it is.
pub fn fill_image(tools: &Tools, claim: &FillClaim) -> Result<ClaimReport, MoverError> {
    let began = tools.clock.now();
    if !claim.paths.is_empty() {
        return Err(MoverError::WholeOnly { claim: claim.name.clone() });
    }
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let device = Device::open_to_write(Path::new(&claim.target)).map_err(volume)?;
    let (size, content) = image(tools, claim)?;
    if device.size() < size {
        let (claim, has) = (claim.name.clone(), device.size());
        return Err(MoverError::TooSmall { claim, needs: size, has });
    }
    let mut report = ClaimReport {
        name: claim.name.clone(),
        tree: claim.tree,
        root: claim.root.clone(),
        files: 1,
        dirs: 0,
        bytes: size,
        cut: began.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        change_detection: None,
        clock_lag: 0,
        problems: Vec::new(),
    };
    match prove_size(tools, claim, size, &content) {
        Err(error) if claim.skip_damaged && error.is_damage() => {
            report.problems.push(Problem { path: String::new(), kind: ProblemKind::Lost, reason: error.reason() });
            return Ok(report);
        }
        proven => proven?,
    }
    let (runs, failure) = (Mutex::new(runs(tools, &content, device.size())), Mutex::<Option<MoverError>>::default());
    let next = || runs.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..tools.requests.clamp(1, THREADS) {
            scope.spawn(|| {
                let (mut there, is_failed) = (Vec::new(), || failure.lock().unwrap_or_else(PoisonError::into_inner).is_some());
                while let Some(run) = next() {
                    if is_failed() {
                        return;
                    }
                    if let Err(error) = fill(tools, claim, &device, &run, &mut there) {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    if let Some(failure) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    device.sync().map_err(volume)?;
    add(&tools.counters.files, 1);
    Ok(report)
}

/// The size of the claim's image and its chunks.
fn image(tools: &Tools, claim: &FillClaim) -> Result<(u64, Content), MoverError> {
    let mut entries = tools.runtime.block_on(tools.reader.tree(&claim.tree))?;
    match (entries.pop(), entries.is_empty()) {
        (Some(Entry { kind: Kind::File { content }, attrs, .. }), true) => Ok((attrs.size, content)),
        _ => Err(MoverError::NoImage { claim: claim.name.clone() }),
    }
}

/// Makes sure that the index has all chunks and that they are as long together as the image is said to be.
fn prove_size(tools: &Tools, claim: &FillClaim, size: u64, content: &Content) -> Result<(), RepositoryError> {
    let mut found = 0u64;
    for run in content.runs() {
        let place = tools.reader.index().find(BlobKind::Data, &run.id);
        let length = place.ok_or(RepositoryError::Missing { kind: BlobKind::Data.name(), id: run.id })?.plain();
        found = found.saturating_add(length.saturating_mul(run.count.into()));
    }
    if found == size {
        return Ok(());
    }
    let reason = format!("it is said to have {size} bytes and has chunks of {found}");
    Err(RepositoryError::damaged(format!("the image of {}", claim.name), reason))
}

/// What the device is made of in the end, in order and without gaps. Every chunk is one that the index has.
fn runs<'a>(tools: &'a Tools, content: &'a Content, device: u64) -> impl Iterator<Item = Run> + Send + 'a {
    let mut at = 0u64;
    let mut chunks = content.iter();
    std::iter::from_fn(move || {
        let chunk = chunks.next().copied();
        let length = match &chunk {
            Some(id) => tools.reader.index().find(BlobKind::Data, id)?.plain(),
            None if at < device => PIECE.min(device - at),
            None => return None,
        };
        let run = Run { at, length, chunk };
        at = at.saturating_add(length);
        Some(run)
    })
}

fn fill(tools: &Tools, claim: &FillClaim, device: &Device, run: &Run, there: &mut Vec<u8>) -> Result<(), MoverError> {
    if tools.stop.load(Ordering::Relaxed) {
        return Err(MoverError::Interrupted);
    }
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let too_long = || RepositoryError::damaged(format!("the image of {}", claim.name), "one of its chunks does not fit into memory");
    there.resize(usize::try_from(run.length).map_err(|_| too_long())?, 0);
    device.read_at(run.at, there).map_err(volume)?;
    let is_blank = there.iter().all(|byte| *byte == 0);
    if run.chunk != Some(id_of(there)) && (run.chunk.is_some() || !is_blank) {
        let plain = match &run.chunk {
            Some(id) => tools.runtime.block_on(tools.reader.chunk(id))?,
            None => vec![0; there.len()],
        };
        if plain.len() != there.len() {
            return Err(
                RepositoryError::damaged(format!("the image of {}", claim.name), "a chunk has another length than the index says").into()
            );
        }
        device.write_at(run.at, &plain).map_err(volume)?;
        add(&tools.counters.moved_bytes, plain.len() as u64);
        if run.chunk.is_some() {
            add(&tools.counters.stored_bytes, plain.len() as u64);
        }
    }
    if run.chunk.is_some() {
        add(&tools.counters.bytes, run.length);
    }
    Ok(())
}
