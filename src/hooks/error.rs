//! What can be wrong with hooks, and what can go wrong with them.

use crate::hooks::plan::PlannedHook;
use crate::platform::PlatformError;

/// Hooks that cannot be run as they are written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHook {
    #[error("hooks are set for set {set}, which does not run in pods")]
    NoPods { set: String },
    #[error("annotation {annotation} of pod {pod}: {reason}")]
    Annotation { pod: String, annotation: String, reason: String },
    #[error("a hook names container {container}, and pod {pod} has only {has}")]
    NoContainer { pod: String, container: String, has: String },
}

impl BadHook {
    /// The way on.
    pub fn hint(&self) -> String {
        match self {
            BadHook::NoPods { .. } => "remove `hooks` from its settings".into(),
            BadHook::Annotation { .. } => {
                "correct it in the set's pod template, or say `hooks` in the set's settings: annotations are not looked at then".into()
            }
            BadHook::NoContainer { .. } => "name one of these, or none for the first".into(),
        }
    }
}

/// A hook that keeps a point from being made.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("the {} hook of pod {} (container {}) failed: `{}` {how}{said}", when(*.after), .hook.pod, .hook.container, .hook.words())]
    Failed {
        hook: Box<PlannedHook>,
        namespace: String,
        /// It is one that lets an application go.
        after: bool,
        how: String,
        /// The end of its output: empty, or `: …`.
        said: String,
    },
    #[error("the application in pod {} was let go before everything was held still: {how}", .hook.pod)]
    LetGo { hook: Box<PlannedHook>, how: String },
    #[error("interrupted amid hooks")]
    Interrupted,
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

fn when(after: bool) -> &'static str {
    if after { "post" } else { "pre" }
}

impl HookError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            HookError::Failed { after: false, .. } => {
                "no point was made, and what had been held still was let go; with `onError: continue` the backup goes on without it".into()
            }
            HookError::Failed { hook, namespace, .. } => format!(
                "the application may still be held: `kubectl exec --namespace {namespace} {} --container {} -- {}`",
                hook.pod,
                hook.container,
                hook.words()
            ),
            HookError::LetGo { .. } => "no point was made; run the backup again once the API server and the pod's node are well".into(),
            HookError::Interrupted => return None,
            HookError::Platform(error) => return error.hint(),
        })
    }
}
