//! The handle to the replicated state.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use crate::domain::{RaftId, RequestId, Revision};
use crate::state::{Change, Event, Rejection, View};

/// Who leads, as this manager knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader and its address; `None` while there is none.
    pub leader: Option<(RaftId, SocketAddr)>,
    /// Whether that is this manager, *and* it has applied the first entry of its own term, so that
    /// its view is complete.
    pub is_self: bool,
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was applied and refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// There is no leader, or it has no quorum; nothing was written.
    #[error(
        "the swarm does not have a leader: it is possible that too few managers are online; make sure more than half of the managers are online"
    )]
    NoLeader,
    /// The deadline passed; it may or may not take effect. A retry with the same ids is safe.
    #[error("the outcome is unknown: the deadline passed; repeating the same request is safe")]
    Unknown,
    /// Leaders' own proposals only: this manager does not lead (any more).
    #[error("this manager does not lead")]
    NotLeader,
    /// There is too little space on the disk of the leader to accept anything.
    #[error("the manager's disk is full: {0}")]
    NoSpace(String),
    /// This manager is stopping or broken.
    #[error("this manager is not available: {0}")]
    Unavailable(String),
}

/// Why a linearizable read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no leader, or it has no quorum.
    #[error(
        "the swarm does not have a leader: it is possible that too few managers are online; make sure more than half of the managers are online"
    )]
    NoLeader,
    /// The deadline passed.
    #[error("the deadline passed")]
    Timeout,
}

/// How many entries' events a slow reader may lag behind before it misses some.
pub(super) const EVENTS_KEPT: usize = 4_096;

/// What a store is made of; the replica in production, a lone state machine in tests.
#[async_trait]
pub(super) trait Replica: Send + Sync + Debug {
    fn views(&self) -> watch::Receiver<View>;
    fn leadership(&self) -> watch::Receiver<Leadership>;
    fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>>;
    async fn propose(
        &self,
        request: Option<RequestId>,
        changes: Vec<Change>,
        forward: Forward,
        deadline: Duration,
    ) -> Result<Revision, ProposeError>;
    async fn read_index(&self, deadline: Duration) -> Result<View, ReadError>;
}

/// Whether a proposal may go to another manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    /// To the leader, whoever that is.
    ToLeader,
    /// Only here, while this manager leads in this term.
    OnlyInTerm(u64),
}

/// The handle to the replicated state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    replica: Arc<dyn Replica>,
}

impl Store {
    pub(super) fn new(replica: Arc<dyn Replica>) -> Self {
        Self { replica }
    }

    /// The newest state that this manager has applied. May be behind the leader's.
    #[must_use]
    pub fn view(&self) -> View {
        self.replica.views().borrow().clone()
    }

    /// Follows the state: the newest view, and a wake-up after each entry applied.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<View> {
        self.replica.views()
    }

    /// Follows what changes, entry by entry. A slow reader misses events and is told so
    /// (`RecvError::Lagged`).
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        self.replica.events()
    }

    /// Follows who leads.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.replica.leadership()
    }

    /// Proposes changes, all or nothing, through whoever leads, and returns when this manager has
    /// applied them (so that what follows reads its own write). The revision is the log index.
    ///
    /// # Errors
    /// [`ProposeError`]; after `Unknown` the changes may yet take effect.
    pub async fn propose(
        &self,
        request: Option<RequestId>,
        changes: Vec<Change>,
        deadline: Duration,
    ) -> Result<Revision, ProposeError> {
        self.replica.propose(request, changes, Forward::ToLeader, deadline).await
    }

    /// Proposes changes only if this manager leads in `term`, as the leader's plans must.
    ///
    /// # Errors
    /// `NotLeader` when it does not, nothing was written then; else as [`Self::propose`].
    pub async fn propose_in_term(
        &self,
        term: u64,
        changes: Vec<Change>,
        deadline: Duration,
    ) -> Result<Revision, ProposeError> {
        self.replica.propose(None, changes, Forward::OnlyInTerm(term), deadline).await
    }

    /// A view that has everything that was committed before the call (Raft §6.4).
    ///
    /// # Errors
    /// When no quorum answers within the deadline.
    pub async fn read_index(&self, deadline: Duration) -> Result<View, ReadError> {
        self.replica.read_index(deadline).await
    }

    /// The state once an entry is applied here, or the newest one at the deadline.
    pub async fn applied(
        &self,
        index: u64,
        clock: &Arc<dyn crate::env::Clock>,
        limit: Duration,
    ) -> View {
        let mut views = self.replica.views();
        let reached = views.wait_for(|view| view.position.index >= index);
        let outcome = clock.timeout(limit, reached).await;
        match outcome {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) | Err(_) => self.view(),
        }
    }
}
