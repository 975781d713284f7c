//! Does every store that the documents offer work from `init` to `prune`, and is what cannot work told at once?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::HashMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use keepset::clock::Clock;
use keepset::store::{ErrorKind, Location, Store, StoreError};

use support::azurite::Azurite;
use support::compare::assert_same;
use support::double::{Bulk, Create, Double, Lists, Quirks, Speech};
use support::keepset::{Keepset, Ran};
use support::minio::Minio;
use support::proxy::{Fate, Proxy};
use support::tree::Dice;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn program(location: &str, variables: HashMap<String, String>) -> Keepset {
    variables.iter().fold(Keepset::bare().at(location), |keepset, (name, value)| keepset.with(name, value))
}

fn of(double: &Double, prefix: &str) -> Keepset {
    program(&double.location(prefix), double.variables())
}

fn init(keepset: &Keepset) -> Ran {
    keepset.run([OsStr::new("init"), OsStr::new("--generate-password"), keepset.path("password").as_os_str()])
}

/// A repository from its first day on: two points of a set that changes, one forgotten, what only it needed pruned, the other brought back.
#[track_caller]
fn lives(keepset: &Keepset) {
    init(keepset).expect(0);
    let root = keepset.set(2);
    keepset.backup(&root);
    for ordinal in 0..2_u32 {
        fs::write(root.join(format!("data-web-{ordinal}/pages")), Dice(u64::from(ordinal) + 7).bytes(300_000)).unwrap();
    }
    keepset.backup(&root);
    assert_eq!(keepset.json(["list"])["points"].as_array().unwrap().len(), 2);
    keepset.ok(["check", "--read-data"]);
    keepset.ok(["forget", "--keep-last", "1"]);
    keepset.ok(["prune"]);
    keepset.ok(["check", "--read-data"]);
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    for claim in ["data-web-0", "data-web-1"] {
        assert_same(&root.join(claim), &keepset.path("back").join(claim));
    }
    keepset.ok(["doctor"]);
}

#[test]
fn a_repository_lives_on_minio() {
    let minio = Minio::shared();
    lives(&program(&minio.location("life"), minio.variables()));
}

#[test]
fn a_repository_lives_on_azure() {
    let azurite = Azurite::shared();
    lives(&program(&azurite.location("life"), azurite.variables()));
}

#[test]
fn a_repository_lives_on_google() {
    lives(&of(&Double::start(Quirks { speech: Speech::Google, page: 3, ..Quirks::default() }), "life"));
}

#[test]
fn a_repository_lives_where_pages_are_small_and_deletes_are_single() {
    for bulk in [Bulk::NotImplemented, Bulk::NotAllowed, Bulk::WantsChecksum, Bulk::ErrorInSuccess] {
        let double = Double::start(Quirks { page: 3, bulk, ..Quirks::default() });
        let store = double.store("life");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            for name in ["a", "b", "c"] {
                store.put_new(name, bytes(name)).await.unwrap();
            }
            store.delete(&["a".to_owned(), "b".to_owned(), "none".to_owned()]).await.unwrap();
            store.delete(&["c".to_owned()]).await.unwrap();
        });
        assert_eq!(double.names(), [""; 0], "{bulk:?}");
        // It is asked once for what it has not.
        assert_eq!(double.requests().iter().filter(|request| request.starts_with("POST")).count(), 1, "{bulk:?}");
    }
    lives(&of(&Double::start(Quirks { page: 3, bulk: Bulk::NotImplemented, ..Quirks::default() }), "life"));
}

#[test]
fn a_repository_lives_where_no_put_is_create_only() {
    let double = Double::start(Quirks { create: Create::NotImplemented, bulk: Bulk::NotImplemented, ..Quirks::default() });
    let keepset = of(&double, "life");
    lives(&keepset);
    let ran = of(&double, "other");
    let ran = init(&ran).expect(0);
    assert!(ran.err.contains("lets a second writer overwrite"), "{}", ran.err);
    assert!(keepset.ok(["doctor"]).contains("lets a second writer overwrite"));
    // What is there stays: a name is looked up before it is put.
    init(&keepset).refused(13, "there is a repository at");
}

