//! A running member: its store, its answers, its end, and what the leader does to the group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::sync::{oneshot, watch};

use super::Error;
use super::fitness::Ailment;
use super::inbound::Inbound;
use super::log::Log;
use super::server::Rpc;
use super::store::Store;
#[cfg(test)]
use super::types::TypeConfig;
use super::types::{LogId, Raft, RaftNode};
use super::vigil::Vigil;
use super::watcher::Members;
use crate::domain::timing::Timing;
use crate::domain::{NodeId, RaftId};
use crate::env::{Env, Scope};
use crate::state::Change;
use crate::wire::manager::proposals_server::ProposalsServer;
use crate::wire::manager::raft_server::RaftServer;

/// How long stopping may take.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long handing leadership over may take.
const TRANSFER_LIMIT: Duration = Duration::from_millis(1_500);

/// What a member needs to know of itself.
#[derive(Clone)]
pub struct Settings {
    /// The folder of its log and snapshots; made if it is not there.
    pub dir: PathBuf,
    /// Its id in the group.
    pub raft_id: RaftId,
    /// The machine.
    pub node: NodeId,
    /// Where the others reach its port 2377.
    pub addr: SocketAddr,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Seals what is on the disk.
    pub key: [u8; 32],
    /// When the log is cut.
    pub compaction: Compaction,
}

/// When a snapshot takes the place of the log's older entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Entries since the last snapshot.
    pub entries: u64,
    /// Entries that stay behind a snapshot, for members that are a little late.
    pub kept: u64,
    /// Bytes of entries.
    pub bytes: usize,
}

impl Compaction {
    /// Keeps the database under 50 MB, sled's overhead included.
    pub const DEFAULT: Self = Self { entries: 5_000, kept: 500, bytes: 16 << 20 };
}

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The term it is in.
    pub term: u64,
    /// Index of the last entry of its log.
    pub last: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Index of the last entry in its newest snapshot.
    pub snapshot: u64,
    /// Index of the last entry that is gone from the log.
    pub purged: u64,
}

/// How a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// How far it has come.
    pub progress: Progress,
    /// Bytes of entries that its log holds.
    pub log_bytes: usize,
    /// Bytes that are free where its log lies.
    pub free: u64,
    /// Why nothing can be written, in words; `None` if something can.
    pub lack: Option<String>,
    /// This member's clock was set by more than is believed.
    pub clock_stepped: bool,
    /// Why it is not fit to lead; empty if it is.
    pub ailments: BTreeSet<Ailment>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("dir", &self.dir)
            .field("raft_id", &self.raft_id)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// A running member. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    member: Arc<Member>,
}

struct Member {
    settings: Settings,
    env: Env,
    raft: Raft,
    store: Store,
    inbound: Inbound,
    members: watch::Receiver<Members>,
    scope: Scope,
    /// Let go of when the member stops; the receiver tells when the disk is free.
    log: Mutex<Option<(Log, oneshot::Receiver<()>)>>,
    vigil: Arc<Vigil>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Handle {
    /// A handle to what was put together of parts.
    pub(super) fn new(
        settings: Settings,
        parts: (Store, Inbound),
        members: watch::Receiver<Members>,
        scope: Scope,
        log: (Log, oneshot::Receiver<()>),
    ) -> Self {
        let (store, inbound) = parts;
        let (raft, env) = (inbound.raft.clone(), inbound.local.env.clone());
        let vigil = log.0.vigil();
        let log = Mutex::new(Some(log));
        let member = Member { settings, env, raft, store, inbound, members, scope, log, vigil };
        Self { member: Arc::new(member) }
    }

    /// The replicated state.
    #[must_use]
    pub fn store(&self) -> Store {
        self.member.store.clone()
    }

    /// Follows who is in the group.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Members> {
        self.member.members.clone()
    }

