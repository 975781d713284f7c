//! Drills: where a set is restored to on trial, and what looks at it then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::error::ConfigError;
use crate::config::settings::ResourceSettings;
use crate::config::units::Span;
use crate::model::set::is_dns_name;
use crate::platform::{Probe, ProbeMount};
use crate::schedule::Expression;

/// How one set is drilled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrillSettings {
    /// For a set of folders: the folder in which drills make theirs; the system's for temporary files where left out.
    pub scratch: Option<PathBuf>,
    /// For a set in a cluster: the namespace that it is restored to.
    pub namespace: Option<String>,
    /// A probe that comes with the program; what `probe` says goes over it.
    pub profile: Option<String>,
    pub probe: Option<ProbeSettings>,
    /// For a set in a cluster: the application is started too, on what was restored, where it can reach nobody but itself.
    pub start_app: Option<bool>,
    /// When the agent drills it; never where left out.
    pub schedule: Option<Expression>,
}

/// A command that looks at each ordinal's claims once they are proven.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeSettings {
    /// Program and arguments. `{claim}` is the folder of the ordinal's first claim, `{claim:TEMPLATE}` that of another; `{ordinal}`, `{set}` and
    /// `{namespace}` are replaced too. No shell is involved.
    #[serde(default)]
    pub command: Vec<String>,
    /// How long it may take for one ordinal; a minute where left out.
    pub timeout: Option<Span>,
    /// In a cluster: the image that has the program.
    pub image: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: Option<String>,
    /// In a cluster: the user that it runs as, where movers are root and the point does not know as whom the set's own pods ran.
    pub user: Option<i64>,
    /// In a cluster: what its container asks for and may take.
    #[serde(default)]
    pub resources: ResourceSettings,
    /// In a cluster: where the claims of a template are mounted; as in the set's own pods where left out.
    #[serde(default)]
    pub mounts: BTreeMap<String, String>,
}

const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any probe should take, and what a pod's own deadline still understands.
const MOST_SECONDS: u64 = 24 * 3600;

/// The probes that come with the program, by name.
const PROFILES: [(&str, &str); 4] = [
    ("etcd", include_str!("../../config/profiles/etcd.yaml")),
    ("mysql", include_str!("../../config/profiles/mysql.yaml")),
    ("postgresql", include_str!("../../config/profiles/postgresql.yaml")),
    ("redis", include_str!("../../config/profiles/redis.yaml")),
];

/// The profile of that name.
pub fn profile(name: &str) -> Result<ProbeSettings, ConfigError> {
    let names = || PROFILES.map(|(name, _)| name).join(", ");
    let Some((_, text)) = PROFILES.iter().find(|(known, _)| *known == name) else {
        let (key, message) = ("drill.profile".to_owned(), format!("there is no profile `{name}`"));
        return Err(ConfigError::Invalid { key, message, hint: Some(format!("there are {}", names())) });
    };
    serde_saphyr::from_str(text).map_err(|error| ConfigError::from_yaml(&format!("config/profiles/{name}.yaml"), &error))
}

impl ProbeSettings {
    /// The same with all that `other` says in the place of what this one says.
    #[must_use]
    pub fn under(self, other: &ProbeSettings) -> ProbeSettings {
        let mut mounts = self.mounts;
        mounts.extend(other.mounts.clone());
        ProbeSettings {
            command: if other.command.is_empty() { self.command } else { other.command.clone() },
            timeout: other.timeout.or(self.timeout),
            image: other.image.clone().or(self.image),
            image_pull_policy: other.image_pull_policy.clone().or(self.image_pull_policy),
            user: other.user.or(self.user),
            resources: if other.resources == ResourceSettings::default() { self.resources } else { other.resources.clone() },
            mounts,
        }
    }

    /// The same in the words of a drill; `None` where it has no command.
    pub fn probe(&self) -> Option<Probe> {
        let mount = |(template, path): (&String, &String)| (template.clone(), ProbeMount { path: path.clone(), sub_path: None });
        (!self.command.is_empty()).then(|| Probe {
            command: self.command.clone(),
            timeout: self.timeout.map_or(TIMEOUT, |span| span.0),
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            user: self.user,
            resources: self.resources.resources(),
            mounts: self.mounts.iter().map(mount).collect(),
        })
    }
}

