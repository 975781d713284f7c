//! The cluster, a set in it, and what a mover's pod finds there.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::doctor::Finding;
use crate::model::set::SetName;
use crate::platform::kubernetes::{Examined, Inside, Right};

const ROLE: &str = include_str!("../../deploy/rbac.yaml");
const CLUSTER_ROLE: &str = include_str!("../../deploy/rbac-cluster.yaml");

/// Rights without which something works less well, and what that is; all others are needed.
const DISPENSABLE: [(&str, &str); 8] = [
    ("pods/exec", "hooks cannot be run"),
    ("services", "the set's Service is not recorded"),
    ("horizontalpodautoscalers", "an autoscaler that would fight a restore is not noticed"),
    ("events", "runs leave no Events at the set"),
    ("volumesnapshotclasses", "volumes are read as they are, while they may be written to"),
    ("volumegroupsnapshotclasses", "volumes are not held still together"),
    ("persistentvolumes", "volumes that were not made for their claims are not snapshotted"),
    ("storageclasses", "classes that would keep what each backup makes are not warned of"),
];

/// What keepset may have to do, read from the very files that users apply.
pub struct Rights;

#[derive(Deserialize)]
struct Object {
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

impl Rights {
    /// Those in a set's namespace, then those in the whole cluster.
    pub fn all() -> Vec<Right> {
        let rules = |text: &str, kind: &str| -> Vec<Rule> {
            let objects = text.split("\n---\n").filter_map(|object| serde_saphyr::from_str::<Object>(object).ok());
            objects.filter(|object| object.kind == kind).flat_map(|object| object.rules).collect()
        };
        let mut rights = Vec::new();
        for (rules, whole_cluster) in [(rules(ROLE, "Role"), false), (rules(CLUSTER_ROLE, "ClusterRole"), true)] {
            for rule in rules {
                for (group, resource) in
                    rule.api_groups.iter().flat_map(|group| rule.resources.iter().map(move |resource| (group, resource)))
                {
                    rights.extend(rule.verbs.iter().map(|verb| Right {
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        whole_cluster,
                    }));
                }
            }
        }
        rights
    }
}

/// Where a set is, and what is said of movers there.
pub struct Place<'a> {
    pub set: &'a SetName,
    /// The Secret that movers take their environment from, and the variables that this process has and a Secret would need.
    pub secret: &'a str,
    pub variables: Vec<String>,
    pub image: &'a str,
}

/// What the API server said.
pub fn of_cluster(place: &Place<'_>, examined: &Examined) -> Vec<Finding> {
    let namespace = &place.set.namespace;
    let mut findings = vec![Finding::ok("api", format!("the API server answers: {}", examined.version))];
    findings.extend(rights(namespace, examined));
    findings.push(if examined.serves_snapshots {
        Finding::ok("snapshots", "the cluster serves CSI snapshots")
    } else {
        let fix =
            "kubectl kustomize https://github.com/kubernetes-csi/external-snapshotter/client/config/crd | kubectl create --filename -";
        Finding::warning(
            "snapshots",
            "the cluster serves no CSI snapshots: volumes are read as they are, while they may be written to",
            fix,
        )
    });
    match &examined.claims {
        None => {
            let detail = format!("there is no StatefulSet {}", place.set);
            let fix = format!("kubectl --namespace {namespace} get statefulsets");
            findings.push(Finding::warning("set", format!("{detail}: it can be restored, and not be backed up"), fix));
        }
        Some(claims) => {
            findings.push(Finding::ok("set", format!("{} claims have volumes", claims.len())));
            if examined.serves_snapshots {
                findings.extend(classes(examined, claims));
            }
        }
    }
    findings.into_iter().map(|finding| finding.of(place.set.to_string())).collect()
}

