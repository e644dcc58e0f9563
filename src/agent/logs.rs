//! Output of containers on request of a manager: one stream of messages per subscription.
//!
//! A subscription ends with its last task, with a cancel, or with the session it came by; a manager
//! that still wants it asks again. The stream is bounded, so a slow reader slows the engine's stream
//! and never fills memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::board::Board;
use crate::domain::{NodeId, TaskId, Timestamp};
use crate::env::Scope;
use crate::runtime::{Error, LogOptions, Runtime};
use crate::transport::ManagerLink;
use crate::wire::node::{LogMessage, LogRequest};

/// Subscriptions of a session at a time; more are refused.
const SUBSCRIPTIONS: usize = 256;

/// The subscriptions of a session.
#[derive(Debug)]
pub(super) struct Subscriptions {
    pub(super) node: NodeId,
    pub(super) board: Arc<Board>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) link: Arc<dyn ManagerLink>,
    pub(super) addr: SocketAddr,
    pub(super) scope: Scope,
    pub(super) open: BTreeMap<Bytes, Scope>,
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Subscriptions {
    /// Opens or cancels a subscription.
    pub(super) fn request(&mut self, request: LogRequest) {
        if let Some(open) = self.open.remove(&request.subscription) {
            open.cancel();
        }
        if request.cancel {
            return;
        }
        if self.open.len() >= SUBSCRIPTIONS {
            tracing::warn!("too many log subscriptions at a time: one is refused");
            return;
        }
        let scope = self.scope.child("logs");
        self.open.insert(request.subscription.clone(), scope.clone());
        let (link, addr, node) = (Arc::clone(&self.link), self.addr, self.node);
        let (board, runtime) = (Arc::clone(&self.board), Arc::clone(&self.runtime));
        let inner = scope.clone();
        scope.spawn("publish", async move {
            let sender = match link.publish_logs(addr).await {
                Ok(sender) => sender,
                Err(error) => return tracing::warn!(%error, "output cannot be published"),
            };
            let options = options(request.options.unwrap_or_default());
            for task in request.tasks.iter().filter_map(|task| TaskId::from_slice(task)) {
                let output = Output {
                    subscription: request.subscription.clone(),
                    task,
                    node,
                    sender: sender.clone(),
                    board: Arc::clone(&board),
                    runtime: Arc::clone(&runtime),
                };
                inner.spawn("output", async move { output.run(options).await });
            }
        });
    }
}

fn options(wire: crate::wire::node::LogOptions) -> LogOptions {
    LogOptions {
        follow: wire.follow,
        tail: wire.tail_set.then_some(wire.tail),
        since: (wire.since > 0).then_some(Timestamp(wire.since)),
        stderr_only: match wire.streams {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        },
    }
}

/// The output of one task for one subscription.
#[derive(Debug)]
struct Output {
    subscription: Bytes,
    task: TaskId,
    node: NodeId,
    sender: mpsc::Sender<LogMessage>,
    board: Arc<Board>,
    runtime: Arc<dyn Runtime>,
}

impl Output {
    async fn run(self, options: LogOptions) {
        let error = match self.publish(options).await {
            Ok(()) => String::new(),
            Err(error) => error,
        };
        let end = LogMessage { end: true, error, ..self.message() };
        // The manager may have lost interest.
        drop(self.sender.send(end).await);
    }

    async fn publish(&self, options: LogOptions) -> Result<(), String> {
        let mut local = self.board.local.subscribe();
        let mut lines = loop {
            local.borrow_and_update();
            match self.runtime.logs(self.task, options).await {
                Ok(lines) => break lines,
                // Who follows waits for the container, as long as there may be one.
                Err(Error::Missing) if options.follow && self.may_come() => {
                    local.changed().await.map_err(|_| "the agent is stopping".to_owned())?;
                }
                Err(Error::Missing) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        };
        while let Some(line) = lines.recv().await {
            let message = LogMessage {
                stderr: line.stderr,
                at: line.at.map_or(0, |at| at.0),
                data: line.data,
                ..self.message()
            };
            if self.sender.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn may_come(&self) -> bool {
        let assigned = self.board.assignments.borrow().task(self.task).is_some();
        let ended = self.board.status(self.task).is_some_and(|status| status.state.is_terminal());
        assigned && !ended
    }

    fn message(&self) -> LogMessage {
        LogMessage {
            subscription: self.subscription.clone(),
            task: Bytes::copy_from_slice(&self.task.to_bytes()),
            node: Bytes::copy_from_slice(&self.node.to_bytes()),
            ..LogMessage::default()
        }
    }
}
