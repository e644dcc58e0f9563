//! Other members: what is asked of them as a trait, and openraft's network on top of it.
//!
//! gRPC stands behind [`PeerLink`] in production (`link`), a simulated network in tests. Payloads are
//! opaque here but for Raft's own, which `codec` makes.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::types::{RaftNode, Snapshot, TypeConfig, Vote};
use crate::domain::RaftId;
use crate::wire::manager::{ProposeReply, ProposeRequest};

/// How long a member may take to write entries down. openraft gives appends a heartbeat's time, in
/// which a slow disk would never be done; a host that is gone is noticed by the kernel.
const APPEND_LIMIT: Duration = Duration::from_secs(3);
/// Between two attempts to reach a member that cannot be reached.
const BACKOFF: Duration = Duration::from_millis(100);

/// A member as one that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which member; whoever finds another one at the address is refused.
    pub id: RaftId,
    /// Where its port 2377 is.
    pub addr: SocketAddr,
}

/// Why a member gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No connection: the request never left.
    #[error("could not reach the manager at {addr}: {reason}")]
    Unreachable {
        /// Where it should be.
        addr: SocketAddr,
        /// Why, in words.
        reason: String,
    },
    /// It answered that it will not: it does not lead, or it is not the member that was meant.
    /// Nothing was done.
    #[error("{0}")]
    Refused(String),
    /// The leader's disk is full. Nothing was done.
    #[error("{0}")]
    NoSpace(String),
    /// No answer in time; the request may have been carried out.
    #[error("the manager did not answer in time")]
    Timeout,
    /// Something else; the request may have been carried out.
    #[error("{0}")]
    Other(String),
}

/// The ways to the other members. Every call ends by its deadline.
#[async_trait]
pub trait PeerLink: Send + Sync + Debug {
    /// Asks for a vote.
    ///
    /// # Errors
    /// [`PeerError`], as of all the others.
    async fn vote(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError>;

    /// Sends entries, or a heartbeat.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn append(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError>;

    /// A way for the heartbeats of one client, if they have one that is better than [`Self::append`].
    fn heartbeats(&self, _to: Peer) -> Option<Box<dyn Heartbeats>> {
        None
    }

    /// Hands leadership over.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn transfer(&self, to: Peer, payload: Bytes, limit: Duration)
    -> Result<Bytes, PeerError>;

    /// Sends a snapshot, in pieces.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn snapshot(
        &self,
        to: Peer,
        header: Bytes,
        data: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError>;

    /// Forwards a proposal to the leader.
    ///
    /// # Errors
    /// [`PeerError`]; after `Unreachable`, `Refused` and `NoSpace` nothing was written.
    async fn propose(
        &self,
        to: Peer,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<ProposeReply, PeerError>;

    /// Asks the leader for the index that a linearizable read must have seen.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn read_index(&self, to: Peer, limit: Duration) -> Result<u64, PeerError>;

    /// Completes when there is evidence that the process of a member has ended: a connection that
    /// stood was closed, *and* a new one is refused. Silence is no evidence.
    async fn closed(&self, to: Peer);
}

/// A way that stays open between two heartbeats.
#[async_trait]
pub trait Heartbeats: Send + Sync + Debug {
    /// Sends one, as [`PeerLink::append`] does.
    ///
    /// # Errors
    /// [`PeerError`].
    async fn beat(&mut self, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError>;
}

/// What goes out as a vote: a probe leaves no trace at the voter.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) enum Ballot {
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
}

/// Makes clients for members.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) link: Arc<dyn PeerLink>,
    /// How long a heartbeat may take: the next one is due then.
    pub(super) beat_limit: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &RaftNode) -> Client {
        let peer = Peer { id: RaftId(target), addr: node.addr };
        Client {
            link: Arc::clone(&self.link),
            peer,
            heartbeats: self.link.heartbeats(peer),
            beat_limit: self.beat_limit,
        }
    }
}

/// A client for one member.
#[derive(Debug)]
pub(super) struct Client {
    link: Arc<dyn PeerLink>,
    peer: Peer,
    heartbeats: Option<Box<dyn Heartbeats>>,
    beat_limit: Duration,
}

impl Client {
    async fn ballot(
        &self,
        ballot: &Ballot,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_message(ballot).map_err(|error| not_coded(&error))?;
        let answer = self.link.vote(self.peer, payload, option.hard_ttl()).await;
        codec::decode_message(&answer.map_err(|error| rpc_error(&error))?)
            .map_err(|error| not_coded(&error))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_append(&rpc).map_err(|error| not_coded(&error))?;
        let limit = self.beat_limit.min(option.hard_ttl());
        let answer = match (rpc.entries.is_empty(), &mut self.heartbeats) {
            (true, Some(way)) => way.beat(payload, limit).await,
            (true, None) => self.link.append(self.peer, payload, limit).await,
            (false, _) => self.link.append(self.peer, payload, APPEND_LIMIT).await,
        };
        codec::decode_message(&answer.map_err(|error| rpc_error(&error))?)
            .map_err(|error| not_coded(&error))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(&Ballot::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ballot(&Ballot::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let header = codec::encode_message(&vote).map_err(|error| not_coded(&error))?;
        let sending = self.link.snapshot(self.peer, header, snapshot.snapshot, option.hard_ttl());
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = sending => answer.map_err(|error| rpc_error(&error))?,
        };
        Ok(codec::decode_message(&answer).map_err(|error| not_coded(&error))?)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let payload = codec::encode_message(&req).map_err(|error| not_coded(&error))?;
        let answer = self.link.transfer(self.peer, payload, option.hard_ttl()).await;
        codec::decode_message(&answer.map_err(|error| rpc_error(&error))?)
            .map_err(|error| not_coded(&error))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// openraft tries again at once after a network error, and after a pause when a member is
/// unreachable; a pause is right for all of ours.
fn rpc_error(error: &PeerError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::new(error)))
}

fn not_coded(error: &CodecError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&AnyError::new(error)))
}
