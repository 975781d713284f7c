//! From a file's text to settings that have been checked.

use std::path::Path;

use crate::config::error::ConfigError;
use crate::config::settings::Settings;
use crate::config::validate::validate;

/// Settings files are small; a bigger one is some other file.
const LIMIT: u64 = 1 << 20;

/// Reads, parses and validates the file. Every complaint names it, and the line where there is one.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > LIMIT {
        return Err(ConfigError::Malformed {
            place: path.display().to_string(),
            message: format!("{size} bytes are too many for settings"),
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&path.display().to_string(), &text)
}

/// The same from a text; `file` is what complaints call it. An empty text is empty settings.
pub fn parse(file: &str, text: &str) -> Result<Settings, ConfigError> {
    let nothing = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---");
    if nothing {
        return Ok(Settings::default());
    }
    let settings: Settings = serde_saphyr::from_str(text).map_err(|error| ConfigError::from_yaml(file, &error))?;
    validate(&settings).map_err(|error| match error {
        ConfigError::Invalid { key, message, hint } => ConfigError::Invalid { key: format!("{file}: {key}"), message, hint },
        other => other,
    })?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository_file(name: &str) -> Settings {
        load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
    }

    #[test]
    fn the_full_file_loads_and_names_every_key_there_is() {
        fn unset(place: &str, value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Null => found.push(place.to_owned()),
                serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| unset(&format!("{place}.{key}"), value, found)),
                serde_json::Value::Array(list) if list.is_empty() => found.push(place.to_owned()),
                // What the first set leaves out, another shows.
                serde_json::Value::Array(list) => unset(&format!("{place}[0]"), &list.iter().fold(serde_json::Value::Null, filled), found),
                _ => {}
            }
        }
        fn filled(first: serde_json::Value, other: &serde_json::Value) -> serde_json::Value {
            match (first, other) {
                (serde_json::Value::Null, other) => other.clone(),
                (serde_json::Value::Object(first), serde_json::Value::Object(other)) => {
                    let filled = |(key, value): (String, serde_json::Value)| (key.clone(), filled(value, &other[&key]));
                    first.into_iter().map(filled).collect::<serde_json::Map<_, _>>().into()
                }
                (first, _) => first,
            }
        }
        let mut missing = Vec::new();
        unset("", &serde_json::to_value(repository_file("keepset.yaml")).unwrap(), &mut missing);
        // The one key that excludes another stands in a comment, and is right there too.
        assert_eq!(missing, [".agent.prune.readData", ".repository.passwordCommand"]);
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/keepset.yaml")).unwrap();
        let other = text.replace("  passwordFile:", "  # passwordFile:").replace("# passwordCommand:", "passwordCommand:");
        assert!(parse("k.yaml", &other).unwrap().repository.password_command.is_some());
    }

    #[test]
    fn the_minimal_file_loads() {
        let settings = repository_file("minimal.yaml");
        assert!(settings.cluster.is_some() && settings.repository.url.is_some());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        let error = parse("k.yaml", "cluster: a\nrepository:\n  url: /r\n  passwordfile: /p\n").unwrap_err();
        assert_eq!(error.to_string(), "k.yaml:4: unknown key `passwordfile`");
        assert_eq!(error.hint().unwrap(), "did you mean `passwordFile`?");

        let error = parse("k.yaml", "sets:\n  - match: {namespace: a, name: b}\n    retention: {keepLsat: 3}\n").unwrap_err();
        assert_eq!(error.to_string(), "k.yaml:3: unknown key `keepLsat`");
        assert_eq!(error.hint().unwrap(), "did you mean `keepLast`?");

        let error = parse("k.yaml", "zebra: 1\n").unwrap_err();
        assert_eq!(error.hint().unwrap(), "known here: cluster, repository, defaults, kubernetes, agent, sets");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_line() {
        for (text, expected) in [
            ("defaults:\n  parallel: many\n", "k.yaml:2: "),
            ("defaults:\n  memory: 64 parsecs\n", "k.yaml:2: "),
            ("cluster: a\ncluster: b\n", "k.yaml:2: `cluster` is given twice"),
            ("sets:\n  - match: {name: a}\n", "k.yaml:2: the key `namespace` is missing"),
            ("defaults:\n  schedule: 99 * * * *\n", "k.yaml:2: `99 * * * *` is not a cron expression"),
            ("sets:\n  - match: {namespace: a, name: b}\n    order: sideways\n", "k.yaml:3: "),
            ("cluster: [\n", "k.yaml"),
        ] {
            let error = parse("k.yaml", text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
            assert!(!error.contains('\n') && !error.ends_with('.'), "{error}");
        }
    }

    #[test]
    fn nothing_is_no_settings() {
        assert_eq!(parse("k.yaml", "# only a comment\n").unwrap(), Settings::default());
        assert_eq!(parse("k.yaml", "").unwrap(), Settings::default());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Path::new("/nowhere/keepset.yaml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read settings file /nowhere/keepset.yaml");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z:{}\\[\\]\\-\\n &*!|>'\"#,0-9]{0,80}") {
            let _ = parse("k.yaml", &text);
        }
    }
}
