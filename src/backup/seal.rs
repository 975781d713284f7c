//! Makes the point: proves that everything it stands on is there, writes the manifest and the set's folder, then the snapshot, last.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, FixedOffset};
use futures::{StreamExt, TryStreamExt};

use crate::backup::Backup;
use crate::backup::error::BackupError;
use crate::backup::plan::{BackupPlan, PlannedClaim};
use crate::model::claim::ClaimId;
use crate::model::content::Content;
use crate::model::entry::{Attrs, Entry, Kind, Time};
use crate::model::id::Id;
use crate::model::manifest::{ChangeDetection, ClaimRecord, ClaimStatus, Consistency, Manifest, VERSION};
use crate::model::mover_job::{ClaimReport, MoverReport, Problem, ProblemKind, Progress, begun_key, report_key};
use crate::model::set::SetName;
use crate::monitor::Event;
use crate::repository::bundle;
use crate::repository::error::RepositoryError;
use crate::repository::index::{self, Index};
use crate::repository::lock::Lock;
use crate::repository::pack::BlobKind;
use crate::repository::points::{self, MANIFEST};
use crate::repository::prove;
use crate::repository::reader::Reader;
use crate::repository::snapshot::{self, Snapshot, Summary};
use crate::repository::writer::{Writer, WriterOptions};

/// Long files of ours (manifests of huge sets, lists of problems) are cut here; any reader puts the parts together.
const CHUNK: usize = 4 << 20;
/// Claims whose trees are read at the same time.
const ROOTS: usize = 4;
/// What the seal itself may take.
const MEMORY: u64 = 32 << 20;

/// A point that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    /// The snapshot's id.
    pub point: Id,
    pub manifest: Manifest,
    /// False where something could not be read or was missing.
    pub complete: bool,
    /// All movers together.
    pub total: Progress,
}

pub(super) struct Sealing<'a> {
    pub backup: &'a Backup,
    pub plan: &'a BackupPlan,
    pub run: &'a str,
    pub started: DateTime<FixedOffset>,
    pub lock: &'a Lock,
    /// What the repository had before the movers began.
    pub before: &'a Index,
}

/// What movers say of the claims that were planned.
type Saved<'a> = BTreeMap<&'a ClaimId, &'a ClaimReport>;

