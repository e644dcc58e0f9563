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
    let mut items = Vec::new();
    for task in view.tasks_on(node).filter(|task| concerns_agent(task)) {
        items.push(Item::Task(Arc::new(stable(task))));
        let Some(version) = view.spec(task.service, task.spec) else { continue };
        items.push(Item::SpecVersion(Arc::clone(version)));
        if task.desired <= TaskState::Running {
            push_payloads(view, version, &mut items);
        }
    }
    for network in view.networks.values().map(|network| network.id) {
        if view.network_nodes.get(&(network, node)).is_some() {
            push_network(view, network, shared, &mut items);
        }
    }
    AssignmentSet::of(view.position, items)
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

fn push_payloads(view: &View, version: &SpecVersion, items: &mut Vec<Item>) {
    let container = &version.spec.task_template.container_spec;
    for it in &container.secrets {
        if let Some(secret) = view.secrets.get(&it.secret_id) {
            items.push(Item::Secret(Arc::clone(secret)));
        }
    }
    for it in &container.configs {
        if let Some(config) = view.configs.get(&it.config_id) {
            items.push(Item::Config(Arc::clone(config)));
        }
    }
}

/// In the order of their keys: a run each for `AssignmentSet::of` to merge.
fn push_network(view: &View, network: NetworkId, shared: &EndpointIndex, items: &mut Vec<Item>) {
    items.extend(shared.network(network).map(Arc::clone).map(Item::Network));
    let parts: Vec<_> = view.nodes_in(network).collect();
    items.extend(parts.iter().map(|part| Item::NetworkNode(Arc::clone(part))));
    let peers = parts.iter().filter_map(|part| shared.peer(part.node));
    items.extend(peers.map(Arc::clone).map(Item::Peer));
    items.extend(shared.on(network).map(Arc::clone).map(Item::Endpoints));
}

#[cfg(test)]
mod tests;
