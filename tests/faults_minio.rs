//! The whole program on a real MinIO, with a proxy between that fails each request in turn: is what passes waited out, is what does not
//! told, does a kill at any moment leave whole points?
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepset::clock::Clock;
use keepset::repository::error::RepositoryError;
use keepset::repository::key::Password;
use keepset::repository::{Repository, passwords};
use keepset::store::fault::Gate;
use keepset::store::{ErrorKind, Patience, Store};
use object_store::ObjectStoreExt;
use rustix::process::{Pid, Signal, kill_process};
use support::bucket::Bucket;
use support::compare::assert_same;
use support::house::{JOURNAL, chain, scratch};
use support::keepset::{Keepset, Ran};
use support::proxy::{Fate, Request};
use support::tree::Dice;

/// Faults that pass, one for each number in turn.
fn passing(n: usize) -> Fate {
    match n % 5 {
        0 => Fate::LoseReply,
        1 => Fate::Reset,
        2 => Fate::CutReply,
        3 => Fate::Busy,
        _ => Fate::CutRequest,
    }
}

/// What the program was told to do, and what became of it.
struct Case<'a> {
    keepset: &'a Keepset,
    ran: Ran,
    /// The store without the proxy, which lets everything pass by now.
    store: &'a Store,
    /// The fault was one that does not pass.
    for_good: bool,
    about: String,
}

/// What the program does with these arguments; see [`sweep_all`].
fn sweep(ground: &Bucket, denied: usize, args: &[&str], judge: impl Fn(Case<'_>)) -> usize {
    sweep_all(ground, denied, args[0], |keepset, _| keepset.run(args), judge)
}

/// The n-th request of some `work` fails, for each n up to the one that is not reached any more: every `denied`-th time it and all later
/// ones are denied, else it alone meets a fault that passes. Each time on a fresh copy of the repository, whose name the work is told too.
/// Returns how many requests there were.
fn sweep_all(ground: &Bucket, denied: usize, what: &str, work: impl Fn(&Keepset, &str) -> Ran, judge: impl Fn(Case<'_>)) -> usize {
    for n in 0.. {
        let name = format!("{what}-{denied}-{n}");
        let store = if what == "init" { ground.store(&name) } else { ground.copy(&name) };
        let keepset = ground.keepset(&name);
        let for_good = n % denied == denied - 1;
        let fate = if for_good { Fate::Denied } else { passing(n) };
        let about = format!("{what}, request {n}: {fate:?}");
        ground.proxy.obey(move |number, _| if number == n || (for_good && number > n) { fate.clone() } else { Fate::Pass });
        let ran = work(&keepset, &name);
        let requests = ground.proxy.requests();
        ground.proxy.obey(|_, _| Fate::Pass);
        if requests.len() <= n {
            ran.expect(0);
            return n;
        }
        let about = format!("{about} of {} {}; the program said {}: {}", requests[n].method, requests[n].path, ran.code, ran.err);
        if for_good {
            assert!(ran.code == 0 || (ran.err.contains("error: ") && !ran.err.contains("panicked")), "{about}");
        } else {
            assert_eq!(ran.code, 0, "{about}");
        }
        judge(Case { keepset: &keepset, ran, store: &store, for_good, about });
    }
    unreachable!("some number is not reached")
}

#[test]
fn a_backup_waits_out_what_passes_and_fails_whole_where_its_rights_are_taken_away() {
    let ground = Bucket::new("backup");
    let args = ground.backup_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let judge = |case: Case<'_>| {
        // Some of the last requests only tidy up.
        assert_eq!(ground.prove(case.store, &[], &case.about), usize::from(case.ran.code == 0), "{}", case.about);
        if case.for_good {
            case.keepset.run(&args).expect(0);
        }
    };
    for denied in [usize::MAX, 1] {
        let requests = sweep(&ground, denied, &args, judge);
        assert!(requests > 30, "{requests}");
    }
}

#[test]
fn every_other_verb_waits_out_what_passes_and_tells_what_does_not() {
    let ground = Bucket::new("verbs");
    let (older, newer) = ground.ages();
    let unharmed = |case: &Case<'_>| assert_eq!(ground.prove(case.store, &[], &case.about), 0, "{}", case.about);

    let requests = sweep(&ground, 4, &["restore", "shop/web", "--into", "back"], |case| {
        let back = case.keepset.path("back");
        for entry in fs::read_dir(&back).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            if name != JOURNAL {
                assert_same(&ground.house.kept[&newer].join(&name), &back.join(&name));
            }
        }
        assert_eq!(case.ran.code == 0, back.join("data-web-1").exists(), "{}", case.about);
        if back.join(JOURNAL).exists() {
            case.keepset.run(["restore", "shop/web", "--into", "back", "--resume"]).expect(0);
            for claim in ["data-web-0", "data-web-1"] {
                assert_same(&ground.house.kept[&newer].join(claim), &back.join(claim));
            }
        }
        unharmed(&case);
    });
    assert!(requests > 30, "{requests}");

    let forget = ["forget", "--keep-last", "1", "--wait-lock", "0s"];
    sweep(&ground, 4, &forget, |case| {
        assert_eq!(ground.prove(case.store, &[older], &case.about), 0, "{}", case.about);
        case.keepset.run(forget).expect(0);
        assert_eq!(ground.runtime.block_on(ground.house.points(case.store)).unwrap().points.len(), 1, "{}", case.about);
    });

    sweep(&ground, 4, &["check", "--read-data"], |case| unharmed(&case));

    sweep(&ground, 3, &["unlock"], |case| unharmed(&case));

    let init = ["init"];
    sweep(&ground, 3, &init, |case| {
        let opens = || ground.runtime.block_on(ground.house.open(case.store)).map(|_| ());
        if case.ran.code == 0 {
            opens().unwrap();
        } else {
            assert!(matches!(case.keepset.run(init).code, 0 | 13), "{}", case.about);
            opens().unwrap();
        }
    });
}

