//! Backups of a fake platform into a repository in memory: what is sealed, and what never is.

use std::sync::Mutex;

use super::*;
use crate::model::claim::{ClaimId, ClaimShape};
use crate::model::entry::{Attrs, Entry, Kind};
use crate::model::hook::{Hook, Hooks, OnError};
use crate::model::id::Id;
use crate::model::manifest::{ChangeDetection, ClaimStatus, SetRecord};
use crate::model::mover_job::{ClaimReport, FailureKind, MoverJob, MoverLine, MoverReport, Problem, ProblemKind, Progress, Task};
use crate::model::set::Ordinal;
use crate::model::set_state::{ClaimState, PodState, SetRun};
use crate::monitor::Silent;
use crate::platform::Ended;
use crate::platform::fake::Fake;
use crate::repository::key::KeyOrigin;
use crate::repository::key::Password;
use crate::repository::pack::{self, BlobKind};
use crate::repository::points::list_points;
use crate::repository::tree;
use crate::repository::writer::{Writer, WriterOptions};
use crate::store::Store;

struct House {
    backup: Backup,
    fake: Arc<Fake>,
    cancel: watch::Sender<bool>,
}

fn web() -> SetName {
    "shop/web".parse().unwrap()
}

fn state(ordinals: std::ops::Range<u32>) -> SetState {
    let claims = ordinals.map(|ordinal| {
        let id = ClaimId { ordinal: Ordinal(ordinal), template: "data".into() };
        let name = id.name("web");
        ClaimState {
            source: Some(format!("/fake/{name}")),
            id,
            name,
            empty: false,
            shape: ClaimShape::default(),
            retained: false,
            half_restored: None,
        }
    });
    let set = SetRecord {
        cluster: "here".into(),
        namespace: "shop".into(),
        name: "web".into(),
        replicas: 3,
        templates: vec!["data".into()],
        ..SetRecord::default()
    };
    SetState { set, claims: claims.collect(), ..SetState::default() }
}

/// A claim of one file, which is put into the repository; what a mover would have done.
async fn saved(repository: &Repository, text: &str) -> (Id, Vec<Id>, Vec<Id>) {
    let index = Arc::new(Index::load(repository).await.unwrap());
    let writer = Writer::new(repository, index, WriterOptions::for_memory(1 << 20));
    let (adding, text) = (writer.clone(), text.to_owned());
    let tree = tokio::task::spawn_blocking(move || {
        let mut encoder = adding.encoder().unwrap();
        let chunk = adding.add(&mut encoder, BlobKind::Data, text.as_bytes()).unwrap().id;
        let attrs = Attrs { mode: 0o600, size: text.len() as u64, links: 1, ..Attrs::default() };
        let file = Entry { name: b"file".to_vec(), kind: Kind::File { content: vec![chunk].into() }, attrs };
        adding.add(&mut encoder, BlobKind::Tree, &tree::encode(&[file])).unwrap().id
    })
    .await
    .unwrap();
    let written = writer.finish().await.unwrap();
    (tree, written.packs, written.indexes)
}

fn report(job: &MoverJob, tree: Id, packs: &[Id], indexes: &[Id], problems: &[Problem]) -> MoverReport {
    let Task::Save(claims) = &job.task else { panic!("asked to fill") };
    let claims = claims.iter().map(|claim| ClaimReport {
        name: claim.name.clone(),
        tree,
        root: Attrs { mode: 0o750, ..Attrs::default() },
        files: 1,
        dirs: 0,
        bytes: 5,
        cut: "2026-11-24T08:00:00Z".into(),
        change_detection: None,
        clock_lag: 0,
        problems: problems.to_vec(),
    });
    MoverReport {
        run: job.run.clone(),
        ordinal: job.ordinal,
        total: Progress { files: 1, bytes: 5, ..Progress::default() },
        claims: claims.collect(),
        new_packs: packs.to_vec(),
        new_indexes: indexes.to_vec(),
        old_indexes: Vec::new(),
    }
}

async fn house(fake: impl AsyncFnOnce(&Repository) -> Fake) -> House {
    let password = Password::generate().unwrap();
    let repository = Repository::init(Store::memory(), &password, KeyOrigin::default()).await.unwrap();
    let fake = Arc::new(fake(&repository).await);
    let (cancel, cancelled) = watch::channel(false);
    let backup = Backup {
        repository,
        platform: fake.clone(),
        clock: Clock::system(),
        monitor: Arc::new(Silent),
        identity: LockIdentity::this_process(Some("here".into()), "root".into()),
        cancel: cancelled,
    };
    House { backup, fake, cancel }
}

