//! Is everything there that the points need, and is it what was stored?
//!
//! The structure is always checked: every pack that the index names is listed with exactly the size that follows from its blobs; every
//! snapshot and every tree decodes; every chunk and subtree that they name is in the index; every point that passes for a whole one holds
//! what its manifest says. Reading data on top proves packs byte by byte. What is wrong is followed to the points that need it, and there to
//! claims and paths. Memory: the index, some 150 bytes a tree and 100 a pack, and one window of a pack for each worker.

mod layout;
mod losses;
pub(in crate::repository) mod packs;
mod promises;
mod report;
mod trees;

pub use report::{CheckReport, ClaimState, Finding, Lost, PointState, Severity};

use std::sync::Arc;

use futures::StreamExt;

use crate::model::id::Id;
use crate::monitor::{Event, Monitor};
use crate::repository::Repository;
use crate::repository::check::layout::Layout;
use crate::repository::check::report::{Findings, Marks};
use crate::repository::check::trees::Forest;
use crate::repository::error::RepositoryError;
use crate::repository::index;
use crate::repository::index::Index;
use crate::repository::key;
use crate::repository::lock;
use crate::repository::snapshot;
use crate::repository::snapshot::Snapshot;
use crate::store::{ErrorKind, StoreError};

/// Small objects got at the same time.
const IN_FLIGHT: usize = 16;

/// What to check beyond the structure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheckOptions {
    /// How many percent of the packs to read; `None` reads none.
    pub read_data: Option<f64>,
    /// Which of them: runs with consecutive seeds read consecutive parts.
    pub seed: u64,
    /// Threads that decode, at least 1.
    pub workers: usize,
}

/// Checks the repository. Damage is no error but a finding; an error is what kept the check from coming to an end. Backups may run at the
/// same time; hold a shared lock, so that nothing is removed meanwhile.
pub async fn check(repository: &Repository, options: &CheckOptions, monitor: &dyn Monitor) -> Result<CheckReport, RepositoryError> {
    let mut findings = Findings::default();
    let mut report = CheckReport::default();
    let workers = options.workers.max(1);
    check_keys(repository, &mut findings).await?;
    check_locks(repository, &mut findings).await?;
    check_side_objects(repository, &mut findings).await?;

    // Snapshots before the index, the index before the packs: whatever is named is then older than the list it must be in.
    monitor.event(Event::Step("checking snapshots".into()));
    let (mut snapshots, spoilt) = check_snapshots(repository, &mut findings, &mut report).await?;
    snapshots.sort_by_cached_key(|(id, snapshot)| (chrono::DateTime::parse_from_rfc3339(&snapshot.time).ok(), *id));
    monitor.event(Event::Step("loading the index".into()));
    let mut layout = Layout::default();
    let mut unread: Marks = 0;
    let index = Index::load_with(repository, |id, packs| match packs {
        Ok(packs) => {
            layout.see(&id, packs, &mut findings);
            Ok(())
        }
        Err(error) => {
            unread |= findings.damage(format!("{}/{id}", index::FOLDER), reason(error)?);
            Ok(())
        }
    });
    let index = Arc::new(index.await?);
    report.packs = layout.len() as u64;
    report.blobs = index.row_count().into();

    monitor.event(Event::Step(format!("comparing {} packs with the index", report.packs)));
    let listed = repository.store().list("data").await?;
    let mut bad = layout.compare(&listed, unread == 0, &mut findings);
    drop(listed);
    packs::read_cut(repository, &index, workers, &mut bad).await?;
    if let Some(percent) = options.read_data {
        let chosen = packs::choose(layout.sound(&bad).collect(), percent, options.seed);
        monitor.event(Event::Step(format!("reading {} of {} packs", chosen.len(), report.packs)));
        packs::read(repository, &index, chosen, workers, &mut findings, &mut bad, &mut report, monitor).await?;
    }

    monitor.event(Event::Step(format!("following the trees of {} snapshots", snapshots.len())));
    let bad = Arc::new(bad);
    let mut forest = Forest::read(repository, &index, &bad, workers, &mut findings).await?;
    report.trees = forest.len() as u64;
    let roots: Vec<(Id, Id)> = snapshots.iter().filter_map(|(id, snapshot)| Some((*id, snapshot.tree?))).collect();
    report.missing_blobs = forest.judge(&index, &roots, unread, &mut findings);
    report.points = spoilt;
    report.points.extend(promises::check(repository, (&index, &bad, &forest), snapshots, &mut findings).await?);
    for name in repository.store().strays() {
        findings.note(name, "no object of a repository is named so: it is passed over");
    }
    (report.findings, report.unlisted) = findings.finish(report.points.iter().map(|point| point.id));
    Ok(report)
}

