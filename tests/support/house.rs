//! A set of folders, and everything that keepset does with it in this very process, movers too, so that a store which fails on purpose can
//! be put under all of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keepset::backup::{Backup, BackupError, BackupOptions, Sealed};
use keepset::cli::safety::seal_by;
use keepset::clock::Clock;
use keepset::model::claim::{ClaimId, ClaimPlace};
use keepset::model::id::Id;
use keepset::model::manifest::Consistency;
use keepset::model::mover_job::{FillMode, MoverJob, MoverLine};
use keepset::model::set::{Ordinal, SetName};
use keepset::model::set_state::{CutClaim, SetState, Targets};
use keepset::monitor::Silent;
use keepset::mover;
use keepset::mover::error::MoverError;
use keepset::platform::folders::{Folders, FoldersOptions};
use keepset::platform::{JournalHold, Mover, Platform, PlatformError};
use keepset::repository::Repository;
use keepset::repository::check::{CheckOptions, CheckReport, check};
use keepset::repository::crypto::MasterKey;
use keepset::repository::forget::remove_snapshots;
use keepset::repository::index::Index;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::lock::{Lock, LockIdentity, LockOptions, Mode};
use keepset::repository::points::{Points, list_points};
use keepset::repository::prune::{Limits, Prune, PruneOptions, PruneReport};
use keepset::repository::reader::Reader;
use keepset::repository::repair::index::{IndexRepair, RepairOptions, repair};
use keepset::restore::{Restore, RestoreError, RestoreOptions, Restored};
use keepset::store::fault::Faulty;
use keepset::store::{Patience, Store};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};

use super::compare::compare;
use super::restic::Restic;
use super::tree::Dice;

pub type Failure = Box<dyn Error + Send + Sync>;

/// The set `shop/web` in a folder, its repository's password, and what the volumes held at each point that was sealed.
pub struct House {
    dir: TempDir,
    pub password: Password,
    /// A copy of the volumes for each point.
    pub kept: BTreeMap<Id, PathBuf>,
    pub clock: Clock,
}

/// What stands beside the claims of the set while a restore of it is open.
pub const JOURNAL: &str = ".keepset-restore-web";

/// A folder in memory where the machine has one: these tests write much, and prove nothing about disks.
pub fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

pub fn web() -> SetName {
    "shop/web".parse().unwrap()
}

/// A process that is gone: what a run under its name leaves behind, the next one may take away.
pub fn the_dead() -> LockIdentity {
    static GONE: OnceLock<u32> = OnceLock::new();
    let pid = *GONE.get_or_init(|| {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    });
    LockIdentity { pid, ..the_living() }
}

/// This process.
pub fn the_living() -> LockIdentity {
    LockIdentity::this_process(None, "root".into())
}

impl House {
    /// A set of so many ordinals, and no repository.
    pub fn new(ordinals: u32) -> House {
        let house = House { dir: scratch(), password: Password::generate().unwrap(), kept: BTreeMap::new(), clock: Clock::system() };
        for ordinal in 0..ordinals {
            let claim = house.live().join(format!("data-web-{ordinal}"));
            fs::create_dir_all(claim.join("conf")).unwrap();
            fs::write(claim.join("conf/app.yaml"), format!("ordinal: {ordinal}\n")).unwrap();
            std::os::unix::fs::symlink("conf/app.yaml", claim.join("link")).unwrap();
            fs::write(claim.join("pages"), Dice(u64::from(ordinal) + 1).bytes(100_000)).unwrap();
        }
        house
    }

