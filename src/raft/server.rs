//! gRPC in front of [`Inbound`]. Who may call is decided before a call comes here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tonic::{Request, Response, Status, Streaming};

use super::inbound::Inbound;
use super::peer::PeerError;
use crate::domain::RaftId;
use crate::transport::{Answers, MAX_MESSAGE, answers};
use crate::wire::manager::proposals_server::{Proposals, ProposalsServer};
use crate::wire::manager::raft_server::{Raft, RaftServer};
use crate::wire::manager::{
    ProposeReply, ProposeRequest, RaftMessage, ReadIndexReply, ReadIndexRequest, SnapshotChunk,
};

/// The largest snapshot that is taken: ten times what a full cluster makes.
const SNAPSHOT_MAX: usize = 512 << 20;

/// The answers as gRPC services.
#[derive(Clone, Debug)]
pub struct Rpc {
    inbound: Inbound,
}

impl Rpc {
    /// Both services.
    pub(super) fn services(inbound: Inbound) -> (RaftServer<Self>, ProposalsServer<Self>) {
        let rpc = Self { inbound };
        let raft = RaftServer::new(rpc.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let proposals = ProposalsServer::new(rpc)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        (raft, proposals)
    }

    fn payload(&self, request: Request<RaftMessage>) -> Result<Bytes, Status> {
        let RaftMessage { target, payload } = request.into_inner();
        self.inbound.is_meant(RaftId(target)).map_err(status)?;
        Ok(payload)
    }

    fn reply(&self, payload: Result<Bytes, PeerError>) -> Result<Response<RaftMessage>, Status> {
        let payload = payload.map_err(status)?;
        Ok(Response::new(RaftMessage { target: 0, payload }))
    }
}

#[tonic::async_trait]
impl Raft for Rpc {
    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let payload = self.payload(request)?;
        self.reply(self.inbound.vote(&payload).await)
    }

    async fn append(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let payload = self.payload(request)?;
        self.reply(self.inbound.append(&payload).await)
    }

    type HeartbeatsStream = Answers<RaftMessage>;

    async fn heartbeats(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let (inbound, clock) = (self.inbound.clone(), Arc::clone(&self.inbound.local.env.clock));
        let answer = move |message: RaftMessage| {
            let inbound = inbound.clone();
            async move {
                inbound.is_meant(RaftId(message.target)).map_err(status)?;
                let payload = inbound.append(&message.payload).await.map_err(status)?;
                Ok(RaftMessage { target: 0, payload })
            }
        };
        Ok(Response::new(answers(request.into_inner(), clock, answer)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut chunks = request.into_inner();
        let mut header = Bytes::new();
        let mut data = BytesMut::new();
        while let Some(chunk) = chunks.message().await? {
            self.inbound.is_meant(RaftId(chunk.target)).map_err(status)?;
            if header.is_empty() {
                header = chunk.header;
            }
            if data.len() + chunk.data.len() > SNAPSHOT_MAX {
                return Err(Status::invalid_argument("the snapshot is too large"));
            }
            data.extend_from_slice(&chunk.data);
        }
        self.reply(self.inbound.snapshot(&header, data.freeze()).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let payload = self.payload(request)?;
        self.reply(self.inbound.transfer(&payload).await)
    }
}

#[tonic::async_trait]
impl Proposals for Rpc {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeReply>, Status> {
        self.inbound.propose(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn read_index(
        &self,
        _request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        let index = self.inbound.read_index().await.map_err(status)?;
        Ok(Response::new(ReadIndexReply { index }))
    }
}

/// How an error travels; `link` reads it back.
fn status(error: PeerError) -> Status {
    match error {
        PeerError::Refused(said) => Status::failed_precondition(said),
        PeerError::NoSpace(said) => Status::resource_exhausted(said),
        error @ PeerError::Timeout => Status::deadline_exceeded(error.to_string()),
        error @ (PeerError::Unreachable { .. } | PeerError::Other(_)) => {
            Status::internal(error.to_string())
        }
    }
}