#[tokio::test]
async fn a_store_without_create_only_puts_overwrites_nothing_it_can_see() {
    let double = Double::start(Quirks { create: Create::NotImplemented, ..Quirks::default() });
    let store = double.store("k");
    store.put_new("a", bytes("first")).await.unwrap();
    store.put_new("a", bytes("first")).await.unwrap();
    assert_eq!(store.put_new("a", bytes("second")).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    assert_eq!(store.get("a").await.unwrap(), bytes("first"));
    let probe = store.probe(&Clock::system()).await.unwrap();
    assert!(!probe.create_only && probe.list && probe.delete, "{probe:?}");
    // One refusal is enough to know it.
    let before = double.requests().len();
    store.put_new("b", bytes("b")).await.unwrap();
    assert_eq!(double.requests()[before..].iter().map(|request| &request[..4]).collect::<Vec<_>>(), ["GET ", "PUT "]);
    // Nor is one that takes the condition and overwrites all the same taken for a good one.
    double.now(|quirks| quirks.create = Create::Ignored);
    assert!(!double.store("k").probe(&Clock::system()).await.unwrap().create_only);
    assert_eq!(double.names(), ["k/a", "k/b"]);
}

#[test]
fn a_line_break_at_the_end_of_a_key_does_no_harm() {
    let double = Double::start(Quirks::default());
    let mut variables = double.variables();
    for value in variables.values_mut() {
        value.push_str("\r\n");
    }
    variables.insert("AWS_REGION".to_owned(), "us-east-1\n".to_owned());
    variables.insert("AWS_SESSION_TOKEN".to_owned(), " token\n".to_owned());
    let keepset = program(&double.location("k"), variables);
    let ran = init(&keepset).expect(0);
    assert!(ran.err.contains("AWS_SECRET_ACCESS_KEY") && !ran.err.contains("geheim"), "{}", ran.err);
    keepset.ok(["list"]);
}

/// The store, with the proxy between.
fn through(proxy: &Proxy, location: &str, mut variables: HashMap<String, String>, address: &str) -> Store {
    for value in variables.values_mut() {
        *value = value.replace(address, &proxy.endpoint);
    }
    Store::open(&location.replace(address, &proxy.endpoint).parse().unwrap(), &variables).unwrap()
}

#[test]
fn every_store_outlives_broken_connections() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let azurite = Azurite::shared();
    let google = Double::start(Quirks { speech: Speech::Google, page: 3, ..Quirks::default() });
    let plain = Double::start(Quirks { create: Create::NotImplemented, bulk: Bulk::NotImplemented, page: 3, ..Quirks::default() });
    let mut outlived = Vec::new();
    for fate in [Fate::Reset, Fate::CutRequest, Fate::LoseReply, Fate::CutReply, Fate::Busy] {
        let name = format!("broken/{fate:?}");
        for (location, variables, address) in [
            (azurite.location(&name), azurite.variables(), azurite.address()),
            (google.location(&name), google.variables(), &google.endpoint),
            (plain.location(&name), plain.variables(), &plain.endpoint),
        ] {
            let proxy = Proxy::to(address);
            let store = through(&proxy, &location, variables, address);
            let fate = fate.clone();
            outlived.push(runtime.spawn(async move { outlives(&proxy, &store, fate).await }));
        }
    }
    for done in runtime.block_on(futures::future::join_all(outlived)) {
        done.unwrap();
    }
}

/// Every operation, while every fifth request meets its fate.
async fn outlives(proxy: &Proxy, store: &Store, fate: Fate) {
    let about = format!("{fate:?} at {}", store.location());
    store.list("").await.unwrap();
    proxy.obey(move |n, _| if n % 5 == 2 { fate.clone() } else { Fate::Pass });
    let names: Vec<String> = (0..6).map(|n| format!("data/{n}")).collect();
    for name in &names {
        store.put_new(name, bytes(name)).await.unwrap();
    }
    assert_eq!(store.put_new("data/0", bytes("other")).await.unwrap_err().kind, ErrorKind::AlreadyExists, "{about}");
    let listed: Vec<String> = store.list("data").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(listed, names, "{about}");
    for name in &names {
        assert_eq!(store.get(name).await.unwrap(), bytes(name), "{about}");
        assert_eq!(store.get_range(name, 2..6).await.unwrap(), bytes(&name[2..6]), "{about}");
    }
    store.delete(&names).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), [], "{about}");
}

/// Keys and files that other programs have left among a repository's objects.
fn strays() -> Vec<Vec<u8>> {
    let folders = ["keys", "locks", "snapshots", "index", "data", "data/00", "x-keepset/prune", "x-keepset/runs", "x-keepset/bundles"];
    folders.iter().map(|folder| [folder.as_bytes(), b"/b\xffd"].concat()).collect()
}

