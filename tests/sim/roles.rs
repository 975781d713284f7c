//! What each role does, by the same functions that the verbs of `keepset` call.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use keepset::backup::{Backup, BackupError, BackupOptions};
use keepset::clock::Clock;
use keepset::model::id::Id;
use keepset::model::point::Point;
use keepset::monitor::Silent;
use keepset::repository::Repository;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::crypto::MasterKey;
use keepset::repository::error::RepositoryError;
use keepset::repository::forget::remove_snapshots;
use keepset::repository::index::{self, Index};
use keepset::repository::key::Password;
use keepset::repository::lock::{self, Lock, LockIdentity, LockOptions, LockRecord, Mode, locks};
use keepset::repository::pack::{self, BlobKind, PackEntry};
use keepset::repository::points::{StoredPoint, list_points};
use keepset::repository::prove::{packs_present, prove};
use keepset::repository::prune::{Limits, Prune, PruneError, PruneOptions};
use keepset::repository::reach::Rows;
use keepset::repository::reader::Reader;
use keepset::repository::{passwords, snapshot};
use keepset::retention::{self, Policy};
use keepset::store::{Patience, Store};
use tokio::time::sleep;

use super::model::Model;
use super::place::{Place, expected, read};
use super::scenario::{Actor, Role, SETS, Stock};
use super::store::{Door, Ground};

pub type Failure = Box<dyn Error + Send + Sync>;

/// One process, and what it was begun with.
pub struct Process {
    pub model: Arc<Mutex<Model>>,
    pub door: Door,
    pub store: Store,
    pub master: Arc<[u8; 64]>,
    pub clock: Clock,
    pub lock: LockOptions,
}

impl Process {
    pub fn new(ground: &Ground, door: Door, actor: &Actor, model: &Arc<Mutex<Model>>, master: &Arc<[u8; 64]>) -> Process {
        let clock = Clock::running(ground.now().timestamp_millis() + actor.skew * 1000);
        let identity = LockIdentity { hostname: actor.name.clone(), username: "sim".into(), pid: 7, ..LockIdentity::default() };
        let patience = Patience { attempt: Duration::from_secs(actor.attempt), outage: Duration::from_secs(actor.outage) };
        Process {
            model: Arc::clone(model),
            store: door.store(patience),
            door,
            master: Arc::clone(master),
            lock: LockOptions { identity, wait: Duration::from_secs(actor.wait), clock: clock.clone() },
            clock,
        }
    }

    pub async fn open(&self) -> Result<Repository, RepositoryError> {
        Repository::with_key(self.store.clone(), MasterKey::from_bytes(&self.master)).await
    }

    pub async fn run(&self, role: Role) -> Result<(), Failure> {
        match role {
            Role::Backup(set) => self.backup(SETS[set]).await,
            Role::Prune { max_unused, now } => self.prune(f64::from(max_unused), now, TimeDelta::days(1)).await,
            Role::Forget { last } => self.forget(last).await,
            Role::Check => self.check().await,
            Role::Restore => self.restore().await,
            Role::Password => self.password().await,
            Role::Unlock => self.unlock().await,
            Role::Stock(stock) => self.stock_prune(stock).await,
        }
    }

    /// One point of the set as it is now.
    pub async fn backup(&self, set: &str) -> Result<(), Failure> {
        let repository = self.open().await?;
        let place = Place { repository: repository.clone(), model: Arc::clone(&self.model), clock: self.clock.clone() };
        let backup = Backup {
            repository,
            platform: Arc::new(place),
            clock: self.clock.clone(),
            monitor: Arc::new(Silent),
            identity: self.lock.identity.clone(),
            cancel: self.door.life.stop(),
        };
        let options = BackupOptions { wait_lock: self.lock.wait, allow_moved_volumes: true, ..BackupOptions::default() };
        let sealed = backup.run(&set.parse().unwrap(), &options).await?;
        let mut model = self.model.lock().unwrap();
        if !sealed.complete {
            model.violations.push(format!("the point {} of {set} is partial", sealed.point));
        }
        model.points.insert(sealed.point, sealed.manifest.run);
        Ok(())
    }

    pub async fn prune(&self, max_unused: f64, now: bool, young: TimeDelta) -> Result<(), Failure> {
        let repository = self.open().await?;
        let options = PruneOptions {
            allow_no_snapshots: true,
            limits: Limits { max_unused, max_repack: None },
            dry_run: false,
            now,
            young,
            memory: 64 << 20,
        };
        Prune { repository: &repository, lock: &self.lock, options, monitor: &Silent, cancel: self.door.life.stop() }.run().await?;
        Ok(())
    }

