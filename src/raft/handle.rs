//! Starting and stopping a member, and what the leader does to the group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Config, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use super::Error;
use super::inbound::{Heard, Inbound};
use super::log::Log;
use super::machine::Machine;
use super::peer::{Network, PeerLink};
use super::proposer::{self, Proposer, Stamps};
use super::record::Sealer;
use super::replica::{self, Local, Reader};
use super::server::Rpc;
use super::snapshots::Snapshots;
use super::space::Space;
use super::store::{Leadership, Store};
#[cfg(test)]
use super::types::TypeConfig;
use super::types::{Raft, RaftNode};
use super::watcher::{Members, Successor, Watcher};
use crate::domain::timing::Timing;
use crate::domain::{NodeId, RaftId};
use crate::env::disk::{OpenError, SledDisk};
use crate::env::{Env, Scope, files};
use crate::state::Change;
use crate::wire::manager::proposals_server::ProposalsServer;
use crate::wire::manager::raft_server::RaftServer;

/// A log of this many bytes is compacted.
const LOG_BYTES: usize = 16 << 20;
/// A log of this many entries since the last snapshot is compacted.
const LOG_ENTRIES: u64 = 5_000;
/// Entries that stay behind a snapshot, for members that are a little late.
const ENTRIES_KEPT: u64 = 500;
/// How long another process may take to let go of the log.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
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
    log: Mutex<Option<Log>>,
    closed: Mutex<Option<oneshot::Receiver<()>>>,
    store: Store,
    inbound: Inbound,
    members: watch::Receiver<Members>,
    scope: Scope,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Starts a member from what its folder holds. A new one waits to be added by a leader, or for
/// [`Handle::bootstrap`].
///
/// # Errors
/// [`Error`]; after [`Error::Corrupt`] this member must not be started again with this folder.
pub async fn start(
    settings: Settings,
    env: Env,
    link: Arc<dyn PeerLink>,
    scope: &Scope,
) -> Result<Handle, Error> {
    let scope = scope.child("raft");
    let stored = |error| Error::io("the folder of the raft log", error);
    files::private_dir(&settings.dir).map_err(stored)?;
    let space = Arc::new(Space::new(&settings.dir));
    space.look();
    let (log, closed) = open_log(&settings, &env, &scope).await?;
    let snapshots =
        Snapshots::open(settings.dir.join("snapshots"), &settings.key, Arc::clone(&env.entropy))?;
    let machine = Machine::open(snapshots, scope.clone())?;
    let (purged, snapshot) = (log.purged(), machine.last());
    if purged.map(|id| id.index) > snapshot.map(|id| id.index) {
        let what = "the snapshot that the log builds on is gone".to_owned();
        return Err(Error::Corrupt { dir: settings.dir, what });
    }
    let config = config(&settings.timing)?;
    let network = Network { link: Arc::clone(&link) };
    let raft =
        Raft::new(settings.raft_id.0, Arc::new(config), network, log.clone(), machine.clone())
            .await
            .map_err(|error| Error::Stopped(error.to_string()))?;
    let (proposals, proposal_queue) = mpsc::channel(proposer::QUEUE);
    let (reads, read_queue) = mpsc::channel(replica::READS);
    let leadership = watch::Sender::new(Leadership::default());
    let local = Arc::new(Local {
        me: settings.raft_id,
        env: env.clone(),
        machine: machine.clone(),
        link: Arc::clone(&link),
        leadership: leadership.clone(),
        proposals,
        reads,
    });
    let heard = Arc::new(Heard::new(&env));
    let (members, members_seen) = watch::channel(Members::default());
    let proposer = Proposer {
        me: settings.raft_id,
        raft: raft.clone(),
        machine: machine.clone(),
        env: env.clone(),
        space: Arc::clone(&space),
        queue: proposal_queue,
        time: Stamps::default(),
    };
    scope.spawn("propose", proposer.run());
    let patience = settings.timing.election_max * 4;
    let reader =
        Reader { local: Arc::clone(&local), raft: raft.clone(), queue: read_queue, patience };
    scope.spawn("read", reader.run());
    let successor = Successor {
        me: settings.raft_id,
        raft: raft.clone(),
        env: env.clone(),
        link,
        leadership: leadership.subscribe(),
    };
    scope.spawn("succeed", successor.run());
    let watcher = Watcher {
        me: settings.raft_id,
        raft: raft.clone(),
        machine,
        env: env.clone(),
        timing: settings.timing,
        heard: Arc::clone(&heard),
        leadership,
        members,
    };
    scope.spawn("watch", watcher.run());
    scope.spawn("space", Arc::clone(&space).watch(env.clone(), scope.clone()));
    scope.spawn("compact", compact(raft.clone(), log.clone(), env.clone()));
    let store = Store::new(Arc::clone(&local) as _);
    let inbound = Inbound { raft: raft.clone(), local, space, heard };
    let member = Member {
        settings,
        env,
        raft,
        log: Mutex::new(Some(log)),
        closed: Mutex::new(Some(closed)),
        store,
        inbound,
        members: members_seen,
        scope,
    };
    Ok(Handle { member: Arc::new(member) })
}