/// Which of these passwords open the repository.
fn opened(ground: &Bucket, store: &Store, passwords: [&Password; 2]) -> [bool; 2] {
    passwords.map(|password| match ground.runtime.block_on(Repository::open(store.clone(), password)) {
        Ok(_) => true,
        Err(RepositoryError::WrongPassword { .. }) => false,
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn a_password_comes_goes_or_is_replaced_while_one_that_is_known_opens_whatever_fails() {
    let ground = Bucket::new("password-add");
    let first = ground.house.password.clone();
    let second = Password::generate().unwrap();
    let place = scratch();
    let file = place.path().join("new");
    fs::write(&file, second.reveal()).unwrap();
    let file = file.to_str().unwrap();

    let add = ["password", "add", "--new-password-file", file];
    let requests = sweep(&ground, 3, &add, |case| {
        let [_, by_second] = opened(&ground, case.store, [&first, &second]);
        assert!(by_second || case.ran.code != 0, "{}", case.about);
        assert_eq!(ground.prove(case.store, &[], &case.about), 0, "{}", case.about);
        match case.keepset.run(add).code {
            0 => assert!(!by_second, "{}", case.about),
            13 => assert!(by_second, "{}", case.about),
            code => panic!("{code}: {}", case.about),
        }
        assert_eq!(opened(&ground, case.store, [&first, &second]), [true; 2], "{}", case.about);
    });
    assert!(requests >= 6, "{requests}");

    // The first one goes, by the second; and is put back, to look at the points by it.
    let mut ground = Bucket::new("password-remove");
    let first = ground.house.password.clone();
    ground.base = ground.runtime.block_on(async {
        let memory = Arc::new(ground.base.fork());
        let store = Store::from_object_store(memory.clone(), "memory", Patience::local());
        let repository = Repository::open(store, &first).await.unwrap();
        passwords::add(&repository, &second, "root", "vm", &Clock::system()).await.unwrap();
        memory.fork()
    });
    let unharmed = |case: &Case<'_>| {
        let by_second = ground.runtime.block_on(Repository::open(case.store.clone(), &second)).unwrap();
        let clock = Clock::system();
        ground
            .runtime
            .block_on(passwords::add(&by_second, &first, "root", "vm", &clock))
            .unwrap_or_else(|error| panic!("{}: {error}", case.about));
        assert_eq!(ground.prove(case.store, &[], &case.about), 0, "{}", case.about);
    };
    let listed = ground.copy("listed");
    let repository = ground.runtime.block_on(Repository::open(listed, &first)).unwrap();
    let keys = ground.runtime.block_on(passwords::list(&repository, &first)).unwrap();
    let key = keys.iter().find(|key| key.in_use).unwrap().id.hex();
    let remove = ["password", "remove", &key, "--password-file", file];
    let requests = sweep(&ground, 3, &remove, |case| {
        let [by_first, by_second] = opened(&ground, case.store, [&first, &second]);
        assert!(by_second && (by_first || case.for_good || case.ran.code == 0), "{}", case.about);
        assert!(!by_first || case.ran.code != 0, "{}", case.about);
        case.keepset.run(remove).expect(if by_first { 0 } else { 13 });
        assert_eq!(opened(&ground, case.store, [&first, &second]), [false, true], "{}", case.about);
        unharmed(&case);
    });
    assert!(requests >= 6, "{requests}");

    // Both steps in one.
    let ground = Bucket::new("password-replace");
    let first = ground.house.password.clone();
    let replace = |_: &Keepset, name: &str| {
        let work = async {
            let repository = Repository::open(ground.proxied(name), &first).await?;
            passwords::replace(&repository, &first, &second, "root", "vm", &Clock::system()).await
        };
        match ground.runtime.block_on(work) {
            Ok(_) => Ran { code: 0, out: String::new(), err: String::new() },
            Err(error) => Ran { code: 1, out: String::new(), err: format!("error: {}", chain(&error)) },
        }
    };
    let requests = sweep_all(&ground, 2, "replace", replace, |case| {
        let [by_first, by_second] = opened(&ground, case.store, [&first, &second]);
        assert!(by_first || by_second, "{}", case.about);
        assert!(!by_first || case.ran.code != 0, "{}", case.about);
        if by_first {
            let work = async {
                let repository = Repository::open(case.store.clone(), &first).await?;
                passwords::replace(&repository, &first, &second, "root", "vm", &Clock::system()).await
            };
            ground.runtime.block_on(work).unwrap_or_else(|error| panic!("{}: {error}", case.about));
        }
        assert_eq!(opened(&ground, case.store, [&first, &second]), [false, true], "{}", case.about);
        let repository = ground.runtime.block_on(Repository::open(case.store.clone(), &second)).unwrap();
        ground.runtime.block_on(passwords::replace(&repository, &second, &first, "root", "vm", &Clock::system())).unwrap();
        assert_eq!(ground.prove(case.store, &[], &case.about), 0, "{}", case.about);
    });
    assert!(requests >= 10, "{requests}");
}

#[test]
fn a_connection_that_is_half_open_is_given_up_and_a_slow_one_is_not() {
    let ground = Bucket::new("slow");
    let open = || {
        let location = ground.proxy.location(ground.minio, "slow/store").parse().unwrap();
        let patience = Patience { attempt: Duration::from_millis(700), outage: Duration::from_secs(300) };
        Store::open(&location, &ground.minio.variables()).unwrap().with_patience(patience)
    };
    let body = bytes::Bytes::from(Dice(1).bytes(1 << 20));
    ground.runtime.block_on(async {
        // A store that has never answered is told at once, one that has is waited for.
        ground.proxy.obey(|_, _| Fate::BlackHole);
        assert_eq!(open().get("a").await.unwrap_err().kind, ErrorKind::Timeout);
        let store = open();
        ground.proxy.obey(|_, _| Fate::Pass);
        store.put_new("a", body.clone()).await.unwrap();
        ground.proxy.obey(|n, _| if n == 0 { Fate::BlackHole } else { Fate::Pass });
        assert_eq!(store.get("a").await.unwrap(), body);
        assert_eq!(ground.proxy.requests().len(), 2);
        // A megabyte is given 10 seconds more than the attempt: what drips in for longer than the attempt is no outage.
        ground.proxy.obey(|_, _| Fate::Drip(Duration::from_millis(150)));
        assert_eq!(store.get("a").await.unwrap(), body);
        assert_eq!(ground.proxy.requests().len(), 1);
    });
}

/// A running program and all processes that it has started.
fn family(child: u32) -> Vec<Pid> {
    let mut family = vec![child];
    for task in fs::read_dir(format!("/proc/{child}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    family.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}

/// Sends a signal to the whole family, the parent first.
fn signal_all(child: u32, signal: Signal) {
    for pid in family(child) {
        // A mover may have ended meanwhile.
        kill_process(pid, signal).ok();
    }
}

/// Starts the program and lets the proxy know its pid before its first request is decided about.
fn start(keepset: &Keepset, args: &[String], pid: &Mutex<Option<u32>>) -> Child {
    let mut slot = pid.lock().unwrap();
    let child = keepset.command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    *slot = Some(child.id());
    child
}

/// Runs the program and kills it when its `n`-th request has been answered, or before anybody has seen it: parent and movers alike, or
/// the parent `alone`, whose movers notice by themselves and may go on for a moment. Whether it was there to be killed.
fn kill_at(ground: &Bucket, keepset: &Keepset, args: &[String], n: usize, after: bool, alone: bool) -> bool {
    let pid = Arc::new(Mutex::new(None));
    let victim = Arc::clone(&pid);
    ground.proxy.obey(move |number, _| {
        if number != n {
            return Fate::Pass;
        }
        if let Some(pid) = *victim.lock().unwrap() {
            if alone {
                kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).ok();
            } else {
                signal_all(pid, Signal::KILL);
            }
        }
        if after { Fate::LoseReply } else { Fate::Reset }
    });
    let output = start(keepset, args, &pid).wait_with_output().unwrap();
    ground.proxy.obey(|_, _| Fate::Pass);
    output.status.signal() == Some(9)
}

/// How many requests the program makes on a fresh copy.
fn measure(ground: &Bucket, args: &[String]) -> usize {
    ground.copy("measure");
    ground.proxy.obey(|_, _| Fate::Pass);
    ground.keepset("measure").run(args).expect(0);
    ground.proxy.requests().len()
}

#[test]
fn a_kill_at_any_of_fifty_moments_costs_nothing_but_the_run() {
    let mut ground = Bucket::new("kill");
    let mut dice = Dice(0x6b69_6c6c);
    let args = ground.backup_args();
    let requests = measure(&ground, &args);
    let mut killed = 0;
    for chain in 0..5 {
        // Ten kills in a row in one repository: what they leave behind piles up.
        let name = format!("chain-{chain}");
        let store = ground.copy(&name);
        let keepset = ground.keepset(&name);
        let kept = ground.house.kept.clone();
        for round in 0..10 {
            let (n, after, alone) = (dice.below(requests), dice.below(2) == 1, dice.below(3) == 0);
            let about = format!("chain {chain}, round {round}: killed {} request {n}", if after { "after" } else { "before" });
            killed += usize::from(kill_at(&ground, &keepset, &args, n, after, alone));
            // A killed run sealed its point or did not; one that is there is whole.
            ground.keep_new(&store, &about);
            let next = keepset.run(&args);
            assert_eq!(next.code, 0, "{about}: {}", next.err);
            assert_eq!(ground.keep_new(&store, &about), 1, "{about}");
            ground.house.change(100 + round);
        }
        ground.prove(&store, &[], &format!("chain {chain}"));
        ground.restic(&name).check();
        ground.house.kept = kept;
    }
    assert!(killed >= 40, "only {killed} of 50 runs were killed");
}

#[test]
fn a_prune_that_is_killed_at_any_of_fifty_moments_loses_nothing() {
    const KILLS: usize = 50;
    let mut ground = Bucket::new("kill-prune");
    let mut dice = Dice(0x7072_756e);
    let (older, _) = ground.ages();
    ground.runtime.block_on(ground.base.delete(&format!("snapshots/{older}").as_str().into())).unwrap();
    ground.house.kept.remove(&older);
    let args = ["prune", "--max-unused", "0", "--now", "--wait-lock", "0s"].map(str::to_owned);
    let requests = measure(&ground, &args);
    let (mut killed, mut chain) = (0, 0);
    while killed < KILLS {
        // Kills in a row, each of a run that finds what the one before has left, until one comes to its end.
        let name = format!("chain-{chain}");
        let store = ground.copy(&name);
        let keepset = ground.keepset(&name);
        for round in 0..KILLS - killed {
            let (n, after) = (dice.below(requests), dice.below(2) == 1);
            let about = format!("chain {chain}, round {round}: killed {} request {n}", if after { "after" } else { "before" });
            let was_killed = kill_at(&ground, &keepset, &args, n, after, false);
            assert_eq!(ground.prove(&store, &[], &about), 0, "{about}");
            if !was_killed {
                break;
            }
            killed += 1;
        }
        keepset.run(&args).expect(0);
        keepset.run(&args).expect(0);
        assert_eq!(ground.prove(&store, &[], &name), 0);
        ground.restic(&name).check();
        chain += 1;
        assert!(chain <= KILLS, "only {killed} runs were killed");
    }
}

#[test]
fn a_run_that_slept_while_its_lock_was_removed_and_its_packs_pruned_seals_nothing() {
    let ground = Bucket::new("sleep");
    // Just before the last mover's report, and when the snapshot itself is on its way.
    let moments: [fn(&Request) -> bool; 2] = [
        |request| request.method == "PUT" && request.path.contains("/x-keepset/runs/"),
        |request| request.method == "PUT" && request.path.contains("/snapshots/"),
    ];
    for (number, moment) in moments.into_iter().enumerate() {
        let name = number.to_string();
        let store = ground.copy(&name);
        let keepset = ground.keepset(&name);
        let gate = Gate::default();
        let held = gate.clone();
        ground.proxy.obey(move |_, request| if moment(request) { Fate::Held(held.clone()) } else { Fate::Pass });
        let child = start(&keepset, &ground.backup_args(), &Mutex::new(None));
        ground.runtime.block_on(gate.reached());
        signal_all(child.id(), Signal::STOP);
        let restic = ground.restic(&name);
        restic.run(["unlock", "--remove-all"]);
        restic.run(["prune"]);
        gate.open();
        signal_all(child.id(), Signal::CONT);
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert!(ran.code != 0 && ran.err.contains("lock"), "{}: {}", ran.code, ran.err);
        assert_eq!(ground.prove(&store, &[], &format!("moment {number}: {}", ran.err)), 0);
        restic.check();
        ground.proxy.obey(|_, _| Fate::Pass);
        keepset.run(ground.backup_args()).expect(0);
        assert_eq!(ground.prove(&store, &[], "the next run"), 1);
    }
}
