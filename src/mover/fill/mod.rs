//! Filling: a tree out of the repository into a volume.
//!
//! One thread walks the trees, makes folders and special files and gathers files into batches ([`plan`]); each batch's chunks are read in
//! the order of packs with several requests under way; workers decode them and write each chunk to wherever it belongs ([`mod@write`]), in
//! any order. Attributes come last: a file's after its last chunk, the folders' at the very end, from the bottom up.
//!
//! A volume that holds data, or was half filled, is made equal to the tree: what the point does not have goes first ([`mod@sweep`]); files
//! that are there are compared by content ([`mod@compare`]), and of those that differ only the chunks that do are fetched ([`change`]). What
//! is lost in the repository is listed ([`lost`]), where that was asked for.

mod change;
mod chosen;
mod compare;
mod image;
mod lost;
mod plan;
mod sweep;
mod write;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::model::exclude::Exclude;
use crate::model::id::Id;
use crate::model::mover_job::{ClaimReport, FillClaim, FillMode, Problem, ProblemKind};
use crate::model::path_text::path_text;
use crate::mover::begun::Begun;
use crate::mover::counters::{Counters, add};
use crate::mover::error::MoverError;
use crate::mover::zeros::ZeroChunks;
use crate::repository::error::RepositoryError;
use crate::repository::pack::{self, BlobKind};
use crate::repository::read_plan::{self, Range};
use crate::repository::reader::Reader;
use crate::repository::same_file::FileId;
use crate::volume::{DirId, Handles, Stat, Target, TargetFile, VolumeError, is_device};

use self::chosen::Chosen;
use self::plan::{Batch, Planner};
use self::write::{Purpose, Spot, Writer};

/// What the claims of one mover share.
pub struct Tools {
    pub reader: Arc<Reader>,
    pub counters: Arc<Counters>,
    pub clock: Clock,
    pub runtime: Handle,
    /// Worker threads.
    pub threads: usize,
    /// Requests to the store at the same time.
    pub requests: usize,
    /// Set from outside to make the mover give up.
    pub stop: Arc<AtomicBool>,
}

/// Bytes of one request. Times the number of requests, this is most of the memory that filling takes.
const REQUEST: u64 = 1 << 20;
/// Batches planned and not written yet.
const BATCHES: usize = 2;
/// Large files held open to write to.
const OPEN_FILES: usize = 64;

/// One claim's run.
struct Fill<'a> {
    tools: &'a Tools,
    claim: &'a FillClaim,
    /// What stays as it is, since the point excludes it.
    exclude: Exclude,
    target: Target,
    open: Handles<TargetFile>,
    /// Bytes that are on their way to the volume and not in it yet.
    promised: AtomicU64,
    /// Inodes with several names that stay as one of the point's files: no second one may.
    staying: Mutex<HashSet<u64>>,
    /// Files with several names that are lost, by the one under which they were to be made.
    lost: Mutex<HashSet<(DirId, Box<[u8]>)>>,
    zeros: ZeroChunks,
    problems: Mutex<Vec<Problem>>,
    failure: Mutex<Option<MoverError>>,
    stopping: AtomicBool,
}

/// A range of a pack and its bytes.
type Fetched = (Arc<Batch>, Range<Purpose>, Result<Bytes, RepositoryError>);

/// Fills one claim's volume and syncs it. Blocks; for a thread outside of the runtime. On an error the target is half filled, and can be
/// filled again with [`FillMode::Replace`].
///
/// With `skip_damaged`, whatever is whole comes back, and the report lists what is lost: a file that was to be new is not there; one that
/// was to replace another leaves that untouched, except where it had to be written over in place for want of room: then it is gone, rather
/// than be half the one and half the other. A folder whose tree is lost is there, with what it held before.
pub fn fill_claim(tools: &Tools, claim: &FillClaim) -> Result<ClaimReport, MoverError> {
    if claim.folder.is_none() && is_device(Path::new(&claim.target)) {
        return image::fill_image(tools, claim);
    }
    let begun = Begun::now(&tools.clock, &tools.counters);
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let replaces = claim.mode == FillMode::Replace;
    let path = Path::new(&claim.target);
    let target = if replaces { Target::open_to_replace(path, claim.folder) } else { Target::open(path, claim.folder) }.map_err(volume)?;
    let exclude = Exclude::new(&claim.exclude).map_err(|source| MoverError::Exclude { claim: claim.name.clone(), source })?;
    let root = exclude.root();
    if !replaces && target.holds_data(|name| !exclude.has(&root, name)).map_err(volume)? {
        return Err(MoverError::TargetHoldsData { claim: claim.name.clone(), target: claim.target.clone() });
    }
    let fill = Fill {
        tools,
        claim,
        exclude,
        target,
        open: Handles::new(OPEN_FILES),
        promised: AtomicU64::new(0),
        staying: Mutex::default(),
        lost: Mutex::default(),
        zeros: ZeroChunks::default(),
        problems: Mutex::default(),
        failure: Mutex::default(),
        stopping: AtomicBool::new(false),
    };
    let chosen = Chosen::new(&claim.paths);
    chosen.prove(&fill)?;
    if replaces {
        sweep::sweep(&fill, &chosen)?;
    }
    let links = fill.run(&chosen);
    if let Some(failure) = fill.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    if tools.stop.load(Ordering::Relaxed) {
        return Err(MoverError::Interrupted);
    }
    for link in links {
        fill.link(link).map_err(volume)?;
    }
    let root = claim.paths.is_empty().then_some(&claim.root);
    fill.problems(fill.target.finish_dirs(root, tools.threads).map_err(volume)?);
    fill.target.sync().map_err(volume)?;
    let problems = fill.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(begun.report(&tools.counters, &claim.name, (claim.tree, claim.root.clone()), problems))
}