impl Sealing<'_> {
    pub(super) async fn seal(&self, reports: Vec<MoverReport>) -> Result<Sealed, BackupError> {
        let repository = &self.backup.repository;
        self.backup.monitor.event(Event::Step("sealing the point".into()));
        self.lock.prove().await?;
        let index = Arc::new(self.before.reload(repository).await?);
        let total = reports.iter().map(|report| report.total).sum();
        let planned = self.plan.ordinals.iter().flat_map(|ordinal| &ordinal.claims);
        let ids: BTreeMap<&str, &ClaimId> = planned.map(|claim| (claim.name.as_str(), &claim.id)).collect();
        let claims = reports.iter().flat_map(|report| &report.claims);
        let saved: Saved<'_> = claims.filter_map(|claim| Some((*ids.get(claim.name.as_str())?, claim))).collect();
        let manifest = self.manifest(&saved);
        for claim in manifest.claims.iter().filter(|claim| claim.consistency < self.plan.consistency) {
            self.backup.monitor.event(Event::Warning(disturbed(claim, self.plan.consistency)));
        }
        let complete = manifest.claims.iter().all(|claim| claim.status == ClaimStatus::Saved && claim.unreadable == 0);
        // Of a large repository the proof is a long list to wait for; what is written meanwhile counts for nothing without the snapshot.
        let (proof, roots, tree) = tokio::join!(
            self.prove_present(&reports, &index),
            self.prove_roots(&saved, &index),
            self.write(Arc::clone(&index), &manifest, &saved)
        );
        proof?;
        roots?;
        let tree = tree?;
        let set = self.set();
        let snapshot = Snapshot {
            time: self.started.to_rfc3339(),
            parent: self.plan.previous.as_ref().map(|previous| previous.id),
            tree: Some(tree),
            paths: vec![points::path(&set)],
            hostname: points::hostname(&set, &manifest.set.cluster, self.plan.kind, complete),
            username: self.backup.identity.username.clone(),
            program_version: format!("keepset {}", env!("CARGO_PKG_VERSION")),
            summary: Some(self.summary(total, &manifest)),
            ..Snapshot::default()
        };
        // The last moment at which anybody can say no. Once the next call has begun, the point may exist.
        self.lock.prove().await?;
        if *self.backup.cancel.borrow() {
            return Err(BackupError::Interrupted);
        }
        let point = snapshot::save(repository, &snapshot).await.map_err(unsealed)?;
        self.look_back(&point).await?;
        self.tidy().await;
        Ok(Sealed { point, manifest, complete, total })
    }

    /// The put may have taken its time: the machine slept, or the store did, and others took our lock for that of the dead and removed what
    /// no snapshot needed yet. Such a point is taken back before anybody is told of it.
    async fn look_back(&self, point: &Id) -> Result<(), BackupError> {
        match self.lock.prove().await {
            Ok(()) => Ok(()),
            Err(lost @ RepositoryError::LockLost { .. }) => {
                let store = self.backup.repository.store();
                if let Err(error) = store.delete(&[format!("{}/{point}", snapshot::FOLDER)]).await {
                    let text = format!("point {} was made without a lock and could not be taken back: {error}; check it", point.short());
                    self.backup.monitor.event(Event::Warning(text));
                }
                Err(lost.into())
            }
            // The store is silent after it has confirmed the point: that is no sign of a lost lock.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lock could not be looked at once more after the seal");
                Ok(())
            }
        }
    }

    /// Everything that the movers put is there, and nothing that they may have relied on has gone since they began.
    async fn prove_present(&self, reports: &[MoverReport], index: &Arc<Index>) -> Result<(), BackupError> {
        let repository = &self.backup.repository;
        let present = prove::packs_present(repository).await?;
        let indexes: HashSet<&Id> = index.objects().iter().collect();
        let indexed: HashSet<&Id> = index.packs().iter().collect();
        for report in reports {
            if let Some(pack) = report.new_packs.iter().find(|pack| !present.contains_key(pack) || !indexed.contains(pack)) {
                return Err(BackupError::Vanished { what: format!("pack {pack}") });
            }
            if let Some(id) = report.new_indexes.iter().find(|id| !indexes.contains(id)) {
                return Err(BackupError::Vanished { what: format!("index {id}") });
            }
        }
        // Whoever relied on a blob found it in an index object that was read before.
        let mut relied = self.before.objects().iter().chain(reports.iter().flat_map(|report| &report.old_indexes));
        if relied.all(|id| indexes.contains(id)) && index.packs().iter().all(|pack| present.contains_key(pack)) {
            return Ok(());
        }
        // Something of the old is gone. Whether this point needs it only its trees can tell.
        let roots =
            reports.iter().flat_map(|report| &report.claims).map(|claim| folder(claim.name.as_bytes(), claim.root.clone(), claim.tree));
        let proof = prove::prove(&Reader::new(repository, Arc::clone(index)), roots.collect(), &present).await?;
        if proof.holds() { Ok(()) } else { Err(BackupError::Vanished { what: proof.absent.join(", ") }) }
    }

    /// The tree of every claim can be read, as a restore will: a point that nobody can open is not complete.
    async fn prove_roots(&self, saved: &Saved<'_>, index: &Arc<Index>) -> Result<(), BackupError> {
        let reader = Reader::new(&self.backup.repository, Arc::clone(index));
        let read = |tree: Id| {
            let reader = reader.clone();
            async move { reader.entries(&tree).await?.try_for_each(|entry| entry.map(|_| ())) }
        };
        let trees: Vec<Id> = saved.values().map(|claim| claim.tree).collect();
        futures::stream::iter(trees).map(read).buffer_unordered(ROOTS).try_collect::<()>().await?;
        Ok(())
    }

    fn set(&self) -> SetName {
        SetName { namespace: self.plan.set.namespace.clone(), name: self.plan.set.name.clone() }
    }

    fn manifest(&self, saved: &Saved<'_>) -> Manifest {
        let planned = self.plan.ordinals.iter().flat_map(|ordinal| &ordinal.claims);
        let mut claims: Vec<ClaimRecord> =
            planned.chain(&self.plan.missing).map(|claim| self.record(claim, saved.get(&claim.id).copied())).collect();
        claims.sort_by(|a, b| a.id.cmp(&b.id));
        Manifest {
            version: VERSION,
            run: self.run.to_owned(),
            kind: self.plan.kind,
            started: self.started.to_rfc3339(),
            set: self.plan.set.clone(),
            exclude: self.plan.exclude.clone(),
            claims,
        }
    }

    fn record(&self, claim: &PlannedClaim, report: Option<&ClaimReport>) -> ClaimRecord {
        let consistency = report.map_or(self.plan.consistency, |report| consistency(self.plan.consistency, report));
        // A cut that was not held is of no moment at all; where times would count from it, they do not.
        let has_moment = consistency == self.plan.consistency || self.plan.consistency == Consistency::Stopped;
        let of_kind = |kind| report.map_or(0, |report| report.problems.iter().filter(|problem| problem.kind == kind).count() as u64);
        ClaimRecord {
            id: claim.id.clone(),
            name: claim.name.clone(),
            status: if report.is_some() { ClaimStatus::Saved } else { ClaimStatus::Missing },
            retained: claim.retained,
            reason: report.is_none().then(|| "it was not there".to_owned()),
            tree: report.map(|report| report.tree),
            files: report.map_or(0, |report| report.files),
            dirs: report.map_or(0, |report| report.dirs),
            bytes: report.map_or(0, |report| report.bytes),
            cut: report.filter(|_| has_moment).map(|report| report.cut.clone()),
            consistency,
            change_detection: match report.and_then(|report| report.change_detection) {
                Some(used) => used,
                None if claim.parent.is_some() => claim.change_detection,
                None => ChangeDetection::Content,
            },
            clock_lag: report.map_or(0, |report| report.clock_lag),
            changed: of_kind(ProblemKind::Changed),
            unreadable: of_kind(ProblemKind::Unreadable),
            problems: report.filter(|report| !report.problems.is_empty()).map(|_| problems_name(&claim.name)),
            shape: claim.shape.clone(),
        }
    }

    /// Puts the manifest, the lists of problems and the folders above the claims; the root's tree is what a snapshot points at.
    async fn write(&self, index: Arc<Index>, manifest: &Manifest, saved: &Saved<'_>) -> Result<Id, BackupError> {
        let writer = Writer::new(&self.backup.repository, index, WriterOptions::for_memory(MEMORY));
        let plain = serde_json::to_vec_pretty(manifest).map_err(|error| RepositoryError::damaged("the manifest to be written", error))?;
        let mut files = vec![(MANIFEST.to_owned(), plain)];
        for claim in saved.values().filter(|claim| !claim.problems.is_empty()) {
            files.push((problems_name(&claim.name), list_of(&claim.problems)?));
        }
        let mut entries: Vec<Entry> = saved.values().map(|claim| folder(claim.name.as_bytes(), claim.root.clone(), claim.tree)).collect();
        let attrs = Attrs {
            mode: 0o755,
            mtime: moment(self.started),
            atime: moment(self.started),
            ctime: moment(self.started),
            ..Attrs::default()
        };
        let (set, trees) = (self.set(), writer.clone());
        // The writer may wait for its uploads, which only threads outside of the runtime may do.
        let root = tokio::task::spawn_blocking(move || -> Result<Id, RepositoryError> {
            let mut encoder = trees.encoder()?;
            for (name, plain) in files {
                let mut content = Content::default();
                for part in plain.chunks(CHUNK) {
                    content.push(trees.add(&mut encoder, BlobKind::Data, part)?.id);
                }
                let attrs = Attrs { mode: 0o644, size: plain.len() as u64, links: 1, ..attrs.clone() };
                entries.push(Entry { name: name.into_bytes(), kind: Kind::File { content }, attrs });
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let mut tree = trees.add(&mut encoder, BlobKind::Tree, &crate::repository::tree::encode(&entries))?.id;
            for name in [&set.name, &set.namespace] {
                let entry = folder(name.as_bytes(), attrs.clone(), tree);
                tree = trees.add(&mut encoder, BlobKind::Tree, &crate::repository::tree::encode(&[entry]))?.id;
            }
            Ok(tree)
        })
        .await
        .map_err(|_| RepositoryError::Stopped)??;
        writer.finish().await?;
        Ok(root)
    }

    fn summary(&self, total: Progress, manifest: &Manifest) -> Summary {
        let previous = self.plan.previous.is_some();
        Summary {
            backup_start: self.started.to_rfc3339(),
            backup_end: self.backup.clock.local().to_rfc3339(),
            files_new: if previous { 0 } else { total.files },
            dirs_new: if previous { 0 } else { total.dirs },
            data_added: total.new_bytes,
            data_added_packed: total.stored_bytes,
            total_files_processed: total.files,
            total_bytes_processed: manifest.claims.iter().map(|claim| claim.bytes).sum(),
            ..Summary::default()
        }
    }

    /// The run's traces have served their turn; what the next run would read one by one is bundled.
    async fn tidy(&self) {
        let store = self.backup.repository.store();
        let reports = self.plan.ordinals.iter().map(|ordinal| report_key(self.run, ordinal.ordinal));
        let keys: Vec<String> = reports.chain([begun_key(self.run)]).collect();
        if let Err(error) = store.delete(&keys).await {
            tracing::warn!(%error, run = self.run, "the run's reports could not be removed; they harm nothing");
        }
        if self.before.loose() < bundle::LOOSE {
            return;
        }
        self.backup.monitor.event(Event::Step("bundling small objects of the repository".into()));
        for folder in [index::FOLDER, snapshot::FOLDER] {
            if let Err(error) = bundle::fold(&self.backup.repository, folder).await {
                tracing::warn!(%error, folder, "small objects could not be bundled; reading them takes longer until a later run does it");
            }
        }
    }
}

