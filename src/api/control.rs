//! What the API asks of the daemon it runs in: this node's own part in the cluster.
//!
//! The API serves before any cluster exists, on workers and while a manager is locked; what it then
//! needs is behind [`NodeControl`], which `daemon` implements.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::cluster::{ClusterSpec, RootRotation};
use crate::domain::node::Availability;
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, NodeId, Position, TaskState, Timestamp};
use crate::{health, raft};

/// This node's part in a cluster (Docker: `Info.Swarm.LocalNodeState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Participation {
    /// In no cluster.
    #[default]
    Inactive,
    /// The daemon has just begun: what it is, it does not know yet.
    Starting,
    /// Joining; not yet there.
    Pending,
    /// A node of a cluster.
    Active,
    /// Something is wrong; see the error.
    Error,
    /// A manager whose data is locked.
    Locked,
}

impl Participation {
    /// Docker's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Starting | Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// What this node knows of itself without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LocalState {
    /// Its part in a cluster.
    pub participation: Participation,
    /// Its id, once enrolled.
    pub node: Option<NodeId>,
    /// The address at which the other nodes reach it.
    pub addr: Option<IpAddr>,
    /// Whether it is a manager (its store may still be starting).
    pub is_manager: bool,
    /// What is wrong, for people; empty if nothing is.
    pub error: String,
    /// What to do about a certificate that has run out, for people; empty if it has not.
    pub expired: String,
    /// The managers it knows.
    pub managers: Vec<(NodeId, SocketAddr)>,
    /// Host name, for `GET /info` without an engine.
    pub hostname: String,
    /// The backups that it writes by itself; `None` where it was not told to.
    pub backups: Option<Backups>,
}

/// How a manager's scheduled backups go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Backups {
    /// Where they are written.
    pub directory: PathBuf,
    /// From one to the next.
    pub every: Duration,
    /// When this daemon began to keep the schedule.
    pub since: Timestamp,
    /// When the last one was written and verified.
    pub last: Option<Timestamp>,
    /// When the last attempt failed, and why; `None` if it did not.
    pub failure: Option<(Timestamp, String)>,
    /// When the next one is due.
    pub next: Option<Timestamp>,
}

impl LocalState {
    /// What the node is, in the words of health.
    #[must_use]
    pub const fn part(&self) -> health::Part {
        match self.participation {
            Participation::Inactive => health::Part::Outside,
            Participation::Starting => health::Part::Starting,
            Participation::Pending => health::Part::Joining,
            Participation::Error => health::Part::Broken,
            Participation::Locked => health::Part::Locked,
            Participation::Active if self.is_manager => health::Part::Manager,
            Participation::Active => health::Part::Worker,
        }
    }

    /// What is wrong, for people; empty if nothing is.
    #[must_use]
    pub fn trouble(&self) -> &str {
        if self.error.is_empty() { &self.expired } else { &self.error }
    }
}

/// `POST /swarm/init`. Addresses are as the user wrote them: empty, an address, an interface, with
/// or without a port.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct InitRequest {
    /// Where to listen; Docker's default is `0.0.0.0:2377`.
    pub listen_addr: String,
    /// What the other nodes are told; found out if empty.
    pub advertise_addr: String,
    /// Make a cluster of one of this manager's state.
    pub force_new_cluster: bool,
    /// The user's wish for the cluster.
    pub spec: ClusterSpec,
    /// Whether this node takes tasks.
    pub availability: Availability,
    /// Pools that networks take their subnets from, in CIDR form; the default if empty.
    pub address_pools: Vec<String>,
    /// Prefix length of each network; the default if 0.
    pub subnet_size: u8,
}

/// `POST /swarm/join`. Addresses as in [`InitRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JoinRequest {
    /// Managers to ask, in order.
    pub remote_addrs: Vec<String>,
    /// The join token.
    pub token: String,
    /// Where to listen should this node become a manager.
    pub listen_addr: String,
    /// What the other nodes are told; found out if empty.
    pub advertise_addr: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// Where a node listens and is reached, as the user wrote it; empty means as it was, or found out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Places {
    /// Where to listen.
    pub listen: String,
    /// What the other nodes are told.
    pub advertise: String,
}

/// `POST /x/v1/restore`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The backup.
    pub archive: Bytes,
    /// What opens it.
    pub passphrase: Sensitive,
    /// Where this node is to be reached.
    pub places: Places,
}

/// Whether something is done, or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Tell what would be done.
    Dry,
    /// Do it.
    Real,
}

/// `POST /x/v1/recover`, and `POST /swarm/init` with `ForceNewCluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverRequest {
    /// Where this node is to be reached.
    pub places: Places,
    /// Whether to do it.
    pub run: Run,
}

