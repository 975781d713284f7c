//! Which blobs do some snapshots need? Every tree below them is read once, and one bit for each row of the index remembers where the walk
//! has been: a repository of a hundred million blobs takes 12 MB.

use futures::StreamExt;

use crate::model::entry::Kind;
use crate::model::id::Id;
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::pack::BlobKind;
use crate::repository::reader::Reader;

/// Trees read at the same time.
const IN_FLIGHT: usize = 4;
/// Trees that are sorted by their place before they are read: neighbours come with one request.
const BATCH: usize = 1024;

/// Chunks of one tree that are gathered before those that it names twice are put together.
const MANY: usize = 1 << 20;

/// Blobs of one index, by the number of their first row there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(Vec<u64>);

impl Rows {
    /// None of the index's rows.
    pub fn none(index: &Index) -> Self {
        Rows(vec![0; index.row_count().div_ceil(64) as usize])
    }

    pub fn has(&self, row: u32) -> bool {
        self.0[(row / 64) as usize] & (1 << (row % 64)) != 0
    }

    /// False where it was among them already.
    pub fn insert(&mut self, row: u32) -> bool {
        let word = &mut self.0[(row / 64) as usize];
        let is_new = *word & (1 << (row % 64)) == 0;
        *word |= 1 << (row % 64);
        is_new
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let rows = u32::try_from(self.0.len() * 64).unwrap_or(u32::MAX);
        (0..rows).filter(|row| self.has(*row))
    }

    /// The same blobs by the rows of another index; what that one does not know is left out.
    pub fn carried(&self, from: &Index, to: &Index) -> Self {
        let mut carried = Rows::none(to);
        for row in self.iter() {
            let (id, kind, _) = from.row(row);
            if let Some(row) = to.first_row(kind, &id) {
                carried.insert(row);
            }
        }
        carried
    }

    /// Adds the trees `roots` and everything below them. What was there before counts as followed already. A tree that cannot be read and a
    /// blob that is in no index are errors: whoever removes what is not here must not go by half of it.
    pub async fn follow(&mut self, reader: &Reader, roots: impl IntoIterator<Item = Id>) -> Result<(), RepositoryError> {
        let index = reader.index();
        let mut todo = Vec::new();
        for root in roots {
            let row = row_of(index, BlobKind::Tree, &root)?;
            if self.insert(row) {
                todo.push(row);
            }
        }
        while !todo.is_empty() {
            // From the end: so the list stays about as short as the trees are deep, not as they are many.
            let mut batch = todo.split_off(todo.len().saturating_sub(BATCH));
            batch.sort_unstable_by_key(|row| {
                let (_, _, place) = index.row(*row);
                (place.pack, place.offset)
            });
            // Tasks of their own: opening and parsing keep all cores busy.
            let mut read = futures::stream::iter(batch)
                .map(|row| {
                    let reader = reader.clone();
                    tokio::spawn(async move { named_by(&reader, row).await })
                })
                .buffered(IN_FLIGHT);
            while let Some(named) = read.next().await {
                let (chunks, trees) = named.map_err(|_| RepositoryError::Stopped)??;
                for row in chunks {
                    self.insert(row);
                }
                todo.extend(trees.into_iter().filter(|row| self.insert(*row)));
            }
        }
        Ok(())
    }
}

/// The chunks and the trees that one tree names.
async fn named_by(reader: &Reader, row: u32) -> Result<(Vec<u32>, Vec<u32>), RepositoryError> {
    let index = reader.index();
    let (id, _, _) = index.row(row);
    let (mut chunks, mut trees, mut most) = (Vec::new(), Vec::new(), MANY);
    for entry in reader.entries(&id).await? {
        let entry = entry?;
        match entry.kind {
            Kind::File { content } => {
                for run in content.runs() {
                    // A tree can name the same few chunks again and again.
                    if chunks.len() == most {
                        chunks.sort_unstable();
                        chunks.dedup();
                        most = MANY.max(2 * chunks.len());
                    }
                    chunks.push(row_of(index, BlobKind::Data, &run.id)?);
                }
            }
            Kind::Dir { subtree: Some(subtree) } => trees.push(row_of(index, BlobKind::Tree, &subtree)?),
            Kind::Dir { subtree: None } => {
                let name = String::from_utf8_lossy(&entry.name).escape_debug().to_string();
                return Err(RepositoryError::damaged(format!("tree {id}"), format!("the folder `{name}` in it has no tree")));
            }
            Kind::Symlink { .. } | Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {}
        }
    }
    Ok((chunks, trees))
}

fn row_of(index: &Index, kind: BlobKind, id: &Id) -> Result<u32, RepositoryError> {
    index.first_row(kind, id).ok_or(RepositoryError::Missing { kind: kind.name(), id: *id })
}
