//! Policy as readable stories: `tests/scenarios/*.txt` run against state and control alone, with a
//! model of agents. Lines that begin with `>` are golden output; `UPDATE_EXPECT=1` rewrites them.
//!
//! After every pass the world checks what must always hold (`invariants`), that planning again finds
//! nothing to do, and that the dirty set did not hide anything. `properties` does the same for
//! random stories.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod invariants;
mod properties;
mod roots;
mod script;
mod trust_properties;
mod world;

use std::path::Path;

#[test]
fn every_scenario_tells_what_it_told_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "the scenarios are missing");
    let mut failed = Vec::new();
    for file in files {
        let before = std::fs::read_to_string(&file).unwrap();
        let after = script::run(&before);
        if before == after {
            continue;
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, after).unwrap();
        } else {
            failed.push(format!("{}:\n{}", file.display(), difference(&before, &after)));
        }
    }
    assert!(failed.is_empty(), "{}\nUPDATE_EXPECT=1 accepts what is new", failed.join("\n"));
}

/// Lines that are only in one of two texts, with their numbers.
fn difference(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let first = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let show = |lines: &[&str], sign: &str| {
        let part = lines.iter().enumerate().skip(first).take(12);
        part.map(|(at, line)| format!("{sign}{:4} {line}\n", at + 1)).collect::<String>()
    };
    show(&before, "-") + &show(&after, "+")
}
