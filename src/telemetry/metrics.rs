//! What Prometheus is told: one place for names, units and labels. Labels are bounded: namespaces, sets, and words of this program.

use std::sync::atomic::AtomicU64;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::model::set::SetName;

/// A set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfSet {
    pub namespace: String,
    pub set: String,
}

impl From<&SetName> for OfSet {
    fn from(set: &SetName) -> Self {
        OfSet { namespace: set.namespace.clone(), set: set.name.clone() }
    }
}

/// Points of a set: `complete`, `partial` or `safety`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    pub namespace: String,
    pub set: String,
    pub kind: &'static str,
}

/// How work on a set ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfResult {
    pub namespace: String,
    pub set: String,
    pub result: &'static str,
}

/// How work on the repository ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTask {
    pub task: &'static str,
    pub result: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Since 1970, as times are told.
pub fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}

type PerSet<M> = Family<OfSet, M>;

/// Every metric of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub last_success: PerSet<Seconds>,
    pub last_point: PerSet<Seconds>,
    pub last_point_complete: PerSet<Gauge>,
    pub next_run: PerSet<Seconds>,
    pub interval: PerSet<Seconds>,
    pub suspended: PerSet<Gauge>,
    pub points: Family<OfKind, Gauge>,
    pub journal_open: PerSet<Gauge>,
    pub at_zero: PerSet<Gauge>,
    pub missed: PerSet<Counter>,
    pub backups: Family<OfResult, Counter>,
    pub backup_seconds: PerSet<Seconds>,
    pub backup_read: PerSet<Gauge>,
    pub backup_added: PerSet<Gauge>,
    pub backup_stored: PerSet<Gauge>,
    pub mover_peak: PerSet<Gauge>,
    pub drills: Family<OfResult, Counter>,
    pub drill_last: PerSet<Seconds>,
    pub drill_last_success: PerSet<Seconds>,
    pub drill_proven: PerSet<Gauge>,
    pub reachable: Gauge,
    pub repository_size: Gauge,
    pub oldest_lock: Seconds,
    pub tasks: Family<OfTask, Counter>,
    pub prune_last_success: Seconds,
    pub check_last: Seconds,
    pub check_sound: Gauge,
    pub settings_valid: Gauge,
    pub sets_left_out: Gauge,
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Names(Registry::with_prefix("keepset"));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        all.0.register("build", "The program that answers", build);
        Metrics {
            last_success: all.name("set_last_success_timestamp_seconds", "Time of the set's newest complete point"),
            last_point: all.name("set_last_point_timestamp_seconds", "Time of the set's newest point, complete or partial"),
            last_point_complete: all.name("set_last_point_complete", "Whether the set's newest point is complete"),
            next_run: all.name("set_next_run_timestamp_seconds", "When the set is backed up next"),
            interval: all.name("set_interval_seconds", "The longest that two backups of the set are apart by its schedule"),
            suspended: all.name("set_suspended", "Whether the set has a schedule that is suspended"),
            points: all.name("set_points", "Points of the set in the repository"),
            journal_open: all.name("set_journal_open", "Whether a restore of the set has begun and not ended"),
            at_zero: all.name("set_at_zero", "Whether a restore that has not ended left the set without pods"),
            missed: all.name("missed_schedules", "Times of the set's schedule that were not run and will not be"),
            backups: all.name("backups", "Backups by how they ended"),
            backup_seconds: all.name("backup_duration_seconds", "How long the set's last backup took"),
            backup_read: all.name("backup_read_bytes", "Bytes that the set's last backup read from its volumes"),
            backup_added: all
                .name("backup_added_bytes", "Bytes of the set's last backup that the repository did not have, before compression"),
            backup_stored: all.name("backup_stored_bytes", "Bytes that the set's last backup put into the store"),
            mover_peak: all.name("mover_memory_peak_bytes", "The most memory that a mover of the set's last backup took"),
            drills: all.name("drills", "Drills by how they ended"),
            drill_last: all.name("drill_last_timestamp_seconds", "When the set's last drill began"),
            drill_last_success: all.name("drill_last_success_timestamp_seconds", "When the set's last drill that proved its point began"),
            drill_proven: all.name("drill_last_proven", "Whether the set's last drill proved its point"),
            reachable: all.name("repository_reachable", "Whether the repository answered when it was last asked"),
            repository_size: all.name("repository_size_bytes", "Bytes of all packs"),
            oldest_lock: all
                .name("repository_oldest_lock_age_seconds", "How long ago the lock was renewed that was not for longest; 0 without locks"),
            tasks: all.name("tasks", "Work on the repository as a whole by how it ended"),
            prune_last_success: all.name("prune_last_success_timestamp_seconds", "When the last prune began that succeeded"),
            check_last: all.name("check_last_timestamp_seconds", "When the last check began"),
            check_sound: all.name("check_last_sound", "Whether the last check found nothing damaged"),
            settings_valid: all
                .name("settings_valid", "Whether the settings file, as it is now, could be read; else the agent goes by what it was"),
            sets_left_out: all.name("sets_left_out", "Sets whose annotations make no sense, so that they are not backed up"),
            leader: all.name("leader", "Whether this agent is the one that works"),
            registry: all.0,
        }
    }
}

