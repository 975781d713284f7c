//! Does what README and docs tell to type work, and does it answer as they show it?
//!
//! A block fenced as `console` is a transcript: lines after `$ ` are run here, in order, in a folder of their own for each page, and the lines
//! below them must be the answer, but for ids, numbers and times. Commands in any other place must at least be understood by the program. The
//! `sh` blocks of the page on getting started need a cluster: `cluster_agent` runs them there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::tree::Dice;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and every page, by its path below the checkout.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md"].iter().map(PathBuf::from).collect();
    for folder in ["docs", "docs/adr"] {
        paths.extend(fs::read_dir(root().join(folder)).unwrap().map(|entry| Path::new(folder).join(entry.unwrap().file_name())));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

/// The blocks of a page that are fenced as one of these kinds.
fn blocks<'a>(page: &'a str, kinds: &[&str]) -> Vec<&'a str> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).filter(|(kind, _)| kinds.contains(&kind.trim())).map(|(_, text)| text).collect()
}

fn is_id(word: &str) -> bool {
    word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// Short ids, in the order in which they stand there.
fn ids(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_id(word)).map(str::to_owned).collect()
}

/// Ids, numbers, units and the width of columns are another run's own.
fn essence(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut out = String::new();
        let mut rest = line;
        while !rest.is_empty() {
            let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            if word == 0 {
                let next = rest.chars().next().unwrap();
                out.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
            let (run, after) = rest.split_at(word);
            match run {
                "B" | "KiB" | "MiB" | "GiB" => out.push('U'),
                _ if is_id(run) => out.push_str("ID"),
                _ => out.push_str(&run.replace(|c: char| c.is_ascii_digit(), "N")),
            }
            rest = after;
        }
        while out.contains("NN") || out.contains("N.N") {
            out = out.replace("NN", "N").replace("N.N", "N");
        }
        lines.push(out.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    lines.join("\n").trim().to_owned()
}

/// The set that transcripts speak of: three claims of two files each.
fn make_set(root: &Path) {
    for ordinal in 0..3 {
        let claim = root.join(format!("data-web-{ordinal}"));
        fs::create_dir_all(claim.join("conf")).unwrap();
        fs::write(claim.join("conf/app.yaml"), "listen: 0.0.0.0:8080\n").unwrap();
        // Replicas of each other.
        fs::write(claim.join("pages.db"), Dice(7).bytes(2_000_000)).unwrap();
    }
}

struct Said {
    command: String,
    answer: String,
}

fn transcript(page: &str) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    for line in blocks(page, &["console"]).into_iter().flat_map(str::lines) {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push(Said { command: command.to_owned(), answer: String::new() }),
            (None, Some(said)) => said.answer.push_str(&format!("{line}\n")),
            (None, None) => panic!("an answer without a command: {line}"),
        }
    }
    all
}