/// What a recovery does, and from what it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The manager that remains.
    pub node: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// The number of the new epoch: first term, and raft id of the manager.
    pub epoch: u64,
    /// Highest term that this manager has heard of.
    pub term: u64,
    /// The last entry that it has. All it has is kept.
    pub last: Position,
    /// Up to here it knew that entries were agreed on.
    pub committed: u64,
    /// Cluster time of the last change that it has.
    pub newest: Timestamp,
    /// The managers that are no nodes any more, with their host names.
    pub removed: Vec<(NodeId, String)>,
    /// Nodes before.
    pub nodes: usize,
    /// Services.
    pub services: usize,
    /// Tasks.
    pub tasks: usize,
}

/// Whether a node may leave although that harms the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Leave {
    /// Only if nothing is lost.
    #[default]
    Gracefully,
    /// Whatever it costs.
    Force,
}

/// The two join tokens, in Docker's shape.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JoinTokens {
    /// For workers.
    pub worker: String,
    /// For managers.
    pub manager: String,
}

/// Why the node could not do what was asked. The texts are Docker's where Docker has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Init or join on a node of a cluster.
    #[error(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    )]
    AlreadyInSwarm,
    /// Leave or unlock on a node of no cluster.
    #[error("This node is not part of a swarm")]
    NotInSwarm,
    /// The token is not one, or not this cluster's, or was rotated.
    #[error("invalid join token")]
    InvalidToken,
    /// The managers could not be reached in time; the node goes on trying.
    #[error(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node."
    )]
    JoinTimeout,
    /// The last manager may leave only by force.
    #[error(
        "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
    )]
    LastManager,
    /// A manager may not leave gracefully: too few would remain.
    #[error(
        "You are attempting to leave the swarm on a node that is participating as a manager. Removing this node leaves {left} managers out of {of}. Without a Raft quorum your swarm will be inaccessible. Bring the other managers back, then demote this node first with `swarm node demote`. Use `--force` to suppress this message."
    )]
    QuorumLoss {
        /// Reachable managers that would remain.
        left: usize,
        /// Managers there are.
        of: usize,
    },
    /// A manager that still leads or votes must be demoted first, or forced.
    #[error(
        "You are attempting to leave the swarm on a node that is participating as a manager. Demote it first with `swarm node demote` on another manager; it may leave as soon as it is a worker. Use `--force` to suppress this message."
    )]
    ManagerLeave,
    /// The manager's data is locked.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
    )]
    Locked,
    /// Unlock without a lock.
    #[error("swarm is not locked")]
    NotLocked,
    /// The unlock key is wrong.
    #[error("swarm could not be unlocked: invalid key provided")]
    InvalidKey,
    /// A member of the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// This release cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
    /// Something broke.
    #[error("{0}")]
    Internal(String),
}

/// How the parts of this node are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// What health is judged by.
    pub local: health::Local,
    /// The member of the Raft group, on a manager.
    pub raft: Option<raft::Vitals>,
    /// Tasks that the agent knows, by state.
    pub tasks: BTreeMap<TaskState, usize>,
}

/// This node's own part in the cluster.
#[async_trait]
pub trait NodeControl: Send + Sync + Debug {
    /// What the node knows of itself. Answers at once.
    fn state(&self) -> LocalState;

    /// How the parts of this node are. Answers at once.
    fn vitals(&self) -> Vitals;

    /// Makes a cluster of which this node is the first manager. Returns when its store is published
    /// and holds the cluster and this node.
    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError>;

    /// Enrols this node in a cluster. Returns when it is a member of it.
    async fn join(&self, request: JoinRequest) -> Result<(), ControlError>;

    /// Takes this node out of its cluster.
    async fn leave(&self, leave: Leave) -> Result<(), ControlError>;

    /// Makes a cluster of one, this node, of a backup. Returns when its store is published.
    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ControlError>;

    /// Makes this manager the only one of its cluster, with all that it has; or says what that
    /// would mean.
    async fn recover(&self, request: RecoverRequest) -> Result<Recovery, ControlError>;

    /// Opens a locked manager's data.
    async fn unlock(&self, key: &str) -> Result<(), ControlError>;

    /// Keeps the key of this manager's data as the state that it has applied wants it: locked with
    /// the cluster's unlock key, or not. Other managers do the same by themselves.
    async fn follow_lock(&self) -> Result<(), ControlError>;

    /// Makes a root that is to follow the cluster's, signed by it.
    fn next_root(&self, cluster: &Cluster) -> Result<RootRotation, ControlError>;

    /// The join tokens of a cluster; pure arithmetic over its keys and generations.
    fn join_tokens(&self, cluster: &Cluster) -> Result<JoinTokens, ControlError>;
}
