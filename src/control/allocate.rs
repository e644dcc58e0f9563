//! Addresses: every node's gateway in the default network, and every task's own.
//!
//! Next-fit: the search goes on where it last ended, so that an address that was given back rests for
//! as long as the network allows, and never less than `Timing::address_rest` while the record of its last task is
//! there. Tasks on the host's network (or none) get no address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::crew::Crew;
use super::pass::Pass;
use super::schedule::Usage;
use crate::domain::task::TaskAddress;
use crate::domain::{Meta, NetworkId, NetworkNode, TaskState};

pub(super) fn decide(pass: &mut Pass<'_>, crews: &mut [Crew]) {
    let mut given = Given::default();
    gateways(pass, &mut given);
    let waits = |crew: &Crew| crew.members.iter().any(|it| it.is_live() && it.task.node.is_none());
    if !crews.iter().any(waits) {
        return;
    }
    pass.usage = Some(Usage::new(pass, crews));
    for crew in crews {
        for place in 0..crew.members.len() {
            let member = &crew.members[place];
            if member.is_live() && member.task.status.state == TaskState::New {
                address(pass, crew, place, &mut given);
            }
        }
    }
}

/// What was given away in this pass, and which networks have nothing left.
#[derive(Default)]
struct Given {
    addresses: BTreeSet<(NetworkId, Ipv4Addr)>,
    full: BTreeSet<NetworkId>,
}

/// Gives every node its bridge in the default network; takes it from nodes that are gone.
fn gateways(pass: &mut Pass<'_>, given: &mut Given) {
    let Some(network) = pass.view.cluster.as_ref().map(|it| it.default_network) else { return };
    let mut has_part = BTreeSet::new();
    for part in pass.view.nodes_in(network) {
        has_part.insert(part.node);
        if pass.roster.place(part.node).is_none() {
            pass.parts_gone.push((network, part.node, part.meta.revision));
        }
    }
    let lacking: Vec<_> =
        pass.roster.iter().map(|node| node.id).filter(|id| !has_part.contains(id)).collect();
    for node in lacking {
        if let Some(gateway) = next(pass, network, given) {
            pass.parts.push(NetworkNode { network, node, meta: Meta::default(), gateway });
        }
    }
}

/// Gives a new task its addresses, all or none.
fn address(pass: &mut Pass<'_>, crew: &mut Crew, place: usize, given: &mut Given) {
    let version = crew.members[place].task.spec;
    let facts = crew.facts(pass, version);
    let mut addresses = Vec::with_capacity(facts.networks.len());
    for network in &facts.networks {
        let Some(addr) = next(pass, *network, given) else {
            refuse(pass, crew, place, *network);
            return;
        };
        addresses.push(TaskAddress { network: *network, addr: IpAddr::V4(addr) });
    }
    let now = pass.now;
    crew.edit(pass, place, |task| {
        task.addresses = addresses;
        task.status.state = TaskState::Pending;
        task.status.at = now;
        "pending task scheduling".clone_into(&mut task.status.message);
        task.status.error.clear();
    });
}

/// Tells why a task has no address, once.
fn refuse(pass: &mut Pass<'_>, crew: &mut Crew, place: usize, network: NetworkId) {
    let text = pass.view.networks.get(&network).map_or_else(
        || format!("network {network} not found"),
        |it| {
            format!("no address is left in network {} ({}): every one is taken", it.name, it.subnet)
        },
    );
    if let Some(until) = pass.usage.as_ref().and_then(|usage| usage.rests_until) {
        pass.wake(until, crew.key());
    }
    if crew.members[place].task.status.error != text {
        crew.edit(pass, place, |task| task.status.error = text);
    }
}

/// The next free address of a network.
fn next(pass: &mut Pass<'_>, id: NetworkId, given: &mut Given) -> Option<Ipv4Addr> {
    if given.full.contains(&id) {
        return None;
    }
    let network = match pass.networks.get(&id) {
        Some(network) => network,
        None => pass.view.networks.get(&id)?,
    };
    let usable = network.subnet.size().checked_sub(2).filter(|count| *count > 0)?;
    let start = network.cursor.saturating_sub(1) % usable;
    let found = (0..usable).find_map(|step| {
        let offset = (start + step) % usable + 1;
        let addr = network.subnet.nth(offset)?;
        let resting = pass.usage.as_ref().is_some_and(|it| it.rests(id, IpAddr::V4(addr)));
        let free = !resting
            && !given.addresses.contains(&(id, addr))
            && pass.view.address_owner(id, IpAddr::V4(addr)).is_none();
        free.then_some((addr, offset % usable + 1))
    });
    let Some((addr, cursor)) = found else {
        given.full.insert(id);
        return None;
    };
    if !pass.networks.contains_key(&id) {
        let network = Arc::clone(pass.view.networks.get(&id)?);
        pass.networks.insert(id, network);
    }
    let network = pass.networks.get_mut(&id)?;
    Arc::make_mut(network).cursor = cursor;
    given.addresses.insert((id, addr));
    Some(addr)
}
