//! Does every file keep to the floor plan of `src/lib.rs`?
//!
//! The table below is the plan as code: who may import whom, who owns which foreign crate, what a pure room may not touch.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A room, and the rooms it may import. A room that is not here has no place in the house yet: give it one.
const ROOMS: &[(&str, &[&str])] = &[
    // 0: nouns and the three seams that every floor may use
    ("model", &[]),
    ("clock", &[]),
    ("random", &[]),
    ("monitor", &["model"]),
    // 1: the doors, which never meet each other
    ("store", &["model", "clock", "random", "monitor"]),
    ("platform", &["model", "clock", "random"]),
    ("volume", &["model", "clock", "random", "monitor"]),
    ("retention", &["model", "clock", "monitor"]),
    ("schedule", &["model", "clock", "monitor"]),
    ("telemetry", &["model", "clock", "monitor"]),
    // 2: the repository knows neither files on disk nor platforms
    ("repository", &["model", "clock", "random", "monitor", "store"]),
    // 3
    ("mover", &["model", "clock", "monitor", "store", "volume", "repository"]),
    ("hooks", &["model", "clock", "monitor", "platform"]),
    // 4: backup and restore meet movers only through the platform, and each other never
    ("backup", &["model", "clock", "monitor", "store", "platform", "retention", "schedule", "repository", "hooks"]),
    ("restore", &["model", "clock", "monitor", "store", "platform", "retention", "schedule", "repository", "hooks"]),
    // 5
    (
        "drill",
        &[
            "model",
            "clock",
            "monitor",
            "store",
            "platform",
            "retention",
            "schedule",
            "telemetry",
            "repository",
            "hooks",
            "backup",
            "restore",
        ],
    ),
    (
        "agent",
        &[
            "model",
            "clock",
            "monitor",
            "store",
            "platform",
            "retention",
            "schedule",
            "telemetry",
            "repository",
            "hooks",
            "backup",
            "restore",
        ],
    ),
    ("doctor", &["model", "clock", "store", "platform", "repository"]),
    // 6
    ("config", &["model", "clock", "monitor", "store", "platform", "volume", "retention", "schedule", "telemetry", "repository", "hooks"]),
    // 7
    (
        "cli",
        &[
            "model",
            "clock",
            "monitor",
            "store",
            "platform",
            "volume",
            "retention",
            "schedule",
            "telemetry",
            "repository",
            "mover",
            "hooks",
            "backup",
            "restore",
            "doctor",
            "drill",
            "agent",
            "config",
        ],
    ),
];

/// Words that only these rooms may say (`main` is the binary), and why.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("object_store::", &["store"], "the store is the one door to the bucket"),
    ("kube::", &["platform"], "the platform is the one door to the cluster"),
    ("anyhow::", &["cli", "main"], "each room has its own error enum; anyhow is for the rim"),
    ("clap::", &["cli", "main"], "arguments stop at the rim"),
    ("indicatif::", &["cli"], "only the rim draws on a terminal"),
    ("env::var", &["config", "cli", "main"], "settings are handed in as data below config"),
];

/// What the pure rooms may not do.
const PURE_ROOMS: &[&str] = &["model", "retention", "schedule"];
const IMPURE_WORDS: &[&str] = &["async fn", "tokio::", "std::fs::", "std::net::", "std::process::"];

/// Lines that a file may have without its tests.
const MOST_LINES: usize = 500;

