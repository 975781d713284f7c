//! Where the program's own log goes: standard error, filtered as the user asked.

pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How much is logged, and how it looks.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A filter as `tracing` reads it, such as `keepset=debug,warn`. Wins over `verbosity`.
    pub filter: Option<String>,
    /// 0 warnings, 1 what is being done, 2 in detail, 3 everything.
    pub verbosity: u8,
    /// One JSON object a line carries no colours; a terminal may.
    pub plain: bool,
}

/// Starts logging for the rest of the process. A second call changes nothing.
pub fn start(settings: &Settings) -> Result<(), BadFilter> {
    let filter = match &settings.filter {
        Some(text) => EnvFilter::try_new(text).map_err(|source| BadFilter { filter: text.clone(), source })?,
        None => EnvFilter::new(match settings.verbosity {
            // What this library logs as errors is asked again, and told here as it should be.
            0 => "warn,kube_client=off",
            1 => "warn,kube_client=off,keepset=info",
            2 => "info,keepset=debug",
            _ => "debug,keepset=trace",
        }),
    };
    let colour = !settings.plain && std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    // Only a test that calls twice gets an error here, and its first subscriber is as good.
    let _ = subscriber.try_init();
    Ok(())
}

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error("`{filter}` is not a log filter")]
pub struct BadFilter {
    pub filter: String,
    #[source]
    source: ParseError,
}

impl BadFilter {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some("write it like KEEPSET_LOG=keepset=debug".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_by_its_text() {
        let error = start(&Settings { filter: Some("keepset=loud".into()), ..Settings::default() }).unwrap_err();
        assert_eq!(error.to_string(), "`keepset=loud` is not a log filter");
    }
}
