//! Restores from a repository in memory onto a fake platform: order, gate, and what is taken back.

use super::*;
use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::manifest::{ClaimRecord, Manifest};
use crate::model::mover_job::{ClaimReport, FailureKind, MoverJob, MoverLine, MoverReport, Task};
use crate::model::set_state::{SetRun, TargetState};
use crate::monitor::Silent;
use crate::platform::fake::Fake;
use crate::repository::index::Index;
use crate::repository::key::{KeyOrigin, Password};
use crate::repository::pack::{self, BlobKind};
use crate::repository::points::{self, sample};
use crate::repository::snapshot::{self, Snapshot};
use crate::repository::tree;
use crate::repository::writer::{Writer, WriterOptions};
use crate::store::Store;

struct House {
    restore: Restore,
    point: Id,
    /// What the targets hold, as a safety point has it.
    before: Id,
    cancel: watch::Sender<bool>,
    log: Arc<std::sync::Mutex<Vec<String>>>,
    journal: Arc<std::sync::Mutex<Option<String>>>,
}

fn web() -> SetName {
    "shop/web".parse().unwrap()
}

/// A point of ordinals 9 to 11, each with one claim of one file `dir/file` that holds `word` and the ordinal.
async fn sealed(repository: &Repository, word: &'static str, time: &str) -> Id {
    alone(repository, b"ordinal 11").await;
    let index = Arc::new(Index::load(repository).await.unwrap());
    let writer = Writer::new(repository, index, WriterOptions::for_memory(1 << 20));
    let adding = writer.clone();
    let tree = tokio::task::spawn_blocking(move || {
        let mut encoder = adding.encoder().unwrap();
        let mut put = |kind, plain: &[u8]| adding.add(&mut encoder, kind, plain).unwrap().id;
        let attrs = |size| Attrs { mode: 0o700, size, links: 1, ..Attrs::default() };
        let file = |name: &str, id, size| Entry { name: name.into(), kind: Kind::File { content: vec![id].into() }, attrs: attrs(size) };
        let dir = |name: &str, id| Entry { name: name.into(), kind: Kind::Dir { subtree: Some(id) }, attrs: attrs(0) };
        let mut folder = Vec::new();
        let mut claims: Vec<ClaimRecord> = Vec::new();
        for ordinal in 9..12 {
            let text = format!("{word} {ordinal}");
            let chunk = put(BlobKind::Data, text.as_bytes());
            let inner = put(BlobKind::Tree, &tree::encode(&[file("file", chunk, text.len() as u64)]));
            let root = put(BlobKind::Tree, &tree::encode(&[dir("dir", inner)]));
            let mut record = sample::claim("data", ordinal);
            record.tree = Some(root);
            folder.push(dir(&record.name, root));
            claims.push(record);
        }
        let manifest: Manifest = sample::point(7, &claims).manifest;
        let plain = serde_json::to_vec(&manifest).unwrap();
        let chunk = put(BlobKind::Data, &plain);
        folder.push(file(points::MANIFEST, chunk, plain.len() as u64));
        folder.sort_by(|a, b| a.name.cmp(&b.name));
        let set = put(BlobKind::Tree, &tree::encode(&folder));
        let namespace = put(BlobKind::Tree, &tree::encode(&[dir("web", set)]));
        put(BlobKind::Tree, &tree::encode(&[dir("shop", namespace)]))
    })
    .await
    .unwrap();
    writer.finish().await.unwrap();
    let snapshot = Snapshot { time: time.to_owned(), tree: Some(tree), paths: vec![points::path(&web())], ..Snapshot::default() };
    snapshot::save(repository, &snapshot).await.unwrap()
}

/// Puts a chunk into a pack of its own.
async fn alone(repository: &Repository, chunk: &'static [u8]) {
    let index = Arc::new(Index::load(repository).await.unwrap());
    let writer = Writer::new(repository, index, WriterOptions::for_memory(1 << 20));
    let adding = writer.clone();
    let add = move || adding.add(&mut adding.encoder().unwrap(), BlobKind::Data, chunk).unwrap();
    tokio::task::spawn_blocking(add).await.unwrap();
    writer.finish().await.unwrap();
}

