//! Do stock restic and keepset respect each other's locks and passwords? restic itself is asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use keepset::clock::Clock;
use keepset::monitor::Silent;
use keepset::repository::Repository;
use keepset::repository::error::RepositoryError;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::lock::{Lock, LockIdentity, LockOptions, Mode, locks, unlock};
use keepset::repository::passwords;
use keepset::store::{Location, Store};

struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        Ground { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self, open: fn(&Location, &HashMap<String, String>) -> Result<Store, keepset::store::StoreError>) -> Store {
        let location = self.path("repository").to_str().unwrap().parse().unwrap();
        open(&location, &HashMap::new()).unwrap()
    }

    async fn ours(&self) -> Repository {
        Repository::init(self.store(Store::create), &password("first"), KeyOrigin::default()).await.unwrap()
    }

    fn restic(&self, args: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "-q", "-r"]).arg(self.path("repository")).args(args).env("RESTIC_PASSWORD", "first");
        command
    }

    /// A restic that holds its exclusive lock until the returned end of a pipe is written to: it waits for the new password.
    fn restic_with_exclusive_lock(&self) -> (Child, std::fs::File) {
        let pipe = self.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        let mut restic = self.restic(&["key", "passwd", "--new-password-file", pipe.to_str().unwrap()]);
        let mut child = restic.stdout(Stdio::null()).spawn().expect("restic must be installed: `make test` sees to it");
        // This end opens only once restic has opened the other, which it does under its lock.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        loop {
            match OpenOptions::new().write(true).custom_flags(nonblocking).open(&pipe) {
                Ok(end) => return (child, end),
                Err(_) => assert!(child.try_wait().unwrap().is_none(), "restic ended before it asked for the new password"),
            }
            std::thread::yield_now();
        }
    }
}

fn password(text: &str) -> Password {
    Password::chosen(text.into())
}

fn run(mut command: Command) -> Output {
    command.output().expect("restic must be installed: `make test` sees to it")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn options(wait: u64) -> LockOptions {
    LockOptions { identity: LockIdentity::this_process(None, "root".into()), wait: Duration::from_secs(wait), clock: Clock::system() }
}

fn hostname() -> String {
    LockIdentity::this_process(None, String::new()).hostname
}

fn sources(ground: &Ground) -> PathBuf {
    let file = ground.path("file");
    std::fs::write(&file, "some bytes").unwrap();
    file
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_refuses_what_our_locks_forbid_and_no_more() {
    let ground = Ground::new();
    let repository = ground.ours().await;
    let file = sources(&ground);

    let exclusive = Lock::acquire(&repository, Mode::Exclusive, &options(0), &Silent).await.unwrap();
    let refused = run(ground.restic(&["backup", name(&file)]));
    assert!(!refused.status.success() && text(&refused).contains("already locked exclusively"), "{}", text(&refused));
    let listed = run(ground.restic(&["list", "locks", "--no-lock"]));
    let ours = locks(&repository).await.unwrap().remove(0).key;
    assert_eq!(format!("locks/{}", text(&listed).trim()), ours);
    exclusive.release().await.unwrap();

    let shared = Lock::acquire(&repository, Mode::Shared, &options(0), &Silent).await.unwrap();
    let done = run(ground.restic(&["backup", name(&file)]));
    assert!(done.status.success(), "{}", text(&done));
    let refused = run(ground.restic(&["forget", "latest", "--prune"]));
    assert!(!refused.status.success() && text(&refused).contains("already locked"), "{}", text(&refused));

    // restic's sweep asks by SIGHUP whether the owner lives, and leaves its lock; its sledgehammer does not, and then we know.
    assert!(run(ground.restic(&["unlock"])).status.success());
    shared.prove().await.unwrap();
    assert!(run(ground.restic(&["unlock", "--remove-all"])).status.success());
    assert!(matches!(shared.prove().await, Err(RepositoryError::LockLost { .. })));
    shared.release().await.unwrap();
    let done = run(ground.restic(&["forget", "latest", "--prune"]));
    assert!(done.status.success(), "{}", text(&done));
}

#[tokio::test(flavor = "multi_thread")]
async fn we_wait_while_restic_holds_an_exclusive_lock_and_follow_its_new_password() {
    let ground = Ground::new();
    let repository = ground.ours().await;
    let (mut restic, mut pipe) = ground.restic_with_exclusive_lock();
    for mode in [Mode::Shared, Mode::Reading, Mode::Exclusive] {
        let refused = Lock::acquire(&repository, mode, &options(0), &Silent).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("an exclusive lock of pid {}", restic.id())), "{refused}");
    }
    let waits = options(120);
    let waiting = Lock::acquire(&repository, Mode::Shared, &waits, &Silent);
    let finish = async {
        pipe.write_all(b"second\n").unwrap();
        drop(pipe);
        tokio::task::spawn_blocking(move || restic.wait().unwrap()).await.unwrap()
    };
    let (lock, status) = tokio::join!(waiting, finish);
    assert!(status.success());
    lock.unwrap().release().await.unwrap();
    Repository::open(ground.store(Store::open), &password("second")).await.unwrap();
    assert!(matches!(Repository::open(ground.store(Store::open), &password("first")).await, Err(RepositoryError::WrongPassword { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_killed_restic_goes_with_unlock() {
    let ground = Ground::new();
    let repository = ground.ours().await;
    let (mut restic, pipe) = ground.restic_with_exclusive_lock();
    assert_eq!(unlock(&repository, false, &hostname(), &Clock::system()).await.unwrap().len(), 0, "it lives");
    restic.kill().unwrap();
    restic.wait().unwrap();
    drop(pipe);
    assert!(Lock::acquire(&repository, Mode::Shared, &options(0), &Silent).await.is_err());
    assert_eq!(unlock(&repository, false, &hostname(), &Clock::system()).await.unwrap().len(), 1);
    Lock::acquire(&repository, Mode::Shared, &options(0), &Silent).await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_opens_with_a_password_that_we_added_and_not_with_one_that_we_removed() {
    let ground = Ground::new();
    let repository = ground.ours().await;
    let first = passwords::list(&repository, &password("first")).await.unwrap().remove(0).id;
    passwords::add(&repository, &password("third"), "root", "vm", &Clock::system()).await.unwrap();
    let mut by_third = ground.restic(&["key", "list"]);
    let listed = run({
        by_third.env("RESTIC_PASSWORD", "third");
        by_third
    });
    assert!(text(&listed).contains(&first.short()), "{}", text(&listed));
    passwords::remove(&repository, &first.hex(), &password("third")).await.unwrap();
    assert!(!run(ground.restic(&["snapshots"])).status.success());
}
