//! Filling: a tree out of the repository into an empty volume.
//!
//! One thread walks the trees, makes folders and special files and gathers files into batches ([`plan`]); each batch's chunks are read in
//! the order of packs with several requests under way; workers decode them and write each chunk to wherever it belongs ([`mod@write`]), in
//! any order. Attributes come last: a file's after its last chunk, the folders' at the very end, from the bottom up.

mod plan;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::model::mover_job::{ClaimReport, FillClaim, Problem, ProblemKind};
use crate::mover::counters::{Counters, add};
use crate::mover::error::MoverError;
use crate::repository::error::RepositoryError;
use crate::repository::pack;
use crate::repository::read_plan::{self, Range};
use crate::repository::reader::Reader;
use crate::volume::{DirId, Handles, Target, TargetFile, VolumeError};

use self::plan::{Batch, Planner};
use self::write::{LargeFile, Purpose, Writer};

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
    target: Target,
    open: Handles<TargetFile>,
    problems: Mutex<Vec<Problem>>,
    failure: Mutex<Option<MoverError>>,
    stopping: AtomicBool,
}

/// A range of a pack and its bytes.
type Fetched = (Arc<Batch>, Range<Purpose>, Bytes);

/// Fills one claim's volume and syncs it. Blocks; for a thread outside of the runtime. On an error the target is half filled.
pub fn fill_claim(tools: &Tools, claim: &FillClaim) -> Result<ClaimReport, MoverError> {
    let started = tools.counters.progress();
    let began = tools.clock.now();
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let target = Target::open(Path::new(&claim.target)).map_err(volume)?;
    if target.holds_data().map_err(volume)? {
        return Err(MoverError::TargetHoldsData { claim: claim.name.clone(), target: claim.target.clone() });
    }
    let fill = Fill {
        tools,
        claim,
        target,
        open: Handles::new(OPEN_FILES),
        problems: Mutex::default(),
        failure: Mutex::default(),
        stopping: AtomicBool::new(false),
    };
    let links = fill.run();
    if let Some(failure) = fill.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    if tools.stop.load(Ordering::Relaxed) {
        return Err(MoverError::Interrupted);
    }
    for link in links {
        fill.target.make_link((link.to.0, &link.to.1), link.dir, &link.name).map_err(volume)?;
        add(&tools.counters.files, 1);
    }
    let root = claim.paths.is_empty().then_some(&claim.root);
    fill.problems(fill.target.finish_dirs(root, tools.threads).map_err(volume)?);
    fill.target.sync().map_err(volume)?;
    let ended = tools.counters.progress();
    Ok(ClaimReport {
        name: claim.name.clone(),
        tree: claim.tree,
        root: claim.root.clone(),
        files: ended.files - started.files,
        dirs: ended.dirs - started.dirs,
        bytes: ended.bytes - started.bytes,
        cut: began.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        problems: fill.problems.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

/// A further name of a file that is there by the time links are made.
struct Link {
    to: (DirId, Vec<u8>),
    dir: DirId,
    name: Vec<u8>,
}

impl Fill<'_> {
    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.tools.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: impl Into<MoverError>) {
        self.stopping.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.into());
    }

    fn fail_volume(&self, source: VolumeError) {
        self.fail(MoverError::Volume { claim: self.claim.name.clone(), source });
    }

    fn problems(&self, problems: Vec<Problem>) {
        if !problems.is_empty() {
            self.problems.lock().unwrap_or_else(PoisonError::into_inner).extend(problems);
        }
    }

    /// An entry that cannot be made while the rest can: a device without the right to make devices.
    fn left_out(&self, path: &[u8], error: &VolumeError) {
        let path = crate::model::path_text::path_text(path);
        self.problems(vec![Problem { path, kind: ProblemKind::Unreadable, reason: error.reason() }]);
    }

    /// Makes everything but hard links and the folders' attributes; returns the links.
    fn run(&self) -> Vec<Link> {
        let (batches, planned) = mpsc::channel::<Arc<Batch>>(1);
        let (fetched, ready) = mpsc::channel::<Result<Fetched, RepositoryError>>(self.tools.threads);
        let ready = Mutex::new(ready);
        let fetching = self.tools.runtime.spawn(fetch(Arc::clone(&self.tools.reader), planned, fetched, self.tools.requests));
        let links = thread::scope(|scope| {
            for _ in 0..self.tools.threads.max(1) {
                scope.spawn(|| self.work(&ready));
            }
            let alive = Arc::new(Semaphore::new(BATCHES));
            Planner::new(self, batches, alive).run()
        });
        fetching.abort();
        links
    }

    /// One worker: decodes what has been fetched and writes it, until there is no more.
    fn work(&self, ready: &Mutex<mpsc::Receiver<Result<Fetched, RepositoryError>>>) {
        let mut writer = match Writer::new(self) {
            Ok(writer) => writer,
            Err(error) => return self.fail(error),
        };
        loop {
            let next = ready.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            match next {
                // Even when stopping, what comes is taken, so that nobody waits for room.
                Some(_) if self.stopped() => {}
                Some(Ok((batch, range, bytes))) => writer.range(&batch, &range, bytes),
                Some(Err(error)) => self.fail(error),
                None => return,
            }
        }
    }
}

/// Gets the ranges of all batches, several at a time.
async fn fetch(
    reader: Arc<Reader>,
    planned: mpsc::Receiver<Arc<Batch>>,
    fetched: mpsc::Sender<Result<Fetched, RepositoryError>>,
    requests: usize,
) {
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
                let bytes = store.get_range(&pack::key(&range.pack), range.start..range.end).await?;
                if bytes.len() as u64 != range.end - range.start {
                    return Err(RepositoryError::damaged(format!("pack {}", range.pack), "it ends before its last blob"));
                }
                Ok((batch, range, bytes))
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

/// Where hard links meet: the first name of each inode that has several.
type FirstNames = HashMap<(u64, u64), (DirId, Vec<u8>)>;