/// Three ordinals that all save the same.
async fn plain(repository: &Repository) -> Fake {
    with_problems(repository, &[]).await
}

async fn with_problems(repository: &Repository, problems: &[Problem]) -> Fake {
    let (tree, packs, indexes) = saved(repository, "hello").await;
    let problems = problems.to_vec();
    let work = move |job: &MoverJob| vec![MoverLine::Report(report(job, tree, &packs, &indexes, &problems))];
    Fake { state: state(0..3), work: Some(Box::new(work)), ..Fake::default() }
}

async fn points(house: &House) -> points::Points {
    let index = Arc::new(Index::load(&house.backup.repository).await.unwrap());
    list_points(&Reader::new(&house.backup.repository, index), None).await.unwrap()
}

async fn locks(house: &House) -> usize {
    house.backup.repository.store().list("locks").await.unwrap().len()
}

#[tokio::test]
async fn a_backup_seals_one_point_that_is_listed_as_complete() {
    let house = house(plain).await;
    let sealed = house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    assert!(sealed.complete);
    assert_eq!(sealed.total.files, 3);
    let points = points(&house).await;
    assert_eq!(points.foreign, []);
    let [point] = points.points.as_slice() else { panic!("{} points", points.points.len()) };
    assert_eq!((point.point.id, point.point.complete, point.defects.len()), (sealed.point, true, 0));
    assert_eq!(point.manifest, sealed.manifest);
    assert_eq!(point.claims[2].root.mode, 0o750, "the volume root's own attributes are in the point");
    assert_eq!(locks(&house).await, 0);
}

#[tokio::test]
async fn the_first_point_saves_one_ordinal_before_the_others() {
    let house = house(plain).await;
    house.backup.run(&web(), &BackupOptions { parallel: 8, ..BackupOptions::default() }).await.unwrap();
    assert_eq!(house.fake.log()[0], "mover 0");
    house.backup.run(&web(), &BackupOptions { parallel: 1, order: Order::Descending, ..BackupOptions::default() }).await.unwrap();
    assert_eq!(house.fake.log()[3..], ["mover 2", "mover 1", "mover 0"]);
}

#[tokio::test]
async fn a_later_backup_compares_with_the_point_before_it() {
    let house = house(plain).await;
    let sealed = house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    let plan = house.backup.plan(&web(), &BackupOptions::default()).await.unwrap();
    assert_eq!(plan.previous.unwrap().id, sealed.point);
    assert!(plan.ordinals.iter().all(|ordinal| ordinal.claims[0].parent == sealed.manifest.claims[0].tree));
}

