//! What the daemon answers, as far as the command line shows it. Specs are `domain`'s own types.

use serde::Deserialize;

use crate::domain::cluster::ClusterSpec;
use crate::domain::node::{Description, NodeSpec};
use crate::domain::secret::PayloadSpec;
use crate::domain::service::PortConfig;
use crate::domain::{Labels, ServiceSpec};

/// The optimistic lock of an object.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Version {
    /// What an update must name.
    pub(crate) index: u64,
}

/// An object that was created.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Created {
    /// Its id.
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

/// What an update of a service answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Updated {
    /// For the user.
    pub(crate) warnings: Option<Vec<String>>,
}

/// `GET /swarm`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) version: Version,
    pub(crate) spec: ClusterSpec,
    pub(crate) join_tokens: JoinTokens,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
    pub(crate) root_rotation_in_progress: bool,
    pub(crate) desired_root_digest: String,
}

/// Tokens to join with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct JoinTokens {
    pub(crate) worker: String,
    pub(crate) manager: String,
}

/// The certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TlsInfo {
    pub(crate) trust_root: String,
    pub(crate) cert_issuer_subject: String,
    pub(crate) cert_issuer_public_key: String,
}

/// `GET /swarm/unlockkey`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct UnlockKey {
    pub(crate) unlock_key: String,
}

/// `GET /info`, the swarm's part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SystemInfo {
    pub(crate) server_version: String,
    pub(crate) swarm: SwarmInfo,
}

/// What a node knows of its cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SwarmInfo {
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    pub(crate) node_addr: String,
    pub(crate) local_node_state: String,
    pub(crate) control_available: bool,
    pub(crate) error: String,
    pub(crate) remote_managers: Option<Vec<RemoteManager>>,
    pub(crate) nodes: u64,
    pub(crate) managers: u64,
    pub(crate) cluster: Option<ClusterInfo>,
}

/// A manager that the node knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct RemoteManager {
    pub(crate) addr: String,
}

/// The cluster as `/info` shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ClusterInfo {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) spec: ClusterSpec,
    pub(crate) default_addr_pool: Option<Vec<String>>,
    pub(crate) subnet_size: u32,
    pub(crate) data_path_port: u32,
    pub(crate) root_rotation_in_progress: bool,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) created_at: String,
    pub(crate) spec: NodeSpec,
    pub(crate) description: NodeDescription,
    pub(crate) status: NodeStatus,
    pub(crate) manager_status: Option<ManagerStatus>,
}

/// What a machine says of itself, and whose certificates it trusts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeDescription {
    #[serde(flatten)]
    pub(crate) machine: Description,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
}

/// How a node is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodeStatus {
    pub(crate) state: String,
    pub(crate) message: String,
    pub(crate) addr: String,
}

/// A node's part in the group of managers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ManagerStatus {
    pub(crate) leader: bool,
    pub(crate) reachability: String,
    pub(crate) addr: String,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) created_at: String,
    pub(crate) spec: ServiceSpec,
    pub(crate) endpoint: Endpoint,
    pub(crate) update_status: Option<UpdateStatus>,
    pub(crate) service_status: Option<ServiceStatus>,
}

/// Where a service is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Endpoint {
    pub(crate) ports: Option<Vec<PortConfig>>,
}

/// Where an update stands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct UpdateStatus {
    pub(crate) state: String,
    pub(crate) started_at: Option<String>,
    pub(crate) completed_at: Option<String>,
    pub(crate) message: String,
}

/// How many tasks a service has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ServiceStatus {
    pub(crate) running_tasks: u64,
    pub(crate) desired_tasks: u64,
}

/// A task.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Task {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) created_at: String,
    pub(crate) spec: TaskSpec,
    #[serde(rename = "ServiceID")]
    pub(crate) service_id: String,
    pub(crate) slot: u64,
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    pub(crate) status: TaskStatus,
    pub(crate) desired_state: String,
}

/// What a task runs, as far as lists show it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TaskSpec {
    pub(crate) container_spec: TaskContainer,
}

/// The container of a task, as far as lists show it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TaskContainer {
    pub(crate) image: String,
}

/// How a task is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TaskStatus {
    pub(crate) timestamp: String,
    pub(crate) state: String,
    pub(crate) err: String,
    pub(crate) port_status: Option<PortStatus>,
}

/// Ports that the engine opened.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct PortStatus {
    pub(crate) ports: Option<Vec<PortConfig>>,
}

/// A network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A secret or config.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Payload {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) spec: PayloadSpec,
}

/// One line of `/events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    #[serde(rename = "Action")]
    pub(crate) action: String,
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    #[serde(rename = "timeNano")]
    pub(crate) time_nano: u64,
}

/// What an event is about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) attributes: Labels,
}
