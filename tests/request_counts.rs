//! How many requests does each operation make of its store? Each costs a round trip and money: these numbers change only on purpose.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::sync::Arc;

use keepset::clock::Clock;
use keepset::monitor::Silent;
use keepset::repository::check::{CheckOptions, check};
use keepset::repository::key::{KeyOrigin, Password};
use keepset::repository::{Repository, passwords};
use keepset::store::fault::{Call, Fault, Faulty, Kind};
use keepset::store::{Patience, Store};
use object_store::memory::InMemory;
use support::house::{House, the_living, web};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    puts: usize,
    gets: usize,
    heads: usize,
    lists: usize,
    deletes: usize,
}

/// A set of three claims, and a store that counts what is asked of it.
struct Ground {
    house: House,
    faulty: Faulty,
    store: Store,
    repository: Repository,
}

impl Ground {
    async fn new() -> Ground {
        let house = House::new(3);
        let faulty = Faulty::over(Arc::new(InMemory::new()));
        let store = faulty.store(Patience::local());
        let repository = Repository::init(store.clone(), &house.password, KeyOrigin::default()).await.unwrap();
        Ground { house, faulty, store, repository }
    }

    /// What has been asked since this was called last.
    #[track_caller]
    fn expect(&self, what: &str, expected: Counts) {
        let count = |kind| self.faulty.count(kind);
        let found = Counts {
            puts: count(Kind::Put),
            gets: count(Kind::Get),
            heads: count(Kind::Head),
            lists: count(Kind::List),
            deletes: count(Kind::Delete),
        };
        let calls: Vec<String> = self.faulty.calls().iter().map(|call| format!("{:?} {}", call.kind, call.key)).collect();
        assert_eq!(found, expected, "{what}:\n{}", calls.join("\n"));
        self.faulty.obey(|_, _| None);
    }

    async fn backup(&mut self) -> keepset::model::id::Id {
        let sealed = self.house.backup_of(&web(), self.repository.clone(), the_living()).await.unwrap();
        self.house.keep(sealed.point);
        sealed.point
    }
}

/// Taking a lock (list, put, list), and giving it back.
const LOCK: Counts = Counts { puts: 1, gets: 0, heads: 0, lists: 2, deletes: 1 };

#[tokio::test]
async fn every_operation_asks_its_store_as_little_as_it_can() {
    let mut ground = Ground::new().await;
    // Is there a config? Are there keys, or what a repository without its config would have? First the key, then the config.
    ground.expect("init", Counts { puts: 2, heads: 1, lists: 4, ..Counts::default() });

    ground.house.open(&ground.store).await.unwrap();
    let open = Counts { gets: 2, lists: 1, ..Counts::default() };
    ground.expect("open: config, keys, the key", open);

    ground.backup().await;
    let claims = 3;
    // Before the movers: has another run died, and may this one?
    let (begin_puts, begin_lists) = (1, 1);
    // A mover reads the config, every index and what a prune has marked, and puts a pack of data, one of trees, the index of both, and its report.
    let (mover_puts, mover_lists) = (4, 2);
    // The seal looks at the lock three times, for new indexes and for all packs; it puts a pack of data, one of trees, their index, and the snapshot.
    let (seal_puts, seal_lists) = (4, 5);
    ground.expect(
        "first backup",
        Counts {
            puts: LOCK.puts + begin_puts + claims * mover_puts + seal_puts,
            // Each mover sees the indexes of those before it, the seal those of all, and it reads the tree of each claim.
            gets: claims + (1 + 2) + claims + claims,
            heads: 0,
            // The plan reads the index and the snapshots.
            lists: LOCK.lists + begin_lists + 2 + claims * mover_lists + seal_lists,
            // The run's traces go in one request.
            deletes: LOCK.deletes + 1,
        },
    );

    let indexes = 4;
    ground.backup().await;
    ground.expect(
        "backup of an unchanged set",
        Counts {
            puts: LOCK.puts + begin_puts + claims + seal_puts,
            // The plan reads the indexes, the last point's snapshot, its upper trees at once and its manifest; each mover the config, the
            // indexes, and the trees of its claim's last point at once; the seal the tree of each claim.
            gets: indexes + 3 + claims * (1 + indexes + 1) + claims,
            heads: 0,
            lists: LOCK.lists + begin_lists + 2 + claims * mover_lists + seal_lists,
            deletes: LOCK.deletes + 1,
        },
    );

    let (indexes, points) = (5, 2);
    ground.house.points(&ground.store).await.unwrap();
    // Beside opening: every index, and of each point the snapshot, the upper trees at once and the manifest.
    let list = Counts { gets: open.gets + indexes + 3 * points, lists: open.lists + 2, ..Counts::default() };
    ground.expect("list", list);

    let point = *ground.house.kept.keys().next().unwrap();
    ground.house.restore_from(ground.repository.clone(), &point, &ground.house.path("back"), the_living()).await.unwrap();
    ground.expect(
        "restore",
        Counts {
            puts: LOCK.puts,
            // As a list, and to prove it the trees of each claim; then each mover the config, the indexes, the trees and the chunks at once.
            gets: indexes + 3 * points + claims + claims * (1 + indexes + 1 + 1),
            heads: 0,
            lists: LOCK.lists + 3 + claims,
            deletes: LOCK.deletes,
        },
    );

    check(&ground.repository, &CheckOptions { read_data: None, seed: 0, workers: 2 }, &Silent).await.unwrap();
    // Keys, locks, what runs and prunes have left, snapshots, indexes and packs are listed; the key, the snapshots, the indexes, every pack of trees
    // at once, and each point's promises are read.
    let (keys, tree_packs) = (1, claims + points);
    ground.expect("check", Counts { gets: keys + points + indexes + tree_packs + 2 * points, lists: 7, ..Counts::default() });

    ground.house.forget(&ground.store, &point, the_living()).await.unwrap();
    // A list under a lock, which is proven before the snapshots go in one request.
    ground.expect(
        "forget",
        Counts { puts: LOCK.puts, gets: list.gets, heads: 0, lists: list.lists + LOCK.lists + 1, deletes: LOCK.deletes + 1 },
    );

    let new = Password::generate().unwrap();
    passwords::add(&ground.repository, &new, "root", "vm", &Clock::system()).await.unwrap();
    // Does it open anything yet? Then the key, which is read back among all.
    ground.expect("password add", Counts { puts: 1, gets: 1 + 2, lists: 2, ..Counts::default() });
}

#[tokio::test]
async fn a_backup_beside_many_points_asks_for_tens_of_objects_and_not_for_hundreds() {
    let mut ground = Ground::new().await;
    for _ in 0..140 {
        ground.backup().await;
    }
    ground.faulty.obey(|_, _| None);
    let newest = ground.backup().await;
    // The plan reads the index and the snapshots, three movers the index.
    let one_by_one = 4 * 140 + 140;
    let gets = ground.faulty.count(Kind::Get);
    assert!(gets < one_by_one / 4, "{gets}");
    ground.house.prove_point(&ground.store, &newest, "bundled").await;

    // Nothing but speed depends on bundles.
    let of_bundles = |call: &Call| call.key.starts_with("x-keepset/bundles");
    ground.faulty.obey(move |_, call| of_bundles(call).then_some(Fault::Denied));
    let mut newest = newest;
    for _ in 0..5 {
        newest = ground.backup().await;
    }
    assert!(ground.faulty.fired() > 5 * 4, "{}", ground.faulty.fired());
    ground.faulty.heal();
    ground.house.prove_point(&ground.store, &newest, "denied").await;
    assert!(ground.house.check(&ground.store).await.unwrap().is_sound());
}
