//! Power cuts: a process writes, the power goes in a call or between two, another process looks.
//!
//! What was acknowledged must be there; what was not may be there in part. `SWARM_POWER_CUTS` says how
//! many cuts there are of each kind, `SWARM_POWER_SEED` which.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm::env::disk::LogKind;

use crate::chance::Chance;
use crate::mount::Disk;
use crate::platter::{Accident, Call, Keeps};
use crate::process::{Process, Role, all_said, said};

/// A number from the environment.
pub(crate) fn wished(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
enum When {
    /// In the n-th call of a kind after the start.
    Call(Call, u64),
    /// Some milliseconds after the first acknowledgement.
    Later(u64),
    /// The same, and the process alone is killed.
    Killed(u64),
}

impl When {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(5) {
            0 => Self::Later(chance.below(400)),
            4 => Self::Killed(chance.below(400)),
            1 => Self::Call(Call::Write, 1 + chance.below(600)),
            2 => Self::Call(Call::Sync, 1 + chance.below(300)),
            _ => Self::Call(Call::Change, 1 + chance.below(40)),
        }
    }
}

/// Runs a process until the power is cut; what it said. The disk is then as the next process finds it.
fn run_to_the_cut(disk: &Disk, role: &Role<'_>, when: When, chance: &mut Chance) -> Vec<String> {
    if let When::Call(kind, nth) = when {
        disk.platter().arrange(kind, nth, Accident::Cut);
    }
    let mut process = Process::start(role);
    let limit = match when {
        When::Later(millis) | When::Killed(millis) => {
            process.wait("the start", |it| it.has_said("ack") || it.has_ended());
            Duration::from_millis(millis)
        }
        // Some kinds of calls are rare.
        When::Call(..) => Duration::from_millis(1_500),
    };
    let mut waited = Duration::ZERO;
    while !disk.is_off() && !process.has_ended() && waited < limit {
        std::thread::sleep(Duration::from_millis(1));
        waited += Duration::from_millis(1);
    }
    if matches!(when, When::Killed(_)) {
        // The page cache outlives the process, and the next cut takes it.
        process.kill();
        return process.end().1;
    }
    disk.platter().is_off = true;
    process.kill();
    disk.let_go();
    let (_, lines) = process.end();
    let keeps = chance.pick(&Keeps::ALL);
    disk.platter().cut(keeps, chance);
    lines
}

/// What a log must hold: which operation wrote each index, and the named value.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    records: BTreeMap<u64, u64>,
    vote: u64,
}

impl Model {
    fn parse(found: &str) -> Self {
        let mut words = found.split(' ').filter(|word| !word.is_empty());
        let vote = words.next().unwrap().parse().unwrap();
        let record = |word: &str| {
            let (index, by) = word.split_once('=').unwrap();
            (index.parse().unwrap(), by.parse().unwrap())
        };
        Self { records: words.map(record).collect(), vote }
    }

    /// Takes in an operation; the indexes that it changed.
    fn apply(&mut self, line: &str) -> BTreeSet<u64> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let before = self.records.clone();
        match words[0] {
            "append" => self.records.extend((number(2)..number(3)).map(|it| (it, number(1)))),
            "cut" => drop(self.records.split_off(&(number(2) + 1))),
            "purge" => self.records = self.records.split_off(&(number(2) + 1)),
            "vote" => self.vote = number(1),
            _ => {}
        }
        let all = before.keys().chain(self.records.keys());
        let changed = all.filter(|it| before.get(it) != self.records.get(it));
        changed.copied().collect()
    }
}

/// What is wrong with what was found, after a run of a writer.
fn judge(begun: &Model, lines: &[String], found: &Model) -> Result<u64, String> {
    let mut acknowledged = begun.clone();
    let acks = lines.iter().rposition(|line| line == "ack").map_or(0, |at| at + 1);
    let (sure, open) = lines.split_at(acks);
    for line in sure {
        acknowledged.apply(line);
    }
    let mut values: BTreeMap<u64, BTreeSet<Option<u64>>> = BTreeMap::new();
    let mut votes = BTreeSet::from([acknowledged.vote]);
    let mut model = acknowledged.clone();
    for line in open {
        for index in model.apply(line) {
            let at = values.entry(index).or_default();
            at.insert(acknowledged.records.get(&index).copied());
            at.insert(model.records.get(&index).copied());
        }
        votes.insert(model.vote);
    }
    if !votes.contains(&found.vote) {
        return Err(format!("the vote was {votes:?} and is {}", found.vote));
    }
    let all: BTreeSet<u64> =
        acknowledged.records.keys().chain(found.records.keys()).copied().collect();
    for index in all {
        let (was, is) = (acknowledged.records.get(&index), found.records.get(&index));
        let may = values.get(&index).is_some_and(|values| values.contains(&is.copied()));
        if was != is && !may {
            return Err(format!("record {index} was {was:?} and is {is:?}"));
        }
    }
    Ok(sure.iter().filter(|line| *line == "ack").count() as u64)
}

