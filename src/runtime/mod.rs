//! Containers: the seam to the engine of this node.
//!
//! [`Runtime`] is what the agent needs of an engine, idempotent by task id. `docker` is the real one;
//! `model` behaves alike in memory, for tests, and one contract test holds both to the same rules.

pub mod docker;
mod docker_models;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod model;
mod platform;
mod pull;
pub mod spec;
mod stream;
pub mod template;

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::domain::container::RegistryAuth;
use crate::domain::network::Subnet;
use crate::domain::node::Description;
use crate::domain::service::PortConfig;
use crate::domain::{Network, ServiceSpec, Task, TaskId, Timestamp};

/// All that a container is made of. Secrets and configs lie in files of `files_dir` already.
#[derive(Clone, Debug)]
pub struct ContainerPlan {
    /// The task; its id makes the create idempotent.
    pub task: Arc<Task>,
    /// What it runs.
    pub spec: Arc<ServiceSpec>,
    /// Values for templates and labels.
    pub node: NodeFacts,
    /// The cluster network it joins and the node's gateway there; `None` where it joins none: the
    /// engine's own network that the spec names (`host`, `none`), or none at all.
    pub network: Option<NetworkPlan>,
    /// The task's directory on tmpfs (`resolv.conf`, `secrets/<id>`, `configs/<id>`).
    pub files_dir: std::path::PathBuf,
}

/// This node, for templates, environment and labels.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// The node's id.
    pub id: crate::domain::NodeId,
    /// Its host name.
    pub hostname: String,
    /// Its platform.
    pub platform: crate::domain::node::Platform,
}

/// The engine's network under a cluster network on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Name of the engine's network.
    pub name: String,
    /// Name of its bridge (`ov<VNI>`).
    pub bridge: String,
    /// Addresses.
    pub subnet: Subnet,
    /// This node's gateway.
    pub gateway: Ipv4Addr,
    /// Largest packet of the containers' interfaces.
    pub mtu: u32,
}

/// A container as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// The task, by label.
    pub task: TaskId,
    /// Where it is in its life.
    pub phase: Phase,
    /// Process id; 0 when it does not run.
    pub pid: i64,
    /// Ports that are open on the host.
    pub ports: Vec<PortConfig>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Created, never started.
    Created,
    /// Runs; with a health check, how that stands.
    Running(Health),
    /// Ended.
    Exited {
        /// Its exit code.
        code: i64,
        /// The kernel ended it for want of memory.
        oom_killed: bool,
    },
}

/// Health of a running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// There is no health check.
    Unchecked,
    /// Not yet known.
    Starting,
    /// The check passes.
    Healthy,
    /// The check failed often enough.
    Unhealthy,
}

/// Something happened to the containers of a task; look again. `None`: look at all of them (events
/// may have been lost).
pub type Hint = Option<TaskId>;

/// A line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Standard error, not standard output.
    pub stderr: bool,
    /// When it was written, if the engine knows.
    pub at: Option<Timestamp>,
    /// The bytes, with the newline if there was one.
    pub data: Bytes,
}

/// Which output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Stay and send what comes.
    pub follow: bool,
    /// Last lines only.
    pub tail: Option<u64>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Standard output, standard error, or (`None`) both.
    pub stderr_only: Option<bool>,
}

/// The engine's own swarm mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwarmMode {
    /// The engine orchestrates nothing.
    Inactive,
    /// The engine is a node of a Docker Swarm.
    Active,
}

/// Why an act on the engine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It will fail again: the task is rejected.
    #[error("{0}")]
    Permanent(String),
    /// The engine answers that it cannot do it now: try again, not for ever.
    #[error("{0}")]
    Transient(String),
    /// The engine does not answer: try again for as long as it takes.
    #[error("{0}")]
    Unreachable(String),
    /// The image is not on this node: pull it.
    #[error("{0}")]
    NoImage(String),
    /// The container is not there.
    #[error("no such container")]
    Missing,
    /// A port of the host is taken by somebody else.
    #[error("{0}")]
    PortInUse(String),
}

/// What the agent needs of a container engine. Every act is idempotent by task id.
#[async_trait]
pub trait Runtime: Send + Sync + Debug {
    /// What the engine and the machine are; fails while no engine answers.
    async fn describe(&self) -> Result<Description, Error>;

    /// Whether the engine is in swarm mode itself; two orchestrators would fight over its networks.
    async fn swarm_mode(&self) -> Result<SwarmMode, Error>;

    /// All containers of tasks on this node, whatever their state.
    async fn list(&self) -> Result<Vec<Container>, Error>;

    /// The container of a task.
    async fn inspect(&self, task: TaskId) -> Result<Container, Error>;

    /// Makes the image present; pulls only what is absent, with the credentials if there are some.
    async fn pull(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
        limit: Duration,
    ) -> Result<(), Error>;

    /// Makes the engine's network for a cluster network; success if it is there as wanted.
    async fn ensure_network(&self, network: &Network, plan: &NetworkPlan) -> Result<(), Error>;

    /// Removes the engine's network of a name; success if it is not there.
    async fn remove_network(&self, name: &str) -> Result<(), Error>;

    /// Creates the container of a task; returns the engine's id. A container that exists with the
    /// task's label is a success. [`Error::NoImage`] where the image is to be pulled first.
    async fn create(&self, plan: &ContainerPlan) -> Result<String, Error>;

    /// Starts it; success if it runs.
    async fn start(&self, task: TaskId) -> Result<(), Error>;

    /// Stops it: the stop signal, then SIGKILL after `grace`; success if it does not run.
    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), Error>;

    /// Removes it and its anonymous volumes; success if it is not there.
    async fn remove(&self, task: TaskId) -> Result<(), Error>;

    /// Hints about containers of tasks, for ever; reconnects by itself and then sends `None`.
    fn watch(self: std::sync::Arc<Self>) -> mpsc::Receiver<Hint>;

    /// Output of a task's container; ends when all is sent and `follow` is not asked.
    async fn logs(
        &self,
        task: TaskId,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogLine>, Error>;
}
