//! Rules that no single value can break alone.

use std::collections::BTreeSet;

use crate::config::error::ConfigError;
use crate::config::settings::Retention;
use crate::config::settings::SetSettings;
use crate::config::settings::Settings;
use crate::model::set::SetName;
use crate::model::set::is_dns_name;

/// The most ordinals worked on at a time; more would only wait for each other.
const MOST_PARALLEL: u32 = 64;
/// Below this a pack and an index do not fit together.
const LEAST_MEMORY: u64 = 32 << 20;

/// Checks settings as a whole, however they came about; the first thing wrong is reported by its key.
pub fn validate(settings: &Settings) -> Result<(), ConfigError> {
    if let Some(cluster) = &settings.cluster
        && !is_dns_name(cluster)
    {
        return invalid("cluster", format!("`{cluster}` is not a name of lower-case letters, digits, `-` and `.`"), None);
    }
    let repository = &settings.repository;
    if repository.password_file.is_some() && repository.password_command.is_some() {
        let hint = "keep one of the two".to_owned();
        return invalid("repository", "passwordFile and passwordCommand are both given".to_owned(), Some(hint));
    }
    if repository.url.as_deref() == Some("") {
        return invalid("repository.url", "is empty".to_owned(), None);
    }
    program("repository.passwordCommand", repository.password_command.as_deref())?;
    let defaults = &settings.defaults;
    if let Some(zone) = &defaults.time_zone
        && zone.parse::<chrono_tz::Tz>().is_err()
    {
        let hint = "use a name of the time zone database, such as Europe/Berlin or UTC".to_owned();
        return invalid("defaults.timeZone", format!("`{zone}` is not a time zone"), Some(hint));
    }
    if let Some(memory) = defaults.memory
        && memory.0 < LEAST_MEMORY
    {
        return invalid("defaults.memory", format!("{memory} is less than the 32MiB that a run needs"), None);
    }
    parallel("defaults.parallel", defaults.parallel)?;
    retention("defaults.retention", defaults.retention.as_ref())?;
    let mut seen = BTreeSet::new();
    for (at, set) in settings.sets.iter().enumerate() {
        let name = one_set(&format!("sets[{at}]"), set)?;
        if !seen.insert(name.clone()) {
            return invalid(&format!("sets[{at}].match"), format!("set {name} is matched twice"), Some("merge the two entries".to_owned()));
        }
    }
    Ok(())
}

fn one_set(key: &str, set: &SetSettings) -> Result<SetName, ConfigError> {
    let name =
        SetName::new(&set.matches.namespace, &set.matches.name).or_else(|e| invalid(&format!("{key}.match"), e.to_string(), None))?;
    parallel(&format!("{key}.parallel"), set.parallel)?;
    retention(&format!("{key}.retention"), set.retention.as_ref())?;
    if let Some(template) = set.templates.iter().find(|template| !is_dns_name(template)) {
        return invalid(&format!("{key}.templates"), format!("`{template}` is not a name that Kubernetes would take"), None);
    }
    if set.replicas == Some(0) {
        return invalid(&format!("{key}.replicas"), "0 leaves nothing to back up".to_owned(), None);
    }
    if let Some(start) = &set.start {
        program(&format!("{key}.start.command"), Some(&start.command))?;
        program(&format!("{key}.start.ready"), start.ready.as_deref())?;
        if start.deadline.0.is_zero() {
            return invalid(&format!("{key}.start.deadline"), "0s leaves no time to start".to_owned(), None);
        }
    }
    Ok(name)
}

fn program(key: &str, command: Option<&[String]>) -> Result<(), ConfigError> {
    match command {
        Some([]) => invalid(key, "is empty".to_owned(), Some("write it as a list: [program, argument, …]".to_owned())),
        Some([program, ..]) if program.is_empty() => invalid(key, "the program's name is empty".to_owned(), None),
        _ => Ok(()),
    }
}

fn parallel(key: &str, parallel: Option<u32>) -> Result<(), ConfigError> {
    match parallel {
        Some(n) if n == 0 || n > MOST_PARALLEL => invalid(key, format!("{n} is not between 1 and {MOST_PARALLEL}"), None),
        _ => Ok(()),
    }
}

fn retention(key: &str, retention: Option<&Retention>) -> Result<(), ConfigError> {
    let Some(rules) = retention else { return Ok(()) };
    if rules.policy().keeps_nothing() {
        return invalid(key, "keeps nothing".to_owned(), Some("name at least one of keepLast, hourly … yearly, within".to_owned()));
    }
    Ok(())
}

fn invalid<T>(key: &str, message: String, hint: Option<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { key: key.to_owned(), message, hint })
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn values_that_make_no_sense_are_refused_by_their_key() {
        let set = |rest: &str| format!("sets:\n  - match: {{namespace: a, name: b}}\n    {rest}\n");
        for (text, expected) in [
            ("cluster: Prod EU\n".to_owned(), "cluster: `Prod EU` is not a name"),
            ("repository: {passwordFile: /p, passwordCommand: [pass]}\n".to_owned(), "repository: passwordFile and passwordCommand"),
            ("repository: {passwordCommand: []}\n".to_owned(), "repository.passwordCommand: is empty"),
            ("defaults: {timeZone: Mars/Olympus}\n".to_owned(), "defaults.timeZone: `Mars/Olympus`"),
            ("defaults: {parallel: 0}\n".to_owned(), "defaults.parallel: 0 is not between 1 and 64"),
            ("defaults: {memory: 1MiB}\n".to_owned(), "defaults.memory: 1MiB is less than"),
            ("defaults: {retention: {keepLast: 0}}\n".to_owned(), "defaults.retention: keeps nothing"),
            (set("replicas: 0"), "sets[0].replicas: 0"),
            (set("start: {command: []}"), "sets[0].start.command: is empty"),
            (set("start: {command: [a], deadline: 0s}"), "sets[0].start.deadline: 0s"),
            ("sets: [{match: {namespace: a, name: B}}]\n".to_owned(), "sets[0].match: `a/B`"),
            (
                "sets: [{match: {namespace: a, name: b}}, {match: {namespace: a, name: b}}]\n".to_owned(),
                "sets[1].match: set a/b is matched twice",
            ),
        ] {
            let error = parse("k.yaml", &text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("k.yaml: {expected}")), "{text:?}: {error}");
        }
    }
}