#[tokio::test]
async fn what_could_not_be_read_makes_the_point_partial_and_is_listed_in_it() {
    let unreadable = Problem { path: "a/b".into(), kind: ProblemKind::Unreadable, reason: "permission denied".into() };
    let changed = Problem { path: "log".into(), kind: ProblemKind::Changed, reason: "it grew".into() };
    let house = house(async |repository: &Repository| with_problems(repository, &[unreadable, changed]).await).await;
    let sealed = house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    assert!(!sealed.complete);
    assert_eq!((sealed.manifest.claims[0].unreadable, sealed.manifest.claims[0].changed), (1, 1));
    let points = points(&house).await;
    assert!(!points.points[0].point.complete);
    let index = Arc::new(Index::load(&house.backup.repository).await.unwrap());
    let reader = Reader::new(&house.backup.repository, index);
    let name = sealed.manifest.claims[0].problems.clone().unwrap();
    let path = format!("shop/web/{name}");
    let entry = crate::repository::browse::entry_at(&reader, &points.points[0].tree, &path).await.unwrap().unwrap();
    let list = crate::repository::browse::file_bytes(&reader, &entry, 1 << 20).await.unwrap();
    assert_eq!(String::from_utf8(list).unwrap().lines().count(), 2);
    let snapshots = snapshot::list(&house.backup.repository).await.unwrap();
    assert_eq!(snapshots[0].1.hostname, "web.shop.here.partial");
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Monitor for Heard {
    fn event(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[tokio::test]
async fn what_changed_while_it_was_read_is_fuzzy_whatever_was_planned() {
    let problem = |kind| Problem { path: "table".into(), kind, reason: "it grew".into() };
    let stopped = BackupOptions { stopped: true, ..BackupOptions::default() };
    for (kind, offers, options, told) in [
        (ProblemKind::Changed, Consistency::Fuzzy, &stopped, "nothing was to write to it"),
        (ProblemKind::Vanished, Consistency::Fuzzy, &stopped, "nothing was to write to it"),
        (ProblemKind::Changed, Consistency::Group, &BackupOptions::default(), "it was to be held still"),
    ] {
        let mut house = house(async |repository: &Repository| {
            let fake = with_problems(repository, &[problem(kind)]).await;
            Fake { state: SetState { offers, ..state(0..3) }, ..fake }
        })
        .await;
        let heard = Arc::new(Heard::default());
        house.backup.monitor = heard.clone();
        let sealed = house.backup.run(&web(), options).await.unwrap();
        assert!(sealed.complete);
        assert!(sealed.manifest.claims.iter().all(|claim| claim.consistency == Consistency::Fuzzy), "{:?}", sealed.manifest.claims);
        assert_eq!(points(&house).await.points[0].point.consistency, Consistency::Fuzzy);
        let heard = heard.0.lock().unwrap().join("\n");
        assert!(heard.contains("claim data-web-0 changed while it was read") && heard.contains(told), "{heard}");
        // A live walk's times can be relied on from its beginning; those of a snapshot that was not held cannot.
        let plan = house.backup.plan(&web(), options).await.unwrap();
        let by_times = plan.ordinals[0].claims[0].change_detection == ChangeDetection::Metadata;
        assert_eq!(by_times, offers == Consistency::Fuzzy);
    }
    let unread = Problem { kind: ProblemKind::Unreadable, ..problem(ProblemKind::Changed) };
    let house = house(async |repository: &Repository| with_problems(repository, &[unread]).await).await;
    let sealed = house.backup.run(&web(), &stopped).await.unwrap();
    assert_eq!(sealed.manifest.claims[0].consistency, Consistency::Stopped);
}

#[tokio::test]
async fn a_missing_claim_is_recorded_and_the_next_complete_point_is_still_measured_against_the_last() {
    let mut house = house(plain).await;
    house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    let mut lacking = state(0..3);
    lacking.claims[1].source = None;
    let fake = Fake { state: lacking, ..plain(&house.backup.repository).await };
    house.backup.platform = Arc::new(fake);
    let refused = house.backup.run(&web(), &BackupOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), FailureKind::Refused);
    let sealed = house.backup.run(&web(), &BackupOptions { allow_fewer_claims: true, ..BackupOptions::default() }).await.unwrap();
    assert!(!sealed.complete);
    assert_eq!(sealed.manifest.claims[1].status, ClaimStatus::Missing);
    assert_eq!(house.backup.run(&web(), &BackupOptions::default()).await.unwrap_err().kind(), FailureKind::Refused);
}

#[tokio::test]
async fn a_mover_that_fails_stops_the_others_and_no_point_is_made() {
    let work = |job: &MoverJob| match job.ordinal.0 {
        1 => vec![MoverLine::Failed { error: "the disk is gone".into(), hint: Some("find it".into()), kind: FailureKind::Failed }],
        _ => Vec::new(),
    };
    let fake = Fake { state: state(0..3), work: Some(Box::new(work)), ..Fake::default() };
    let mut house = house(plain).await;
    house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    let fake = Arc::new(fake);
    house.backup.platform = fake.clone();
    let two = BackupOptions { parallel: 2, ..BackupOptions::default() };
    let error = house.backup.run(&web(), &two).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk is gone (ordinal 1)");
    assert_eq!(error.hint().as_deref(), Some("find it"));
    assert_eq!(fake.log(), ["mover 0", "mover 1", "stop 0"]);
    assert_eq!(points(&house).await.points.len(), 1);
    assert_eq!(locks(&house).await, 0);
}

#[tokio::test]
async fn an_interrupt_stops_the_movers_and_takes_the_lock_away() {
    let house = house(async |_: &Repository| Fake { state: state(0..3), ..Fake::default() }).await;
    let interrupt = async {
        while house.fake.log().is_empty() {
            tokio::task::yield_now().await;
        }
        house.cancel.send_replace(true);
    };
    let options = BackupOptions::default();
    let set = web();
    let (outcome, ()) = tokio::join!(house.backup.run(&set, &options), interrupt);
    assert_eq!(outcome.unwrap_err().kind(), FailureKind::Interrupted);
    assert_eq!(house.fake.log(), ["mover 0", "stop 0"]);
    assert_eq!((points(&house).await.points.len(), locks(&house).await), (0, 0));
}

#[tokio::test]
async fn a_pack_that_vanished_before_the_seal_means_no_point() {
    let house = house(plain).await;
    let packs: Vec<String> = house.backup.repository.store().list("data").await.unwrap().into_iter().map(|object| object.key).collect();
    assert!(packs.iter().all(|key| pack::id_of_key(key).is_some()));
    house.backup.repository.store().delete(&packs).await.unwrap();
    let error = house.backup.run(&web(), &BackupOptions::default()).await.unwrap_err();
    assert!(matches!(error, BackupError::Vanished { .. }), "{error}");
    assert_eq!(house.backup.repository.ids("snapshots").await.unwrap(), []);
}

#[tokio::test]
async fn an_old_pack_that_is_lost_stops_a_point_only_if_the_point_needs_it() {
    let mut house = house(plain).await;
    let repository = house.backup.repository.clone();
    let (_, unrelated, _) = saved(&repository, "of some other set").await;
    repository.store().delete(&[pack::key(&unrelated[0])]).await.unwrap();
    house.backup.run(&web(), &BackupOptions::default()).await.unwrap();

    let (tree, needed, _) = saved(&repository, "relied upon").await;
    let work = move |job: &MoverJob| vec![MoverLine::Report(report(job, tree, &[], &[], &[]))];
    house.backup.platform = Arc::new(Fake { state: state(0..3), work: Some(Box::new(work)), ..Fake::default() });
    house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    let keys: Vec<String> = needed.iter().map(pack::key).collect();
    repository.store().delete(&keys).await.unwrap();
    let error = house.backup.run(&web(), &BackupOptions::default()).await.unwrap_err();
    assert!(matches!(error, BackupError::Vanished { .. }), "{error}");
}

#[tokio::test]
async fn an_index_that_only_a_mover_had_read_and_that_is_gone_before_the_seal_means_no_point() {
    let mut house = house(plain).await;
    let repository = house.backup.repository.clone();
    let (tree, _, indexes) = saved(&repository, "of a run beside this one").await;
    repository.store().delete(&[format!("index/{}", indexes[0])]).await.unwrap();
    let work = move |job: &MoverJob| {
        let report = MoverReport { old_indexes: indexes.clone(), ..report(job, tree, &[], &[], &[]) };
        vec![MoverLine::Report(report)]
    };
    house.backup.platform = Arc::new(Fake { state: state(0..3), work: Some(Box::new(work)), ..Fake::default() });
    let error = house.backup.run(&web(), &BackupOptions::default()).await.unwrap_err();
    assert!(matches!(error, BackupError::Vanished { .. }), "{error}");
    assert_eq!(repository.ids("snapshots").await.unwrap(), []);
}

#[tokio::test]
async fn a_report_on_something_else_is_no_report() {
    let spoil: [fn(&mut MoverReport); 4] = [
        |report| report.run = "another".into(),
        |report| report.ordinal = Ordinal(7),
        |report| report.claims[0].name = "data-web-7".into(),
        |report| report.claims.clear(),
    ];
    for spoil in spoil {
        let house = house(async |repository: &Repository| {
            let (tree, packs, indexes) = saved(repository, "hello").await;
            let work = move |job: &MoverJob| {
                let mut report = report(job, tree, &packs, &indexes, &[]);
                spoil(&mut report);
                vec![MoverLine::Report(report)]
            };
            Fake { state: state(0..1), work: Some(Box::new(work)), ..Fake::default() }
        })
        .await;
        let error = house.backup.run(&web(), &BackupOptions::default()).await.unwrap_err();
        assert!(matches!(error, BackupError::BadReport { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_dry_run_starts_nothing_and_writes_nothing() {
    let house = house(plain).await;
    let before = house.backup.repository.store().list("").await.unwrap();
    house.backup.plan(&web(), &BackupOptions::default()).await.unwrap();
    assert_eq!(house.fake.log(), [""; 0]);
    assert_eq!(house.backup.repository.store().list("").await.unwrap(), before);
}

#[tokio::test]
async fn steps_are_told_to_the_monitor() {
    #[derive(Default)]
    struct Listener(Mutex<Vec<Event>>);
    impl Monitor for Listener {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }
    let mut house = house(plain).await;
    let listener = Arc::new(Listener::default());
    house.backup.monitor = listener.clone();
    house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    let events = listener.0.lock().unwrap();
    let done = events.iter().filter(|event| matches!(event, Event::Done { .. })).count();
    let steps: Vec<&str> =
        events.iter().filter_map(|event| if let Event::Step(step) = event { Some(step.as_str()) } else { None }).collect();
    assert_eq!((done, steps[0]), (3, "saving ordinal 0: data-web-0"));
    assert_eq!(steps.last(), Some(&"sealing the point"));
}

#[test]
fn a_backup_can_run_on_any_thread() {
    #[allow(clippy::manual_async_fn, reason = "the bound is what is tested")]
    fn run(backup: Backup, set: SetName, options: BackupOptions) -> impl Future<Output = Result<Sealed, BackupError>> + Send {
        async move { backup.run(&set, &options).await }
    }
    let _ = run;
}

/// Three ordinals whose pods each want to be held and let go.
async fn with_hooks(repository: &Repository) -> Fake {
    let pods = (0..3).map(|ordinal| PodState {
        ordinal: Ordinal(ordinal),
        name: format!("web-{ordinal}"),
        running: true,
        containers: vec!["db".into()],
        annotations: [("pre", "hold"), ("post", "go")]
            .map(|(phase, command)| (format!("{phase}.hook.backup.velero.io/command"), command.to_owned()))
            .into(),
    });
    let plain = plain(repository).await;
    let state = SetState { pods: Some(pods.collect()), offers: Consistency::Group, ..plain.state };
    let end = |argv: &[String]| (argv != ["never"]).then_some(Ended::Code(0));
    let running = Some(SetRun::default());
    Fake { state, commands: Some(Box::new(end)), moment: Some("2026-11-24T08:00:00Z".into()), running, work: plain.work, ..Fake::default() }
}

fn in_pods(verb: &str, ordinals: std::ops::Range<u32>) -> Vec<String> {
    ordinals.map(|ordinal| format!("{}in web-{ordinal}/db: {verb}", if verb == "go" { "told " } else { "" })).collect()
}

#[tokio::test]
async fn applications_are_held_for_the_cut_alone_and_where_there_is_none_until_all_is_read() {
    let house = house(with_hooks).await;
    house.backup.run(&web(), &BackupOptions::default()).await.unwrap();
    let cut = [in_pods("hold", 0..3), vec!["cut group".into()], in_pods("go", 0..3)].concat();
    assert_eq!(house.fake.log()[..7], cut);
    assert!(house.fake.log()[7].starts_with("mover"));
    house.fake.log.lock().unwrap().clear();
    house.backup.run(&web(), &BackupOptions { live: true, ..BackupOptions::default() }).await.unwrap();
    let log = house.fake.log();
    assert_eq!(log[log.len() - 3..], in_pods("go", 0..3));
    assert_eq!(log[..4], [in_pods("hold", 0..3), vec!["cut fuzzy".into()]].concat());
    // Nobody is held who does not write.
    house.fake.log.lock().unwrap().clear();
    house.backup.run(&web(), &BackupOptions { stopped: true, ..BackupOptions::default() }).await.unwrap();
    assert!(house.fake.log().iter().all(|line| !line.contains("web-0/db")));
}

#[tokio::test]
async fn an_interrupt_amid_the_hooks_lets_go_what_they_held() {
    let house = house(with_hooks).await;
    let hook = |ordinal: u32, command: &str| Hook {
        ordinals: vec![ordinal],
        container: None,
        command: vec![command.into()],
        seconds: 30,
        on_error: OnError::Fail,
    };
    let hooks = Hooks { pre: vec![hook(0, "hold"), hook(1, "never")], post: vec![hook(0, "go"), hook(1, "go"), hook(2, "go")] };
    let interrupt = async {
        while house.fake.log().len() < 2 {
            tokio::task::yield_now().await;
        }
        house.cancel.send_replace(true);
    };
    let (options, set) = (BackupOptions { hooks: Some(hooks), ..BackupOptions::default() }, web());
    let (outcome, ()) = tokio::join!(house.backup.run(&set, &options), interrupt);
    assert_eq!(outcome.unwrap_err().kind(), FailureKind::Interrupted);
    assert_eq!(house.fake.log()[2..], in_pods("go", 0..2));
}

#[tokio::test]
async fn a_cut_or_a_mover_that_fails_lets_the_applications_go_and_its_own_error_is_told() {
    let house = house(async |repository: &Repository| {
        let failed = |_: &MoverJob| vec![MoverLine::Failed { error: "gone".into(), hint: None, kind: FailureKind::Failed }];
        Fake { work: Some(Box::new(failed)), ..with_hooks(repository).await }
    })
    .await;
    let error = house.backup.run(&web(), &BackupOptions { live: true, ..BackupOptions::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "gone (ordinal 0)");
    let log = house.fake.log();
    assert_eq!(log[log.len() - 3..], in_pods("go", 0..3));
}
