//! Chaos on real processes: clients work on a cluster of the lab while faults come and go; then all
//! heals, and what the clients saw must be linearizable, what was acknowledged must be there, and no
//! container may have been touched that a fault did not reach.
//!
//! `scripts/chaos.sh` is how it is run. A seed draws the faults and what each client does; what
//! happens between processes is not repeated to the message, as it is in the simulation, but the
//! same timeline meets the same cluster again.

mod clients;
pub(crate) mod dice;
pub(crate) mod http;
mod linear;
mod run;
mod timeline;

use std::time::Duration;

use timeline::Kind;

/// What is run, from the environment (`scripts/chaos.sh` sets it).
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

#[test]
fn chaos_leaves_what_was_promised() {
    let Some(minutes) = variable("CHAOS_MINUTES") else {
        println!("SKIPPED: ./scripts/chaos.sh runs this");
        return;
    };
    let minutes: f64 = minutes.parse().expect("--minutes: a number");
    let seed: u64 =
        variable("CHAOS_SEED").map_or(1, |text| text.parse().expect("--seed: a number"));
    let kinds: Vec<Kind> = match variable("CHAOS_ONLY") {
        None => Kind::ALL.to_vec(),
        Some(list) => list.split(',').map(kind).collect(),
    };
    run::run(seed, Duration::from_secs_f64(minutes * 60.0), &kinds);
}

fn kind(name: &str) -> Kind {
    let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.unwrap_or_else(|| panic!("there is no fault {name:?}; there are {}", known.join(", ")))
}
