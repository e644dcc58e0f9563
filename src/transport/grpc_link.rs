//! The agents' link over gRPC.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::channels::{Channels, ConnectionState, Lane};
use super::{LinkError, MAX_MESSAGE, ManagerLink, SessionLink};
use crate::env::{Env, Scope};
use crate::wire::node::dispatcher_client::DispatcherClient;
use crate::wire::node::logs_client::LogsClient;
use crate::wire::node::{AgentMessage, LogMessage, ManagerMessage};

/// For a connection to stand, with its handshake.
const OPEN_LIMIT: Duration = Duration::from_millis(3_500);
/// Messages that wait in each direction.
const QUEUE: usize = 64;

/// Sessions as calls of `Dispatcher.Session`, log output as calls of `Logs.Publish`.
#[derive(Clone, Debug)]
pub struct GrpcLink {
    channels: Channels,
    env: Env,
    scope: Scope,
}

impl GrpcLink {
    /// A link over a pool; `scope` owns the routines of its sessions.
    #[must_use]
    pub const fn new(channels: Channels, env: Env, scope: Scope) -> Self {
        Self { channels, env, scope }
    }

    async fn session(
        self,
        addr: SocketAddr,
        requests: mpsc::Receiver<AgentMessage>,
        replies: mpsc::Sender<Result<ManagerMessage, LinkError>>,
        begun: oneshot::Sender<Result<(), LinkError>>,
    ) {
        let mut client = DispatcherClient::new(self.channels.lane(addr, Lane::Control))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut stream = match client.session(ReceiverStream::new(requests)).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                let error = self.channels.link_error(addr, Lane::Control, &status);
                if let Err(unheard) = begun.send(Err(error)) {
                    // Whoever opened the session has it already.
                    forward(&replies, unheard).await;
                }
                return;
            }
        };
        // Nobody waits any more if the connection stood before.
        drop(begun.send(Ok(())));
        loop {
            let item = match stream.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => return,
                Err(status) => Err(match self.channels.link_error(addr, Lane::Control, &status) {
                    LinkError::Unreachable { addr, reason } => LinkError::Closed { addr, reason },
                    other => other,
                }),
            };
            let is_last = item.is_err();
            if replies.send(item).await.is_err() || is_last {
                return;
            }
        }
    }
}

async fn forward(
    replies: &mpsc::Sender<Result<ManagerMessage, LinkError>>,
    outcome: Result<(), LinkError>,
) {
    if let Err(error) = outcome {
        drop(replies.send(Err(error)).await);
    }
}

#[async_trait]
impl ManagerLink for GrpcLink {
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError> {
        let (outgoing, requests) = mpsc::channel(QUEUE);
        let (replies, incoming) = mpsc::channel(QUEUE);
        let (begun, mut outcome) = oneshot::channel();
        let mut connection = self.channels.connection(addr, Lane::Control);
        let routine = self.clone();
        let gone = replies.clone();
        self.scope.spawn("session", async move {
            tokio::select! {
                () = routine.session(addr, requests, replies, begun) => {}
                () = gone.closed() => {}
            }
        });
        let stands = async {
            tokio::select! {
                biased;
                first = &mut outcome => first.unwrap_or(Ok(())),
                Ok(_) = connection.wait_for(|state| *state == ConnectionState::Connected) => Ok(()),
            }
        };
        match self.env.clock.timeout(OPEN_LIMIT, stands).await {
            Ok(Ok(())) => Ok(SessionLink { outgoing, incoming }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LinkError::Unreachable { addr, reason: "no answer".to_owned() }),
        }
    }

    async fn publish_logs(&self, addr: SocketAddr) -> Result<mpsc::Sender<LogMessage>, LinkError> {
        let (sender, messages) = mpsc::channel(QUEUE);
        let mut client = LogsClient::new(self.channels.lane(addr, Lane::Bulk))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        self.channels.touch(addr, Lane::Bulk).await?;
        self.scope.spawn("log output", async move {
            if let Err(status) = client.publish(ReceiverStream::new(messages)).await {
                tracing::debug!(%addr, reason = status.message(), "log output ended");
            }
        });
        Ok(sender)
    }
}
