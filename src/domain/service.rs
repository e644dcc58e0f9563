//! A service: the user's wish for tasks to keep, its immutable spec versions, and what became of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::container::null_default;
use super::network::NetworkAttachmentSpec;
use super::placement::Placement;
use super::policy::{RestartPolicy, UpdatePolicy};
use super::resources::ResourceRequirements;
use super::{Extra, Labels, Meta, Nanos, ServiceId, Timestamp, container::ContainerSpec};

/// Number of a spec version within its service: 1, 2, 3, …
pub type VersionNumber = u64;

/// The user's wish (Docker: `ServiceSpec`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceSpec {
    /// Unique in the cluster; the name under which containers find it.
    pub name: String,
    /// Labels of the service.
    #[serde(deserialize_with = "null_default")]
    pub labels: Labels,
    /// What each task runs.
    pub task_template: TaskTemplate,
    /// How many tasks; one replica if absent.
    pub mode: Mode,
    /// How a new spec replaces running tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdatePolicy>,
    /// How the previous spec comes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdatePolicy>,
    /// Networks in the old place (API < 1.25); moved to the task template by the API.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub networks: Vec<NetworkAttachmentSpec>,
    /// Published ports and how the name resolves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What each task of a service is made of (Docker: `TaskSpec`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskTemplate {
    /// The container.
    pub container_spec: ContainerSpec,
    /// Reservations and limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// When a task is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Networks; the cluster's default network if empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub networks: Vec<NetworkAttachmentSpec>,
    /// Logging driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<LogDriver>,
    /// A counter that makes two specs differ, so that tasks are replaced.
    pub force_update: u64,
    /// `container`, or empty for the same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Logging driver of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogDriver {
    /// Such as `json-file`.
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_default")]
    pub options: Labels,
}

/// How many tasks a service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// A number of tasks.
    #[serde(rename = "Replicated", alias = "replicated")]
    Replicated {
        /// How many; 1 if absent.
        #[serde(rename = "Replicas", default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u64>,
    },
    /// One task on each node that qualifies.
    #[serde(rename = "Global", alias = "global")]
    Global {},
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated { replicas: Some(1) }
    }
}

/// How the service is reached.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSpec {
    /// What the name resolves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<EndpointMode>,
    /// Ports open outside of the cluster network.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub ports: Vec<PortConfig>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a service's name resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// One virtual address.
    #[default]
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortConfig {
    /// Optional name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Protocol,
    /// Port in the container.
    pub target_port: u16,
    /// Port on the host; 0 lets the engine choose.
    #[serde(skip_serializing_if = "is_zero")]
    pub published_port: u16,
    /// On every node, or only on those that run a task.
    pub publish_mode: PublishMode,
}

/// Transport protocol of a port.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Docker's name of the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where a published port is open.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node.
    #[default]
    Ingress,
    /// On the nodes that run a task of the service.
    Host,
}

/// An immutable state of a service's spec; tasks refer to it by number.
#[derive(Clone, Debug, PartialEq)]
pub struct SpecVersion {
    /// The service.
    pub service: ServiceId,
    /// Its number within the service.
    pub number: VersionNumber,
    /// The spec.
    pub spec: Arc<ServiceSpec>,
}

/// A service and what the system recorded about it. The spec itself is a [`SpecVersion`].
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Identity.
    pub id: ServiceId,
    /// Times and revisions.
    pub meta: Meta,
    /// Name of the current spec, kept here for the unique index.
    pub name: String,
    /// The spec that the user wants now.
    pub current: VersionNumber,
    /// The spec before it: what a rollback returns to.
    pub previous: Option<VersionNumber>,
    /// Where a rolling update stands.
    pub update: Option<UpdateStatus>,
    /// The user asked to remove the service; it disappears when its tasks have stopped.
    pub removing: bool,
}

/// Where a rolling update or rollback stands. Everything its supervisor must remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateStatus {
    /// State, in Docker's words.
    pub state: UpdateState,
    /// The version that the update brings.
    pub target: VersionNumber,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// When the last batch had all come up: the next waits for the policy's delay from here.
    pub batch_done_at: Option<Timestamp>,
    /// Why it is in this state.
    pub message: String,
}

/// State of an update (Docker: `UpdateStatus.State`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateState {
    /// Under way.
    Updating,
    /// Stopped after failures, waiting for the user.
    Paused,
    /// Done.
    Completed,
    /// Returning to the previous spec.
    RollbackStarted,
    /// The return stopped after failures.
    RollbackPaused,
    /// The return is done.
    RollbackCompleted,
}

impl UpdateState {
    /// Docker's word for the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        }
    }
}

impl ServiceSpec {
    /// The number of replicas wanted; `None` for a global service.
    #[must_use]
    pub const fn replicas(&self) -> Option<u64> {
        match &self.mode {
            Mode::Replicated { replicas: Some(replicas) } => Some(*replicas),
            Mode::Replicated { replicas: None } => Some(1),
            Mode::Global {} => None,
        }
    }

    /// Ports that are opened on the hosts of the tasks.
    pub fn host_ports(&self) -> impl Iterator<Item = &PortConfig> {
        self.endpoint_spec
            .iter()
            .flat_map(|endpoint| &endpoint.ports)
            .filter(|port| port.publish_mode == PublishMode::Host)
    }

    /// The stop grace period: from the stop signal to SIGKILL. Docker's default is 10 s.
    #[must_use]
    pub fn stop_grace(&self) -> Nanos {
        self.task_template.container_spec.stop_grace_period.unwrap_or(Nanos::from_secs(10))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u16) -> bool {
    *value == 0
}
