//! A repository in memory whose store can fail, a small writer that works by the rules of a backup, and what must come back from it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::TryStreamExt;
use keepset::clock::Clock;
use keepset::model::entry::{Attrs, Entry, Kind};
use keepset::model::id::Id;
use keepset::monitor::Silent;
use keepset::repository::Repository;
use keepset::repository::check::{CheckOptions, CheckReport, check};
use keepset::repository::error::RepositoryError;
use keepset::repository::forget::remove_snapshots;
use keepset::repository::index::Index;
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::lock::{Lock, LockIdentity, LockOptions, LockRecord, Mode, unlock};
use keepset::repository::pack::BlobKind;
use keepset::repository::prune::record::Records;
use keepset::repository::prune::{Limits, Prune, PruneError, PruneOptions, PruneReport};
use keepset::repository::reader::Reader;
use keepset::repository::snapshot::{self, Snapshot};
use keepset::repository::tree;
use keepset::repository::writer::{Writer, WriterOptions};
use keepset::store::fault::{Fault, Faulty, Kind as CallKind};
use keepset::store::{Patience, Store};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::watch;

use super::restic::Restic;
use super::tree::Dice;

/// Files of one folder by name; each is one chunk.
pub type Files = BTreeMap<String, Vec<u8>>;

pub struct Ground {
    inner: Arc<InMemory>,
    pub faulty: Faulty,
    pub repository: Repository,
    password: String,
    /// What each snapshot must give back.
    pub points: BTreeMap<Id, Files>,
}

/// A writer between its lock and its seal.
pub struct Run {
    pub lock: Lock,
    writer: Writer,
}

pub fn files(seeds: impl IntoIterator<Item = u64>) -> Files {
    seeds.into_iter().map(|seed| (format!("file-{seed:04}"), Dice(seed).bytes(3000 + (seed as usize * 977) % 9000))).collect()
}

impl Ground {
    pub async fn new() -> Ground {
        let inner = Arc::new(InMemory::new());
        let password = "a password of the tests".to_owned();
        let store = Faulty::over(inner.clone()).store(Patience::local());
        let origin = KeyOrigin::default();
        Repository::init(store, &Password::chosen(password.clone().into()), origin).await.unwrap();
        Ground::on(inner, password, BTreeMap::new()).await
    }

    async fn on(inner: Arc<InMemory>, password: String, points: BTreeMap<Id, Files>) -> Ground {
        let faulty = Faulty::over(inner.clone());
        let store = faulty.store(Patience::local());
        let repository = Repository::open(store, &Password::chosen(password.clone().into())).await.unwrap();
        Ground { inner, faulty, repository, password, points }
    }

    /// The same store, as another process sees it.
    pub async fn beside(&self) -> Ground {
        let faulty = Faulty::over(self.inner.clone());
        let repository = Repository::with_key(faulty.store(Patience::local()), self.repository.master_key().clone()).await.unwrap();
        Ground { inner: self.inner.clone(), faulty, repository, password: self.password.clone(), points: self.points.clone() }
    }

    /// The same in a store of its own.
    pub async fn copy(&self) -> Ground {
        let inner = InMemory::new();
        let mut objects = self.inner.list(None);
        while let Some(meta) = objects.try_next().await.unwrap() {
            let bytes = self.inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
            inner.put(&meta.location, bytes.into()).await.unwrap();
        }
        drop(objects);
        Ground { inner: Arc::new(inner), ..self.beside().await }.beside().await
    }

    pub fn lock_options(&self, wait: Duration) -> LockOptions {
        LockOptions { identity: LockIdentity::this_process(Some("here".into()), "root".into()), wait, clock: Clock::system() }
    }

    /// As a backup begins: lock, then index and marks.
    pub async fn begin(&self) -> Result<Run, RepositoryError> {
        let lock = Lock::acquire(&self.repository, Mode::Shared, &self.lock_options(Duration::ZERO), &Silent).await?;
        let index = Arc::new(Index::load(&self.repository).await?);
        let avoided = Records::load(&self.repository).await?.packs();
        let options = WriterOptions { level: 1, pack_size: 40_000, full_packs: 2 };
        Ok(Run { writer: Writer::avoiding(&self.repository, index, avoided, options), lock })
    }

