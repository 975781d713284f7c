//! Which paths of a volume a point does not have: patterns, each from the volume's root on.

/// Patterns may have so many bytes together: they travel in a mover's orders, which are a variable.
const MOST_BYTES: usize = 16 << 10;

/// What is no pattern, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` {reason}")]
pub struct BadPattern {
    pub pattern: String,
    pub reason: &'static str,
}

/// Patterns as users write them: names with slashes between them, from the volume's root on. `*` stands for any part of a name, `**` as a whole
/// name for any number of folders. A folder goes with all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclude {
    patterns: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Folders,
    Name(Vec<u8>),
}

/// What may still match in one folder: patterns by their number, each with the part that is its turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach(Vec<(usize, usize)>);

impl Reach {
    /// Nothing in the folder is excluded, nor below it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Exclude {
    /// All of them, or the first that is none.
    pub fn new(patterns: &[String]) -> Result<Exclude, BadPattern> {
        let bad = |pattern: &str, reason| Err(BadPattern { pattern: pattern.to_owned(), reason });
        if let Some(last) = patterns.last()
            && patterns.iter().map(String::len).sum::<usize>() > MOST_BYTES
        {
            return bad(last, "is one too many: patterns may have 16 KiB together");
        }
        Ok(Exclude { patterns: patterns.iter().map(|pattern| parts(pattern)).collect::<Result<_, _>>()? })
    }

    /// There are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What may match in the volume's root.
    pub fn root(&self) -> Reach {
        let mut reach = Reach::default();
        (0..self.patterns.len()).for_each(|pattern| self.add(&mut reach, pattern, 0));
        reach
    }

    /// Whether `name`, in a folder that patterns reach so far, is excluded.
    pub fn has(&self, reach: &Reach, name: &[u8]) -> bool {
        reach.0.iter().any(|(pattern, at)| {
            let parts = &self.patterns[*pattern];
            at + 1 == parts.len() && parts[*at].fits(name)
        })
    }

    /// What may match in the folder `name`, which is not excluded itself.
    pub fn below(&self, reach: &Reach, name: &[u8]) -> Reach {
        let mut below = Reach::default();
        for (pattern, at) in &reach.0 {
            match &self.patterns[*pattern][*at] {
                Part::Folders => self.add(&mut below, *pattern, *at),
                part if part.fits(name) => self.add(&mut below, *pattern, at + 1),
                Part::Name(_) => {}
            }
        }
        below
    }

    fn add(&self, reach: &mut Reach, pattern: usize, at: usize) {
        let parts = &self.patterns[pattern];
        if at >= parts.len() || reach.0.contains(&(pattern, at)) {
            return;
        }
        reach.0.push((pattern, at));
        // Any number of folders may be none.
        if parts[at] == Part::Folders {
            self.add(reach, pattern, at + 1);
        }
    }
}

impl Part {
    fn fits(&self, name: &[u8]) -> bool {
        match self {
            Part::Folders => true,
            Part::Name(pattern) => fits(pattern, name),
        }
    }
}

fn parts(pattern: &str) -> Result<Vec<Part>, BadPattern> {
    let bad = |reason| Err(BadPattern { pattern: pattern.to_owned(), reason });
    if pattern.chars().any(char::is_control) {
        return bad("has a control character in it");
    }
    let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| matches!(*name, "." | "..")) {
        return bad("has `.` or `..` in it: patterns begin at the volume's root");
    }
    if names.iter().any(|name| name.contains("**") && *name != "**") {
        return bad("has `**` as a part of a name: it stands for whole folders");
    }
    if names.iter().all(|name| name.chars().all(|c| c == '*')) {
        return bad("would exclude all of the volume");
    }
    Ok(names.into_iter().map(|name| if name == "**" { Part::Folders } else { Part::Name(name.as_bytes().to_vec()) }).collect())
}

/// Whether the name is the pattern, whose stars stand for anything.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut pieces = pattern.split(|byte| *byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&[u8]> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        // The earliest place leaves the most for what follows.
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclude(patterns: &[&str]) -> Exclude {
        Exclude::new(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    /// Whether the path is excluded, itself or by a folder that it is in.
    fn takes(patterns: &[&str], path: &str) -> bool {
        let exclude = exclude(patterns);
        let mut reach = exclude.root();
        for name in path.split('/') {
            if exclude.has(&reach, name.as_bytes()) {
                return true;
            }
            reach = exclude.below(&reach, name.as_bytes());
        }
        false
    }

    #[test]
    fn patterns_are_anchored_and_take_what_they_name_with_all_below() {
        for (pattern, taken, left) in [
            (".snapshot", &[".snapshot", ".snapshot/hourly.0/a"][..], &["a/.snapshot", ".snapshots", "snapshot"][..]),
            ("/cache/", &["cache", "cache/x"], &["a/cache"]),
            ("a/b", &["a/b", "a/b/c"], &["a", "b", "a/c/b", "a/bb"]),
            ("*.tmp", &["x.tmp", ".tmp"], &["a/x.tmp", "x.tmp.gz"]),
            ("a*b*c", &["abc", "axxbyyc", "abbcc"], &["ab", "acb", "xabc", "abcd"]),
            ("a/*/c", &["a/x/c", "a/x/c/d"], &["a/c", "a/x/y/c", "a/x"]),
            ("**/.snapshot", &[".snapshot", "a/.snapshot", "a/b/.snapshot/c"], &["a/snapshot"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["z", "b/a/z"]),
            ("cache/**", &["cache/x", "cache/x/y"], &["cache", "a/cache/x"]),
            ("a[1]?", &["a[1]?"], &["a1x"]),
        ] {
            for path in taken {
                assert!(takes(&[pattern], path), "{pattern} takes {path}");
            }
            for path in left {
                assert!(!takes(&[pattern], path), "{pattern} leaves {path}");
            }
        }
        assert!(takes(&["a", "b/c"], "b/c") && !takes(&[], "a"));
        assert!(exclude(&["a/b"]).below(&exclude(&["a/b"]).root(), b"x").is_empty(), "nothing more to look at there");
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        let why = |pattern: &str| Exclude::new(&[pattern.to_owned()]).unwrap_err().to_string();
        for all in ["", "/", "*", "**", "**/*"] {
            assert_eq!(why(all), format!("`{all}` would exclude all of the volume"));
        }
        assert!(why("../a").contains("begin at the volume's root") && why("a/./b").contains("begin at"));
        assert!(why("a**").contains("whole folders") && why("a\nb").contains("control character"));
        assert!(why(&"x".repeat(MOST_BYTES + 1)).ends_with("16 KiB together"));
    }
}
