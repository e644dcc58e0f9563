//! An immutable snapshot of the state and its queries. O(1) to take and to clone.

use std::ops::Deref;
use std::sync::Arc;

use super::State;
use super::rows::index_name;
use crate::domain::node::{ManagerStatus, Membership};
use crate::domain::service::VersionNumber;
use crate::domain::{
    Config, Format, Network, NetworkId, NetworkNode, Node, NodeId, Secret, Service, ServiceId,
    ServiceSpec, SpecVersion, Task, TaskId,
};

/// A snapshot of the state for readers. Dereferences to [`State`], whose tables are its rows.
#[derive(Clone, Debug, Default)]
pub struct View {
    state: Arc<State>,
}

impl View {
    /// A view of a state.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { state: Arc::new(state) }
    }

    /// A state that can be changed, for scratch work. O(1).
    #[must_use]
    pub fn scratch(&self) -> State {
        (*self.state).clone()
    }
}

impl Deref for View {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl State {
    /// The format that everything is written in: what may be used is `format().has(…)`.
    #[must_use]
    pub fn format(&self) -> Format {
        self.cluster.as_ref().map_or(Format::FIRST, |cluster| cluster.format)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// A service.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// The service with a name. Case does not matter in names, here and below.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.service_names.get(&index_name(name)).and_then(|id| self.services.get(&**id))
    }

    /// The secret with a name.
    #[must_use]
    pub fn secrets_named(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secret_names.get(&index_name(name)).and_then(|id| self.secrets.get(&**id))
    }

    /// The config with a name.
    #[must_use]
    pub fn configs_named(&self, name: &str) -> Option<&Arc<Config>> {
        self.config_names.get(&index_name(name)).and_then(|id| self.configs.get(&**id))
    }

    /// The network with a name.
    #[must_use]
    pub fn networks_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.network_names.get(&index_name(name)).and_then(|id| self.networks.get(&**id))
    }

    /// The nodes that are, or are about to be, in the Raft group, with their part in it.
    pub fn managers(&self) -> impl Iterator<Item = (&Arc<Node>, ManagerStatus)> {
        self.nodes.values().filter_map(|node| {
            let manager = node.manager.filter(|it| it.membership != Membership::Removed)?;
            Some((node, manager))
        })
    }

    /// The cluster networks that a spec's tasks join: the default network if it names none; those it
    /// names otherwise, as far as they exist. `host` and `none` are the engine's own, not here.
    #[must_use]
    pub fn networks_of(&self, spec: &ServiceSpec) -> Vec<NetworkId> {
        let template = &spec.task_template.networks;
        let named = if template.is_empty() { &spec.networks } else { template };
        if named.is_empty() {
            return self.cluster.iter().map(|cluster| cluster.default_network).collect();
        }
        let mut networks: Vec<_> =
            named.iter().filter_map(|it| self.network_by_target(&it.target)).collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }

    /// The network that a user means by a name or an id.
    #[must_use]
    pub fn network_by_target(&self, target: &str) -> Option<NetworkId> {
        if let Some(network) = self.networks_named(target) {
            return Some(network.id);
        }
        target.parse().ok().filter(|id| self.networks.get(id).is_some())
    }

    /// A version of a service's spec.
    #[must_use]
    pub fn spec(&self, service: ServiceId, number: VersionNumber) -> Option<&Arc<SpecVersion>> {
        self.specs.get(&(service, number))
    }

    /// The spec that the user wants now.
    #[must_use]
    pub fn current_spec(&self, service: &Service) -> Option<&Arc<ServiceSpec>> {
        self.spec(service.id, service.current).map(|version| &version.spec)
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// The tasks of a service, in the order of their ids.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let first = (service, TaskId::from_bytes([0; 16]));
        let last = (service, TaskId::from_bytes([0xff; 16]));
        self.tasks_by_service.range(first..=last).map(|(_, task)| task)
    }

    /// The tasks on a node, in the order of their ids.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        let first = (node, TaskId::from_bytes([0; 16]));
        let last = (node, TaskId::from_bytes([0xff; 16]));
        self.tasks_by_node.range(first..=last).map(|(_, task)| task)
    }

    /// The nodes' parts in a network.
    pub fn nodes_in(&self, network: NetworkId) -> impl Iterator<Item = &Arc<NetworkNode>> {
        let first = (network, NodeId::from_bytes([0; 16]));
        let last = (network, NodeId::from_bytes([0xff; 16]));
        self.network_nodes.range(first..=last).map(|(_, part)| part)
    }
}
