//! Does a run that was killed spare the next one its uploads, and does nothing of it stay behind?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use keepset::clock::Clock;
use keepset::monitor::Silent;
use keepset::repository::Repository;
use keepset::repository::adopt::adopt;
use keepset::repository::index::Index;
use keepset::repository::key::KeyOrigin;
use keepset::repository::lock::{Lock, LockOptions, Mode};
use keepset::repository::pack;
use keepset::store::fault::{Call, Fault, Faulty, Kind};
use keepset::store::{Patience, Store};
use object_store::memory::InMemory;

use support::ground::{Ground, files};
use support::house::{House, names, scratch, the_dead, the_living};

/// A repository of one set, whose first backup was killed as it put its first index object.
async fn killed_once() -> (House, Arc<InMemory>) {
    let house = House::new(2);
    let memory = Arc::new(InMemory::new());
    let store = Store::from_object_store(memory.clone(), "memory", Patience::local());
    Repository::init(store, &house.password, KeyOrigin::default()).await.unwrap();
    let faulty = Faulty::over(memory.clone());
    faulty.obey(|_, call| (call.kind == Kind::Put && call.key.starts_with("index/")).then_some(Fault::Dead));
    house.backup(&faulty.store(Patience::local()), the_dead()).await.unwrap_err();
    assert!(!names(memory.as_ref(), "data").await.is_empty() && names(memory.as_ref(), "index").await.is_empty());
    (house, memory)
}

fn put_bytes(faulty: &Faulty, folder: &str) -> u64 {
    let put = |call: &Call| call.kind == Kind::Put && call.key.starts_with(folder);
    faulty.calls().iter().filter(|call| put(call)).map(|call| call.bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_had_stored_is_not_stored_again() {
    let (house, memory) = killed_once().await;
    let left = names(memory.as_ref(), "data").await;
    let faulty = Faulty::over(memory.clone());
    let store = faulty.store(Patience::local());
    let sealed = house.backup(&store, the_living()).await.unwrap();
    // The first ordinal's pages were there; the second's, the trees and the manifest were not.
    let stored = put_bytes(&faulty, "data/");
    assert!(stored > 100_000 && stored < 120_000, "{stored} bytes");
    house.prove_point(&store, &sealed.point, "after a kill").await;
    let index = Index::load(&house.open(&store).await.unwrap()).await.unwrap();
    assert!(left.iter().all(|key| index.packs().contains(&pack::id_of_key(key).unwrap())));
    assert!(names(memory.as_ref(), "x-keepset").await.is_empty() && names(memory.as_ref(), "locks").await.is_empty());
    assert_eq!(house.check(&store).await.unwrap().findings, []);
    house.restic_is_content(memory.as_ref(), "after a kill").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_others_are_at_work_nothing_is_taken_over_and_later_it_is() {
    let (house, memory) = killed_once().await;
    let store = Store::from_object_store(memory.clone(), "memory", Patience::local());
    let repository = house.open(&store).await.unwrap();
    let options = LockOptions { identity: the_living(), wait: Duration::ZERO, clock: Clock::system() };
    let other = Lock::acquire(&repository, Mode::Shared, &options, &Silent).await.unwrap();
    house.backup(&store, the_living()).await.unwrap();
    assert_eq!(names(memory.as_ref(), "x-keepset/runs").await.len(), 1, "the trace of the dead waits for its turn");
    assert!(house.check(&store).await.unwrap().findings.iter().any(|finding| finding.what.contains("in no index")));
    other.release().await.unwrap();
    house.backup(&store, the_living()).await.unwrap();
    assert!(names(memory.as_ref(), "x-keepset").await.is_empty());
    let findings = house.check(&store).await.unwrap().findings;
    assert!(findings.iter().all(|finding| !finding.what.contains("in no index")), "{findings:?}");
}

#[tokio::test(start_paused = true)]
async fn condemned_and_damaged_packs_are_not_taken_over() {
    let mut ground = Ground::new().await;
    ground.backup(&files(0..10)).await.unwrap();
    let orphans = ground.orphan(10..40).await;
    assert!(orphans.len() > 2);
    let store = ground.repository.store();
    let cut = store.get(&orphans[0]).await.unwrap();
    store.delete(&orphans[..1]).await.unwrap();
    store.put_new(&orphans[0], cut.slice(..cut.len() - 1)).await.unwrap();
    let condemned = ground.copy().await;

    let adopt = async |ground: &Ground| {
        let lock = Lock::acquire(&ground.repository, Mode::Shared, &ground.lock_options(Duration::ZERO), &Silent).await.unwrap();
        let adopted = adopt(&ground.repository, &lock, &Index::load(&ground.repository).await.unwrap()).await.unwrap();
        lock.release().await.unwrap();
        adopted
    };
    assert_eq!(adopt(&ground).await, Some(orphans.len() - 1));
    ground.assert_whole("adopted").await;
    assert_eq!(adopt(&ground).await, Some(0));
    ground.remove(&orphans[..1]).await;
    ground.assert_restic_agrees(&scratch().path().join("repository")).await;

    condemned.prune().await.unwrap();
    assert_eq!(adopt(&condemned).await, Some(0));
    let deleted = condemned.prune().await.unwrap().deleted;
    assert_eq!(deleted.packs, orphans.len() as u64);
    condemned.assert_tidy("pruned").await;
}

#[tokio::test(start_paused = true)]
async fn a_left_pack_with_a_rotten_blob_is_not_taken_over() {
    let mut ground = Ground::new().await;
    ground.backup(&files(0..10)).await.unwrap();
    let orphans = ground.orphan(10..40).await;
    let store = ground.repository.store();
    let mut rotten = store.get(&orphans[0]).await.unwrap().to_vec();
    // Its header, at the end, stays what it was.
    rotten[20] ^= 1;
    store.delete(&orphans[..1]).await.unwrap();
    store.put_new(&orphans[0], rotten.into()).await.unwrap();
    let lock = Lock::acquire(&ground.repository, Mode::Shared, &ground.lock_options(Duration::ZERO), &Silent).await.unwrap();
    let adopted = adopt(&ground.repository, &lock, &Index::load(&ground.repository).await.unwrap()).await.unwrap();
    lock.release().await.unwrap();
    assert_eq!(adopted, Some(orphans.len() - 1));
    let index = Index::load(&ground.repository).await.unwrap();
    assert!(!index.packs().contains(&pack::id_of_key(&orphans[0]).unwrap()));
}