/// Every sentence is one fault, with its file and line.
fn faults(file: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: String| faults.push(format!("{}:{}: {what}", file.display(), line + 1));
    if !text.starts_with("//!") {
        fault(0, "opens without a `//!` line that says which question it answers".to_owned());
    }
    let code = without_tests(file, text);
    if code.len() > MOST_LINES {
        fault(MOST_LINES, format!("has {} lines without tests, more than {MOST_LINES}", code.len()));
    }
    let room = room_of(file);
    let allowed = match ROOMS.iter().find(|(name, _)| *name == room) {
        Some((_, allowed)) => *allowed,
        None if room == "lib" || room == "main" => &[],
        None => {
            fault(0, format!("room `{room}` has no floor: add it to the table in tests/floors.rs"));
            return faults;
        }
    };
    for (number, line) in code {
        let line = line.split(" // ").next().unwrap_or(line).trim();
        if line.starts_with("//") {
            continue;
        }
        for other in imported_rooms(line) {
            if other == "{" {
                fault(number, "imports several rooms at once: one `use crate::room::…;` per line".to_owned());
            } else if other != room && !allowed.contains(&other) {
                fault(number, format!("room `{room}` may not import room `{other}`"));
            }
        }
        if line.contains("super::super") {
            fault(number, "climbs by `super::super`: say `crate::room::…`".to_owned());
        } else if line.contains("super::") && is_room_root(file) {
            fault(number, "leaves its room by `super::`: say `crate::room::…`".to_owned());
        }
        if line.contains("use ") && (line.contains("::*") || line.contains("{*") || line.contains(", *}")) {
            fault(number, "imports by glob: name what is used".to_owned());
        }
        for (word, owners, reason) in OWNED {
            if says(line, word) && !owners.contains(&room) {
                fault(number, format!("room `{room}` may not say `{word}`: {reason}"));
            }
        }
        if PURE_ROOMS.contains(&room) {
            for word in IMPURE_WORDS.iter().filter(|word| line.contains(**word)) {
                fault(number, format!("room `{room}` is pure and may not say `{word}`"));
            }
        }
    }
    faults
}

/// The numbered lines of `text`, without its `#[cfg(test)]` items.
fn without_tests<'t>(file: &Path, text: &'t str) -> Vec<(usize, &'t str)> {
    if file.file_name().is_some_and(|name| name == "tests.rs") || file.iter().any(|part| part == "tests") {
        return Vec::new();
    }
    let mut kept = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number, line));
            continue;
        }
        // The item ends with its closing brace at the same depth, or with the first `;` when it has no body.
        let indent = &line[..line.len() - line.trim_start().len()];
        for (_, line) in lines.by_ref() {
            if line.starts_with(indent) && line[indent.len()..].starts_with('}') {
                break;
            }
            if line.starts_with(indent) && !line[indent.len()..].starts_with([' ', '#']) && line.ends_with(';') {
                break;
            }
        }
    }
    kept
}

/// `store` for `store/mod.rs`, `store/error.rs` and `store.rs`.
fn room_of(file: &Path) -> &str {
    let first = file.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

fn is_room_root(file: &Path) -> bool {
    let depth = file.iter().count();
    depth == 1 || (depth == 2 && file.file_name().is_some_and(|name| name == "mod.rs"))
}

/// What follows each `crate::` of the line: a room's name, or `{`. The binary names the library `keepset`.
fn imported_rooms(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for prefix in ["crate::", "keepset::"] {
        for (at, _) in line.match_indices(prefix) {
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &line[at + prefix.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            rooms.push(if rest.starts_with('{') { "{" } else { &rest[..end] });
        }
    }
    rooms
}

/// Whether the line has `word` at the start of a path's part.
fn says(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the sources opens") {
        let path = entry.expect("a folder of the sources reads").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn every_file_keeps_to_the_floor_plan() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&sources);
    assert!(files.len() > 5, "no sources found in {}", sources.display());
    let mut report = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source file reads");
        let file = path.strip_prefix(&sources).expect("found below the sources");
        // main.rs imports the library by its name, which only the top floor does.
        let found = if room_of(file) == "main" { main_faults(file, &text) } else { faults(file, &text) };
        found.iter().for_each(|fault| writeln!(report, "src/{fault}").expect("writing to a string"));
    }
    assert!(report.is_empty(), "\n{report}");
}

/// The binary parses, runs and gives an exit code: it knows the top floor only and stays small.
fn main_faults(file: &Path, text: &str) -> Vec<String> {
    let mut found: Vec<String> = faults(file, text).into_iter().filter(|fault| !fault.ends_with("may not import room `cli`")).collect();
    if text.lines().count() > 60 {
        found.push(format!("{}:60: is longer than 60 lines", file.display()));
    }
    found
}

