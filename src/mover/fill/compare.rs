//! Which chunks of files that are there already are those of the point: read and hashed on all threads, whatever sizes and times say.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::model::content::{Content, Place};
use crate::model::entry::Attrs;
use crate::model::id::Id;
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;
use crate::repository::hash::{Message, Pieces, id_beside, id_of};
use crate::volume::{OldName, OpenFile, VolumeError};

/// Bytes of one file that a thread compares before it takes other work; of a huge file more, so that it has at most so many shares.
const SHARE: u64 = 16 << 20;
const MOST_SHARES: u64 = 1 << 13;
/// Longer chunks are hashed piece by piece.
const LONGEST_WHOLE: u64 = 2 << 20;
const PIECE: usize = 256 << 10;

/// A file of the point whose name the volume has too, as a regular file.
pub struct Candidate {
    pub old: OldName,
    pub attrs: Attrs,
    /// All of them in the index, with `attrs.size` bytes together.
    pub content: Content,
}

/// A file that is not yet what the point has.
pub struct Differing {
    pub file: Candidate,
    /// For each chunk, whether it stands in the old file at its place.
    pub same: Vec<bool>,
}

struct Subject {
    file: Candidate,
    same: Vec<AtomicBool>,
    open: Mutex<Option<Arc<OpenFile>>>,
    /// Shares that are not compared yet.
    left: AtomicUsize,
    kept: AtomicBool,
}

/// Some chunks in a row of one file, the first of them `at` bytes from its start.
struct Share {
    subject: usize,
    from: usize,
    to: usize,
    at: u64,
    /// Where the first of them is in the file's content.
    place: Place,
}

/// Compares all of them; those that are equal get their attributes. Gives the others, in the same order; none of them once the fill is
/// stopping.
pub fn compare(fill: &Fill, files: Vec<Candidate>) -> Vec<Differing> {
    let mut shares = Vec::new();
    let subjects: Vec<Subject> =
        files.into_iter().enumerate().map(|(number, file)| Subject::new(fill, number, file, &mut shares)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut comparer = Comparer::new(fill);
        while let Some(share) = shares.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !fill.stopped()) {
            if let Err(error) = comparer.share(&subjects[share.subject], share) {
                return fill.fail(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..fill.tools.threads.min(shares.len()) {
            scope.spawn(work);
        }
        work();
    });
    if fill.stopped() {
        return Vec::new();
    }
    subjects.into_iter().filter_map(Subject::differing).collect()
}

impl Subject {
    fn new(fill: &Fill, number: usize, file: Candidate, shares: &mut Vec<Share>) -> Subject {
        let first = shares.len();
        let (mut from, mut start, mut at) = (0, 0, 0);
        let length = SHARE.max(file.attrs.size / MOST_SHARES);
        let (mut chunk, mut ids) = (0, file.content.iter());
        let mut place = ids.place();
        loop {
            let here = ids.place();
            let next = ids.next();
            if next.is_none() || at - start >= length {
                shares.push(Share { subject: number, from, to: chunk, at: start, place });
                (from, start, place) = (chunk, at, here);
            }
            let Some(id) = next else { break };
            at += fill.plain_length(id);
            chunk += 1;
        }
        Subject {
            same: (0..chunk).map(|_| AtomicBool::new(false)).collect(),
            file,
            open: Mutex::default(),
            left: AtomicUsize::new(shares.len() - first),
            kept: AtomicBool::new(false),
        }
    }

    /// The old file; `None` if it may not be read: then it is as if every byte differed.
    fn open(&self, fill: &Fill) -> Result<Option<Arc<OpenFile>>, VolumeError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            match fill.target.open_old(&self.file.old) {
                Ok(file) => *open = Some(Arc::new(file)),
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open.clone())
    }

    fn differing(self) -> Option<Differing> {
        let same = self.same.into_iter().map(AtomicBool::into_inner).collect();
        (!self.kept.into_inner()).then_some(Differing { file: self.file, same })
    }
}

/// One thread's buffers.
struct Comparer<'a> {
    fill: &'a Fill<'a>,
    first: Vec<u8>,
    second: Vec<u8>,
}

impl<'a> Comparer<'a> {
    fn new(fill: &'a Fill<'a>) -> Self {
        Comparer { fill, first: Vec::new(), second: Vec::new() }
    }