    /// Two points of two ordinals, in memory, and a set that has changed since.
    pub async fn with_two_points() -> (House, InMemory) {
        let mut house = House::new(2);
        let memory = Arc::new(InMemory::new());
        let store = Store::from_object_store(memory.clone(), "memory", Patience::local());
        Repository::init(store.clone(), &house.password, KeyOrigin::default()).await.unwrap();
        for change in 1..3 {
            let sealed = house.backup(&store, the_living()).await.unwrap();
            house.keep(sealed.point);
            house.change(change);
        }
        drop(store);
        (house, memory.fork())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The volumes.
    pub fn live(&self) -> PathBuf {
        self.path("live")
    }

    /// Adds, changes and removes something in every volume.
    pub fn change(&self, number: u64) {
        for claim in fs::read_dir(self.live()).unwrap() {
            let claim = claim.unwrap().path();
            fs::write(claim.join(format!("new-{number}")), Dice(number).bytes(20_000)).unwrap();
            fs::write(claim.join("conf/app.yaml"), format!("changed {number} times\n")).unwrap();
            let _ = fs::remove_file(claim.join(format!("new-{}", number - 1)));
        }
    }

    /// Remembers what the volumes hold now as what this point must bring back.
    pub fn keep(&mut self, point: Id) {
        let copy = self.path(&format!("kept-{}", point.short()));
        let status = Command::new("cp").arg("-a").arg(self.live()).arg(&copy).status().unwrap();
        assert!(status.success());
        self.kept.insert(point, copy);
    }

    pub async fn open(&self, store: &Store) -> Result<Repository, Failure> {
        Ok(Repository::open(store.clone(), &self.password).await?)
    }

    /// A backup of the volumes as they are now, under the name of `identity`.
    pub async fn backup(&self, store: &Store, identity: LockIdentity) -> Result<Sealed, Failure> {
        Ok(self.backup_of(&web(), self.open(store).await?, identity).await?)
    }

    /// The same of another set in the same folder, in a repository that is open.
    pub async fn backup_of(&self, set: &SetName, repository: Repository, identity: LockIdentity) -> Result<Sealed, BackupError> {
        let (_cancel, cancelled) = watch::channel(false);
        let backup = Backup {
            platform: Arc::new(InProcess::new(self.live(), repository.store().clone())),
            repository,
            clock: self.clock.clone(),
            monitor: Arc::new(Silent),
            identity,
            cancel: cancelled,
        };
        backup.run(set, &BackupOptions { wait_lock: Duration::ZERO, ..BackupOptions::default() }).await
    }

    /// A restore of a point into a folder that does not exist.
    pub async fn restore(&self, store: &Store, point: &Id, into: &Path, identity: LockIdentity) -> Result<Restored, Failure> {
        let repository = self.open(store).await?;
        Ok(self.restore_from(repository, point, into, identity).await?)
    }

    pub async fn restore_from(
        &self,
        repository: Repository,
        point: &Id,
        into: &Path,
        identity: LockIdentity,
    ) -> Result<Restored, RestoreError> {
        let (_cancel, restore) = self.restorer(repository, into, identity);
        let options = RestoreOptions { point: point.hex().parse().unwrap(), wait_lock: Duration::ZERO, ..RestoreOptions::default() };
        restore.run(&web(), &options).await
    }

    /// A restore of a point over the volumes themselves, which gives up the way back.
    pub async fn restore_over(&self, store: &Store, point: &Id) -> Result<Restored, Failure> {
        let (_cancel, restore) = self.restorer(self.open(store).await?, &self.live(), the_living());
        let options = RestoreOptions {
            point: point.hex().parse().unwrap(),
            replace: true,
            safety: false,
            wait_lock: Duration::ZERO,
            ..RestoreOptions::default()
        };
        Ok(restore.run(&web(), &options).await?)
    }

    /// Goes on with a restore into a folder that was left open there.
    pub async fn resume(&self, store: &Store, into: &Path) -> Result<Restored, Failure> {
        let (_cancel, restore) = self.restorer(self.open(store).await?, into, the_living());
        Ok(restore.resume(&web(), None, &RestoreOptions { wait_lock: Duration::ZERO, ..RestoreOptions::default() }).await?)
    }

    /// What keeps a restore from being interrupted, and the restore.
    fn restorer(&self, repository: Repository, into: &Path, identity: LockIdentity) -> (watch::Sender<bool>, Restore) {
        let (keep, cancelled) = watch::channel(false);
        let backup = Backup {
            platform: Arc::new(InProcess::new(into.to_owned(), repository.store().clone())),
            repository,
            clock: self.clock.clone(),
            monitor: Arc::new(Silent),
            identity,
            cancel: cancelled,
        };
        (keep, restore_beside(backup, BackupOptions { wait_lock: Duration::ZERO, ..BackupOptions::default() }))
    }

    /// Removes this point, as `keepset forget` does: under an exclusive lock, after a look at all points.
    pub async fn forget(&self, store: &Store, point: &Id, identity: LockIdentity) -> Result<(), Failure> {
        let repository = self.open(store).await?;
        let options = LockOptions { identity, wait: Duration::ZERO, clock: self.clock.clone() };
        let lock = Lock::acquire(&repository, Mode::Exclusive, &options, &Silent).await?;
        let work = async {
            let index = Arc::new(Index::load(&repository).await?);
            let points = list_points(&Reader::new(&repository, index), None).await?;
            let ids: Vec<Id> = points.points.iter().map(|stored| stored.point.id).filter(|id| id == point).collect();
            Ok::<_, Failure>(remove_snapshots(&repository, &lock, &ids).await?)
        };
        let done = work.await;
        let released = lock.release().await;
        done?;
        Ok(released?)
    }

    /// Takes out of the index what is gone, and adds what it lacks.
    pub async fn repair_index(&self, store: &Store, identity: LockIdentity) -> Result<IndexRepair, Failure> {
        let repository = self.open(store).await?;
        let options = LockOptions { identity, wait: Duration::ZERO, clock: self.clock.clone() };
        let lock = Lock::acquire(&repository, Mode::Exclusive, &options, &Silent).await?;
        let done = repair(&repository, &lock, RepairOptions::default(), &Silent).await;
        let released = lock.release().await;
        let done = done?;
        released?;
        Ok(done)
    }

    /// Gives back all unused space, as far as one call can.
    pub async fn prune(&self, store: &Store, identity: LockIdentity) -> Result<PruneReport, Failure> {
        let repository = self.open(store).await?;
        let (_cancel, cancelled) = watch::channel(false);
        let lock = LockOptions { identity, wait: Duration::ZERO, clock: self.clock.clone() };
        let options = PruneOptions {
            allow_no_snapshots: true,
            limits: Limits { max_unused: 0.0, max_repack: None },
            dry_run: false,
            now: true,
            young: chrono::TimeDelta::zero(),
            memory: 64 << 20,
        };
        let prune = Prune { repository: &repository, lock: &lock, options, monitor: &Silent, cancel: cancelled };
        Ok(prune.run().await?)
    }

    pub async fn points(&self, store: &Store) -> Result<Points, Failure> {
        let repository = self.open(store).await?;
        let index = Arc::new(Index::load(&repository).await?);
        Ok(list_points(&Reader::new(&repository, index), None).await?)
    }

    pub async fn check(&self, store: &Store) -> Result<CheckReport, Failure> {
        let repository = self.open(store).await?;
        Ok(check(&repository, &CheckOptions { read_data: Some(100.0), seed: 0, workers: 2 }, &Silent).await?)
    }

    /// What every state of a repository must keep: nothing is damaged, every known point but those of `gone` is there and whole, and every
    /// whole point restores bit-exact, new ones as the volumes are now. Returns the new ones.
    pub async fn prove(&self, store: &Store, gone: &[Id], about: &str) -> Vec<Id> {
        let report = self.check(store).await.unwrap();
        assert!(report.is_sound(), "{about}: {:?}", report.findings);
        self.prove_points(store, gone, about).await
    }

    /// The same, but for what no point needs.
    pub async fn prove_points(&self, store: &Store, gone: &[Id], about: &str) -> Vec<Id> {
        let points = self.points(store).await.unwrap();
        assert!(points.foreign.is_empty(), "{about}: {:?}", points.foreign);
        let there: Vec<Id> = points.points.iter().map(|point| point.point.id).collect();
        for known in self.kept.keys().filter(|id| !gone.contains(id)) {
            assert!(there.contains(known), "{about}: point {known} is gone");
        }
        for point in &points.points {
            assert!(point.point.complete, "{about}: point {} is partial: {:?}", point.point.id, point.defects);
            self.prove_point(store, &point.point.id, about).await;
        }
        there.into_iter().filter(|id| !self.kept.contains_key(id)).collect()
    }

    /// This point restores bit-exact.
    pub async fn prove_point(&self, store: &Store, point: &Id, about: &str) {
        let place = scratch();
        let back = place.path().join("back");
        if let Err(error) = self.restore(store, point, &back, the_living()).await {
            panic!("{about}: point {point} does not restore: {}", chain(error.as_ref()));
        }
        let live = self.live();
        let expected = self.kept.get(point).unwrap_or(&live);
        for claim in fs::read_dir(expected).unwrap() {
            let name = claim.unwrap().file_name();
            let differences = compare(&expected.join(&name), &back.join(&name));
            assert!(differences.is_empty(), "{about}: point {point}, {}: {differences:?}", name.display());
        }
        assert_eq!(fs::read_dir(&back).unwrap().count(), fs::read_dir(expected).unwrap().count(), "{about}");
    }

    /// Stock restic finds nothing worse than packs that nobody uses.
    pub async fn restic_is_content(&self, store: &dyn ObjectStore, about: &str) {
        use futures::TryStreamExt;
        let place = scratch();
        // restic wants every folder, empty or not.
        for folder in ["data", "index", "keys", "locks", "snapshots"] {
            fs::create_dir(place.path().join(folder)).unwrap();
        }
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        for meta in listed {
            let path = place.path().join(meta.location.as_ref());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, store.get(&meta.location).await.unwrap().bytes().await.unwrap()).unwrap();
        }
        let restic = Restic::new(place.path().to_str().unwrap(), std::str::from_utf8(self.password.reveal()).unwrap());
        let output = restic.try_run(["check", "--read-data", "--no-lock"]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{about}: {said}");
    }
}

/// A fork of what is in memory, and the same under a store that fails once it is told to.
pub fn faulty(base: &InMemory) -> (Arc<InMemory>, Faulty) {
    let memory = Arc::new(base.fork());
    (memory.clone(), Faulty::over(memory))
}

/// Of what a store holds, the names in one folder.
pub async fn names(store: &dyn ObjectStore, folder: &str) -> Vec<String> {
    use futures::TryStreamExt;
    store.list(Some(&folder.into())).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

/// An error with all its causes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Folders whose movers run in this process, on the very store that the test holds.
pub struct InProcess {
    folders: Folders,
    store: Store,
}

/// A restore with the means of a backup, which seals its safety points.
pub fn restore_beside(backup: Backup, options: BackupOptions) -> Restore {
    Restore {
        repository: backup.repository.clone(),
        platform: backup.platform.clone(),
        clock: backup.clock.clone(),
        monitor: backup.monitor.clone(),
        identity: backup.identity.clone(),
        cancel: backup.cancel.clone(),
        seal_safety: seal_by(backup, options),
    }
}

impl InProcess {
    pub fn new(root: PathBuf, store: Store) -> Self {
        let options = FoldersOptions {
            repository: None,
            withheld: Vec::new(),
            root,
            cluster: "here".into(),
            templates: Vec::new(),
            start: None,
            replicas: None,
            program: PathBuf::new(),
            program_args: Vec::new(),
            start_command: None,
        };
        InProcess { folders: Folders::new(options), store }
    }
}

#[async_trait::async_trait]
impl Platform for InProcess {
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError> {
        self.folders.read_set(set).await
    }

    async fn cut(&self, run: &str, set: &SetName, claims: &[ClaimId], consistency: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        self.folders.cut(run, set, claims, consistency).await
    }

    async fn read_targets(&self, set: &SetName, claims: &[ClaimId], measure: bool) -> Result<Targets, PlatformError> {
        self.folders.read_targets(set, claims, measure).await
    }

    async fn read_journal(&self, set: &SetName) -> Result<Option<String>, PlatformError> {
        self.folders.read_journal(set).await
    }

    async fn open_journal(&self, set: &SetName, first: &str) -> Result<JournalHold, PlatformError> {
        self.folders.open_journal(set, first).await
    }

    async fn take_journal(&self, set: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        self.folders.take_journal(set).await
    }

    async fn append_journal(&self, hold: &mut JournalHold, line: &str) -> Result<(), PlatformError> {
        self.folders.append_journal(hold, line).await
    }

    async fn close_journal(&self, hold: JournalHold) -> Result<(), PlatformError> {
        self.folders.close_journal(hold).await
    }

    async fn open_claim(&self, run: &str, claim: &ClaimPlace, mode: FillMode) -> Result<String, PlatformError> {
        self.folders.open_claim(run, claim, mode).await
    }

    async fn close_claim(&self, run: &str, claim: &ClaimPlace) -> Result<(), PlatformError> {
        self.folders.close_claim(run, claim).await
    }

    async fn abandon_claim(&self, run: &str, claim: &ClaimPlace, remove: bool) -> Result<(), PlatformError> {
        self.folders.abandon_claim(run, claim, remove).await
    }

    async fn start_mover(&self, job: &MoverJob, secret: &[u8]) -> Result<Mover, PlatformError> {
        let (job, store, key) = (job.clone(), self.store.clone(), MasterKey::from_bytes(secret.try_into().unwrap()));
        let (send, lines) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let give_up = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&give_up);
        let task = tokio::spawn(async move {
            let work = async {
                let repository = Repository::with_key(store, key).await?;
                mover::run(job, repository, Clock::system(), Arc::default(), give_up).await
            };
            let listen = async {
                if stopped.await.is_ok() {
                    asked.store(true, Ordering::SeqCst);
                }
                std::future::pending::<()>().await;
            };
            let done: Result<_, MoverError> = tokio::select! {
                done = work => done,
                () = listen => unreachable!("it listens for ever"),
            };
            let line = match done {
                Ok(report) => MoverLine::Report(report),
                Err(error) => MoverLine::Failed { error: chain(&error), hint: error.hint(), kind: error.kind() },
            };
            let _ = send.send(line).await;
            Ok(())
        });
        Ok(Mover::new(lines, stop, task))
    }

    fn can_start(&self) -> bool {
        false
    }

    async fn start(&self, set: &SetName, ordinal: Ordinal) -> Result<(), PlatformError> {
        self.folders.start(set, ordinal).await
    }
}
