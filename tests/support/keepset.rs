//! The real program, run on a repository and a set in a temporary folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::tree::Dice;

/// A temporary folder with a repository, its password and an empty settings file.
pub struct Keepset {
    pub dir: TempDir,
    program: PathBuf,
    uid: Option<u32>,
    variables: Vec<(String, String)>,
}

/// What one run did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Keepset {
    /// Everything but the repository itself.
    pub fn bare() -> Keepset {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("settings.yaml"), "cluster: test\n").unwrap();
        Keepset { dir, program: env!("CARGO_BIN_EXE_keepset").into(), uid: None, variables: Vec::new() }
    }

    /// With a repository made by `init`.
    pub fn new() -> Keepset {
        let keepset = Keepset::bare();
        keepset.ok(["init", "--generate-password", keepset.path("password").to_str().unwrap()]);
        keepset
    }

    /// The same for a user without root's rights, who owns the folder and has the program there.
    pub fn of_user(uid: u32) -> Keepset {
        use std::os::unix::fs::{PermissionsExt, chown};
        let mut keepset = Keepset::bare();
        let program = keepset.path("keepset");
        // By another process: a program that is forked off meanwhile would have the copy open for writing too, and it could not be run.
        assert!(Command::new("cp").args([&keepset.program, &program]).status().unwrap().success());
        fs::set_permissions(keepset.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(keepset.dir.path(), Some(uid), Some(uid)).unwrap();
        (keepset.program, keepset.uid) = (program, Some(uid));
        keepset.ok(["init", "--generate-password", keepset.path("password").to_str().unwrap()]);
        keepset
    }

    /// Another place for the repository.
    pub fn at(mut self, location: &str) -> Keepset {
        self.variables.push(("KEEPSET_REPOSITORY".into(), location.into()));
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Keepset {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder of the set `shop/web`, with `ordinals` claims of template `data`, each with a few files.
    pub fn set(&self, ordinals: u32) -> PathBuf {
        let root = self.path("live");
        for ordinal in 0..ordinals {
            let claim = root.join(format!("data-web-{ordinal}"));
            fs::create_dir_all(claim.join("conf")).unwrap();
            fs::write(claim.join("conf/app.yaml"), format!("ordinal: {ordinal}\n")).unwrap();
            fs::write(claim.join("pages"), Dice(u64::from(ordinal) + 1).bytes(300_000)).unwrap();
        }
        root
    }

    /// The program with its environment, ready for arguments: nothing of the user's own settings reaches it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            if ["KEEPSET_", "AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| shown.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("KEEPSET_CONFIG", self.path("settings.yaml")).env("KEEPSET_REPOSITORY", self.path("repository"));
        if self.path("password").exists() {
            command.env("KEEPSET_PASSWORD_FILE", self.path("password"));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command().args(args).output().unwrap())
    }

    /// Runs and must succeed; its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.run(args).expect(0).out
    }

    /// Runs with `--json` and must succeed.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> serde_json::Value {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).chain([OsStr::new("--json").to_owned()]).collect();
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Backs `shop/web` up from `root`.
    #[track_caller]
    pub fn backup(&self, root: &Path) -> String {
        let answer = self.json([OsStr::new("backup"), OsStr::new("shop/web"), OsStr::new("--from"), root.as_os_str()]);
        answer["backups"][0]["point"].as_str().unwrap().to_owned()
    }

    /// Every object of the repository below one of its folders, or `config`.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.path("repository").join(folder)];
        while let Some(path) = waiting.pop() {
            if !path.exists() {
                continue;
            }
            if path.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Failed as a program should: this code, an error that says `words`, a hint on a line of its own, nothing on standard output.
    #[track_caller]
    pub fn refused(self, code: i32, words: &str) -> Ran {
        let ran = self.expect(code);
        let error = ran.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error line in {}", ran.err));
        assert!(error.contains(words), "`{words}` is not in: {error}");
        assert!(!error.ends_with('.'), "{error}");
        assert!(ran.err.lines().any(|line| line.starts_with("hint: ")), "no hint in {}", ran.err);
        assert_eq!(ran.out, "");
        ran
    }
}

/// A small filesystem of memory, gone when dropped. Needs root.
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    pub fn mount(at: PathBuf, size: &str) -> Tmpfs {
        fs::create_dir_all(&at).unwrap();
        mount(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        Tmpfs(at)
    }

    pub fn read_only(&self) {
        mount(["-o", "remount,ro", self.0.to_str().unwrap()]);
    }
}

fn mount<const N: usize>(args: [&str; N]) {
    let status = Command::new("mount").args(args).status().unwrap();
    assert!(status.success(), "mount {args:?} failed: run the tests as root, in a container or machine that may mount");
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
