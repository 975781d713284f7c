//! Does a repository that is used, killed, forgotten from and pruned for a long time keep every point that it ever called complete?
//!
//! Random cycles of the real program on a folder, the same for the same seed as far as kills allow. `KEEPSET_SOAK_CYCLES` says how many,
//! `KEEPSET_SOAK_SEED` from which seed; a failure prints both. After every so many cycles as `KEEPSET_SOAK_ORACLE` says, stock restic reads all of the
//! repository and gives back a file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::compare::assert_same;
use support::keepset::Keepset;
use support::kill::{Victim, files_in, lines_in, run_and_kill};
use support::mutate::mutate;
use support::restic::Restic;
use support::tree::Dice;

/// The user's side of the story: what each point that was made and not forgotten must bring back.
struct Story {
    keepset: Keepset,
    live: PathBuf,
    /// A copy of the volumes for each complete normal point.
    points: BTreeMap<String, PathBuf>,
    /// Points in the order in which they were made.
    order: Vec<String>,
    dice: Dice,
    told: Vec<String>,
    copies: usize,
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

impl Story {
    fn new(seed: u64) -> Story {
        let keepset = Keepset::new();
        let live = keepset.set(2);
        let (points, order, told) = (BTreeMap::new(), Vec::new(), Vec::new());
        Story { keepset, live, points, order, dice: Dice(seed), told, copies: 0 }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(what.into());
    }

    fn fresh(&mut self, name: &str) -> PathBuf {
        self.copies += 1;
        self.keepset.path(&format!("{name}-{}", self.copies))
    }

    fn victim(&mut self) -> Victim {
        if self.dice.below(3) == 0 { Victim::Mover } else { Victim::Orchestrator }
    }

    /// Folders of the repository in which a running program's progress can be seen.
    fn seen(&self) -> Vec<PathBuf> {
        ["data", "index", "snapshots", "locks", "x-keepset"].map(|folder| self.keepset.path("repository").join(folder)).into()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.keepset.command();
        command.args(args);
        command
    }

    /// Runs until so many files have come or gone, and kills.
    fn killed(&mut self, args: &[&str]) {
        let (victim, steps, folders) = (self.victim(), 1 + self.dice.below(8), self.seen());
        let mut last = files_in(&folders);
        let mut left = steps;
        let (ran, killed) = run_and_kill(self.command(args), victim, || {
            let here = files_in(&folders);
            left = left.saturating_sub(here.abs_diff(last));
            last = here;
            left == 0
        });
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        assert!(killed || ran.code == 0 || ran.code == 1, "{args:?} exited with {}: {}", ran.code, ran.err);
        self.tell(format!("{} of {}, after {steps} changes: {killed}, exit {}", if killed { "kill" } else { "run" }, args[0], ran.code));
    }

