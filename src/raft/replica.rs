//! The store's inside in production: this manager's replica and its ways to the leader.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::ReadPolicy;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::machine::Machine;
use super::peer::{Peer, PeerError, PeerLink};
use super::proposer::{Proposal, measure};
use super::store::{Forward, Leadership, ProposeError, ReadError, Replica};
use super::types::Raft;
use crate::domain::{RaftId, RequestId, Revision};
use crate::env::{Canary, Env, Instant};
use crate::state::{Change, Event, Rejection, View};
use crate::wire::manager::{ProposeReply, ProposeRequest, propose_reply};
use crate::wire::types;

/// Between two attempts to find the leader.
const RETRY: Duration = Duration::from_millis(25);
/// How long a leader may take to confirm that it leads, before another one is looked for.
const CONFIRM: Duration = Duration::from_secs(1);
/// Reads that may wait for the round before theirs.
pub(super) const READS: usize = 4_096;

/// Who waits for an index that a linearizable read must have seen.
pub(super) type ReadWaiter = oneshot::Sender<Result<u64, ReadError>>;

/// This manager's replica.
pub(super) struct Local {
    pub(super) me: RaftId,
    pub(super) env: Env,
    pub(super) machine: Machine,
    pub(super) link: Arc<dyn PeerLink>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) proposals: mpsc::Sender<Proposal>,
    pub(super) reads: mpsc::Sender<ReadWaiter>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local(raft id {})", self.me)
    }
}

/// When something must be over.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn left(self, env: &Env) -> Duration {
        self.0.since(env.clock.instant())
    }
}

impl Local {
    /// Proposes here, as the leader does.
    pub(super) async fn propose_here(
        &self,
        request: Option<RequestId>,
        changes: Vec<Change>,
        term: Option<u64>,
        limit: Duration,
    ) -> Result<Revision, ProposeError> {
        let size = measure(&changes)?;
        let (answer, outcome) = oneshot::channel();
        let proposal = Proposal { request, changes, size, term, answer };
        let whole = async {
            let stopping = || ProposeError::Unavailable("it is stopping".to_owned());
            self.proposals.send(proposal).await.map_err(|_| stopping())?;
            outcome.await.unwrap_or(Err(ProposeError::Unknown))
        };
        self.env.clock.timeout(limit, whole).await.unwrap_or(Err(ProposeError::Unknown))
    }

    async fn propose_there(
        &self,
        to: Peer,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<Revision, Missed> {
        match self.link.propose(to, request, limit).await {
            Ok(ProposeReply { outcome: Some(propose_reply::Outcome::Revision(revision)) }) => {
                Ok(Revision(revision))
            }
            Ok(ProposeReply { outcome: Some(propose_reply::Outcome::Rejection(rejection)) }) => {
                Err(Missed::For(ProposeError::Rejected(Rejection::from(rejection))))
            }
            Err(PeerError::Timeout | PeerError::Other(_))
                if self.env.faults.has(Canary::UnknownIsRefused) =>
            {
                Err(Missed::Untouched)
            }
            Ok(ProposeReply { outcome: None }) | Err(PeerError::Timeout | PeerError::Other(_)) => {
                Err(Missed::For(ProposeError::Unknown))
            }
            Err(PeerError::NoSpace(reason)) => Err(Missed::For(ProposeError::NoSpace(reason))),
            Err(PeerError::Unreachable { .. } | PeerError::Refused(_)) => Err(Missed::Untouched),
        }
    }

    /// Finds the leader and proposes there, trying again while nothing can have been written.
    async fn propose_at_leader(
        &self,
        request: Option<RequestId>,
        changes: Vec<Change>,
        deadline: Deadline,
    ) -> Result<Revision, ProposeError> {
        measure(&changes)?;
        let mut leadership = self.leadership.subscribe();
        loop {
            let left = deadline.left(&self.env);
            if left.is_zero() {
                return Err(ProposeError::NoLeader);
            }
            let leader = leadership.borrow_and_update().leader;
            let missed = match leader {
                None => Missed::Untouched,
                Some((id, _)) if id == self.me => {
                    match self.propose_here(request, changes.clone(), None, left).await {
                        Err(ProposeError::NotLeader) => Missed::Untouched,
                        outcome => return outcome,
                    }
                }
                Some((id, addr)) => {
                    let message = ProposeRequest {
                        request: request
                            .map(|id| Bytes::copy_from_slice(&id.to_bytes()))
                            .unwrap_or_default(),
                        changes: changes.iter().map(types::Change::from).collect(),
                        deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
                    };
                    match self.propose_there(Peer { id, addr }, message, left).await {
                        Ok(revision) => return Ok(revision),
                        Err(missed) => missed,
                    }
                }
            };
            match missed {
                Missed::For(error) => return Err(error),
                Missed::Untouched => self.look_for_leader(&mut leadership, left).await,
            }
        }
    }

    /// Waits a moment, or until another leader is known.
    async fn look_for_leader(&self, leadership: &mut watch::Receiver<Leadership>, left: Duration) {
        let pause = self.env.entropy.jitter(RETRY).min(left);
        self.env.clock.timeout(pause, leadership.changed()).await.ok();
    }

    async fn wait_applied(&self, index: u64, limit: Duration) -> Option<View> {
        let mut views = self.machine.views();
        let reached = views.wait_for(|view| view.position.index >= index);
        let reached = self.env.clock.timeout(limit, reached).await.ok()?;
        reached.ok().map(|view| view.clone())
    }
}

/// Why the leader gave no outcome.
enum Missed {
    /// Nothing was written: try again.
    Untouched,
    /// For good.
    For(ProposeError),
}

#[async_trait]
impl Replica for Local {
    fn views(&self) -> watch::Receiver<View> {
        self.machine.views()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        self.machine.events()
    }

