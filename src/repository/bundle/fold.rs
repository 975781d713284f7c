//! Puts copies of what is still read one by one into bundles.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::model::id::Id;
use crate::repository::Repository;
use crate::repository::bundle::{FOLDER, FULL, LOOSE, SMALL, bundles, encode, open};
use crate::repository::codec::id_of;
use crate::repository::error::RepositoryError;
use crate::store::ErrorKind;

const IN_FLIGHT: usize = 16;

/// Makes bundles of the small objects of `folder` that are in none, unless they are too few to be worth it. Bundles that are not full, or
/// hold mostly what is gone, are merged into the new ones. May be done by several at the same time: what is then bundled twice is bundled
/// once by the next.
pub async fn fold(repository: &Repository, folder: &str) -> Result<(), RepositoryError> {
    let small = repository.listed(folder).await?.into_iter().filter(|object| object.size <= SMALL);
    let mut loose: BTreeSet<Id> = small.map(|object| object.id).collect();
    let mut merged = Vec::new();
    let mut copies = Vec::new();
    for bundle in bundles(repository, folder).await? {
        let objects = match open(repository, &bundle.key).await {
            Ok(objects) => objects,
            Err(RepositoryError::Damaged { .. }) => Vec::new(),
            Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let live: Vec<Bytes> = objects.into_iter().filter(|(id, _)| loose.remove(id)).map(|(_, sealed)| sealed).collect();
        if live.iter().map(Bytes::len).sum::<usize>() < FULL / 2 {
            merged.push(bundle.key);
            copies.extend(live);
        }
    }
    if loose.len() < LOOSE {
        return Ok(());
    }
    let originals = futures::stream::iter(loose).map(|id| original(repository, folder, id)).buffer_unordered(IN_FLIGHT);
    let originals = originals.try_filter_map(async |original| Ok(original));
    let mut all = futures::stream::iter(copies.into_iter().map(Ok)).chain(originals).boxed();
    let mut bundle = Vec::new();
    let mut bytes = 0;
    while let Some(object) = all.try_next().await? {
        bytes += object.len();
        bundle.push(object);
        if bytes >= FULL {
            put(repository, folder, &std::mem::take(&mut bundle)).await?;
            bytes = 0;
        }
    }
    if !bundle.is_empty() {
        put(repository, folder, &bundle).await?;
    }
    Ok(repository.store().delete(&merged).await?)
}

/// The object as it is stored; `None` where it has gone, or is not what its name says.
async fn original(repository: &Repository, folder: &str, id: Id) -> Result<Option<Bytes>, RepositoryError> {
    match repository.store().get_within(&format!("{folder}/{id}"), SMALL).await {
        Ok(sealed) => Ok((id_of(&sealed) == id).then_some(sealed)),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::TooLong) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn put(repository: &Repository, folder: &str, objects: &[Bytes]) -> Result<(), RepositoryError> {
    repository.put_side_named(&format!("{FOLDER}/{folder}."), &encode(objects)).await.map(|_| ())
}
