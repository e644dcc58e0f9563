//! Brokers the output of tasks: whoever asks this manager gets lines of tasks on any node.
//!
//! A subscription goes to the agents connected here and, once, to every other manager, which asks its
//! own agents. An agent publishes on a connection of its own, so that bulk never delays a session.
//! A part ends when all of its tasks have ended; the subscription ends when all parts have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::domain::{NodeId, SessionId, TaskId};
use crate::env::{Env, Scope};
use crate::leader::Dial;
use crate::raft::Store;
use crate::transport::peer;
use crate::wire::node::logs_client::LogsClient;
use crate::wire::node::logs_server;
use crate::wire::node::manager_message::Kind as ToAgent;
use crate::wire::node::{
    LogMessage, LogOptions, LogRequest, LogSubscription, ManagerMessage, PublishReply,
};

/// Lines that wait for one reader; a slow reader slows its publishers.
const QUEUE: usize = 256;
/// How long another manager may take to accept a subscription.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(2);

/// Which output is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogSelection {
    /// The tasks.
    pub tasks: Vec<TaskId>,
    /// From where, how much, which streams.
    pub options: LogOptions,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq)]
pub struct LogItem {
    /// The task.
    pub task: TaskId,
    /// Its node.
    pub node: NodeId,
    /// The message as the agent published it.
    pub message: LogMessage,
}

type Outbox = mpsc::Sender<Result<ManagerMessage, Status>>;
type SubscriptionId = [u8; 16];

#[derive(Debug, Default)]
struct Registry {
    agents: BTreeMap<NodeId, (SessionId, Outbox)>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
}

#[derive(Debug)]
struct Subscription {
    lines: mpsc::Sender<LogMessage>,
    pending: BTreeMap<NodeId, BTreeSet<TaskId>>,
}

/// The broker of this manager. Cheap to clone.
#[derive(Clone)]
pub struct LogBroker {
    node: NodeId,
    env: Env,
    store: Store,
    dial: Dial,
    scope: Scope,
    /// Held for map operations only.
    registry: Arc<Mutex<Registry>>,
}

impl std::fmt::Debug for LogBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogBroker").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl LogBroker {
    pub(super) fn new(node: NodeId, env: Env, store: Store, dial: Dial, scope: &Scope) -> Self {
        Self { node, env, store, dial, scope: scope.clone(), registry: Arc::default() }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // The maps are whole after every operation, so a panic of another holder does no harm.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Output of tasks on any node. Ends when all is sent and `follow` is not asked; dropping the
    /// receiver ends the subscription everywhere.
    #[must_use]
    pub fn subscribe(&self, selection: LogSelection) -> mpsc::Receiver<LogItem> {
        let (items, receiver) = mpsc::channel(QUEUE);
        let broker = self.clone();
        self.scope.spawn("log-subscription", async move {
            let id = broker.env.entropy.id();
            let local = broker.subscribe_here(id, &selection);
            let mut parts: Vec<Part> = vec![Box::pin(ReceiverStream::new(local))];
            parts.extend(broker.subscribe_elsewhere(id, &selection).await);
            let mut lines = futures::stream::select_all(parts);
            loop {
                tokio::select! {
                    biased;
                    () = items.closed() => break,
                    line = lines.next() => {
                        let Some(line) = line else { break };
                        let Some(item) = to_item(line) else { continue };
                        if items.send(item).await.is_err() {
                            break;
                        }
                    }
                }
            }
            broker.cancel(id);
        });
        receiver
    }

    /// Asks the agents that are connected here.
    fn subscribe_here(
        &self,
        id: SubscriptionId,
        selection: &LogSelection,
    ) -> mpsc::Receiver<LogMessage> {
        let (lines, receiver) = mpsc::channel(QUEUE);
        let view = self.store.view();
        let mut pending: BTreeMap<NodeId, BTreeSet<TaskId>> = BTreeMap::new();
        let mut registry = self.registry();
        for task in &selection.tasks {
            let node = view.task(*task).and_then(|task| task.node);
            if let Some(node) = node.filter(|node| registry.agents.contains_key(node)) {
                pending.entry(node).or_default().insert(*task);
            }
        }
        for (node, tasks) in &pending {
            let tasks = tasks.iter().map(|task| id_bytes(task.to_bytes())).collect();
            let options = Some(selection.options);
            ask(&registry, *node, LogRequest { tasks, options, ..request(id) });
        }
        if !pending.is_empty() {
            registry.subscriptions.insert(id, Subscription { lines, pending });
        }
        receiver
    }

    /// Asks the other managers; those that cannot be reached are left out.
    async fn subscribe_elsewhere(&self, id: SubscriptionId, selection: &LogSelection) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for addr in self.other_managers() {
            let mut client = LogsClient::new((self.dial)(addr));
            let subscription = LogSubscription {
                subscription: id_bytes(id),
                tasks: selection.tasks.iter().map(|task| id_bytes(task.to_bytes())).collect(),
                options: Some(selection.options),
            };
            let answer =
                self.env.clock.timeout(SUBSCRIBE_DEADLINE, client.subscribe(subscription)).await;
            match answer {
                Ok(Ok(stream)) => {
                    parts.push(Box::pin(stream.into_inner().filter_map(Result::ok)));
                }
                Ok(Err(status)) => tracing::debug!(%addr, %status, "no logs of a manager"),
                Err(elapsed) => tracing::debug!(%addr, %elapsed, "no logs of a manager"),
            }
        }
        parts
    }

    fn other_managers(&self) -> Vec<SocketAddr> {
        use crate::domain::node::Membership;
        let view = self.store.view();
        let managers = view.nodes.values().filter_map(|node| {
            let part = node.manager.filter(|part| part.membership != Membership::Removed)?;
            Some((node.id, part.addr))
        });
        managers.filter(|(node, _)| *node != self.node).map(|(_, addr)| addr).collect()
    }

    /// An agent has connected.
    pub(super) fn attach(&self, node: NodeId, session: SessionId, outbox: Outbox) {
        self.registry().agents.insert(node, (session, outbox));
    }

    /// An agent's session has ended: nothing more comes of its tasks.
    pub(super) fn forget(&self, node: NodeId, session: SessionId) {
        let mut registry = self.registry();
        if registry.agents.get(&node).is_some_and(|(current, _)| *current == session) {
            registry.agents.remove(&node);
            for subscription in registry.subscriptions.values_mut() {
                subscription.pending.remove(&node);
            }
            registry.subscriptions.retain(|_, subscription| !subscription.pending.is_empty());
        }
    }

    /// The reader has gone, or everything is sent.
    fn cancel(&self, id: SubscriptionId) {
        let mut registry = self.registry();
        if let Some(subscription) = registry.subscriptions.remove(&id) {
            for node in subscription.pending.keys() {
                ask(&registry, *node, LogRequest { cancel: true, ..request(id) });
            }
        }
    }

    /// Where a published line goes; `None` when nobody wants it (any more).
    fn route(&self, node: NodeId, line: &LogMessage) -> Option<mpsc::Sender<LogMessage>> {
        let id = SubscriptionId::try_from(&line.subscription[..]).ok()?;
        let task = TaskId::from_slice(&line.task)?;
        let mut registry = self.registry();
        let subscription = registry.subscriptions.get_mut(&id)?;
        let lines = subscription.lines.clone();
        let tasks = subscription.pending.get_mut(&node).filter(|tasks| tasks.contains(&task))?;
        if line.end {
            tasks.remove(&task);
            if tasks.is_empty() {
                subscription.pending.remove(&node);
            }
            if subscription.pending.is_empty() {
                registry.subscriptions.remove(&id);
            }
        }
        Some(lines)
    }
}

