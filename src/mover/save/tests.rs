//! A volume that changes at every step of a walk: each name comes back as it once was, or the point says that it is doubtful.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Condvar;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::model::claim::ClaimShape;
use crate::model::manifest::ChangeDetection;
use crate::model::mover_job::{FillClaim, FillMode};
use crate::mover::fill;
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::key::{KeyOrigin, Password};
use crate::repository::writer::WriterOptions;
use crate::store::Store;

/// Bytes at a file's beginning that name it, whatever is done to the rest.
const NAME: usize = 8;

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())].clone())
    }
}

/// Paths below the root, and what they are.
#[derive(Default)]
struct Picture {
    files: BTreeMap<PathBuf, (u64, Vec<u8>)>,
    dirs: BTreeMap<PathBuf, u64>,
}

fn picture(root: &Path) -> Picture {
    let mut picture = Picture::default();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let below = path.strip_prefix(root).unwrap().to_owned();
            if meta.is_dir() {
                picture.dirs.insert(below, meta.ino());
                todo.push(path);
            } else {
                picture.files.insert(below, (meta.ino(), fs::read(&path).unwrap()));
            }
        }
    }
    picture
}

/// A volume, who changes it, and all that it ever was.
struct World {
    root: PathBuf,
    dice: Dice,
    files: u32,
    left: u32,
    said: Vec<String>,
    /// By path, every content that it had since the walk began.
    states: BTreeMap<PathBuf, BTreeSet<Vec<u8>>>,
    /// By path, what stood there all the time.
    steady: BTreeMap<PathBuf, u64>,
    /// By a file's first bytes, every path that it had.
    paths: BTreeMap<Vec<u8>, BTreeSet<PathBuf>>,
    /// Files that were there all the time.
    alive: BTreeSet<Vec<u8>>,
}

