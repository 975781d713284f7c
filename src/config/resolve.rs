//! From what the settings say and what the cluster has to sets that all have a name: selectors and annotations are looked up here.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono_tz::Tz;
use serde::de::DeserializeOwned;

use crate::config::settings::{Retention, SetSettings, Settings};
use crate::config::units::Span;
use crate::config::validate;
use crate::model::set::{FoundSet, SetName};
use crate::schedule::Schedule;

/// How long after its time a backup may begin where nobody says otherwise.
const CATCH_UP: Duration = Duration::from_secs(6 * 3600);

const SCHEDULE: &str = "keepset.dev/schedule";
const TIME_ZONE: &str = "keepset.dev/time-zone";
const SUSPEND: &str = "keepset.dev/suspend";
const RETENTION: &str = "keepset.dev/retention";
const HOOKS: &str = "keepset.dev/hooks";
const EXCLUDE: &str = "keepset.dev/exclude";

/// Settings in which every set is named, and what could not be made sense of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    pub sets: Vec<SetSettings>,
    /// In words, each with the set and the annotation. A set with such an annotation is left out: half of what it asks for is not what it asks for.
    pub complaints: Vec<String>,
}

/// Names every set: those that the settings name, those that their selectors found (`selected`, by the entry's place in the list), and those of
/// `found` that ask to be backed up by the annotation `keepset.dev/schedule`. The first entry that means a set holds for it; what it leaves out
/// the set's own annotations say.
pub fn resolve(settings: &Settings, selected: &BTreeMap<usize, Vec<FoundSet>>, found: &[FoundSet]) -> Resolved {
    let mut annotations: BTreeMap<&SetName, &BTreeMap<String, String>> = BTreeMap::new();
    for set in selected.values().flatten().chain(found) {
        annotations.insert(&set.set, &set.annotations);
    }
    let mut entries: BTreeMap<SetName, SetSettings> = BTreeMap::new();
    for entry in &settings.sets {
        entries.extend(entry.set().map(|set| (set, entry.clone())));
    }
    for (at, sets) in selected {
        let Some(entry) = settings.sets.get(*at) else { continue };
        for found in sets {
            let named = || SetSettings { matches: SetSettings::named(&found.set).matches, ..entry.clone() };
            entries.entry(found.set.clone()).or_insert_with(named);
        }
    }
    for set in found.iter().filter(|set| set.annotations.contains_key(SCHEDULE)) {
        entries.entry(set.set.clone()).or_insert_with(|| SetSettings::named(&set.set));
    }
    let mut resolved = Resolved::default();
    for (name, mut set) in entries {
        let own = annotations.get(&name).copied();
        match own.map_or(Ok(()), |own| annotate(&mut set, own)).and_then(|()| checked(&set)) {
            Ok(()) => resolved.sets.push(set),
            Err(complaint) => resolved.complaints.push(format!("set {name} is left out: {complaint}")),
        }
    }
    resolved
}

fn checked(set: &SetSettings) -> Result<(), String> {
    validate::one_set("set", set).map_err(|error| error.to_string())
}

/// Fills what the entry leaves out.
fn annotate(set: &mut SetSettings, annotations: &BTreeMap<String, String>) -> Result<(), String> {
    let text = |name: &str| annotations.get(name).map(|text| text.trim());
    if set.schedule.is_none()
        && let Some(text) = text(SCHEDULE)
    {
        set.schedule = Some(text.parse().map_err(|error| format!("annotation {SCHEDULE}: {error}"))?);
    }
    if set.time_zone.is_none() {
        set.time_zone = text(TIME_ZONE).map(str::to_owned);
    }
    if set.suspend.is_none()
        && let Some(text) = text(SUSPEND)
    {
        let suspend = text.parse().map_err(|_| format!("annotation {SUSPEND}: `{text}` is neither true nor false"))?;
        set.suspend = Some(suspend);
    }
    if set.retention.is_none()
        && let Some(text) = text(RETENTION)
    {
        set.retention = Some(retention(text)?);
    }
    if set.hooks.is_none()
        && let Some(text) = text(HOOKS)
    {
        set.hooks = Some(yaml(HOOKS, text)?);
    }
    if set.exclude.is_none()
        && let Some(text) = text(EXCLUDE)
    {
        set.exclude = Some(yaml(EXCLUDE, text)?);
    }
    Ok(())
}

/// `keepLast=3,daily=7,within=14d`: the settings' keys, in one line.
fn retention(text: &str) -> Result<Retention, String> {
    let mut lines = String::new();
    for rule in text.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
        let (key, value) =
            rule.split_once('=').ok_or_else(|| format!("annotation {RETENTION}: `{rule}` is not written like keepLast=3"))?;
        lines.push_str(&format!("{}: {}\n", key.trim(), value.trim()));
    }
    yaml(RETENTION, &lines)
}

fn yaml<T: DeserializeOwned>(annotation: &str, text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let message = error.to_string();
        format!("annotation {annotation}: {}", message.lines().next().unwrap_or_default())
    })
}

