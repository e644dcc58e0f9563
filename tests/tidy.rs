//! The architecture as a test: the import law, the homes of dependencies, purity, sizes, banned words.
//!
//! One crate has no walls that the compiler keeps; this test keeps them. Change docs/ARCHITECTURE.md
//! first, then the tables here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which folders a folder may name. `main` is `src/main.rs`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("state", &["domain"]),
    ("control", &["domain", "state"]),
    ("health", &["domain", "state"]),
    ("env", &["domain"]),
    ("wire", &["domain", "state"]),
    ("identity", &["domain", "env", "wire"]),
    ("transport", &["domain", "env", "wire", "identity"]),
    ("raft", &["domain", "state", "env", "wire", "transport"]),
    ("leader", &["domain", "state", "control", "env", "wire", "transport", "raft"]),
    ("dispatcher", &["domain", "state", "env", "wire", "identity", "transport", "raft", "leader"]),
    ("ca", &["domain", "state", "env", "wire", "identity", "transport", "raft"]),
    ("runtime", &["domain", "env"]),
    ("overlay", &["domain", "env"]),
    ("dns", &["domain", "env"]),
    ("agent", &["domain", "env", "wire", "identity", "transport", "runtime", "overlay"]),
    ("api", &["domain", "state", "health", "env", "raft", "dispatcher"]),
    ("cli", &["domain"]),
    (
        "daemon",
        &[
            "domain",
            "state",
            "control",
            "health",
            "env",
            "wire",
            "identity",
            "transport",
            "raft",
            "leader",
            "dispatcher",
            "ca",
            "runtime",
            "overlay",
            "dns",
            "agent",
            "api",
        ],
    ),
    ("main", &["cli", "daemon"]),
    // Tests of what comes from outside; they are compiled with the others only.
    ("tests", &[]),
];

/// Where a dependency may be named.
const HOMES: &[(&str, &[&str])] = &[
    ("sled", &["env/disk"]),
    ("ring", &["env/seal"]),
    ("getrandom", &["env/entropy"]),
    ("openraft", &["raft"]),
    ("openraft_rt_tokio", &["raft"]),
    ("bincode", &["raft"]),
    ("rcgen", &["identity"]),
    // The API shows the issuer of the root certificate (`TLSInfo`); `identity` is out of its reach.
    ("x509_parser", &["identity", "api/convert/cluster.rs"]),
    ("rustls", &["identity", "transport"]),
    ("tokio_rustls", &["identity", "transport"]),
    ("bollard", &["runtime"]),
    ("hickory_server", &["dns"]),
    ("rtnetlink", &["overlay"]),
    ("axum", &["api"]),
    ("immutable_chunkmap", &["state/table.rs"]),
    ("clap", &["cli", "daemon/settings.rs", "main.rs"]),
    ("clap_complete", &["cli"]),
    ("tracing_subscriber", &["daemon/telemetry.rs"]),
    ("sd_notify", &["daemon"]),
];

/// Folders without async, clock, randomness, I/O.
const PURE: &[&str] = &["domain", "state", "control", "health"];
const IMPURE_WORDS: &[&str] =
    &["async ", "tokio::", "SystemTime", "Instant", "std::fs", "std::net::Tcp", "std::process"];

/// Lines of a file, tests apart: what a reader can keep in the head.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().unwrap() != "gen" {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The path below `src/`, and the text.
fn library() -> Vec<(String, String)> {
    let src = root().join("src");
    sources(&src)
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn folder(name: &str) -> &str {
    name.split_once('/').map_or_else(|| name.trim_end_matches(".rs"), |(folder, _)| folder)
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(number, line)| (number + 1, code(line)))
}

/// Whether a file holds only tests (`foo/tests.rs`, `foo/tests/…`).
fn is_tests(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/") || name.starts_with("tests/")
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn folders_import_only_from_those_below_them() {
    let law: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, text) in library().iter().filter(|(name, _)| name != "lib.rs") {
        let here = folder(name);
        let allowed = law.get(here).unwrap_or_else(|| panic!("{here}: not in the import table"));
        if is_tests(name) {
            continue;
        }
        for (number, line) in production(text) {
            for prefix in ["crate::", "swarm::"] {
                for (at, _) in line.match_indices(prefix) {
                    let preceded = line[..at].chars().next_back();
                    if preceded.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                        continue;
                    }
                    let rest = &line[at + prefix.len()..];
                    let target: String =
                        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    if law.contains_key(target.as_str())
                        && target != here
                        && !allowed.contains(&target.as_str())
                    {
                        problems.push(format!("{name}:{number}: {here} may not import {target}"));
                    }
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn a_dependency_is_named_in_its_home_only() {
    let mut problems = Vec::new();
    for (name, text) in library() {
        for (number, line) in production(&text) {
            for (dependency, homes) in HOMES {
                let named = line.match_indices(&format!("{dependency}::")).any(|(at, _)| {
                    !line[..at]
                        .chars()
                        .next_back()
                        .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if named && !homes.iter().any(|home| name.starts_with(home)) {
                    problems.push(format!("{name}:{number}: {dependency} lives in {homes:?}"));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn pure_folders_stay_pure() {
    let mut problems = Vec::new();
    for (name, text) in library() {
        if !PURE.contains(&folder(&name)) || is_tests(&name) {
            continue;
        }
        for (number, line) in production(&text) {
            for word in IMPURE_WORDS {
                if line.contains(word) {
                    problems.push(format!("{name}:{number}: {word:?} in a pure folder"));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut problems = Vec::new();
    for (name, text) in library() {
        if !text.starts_with("//!") {
            problems.push(format!("{name}: does not open with a `//!` sentence"));
        }
        let lines = production(&text).count();
        if lines > LINES_MAX && !is_tests(&name) {
            problems.push(format!("{name}: {lines} lines; split it by what it is about"));
        }
    }
    report(&problems);
}

#[test]
fn no_work_is_left_in_comments() {
    let words: BTreeSet<_> = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|w| w.concat()).into();
    let mut problems = Vec::new();
    for (name, text) in library() {
        for (number, line) in text.lines().enumerate() {
            let left = line.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(word));
            if left {
                problems.push(format!("{name}:{}: unfinished work in a comment", number + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn no_merge_is_left_half_done() {
    let marks = ["<".repeat(7), ">".repeat(7)].map(|mark| mark + " ");
    let mut problems = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let left = |line: &str| marks.iter().any(|mark| line.starts_with(mark.as_str()));
                if let Some(number) = text.lines().position(left) {
                    problems.push(format!("{}:{}: a conflict", path.display(), number + 1));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn the_top_level_is_what_it_should_be() {
    let expected: BTreeSet<&str> = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "docker-compose.test.yml",
        "docs",
        "proto",
        "scripts",
        "src",
        "target",
        "tests",
    ]
    .into();
    let found: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !expected.contains(name.as_str()))
        .collect();
    assert!(found.is_empty(), "what is {found:?} doing at the top level?");
}
