//! Bugs made on purpose, to see that the simulation finds them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use swarm::env::{Canary, Faults};

use crate::sweep;
use crate::timeline::Profile;

/// Seeds within which each must be found.
const SEEDS: u64 = 200;

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
    are_found(Profile::Cluster, &Canary::CLUSTER);
}

fn are_found(profile: Profile, canaries: &[Canary]) {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                while let Some(canary) = canaries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = (1..=SEEDS).find_map(|seed| {
                        let outcome = sweep::one(profile, seed, Faults::with(*canary));
                        outcome.violation.map(|violation| (seed, violation))
                    });
                    match found {
                        Some((seed, violation)) => {
                            println!("{canary:?}: seed {seed}: {violation}");
                        }
                        None => missed.lock().unwrap().push(*canary),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
