//! Does a restore that dies at any step leave the old state, or one that a resume finishes and an undo takes back?
//!
//! The orchestrator runs in this process, on real folders with real movers; a platform between them stops for good before or after its
//! n-th call, for every n that there is, and everything that the orchestrator held is dropped as a kill would drop it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keepset::backup::{Backup, BackupOptions};
use keepset::clock::Clock;
use keepset::model::claim::{ClaimId, ClaimPlace};
use keepset::model::manifest::Consistency;
use keepset::model::mover_job::{FailureKind, FillMode, MoverJob};
use keepset::model::set::{Ordinal, SetName};
use keepset::model::set_state::{CutClaim, SetState, Targets};
use keepset::monitor::Silent;
use keepset::platform::folders::{Folders, FoldersOptions, StartCommand};
use keepset::platform::{JournalHold, Mover, Platform, PlatformError};
use keepset::repository::Repository;
use keepset::repository::key::Password;
use keepset::repository::lock::LockIdentity;
use keepset::restore::{Refusal, Restore, RestoreError, RestoreOptions, StartMode};
use keepset::store::{Location, Store};
use support::compare::assert_same;
use support::house::restore_beside;
use support::keepset::Keepset;
use support::kill::{Victim, lines_in, run_and_kill};
use support::restic::Restic;
use tokio::sync::{Notify, watch};

/// Stops for good before (or after) its n-th call.
struct Dying {
    folders: Folders,
    calls: AtomicUsize,
    nth: usize,
    after: bool,
    dead: Notify,
}

impl Dying {
    async fn step<T>(&self, call: impl Future<Output = T>) -> T {
        let last = self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.nth;
        if last && !self.after {
            self.die().await;
        }
        let result = call.await;
        if last {
            self.die().await;
        }
        result
    }

    async fn die(&self) {
        self.dead.notify_one();
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Platform for Dying {
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError> {
        self.step(self.folders.read_set(set)).await
    }
    async fn cut(&self, run: &str, set: &SetName, claims: &[ClaimId], consistency: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        self.step(self.folders.cut(run, set, claims, consistency)).await
    }
    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], measure: bool) -> Result<Targets, PlatformError> {
        self.step(self.folders.read_targets(set, claims, measure)).await
    }
    async fn read_journal(&self, set: &SetName) -> Result<Option<String>, PlatformError> {
        self.step(self.folders.read_journal(set)).await
    }
    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
        self.step(self.folders.open_journal(set, first)).await
    }
    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        self.step(self.folders.take_journal(set)).await
    }
    async fn append_journal(&self, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        self.step(self.folders.append_journal(hold, line)).await
    }
    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError> {
        self.step(self.folders.close_journal(hold)).await
    }
    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
        self.step(self.folders.open_claim(run, claim, mode)).await
    }
    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        self.step(self.folders.close_claim(run, claim)).await
    }
    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError> {
        self.step(self.folders.abandon_claim(run, claim, remove)).await
    }
    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError> {
        self.step(self.folders.start_mover(job, secret)).await
    }
    fn can_start(&self) -> bool {
        self.folders.can_start()
    }
    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
        self.step(self.folders.start(set, ordinal)).await
    }
}

fn web() -> SetName {
    "shop/web".parse().unwrap()
}

/// A repository with one point of three ordinals, and a place where two of them hold something else and the third is not there.
struct World {
    keepset: Keepset,
    /// What the point holds.
    live: PathBuf,
    /// What the place holds before a restore.
    template: PathBuf,
    repository: Repository,
    places: AtomicUsize,
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

impl World {
    async fn new() -> World {
        let keepset = Keepset::new();
        let live = keepset.set(3);
        std::os::unix::fs::symlink("app.yaml", live.join("data-web-1/conf/link")).unwrap();
        keepset.backup(&live);
        let template = keepset.path("template");
        copy(&live, &template);
        fs::remove_dir_all(template.join("data-web-2")).unwrap();
        for ordinal in 0..2 {
            let claim = template.join(format!("data-web-{ordinal}"));
            let mut pages = fs::read(claim.join("pages")).unwrap();
            pages[150_000..150_100].fill(7);
            pages.truncate(250_000);
            fs::write(claim.join("pages"), pages).unwrap();
            fs::write(claim.join("newer"), "written since").unwrap();
            fs::remove_dir_all(claim.join("conf")).unwrap();
            fs::write(claim.join("conf"), "a file now").unwrap();
        }
        let store = Store::open(&Location::Folder(keepset.path("repository")), &std::collections::HashMap::new()).unwrap();
        let password = fs::read_to_string(keepset.path("password")).unwrap();
        let repository = Repository::open(store, &Password::chosen(password.trim_end().into())).await.unwrap();
        World { keepset, live, template, repository, places: AtomicUsize::new(0) }
    }

