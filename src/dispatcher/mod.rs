//! A manager's side of the agent protocol; runs on every manager, reads the local view.
//!
//! One `session` per connected agent streams assignments; `status` batches what agents report into
//! proposals; `beats` tells the leader which agents are heard from; `logs` brokers output. Nothing
//! here decides anything, so a change of leader drops no session. A manager that is cut off from any
//! leader closes its sessions, so that its agents go elsewhere before their leases run out.

mod beats;
mod feed;
#[cfg(test)]
pub(crate) mod fuzz;
mod logs;
mod session;
mod status;
mod trust;

pub use logs::{LogBroker, LogItem, LogSelection};

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::NodeId;
use crate::domain::timing::Timing;
use crate::env::{Env, Scope};
use crate::identity::NodeIdentity;
use crate::leader::{Dial, Leases};
use crate::raft::Store;
use crate::transport::{MAX_MESSAGE, peer};
use crate::wire::node::dispatcher_server::{self, DispatcherServer};
use crate::wire::node::logs_server::LogsServer;
use crate::wire::node::{AgentMessage, ManagerMessage};

/// Messages that wait for one agent. A session computes the next difference only when there is room,
/// so a slow agent gets fewer and larger ones.
const OUTBOX: usize = 16;

/// What all sessions of this manager share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) timing: Timing,
    pub(crate) store: Store,
    pub(crate) scope: Scope,
    pub(crate) feed: feed::Feed,
    pub(crate) beats: beats::Beats,
    pub(crate) reports: status::Reports,
    pub(crate) logs: LogBroker,
}

/// The dispatcher of this manager. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

/// What a dispatcher must know of its manager.
#[derive(Clone)]
pub struct Settings {
    /// The manager's own node.
    pub node: NodeId,
    /// The table of timings.
    pub timing: Timing,
    /// How it reaches other managers, for the output of their agents' tasks.
    pub dial: Dial,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Starts the dispatcher's routines.
#[must_use]
pub fn start(
    settings: Settings,
    env: &Env,
    store: &Store,
    leases: Leases,
    scope: &Scope,
) -> Dispatcher {
    let Settings { node, timing, dial } = settings;
    let scope = scope.child("dispatcher");
    let shared = Shared {
        env: env.clone(),
        timing,
        store: store.clone(),
        feed: feed::start(store, &scope),
        beats: beats::start(env, timing, leases, &scope),
        reports: status::start(env, store, &scope),
        logs: LogBroker::new(node, env.clone(), store.clone(), dial, &scope),
        scope,
    };
    Dispatcher { shared: Arc::new(shared) }
}

impl Dispatcher {
    /// Output of tasks, wherever they run.
    #[must_use]
    pub fn logs(&self) -> LogBroker {
        self.shared.logs.clone()
    }

    /// Begins a session with an agent that has proved who it is, over whatever carries its messages.
    /// It ends when one of the two streams does; an error is the last item.
    pub fn accept<S>(
        &self,
        peer: NodeIdentity,
        inbox: S,
    ) -> mpsc::Receiver<Result<ManagerMessage, Status>>
    where
        S: Stream<Item = Result<AgentMessage, Status>> + Send + Unpin + 'static,
    {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = session::Session::new(Arc::clone(&self.shared), peer, outbox);
        self.shared.scope.spawn("session", session.run(inbox));
        messages
    }

    /// The gRPC side of the agent protocol.
    #[must_use]
    pub fn server(&self) -> DispatcherServer<Self> {
        DispatcherServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The gRPC side of log streams.
    #[must_use]
    pub fn logs_server(&self) -> LogsServer<LogBroker> {
        LogsServer::new(self.shared.logs.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = peer(&request)?;
        let messages = self.accept(peer, request.into_inner());
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}