/// When the agent backs the set up, suspended or not; `None` where nobody says when. The settings must be valid.
pub fn schedule_of(settings: &Settings, set: &SetSettings) -> Option<Schedule> {
    let defaults = &settings.defaults;
    let zone = set.time_zone.as_deref().or(defaults.time_zone.as_deref());
    let span = |own: Option<Span>, default: Option<Span>| own.or(default).map(|span| span.0);
    Some(Schedule {
        expression: set.schedule.clone().or_else(|| defaults.schedule.clone())?,
        zone: zone.and_then(|zone| zone.parse().ok()).unwrap_or(Tz::UTC),
        jitter: span(set.jitter, defaults.jitter).unwrap_or_default(),
        catch_up: span(set.catch_up, defaults.catch_up).unwrap_or(CATCH_UP),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn found(name: &str, annotations: &[(&str, &str)]) -> FoundSet {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        FoundSet { set: name.parse().unwrap(), annotations, replicas: 1 }
    }

    fn settings(text: &str) -> Settings {
        parse("k.yaml", text).unwrap()
    }

    fn names(resolved: &Resolved) -> Vec<String> {
        resolved.sets.iter().map(|set| set.set().unwrap().to_string()).collect()
    }

    #[test]
    fn a_set_is_what_the_first_entry_that_means_it_says_and_its_annotations_fill_the_gaps() {
        let settings = settings(
            "defaults: {schedule: '@weekly', timeZone: Europe/Berlin, jitter: 5m}\n\
             sets:\n\
             - match: {namespace: shop, labelSelector: tier=db}\n  schedule: '@hourly'\n\
             - match: {namespace: shop, labelSelector: app}\n  schedule: '@daily'\n  suspend: true\n\
             - match: {namespace: shop, name: web}\n",
        );
        let orders = found("shop/orders", &[(SCHEDULE, "5 5 * * *"), (RETENTION, "keepLast=3, daily=7,within=14d")]);
        let queue = found("shop/queue", &[(TIME_ZONE, "Asia/Kolkata"), (SUSPEND, "false")]);
        let selected = BTreeMap::from([(0, vec![orders.clone(), found("shop/web", &[])]), (1, vec![orders, queue])]);
        let opted = [
            found(
                "blog/posts",
                &[(SCHEDULE, "15 2 * * *"), (HOOKS, "pre: [{command: [sync]}]"), (EXCLUDE, "[.snapshot, '*.tmp']"), (SUSPEND, "true")],
            ),
            found("blog/plain", &[(RETENTION, "keepLast=1")]),
        ];
        let resolved = resolve(&settings, &selected, &opted);
        assert_eq!(names(&resolved), ["blog/posts", "shop/orders", "shop/queue", "shop/web"]);
        assert!(resolved.complaints.is_empty(), "{:?}", resolved.complaints);
        let [posts, orders, queue, web] = &resolved.sets[..] else { panic!() };
        let schedule = |set: &SetSettings| schedule_of(&settings, set).unwrap();
        assert_eq!((schedule(posts).expression.to_string(), posts.suspend), ("15 2 * * *".to_owned(), Some(true)));
        assert_eq!(posts.hooks.as_ref().unwrap().pre[0].command, ["sync"]);
        assert_eq!(posts.exclude.as_deref(), Some(&[".snapshot".to_owned(), "*.tmp".to_owned()][..]));
        assert_eq!(schedule(orders).expression.to_string(), "@hourly");
        let retention = orders.retention.unwrap();
        assert_eq!((retention.keep_last, retention.daily, retention.within.unwrap().to_string()), (Some(3), Some(7), "14d".to_owned()));
        // What the entry says is not the set's own to change.
        assert_eq!((schedule(queue).zone, queue.suspend), (chrono_tz::Asia::Kolkata, Some(true)));
        assert_eq!((schedule(web).expression.to_string(), schedule(web).zone), ("@weekly".to_owned(), chrono_tz::Europe::Berlin));
        assert_eq!(schedule(web).jitter, Duration::from_secs(300));
    }

    #[test]
    fn a_set_whose_annotation_makes_no_sense_is_left_out_and_told() {
        for (annotations, complaint) in [
            ([(SCHEDULE, "soon"), (SUSPEND, "true")], "annotation keepset.dev/schedule: `soon` is not a cron expression"),
            ([(SCHEDULE, "@daily"), (SUSPEND, "maybe")], "annotation keepset.dev/suspend: `maybe`"),
            ([(SCHEDULE, "@daily"), (TIME_ZONE, "Mars")], "timeZone: `Mars` is not a time zone"),
            ([(SCHEDULE, "@daily"), (RETENTION, "keepLsat=3")], "annotation keepset.dev/retention: "),
            ([(SCHEDULE, "@daily"), (RETENTION, "three")], "annotation keepset.dev/retention: `three` is not written like"),
            ([(SCHEDULE, "@daily"), (RETENTION, "keepLast=0")], "retention: keeps nothing"),
            ([(SCHEDULE, "@daily"), (HOOKS, "{pre: sync}")], "annotation keepset.dev/hooks: "),
            ([(SCHEDULE, "@daily"), (HOOKS, "{pre: [{command: []}]}")], "hooks.pre[0].command: is empty"),
            ([(SCHEDULE, "@daily"), (EXCLUDE, "[../a]")], "exclude: `../a` has"),
        ] {
            let resolved =
                resolve(&Settings::default(), &BTreeMap::new(), &[found("a/b", &annotations), found("a/c", &[(SCHEDULE, "@daily")])]);
            assert_eq!(names(&resolved), ["a/c"]);
            assert!(
                resolved.complaints[0].starts_with("set a/b is left out: ") && resolved.complaints[0].contains(complaint),
                "{:?}",
                resolved.complaints
            );
        }
    }

    #[test]
    fn a_set_of_which_nobody_says_when_has_no_schedule() {
        let settings = settings("sets: [{match: {namespace: shop, name: web}}]");
        let resolved = resolve(&settings, &BTreeMap::new(), &[]);
        assert_eq!(names(&resolved), ["shop/web"]);
        assert_eq!(schedule_of(&settings, &resolved.sets[0]), None);
    }
}
