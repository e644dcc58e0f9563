//! Which addresses of a network are taken, and where the next free one is.

use std::net::{IpAddr, Ipv4Addr};

use super::State;
use crate::domain::{Network, NetworkId, NodeId, TaskId};

/// Who has an address on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOwner {
    /// A task that has not ended.
    Task(TaskId),
    /// A node: its bridge.
    Gateway(NodeId),
}

impl State {
    /// Who has an address; `None` if it is free.
    #[must_use]
    pub fn address_owner(&self, network: NetworkId, addr: IpAddr) -> Option<AddressOwner> {
        self.addresses.get(&(network, addr)).map(|owner| **owner)
    }

    /// The addresses that are taken on a network, in order.
    pub fn addresses_taken(
        &self,
        network: NetworkId,
    ) -> impl Iterator<Item = (IpAddr, AddressOwner)> + '_ {
        let first = (network, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let last = (network, IpAddr::V6([0xffff; 8].into()));
        self.addresses.range(first..=last).map(|((_, addr), owner)| (*addr, **owner))
    }

    /// The first free address of a network from its cursor on, and the cursor behind it (next-fit, so
    /// that an address that was given back rests for as long as possible). `None` when all are taken.
    /// The first (network) and last (broadcast) address are never given.
    #[must_use]
    pub fn free_address(&self, network: &Network) -> Option<(Ipv4Addr, u64)> {
        let usable = network.subnet.size().checked_sub(2).filter(|count| *count > 0)?;
        let start = network.cursor.saturating_sub(1) % usable;
        // Never more steps than addresses taken, plus one.
        (0..usable).find_map(|step| {
            let offset = (start + step) % usable + 1;
            let addr = network.subnet.nth(offset)?;
            let free = self.address_owner(network.id, IpAddr::V4(addr)).is_none();
            free.then_some((addr, offset % usable + 1))
        })
    }
}
