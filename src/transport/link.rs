//! What an agent asks of a manager, as a trait: gRPC in production, frames over a simulated network
//! in tests.

use std::fmt::Debug;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::wire::node::{AgentMessage, LogMessage, ManagerMessage};

/// One end of a session. The session ends when `outgoing` is dropped, or with the first error in
/// `incoming`, or when `incoming` ends; whoever sees that opens another one, to any manager.
#[derive(Debug)]
pub struct SessionLink {
    /// To the manager; `Hello` first. Bounded.
    pub outgoing: mpsc::Sender<AgentMessage>,
    /// From the manager. An error is the last item. Bounded: who does not read slows the manager.
    pub incoming: mpsc::Receiver<Result<ManagerMessage, LinkError>>,
}

/// An agent's ways to the managers.
#[async_trait]
pub trait ManagerLink: Send + Sync + Debug {
    /// Connects to a manager and opens a session on it, without waiting for the manager's first
    /// word (a refusal comes as the first item of `incoming`). Bounded by a deadline of its own
    /// (about 2 s).
    ///
    /// # Errors
    /// When the manager cannot be reached or is not one of this cluster.
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError>;

    /// Opens a stream of log output to a manager; closed by dropping the sender.
    ///
    /// # Errors
    /// As [`Self::open`].
    async fn publish_logs(&self, addr: SocketAddr) -> Result<mpsc::Sender<LogMessage>, LinkError>;
}

/// Why there is no session, or no longer one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No connection. Try another manager.
    #[error("could not reach the manager at {addr}: {reason}")]
    Unreachable {
        /// The manager.
        addr: SocketAddr,
        /// Why, in words.
        reason: String,
    },
    /// The manager ended the session: it stops, lost its leader, or another session of this node
    /// began. Try another manager.
    #[error("the manager at {addr} closed the session: {reason}")]
    Closed {
        /// The manager.
        addr: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// The certificate of this node does not permit a session (expired, of another cluster).
    /// Trying again helps only after a renewal.
    #[error("the manager at {addr} refused this node: {reason}")]
    Refused {
        /// The manager.
        addr: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// A manager that is up to date says that this node is not in the cluster (any more): no other
    /// manager will say anything else.
    #[error(
        "this node was removed from the swarm; run `swarm leave --force` and join again to use it"
    )]
    Removed,
}
