//! Whole clusters in one thread, on simulated time, network and disks: the production code of
//! everything above those seams, openraft included, under faults that follow from a seed.
//!
//! ```text
//!   seed ─▶ timeline (what goes wrong, when) ─▶ world ─┬─ host × n: executor, clock, device
//!                                                      ├─ net: ways between them
//!                                                      ├─ clients, operator
//!                                                      └─ oracle: what must hold
//! ```
//!
//! `scripts/sim.sh` runs many seeds; a failure says the seed and which faults it takes. The same
//! seed is the same run, to the last message.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::fn_params_excessive_bools,
    reason = "a test fails by panicking, this one makes the time that is banned elsewhere, and a claim takes a condition"
)]

mod ballot;
mod canaries;
mod chance;
mod clients;
mod device;
mod fitness;
mod host;
mod net;
mod operator;
mod oracle;
mod sweep;
mod timeline;
mod world;

use swarm::env::Faults;

/// How many seeds a plain `cargo test` tries; `scripts/sim.sh` tries more.
const SEEDS: u64 = 6;

#[test]
fn any_seed_keeps_the_promises_of_raft() {
    sweep::run(&sweep::Request::from_environment(SEEDS));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 1_004] {
        let (first, again) = (sweep::one(seed, Faults::NONE), sweep::one(seed, Faults::NONE));
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert_eq!(first.lasted, again.lasted, "seed {seed}");
    }
    let traces = [5, 6].map(|seed| sweep::one(seed, Faults::NONE).trace);
    assert_ne!(traces[0], traces[1], "a trace says nothing");
}
