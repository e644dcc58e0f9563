//! A node: a machine enrolled in the cluster.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::container::null_default;
use super::resources::Resources;
use super::{Extra, Labels, Meta, NodeId, RaftId, Revision, Timestamp};

/// A machine enrolled in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Identity, proven by its certificate.
    pub id: NodeId,
    /// Times and revisions.
    pub meta: Meta,
    /// The user's wish.
    pub spec: NodeSpec,
    /// What the machine says of itself; absent until its agent has connected once.
    pub description: Option<Description>,
    /// What the leader found.
    pub status: NodeStatus,
    /// Its part in the Raft group, if it has one.
    pub manager: Option<ManagerStatus>,
    /// The role of the certificate that was issued last.
    pub certified: Role,
    /// The generation of roots that it has confirmed to trust (`Cluster::trust`).
    pub trust: u64,
}

impl Node {
    /// A node that was let in with a role: its certificate has it, and nothing else is known of it yet.
    #[must_use]
    pub fn new(id: NodeId, role: Role) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec: NodeSpec { role, ..NodeSpec::default() },
            description: None,
            status: NodeStatus::default(),
            manager: None,
            certified: role,
            trust: 0,
        }
    }
}

/// The user's wish for a node (Docker: `NodeSpec`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeSpec {
    /// Optional name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels, for placement.
    #[serde(deserialize_with = "null_default")]
    pub labels: Labels,
    /// Worker or manager.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Role of a node. A manager also works, unless it is drained.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Keeps the cluster's state as well.
    Manager,
}

impl Role {
    /// Docker's word for the role.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// The user's wish for a node's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// It takes tasks.
    #[default]
    Active,
    /// It keeps its tasks and takes no new ones.
    Pause,
    /// Its tasks move elsewhere.
    Drain,
}

impl Availability {
    /// Docker's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

/// What a machine says of itself (Docker: `NodeDescription`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Description {
    /// Host name.
    pub hostname: String,
    /// Architecture and operating system.
    pub platform: Platform,
    /// CPUs and memory.
    pub resources: Resources,
    /// The container engine.
    pub engine: EngineDescription,
    /// Version of our own binary.
    #[serde(rename = "AgentVersion")]
    pub agent_version: String,
    /// Why the node cannot run tasks now (such as: no engine); empty if it can.
    #[serde(rename = "Degraded", skip_serializing_if = "String::is_empty")]
    pub degraded: String,
}

/// Architecture and operating system, in Go's words (`amd64`, `linux`).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Such as `x86_64` (as the engine reports it) or `amd64` (as images name it).
    #[serde(rename = "Architecture")]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(rename = "OS")]
    pub os: String,
}

/// The container engine of a node.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EngineDescription {
    /// Version.
    pub engine_version: String,
    /// Labels of the engine (`dockerd --label`).
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_default")]
    pub labels: Labels,
    /// Volume, network and log plugins.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub plugins: Vec<Plugin>,
}

/// A plugin of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Plugin {
    /// `Volume`, `Network` or `Log`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What the leader found about a node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// Whether it renews its lease.
    pub reachability: Reachability,
    /// Since when.
    pub since: Timestamp,
    /// Why, for people.
    pub message: String,
    /// The address the other nodes reach it at (advertise address).
    pub addr: Option<IpAddr>,
    /// The revision up to which its agent has carried out its assignments.
    pub applied: Revision,
}

/// The leader's finding about a node (Docker shows `unknown`, `down`, `ready`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reachability {
    /// Enrolled, never seen.
    #[default]
    Unknown,
    /// Renews its lease.
    Reachable,
    /// Its lease has run out.
    Unreachable,
}

impl Reachability {
    /// Docker's word for the state of a node.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reachable => "ready",
            Self::Unreachable => "down",
        }
    }
}

/// A node's part in the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagerStatus {
    /// Its raft id; never used again.
    pub raft_id: RaftId,
    /// Where its port 2377 is.
    pub addr: SocketAddr,
    /// How far it got.
    pub membership: Membership,
    /// It votes, and the leader does not hear from it; its node may be well all the same.
    pub silent: bool,
}

/// Part of a manager in the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Membership {
    /// Joined, not yet in the group.
    #[default]
    None,
    /// Receives the log, does not vote.
    Learner,
    /// Votes.
    Voter,
    /// Was removed from the group; its raft id stays used.
    Removed,
}
