//! What a lock object says, whose it is, and whether its owner is known to be dead.

use std::fmt;

use chrono::{DateTime, FixedOffset, Utc};
use serde::{Deserialize, Serialize};

/// Who holds a lock. In a cluster `hostname` is the pod's uid: pods of a set come back under old names, and as pid 1 again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockIdentity {
    pub hostname: String,
    pub username: String,
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// Tells this process from every other one under the same host name and pid; without it nobody can prove it dead before its lock
    /// is stale by age.
    pub process: Option<ProcessMark>,
}

impl LockIdentity {
    /// This process, on the machine's own host name unless another is given.
    pub fn this_process(hostname: Option<String>, username: String) -> Self {
        let nodename = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pid = std::process::id();
        LockIdentity {
            hostname: hostname.unwrap_or_else(nodename),
            username,
            pid,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            process: ProcessMark::of(pid),
        }
    }
}

/// Which boot, which pid namespace, and when in it the process began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    boot: String,
    namespace: String,
    /// In the kernel's ticks since boot: a pid that is used again has another one.
    started: u64,
}

impl ProcessMark {
    /// The mark of a process that runs now, in this pid namespace; `None` where there is none, or no `/proc` to ask.
    fn of(pid: u32) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold anything, so fields count from its last bracket: state is the third, the start the 22nd.
        let after = stat.iter().rposition(|byte| *byte == b')')?;
        let started = String::from_utf8_lossy(stat.get(after + 1..)?).split_whitespace().nth(19)?.parse().ok()?;
        Some(ProcessMark { boot, namespace, started })
    }

    fn same_world(&self, other: &ProcessMark) -> bool {
        self.boot == other.boot && self.namespace == other.namespace
    }
}

/// The content of a lock object: restic's fields, and ours, which restic ignores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockRecord {
    /// When it was written or last refreshed, by its owner's clock.
    pub time: DateTime<FixedOffset>,
    pub exclusive: bool,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub pid: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Present if and only if this program wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepset: Option<OurMark>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What we add to our own locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OurMark {
    /// The same in every refresh of one lock.
    pub nonce: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessMark>,
}

impl LockRecord {
    pub(super) fn new(identity: &LockIdentity, exclusive: bool, nonce: &str, time: DateTime<FixedOffset>) -> Self {
        LockRecord {
            time,
            exclusive,
            hostname: identity.hostname.clone(),
            username: identity.username.clone(),
            pid: i64::from(identity.pid),
            uid: identity.uid,
            gid: identity.gid,
            keepset: Some(OurMark { nonce: nonce.to_owned(), process: identity.process.clone() }),
        }
    }

    /// The owner is one of ours and provably gone: it ran in this boot and this pid namespace, and no process with its pid and start
    /// time is there any more.
    pub fn owner_is_dead(&self) -> bool {
        let Some(mark) = self.keepset.as_ref().and_then(|ours| ours.process.as_ref()) else { return false };
        let Some(here) = ProcessMark::of(std::process::id()) else { return false };
        let Ok(pid) = u32::try_from(self.pid) else { return false };
        here.same_world(mark) && ProcessMark::of(pid).as_ref() != Some(mark)
    }

    /// What restic takes for dead: the same host name, and no process with that pid. Two machines of one name make it wrong, so only an
    /// explicit `unlock` goes by it.
    pub fn looks_dead_to_restic(&self, hostname: &str) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        self.hostname == hostname && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
    }

    /// For people: who holds what since when.
    pub fn describe(&self, now: DateTime<Utc>) -> String {
        let minutes = (now - self.time.to_utc()).num_minutes();
        let age = match minutes {
            ..0 => "with a time ahead of this machine's clock".to_owned(),
            0 => "refreshed less than a minute ago".to_owned(),
            1 => "refreshed a minute ago".to_owned(),
            minutes => format!("refreshed {minutes} minutes ago"),
        };
        format!("{self}, {age}")
    }
}

impl fmt::Display for LockRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.exclusive { "an exclusive" } else { "a shared" };
        // Names come from whoever wrote the object: control characters must not reach a terminal.
        let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
        write!(f, "{kind} lock of pid {} of {} on {}", self.pid, plain(&self.username), plain(&self.hostname))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(identity: &LockIdentity) -> LockRecord {
        LockRecord::new(identity, true, "n", "2026-01-02T03:04:05+01:00".parse().unwrap())
    }

    #[test]
    fn a_living_process_is_not_dead_and_one_that_ended_is() {
        let mut identity = LockIdentity::this_process(None, "root".into());
        assert!(!record(&identity).owner_is_dead());
        identity.process.as_mut().unwrap().started -= 1;
        assert!(record(&identity).owner_is_dead(), "the pid is used again by this very process");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        identity.pid = child.id();
        child.wait().unwrap();
        assert!(record(&identity).owner_is_dead());
    }

    #[test]
    fn nothing_is_known_of_a_process_of_another_boot_or_namespace_or_program() {
        let mut identity = LockIdentity::this_process(None, "root".into());
        identity.pid = u32::MAX;
        identity.process.as_mut().unwrap().boot.push('x');
        assert!(!record(&identity).owner_is_dead());
        identity = LockIdentity::this_process(None, "root".into());
        identity.process.as_mut().unwrap().namespace.push('x');
        assert!(!record(&identity).owner_is_dead());
        let mut foreign = record(&LockIdentity::this_process(None, "root".into()));
        foreign.keepset = None;
        foreign.pid = 0x3fff_ffff;
        assert!(!foreign.owner_is_dead());
        assert!(foreign.looks_dead_to_restic(&foreign.hostname));
        assert!(!foreign.looks_dead_to_restic("elsewhere"));
    }

    #[test]
    fn a_lock_of_restic_reads_and_its_names_cannot_draw_on_a_terminal() {
        let text = r#"{"time":"2026-11-24T08:06:40.769371686Z","exclusive":true,"hostname":"vm\u001b[2J","username":"root","pid":4711}"#;
        let record: LockRecord = serde_json::from_str(text).unwrap();
        assert_eq!(
            record.describe("2026-11-24T08:16:41Z".parse().unwrap()),
            "an exclusive lock of pid 4711 of root on vm[2J, refreshed 10 minutes ago"
        );
    }
}