/// What a mover says that filled everything.
fn filled(job: &MoverJob) -> Vec<MoverLine> {
    let Task::Fill(claims) = &job.task else { panic!("asked to save") };
    let claims = claims.iter().map(|claim| ClaimReport {
        name: claim.name.clone(),
        tree: claim.tree,
        root: claim.root.clone(),
        files: 1,
        dirs: 1,
        bytes: 9,
        cut: String::new(),
        change_detection: None,
        clock_lag: 0,
        problems: Vec::new(),
    });
    vec![MoverLine::Report(MoverReport {
        run: job.run.clone(),
        ordinal: job.ordinal,
        total: Progress { files: 1, bytes: 9, ..Progress::default() },
        claims: claims.collect(),
        new_packs: Vec::new(),
        new_indexes: Vec::new(),
        old_indexes: Vec::new(),
    })]
}

async fn house(fake: Fake) -> House {
    let password = Password::generate().unwrap();
    let repository = Repository::init(Store::memory(), &password, KeyOrigin::default()).await.unwrap();
    let point = sealed(&repository, "ordinal", "2026-11-24T07:00:00Z").await;
    let before = sealed(&repository, "before", "2026-11-24T06:00:00Z").await;
    let (log, journal) = (fake.log.clone(), fake.journal.clone());
    let sealing = log.clone();
    let seal_safety: SealSafety = Arc::new(move |_, claims, _, _| {
        let names: Vec<String> = claims.iter().map(|claim| claim.name("web")).collect();
        sealing.lock().unwrap().push(format!("seal {}", names.join(" ")));
        Box::pin(async move { Ok(SafetyPoint { point: before, complete: true }) })
    });
    let (cancel, cancelled) = watch::channel(false);
    let restore = Restore {
        repository,
        platform: Arc::new(fake),
        clock: Clock::system(),
        monitor: Arc::new(Silent),
        identity: LockIdentity::this_process(Some("here".into()), "root".into()),
        cancel: cancelled,
        seal_safety,
    };
    House { restore, point, before, cancel, log, journal }
}

fn able() -> Fake {
    Fake { work: Some(Box::new(filled)), starts: Some([9, 10, 11].into()), ..Fake::default() }
}

fn one_by_one() -> RestoreOptions {
    RestoreOptions { parallel: 1, ..RestoreOptions::default() }
}

fn log(house: &House) -> Vec<String> {
    house.log.lock().unwrap().clone()
}

async fn locks(house: &House) -> usize {
    house.restore.repository.store().list("locks").await.unwrap().len()
}

#[tokio::test]
async fn every_ordinal_is_filled_before_the_first_is_started_and_both_in_order() {
    let house = house(able()).await;
    let restored = house.restore.run(&web(), &one_by_one()).await.unwrap();
    let mut expected = Vec::new();
    for ordinal in 9..12 {
        expected.extend([format!("open data-web-{ordinal}"), format!("mover {ordinal}"), format!("close data-web-{ordinal}")]);
    }
    expected.extend((9..12).map(|ordinal| format!("start {ordinal}")));
    assert_eq!(log(&house), expected);
    assert_eq!((restored.point, restored.is_whole(), restored.total.files), (house.point, true, 3));
    assert_eq!(restored.started, [9, 10, 11].map(Ordinal));
    assert_eq!(restored.claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>(), ["data-web-9", "data-web-10", "data-web-11"]);
    assert_eq!(locks(&house).await, 0);
}

#[tokio::test]
async fn one_ordinal_that_fails_keeps_all_from_starting_and_is_taken_back() {
    let work = |job: &MoverJob| match job.ordinal.0 {
        10 => vec![MoverLine::Failed { error: "the disk is full".into(), hint: None, kind: FailureKind::Failed }],
        _ => filled(job),
    };
    let house = house(Fake { work: Some(Box::new(work)), ..able() }).await;
    let error = house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert_eq!(log(&house), ["open data-web-9", "mover 9", "close data-web-9", "open data-web-10", "mover 10", "abandon data-web-10"]);
    assert_eq!(error.kind(), FailureKind::Failed);
    assert!(error.to_string().ends_with("nothing was started; whole and in place: data-web-9"), "{error}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the disk is full (ordinal 10)");
    assert_eq!(locks(&house).await, 0);
}