impl World {
    fn new(root: &Path, seed: u64) -> World {
        let mut world = World {
            root: root.to_owned(),
            dice: Dice(seed),
            files: 0,
            left: 24,
            said: Vec::new(),
            states: BTreeMap::new(),
            steady: BTreeMap::new(),
            paths: BTreeMap::new(),
            alive: BTreeSet::new(),
        };
        for dir in ["a", "b/deep", "c/deep/deeper", "d", "e"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for dir in ["", "a", "a", "b", "b/deep", "c", "c/deep/deeper", "d", "d", "e"] {
            let path = world.fresh(dir.as_ref());
            world.write(&path);
            if world.dice.below(3) == 0 {
                let second = world.fresh(dir.as_ref());
                fs::hard_link(root.join(&path), root.join(second)).unwrap();
            }
        }
        let now = picture(root);
        world.alive = now.files.values().map(|(_, content)| content[..NAME].to_vec()).collect();
        world.steady = now.files.iter().map(|(path, (inode, _))| (path.clone(), *inode)).chain(now.dirs.clone()).collect();
        world.note(&now, &[]);
        world
    }

    /// A name that is free, anywhere in the order of names.
    fn fresh(&mut self, dir: &Path) -> PathBuf {
        loop {
            let letter = char::from(b'a' + u8::try_from(self.dice.below(26)).unwrap());
            let path = dir.join(format!("{letter}{}", self.dice.below(100)));
            if !self.root.join(&path).exists() {
                return path;
            }
        }
    }

    fn write(&mut self, path: &Path) {
        self.files += 1;
        let length = self.dice.below(3000);
        let content = [format!("{:08}", self.files).as_bytes(), &vec![b'.'; length]].concat();
        fs::write(self.root.join(path), content).unwrap();
    }

    fn note(&mut self, now: &Picture, replaced: &[PathBuf]) {
        let mut alive = BTreeSet::new();
        for (path, (_, content)) in &now.files {
            self.states.entry(path.clone()).or_default().insert(content.clone());
            self.paths.entry(content[..NAME].to_vec()).or_default().insert(path.clone());
            alive.insert(content[..NAME].to_vec());
        }
        self.alive.retain(|file| alive.contains(file));
        self.steady.retain(|path, inode| {
            let there = now.files.get(path).map(|(inode, _)| inode).or_else(|| now.dirs.get(path));
            there == Some(inode) && !replaced.contains(path)
        });
    }

    /// Perhaps one change.
    fn act(&mut self) {
        if self.left == 0 || self.dice.below(4) > 0 {
            return;
        }
        self.left -= 1;
        let before = picture(&self.root);
        let files: Vec<PathBuf> = before.files.keys().cloned().collect();
        let dirs: Vec<PathBuf> = before.dirs.keys().cloned().collect();
        let replaced = self.change(&before, &files, &dirs).unwrap_or_default();
        let now = picture(&self.root);
        self.note(&now, &replaced);
    }

    /// Gives the paths that stand for other files than before.
    fn change(&mut self, before: &Picture, files: &[PathBuf], dirs: &[PathBuf]) -> Option<Vec<PathBuf>> {
        let root = self.root.clone();
        let at = |path: &Path| root.join(path);
        let file = self.dice.pick(files)?;
        let dir = self.dice.pick(dirs)?;
        let own = file.parent().unwrap().to_owned();
        let mut replaced = Vec::new();
        let said = match self.dice.below(12) {
            0 | 1 => {
                let to = self.fresh(&own);
                fs::rename(at(&file), at(&to)).unwrap();
                format!("rename {} {}", file.display(), to.display())
            }
            2 => {
                let over = self.dice.pick(files)?;
                fs::rename(at(&file), at(&over)).unwrap();
                replaced.push(over.clone());
                format!("rename {} over {}", file.display(), over.display())
            }
            3 => {
                // All names of a file, and then a new one with a second name, which gets its inode.
                let inode = before.files[&file].0;
                for path in files.iter().filter(|path| before.files[*path].0 == inode) {
                    fs::remove_file(at(path)).unwrap();
                }
                let to = if self.dice.below(2) == 0 { file.clone() } else { self.fresh(&dir) };
                self.write(&to);
                let second = self.fresh(&dir);
                fs::hard_link(at(&to), at(&second)).unwrap();
                replaced.push(to.clone());
                format!("make {} and {} of what was {}", to.display(), second.display(), file.display())
            }
            4 => {
                let to = self.fresh(&dir);
                fs::hard_link(at(&file), at(&to)).unwrap();
                format!("link {} {}", file.display(), to.display())
            }
            5 => {
                let length = NAME + self.dice.below(20);
                let open = OpenOptions::new().write(true).open(at(&file)).unwrap();
                open.set_len(length as u64).unwrap();
                format!("truncate {} {length}", file.display())
            }
            6 => {
                let text = format!("more {}", self.left);
                OpenOptions::new().append(true).open(at(&file)).unwrap().write_all(text.as_bytes()).unwrap();
                format!("append {}", file.display())
            }
            7 | 8 => {
                let to = self.fresh(&dir);
                fs::rename(at(&file), at(&to)).unwrap();
                format!("move {} {}", file.display(), to.display())
            }
            9 => {
                let other = self.dice.pick(dirs)?;
                if dir.starts_with(&other) || other.starts_with(&dir) {
                    return None;
                }
                renameat_with(CWD, at(&dir), CWD, at(&other), RenameFlags::EXCHANGE).unwrap();
                format!("swap {} {}", dir.display(), other.display())
            }
            10 => {
                let into = self.dice.pick(dirs)?;
                if into.starts_with(&dir) {
                    return None;
                }
                let to = self.fresh(&into);
                fs::rename(at(&dir), at(&to)).unwrap();
                format!("move folder {} {}", dir.display(), to.display())
            }
            _ => {
                fs::remove_file(at(&file)).unwrap();
                format!("remove {}", file.display())
            }
        };
        self.said.push(said);
        Some(replaced)
    }
}

/// Who goes on: the walk, or for as many files as it allows, the worker. One of them at a time, so that a seed always does the same.
#[derive(Default)]
struct Turns {
    state: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Default)]
struct Turn {
    queued: u32,
    allowed: u32,
    done: u32,
    walked: bool,
}

impl Turns {
    fn step(&self, step: Step, world: &Mutex<World>) {
        let mut turn = self.state.lock().unwrap();
        match step {
            Step::Open => {
                turn = self.changed.wait_while(turn, |turn| !turn.walked && turn.done == turn.allowed).unwrap();
            }
            Step::Done => turn.done += 1,
            Step::Queue => turn.queued += 1,
            Step::Walked => turn.walked = true,
            Step::List | Step::Leave | Step::Read | Step::Look => {}
        }
        self.changed.notify_all();
        if matches!(step, Step::Done | Step::Walked) {
            return;
        }
        if matches!(step, Step::List | Step::Leave | Step::Queue) {
            let share = world.lock().unwrap().dice.below(6);
            turn.allowed = turn.queued.min(turn.done + u32::try_from(share.saturating_sub(2)).unwrap());
            self.changed.notify_all();
            turn = self.changed.wait_while(turn, |turn| turn.done < turn.allowed).unwrap();
        }
        drop(turn);
        world.lock().unwrap().act();
    }
}