#[test]
fn transcripts_in_readme_and_docs_are_what_the_program_says() {
    let mut run = 0;
    for (path, page) in pages() {
        let all = transcript(&page);
        if all.is_empty() {
            continue;
        }
        let world = tempfile::tempdir().unwrap();
        let (base, home) = (world.path().to_str().unwrap(), world.path().join("root"));
        fs::create_dir_all(world.path().join("srv")).unwrap();
        make_set(&home.join("web"));
        let program = Path::new(env!("CARGO_BIN_EXE_keepset")).parent().unwrap();
        let path_of_programs = format!("{}:{}", program.to_str().unwrap(), std::env::var("PATH").unwrap());
        // One shell for the page: what is exported stays.
        let mut shell = Command::new("bash");
        shell.env_clear().env("PATH", path_of_programs).env("HOME", &home).current_dir(&home);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut codes = BufReader::new(shell.stdout.take().unwrap()).lines();
        // The page's ids, and those that this run has made in their places.
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for said in &all {
            let mut command = said.command.replace("/srv/", &format!("{base}/srv/"));
            for (shown, made) in &known {
                command = command.replace(shown, made);
            }
            writeln!(shell.stdin.as_ref().unwrap(), "{{ {command}\n}} </dev/null >{base}/out 2>{base}/err; echo $?").unwrap();
            let code = codes.next().unwrap().unwrap();
            let read = |kind: &str| fs::read_to_string(world.path().join(kind)).unwrap().replace(base, "");
            let (out, err) = (read("out"), read("err"));
            known.extend(ids(&said.answer).into_iter().zip(ids(&out)));
            let about = format!("{}: {}\nstandard output:\n{out}standard error:\n{err}", path.display(), said.command);
            let is_error = |line: &&str| line.starts_with("error: ") || line.starts_with("hint: ");
            let (errors, answer): (Vec<&str>, Vec<&str>) = said.answer.lines().partition(is_error);
            assert_eq!(code == "0", errors.is_empty(), "exit code {code}{about}");
            assert_eq!(essence(&out), essence(&answer.join("\n")), "{about}");
            if !errors.is_empty() {
                let told: Vec<&str> = err.lines().filter(is_error).collect();
                assert_eq!(essence(&told.join("\n")), essence(&errors.join("\n")), "{about}");
            }
            run += 1;
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
    assert!(run >= 10, "{run} commands were run");
}

/// Each call of the program in a line of shell, by its arguments.
fn calls(line: &str) -> Vec<Vec<String>> {
    let Some(words) = shlex::split(line.trim_end_matches('\\')) else { return Vec::new() };
    let ends = |word: &String| matches!(word.as_str(), "|" | "&&" | "||" | ";") || word.starts_with(['>', '|']) || word.contains(">/");
    let mut calls = Vec::new();
    for part in words.split(|word| matches!(word.as_str(), "|" | "&&" | "||" | ";" | "do" | "until" | "then" | "if")) {
        for (at, word) in part.iter().enumerate() {
            let begins = part[..at].iter().all(|word| word.contains('=') || word == "$" || word == "export")
                || at > 0 && part[at - 1] == "--"
                || at > 0 && part[at - 1] == "kubectl";
            if word == "keepset" && begins {
                let args = part[at + 1..].iter().take_while(|word| !ends(word)).map(|word| word.trim_end_matches(';').to_owned());
                calls.push(args.collect());
            }
        }
    }
    calls
}

#[test]
fn every_command_line_in_readme_docs_and_alerts_is_understood() {
    let mut lines: BTreeSet<(PathBuf, String)> = BTreeSet::new();
    for (path, page) in pages() {
        let fenced = blocks(&page, &["sh", "console"]).into_iter().flat_map(str::lines).map(str::trim);
        // There, words may follow far to the right.
        let indented = page.lines().filter_map(|line| line.strip_prefix("    ")?.split("    ").next());
        // What stands between single backticks outside of fences, where a line may have ended within.
        let prose: String = page.split("```").step_by(2).collect::<Vec<_>>().join("\n");
        let joined = prose.replace('\n', " ");
        let spans = joined.split('`').skip(1).step_by(2).map(str::to_owned);
        lines.extend(fenced.chain(indented).map(str::to_owned).chain(spans).map(|line| (path.clone(), line)));
    }
    let alerts = fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    for line in alerts.lines().filter_map(|line| line.trim().strip_prefix("command: ")) {
        let line = line.replace("{{ $labels.namespace }}/{{ $labels.set }}", "shop/web").replace("{{ $labels.task }}", "prune");
        lines.insert(("deploy/alerts.yaml".into(), line));
    }
    let (mut tried, mut wrong) = (0, Vec::new());
    for (path, line) in lines {
        for mut args in calls(&line) {
            // Words that stand for something, and what is left to the reader.
            args.retain(|arg| !arg.contains('…'));
            for arg in &mut args {
                match arg.as_str() {
                    "SET" => *arg = "shop/web".into(),
                    "N" => *arg = "1".into(),
                    _ => {}
                }
            }
            tried += 1;
            let mut keepset = Command::new(env!("CARGO_BIN_EXE_keepset"));
            let ran = keepset.args(&args).arg("--help").env_clear().output().unwrap();
            if !ran.status.success() {
                wrong.push(format!("{}: {line}\n  {}", path.display(), String::from_utf8_lossy(&ran.stderr)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 60, "{tried} command lines were found");
}

#[test]
fn a_word_that_is_no_verb_and_a_flag_that_is_none_would_be_noticed() {
    for line in
        ["keepset save shop/web", "A=b keepset backup --halted shop/web", "kubectl exec x -- keepset restore shop/web --ordinal first"]
    {
        let args = calls(line).pop().unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_keepset")).args(&args).arg("--help").env_clear().output().unwrap();
        assert!(!ran.status.success(), "{line}");
    }
    assert!(
        calls("helm install keepset deploy/chart").is_empty()
            && calls("kubectl create secret generic keepset --from-literal=a=b").is_empty()
    );
}

fn anchor(title: &str) -> String {
    title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_in_readme_and_docs_leads_somewhere() {
    let mut followed = 0;
    for (path, page) in pages() {
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, section) = target.split_once('#').map_or((target, None), |(file, section)| (file, Some(section)));
            let linked = if file.is_empty() { root().join(&path) } else { root().join(path.parent().unwrap()).join(file) };
            assert!(linked.exists(), "{}: {target}", path.display());
            if let Some(section) = section {
                let titles = fs::read_to_string(&linked).unwrap();
                let mut titles =
                    titles.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(titles.any(|title| title == section), "{}: {target}", path.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 40, "{followed} links");
}

/// Every name of a metric in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let names = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()));
    names.filter(|name| name.starts_with("keepset_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_speak_only_of_metrics_that_the_docs_describe() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let page = read("docs/agent.md");
    let described: BTreeSet<String> = page.lines().filter(|line| line.starts_with("| `keepset_")).flat_map(metrics).collect();
    assert!(described.len() > 25, "{described:?}");
    for file in ["deploy/alerts.yaml", "deploy/dashboard.json"] {
        let used = metrics(&read(file));
        assert!(!used.is_empty() && used.is_subset(&described), "{file}: {:?}", used.difference(&described).collect::<Vec<_>>());
    }
}

#[test]
fn settings_in_the_docs_the_manifests_and_the_example_are_ones() {
    let mut found = 0;
    let mut try_one = |about: &str, text: &str| {
        keepset::config::parse(about, text).unwrap_or_else(|error| panic!("{about}: {error}"));
        found += 1;
    };
    for (path, page) in pages() {
        for block in blocks(&page, &["yaml"]).into_iter().filter(|block| block.starts_with("cluster: ")) {
            try_one(path.to_str().unwrap(), block);
        }
    }
    // Four and more spaces deep, below the name of the file in the ConfigMap.
    for file in ["agent", "cronjob"] {
        let manifest = fs::read_to_string(root().join(format!("deploy/manifests/{file}.yaml"))).unwrap();
        let text = manifest.split("  keepset.yaml: |\n").nth(1).unwrap();
        let lines: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("    ")).collect();
        try_one(file, &lines.join("\n"));
    }
    // What the chart's own values show as an example, in a comment.
    let values = fs::read_to_string(root().join("deploy/chart/values.yaml")).unwrap();
    let shown: Vec<&str> = values.lines().filter_map(|line| line.strip_prefix("#  ")).collect();
    try_one("values.yaml", &shown.join("\n"));
    assert!(found >= 4);
}
