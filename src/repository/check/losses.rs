//! What is lost below a tree: counted by the forest, and the first of it by name.

use crate::model::entry::Kind;
use crate::model::id::Id;
use crate::model::path_text::path_text;
use crate::repository::check::layout::Bad;
use crate::repository::check::report::Lost;
use crate::repository::check::trees::Forest;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;
use crate::repository::pack::BlobKind;
use crate::repository::reader::Reader;

/// Paths that are named of each claim.
const NAMED: usize = 10;
/// Trees read for names in one check; once they are used up, losses are only counted.
const READS: usize = 20_000;

/// Looks for what is lost, in the order of the trees and only where the forest knows of losses.
pub(super) struct Losses<'a> {
    reader: &'a Reader,
    bad: &'a Bad,
    forest: &'a Forest,
    reads: usize,
}

impl<'a> Losses<'a> {
    pub(super) fn new(reader: &'a Reader, bad: &'a Bad, forest: &'a Forest) -> Self {
        Losses { reader, bad, forest, reads: READS }
    }

    /// What is lost below this tree, which may itself be lost.
    pub(super) async fn below(&mut self, root: &Id) -> Result<Lost, RepositoryError> {
        let (files, folders) = self.forest.lost(self.reader.index(), root);
        let mut lost = Lost { files, folders, paths: Vec::new() };
        if !lost.is_nothing() {
            self.name(root, &mut lost.paths).await?;
        }
        Ok(lost)
    }

    async fn name(&mut self, root: &Id, paths: &mut Vec<String>) -> Result<(), RepositoryError> {
        let mut path = String::new();
        let mut waiting = match self.entries(root).await? {
            Some(entries) => vec![(0, entries)],
            None => {
                paths.push("/".to_owned());
                return Ok(());
            }
        };
        while let Some((length, entries)) = waiting.last_mut() {
            if paths.len() >= NAMED || self.reads == 0 {
                return Ok(());
            }
            path.truncate(*length);
            let Some(Ok(entry)) = entries.next() else {
                waiting.pop();
                continue;
            };
            path.push_str(&path_text(&entry.name));
            match entry.kind {
                Kind::File { content } => {
                    let good = |id: &Id| self.bad.of(self.reader.index(), BlobKind::Data, id) == Some(0);
                    if !content.runs().iter().all(|run| good(&run.id)) {
                        paths.push(path.clone());
                    }
                }
                Kind::Dir { subtree } => {
                    path.push('/');
                    let lost = subtree.map(|tree| self.forest.lost(self.reader.index(), &tree));
                    if lost == Some((0, 0)) {
                        continue;
                    }
                    let entries = match subtree {
                        Some(tree) => self.entries(&tree).await?,
                        None => None,
                    };
                    match entries {
                        Some(entries) => waiting.push((path.len(), entries)),
                        None => paths.push(path.clone()),
                    }
                }
                Kind::Symlink { .. } | Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {}
            }
        }
        Ok(())
    }

    /// The entries of a tree; `None` where it cannot be had.
    async fn entries(&mut self, tree: &Id) -> Result<Option<Entries>, RepositoryError> {
        if !self.forest.has(self.reader.index(), tree) {
            return Ok(None);
        }
        self.reads = self.reads.saturating_sub(1);
        match self.reader.entries(tree).await {
            Ok(entries) => Ok(Some(entries)),
            Err(RepositoryError::Damaged { .. } | RepositoryError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