/// A power cut is no damage, and our own log never takes it for some. sled does at times: nothing is
/// lost then, but the manager must be replaced (docs/adr/0022).
fn bear_refusal(kind: LogKind, what: &str) {
    assert_eq!(kind, LogKind::Sled, "a power cut is no damage: {what}");
    println!("refused after a power cut: {what}");
}

fn the_log_keeps_what_its_barriers_covered(kind: LogKind) {
    let cuts = wished("SWARM_POWER_CUTS", 12);
    let seed = wished("SWARM_POWER_SEED", 1);
    let mut chance = Chance::new(seed);
    let (mut disk, mut model, mut first) = (Disk::new(), Model::default(), 1);
    let (mut acknowledged, mut refusals) = (0, 0);
    let mut last: Vec<String> = Vec::new();
    for cut in 0..=cuts {
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("log");
        let role = Role { seed: chance.next(), first, ..Role::new("log", kind, &dir) };
        let when = When::draw(&mut chance);
        let lines = run_to_the_cut(&disk, &role, when, &mut chance);
        if let Some(refused) = said(&lines, "refused") {
            bear_refusal(kind, &format!("{kind}, seed {seed}, cut {cut}: {refused}"));
            (disk, model, last) = (Disk::new(), Model::default(), Vec::new());
            refusals += 1;
            continue;
        }
        // A process that came to nothing is followed by one that looks.
        let Some(found) = said(&lines, "found") else { continue };
        let found = Model::parse(found);
        let acks = judge(&model, &last, &found);
        acknowledged += acks.unwrap_or_else(|what| {
            panic!("{kind}, seed {seed}, cut {cut} at {when:?}: {what}");
        });
        model = found;
        first += lines.len() as u64;
        last = lines;
    }
    println!(
        "{kind}: {cuts} cuts, {acknowledged} barriers acknowledged, none lost, {refusals} refused"
    );
    assert!(acknowledged > cuts, "too little was acknowledged");
}

fn a_manager_keeps_what_it_acknowledged(kind: LogKind) {
    let cuts = wished("SWARM_POWER_CUTS", 12);
    let seed = wished("SWARM_POWER_SEED", 1);
    let mut chance = Chance::new(seed ^ 0x5eed);
    let (mut disk, mut acknowledged, mut tried) = (Disk::new(), BTreeSet::new(), BTreeSet::new());
    let (mut term, mut first, mut looked) = (0, 1, 0);
    let (mut count, mut refusals) = (0, 0);
    for cut in 0..=cuts {
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let role = Role { first, ..Role::new("manager", kind, &dir) };
        let when = When::draw(&mut chance);
        let lines = run_to_the_cut(&disk, &role, when, &mut chance);
        let at = format!("{kind}, seed {seed}, cut {cut} at {when:?}");
        if let Some(refused) = said(&lines, "refused") {
            bear_refusal(kind, &format!("{at}: {refused}"));
            (disk, acknowledged, term) = (Disk::new(), BTreeSet::new(), 0);
            refusals += 1;
            continue;
        }
        if let (Some(now), Some(found)) = (said(&lines, "term"), said(&lines, "found")) {
            let now: u64 = now.parse().unwrap();
            assert!(now > term, "{at}: it voted in term {term}, and stands again in {now}");
            let words = found.split(' ').filter(|word| !word.is_empty());
            let found: BTreeSet<u64> = words.map(|word| word.parse().unwrap()).collect();
            let lost: Vec<&u64> = acknowledged.difference(&found).collect();
            assert!(lost.is_empty(), "{at}: acknowledged and gone: {lost:?}");
            assert!(found.is_subset(&tried), "{at}: nobody wrote that");
            acknowledged.extend(found);
            (term, looked) = (now, looked + 1);
        }
        tried.extend(all_said(&lines, "try").map(|number| number.parse::<u64>().unwrap()));
        count += all_said(&lines, "ack").count() as u64;
        acknowledged.extend(all_said(&lines, "ack").map(|number| number.parse::<u64>().unwrap()));
        first = tried.last().map_or(1, |last| last + 1);
    }
    println!(
        "{kind}: {cuts} cuts, {looked} starts, {count} writes acknowledged, none lost, {refusals} refused"
    );
    assert!(count > cuts && looked > cuts / 3, "too little was acknowledged");
}