async fn repository() -> Repository {
    Repository::init(Store::memory(), &Password::generate().unwrap(), KeyOrigin::default()).await.unwrap()
}

/// Saves the folder on one worker thread, with `hook` at each step, and fills it into another.
async fn save_and_fill(repository: &Repository, source: &Path, target: &Path, hook: Hook) -> ClaimReport {
    let index = Arc::new(Index::load(repository).await.unwrap());
    let reader = Arc::new(Reader::new(repository, Arc::clone(&index)));
    let writer = Writer::new(repository, index, WriterOptions::for_memory(32 << 20));
    let tools = Tools {
        writer: writer.clone(),
        reader,
        chunker: repository.config().chunker().unwrap(),
        counters: Arc::default(),
        clock: Clock::system(),
        runtime: Handle::current(),
        threads: 1,
        stop: Arc::default(),
        hook: Some(hook),
    };
    let claim = SaveClaim {
        folder: None,
        exclude: Vec::new(),
        name: "data-web-0".into(),
        source: source.to_str().unwrap().into(),
        volume: None,
        shape: ClaimShape::default(),
        parent: None,
        parent_cut: None,
        change_detection: ChangeDetection::Metadata,
    };
    let saved = tokio::task::spawn_blocking(move || save_claim(&tools, &claim)).await.unwrap().unwrap();
    writer.finish().await.unwrap();
    let tools = fill::Tools {
        reader: Arc::new(Reader::new(repository, Arc::new(Index::load(repository).await.unwrap()))),
        counters: Arc::default(),
        clock: Clock::system(),
        runtime: Handle::current(),
        threads: 1,
        requests: 4,
        stop: Arc::default(),
    };
    let claim = FillClaim {
        folder: None,
        exclude: Vec::new(),
        name: saved.name.clone(),
        tree: saved.tree,
        root: saved.root.clone(),
        target: target.to_str().unwrap().into(),
        shape: ClaimShape::default(),
        paths: Vec::new(),
        mode: FillMode::New,
        skip_damaged: false,
    };
    tokio::task::spawn_blocking(move || fill::fill_claim(&tools, &claim)).await.unwrap().unwrap();
    saved
}

/// What is wrong with the point that was made of this volume.
fn wrong(world: &World, saved: &ClaimReport, restored: &Picture) -> Vec<String> {
    let told: BTreeSet<PathBuf> = saved.problems.iter().map(|problem| problem.path.clone().into()).collect();
    let is_doubtful = |path: &Path| path.ancestors().any(|path| told.contains(path));
    let mut wrong = Vec::new();
    for (path, (_, content)) in &restored.files {
        if !world.states.get(path).is_some_and(|states| states.contains(content)) && !is_doubtful(path) {
            let text = String::from_utf8_lossy(&content[..content.len().min(40)]).into_owned();
            wrong.push(format!("{} never was `{text}`, {} bytes", path.display(), content.len()));
        }
    }
    for path in world.steady.keys() {
        if !restored.files.contains_key(path) && !restored.dirs.contains_key(path) && !is_doubtful(path) {
            wrong.push(format!("{} was there all the time, and the point neither has nor names it", path.display()));
        }
    }
    for file in &world.alive {
        let is_back = restored.files.values().any(|(_, content)| content.starts_with(file));
        if !is_back && !world.paths[file].iter().any(|path| is_doubtful(path)) {
            wrong.push(format!("file {} is under no name, and no name of it is doubtful", String::from_utf8_lossy(file)));
        }
    }
    if saved.files != restored.files.len() as u64 {
        wrong.push(format!("it counts {} files and has {}", saved.files, restored.files.len()));
    }
    wrong
}

