//! Bugs made on purpose, to see that the simulation finds them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use swarm::env::{Canary, Faults};

use crate::sweep;
use crate::timeline::Profile;

/// Seeds within which each must be found.
const SEEDS: u64 = 200;

/// Of each bug above the store: a seed that finds it, and the rule that said so first. Which rule is the first one
/// to notice shifts with every change of timing; that one does, and that none does without the bug, must not.
const KNOWN: [(Canary, u64, &str); Canary::CLUSTER.len()] = [
    (Canary::StaleAssignments, 2, "I18"),
    (Canary::LedgerNotSynced, 1, "I18"),
    (Canary::AdoptsNothing, 3, "I13"),
    (Canary::ShutdownTooEarly, 1, "I13"),
    (Canary::TenureWithoutGrace, 1, "P5"),
    (Canary::AddressFreedEarly, 1, "I22"),
    (Canary::SecretToAll, 1, "I26"),
    (Canary::EndpointsKept, 1, "I23"),
    (Canary::UpdateAtOnce, 1, "I17"),
    (Canary::RoleNotTold, 1, "I20"),
    (Canary::NewsLost, 3, "I9"),
];

#[test]
fn every_canary_is_found() {
    are_found(Profile::Raft, &Canary::RAFT);
}

#[test]
fn every_canary_of_a_cluster_is_found() {
    if std::env::var("SIM_PROFILE").as_deref() != Ok("canaries") {
        println!("SKIPPED: takes long; ./scripts/sim.sh --profile canaries runs it");
        return;
    }
    let one = std::env::var("SIM_CANARY").ok();
    let is_meant = |it: &Canary| one.as_ref().is_none_or(|name| format!("{it:?}") == *name);
    let meant: Vec<Canary> = Canary::CLUSTER.into_iter().filter(is_meant).collect();
    are_found(Profile::Cluster, &meant);
}

/// The same, cheaply: each bug is found by its known seed, which finds nothing without it. Any change of the
/// product's timing shifts what a seed does: the two after it may find the bug as well.
#[test]
fn a_known_seed_finds_each_canary_of_a_cluster() {
    let bugs = KNOWN.map(|(canary, seed, rule)| (Faults::with(canary), seed, Some(rule)));
    let seeds: BTreeSet<u64> = KNOWN.iter().map(|(_, seed, _)| *seed).collect();
    let mut runs: Vec<_> = seeds.into_iter().map(|seed| (Faults::NONE, seed, None)).collect();
    runs.extend(bugs);
    let wrong = Mutex::new(Vec::new());
    on_all_cores(&runs, |(faults, seed, rule)| {
        let tries = if rule.is_some() { 3 } else { 1 };
        let mut seeds = *seed..*seed + tries;
        let found = seeds.find_map(|seed| sweep::one(Profile::Cluster, seed, *faults).violation);
        println!("{faults:?}, seed {seed}: {}", found.as_deref().unwrap_or("nothing"));
        if found.is_some() != rule.is_some() {
            let wanted = rule.unwrap_or("nothing");
            wrong.lock().unwrap().push(format!("{faults:?}, seed {seed}: {wanted}, not {found:?}"));
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "expected was {wrong:#?}");
    for canary in Canary::CLUSTER {
        assert!(KNOWN.iter().any(|(known, ..)| *known == canary), "no seed for {canary:?}");
    }
}

fn are_found(profile: Profile, canaries: &[Canary]) {
    let missed = Mutex::new(Vec::new());
    on_all_cores(canaries, |canary| {
        let found = (1..=SEEDS).find_map(|seed| {
            let outcome = sweep::one(profile, seed, Faults::with(*canary));
            outcome.violation.map(|violation| (seed, violation))
        });
        match found {
            Some((seed, violation)) => println!("{canary:?}: seed {seed}: {violation}"),
            None => missed.lock().unwrap().push(*canary),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

fn on_all_cores<T: Sync>(all: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                while let Some(it) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(it);
                }
            });
        }
    });
}