struct Names(Registry);

impl Names {
    fn name<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }
}

impl Metrics {
    /// All of them, as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Nothing is told any more of this set as it is now; counters and last runs stay.
    pub fn forget_set(&self, set: &SetName) {
        let label = OfSet::from(set);
        let (times, flags) = self.as_it_is_now();
        for family in times {
            family.remove(&label);
        }
        for family in flags {
            family.remove(&label);
        }
        for kind in ["complete", "partial", "safety"] {
            self.points.remove(&OfKind { namespace: set.namespace.clone(), set: set.name.clone(), kind });
        }
    }

    /// The set has no schedule any more.
    pub fn unschedule(&self, set: &SetName) {
        let label = OfSet::from(set);
        self.next_run.remove(&label);
        self.interval.remove(&label);
        self.suspended.remove(&label);
    }

    /// The same as [`Metrics::forget_set`] for all sets.
    pub fn forget_sets(&self) {
        let (times, flags) = self.as_it_is_now();
        for family in times {
            family.clear();
        }
        for family in flags {
            family.clear();
        }
        self.points.clear();
    }

    /// What is told of a set as it is now, besides its points.
    fn as_it_is_now(&self) -> ([&PerSet<Seconds>; 4], [&PerSet<Gauge>; 4]) {
        let times = [&self.last_success, &self.last_point, &self.next_run, &self.interval];
        (times, [&self.last_point_complete, &self.suspended, &self.journal_open, &self.at_zero])
    }

    /// One backup more that ended so.
    pub fn backup_ended(&self, set: &SetName, result: &'static str) {
        self.backups.get_or_create(&OfResult { namespace: set.namespace.clone(), set: set.name.clone(), result }).inc();
    }

    /// One drill more that ended so.
    pub fn drill_ended(&self, set: &SetName, result: &'static str) {
        self.drills.get_or_create(&OfResult { namespace: set.namespace.clone(), set: set.name.clone(), result }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_units_and_a_set_that_is_gone_leaves_only_what_is_counted() {
        let metrics = Metrics::default();
        let web: SetName = "shop/web".parse().unwrap();
        metrics.last_success.get_or_create(&OfSet::from(&web)).set(1_764_000_000.5);
        metrics.missed.get_or_create(&OfSet::from(&web)).inc_by(2);
        metrics.backup_ended(&web, "partial");
        metrics.reachable.set(1);
        let text = metrics.text();
        for line in [
            r#"keepset_set_last_success_timestamp_seconds{namespace="shop",set="web"} 1764000000.5"#,
            r#"keepset_missed_schedules_total{namespace="shop",set="web"} 2"#,
            r#"keepset_backups_total{namespace="shop",set="web",result="partial"} 1"#,
            "keepset_repository_reachable 1",
            concat!(r#"keepset_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        metrics.forget_sets();
        let text = metrics.text();
        assert!(!text.contains("last_success_timestamp_seconds{") && text.contains("keepset_missed_schedules_total{"), "{text}");
    }
}
