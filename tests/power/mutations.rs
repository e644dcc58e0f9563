//! Damage done to the directories of managers that do not run: whatever it is, a manager that starts
//! has lost nothing, or it does not start.
//!
//! `SWARM_POWER_MUTATIONS` says how many there are for each kind of log, `SWARM_POWER_SEED` which. What
//! nobody can find out on one host is not among them: a whole directory that is put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use swarm::env::disk::LogKind;

use crate::chance::Chance;
use crate::cuts::wished;
use crate::process::{End, Process, Role, all_said, said};

const PAGE: u64 = 4_096;
/// Writes before and after the older copy is taken: some segments.
const WRITES: u64 = 500;

/// Directories of a manager, and what it had acknowledged.
struct Origin {
    kind: LogKind,
    top: tempfile::TempDir,
    acknowledged: BTreeSet<u64>,
    term: u64,
}

/// What became of a damaged manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    NothingLost,
    Refused,
    /// It ended without a word.
    Died(&'static str),
    Lost(String),
}

fn numbers(lines: &[String], word: &str) -> BTreeSet<u64> {
    let words = all_said(lines, word).flat_map(|line| line.split(' '));
    words.filter_map(|word| word.parse().ok()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Files that matter, below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("ballast") && !path.ends_with("lock") {
            found.push(path);
        }
    }
    found.sort();
    found
}