/// What is of one moment does not change while it is read: a volume that did was written to, whatever was planned.
fn consistency(planned: Consistency, report: &ClaimReport) -> Consistency {
    let changed = |problem: &Problem| matches!(problem.kind, ProblemKind::Changed | ProblemKind::Vanished | ProblemKind::Moved);
    if report.problems.iter().any(changed) { Consistency::Fuzzy } else { planned }
}

fn disturbed(claim: &ClaimRecord, planned: Consistency) -> String {
    let why = if planned == Consistency::Stopped { "nothing was to write to it" } else { "it was to be held still" };
    format!("claim {} changed while it was read, although {why}: its consistency is fuzzy", claim.name)
}

/// Where the store went silent over the snapshot, there may be a point, and saying that there is none would be a guess.
fn unsealed(error: RepositoryError) -> BackupError {
    match error {
        RepositoryError::Store(error) if error.leaves_doubt() => BackupError::Unconfirmed(error),
        error => error.into(),
    }
}

fn folder(name: &[u8], attrs: Attrs, tree: Id) -> Entry {
    Entry { name: name.to_vec(), kind: Kind::Dir { subtree: Some(tree) }, attrs }
}

/// Beside the claim's folder. No claim can have such a name, since a claim's name ends in a number.
fn problems_name(claim: &str) -> String {
    format!("{claim}.problems.jsonl")
}

fn list_of(problems: &[Problem]) -> Result<Vec<u8>, RepositoryError> {
    let mut list = Vec::new();
    for problem in problems {
        serde_json::to_writer(&mut list, problem).map_err(|error| RepositoryError::damaged("a list of problems to be written", error))?;
        list.push(b'\n');
    }
    Ok(list)
}

fn moment(time: DateTime<FixedOffset>) -> Time {
    Time { secs: time.timestamp(), nanos: time.timestamp_subsec_nanos().min(999_999_999) }
}
