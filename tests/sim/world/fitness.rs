//! A leader that is not fit, on purpose: does somebody else lead soon, and does the cluster mend?

use super::*;
use crate::timeline::Profile;

/// What befalls the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woe {
    /// Its disk answers after 25 seconds.
    DiskStandsStill,
    /// Its disk is full.
    DiskIsFull,
}

/// For how long somebody else may not lead.
const SOON: Duration = Duration::from_secs(15);

/// A run of three managers in which the leader is struck: after which time another one led (`None`
/// if none did soon), or what was violated.
pub(crate) fn strike_the_leader(
    seed: u64,
    woe: Woe,
    faults: Faults,
) -> Result<Option<Duration>, String> {
    let plan = Plan {
        profile: Profile::Raft,
        managers: 3,
        workers: 0,
        prefix: 16,
        clients: 2,
        faults: Vec::new(),
        lasts: Duration::ZERO,
    };
    let mut world = World::new(seed, plan, faults);
    world.found();
    world.has_clients = true;
    let handles: Vec<(Host, Handle)> = world.running().collect();
    for (host, handle) in handles {
        world.clients(host, &handle);
    }
    world.pass(Duration::from_secs(3));
    let Some(struck) = world.leader() else { return Err("nobody leads".to_owned()) };
    let device = world.servers[struck].device.clone();
    match woe {
        Woe::DiskStandsStill => device.set_latency(Some((25_000, 25_000))),
        Woe::DiskIsFull => device.set_full(true),
    }
    let began = world.now;
    let mut took = None;
    while took.is_none() && world.now < began + SOON && !world.has_failed() {
        world.pass(LOOK);
        took = world.leader().filter(|host| *host != struck).map(|_| world.now - began);
    }
    if took.is_some() {
        // The one that is not well does not come back to power by itself.
        world.pass(Duration::from_secs(10));
        if world.leader() == Some(struck) {
            return Err("the leader that was not fit leads again".to_owned());
        }
    }
    world.heal();
    world.pass(Duration::from_secs(3));
    world.is_over.store(true, Ordering::Relaxed);
    world.converge();
    world.conclude();
    let violation = world.oracle.lock().unwrap().violation().map(ToString::to_string);
    violation.map_or(Ok(took), Err)
}

impl World {
    fn leader(&self) -> Option<Host> {
        // Of two that say so, the one of the later term: the other has not heard of it yet.
        let led = self.running().filter_map(|(host, handle)| {
            let now = *handle.store().leadership().borrow();
            now.is_self.then_some((now.term, host))
        });
        led.max().map(|(_, host)| host)
    }
}
