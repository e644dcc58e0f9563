//! The replicated state machine, as a pure value.
//!
//! [`State`] is what every manager agrees on; [`apply`] is its only writer: total, deterministic and
//! without policy. A [`View`] is an O(1) snapshot of it for readers.
//!
//! Determinism: everything comes from the command and the log index. No clock (time is
//! `Command::proposed_at`, made monotonic by `clock`), no randomness, no hash order.

mod change;
mod table;
mod view;

pub use change::{
    Change, Command, Event, EventKind, Expect, Object, ObjectKey, Outcome, Rejection,
};
pub use table::Table;
pub use view::View;

use std::sync::Arc;

use crate::domain::service::VersionNumber;
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
    /// Derived: services by name.
    pub service_names: Table<String, ServiceId>,
    /// Derived: tasks by service.
    pub tasks_by_service: Table<(ServiceId, TaskId), Task>,
    /// Derived: tasks by node.
    pub tasks_by_node: Table<(NodeId, TaskId), Task>,
}
