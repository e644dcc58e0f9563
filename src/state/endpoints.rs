//! Derived: what the assignment sets of all nodes share. Chiefly the endpoint sets, one per network
//! and service, but networks and peers too. Computed once per view; what has not changed keeps its
//! pointer, so that comparing and encoding it again costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::View;
use crate::domain::assignment::Peer;
use crate::domain::endpoint::{Endpoint, EndpointSet};
use crate::domain::node::Reachability;
use crate::domain::{
    Meta, Network, NetworkId, Node, NodeId, Service, ServiceId, ServiceSpec, Task, TaskState,
};

/// What the assignment sets derived from one view share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointIndex {
    sets: BTreeMap<(NetworkId, ServiceId), Arc<EndpointSet>>,
    networks: BTreeMap<NetworkId, Arc<Network>>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
}

impl EndpointIndex {
    /// The endpoint set of a service on a network.
    #[must_use]
    pub fn get(&self, network: NetworkId, service: ServiceId) -> Option<&Arc<EndpointSet>> {
        self.sets.get(&(network, service))
    }

    /// All endpoint sets of a network, in the order of their services.
    pub fn on(&self, network: NetworkId) -> impl Iterator<Item = &Arc<EndpointSet>> {
        let first = (network, ServiceId::from_bytes([0; 16]));
        let last = (network, ServiceId::from_bytes([0xff; 16]));
        self.sets.range(first..=last).map(|(_, set)| set)
    }

    /// A network as agents see it: without what changes with every allocation.
    #[must_use]
    pub fn network(&self, network: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&network)
    }

    /// A node as other nodes see it; `None` until its address is known.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<&Arc<Peer>> {
        self.peers.get(&node)
    }
}

/// Computes the index of a view. What equals its counterpart in `previous` is taken from there.
///
/// Every service has a set on each network it joins, even without tasks: its name exists.
#[must_use]
pub fn all(view: &View, previous: Option<&EndpointIndex>) -> EndpointIndex {
    let mut sets = BTreeMap::new();
    for service in view.services.values() {
        for set in sets_of(view, service) {
            sets.insert((set.network, set.service), Arc::new(set));
        }
    }
    let networks = view.networks.iter().map(|(id, it)| (*id, Arc::new(stable(it)))).collect();
    let peers = view.nodes.values().filter_map(|node| Some((node.id, Arc::new(peer(node)?))));
    let mut index = EndpointIndex { sets, networks, peers: peers.collect() };
    if let Some(previous) = previous {
        share(&mut index.sets, &previous.sets);
        share(&mut index.networks, &previous.networks);
        share(&mut index.peers, &previous.peers);
    }
    index
}

fn share<K: Ord, V: PartialEq>(new: &mut BTreeMap<K, Arc<V>>, old: &BTreeMap<K, Arc<V>>) {
    for (key, value) in new {
        if let Some(known) = old.get(key).filter(|known| *known == value) {
            *value = Arc::clone(known);
        }
    }
}

fn stable(network: &Network) -> Network {
    let revision = network.meta.spec_revision;
    let meta = Meta { revision, updated_at: network.meta.created_at, ..network.meta };
    Network { meta, cursor: 0, ..network.clone() }
}

fn peer(node: &Node) -> Option<Peer> {
    let hostname = node.description.as_ref().map(|it| it.hostname.clone()).unwrap_or_default();
    Some(Peer { node: node.id, hostname, addr: node.status.addr? })
}

fn sets_of(view: &View, service: &Service) -> Vec<EndpointSet> {
    let Some(spec) = view.current_spec(service) else { return Vec::new() };
    let mut endpoints: BTreeMap<NetworkId, Vec<Endpoint>> = BTreeMap::new();
    for network in view.networks_of(spec) {
        endpoints.entry(network).or_default();
    }
    for task in view.tasks_of(service.id) {
        let Some(node) = task.node.filter(|_| !task.status.state.is_terminal()) else { continue };
        let serving = is_serving(view, service, task, node);
        for it in &task.addresses {
            let (slot, addr) = (task.slot, it.addr);
            let endpoint = Endpoint { task: task.id, slot, node, addr, serving };
            endpoints.entry(it.network).or_default().push(endpoint);
        }
    }
    endpoints.into_iter().map(|(network, list)| set(view, service, spec, (network, list))).collect()
}

/// Names resolve to a task that runs and shall run, on a node that can be reached.
fn is_serving(view: &View, service: &Service, task: &Task, node: NodeId) -> bool {
    let reachable =
        view.node(node).is_some_and(|node| node.status.reachability == Reachability::Reachable);
    let running = task.status.state == TaskState::Running && task.desired == TaskState::Running;
    running && reachable && !service.removing
}

fn set(
    view: &View,
    service: &Service,
    spec: &ServiceSpec,
    (network, mut endpoints): (NetworkId, Vec<Endpoint>),
) -> EndpointSet {
    endpoints.sort_by_key(|it| (it.slot, it.task));
    let template = &spec.task_template.networks;
    let attachments = if template.is_empty() { &spec.networks } else { template };
    let aliases = attachments
        .iter()
        .filter(|it| view.network_by_target(&it.target) == Some(network))
        .flat_map(|it| it.aliases.iter().cloned())
        .collect();
    let endpoint = spec.endpoint_spec.as_ref();
    EndpointSet {
        network,
        service: service.id,
        name: service.name.clone(),
        aliases,
        mode: endpoint.and_then(|it| it.mode).unwrap_or_default(),
        ports: endpoint.map(|it| it.ports.clone()).unwrap_or_default(),
        endpoints,
    }
}
