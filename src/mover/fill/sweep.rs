//! Before a volume that holds data is filled: takes away what the point does not have, so that its room is free for what it has.

use std::sync::Arc;

use crate::model::entry::Kind;
use crate::model::exclude::Reach;
use crate::model::id::Id;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;
use crate::mover::fill::chosen::{Chosen, Scope};
use crate::repository::entries::Entries;
use crate::volume::{Dir, DirStack, FileKind, VolumeError, is_leftover, remove, remove_emptied};

/// Folders held open on the way down.
const OPEN: usize = 64;

/// A folder to go on with: one that both the point and the volume have, or one that goes but for what is excluded in it.
struct Shared {
    name: Vec<u8>,
    tree: Option<Id>,
    scope: Scope,
    reach: Reach,
    after: After,
}

/// What becomes of a folder once it is swept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Stays,
    /// It goes, unless something excluded is left in it.
    Goes,
    /// The point has something else in its place.
    MustGo,
}

/// Removes, where it is wanted, every name that the point does not have, or has as another kind of file. Of what is not wanted it removes
/// only what a fill that was killed has left. What the point excludes stays, and so do the folders that it is in.
///
/// A folder whose tree is lost keeps what is in it. A `lost+found` folder at the root, which the file system's check wants there, is
/// emptied and stays.
pub fn sweep(fill: &Fill, chosen: &Chosen) -> Result<(), MoverError> {
    let volume = |source: VolumeError| fill.volume(source);
    let root = fill.target.root().clone();
    let first = level(fill, chosen, &root, (Some(&fill.claim.tree), &chosen.scope(), &fill.exclude.root()), 0)?;
    let mut levels = vec![(first, Vec::new(), After::Stays)];
    let mut stack = DirStack::new(root, OPEN);
    while let Some((level_now, ..)) = levels.last_mut() {
        if fill.stopped() {
            return Ok(());
        }
        match level_now.next() {
            Some(Shared { name, tree, scope, reach, after }) => {
                let dir = stack.enter_to_change(&name).map_err(volume)?;
                let depth = levels.len();
                let next = level(fill, chosen, &dir, (tree.as_ref(), &scope, &reach), depth)?;
                levels.push((next, name, after));
            }
            None => {
                let Some((_, name, after)) = levels.pop() else { break };
                if !levels.is_empty() {
                    let parent = stack.leave().map_err(volume)?;
                    if after != After::Stays {
                        remove_emptied(&parent, &name, after == After::MustGo).map_err(volume)?;
                    }
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
    (tree, scope, reach): (Option<&Id>, &Scope, &Reach),
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
                    let reach = fill.exclude.below(reach, name);
                    shared.push(Shared { name: name.to_vec(), tree: *subtree, scope, reach, after: After::Stays });
                }
                kind != FileKind::from(&entry.kind)
            }
            Some((_, None)) => false,
            None if fill.exclude.has(reach, name) => false,
            None if depth == 0 && scope.is_none() && name == b"lost+found" && kind == FileKind::Dir => {
                let reach = fill.exclude.below(reach, name);
                shared.push(Shared { name: name.to_vec(), tree: None, scope: None, reach, after: After::Stays });
                false
            }
            None => scope.is_none() || (is_leftover(name) && kind == FileKind::File),
        };
        if !goes {
            continue;
        }
        let below = if kind == FileKind::Dir { fill.exclude.below(reach, name) } else { Reach::default() };
        if below.is_empty() {
            remove(dir, name).map_err(volume)?;
        } else {
            let after = if entry.is_some() { After::MustGo } else { After::Goes };
            shared.push(Shared { name: name.to_vec(), tree: None, scope: None, reach: below, after });
        }
    }
    if let Some(Err(error)) = next {
        fill.passed_over(error)?;
    }
    Ok(shared.into_iter())
}
