//! A disk that fails, is full, or stands still.

use std::collections::BTreeSet;
use std::time::Duration;

use fuser::Errno;
use swarm::env::disk::LogKind;

use crate::chance::Chance;
use crate::cuts::wished;
use crate::mount::Disk;
use crate::platter::{Accident, Call, Keeps};
use crate::process::{End, Process, Role, all_said, said};

/// Free bytes under which a manager accepts nothing (`raft/space`).
const REFUSED_BELOW: u64 = 64 << 20;

fn numbers(lines: &[String], word: &str) -> BTreeSet<u64> {
    let words = all_said(lines, word).flat_map(|line| line.split(' '));
    words.filter(|word| !word.is_empty()).map(|word| word.parse().unwrap()).collect()
}

/// What a manager that starts now finds.
fn found(disk: &Disk, role: &Role<'_>) -> BTreeSet<u64> {
    let mut process = Process::start(role);
    process.wait("the start", |it| it.has_said("found") || it.has_ended());
    process.kill();
    let (_, lines) = process.end();
    assert!(disk.platter().has_happened());
    let found = said(&lines, "found");
    assert!(found.is_some(), "it did not start: {lines:?}");
    numbers(&lines, "found")
}

/// A write or a sync fails once, and the next would succeed: whoever goes on has lost what the kernel
/// dropped. So the process ends, and acknowledges nothing of it.
fn a_failed_call_ends_the_process(kind: LogKind, calls: &[Call], errno: Errno) {
    let rounds = wished("SWARM_POWER_CUTS", 12) / 2;
    let mut chance = Chance::new(wished("SWARM_POWER_SEED", 1) ^ 0xe10);
    let (disk, mut acknowledged, mut first) = (Disk::new(), BTreeSet::new(), 1);
    let mut ended = 0;
    for round in 0..rounds {
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let role = Role { first, ..Role::new("manager", kind, &dir) };
        let mut process = Process::start(&role);
        process.wait("the start", |it| it.has_said("ack") || it.has_ended());
        let call = chance.pick(calls);
        disk.platter().arrange(call, 1 + chance.below(60), Accident::Fail(errno));
        process.wait("the failure", |it| disk.platter().has_happened() || it.has_ended());
        // What fails may be a snapshot or the ballast, too, which others can bear.
        let mut waited = 0;
        while !process.has_ended() && waited < 300 {
            std::thread::sleep(Duration::from_millis(10));
            waited += 1;
        }
        process.kill();
        let (end, lines) = process.end();
        ended += usize::from(end == End::Aborted);
        let mut tried = numbers(&lines, "try");
        acknowledged.extend(numbers(&lines, "ack"));
        first = tried.pop_last().map_or(first, |last| last + 1);
        disk.platter().cut(Keeps::Nothing, &mut chance);
        drop(mounted);
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let found = found(&disk, &Role { first, ..Role::new("manager", kind, &dir) });
        let lost: Vec<&u64> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "{kind}, round {round}, {call:?}: gone: {lost:?}");
        first += 1_000;
    }
    let count = acknowledged.len();
    println!("{kind}: {rounds} failed calls, {ended} processes ended, {count} writes, none lost");
    assert!(ended > 0, "no failure hit the log");
}

#[test]
fn a_failed_write_or_sync_ends_the_process_on_sled() {
    a_failed_call_ends_the_process(LogKind::Sled, &[Call::Write, Call::Sync], Errno::EIO);
}

#[test]
fn a_failed_write_or_sync_ends_the_process_on_segments() {
    a_failed_call_ends_the_process(LogKind::Segments, &[Call::Write, Call::Sync], Errno::EIO);
}

/// A disk that is full all of a sudden, without having said so.
#[test]
fn a_disk_that_is_full_in_the_middle_loses_nothing() {
    for kind in LogKind::ALL {
        a_failed_call_ends_the_process(kind, &[Call::Write], Errno::ENOSPC);
    }
}

#[test]
fn a_full_disk_is_refused_in_words_and_recovers_with_space() {
    for kind in LogKind::ALL {
        let disk = Disk::new();
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let mut process = Process::start(&Role::new("manager", kind, &dir));
        process.wait("the start", |it| it.has_said("ack"));
        let used = disk.platter().used();
        disk.platter().capacity = used + REFUSED_BELOW / 2;
        process.wait("the refusal", |it| it.has_said("full"));
        assert!(!process.has_ended());
        disk.platter().capacity = 1 << 40;
        let mark = process.count("ack");
        process.wait("the recovery", |it| it.count("ack") > mark + 5);
        process.kill();
        let (_, lines) = process.end();
        let why = said(&lines, "full").unwrap();
        assert!(why.contains("MiB are free") && why.contains("make room"), "{why}");
    }
}

/// One that restarts on a full disk is readable, and goes on when there is space.
#[test]
fn a_manager_starts_on_a_full_disk() {
    for kind in LogKind::ALL {
        let disk = Disk::new();
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let mut process = Process::start(&Role::new("manager", kind, &dir));
        process.wait("some writes", |it| it.count("ack") > 20);
        process.kill();
        let (_, lines) = process.end();
        let used = disk.platter().used();
        disk.platter().capacity = used + (1 << 20);
        let role = Role { first: 10_000, ..Role::new("manager", kind, &dir) };
        let mut process = Process::start(&role);
        process.wait("the refusal", |it| it.has_said("full") || it.has_ended());
        disk.platter().capacity = 1 << 40;
        process.wait("the recovery", |it| it.has_said("ack") || it.has_ended());
        process.kill();
        let (_, later) = process.end();
        assert!(numbers(&lines, "ack").is_subset(&numbers(&later, "found")), "{kind}: {later:?}");
        assert!(said(&later, "full").is_some() && said(&later, "ack").is_some(), "{later:?}");
    }
}

#[test]
fn a_sync_that_stands_still_holds_up_and_loses_nothing() {
    for kind in LogKind::ALL {
        let disk = Disk::new();
        let Some(mounted) = disk.mount() else { return };
        let dir = mounted.dir.path().join("raft");
        let mut process = Process::start(&Role::new("manager", kind, &dir));
        process.wait("the start", |it| it.has_said("ack"));
        disk.platter().stall = Duration::from_secs(2);
        let syncs = disk.platter().calls[&Call::Sync];
        process.wait("a slow sync", |_| disk.platter().calls[&Call::Sync] > syncs + 1);
        disk.platter().stall = Duration::ZERO;
        let mark = process.count("ack");
        process.wait("the next writes", |it| it.count("ack") > mark + 5 || it.has_ended());
        assert!(!process.has_ended(), "{kind}");
        process.kill();
        drop(process.end());
    }
}
