//! Does every kind of store keep the same promises? One suite, run on memory, on a folder, on a real MinIO, on Azurite, and on servers of
//! our own that speak Google's API, and S3 with small pages and without a bulk delete.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;

use bytes::Bytes;
use keepset::clock::Clock;
use keepset::store::{ErrorKind, Location, Store, StoreError};

use support::azurite::Azurite;
use support::double::{Bulk, Double, Quirks, Speech};
use support::minio::Minio;

/// A store, with what must live as long as it.
struct Subject {
    name: &'static str,
    store: Store,
    _alive: Alive,
}

/// What the store is in, where it is the test's own.
enum Alive {
    Shared,
    Folder { _folder: tempfile::TempDir },
    Server { _server: Double },
}

/// Every kind of store, each empty.
fn subjects(test: &str) -> Vec<Subject> {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = Store::open(&Location::Folder(folder.path().to_owned()), &HashMap::new()).unwrap();
    vec![
        Subject { name: "memory", store: Store::memory(), _alive: Alive::Shared },
        Subject { name: "folder", store: on_disk, _alive: Alive::Folder { _folder: folder } },
        Subject { name: "minio", store: on_minio(&format!("contract/{test}")), _alive: Alive::Shared },
        Subject { name: "azurite", store: Azurite::shared().store(&format!("contract/{test}")), _alive: Alive::Shared },
        double("google", Quirks { speech: Speech::Google, ..Quirks::default() }),
        double("three to a page, one delete each", Quirks { page: 3, bulk: Bulk::NotImplemented, ..Quirks::default() }),
    ]
}

fn double(name: &'static str, quirks: Quirks) -> Subject {
    let server = Double::start(quirks);
    Subject { name, store: server.store("a/b"), _alive: Alive::Server { _server: server } }
}

