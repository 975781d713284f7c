//! The end of a walk: what moved while the volume was read, and so may be in the point under no name or not as it was in one place.
//!
//! Runs only where the walk met a trace of a move. Goes through all folders by name, and looks into those that changed since the walk began
//! or that it has not met.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::exclude::Reach;
use crate::model::mover_job::ProblemKind;
use crate::model::path_text::path_text;
use crate::mover::save::Save;
use crate::mover::save::seen::Fate;
use crate::volume::{Dir, DirStack, FileKind, VolumeError};

/// Folders held open on the way down.
const MAX_OPEN: usize = 128;

/// Lists what escaped the walk.
pub fn look(save: &Save, root: &Arc<Dir>) {
    if !save.seen.has_moved() || save.stopped() {
        return;
    }
    save.seen.sort();
    let told = save.paths_of_problems();
    let look = Look { save, told };
    let mut stack = DirStack::new(Arc::clone(root), MAX_OPEN);
    let mut levels = vec![look.folder(root, save.exclude.root())];
    while let Some(level) = levels.last_mut() {
        if save.stopped() {
            return;
        }
        let Some((name, reach)) = level.next() else {
            levels.pop();
            // A folder on the way that is moved even now is listed as gone from its place.
            if !levels.is_empty() && stack.leave().is_err() {
                levels.pop();
                if levels.is_empty() || stack.leave().is_err() {
                    break;
                }
            }
            continue;
        };
        let Some(parent) = stack.current().cloned() else { break };
        match stack.enter(&name) {
            Ok(dir) if parent.is_mount_point(dir.stat()) => {
                if stack.leave().is_err() {
                    break;
                }
            }
            Ok(dir) => levels.push(look.folder(&dir, reach)),
            Err(error) => look.failed(&parent, &name, &error),
        }
    }
    for path in save.seen.gone() {
        look.tell(
            &path,
            ProblemKind::Moved,
            "the folder was moved or removed while the volume was read: what is in it may be of other moments",
        );
    }
}

struct Look<'a> {
    save: &'a Save<'a>,
    told: HashSet<String>,
}

impl Look<'_> {
    fn tell(&self, path: &[u8], kind: ProblemKind, reason: &str) {
        if !self.told.contains(&path_text(path)) {
            self.save.problem(path, kind, reason.to_owned());
        }
    }

    fn tell_fate(&self, path: &[u8], fate: Fate) {
        match fate {
            Fate::Saved | Fate::New => {}
            Fate::Escaped => {
                let reason = "it came here from where it was not read yet, and the point has it under no name";
                self.tell(path, ProblemKind::Unreadable, reason);
            }
            Fate::Replaced => {
                self.tell(path, ProblemKind::Moved, "another file took this name while the volume was read: the point has the one before");
            }
            Fate::Doubtful => self.tell(path, ProblemKind::Moved, "it came here while the volume was read, and the point may not have it"),
        }
    }

    fn failed(&self, dir: &Dir, name: &[u8], error: &VolumeError) {
        if !error.is_vanished() {
            self.tell(&dir.path_of(name), ProblemKind::Unreadable, &error.reason());
        }
    }

    /// Looks at what is in a folder, but for what is excluded; gives the folders in it to go on with, and what may be excluded in them.
    fn folder(&self, dir: &Arc<Dir>, reach: Reach) -> std::vec::IntoIter<(Vec<u8>, Reach)> {
        let exclude = &self.save.exclude;
        let seen = &self.save.seen;
        let (own, path) = (dir.stat().inode, dir.path_of(b""));
        let born = dir.origin_of(b"").ok().and_then(|origin| origin.born);
        let fate = seen.fate_of_folder(own, born, &path);
        if !matches!(fate, Fate::Saved | Fate::New) {
            self.tell_fate(&path, fate);
            return Vec::new().into_iter();
        }
        let names = match dir.names() {
            Ok(names) => names,
            Err(error) => {
                self.failed(dir, b"", &error);
                return Vec::new().into_iter();
            }
        };
        let looks = fate == Fate::New || seen.may_have_changed(dir.stat());
        let mut folders = Vec::new();
        for (name, kind, inode) in names.with_inodes().filter(|(name, _, _)| !exclude.has(&reach, name)) {
            let kind = if kind == FileKind::Unknown { dir.stat_of(name).map_or(kind, |stat| stat.kind) } else { kind };
            if kind == FileKind::Dir {
                folders.push((name.to_vec(), exclude.below(&reach, name)));
            } else if looks {
                match seen.fate(own, (name, inode), || dir.origin_of(name)) {
                    Ok(fate) => self.tell_fate(&dir.path_of(name), fate),
                    Err(error) => self.failed(dir, name, &error),
                }
            }
        }
        folders.into_iter()
    }
}
