//! What is wrong with the settings, and where.

use std::path::PathBuf;

use serde_saphyr::MessageFormatter;

/// The settings cannot be used. The file is named in every message that comes from one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read settings file {}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{place}: unknown key `{key}`")]
    UnknownKey {
        /// `file:line`.
        place: String,
        key: String,
        nearest: Option<&'static str>,
        known: Vec<&'static str>,
    },
    #[error("{place}: {message}")]
    Malformed { place: String, message: String },
    /// A value, or two values together, that make no sense.
    #[error("{key}: {message}")]
    Invalid { key: String, message: String, hint: Option<String> },
}

impl ConfigError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Unreadable { .. } => Some("give the file with --config FILE, or leave it out and use flags".to_owned()),
            ConfigError::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            ConfigError::UnknownKey { known, .. } => Some(format!("known here: {}", known.join(", "))),
            ConfigError::Malformed { .. } => None,
            ConfigError::Invalid { hint, .. } => hint.clone(),
        }
    }

    pub(super) fn from_yaml(file: &str, error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let place = match error.location() {
            Some(location) if location.line() > 0 => format!("{file}:{}", location.line()),
            _ => file.to_owned(),
        };
        match error {
            serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
                ConfigError::UnknownKey { place, key: field.clone(), nearest: nearest(field, expected), known: expected.clone() }
            }
            serde_saphyr::Error::SerdeMissingField { field, .. } => {
                ConfigError::Malformed { place, message: format!("the key `{field}` is missing") }
            }
            serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
                let key = key.as_deref().unwrap_or("a key");
                ConfigError::Malformed { place, message: format!("`{key}` is given twice") }
            }
            other => {
                let text = serde_saphyr::UserMessageFormatter.format_message(other).into_owned();
                let message = text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
                ConfigError::Malformed { place, message }
            }
        }
    }
}

/// The known key that was most probably meant; none where all are far away.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let fold = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
    let (distance, best) = known.iter().map(|candidate| (strsim::damerau_levenshtein(&fold(key), &fold(candidate)), *candidate)).min()?;
    (distance <= 2.max(key.len() / 3)).then_some(best)
}
