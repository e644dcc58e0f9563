//! The Docker Engine API for swarm mode, so that stock clients work; and the rest of that API
//! passed through to this node's engine.
//!
//! A request goes: `server` (socket) → `router` (version prefix, paths) → a handler, which decodes
//! (`keys`, serde into the domain's specs), validates, resolves names in a linearizable view,
//! proposes to the store and encodes (`convert`). What is no business of ours goes to `engine`.
//!
//! The API runs before any cluster exists and on workers: the store is optional, and what this node
//! does about its own part is behind [`NodeControl`].

mod alarms;
mod ask;
mod backups;
mod context;
mod control;
mod convert;
mod engine;
mod error;
mod events;
mod filter;
#[cfg(test)]
pub(crate) mod fuzz;
mod keys;
mod log_source;
mod lookup;
mod metrics;
mod networks;
mod nodes;
mod payloads;
mod recovery;
mod router;
mod server;
mod service_logs;
mod service_spec;
mod services;
mod status;
mod swarm;
mod system;
mod tasks;

pub use control::{
    Backups, ControlError, InitRequest, JoinRequest, JoinTokens, Leave, LocalState, NodeControl,
    Participation, Places, RecoverRequest, Recovery, RestoreRequest, Run, Vitals,
};
pub use log_source::{LogError, LogItem, LogOptions, LogSource, LogStream};
pub use server::{Handle, Local, ServeError, serve};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::env::Env;
use crate::raft::Store;

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Path of the socket; a stale file is replaced.
    pub socket: PathBuf,
    /// The group that may use it beside root; root only if absent.
    pub group: Option<String>,
    /// Where numbers and health are served over TCP as well; nowhere if absent.
    pub metrics: Option<SocketAddr>,
}

/// What the API works with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The world.
    pub env: Env,
    /// This node's own part.
    pub control: Arc<dyn NodeControl>,
    /// The replicated state, while this node is a manager and it is open.
    pub store: watch::Receiver<Option<Store>>,
    /// Output of tasks.
    pub logs: Arc<dyn LogSource>,
    /// The engine's socket.
    pub engine: PathBuf,
}

#[cfg(test)]
mod tests;
