//! Which command is run in which pod, in which order: a pure function of the settings, the pods and the order of saving.

use serde::Serialize;

use crate::hooks::{BadHook, annotations};
use crate::model::hook::{Hook, Hooks, OnError};
use crate::model::set::Ordinal;
use crate::model::set_state::{PodState, SetState};
use crate::platform::PodPlace;

/// Commands around one cut, each list in the order in which they are run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookPlan {
    /// Before the cut.
    pub pre: Vec<PlannedHook>,
    /// After it; also after a backup that failed, in every pod in which a command of `pre` was begun.
    pub post: Vec<PlannedHook>,
}

/// One command in one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedHook {
    pub ordinal: Ordinal,
    pub pod: String,
    pub container: String,
    pub command: Vec<String>,
    /// How long it may take.
    pub seconds: u64,
    pub on_error: OnError,
}

impl PlannedHook {
    /// The command as a shell would take it.
    pub fn words(&self) -> String {
        shlex::try_join(self.command.iter().map(String::as_str)).unwrap_or_else(|_| self.command.join(" "))
    }

    pub(super) fn place(&self) -> PodPlace {
        PodPlace { pod: self.pod.clone(), container: self.container.clone() }
    }
}

impl HookPlan {
    pub fn is_empty(&self) -> bool {
        self.pre.is_empty() && self.post.is_empty()
    }

    /// The plan for people, a line each. `while_read` says that the application is held until all is read.
    pub fn lines(&self, while_read: bool) -> Vec<String> {
        let after = if while_read { "once everything is read, run:" } else { "as soon as the volumes are held still, run:" };
        let mut lines = Vec::new();
        for (when, hooks) in [("first run, in this order:", &self.pre), (after, &self.post)] {
            if !hooks.is_empty() {
                lines.push(when.to_owned());
            }
            let line = |hook: &PlannedHook| {
                let PlannedHook { pod, container, seconds, on_error, .. } = hook;
                format!("  in {pod} (container {container}): {} (within {seconds} s, on error {on_error})", hook.words())
            };
            lines.extend(hooks.iter().map(line));
        }
        lines
    }
}

/// The hooks of the set whose `ordinals` are saved in this order, and what a reader of the plan should know. What `settings` say holds for
/// all pods, also where they say that there is none; without them each pod's own annotations do.
pub fn plan(settings: Option<&Hooks>, state: &SetState, ordinals: &[Ordinal]) -> Result<(HookPlan, Vec<String>), BadHook> {
    let (mut plan, mut notes) = (HookPlan::default(), Vec::new());
    let Some(pods) = &state.pods else {
        return match settings {
            Some(hooks) if *hooks != Hooks::default() => {
                Err(BadHook::NoPods { set: format!("{}/{}", state.set.namespace, state.set.name) })
            }
            _ => Ok((plan, notes)),
        };
    };
    let saved: Vec<&PodState> = ordinals.iter().filter_map(|ordinal| pods.iter().find(|pod| pod.ordinal == *ordinal)).collect();
    let (mut asleep, mut passed_over) = (Vec::new(), Vec::new());
    for pod in &saved {
        let hooks = match settings {
            Some(hooks) => hooks.clone(),
            None => annotations::hooks(pod)?,
        };
        if settings.is_some() && annotations::hooks(pod).as_ref() != Ok(&Hooks::default()) {
            passed_over.push(pod.name.as_str());
        }
        let (pre, post) = (planned(&hooks.pre, pod)?, planned(&hooks.post, pod)?);
        if pod.running {
            plan.pre.extend(pre);
            plan.post.extend(post);
        } else if !pre.is_empty() || !post.is_empty() {
            asleep.push(pod.name.as_str());
        }
    }
    if !passed_over.is_empty() {
        notes.push(format!("the settings' hooks stand for the annotations of {}", passed_over.join(", ")));
    }
    if !asleep.is_empty() {
        notes.push(format!("hooks are not run where no pod runs: {}", asleep.join(", ")));
    }
    let dumps: Vec<&str> = saved.iter().filter(|pod| annotations::wants_dump(pod)).map(|pod| pod.name.as_str()).collect();
    if !dumps.is_empty() {
        notes.push(format!("k8up.io/backupcommand of {} is not run: volumes are saved, not the output of commands", dumps.join(", ")));
    }
    Ok((plan, notes))
}

