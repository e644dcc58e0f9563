//! What openraft is told about us: the content of an entry, its outcome, the address of a member.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::{Format, NodeId};
use crate::state::{Command, Outcome};

openraft::declare_raft_types!(
    /// The types of our Raft group.
    pub TypeConfig:
        D = Batch,
        R = Outcomes,
        NodeId = u64,
        Node = RaftNode,
        AsyncRuntime = Executor,
);

/// tokio, with random numbers that follow from the seed that a member was started with.
pub(super) type Executor = DeterministicRng<TokioRuntime>;

pub(super) type Raft = openraft::Raft<TypeConfig, super::machine::Machine>;
pub(super) type Entry = EntryOf<TypeConfig>;
pub(super) type LogId = LogIdOf<TypeConfig>;
pub(super) type Vote = VoteOf<TypeConfig>;
pub(super) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(super) type Snapshot = SnapshotOf<TypeConfig, bytes::Bytes>;

/// The commands of one entry: what queued while the entry before it was on its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The format that is in force once they are applied: who does not know it refuses them.
    pub(super) format: Format,
    pub(super) commands: Arc<Vec<Command>>,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.commands.len())
    }
}

/// What became of the commands of an entry, in their order; empty for entries without commands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes(pub(super) Vec<Outcome>);

/// A member of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftNode {
    /// The machine.
    pub node: NodeId,
    /// Where its port 2377 is.
    pub addr: SocketAddr,
}

/// For openraft's own storage tests only, which name members by number.
impl Default for RaftNode {
    fn default() -> Self {
        Self { node: NodeId::default(), addr: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }
}

// openraft asks for serde on these two, for its own encodings of entries, which we never use:
// `codec` alone writes entries, and outcomes never leave the process.
const NOT_BY_SERDE: &str = "commands and outcomes are not encoded by serde but by raft/codec";

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(NOT_BY_SERDE))
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(NOT_BY_SERDE))
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(NOT_BY_SERDE))
    }
}

impl<'de> Deserialize<'de> for Outcomes {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(NOT_BY_SERDE))
    }
}
