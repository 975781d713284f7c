//! `keepset demo`: the whole story on an empty machine, in seconds: a set is made, saved, wrecked, brought back in order and proven.

mod data;
mod proof;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::backup::{Backup, BackupOptions, Sealed};
use crate::cli::demo::proof::Picture;
use crate::cli::error::CliError;
use crate::cli::exit::ExitCode;
use crate::cli::output::{Output, Tone};
use crate::cli::safety::wired;
use crate::cli::secret;
use crate::cli::stop::Stop;
use crate::cli::table::Table;
use crate::cli::wire::Wire;
use crate::cli::words;
use crate::model::id::Id;
use crate::model::set::SetName;
use crate::monitor::Silent;
use crate::platform::folders::{Folders, FoldersOptions, StartCommand};
use crate::repository::Repository;
use crate::restore::{RestoreOptions, Restored};
use crate::store::{Location, Store};

/// See all of it happen: make a set, back it up, wreck it, restore it in order, prove every byte
///
/// Examples:
///   keepset demo
///   keepset demo --dir /tmp/look        keep what it makes in a folder of your choice
///
/// Needs no cluster, no server and no settings, and takes a few seconds. Nothing outside its folder is touched.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Demo {
    /// Work in DIR, which must be new or empty; a new temporary folder where left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What happened, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    dir: String,
    first_point: Id,
    second_point: Id,
    first_stored_bytes: u64,
    second_stored_bytes: u64,
    /// Ordinals in the order in which their start commands ran.
    started: Vec<String>,
    /// Files, folders and all else that were compared.
    compared: usize,
    differences: Vec<String>,
    /// Whether stock restic found the repository sound; null where there is none on this machine.
    restic: Option<bool>,
}

/// Tells the story; the exit code is 0 only if everything that was saved is back.
pub async fn run(args: &Demo, wire: &Wire, stop: Stop) -> anyhow::Result<ExitCode> {
    let dir = folder(args.dir.as_deref())?;
    let story = Story { dir: &dir, chapter: Cell::new(0), wire, output: wire.output, stop };
    let told = story.tell().await;
    if told.is_err() {
        wire.output.note(&format!("what there is of the demo stays in {}", dir.display()));
    }
    let answer = told?;
    let whole = answer.differences.is_empty() && answer.restic != Some(false);
    if wire.output.is_json() {
        wire.output.json(&answer)?;
    }
    Ok(if whole { ExitCode::Done } else { ExitCode::Failed })
}

/// The folder of the demo: new, or empty.
fn folder(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let Some(dir) = wanted else {
        return Ok(tempfile::Builder::new().prefix("keepset-demo-").tempdir().context("cannot make a temporary folder")?.keep());
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make folder {}", dir.display()))?;
    let dir = dir.canonicalize().with_context(|| format!("cannot find folder {}", dir.display()))?;
    if dir.read_dir().with_context(|| format!("cannot read folder {}", dir.display()))?.next().is_some() {
        return Err(CliError::refused(format!("{} is not empty", dir.display()), "choose a new folder with --dir").into());
    }
    Ok(dir)
}

struct Story<'a> {
    dir: &'a Path,
    chapter: Cell<u32>,
    wire: &'a Wire,
    output: Output,
    stop: Stop,
}

