//! Whether bundles save requests, and whether they can do any harm.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::repository::index::{self, Index};
use crate::repository::key::{KeyOrigin, Password};
use crate::repository::pack::{BlobKind, PackEntry};
use crate::repository::snapshot::{self, Snapshot};
use crate::store::Patience;
use crate::store::fault::{Faulty, Kind};

/// A repository in memory with this many index objects and snapshots, and the record of what is asked of it.
async fn of_many(objects: u32) -> (Repository, Faulty) {
    let faulty = Faulty::memory(|_, _| None);
    let repository = Repository::init(faulty.store(Patience::local()), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
    for n in 0..objects {
        add(&repository, n).await;
    }
    (repository, faulty)
}

async fn add(repository: &Repository, n: u32) {
    let id = id_of(&n.to_le_bytes());
    let entry = PackEntry { id, kind: BlobKind::Data, offset: 0, length: 100, plain_length: None };
    repository.put_sealed(index::FOLDER, &index::encode(&[(id, vec![entry])])).await.unwrap();
    let snapshot = Snapshot { time: "2026-01-02T03:04:05Z".into(), hostname: format!("h{n}"), ..Snapshot::default() };
    snapshot::save(repository, &snapshot).await.unwrap();
}

async fn fold_both(repository: &Repository) {
    fold(repository, index::FOLDER).await.unwrap();
    fold(repository, snapshot::FOLDER).await.unwrap();
}

/// Gets that it takes to know all packs and snapshots of a repository, and how many of both it then knows.
async fn gets(repository: &Repository, faulty: &Faulty) -> (usize, usize, usize) {
    faulty.obey(|_, _| None);
    let (index, damaged) = Index::load_readable(repository).await.unwrap();
    let (snapshots, spoilt) = snapshot::list_readable(repository).await.unwrap();
    assert_eq!((damaged.len(), spoilt.len()), (0, 0));
    (faulty.count(Kind::Get), index.packs().len(), snapshots.len())
}

fn sorted<T: Ord>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort();
    values
}

#[tokio::test]
async fn a_thousand_small_objects_are_read_with_one_request_once_they_are_bundled() {
    let (repository, faulty) = of_many(1000).await;
    assert_eq!(gets(&repository, &faulty).await, (2000, 1000, 1000));
    fold_both(&repository).await;
    assert_eq!(gets(&repository, &faulty).await, (2, 1000, 1000));
    let copied = Index::load_readable(&repository).await.unwrap().0;
    let original = Index::load(&repository).await.unwrap();
    assert_eq!(
        sorted(copied.rows().map(|(id, _, place)| (id, place.pack))),
        sorted(original.rows().map(|(id, _, place)| (id, place.pack)))
    );
    assert_eq!((copied.loose(), original.loose()), (0, 1000));
}

#[tokio::test]
async fn what_came_after_a_bundle_is_read_by_itself_and_what_went_does_not_come_back() {
    let (repository, faulty) = of_many(100).await;
    fold_both(&repository).await;
    for n in 100..110 {
        add(&repository, n).await;
    }
    for folder in [index::FOLDER, snapshot::FOLDER] {
        let gone = repository.ids(folder).await.unwrap().into_iter().take(5).map(|id| format!("{folder}/{id}"));
        repository.store().delete(&gone.collect::<Vec<_>>()).await.unwrap();
    }
    let (gets, packs, snapshots) = gets(&repository, &faulty).await;
    assert_eq!((packs, snapshots), (105, 105));
    assert!(gets <= 22, "{gets}");
}

#[tokio::test]
async fn few_objects_are_not_bundled_and_nobody_looks_for_bundles_of_few() {
    let (repository, faulty) = of_many(u32::try_from(LOOSE).unwrap() - 1).await;
    fold_both(&repository).await;
    faulty.obey(|_, _| None);
    Index::load_readable(&repository).await.unwrap();
    assert!(faulty.calls().iter().all(|call| !call.key.starts_with(FOLDER)), "{:?}", faulty.calls());
    assert_eq!(repository.store().list(FOLDER).await.unwrap(), []);
}

