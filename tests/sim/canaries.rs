//! Bugs made on purpose, to see that the simulation finds them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use swarm::env::{Canary, Faults};

use crate::sweep;

/// Seeds within which each must be found.
const SEEDS: u64 = 200;

#[test]
fn every_canary_is_found() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                while let Some(canary) = Canary::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = (1..=SEEDS).find_map(|seed| {
                        let outcome = sweep::one(seed, Faults::with(*canary));
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
