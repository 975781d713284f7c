//! Runs a command of the user's with a deadline: no shell between, output kept for the message, nothing left behind at the deadline.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek, SeekFrom};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::platform::PlatformError;

/// As much of a command's output as a message shows.
const TAIL_BYTES: u64 = 2048;

/// Runs `argv` with these variables added and those `withheld` taken away, in a process group of its own. `None` when the deadline passed: the group is killed then, and
/// where this is dropped before the end.
/// With it comes the end of what was written, ready to follow a message: empty, or `: …` on one line. Output goes to a file instead
/// of a pipe, so that a server which the command leaves running holds nobody up.
pub async fn run(
    argv: &[String],
    variables: &[(&str, String)],
    withheld: &[OsString],
    deadline: Duration,
) -> Result<(Option<ExitStatus>, String), PlatformError> {
    let spawn = |source| PlatformError::Spawn { command: argv.join(" "), source };
    let Some((program, arguments)) = argv.split_first() else {
        return Err(spawn(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the command is empty")));
    };
    let mut output = tempfile::tempfile().map_err(spawn)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).envs(variables.iter().map(|(name, value)| (*name, value)));
    // A server that the command leaves running keeps its environment for as long as it lives.
    for name in withheld {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(output.try_clone().map_err(spawn)?).stderr(output.try_clone().map_err(spawn)?);
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(spawn)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let status = tokio::time::timeout(deadline, child.wait()).await;
    let ended = match status {
        Ok(status) => {
            group.0 = None;
            Some(status.map_err(spawn)?)
        }
        Err(_) => {
            drop(group);
            child.wait().await.map_err(spawn)?;
            None
        }
    };
    Ok((ended, tail(&mut output).map_err(spawn)?))
}

/// Whether a variable leads to the repository's password or to the store's keys: keepset's own, those of restic, and of the stores every
/// one whose name speaks of a secret.
pub fn is_secret(name: &OsStr) -> bool {
    const PASSWORDS: [&str; 2] = ["KEEPSET_PASSWORD", "RESTIC_PASSWORD"];
    const STORES: [&str; 5] = ["AWS_", "AZURE_", "GOOGLE_", "GCS_", "B2_"];
    const SECRETS: [&str; 6] = ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD", "CREDENTIAL"];
    let name = name.to_string_lossy().to_ascii_uppercase();
    let is_store = STORES.iter().any(|store| name.starts_with(store));
    PASSWORDS.iter().any(|password| name.starts_with(password))
        || name.starts_with("GOOGLE_SERVICE_ACCOUNT")
        || (is_store && SECRETS.iter().any(|secret| name.contains(secret)))
}

/// The processes of a command that nobody waits for any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The text with each placeholder's value in its place. One pass from left to right, so that a value which looks like a placeholder stays
/// as it is.
pub fn fill_in(argument: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = argument;
    while let Some(first) = rest.chars().next() {
        if let Some((placeholder, value)) = values.iter().find(|(placeholder, _)| rest.starts_with(placeholder)) {
            text.push_str(value);
            rest = &rest[placeholder.len()..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    text
}

fn tail(output: &mut std::fs::File) -> std::io::Result<String> {
    let length = output.seek(SeekFrom::End(0))?;
    output.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    output.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(one_line(&String::from_utf8_lossy(&bytes)))
}

/// Text of a stranger on one line: `: a; b`, without control characters; empty for none.
pub fn one_line(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_keys_of_stores_are_secret_and_others_are_not() {
        let secret =
            ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"];
        let secret = secret.into_iter().chain(["AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT_KEY"]);
        let secret = secret.chain(["KEEPSET_PASSWORD", "KEEPSET_PASSWORD_FILE", "KEEPSET_PASSWORD_COMMAND", "RESTIC_PASSWORD_FILE"]);
        assert_eq!(secret.filter(|name| !is_secret(OsStr::new(name))).collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(["AWS_REGION", "PATH", "KEEPSET_REPOSITORY", "PGKEY", "HOME"].iter().all(|name| !is_secret(OsStr::new(name))));
    }
}