    /// A fresh place.
    fn place(&self) -> PathBuf {
        let place = self.keepset.path(&format!("place-{}", self.places.fetch_add(1, Ordering::Relaxed)));
        copy(&self.template, &place);
        place
    }

    fn platform(&self, place: &Path, nth: usize, after: bool) -> Arc<Dying> {
        let log = place.join("started");
        let marks = "$(ls -A $KEEPSET_DIR | grep -c incomplete)";
        let script = format!("echo $KEEPSET_ORDINAL with {marks} marks >> {}", log.display());
        let start_command = StartCommand {
            command: vec!["sh".into(), "-c".into(), script],
            ready: None,
            deadline: Duration::from_secs(60),
            interval: Duration::from_millis(1),
        };
        let folders = Folders::new(FoldersOptions {
            repository: None,
            withheld: Vec::new(),
            root: place.to_owned(),
            cluster: "test".into(),
            templates: Vec::new(),
            start: None,
            replicas: None,
            program: env!("CARGO_BIN_EXE_keepset").into(),
            program_args: vec!["mover".into()],
            start_command: Some(start_command),
        });
        Arc::new(Dying { folders, calls: AtomicUsize::new(0), nth, after, dead: Notify::new() })
    }

    fn location(&self) -> String {
        self.keepset.path("repository").display().to_string()
    }

    fn options(&self) -> RestoreOptions {
        RestoreOptions { replace: true, start: StartMode::Ordered, location: self.location(), ..RestoreOptions::default() }
    }

    /// The restore, and what says that it is dead. The sender keeps it from being interrupted.
    fn restore(&self, place: &Path, nth: usize, after: bool) -> (Restore, Arc<Dying>, watch::Sender<bool>) {
        let platform = self.platform(place, nth, after);
        let (send, cancel) = watch::channel(false);
        let backup = Backup {
            repository: self.repository.clone(),
            platform: platform.clone(),
            clock: Clock::system(),
            monitor: Arc::new(Silent),
            identity: LockIdentity::this_process(Some("here".into()), "root".into()),
            cancel,
        };
        let restore = restore_beside(backup, BackupOptions { location: self.location(), ..BackupOptions::default() });
        (restore, platform, send)
    }

    /// True where it died.
    async fn run(&self, place: &Path, nth: usize, after: bool) -> bool {
        let (restore, platform, _alive) = self.restore(place, nth, after);
        let (set, options) = (web(), self.options());
        tokio::select! {
            done = restore.run(&set, &options) => { done.unwrap(); false }
            () = platform.dead.notified() => true,
        }
    }

    async fn resume(&self, place: &Path, nth: usize, after: bool) -> Option<Result<(), RestoreError>> {
        let (restore, platform, _alive) = self.restore(place, nth, after);
        let (set, options) = (web(), self.options());
        tokio::select! {
            done = restore.resume(&set, None, &options) => Some(done.map(|_| ())),
            () = platform.dead.notified() => None,
        }
    }

    async fn undo(&self, place: &Path, nth: usize, after: bool) -> Option<Result<(), RestoreError>> {
        let (restore, platform, _alive) = self.restore(place, nth, after);
        let (set, options) = (web(), self.options());
        tokio::select! {
            done = restore.undo(&set, None, &options) => Some(done.map(|_| ())),
            () = platform.dead.notified() => None,
        }
    }