fn planned(hooks: &[Hook], pod: &PodState) -> Result<Vec<PlannedHook>, BadHook> {
    let meant = hooks.iter().filter(|hook| hook.ordinals.is_empty() || hook.ordinals.contains(&pod.ordinal.0));
    let planned = meant.map(|hook| {
        let container = match &hook.container {
            Some(name) if !pod.containers.contains(name) => {
                let has = pod.containers.join(", ");
                return Err(BadHook::NoContainer { pod: pod.name.clone(), container: name.clone(), has });
            }
            Some(name) => name.clone(),
            None => pod.containers.first().cloned().unwrap_or_default(),
        };
        Ok(PlannedHook {
            ordinal: pod.ordinal,
            pod: pod.name.clone(),
            container,
            command: hook.command.clone(),
            seconds: hook.seconds,
            on_error: hook.on_error,
        })
    });
    planned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ordinal: u32, annotations: &[(&str, &str)]) -> PodState {
        PodState {
            ordinal: Ordinal(ordinal),
            name: format!("web-{ordinal}"),
            running: true,
            containers: vec!["db".into(), "side".into()],
            annotations: annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn state(pods: Vec<PodState>) -> SetState {
        SetState { pods: Some(pods), ..SetState::default() }
    }

    fn hook(command: &str, container: Option<&str>, ordinals: &[u32]) -> Hook {
        Hook {
            ordinals: ordinals.to_vec(),
            container: container.map(str::to_owned),
            command: vec![command.into()],
            seconds: 30,
            on_error: OnError::Fail,
        }
    }

    fn order(hooks: &[PlannedHook]) -> Vec<String> {
        hooks.iter().map(|hook| format!("{}/{} {}", hook.pod, hook.container, hook.words())).collect()
    }

    const BOTH: &[(&str, &str)] = &[("pre.hook.backup.velero.io/command", "/hold"), ("post.hook.backup.velero.io/command", "/go")];

    #[test]
    fn hooks_are_run_pod_by_pod_in_the_order_of_saving() {
        let hooks = Hooks { pre: vec![hook("one", None, &[]), hook("two", Some("side"), &[10])], post: vec![hook("three", None, &[])] };
        let state = state(vec![pod(9, &[]), pod(10, &[]), pod(11, &[])]);
        let (plan, notes) = plan(Some(&hooks), &state, &[Ordinal(10), Ordinal(9)]).unwrap();
        assert_eq!(order(&plan.pre), ["web-10/db one", "web-10/side two", "web-9/db one"]);
        assert_eq!(order(&plan.post), ["web-10/db three", "web-9/db three"]);
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn annotations_count_where_the_settings_say_nothing_and_even_no_hooks_are_something() {
        let state = state(vec![pod(0, BOTH), pod(1, &[("k8up.io/backupcommand", "pg_dump")])]);
        let all = [Ordinal(0), Ordinal(1)];
        let (own, notes) = plan(None, &state, &all).unwrap();
        assert_eq!((order(&own.pre), order(&own.post)), (vec!["web-0/db /hold".into()], vec!["web-0/db /go".into()]));
        assert!(notes.len() == 1 && notes[0].contains("k8up.io/backupcommand of web-1 is not run"), "{notes:?}");
        let (none, notes) = plan(Some(&Hooks::default()), &state, &all).unwrap();
        assert!(none.is_empty());
        assert!(notes[0].contains("annotations of web-0"), "{notes:?}");
    }

    #[test]
    fn a_pod_that_does_not_run_is_named_and_left_alone() {
        let down = PodState { running: false, ..pod(1, BOTH) };
        let (plan, notes) = plan(None, &state(vec![pod(0, BOTH), down]), &[Ordinal(0), Ordinal(1)]).unwrap();
        assert_eq!(order(&plan.pre), ["web-0/db /hold"]);
        assert_eq!(notes, ["hooks are not run where no pod runs: web-1"]);
    }

    #[test]
    fn hooks_without_a_pod_or_a_container_to_run_in_are_refused() {
        let hooks = Hooks { pre: vec![hook("one", Some("web"), &[])], post: Vec::new() };
        let error = plan(Some(&hooks), &state(vec![pod(0, &[])]), &[Ordinal(0)]).unwrap_err();
        assert_eq!(error.to_string(), "a hook names container web, and pod web-0 has only db, side");
        assert!(matches!(plan(Some(&hooks), &SetState::default(), &[]), Err(BadHook::NoPods { .. })));
        assert!(plan(None, &SetState::default(), &[]).unwrap().0.is_empty());
    }

    #[test]
    fn the_plan_reads_well() {
        let (plan, _) = plan(None, &state(vec![pod(0, BOTH)]), &[Ordinal(0)]).unwrap();
        assert_eq!(
            plan.lines(false),
            [
                "first run, in this order:",
                "  in web-0 (container db): /hold (within 30 s, on error fail)",
                "as soon as the volumes are held still, run:",
                "  in web-0 (container db): /go (within 30 s, on error fail)",
            ]
        );
        assert!(plan.lines(true)[2].contains("everything is read"));
    }
}
