//! Does everything that keepset acknowledged survive a power cut: points in a folder repository, filled claims, journals of restores?
//!
//! The workload runs on ext4 on a loop device with direct I/O, whose backing file lies on btrfs. A reflink copy of that file at
//! a random moment is what a power cut leaves: what the device received is there, what only the page cache held is not. Each copy
//! is mounted, which replays ext4's journal, and compared with what had been acknowledged when the copy began.
//!
//! `KEEPSET_POWER_CUTS` sets the number of cuts, `KEEPSET_POWER_SEED` the seed; a failure prints both. Needs root and btrfs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use support::compare::{assert_same, compare};
use support::keepset::Keepset;
use support::kill::files_in;
use support::mutate::mutate;
use support::tree::Dice;
use tempfile::TempDir;

const JOURNAL: &str = ".keepset-restore-web";

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mounted ext4 file system in an image, unmounted when dropped.
struct Mounted {
    device: String,
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Mounted {
        fs::create_dir_all(&at).unwrap();
        let device = run("losetup", &["--find", "--show", "--direct-io=on", text(image)]);
        let mounted = Mounted { device, at };
        run("mount", &["-t", "ext4", &mounted.device, text(&mounted.at)]);
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

/// A btrfs file system that holds the images.
struct Host {
    at: PathBuf,
}

impl Host {
    fn new(dir: &Path) -> Host {
        let (image, at) = (dir.join("host.img"), dir.join("host"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(4 << 30).unwrap();
        run("mkfs.btrfs", &["--quiet", text(&image)]);
        run("mount", &["-o", "loop", text(&image), text(&at)]);
        Host { at }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// What keepset has acknowledged by exiting with 0, and what may be gone because a removal of it has begun.
#[derive(Clone, Default)]
struct Acknowledged {
    /// Complete points and a copy of the volumes of each.
    points: BTreeMap<String, PathBuf>,
    /// Points whose removal has begun.
    leaving: BTreeSet<String>,
    /// Places that were restored into, by name, with the copy that they must equal.
    places: BTreeMap<String, PathBuf>,
}

/// The program at work on the disk that loses its power.
struct Workload {
    keepset: Keepset,
    disk: PathBuf,
    copies: PathBuf,
    dice: Dice,
    acknowledged: Arc<Mutex<Acknowledged>>,
    /// States that the place named `replaced` may have when no restore of it is open.
    replaced: Arc<Mutex<Vec<PathBuf>>>,
    made: usize,
}

fn copy(from: &Path, to: &Path) {
    run("cp", &["-a", text(from), text(to)]);
}

impl Workload {
    fn live(&self) -> PathBuf {
        self.disk.join("live")
    }

    fn backup(&mut self) -> String {
        for ordinal in 0..2 {
            let claim = self.live().join(format!("data-web-{ordinal}"));
            mutate(&claim, self.dice.next(), 4);
            // A claim that becomes empty is refused.
            fs::write(claim.join("kept"), self.made.to_string()).unwrap();
        }
        self.made += 1;
        let kept = self.copies.join(self.made.to_string());
        copy(&self.live(), &kept);
        let point = self.keepset.backup(&self.live());
        self.acknowledged.lock().unwrap().points.insert(point.clone(), kept);
        point
    }

    fn any_point(&mut self) -> (String, PathBuf) {
        let points = self.acknowledged.lock().unwrap().points.clone();
        let number = self.dice.below(points.len());
        points.into_iter().nth(number).unwrap()
    }

    fn fill(&mut self) {
        let (point, kept) = self.any_point();
        self.made += 1;
        let name = format!("place-{}", self.made);
        self.keepset.ok(["restore", "shop/web", "--point", &point, "--into", text(&self.disk.join(&name))]);
        self.acknowledged.lock().unwrap().places.insert(name, kept);
    }

    fn replace(&mut self) {
        let (point, kept) = self.any_point();
        self.replaced.lock().unwrap().push(kept.clone());
        self.keepset.ok(["restore", "shop/web", "--replace", "--point", &point, "--into", text(&self.disk.join("replaced"))]);
        *self.replaced.lock().unwrap() = vec![kept];
    }

    fn forget(&mut self) {
        let answer = self.keepset.json(["forget", "--keep-last", "4", "--dry-run"]);
        let listed = answer["sets"][0]["forget"].as_array().cloned().unwrap_or_default();
        let gone: Vec<String> = listed.iter().map(|judged| judged["point"]["id"].as_str().unwrap().to_owned()).collect();
        self.acknowledged.lock().unwrap().leaving.extend(gone.iter().cloned());
        self.keepset.ok(["forget", "--keep-last", "4"]);
        self.acknowledged.lock().unwrap().points.retain(|id, _| !gone.contains(id));
    }

    fn step(&mut self) {
        match self.dice.below(8) {
            0..=2 => drop(self.backup()),
            3 => self.fill(),
            4 | 5 => self.replace(),
            6 => self.forget(),
            _ => drop(self.keepset.ok(["prune", "--max-unused", "0"])),
        }
    }
}

/// The state of the disk at one moment.
struct Cut {
    image: PathBuf,
    before: Acknowledged,
    leaving: BTreeSet<String>,
    replaced: Vec<PathBuf>,
}

fn claims_differ(a: &Path, b: &Path) -> bool {
    (0..2).map(|ordinal| format!("data-web-{ordinal}")).any(|claim| !compare(&a.join(&claim), &b.join(&claim)).is_empty())
}

fn assert_claims(expected: &Path, place: &Path) {
    for ordinal in 0..2 {
        let claim = format!("data-web-{ordinal}");
        assert_same(&expected.join(&claim), &place.join(&claim));
    }
}

/// Mounts the disk as the cut left it and asks for everything that had been acknowledged.
fn recover(cut: &Cut, password: &Path) {
    let keepset = Keepset::bare();
    fs::copy(password, keepset.path("password")).unwrap();
    let disk = Mounted::new(&cut.image, keepset.path("disk"));
    let keepset = keepset.at(text(&disk.at.join("repository")));
    keepset.ok(["check", "--read-data"]);
    let answer = keepset.json(["list"]);
    let complete = |point: &&serde_json::Value| point["complete"] == true;
    let listed: BTreeSet<&str> =
        answer["points"].as_array().unwrap().iter().filter(complete).map(|point| point["id"].as_str().unwrap()).collect();
    for (point, kept) in cut.before.points.iter().filter(|(point, _)| !cut.leaving.contains(*point)) {
        assert!(listed.contains(point.as_str()), "the acknowledged point {point} is gone");
        let back = keepset.path(&format!("back-{point}"));
        keepset.ok(["restore", "shop/web", "--point", point, "--into", text(&back)]);
        assert_claims(kept, &back);
    }
    for (name, kept) in &cut.before.places {
        assert_claims(kept, &disk.at.join(name));
    }
    let replaced = disk.at.join("replaced");
    if replaced.join(JOURNAL).exists() {
        let verb = if files_in(std::slice::from_ref(&replaced)).is_multiple_of(2) { "--resume" } else { "--undo" };
        let ran = keepset.run(["restore", "shop/web", verb, "--into", text(&replaced)]);
        if ran.code == 13 && verb == "--undo" {
            // Undo refuses where only the closing line of the journal is absent.
            keepset.ok(["restore", "shop/web", "--resume", "--into", text(&replaced)]);
        } else {
            ran.expect(0);
        }
    }
    assert!(
        cut.replaced.iter().any(|kept| !claims_differ(kept, &replaced)),
        "`replaced` equals none of the states that it had: {:?}",
        cut.replaced.iter().map(|kept| compare(kept, &replaced)).collect::<Vec<_>>()
    );
    keepset.backup(&disk.at.join("live"));
    keepset.ok(["check"]);
}

fn lose_power(seed: u64, cuts: usize) {
    let dir = TempDir::new().unwrap();
    let host = Host::new(dir.path());
    let image = host.at.join("disk.img");
    fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
    run("mkfs.ext4", &["-q", "-F", text(&image)]);
    let disk = Mounted::new(&image, dir.path().join("disk"));
    let keepset = Keepset::bare().at(text(&disk.at.join("repository")));
    keepset.ok(["init", "--generate-password", text(&keepset.path("password"))]);
    let password = keepset.path("password");
    let made = keepset.set(2);
    copy(&made, &disk.at.join("live"));
    let copies = dir.path().join("copies");
    fs::create_dir(&copies).unwrap();
    let (acknowledged, replaced) = (Arc::<Mutex<Acknowledged>>::default(), Arc::<Mutex<Vec<PathBuf>>>::default());
    let mut workload = Workload {
        keepset,
        disk: disk.at.clone(),
        copies,
        dice: Dice(seed),
        acknowledged: Arc::clone(&acknowledged),
        replaced: Arc::clone(&replaced),
        made: 0,
    };
    let first = workload.backup();
    let kept = acknowledged.lock().unwrap().points[&first].clone();
    copy(&kept, &disk.at.join("replaced"));
    run("sync", &[]);
    replaced.lock().unwrap().push(kept);

    let mut dice = Dice(seed ^ 0x5eed);
    let enough = AtomicBool::new(false);
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                workload.step();
            }
        });
        let watched = [disk.at.clone()];
        for number in 0..cuts {
            // So many files come or go before the next cut; a workload that failed makes none.
            let (mut last, mut left) = (files_in(&watched), 1 + dice.below(60));
            while left > 0 && !worker.is_finished() {
                let now = files_in(&watched);
                left = left.saturating_sub(now.abs_diff(last));
                last = now;
            }
            let mut states = replaced.lock().unwrap().clone();
            let before = acknowledged.lock().unwrap().clone();
            let image_then = host.at.join(format!("cut-{number}.img"));
            run("cp", &["--reflink=always", text(&image), text(&image_then)]);
            states.extend(replaced.lock().unwrap().iter().cloned());
            let leaving = acknowledged.lock().unwrap().leaving.clone();
            taken.push(Cut { image: image_then, before, leaving, replaced: states });
        }
        enough.store(true, Ordering::Relaxed);
        if let Err(panic) = worker.join() {
            resume_unwind(panic);
        }
    });
    for cut in &taken {
        recover(cut, &password);
    }
}

#[test]
fn whatever_was_acknowledged_survives_a_power_cut() {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap());
    let (seed, cuts) = (number("KEEPSET_POWER_SEED", 20_261_201), number("KEEPSET_POWER_CUTS", 6));
    let outcome = catch_unwind(AssertUnwindSafe(|| lose_power(seed, usize::try_from(cuts).unwrap())));
    if let Err(panic) = outcome {
        eprintln!("KEEPSET_POWER_SEED={seed} KEEPSET_POWER_CUTS={cuts}");
        resume_unwind(panic);
    }
}
