//! A place whose volumes are the model's, and whose movers do in one task what real ones do in threads and processes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use keepset::clock::Clock;
use keepset::model::claim::{ClaimId, ClaimPlace, ClaimShape};
use keepset::model::content::Content;
use keepset::model::entry::{Attrs, Entry, Kind};
use keepset::model::id::Id;
use keepset::model::manifest::{Consistency, SetRecord};
use keepset::model::mover_job::{ClaimReport, FailureKind, FillMode, MoverJob, MoverLine, MoverReport, Progress, Task, report_key};
use keepset::model::set::{Ordinal, SetName};
use keepset::model::set_state::{ClaimState, CutClaim, SetState, Targets};
use keepset::platform::{JournalHold, Mover, Platform, PlatformError};
use keepset::repository::Repository;
use keepset::repository::codec::Encoder;
use keepset::repository::error::RepositoryError;
use keepset::repository::index::Index;
use keepset::repository::pack::BlobKind;
use keepset::repository::prune::record::Records;
use keepset::repository::reader::Reader;
use keepset::repository::tree;
use keepset::repository::writer::{Writer, WriterOptions};
use tokio::sync::{mpsc, oneshot};

use super::model::{Files, Model, chunk};

/// Where the files of the upper half of names are: trees below trees are what real volumes have.
const FOLDER: &str = "below";
const UPPER: &str = "f3";

pub struct Place {
    pub repository: Repository,
    pub model: Arc<Mutex<Model>>,
    pub clock: Clock,
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

fn file(writer: &Writer, encoder: &mut Encoder, name: &str, chunks: &[u64]) -> Result<Entry, RepositoryError> {
    let mut content = Content::default();
    let mut size = 0;
    for number in chunks {
        let plain = chunk(*number);
        size += plain.len() as u64;
        content.push(writer.add(encoder, BlobKind::Data, &plain)?.id);
    }
    Ok(Entry { name: name.into(), kind: Kind::File { content }, attrs: Attrs { mode: 0o600, size, links: 1, ..Attrs::default() } })
}

/// Adds a claim's files, and returns the tree of its root.
fn add(writer: &Writer, encoder: &mut Encoder, files: &Files) -> Result<Id, RepositoryError> {
    let (mut root, mut below) = (Vec::new(), Vec::new());
    for (name, chunks) in files {
        let entry = file(writer, encoder, name, chunks)?;
        if name.as_str() < UPPER { root.push(entry) } else { below.push(entry) }
    }
    if !below.is_empty() {
        let subtree = Some(writer.add(encoder, BlobKind::Tree, &tree::encode(&below))?.id);
        root.push(Entry { name: FOLDER.into(), kind: Kind::Dir { subtree }, attrs: Attrs { mode: 0o700, ..Attrs::default() } });
    }
    root.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(writer.add(encoder, BlobKind::Tree, &tree::encode(&root))?.id)
}

/// The paths and bytes that a claim with these files has.
pub fn expected(files: &Files) -> BTreeMap<String, Vec<u8>> {
    let path = |name: &String| if name.as_str() < UPPER { name.clone() } else { format!("{FOLDER}/{name}") };
    files.iter().map(|(name, chunks)| (path(name), chunks.iter().flat_map(|number| chunk(*number)).collect())).collect()
}

/// The paths and bytes below a tree, as the repository gives them back.
pub async fn read(reader: &Reader, root: Id) -> Result<BTreeMap<String, Vec<u8>>, RepositoryError> {
    let mut files = BTreeMap::new();
    let mut todo = vec![(String::new(), root)];
    while let Some((path, tree)) = todo.pop() {
        for entry in reader.tree(&tree).await? {
            let path = format!("{path}{}", String::from_utf8_lossy(&entry.name));
            match entry.kind {
                Kind::File { content } => {
                    let mut bytes = Vec::new();
                    for id in &content {
                        bytes.extend(reader.chunk(id).await?);
                    }
                    files.insert(path, bytes);
                }
                Kind::Dir { subtree: Some(subtree) } => todo.push((format!("{path}/"), subtree)),
                other => panic!("{path} was saved as a file or a folder, and is {other:?}"),
            }
        }
    }
    Ok(files)
}

/// As `keepset mover` does it: the marks and the index first, packs, the index, the report.
async fn save(repository: Repository, job: MoverJob, model: Arc<Mutex<Model>>, clock: Clock) -> Result<MoverReport, RepositoryError> {
    let Task::Save(claims) = &job.task else { unreachable!("nothing but saving is asked of it") };
    let avoided = async { Ok(Records::load(&repository).await?.packs()) };
    let ((index, _), avoided) = tokio::try_join!(Index::load_readable(&repository), avoided)?;
    let old_indexes = index.objects().to_vec();
    // Never more than there is room for: adding must not wait here.
    let options = WriterOptions { level: 1, pack_size: 600, full_packs: 128 };
    let writer = Writer::avoiding(&repository, Arc::new(index), avoided, options);
    let cut = clock.now().to_rfc3339();
    let reports = {
        let mut encoder = writer.encoder()?;
        let mut model = model.lock().unwrap();
        let mut reports = Vec::new();
        for claim in claims {
            let files = model.sets[&job.set.to_string()].live[job.ordinal.0 as usize].clone();
            let tree = add(&writer, &mut encoder, &files)?;
            reports.push(ClaimReport {
                name: claim.name.clone(),
                tree,
                root: Attrs { mode: 0o755, ..Attrs::default() },
                files: files.len() as u64,
                dirs: 0,
                bytes: 0,
                cut: cut.clone(),
                change_detection: None,
                clock_lag: 0,
                problems: Vec::new(),
            });
            model.runs.entry(job.run.clone()).or_default().insert(claim.name.clone(), files);
        }
        reports
    };
    let written = writer.finish().await?;
    let report = MoverReport {
        run: job.run,
        ordinal: job.ordinal,
        total: Progress::default(),
        claims: reports,
        new_packs: written.packs,
        new_indexes: written.indexes,
        old_indexes,
    };
    repository.put_side(&report_key(&report.run, report.ordinal), &serde_json::to_vec(&report).unwrap()).await?;
    Ok(report)
}

const NOT_HERE: &str = "simulated sets are only backed up";

#[async_trait::async_trait]
impl Platform for Place {
    async fn read_set(&self, set: &SetName) -> Result<SetState, PlatformError> {
        let ordinals = self.model.lock().unwrap().sets[&set.to_string()].live.len();
        let claims = (0..u32::try_from(ordinals).unwrap()).map(|ordinal| {
            let id = ClaimId { ordinal: Ordinal(ordinal), template: "data".into() };
            let name = id.name(&set.name);
            let source = Some(format!("/sim/{name}"));
            ClaimState { source, id, name, empty: false, shape: ClaimShape::default(), retained: false, half_restored: None }
        });
        let record = SetRecord {
            cluster: "here".into(),
            namespace: set.namespace.clone(),
            name: set.name.clone(),
            replicas: u32::try_from(ordinals).unwrap(),
            templates: vec!["data".into()],
            ..SetRecord::default()
        };
        Ok(SetState { set: record, claims: claims.collect(), ..SetState::default() })
    }

