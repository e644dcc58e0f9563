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
mod cluster;
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
use timeline::Profile;

/// How many seeds a plain `cargo test` tries; `scripts/sim.sh` tries more.
const SEEDS: u64 = 6;
const CLUSTER_SEEDS: u64 = 2;

#[test]
fn any_seed_keeps_the_promises_of_raft() {
    sweep::run(&sweep::Request::from_environment(Profile::Raft, SEEDS));
}

#[test]
fn any_seed_keeps_the_promises_of_a_cluster() {
    sweep::run(&sweep::Request::from_environment(Profile::Cluster, CLUSTER_SEEDS));
}

#[test]
fn a_big_cluster_keeps_them_too() {
    if std::env::var("SIM_PROFILE").as_deref() != Ok("big") {
        println!("SKIPPED: takes minutes; ./scripts/sim.sh --profile big runs it");
        return;
    }
    sweep::run(&sweep::Request::from_environment(Profile::Big, 1));
}

fn is_repeated(profile: Profile, seed: u64) -> u64 {
    let run = || sweep::one(profile, seed, Faults::NONE);
    let (first, again) = (run(), run());
    assert_eq!(first.trace, again.trace, "{profile:?}, seed {seed}");
    assert_eq!(first.lasted, again.lasted, "{profile:?}, seed {seed}");
    first.trace
}

#[test]
fn the_same_seed_is_the_same_run() {
    let traces = [3, 1_004].map(|seed| is_repeated(Profile::Raft, seed));
    assert_ne!(traces[0], traces[1], "a trace says nothing");
}

#[test]
fn the_same_seed_is_the_same_run_of_a_cluster() {
    is_repeated(Profile::Cluster, 3);
}
