//! A place beside a set where it is restored to for a drill, looked into, and removed again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::claim::ClaimPlace;
use crate::model::set::{Ordinal, SetName};
use crate::platform::{Platform, PlatformError, Resources};

/// One drill's own place. Nothing in it is anybody's only copy.
#[async_trait]
pub trait Scratch: Send + Sync {
    /// Takes the place, which no other drill of the set has meanwhile, and removes what dead ones left there. Comes before all else.
    async fn open(&mut self) -> Result<(), PlatformError>;

    /// What the set is restored by.
    fn platform(&self) -> Arc<dyn Platform>;

    /// What the set is called there.
    fn set(&self) -> &SetName;

    /// The place in words for people.
    fn place(&self) -> String;

    /// Where a mover sees the root of the claim of that name.
    fn root_of(&self, claim: &str) -> String;

    /// Lets the user's command look into the claims of one ordinal, which may be changed by it. Dropping this ends the command. An error says
    /// that it was not begun, or that nobody knows how it ended.
    async fn probe(&self, run: &str, ordinal: Ordinal, claims: &[ClaimPlace], probe: &Probe) -> Result<ProbeEnd, PlatformError>;

    /// Says why the application could not be started here, as far as that can be known before anything is restored.
    async fn refuse_app(&self, _app: &App) -> Result<(), PlatformError> {
        Err(PlatformError::NoCopy { set: self.set().to_string(), reason: "only a set in a cluster has one".into() })
    }

    /// Starts the application on what was restored, where it can reach nobody but itself, or says why that cannot be. Dropping this leaves it to
    /// [`Scratch::clear`].
    async fn start_app(&self, _run: &str, _app: &App) -> Result<AppEnd, PlatformError> {
        Err(PlatformError::NoCopy { set: self.set().to_string(), reason: "only a set in a cluster has one".into() })
    }

    /// Removes all that the drill made, and gives the place back. Once more does no harm.
    async fn clear(&mut self) -> Result<(), PlatformError>;
}

/// An application to be started on trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct App {
    /// The set and what belongs to it, as the point recorded them.
    pub recorded: Vec<serde_json::Value>,
    /// Those that were restored, in the order in which they start.
    pub ordinals: Vec<Ordinal>,
    /// All of them at once, else each ready before the next.
    pub at_once: bool,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppEnd {
    /// Those that became ready.
    pub ready: Vec<Ordinal>,
    /// Why not all did.
    pub reason: Option<String>,
}

/// A command that finds out whether an application can live with what is in its volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Program and arguments; no shell between. `{claim}` is the folder of the ordinal's first claim, `{claim:TEMPLATE}` that of another,
    /// `{ordinal}`, `{set}` and `{namespace}` say whose they are.
    pub command: Vec<String>,
    /// How long it may take for one ordinal.
    pub timeout: Duration,
    /// In a cluster: the image that has the program.
    pub image: Option<String>,
    pub image_pull_policy: Option<String>,
    /// In a cluster: as whom it runs, where movers are root and nobody knows as whom the set's own pods did.
    pub user: Option<i64>,
    /// In a cluster: what it asks for and may take.
    pub resources: Resources,
    /// In a cluster: where the claims of each template are mounted.
    pub mounts: BTreeMap<String, ProbeMount>,
}

/// Where a claim is in a probe's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeMount {
    pub path: String,
    /// Only this folder of the claim is there.
    pub sub_path: Option<String>,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEnd {
    /// `None` where it was ended, since its time was up or from outside.
    pub exit_code: Option<i32>,
    /// In words.
    pub how: String,
    /// The end of what it said, on one line.
    pub said: String,
}

impl ProbeEnd {
    pub fn passed(&self) -> bool {
        self.exit_code == Some(0)
    }
}

/// What stands for what in a probe's command, and the variables that it gets.
pub(super) struct Words {
    placeholders: Vec<(String, String)>,
    pub variables: Vec<(&'static str, String)>,
}

impl Words {
    /// `paths` are where the command sees the claims, in their order.
    pub fn new(set: &SetName, ordinal: Ordinal, claims: &[ClaimPlace], paths: &[String]) -> Words {
        let first = paths.first().cloned().unwrap_or_default();
        let variables = vec![
            ("KEEPSET_SET", set.name.clone()),
            ("KEEPSET_NAMESPACE", set.namespace.clone()),
            ("KEEPSET_ORDINAL", ordinal.to_string()),
            ("KEEPSET_CLAIM", first.clone()),
        ];
        let mut placeholders = vec![
            ("{set}".to_owned(), set.name.clone()),
            ("{namespace}".to_owned(), set.namespace.clone()),
            ("{ordinal}".to_owned(), ordinal.to_string()),
            ("{claim}".to_owned(), first),
        ];
        placeholders.extend(claims.iter().zip(paths).map(|(claim, path)| (format!("{{claim:{}}}", claim.id.template), path.clone())));
        Words { placeholders, variables }
    }

    /// The command with its placeholders filled in.
    pub fn command(&self, probe: &Probe) -> Vec<String> {
        let values: Vec<(&str, &str)> = self.placeholders.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        probe.command.iter().map(|argument| super::command::fill_in(argument, &values)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::claim::{ClaimId, ClaimShape};

    #[test]
    fn a_probe_finds_each_claim_by_its_template() {
        let set: SetName = "shop/web".parse().unwrap();
        let claims = ["data", "wal"].map(|template| {
            let id = ClaimId { ordinal: Ordinal(3), template: template.into() };
            ClaimPlace { set: set.clone(), name: id.name("web"), id, shape: ClaimShape::default() }
        });
        let words = Words::new(&set, Ordinal(3), &claims, &["/a".into(), "/{claim}".into()]);
        let command = ["{claim}:{claim:data}:{claim:wal}", "{namespace}/{set}-{ordinal}", "{claim:none}"].map(str::to_owned).to_vec();
        let probe = Probe { command, ..Probe::default() };
        assert_eq!(words.command(&probe), ["/a:/a:/{claim}", "shop/web-3", "{claim:none}"]);
        assert!(words.variables.contains(&("KEEPSET_CLAIM", "/a".into())));
    }
}