impl Handle {
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
        let elected = elected.is_ok_and(|waited| waited.is_ok());
        if !elected {
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
        if !leadership.borrow_and_update().leader.is_some_and(|(leader, _)| leader == me) {
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
        let Member { raft, scope, env, log, closed, .. } = &*self.member;
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
        if !scope.shutdown(STOP_LIMIT).await {
            tracing::warn!("a routine of raft did not end in time");
        }
        drop(log.lock().unwrap_or_else(PoisonError::into_inner).take());
        let closed = closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(closed) = closed
            && env.clock.timeout(STOP_LIMIT, closed).await.is_err()
        {
            tracing::warn!("the raft log was not closed in time");
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
    /// Stops as a killed process would, but for the disk, which is let go of.
    pub(super) async fn kill(self) {
        let Member { raft, scope, log, closed, .. } = &*self.member;
        raft.shutdown().await.unwrap();
        scope.shutdown(STOP_LIMIT).await;
        drop(log.lock().unwrap().take());
        let closed = closed.lock().unwrap().take();
        closed.unwrap().await.unwrap();
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

/// Opens the log; another process may still be letting go of it.
async fn open_log(
    settings: &Settings,
    env: &Env,
    scope: &Scope,
) -> Result<(Log, oneshot::Receiver<()>), Error> {
    let until = env.clock.instant().after(LOCK_PATIENCE);
    loop {
        let (dir, key) = (settings.dir.clone(), settings.key);
        let (entropy, id) = (Arc::clone(&env.entropy), settings.raft_id.0);
        let opened = scope
            .blocking(move || {
                let disk = SledDisk::open(&dir.join("log")).map_err(|error| match error {
                    OpenError::Locked => Error::Locked { dir: dir.clone() },
                    OpenError::Damaged(what) => Error::Corrupt { dir: dir.clone(), what },
                    OpenError::Io(error) => Error::io("the raft log", error),
                })?;
                Log::open(Arc::new(disk), Sealer::new(&key, entropy), id, &dir.join("floor"))
            })
            .await;
        match opened {
            Some(Err(Error::Locked { .. })) if env.clock.instant() < until => {
                env.clock.sleep(Duration::from_millis(50)).await;
            }
            Some(result) => return result,
            None => {
                let what = "the database cannot be read".to_owned();
                return Err(Error::Corrupt { dir: settings.dir.clone(), what });
            }
        }
    }
}

/// Keeps the log short when its entries are large; openraft counts them only.
async fn compact(raft: Raft, log: Log, env: Env) {
    let mut asked_at = 0;
    loop {
        env.clock.sleep(Duration::from_secs(1)).await;
        let bytes = log.bytes();
        if bytes < LOG_BYTES {
            asked_at = 0;
            continue;
        }
        let snapshot = raft.metrics().borrow_watched().snapshot.map_or(0, |id| id.index);
        let purged = log.purged().map_or(0, |id| id.index);
        let done = if snapshot > purged && asked_at != 0 {
            raft.trigger().purge_log(snapshot).await
        } else {
            asked_at = bytes;
            raft.trigger().snapshot().await
        };
        if done.is_err() {
            return;
        }
    }
}

fn config(timing: &Timing) -> Result<Config, Error> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "swarm".to_owned(),
        heartbeat_interval: millis(timing.raft_heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(LOG_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: 256,
        enable_pre_vote: Some(true),
        ..Config::default()
    };
    config.validate().map_err(|error| Error::Stopped(error.to_string()))
}
