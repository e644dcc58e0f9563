//! What is known when health is judged.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::node::{Description, Node};
use crate::domain::{Format, NodeId, Timestamp};
use crate::state::State;

/// Everything that is known here at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Now.
    pub now: Timestamp,
    /// What this node knows of itself.
    pub local: &'a Local,
    /// The replicated state, on a manager whose store is open. May be behind.
    pub state: Option<&'a State>,
}

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// In no swarm.
    #[default]
    Outside,
    /// Its daemon has just begun.
    Starting,
    /// Joining one.
    Joining,
    /// A worker.
    Worker,
    /// A manager.
    Manager,
    /// A manager that waits for its unlock key.
    Locked,
    /// It cannot be what it should be; the error says why.
    Broken,
}

/// Room on the disk of a manager's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are free.
    pub free: u64,
    /// Why nothing is written any more, in words; `None` if something is.
    pub lack: Option<String>,
}

/// From when and until when a certificate is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub from: Timestamp,
    /// Until.
    pub until: Timestamp,
}

impl Validity {
    /// Whether less than a fifth of its life is left: it should have been renewed long ago.
    #[must_use]
    pub const fn is_late(&self, now: Timestamp) -> bool {
        let life = self.until.0.saturating_sub(self.from.0);
        self.until.0.saturating_sub(now.0) < life / 5
    }
}

/// What a node knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Its id, once enrolled.
    pub node: Option<NodeId>,
    /// Its host name.
    pub name: String,
    /// What it is.
    pub part: Part,
    /// Why it is not what it should be.
    pub error: String,
    /// Whether it knows a leader; on a manager whose store is open.
    pub is_led: Option<bool>,
    /// Whether its agent has a session with a manager; `None` in no swarm.
    pub is_connected: Option<bool>,
    /// Why it cannot run tasks; empty if it can.
    pub degraded: String,
    /// Room for a manager's log.
    pub room: Option<Room>,
    /// Why it is not fit to lead, in words; empty if it is.
    pub ailments: Vec<String>,
    /// Its clock was set by more than is believed.
    pub has_clock_stepped: bool,
    /// Its certificate.
    pub certificate: Option<Validity>,
    /// Nodes of which two agents are heard; on the leader.
    pub contested: BTreeSet<NodeId>,
    /// The newest format that the program of each node knows that is heard from; on the leader.
    pub formats: Option<BTreeMap<NodeId, Format>>,
    /// A backup that should have been made, in words; where backups are scheduled.
    pub backup_overdue: Option<String>,
}

/// A node as people call it.
#[must_use]
pub fn name_of(node: &Node) -> String {
    let hostname = node.description.as_ref().map(|it: &Description| it.hostname.clone());
    let name = Some(node.spec.name.clone()).filter(|name| !name.is_empty());
    name.or(hostname).filter(|name| !name.is_empty()).unwrap_or_else(|| node.id.to_string())
}
