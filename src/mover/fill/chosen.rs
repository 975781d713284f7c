//! Which paths of the point are wanted.

use crate::model::entry::Kind;
use crate::model::path_text::path_parts;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;

/// The paths that were asked for, each as its parts; none for all.
pub struct Chosen {
    paths: Vec<Vec<Vec<u8>>>,
}

/// What is wanted in one folder: all (`None`), or what these paths, by number, lead to.
pub type Scope = Option<Vec<usize>>;

impl Chosen {
    /// Of paths below the volume's root, written as [`path_parts`] reads them; one that names the root is all.
    pub fn new(paths: &[String]) -> Self {
        let mut paths: Vec<Vec<Vec<u8>>> = paths.iter().map(|path| path_parts(path)).collect();
        if paths.iter().any(Vec::is_empty) {
            paths.clear();
        }
        Chosen { paths }
    }

    /// What is wanted in the volume's root.
    pub fn scope(&self) -> Scope {
        (!self.paths.is_empty()).then(|| (0..self.paths.len()).collect())
    }

    /// What is wanted below `name` in a folder with this scope, `depth` levels below the root; `None`: not even itself.
    pub fn below(&self, scope: &Scope, depth: usize, name: &[u8]) -> Option<Scope> {
        let Some(paths) = scope else { return Some(None) };
        let on = self.on(paths, depth, name);
        let reached = on.iter().any(|path| self.paths[*path].len() == depth + 1);
        match (on.is_empty(), reached) {
            (true, _) => None,
            (false, true) => Some(None),
            (false, false) => Some(Some(on)),
        }
    }

    /// Which of `paths` lead on through `name` at this depth.
    fn on(&self, paths: &[usize], depth: usize, name: &[u8]) -> Vec<usize> {
        paths.iter().copied().filter(|path| self.paths[*path].get(depth).is_some_and(|part| part == name)).collect()
    }

    /// Makes sure that the point has every path, before anything is touched. What is below a folder that is lost counts as there.
    pub fn prove(&self, fill: &Fill) -> Result<(), MoverError> {
        let mut found = vec![self.paths.is_empty(); self.paths.len()];
        let mut todo = vec![(fill.claim.tree, (0..self.paths.len()).collect::<Vec<_>>(), 0)];
        while let Some((tree, paths, depth)) = todo.pop() {
            if paths.is_empty() {
                continue;
            }
            let Some(entries) = fill.tree(&tree)? else {
                paths.iter().for_each(|path| found[*path] = true);
                continue;
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        fill.passed_over(error)?;
                        paths.iter().for_each(|path| found[*path] = true);
                        break;
                    }
                };
                let (here, on): (Vec<_>, Vec<_>) =
                    self.on(&paths, depth, &entry.name).into_iter().partition(|path| self.paths[*path].len() == depth + 1);
                here.iter().for_each(|path| found[*path] = true);
                if let Kind::Dir { subtree: Some(tree) } = entry.kind {
                    todo.push((tree, on, depth + 1));
                }
            }
        }
        match found.iter().position(|found| !found) {
            None => Ok(()),
            Some(path) => Err(MoverError::NoSuchPath { claim: fill.claim.name.clone(), path: fill.claim.paths[path].clone() }),
        }
    }
}
