//! What things of ours are called in a cluster: labels, annotations, objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The field manager of what is applied here, and the value of [`MANAGED_BY`].
pub(super) const MANAGER: &str = "keepset";
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// On everything that is made for a run: its id.
pub(super) const RUN: &str = "keepset.dev/run";
/// On everything that is made for a set: its name.
pub(super) const SET: &str = "keepset.dev/set";
/// On a Lease: which hold of it is the last, whatever the holder calls itself.
pub(super) const HOLD: &str = "keepset.dev/hold";
/// On a claim that is being filled: the run that does it.
pub(super) const HALF_RESTORED: &str = "keepset.dev/half-restored";
/// On a claim that was filled: the run that did it.
pub(super) const RESTORED_BY: &str = "keepset.dev/restored-by";
/// On a claim that a run made: the run. Only such a claim is ever deleted, and only while it is half restored.
pub(super) const MADE_BY: &str = "keepset.dev/made-by";

/// On a claim that was made for a drill, and on all that its application is: what the set is called there. It goes when the drill is over.
pub(super) const DRILL: &str = "keepset.dev/drill";

/// Whether an object was made for a drill.
pub(super) fn is_drills(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().is_some_and(|labels| labels.contains_key(DRILL))
}

/// Whether a label says which application, release or apply an object belongs to: a tool that finds it on what is not among its files takes
/// that away.
pub(super) fn is_tracking(label: &str) -> bool {
    const DOMAINS: [&str; 6] = [
        "applyset.kubernetes.io",
        "argocd.argoproj.io",
        "helm.toolkit.fluxcd.io",
        "kapp.k14s.io",
        "kustomize.toolkit.fluxcd.io",
        "objectset.rio.cattle.io",
    ];
    let of = label.split_once('/').map_or("", |(domain, _)| domain);
    DOMAINS.contains(&of) || [MANAGED_BY, "app.kubernetes.io/instance"].contains(&label)
}

/// On the pod of a Job: the settings file that it runs by.
pub(super) const SETTINGS: &str = "keepset.dev/settings";

/// What the name of a Job begins with. The whole, with what the API server adds, must do as a label's value.
pub(super) fn job(verb: &str, set: &str) -> String {
    let room = 63 - "keepset-restore-".len() - "-01234".len();
    // Names of sets are ASCII; a dot or dash at the end would be followed by another.
    let set = set[..set.len().min(room)].trim_end_matches(['.', '-']);
    format!("keepset-{verb}-{set}-")
}

/// What a set is called in a drill. The whole must do as a label's value.
pub(super) fn drill(set: &str) -> String {
    let room = 63 - "-drill".len();
    format!("{}-drill", set[..set.len().min(room)].trim_end_matches(['.', '-']))
}

/// The NetworkPolicy of a drill's pods.
pub(super) fn fence(set: &str) -> String {
    format!("keepset-drill-{set}")
}

/// The ConfigMap that owns all that a run makes.
pub(super) fn run(run: &str) -> String {
    format!("keepset-run-{run}")
}

/// The ConfigMap that holds the journal of the set's restore.
pub(super) fn journal(set: &str) -> String {
    format!("keepset-restore-{set}")
}

/// The Lease of whoever works on the set.
pub(super) fn lease(set: &str) -> String {
    format!("keepset-set-{set}")
}

/// The Lease of the agent that works.
pub(super) const LEADER: &str = "keepset-agent";

/// Short enough for a pod's name, and told apart by the run's own end.
pub(super) fn mover(run: &str, ordinal: u32) -> String {
    format!("keepset-{run}-{ordinal}")
}

/// A CSI snapshot of a claim, and the clone that is made of it.
pub(super) fn cut(run: &str, claim: &str) -> String {
    let name = format!("keepset-{run}-{claim}");
    // Names of objects may have 253 characters; a claim's own ends in what tells it apart.
    if name.len() <= 253 { name } else { format!("keepset-{run}-{}", &claim[claim.len() - 200..]) }
}

pub(super) fn labels(run: &str, set: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(MANAGED_BY, MANAGER), (RUN, run), (SET, set)].map(|(name, value)| (name.to_owned(), value.to_owned())))
}

/// Selects what runs of the set made.
pub(super) fn of_set(set: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{SET}={set}")
}

/// Where a mover sees the root of a claim.
pub(super) fn root(claim: &str) -> String {
    format!("/volumes/{claim}")
}
