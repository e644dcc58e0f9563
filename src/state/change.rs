//! The verbs of the log: what may be asked of the replicated state, and what it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::domain::node::Description;
use crate::domain::service::VersionNumber;
use crate::domain::{
    Cluster, Config, ConfigId, Network, NetworkId, NetworkNode, Node, NodeId, RequestId, Revision,
    Secret, SecretId, Service, ServiceId, SpecVersion, Task, TaskId, TaskStatus, Timestamp,
};

/// A unit that is applied whole or not at all. The leader stamps `proposed_at` when it forms the
/// group-commit entry; followers propose without a time.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Command {
    /// Cluster time of the proposal.
    pub proposed_at: Timestamp,
    /// Recognises a client's retry; for logs and traces.
    pub request: Option<RequestId>,
    /// What to do, in order.
    pub changes: Vec<Change>,
}

/// One edit of the state with its precondition.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Creates or replaces an object. `meta` of the object is ignored: `apply` sets it.
    Put {
        /// The object.
        object: Object,
        /// The precondition.
        expect: Expect,
    },
    /// Removes an object. Removing what is not there is a success.
    Delete {
        /// Which object.
        key: ObjectKey,
        /// The precondition.
        expect: Expect,
    },
    /// An agent's report; joined on the lattice, ignored where the task is gone or not the node's.
    ReportTask {
        /// The task.
        task: TaskId,
        /// The node that reports.
        node: NodeId,
        /// What it found.
        status: TaskStatus,
    },
    /// What a node says of itself at the start of a session.
    ReportNode {
        /// The node.
        node: NodeId,
        /// Its description.
        description: Description,
        /// The address at which the other nodes reach it.
        addr: std::net::IpAddr,
    },
    /// A node has these roots on its disk and trusts them; what it confirmed only rises, and what
    /// there is no more to confirm is ignored.
    ReportTrust {
        /// The node.
        node: NodeId,
        /// The generation of roots (`Cluster::trust`).
        trust: u64,
    },
    /// A node becomes a member of the Raft group to be; its raft id is this entry's log index.
    /// Refused when there would be more than [`crate::domain::cluster::MANAGERS_MAX`].
    JoinManager {
        /// The node.
        node: NodeId,
        /// Where its port 2377 is.
        addr: SocketAddr,
    },
}

/// An object of the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A spec version.
    SpecVersion(Arc<SpecVersion>),
    /// A task.
    Task(Arc<Task>),
    /// A network.
    Network(Arc<Network>),
    /// A node's part in a network.
    NetworkNode(Arc<NetworkNode>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
}

/// Names an object of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The cluster.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceId),
    /// A spec version.
    SpecVersion(ServiceId, VersionNumber),
    /// A task.
    Task(TaskId),
    /// A network.
    Network(NetworkId),
    /// A node's part in a network.
    NetworkNode(NetworkId, NodeId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

impl Object {
    /// The key under which the object is kept.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Cluster(_) => ObjectKey::Cluster,
            Self::Node(node) => ObjectKey::Node(node.id),
            Self::Service(service) => ObjectKey::Service(service.id),
            Self::SpecVersion(version) => ObjectKey::SpecVersion(version.service, version.number),
            Self::Task(task) => ObjectKey::Task(task.id),
            Self::Network(network) => ObjectKey::Network(network.id),
            Self::NetworkNode(part) => ObjectKey::NetworkNode(part.network, part.node),
            Self::Secret(secret) => ObjectKey::Secret(secret.id),
            Self::Config(config) => ObjectKey::Config(config.id),
        }
    }
}

/// The precondition of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The object does not exist. Finding the very same object is a success (a retry).
    Absent,
    /// A user's precondition (`?version=`): the spec last changed at this revision. Such a put
    /// changes the user's wish only: what the system recorded since the user read the object stays
    /// (of a service, `update` is taken from the put if `current` changes).
    SpecAt(Revision),
    /// The system's precondition: the object last changed at this revision.
    At(Revision),
    /// The object exists. A task's desired state and status then only rise, so that such a write
    /// never fails because an agent has reported in the meantime.
    Present,
    /// None. For the system's own derived objects only.
    Any,
}

/// What became of a command: the log index at which it took effect, or why it did not.
pub type Outcome = Result<Revision, Rejection>;

/// Apply's refusal: a value, part of the protocol, told to the user word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The name is taken.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    NameInUse {
        /// Kind of object.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The object changed since it was read. Docker's text, which clients look for.
    #[error("update out of sequence")]
    Stale {
        /// The revision that was given.
        expected: Revision,
        /// The revision that it has.
        actual: Revision,
    },
    /// There is no such object.
    #[error("{kind} {id} not found")]
    NotFound {
        /// Kind of object.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The object exists already.
    #[error("{kind} {id} already exists")]
    Exists {
        /// Kind of object.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The object is in use.
    #[error("{kind} '{name}' is in use by the following service{}: {by}", plural(by))]
    Referenced {
        /// Kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Who uses it: names of services, separated by a comma and a space.
        by: String,
    },
    /// The cluster has as many managers as it may have.
    #[error(
        "the cluster has {max} managers already, which is the most it may have: more would make it slower, not safer; join as a worker, or demote a manager first"
    )]
    TooManyManagers {
        /// The bound.
        max: usize,
    },
    /// An invariant of the state would be broken.
    #[error("{rule}")]
    Broken {
        /// The invariant, in words.
        rule: String,
    },
}

/// Docker's text has "services" where several are listed.
fn plural(by: &str) -> &'static str {
    if by.contains(", ") { "s" } else { "" }
}

/// Notice that an object changed at a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object, as it is now or (removed) as it was last.
    pub object: Object,
    /// As it was before, if it changed.
    pub before: Option<Object>,
    /// The log index.
    pub revision: Revision,
    /// Cluster time.
    pub at: Timestamp,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is new.
    Created,
    /// It changed.
    Updated,
    /// It is gone.
    Removed,
}