/// Everything works as if the strays were not there, and `check` names them.
#[track_caller]
fn is_not_disturbed(keepset: &Keepset, names: &[&str]) {
    assert_eq!(keepset.json(["list"])["points"].as_array().unwrap().len(), 1);
    let _ = fs::remove_dir_all(keepset.path("back"));
    keepset.ok(["restore", "shop/web", "--into", "back"]);
    assert_same(&keepset.path("live/data-web-0"), &keepset.path("back/data-web-0"));
    keepset.backup(&keepset.path("live"));
    keepset.ok(["forget", "--keep-last", "1"]);
    keepset.ok(["prune"]);
    let report = keepset.ok(["check", "--read-data"]);
    for name in names {
        assert!(report.contains(name), "{name} is not in {report}");
    }
}

#[test]
fn keys_that_no_object_can_have_disturb_nothing() {
    for speech in [Speech::S3, Speech::Google] {
        let double = Double::start(Quirks { speech, page: 3, ..Quirks::default() });
        let keepset = of(&double, "k");
        init(&keepset).expect(0);
        let root = keepset.set(1);
        keepset.backup(&root);
        let planted = ["index//x", "data/00//", "snapshots/", "locks/../x", "keys/./x", "data/a\nb", "x-keepset/runs//x"];
        planted.iter().for_each(|name| double.plant(&format!("k/{name}")));
        double.plant("k//x");
        double.plant("//");
        is_not_disturbed(&keepset, &["index//x", "data/00//", "snapshots/", "locks/../x", "keys/./x", r"data/a\x0ab", "x-keepset/runs//x"]);
        assert!(planted.iter().all(|name| double.names().contains(&format!("k/{name}"))), "others' objects stay");
    }
}