    /// How far this member has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let metrics = self.member.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        Progress {
            term: metrics.current_term,
            last: metrics.last_log_index.unwrap_or_default(),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
        }
    }

    /// How this member is.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let Member { inbound, vigil, log, .. } = &*self.member;
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        Vitals {
            progress: self.progress(),
            log_bytes: log.as_ref().map_or(0, |(log, _)| log.bytes()),
            free: inbound.space.free(),
            lack: inbound.space.lack(),
            clock_stepped: vigil.has_stepped(),
            ailments: vigil.ailments(),
        }
    }

    /// The leader begins a planning pass.
    pub fn pass_begins(&self) {
        self.member.vigil.pass_begins();
    }

    /// The pass has ended.
    pub fn pass_ends(&self) {
        self.member.vigil.pass_ends();
    }

    /// The plan was refused; many of them in a row make this member unfit to lead.
    pub fn plan_refused(&self) {
        self.member.vigil.plan_refused();
    }

    /// The plan was carried out.
    pub fn plan_taken(&self) {
        self.member.vigil.plan_taken();
    }

    /// Follows whether the others write what only a newer release can read: this member takes none
    /// of it, and must not go on.
    #[must_use]
    pub fn newer(&self) -> watch::Receiver<Option<String>> {
        self.member.inbound.newer()
    }

    /// The answers to other members, as gRPC services.
    #[must_use]
    pub fn services(&self) -> (RaftServer<Rpc>, ProposalsServer<Rpc>) {
        Rpc::services(self.member.inbound.clone())
    }

    /// The answers to other members, for other carriers than gRPC.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        self.member.inbound.clone()
    }

    /// Begins a cluster with this member alone and writes its first state.
    ///
    /// # Errors
    /// [`Error::Begun`] if this member is in a group already.
    pub async fn bootstrap(&self, first: Vec<Change>) -> Result<(), Error> {
        let Member { settings, raft, store, env, .. } = &*self.member;
        let node = RaftNode { node: settings.node, addr: settings.addr };
        let members = BTreeMap::from([(settings.raft_id.0, node)]);
        raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(_) => Error::Begun,
            RaftError::Fatal(error) => Error::Stopped(error.to_string()),
        })?;
        let mut leadership = store.leadership();
        let elected = leadership.wait_for(|now| now.is_self);
        let elected = env.clock.timeout(Duration::from_secs(10), elected).await;
        if !elected.is_ok_and(|elected| elected.is_ok()) {
            return Err(Error::Stopped("it could not elect itself".to_owned()));
        }
        store.propose(None, first, Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Lets a new member have the log. A success if it is a member already.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Busy`].
    pub async fn add_learner(
        &self,
        raft_id: RaftId,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<(), Error> {
        let known = self.member.members.borrow().addrs.get(&raft_id).copied();
        let entry = BTreeMap::from([(raft_id.0, RaftNode { node, addr })]);
        let change = match known {
            Some(known) if known == (node, addr) => return Ok(()),
            Some(_) => ChangeMembers::SetNodes(entry),
            None => ChangeMembers::AddNodes(entry),
        };
        self.change(change).await
    }

    /// Lets a learner vote. A success if it does already.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Busy`].
    pub async fn promote(&self, raft_id: RaftId) -> Result<(), Error> {
        if self.member.members.borrow().voters.contains(&raft_id) {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([raft_id.0]))).await
    }

    /// Takes a member out of the group. A success if it is not in it. The leader hands leadership
    /// over instead of removing itself: the next one will do it.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Busy`], [`Error::LastVoter`].
    pub async fn remove(&self, raft_id: RaftId) -> Result<(), Error> {
        let members = self.member.members.borrow().clone();
        if !members.voters.contains(&raft_id) {
            if !members.addrs.contains_key(&raft_id) {
                return Ok(());
            }
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([raft_id.0]))).await;
        }
        if members.voters.len() == 1 {
            return Err(Error::LastVoter);
        }
        if raft_id == self.member.settings.raft_id {
            self.hand_over().await;
            return Err(Error::NotLeader);
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([raft_id.0]))).await
    }

    /// Asks another voter to lead.
    ///
    /// # Errors
    /// [`Error::NotLeader`] where there is nothing to hand over, [`Error::Busy`] if it did not come
    /// about in time.
    pub async fn transfer(&self, to: RaftId) -> Result<(), Error> {
        let me = self.member.settings.raft_id;
        if to == me {
            return Ok(());
        }
        let mut leadership = self.member.store.leadership();
        if leadership.borrow_and_update().leader.is_none_or(|(leader, _)| leader != me) {
            return Err(Error::NotLeader);
        }
        self.member
            .raft
            .trigger()
            .transfer_leader(to.0)
            .await
            .map_err(|error| Error::Stopped(error.to_string()))?;
        let followed =
            leadership.wait_for(|now| now.leader.is_some_and(|(leader, _)| leader != me));
        match self.member.env.clock.timeout(TRANSFER_LIMIT, followed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Busy),
        }
    }

    /// Stops the member: hands leadership over, ends every routine, lets go of the disk.
    pub async fn shutdown(self) {
        self.hand_over().await;
        let Member { raft, scope, env, log, .. } = &*self.member;
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
        if !scope.shutdown(STOP_LIMIT).await {
            tracing::warn!("a routine of raft did not end in time");
        }
        let log = log.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((log, closed)) = log {
            drop(log);
            if env.clock.timeout(STOP_LIMIT, closed).await.is_err() {
                tracing::warn!("the raft log was not closed in time");
            }
        }
    }

    /// Lets the voter that is furthest lead, if this member does and there is one.
    async fn hand_over(&self) {
        let me = self.member.settings.raft_id.0;
        let to = {
            let metrics = self.member.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(me) {
                return;
            }
            let matched = metrics.replication.iter().flatten();
            matched
                .filter(|(id, _)| {
                    **id != me && metrics.membership_config.voter_ids().any(|v| v == **id)
                })
                .max_by_key(|(_, matched)| matched.map(|matched| matched.index))
                .map(|(id, _)| RaftId(*id))
        };
        if let Some(to) = to
            && let Err(error) = self.transfer(to).await
        {
            tracing::info!(%error, "leadership was not handed over");
        }
    }

    async fn change(&self, change: ChangeMembers<u64, RaftNode>) -> Result<(), Error> {
        match self.member.raft.change_membership(change, false).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(error)) => Err(Error::Stopped(error.to_string())),
            Err(RaftError::APIError(error)) => match error {
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
                    Err(Error::NotLeader)
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    Err(Error::Busy)
                }
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)) => {
                    Err(Error::Membership(error.to_string()))
                }
            },
        }
    }
}

