//! Kills the real program, or one of its movers, at a moment that the test names by what is on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::keepset::Ran;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Orchestrator,
    /// The first mover that runs by then; where none does, nobody.
    Mover,
}

/// Runs the program until `now` holds, then kills. What became of the program, and whether anybody was killed.
pub fn run_and_kill(mut command: Command, victim: Victim, mut now: impl FnMut() -> bool) -> (Ran, bool) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    let mut killed = false;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it neither ended nor came to the moment at which it was to be killed");
        if now() {
            killed = kill(&mut child, victim);
            break;
        }
        std::thread::yield_now();
    }
    (Ran::of(child.wait_with_output().unwrap()), killed)
}

fn kill(child: &mut Child, victim: Victim) -> bool {
    match victim {
        Victim::Orchestrator => child.kill().is_ok(),
        Victim::Mover => {
            let Some(mover) = children_of(child.id()).into_iter().next() else { return false };
            let pid = rustix::process::Pid::from_raw(mover).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
        }
    }
}

/// Sends a signal to a process that has not been waited for.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn children_of(parent: u32) -> Vec<i32> {
    let stat = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name, which may hold anything: the state, then the parent.
        let of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| stat(entry.ok()?)).collect()
}

/// How many files are in these folders, to any depth.
pub fn files_in(folders: &[PathBuf]) -> usize {
    let mut count = 0;
    let mut waiting: Vec<PathBuf> = folders.to_vec();
    while let Some(folder) = waiting.pop() {
        // What goes while this looks is not there.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count
}

/// Lines in a file, 0 where there is none.
pub fn lines_in(file: &Path) -> usize {
    fs::read(file).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
}