#[tokio::test]
async fn a_bundle_that_is_damaged_costs_requests_and_nothing_else_and_the_next_fold_replaces_it() {
    let (repository, faulty) = of_many(80).await;
    fold_both(&repository).await;
    for bundle in repository.store().list(FOLDER).await.unwrap() {
        repository.store().delete(std::slice::from_ref(&bundle.key)).await.unwrap();
        repository.store().put_new(&bundle.key, Bytes::from_static(b"no bundle")).await.unwrap();
    }
    assert_eq!(gets(&repository, &faulty).await, (162, 80, 80));
    fold_both(&repository).await;
    assert_eq!(repository.store().list(FOLDER).await.unwrap().len(), 2);
    assert_eq!(gets(&repository, &faulty).await, (2, 80, 80));
}

#[tokio::test]
async fn whoever_looks_after_originals_finds_the_damage_that_a_copy_covers() {
    let (repository, _) = of_many(80).await;
    fold_both(&repository).await;
    let key = format!("{}/{}", index::FOLDER, repository.ids(index::FOLDER).await.unwrap()[7]);
    repository.store().delete(std::slice::from_ref(&key)).await.unwrap();
    repository.store().put_new(&key, Bytes::from_static(b"damaged")).await.unwrap();
    assert_eq!(Index::load_readable(&repository).await.unwrap().1.len(), 0);
    assert!(matches!(Index::load(&repository).await, Err(RepositoryError::Damaged { .. })));
    // Nor is the damage bundled.
    let bundle = &bundles(&repository, index::FOLDER).await.unwrap()[0].key;
    repository.store().delete(std::slice::from_ref(bundle)).await.unwrap();
    fold_both(&repository).await;
    assert_eq!(Index::load_readable(&repository).await.unwrap().1.len(), 1);
}

#[tokio::test]
async fn small_bundles_grow_together_and_full_ones_stay_until_what_they_hold_has_gone() {
    let faulty = Faulty::memory(|_, _| None);
    let repository = Repository::init(faulty.store(Patience::local()), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
    let keys = async || sorted(bundles(&repository, "index").await.unwrap().into_iter().map(|object| object.key));
    // Objects of 12 KB: 88 fill a bundle.
    let add = async |from: u8, to: u8| {
        for n in from..to {
            let key = format!("index/{}", id_of(&[n; 12_000]));
            repository.store().put_new(&key, vec![n; 12_000].into()).await.unwrap();
        }
    };
    add(0, 70).await;
    fold(&repository, "index").await.unwrap();
    let first = keys().await;
    add(70, 150).await;
    fold(&repository, "index").await.unwrap();
    let second = keys().await;
    assert_eq!((first.len(), second.len()), (1, 2));
    // The first was more than half full, and stays as it is.
    assert!(second.contains(&first[0]), "{first:?} {second:?}");
    let gone: Vec<String> = (0..60).map(|n| format!("index/{}", id_of(&[n; 12_000]))).collect();
    repository.store().delete(&gone).await.unwrap();
    add(150, 220).await;
    fold(&repository, "index").await.unwrap();
    let third = keys().await;
    assert!(!third.contains(&first[0]), "{third:?}");
    let mut held = 0;
    for key in &third {
        held += open(&repository, key).await.unwrap().len();
    }
    assert_eq!(held, 160);
}

#[tokio::test]
async fn two_that_bundle_at_the_same_time_harm_nothing() {
    let (repository, faulty) = of_many(200).await;
    let repository = Arc::new(repository);
    tokio::join!(fold_both(&repository), fold_both(&repository));
    let (gets_now, packs, snapshots) = gets(&repository, &faulty).await;
    assert_eq!((packs, snapshots), (200, 200));
    assert!(gets_now <= 4, "{gets_now}");
}

proptest! {
    #[test]
    fn a_bundle_gives_back_what_went_into_it(objects in prop::collection::vec(prop::collection::vec(any::<u8>(), 32..200), 0..20)) {
        let objects: Vec<Bytes> = objects.into_iter().map(Bytes::from).collect();
        let read = decode(encode(&objects).into()).unwrap();
        prop_assert_eq!(read, objects.iter().map(|object| (id_of(object), object.clone())).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_that_are_no_bundle_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(objects) = decode(bytes.clone().into()) {
            let objects: Vec<Bytes> = objects.into_iter().map(|(_, object)| object).collect();
            prop_assert_eq!(encode(&objects), bytes);
        }
    }
}
