//! A task: one attempt to run one container in one slot on one node.
//!
//! A record is small (about 200 bytes): it refers to its service's spec version and never copies it.
//! `node` is set once; `status` only rises on the lattice of [`TaskState`]; a dead task is replaced,
//! never revived.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::service::{PortConfig, VersionNumber};
use super::{Meta, NetworkId, NodeId, ServiceId, TaskId, Timestamp};

/// One attempt to run one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Identity.
    pub id: TaskId,
    /// Times and revisions.
    pub meta: Meta,
    /// The service it belongs to.
    pub service: ServiceId,
    /// The version of the service's spec it runs.
    pub spec: VersionNumber,
    /// The position it fills.
    pub slot: Slot,
    /// Where it runs; set once.
    pub node: Option<NodeId>,
    /// Addresses, one per network; set once.
    pub addresses: Vec<TaskAddress>,
    /// The state we want it in; only rises.
    pub desired: TaskState,
    /// It may not start before this time (restart delay); zero if at once.
    pub not_before: Timestamp,
    /// What was last reported.
    pub status: TaskStatus,
}

impl Task {
    /// Whether the task occupies its slot: wanted to run and not known to have ended.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.desired <= TaskState::Running && self.status.state <= TaskState::Running
    }

    /// Whether its container may still exist.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.node.is_some() && self.status.state <= TaskState::Running
    }
}

/// An address of a task on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskAddress {
    /// The network.
    pub network: NetworkId,
    /// The address.
    pub addr: IpAddr,
}

/// The stable position a task fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Of a replicated service: 1, 2, 3, …
    Number(u32),
    /// Of a global service: its node.
    Node(NodeId),
}

/// The life of a task, in order (Docker: `TaskState`; moby/swarmkit `design/task_model.md`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created, resources not yet allocated.
    #[default]
    New,
    /// Addresses are allocated; waits for a node.
    Pending,
    /// A node is chosen.
    Assigned,
    /// The node took it.
    Accepted,
    /// The node fetches images and prepares.
    Preparing,
    /// Prepared; waits for the desired state to reach running.
    Ready,
    /// The container is starting, or not yet healthy.
    Starting,
    /// The container runs and is healthy.
    Running,
    /// It ended by itself without error.
    Complete,
    /// It was stopped on our wish.
    Shutdown,
    /// It ended with an error.
    Failed,
    /// The node could not even prepare it.
    Rejected,
    /// To be removed (only ever a desired state).
    Remove,
    /// Its node has been gone for too long.
    Orphaned,
}

impl TaskState {
    /// All states, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// Docker's word for the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// Whether nothing more can happen to a task in this state.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }

    /// The number of the state in every format of ours: its place in [`Self::ALL`].
    #[must_use]
    pub fn number(self) -> u32 {
        Self::ALL
            .iter()
            .position(|state| *state == self)
            .map_or(0, |place| u32::try_from(place).unwrap_or_default())
    }

    /// The state with a number; `None` where there is none.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        usize::try_from(number).ok().and_then(|place| Self::ALL.get(place).copied())
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was last reported of a task.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TaskStatus {
    /// Where it is in its life.
    pub state: TaskState,
    /// When that was found out, by the clock of who found it.
    pub at: Timestamp,
    /// What is going on, for people: "started", "preparing", …
    pub message: String,
    /// What went wrong, for people; empty if nothing did.
    pub error: String,
    /// The container, once there is one.
    pub container: Option<ContainerStatus>,
    /// Ports that the engine opened on the host.
    pub ports: Vec<PortConfig>,
}

impl TaskStatus {
    /// The join of two reports: the higher state wins; of the same state, the later one. It is
    /// commutative, associative and idempotent, so duplicates and reorderings are harmless.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if (other.state, other.at, &other.message, &other.error)
            > (self.state, self.at, &self.message, &self.error)
        {
            other
        } else {
            self
        }
    }
}

/// The container of a task.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ContainerStatus {
    /// The engine's id.
    pub id: String,
    /// Process id on its host; 0 when it does not run.
    pub pid: i64,
    /// Exit code, once it ended.
    pub exit_code: Option<i64>,
    /// The kernel ended it for want of memory.
    pub oom_killed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_their_numbers_for_ever() {
        for (number, state) in (0..).zip(TaskState::ALL) {
            assert_eq!(state.number(), number);
            assert_eq!(TaskState::from_number(number), Some(state));
        }
        assert_eq!(TaskState::from_number(14), None);
        assert_eq!(TaskState::Running.number(), 7);
    }

    #[test]
    fn join_takes_the_higher_state_whatever_the_order() {
        let status = |state, at| TaskStatus { state, at: Timestamp(at), ..TaskStatus::default() };
        let early = status(TaskState::Failed, 1);
        let late = status(TaskState::Running, 9);
        assert_eq!(early.clone().join(late.clone()), early);
        assert_eq!(late.clone().join(early.clone()), early);
        assert_eq!(early.clone().join(early.clone()), early);
    }
}