    /// By the rule that keeps so many of each set.
    pub async fn forget(&self, last: u32) -> Result<(), Failure> {
        let repository = self.open().await?;
        self.locked(&repository, Mode::Exclusive, async |lock| {
            let (index, _) = Index::load_readable(&repository).await?;
            let points = list_points(&Reader::new(&repository, index.into()), None).await?;
            if let Some(damaged) = points.unreadable.first() {
                return Err(RepositoryError::damaged(format!("snapshot {}", damaged.id), &damaged.reason).into());
            }
            let judged: Vec<Point> = points.points.iter().map(|stored| stored.point.clone()).collect();
            let decisions = retention::decide(&judged, &Policy { last, ..Policy::default() }, self.clock.now(), &Utc)?;
            let ids: Vec<Id> = decisions.iter().filter(|decision| !decision.keep).map(|decision| decision.id).collect();
            self.model.lock().unwrap().going.extend(&ids);
            Ok(remove_snapshots(&repository, lock, &ids).await?)
        })
        .await
    }

    async fn check(&self) -> Result<(), Failure> {
        let repository = self.open().await?;
        self.locked(&repository, Mode::Shared, async |_| {
            let report = check(&repository, &CheckOptions { read_data: Some(100.0), seed: 0, workers: 1 }, &Silent).await?;
            if report.is_sound() {
                return Ok(());
            }
            Err(RepositoryError::damaged("what a check looked at", format!("{:?}", report.findings)).into())
        })
        .await
    }

    /// Every complete point, proven and read.
    async fn restore(&self) -> Result<(), Failure> {
        let repository = self.open().await?;
        self.locked(&repository, Mode::Reading, async |_| {
            let (index, _) = Index::load_readable(&repository).await?;
            let reader = Reader::new(&repository, Arc::new(index));
            let points = list_points(&reader, None).await?;
            let present = packs_present(&repository).await?;
            for point in &points.points {
                let entries = reader.tree(&point.tree).await?;
                let proof = prove(&reader, entries, &present).await?;
                if !proof.holds() {
                    return Err(RepositoryError::damaged(format!("point {}", point.point.id), proof.absent.join(", ")).into());
                }
                self.read_point(&reader, point).await?;
            }
            Ok(())
        })
        .await
    }

    /// Reads all of a point and compares it with what its run's movers read.
    pub async fn read_point(&self, reader: &Reader, point: &StoredPoint) -> Result<(), RepositoryError> {
        let wrong = |what: String| RepositoryError::damaged(format!("point {}", point.point.id), what);
        if !point.point.complete {
            return Err(wrong(format!("it is partial: {:?}", point.defects)));
        }
        let Some(known) = self.model.lock().unwrap().runs.get(&point.manifest.run).cloned() else {
            return Err(wrong(format!("there was no run {}", point.manifest.run)));
        };
        let mut back = BTreeMap::new();
        for claim in &point.claims {
            let tree = claim.tree.ok_or_else(|| wrong(format!("claim {} has no tree", claim.record.name)))?;
            back.insert(claim.record.name.clone(), read(reader, tree).await?);
        }
        let saved: BTreeMap<_, _> = known.iter().map(|(claim, files)| (claim.clone(), expected(files))).collect();
        if back == saved { Ok(()) } else { Err(wrong(format!("other bytes come back: {back:?} instead of {saved:?}"))) }
    }