    async fn propose(
        &self,
        request: Option<RequestId>,
        changes: Vec<Change>,
        forward: Forward,
        limit: Duration,
    ) -> Result<Revision, ProposeError> {
        let deadline = Deadline(self.env.clock.instant().after(limit));
        let revision = match forward {
            Forward::OnlyInTerm(term) => {
                self.propose_here(request, changes, Some(term), limit).await?
            }
            Forward::ToLeader => self.propose_at_leader(request, changes, deadline).await?,
        };
        let applied = self.wait_applied(revision.0, deadline.left(&self.env)).await;
        applied.map(|_| revision).ok_or(ProposeError::Unknown)
    }

    async fn read_index(&self, limit: Duration) -> Result<View, ReadError> {
        let deadline = Deadline(self.env.clock.instant().after(limit));
        let (waiter, index) = oneshot::channel();
        self.reads.send(waiter).await.map_err(|_| ReadError::NoLeader)?;
        let index = self.env.clock.timeout(limit, index).await;
        let index = index.map_err(|_| ReadError::Timeout)?.unwrap_or(Err(ReadError::NoLeader))?;
        self.wait_applied(index, deadline.left(&self.env)).await.ok_or(ReadError::Timeout)
    }
}

/// Answers reads in rounds: all that came before a round began share it.
pub(super) struct Reader {
    pub(super) local: Arc<Local>,
    pub(super) raft: Raft,
    pub(super) queue: mpsc::Receiver<ReadWaiter>,
    /// How long a round may look for a leader.
    pub(super) patience: Duration,
}

impl Reader {
    pub(super) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut waiters = vec![first];
            while let Ok(next) = self.queue.try_recv() {
                waiters.push(next);
            }
            let index = self.round().await;
            for waiter in waiters {
                waiter.send(index.clone()).ok();
            }
        }
    }

    async fn round(&self) -> Result<u64, ReadError> {
        let env = &self.local.env;
        if env.faults.has(Canary::ReadWithoutQuorum) {
            return Ok(self.local.machine.last().map_or(0, |last| last.index));
        }
        let deadline = Deadline(env.clock.instant().after(self.patience));
        let mut leadership = self.local.leadership.subscribe();
        loop {
            let left = deadline.left(env);
            if left.is_zero() {
                return Err(ReadError::NoLeader);
            }
            let leader = leadership.borrow_and_update().leader;
            let limit = left.min(CONFIRM);
            let index = match leader {
                None => None,
                Some((id, _)) if id == self.local.me => {
                    env.clock.timeout(limit, read_index(&self.raft)).await.ok().flatten()
                }
                Some((id, addr)) => self.local.link.read_index(Peer { id, addr }, limit).await.ok(),
            };
            match index {
                Some(index) => return Ok(index),
                None => self.local.look_for_leader(&mut leadership, left).await,
            }
        }
    }
}

/// The index that a read must have seen, confirmed by a quorum; `None` where this is not the leader.
/// Never from a lease: elections on evidence do not wait for leases to run out.
pub(super) async fn read_index(raft: &Raft) -> Option<u64> {
    let confirmed = raft.get_read_log_id(ReadPolicy::ReadIndex).await.ok()?;
    Some(confirmed.0.index())
}
