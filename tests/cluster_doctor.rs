//! What is planted wrong in a real cluster is found by the doctor, and its fix, taken as it is, makes it right: `make e2e`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::cluster::{PASSWORD, Plain, Space, kubectl, ran};

struct Told {
    findings: Vec<Value>,
}

impl Told {
    /// Name, state and fix of all that is not well.
    fn bad(&self) -> Vec<(&str, &str, &str)> {
        let bad = self.findings.iter().filter(|finding| finding["state"] != "ok");
        bad.map(|finding| {
            (finding["check"].as_str().unwrap(), finding["state"].as_str().unwrap(), finding["fix"].as_str().unwrap_or_default())
        })
        .collect()
    }
}

fn doctor(space: &Space, more: &[&str], code: i32) -> Told {
    let set = space.set("web");
    let ran = ran(space.command(["doctor", &set, "--json"].into_iter().chain(more.iter().copied())).spawn().unwrap());
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    Told { findings: answer["findings"].as_array().unwrap().clone() }
}

/// As the administrator's shell would, where the variables of the store and the password are set.
fn apply(space: &Space, fix: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", fix]).envs(space.secrets()).env("KEEPSET_PASSWORD", PASSWORD);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{fix}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// One thing is wrong, by this check; its fix makes all well again.
fn heals(space: &Space, more: &[&str], check: &str, state: &str) {
    let told = doctor(space, more, i32::from(state == "failed"));
    let bad = told.bad();
    assert_eq!(bad.iter().map(|(check, state, _)| (*check, *state)).collect::<Vec<_>>(), [(check, state)], "{:?}", told.findings);
    apply(space, bad[0].2);
    assert_eq!(doctor(space, more, 0).bad(), [], "after: {}", bad[0].2);
}

#[test]
fn everything_that_is_planted_wrong_is_found_and_its_own_fix_makes_it_right() {
    let space = Space::new("doctor");
    space.plain(&Plain { replicas: 1, ..Plain::default() });
    let well = doctor(&space, &[], 0);
    assert_eq!(well.bad(), []);
    let of_pod: Vec<&str> = well
        .findings
        .iter()
        .filter(|finding| finding["of"].as_str().is_some_and(|of| of.starts_with("a mover's pod")))
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    let expected =
        ["pod", "settings", "password", "store", "store-create-only", "store-list", "store-delete", "store-clock", "repository", "locks"];
    assert_eq!(of_pod, expected);

    // A rule of the Role is gone.
    let patch = r#"[{"op":"remove","path":"/rules/0"}]"#;
    space.admin(["patch", "role", "keepset", "--type=json", "--patch", patch]);
    let told = doctor(&space, &[], 1);
    let (check, state, fix) = told.bad()[0];
    assert_eq!((check, state), ("rights", "failed"));
    apply(&space, fix);
    assert_eq!(doctor(&space, &[], 0).bad(), []);

    space.admin(["delete", "secret", "keepset"]);
    heals(&space, &[], "pod", "failed");

    space.admin(["create", "quota", "tight", "--hard=pods=1"]);
    heals(&space, &[], "pod", "failed");

    // Root is more than `restricted` allows.
    heals(&space, &["--mover-root"], "pod", "failed");

    // Movers that know another password than the one that the repository has.
    space.admin(["delete", "secret", "keepset"]);
    apply(&space, &format!("kubectl --namespace {} create secret generic keepset --from-literal=KEEPSET_PASSWORD=another", space.name));
    let told = doctor(&space, &[], 1);
    assert!(told.bad().iter().any(|(check, state, _)| *state == "failed" && *check != "pod"), "{:?}", told.findings);
    space.assert_tidy();
}

#[test]
fn a_driver_without_a_class_of_snapshots_is_told_with_the_class_that_it_lacks() {
    let space = Space::new("doctor-class");
    space.plain(&Plain { replicas: 1, class: "keepset-plain", ..Plain::default() });
    let told = doctor(&space, &[], 0);
    let bad = told.bad();
    assert_eq!(bad.iter().map(|(check, state, _)| (*check, *state)).collect::<Vec<_>>(), [("snapshot-class", "warning")]);
    apply(&space, bad[0].2);
    let after = doctor(&space, &[], 0);
    let class = bad[0].2.split_once("name: ").unwrap().1.split_once('}').unwrap().0;
    kubectl(["delete", "volumesnapshotclass", class]);
    assert_eq!(after.bad(), []);
}