    fn listed(&self) -> Vec<String> {
        let answer = self.keepset.json(["list"]);
        let points = answer["points"].as_array().unwrap();
        let normal = points.iter().filter(|point| point["kind"] == "normal");
        normal.filter(|point| point["complete"] == true).map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    fn keep(&mut self, point: String) {
        let place = self.fresh("kept");
        copy(&self.live, &place);
        self.tell(format!("point {}", &point[..8]));
        self.points.insert(point.clone(), place);
        self.order.push(point);
    }

    /// A killed backup may have sealed its point or not; if it did, the point counts.
    fn adopt(&mut self) {
        for id in self.listed() {
            if !self.points.contains_key(&id) {
                self.keep(id);
            }
        }
    }

    fn backup(&mut self) {
        let point = self.keepset.backup(&self.live);
        self.keep(point);
    }

    fn killed_backup(&mut self) {
        let live = self.live.clone();
        self.killed(&["backup", "shop/web", "--from", live.to_str().unwrap()]);
        self.adopt();
    }

    fn any_point(&mut self) -> String {
        let number = self.dice.below(self.order.len());
        self.order[number].clone()
    }

    fn assert_claims(&self, expected: &Path, place: &Path) {
        for ordinal in 0..2 {
            let claim = format!("data-web-{ordinal}");
            assert_same(&expected.join(&claim), &place.join(&claim));
        }
    }

    fn restore(&mut self, point: &str) {
        let place = self.fresh("back");
        self.keepset.ok(["restore", "shop/web", "--point", point, "--into", place.to_str().unwrap()]);
        self.assert_claims(&self.points[point], &place);
        fs::remove_dir_all(place).unwrap();
    }

    /// Over a place that holds another point's volumes, changed since; killed, and then finished or taken back.
    fn replace(&mut self) {
        let (from, to) = (self.any_point(), self.any_point());
        let (place, before) = (self.fresh("place"), self.fresh("before"));
        copy(&self.points[&from], &place);
        mutate(&place.join("data-web-0"), self.dice.next(), 5);
        copy(&place, &before);
        let into = place.to_str().unwrap().to_owned();
        let journal = place.join(".keepset-restore-web");
        let (victim, lines) = (self.victim(), 1 + self.dice.below(8));
        let args = ["restore", "shop/web", "--replace", "--point", &to, "--into", &into];
        let (ran, killed) = run_and_kill(self.command(&args), victim, || lines_in(&journal) >= lines);
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        let undo = self.dice.below(2) == 0;
        self.tell(format!("replace, {victim:?} killed at line {lines}: {killed}, exit {}; undo {undo}", ran.code));
        match (journal.exists(), undo) {
            (true, true) if self.undone(&into) => self.assert_claims(&before, &place),
            (true, _) => {
                self.keepset.ok(["restore", "shop/web", "--resume", "--into", &into]);
                self.assert_claims(&self.points[&to], &place);
            }
            // It had not begun, or it was done.
            (false, _) => self.assert_claims(if ran.code == 0 { &self.points[&to] } else { &before }, &place),
        }
        [place, before].into_iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    }

    /// False where the restore was done already, and only its journal not closed.
    fn undone(&self, into: &str) -> bool {
        let ran = self.keepset.run(["restore", "shop/web", "--undo", "--into", into]);
        assert!(ran.code == 0 || (ran.code == 13 && ran.err.contains("is done")), "exit {}: {}", ran.code, ran.err);
        ran.code == 0
    }

    fn forget(&mut self) {
        let keep = (1 + self.dice.below(4)).to_string();
        let answer = self.keepset.json(["forget", "--keep-last", &keep, "--keep-safety-within", "1h"]);
        let gone = answer["sets"][0]["forget"].as_array().cloned().unwrap_or_default();
        for judged in gone {
            let id = judged["point"]["id"].as_str().unwrap();
            if let Some(place) = self.points.remove(id) {
                fs::remove_dir_all(place).unwrap();
            }
            self.order.retain(|other| other != id);
        }
        self.tell(format!("forget but {keep}: {} left", self.points.len()));
        assert!(!self.points.is_empty(), "the newest complete point is never forgotten");
    }

    fn cycle(&mut self) {
        for ordinal in 0..2 {
            let (seed, changes) = (self.dice.next(), 1 + self.dice.below(6));
            mutate(&self.live.join(format!("data-web-{ordinal}")), seed, changes);
        }
        match self.dice.below(12) {
            0..=2 => self.backup(),
            3 | 4 => self.killed_backup(),
            5 => {
                let point = self.any_point();
                self.restore(&point);
            }
            6 | 7 => self.replace(),
            8 => self.forget(),
            9 => {
                self.tell("prune");
                self.keepset.ok(["prune"]);
            }
            10 => self.killed(&["prune", "--max-unused", "0"]),
            _ => {
                self.tell("check");
                self.keepset.ok(["check"]);
            }
        }
        let there = self.listed();
        for id in &self.order {
            assert!(there.contains(id), "point {id} is gone");
        }
    }

    fn restic(&self) -> Restic {
        let password = fs::read_to_string(self.keepset.path("password")).unwrap();
        Restic::new(self.keepset.path("repository").to_str().unwrap(), password.trim_end())
    }

    /// Stock restic takes whatever kills have left for a sound repository, and gives some file of some point back as it was.
    fn ask_restic(&mut self) {
        let restic = self.restic();
        // Locks of the killed stand.
        restic.run(["check", "--read-data", "--no-lock"]);
        let point = self.any_point();
        let claim = format!("data-web-{}", self.dice.below(2));
        let place = self.points[&point].join(&claim);
        let files = files_below(&place);
        if files.is_empty() {
            return;
        }
        let file = &files[self.dice.below(files.len())];
        let path = Path::new("/shop/web").join(&claim).join(file.strip_prefix(&place).unwrap());
        self.tell(format!("restic dumps {} of {}", path.display(), &point[..8]));
        let args = [OsStr::new("dump"), OsStr::new("--no-lock"), OsStr::new(&point), path.as_os_str()];
        assert!(restic.run(args) == fs::read(file).unwrap(), "restic gives back other bytes of {}", path.display());
    }

    /// Everything that was ever called complete and not forgotten, back again; and stock restic's word for the repository.
    fn end(&mut self) {
        self.keepset.ok(["prune"]);
        self.keepset.ok(["check", "--read-data"]);
        for point in self.order.clone() {
            self.restore(&point);
        }
        self.keepset.ok(["unlock"]);
        self.restic().check();
    }
}

/// Regular files below a folder, in a fixed order.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn a_long_life_of_backups_kills_prunes_and_restores_loses_no_point() {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap());
    let (seed, cycles) = (number("KEEPSET_SOAK_SEED", 20_261_124), number("KEEPSET_SOAK_CYCLES", 30));
    let oracle = number("KEEPSET_SOAK_ORACLE", 10);
    let mut story = Story::new(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        story.backup();
        for cycle in 0..cycles {
            story.tell(format!("cycle {cycle}"));
            story.cycle();
            if cycle % oracle == oracle - 1 {
                story.ask_restic();
            }
        }
        story.end();
    }));
    if let Err(panic) = outcome {
        eprintln!("KEEPSET_SOAK_SEED={seed} KEEPSET_SOAK_CYCLES={cycles}\n{}", story.told.join("\n"));
        std::panic::resume_unwind(panic);
    }
}
