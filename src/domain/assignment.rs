//! A node's whole desired world, and the differences by which it travels.
//!
//! Law: `absorb(a, diff(a, b)) = b`. Items are shared (`Arc`) and compared by pointer first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::endpoint::EndpointSet;
use super::service::VersionNumber;
use super::{
    Config, ConfigId, Network, NetworkId, NetworkNode, NodeId, Position, Secret, SecretId,
    ServiceId, SpecVersion, Task, TaskId,
};

/// Everything a node must have, as of one position of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssignmentSet {
    /// The last entry applied in the view that this was derived from.
    pub position: Position,
    /// The items, by key.
    pub items: BTreeMap<ItemKey, Item>,
}

/// Names an item of an assignment set. The order of kinds is the order of their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKey {
    /// A task of this node.
    Task(TaskId),
    /// A spec version that a task of this node runs.
    SpecVersion(ServiceId, VersionNumber),
    /// A secret that a task of this node uses.
    Secret(SecretId),
    /// A config that a task of this node uses.
    Config(ConfigId),
    /// A network this node takes part in.
    Network(NetworkId),
    /// A node's gateway in such a network (this node's own, too).
    NetworkNode(NetworkId, NodeId),
    /// A node that shares a network with this one (this node too).
    Peer(NodeId),
    /// What a service's name stands for on such a network.
    Endpoints(NetworkId, ServiceId),
}

/// An item of an assignment set.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A task of this node.
    Task(Arc<Task>),
    /// The spec it runs.
    SpecVersion(Arc<SpecVersion>),
    /// A secret it uses.
    Secret(Arc<Secret>),
    /// A config it uses.
    Config(Arc<Config>),
    /// A network.
    Network(Arc<Network>),
    /// A gateway.
    NetworkNode(Arc<NetworkNode>),
    /// A node.
    Peer(Arc<Peer>),
    /// A name.
    Endpoints(Arc<EndpointSet>),
}

/// What a node must know of another that shares a network with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its host name.
    pub hostname: String,
    /// Where its VXLAN is.
    pub addr: IpAddr,
}

/// What changes between two assignment sets.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignmentDiff {
    /// The position it starts from; `None` for a complete set that replaces everything.
    pub from: Option<Position>,
    /// The position it leads to.
    pub to: Position,
    /// Items that are new or different.
    pub put: Vec<Item>,
    /// Items that are gone.
    pub remove: Vec<ItemKey>,
}

impl Item {
    /// The key under which the item is kept.
    #[must_use]
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Task(task) => ItemKey::Task(task.id),
            Self::SpecVersion(version) => ItemKey::SpecVersion(version.service, version.number),
            Self::Secret(secret) => ItemKey::Secret(secret.id),
            Self::Config(config) => ItemKey::Config(config.id),
            Self::Network(network) => ItemKey::Network(network.id),
            Self::NetworkNode(part) => ItemKey::NetworkNode(part.network, part.node),
            Self::Peer(peer) => ItemKey::Peer(peer.node),
            Self::Endpoints(set) => ItemKey::Endpoints(set.network, set.service),
        }
    }

    /// Whether two items are the same, by pointer where they are shared, by value otherwise.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Task(a), Self::Task(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::SpecVersion(a), Self::SpecVersion(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Secret(a), Self::Secret(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Config(a), Self::Config(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Network(a), Self::Network(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::NetworkNode(a), Self::NetworkNode(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Peer(a), Self::Peer(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::Endpoints(a), Self::Endpoints(b)) => Arc::ptr_eq(a, b) || a == b,
            (a, b) => a.key() == b.key() && a == b,
        }
    }
}

impl AssignmentSet {
    /// An empty set at a position.
    #[must_use]
    pub const fn at(position: Position) -> Self {
        Self { position, items: BTreeMap::new() }
    }

    /// A set of items; of two with one key the later one. Quick where the items are in order.
    #[must_use]
    pub fn of(position: Position, items: impl IntoIterator<Item = Item>) -> Self {
        let items = items.into_iter().map(|item| (item.key(), item)).collect();
        Self { position, items }
    }

    /// Adds or replaces an item.
    pub fn insert(&mut self, item: Item) {
        self.items.insert(item.key(), item);
    }

