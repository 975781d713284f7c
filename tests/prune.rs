//! Does a prune give back what nothing needs, and never anything else, whoever works beside it and wherever it is killed?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::time::Duration;

use keepset::repository::index::Index;
use keepset::repository::pack::BlobKind;
use keepset::repository::prune::record::Records;
use keepset::store::fault::{Call, Fault, Gate, Kind};

use support::ground::{Files, Ground, files};
use support::tree::Dice;

/// Two points that stay, one that is forgotten, whose packs are shared, a pack in no index, and what an earlier prune has condemned.
async fn used_ground() -> Ground {
    let mut ground = Ground::new().await;
    ground.backup(&files(0..30)).await.unwrap();
    let old = ground.backup(&files(200..215)).await.unwrap();
    ground.forget(&old).await;
    ground.prune().await.unwrap();
    let gone = ground.backup(&files(20..60)).await.unwrap();
    ground.backup(&files((40..50).chain(100..110))).await.unwrap();
    ground.forget(&gone).await;
    ground.orphan(300..310).await;
    ground
}

#[tokio::test(start_paused = true)]
async fn two_prunes_give_back_everything_that_nothing_needs() {
    let ground = used_ground().await;
    let before = ground.bytes().await;
    let first = ground.prune().await.unwrap();
    let planned = first.planned.unwrap();
    assert!(first.deleted.packs > 0, "what the prune before had condemned");
    assert!(planned.unused.packs > 0 && planned.orphans.packs > 0 && planned.repack.packs > 0, "{planned:?}");
    assert_eq!(planned.left_bytes, 0);
    assert_eq!(first.condemned.packs, planned.unused.packs + planned.orphans.packs + planned.repack.packs);
    ground.assert_whole("after the first").await;
    let second = ground.prune().await.unwrap();
    assert_eq!(second.deleted, first.condemned);
    assert_eq!(second.condemned.packs, 0);
    ground.assert_whole("after the second").await;
    ground.assert_tidy("after the second").await;
    let after = ground.bytes().await;
    assert_eq!(before - after, first.deleted.bytes + second.deleted.bytes - first.rewritten.bytes);
    ground.assert_restic_agrees(&tempfile::tempdir().unwrap().path().join("repository")).await;
}