#[cfg(test)]
impl Handle {
    /// Stands for no election by itself any more.
    pub(super) fn keeps_out_of_elections(&self) {
        self.member.raft.runtime_config().elect(false);
    }

    /// Stops as a killed process would, but for the disk, which is let go of.
    pub(super) async fn kill(self) {
        let Member { raft, scope, log, .. } = &*self.member;
        raft.shutdown().await.unwrap();
        scope.shutdown(STOP_LIMIT).await;
        let (log, closed) = log.lock().unwrap().take().unwrap();
        drop(log);
        closed.await.unwrap();
    }

    /// Makes a snapshot and drops all that it holds from the log.
    pub(super) async fn compact_now(&self) {
        let raft = &self.member.raft;
        let applied = self.store().view().position.index;
        raft.trigger().snapshot().await.unwrap();
        let wait = raft.wait(Some(STOP_LIMIT));
        wait.metrics(|now| now.snapshot.is_some_and(|id| id.index >= applied), "snapshot")
            .await
            .unwrap();
        raft.trigger().purge_log(applied).await.unwrap();
        wait.metrics(|now| now.purged.is_some_and(|id| id.index >= applied), "purged")
            .await
            .unwrap();
    }

    /// openraft's own view of itself.
    pub(super) fn metrics(
        &self,
    ) -> openraft::alias::WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>> {
        self.member.raft.metrics()
    }
}
