//! Does every point hold what it claims to hold? Asked of points that pass for whole ones.

use std::sync::Arc;

use futures::StreamExt;

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::check::report::Findings;
use crate::repository::check::{IN_FLIGHT, reason};
use crate::repository::error::RepositoryError;
use crate::repository::index::Index;
use crate::repository::points;
use crate::repository::reader::Reader;
use crate::repository::snapshot;
use crate::repository::snapshot::Snapshot;

/// Compares manifests with what is there. A point that is marked as partial or as a safety point keeps its word by being less, and
/// snapshots of other programs promise nothing.
pub(super) async fn check(
    repository: &Repository,
    index: &Arc<Index>,
    snapshots: Vec<(Id, Snapshot)>,
    findings: &mut Findings,
) -> Result<(), RepositoryError> {
    let reader = Reader::new(repository, Arc::clone(index));
    let whole = |snapshot: &Snapshot| !snapshot.hostname.ends_with(".partial") && !snapshot.hostname.ends_with(".safety");
    let asked = snapshots.into_iter().filter(|(_, snapshot)| whole(snapshot));
    let judge = |(id, snapshot)| {
        let reader = &reader;
        async move { (id, points::judge(reader, id, snapshot).await) }
    };
    let mut judged = futures::stream::iter(asked).map(judge).buffered(IN_FLIGHT);
    while let Some((id, judgement)) = judged.next().await {
        let what = match judgement {
            Ok(Ok(point)) if point.defects.is_empty() => continue,
            Ok(Ok(point)) => format!("it passes for a complete point, but {}", point.defects.join("; ")),
            Ok(Err(foreign)) => match foreign.reason {
                Some(reason) => format!("it looks like a point, but cannot be restored as one: {reason}"),
                None => continue,
            },
            // What cannot be read was found before, with all that it touches.
            Err(error) => {
                reason(error)?;
                continue;
            }
        };
        let marks = findings.damage(format!("{}/{id}", snapshot::FOLDER), what);
        findings.touch(id, marks);
    }
    Ok(())
}