    fn journal(place: &Path) -> Option<String> {
        fs::read_to_string(place.join(".keepset-restore-web")).ok()
    }

    /// No mark, no open journal.
    fn assert_tidy(place: &Path) {
        for entry in fs::read_dir(place).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(".keepset-") || name == ".keepset-restored-web", "{name} is left in {}", place.display());
        }
    }

    fn assert_restored(&self, place: &Path) {
        for ordinal in 0..3 {
            let claim = format!("data-web-{ordinal}");
            assert_same(&self.live.join(&claim), &place.join(&claim));
        }
        World::assert_tidy(place);
        let started = fs::read_to_string(place.join("started")).unwrap();
        let mut order: Vec<&str> = started.lines().collect();
        // Whoever died between a start and its note starts that one again.
        order.dedup();
        assert_eq!(order, ["0 with 0 marks", "1 with 0 marks", "2 with 0 marks"]);
    }

    fn assert_untouched(&self, place: &Path) {
        for ordinal in 0..2 {
            let claim = format!("data-web-{ordinal}");
            assert_same(&self.template.join(&claim), &place.join(&claim));
        }
        assert!(!place.join("data-web-2").exists());
        World::assert_tidy(place);
    }

    /// Brings a place whose restore died to an end, and looks whether it is the right one.
    async fn mend(&self, place: &Path, undo: bool) {
        let Some(text) = World::journal(place) else {
            // Before the journal began, or after it was closed.
            if place.join("started").exists() {
                return self.assert_restored(place);
            }
            self.assert_untouched(place);
            assert!(!self.run(place, 0, false).await);
            return self.assert_restored(place);
        };
        if undo {
            match self.undo(place, 0, false).await.unwrap() {
                Ok(()) => return self.assert_untouched(place),
                Err(RestoreError::Refused(Refusal::AlreadyStarted { .. })) => assert!(text.contains("starting"), "{text}"),
                Err(error) => panic!("{error}: {text}"),
            }
        }
        self.resume(place, 0, false).await.unwrap().unwrap_or_else(|error| panic!("{error}: {text}"));
        self.assert_restored(place);
    }
}

#[tokio::test]
async fn a_restore_that_dies_at_any_step_is_resumed_or_undone() {
    let world = World::new().await;
    for after in [false, true] {
        let mut nth = 1;
        loop {
            let place = world.place();
            if !world.run(&place, nth, after).await {
                world.assert_restored(&place);
                break;
            }
            world.mend(&place, (nth % 2 == 0) == after).await;
            fs::remove_dir_all(place).unwrap();
            nth += 1;
        }
        assert!(nth > 30, "only {nth} steps: does the platform still see all of them?");
    }
    // The dead were this very process, so that only its user can know that their locks are in nobody's hand.
    world.keepset.ok(["unlock", "--all"]);
    let restic = Restic::new(world.location(), fs::read_to_string(world.keepset.path("password")).unwrap().trim_end());
    restic.check();
}

/// A place whose restore died when one claim was replaced, one half and one not yet.
async fn half_done(world: &World) -> PathBuf {
    for nth in 1.. {
        let place = world.place();
        assert!(world.run(&place, nth, true).await);
        let text = World::journal(&place).unwrap_or_default();
        let has = |word: &str, claim: u32| text.lines().any(|line| line.contains(word) && line.contains(&format!("data-web-{claim}\"")));
        if has("\"filled\"", 0) && has("\"filling\"", 1) {
            return place;
        }
        fs::remove_dir_all(place).unwrap();
    }
    unreachable!()
}

