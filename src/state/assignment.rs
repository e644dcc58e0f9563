//! Derived: everything a node must have, as of a view.
//!
//! What changes without meaning anything to the node is left out, so that its own reports do not come
//! back to it: of a task on its way, times, revisions and status (`Assigned` stands for all of them).

use std::sync::Arc;

use super::View;
use super::endpoints::EndpointIndex;
use crate::domain::assignment::Item;
use crate::domain::{
    AssignmentSet, Meta, NetworkId, NodeId, SpecVersion, Task, TaskState, TaskStatus,
};

/// What a node must have. `shared` is the index of the same view.
#[must_use]
pub fn for_node(view: &View, node: NodeId, shared: &EndpointIndex) -> AssignmentSet {
    let mut set = AssignmentSet::at(view.position);
    for task in view.tasks_on(node).filter(|task| concerns_agent(task)) {
        set.insert(Item::Task(Arc::new(stable(task))));
        let Some(version) = view.spec(task.service, task.spec) else { continue };
        set.insert(Item::SpecVersion(Arc::clone(version)));
        if task.desired <= TaskState::Running {
            insert_payloads(view, version, &mut set);
        }
    }
    for network in view.networks.values().map(|network| network.id) {
        if view.network_nodes.get(&(network, node)).is_some() {
            insert_network(view, network, shared, &mut set);
        }
    }
    set
}

/// Whether a task is the agent's business: from the moment it is placed until it is reaped. What has
/// ended stays, so that its container and its output may be looked at for as long as its record.
fn concerns_agent(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

fn stable(task: &Task) -> Task {
    let status = if task.status.state.is_terminal() {
        task.status.clone()
    } else {
        TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() }
    };
    let meta = Meta { created_at: task.meta.created_at, ..Meta::default() };
    Task { meta, status, ..task.clone() }
}

fn insert_payloads(view: &View, version: &SpecVersion, set: &mut AssignmentSet) {
    let container = &version.spec.task_template.container_spec;
    for it in &container.secrets {
        if let Some(secret) = view.secrets.get(&it.secret_id) {
            set.insert(Item::Secret(Arc::clone(secret)));
        }
    }
    for it in &container.configs {
        if let Some(config) = view.configs.get(&it.config_id) {
            set.insert(Item::Config(Arc::clone(config)));
        }
    }
}

fn insert_network(
    view: &View,
    network: NetworkId,
    shared: &EndpointIndex,
    set: &mut AssignmentSet,
) {
    if let Some(network) = shared.network(network) {
        set.insert(Item::Network(Arc::clone(network)));
    }
    for part in view.nodes_in(network) {
        set.insert(Item::NetworkNode(Arc::clone(part)));
        if let Some(peer) = shared.peer(part.node) {
            set.insert(Item::Peer(Arc::clone(peer)));
        }
    }
    for endpoints in shared.on(network) {
        set.insert(Item::Endpoints(Arc::clone(endpoints)));
    }
}

#[cfg(test)]
mod tests;