#[tokio::test]
async fn a_mover_that_filled_in_another_tree_does_not_pass_the_gate() {
    let work = |job: &MoverJob| {
        let mut lines = filled(job);
        if let (11, MoverLine::Report(report)) = (job.ordinal.0, &mut lines[0]) {
            report.claims[0].tree = Id([7; 32]);
        }
        lines
    };
    let house = house(Fake { work: Some(Box::new(work)), ..able() }).await;
    house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert!(log(&house).contains(&"abandon data-web-11".to_owned()));
    assert!(!log(&house).iter().any(|line| line.starts_with("start")));
}

#[tokio::test]
async fn starting_ends_at_the_first_ordinal_that_does_not_get_ready() {
    let house = house(Fake { starts: Some([9, 11].into()), ..able() }).await;
    let error = house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    let starts: Vec<String> = log(&house).into_iter().filter(|line| line.starts_with("start")).collect();
    assert_eq!(starts, ["start 9", "start 10"]);
    assert!(error.to_string().contains("restored and proven") && error.to_string().contains("ready: 9"), "{error}");
    assert!(!log(&house).iter().any(|line| line.starts_with("abandon")), "the data stays");
}

#[tokio::test]
async fn started_at_once_every_ordinal_gets_its_chance() {
    let house = house(Fake { starts: Some([9, 11].into()), ..able() }).await;
    let options = RestoreOptions { start: StartMode::Parallel, ..one_by_one() };
    house.restore.run(&web(), &options).await.unwrap_err();
    assert_eq!(log(&house).iter().filter(|line| line.starts_with("start")).count(), 3);
}

#[tokio::test]
async fn an_interrupt_takes_back_what_is_half_filled_and_keeps_what_is_whole() {
    let work = |job: &MoverJob| if job.ordinal.0 == 9 { filled(job) } else { Vec::new() };
    let house = house(Fake { work: Some(Box::new(work)), ..able() }).await;
    let interrupt = async {
        while !log(&house).contains(&"mover 10".to_owned()) {
            tokio::task::yield_now().await;
        }
        house.cancel.send_replace(true);
    };
    let (options, set) = (one_by_one(), web());
    let (outcome, ()) = tokio::join!(house.restore.run(&set, &options), interrupt);
    assert_eq!(outcome.unwrap_err().kind(), FailureKind::Interrupted);
    assert_eq!(log(&house)[3..], ["open data-web-10", "mover 10", "stop 10", "abandon data-web-10"]);
    assert_eq!(locks(&house).await, 0);
}

#[tokio::test]
async fn nothing_is_touched_where_a_pack_of_the_point_is_gone() {
    let house = house(able()).await;
    let index = Index::load(&house.restore.repository).await.unwrap();
    // The chunk of ordinal 11 alone is in a pack of its own: see `sealed`.
    let place = index.find(BlobKind::Data, &crate::repository::codec::id_of(b"ordinal 11")).unwrap();
    house.restore.repository.store().delete(&[pack::key(&place.pack)]).await.unwrap();
    let error = house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Unproven { count: 1, .. }), "{error}");
    assert_eq!(log(&house), [""; 0]);
}

#[tokio::test]
async fn a_path_restores_that_alone_and_starts_nothing() {
    let house = house(able()).await;
    let options = RestoreOptions { paths: vec!["/dir/file".into()], ordinals: vec![Ordinal(10)], ..one_by_one() };
    let plan = house.restore.plan(&web(), &options).await.unwrap();
    assert_eq!((plan.paths.clone(), plan.claims.len(), plan.claims[0].bytes), (vec!["dir/file".to_owned()], 1, 10));
    assert!(matches!(plan.start, PlannedStart::None(_)));
    let unknown = RestoreOptions { paths: vec!["dir/nothing".into()], ..one_by_one() };
    let error = house.restore.plan(&web(), &unknown).await.unwrap_err();
    assert!(matches!(error, RestoreError::Refused(Refusal::NoSuchPath { .. })), "{error}");
    assert_eq!(log(&house), [""; 0]);
}

