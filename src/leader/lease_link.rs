//! How leases get to the leader: batches of them over gRPC, or in process where the leader is this manager.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::leases::{LeaseTable, Renewal};
use crate::domain::{Format, NodeId, Revision, SessionId};
use crate::env::{Clock, Env};
use crate::raft::Store;
use crate::transport::{Answers, Dialogue, Questions, Ways, answers};
use crate::wire::manager::leases_client::LeasesClient;
use crate::wire::manager::leases_server::{self, LeasesServer};
use crate::wire::manager::{Lease as WireLease, LeaseBatch, LeaseReply};

/// How long the leader may take to acknowledge a batch.
const BATCH_DEADLINE: Duration = Duration::from_millis(500);

/// Why a batch did not reach a leader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Nobody leads, as far as this manager knows.
    #[error("there is no leader")]
    NoLeader,
    /// The leader did not answer in time, or refused.
    #[error("the leader did not take the leases: {0}")]
    Refused(String),
}

/// How a manager reaches another's port 2377.
pub type Dial = Arc<dyn Fn(SocketAddr) -> Channel + Send + Sync>;

/// How a batch reaches the manager that leads: gRPC in production, messages of a simulated network
/// in tests.
#[async_trait]
pub trait LeaseLink: Send + Sync + std::fmt::Debug {
    /// Hands a batch to the manager at an address and waits for its answer.
    ///
    /// # Errors
    /// When it does not lead, or does not answer.
    async fn renew(&self, addr: SocketAddr, batch: LeaseBatch) -> Result<(), LeaseError>;
}

/// Batches over a stream, `Leases.Keep`, to one leader at a time.
pub struct GrpcLeases {
    dial: Dial,
    clock: Arc<dyn Clock>,
    /// Taken out while a batch is under way.
    dialogue: Mutex<Option<Dialogue<Keeping>>>,
}

impl std::fmt::Debug for GrpcLeases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrpcLeases")
    }
}

impl GrpcLeases {
    /// Over the channels that `dial` gives.
    #[must_use]
    pub fn new(dial: Dial, clock: Arc<dyn Clock>) -> Self {
        Self { dial, clock, dialogue: Mutex::new(None) }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Dialogue<Keeping>>> {
        self.dialogue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LeaseLink for GrpcLeases {
    async fn renew(&self, addr: SocketAddr, batch: LeaseBatch) -> Result<(), LeaseError> {
        let kept = self.kept().take().filter(|kept| kept.ways().addr == addr);
        let mut dialogue = kept.unwrap_or_else(|| {
            let ways = Keeping { addr, dial: Arc::clone(&self.dial) };
            Dialogue::new(ways, Arc::clone(&self.clock))
        });
        let answer = dialogue.ask(batch).await;
        *self.kept() = Some(dialogue);
        answer.map(|_| ()).map_err(|status| LeaseError::Refused(status.message().to_owned()))
    }
}

/// Batches to one manager, as calls of `Leases.Renew` to one of a release before.
struct Keeping {
    addr: SocketAddr,
    dial: Dial,
}

#[async_trait]
impl Ways for Keeping {
    type Question = LeaseBatch;
    type Answer = LeaseReply;

    async fn open(
        &self,
        questions: Questions<LeaseBatch>,
    ) -> Result<Response<Streaming<LeaseReply>>, Status> {
        LeasesClient::new((self.dial)(self.addr)).keep(questions).await
    }

    async fn call(&self, question: LeaseBatch) -> Result<Response<LeaseReply>, Status> {
        LeasesClient::new((self.dial)(self.addr)).renew(question).await
    }
}

/// Sends batches to whoever leads: in process when this manager does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {
    env: Env,
    store: Store,
    table: LeaseTable,
    link: Arc<dyn LeaseLink>,
}

impl Leases {
    /// A sender for this manager.
    #[must_use]
    pub fn new(env: Env, store: Store, table: LeaseTable, link: Arc<dyn LeaseLink>) -> Self {
        Self { env, store, table, link }
    }

    /// Sends one batch and waits for the acknowledgement, at most half a second.
    ///
    /// # Errors
    /// When no leader took it; the next batch says everything again.
    pub async fn send(&self, batch: &[Renewal]) -> Result<(), LeaseError> {
        if self.table.renew(batch, self.env.clock.instant()) {
            return Ok(());
        }
        let leadership = *self.store.leadership().borrow();
        let (_, addr) =
            leadership.leader.filter(|_| !leadership.is_self).ok_or(LeaseError::NoLeader)?;
        let message = LeaseBatch { leases: batch.iter().map(to_wire).collect() };
        let renewed = self.env.clock.timeout(BATCH_DEADLINE, self.link.renew(addr, message)).await;
        renewed.unwrap_or_else(|elapsed| Err(LeaseError::Refused(elapsed.to_string())))
    }
}

fn to_wire(renewal: &Renewal) -> WireLease {
    WireLease {
        node: renewal.node.to_bytes().to_vec().into(),
        session: renewal.session.to_bytes().to_vec().into(),
        age_ms: u32::try_from(renewal.age.as_millis()).unwrap_or(u32::MAX),
        applied: renewal.applied.0,
        closed: renewal.closed,
        format: renewal.format.0,
    }
}

fn from_wire(lease: &WireLease) -> Option<Renewal> {
    Some(Renewal {
        node: NodeId::from_slice(&lease.node)?,
        session: SessionId::from_slice(&lease.session)?,
        age: Duration::from_millis(u64::from(lease.age_ms)),
        applied: Revision(lease.applied),
        closed: lease.closed,
        format: Format::said(lease.format),
    })
}

/// The gRPC side: other managers' batches.
#[derive(Clone, Debug)]
pub struct LeaseRpc {
    env: Env,
    table: LeaseTable,
}

impl LeaseRpc {
    /// The server for port 2377.
    #[must_use]
    pub fn server(env: Env, table: LeaseTable) -> LeasesServer<Self> {
        LeasesServer::new(Self::new(env, table))
    }

    /// What answers batches, whatever carried them here.
    #[must_use]
    pub const fn new(env: Env, table: LeaseTable) -> Self {
        Self { env, table }
    }

    /// Takes another manager's batch.
    ///
    /// # Errors
    /// When it cannot be read, or this manager does not lead.
    pub fn take(&self, batch: &LeaseBatch) -> Result<(), Status> {
        let batch: Option<Vec<_>> = batch.leases.iter().map(from_wire).collect();
        let batch = batch.ok_or_else(|| Status::invalid_argument("an id of a lease is wrong"))?;
        if self.table.renew(&batch, self.env.clock.instant()) {
            Ok(())
        } else {
            Err(Status::failed_precondition("this manager does not lead"))
        }
    }
}

#[tonic::async_trait]
impl leases_server::Leases for LeaseRpc {
    type KeepStream = Answers<LeaseReply>;

    async fn keep(
        &self,
        request: Request<Streaming<LeaseBatch>>,
    ) -> Result<Response<Self::KeepStream>, Status> {
        let rpc = self.clone();
        let answer = move |batch| std::future::ready(rpc.take(&batch).map(|()| LeaseReply {}));
        let clock = Arc::clone(&self.env.clock);
        Ok(Response::new(answers(request.into_inner(), clock, answer)))
    }

    async fn renew(&self, request: Request<LeaseBatch>) -> Result<Response<LeaseReply>, Status> {
        self.take(request.get_ref())?;
        Ok(Response::new(LeaseReply {}))
    }
}