    /// The tasks of the node.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.items.values().filter_map(|item| match item {
            Item::Task(task) => Some(task),
            Item::SpecVersion(_)
            | Item::Secret(_)
            | Item::Config(_)
            | Item::Network(_)
            | Item::NetworkNode(_)
            | Item::Peer(_)
            | Item::Endpoints(_) => None,
        })
    }

    /// The task with an id.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        match self.items.get(&ItemKey::Task(id)) {
            Some(Item::Task(task)) => Some(task),
            _ => None,
        }
    }

    /// The spec version that a task runs.
    #[must_use]
    pub fn spec(&self, service: ServiceId, number: VersionNumber) -> Option<&Arc<SpecVersion>> {
        match self.items.get(&ItemKey::SpecVersion(service, number)) {
            Some(Item::SpecVersion(version)) => Some(version),
            _ => None,
        }
    }

    /// The secret with an id.
    #[must_use]
    pub fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        match self.items.get(&ItemKey::Secret(id)) {
            Some(Item::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// The config with an id.
    #[must_use]
    pub fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        match self.items.get(&ItemKey::Config(id)) {
            Some(Item::Config(config)) => Some(config),
            _ => None,
        }
    }

    /// The networks the node takes part in.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.items.values().filter_map(|item| match item {
            Item::Network(network) => Some(network),
            _ => None,
        })
    }

    /// The gateways of all nodes in all networks the node takes part in.
    pub fn network_nodes(&self) -> impl Iterator<Item = &Arc<NetworkNode>> {
        self.items.values().filter_map(|item| match item {
            Item::NetworkNode(part) => Some(part),
            _ => None,
        })
    }

    /// A node's part in a network.
    #[must_use]
    pub fn network_node(&self, network: NetworkId, node: NodeId) -> Option<&Arc<NetworkNode>> {
        match self.items.get(&ItemKey::NetworkNode(network, node)) {
            Some(Item::NetworkNode(part)) => Some(part),
            _ => None,
        }
    }

    /// A node that shares a network.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<&Arc<Peer>> {
        match self.items.get(&ItemKey::Peer(node)) {
            Some(Item::Peer(peer)) => Some(peer),
            _ => None,
        }
    }

    /// What names stand for.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointSet>> {
        self.items.values().filter_map(|item| match item {
            Item::Endpoints(set) => Some(set),
            _ => None,
        })
    }

    /// What leads from this set to `next`.
    #[must_use]
    pub fn diff(&self, next: &Self) -> AssignmentDiff {
        // Both are in order, and most of both is the same: a step each, where a look-up would be one of many.
        let mut known = self.items.iter().peekable();
        let (mut put, mut remove) = (Vec::new(), Vec::new());
        for (key, item) in &next.items {
            while let Some((gone, _)) = known.next_if(|(known, _)| *known < key) {
                remove.push(*gone);
            }
            let before = known.next_if(|(known, _)| *known == key);
            if before.is_none_or(|(_, before)| !before.same(item)) {
                put.push(item.clone());
            }
        }
        remove.extend(known.map(|(gone, _)| *gone));
        AssignmentDiff { from: Some(self.position), to: next.position, put, remove }
    }

    /// The whole set as one message.
    #[must_use]
    pub fn complete(&self) -> AssignmentDiff {
        AssignmentDiff {
            from: None,
            to: self.position,
            put: self.items.values().cloned().collect(),
            remove: Vec::new(),
        }
    }

    /// The set after a difference.
    ///
    /// # Errors
    /// When the difference starts from a position that is not this set's, or leads back.
    pub fn absorb(&self, diff: AssignmentDiff) -> Result<Self, OutOfSequence> {
        let expected = diff.from.is_none_or(|from| from == self.position);
        if !expected || diff.to < self.position {
            return Err(OutOfSequence { known: self.position, from: diff.from, to: diff.to });
        }
        let mut items = if diff.from.is_some() { self.items.clone() } else { BTreeMap::new() };
        for key in &diff.remove {
            items.remove(key);
        }
        items.extend(diff.put.into_iter().map(|item| (item.key(), item)));
        Ok(Self { position: diff.to, items })
    }
}

impl AssignmentDiff {
    /// Whether nothing changes but the position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.is_some() && self.put.is_empty() && self.remove.is_empty()
    }
}

/// A difference that does not fit to the set it was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("assignments from {from:?} to {to:?} do not follow {known:?}")]
pub struct OutOfSequence {
    /// What is known.
    pub known: Position,
    /// Where the difference starts.
    pub from: Option<Position>,
    /// Where it leads.
    pub to: Position,
}
