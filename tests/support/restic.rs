//! Stock restic, the oracle: what it makes, we must read; what we make, it must check, list and restore.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One repository, as restic sees it.
pub struct Restic {
    location: String,
    password: String,
    variables: Vec<(String, String)>,
}

impl Restic {
    pub fn new(location: impl Into<String>, password: &str) -> Self {
        Restic { location: location.into(), password: password.to_owned(), variables: Vec::new() }
    }

    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// A repository that restic makes here.
    pub fn init(folder: &Path, password: &str) -> Self {
        let restic = Restic::new(folder.to_str().unwrap(), password);
        restic.run(["init"]);
        restic
    }

    /// Ready to be started. No cache: the next run must see what is in the repository, not what was.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "-q", "-r", &self.location]).args(args).env("RESTIC_PASSWORD", &self.password);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it, successful or not.
    pub fn try_run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().expect("restic must be installed: `make test` sees to it")
    }

    /// What it says on its standard output.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<u8> {
        let args: Vec<S> = args.into_iter().collect();
        let output = self.try_run(&args);
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned()).collect();
        assert!(output.status.success(), "restic {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The same as text; bytes that are not UTF-8 are replaced.
    pub fn text<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        String::from_utf8_lossy(&self.run(args)).into_owned()
    }

    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> serde_json::Value {
        serde_json::from_slice(&self.run(args)).unwrap()
    }

    /// Every pack read, every blob proven.
    pub fn check(&self) {
        self.run(["check", "--read-data"]);
    }

    pub fn snapshots(&self) -> Vec<serde_json::Value> {
        self.json(["snapshots", "--json"]).as_array().unwrap().clone()
    }

    /// The ids of all blobs of a kind (`data` or `tree`).
    pub fn blobs(&self, kind: &str) -> std::collections::BTreeSet<String> {
        self.text(["list", "blobs"]).lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).map(str::to_owned).collect()
    }

    /// Restores a snapshot and returns where the folder that was backed up as `path` is.
    pub fn restore(&self, snapshot: &str, target: &Path, path: &str) -> PathBuf {
        self.run([OsStr::new("restore"), OsStr::new(snapshot), OsStr::new("--target"), target.as_os_str()]);
        target.join(path.trim_start_matches('/'))
    }
}
