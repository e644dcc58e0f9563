//! Names of services and tasks, for the containers of this node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::{AssignmentSet, NodeId, TaskId};
use crate::env::{Env, Scope};

/// What the server must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP and TCP port, on all addresses; 0 lets the system choose.
    pub port: u16,
    /// This node.
    pub node: NodeId,
    /// Where other names are asked for; `None` for the name servers of the host.
    pub upstreams: Option<Vec<SocketAddr>>,
}

/// Why names cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be opened.
    #[error("cannot serve DNS on port {port}: is another program listening there?")]
    Bind {
        /// The port.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What a node reads for names.
#[derive(Debug)]
pub struct Sources {
    /// What the managers want here.
    pub assignments: watch::Receiver<Arc<AssignmentSet>>,
    /// What this node knows better, before the managers do: `false` takes a task out of all answers.
    pub local: watch::Receiver<Arc<BTreeMap<TaskId, bool>>>,
}

/// A running server.
#[derive(Clone, Debug)]
pub struct Handle {
    port: u16,
}

impl Handle {
    /// The port it serves on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// Opens the sockets and serves until the scope ends.
///
/// # Errors
/// When the port cannot be opened.
#[expect(clippy::unused_async, clippy::needless_pass_by_value, reason = "signature first")]
pub async fn start(
    settings: Settings,
    _env: Env,
    _sources: Sources,
    _scope: Scope,
) -> Result<Handle, Error> {
    Ok(Handle { port: settings.port })
}