    /// The password that is known to be in use is replaced by a new one.
    async fn password(&self) -> Result<(), Failure> {
        let (candidates, new) = (self.candidates(), Password::generate()?);
        let mut opened = None;
        for password in candidates {
            match Repository::open(self.store.clone(), &password).await {
                Ok(repository) => opened = Some((repository, password)),
                Err(RepositoryError::WrongPassword { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            break;
        }
        let Some((repository, current)) = opened else {
            return Err(RepositoryError::damaged("the repository's keys", "no known password opens any").into());
        };
        {
            let mut model = self.model.lock().unwrap();
            let sure = std::mem::take(&mut model.sure_passwords);
            model.passwords.extend(sure);
            model.passwords.push(new.clone());
        }
        passwords::replace(&repository, &current, &new, "sim", "here", &self.clock).await?;
        let mut model = self.model.lock().unwrap();
        model.passwords.clear();
        model.sure_passwords = vec![new];
        Ok(())
    }

    pub fn candidates(&self) -> Vec<Password> {
        let model = self.model.lock().unwrap();
        model.sure_passwords.iter().chain(model.passwords.iter().rev()).cloned().collect()
    }

    pub async fn unlock(&self) -> Result<(), Failure> {
        lock::unlock(&self.open().await?, false, &self.lock.identity.hostname, &self.clock).await?;
        Ok(())
    }

    /// Work under a lock, as the verbs do it: it ends when the lock is lost or the user wants it to.
    pub async fn locked<T>(
        &self,
        repository: &Repository,
        mode: Mode,
        work: impl AsyncFnOnce(&Lock) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut stop = self.door.life.stop();
        let stopped = async {
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(stopped);
        let lock = tokio::select! {
            biased;
            () = &mut stopped => return Err("interrupted".into()),
            lock = Lock::acquire(repository, mode, &self.lock, &Silent) => lock?,
        };
        let done = tokio::select! {
            biased;
            done = work(&lock) => done,
            lost = lock.lost() => Err(lost.into()),
            () = &mut stopped => Err("interrupted".into()),
        };
        let released = lock.release().await;
        let done = done?;
        released?;
        Ok(done)
    }

    /// The order of things in `restic prune`: an exclusive lock, then packs that no index names go, then new index objects, then the old
    /// ones and the packs that nothing needs.
    async fn stock_prune(&self, stock: Stock) -> Result<(), Failure> {
        let repository = self.open().await?;
        if stock == Stock::AfterUnlock {
            let old = |lock: &lock::Standing| {
                lock.record.as_ref().is_some_and(|record| self.clock.now() - record.time.to_utc() > TimeDelta::minutes(30))
            };
            let stale: Vec<String> = locks(&repository).await?.into_iter().filter(old).map(|lock| lock.key).collect();
            repository.store().delete(&stale).await?;
        }
        if stock == Stock::Heedless {
            return self.stock_remove(&repository).await;
        }
        let held = self.stock_lock(&repository).await?;
        let done = self.stock_remove(&repository).await;
        repository.store().delete(&[held]).await?;
        done
    }

    async fn stock_lock(&self, repository: &Repository) -> Result<String, Failure> {
        let refused = || RepositoryError::Locked { location: "sim".into(), holder: "somebody".into() };
        if !locks(repository).await?.is_empty() {
            return Err(refused().into());
        }
        let own = format!("locks/{}", repository.put_sealed("locks", &stock_record(&self.clock)).await?);
        sleep(Duration::from_millis(200)).await;
        let others = locks(repository).await;
        if others.as_ref().is_ok_and(|others| others.iter().all(|lock| lock.key == own)) {
            return Ok(own);
        }
        repository.store().delete(&[own]).await?;
        others?;
        Err(refused().into())
    }

    async fn stock_remove(&self, repository: &Repository) -> Result<(), Failure> {
        let mut packs: BTreeMap<Id, Vec<PackEntry>> = BTreeMap::new();
        let see = |_: Id, described: Result<&[(Id, Vec<PackEntry>)], RepositoryError>| match described {
            Ok(described) => {
                packs.extend(described.iter().cloned());
                Ok(())
            }
            Err(error) => Err(error),
        };
        let index = Arc::new(Index::load_with(repository, see).await?);
        let reader = Reader::new(repository, Arc::clone(&index));
        let mut roots = Vec::new();
        for id in repository.ids(snapshot::FOLDER).await? {
            roots.extend(snapshot::load(repository, &id).await?.tree);
        }
        let mut needed = Rows::none(&index);
        needed.follow(&reader, roots).await?;
        let mut present: Vec<Id> = packs_present(repository).await?.into_keys().collect();
        present.sort_unstable();
        let orphans: Vec<String> = present.iter().filter(|id| !packs.contains_key(id)).map(pack::key).collect();
        repository.store().delete(&orphans).await?;
        let is_needed = |kind: BlobKind, id: &Id| index.first_row(kind, id).is_some_and(|row| needed.has(row));
        let kept: Vec<(Id, Vec<PackEntry>)> = packs
            .iter()
            .filter(|(_, entries)| entries.iter().any(|entry| is_needed(entry.kind, &entry.id)))
            .map(|(id, entries)| (*id, entries.clone()))
            .collect();
        if kept.len() == packs.len() {
            return Ok(());
        }
        let staying: HashSet<&Id> = kept.iter().map(|(id, _)| id).collect();
        let unused: Vec<String> = packs.keys().filter(|id| !staying.contains(id)).map(pack::key).collect();
        let mut old: Vec<String> = index.objects().iter().map(|id| format!("{}/{id}", index::FOLDER)).collect();
        old.sort_unstable();
        index::put_all(repository, kept).await?;
        repository.store().delete(&old).await?;
        repository.store().delete(&unused).await?;
        Ok(())
    }
}

/// An exclusive lock as stock restic writes it.
pub fn stock_record(clock: &Clock) -> Vec<u8> {
    let record = LockRecord {
        time: clock.local(),
        exclusive: true,
        hostname: "stock".into(),
        username: "sim".into(),
        pid: 9,
        uid: 0,
        gid: 0,
        keepset: None,
    };
    serde_json::to_vec(&record).unwrap()
}

/// In one word, what ended a step.
pub fn kind_of(error: &Failure) -> &'static str {
    let of_repository = |error: &RepositoryError| match error {
        RepositoryError::Locked { .. } => "locked",
        RepositoryError::LockLost { .. } => "lock lost",
        error if error.is_damage() => "damage",
        RepositoryError::Store(_) => "store",
        _ => "other",
    };
    if let Some(error) = error.downcast_ref::<RepositoryError>() {
        return of_repository(error);
    }
    match (error.downcast_ref::<BackupError>(), error.downcast_ref::<PruneError>()) {
        (Some(BackupError::Repository(error)), _) | (_, Some(PruneError::Repository(error))) => of_repository(error),
        (Some(BackupError::Vanished { .. }), _) => "vanished",
        (Some(BackupError::Mover { .. }), _) => "mover",
        (Some(BackupError::Unconfirmed(_)), _) => "unconfirmed",
        (Some(BackupError::Interrupted), _) | (_, Some(PruneError::Interrupted)) => "interrupted",
        _ if error.to_string() == "interrupted" => "interrupted",
        _ => "other",
    }
}
