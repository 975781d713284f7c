//! What does the store do when the world below it fails, lies or hangs?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keepset::clock::Clock;
use keepset::store::fault::{Call, Fault, Faulty, Gate, Kind, on};
use keepset::store::{ErrorKind, Location, Patience, Store};
use object_store::memory::InMemory;

use support::minio::Minio;
use tokio::time::Instant;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A store that has answered once, since only then is an outage waited out, and follows the rule from its next call on.
async fn after_contact(rule: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static) -> (Faulty, Store) {
    let faulty = Faulty::over(Arc::new(InMemory::new()));
    let store = faulty.store(Patience::remote());
    store.list("").await.unwrap();
    faulty.obey(rule);
    (faulty, store)
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_found_to_be_done() {
    let (faulty, store) = after_contact(on(..1, Fault::After)).await;
    store.put_new("data/a", bytes("mine")).await.unwrap();
    assert_eq!(faulty.count(Kind::Put), 2);
    assert_eq!(store.get("data/a").await.unwrap(), bytes("mine"));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_lost_the_race_while_its_answer_was_lost_is_refused() {
    let (_, store) = after_contact(on(..1, Fault::Before)).await;
    let other = store.clone();
    let mine = tokio::spawn(async move { store.put_new("keys/1", bytes("mine")).await });
    // Runs while the first put waits for its second try.
    tokio::task::yield_now().await;
    other.put_new("keys/1", bytes("theirs")).await.unwrap();
    assert_eq!(mine.await.unwrap().unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(other.get("keys/1").await.unwrap(), bytes("theirs"));
}

#[tokio::test(start_paused = true)]
async fn half_an_object_that_a_store_kept_is_never_taken_for_the_whole() {
    let (_, store) = after_contact(on(..1, Fault::Torn)).await;
    assert_eq!(store.put_new("data/a", bytes("0123")).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(store.size("data/a").await.unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn every_operation_outlives_every_passing_fault() {
    let pause = Duration::from_secs(20);
    for fault in [
        Fault::Before,
        Fault::After,
        Fault::Busy,
        Fault::Hang,
        Fault::Delay(pause),
        Fault::Delay(pause * 2),
        Fault::Drip(Duration::from_secs(1)),
        Fault::Drip(pause),
    ] {
        // Every third call fails, in whatever it does.
        let every_third = fault.clone();
        let (faulty, store) = after_contact(move |n, _: &Call| (n % 3 == 0).then(|| every_third.clone())).await;
        store.put_new("a", bytes("0123")).await.unwrap();
        store.put_new("b", bytes("b")).await.unwrap();
        assert_eq!(store.get("a").await.unwrap(), bytes("0123"), "{fault:?}");
        assert_eq!(store.get_range("a", 1..3).await.unwrap(), bytes("12"), "{fault:?}");
        assert_eq!(store.size("a").await.unwrap(), Some(4), "{fault:?}");
        assert_eq!(store.list("").await.unwrap().len(), 2, "{fault:?}");
        store.delete(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), [], "{fault:?}");
        assert!(faulty.fired() >= 3, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_breaks_off_or_ends_early_is_made_again() {
    for fault in [Fault::Torn, Fault::Short] {
        let (faulty, store) = after_contact(|_, _: &Call| None).await;
        store.put_new("a", bytes("01234567")).await.unwrap();
        let reads = fault.clone();
        faulty.obey(move |n, call: &Call| (call.kind == Kind::Get && n % 2 == 0).then(|| reads.clone()));
        assert_eq!(store.get("a").await.unwrap(), bytes("01234567"), "{fault:?}");
        assert_eq!(store.get_range("a", 2..6).await.unwrap(), bytes("2345"), "{fault:?}");
        assert_eq!((faulty.count(Kind::Get), faulty.fired()), (4, 2), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_and_a_delete_that_break_off_midway_are_made_again_from_the_start() {
    let (faulty, store) = after_contact(|_, _: &Call| None).await;
    let names: Vec<String> = (0..10).map(|n| format!("data/{n}")).collect();
    for name in &names {
        store.put_new(name, bytes("x")).await.unwrap();
    }
    faulty.obey(on(..2, Fault::Torn));
    let listed: Vec<String> = store.list("data").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!((listed, faulty.calls().len()), (names.clone(), 3));
    faulty.obey(on(..1, Fault::Torn));
    store.delete(&names).await.unwrap();
    assert_eq!((store.list("").await.unwrap().len(), faulty.count(Kind::Delete)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_refusals_is_waited_out_with_growing_pauses_and_one_without_end_is_told() {
    let (faulty, store) = after_contact(on(..8, Fault::Busy)).await;
    let begun = Instant::now();
    store.put_new("a", bytes("a")).await.unwrap();
    // 1, 2, 4, 8, 16, 30, 30, 30 seconds, halved at most.
    assert!((Duration::from_secs(60)..Duration::from_secs(122)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    faulty.obey(on(.., Fault::Busy));
    assert_eq!(store.get("a").await.unwrap_err().kind, ErrorKind::Busy);
    assert!(faulty.calls().len() < 30, "{} tries", faulty.calls().len());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_a_full_disk_are_told_at_once_and_leave_nothing() {
    for (fault, kind) in [(Fault::Full, ErrorKind::Full), (Fault::Denied, ErrorKind::Denied), (Fault::Dead, ErrorKind::Other)] {
        let (faulty, store) = after_contact(on(..1, fault)).await;
        assert_eq!(store.put_new("data/a", bytes("x")).await.unwrap_err().kind, kind);
        assert_eq!(faulty.calls(), [Call { kind: Kind::Put, key: "data/a".into(), bytes: 1 }]);
        faulty.heal();
        assert_eq!(store.list("").await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_probe_catches_a_store_that_overwrites() {
    let faulty = Faulty::memory(|_, call| (call.kind == Kind::Put).then_some(Fault::Overwrite));
    let store = faulty.store(Patience::local());
    let probe = store.probe(&Clock::system()).await.unwrap();
    assert!(!probe.create_only && probe.delete && probe.list, "{probe:?}");
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_probe_tells_how_far_the_stores_clock_is_off_and_whether_it_may_delete_and_list() {
    let faulty = Faulty::memory(|_, call| (call.kind == Kind::Delete).then_some(Fault::Denied));
    let store = faulty.store(Patience::local());
    for hours in [-24, 24] {
        faulty.skew(chrono::TimeDelta::hours(hours));
        let probe = store.probe(&Clock::system()).await.unwrap();
        // To the second, cut off: what happened between the put and the look at it may cost one.
        let off = (probe.skew.unwrap() - chrono::TimeDelta::hours(hours)).num_seconds().abs();
        assert!(off <= 1 && !probe.delete, "{probe:?}");
    }
    faulty.obey(|_, call| (call.kind == Kind::List).then_some(Fault::Denied));
    assert_eq!(store.probe(&Clock::system()).await.unwrap().skew, None);
}

#[tokio::test]
async fn the_store_that_fails_on_purpose_does_what_it_is_told() {
    let faulty = Faulty::memory(|_, _| None);
    let store = faulty.store(Patience { outage: Duration::ZERO, ..Patience::remote() });
    store.put_new("a/1", bytes("1")).await.unwrap();
    store.put_new("a/2", bytes("2")).await.unwrap();
    store.delete(&["a/1".to_owned()]).await.unwrap();
    let mut listed = Vec::new();
    for lag in 0..4 {
        faulty.obey(on(.., Fault::Stale(lag)));
        listed.push(store.list("a").await.unwrap().into_iter().map(|object| object.key).collect::<Vec<_>>().join(" "));
    }
    assert_eq!(listed, ["a/2", "a/1 a/2", "a/1", ""]);
    faulty.obey(on(..1, Fault::Flip(7)));
    let flipped = store.get("a/2").await.unwrap();
    assert_eq!((flipped[0] ^ b'2').count_ones(), 1);
    let gate = Gate::default();
    faulty.obey(on(..1, Fault::Held(gate.clone())));
    let passed = async {
        gate.reached().await;
        assert_eq!(store.get("a/2").await.unwrap(), bytes("2"), "only the first is held");
        gate.open();
    };
    let (held, ()) = tokio::join!(store.get("a/2"), passed);
    assert_eq!(held.unwrap(), bytes("2"));
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
