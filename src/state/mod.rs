//! The replicated state machine, as a pure value.
//!
//! [`State`] is what every manager agrees on; [`apply()`] is its only writer: total, deterministic and
//! without policy. A [`View`] is an O(1) snapshot of it for readers.
//!
//! Determinism: everything comes from the command and the log index. No clock (time is
//! `Command::proposed_at`, made monotonic by `clock`), no randomness, no hash order.

mod addresses;
mod apply;
pub mod assignment;
mod change;
pub mod endpoints;
#[cfg(test)]
pub(crate) mod fixtures;
mod object;
mod rows;
mod rules;
mod table;
mod view;

pub use addresses::AddressOwner;
pub use apply::apply;
pub use change::{
    Change, Command, Event, EventKind, Expect, Object, ObjectKey, Outcome, Rejection,
};
pub use table::Table;
pub use view::View;

use std::net::IpAddr;
use std::sync::Arc;

use crate::domain::service::{Protocol, VersionNumber};
use crate::domain::{
    Cluster, Config, ConfigId, Network, NetworkId, NetworkNode, Node, NodeId, Position, Secret,
    SecretId, Service, ServiceId, SpecVersion, Task, TaskId, Timestamp,
};

/// Everything the managers agree on. Cloning is O(1): tables share their structure.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The last entry applied.
    pub position: Position,
    /// The highest time proposed so far: cluster time never goes back.
    pub clock: Timestamp,
    /// The cluster; absent before the first manager has written it.
    pub cluster: Option<Arc<Cluster>>,
    /// Nodes.
    pub nodes: Table<NodeId, Node>,
    /// Services.
    pub services: Table<ServiceId, Service>,
    /// Spec versions, stored once and shared.
    pub specs: Table<(ServiceId, VersionNumber), SpecVersion>,
    /// Tasks.
    pub tasks: Table<TaskId, Task>,
    /// Networks.
    pub networks: Table<NetworkId, Network>,
    /// Nodes' parts in networks.
    pub network_nodes: Table<(NetworkId, NodeId), NetworkNode>,
    /// Secrets.
    pub secrets: Table<SecretId, Secret>,
    /// Configs.
    pub configs: Table<ConfigId, Config>,
    /// Derived: services by name, in lower case like all indexes of names.
    pub service_names: Table<String, ServiceId>,
    /// Derived: secrets by name.
    pub secret_names: Table<String, SecretId>,
    /// Derived: configs by name.
    pub config_names: Table<String, ConfigId>,
    /// Derived: networks by name.
    pub network_names: Table<String, NetworkId>,
    /// Derived: tasks by service.
    pub tasks_by_service: Table<(ServiceId, TaskId), Task>,
    /// Derived: tasks by node.
    pub tasks_by_node: Table<(NodeId, TaskId), Task>,
    /// Derived: addresses of gateways and of tasks that have not ended.
    pub addresses: Table<(NetworkId, IpAddr), AddressOwner>,
    /// Derived: fixed host ports of tasks that have a node and have not ended.
    pub host_ports: Table<(NodeId, Protocol, u16), TaskId>,
}