async fn check_keys(repository: &Repository, findings: &mut Findings) -> Result<(), RepositoryError> {
    for (id, object) in key::list(repository.store()).await? {
        if let Err(reason) = object {
            findings.damage(format!("{}/{id}", key::FOLDER), format!("the password that it was made for opens nothing: {reason}"));
        }
    }
    Ok(())
}

/// A lock that cannot be read keeps everybody out, since it could be anybody's.
async fn check_locks(repository: &Repository, findings: &mut Findings) -> Result<(), RepositoryError> {
    for lock in lock::locks(repository).await?.iter().filter(|lock| lock.record.is_none()) {
        findings.damage(
            &lock.key,
            "it cannot be read, and so counts as somebody's who wants to be alone: `keepset unlock` removes it when it is half an hour old",
        );
    }
    Ok(())
}

/// Reports of runs, and what a prune notes. No point depends on them.
async fn check_side_objects(repository: &Repository, findings: &mut Findings) -> Result<(), RepositoryError> {
    let mut objects = repository.store().list("x-keepset/runs").await?;
    objects.extend(repository.store().list("x-keepset/prune").await?);
    for object in objects {
        match repository.get_side(&object.key).await {
            Err(RepositoryError::Store(error)) if error.kind == ErrorKind::NotFound => {}
            Err(error) => findings.note(&object.key, format!("{}; no point depends on it", reason(error)?)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Every snapshot that has a tree, and what can be said of those that have none.
async fn check_snapshots(
    repository: &Repository,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<(Vec<(Id, Snapshot)>, Vec<PointState>), RepositoryError> {
    let ids = repository.ids(snapshot::FOLDER).await?;
    report.snapshots = ids.len() as u64;
    let mut snapshots = Vec::new();
    let mut spoilt = Vec::new();
    let mut loaded = futures::stream::iter(ids).map(|id| async move { (id, snapshot::load(repository, &id).await) }).buffered(IN_FLIGHT);
    while let Some((id, snapshot)) = loaded.next().await {
        let what = match snapshot {
            Ok(snapshot) if snapshot.tree.is_some() => {
                snapshots.push((id, snapshot));
                continue;
            }
            Ok(_) => "it names no tree".to_owned(),
            Err(error) => reason(error)?,
        };
        let marks = findings.damage(format!("{}/{id}", snapshot::FOLDER), what.clone());
        findings.touch(id, marks);
        let lost = Lost { folders: 1, paths: vec!["/".to_owned()], ..Lost::default() };
        spoilt.push(PointState { id, set: None, time: String::new(), whole: false, lost, claims: Vec::new(), reason: Some(what) });
    }
    Ok((snapshots, spoilt))
}

/// What is wrong with an object that could not be had, or the error again where it says nothing about that object.
pub(super) fn reason(error: RepositoryError) -> Result<String, RepositoryError> {
    match error {
        RepositoryError::Damaged { reason, .. } => Ok(reason),
        RepositoryError::Store(error) => unreadable(error),
        error => Err(error),
    }
}

/// Why an object cannot be read, if that is the object's fault; a store that does not answer ends the check.
fn unreadable(error: StoreError) -> Result<String, RepositoryError> {
    match error.kind {
        ErrorKind::NotFound => Ok("it is gone".to_owned()),
        ErrorKind::TooShort => Ok("it ends too early".to_owned()),
        ErrorKind::TooLong => Ok("it is far too long".to_owned()),
        ErrorKind::Other => {
            use std::error::Error;
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            Ok(text)
        }
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::content::Content;
    use crate::model::entry::{Attrs, Entry, Kind};
    use crate::monitor::Silent;
    use crate::repository::codec::id_of;
    use crate::repository::key::{KeyOrigin, Password};
    use crate::repository::pack;
    use crate::repository::pack::BlobKind;
    use crate::repository::points;
    use crate::repository::reader::Reader;
    use crate::repository::tree;
    use crate::repository::writer::{Writer, WriterOptions};
    use crate::store::Store;
    use std::collections::BTreeSet;

    const ALL: CheckOptions = CheckOptions { read_data: Some(100.0), seed: 0, workers: 2 };
    const STRUCTURE: CheckOptions = CheckOptions { read_data: None, ..ALL };

    fn entry(name: &str, kind: Kind) -> Entry {
        Entry { name: name.into(), kind, attrs: Attrs::default() }
    }

    /// Adds blobs from a thread outside of the runtime, as movers do.
    async fn add(writer: &Writer, kind: BlobKind, plain: Vec<u8>) -> Id {
        let writer = writer.clone();
        let added = tokio::task::spawn_blocking(move || writer.add(&mut writer.encoder().unwrap(), kind, &plain).unwrap());
        added.await.unwrap().id
    }

    async fn file(writer: &Writer, name: &str, chunks: Range) -> Entry {
        let mut content = Content::default();
        for n in chunks {
            content.push(add(writer, BlobKind::Data, format!("{n} of many ").repeat(n as usize % 7 * 300 + 40).into_bytes()).await);
        }
        entry(name, Kind::File { content })
    }

    type Range = std::ops::Range<u32>;

    async fn dir(writer: &Writer, name: &str, entries: &[Entry]) -> Entry {
        let id = add(writer, BlobKind::Tree, tree::encode(entries)).await;
        entry(name, Kind::Dir { subtree: Some(id) })
    }

    async fn seal(repository: &Repository, root: &Entry, minute: u32) -> Id {
        let Kind::Dir { subtree } = root.kind else { panic!("a folder") };
        let time = format!("2026-01-02T03:{minute:02}:05Z");
        snapshot::save(repository, &Snapshot { time, tree: subtree, ..Snapshot::default() }).await.unwrap()
    }

    /// Two snapshots that share one folder, in several packs of each kind and two index objects.
    async fn fixture() -> Repository {
        let repository = Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap();
        let options = WriterOptions { level: 1, pack_size: 500, full_packs: 2 };
        let writer = Writer::new(&repository, Arc::default(), options);
        let shared = dir(&writer, "shared", &[file(&writer, "a", 0..9).await, file(&writer, "b", 9..12).await]).await;
        let old = dir(&writer, "old", &[file(&writer, "c", 12..20).await]).await;
        let root = dir(&writer, "", &[old, shared.clone()]).await;
        writer.finish().await.unwrap();
        seal(&repository, &root, 1).await;
        let known = Arc::new(Index::load(&repository).await.unwrap());
        let writer = Writer::new(&repository, known, options);
        let deep = dir(&writer, "deep", &[file(&writer, "d", 18..30).await, entry("e", Kind::Fifo)]).await;
        let new = dir(&writer, "new", &[deep]).await;
        let root = dir(&writer, "", &[new, shared]).await;
        writer.finish().await.unwrap();
        seal(&repository, &root, 2).await;
        repository
    }

    /// The snapshots of which a restore would not get every byte.
    async fn lost(repository: &Repository) -> BTreeSet<Id> {
        let mut lost = BTreeSet::new();
        let index = Index::load_with(repository, |_, _| Ok(())).await.unwrap();
        let reader = Reader::new(repository, Arc::new(index));
        for id in repository.ids(snapshot::FOLDER).await.unwrap() {
            let Ok(snapshot) = snapshot::load(repository, &id).await else {
                lost.insert(id);
                continue;
            };
            let mut todo = vec![snapshot.tree.unwrap()];
            while let Some(tree) = todo.pop() {
                let Ok(entries) = reader.tree(&tree).await else {
                    lost.insert(id);
                    continue;
                };
                for entry in entries {
                    match entry.kind {
                        Kind::Dir { subtree } => todo.extend(subtree),
                        Kind::File { content } => {
                            for chunk in &content {
                                if reader.chunk(chunk).await.is_err() {
                                    lost.insert(id);
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        lost
    }

    async fn replace(store: &Store, key: &str, bytes: Vec<u8>) {
        store.delete(&[key.to_owned()]).await.unwrap();
        store.put_new(key, bytes.into()).await.unwrap();
    }

    fn touched(report: &CheckReport) -> BTreeSet<Id> {
        report.findings.iter().filter(|f| f.severity == Severity::Damage).flat_map(|f| f.points.iter().copied()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sound_repository_gives_no_findings() {
        let repository = fixture().await;
        let report = check(&repository, &ALL, &Silent).await.unwrap();
        assert_eq!(report.findings, []);
        assert_eq!((report.snapshots, report.trees, report.blobs), (2, 6, 30 + 6));
        assert_eq!(report.packs, report.packs_read);
        assert!(report.packs > 6, "{}", report.packs);
        let sizes = repository.store().list("data").await.unwrap().iter().map(|o| o.size).sum::<u64>();
        assert_eq!(report.bytes_read, sizes);
        assert_eq!(check(&repository, &STRUCTURE, &Silent).await.unwrap().packs_read, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_damage_of_every_object_is_named_with_exactly_the_points_that_it_touches() {
        let repository = fixture().await;
        let store = repository.store();
        let mut seen = BTreeSet::new();
        for folder in ["keys", "snapshots", "index", "data"] {
            for object in store.list(folder).await.unwrap() {
                let good = store.get(&object.key).await.unwrap();
                let flip = |at: usize| {
                    let mut bytes = good.to_vec();
                    bytes[at] ^= 0x10;
                    Some(bytes)
                };
                let damages = [
                    ("deleted", None),
                    ("emptied", Some(Vec::new())),
                    ("cut by a byte", Some(good[..good.len() - 1].to_vec())),
                    ("cut to half", Some(good[..good.len() / 2].to_vec())),
                    ("a byte longer", Some([&good[..], b"x"].concat())),
                    ("flipped at the start", flip(0)),
                    ("flipped inside", flip(good.len() / 3)),
                    ("flipped near the end", flip(good.len() - 30)),
                    ("flipped at the end", flip(good.len() - 1)),
                    ("filled with what is not ours", Some(vec![0xa5; good.len()])),
                ];
                for (how, bytes) in damages {
                    let case = format!("{} {how}", object.key);
                    match bytes {
                        Some(bytes) => replace(store, &object.key, bytes).await,
                        None => store.delete(std::slice::from_ref(&object.key)).await.unwrap(),
                    }
                    let report = check(&repository, &ALL, &Silent).await.unwrap();
                    let lost = lost(&repository).await;
                    let unnoticeable = how == "deleted" && matches!(folder, "keys" | "snapshots");
                    assert_eq!(report.is_sound(), unnoticeable, "{case}: {report:?}");
                    assert_eq!(touched(&report), lost, "{case}: {report:?}");
                    if !(unnoticeable || folder == "index" && how == "deleted") {
                        let named = report.findings.iter().any(|f| f.severity == Severity::Damage && f.object == object.key);
                        assert!(named, "{case}: {report:?}");
                    }
                    seen.insert((folder, lost.len()));
                    replace(store, &object.key, good.to_vec()).await;
                }
            }
        }
        assert_eq!(check(&repository, &ALL, &Silent).await.unwrap().findings, []);
        for kind in [("data", 0), ("data", 1), ("data", 2), ("index", 1), ("index", 2), ("snapshots", 1)] {
            assert!(seen.contains(&kind), "the matrix has a case of {kind:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_no_index_names_is_a_note_and_no_damage() {
        let repository = fixture().await;
        let pack = pack::key(&Id([0xcc; 32]));
        repository.store().put_new(&pack, bytes::Bytes::from_static(b"half a pack")).await.unwrap();
        repository.store().put_new("data/cc/notes.txt", bytes::Bytes::from_static(b"mine")).await.unwrap();
        let report = check(&repository, &ALL, &Silent).await.unwrap();
        assert!(report.is_sound());
        assert_eq!(report.findings.iter().map(|f| f.object.as_str()).collect::<Vec<_>>(), [pack.as_str(), "data/cc/notes.txt"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_lies_is_found_out_and_never_a_panic() {
        let repository = fixture().await;
        let good = Index::load(&repository).await.unwrap();
        let (id, kind, place) = good.rows().find(|row| row.1 == BlobKind::Tree).unwrap();
        let truth = pack::PackEntry { id, kind, offset: place.offset, length: place.length, plain_length: place.plain_length };
        for lie in [
            pack::PackEntry { offset: 5, ..truth },
            pack::PackEntry { length: 0, ..truth },
            pack::PackEntry { length: u32::MAX, ..truth },
            pack::PackEntry { offset: u32::MAX, length: u32::MAX, ..truth },
            pack::PackEntry { plain_length: Some(u32::MAX), ..truth },
            pack::PackEntry { kind: BlobKind::Data, ..truth },
            pack::PackEntry { id: Id([1; 32]), ..truth },
        ] {
            let object = repository.put_sealed(index::FOLDER, &index::encode(&[(place.pack, vec![lie])])).await.unwrap();
            let report = check(&repository, &ALL, &Silent).await.unwrap();
            assert!(!report.is_sound(), "{lie:?}");
            repository.store().delete(&[format!("{}/{object}", index::FOLDER)]).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tree_that_is_no_folder_is_named_with_its_point() {
        let repository = fixture().await;
        let writer = Writer::new(&repository, Arc::default(), WriterOptions { level: 1, pack_size: 500, full_packs: 2 });
        let bad = br#"{"nodes":[{"name":"../x","type":"file","content":[]}]}"#;
        let id = add(&writer, BlobKind::Tree, bad.to_vec()).await;
        assert_eq!(id, id_of(bad));
        let root =
            dir(&writer, "", &[entry("bad", Kind::Dir { subtree: Some(id) }), entry("worse", Kind::Dir { subtree: Some(Id([3; 32])) })])
                .await;
        writer.finish().await.unwrap();
        let point = seal(&repository, &root, 3).await;
        let report = check(&repository, &STRUCTURE, &Silent).await.unwrap();
        let objects: Vec<_> = report.findings.iter().map(|f| (f.object.clone(), f.points.clone())).collect();
        let mut expected = vec![(format!("tree {id}"), vec![point]), (format!("tree {}", Id([3; 32])), vec![point])];
        expected.sort();
        assert_eq!(objects, expected);
    }

    /// A point of set `shop/web` with one claim, whose manifest says that the claim's tree is `recorded`, or what it is.
    async fn point(repository: &Repository, recorded: Option<Id>, suffix: &str) -> Id {
        let writer = Writer::new(repository, Arc::default(), WriterOptions { level: 1, pack_size: 500, full_packs: 2 });
        let claim = dir(&writer, "data-web-0", &[file(&writer, "a", 0..2).await]).await;
        let Kind::Dir { subtree } = claim.kind else { panic!("a folder") };
        let record = points::sample::claim("data", 0);
        let record = crate::model::manifest::ClaimRecord { tree: recorded.or(subtree), ..record };
        let manifest = serde_json::to_vec(&points::sample::point(1, &[record]).manifest).unwrap();
        let content = vec![add(&writer, BlobKind::Data, manifest.clone()).await].into();
        let mut manifest_entry = entry(points::MANIFEST, Kind::File { content });
        manifest_entry.attrs.size = manifest.len() as u64;
        let set = dir(&writer, "web", &[claim, manifest_entry]).await;
        let namespace = dir(&writer, "shop", &[set]).await;
        let root = dir(&writer, "", &[namespace]).await;
        writer.finish().await.unwrap();
        let Kind::Dir { subtree } = root.kind else { panic!("a folder") };
        let snapshot = Snapshot {
            time: "2026-01-02T03:04:05Z".into(),
            tree: subtree,
            paths: vec!["/shop/web".into()],
            hostname: format!("web.shop.here{suffix}"),
            ..Snapshot::default()
        };
        snapshot::save(repository, &snapshot).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_point_that_passes_for_whole_and_is_not_is_damaged_and_one_that_says_so_is_not() {
        let repository = fixture().await;
        point(&repository, None, "").await;
        point(&repository, Some(Id([5; 32])), ".partial").await;
        assert!(check(&repository, &STRUCTURE, &Silent).await.unwrap().is_sound());
        let liar = point(&repository, Some(Id([5; 32])), "").await;
        let report = check(&repository, &STRUCTURE, &Silent).await.unwrap();
        assert_eq!(touched(&report), BTreeSet::from([liar]));
        let finding = report.findings.iter().find(|finding| finding.severity == Severity::Damage).unwrap();
        assert_eq!(finding.object, format!("snapshots/{liar}"));
        assert!(finding.what.contains("claim data-web-0 was changed by another program"), "{}", finding.what);
    }
}