/// Walks a volume that changes, restores it and compares.
async fn prove(repository: &Repository, seed: u64) {
    // The volume is on a disk, which gives inodes away again; the target in memory, where a restore has nothing to sync.
    let (volume, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let world = Arc::new(Mutex::new(World::new(volume.path(), seed)));
    let (turns, acting) = (Turns::default(), Arc::clone(&world));
    let saved = save_and_fill(repository, volume.path(), target.path(), Arc::new(move |step| turns.step(step, &acting))).await;
    let world = world.lock().unwrap();
    let wrong = wrong(&world, &saved, &picture(target.path()));
    assert!(wrong.is_empty(), "seed {seed}\n{}\n\n{}\n\n{:#?}", wrong.join("\n"), world.said.join("\n"), saved.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_changes_during_a_walk_each_name_is_true_or_doubtful() {
    // Of many points the index takes longer to read: a repository for each share.
    let shares = (0..8).map(|share| {
        tokio::spawn(async move {
            let repository = repository().await;
            for seed in share * 25..(share + 1) * 25 {
                prove(&repository, seed).await;
            }
        })
    });
    futures::future::try_join_all(shares).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_volume_is_not_looked_at_again() {
    let temp = tempfile::tempdir().unwrap();
    let (volume, target) = (temp.path().join("volume"), temp.path().join("target"));
    fs::create_dir_all(volume.join("a/b")).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(volume.join("a/b/file"), "text").unwrap();
    let root = Dir::open_root(&volume.join("a")).unwrap();
    let seen = |times| Seen::new(Clock::system().now() + chrono::TimeDelta::seconds(60), times);
    assert!(!seen(crate::volume::Times::Own).may_have_changed(root.stat()));
    assert!(seen(crate::volume::Times::Foreign).may_have_changed(root.stat()));
    let saved = save_and_fill(&repository().await, &volume, &target, Arc::new(|_| {})).await;
    assert_eq!((saved.problems, saved.files, saved.dirs), (vec![], 1, 3));
    File::open(target.join("a/b/file")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_renamed_before_it_is_read_is_saved_under_its_new_name() {
    let temp = tempfile::tempdir().unwrap();
    let (volume, target) = (temp.path().join("volume"), temp.path().join("target"));
    fs::create_dir(&volume).unwrap();
    fs::create_dir(&target).unwrap();
    for name in ["log", "wal-000005"] {
        fs::write(volume.join(name), name).unwrap();
    }
    let (root, done) = (volume.clone(), AtomicBool::new(false));
    let hook = move |step| {
        if step == Step::Open && !done.swap(true, Ordering::Relaxed) {
            fs::rename(root.join("wal-000005"), root.join("wal-000009")).unwrap();
            fs::rename(root.join("log"), root.join("log.1")).unwrap();
            fs::write(root.join("log"), "new").unwrap();
        }
    };
    let saved = save_and_fill(&repository().await, &volume, &target, Arc::new(hook)).await;
    let restored = picture(&target);
    let files: Vec<(&str, &str)> =
        restored.files.iter().map(|(path, (_, content))| (path.to_str().unwrap(), std::str::from_utf8(content).unwrap())).collect();
    assert_eq!(files, [("log", "new"), ("log.1", "log"), ("wal-000009", "wal-000005")]);
    assert_eq!((saved.files, saved.problems), (3, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_moves_to_where_the_walk_has_been_makes_it_partial() {
    let temp = tempfile::tempdir().unwrap();
    let (volume, target) = (temp.path().join("volume"), temp.path().join("target"));
    for dir in ["cur", "new"] {
        fs::create_dir_all(volume.join(dir)).unwrap();
        fs::write(volume.join(dir).join("first"), dir).unwrap();
    }
    fs::create_dir(&target).unwrap();
    fs::write(volume.join("new/mail"), "the mail").unwrap();
    let (root, lists) = (volume.clone(), std::sync::atomic::AtomicUsize::new(0));
    let hook = move |step| {
        // The root, then twice for each folder: entered and listed.
        if step == Step::List && lists.fetch_add(1, Ordering::Relaxed) == 3 {
            fs::rename(root.join("new/mail"), root.join("cur/mail")).unwrap();
            fs::write(root.join("cur/made"), "since").unwrap();
        }
    };
    let saved = save_and_fill(&repository().await, &volume, &target, Arc::new(hook)).await;
    assert!(!target.join("cur/mail").exists() && !target.join("new/mail").exists());
    let told: Vec<(&str, ProblemKind)> = saved.problems.iter().map(|problem| (problem.path.as_str(), problem.kind)).collect();
    assert!(told.contains(&("cur/mail", ProblemKind::Unreadable)), "{told:?}");
    assert_eq!(saved.files, 2);
}