#[tokio::test]
async fn an_undo_that_dies_at_any_step_is_undone_by_the_next_one() {
    let world = World::new().await;
    let half = half_done(&world).await;
    for after in [false, true] {
        for nth in 1.. {
            let place = world.place();
            fs::remove_dir_all(&place).unwrap();
            copy(&half, &place);
            let ended = world.undo(&place, nth, after).await;
            if let Some(done) = ended {
                done.unwrap();
                world.assert_untouched(&place);
                assert!(nth > 5);
                break;
            }
            if World::journal(&place).is_some_and(|text| text.contains("undoing")) {
                let refused = world.resume(&place, 0, false).await.unwrap().unwrap_err();
                assert!(matches!(refused, RestoreError::Refused(Refusal::BeingUndone { .. })), "{refused}");
            }
            if World::journal(&place).is_some() {
                world.undo(&place, 0, false).await.unwrap().unwrap();
            }
            world.assert_untouched(&place);
            fs::remove_dir_all(place).unwrap();
        }
    }
}

#[tokio::test]
async fn a_resume_that_dies_at_any_step_is_finished_by_the_next_one() {
    let world = World::new().await;
    let half = half_done(&world).await;
    for nth in 1.. {
        let place = world.place();
        fs::remove_dir_all(&place).unwrap();
        copy(&half, &place);
        if let Some(done) = world.resume(&place, nth, nth % 2 == 0).await {
            done.unwrap();
            world.assert_restored(&place);
            assert!(nth > 10);
            break;
        }
        world.mend(&place, nth % 3 == 0).await;
        fs::remove_dir_all(place).unwrap();
    }
}

#[tokio::test]
async fn while_a_restore_is_at_work_nobody_else_touches_its_claims() {
    let world = World::new().await;
    let place = world.place();
    let (restore, platform, _alive) = world.restore(&place, 18, false);
    let (set, options) = (web(), world.options());
    let run = restore.run(&set, &options);
    tokio::pin!(run);
    tokio::select! {
        _ = &mut run => panic!("it was to stop in the middle"),
        () = platform.dead.notified() => {}
    }
    assert!(World::journal(&place).is_some());
    for held in [world.resume(&place, 0, false).await.unwrap(), world.undo(&place, 0, false).await.unwrap()] {
        let error = held.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Locked, "{error}");
    }
    let other = world.restore(&place, 0, false).0.run(&set, &options).await.unwrap_err();
    assert!(matches!(other, RestoreError::Refused(Refusal::Open { .. })), "{other}");
}

/// The real program, killed for real: each line of the journal in turn, orchestrator and mover.
#[test]
fn a_restore_that_is_killed_at_any_line_of_its_journal_is_resumed_or_undone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let settings = "cluster: test\nsets:\n  - match: { namespace: shop, name: web }\n    start:\n      command: [sh, -c, 'echo {ordinal} with 0 marks >> {dir}/started']\n      deadline: 60s\n";
    fs::write(world.keepset.path("settings.yaml"), settings).unwrap();
    for victim in [Victim::Orchestrator, Victim::Mover] {
        for line in 1.. {
            let place = world.place();
            let into = place.to_str().unwrap();
            let journal = place.join(".keepset-restore-web");
            let mut command = world.keepset.command();
            command.args(["restore", "shop/web", "--replace", "--into", into]);
            let (ran, killed) = run_and_kill(command, victim, || lines_in(&journal) >= line);
            assert!(!ran.err.contains("panicked"), "{}", ran.err);
            let was_open = journal.exists();
            let end = if line % 2 == 0 && !place.join("started").exists() { "--undo" } else { "--resume" };
            if was_open {
                let mended = world.keepset.run(["restore", "shop/web", end, "--into", into]);
                let too_late = end == "--undo" && mended.code == 13 && mended.err.contains("have been started");
                if too_late {
                    world.keepset.ok(["restore", "shop/web", "--resume", "--into", into]);
                } else {
                    assert_eq!(mended.code, 0, "{victim:?}, line {line}: {}", mended.err);
                }
                if end == "--undo" && !too_late { world.assert_untouched(&place) } else { world.assert_restored(&place) }
            } else if ran.code == 0 {
                world.assert_restored(&place);
            } else {
                world.assert_untouched(&place);
            }
            fs::remove_dir_all(&place).unwrap();
            if line > 11 && !killed {
                break;
            }
        }
    }
    let restic = Restic::new(world.location(), fs::read_to_string(world.keepset.path("password")).unwrap().trim_end());
    world.keepset.ok(["unlock"]);
    restic.check();
}
