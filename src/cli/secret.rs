//! Where the repository's password comes from: a file, a program or a variable, never the value of a flag.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::config;
use crate::repository::key::Password;

/// The longest password that is taken; a longer file is some other file.
const LIMIT: u64 = 64 << 10;

/// All places that may name a password, before one is chosen.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--password-file`.
    pub flag_file: Option<PathBuf>,
    /// `KEEPSET_PASSWORD_FILE`.
    pub env_file: Option<PathBuf>,
    /// `KEEPSET_PASSWORD_COMMAND`, split into words as a shell would.
    pub env_command: Option<String>,
    /// `KEEPSET_PASSWORD` is set; its value is fetched only when it is used.
    pub env_value: bool,
}

/// Where the password will be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Command(Vec<String>),
    Variable,
}

impl Sources {
    /// Flag over environment over settings. Two of the environment at once are refused: either could be the stale one.
    pub fn choose(&self, settings: &config::Repository) -> Result<Source, CliError> {
        if let Some(file) = &self.flag_file {
            return Ok(Source::File(file.clone()));
        }
        match (&self.env_file, &self.env_command, self.env_value) {
            (Some(file), None, false) => return Ok(Source::File(file.clone())),
            (None, Some(command), false) => return words(command).map(Source::Command),
            (None, None, true) => return Ok(Source::Variable),
            (None, None, false) => {}
            _ => {
                return Err(CliError::usage(
                    "more than one of KEEPSET_PASSWORD_FILE, KEEPSET_PASSWORD_COMMAND and KEEPSET_PASSWORD is set",
                    "keep one of them",
                ));
            }
        }
        match (&settings.password_file, &settings.password_command) {
            (Some(file), _) => Ok(Source::File(file.clone())),
            (None, Some(command)) => Ok(Source::Command(command.clone())),
            (None, None) => Err(CliError::usage(
                "no password is given for the repository",
                "set KEEPSET_PASSWORD_FILE, KEEPSET_PASSWORD_COMMAND or KEEPSET_PASSWORD, or give --password-file FILE",
            )),
        }
    }
}

fn words(command: &str) -> Result<Vec<String>, CliError> {
    match shlex::split(command) {
        Some(words) if !words.is_empty() => Ok(words),
        _ => Err(CliError::usage("KEEPSET_PASSWORD_COMMAND is not a command", "write it as in a shell, with its quotes closed")),
    }
}

impl Source {
    /// The password: the first line of what the source holds.
    pub fn read(&self) -> Result<Password, CliError> {
        let (bytes, from) = match self {
            Source::File(path) => (read_file(path)?, format!("password file {}", path.display())),
            Source::Command(command) => (run(command)?, format!("password command `{}`", command[0])),
            Source::Variable => {
                let value = std::env::var("KEEPSET_PASSWORD").map_err(|_| CliError::usage("KEEPSET_PASSWORD is not text", ""))?;
                (Zeroizing::new(value.into_bytes()), "KEEPSET_PASSWORD".to_owned())
            }
        };
        let line = first_line(&bytes).ok_or_else(|| CliError::Failed { message: format!("{from} holds no password"), hint: None })?;
        Ok(Password::chosen(line.to_vec()))
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |e: std::io::Error| CliError::Failed { message: format!("cannot read password file {}: {e}", path.display()), hint: None };
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn run(command: &[String]) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |what: String| CliError::Failed { message: format!("password command `{}` {what}", command[0]), hint: None };
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LIMIT).read_to_end(&mut bytes).map_err(|error| failed(format!("cannot be read: {error}")))?;
    }
    let status = child.wait().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    if status.success() { Ok(bytes) } else { Err(failed(format!("failed with {status}"))) }
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    (!line.is_empty()).then_some(line)
}

/// Writes a new random password to a new file that only its owner can read, and returns once it is on disk.
pub fn generate(path: &Path) -> Result<Password, CliError> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |e: std::io::Error| {
        let hint = (e.kind() == std::io::ErrorKind::AlreadyExists).then(|| "use that password, or name another file".to_owned());
        CliError::Failed { message: format!("cannot write password file {}: {e}", path.display()), hint }
    };
    let password = Password::generate().map_err(|e| CliError::Failed { message: e.to_string(), hint: None })?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(password.reveal()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all()).map_err(failed)?;
    // The name must survive a crash as well: a repository whose password is gone is worth nothing.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_settings() {
        let settings = config::Repository { password_file: Some("/settings".into()), ..Default::default() };
        let mut sources = Sources::default();
        assert_eq!(sources.choose(&settings).unwrap(), Source::File("/settings".into()));
        sources.env_command = Some("pass show 'my repo'".into());
        assert_eq!(sources.choose(&settings).unwrap(), Source::Command(vec!["pass".into(), "show".into(), "my repo".into()]));
        sources.flag_file = Some("/flag".into());
        assert_eq!(sources.choose(&settings).unwrap(), Source::File("/flag".into()));
    }

    #[test]
    fn two_passwords_in_the_environment_are_refused() {
        let sources = Sources { env_file: Some("/a".into()), env_value: true, ..Sources::default() };
        assert_eq!(sources.choose(&config::Repository::default()).unwrap_err().code(), crate::cli::exit::ExitCode::Usage);
    }

    #[test]
    fn a_generated_password_is_read_back_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let made = generate(&file).unwrap();
        assert_eq!(Source::File(file.clone()).read().unwrap().reveal(), made.reveal());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(generate(&file).unwrap_err().hint().is_some());
        assert_eq!(Source::File(file).read().unwrap().reveal(), made.reveal());
    }

    #[test]
    fn only_the_first_line_counts_and_an_empty_one_is_none() {
        assert_eq!(first_line(b"secret\r\nmore").unwrap(), b"secret");
        assert_eq!(first_line(b"with space ").unwrap(), b"with space ");
        assert_eq!(first_line(b"not utf-8: \xff").unwrap(), b"not utf-8: \xff");
        assert!(first_line(b"\nsecret").is_none() && first_line(b"").is_none());
    }

    #[test]
    fn a_password_command_is_run_without_a_shell_and_must_succeed() {
        let run = |words: &[&str]| Source::Command(words.iter().map(|w| (*w).to_owned()).collect()).read();
        assert_eq!(run(&["printf", "%s", "$HOME"]).unwrap().reveal(), b"$HOME");
        assert!(run(&["false"]).unwrap_err().to_string().starts_with("password command `false` failed"));
        assert!(run(&["/nowhere/to/be/found"]).is_err());
    }
}
