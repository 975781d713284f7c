//! Which sets there are: those of the settings, those that their selectors find, and those that ask for it by annotation.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};

use crate::cli::cluster::{self, ClusterArgs};
use crate::cli::wire::Wire;
use crate::config::{self, Resolved, SetSettings, Settings};
use crate::model::set::{FoundSet, SetName};
use crate::model::standing::Standing;
use crate::platform::Platform;
use crate::platform::kubernetes::Kubernetes;

/// Places that are looked into at a time.
const AT_ONCE: usize = 8;

/// What a search came upon.
pub struct Found {
    /// The settings with every set named.
    pub settings: Settings,
    /// Sets whose annotations make no sense, and places that could not be looked into, in words.
    pub left_out: Vec<String>,
    /// Of each set in the cluster.
    pub restores: BTreeMap<SetName, Restore>,
    /// What was found where, for the next search.
    pub looked: Looked,
}

/// What was found, by namespace (`None` for all) and selector.
pub type Looked = BTreeMap<(Option<String>, String), Vec<FoundSet>>;

/// How far the restore of a set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    None,
    /// Its journal is open.
    Open,
    /// And the set has no pods.
    AtZero,
}

/// The cluster, where the settings have sets in one or nothing but sets in one can be meant.
pub async fn connect(args: &ClusterArgs, wire: &Wire) -> anyhow::Result<Option<Kubernetes>> {
    let settings = &wire.settings;
    let asked = !settings.agent.namespaces.is_empty() || settings.sets.iter().any(|set| set.from.is_none());
    if asked || Wire::is_in_cluster() { Ok(Some(cluster::kubernetes_to_look_at(args, wire).await?)) } else { Ok(None) }
}

/// How far the runs of sets are, wherever this looks for sets, and reasons why that is not known.
pub async fn standings(settings: &Settings, cluster: &Kubernetes) -> (Vec<Standing>, Vec<String>) {
    let (mut standings, mut unknown) = (Vec::new(), Vec::new());
    let selected = settings.sets.iter().filter_map(selector).map(|(namespace, _)| namespace);
    let mut places: BTreeSet<_> = namespaces(settings, &asked(settings, cluster)).into_iter().chain(selected).collect();
    if places.contains(&None) {
        places.retain(Option::is_none);
    }
    let mut listing = stream::iter(places).map(async |place| cluster.standings(place.as_deref()).await).buffered(AT_ONCE);
    while let Some(found) = listing.next().await {
        match found {
            Ok(found) => standings.extend(found),
            Err(error) => unknown.push(format!("runs that are under way are not shown: {error}")),
        }
    }
    (standings, unknown)
}

/// Names every set that the settings and the cluster have. A place that cannot be looked into keeps no other from it: what was found there
/// `before` holds, and the reason is told.
pub async fn search(settings: &Settings, cluster: Option<&Kubernetes>, before: &Looked) -> Found {
    let mut left_out = Vec::new();
    let mut looked = Looked::new();
    let asked = cluster.map(|cluster| asked(settings, cluster)).unwrap_or_default();
    if let Some(cluster) = cluster {
        let selectors = settings.sets.iter().filter_map(selector);
        let places: BTreeSet<_> =
            namespaces(settings, &asked).into_iter().map(|namespace| (namespace, String::new())).chain(selectors).collect();
        let find = |place: (Option<String>, String)| async move { (cluster.find_sets(place.0.as_deref(), &place.1).await, place) };
        let mut finding = stream::iter(places).map(find).buffered(AT_ONCE);
        while let Some((found, place)) = finding.next().await {
            let found = found.unwrap_or_else(|error| {
                left_out.push(format!("sets there are as they were when last seen: {error}"));
                before.get(&place).cloned().unwrap_or_default()
            });
            looked.insert(place, found);
        }
    }
    let of_place = |place: &(Option<String>, String)| looked.get(place).cloned().unwrap_or_default();
    let selected = settings.sets.iter().enumerate().filter_map(|(at, set)| Some((at, of_place(&selector(set)?)))).collect();
    let named: BTreeSet<SetName> = settings.sets.iter().filter_map(SetSettings::set).collect();
    // Whoever may annotate sets can ask for backups only where the settings let it.
    let may_ask = |set: &FoundSet| asked.iter().any(|asked| asked == "*" || *asked == set.set.namespace);
    let found: Vec<FoundSet> = looked
        .iter()
        .filter(|((_, selector), _)| selector.is_empty())
        .flat_map(|(_, sets)| sets.iter().filter(|set| named.contains(&set.set) || may_ask(set)))
        .cloned()
        .collect();
    let Resolved { sets, complaints } = config::resolve(settings, &selected, &found);
    left_out.extend(complaints);
    let mut restores = BTreeMap::new();
    for set in looked.values().flatten() {
        let Some(cluster) = cluster.filter(|_| !restores.contains_key(&set.set)) else { continue };
        if !sets.iter().any(|known| known.set().as_ref() == Some(&set.set)) {
            continue;
        }
        let restore = match cluster.read_journal(&set.set).await {
            Ok(None) => Restore::None,
            Ok(Some(_)) if set.replicas == 0 => Restore::AtZero,
            Ok(Some(_)) => Restore::Open,
            Err(error) => {
                left_out.push(format!("whether a restore of {} is open is not known: {error}", set.set));
                continue;
            }
        };
        restores.insert(set.set.clone(), restore);
    }
    Found { settings: Settings { sets, ..settings.clone() }, left_out, restores, looked }
}

fn selector(set: &SetSettings) -> Option<(Option<String>, String)> {
    Some((Some(set.matches.namespace.clone()), set.matches.label_selector.clone()?))
}

/// Namespaces whose sets may ask by annotation.
fn asked(settings: &Settings, cluster: &Kubernetes) -> Vec<String> {
    let asked = &settings.agent.namespaces;
    if asked.is_empty() { vec![cluster.namespace().to_owned()] } else { asked.clone() }
}

/// Where sets are looked for; `None` stands for everywhere.
fn namespaces(settings: &Settings, asked: &[String]) -> BTreeSet<Option<String>> {
    if asked.iter().any(|namespace| namespace == "*") {
        return [None].into();
    }
    let named = settings.sets.iter().filter(|set| set.from.is_none() && set.matches.name.is_some());
    asked.iter().cloned().chain(named.map(|set| set.matches.namespace.clone())).map(Some).collect()
}