    /// As it ends: packs, index, snapshot, lock.
    pub async fn seal(&mut self, run: Run, files: &Files) -> Result<Id, RepositoryError> {
        let (adding, content) = (run.writer.clone(), files.clone());
        let tree = tokio::task::spawn_blocking(move || {
            let mut encoder = adding.encoder()?;
            let mut entries = Vec::new();
            for (name, bytes) in content {
                let chunk = adding.add(&mut encoder, BlobKind::Data, &bytes)?.id;
                let attrs = Attrs { mode: 0o600, size: bytes.len() as u64, links: 1, ..Attrs::default() };
                entries.push(Entry { name: name.into_bytes(), kind: Kind::File { content: vec![chunk].into() }, attrs });
            }
            let folder = adding.add(&mut encoder, BlobKind::Tree, &tree::encode(&entries))?.id;
            let entry = Entry {
                name: b"folder".to_vec(),
                kind: Kind::Dir { subtree: Some(folder) },
                attrs: Attrs { mode: 0o700, ..Attrs::default() },
            };
            Ok::<_, RepositoryError>(adding.add(&mut encoder, BlobKind::Tree, &tree::encode(&[entry]))?.id)
        });
        let tree = tree.await.unwrap()?;
        run.writer.finish().await?;
        run.lock.prove().await?;
        let time = Clock::system().local().to_rfc3339();
        let snapshot = Snapshot { time, tree: Some(tree), paths: vec!["/x".into()], hostname: "here".into(), ..Snapshot::default() };
        let id = snapshot::save(&self.repository, &snapshot).await?;
        self.points.insert(id, files.clone());
        run.lock.release().await?;
        Ok(id)
    }

    pub async fn backup(&mut self, files: &Files) -> Result<Id, RepositoryError> {
        let run = self.begin().await?;
        self.seal(run, files).await
    }

    pub async fn forget(&mut self, id: &Id) {
        let lock = Lock::acquire(&self.repository, Mode::Exclusive, &self.lock_options(Duration::ZERO), &Silent).await.unwrap();
        remove_snapshots(&self.repository, &lock, &[*id]).await.unwrap();
        lock.release().await.unwrap();
        self.points.remove(id);
    }

    /// Packs of a run that died before it put an index; their names.
    pub async fn orphan(&self, seeds: std::ops::Range<u64>) -> Vec<String> {
        let mut dying = self.copy().await;
        dying.faulty.obey(|_, call| (call.kind == CallKind::Put && call.key.starts_with("index/")).then_some(Fault::Dead));
        dying.backup(&files(seeds)).await.unwrap_err();
        dying.reboot().await;
        let known = self.repository.store().list("data").await.unwrap();
        let mut orphans = Vec::new();
        for pack in dying.repository.store().list("data").await.unwrap() {
            if !known.iter().any(|object| object.key == pack.key) {
                self.repository.store().put_new(&pack.key, dying.repository.store().get(&pack.key).await.unwrap()).await.unwrap();
                orphans.push(pack.key);
            }
        }
        orphans
    }

    pub async fn remove(&self, keys: &[String]) {
        self.repository.store().delete(keys).await.unwrap();
    }

    /// A lock as stock restic writes it.
    pub async fn foreign_lock(&self) -> Id {
        let text = format!(
            r#"{{"time":"{}","exclusive":false,"hostname":"elsewhere","username":"root","pid":7}}"#,
            Clock::system().local().to_rfc3339()
        );
        let record: LockRecord = serde_json::from_str(&text).unwrap();
        self.repository.put_sealed("locks", &serde_json::to_vec(&record).unwrap()).await.unwrap()
    }

    pub async fn remove_lock(&self, id: &Id) {
        self.repository.store().delete(&[format!("locks/{id}")]).await.unwrap();
    }

    /// Everything that a prune can find, and no waiting.
    pub async fn prune(&self) -> Result<PruneReport, PruneError> {
        self.prune_with(|_| {}).await
    }

    pub async fn prune_with(&self, set: impl FnOnce(&mut PruneOptions)) -> Result<PruneReport, PruneError> {
        self.prune_waiting(Duration::ZERO, set).await
    }

    /// While others hold locks, their own packs are told from older ones by the lock's age: all that is older than the newest lock counts.
    pub async fn prune_waiting(&self, wait: Duration, set: impl FnOnce(&mut PruneOptions)) -> Result<PruneReport, PruneError> {
        let limits = Limits { max_unused: 0.0, max_repack: None };
        let mut options =
            PruneOptions { allow_no_snapshots: true, limits, dry_run: false, now: false, young: TimeDelta::zero(), memory: 32 << 20 };
        set(&mut options);
        let (_asks, cancel) = watch::channel(false);
        let lock = self.lock_options(wait);
        Prune { repository: &self.repository, lock: &lock, options, monitor: &Silent, cancel }.run().await
    }