    async fn cut(&self, _: &str, set: &SetName, claims: &[ClaimId], _: Consistency) -> Result<Vec<CutClaim>, PlatformError> {
        let cut = |claim: &ClaimId| {
            let name = claim.name(&set.name);
            CutClaim { source: format!("/sim/{name}"), name, volume: None, moment: None }
        };
        Ok(claims.iter().map(cut).collect())
    }

    async fn start_mover(&self, job: &MoverJob, _secret: &[u8]) -> Result<Mover, PlatformError> {
        let (repository, job, model, clock) = (self.repository.clone(), job.clone(), Arc::clone(&self.model), self.clock.clone());
        let (send, lines) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let asked = async {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let failed = |error, kind| MoverLine::Failed { error, hint: None, kind };
            let line = tokio::select! {
                biased;
                done = save(repository, job, model, clock) => match done {
                    Ok(report) => MoverLine::Report(report),
                    Err(error) => failed(chain(&error), FailureKind::Failed),
                },
                () = asked => failed("interrupted".to_owned(), FailureKind::Interrupted),
            };
            let _ = send.send(line).await;
            Ok(())
        });
        Ok(Mover::new(lines, stop, task))
    }

    fn can_start(&self) -> bool {
        false
    }

    async fn read_targets(&self, _: &SetName, _: &[ClaimId], _: bool) -> Result<Targets, PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn read_journal(&self, _: &SetName) -> Result<Option<String>, PlatformError> {
        Ok(None)
    }

    async fn open_journal(&self, _: &SetName, _: &str) -> Result<JournalHold, PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn take_journal(&self, _: &SetName) -> Result<Option<(JournalHold, String)>, PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn append_journal(&self, _: &mut JournalHold, _: &str) -> Result<(), PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn close_journal(&self, _: JournalHold) -> Result<(), PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn open_claim(&self, _: &str, _: &ClaimPlace, _: FillMode) -> Result<String, PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn close_claim(&self, _: &str, _: &ClaimPlace) -> Result<(), PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn abandon_claim(&self, _: &str, _: &ClaimPlace, _: bool) -> Result<(), PlatformError> {
        unreachable!("{NOT_HERE}")
    }

    async fn start(&self, _: &SetName, _: Ordinal) -> Result<(), PlatformError> {
        unreachable!("{NOT_HERE}")
    }
}
