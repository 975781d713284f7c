//! What a process of ours in a pod is told by its environment, and how its answer is told from its messages: a pod's log has both as one.

/// The orders of a mover: a variable, in which no secret is.
pub const JOB: &str = "KEEPSET_JOB";
/// Where the Secret's keys are files: what a store wants a path of, such as its own certificates, can be one of them.
pub const SECRET_FOLDER: &str = "/run/keepset/secret";
/// The key of the Secret that holds the certificates of an authority of the user's own, which are trusted by every program of ours that sees it.
pub const AUTHORITY: &str = "ca.crt";
/// Set where somebody reads the log: the answer is to be marked.
pub const ATTACHED: &str = "KEEPSET_ATTACHED";
/// A pod that tries its network has reached the API server.
pub const REACHED: &str = "reached";
/// It did, and no longer does.
pub const CUT_OFF: &str = "cut off";
/// It never did.
pub const NEVER_REACHED: &str = "never reached";
/// Before each line of a marked answer, and of nothing else.
pub const ANSWER_MARK: &str = "> ";