    fn share(&mut self, subject: &Subject, share: &Share) -> Result<(), MoverError> {
        let fill = self.fill;
        let open = subject.open(fill).map_err(|e| fill.volume(e))?;
        if let Some(open) = &open {
            self.chunks(subject, share, open);
        }
        if subject.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        *subject.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        open.map_or(Ok(()), |open| self.verdict(subject, &open).map_err(|e| fill.volume(e)))
    }

    /// Compares the chunks of a share. What cannot be read differs: it is going to be written anew.
    fn chunks(&mut self, subject: &Subject, share: &Share, open: &OpenFile) {
        let mut at = share.at;
        let mut waiting: Option<(usize, &Id)> = None; // a chunk in the first buffer that is to be hashed beside another
        let mut extent = 0..0;
        for (chunk, id) in (share.from..share.to).zip(subject.file.content.iter_from(share.place)) {
            if self.fill.stopped() {
                return;
            }
            let length = self.fill.plain_length(id);
            let end = at.saturating_add(length);
            let here = at;
            at = end;
            if end > open.stat().size {
                continue;
            }
            if open.stat().may_have_holes() && extent.end <= here {
                // Without an answer the chunk is read like any other.
                extent = open.next_extent(here).map_or(here..end, |found| found.unwrap_or(u64::MAX..u64::MAX));
            }
            if open.stat().may_have_holes() && extent.start >= end {
                subject.same[chunk].store(*id == self.fill.zeros.id(length), Ordering::Relaxed);
            } else if length > LONGEST_WHOLE {
                subject.same[chunk].store(self.piecewise(open, here, length) == Some(*id), Ordering::Relaxed);
            } else {
                let buffer = if waiting.is_none() { &mut self.first } else { &mut self.second };
                buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
                if !open.read_at(here, buffer).is_ok_and(|got| got == buffer.len()) {
                    continue;
                }
                match waiting.take() {
                    None => waiting = Some((chunk, id)),
                    Some((before, id_before)) => {
                        let mut beside = Message::default();
                        let hashed = id_beside(&self.first, &mut beside, &self.second);
                        subject.same[before].store(hashed == *id_before, Ordering::Relaxed);
                        subject.same[chunk].store(beside.finish(&self.second) == *id, Ordering::Relaxed);
                    }
                }
            }
        }
        if let Some((last, id)) = waiting {
            subject.same[last].store(id_of(&self.first) == *id, Ordering::Relaxed);
        }
        if at - share.at >= SHARE {
            open.advise_done(share.at..at);
        }
    }

    fn piecewise(&mut self, open: &OpenFile, mut at: u64, mut length: u64) -> Option<Id> {
        let mut pieces = Pieces::default();
        self.second.resize(PIECE, 0);
        while length > 0 {
            let wanted = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
            let got = open.read_at(at, &mut self.second[..wanted]).ok().filter(|got| *got > 0)?;
            pieces.add(&self.second[..got]);
            at += got as u64;
            length -= got as u64;
        }
        Some(pieces.finish())
    }

    /// All chunks are compared: keeps the file where it is right, at most cut to its length, and may stay.
    fn verdict(&self, subject: &Subject, open: &OpenFile) -> Result<(), VolumeError> {
        let fill = self.fill;
        let Candidate { old, attrs, .. } = &subject.file;
        let stat = open.stat();
        let too_long = stat.size > attrs.size;
        if !subject.same.iter().all(|same| same.load(Ordering::Relaxed)) || (too_long && stat.links > 1) || !fill.may_stay(stat) {
            return Ok(());
        }
        let lacks_room = attrs.allocated && stat.may_have_holes() && stat.links == 1;
        let problems = if too_long || lacks_room {
            let file = fill.target.open_over(old, attrs.size)?;
            if lacks_room {
                match file.allocate(attrs.size) {
                    Err(error) if !error.is_full() => return Err(error),
                    _ => {} // its bytes are right, and that is what counts
                }
            }
            fill.target.finish_over(&file, attrs)?
        } else {
            fill.target.finish_kept(old, open, attrs)?
        };
        fill.problems(problems);
        add(&fill.tools.counters.files, 1);
        add(&fill.tools.counters.bytes, attrs.size);
        subject.kept.store(true, Ordering::Relaxed);
        Ok(())
    }
}
