//! What managers do beside: keep the log, lead if elected, serve agents, issue identities.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::backups::Keeper;
use super::duties::{self, Duties};
use super::keyring::Keyring;
use super::record::Record;
use super::settings::BackupSchedule;
use crate::api::LocalState;
use crate::ca;
use crate::dispatcher::Dispatcher;
use crate::domain::timing::Timing;
use crate::domain::{Autolock, RaftId};
use crate::env::{Env, Scope, files};
use crate::identity::SharedIdentity;
use crate::leader::{Dial, GrpcLeases, LeaseRpc, LeaseTable};
use crate::raft::{self, Store};
use crate::state::{Change, State};
use crate::transport::{self, Channels};

/// How long the routines of a manager may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Between two tries of writing the key of the data anew.
const LOCK_RETRY: Duration = Duration::from_secs(1);

/// What a manager half is made of.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) env: Env,
    pub(super) identity: SharedIdentity,
    pub(super) channels: Channels,
    pub(super) state_dir: std::path::PathBuf,
    pub(super) keyring: Keyring,
    /// When it writes backups by itself.
    pub(super) backup: Option<BackupSchedule>,
    /// How long a newer format is held back.
    pub(super) format_hold: Duration,
    /// What this node tells of itself.
    pub(super) local: watch::Sender<LocalState>,
}

/// The manager half of a node.
#[derive(Debug)]
pub(super) struct Manager {
    raft: raft::Handle,
    dispatcher: Dispatcher,
    leases: LeaseTable,
    scope: Scope,
}

/// How a manager half begins.
#[derive(Debug)]
pub(super) enum Beginning {
    /// A new cluster, with its first commands.
    Found(Vec<Change>),
    /// From what lies on the disk, or as a new member that the leader fills.
    Resume,
    /// Alone, with the state of a backup or of a group that lost its majority.
    Revive(Box<Seed>),
}

/// What a member that is alone begins with.
#[derive(Debug)]
pub(super) struct Seed {
    /// Its raft id and first term.
    pub(super) epoch: RaftId,
    /// The state.
    pub(super) state: State,
    /// What makes it a state of one manager.
    pub(super) changes: Vec<Change>,
}

impl Seed {
    /// The folder of the log that begins with it.
    pub(super) fn folder(&self) -> String {
        format!("raft-{}", self.epoch)
    }
}

impl Parts {
    /// What the member of a group needs to know of itself.
    pub(super) fn raft(&self, record: &Record, raft_id: RaftId) -> anyhow::Result<raft::Settings> {
        Ok(raft::Settings {
            dir: self.state_dir.join(&record.raft_folder),
            raft_id,
            node: record.node,
            addr: record.advertise,
            timing: Timing::DEFAULT,
            key: self.keyring.data_key(&Autolock::default())?,
            compaction: raft::Compaction::DEFAULT,
        })
    }

    /// Writes the folder of a member that begins alone.
    pub(super) async fn plant(
        &self,
        record: &Record,
        seed: Seed,
        scope: &Scope,
    ) -> anyhow::Result<()> {
        let settings = self.raft(record, seed.epoch)?;
        raft::plant(&settings, &self.env, scope, &seed.state, seed.changes).await?;
        Ok(())
    }
}

impl Manager {
    /// Starts listening, the replica and everything that works on it. `first` are the commands that
    /// found a cluster.
    pub(super) async fn start(
        parts: &Parts,
        record: &Record,
        raft_id: RaftId,
        first: Option<Vec<Change>>,
        scope: &Scope,
    ) -> anyhow::Result<Self> {
        let scope = scope.child("manager");
        let started = Self::assemble(parts, record, raft_id, first, &scope).await;
        if started.is_err() && !scope.shutdown(STOP_LIMIT).await {
            tracing::warn!("a manager half that did not start did not end in time, either");
        }
        started
    }

