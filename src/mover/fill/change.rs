//! What is done about files that differ: a new one beside the old that takes its place when it is whole, with what has not changed copied;
//! or, where there is no room for both, the old one written over in place.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::model::content::Content;
use crate::model::id::Id;
use crate::mover::counters::add;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;
use crate::mover::fill::compare::{Candidate, Differing};
use crate::mover::fill::plan::{Planner, SmallFile};
use crate::mover::fill::write::{LargeFile, Purpose, Spot};
use crate::volume::{OldName, OpenFile, TargetFile, VolumeError};

/// Bytes that one thread copies before it takes other work.
const PIECE: u64 = 64 << 20;
/// The part of a file system that is left free, lest what is on its way finds no room; and the most that this may be.
const RESERVE_PART: u64 = 64;
const RESERVE: u64 = 1 << 30;

impl Planner<'_> {
    /// Brings what has to be written of a file on its way.
    pub fn change(&mut self, differing: Differing) -> Result<(), MoverError> {
        let fill = self.fill;
        match differing.file.content.only() {
            _ if differing.file.content.is_empty() => {
                let Candidate { old, attrs, .. } = differing.file;
                let problems = fill.target.replace_file(&old, &attrs, std::iter::empty::<&[u8]>()).map_err(|e| fill.volume(e))?;
                fill.problems(problems);
                add(&fill.tools.counters.files, 1);
                Ok(())
            }
            Some(id) => {
                let Candidate { old, attrs, .. } = differing.file;
                self.small(id, SmallFile { spot: Spot::Taken(old), attrs })
            }
            _ => self.change_large(differing),
        }
    }

    fn change_large(&mut self, differing: Differing) -> Result<(), MoverError> {
        let fill = self.fill;
        let volume = |e| fill.volume(e);
        let Differing { file: Candidate { old, attrs, content }, same } = differing;
        let mut beside = None;
        let mut is_dense = false;
        let needs = if attrs.allocated { attrs.size } else { fill.without_zeros(&content) };
        if fill.has_room_for(needs)? {
            let (name, file) = fill.target.create_beside(&old, attrs.size).map_err(volume)?;
            let allocated = if attrs.allocated { file.allocate(attrs.size) } else { Ok(true) };
            match allocated.and_then(|allocated| fill.copy_same(&old, &content, &same, &file).map(|()| allocated)) {
                Ok(allocated) => {
                    is_dense = !allocated;
                    beside = Some((name, file));
                }
                Err(error) if error.is_full() => {
                    drop(file);
                    fill.target.discard_file(old.dir(), &name).map_err(volume)?;
                }
                Err(error) => return Err(volume(error)),
            }
        }
        let links = fill.target.stat_old(&old).map_err(volume)?.links;
        let (beside, open) = match beside {
            Some((name, file)) => (Some(name), file),
            None if links == 1 => {
                let file = fill.target.open_over(&old, attrs.size).map_err(volume)?;
                is_dense = attrs.allocated && !file.allocate(attrs.size).map_err(volume)?;
                (None, file)
            }
            None => {
                // Its other names are not to change with it.
                fill.target.remove_old(&old).map_err(volume)?;
                return self.make(old.dir(), old.name().into(), attrs, content);
            }
        };
        let chunks = content.iter().zip(&same);
        add(&fill.tools.counters.bytes, chunks.clone().filter(|(_, same)| **same).map(|(id, _)| fill.plain_length(id)).sum());
        // A file beside the old one is all hole, or has got its room: zeros are there.
        let is_beside = beside.is_some() && !is_dense;
        let is_there = |id: &Id| is_beside && fill.is_zeros(id);
        let remaining = chunks.clone().filter(|(id, same)| !**same && !is_there(id)).count();
        add(&fill.tools.counters.bytes, chunks.filter(|(id, same)| !**same && is_there(id)).map(|(id, _)| fill.plain_length(id)).sum());
        let number = self.next_large();
        let file = Arc::new(LargeFile {
            number,
            spot: Spot::Taken(old),
            beside,
            attrs,
            is_dense,
            remaining: AtomicUsize::new(remaining),
            lost: AtomicBool::new(false),
        });
        fill.open.insert(number, Arc::new(open));
        if remaining == 0 {
            return file.finish(fill).map_err(volume);
        }
        let mut at = 0;
        for (id, same) in content.iter().zip(same) {
            if !same && !is_there(id) {
                self.push(*id, Purpose::Large(Arc::clone(&file), at))?;
            }
            at += fill.plain_length(id);
        }
        Ok(())
    }
}

impl Fill<'_> {
    /// Whether so many bytes find room besides those that are on their way already.
    fn has_room_for(&self, bytes: u64) -> Result<bool, MoverError> {
        let room = self.target.room().map_err(|e| self.volume(e))?;
        let reserve = (room.total_bytes / RESERVE_PART).min(RESERVE);
        let taken = self.promised.load(Ordering::Relaxed).saturating_add(reserve);
        Ok(room.free_bytes.saturating_sub(taken) >= bytes)
    }

    /// Bytes of the chunks that are not all zeros: no more room than that is needed.
    fn without_zeros(&self, content: &Content) -> u64 {
        let data = content.runs().iter().filter(|run| !self.is_zeros(&run.id));
        data.map(|run| self.plain_length(&run.id).saturating_mul(run.count.into())).fold(0, u64::saturating_add)
    }

    /// Copies the chunks that have not changed, on all threads.
    fn copy_same(&self, old: &OldName, content: &Content, same: &[bool], to: &TargetFile) -> Result<(), VolumeError> {
        if !same.contains(&true) {
            return Ok(());
        }
        let from = self.target.open_old(old)?;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        for (id, same) in content.iter().zip(same) {
            let end = at + self.plain_length(id);
            // The new file is all hole: zeros are there.
            if *same && !self.is_zeros(id) {
                match ranges.last_mut().filter(|last| last.end == at && last.end - last.start < PIECE) {
                    Some(last) => last.end = end,
                    None => ranges.push(at..end),
                }
            }
            at = end;
        }
        self.copy(&from, to, &ranges)
    }

    fn copy(&self, from: &OpenFile, to: &TargetFile, ranges: &[Range<u64>]) -> Result<(), VolumeError> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !self.stopped() && failed().is_none()) {
                if let Err(error) = to.copy_from(from, range.clone()) {
                    failed().get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.tools.threads.min(ranges.len()) {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