/// The faults of one planted line in an otherwise good file.
fn planted(file: &str, line: &str) -> Vec<String> {
    faults(Path::new(file), &format!("//! What is planted here?\n{line}\n"))
}

#[test]
fn an_import_from_a_higher_floor_is_a_fault() {
    assert_eq!(
        planted("store/mod.rs", "use crate::repository::Repository;"),
        ["store/mod.rs:2: room `store` may not import room `repository`"]
    );
    assert_eq!(planted("repository/mod.rs", "use crate::store::Store;"), [""; 0]);
}

#[test]
fn an_import_sideways_is_a_fault_wherever_it_stands_in_the_line() {
    assert_eq!(planted("backup/plan.rs", "    let x = crate::restore::plan(y);").len(), 1);
    assert_eq!(planted("restore/run.rs", "pub(crate) use crate::backup::Plan;").len(), 1);
    assert_eq!(planted("backup/plan.rs", "use crate::mover::save;").len(), 1);
    assert_eq!(planted("volume/mod.rs", "fn f(x: Option<crate::store::Store>) {}").len(), 1);
}

#[test]
fn a_room_without_a_floor_is_a_fault() {
    assert_eq!(planted("util/mod.rs", ""), ["util/mod.rs:1: room `util` has no floor: add it to the table in tests/floors.rs"]);
}

#[test]
fn groups_globs_and_climbing_are_faults() {
    assert_eq!(planted("cli/mod.rs", "use crate::{model, store};").len(), 1);
    assert_eq!(planted("cli/mod.rs", "use crate::model::*;").len(), 1);
    assert_eq!(planted("store/a/b.rs", "use super::super::x;").len(), 1);
    assert_eq!(planted("store/mod.rs", "use super::model::Id;").len(), 1);
    assert_eq!(planted("store/local.rs", "use super::Store;"), [""; 0]);
}

#[test]
fn a_foreign_crate_outside_its_room_is_a_fault() {
    assert_eq!(planted("repository/pack.rs", "use object_store::path::Path;").len(), 1);
    assert_eq!(planted("store/mod.rs", "use object_store::path::Path;"), [""; 0]);
    assert_eq!(planted("restore/run.rs", "use anyhow::Result;").len(), 1);
    assert_eq!(planted("store/mod.rs", "let x = std::env::var(\"AWS_REGION\");").len(), 1);
}

#[test]
fn a_pure_room_that_does_io_is_a_fault() {
    assert_eq!(planted("model/set.rs", "let x = std::fs::read(\"x\");").len(), 1);
    assert_eq!(planted("retention/mod.rs", "pub async fn decide() {}").len(), 1);
}

#[test]
fn a_file_without_an_opening_or_too_long_is_a_fault() {
    assert_eq!(faults(Path::new("model/x.rs"), "use std::fmt;\n").len(), 1);
    let long = format!("//! Long.\n{}", "const X: u8 = 0;\n".repeat(MOST_LINES));
    assert_eq!(faults(Path::new("model/x.rs"), &long), ["model/x.rs:501: has 501 lines without tests, more than 500"]);
}

#[test]
fn tests_count_neither_as_lines_nor_as_imports() {
    let tests = "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::cli::Args;\n\n    fn f() {\n    }\n}\n".to_owned();
    let padded = format!("//! Short.\n{tests}{}", "// more\n".repeat(MOST_LINES - 1));
    assert_eq!(faults(Path::new("model/x.rs"), &padded), [""; 0]);
    let after = format!("//! Short.\n{tests}use crate::cli::Args;\n");
    assert_eq!(faults(Path::new("model/x.rs"), &after), ["model/x.rs:10: room `model` may not import room `cli`"]);
    let file = "//! Short.\n#[cfg(test)]\nmod tests;\nuse crate::cli::Args;\n";
    assert_eq!(faults(Path::new("model/x.rs"), file).len(), 1);
}

#[test]
fn words_in_comments_are_no_imports() {
    assert_eq!(planted("model/x.rs", "/// See [`crate::cli`] and use crate::cli::*;"), [""; 0]);
    assert_eq!(planted("model/x.rs", "let x = 1; // as crate::cli does"), [""; 0]);
}