#[test]
fn files_whose_names_are_no_text_disturb_nothing() {
    let keepset = Keepset::new();
    let root = keepset.set(1);
    keepset.backup(&root);
    for name in strays() {
        let path = keepset.path("repository").join(OsStr::from_bytes(&name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "of another program").unwrap();
    }
    fs::create_dir(keepset.path("repository/data").join(OsStr::from_bytes(b"\xfe"))).unwrap();
    fs::write(keepset.path("repository/data").join(OsStr::from_bytes(b"\xfe/x")), "x").unwrap();
    fs::write(keepset.path("repository/index/a\nb"), "x").unwrap();
    is_not_disturbed(&keepset, &["snapshots/b", "data/00/b", r"index/a\x0ab"]);
}

/// Fails at once with these words in the error and the hint.
#[track_caller]
fn fails(error: &StoreError, kind: ErrorKind, cause: &str, hint: &str) {
    let told = error.source().unwrap().to_string();
    assert_eq!(error.kind, kind, "{error}: {told}");
    assert!(told.contains(cause), "{told}");
    let shown = error.hint().unwrap_or_default();
    assert!(shown.contains(hint), "{shown}");
}

#[tokio::test]
async fn a_list_that_a_store_cuts_short_is_never_taken_for_the_whole() {
    let double = Double::start(Quirks { page: 3, ..Quirks::default() });
    let store = double.store("k");
    for n in 0..10 {
        store.put_new(&format!("index/{n}"), bytes("x")).await.unwrap();
    }
    assert_eq!(store.list("index").await.unwrap().len(), 10);
    for (lists, kind, cause, hint) in [
        (Lists::FirstVersion, ErrorKind::Unsupported, "its list ends after 3 objects", "nothing to repair"),
        (Lists::CutSilently, ErrorKind::Unsupported, "its list ends after 3 objects", "nothing to repair"),
        (Lists::BeginAgain, ErrorKind::Unsupported, "begins its list again", "nothing to repair"),
        (Lists::ErrorInSuccess, ErrorKind::Denied, "AccessDenied", "allow this key to list"),
        (Lists::WebPage, ErrorKind::Unsupported, "is no object store", "a web page"),
    ] {
        double.now(|quirks| quirks.lists = lists);
        fails(&store.list("index").await.unwrap_err(), kind, cause, hint);
    }
    double.now(|quirks| quirks.puts_fail = true);
    assert_eq!(store.put_new("a", bytes("a")).await.unwrap_err().kind, ErrorKind::Denied);
}

#[test]
fn what_a_store_cannot_do_leaves_nothing_behind() {
    for lists in [Lists::ErrorInSuccess, Lists::WebPage] {
        let double = Double::start(Quirks { lists, ..Quirks::default() });
        let keepset = of(&double, "k");
        assert_ne!(init(&keepset).code, 0, "{lists:?}");
        assert!(!keepset.path("password").exists());
        assert_eq!(double.names(), [""; 0], "{lists:?}");
    }
    // A bucket that is not there, as where the endpoint holds the bucket already.
    let double = Double::start(Quirks::default());
    let location = format!("s3:{}/{}/k", double.endpoint, "elsewhere");
    init(&program(&location, double.variables())).refused(10, "cannot ");
    assert!(double.requests().iter().all(|request| !request.starts_with("PUT")), "{:?}", double.requests());
}

#[tokio::test]
async fn an_object_in_an_archive_is_told_with_the_way_back() {
    let double = Double::start(Quirks::default());
    let store = double.store("k");
    store.put_new("snapshots/a", bytes("x")).await.unwrap();
    double.now(|quirks| quirks.archived = Some("snapshots/"));
    let error = store.get("snapshots/a").await.unwrap_err();
    fails(&error, ErrorKind::Archived, "403: InvalidObjectState", "lifecycle rule");
}

#[tokio::test]
async fn what_is_wrong_with_key_or_bucket_is_told_also_where_a_head_says_nothing() {
    let double = Double::start(Quirks::default());
    let store = double.store("k");
    for (refuses, kind, hint) in [
        ((403, "InvalidTokenId"), ErrorKind::BadCredentials, "AWS_SESSION_TOKEN is stale"),
        ((400, "ExpiredToken"), ErrorKind::BadCredentials, "AWS_SESSION_TOKEN is stale"),
        ((400, "InvalidBucketName"), ErrorKind::Other, "small letters"),
        ((403, "AccessDenied"), ErrorKind::Denied, "allow this key"),
        ((404, "NoSuchBucket"), ErrorKind::NoSuchBucket, "create the bucket first"),
    ] {
        double.now(|quirks| quirks.refuses = Some(refuses));
        if refuses.0 != 404 {
            fails(&store.size("config").await.unwrap_err(), kind, refuses.1, hint);
        }
        fails(&store.list("keys").await.unwrap_err(), kind, refuses.1, hint);
    }
    double.now(|quirks| quirks.refuses = Some((404, "NoSuchKey")));
    fails(&store.list("keys").await.unwrap_err(), ErrorKind::NoSuchBucket, "NoSuchKey", "without the bucket");
}

/// A server of TLS with a certificate that `openssl req` makes with these arguments; gone when dropped.
struct Tls {
    server: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Tls {
    fn start(args: &[&str]) -> Tls {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |args: &[&str]| {
            let mut command = Command::new("openssl");
            command.args(args).current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
            command
        };
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=store"];
        let name = ["-keyout", "key.pem", "-out", "certificate.pem", "-addext", "subjectAltName=IP:127.0.0.1"];
        assert!(openssl(&[&new[..], &name[..], args].concat()).status().unwrap().success());
        let serve = ["s_server", "-accept", "127.0.0.1:0", "-cert", "certificate.pem", "-key", "key.pem", "-www"];
        let mut server = openssl(&serve).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| Some(line.strip_prefix("ACCEPT ")?.trim().to_owned())).unwrap();
        std::thread::spawn(move || lines.count());
        Tls { server, address, folder }
    }

    fn list(&self) -> StoreError {
        let bundle = self.folder.path().join("certificate.pem");
        let variables = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_CA_BUNDLE", bundle.to_str().unwrap())];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let store = Store::open(&format!("s3:https://{}/bucket/k", self.address).parse().unwrap(), &variables).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(store.list("keys")).unwrap_err()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_authoritys_certificate_shown_as_the_servers_own_is_told() {
    fails(&Tls::start(&[]).list(), ErrorKind::BadCertificate, "CaUsedAsEndEntity", "CA:FALSE");
    // With what the hint says the connection stands, and what is behind it is seen to be no store.
    let error = Tls::start(&["-addext", "basicConstraints=critical,CA:FALSE"]).list();
    assert_ne!(error.kind, ErrorKind::BadCertificate, "{error:?}");
}

#[tokio::test]
async fn a_folder_is_listed_through_links_and_without_temporaries() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let store = Store::open(&Location::Folder(folder.path().to_owned()), &HashMap::new()).unwrap();
    store.put_new("data/00/a", bytes("12345")).await.unwrap();
    fs::write(elsewhere.path().join("b"), "123").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("data/01")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("data/02")).unwrap();
    fs::write(folder.path().join("data/00/a#1"), "half").unwrap();
    fs::write(folder.path().join("data/00/notes#x"), "kept").unwrap();
    let listed = store.list("data").await.unwrap().into_iter().map(|object| (object.key, object.size)).collect::<Vec<_>>();
    let expected = [("data/00/a", 5), ("data/00/notes#x", 4), ("data/01/b", 3)].map(|(key, size)| (key.to_owned(), size));
    assert_eq!(listed, expected);
    assert_eq!(store.list("none").await.unwrap(), []);
    assert!(store.strays().is_empty());
}