/// A further name of a file that is there by the time links are made.
struct Link {
    to: (DirId, Vec<u8>),
    spot: Spot,
}

impl Fill<'_> {
    fn replaces(&self) -> bool {
        self.claim.mode == FillMode::Replace
    }

    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.tools.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: impl Into<MoverError>) {
        self.stopping.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.into());
    }

    fn volume(&self, source: VolumeError) -> MoverError {
        MoverError::Volume { claim: self.claim.name.clone(), source }
    }

    fn problems(&self, problems: Vec<Problem>) {
        if !problems.is_empty() {
            self.problems.lock().unwrap_or_else(PoisonError::into_inner).extend(problems);
        }
    }

    /// An entry that cannot be made while the rest can: a device without the right to make devices.
    fn left_out(&self, path: &[u8], error: &VolumeError) {
        let path = path_text(path);
        self.problems(vec![Problem { path, kind: ProblemKind::Unreadable, reason: error.reason() }]);
    }

    /// Gives a file that is there a further name, unless it has that already.
    fn link(&self, link: Link) -> Result<(), VolumeError> {
        let (dir, name) = (link.to.0, &*link.to.1);
        if self.is_lost(dir, name) {
            let path = path_text(&self.target.dir(link.spot.dir())?.path_of(link.spot.name()));
            let reason = format!("another name of `{}`", path_text(&self.target.dir(dir)?.path_of(name)));
            self.problems(vec![Problem { path, kind: ProblemKind::Lost, reason }]);
            return Ok(());
        }
        let is_linked = match &link.spot {
            Spot::Free { .. } => false,
            Spot::Taken(old) => {
                let is_linked = self.target.is_link(dir, name, old)?;
                if !is_linked {
                    self.target.remove_old(old)?;
                }
                is_linked
            }
        };
        if !is_linked {
            self.target.make_link((dir, name), link.spot.dir(), link.spot.name())?;
        }
        add(&self.tools.counters.files, 1);
        Ok(())
    }

    /// Whether an inode that is right, attributes aside, may stay: not if another name of it stays as another file, or may be one that is
    /// not to be touched.
    fn may_stay(&self, stat: &Stat) -> bool {
        let is_whole = self.claim.paths.is_empty() && self.exclude.is_empty();
        stat.links == 1 || (is_whole && self.staying.lock().unwrap_or_else(PoisonError::into_inner).insert(stat.inode))
    }

    /// Bytes of a chunk that the index has.
    fn plain_length(&self, id: &Id) -> u64 {
        self.tools.reader.index().find(BlobKind::Data, id).map_or(0, |place| place.plain())
    }

    /// Whether it is a chunk of nothing but zeros.
    fn is_zeros(&self, id: &Id) -> bool {
        let place = self.tools.reader.index().find(BlobKind::Data, id);
        place.is_some_and(|place| self.zeros.is(id, place.plain(), place.length.into()))
    }

    /// Makes everything but hard links and the folders' attributes; returns the links.
    fn run(&self, chosen: &Chosen) -> Vec<Link> {
        let (batches, planned) = mpsc::channel::<Arc<Batch>>(1);
        let (fetched, ready) = mpsc::channel::<Fetched>(self.tools.threads);
        let ready = Mutex::new(ready);
        let fetching = self.tools.runtime.spawn(fetch(Arc::clone(&self.tools.reader), planned, fetched, self.tools.requests));
        let links = thread::scope(|scope| {
            for _ in 0..self.tools.threads.max(1) {
                scope.spawn(|| self.work(&ready));
            }
            let alive = Arc::new(Semaphore::new(BATCHES));
            Planner::new(self, chosen, batches, alive).run()
        });
        fetching.abort();
        links
    }

    /// One worker: decodes what has been fetched and writes it, until there is no more.
    fn work(&self, ready: &Mutex<mpsc::Receiver<Fetched>>) {
        let mut writer = match Writer::new(self) {
            Ok(writer) => writer,
            Err(error) => return self.fail(error),
        };
        loop {
            let next = ready.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            match next {
                // Even when stopping, what comes is taken, so that nobody waits for room.
                Some(_) if self.stopped() => {}
                Some((batch, range, got)) => {
                    if let Err(error) = writer.range(&batch, &range, got) {
                        self.fail(error);
                    }
                }
                None => return,
            }
        }
    }
}

/// Gets the ranges of all batches, several at a time.
async fn fetch(reader: Arc<Reader>, planned: mpsc::Receiver<Arc<Batch>>, fetched: mpsc::Sender<Fetched>, requests: usize) {
    let batches = futures::stream::unfold(planned, |mut planned| async move {
        let batch = planned.recv().await?;
        Some((batch, planned))
    });
    let store = reader.repository().store().clone();
    let mut ranges = batches
        .flat_map(|batch| {
            let wanted = batch.take_wanted();
            futures::stream::iter(read_plan::plan(wanted, REQUEST).into_iter().map(move |range| (Arc::clone(&batch), range)))
        })
        .map(|(batch, range)| {
            let store = store.clone();
            async move {
                let got = match store.get_range(&pack::key(&range.pack), range.start..range.end).await {
                    Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
                    Ok(_) => Err(RepositoryError::damaged(format!("pack {}", range.pack), "it ends before its last blob")),
                    Err(error) => Err(error.into()),
                };
                (batch, range, got)
            }
        })
        .buffer_unordered(requests.max(1))
        .boxed();
    while let Some(result) = ranges.next().await {
        if fetched.send(result).await.is_err() {
            return;
        }
    }
}

/// Where hard links meet: the first name of each file that has several.
type FirstNames = HashMap<FileId, (DirId, Vec<u8>)>;
