//! What this member answers to the others, whatever carried the question here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest};
use serde::Serialize;
use tokio::sync::watch;

use super::codec::{self, CodecError};
use super::peer::{Ballot, PeerError};
use super::replica::{Local, read_index};
use super::space::Space;
use super::store::ProposeError;
use super::types::{Raft, Snapshot, TypeConfig, Vote};
use crate::domain::{RaftId, RequestId};
use crate::env::{Env, Instant};
use crate::state::Change;
use crate::wire::manager::{ProposeReply, ProposeRequest, propose_reply};
use crate::wire::types;

/// The longest that a forwarded request may take.
const LIMIT_MAX: Duration = Duration::from_secs(60);

/// This member's answers. Cheap to clone.
#[derive(Clone)]
pub struct Inbound {
    pub(super) raft: Raft,
    pub(super) local: Arc<Local>,
    pub(super) space: Arc<Space>,
    pub(super) heard: Arc<Heard>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbound({:?})", self.local)
    }
}

/// When the leader was last heard of, and what was heard that cannot be read.
#[derive(Debug)]
pub(super) struct Heard {
    micros: AtomicU64,
    newer: watch::Sender<Option<String>>,
}

impl Heard {
    pub(super) fn new(env: &Env) -> Self {
        let heard = Self { micros: AtomicU64::new(0), newer: watch::Sender::new(None) };
        heard.now(env);
        heard
    }

    fn now(&self, env: &Env) {
        let micros = u64::try_from(env.clock.instant().0.as_micros()).unwrap_or(u64::MAX);
        self.micros.store(micros, Ordering::Relaxed);
    }

    /// How long the leader has been silent.
    pub(super) fn silence(&self, env: &Env) -> Duration {
        let heard = Instant(Duration::from_micros(self.micros.load(Ordering::Relaxed)));
        env.clock.instant().since(heard)
    }
}

impl Inbound {
    /// Refuses what is meant for another member: an address may have got another owner.
    ///
    /// # Errors
    /// [`PeerError::Refused`].
    pub fn is_meant(&self, target: RaftId) -> Result<(), PeerError> {
        if target == self.local.me {
            return Ok(());
        }
        let me = self.local.me;
        Err(PeerError::Refused(format!("this is raft member {me}, not {target}")))
    }

    /// Votes, or says whether it would.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn vote(&self, payload: &[u8]) -> Result<Bytes, PeerError> {
        self.has_space()?;
        let ballot = codec::decode_message(payload).map_err(|error| self.undecodable(&error))?;
        let answer = match ballot {
            Ballot::Vote(request) => self.raft.vote(request).await,
            Ballot::PreVote(request) => self.raft.pre_vote(request).await,
        };
        reply(&answer.map_err(|error| failed(&error))?)
    }

    /// Takes entries.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn append(&self, payload: &[u8]) -> Result<Bytes, PeerError> {
        let request = codec::decode_append(payload).map_err(|error| self.undecodable(&error))?;
        if !request.entries.is_empty() {
            self.has_space()?;
        }
        let answer = self.raft.append_entries(request).await.map_err(|error| failed(&error))?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.heard.now(&self.local.env);
        }
        reply(&answer)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn snapshot(&self, header: &[u8], data: Bytes) -> Result<Bytes, PeerError> {
        self.has_space()?;
        let vote: Vote = codec::decode_message(header).map_err(|error| self.undecodable(&error))?;
        let (meta, _) = codec::decode_snapshot(&data).map_err(|error| self.undecodable(&error))?;
        self.heard.now(&self.local.env);
        let snapshot = Snapshot { meta, snapshot: data };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        reply(&answer.map_err(|error| failed(&error))?)
    }

    /// Takes leadership over, or lets another member.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn transfer(&self, payload: &[u8]) -> Result<Bytes, PeerError> {
        let request: TransferLeaderRequest<TypeConfig> =
            codec::decode_message(payload).map_err(|error| self.undecodable(&error))?;
        reply(&self.raft.handle_transfer_leader(request).await.map_err(|error| failed(&error))?)
    }

    /// Proposes for a follower.
    ///
    /// # Errors
    /// [`PeerError`]; after `Refused` and `NoSpace` nothing was written.
    pub async fn propose(&self, request: ProposeRequest) -> Result<ProposeReply, PeerError> {
        let changes = request.changes.into_iter().map(Change::try_from).collect::<Result<_, _>>();
        let changes: Vec<Change> =
            changes.map_err(|error| PeerError::Refused(error.to_string()))?;
        let limit = Duration::from_millis(request.deadline_ms.into()).min(LIMIT_MAX);
        let id = RequestId::from_slice(&request.request);
        let outcome = match self.local.propose_here(id, changes, None, limit).await {
            Ok(revision) => propose_reply::Outcome::Revision(revision.0),
            Err(ProposeError::Rejected(rejection)) => {
                propose_reply::Outcome::Rejection(types::Rejection::from(&rejection))
            }
            Err(error @ (ProposeError::NotLeader | ProposeError::NoLeader)) => {
                return Err(PeerError::Refused(error.to_string()));
            }
            Err(ProposeError::NoSpace(reason)) => return Err(PeerError::NoSpace(reason)),
            Err(ProposeError::Unknown) => return Err(PeerError::Timeout),
            Err(error @ ProposeError::Unavailable(_)) => {
                return Err(PeerError::Other(error.to_string()));
            }
        };
        Ok(ProposeReply { outcome: Some(outcome) })
    }

    /// The index that a linearizable read must have seen.
    ///
    /// # Errors
    /// [`PeerError::Refused`] where this member does not lead or has no quorum.
    pub async fn read_index(&self) -> Result<u64, PeerError> {
        let refused = || PeerError::Refused("this manager does not lead".to_owned());
        read_index(&self.raft).await.ok_or_else(refused)
    }

    /// Follows whether something came that only a newer release can read, and what.
    pub(super) fn newer(&self) -> watch::Receiver<Option<String>> {
        self.heard.newer.subscribe()
    }

    fn undecodable(&self, error: &CodecError) -> PeerError {
        if matches!(error, CodecError::Format { .. }) {
            self.heard.newer.send_if_modified(|known| {
                let is_first = known.is_none();
                known.get_or_insert_with(|| error.to_string());
                is_first
            });
        }
        PeerError::Refused(error.to_string())
    }

    fn has_space(&self) -> Result<(), PeerError> {
        self.space.lack().map_or(Ok(()), |reason| Err(PeerError::NoSpace(reason)))
    }
}

fn reply<T: Serialize>(answer: &T) -> Result<Bytes, PeerError> {
    codec::encode_message(answer).map_err(|error| PeerError::Other(error.to_string()))
}

fn failed(error: &impl std::fmt::Display) -> PeerError {
    PeerError::Other(error.to_string())
}