impl Origin {
    fn new(kind: LogKind) -> Self {
        let top = tempfile::tempdir().unwrap();
        let (now, older, other) =
            (top.path().join("now"), top.path().join("older"), top.path().join("other"));
        let run = |dir: &Path, first| {
            let role = Role { first, count: Some(WRITES), ..Role::new("manager", kind, dir) };
            let (end, lines) = Process::run(&role);
            assert_eq!(end, Some(End::InOrder), "{lines:?}");
            lines
        };
        run(&other, 5_000);
        let mut lines = run(&now, 1);
        copy(&now, &older);
        let later = run(&now, 1 + WRITES);
        let term = said(&later, "term").unwrap().parse().unwrap();
        lines.extend(later);
        let acknowledged = numbers(&lines, "ack");
        assert_eq!(acknowledged.len() as u64, 2 * WRITES);
        Self { kind, top, acknowledged, term }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// What becomes of a copy that something was done to.
    fn outcome(&self, canary: Option<&'static str>, damage: impl FnOnce(&Path)) -> Outcome {
        let dir = self.path("damaged");
        drop(fs::remove_dir_all(&dir));
        copy(&self.path("now"), &dir);
        damage(&dir);
        let role = Role { canary, count: Some(0), ..Role::new("check", self.kind, &dir) };
        let (end, lines) = Process::run(&role);
        if said(&lines, "refused").is_some() {
            return Outcome::Refused;
        }
        let Some(found) = said(&lines, "found") else {
            return Outcome::Died(match end {
                None => "hung",
                Some(End::Aborted) => "aborted",
                Some(_) => "panicked",
            });
        };
        let term: u64 = said(&lines, "term").unwrap().parse().unwrap();
        let lost = self.acknowledged.difference(&numbers(&lines, "found")).count();
        if lost > 0 || found.contains('!') || term < self.term {
            return Outcome::Lost(format!("{lost} writes, term {term} after {}", self.term));
        }
        Outcome::NothingLost
    }

    /// Does one thing to a directory; what it was.
    fn damage(&self, dir: &Path, chance: &mut Chance) -> String {
        let all = files(dir);
        let path = &all[chance.index(all.len())];
        let name = path.strip_prefix(dir).unwrap().to_owned();
        let length = fs::metadata(path).unwrap().len();
        // Where there is something: most of a log's file may be reserved.
        let content = fs::read(path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let what = match chance.below(10) {
            0..3 => {
                let (at, bit) = (chance.below(used), chance.below(8));
                let byte = content.get(usize::try_from(at).unwrap()).copied().unwrap_or_default();
                file.write_all_at(&[byte ^ (1 << bit)], at).unwrap();
                format!("a bit flipped at byte {at}")
            }
            3 => {
                let page = chance.below(used.div_ceil(PAGE)) * PAGE;
                let size = usize::try_from(PAGE.min(length - page)).unwrap();
                file.write_all_at(&vec![0; size], page).unwrap();
                format!("the page at {page} zeroed")
            }
            4 => {
                let limit = if chance.is(50) { used } else { (4 << 20).min(used) };
                let end = used - 1 - chance.below(limit);
                file.set_len(end).unwrap();
                format!("cut off at {end} of {used}")
            }
            5 => {
                fs::remove_file(path).unwrap();
                "deleted".to_owned()
            }
            6 => {
                let other = files(&self.path("other"));
                let from = self.path("other").join(&name);
                let from =
                    if from.exists() { from } else { other[chance.index(other.len())].clone() };
                fs::copy(&from, path).unwrap();
                format!("swapped with {} of another manager", from.display())
            }
            7 => {
                let from = self.path("older").join(&name);
                if from.exists() {
                    fs::copy(&from, path).unwrap();
                } else {
                    fs::remove_file(path).unwrap();
                }
                "as it was earlier".to_owned()
            }
            8 => {
                let pages = used.div_ceil(PAGE);
                let (from, to) = (chance.below(pages) * PAGE, chance.below(pages) * PAGE);
                let size = usize::try_from(PAGE.min(length - from.max(to))).unwrap();
                let from_at = usize::try_from(from).unwrap();
                file.write_all_at(&content[from_at..from_at + size], to).unwrap();
                format!("the page of {from} written to {to}")
            }
            _ => {
                let at = chance.below(used);
                let noise: Vec<u8> = (0..512).map(|_| chance.next().to_le_bytes()[0]).collect();
                file.write_all_at(&noise, at).unwrap();
                format!("noise at {at}")
            }
        };
        format!("{}: {what}", name.display())
    }

    /// Puts a part of a directory back to what it was earlier.
    fn roll_back(&self, dir: &Path, part: &str) {
        let (from, to) = (self.path("older").join(part), dir.join(part));
        if from.is_dir() {
            fs::remove_dir_all(&to).unwrap();
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn damage_is_found_or_does_no_harm(kind: LogKind) {
    let count = wished("SWARM_POWER_MUTATIONS", 60);
    let seed = wished("SWARM_POWER_SEED", 1);
    let mut chance = Chance::new(seed ^ 0xda3a);
    let origin = Origin::new(kind);
    assert_eq!(origin.outcome(None, |_| {}), Outcome::NothingLost, "without damage");
    let (mut tally, mut bad) = (BTreeMap::<String, u64>::new(), Vec::new());
    for _ in 0..count {
        let mut what = String::new();
        let outcome = origin.outcome(None, |dir| what = origin.damage(dir, &mut chance));
        let name = match &outcome {
            Outcome::NothingLost => "nothing lost",
            Outcome::Refused => "refused",
            Outcome::Died(how) => how,
            Outcome::Lost(_) => "LOST",
        };
        *tally.entry(name.to_owned()).or_default() += 1;
        if matches!(outcome, Outcome::Lost(_) | Outcome::Died(_)) {
            bad.push(format!("{what}: {outcome:?}"));
        }
    }
    println!("{kind}, seed {seed}: {count} mutations: {tally:?}");
    assert!(bad.is_empty(), "{kind}, seed {seed}:\n{}", bad.join("\n"));
    assert!(tally["refused"] > 0 && tally["nothing lost"] > 0, "{tally:?}");
}

#[test]
fn damage_is_found_or_does_no_harm_on_sled() {
    damage_is_found_or_does_no_harm(LogKind::Sled);
}

#[test]
fn damage_is_found_or_does_no_harm_on_segments() {
    damage_is_found_or_does_no_harm(LogKind::Segments);
}

/// Parts of a directory that are older than the others; and with the floor ignored, the suite must see
/// that writes are lost, or it could not see anything.
#[test]
fn a_part_that_is_put_back_is_found_out() {
    for kind in LogKind::ALL {
        let origin = Origin::new(kind);
        for (part, expected) in [
            ("log", Outcome::Refused),
            ("snapshots", Outcome::Refused),
            ("floor", Outcome::NothingLost),
        ] {
            let outcome = origin.outcome(None, |dir| origin.roll_back(dir, part));
            assert!(
                outcome == expected || outcome == Outcome::NothingLost && part == "snapshots",
                "{kind}, {part}: {outcome:?}"
            );
        }
        let outcome = origin.outcome(Some("FloorIgnored"), |dir| origin.roll_back(dir, "log"));
        assert!(matches!(outcome, Outcome::Lost(_)), "{kind}: the bug was not found: {outcome:?}");
    }
}
