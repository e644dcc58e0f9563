//! What names stand for on this node, and who may ask for them; pure.
//!
//! Names, all without regard to case, each also with `.<network>` behind it:
//!
//! | name | answer |
//! |---|---|
//! | `web`, its aliases, `tasks.web` | addresses of all tasks that serve |
//! | `web.1`, `web.<node id>` (global) | the task of that slot |
//! | `web.1.<task id>` | that task (also the answer to PTR, with the network) |
//! | `_8080._tcp.web`, `_<port name>._tcp.web` | SRV: target port of a published port, per task |
//!
//! A task serves when the managers say so and this node knows nothing worse. The name of a service
//! without such tasks still exists: it has no addresses (NOERROR, never NXDOMAIN and never upstream).
//! Virtual addresses do not exist yet, so endpoint mode `vip` answers like `dnsrr`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::domain::endpoint::{Endpoint, EndpointSet};
use crate::domain::network::Subnet;
use crate::domain::task::Slot;
use crate::domain::{AssignmentSet, NetworkId, NodeId, TaskId};

/// All names of a node, by network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    networks: BTreeMap<NetworkId, Names>,
    /// Networks of the tasks of this node, by address.
    clients: BTreeMap<IpAddr, BTreeSet<NetworkId>>,
    /// Addresses of the node itself.
    host: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    /// `.<network>`, in lower case.
    suffix: String,
    subnet: Option<Subnet>,
    entries: BTreeMap<String, Entry>,
    /// Names of tasks by address.
    reverse: BTreeMap<IpAddr, String>,
}

/// What a name stands for. Without addresses and services: the name exists and has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Ports, and the names of the tasks that have them.
    pub(super) services: BTreeSet<(u16, String)>,
}

/// Which networks a client may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight<'a> {
    networks: BTreeMap<NetworkId, &'a Names>,
}

/// The name of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reverse {
    /// A task's, in lower case, with its network.
    Name(String),
    /// An address of a network of ours that has no name, or none for this client.
    Nobody,
    /// Not ours.
    Elsewhere,
}

impl Zone {
    /// The names of an assignment set, without the tasks that are `false` in `local`.
    pub(super) fn new(set: &AssignmentSet, me: NodeId, local: &BTreeMap<TaskId, bool>) -> Self {
        let mut zone = Self::default();
        zone.host.extend(set.peer(me).map(|peer| peer.addr));
        for network in set.networks() {
            let suffix = format!(".{}", network.name.to_ascii_lowercase());
            let names = Names { suffix, subnet: Some(network.subnet), ..Names::default() };
            zone.networks.insert(network.id, names);
            let part = set.network_node(network.id, me);
            zone.host.extend(part.map(|part| IpAddr::V4(part.gateway)));
        }
        for task in set.tasks() {
            let networks: BTreeSet<_> = task.addresses.iter().map(|addr| addr.network).collect();
            for address in &task.addresses {
                zone.clients.insert(address.addr, networks.clone());
            }
        }
        for endpoints in set.endpoints() {
            if let Some(names) = zone.networks.get_mut(&endpoints.network) {
                names.add(endpoints, local);
            }
        }
        zone
    }

    /// What a client sees: a task its networks, the node itself all; `None` for anybody else.
    pub(super) fn sight(&self, client: IpAddr) -> Option<Sight<'_>> {
        let seen = |wanted: &dyn Fn(&NetworkId, &Names) -> bool| {
            let networks = self.networks.iter().filter(|(id, names)| wanted(id, names));
            Sight { networks: networks.map(|(id, names)| (*id, names)).collect() }
        };
        if client.is_loopback() || self.host.contains(&client) {
            return Some(seen(&|_, _| true));
        }
        if let Some(networks) = self.clients.get(&client) {
            return Some(seen(&|id, _| networks.contains(id)));
        }
        // A container of a network that we do not know (any more) as a task: this network only.
        let sight = seen(&|_, names| names.holds(client));
        (!sight.networks.is_empty()).then_some(sight)
    }

    /// Whether an address is one of the node itself, and so no name server to forward to.
    pub(super) fn is_own(&self, addr: IpAddr) -> bool {
        self.host.contains(&addr)
    }

    /// The name of an address for a client.
    pub(super) fn reverse(&self, sight: &Sight<'_>, addr: IpAddr) -> Reverse {
        let known = sight.networks.values().find_map(|names| {
            names.reverse.get(&addr).map(|name| Reverse::Name(format!("{name}{}", names.suffix)))
        });
        let ours = self.networks.values().any(|names| names.holds(addr));
        known.unwrap_or(if ours { Reverse::Nobody } else { Reverse::Elsewhere })
    }
}

impl Sight<'_> {
    /// What a name (lower case, no final dot) stands for; `None` if it is no name of ours.
    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        let mut found: Option<Entry> = None;
        for names in self.networks.values() {
            let short = name.strip_suffix(names.suffix.as_str());
            let entries = [Some(name), short].into_iter().flatten();
            for entry in entries.filter_map(|name| names.entries.get(name)) {
                let sum = found.get_or_insert_default();
                sum.addresses.extend(&entry.addresses);
                sum.services.extend(entry.services.iter().cloned());
            }
        }
        found
    }
}

impl Names {
    fn holds(&self, addr: IpAddr) -> bool {
        let inside = |addr: Ipv4Addr| self.subnet.is_some_and(|net| net.offset(addr).is_some());
        match addr {
            IpAddr::V4(addr) => inside(addr),
            IpAddr::V6(_) => false,
        }
    }

    fn add(&mut self, set: &EndpointSet, local: &BTreeMap<TaskId, bool>) {
        let service = set.name.to_ascii_lowercase();
        let aliases = set.aliases.iter().map(|alias| alias.to_ascii_lowercase());
        let shared: Vec<String> =
            aliases.chain([service.clone(), format!("tasks.{service}")]).collect();
        let ports: BTreeSet<(String, u16)> = set
            .ports
            .iter()
            .flat_map(|port| {
                let protocol = port.protocol.as_str();
                let named = (!port.name.is_empty()).then(|| port.name.to_ascii_lowercase());
                let labels = [Some(port.target_port.to_string()), named].into_iter().flatten();
                let name = |label| format!("_{label}._{protocol}.{service}");
                labels.map(name).map(|name| (name, port.target_port)).collect::<Vec<_>>()
            })
            .collect();
        for name in shared.iter().chain(ports.iter().map(|(name, _)| name)) {
            self.entries.entry(name.clone()).or_default();
        }
        for endpoint in &set.endpoints {
            let (slot, task) = names_of(&service, endpoint);
            self.reverse.insert(endpoint.addr, task.clone());
            let serves = endpoint.serving && local.get(&endpoint.task) != Some(&false);
            for name in shared.iter().chain([&slot, &task]) {
                let entry = self.entries.entry(name.clone()).or_default();
                entry.addresses.extend(serves.then_some(endpoint.addr));
            }
            for (name, port) in ports.iter().filter(|_| serves) {
                let entry = self.entries.entry(name.clone()).or_default();
                entry.services.insert((*port, task.clone()));
            }
        }
    }
}

/// A task's names: of its slot, and its own.
fn names_of(service: &str, endpoint: &Endpoint) -> (String, String) {
    let slot = match endpoint.slot {
        Slot::Number(number) => format!("{service}.{number}"),
        Slot::Node(node) => format!("{service}.{node}"),
    };
    let task = format!("{slot}.{}", endpoint.task);
    (slot, task)
}

#[cfg(test)]
pub(super) mod tests;