type Part = Pin<Box<dyn Stream<Item = LogMessage> + Send>>;

fn request(id: SubscriptionId) -> LogRequest {
    LogRequest { subscription: id_bytes(id), tasks: Vec::new(), options: None, cancel: false }
}

fn ask(registry: &Registry, node: NodeId, request: LogRequest) {
    if let Some((_, outbox)) = registry.agents.get(&node) {
        let message = ManagerMessage { kind: Some(ToAgent::Logs(request)) };
        // An agent whose outbox is full is slow or gone; its part of the logs is not worth a wait.
        if outbox.try_send(Ok(message)).is_err() {
            tracing::debug!(node.id = %node, "an agent was not asked for logs");
        }
    }
}

fn id_bytes(id: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&id)
}

fn to_item(message: LogMessage) -> Option<LogItem> {
    let task = TaskId::from_slice(&message.task)?;
    let node = NodeId::from_slice(&message.node)?;
    Some(LogItem { task, node, message })
}

#[tonic::async_trait]
impl logs_server::Logs for LogBroker {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<LogMessage, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<Streaming<LogMessage>>,
    ) -> Result<Response<PublishReply>, Status> {
        let node = peer(&request)?.node;
        let mut lines = request.into_inner();
        while let Some(mut line) = lines.message().await? {
            line.node = id_bytes(node.to_bytes());
            let Some(reader) = self.route(node, &line) else {
                return Err(Status::cancelled("nobody reads this subscription"));
            };
            if reader.send(line).await.is_err() {
                return Err(Status::cancelled("the reader has gone"));
            }
        }
        Ok(Response::new(PublishReply {}))
    }

    async fn subscribe(
        &self,
        request: Request<LogSubscription>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let wanted = request.into_inner();
        let id = SubscriptionId::try_from(&wanted.subscription[..])
            .map_err(|_| Status::invalid_argument("a subscription's id has 16 bytes"))?;
        let tasks: Option<Vec<_>> =
            wanted.tasks.iter().map(|task| TaskId::from_slice(task)).collect();
        let tasks = tasks.ok_or_else(|| Status::invalid_argument("a task's id has 16 bytes"))?;
        let options = wanted.options.unwrap_or_default();
        let mut local = self.subscribe_here(id, &LogSelection { tasks, options });
        let (lines, receiver) = mpsc::channel(QUEUE);
        let broker = self.clone();
        self.scope.spawn("log-part", async move {
            loop {
                tokio::select! {
                    biased;
                    () = lines.closed() => break,
                    line = local.recv() => {
                        let Some(line) = line else { break };
                        if lines.send(Ok(line)).await.is_err() {
                            break;
                        }
                    }
                }
            }
            broker.cancel(id);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
