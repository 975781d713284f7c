//! Rules that no single value can break alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::drill;
use crate::config::error::ConfigError;
use crate::config::settings::Agent;
use crate::config::settings::HookSettings;
use crate::config::settings::Retention;
use crate::config::settings::SetSettings;
use crate::config::settings::Settings;
use crate::config::units::Span;
use crate::model::exclude::Exclude;
use crate::model::set::SetName;
use crate::model::set::is_dns_name;

/// The most ordinals worked on at a time; more would only wait for each other.
const MOST_PARALLEL: u32 = 64;
/// An application is held no longer than this by one command.
const MOST_SECONDS: u64 = 3600;
/// Shorter, and a look that comes a moment late runs nothing; longer, and one point would stand for many that are gone.
const LEAST_CATCH_UP: Duration = Duration::from_secs(60);
const MOST_CATCH_UP: Duration = Duration::from_secs(30 * 86_400);
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
    time_zone("defaults.timeZone", defaults.time_zone.as_deref())?;
    catch_up("defaults.catchUp", defaults.catch_up)?;
    if let Some(memory) = defaults.memory
        && memory.0 < LEAST_MEMORY
    {
        return invalid("defaults.memory", format!("{memory} is less than the 32MiB that a run needs"), None);
    }
    parallel("defaults.parallel", defaults.parallel)?;
    retention("defaults.retention", defaults.retention.as_ref())?;
    agent(&settings.agent)?;
    if let Some(said) = &settings.kubernetes {
        marks("kubernetes.moverLabels", &said.mover_labels, true)?;
        marks("kubernetes.moverAnnotations", &said.mover_annotations, false)?;
        if let Some(class) = said.priority_class_name.as_deref().filter(|class| !is_dns_name(class)) {
            return invalid("kubernetes.priorityClassName", format!("`{class}` is not a name that Kubernetes would take"), None);
        }
    }
    let mut seen = BTreeSet::new();
    for (at, set) in settings.sets.iter().enumerate() {
        one_set(&format!("sets[{at}]"), set)?;
        if let Some(name) = set.set()
            && !seen.insert(name.clone())
        {
            return invalid(&format!("sets[{at}].match"), format!("set {name} is matched twice"), Some("merge the two entries".to_owned()));
        }
    }
    Ok(())
}

fn agent(agent: &Agent) -> Result<(), ConfigError> {
    parallel("agent.parallel", agent.parallel)?;
    if let Some(namespace) = agent.namespaces.iter().find(|namespace| *namespace != "*" && !is_dns_name(namespace)) {
        return invalid("agent.namespaces", format!("`{namespace}` is not a name that Kubernetes would take"), None);
    }
    if let Some(prune) = &agent.prune
        && prune.read_data.is_some()
    {
        return invalid("agent.prune.readData", "is for checks".to_owned(), Some("write it under agent.check".to_owned()));
    }
    Ok(())
}

/// Labels or annotations of pods, as the API server takes them: refused here, before a run has begun.
fn marks(key: &str, marks: &BTreeMap<String, String>, are_labels: bool) -> Result<(), ConfigError> {
    let is_word = |text: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= 63
            && ends(text.chars().next())
            && ends(text.chars().next_back())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    for (name, value) in marks {
        let (domain, word) = name.split_once('/').map_or((None, name.as_str()), |(domain, word)| (Some(domain), word));
        if domain.is_some_and(|domain| !is_dns_name(domain)) || !is_word(word) {
            return invalid(key, format!("`{name}` is not a name that Kubernetes would take"), None);
        }
        if domain == Some("keepset.dev") || name == "app.kubernetes.io/managed-by" {
            return invalid(key, format!("`{name}` is keepset's own"), Some("leave it out".to_owned()));
        }
        if are_labels && !value.is_empty() && !is_word(value) {
            return invalid(key, format!("`{value}`, of {name}, is not a value that a label may have"), None);
        }
    }
    Ok(())
}

fn which(key: &str, set: &SetSettings) -> Result<(), ConfigError> {
    let matches = &set.matches;
    match (&matches.name, &matches.label_selector) {
        (Some(name), None) => SetName::new(&matches.namespace, name).map(|_| ()).or_else(|e| invalid(key, e.to_string(), None)),
        (None, Some(_)) if !is_dns_name(&matches.namespace) => {
            invalid(key, format!("`{}` is not a name that Kubernetes would take", matches.namespace), None)
        }
        (None, Some(selector)) if selector.trim().is_empty() => invalid(key, "the labelSelector is empty".to_owned(), None),
        (None, Some(_)) if set.from.is_some() => {
            invalid(key, "labels are for sets in a cluster, and a set of folders has none".to_owned(), Some("name it".to_owned()))
        }
        (None, Some(_)) => Ok(()),
        (None, None) => invalid(key, "says neither name nor labelSelector".to_owned(), Some("give one of the two".to_owned())),
        (Some(_), Some(_)) => invalid(key, "says both name and labelSelector".to_owned(), Some("keep one of the two".to_owned())),
    }
}

