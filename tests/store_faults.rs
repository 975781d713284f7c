//! What does the store do when the world below it fails, lies or hangs?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::error::Error;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use keepset::clock::Clock;
use keepset::store::{ErrorKind, Location, Patience, Store};

use support::fault::{Call, Fault, Faulty};
use support::minio::Minio;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_found_to_be_done() {
    // The first call makes contact: only then is an outage waited out.
    let faulty = Faulty::first(&[None, Some(Fault::After)]);
    let store = faulty.store(Patience::remote());
    store.list("").await.unwrap();
    store.put_new("data/a", bytes("mine")).await.unwrap();
    assert_eq!(store.get("data/a").await.unwrap(), bytes("mine"));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_lost_the_race_while_its_answer_was_lost_is_refused() {
    let faulty = Faulty::first(&[None, Some(Fault::Before)]);
    let store = faulty.store(Patience::remote());
    store.list("").await.unwrap();
    let other = store.clone();
    let mine = tokio::spawn(async move { store.put_new("keys/1", bytes("mine")).await });
    // Runs while the first put waits for its second try.
    tokio::task::yield_now().await;
    other.put_new("keys/1", bytes("theirs")).await.unwrap();
    assert_eq!(mine.await.unwrap().unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(other.get("keys/1").await.unwrap(), bytes("theirs"));
}

#[tokio::test(start_paused = true)]
async fn every_operation_outlives_every_passing_fault() {
    for fault in [Fault::Before, Fault::After, Fault::Busy, Fault::Hang] {
        // Every third call fails, in whatever it does.
        let faulty = Faulty::memory(move |n, _, _| (n % 3 == 1).then_some(fault));
        let store = faulty.store(Patience::remote());
        store.list("").await.unwrap();
        store.put_new("a", bytes("0123")).await.unwrap();
        store.put_new("b", bytes("b")).await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), bytes("0123"), "{fault:?}");
        assert_eq!(store.get_range("a", 1..3).await.unwrap(), bytes("12"), "{fault:?}");
        assert_eq!(store.size("a").await.unwrap(), Some(4), "{fault:?}");
        assert_eq!(store.list("").await.unwrap().len(), 2, "{fault:?}");
        store.delete(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), [], "{fault:?}");
        assert!(faulty.calls().len() > 12, "{fault:?}: no call was repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_at_once_and_leaves_nothing() {
    let faulty = Faulty::memory(|_, call, _| (call == Call::Put).then_some(Fault::Full));
    let store = faulty.store(Patience::remote());
    let error = store.put_new("data/a", bytes("x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Full);
    assert_eq!(faulty.calls().len(), 1);
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_probe_catches_a_store_that_overwrites() {
    let faulty = Faulty::memory(|_, call, _| (call == Call::Put).then_some(Fault::Overwrite));
    let store = faulty.store(Patience::local());
    let probe = store.probe(&Clock::system()).await.unwrap();
    assert!(!probe.create_only && probe.delete && probe.list, "{probe:?}");
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn leftovers_of_a_crash_are_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Location::Folder(folder.path().to_owned()), &HashMap::new()).unwrap();
    store.put_new("data/00/00aa", bytes("whole")).await.unwrap();
    // What a put leaves beside its object when the machine dies in it.
    for name in ["data/00/00aa#1", "data/00/00bb#1", "data/00/00bb#2"] {
        std::fs::write(folder.path().join(name), "ha").unwrap();
    }
    let listed: Vec<String> = store.list("").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(listed, ["data/00/00aa"]);
    store.put_new("data/00/00bb", bytes("half no more")).await.unwrap();
    assert_eq!(store.get("data/00/00bb").await.unwrap(), bytes("half no more"));
}

#[tokio::test]
async fn a_put_on_disk_leaves_no_temporary_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Location::Folder(folder.path().to_owned()), &HashMap::new()).unwrap();
    store.put_new("keys/a", bytes("a")).await.unwrap();
    store.put_new("keys/a", bytes("b")).await.unwrap_err();
    let names: Vec<_> = std::fs::read_dir(folder.path().join("keys")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a"]);
}

#[tokio::test]
async fn a_folder_in_the_way_is_an_error_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Location::Folder(folder.path().to_owned()), &HashMap::new()).unwrap();
    std::fs::write(folder.path().join("data"), "a file where a folder should be").unwrap();
    let error = store.put_new("data/00/00aa", bytes("x")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other);
    assert!(error.source().unwrap().to_string().contains("Not a directory"), "{:?}", error.source());
}

#[tokio::test]
async fn a_wrong_secret_an_unknown_key_and_a_missing_bucket_are_told_apart() {
    let minio = Minio::shared();
    let open = |location: String, change: Option<(&str, &str)>| {
        let mut variables = minio.variables();
        variables.extend(change.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Store::open(&location.parse().unwrap(), &variables).unwrap()
    };
    for change in [("AWS_SECRET_ACCESS_KEY", "geheimnis"), ("AWS_ACCESS_KEY_ID", "nobody")] {
        let store = open(minio.location("a"), Some(change));
        for error in [
            store.get("config").await.unwrap_err(),
            store.put_new("config", bytes("x")).await.unwrap_err(),
            store.list("keys").await.unwrap_err(),
            store.delete(&["config".to_owned()]).await.unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::BadCredentials, "{error} {error:?}");
            assert!(error.hint().unwrap().contains("secret"));
            assert!(!format!("{error:?}").contains("geheimnis"));
        }
    }
    let store = open(format!("s3:{}/no-such-bucket/a", minio.endpoint), None);
    for error in [
        store.get("config").await.unwrap_err(),
        store.put_new("config", bytes("x")).await.unwrap_err(),
        store.list("keys").await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NoSuchBucket, "{error} {error:?}");
    }
    // The variables may name the endpoint as well.
    let store = open(format!("s3://{}/named", minio.bucket), Some(("AWS_ENDPOINT_URL", &minio.endpoint)));
    store.put_new("config", bytes("x")).await.unwrap();
    assert_eq!(open(minio.location("named"), None).get("config").await.unwrap(), bytes("x"));
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_as_unreachable() {
    let mut minio = Minio::start();
    let store = Store::open(&minio.location("a").parse().unwrap(), &minio.variables()).unwrap();
    let store = store.with_patience(Patience { outage: Duration::ZERO, ..Patience::remote() });
    store.put_new("config", bytes("x")).await.unwrap();
    minio.stop();
    let error = store.get("config").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error:?}");
    assert!(error.hint().unwrap().contains("AWS_ENDPOINT_URL"));
}

#[tokio::test]
async fn a_server_that_never_answers_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("s3:http://{}/bucket/a", listener.local_addr().unwrap());
    let variables = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let store = Store::open(&location.parse().unwrap(), &variables.into()).unwrap();
    let store = store.with_patience(Patience { attempt: Duration::from_millis(300), outage: Duration::from_secs(300) });
    let error = store.get("config").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error:?}");
}