#[tokio::test]
async fn a_target_that_holds_data_refuses_before_anything_is_touched() {
    let house = house(Fake { targets: vec![("data-web-10".into(), TargetState::HoldsData)], ..able() }).await;
    let error = house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert_eq!((error.kind(), log(&house).len()), (FailureKind::Refused, 0));
    assert!(error.hint().unwrap().contains("--into"));
}

#[tokio::test]
async fn a_new_name_reaches_claims_movers_and_starts() {
    let house = house(able()).await;
    let options = RestoreOptions { to: Some("test/copy".parse().unwrap()), ordinals: vec![Ordinal(10)], ..one_by_one() };
    house.restore.run(&web(), &options).await.unwrap();
    assert_eq!(log(&house), ["open data-copy-10", "mover 10", "close data-copy-10", "start 10"]);
}

/// Ordinal 10 fails as long as `broken` holds.
fn failing(broken: &Arc<std::sync::atomic::AtomicBool>) -> Fake {
    let broken = broken.clone();
    let work = move |job: &MoverJob| match job.ordinal.0 {
        10 if broken.load(std::sync::atomic::Ordering::Relaxed) => {
            vec![MoverLine::Failed { error: "the disk is full".into(), hint: None, kind: FailureKind::Failed }]
        }
        _ => filled(job),
    };
    Fake { work: Some(Box::new(work)), ..able() }
}

fn full() -> Vec<(String, TargetState)> {
    (9..12).map(|ordinal| (format!("data-web-{ordinal}"), TargetState::HoldsData)).collect()
}

fn replacing() -> RestoreOptions {
    RestoreOptions { replace: true, ..one_by_one() }
}

#[tokio::test]
async fn a_restore_that_is_done_or_changed_nothing_leaves_no_journal() {
    let done = house(able()).await;
    done.restore.run(&web(), &one_by_one()).await.unwrap();
    assert_eq!(*done.journal.lock().unwrap(), None);
    let work = |_: &MoverJob| vec![MoverLine::Failed { error: "no".into(), hint: None, kind: FailureKind::Failed }];
    let failed = house(Fake { work: Some(Box::new(work)), ..able() }).await;
    let error = failed.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert!(error.hint().is_none(), "there is nothing to go on with: {:?}", error.hint());
    assert_eq!(*failed.journal.lock().unwrap(), None);
}

#[tokio::test]
async fn an_open_restore_refuses_another_and_is_resumed_where_it_was_left() {
    let broken = Arc::new(true.into());
    let house = house(failing(&broken)).await;
    let error = house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("`--resume` goes on with it, `--undo` takes it back"), "{:?}", error.hint());
    for refused in [house.restore.run(&web(), &one_by_one()).await.err(), house.restore.plan(&web(), &one_by_one()).await.err()] {
        let refused = refused.unwrap();
        assert!(matches!(refused, RestoreError::Refused(Refusal::Open { .. })), "{refused}");
        assert!(refused.hint().unwrap().contains("--resume"));
    }
    let other = house.restore.resume(&web(), Some("run-7"), &one_by_one()).await.unwrap_err();
    assert!(matches!(other, RestoreError::Refused(Refusal::OtherRun { .. })), "{other}");

    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    house.log.lock().unwrap().clear();
    let restored = house.restore.resume(&web(), None, &one_by_one()).await.unwrap();
    let expected = "open data-web-10,mover 10,close data-web-10,open data-web-11,mover 11,close data-web-11,start 9,start 10,start 11";
    assert_eq!(log(&house).join(","), expected);
    assert_eq!(restored.claims.iter().map(|claim| (claim.files, claim.bytes)).collect::<Vec<_>>(), [(1, 9); 3]);
    assert_eq!(*house.journal.lock().unwrap(), None);
    let none = house.restore.resume(&web(), None, &one_by_one()).await.unwrap_err();
    assert!(matches!(none, RestoreError::Refused(Refusal::NotOpen { .. })), "{none}");
}

