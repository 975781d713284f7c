//! What a process of ours in a pod is told by its environment, and how its answer is told from its messages: a pod's log has both as one.

/// The orders of a mover: a variable, in which no secret is.
pub const JOB: &str = "KEEPSET_JOB";
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