/// A suite that cannot fail proves nothing: bugs made on purpose are found.
#[test]
fn an_acknowledgement_or_a_vote_without_a_barrier_is_found() {
    for kind in LogKind::ALL {
        let (disk, mut chance) = (Disk::new(), Chance::new(1));
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let mut run = |first, canary| {
            let role = Role { first, canary, ..Role::new("manager", kind, &dir) };
            let mut process = Process::start(&role);
            process.wait("an acknowledgement", |it| it.has_said("ack") || it.has_ended());
            disk.platter().is_off = true;
            process.kill();
            disk.let_go();
            let (_, lines) = process.end();
            disk.platter().cut(Keeps::Nothing, &mut chance);
            lines
        };
        let numbers = |lines: &[String], word| -> BTreeSet<u64> {
            let words = all_said(lines, word).flat_map(|line| line.split(' '));
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let before = run(1, None);
        let bug = run(1_000, Some("AckBeforeBarrier"));
        let after = run(2_000, Some("VoteNotWritten"));
        let found = numbers(&after, "found");
        assert!(numbers(&before, "ack").is_subset(&found), "{kind}");
        assert!(!numbers(&bug, "ack").is_subset(&found), "{kind}: the bug was not found");
        let again = run(3_000, None);
        let term = |lines: &[String]| said(lines, "term").unwrap().parse::<u64>().unwrap();
        assert!(term(&after) > term(&before), "{kind}");
        assert_eq!(term(&after), term(&again), "{kind}: the bug was not found");
    }
}

#[test]
fn the_log_keeps_what_its_barriers_covered_on_sled() {
    the_log_keeps_what_its_barriers_covered(LogKind::Sled);
}

#[test]
fn the_log_keeps_what_its_barriers_covered_on_segments() {
    the_log_keeps_what_its_barriers_covered(LogKind::Segments);
}

#[test]
fn a_manager_keeps_what_it_acknowledged_on_sled() {
    a_manager_keeps_what_it_acknowledged(LogKind::Sled);
}

#[test]
fn a_manager_keeps_what_it_acknowledged_on_segments() {
    a_manager_keeps_what_it_acknowledged(LogKind::Segments);
}

/// `node.json` and the certificate: the old content or the new, never a mixture, never none.
#[test]
fn a_file_that_is_replaced_is_whole() {
    let cuts = wished("SWARM_POWER_CUTS", 12);
    let mut chance = Chance::new(wished("SWARM_POWER_SEED", 1) ^ 0xf11e);
    let (disk, mut acknowledged, mut tried) = (Disk::new(), 0, 0);
    for cut in 0..=cuts {
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path();
        let role = Role { first: tried + 1, ..Role::new("file", LogKind::Sled, dir) };
        let when = match chance.below(3) {
            0 => When::Later(chance.below(100)),
            1 => When::Call(Call::Sync, 1 + chance.below(100)),
            _ => When::Call(Call::Change, 1 + chance.below(100)),
        };
        let lines = run_to_the_cut(&disk, &role, when, &mut chance);
        if let Some(found) = said(&lines, "found") {
            let version: u64 = found.parse().unwrap();
            assert!(
                (acknowledged..=tried).contains(&version),
                "cut {cut} at {when:?}: {version} was found, {acknowledged} acknowledged"
            );
        }
        let last = |word| all_said(&lines, word).last().map(|it| it.parse::<u64>().unwrap());
        acknowledged = last("ack").unwrap_or(acknowledged).max(acknowledged);
        tried = last("try").unwrap_or(tried);
    }
    println!("{cuts} cuts, {acknowledged} replacements acknowledged, none lost");
    assert!(acknowledged > cuts);
}
