//! Leaders that are not fit to lead give leadership up.

use swarm::env::{Canary, Faults};

use crate::world::{Woe, strike_the_leader};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=6;

#[test]
fn a_leader_whose_disk_stands_still_or_is_full_is_replaced() {
    for woe in [Woe::DiskStandsStill, Woe::DiskIsFull] {
        for seed in SEEDS.take(4) {
            let took = strike_the_leader(seed, woe, Faults::NONE);
            let took = took.unwrap_or_else(|violation| panic!("{woe:?}, seed {seed}: {violation}"));
            assert!(took.is_some(), "{woe:?}, seed {seed}: nobody else leads");
        }
    }
}

/// The canary of this check: it would notice a leader that stays.
#[test]
fn a_leader_that_stays_although_it_is_not_fit_is_noticed() {
    let blind = Faults::with(Canary::UnfitLeaderStays);
    for woe in [Woe::DiskStandsStill, Woe::DiskIsFull] {
        let mut seeds = SEEDS;
        let stays = seeds.any(|seed| strike_the_leader(seed, woe, blind) == Ok(None));
        assert!(stays, "{woe:?}: the check does not need what it checks");
    }
}
