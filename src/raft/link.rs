//! [`PeerLink`] over gRPC.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::{Code, Response, Status, Streaming};

use super::peer::{Heartbeats, Peer, PeerError, PeerLink};
use crate::env::Env;
use crate::transport::{Channels, ConnectionState, Dialogue, Lane, MAX_MESSAGE, Questions, Ways};
use crate::wire::manager::proposals_client::ProposalsClient;
use crate::wire::manager::raft_client::RaftClient;
use crate::wire::manager::{
    ProposeReply, ProposeRequest, RaftMessage, ReadIndexRequest, SnapshotChunk,
};

/// Bytes of a snapshot in one message.
const PIECE: usize = 1 << 20;
/// Between two looks at a leader that cannot be reached.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a closed connection's address may take to turn out to be refused.
const PROBED_WITHIN: Duration = Duration::from_millis(500);

/// The ways to the other members over the pool of channels.
#[must_use]
pub fn tonic_link(env: Env, channels: Channels) -> Arc<dyn PeerLink> {
    Arc::new(TonicLink { env, channels })
}

struct TonicLink {
    env: Env,
    channels: Channels,
}

impl fmt::Debug for TonicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TonicLink")
    }
}

macro_rules! raft_client {
    ($self:ident, $to:expr, $lane:expr) => {
        RaftClient::new($self.channels.lane($to.addr, $lane))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    };
}

impl TonicLink {
    async fn ask<T>(
        &self,
        addr: SocketAddr,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        in_time(&self.env, addr, limit, call).await.map(Response::into_inner)
    }

    /// Waits until the connection to an address stands.
    async fn connect(&self, addr: SocketAddr) {
        let state = self.channels.connection(addr, Lane::Raft);
        loop {
            // The answer does not matter, only that there is a connection for it to come by.
            self.channels.touch(addr, Lane::Raft).await.ok();
            if *state.borrow() == ConnectionState::Connected {
                return;
            }
            self.env.clock.sleep(LOOK_AGAIN).await;
        }
    }
}

#[async_trait]
impl PeerLink for TonicLink {
    async fn vote(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        let mut client = raft_client!(self, to, Lane::Raft);
        let call = client.vote(message(to, payload));
        self.ask(to.addr, limit, call).await.map(|answer| answer.payload)
    }

    async fn append(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        let mut client = raft_client!(self, to, Lane::Raft);
        let call = client.append(message(to, payload));
        self.ask(to.addr, limit, call).await.map(|answer| answer.payload)
    }

    fn heartbeats(&self, to: Peer) -> Option<Box<dyn Heartbeats>> {
        let ways = Beating { to, channels: self.channels.clone() };
        let dialogue = Dialogue::new(ways, Arc::clone(&self.env.clock));
        Some(Box::new(Beats { env: self.env.clone(), dialogue }))
    }

    async fn transfer(
        &self,
        to: Peer,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        let mut client = raft_client!(self, to, Lane::Raft);
        let call = client.transfer_leader(message(to, payload));
        self.ask(to.addr, limit, call).await.map(|answer| answer.payload)
    }

    async fn snapshot(
        &self,
        to: Peer,
        header: Bytes,
        data: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        let mut client = raft_client!(self, to, Lane::Bulk);
        let pieces = data.len().div_ceil(PIECE);
        let chunks = (0..pieces).map(move |number| SnapshotChunk {
            target: to.id.0,
            header: if number == 0 { header.clone() } else { Bytes::new() },
            data: data.slice(number * PIECE..data.len().min((number + 1) * PIECE)),
        });
        let call = client.snapshot(futures::stream::iter(chunks));
        self.ask(to.addr, limit, call).await.map(|answer| answer.payload)
    }

    async fn propose(
        &self,
        to: Peer,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<ProposeReply, PeerError> {
        let mut client = ProposalsClient::new(self.channels.lane(to.addr, Lane::Control))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        self.ask(to.addr, limit, client.propose(request)).await
    }

    async fn read_index(&self, to: Peer, limit: Duration) -> Result<u64, PeerError> {
        let mut client = ProposalsClient::new(self.channels.lane(to.addr, Lane::Control));
        let call = client.read_index(ReadIndexRequest {});
        self.ask(to.addr, limit, call).await.map(|answer| answer.index)
    }

    async fn closed(&self, to: Peer) {
        let mut state = self.channels.connection(to.addr, Lane::Raft);
        loop {
            self.connect(to.addr).await;
            // A refusal counts only after a connection that stood.
            let is_closed = |state: &ConnectionState| match state {
                ConnectionState::Closed { .. } => true,
                ConnectionState::Idle | ConnectionState::Connected => false,
            };
            if state.wait_for(is_closed).await.is_err() {
                return futures::future::pending().await;
            }
            let is_refused =
                |state: &ConnectionState| *state == ConnectionState::Closed { refused: true };
            let refused = state.wait_for(is_refused);
            if self.env.clock.timeout(PROBED_WITHIN, refused).await.is_ok() {
                return;
            }
        }
    }
}

/// The heartbeats of one client to one member.
#[derive(Debug)]
struct Beats {
    env: Env,
    dialogue: Dialogue<Beating>,
}

#[async_trait]
impl Heartbeats for Beats {
    async fn beat(&mut self, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        let to = self.dialogue.ways().to;
        let asked = self.dialogue.ask(message(to, payload));
        in_time(&self.env, to.addr, limit, asked).await.map(|answer| answer.payload)
    }
}

/// Heartbeats over a stream, and as calls to a member of a release before.
struct Beating {
    to: Peer,
    channels: Channels,
}

#[async_trait]
impl Ways for Beating {
    type Question = RaftMessage;
    type Answer = RaftMessage;

    async fn open(
        &self,
        questions: Questions<RaftMessage>,
    ) -> Result<Response<Streaming<RaftMessage>>, Status> {
        raft_client!(self, self.to, Lane::Raft).heartbeats(questions).await
    }

    async fn call(&self, question: RaftMessage) -> Result<Response<RaftMessage>, Status> {
        raft_client!(self, self.to, Lane::Raft).append(question).await
    }
}

async fn in_time<T>(
    env: &Env,
    addr: SocketAddr,
    limit: Duration,
    asked: impl Future<Output = Result<T, Status>>,
) -> Result<T, PeerError> {
    match env.clock.timeout(limit, asked).await {
        Ok(outcome) => outcome.map_err(|status| peer_error(addr, &status)),
        Err(_) => Err(PeerError::Timeout),
    }
}

fn message(to: Peer, payload: Bytes) -> RaftMessage {
    RaftMessage { target: to.id.0, payload }
}

/// What a status means for whether something was done; `server` makes them.
fn peer_error(addr: SocketAddr, status: &Status) -> PeerError {
    if never_left(status) {
        let reason = status.message().to_owned();
        return PeerError::Unreachable { addr, reason };
    }
    let said = status.message().to_owned();
    match status.code() {
        // Said by `server` or by the gate before it; a lost connection has a source.
        Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::NotFound
        | Code::InvalidArgument
        | Code::Unimplemented => PeerError::Refused(said),
        Code::Unavailable if std::error::Error::source(status).is_none() => {
            PeerError::Refused(said)
        }
        Code::ResourceExhausted => PeerError::NoSpace(said),
        Code::DeadlineExceeded | Code::Cancelled => PeerError::Timeout,
        Code::Ok
        | Code::Unknown
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => PeerError::Other(said),
    }
}

/// Whether a call failed because there was no connection to send it on.
fn never_left(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
