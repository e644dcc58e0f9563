//! An immutable snapshot of the state and its queries. O(1) to take and to clone.

use std::ops::Deref;
use std::sync::Arc;

use super::State;
use crate::domain::service::VersionNumber;
use crate::domain::{
    NetworkId, NetworkNode, Node, NodeId, Service, ServiceId, ServiceSpec, SpecVersion, Task,
    TaskId,
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

    /// The service with a name.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.service_names.get(name).and_then(|id| self.services.get(&**id))
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