#[tokio::test]
async fn an_undone_restore_takes_back_what_it_filled() {
    let house = house(failing(&Arc::new(true.into()))).await;
    house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    house.log.lock().unwrap().clear();
    let undone = house.restore.undo(&web(), None, &one_by_one()).await.unwrap();
    assert_eq!(log(&house), ["reopen data-web-9", "abandon data-web-9"]);
    assert_eq!((undone.claims, undone.safety_point, undone.left), (vec!["data-web-9".to_owned()], None, Vec::new()));
    assert_eq!(*house.journal.lock().unwrap(), None);
    assert_eq!(locks(&house).await, 0);
}

#[tokio::test]
async fn what_targets_hold_is_sealed_before_the_first_is_replaced_and_an_undo_brings_it_back() {
    let broken = Arc::new(true.into());
    let house = house(Fake { targets: full(), ..failing(&broken) }).await;
    house.restore.run(&web(), &replacing()).await.unwrap_err();
    let expected = "seal data-web-9 data-web-10 data-web-11,reopen data-web-9,mover 9,close data-web-9,reopen data-web-10,mover 10";
    assert_eq!(log(&house).join(","), expected, "what is half replaced is not emptied");

    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    house.log.lock().unwrap().clear();
    let undone = house.restore.undo(&web(), None, &replacing()).await.unwrap();
    assert_eq!(log(&house).join(","), "reopen data-web-9,mover 9,close data-web-9,reopen data-web-10,mover 10,close data-web-10");
    assert_eq!((undone.claims.len(), undone.safety_point), (2, Some(house.before)));
    assert_eq!(*house.journal.lock().unwrap(), None);
}

#[tokio::test]
async fn a_safety_point_that_fails_or_is_partial_keeps_everything_as_it_is() {
    for complete in [Some(false), None] {
        let mut house = house(Fake { targets: full(), ..able() }).await;
        let point = house.before;
        house.restore.seal_safety = Arc::new(move |_, _, _, _| {
            let failure = SafetyFailure { error: "unreadable".into(), hint: None, kind: FailureKind::Failed };
            Box::pin(async move { complete.map(|complete| SafetyPoint { point, complete }).ok_or(failure) })
        });
        let error = house.restore.run(&web(), &replacing()).await.unwrap_err();
        let expected = if complete.is_some() { FailureKind::Refused } else { FailureKind::Failed };
        assert_eq!((error.kind(), log(&house).len()), (expected, 0), "{error}");
        assert_eq!(*house.journal.lock().unwrap(), None);
    }
}

#[tokio::test]
async fn without_a_safety_point_an_undo_refuses_or_leaves_the_claim_half_restored() {
    let house = house(Fake { targets: full(), ..failing(&Arc::new(true.into())) }).await;
    let bold = RestoreOptions { safety: false, ..replacing() };
    house.restore.run(&web(), &bold).await.unwrap_err();
    let error = house.restore.undo(&web(), None, &replacing()).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Refused(Refusal::NoWayBack { claims }) if claims.len() == 2), "{error}");
    let undone = house.restore.undo(&web(), None, &bold).await.unwrap();
    assert_eq!(undone.left, ["data-web-9", "data-web-10"]);
    assert!(
        log(&house).ends_with(&["reopen data-web-9".to_owned(), "reopen data-web-10".to_owned()]),
        "marked, so that no backup takes them for whole"
    );
    assert_eq!(*house.journal.lock().unwrap(), None);
}

#[tokio::test]
async fn once_ordinals_are_started_there_is_no_undo_and_a_resume_starts_the_rest() {
    let house = house(Fake { starts: Some([9, 11].into()), ..able() }).await;
    house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    let refused = house.restore.undo(&web(), None, &one_by_one()).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Refused(Refusal::AlreadyStarted { .. })), "{refused}");
    house.log.lock().unwrap().clear();
    let error = house.restore.resume(&web(), None, &one_by_one()).await.unwrap_err();
    assert_eq!(log(&house), ["start 10"], "{error}");
    let done = RestoreOptions { start: StartMode::None, ..one_by_one() };
    assert_eq!(house.restore.resume(&web(), None, &done).await.unwrap().started, [Ordinal(9)]);
    assert_eq!(*house.journal.lock().unwrap(), None);
}

