//! Saving: a volume's files into the repository, and the id of the tree that holds them all.
//!
//! One thread walks and compares with the previous point; what must be read goes to workers, one per core, which read, cut, hash,
//! compress, seal and pack; a thread of its own decodes the previous point's trees ahead of the walk. Folders come together bottom-up
//! as their entries get ready ([`folder`]), so that order is restored there and nowhere else. Queues between the threads are short:
//! they bound the memory.

mod before;
mod escaped;
mod file;
mod folder;
mod image;
mod in_order;
mod links;
mod seen;
#[cfg(test)]
mod tests;
mod trust;
mod walk;
mod work;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::model::entry::{Entry, Kind};
use crate::model::exclude::Exclude;
use crate::model::mover_job::{ClaimReport, Problem, ProblemKind, SaveClaim};
use crate::model::path_text::path_text;
use crate::mover::begun::Begun;
use crate::mover::counters::Counters;
use crate::mover::error::MoverError;
use crate::repository::chunk::Chunker;
use crate::repository::error::RepositoryError;
use crate::repository::reader::Reader;
use crate::repository::writer::Writer;
use crate::volume::{Dir, Place, VolumeError, is_device};

use self::file::Hole;
use self::links::Links;
use self::seen::Seen;
use self::trust::Trust;

/// What the claims of one mover share.
pub struct Tools {
    pub writer: Writer,
    pub reader: Arc<Reader>,
    pub chunker: Chunker,
    pub counters: Arc<Counters>,
    pub clock: Clock,
    pub runtime: Handle,
    /// Worker threads.
    pub threads: usize,
    /// Set from outside to make the mover give up.
    pub stop: Arc<AtomicBool>,
    /// Called at each step, by tests alone.
    #[cfg(test)]
    pub hook: Option<Hook>,
}

/// What a test does at a step.
#[cfg(test)]
pub type Hook = Arc<dyn Fn(Step) + Send + Sync>;

/// Moments of a walk at which a volume in use may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A folder is about to be entered or listed.
    List,
    /// A file was handed to the workers.
    Queue,
    /// The walk is about to leave a folder.
    Leave,
    /// The walk is through.
    Walked,
    /// A worker is about to open a file.
    Open,
    /// A worker is about to read a file.
    Read,
    /// A worker has read a file.
    Look,
    /// A worker is done with a file.
    Done,
}

/// One claim's run.
struct Save<'a> {
    tools: &'a Tools,
    claim: &'a SaveClaim,
    /// What is no part of the point.
    exclude: Exclude,
    hole: Hole,
    trust: Trust,
    links: Links,
    seen: Seen,
    problems: Mutex<Vec<Problem>>,
    /// The first error that ends the run.
    failure: Mutex<Option<MoverError>>,
    /// Something failed or somebody wants it to stop: everything still queued is passed over.
    stopping: AtomicBool,
    /// The volume's root and its tree, once they are whole.
    root: Mutex<Option<Entry>>,
}

/// Saves one claim. Blocks; for a thread outside of the runtime. Nothing is durable before the writer is finished.
pub fn save_claim(tools: &Tools, claim: &SaveClaim) -> Result<ClaimReport, MoverError> {
    if claim.folder.is_none() && is_device(Path::new(&claim.source)) {
        return image::save_image(tools, claim);
    }
    let begun = Begun::now(&tools.clock, &tools.counters);
    let volume = |source: VolumeError| MoverError::Volume { claim: claim.name.clone(), source };
    let root = Arc::new(Dir::open_root_of(Path::new(&claim.source), claim.folder).map_err(volume)?);
    let save = Save {
        tools,
        claim,
        exclude: Exclude::new(&claim.exclude).map_err(|source| MoverError::Exclude { claim: claim.name.clone(), source })?,
        hole: Hole::default(),
        trust: Trust::new(claim, root.times()),
        links: Links::default(),
        seen: Seen::new(tools.clock.now(), root.times()),
        problems: Mutex::default(),
        failure: Mutex::default(),
        stopping: AtomicBool::new(false),
        root: Mutex::default(),
    };
    work::run(&save, Arc::clone(&root));
    escaped::look(&save, &root);
    if let Some(failure) = take(&save.failure) {
        return Err(failure);
    }
    if tools.stop.load(Ordering::Relaxed) {
        return Err(MoverError::Interrupted);
    }
    let Some(Entry { kind: Kind::Dir { subtree: Some(tree) }, attrs: root, .. }) = take(&save.root) else {
        return Err(RepositoryError::Stopped.into());
    };
    let mut problems = std::mem::take(&mut *save.problems.lock().unwrap_or_else(PoisonError::into_inner));
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    let report = begun.report(&tools.counters, &claim.name, (tree, root), problems);
    Ok(ClaimReport { change_detection: Some(save.trust.change_detection()), clock_lag: save.trust.clock_lag(), ..report })
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Save<'_> {
    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.tools.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, error: MoverError) {
        self.stopping.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker that only noticed that the writer gave up says less than who made it give up.
        if failure.is_none() || matches!(*failure, Some(MoverError::Repository(RepositoryError::Stopped))) {
            *failure = Some(error);
        }
    }

    #[allow(clippy::unused_self, reason = "tests use it")]
    fn step(&self, step: Step) {
        #[cfg(test)]
        if let Some(hook) = &self.tools.hook {
            hook(step);
        }
        #[cfg(not(test))]
        let _ = step;
    }

    fn paths_of_problems(&self) -> HashSet<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|problem| problem.path.clone()).collect()
    }

    fn problem(&self, path: &[u8], kind: ProblemKind, reason: String) {
        let path = path_text(path);
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(Problem { path, kind, reason });
    }

    /// An entry that cannot be read: listed, and no part of the point.
    fn unreadable(&self, path: &[u8], error: &VolumeError) {
        let kind = if error.is_vanished() { ProblemKind::Vanished } else { ProblemKind::Unreadable };
        if error.is_vanished() {
            self.seen.moved();
        }
        self.problem(path, kind, error.reason());
    }

    /// An entry that is read. Where another name of its inode was read as another file, the point says so, and keeps it as a file of its
    /// own: whoever restores must not take the one for the other.
    fn settled(&self, place: &Place, mut entry: Entry) -> Entry {
        if let Some(first) = self.links.meet(&entry, || place.path_of(&entry.name)) {
            let reason = format!("it was read as another file than `{}`, which has the same inode", path_text(&first));
            self.problem(&place.path_of(&entry.name), ProblemKind::Changed, reason);
            (entry.attrs.links, entry.attrs.device) = (1, 0);
        }
        entry
    }
}