fn rights(namespace: &str, examined: &Examined) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of_snapshots = |right: &Right| right.group.ends_with("snapshot.storage.k8s.io");
    let asked = |right: &&Right| examined.serves_snapshots || !of_snapshots(right);
    let dispensable = |right: &Right| DISPENSABLE.iter().find(|(resource, _)| *resource == right.resource).map(|(_, cost)| *cost);
    let names = |rights: &[&Right]| rights.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (lacking, wide): (Vec<&Right>, Vec<&Right>) = examined.lacking.iter().filter(asked).partition(|right| !right.whole_cluster);
    let (lesser, needed): (Vec<&Right>, Vec<&Right>) = lacking.into_iter().partition(|right| dispensable(right).is_some());
    let role = format!("kubectl --namespace {namespace} apply --filename - <<'EOF'\n{ROLE}EOF");
    let costs = |rights: &[&Right]| -> String {
        let costs: BTreeSet<&str> = rights.iter().filter_map(|right| dispensable(right)).collect();
        costs.into_iter().collect::<Vec<_>>().join("; ")
    };
    if !needed.is_empty() {
        let detail = format!("this account may not, in {namespace}: {}", names(&needed));
        findings.push(Finding::failed("rights", detail, Some(role.clone())));
    }
    if !lesser.is_empty() {
        let detail = format!("{}: this account may not, in {namespace}: {}", costs(&lesser), names(&lesser));
        findings.push(Finding::warning("rights", detail, role));
    }
    if !wide.is_empty() {
        let fix = format!(
            "kubectl apply --filename - <<'EOF'\n{CLUSTER_ROLE}EOF\nkubectl create clusterrolebinding keepset-{namespace} \
             --clusterrole keepset-snapshot-classes --serviceaccount {namespace}:keepset"
        );
        findings.push(Finding::warning("rights", format!("{}: this account may not: {}", costs(&wide), names(&wide)), fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("rights", "all of the Role's"));
    }
    findings
}

/// Drivers of the set's claims that have no class of CSI snapshots.
fn classes(examined: &Examined, claims: &[(String, Option<String>)]) -> Vec<Finding> {
    let Some(classes) = &examined.classes else { return Vec::new() };
    let without = |driver: &Option<String>| driver.as_ref().is_none_or(|driver| !classes.contains(driver));
    let lacking: BTreeSet<&Option<String>> = claims.iter().map(|(_, driver)| driver).filter(|driver| without(driver)).collect();
    if lacking.is_empty() {
        return vec![Finding::ok("snapshot-class", "there is a VolumeSnapshotClass for the driver of each claim")];
    }
    let cost = "volumes are read as they are, while they may be written to";
    let finding = |driver: &Option<String>| match driver {
        Some(driver) => {
            let class = format!(
                "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshotClass\nmetadata: {{name: keepset-{driver}}}\ndriver: {driver}\n\
                 deletionPolicy: Delete\n"
            );
            let fix = format!("kubectl apply --filename - <<'EOF'\n{class}EOF");
            Finding::warning("snapshot-class", format!("there is no VolumeSnapshotClass for the driver {driver}: {cost}"), fix)
        }
        None => {
            let fix = "move the claims to a class whose driver can snapshot, or promise that nothing writes: --stopped";
            Finding::warning("snapshot-class", format!("some claims' volumes are of no CSI driver, or nothing says of which: {cost}"), fix)
        }
    };
    lacking.into_iter().map(finding).collect()
}

/// What became of a mover's pod, and what it found from where it was.
pub fn inside(place: &Place<'_>, inside: &Inside) -> Vec<Finding> {
    let SetName { namespace, .. } = place.set;
    let of = format!("a mover's pod in {namespace}");
    let failed = |detail: String, fix: Option<String>| vec![Finding::failed("pod", detail, fix).of(of.clone())];
    match inside {
        Inside::NotMade(reason) => failed(format!("it is refused: {reason}"), refusal(namespace, reason)),
        Inside::NotBegun(reason) => failed(format!("it does not begin: {reason}"), hindrance(place, reason)),
        Inside::Ended { findings, how } => match findings.as_deref().map(serde_json::from_str::<Told>) {
            Some(Ok(told)) => {
                let began = Finding::ok("pod", "it begins: image, Secret, quota and Pod Security are right");
                std::iter::once(began).chain(told.findings).map(|finding| finding.of(of.clone())).collect()
            }
            _ => {
                let fix = format!("name an image of this very version, {}, instead of {}", env!("CARGO_PKG_VERSION"), place.image);
                failed(format!("it says nothing that is understood ({how})"), Some(fix))
            }
        },
    }
}