    /// The process that worked on it has died, and its locks are taken away. What it may still do in the background fails.
    pub async fn reboot(&mut self) {
        *self = Ground { points: std::mem::take(&mut self.points), ..self.beside().await };
        unlock(&self.repository, true, "here", &Clock::system()).await.unwrap();
    }

    /// Every snapshot that there should be is there, and gives every byte back.
    pub async fn assert_whole(&self, when: &str) {
        let mut ids = self.repository.ids(snapshot::FOLDER).await.unwrap();
        ids.sort();
        assert_eq!(ids, self.points.keys().copied().collect::<Vec<_>>(), "{when}");
        let reader = Reader::new(&self.repository, Arc::new(Index::load(&self.repository).await.unwrap()));
        for (id, files) in &self.points {
            let root = snapshot::load(&self.repository, id).await.unwrap().tree.unwrap();
            let root = reader.tree(&root).await.unwrap_or_else(|error| panic!("{when}: {error}"));
            let Kind::Dir { subtree: Some(folder) } = root[0].kind else { panic!("{when}: no folder") };
            let mut back = Files::new();
            for entry in reader.tree(&folder).await.unwrap_or_else(|error| panic!("{when}: {error}")) {
                let Kind::File { content } = entry.kind else { panic!("{when}: no file") };
                let bytes = reader.chunk(&content[0]).await.unwrap_or_else(|error| panic!("{when}: {error}"));
                back.insert(String::from_utf8(entry.name).unwrap(), bytes);
            }
            assert!(back == *files, "{when}: {id:?} gives back other bytes");
        }
        let report = self.check().await;
        assert!(report.is_sound(), "{when}: {:?}", report.findings);
    }

    pub async fn check(&self) -> CheckReport {
        check(&self.repository, &CheckOptions { read_data: None, seed: 0, workers: 2 }, &Silent).await.unwrap()
    }

    /// Bytes of all packs.
    pub async fn bytes(&self) -> u64 {
        self.repository.store().list("data").await.unwrap().iter().map(|object| object.size).sum()
    }

    /// No pack, index row or record is left that nothing needs.
    pub async fn assert_tidy(&self, when: &str) {
        assert_eq!(self.repository.store().list("x-keepset").await.unwrap(), [], "{when}");
        assert_eq!(self.repository.store().list("locks").await.unwrap(), [], "{when}");
        assert_eq!(self.check().await.findings, [], "{when}");
        let index = Index::load(&self.repository).await.unwrap();
        let listed = self.repository.store().list("data").await.unwrap().len();
        let named: HashSet<&Id> = index.packs().iter().collect();
        assert_eq!((named.len(), index.packs().len()), (listed, listed), "{when}");
        let chunks: HashSet<&Vec<u8>> = self.points.values().flat_map(|files| files.values()).collect();
        let rows = index.rows().filter(|(_, kind, _)| *kind == BlobKind::Data).count();
        assert_eq!(rows, chunks.len(), "{when}: chunks that nobody needs, or twice");
    }

    /// The repository as a folder, judged by stock restic: every pack read, every point restored.
    pub async fn assert_restic_agrees(&self, folder: &Path) {
        let store = Store::create(&folder.to_str().unwrap().parse().unwrap(), &Default::default()).unwrap();
        for object in self.repository.store().list("").await.unwrap() {
            store.put_new(&object.key, self.repository.store().get(&object.key).await.unwrap()).await.unwrap();
        }
        let (folder, password) = (folder.to_owned(), self.password.clone());
        let points = self.points.clone();
        let judge = move || {
            let restic = Restic::new(folder.to_str().unwrap(), &password);
            restic.check();
            for (id, files) in &points {
                let target = tempfile::tempdir().unwrap();
                restic.restore(&id.hex(), target.path(), "");
                for (name, bytes) in files {
                    assert!(std::fs::read(target.path().join("folder").join(name)).unwrap() == *bytes, "{name} of {id:?}");
                }
            }
        };
        tokio::task::spawn_blocking(judge).await.unwrap();
    }
}
