//! What the repository cannot give any more, where that may be passed over: listed, never half there.

use crate::model::entry::Attrs;
use crate::model::id::Id;
use crate::model::mover_job::{Problem, ProblemKind};
use crate::model::path_text::path_text;
use crate::mover::error::MoverError;
use crate::mover::fill::Fill;
use crate::repository::entries::Entries;
use crate::repository::error::RepositoryError;
use crate::volume::{DirId, VolumeError};

impl Fill<'_> {
    /// The entries of a tree; `None` where it is lost and that may be passed over.
    pub fn tree(&self, id: &Id) -> Result<Option<Entries>, MoverError> {
        match self.tools.runtime.block_on(self.tools.reader.entries(id)) {
            Ok(entries) => Ok(Some(entries)),
            Err(error) => self.passed_over(error).map(|_| None),
        }
    }

    /// The reason, if the error is damage that may be passed over; else the error.
    pub fn passed_over(&self, error: RepositoryError) -> Result<String, MoverError> {
        if self.claim.skip_damaged && error.is_damage() { Ok(error.reason()) } else { Err(error.into()) }
    }

    /// Lists a folder whose tree is lost: what was in it is not known.
    pub fn lose_folder(&self, dir: DirId, reason: &str) -> Result<(), VolumeError> {
        let path = path_text(&self.target.dir(dir)?.path_of(b""));
        self.problems(vec![Problem { path, kind: ProblemKind::Lost, reason: format!("what is in this folder: {reason}") }]);
        Ok(())
    }

    /// Lists a file that is lost, and remembers it for its further names.
    pub fn lose_file(&self, dir: DirId, name: &[u8], attrs: &Attrs, reason: String) -> Result<(), VolumeError> {
        if attrs.links > 1 {
            self.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert((dir, name.into()));
        }
        let path = path_text(&self.target.dir(dir)?.path_of(name));
        self.problems(vec![Problem { path, kind: ProblemKind::Lost, reason }]);
        Ok(())
    }

    /// Whether the file with this name, one of several, is lost.
    pub fn is_lost(&self, dir: DirId, name: &[u8]) -> bool {
        let lost = self.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        !lost.is_empty() && lost.contains(&(dir, name.into()))
    }
}
