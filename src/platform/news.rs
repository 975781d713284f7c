//! What became of a run, for whoever looks at the set later.

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    BackupSucceeded,
    BackupFailed,
    RestoreSucceeded,
    RestoreFailed,
    DrillSucceeded,
    DrillFailed,
    RestoreUndone,
}

/// The end of a run in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub outcome: Outcome,
    /// Nobody has to look into it: not failed, and not partial.
    pub is_fine: bool,
    /// The point, or the reason. No secret in it.
    pub text: String,
}
