//! Starts one ordinal by the user's own command and waits until it says that it is ready.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::set::{Ordinal, SetName};
use crate::platform::PlatformError;
use crate::platform::command::{self, fill_in};

/// How an ordinal is started. `{set}`, `{namespace}`, `{ordinal}` and `{dir}` are replaced in every argument; the same stand in the
/// variables `KEEPSET_SET`, `KEEPSET_NAMESPACE`, `KEEPSET_ORDINAL` and `KEEPSET_DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCommand {
    /// Must end by itself once the ordinal is started, as `systemctl start` and `docker compose up --detach` do.
    pub command: Vec<String>,
    /// Run again and again until it succeeds; `None` where the end of `command` says that the ordinal is ready.
    pub ready: Option<Vec<String>>,
    /// For both together.
    pub deadline: Duration,
    /// Between two tries of `ready`.
    pub interval: Duration,
}

pub(super) async fn start(
    start: &StartCommand,
    root: &Path,
    withheld: &[OsString],
    set: &SetName,
    ordinal: Ordinal,
) -> Result<(), PlatformError> {
    let until = Instant::now() + start.deadline;
    let left = || until.saturating_duration_since(Instant::now());
    let variables = [
        ("KEEPSET_SET", set.name.clone()),
        ("KEEPSET_NAMESPACE", set.namespace.clone()),
        ("KEEPSET_ORDINAL", ordinal.to_string()),
        ("KEEPSET_DIR", root.display().to_string()),
    ];
    let late = |what, said| PlatformError::Deadline { ordinal: ordinal.0, what, seconds: start.deadline.as_secs(), said };

    let argv = filled_in(&start.command, &variables);
    match command::run(&argv, &variables, withheld, left()).await? {
        (None, said) => return Err(late("started", said)),
        (Some(ended), said) if !ended.success() => {
            return Err(PlatformError::StartFailed { ordinal: ordinal.0, command: argv.join(" "), status: ended.to_string(), said });
        }
        (Some(_), _) => {}
    }
    let Some(ready) = &start.ready else { return Ok(()) };
    let argv = filled_in(ready, &variables);
    let mut last = String::new();
    while !left().is_zero() {
        match command::run(&argv, &variables, withheld, left()).await? {
            (Some(ended), _) if ended.success() => return Ok(()),
            (Some(_), said) => last = said,
            (None, said) => return Err(late("ready", said)),
        }
        tokio::time::sleep(start.interval.min(left())).await;
    }
    Err(late("ready", last))
}

fn filled_in(argv: &[String], variables: &[(&str, String); 4]) -> Vec<String> {
    let [set, namespace, ordinal, dir] = variables.each_ref().map(|(_, value)| value.as_str());
    argv.iter()
        .map(|argument| fill_in(argument, &[("{set}", set), ("{namespace}", namespace), ("{ordinal}", ordinal), ("{dir}", dir)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn command(script: &str, ready: Option<&str>, deadline: Duration) -> StartCommand {
        StartCommand { command: sh(script), ready: ready.map(sh), deadline, interval: Duration::from_millis(1) }
    }

    const LONG: Duration = Duration::from_secs(60);

    async fn run(start_command: &StartCommand, dir: &Path) -> Result<(), PlatformError> {
        start(start_command, dir, &[], &"shop/web".parse().unwrap(), Ordinal(7)).await
    }

    #[tokio::test]
    async fn a_start_command_knows_its_ordinal_by_argument_and_by_variable() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"echo "{namespace}/{set}-{ordinal} $KEEPSET_NAMESPACE/$KEEPSET_SET-$KEEPSET_ORDINAL" > '{dir}/said'"#;
        run(&command(script, None, LONG), dir.path()).await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("said")).unwrap(), "shop/web-7 shop/web-7\n");
    }

    #[tokio::test]
    async fn it_is_started_once_and_asked_until_it_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let ready = "echo x >> '{dir}/asked'; test $(wc -l < '{dir}/asked') -ge 3";
        run(&command("echo x >> '{dir}/started'", Some(ready), LONG), dir.path()).await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("started")).unwrap(), "x\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("asked")).unwrap(), "x\nx\nx\n");
    }

    #[tokio::test]
    async fn a_command_that_fails_is_quoted_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&command("echo no such port; exit 3", None, LONG), dir.path()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("ordinal 7") && text.contains("exit status: 3") && text.contains("no such port"), "{text}");
    }

    #[tokio::test]
    async fn one_that_never_gets_ready_is_given_up_at_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let error = run(&command("true", Some("echo starting; false"), Duration::from_millis(50)), dir.path()).await.unwrap_err();
        assert!(matches!(&error, PlatformError::Deadline { what: "ready", .. }), "{error}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let script = "sleep 600 & echo $! > '{dir}/pid'; wait";
        let error = run(&command(script, None, Duration::from_secs(1)), dir.path()).await.unwrap_err();
        assert!(matches!(&error, PlatformError::Deadline { what: "started", .. }), "{error}");
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // Gone, or a zombie that waits for whoever adopted it; the kernel may need a moment to carry the signal out.
        let dead = || state().is_empty() || state().contains(") Z ");
        let patience = std::time::Instant::now() + LONG;
        while !dead() && std::time::Instant::now() < patience {
            tokio::task::yield_now().await;
        }
        assert!(dead(), "{}", state());
    }

    #[tokio::test]
    async fn a_server_that_it_leaves_running_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        run(&command("sleep 5 & echo $! > '{dir}/pid'", None, LONG), dir.path()).await.unwrap();
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert!(Path::new(&format!("/proc/{}", pid.trim())).exists());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let missing = StartCommand { command: vec!["/nowhere/start".into()], ready: None, deadline: LONG, interval: LONG };
        let error = run(&missing, Path::new("/")).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/start"), "{error}");
    }

    #[test]
    fn values_are_never_filled_in_twice() {
        assert_eq!(fill_in("a{dir}b{x}", &[("{dir}", "{set}"), ("{set}", "no")]), "a{set}b{x}");
    }
}