fn on_minio(prefix: &str) -> Store {
    let minio = Minio::shared();
    Store::open(&minio.location(prefix).parse().unwrap(), &minio.variables()).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn kind<T: std::fmt::Debug>(done: Result<T, StoreError>) -> ErrorKind {
    done.unwrap_err().kind
}

#[tokio::test]
async fn what_was_put_comes_back_whole_and_in_parts() {
    for Subject { name, store, .. } in subjects("whole") {
        let body: Bytes = (0..9_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        store.put_new("data/ab/abcd", body.clone()).await.unwrap();
        store.put_new("empty", Bytes::new()).await.unwrap();
        assert!(store.get("data/ab/abcd").await.unwrap() == body, "{name}");
        assert!(store.get_range("data/ab/abcd", 4_000_000..4_000_100).await.unwrap() == body.slice(4_000_000..4_000_100), "{name}");
        assert!(store.get_range("data/ab/abcd", 8_999_999..9_000_000).await.unwrap() == body.slice(8_999_999..), "{name}");
        assert_eq!(store.get_range("data/ab/abcd", 5..5).await.unwrap(), Bytes::new(), "{name}");
        assert_eq!(store.get("empty").await.unwrap(), Bytes::new(), "{name}");
        assert_eq!(store.size("data/ab/abcd").await.unwrap(), Some(9_000_000), "{name}");
        assert_eq!(store.size("empty").await.unwrap(), Some(0), "{name}");
    }
}

#[tokio::test]
async fn a_second_put_with_other_bytes_is_refused_and_changes_nothing() {
    for Subject { name, store, .. } in subjects("second") {
        store.put_new("keys/1", bytes("first")).await.unwrap();
        for other in ["other", "longer than the first", ""] {
            assert_eq!(kind(store.put_new("keys/1", bytes(other)).await), ErrorKind::AlreadyExists, "{name}");
        }
        assert_eq!(store.get("keys/1").await.unwrap(), bytes("first"), "{name}");
    }
}

#[tokio::test]
async fn a_second_put_with_the_same_bytes_is_the_first_one_repeated() {
    for Subject { name, store, .. } in subjects("same") {
        for _ in 0..3 {
            store.put_new("config", bytes("the same")).await.unwrap();
        }
        assert_eq!(store.list("").await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn of_many_puts_at_once_exactly_one_wins() {
    for Subject { name, store, .. } in subjects("race") {
        let puts = (0..16).map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.put_new("locks/1", bytes(&format!("writer {i}"))).await })
        });
        let done = futures::future::join_all(puts).await;
        let won: Vec<usize> = (0..16).filter(|i| done[*i].as_ref().unwrap().is_ok()).collect();
        assert_eq!(won.len(), 1, "{name}: {done:?}");
        assert_eq!(store.get("locks/1").await.unwrap(), bytes(&format!("writer {}", won[0])), "{name}");
    }
}

#[tokio::test]
async fn a_missing_object_is_told_apart_from_other_failures() {
    for Subject { name, store, .. } in subjects("missing") {
        assert_eq!(kind(store.get("config").await), ErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.get_range("data/00/00", 0..1).await), ErrorKind::NotFound, "{name}");
        assert_eq!(store.size("config").await.unwrap(), None, "{name}");
        // A folder is no object.
        store.put_new("data/00/0011", bytes("x")).await.unwrap();
        assert_eq!(kind(store.get("data/00").await), ErrorKind::NotFound, "{name}");
        assert_eq!(store.size("data").await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_range_beyond_the_end_is_an_error_and_never_less_data() {
    for Subject { name, store, .. } in subjects("range") {
        store.put_new("data/x", bytes("0123456789")).await.unwrap();
        for range in [5..11, 0..11, 10..11, 99..100] {
            let error = store.get_range("data/x", range.clone()).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::TooShort, "{name} {range:?}: {error} {error:?}");
        }
        assert_eq!(store.get_range("data/x", 0..10).await.unwrap(), bytes("0123456789"), "{name}");
    }
}

#[tokio::test]
async fn a_list_names_all_below_a_folder_in_order_and_nothing_beside_it() {
    for Subject { name, store, .. } in subjects("list") {
        for key in ["data/01/b", "data/00/a", "data/01/a", "database/x", "config"] {
            store.put_new(key, bytes(key)).await.unwrap();
        }
        let names = async |folder: &str| store.list(folder).await.unwrap().into_iter().map(|object| object.key).collect::<Vec<_>>();
        assert_eq!(names("data").await, ["data/00/a", "data/01/a", "data/01/b"], "{name}");
        assert_eq!(names("data/01").await, ["data/01/a", "data/01/b"], "{name}");
        assert_eq!(names("").await, ["config", "data/00/a", "data/01/a", "data/01/b", "database/x"], "{name}");
        assert_eq!(names("snapshots").await, [""; 0], "{name}");
        assert_eq!(store.list("data/00").await.unwrap()[0].size, 9, "{name}");
    }
}

#[tokio::test]
async fn a_list_of_thousands_is_complete() {
    for Subject { name, store, .. } in subjects("pages") {
        // More than two of S3's pages; memory and disk know no pages.
        let count = if matches!(name, "minio" | "google") { 2100 } else { 50 };
        let puts = (0..count).map(|i| {
            let store = store.clone();
            async move { store.put_new(&format!("index/{i:05}"), bytes("x")).await }
        });
        let done: Vec<_> = futures::StreamExt::collect(futures::StreamExt::buffer_unordered(futures::stream::iter(puts), 16)).await;
        assert!(done.iter().all(Result::is_ok), "{name}");
        let keys: Vec<String> = store.list("index").await.unwrap().into_iter().map(|object| object.key).collect();
        assert_eq!(keys.len(), count, "{name}");
        store.delete(&keys).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), [], "{name}");
    }
}

#[tokio::test]
async fn a_delete_of_what_is_not_there_is_done() {
    for Subject { name, store, .. } in subjects("delete") {
        store.put_new("data/a", bytes("a")).await.unwrap();
        store.put_new("data/b", bytes("b")).await.unwrap();
        let keys = ["data/a".to_owned(), "data/none".to_owned(), "never/was".to_owned()];
        store.delete(&keys).await.unwrap();
        store.delete(&keys).await.unwrap();
        store.delete(&[]).await.unwrap();
        assert_eq!(store.size("data/a").await.unwrap(), None, "{name}");
        assert_eq!(store.get("data/b").await.unwrap(), bytes("b"), "{name}");
    }
}

#[tokio::test]
async fn a_probe_finds_a_good_store_good_and_leaves_nothing() {
    for Subject { name, store, .. } in subjects("probe") {
        let probe = store.probe(&Clock::system()).await.unwrap();
        assert!(probe.create_only && probe.list && probe.delete, "{name}: {probe:?}");
        assert!(probe.skew.unwrap().num_seconds().abs() <= 1, "{name}: {probe:?}");
        assert_eq!(store.list("").await.unwrap(), [], "{name}");
    }
}

#[tokio::test]
async fn a_probe_sees_a_wrong_clock() {
    for Subject { name, store, .. } in subjects("clock") {
        let clock = Clock::manual((Clock::system().now() - chrono::TimeDelta::hours(3)).timestamp_millis());
        let skew = store.probe(&clock).await.unwrap().skew.unwrap();
        assert!((skew - chrono::TimeDelta::hours(3)).num_seconds().abs() < 60, "{name}: {skew}");
    }
}
