//! Where the set's own pods have their claims: read from the StatefulSet that the point recorded.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::manifest::SetRecord;
use crate::platform::ProbeMount;

/// By claim template. What is not known, or is no path in a container, is left out: it came with the point, and so from whoever can write
/// the repository.
pub(super) fn of_set(set: &SetRecord) -> BTreeMap<String, ProbeMount> {
    let stateful_set = set.objects.iter().find(|object| object["kind"] == "StatefulSet");
    let containers = stateful_set.and_then(|object| object["spec"]["template"]["spec"]["containers"].as_array());
    let mut mounts = BTreeMap::new();
    let in_container =
        |container: &Value| ["volumeMounts", "volumeDevices"].map(|key| container[key].as_array().cloned().unwrap_or_default());
    for mount in containers.into_iter().flatten().flat_map(in_container).flatten() {
        let text = |key: &str| mount[key].as_str().map(str::to_owned);
        let (Some(name), Some(path)) = (text("name"), text("mountPath").or_else(|| text("devicePath"))) else { continue };
        let sub_path = text("subPath").filter(|path| !path.is_empty());
        let is_plain = |path: &str| !path.split('/').any(|part| part == "..") && !path.chars().any(|c| c.is_control() || c == ':');
        let is_path = path.starts_with('/')
            && path.len() > 1
            && is_plain(&path)
            && sub_path.as_deref().is_none_or(|path| is_plain(path) && !path.starts_with('/'));
        if is_path && set.templates.contains(&name) {
            // The first container that has it counts.
            mounts.entry(name).or_insert(ProbeMount { path, sub_path });
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_where_the_first_container_has_them_and_nothing_else_is_taken_from_the_point() {
        let container = |mounts: Value| json!({ "name": "c", "image": "any", "volumeMounts": mounts });
        let pod = json!({ "containers": [
            container(json!([{ "name": "data", "mountPath": "/var/lib/db", "subPath": "pgdata" }, { "name": "tmp", "mountPath": "/tmp" }])),
            container(json!([
                { "name": "data", "mountPath": "/other" },
                { "name": "wal", "mountPath": "/wal" },
                { "name": "up", "mountPath": "/a/../etc" },
                { "name": "sub", "mountPath": "/sub", "subPath": "../.." },
            ])),
        ] });
        let templates = ["data", "wal", "up", "sub", "none"].map(str::to_owned).to_vec();
        let object = json!({ "kind": "StatefulSet", "spec": { "template": { "spec": pod } } });
        let mounts = of_set(&SetRecord { templates, objects: vec![json!({ "kind": "Service" }), object], ..SetRecord::default() });
        let mount = |path: &str, sub_path: Option<&str>| ProbeMount { path: path.into(), sub_path: sub_path.map(str::to_owned) };
        let expected = [("data", mount("/var/lib/db", Some("pgdata"))), ("wal", mount("/wal", None))];
        assert_eq!(mounts.into_iter().collect::<Vec<_>>(), expected.map(|(name, mount)| (name.to_owned(), mount)));
        assert!(of_set(&SetRecord::default()).is_empty());
    }
}
