//! Reading and writing rows by object, with every derived index kept in step. No checks here: those
//! are `rules`' business, and rows of a snapshot passed them once.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::AddressOwner;
use super::{Object, ObjectKey, State};
use crate::domain::service::{PortConfig, Protocol};
use crate::domain::{NodeId, Position, Task, TaskId, Timestamp};

impl State {
    /// The state made of the objects of a snapshot, in any order.
    pub fn restore(
        position: Position,
        clock: Timestamp,
        objects: impl IntoIterator<Item = Object>,
    ) -> Self {
        let mut state = Self { position, clock, ..Self::default() };
        let mut tasks = Vec::new();
        for object in objects {
            // A task takes host ports by its spec version, which must be there first.
            if matches!(object, Object::Task(_)) {
                tasks.push(object);
            } else {
                state.store(object);
            }
        }
        for task in tasks {
            state.store(task);
        }
        state
    }

    /// All objects, kind by kind in the order of their keys: what a snapshot holds.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        cluster
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.specs.values().cloned().map(Object::SpecVersion))
            .chain(self.tasks.values().cloned().map(Object::Task))
            .chain(self.networks.values().cloned().map(Object::Network))
            .chain(self.network_nodes.values().cloned().map(Object::NetworkNode))
            .chain(self.secrets.values().cloned().map(Object::Secret))
            .chain(self.configs.values().cloned().map(Object::Config))
    }

    /// The object with a key.
    #[must_use]
    pub fn object(&self, key: &ObjectKey) -> Option<Object> {
        match key {
            ObjectKey::Cluster => self.cluster.clone().map(Object::Cluster),
            ObjectKey::Node(id) => self.nodes.get(id).cloned().map(Object::Node),
            ObjectKey::Service(id) => self.services.get(id).cloned().map(Object::Service),
            ObjectKey::SpecVersion(id, number) => {
                self.specs.get(&(*id, *number)).cloned().map(Object::SpecVersion)
            }
            ObjectKey::Task(id) => self.tasks.get(id).cloned().map(Object::Task),
            ObjectKey::Network(id) => self.networks.get(id).cloned().map(Object::Network),
            ObjectKey::NetworkNode(network, node) => {
                self.network_nodes.get(&(*network, *node)).cloned().map(Object::NetworkNode)
            }
            ObjectKey::Secret(id) => self.secrets.get(id).cloned().map(Object::Secret),
            ObjectKey::Config(id) => self.configs.get(id).cloned().map(Object::Config),
        }
    }

    /// Adds or replaces a row.
    pub(super) fn store(&mut self, object: Object) {
        match object {
            Object::Cluster(row) => self.cluster = Some(row),
            Object::Node(row) => {
                self.nodes.insert(row.id, row);
            }
            Object::Service(row) => {
                let (id, name) = (row.id, row.name.clone());
                let old = self.services.insert(id, row);
                rename(&mut self.service_names, old.map(|old| old.name.clone()), &name, id);
            }
            Object::SpecVersion(row) => {
                self.specs.insert((row.service, row.number), row);
            }
            Object::Task(row) => self.store_task(row),
            Object::Network(row) => {
                let (id, name) = (row.id, row.name.clone());
                let old = self.networks.insert(id, row);
                rename(&mut self.network_names, old.map(|old| old.name.clone()), &name, id);
            }
            Object::NetworkNode(row) => {
                let owner = Arc::new(AddressOwner::Gateway(row.node));
                self.addresses.insert((row.network, IpAddr::V4(row.gateway)), owner);
                self.network_nodes.insert((row.network, row.node), row);
            }
            Object::Secret(row) => {
                let (id, name) = (row.id, row.spec.name.clone());
                let old = self.secrets.insert(id, row);
                rename(&mut self.secret_names, old.map(|old| old.spec.name.clone()), &name, id);
            }
            Object::Config(row) => {
                let (id, name) = (row.id, row.spec.name.clone());
                let old = self.configs.insert(id, row);
                rename(&mut self.config_names, old.map(|old| old.spec.name.clone()), &name, id);
            }
        }
    }

    /// Removes a row.
    pub(super) fn erase(&mut self, key: &ObjectKey) {
        match key {
            ObjectKey::Cluster => self.cluster = None,
            ObjectKey::Node(id) => {
                self.nodes.remove(id);
            }
            ObjectKey::Service(id) => {
                if let Some(old) = self.services.remove(id) {
                    self.service_names.remove(&index_name(&old.name));
                }
            }
            ObjectKey::SpecVersion(id, number) => {
                self.specs.remove(&(*id, *number));
            }
            ObjectKey::Task(id) => {
                if let Some(old) = self.tasks.remove(id) {
                    self.release(&old);
                    self.tasks_by_service.remove(&(old.service, old.id));
                    if let Some(node) = old.node {
                        self.tasks_by_node.remove(&(node, old.id));
                    }
                }
            }
            ObjectKey::Network(id) => {
                if let Some(old) = self.networks.remove(id) {
                    self.network_names.remove(&index_name(&old.name));
                }
            }
            ObjectKey::NetworkNode(network, node) => {
                if let Some(old) = self.network_nodes.remove(&(*network, *node)) {
                    self.addresses.remove(&(*network, IpAddr::V4(old.gateway)));
                }
            }
            ObjectKey::Secret(id) => {
                if let Some(old) = self.secrets.remove(id) {
                    self.secret_names.remove(&index_name(&old.spec.name));
                }
            }
            ObjectKey::Config(id) => {
                if let Some(old) = self.configs.remove(id) {
                    self.config_names.remove(&index_name(&old.spec.name));
                }
            }
        }
    }

    fn store_task(&mut self, row: Arc<Task>) {
        let old = self.tasks.insert(row.id, Arc::clone(&row));
        let held =
            |task: &Task| (!task.status.state.is_terminal(), task.node, task.addresses.len());
        if old.as_deref().map(held) != Some(held(&row)) {
            if let Some(old) = &old {
                self.release(old);
            }
            self.take(&row);
        }
        self.tasks_by_service.insert((row.service, row.id), Arc::clone(&row));
        if let Some(node) = row.node {
            self.tasks_by_node.insert((node, row.id), row);
        }
    }

    /// Enters the addresses and host ports of a task that has not ended.
    fn take(&mut self, task: &Task) {
        if task.status.state.is_terminal() {
            return;
        }
        for it in &task.addresses {
            self.addresses.insert((it.network, it.addr), Arc::new(AddressOwner::Task(task.id)));
        }
        for (node, protocol, port) in self.ports_wanted(task) {
            self.host_ports.insert((node, protocol, port), Arc::new(task.id));
        }
    }

    /// Frees what [`Self::take`] entered; its spec version may be gone by now.
    fn release(&mut self, task: &Task) {
        for it in &task.addresses {
            let key = (it.network, it.addr);
            if self.addresses.get(&key).is_some_and(|by| **by == AddressOwner::Task(task.id)) {
                self.addresses.remove(&key);
            }
        }
        let Some(node) = task.node else { return };
        let taken: Vec<_> = self
            .ports_taken_on(node)
            .filter(|(_, _, owner)| *owner == task.id)
            .map(|(protocol, port, _)| (node, protocol, port))
            .collect();
        for key in taken {
            self.host_ports.remove(&key);
        }
    }

    /// The host ports that a task opens on its node: fixed ones only.
    pub(super) fn ports_wanted(&self, task: &Task) -> Vec<(NodeId, Protocol, u16)> {
        let (Some(node), Some(version)) = (task.node, self.spec(task.service, task.spec)) else {
            return Vec::new();
        };
        let fixed = |port: &&PortConfig| port.published_port != 0;
        let ports = version.spec.host_ports().filter(fixed);
        ports.map(|port| (node, port.protocol, port.published_port)).collect()
    }

    /// The host ports that are taken on a node, and by which task.
    pub fn ports_taken_on(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (Protocol, u16, TaskId)> + '_ {
        let range = (node, Protocol::Tcp, 0)..=(node, Protocol::Sctp, u16::MAX);
        self.host_ports.range(range).map(|((_, protocol, port), task)| (*protocol, *port, **task))
    }
}

/// The form in which names are unique: Docker's indexes ignore case.
pub(super) fn index_name(name: &str) -> String {
    name.to_lowercase()
}

fn rename<Id>(names: &mut super::Table<String, Id>, old: Option<String>, new: &str, id: Id) {
    let new = index_name(new);
    if let Some(old) = old.map(|old| index_name(&old)).filter(|old| *old != new) {
        names.remove(&old);
    }
    names.insert(new, Arc::new(id));
}
