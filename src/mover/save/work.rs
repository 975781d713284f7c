//! The threads of one claim's save and the queues between them.

use std::sync::{Arc, Mutex};
use std::thread;

use crossbeam_channel::{Receiver, bounded, select};

use crate::mover::save::before::{self, Trees};
use crate::mover::save::file::{ChunkJob, FileJob, FileWorker};
use crate::mover::save::walk::Walk;
use crate::mover::save::{Save, Step};
use crate::repository::codec::Encoder;
use crate::volume::Dir;

/// Files that the walk is ahead of the workers. Each may hold a folder open.
const FILES_AHEAD: usize = 256;

/// Walks the volume and saves all of it; what comes of it is left in `save`.
pub fn run(save: &Save, root: Arc<Dir>) {
    let threads = save.tools.threads.max(1);
    let encoders: Result<Vec<Encoder>, _> = (0..=threads).map(|_| save.tools.writer.encoder()).collect();
    let mut encoders = match encoders {
        Ok(encoders) => encoders,
        Err(error) => return save.fail(error.into()),
    };
    let (files, file_jobs) = bounded::<FileJob>(FILES_AHEAD);
    let (chunks, chunk_jobs) = bounded::<ChunkJob>(1);
    let (decoded, trees) = bounded(before::AHEAD);
    let spare = Mutex::new(Vec::new());
    thread::scope(|scope| {
        if let Some(tree) = save.claim.parent {
            scope.spawn(move || before::ahead(save, tree, &decoded));
        } else {
            drop(decoded);
        }
        for _ in 0..threads {
            let encoder = encoders.pop().expect("one for each thread");
            let worker = FileWorker { save, encoder, chunks: chunks.clone(), spare: &spare };
            let (file_jobs, chunk_jobs) = (file_jobs.clone(), chunk_jobs.clone());
            scope.spawn(move || work(worker, &file_jobs, chunk_jobs));
        }
        drop((file_jobs, chunk_jobs, chunks));
        let encoder = encoders.pop().expect("one for each thread");
        Walk { save, encoder, trees: Trees::new(trees), files }.run(&root);
        save.step(Step::Walked);
    });
}

/// Chunks come first: they hold memory, and files bring more of them.
fn work(mut worker: FileWorker<'_>, files: &Receiver<FileJob>, chunks: Receiver<ChunkJob>) {
    loop {
        if let Ok(job) = chunks.try_recv() {
            worker.chunk(job);
            continue;
        }
        select! {
            recv(chunks) -> job => if let Ok(job) = job { worker.chunk(job) },
            recv(files) -> job => match job {
                Ok(job) => worker.file(job),
                Err(_) => break,
            },
        }
    }
    // No files any more: what other workers still read comes as chunks, until the last of them has let go of its end.
    let (nobody, _) = bounded(0);
    worker.chunks = nobody;
    for job in chunks {
        worker.chunk(job);
    }
}
