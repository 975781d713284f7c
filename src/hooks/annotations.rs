//! What pods say in the words of other backup tools.

use std::collections::BTreeMap;

use crate::hooks::BadHook;
use crate::model::hook::{Hook, Hooks, OnError};
use crate::model::set_state::PodState;

/// What Velero takes where nothing is said.
const SECONDS: u64 = 30;

/// A command of K8up's whose output is a file of the backup, which is not what a hook is.
const DUMP: &str = "k8up.io/backupcommand";

/// The hooks that a pod's annotations ask for, as Velero understands them.
pub(super) fn hooks(pod: &PodState) -> Result<Hooks, BadHook> {
    Ok(Hooks { pre: one(pod, "pre")?.into_iter().collect(), post: one(pod, "post")?.into_iter().collect() })
}

/// The pod wants a command's output backed up.
pub(super) fn wants_dump(pod: &PodState) -> bool {
    pod.annotations.contains_key(DUMP)
}

fn one(pod: &PodState, phase: &str) -> Result<Option<Hook>, BadHook> {
    let prefix = format!("{phase}.hook.backup.velero.io/");
    let said: BTreeMap<&str, &str> =
        pod.annotations.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value.trim()))).collect();
    let bad = |key: &str, reason: String| Err(BadHook::Annotation { pod: pod.name.clone(), annotation: format!("{prefix}{key}"), reason });
    let Some(command) = said.get("command") else {
        return match said.keys().next() {
            Some(key) => bad(key, format!("there is no {prefix}command beside it")),
            None => Ok(None),
        };
    };
    let command = match program(command) {
        Ok(command) => command,
        Err(reason) => return bad("command", reason),
    };
    let seconds = match said.get("timeout").map(|text| (text, humantime::parse_duration(text))) {
        None => SECONDS,
        Some((_, Ok(span))) if !span.is_zero() => span.as_secs() + u64::from(span.subsec_nanos() > 0),
        Some((text, _)) => return bad("timeout", format!("`{text}` is not a span of time such as 30s or 2m")),
    };
    let on_error = match said.get("on-error") {
        None => OnError::Fail,
        Some(text) if text.eq_ignore_ascii_case("fail") => OnError::Fail,
        Some(text) if text.eq_ignore_ascii_case("continue") => OnError::Continue,
        Some(text) => return bad("on-error", format!("`{text}` is neither Fail nor Continue")),
    };
    let container = match said.get("container") {
        Some(&"") => return bad("container", "it is empty".into()),
        container => container.map(|name| (*name).to_owned()),
    };
    Ok(Some(Hook { ordinals: Vec::new(), container, command, seconds, on_error }))
}

/// A JSON array of program and arguments, or one program: no shell takes it apart.
fn program(text: &str) -> Result<Vec<String>, String> {
    let command = if text.starts_with('[') {
        serde_json::from_str::<Vec<String>>(text).map_err(|error| format!("it is no JSON array of texts: {error}"))?
    } else if text.contains(char::is_whitespace) {
        return Err("no shell takes it apart: write program and arguments as a JSON array".into());
    } else {
        vec![text.to_owned()]
    };
    if command.first().is_none_or(String::is_empty) { Err("it names no program".into()) } else { Ok(command) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::Ordinal;

    fn pod(annotations: &[(&str, &str)]) -> PodState {
        PodState {
            ordinal: Ordinal(0),
            name: "web-0".into(),
            running: true,
            containers: vec!["db".into()],
            annotations: annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn velero_annotations_are_understood_as_velero_does() {
        let hooks = hooks(&pod(&[
            ("pre.hook.backup.velero.io/command", r#"["/sbin/fsfreeze", "--freeze", "/data"]"#),
            ("pre.hook.backup.velero.io/container", "fsfreeze"),
            ("pre.hook.backup.velero.io/timeout", "1m30s"),
            ("pre.hook.backup.velero.io/on-error", "Continue"),
            ("post.hook.backup.velero.io/command", "/thaw"),
            ("team", "a"),
        ]))
        .unwrap();
        let pre = Hook {
            ordinals: Vec::new(),
            container: Some("fsfreeze".into()),
            command: ["/sbin/fsfreeze", "--freeze", "/data"].map(String::from).into(),
            seconds: 90,
            on_error: OnError::Continue,
        };
        let post = Hook { ordinals: Vec::new(), container: None, command: vec!["/thaw".into()], seconds: 30, on_error: OnError::Fail };
        assert_eq!(hooks, Hooks { pre: vec![pre], post: vec![post] });
        assert_eq!(super::hooks(&pod(&[])).unwrap(), Hooks::default());
    }

    #[test]
    fn annotations_that_nobody_can_follow_are_named_with_the_reason() {
        let command = ("pre.hook.backup.velero.io/command", "/sync");
        for (annotations, expected) in [
            (vec![("pre.hook.backup.velero.io/command", "fsfreeze --freeze /data")], "command of pod web-0: no shell takes it apart"),
            (vec![("pre.hook.backup.velero.io/command", r#"["a", 1]"#)], "command of pod web-0: it is no JSON array of texts"),
            (vec![("post.hook.backup.velero.io/command", "[]")], "command of pod web-0: it names no program"),
            (vec![("post.hook.backup.velero.io/command", " ")], "command of pod web-0: it names no program"),
            (vec![("pre.hook.backup.velero.io/timeout", "3s")], "timeout of pod web-0: there is no pre.hook.backup.velero.io/command"),
            (vec![command, ("pre.hook.backup.velero.io/timeout", "soon")], "timeout of pod web-0: `soon` is not a span"),
            (vec![command, ("pre.hook.backup.velero.io/timeout", "0s")], "timeout of pod web-0: `0s` is not a span"),
            (vec![command, ("pre.hook.backup.velero.io/on-error", "Ignore")], "on-error of pod web-0: `Ignore` is neither"),
            (vec![command, ("pre.hook.backup.velero.io/container", "")], "container of pod web-0: it is empty"),
        ] {
            let error = hooks(&pod(&annotations)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.hint().contains("settings"));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_annotation_makes_the_parser_panic(command in ".{0,24}", timeout in ".{0,8}") {
            let _ = hooks(&pod(&[("pre.hook.backup.velero.io/command", &command), ("pre.hook.backup.velero.io/timeout", &timeout)]));
        }
    }
}
