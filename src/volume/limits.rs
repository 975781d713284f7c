//! The process's own limits that a walk depends on.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lifts the soft limit of open files to the hard one; a process that may not stays as it is. Gives the limit that holds then.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    open_files()
}

/// How many files this process may hold open.
pub(super) fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_meets_the_hard_one() {
        let got = raise_open_files();
        assert_eq!(got, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