#[tokio::test(start_paused = true)]
async fn one_prune_is_enough_where_it_may_delete_at_once() {
    let ground = used_ground().await;
    let report = ground.prune_with(|options| options.now = true).await.unwrap();
    assert_eq!(report.condemned.packs, 0);
    ground.assert_whole("after it").await;
    ground.assert_tidy("after it").await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_what_the_prune_then_does_and_changes_nothing() {
    let ground = used_ground().await;
    let before = ground.repository.store().list("").await.unwrap();
    let would = ground.prune_with(|options| options.dry_run = true).await.unwrap();
    assert_eq!(ground.repository.store().list("").await.unwrap(), before);
    let did = ground.prune().await.unwrap();
    assert_eq!((would.planned, would.deleted), (did.planned, did.deleted));
}

#[tokio::test(start_paused = true)]
async fn a_few_unused_bytes_stay_where_that_is_allowed_and_repacking_keeps_to_its_budget() {
    let ground = used_ground().await;
    let report = ground.prune_with(|options| options.limits.max_unused = 100.0).await.unwrap();
    let planned = report.planned.unwrap();
    assert_eq!((planned.repack.packs, report.rewritten.packs), (0, 0));
    assert!(planned.left_bytes > 0);
    let all = ground.prune_with(|options| options.dry_run = true).await.unwrap().planned.unwrap().repack;
    let budget = all.bytes / 2;
    let report = ground.prune_with(|options| options.limits.max_repack = Some(budget)).await.unwrap();
    let repacked = report.planned.unwrap().repack;
    assert!(repacked.packs > 0 && repacked.bytes <= budget, "{repacked:?} of {all:?}");
    ground.assert_whole("after it").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_while_anything_that_is_needed_is_lacking() {
    let ground = used_ground().await;
    let index = Index::load(&ground.repository).await.unwrap();
    let spoils: [fn(&Index) -> Vec<String>; 2] = [
        // A pack that is needed is gone; an index object is.
        |index| vec![keepset::repository::pack::key(&index.find(BlobKind::Data, &chunk(105)).unwrap().pack)],
        |index| {
            let pack = index.find(BlobKind::Tree, &index.rows().find(|row| row.1 == BlobKind::Tree).unwrap().0).unwrap().pack;
            index.objects_naming(&[pack].into()).into_iter().map(|id| format!("index/{id}")).collect()
        },
    ];
    for spoil in spoils {
        let ground = ground.copy().await;
        ground.repository.store().delete(&spoil(&index)).await.unwrap();
        let before = ground.repository.store().list("").await.unwrap();
        let error = ground.prune().await.unwrap_err();
        assert_eq!(error.to_string(), "nothing more was removed");
        let after = ground.repository.store().list("").await.unwrap();
        assert!(before.iter().all(|object| object.key.starts_with("x-keepset/") || after.contains(object)));
    }
}

fn chunk(seed: u64) -> keepset::model::id::Id {
    let files = files([seed]);
    keepset::repository::codec::id_of(files.values().next().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_damaged_blob_gets_no_new_name() {
    let ground = used_ground().await;
    let index = Index::load(&ground.repository).await.unwrap();
    // Of the pack that will be repacked, since the forgotten point shared it.
    let pack_of = |seed| index.find(BlobKind::Data, &chunk(seed)).map(|place| place.pack);
    let seed = (40..50).find(|seed| (50..60).chain(20..40).any(|gone| pack_of(gone) == pack_of(*seed))).unwrap();
    let place = index.find(BlobKind::Data, &chunk(seed)).unwrap();
    let key = keepset::repository::pack::key(&place.pack);
    let mut bytes = ground.repository.store().get(&key).await.unwrap().to_vec();
    bytes[place.offset as usize + 20] ^= 1;
    ground.repository.store().delete(std::slice::from_ref(&key)).await.unwrap();
    ground.repository.store().put_new(&key, bytes.into()).await.unwrap();
    let error = ground.prune().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(&place.pack.hex()), "{cause}");
    assert!(ground.repository.store().size(&key).await.unwrap().is_some());
}

/// What a kill does to the write during which it comes. Kills between two writes all leave the same.
#[derive(Clone, Copy, Debug)]
enum Death {
    Before,
    After,
    Halfway,
}

impl Death {
    /// At this write, from 0.
    fn rule(self, at: usize) -> impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static {
        let mut writes = 0;
        move |_, call| {
            let is_write = matches!(call.kind, Kind::Put | Kind::Delete);
            let number = writes;
            writes += usize::from(is_write);
            match (self, is_write) {
                _ if number < at => None,
                (_, false) if number == at => None,
                (Death::After, true) if number == at => Some(Fault::After),
                (Death::Halfway, true) if number == at && call.kind == Kind::Delete => Some(Fault::Torn),
                _ => Some(Fault::Dead),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_prune_that_is_killed_anywhere_loses_nothing_and_the_next_ones_finish_it() {
    let whole = used_ground().await;
    for death in [Death::Before, Death::After, Death::Halfway] {
        let mut at = 0;
        loop {
            let when = format!("killed at write {at} ({death:?})");
            let mut ground = whole.copy().await;
            ground.faulty.obey(death.rule(at));
            let died = ground.prune_with(|options| options.now = true).await;
            if ground.faulty.fired() == 0 {
                died.unwrap();
                assert!(at > 12, "a prune of {at} writes");
                break;
            }
            ground.reboot().await;
            ground.assert_whole(&when).await;
            ground.prune_with(|options| options.now = true).await.unwrap();
            ground.assert_whole(&when).await;
            ground.prune().await.unwrap();
            ground.assert_whole(&when).await;
            ground.assert_tidy(&when).await;
            at += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn side_objects_can_be_lost_at_any_moment() {
    let ground = used_ground().await;
    let blocker = ground.foreign_lock().await;
    assert!(ground.prune().await.unwrap().waiting_for.is_some());
    for _ in 0..3 {
        let side: Vec<String> = ground.repository.store().list("x-keepset").await.unwrap().into_iter().map(|object| object.key).collect();
        ground.repository.store().delete(&side).await.unwrap();
        ground.remove_lock(&blocker).await;
        ground.prune().await.unwrap();
        ground.assert_whole("without them").await;
    }
    ground.prune().await.unwrap();
    ground.assert_tidy("in the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_began_before_the_marks_may_rely_on_marked_packs_and_keeps_them() {
    let mut ground = Ground::new().await;
    ground.backup(&files(0..10)).await.unwrap();
    let gone = ground.backup(&files(10..30)).await.unwrap();
    ground.forget(&gone).await;
    let run = ground.begin().await.unwrap();
    let report = ground.prune_with(|options| options.now = true).await.unwrap();
    assert!(report.waiting_for.unwrap().contains("a shared lock of pid"));
    let stored = ground.bytes().await;
    ground.seal(run, &files(10..30)).await.unwrap();
    assert!(ground.bytes().await - stored < 10_000, "all of its chunks were there");
    ground.assert_whole("sealed").await;
    for _ in 0..2 {
        ground.prune().await.unwrap();
        ground.assert_whole("pruned").await;
    }
    ground.assert_tidy("pruned").await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_run_that_relies_on_marked_packs_rescues_them() {
    let mut ground = Ground::new().await;
    ground.backup(&files(0..10)).await.unwrap();
    let gone = ground.backup(&files(10..30)).await.unwrap();
    ground.forget(&gone).await;
    let run = ground.begin().await.unwrap();
    assert!(ground.prune().await.unwrap().waiting_for.is_some());
    let marks = Records::load(&ground.repository).await.unwrap().marks.remove(0).1;
    assert!(!marks.packs.is_empty());
    ground.seal(run, &files(15..20)).await.unwrap();
    let report = ground.prune().await.unwrap();
    assert!(report.rescued > 0, "{report:?}");
    ground.assert_whole("rescued").await;
    ground.prune().await.unwrap();
    ground.assert_whole("and repacked").await;
    ground.assert_tidy("and repacked").await;
}

#[tokio::test(start_paused = true)]
async fn a_run_of_ours_that_begins_after_the_marks_does_not_rely_on_marked_packs() {
    let mut ground = Ground::new().await;
    ground.backup(&files(0..10)).await.unwrap();
    let gone = ground.backup(&files(10..30)).await.unwrap();
    ground.forget(&gone).await;
    let blocker = ground.foreign_lock().await;
    assert!(ground.prune().await.unwrap().waiting_for.is_some());
    let marked = Records::load(&ground.repository).await.unwrap().packs();
    ground.backup(&files(10..30)).await.unwrap();
    let index = Index::load(&ground.repository).await.unwrap();
    for seed in 10..30 {
        assert!(index.places(BlobKind::Data, &chunk(seed)).any(|place| !marked.contains(&place.pack)), "{seed}");
    }
    ground.remove_lock(&blocker).await;
    let report = ground.prune().await.unwrap();
    assert_eq!(report.rescued, 0);
    ground.assert_whole("pruned").await;
    ground.prune().await.unwrap();
    ground.assert_tidy("pruned").await;
}

#[tokio::test(start_paused = true)]
async fn of_two_prunes_at_once_the_slower_one_finds_its_marks_void() {
    let ground = used_ground().await;
    let gate = Gate::default();
    let held = gate.clone();
    let mut locks = 0;
    // The second lock that this prune puts is the exclusive one.
    ground.faulty.obey(move |_, call| {
        locks += usize::from(call.kind == Kind::Put && call.key.starts_with("locks/"));
        (locks == 2 && call.kind == Kind::Put).then(|| Fault::Held(held.clone()))
    });
    let other = ground.beside().await;
    let fast = async {
        gate.reached().await;
        other.prune_with(|options| options.now = true).await.unwrap();
        other.prune().await.unwrap();
        other.assert_tidy("while the other waits").await;
        gate.open();
    };
    let (slow, ()) = tokio::join!(ground.prune(), fast);
    let report = slow.unwrap();
    assert_eq!(report.condemned.packs, 0);
    ground.assert_whole("after both").await;
    ground.assert_tidy("after both").await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_loaded_the_index_before_can_read_on_after_a_prune() {
    let ground = used_ground().await;
    let reader =
        keepset::repository::reader::Reader::new(&ground.repository, std::sync::Arc::new(Index::load(&ground.repository).await.unwrap()));
    assert!(ground.prune().await.unwrap().planned.unwrap().repack.packs > 0);
    for (name, bytes) in ground.points.values().flatten() {
        let id = keepset::repository::codec::id_of(bytes);
        assert!(reader.chunk(&id).await.unwrap() == *bytes, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_every_point_that_is_kept_comes_back() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut ground = Ground::new().await;
        let mut live: Files = files(0..20);
        for step in 0..14 {
            let when = format!("history {seed}, step {step}");
            match dice.below(6) {
                0..=2 => {
                    for _ in 0..dice.below(12) {
                        let number = dice.next() % 60;
                        if dice.below(3) == 0 {
                            live.remove(&format!("file-{number:04}"));
                        } else {
                            live.extend(files([number]));
                        }
                    }
                    if dice.below(4) == 0 {
                        let at = 1 + dice.below(8);
                        ground.faulty.obey(Death::Before.rule(at));
                        if ground.backup(&live).await.is_err() {
                            ground.reboot().await;
                        }
                        ground.faulty.heal();
                    } else {
                        ground.backup(&live).await.unwrap();
                    }
                }
                3 => {
                    let ids: Vec<_> = ground.points.keys().copied().collect();
                    if ids.len() > 1 {
                        ground.forget(&ids[dice.below(ids.len())]).await;
                    }
                }
                _ => {
                    let death = [Death::Before, Death::After, Death::Halfway][dice.below(3)];
                    let kills = dice.below(2) == 0;
                    let at = if kills { dice.below(24) } else { usize::MAX };
                    ground.faulty.obey(death.rule(at));
                    let (unused, now) = ([0.0, 5.0, 50.0][dice.below(3)], dice.below(3) == 0);
                    let pruned = ground
                        .prune_with(|options| {
                            options.limits.max_unused = unused;
                            options.now = now;
                        })
                        .await;
                    assert!(pruned.is_ok() || ground.faulty.fired() > 0, "{when}: {pruned:?}");
                    if pruned.is_err() {
                        ground.reboot().await;
                    }
                    ground.faulty.heal();
                }
            }
            ground.assert_whole(&when).await;
        }
        for _ in 0..2 {
            ground.prune().await.unwrap();
        }
        ground.assert_whole("in the end").await;
        ground.assert_tidy("in the end").await;
        ground.assert_restic_agrees(&tempfile::tempdir().unwrap().path().join("repository")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_prune_waits_for_who_works_as_long_as_it_may() {
    let ground = used_ground().await;
    let blocker = ground.foreign_lock().await;
    let gone = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        ground.remove_lock(&blocker).await;
    };
    let (report, ()) = tokio::join!(ground.prune_waiting(Duration::from_secs(600), |_| {}), gone);
    let report = report.unwrap();
    assert!(report.waiting_for.is_none() && report.condemned.packs > 0);
}