impl Story<'_> {
    async fn tell(&self) -> anyhow::Result<Answer> {
        let set: SetName = "shop/web".parse()?;
        let (live, restored) = (self.dir.join("live"), self.dir.join("restored"));
        let (place, password_file) = (self.dir.join("repository"), self.dir.join("password"));

        self.print("keepset takes a set as one thing: every ordinal, every claim, one recovery point")?;
        self.chapter("a set to protect", "")?;
        let xattrs = data::make(&live).context("cannot make the demo's files")?;
        let picture = Picture::take(&live)?;
        let extended = if xattrs { "extended attributes, " } else { "" };
        self.say(&format!("shop/web: ordinals 0, 1 and 2, a claim each, in {}", live.display()))?;
        let (files, bytes) = (words::count(picture.files, "file", "files"), words::bytes(picture.bytes));
        self.say(&format!("{files}, {bytes}: replicas of a database, logs, sparse files, hard links, symlinks, a FIFO,"))?;
        self.say(&format!("a set-uid program, {extended}an empty folder and a name that is not UTF-8"))?;

        self.chapter("a repository", "keepset init --generate-password …")?;
        let password = secret::generate(&password_file)?;
        let store = Store::create(&Location::Folder(place.clone()), &Default::default())?;
        let repository = Repository::init(store, &password, self.wire.origin()).await?;
        self.say(&format!("in {}, encrypted, its password in {}", place.display(), password_file.display()))?;

        self.chapter("the first point", "keepset backup shop/web --from …")?;
        let (first, took) = self.backup(&repository, &place, &live, &set).await?;
        self.say(&format!("point {}: complete, {} in {}", first.point.short(), words::bytes(first.total.bytes), words::duration(took)))?;
        self.say(&format!(
            "stored {}: holes cost nothing, and what replicas share is stored once",
            words::bytes(first.total.stored_bytes)
        ))?;
        let mut table = Table::new(&["claim", ">files", ">size", "state"]);
        for claim in &first.manifest.claims {
            table.row([claim.name.clone(), claim.files.to_string(), words::bytes(claim.bytes), "saved in full".to_owned()]);
        }
        table.lines().iter().try_for_each(|line| self.say(line))?;

        self.chapter("a day later, the second point", "keepset backup shop/web --from …")?;
        data::work(&live).context("cannot change the demo's files")?;
        let before = Picture::take(&live)?;
        let (second, took) = self.backup(&repository, &place, &live, &set).await?;
        self.say("changed: three pages of a database, a log; one file came, one went")?;
        let (bytes, stored) = (words::bytes(second.total.bytes), words::bytes(second.total.stored_bytes));
        self.say(&format!(
            "point {}: complete, {bytes}, of which {stored} had to be stored; {}",
            second.point.short(),
            words::duration(took)
        ))?;

        self.chapter("a bad night", "rm -rf live/data-web-1")?;
        data::wreck(&live).context("cannot wreck the demo's files")?;
        let lost = before.differences(&Picture::take(&live)?).len();
        self.say(&format!("data-web-0 overwritten, data-web-1 deleted, data-web-2 plundered: {lost} things are wrong"))?;

        self.chapter("back as one thing", "keepset restore shop/web --into …")?;
        let (done, took) = self.restore(&repository, &place, &restored, &set).await?;
        let started = self.started()?;
        self.say(&format!(
            "point {} proven present, then {} filled in {}",
            done.point.short(),
            words::count(done.claims.len() as u64, "claim", "claims"),
            words::duration(took)
        ))?;
        self.say(&format!("only then started, each ready before the next: {}", started.join(", then ")))?;

        self.chapter("the proof", "")?;
        let differences = before.differences(&Picture::take(&restored)?);
        if differences.is_empty() {
            let everything = "bytes (SHA-256), kinds, modes, owners, times, links, attributes";
            self.say(&format!("{} entries read again and compared: {everything}", before.entries()))?;
            self.say(&self.output.tone(Tone::Good, "everything is back, bit for bit, at the right ordinal"))?;
        } else {
            differences.iter().take(10).try_for_each(|difference| self.say(&self.output.tone(Tone::Bad, difference)))?;
        }
        let restic = self.restic(&place, &password_file)?;
        self.ending(&place, &password_file)?;
        Ok(Answer {
            dir: self.dir.display().to_string(),
            first_point: first.point,
            second_point: second.point,
            first_stored_bytes: first.total.stored_bytes,
            second_stored_bytes: second.total.stored_bytes,
            started,
            compared: before.entries(),
            differences,
            restic,
        })
    }

    fn chapter(&self, title: &str, command: &str) -> Result<(), CliError> {
        let number = self.chapter.get() + 1;
        self.chapter.set(number);
        let title = self.output.tone(Tone::Strong, &format!("{number} {title}"));
        let command = if command.is_empty() { String::new() } else { self.output.tone(Tone::Faint, &format!("   {command}")) };
        self.print("")?;
        self.print(&format!("{title}{command}"))
    }

    fn say(&self, text: &str) -> Result<(), CliError> {
        self.print(&format!("  {text}"))
    }

    fn print(&self, text: &str) -> Result<(), CliError> {
        if self.output.is_json() { Ok(()) } else { self.output.line(text) }
    }

    fn folders(&self, root: &Path) -> anyhow::Result<FoldersOptions> {
        Ok(FoldersOptions { cluster: "demo".to_owned(), ..self.wire.folders(root.to_owned())? })
    }

    async fn backup(&self, repository: &Repository, place: &Path, live: &Path, set: &SetName) -> anyhow::Result<(Sealed, Duration)> {
        let backup = Backup {
            repository: repository.clone(),
            platform: Arc::new(Folders::new(self.folders(live)?)),
            clock: self.wire.clock.clone(),
            monitor: Arc::new(Silent),
            identity: self.wire.identity(),
            cancel: self.stop.clone(),
        };
        let options = BackupOptions { location: place.display().to_string(), memory: self.wire.memory(), ..BackupOptions::default() };
        let began = Instant::now();
        let sealed = backup.run(set, &options).await?;
        if !sealed.complete {
            bail!("point {} is not complete", sealed.point.short());
        }
        Ok((sealed, began.elapsed()))
    }

    async fn restore(&self, repository: &Repository, place: &Path, into: &Path, set: &SetName) -> anyhow::Result<(Restored, Duration)> {
        let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let start_command = StartCommand {
            command: shell("echo web-$KEEPSET_ORDINAL >> \"$KEEPSET_DIR/../started\""),
            ready: Some(shell("test -s \"$KEEPSET_DIR/data-$KEEPSET_SET-$KEEPSET_ORDINAL/db/pages\"")),
            deadline: Duration::from_secs(30),
            interval: Duration::from_millis(20),
        };
        let platform = Folders::new(FoldersOptions { start_command: Some(start_command), ..self.folders(into)? });
        let safety = BackupOptions { location: place.display().to_string(), ..BackupOptions::default() };
        let restore = wired(self.wire, repository.clone(), Arc::new(platform), Arc::new(Silent), self.stop.clone(), safety);
        let options = RestoreOptions { location: place.display().to_string(), memory: self.wire.memory(), ..RestoreOptions::default() };
        let began = Instant::now();
        Ok((restore.run(set, &options).await?, began.elapsed()))
    }

    /// What the start commands wrote, in their order.
    fn started(&self) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.dir.join("started")).context("the start commands left no trace")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Lets stock restic judge, where there is one.
    fn restic(&self, place: &Path, password_file: &Path) -> anyhow::Result<Option<bool>> {
        self.chapter("no lock-in", "restic check --read-data")?;
        let mut command = Command::new("restic");
        command.arg("--no-cache").arg("--repo").arg(place).arg("--password-file").arg(password_file).args(["check", "--read-data"]);
        let Ok(output) = command.output() else {
            self.say("the repository is a restic repository; there is no restic on this machine to show it")?;
            return Ok(None);
        };
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).into_owned();
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        self.say(&format!("stock restic reads the same repository and says: {last}"))?;
        Ok(Some(output.status.success()))
    }

    fn ending(&self, place: &Path, password_file: &Path) -> Result<(), CliError> {
        self.chapter("look around", "")?;
        self.say(&format!("export KEEPSET_REPOSITORY={} KEEPSET_PASSWORD_FILE={}", place.display(), password_file.display()))?;
        self.say("keepset list; keepset show latest; keepset ls -lR latest data-web-0; keepset check")?;
        self.say(&format!("rm -rf {}    when you have seen enough", self.dir.display()))
    }
}