    async fn assemble(
        parts: &Parts,
        record: &Record,
        raft_id: RaftId,
        first: Option<Vec<Change>>,
        scope: &Scope,
    ) -> anyhow::Result<Self> {
        let settings = parts.raft(record, raft_id)?;
        let Parts { env, identity, channels, keyring, .. } = parts.clone();
        let timing = Timing { format_hold: parts.format_hold, ..Timing::DEFAULT };
        let listener = TcpListener::bind(record.listen).await.with_context(|| {
            format!(
                "cannot listen on {}: is another manager or swarm mode of the engine running?",
                record.listen
            )
        })?;
        let dial: Dial = {
            let channels = channels.clone();
            Arc::new(move |addr: SocketAddr| channels.channel(addr))
        };
        let link = raft::tonic_link(env.clone(), channels.clone());
        let raft = raft::start(settings, env.clone(), link, scope).await?;
        if let Some(changes) = first {
            raft.bootstrap(changes).await.context("cannot write the first state of the cluster")?;
        }
        let store = raft.store();
        let locking = follow_lock(store.clone(), keyring, env.clone(), scope.clone());
        scope.spawn("unlock-key", locking);
        let leases = Arc::new(GrpcLeases::new(Arc::clone(&dial), Arc::clone(&env.clock)));
        let ways = duties::Ways { timing, leases, dial };
        let Duties { dispatcher, leases } = duties::start(&env, record.node, &raft, ways, scope);
        if let Some(schedule) = parts.backup.clone() {
            let (env, store, scope) = (env.clone(), store.clone(), scope.clone());
            let local = parts.local.clone();
            let keeper = Keeper { schedule, node: record.node, env, store, scope, local };
            keeper.scope.clone().spawn("backups", keeper.run());
        }
        let (raft_rpc, proposals) = raft.services();
        let routes = tonic::service::Routes::new(raft_rpc)
            .add_service(proposals)
            .add_service(LeaseRpc::server(env.clone(), leases.clone()))
            .add_service(dispatcher.server())
            .add_service(dispatcher.logs_server())
            .add_service(ca::Issuer::service(store.clone(), env.clone()))
            .add_service(ca::Members::service(store.clone(), env.clone()));
        let serving = transport::Serving {
            identity,
            roster: Arc::new(ca::StateRoster::new(store)),
            routes,
            env,
            limits: transport::Limits::default(),
        };
        let server = scope.clone();
        scope.spawn("port", async move {
            if let Err(error) = transport::serve(listener, serving, &server).await {
                tracing::error!(%error, "the port between nodes is closed");
            }
        });
        Ok(Self { raft, dispatcher, leases, scope: scope.clone() })
    }

    /// The replicated state.
    pub(super) fn store(&self) -> Store {
        self.raft.store()
    }

    /// The member of the Raft group.
    pub(super) fn raft(&self) -> raft::Handle {
        self.raft.clone()
    }

    /// What the leader hears of agents.
    pub(super) fn leases(&self) -> LeaseTable {
        self.leases.clone()
    }

    /// Follows whether the others write what only a newer release can read.
    pub(super) fn newer(&self) -> watch::Receiver<Option<String>> {
        self.raft.newer()
    }

    /// The agents' side.
    pub(super) fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    /// Ends the manager half; its data stays on the disk.
    pub(super) async fn stop(self) {
        self.raft.shutdown().await;
        if !self.scope.shutdown(STOP_LIMIT).await {
            tracing::warn!("the manager half did not end in time");
        }
    }
}

/// Keeps the key of this manager's data as the cluster wants it.
async fn follow_lock(store: Store, keyring: Keyring, env: Env, scope: Scope) {
    let mut views = store.watch();
    let mut followed = None;
    loop {
        let wanted = views.borrow_and_update().cluster.as_ref().map(|it| it.autolock.clone());
        if let Some(lock) = wanted.filter(|wanted| followed.as_ref() != Some(wanted)) {
            let (keys, next) = (keyring.clone(), lock.clone());
            match scope.blocking(move || keys.follow(&next)).await {
                Some(Ok(())) => followed = Some(lock),
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    tracing::error!(
                        error,
                        "the unlock key could not be changed here; trying again"
                    );
                    env.clock.sleep(LOCK_RETRY).await;
                    continue;
                }
                None => return,
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Removes the data of a former manager, with what recoveries have left.
pub(super) fn forget(state_dir: &Path, keyring: &Keyring) -> anyhow::Result<()> {
    for folder in files::list(state_dir, "raft")? {
        if folder.is_dir() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    keyring.forget()
}