#[tokio::test]
async fn a_claim_that_cannot_be_opened_is_nobodys_to_take_back() {
    // Ordinal 10 holds data by the time its turn comes.
    let house = house(Fake { unopened: vec!["data-web-10".into()], ..able() }).await;
    house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    house.log.lock().unwrap().clear();
    let undone = house.restore.undo(&web(), None, &one_by_one()).await.unwrap();
    assert_eq!(log(&house), ["reopen data-web-9", "abandon data-web-9"], "{undone:?}");
}

#[tokio::test]
async fn who_goes_on_makes_safe_again_what_nobody_has_touched_yet() {
    let broken = Arc::new(true.into());
    let house = house(Fake { targets: full(), ..failing(&broken) }).await;
    house.restore.run(&web(), &replacing()).await.unwrap_err();
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    house.log.lock().unwrap().clear();
    house.restore.resume(&web(), None, &replacing()).await.unwrap();
    assert_eq!(log(&house)[0], "seal data-web-11", "it may have been in use since");
}

#[tokio::test]
async fn an_open_restore_of_another_namespace_is_not_taken_over() {
    let house = house(failing(&Arc::new(true.into()))).await;
    house.restore.run(&web(), &one_by_one()).await.unwrap_err();
    let other = house.restore.undo(&"stage/web".parse().unwrap(), None, &one_by_one()).await.unwrap_err();
    assert!(matches!(other, RestoreError::Refused(Refusal::OtherSet { .. })), "{other}");
}

#[test]
fn a_restore_can_run_on_any_thread() {
    #[allow(clippy::manual_async_fn, reason = "the bound is what is tested")]
    fn run(restore: Restore, set: SetName, options: RestoreOptions) -> impl Future<Output = Result<Restored, RestoreError>> + Send {
        async move { restore.run(&set, &options).await }
    }
    let _ = run;
}

/// A set that runs two of the three ordinals that the point has.
fn running() -> Fake {
    let running = SetRun { start: 9, replicas: 2, at_once: false, retention: None };
    Fake { running: Some(running), foreign: vec!["data-web-9".into()], targets: full(), starts: Some([9, 10].into()), ..able() }
}

#[tokio::test]
async fn a_running_set_is_stopped_before_its_claims_are_made_safe_and_comes_up_as_large_as_it_was() {
    let house = house(running()).await;
    let only = RestoreOptions { ordinals: vec![Ordinal(10)], ..replacing() };
    let restored = house.restore.run(&web(), &only).await.unwrap();
    let expected =
        "stop set, 1 claims,seal data-web-10,reopen data-web-10,mover 10,close data-web-10,start 9,start 10,give back, replicas None";
    assert_eq!(log(&house).join(","), expected);
    assert_eq!(restored.started, [Ordinal(9), Ordinal(10)]);
}

#[tokio::test]
async fn a_set_that_was_stopped_for_nothing_runs_again_and_an_undone_one_too() {
    let fails = |_: &MoverJob| vec![MoverLine::Failed { error: "no".into(), hint: None, kind: FailureKind::Failed }];
    let failed = house(Fake { work: Some(Box::new(fails)), ..running() }).await;
    failed.restore.run(&web(), &replacing()).await.unwrap_err();
    assert!(!log(&failed).iter().any(|line| line.starts_with("give back")), "it is half filled: {:?}", log(&failed));
    let given_up = RestoreOptions { safety: false, ..replacing() };
    failed.log.lock().unwrap().clear();
    let undone = failed.restore.undo(&web(), None, &given_up).await;
    assert!(undone.is_err(), "the movers still fail");
    assert_eq!(log(&failed)[0], "stop set, 3 claims");

    let untouched = house(Fake { unopened: vec!["data-web-9".into()], targets: Vec::new(), ..running() }).await;
    untouched.restore.run(&web(), &one_by_one()).await.unwrap_err();
    assert_eq!(log(&untouched), ["stop set, 3 claims", "give back, replicas Some(2)"]);
    assert_eq!(*untouched.journal.lock().unwrap(), None);
}
