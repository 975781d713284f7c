//! The store, the repository in it, and its locks.

use std::error::Error;

use chrono::{DateTime, TimeDelta, Utc};

use crate::doctor::Finding;
use crate::repository::error::RepositoryError;
use crate::repository::lock::Standing;
use crate::store::{Probe, StoreError};

/// Clocks further apart make locks of the living look old, and points of now look as if they were not there yet.
const APART: i64 = 60;
/// Locks are refreshed every few minutes; one that was not for so long has no owner, as restic sees it too.
const STALE: TimeDelta = TimeDelta::minutes(30);

/// What the store lets this key do.
pub fn of_store(location: &str, probe: &Result<Probe, StoreError>) -> Vec<Finding> {
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            return vec![Finding::failed("store", format!("cannot put and get objects in {location}: {error}{cause}"), error.hint())];
        }
    };
    let mut findings = vec![Finding::ok("store", format!("objects can be put and got in {location}"))];
    findings.push(if probe.create_only {
        Finding::ok("store-create-only", "the store refuses to overwrite an object")
    } else {
        let fix = "use a store with conditional puts (Amazon S3, MinIO, Google Cloud Storage, Azure), or never run `init` twice at the same time (docs/stores.md)";
        Finding::warning("store-create-only", "the store lets a second writer overwrite an object", fix)
    });
    findings.push(if probe.list {
        Finding::ok("store-list", "objects can be listed")
    } else {
        let fix = "give the key the right to list (s3:ListBucket on the bucket)".to_owned();
        Finding::failed("store-list", "this key may not list objects: restores and all else but backups need that", Some(fix))
    });
    findings.push(if probe.delete {
        Finding::ok("store-delete", "objects can be deleted")
    } else {
        let fix = "give the key the right to delete (s3:DeleteObject), or give it only to whoever runs forget and prune";
        Finding::warning(
            "store-delete",
            "this key may not delete objects: locks stay until they are stale, and forget and prune do not work",
            fix,
        )
    });
    findings.push(match probe.skew.map(|skew| skew.num_seconds()) {
        None => Finding::warning("store-clock", "the store's clock is not known, since objects may not be listed", "see store-list"),
        Some(skew) if skew.abs() > APART => {
            let which = if skew > 0 { "ahead of" } else { "behind" };
            let detail = format!("the store's clock is {} seconds {which} this machine's", skew.abs());
            Finding::failed("store-clock", detail, Some("timedatectl set-ntp true".into()))
        }
        Some(skew) => Finding::ok("store-clock", format!("the store's clock and this machine's are {} seconds apart", skew.abs())),
    });
    findings
}

/// Whether the repository is there and the password opens it.
pub fn of_repository(opened: Result<&str, &RepositoryError>) -> Finding {
    match opened {
        Ok(id) => Finding::ok("repository", format!("the password opens repository {}", &id[..id.len().min(8)])),
        Err(error @ RepositoryError::NoRepository { .. }) => Finding::failed("repository", error.to_string(), Some("keepset init".into())),
        Err(error) => Finding::failed("repository", error.to_string(), error.hint()),
    }
}

/// Locks that nobody keeps any more, and those that keep others out.
pub fn of_locks(locks: &[Standing], now: DateTime<Utc>) -> Finding {
    let is_stale = |lock: &&Standing| now - lock.modified > STALE;
    let stale: Vec<String> = locks.iter().filter(is_stale).map(|lock| lock.describe(now)).collect();
    if !stale.is_empty() {
        return Finding::warning("locks", format!("nobody keeps these any more: {}", stale.join("; ")), "keepset unlock");
    }
    match locks.iter().find(|lock| lock.exclusive()) {
        Some(lock) => {
            let fix = "wait for it; if nothing runs any more: keepset unlock";
            Finding::warning("locks", format!("held alone: {}", lock.describe(now)), fix)
        }
        None if locks.is_empty() => Finding::ok("locks", "there are none"),
        None => Finding::ok("locks", format!("{} of the living, which keep nobody out", locks.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn states(probe: Probe) -> Vec<(String, State)> {
        of_store("/r", &Ok(probe)).into_iter().map(|finding| (finding.check, finding.state)).collect()
    }

    fn probe(skew: Option<i64>) -> Probe {
        Probe { create_only: true, list: true, delete: true, skew: skew.map(TimeDelta::seconds) }
    }

    #[test]
    fn each_right_that_the_store_denies_is_told_by_its_own_name_and_with_a_fix() {
        let names = ["store", "store-create-only", "store-list", "store-delete", "store-clock"];
        let expected = |bad: Option<(&str, State)>| -> Vec<(String, State)> {
            names.map(|name| (name.to_owned(), bad.filter(|(is, _)| *is == name).map_or(State::Ok, |(_, state)| state))).into()
        };
        assert_eq!(states(probe(Some(3))), expected(None));
        assert_eq!(states(probe(Some(-61))), expected(Some(("store-clock", State::Failed))));
        assert_eq!(states(Probe { delete: false, ..probe(Some(0)) }), expected(Some(("store-delete", State::Warning))));
        assert_eq!(states(Probe { list: false, ..probe(Some(0)) }), expected(Some(("store-list", State::Failed))));
        assert_eq!(states(Probe { create_only: false, ..probe(Some(0)) }), expected(Some(("store-create-only", State::Warning))));
        assert_eq!(states(probe(None)), expected(Some(("store-clock", State::Warning))));
        let all = of_store("/r", &Ok(Probe { create_only: false, list: false, delete: false, skew: None }));
        assert!(all[1..].iter().all(|finding| finding.fix.is_some()), "{all:?}");
    }

    #[test]
    fn a_lock_that_nobody_keeps_is_told_with_the_way_to_be_rid_of_it() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1);
        let lock = |minutes| Standing { key: "locks/x".into(), modified: now - TimeDelta::minutes(minutes), record: None };
        assert_eq!(of_locks(&[], now).state, State::Ok);
        assert_eq!(of_locks(&[lock(31)], now).fix.as_deref(), Some("keepset unlock"));
        assert!(of_locks(&[lock(1)], now).detail.contains("held alone"), "one that cannot be read keeps all others out");
    }
}