#[derive(Deserialize)]
struct Told {
    findings: Vec<Finding>,
}

/// Why a pod is refused at once, and what lifts that.
fn refusal(namespace: &str, reason: &str) -> Option<String> {
    if let Some(quota) = reason.split_once("exceeded quota: ").map(|(_, rest)| rest) {
        let (name, numbers) = quota.split_once(", requested: ")?;
        let amounts = |text: &str| -> Option<Vec<(String, u64)>> {
            let pair = |pair: &str| pair.split_once('=').and_then(|(name, value)| Some((name.trim().to_owned(), value.parse().ok()?)));
            text.split(',').map(pair).collect()
        };
        let (requested, rest) = numbers.split_once(", used: ")?;
        let used = amounts(rest.split_once(", limited: ")?.0);
        return Some(match (amounts(requested), used) {
            // Room for four movers at a time, which is what keepset starts where nobody says otherwise.
            (Some(requested), Some(used)) => {
                let hard: Vec<String> = requested
                    .iter()
                    .map(|(name, wants)| {
                        let has = used.iter().find(|(used, _)| used == name).map_or(0, |(_, has)| *has);
                        format!(r#""{name}":"{}""#, has + 4 * wants)
                    })
                    .collect();
                let patch = format!(r#"{{"spec":{{"hard":{{{}}}}}}}"#, hard.join(","));
                format!("kubectl --namespace {namespace} patch resourcequota {name} --type merge --patch '{patch}'")
            }
            _ => format!("kubectl --namespace {namespace} edit resourcequota {name}"),
        });
    }
    if reason.contains("violates PodSecurity") {
        // Movers pass `restricted`; as root they pass `baseline`.
        return Some(format!("kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=baseline"));
    }
    reason.contains("forbidden: User").then(|| format!("kubectl --namespace {namespace} apply --filename - <<'EOF'\n{ROLE}EOF"))
}

/// Why a pod that was made does not begin.
fn hindrance(place: &Place<'_>, reason: &str) -> Option<String> {
    let namespace = &place.set.namespace;
    if reason.contains("secret") && reason.contains("not found") {
        let mut names: Vec<&str> = place.variables.iter().map(String::as_str).collect();
        if !names.contains(&"KEEPSET_PASSWORD") {
            names.insert(0, "KEEPSET_PASSWORD");
        }
        let literals: Vec<String> = names.iter().map(|name| format!(r#"--from-literal={name}="${name}""#)).collect();
        return Some(format!("kubectl --namespace {namespace} create secret generic {} {}", place.secret, literals.join(" ")));
    }
    if reason.contains("Image") {
        return Some(format!(
            "name an image that the nodes can pull, instead of {}: --image, KEEPSET_IMAGE or kubernetes.image",
            place.image
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn place(set: &SetName) -> Place<'_> {
        Place { set, secret: "keepset", variables: vec!["AWS_REGION".into()], image: "keepset:1" }
    }

    fn examined() -> Examined {
        Examined {
            version: "v1".into(),
            lacking: Vec::new(),
            serves_snapshots: true,
            classes: Some(["csi.a".to_owned()].into()),
            claims: Some(vec![("data-web-0".into(), Some("csi.a".into()))]),
        }
    }

    fn told(examined: &Examined) -> Vec<Finding> {
        let set = "shop/web".parse().unwrap();
        let findings = of_cluster(&place(&set), examined);
        findings.into_iter().filter(|finding| finding.state != State::Ok).collect()
    }

    #[test]
    fn the_rights_that_are_asked_for_are_those_of_the_files_that_users_apply() {
        let rights = Rights::all();
        let has = |text: &str| rights.iter().any(|right| right.to_string() == text);
        assert!(
            has("patch statefulsets/scale.apps")
                && has("delete persistentvolumeclaims")
                && has("list volumesnapshotclasses.snapshot.storage.k8s.io")
        );
        let wide = rights.iter().filter(|right| right.whole_cluster).count();
        assert!(rights.len() > 30 && wide == 4, "{}", rights.len());
        for (resource, _) in DISPENSABLE {
            assert!(rights.iter().any(|right| right.resource == resource), "{resource} is in no role");
        }
    }

    #[test]
    fn a_cluster_that_has_everything_is_found_well() {
        assert_eq!(told(&examined()), []);
    }

    #[test]
    fn what_is_lacking_is_told_by_its_check_and_as_bad_as_it_is() {
        let right = |resource: &str| Rights::all().into_iter().find(|right| right.resource == resource).unwrap();
        let one = |change: &dyn Fn(&mut Examined)| {
            let mut examined = examined();
            change(&mut examined);
            let mut findings = told(&examined);
            assert_eq!(findings.len(), 1, "{findings:?}");
            let finding = findings.remove(0);
            (finding.check, finding.state, finding.fix.unwrap())
        };
        let (check, state, fix) = one(&|examined| examined.lacking.push(right("leases")));
        assert!((check.as_str(), state) == ("rights", State::Failed) && fix.contains("kind: Role\n") && fix.ends_with("\nEOF"), "{fix}");
        assert_eq!(one(&|examined| examined.lacking.push(right("pods/exec"))).1, State::Warning);
        let (_, state, fix) = one(&|examined| examined.lacking.push(right("volumesnapshotclasses")));
        assert!(state == State::Warning && fix.ends_with("--serviceaccount shop:keepset"), "{fix}");
        let (check, _, fix) = one(&|examined| examined.classes = Some(BTreeSet::new()));
        assert!(check == "snapshot-class" && fix.contains("\ndriver: csi.a\n"), "{fix}");
        assert_eq!(one(&|examined| examined.claims = None).0, "set");
        assert_eq!(one(&|examined| examined.serves_snapshots = false).0, "snapshots");
        // Nobody needs a right to what is not there.
        assert_eq!(
            one(&|examined| {
                examined.serves_snapshots = false;
                examined.lacking.push(right("volumesnapshots"));
            })
            .0,
            "snapshots"
        );
    }

    #[test]
    fn each_way_to_refuse_a_pod_has_its_own_fix() {
        let set: SetName = "shop/web".parse().unwrap();
        let fix = |inside_: Inside| inside(&place(&set), &inside_)[0].fix.clone().unwrap_or_default();
        let quota = "pods \"x\" is forbidden: exceeded quota: tight, requested: pods=1, used: pods=2, limited: pods=2";
        let expected = r#"kubectl --namespace shop patch resourcequota tight --type merge --patch '{"spec":{"hard":{"pods":"6"}}}'"#;
        assert_eq!(fix(Inside::NotMade(quota.into())), expected);
        let memory = quota.replace("pods=", "memory=1Gi");
        assert_eq!(fix(Inside::NotMade(memory)), "kubectl --namespace shop edit resourcequota tight");
        let security = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"";
        assert!(fix(Inside::NotMade(security.into())).ends_with("namespace shop pod-security.kubernetes.io/enforce=baseline"));
        let secret = "its container cannot be made: CreateContainerConfigError: secret \"keepset\" not found";
        assert_eq!(
            fix(Inside::NotBegun(secret.into())),
            r#"kubectl --namespace shop create secret generic keepset --from-literal=KEEPSET_PASSWORD="$KEEPSET_PASSWORD" --from-literal=AWS_REGION="$AWS_REGION""#
        );
        assert!(fix(Inside::NotBegun("ErrImagePull".into())).contains("instead of keepset:1"));
        let ended = |findings: Option<&str>| Inside::Ended { findings: findings.map(str::to_owned), how: "exit code 1".into() };
        let inner = r#"{"findings":[{"check":"repository","of":null,"state":"failed","detail":"wrong password","fix":null}]}"#;
        let told = inside(&place(&set), &ended(Some(inner)));
        assert_eq!(
            told.iter().map(|finding| (finding.check.as_str(), finding.state)).collect::<Vec<_>>(),
            [("pod", State::Ok), ("repository", State::Failed)]
        );
        assert_eq!(told[1].of.as_deref(), Some("a mover's pod in shop"));
        assert_eq!(inside(&place(&set), &ended(None))[0].state, State::Failed);
    }
}
