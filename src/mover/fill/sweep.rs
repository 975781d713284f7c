//! Before a volume that holds data is filled: takes away what the point does not have, so that its room is free for what it has.

use std::sync::Arc;

use crate::model::entry::Kind;
use crate::model::id::Id;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;
use crate::mover::fill::chosen::{Chosen, Scope};
use crate::repository::entries::Entries;
use crate::volume::{Dir, DirStack, FileKind, VolumeError, is_leftover, remove};

/// Folders held open on the way down.
const OPEN: usize = 64;

/// A folder that both the point and the volume have.
struct Shared {
    name: Vec<u8>,
    tree: Option<Id>,
    scope: Scope,
}

/// Removes, where it is wanted, every name that the point does not have, or has as another kind of file. Of what is not wanted it removes
/// only what a fill that was killed has left.
///
/// A folder whose tree is lost keeps what is in it. A `lost+found` folder at the root, which the file system's check wants there, is
/// emptied and stays.
pub fn sweep(fill: &Fill, chosen: &Chosen) -> Result<(), MoverError> {
    let volume = |source: VolumeError| fill.volume(source);
    let root = fill.target.root().clone();
    let mut levels = vec![level(fill, chosen, &root, Some(&fill.claim.tree), &chosen.scope(), 0)?];
    let mut stack = DirStack::new(root, OPEN);
    while let Some(level_now) = levels.last_mut() {
        if fill.stopped() {
            return Ok(());
        }
        match level_now.next() {
            Some(Shared { name, tree, scope }) => {
                let dir = stack.enter_to_change(&name).map_err(volume)?;
                let depth = levels.len();
                levels.push(level(fill, chosen, &dir, tree.as_ref(), &scope, depth)?);
            }
            None => {
                levels.pop();
                if !levels.is_empty() {
                    stack.leave().map_err(volume)?;
                }
            }
        }
    }
    Ok(())
}

/// Sweeps one folder; gives the folders in it to go on with.
fn level(
    fill: &Fill,
    chosen: &Chosen,
    dir: &Arc<Dir>,
    tree: Option<&Id>,
    scope: &Scope,
    depth: usize,
) -> Result<std::vec::IntoIter<Shared>, MoverError> {
    let mut entries = match tree {
        Some(tree) => match fill.tree(tree)? {
            Some(entries) => entries,
            None => return Ok(Vec::new().into_iter()),
        },
        None => Entries::default(),
    };
    let mut next = entries.next();
    let volume = |source: VolumeError| fill.volume(source);
    let mut shared = Vec::new();
    for (name, kind) in dir.names().map_err(volume)?.iter() {
        let kind = if kind == FileKind::Unknown { dir.stat_of(name).map_err(volume)?.kind } else { kind };
        // Both are in the order of names.
        while matches!(&next, Some(Ok(entry)) if entry.name.as_slice() < name) {
            next = entries.next();
        }
        let entry = match &next {
            Some(Ok(entry)) => Some(entry).filter(|entry| entry.name == name),
            None => None,
            Some(Err(_)) => break,
        };
        let goes = match entry.map(|entry| (entry, chosen.below(scope, depth, name))) {
            Some((entry, Some(scope))) => {
                if let (Kind::Dir { subtree }, FileKind::Dir) = (&entry.kind, kind) {
                    shared.push(Shared { name: name.to_vec(), tree: *subtree, scope });
                }
                kind != FileKind::from(&entry.kind)
            }
            Some((_, None)) => false,
            None if depth == 0 && scope.is_none() && name == b"lost+found" && kind == FileKind::Dir => {
                shared.push(Shared { name: name.to_vec(), tree: None, scope: None });
                false
            }
            None => scope.is_none() || (is_leftover(name) && kind == FileKind::File),
        };
        if goes {
            remove(dir, name).map_err(volume)?;
        }
    }
    if let Some(Err(error)) = next {
        fill.passed_over(error)?;
    }
    Ok(shared.into_iter())
}