fn time_zone(key: &str, zone: Option<&str>) -> Result<(), ConfigError> {
    match zone {
        Some(zone) if zone.parse::<chrono_tz::Tz>().is_err() => {
            let hint = "use a name of the time zone database, such as Europe/Berlin or UTC".to_owned();
            invalid(key, format!("`{zone}` is not a time zone"), Some(hint))
        }
        _ => Ok(()),
    }
}

fn catch_up(key: &str, span: Option<Span>) -> Result<(), ConfigError> {
    match span {
        Some(span) if !(LEAST_CATCH_UP..=MOST_CATCH_UP).contains(&span.0) => {
            invalid(key, format!("{span} is not between 1m and 30d"), None)
        }
        _ => Ok(()),
    }
}

/// The same for one set, whose key is `key`.
pub(super) fn one_set(key: &str, set: &SetSettings) -> Result<(), ConfigError> {
    which(&format!("{key}.match"), set)?;
    time_zone(&format!("{key}.timeZone"), set.time_zone.as_deref())?;
    catch_up(&format!("{key}.catchUp"), set.catch_up)?;
    parallel(&format!("{key}.parallel"), set.parallel)?;
    Exclude::new(set.exclude.as_deref().unwrap_or_default())
        .or_else(|error| invalid(&format!("{key}.exclude"), error.to_string(), None))?;
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
    if let Some(set_drill) = &set.drill {
        drill::validate(&format!("{key}.drill"), set_drill)?;
    }
    if let Some(set_hooks) = &set.hooks {
        if set.from.is_some() {
            let hint = "remove one of the two".to_owned();
            return invalid(&format!("{key}.hooks"), "are run in pods, and a set of folders has none".to_owned(), Some(hint));
        }
        hooks(&format!("{key}.hooks"), set_hooks)?;
    }
    Ok(())
}

fn hooks(key: &str, hooks: &HookSettings) -> Result<(), ConfigError> {
    for (list, commands) in [("pre", &hooks.pre), ("post", &hooks.post)] {
        for (at, hook) in commands.iter().enumerate() {
            let key = format!("{key}.{list}[{at}]");
            program(&format!("{key}.command"), Some(&hook.command))?;
            if !(1..=MOST_SECONDS).contains(&hook.timeout.0.as_secs()) {
                return invalid(&format!("{key}.timeout"), format!("{} is not between 1s and 1h", hook.timeout), None);
            }
            if let Some(container) = &hook.container
                && !is_dns_name(container)
            {
                return invalid(&format!("{key}.container"), format!("`{container}` is not a name that Kubernetes would take"), None);
            }
        }
    }
    Ok(())
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
            (set("hooks: {pre: [{command: []}]}"), "sets[0].hooks.pre[0].command: is empty"),
            (set("hooks: {post: [{command: [a], timeout: 0s}]}"), "sets[0].hooks.post[0].timeout: 0s is not between"),
            (set("hooks: {pre: [{command: [a], container: A}]}"), "sets[0].hooks.pre[0].container: `A`"),
            (set("hooks: {pre: [{command: [a]}]}\n    from: /srv"), "sets[0].hooks: are run in pods"),
            ("sets: [{match: {namespace: a, name: B}}]\n".to_owned(), "sets[0].match: `a/B`"),
            ("sets: [{match: {namespace: a}}]\n".to_owned(), "sets[0].match: says neither name nor labelSelector"),
            ("sets: [{match: {namespace: a, name: b, labelSelector: c=d}}]\n".to_owned(), "sets[0].match: says both"),
            (
                "sets: [{match: {namespace: a, labelSelector: c}, from: /srv}]\n".to_owned(),
                "sets[0].match: labels are for sets in a cluster",
            ),
            (set("timeZone: Mars/Olympus"), "sets[0].timeZone: `Mars/Olympus`"),
            (set("exclude: [a, '**']"), "sets[0].exclude: `**` would exclude all"),
            (set("catchUp: 1s"), "sets[0].catchUp: 1s is not between"),
            ("agent: {namespaces: [A]}\n".to_owned(), "agent.namespaces: `A`"),
            ("agent: {parallel: 100}\n".to_owned(), "agent.parallel: 100"),
            ("kubernetes: {priorityClassName: High One}\n".to_owned(), "kubernetes.priorityClassName: `High One`"),
            ("kubernetes: {moverLabels: {a b: c}}\n".to_owned(), "kubernetes.moverLabels: `a b` is not a name"),
            ("kubernetes: {moverLabels: {a: b c}}\n".to_owned(), "kubernetes.moverLabels: `b c`, of a,"),
            ("kubernetes: {moverAnnotations: {keepset.dev/run: r}}\n".to_owned(), "kubernetes.moverAnnotations: `keepset.dev/run` is"),
            ("agent: {prune: {readData: 5%}}\n".to_owned(), "agent.prune.readData: is for checks"),
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