/// The first thing wrong, by its key below `key`.
pub(super) fn validate(key: &str, drill: &DrillSettings) -> Result<(), ConfigError> {
    let invalid =
        |key: String, message: String, hint: Option<&str>| Err(ConfigError::Invalid { key, message, hint: hint.map(str::to_owned) });
    if drill.scratch.is_some() && drill.namespace.is_some() {
        return invalid(
            key.to_owned(),
            "scratch and namespace are both given".into(),
            Some("a set is of folders or in a cluster: keep one"),
        );
    }
    if let Some(namespace) = drill.namespace.as_ref().filter(|name| !is_dns_name(name)) {
        return invalid(format!("{key}.namespace"), format!("`{namespace}` is not a name that Kubernetes would take"), None);
    }
    if let Some(name) = &drill.profile {
        profile(name).map_err(|error| match error {
            ConfigError::Invalid { message, hint, .. } => ConfigError::Invalid { key: format!("{key}.profile"), message, hint },
            other => other,
        })?;
    }
    if drill.namespace.is_some() && drill.profile.is_none() && drill.probe.as_ref().is_some_and(|probe| probe.image.is_none()) {
        let hint = "name one that has the program: a probe in a cluster is a pod";
        return invalid(format!("{key}.probe.image"), "is missing".into(), Some(hint));
    }
    let Some(probe) = &drill.probe else { return Ok(()) };
    let key = format!("{key}.probe");
    if drill.profile.is_none() && probe.command.is_empty() {
        let hint = "write it as a list: [program, argument, …], or name a profile";
        return invalid(format!("{key}.command"), "is empty".into(), Some(hint));
    }
    if probe.command.first().is_some_and(String::is_empty) {
        return invalid(format!("{key}.command"), "the program's name is empty".into(), None);
    }
    if let Some(timeout) = probe.timeout.filter(|timeout| !(1..=MOST_SECONDS).contains(&timeout.0.as_secs())) {
        return invalid(format!("{key}.timeout"), format!("{timeout} is not between 1s and 1d"), None);
    }
    if let Some((template, path)) = probe.mounts.iter().find(|(_, path)| !path.starts_with('/') || path.contains(':')) {
        return invalid(format!("{key}.mounts.{template}"), format!("`{path}` is no absolute path"), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::config::parse;

    #[test]
    fn every_profile_has_an_image_a_user_and_a_command_that_a_shell_understands() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/profiles");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, PROFILES.map(|(name, _)| format!("{name}.yaml")), "a profile that nobody can name");
        for (name, _) in PROFILES {
            let settings = profile(name).unwrap();
            assert!(settings.image.is_some() && settings.user.is_some_and(|user| user > 0), "{name}");
            let probe = settings.probe().unwrap();
            if let ["sh", "-c", script] = probe.command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                let mut sh = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
                sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
                assert!(sh.wait().unwrap().success(), "{name}");
                let fills = ["{claim", "{set", "{namespace", "{ordinal"].iter().any(|placeholder| script.contains(placeholder));
                assert!(!fills, "{name}: a value that is filled into a script could be taken for a part of it");
            }
        }
        let error = profile("oracle").unwrap_err();
        assert!(error.hint().unwrap().contains("postgresql"), "{error}");
    }

    #[test]
    fn what_a_set_says_of_its_probe_goes_over_the_profile() {
        let own = ProbeSettings { image: Some("own/postgres:16".into()), ..ProbeSettings::default() };
        let probe = profile("postgresql").unwrap().under(&own).probe().unwrap();
        assert!(probe.image.as_deref() == Some("own/postgres:16") && probe.command[0] == "sh");
        assert_eq!(ProbeSettings::default().probe(), None);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_their_key() {
        for (text, expected) in [
            ("{scratch: /a, namespace: b}", "drill: scratch and namespace"),
            ("{namespace: A}", "drill.namespace: `A`"),
            ("{profile: oracle}", "drill.profile: there is no profile `oracle`"),
            ("{probe: {image: a}}", "drill.probe.command: is empty"),
            ("{namespace: a, probe: {command: [b]}}", "drill.probe.image: is missing"),
            ("{probe: {command: ['']}}", "drill.probe.command: the program's name is empty"),
            ("{probe: {command: [a], timeout: 0s}}", "drill.probe.timeout: 0s is not between"),
            ("{probe: {command: [a], mounts: {data: x}}}", "drill.probe.mounts.data: `x` is no absolute path"),
        ] {
            let error = parse("k.yaml", &format!("sets: [{{match: {{namespace: a, name: b}}, drill: {text}}}]\n")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("k.yaml: sets[0].{expected}")), "{text}: {error}");
        }
        assert!(parse("k.yaml", "sets: [{match: {namespace: a, name: b}, drill: {profile: redis, probe: {image: own}}}]\n").is_ok());
    }
}
