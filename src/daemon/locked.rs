//! A manager whose data is locked: its worker half runs on what the ledger says (containers, names),
//! the API refuses in words, and everything else waits for `swarm unlock`.
//!
//! Without its private key such a node has no sessions. When it is unlocked, the same agent gets
//! its way to the managers; nothing that runs is touched.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::keyring::UnlockError;
use super::manager::Beginning;
use super::node::{Node, internal};
use super::record::Record;
use super::worker::Worker;
use crate::api::{ControlError, Participation};
use crate::domain::UnlockKey;
use crate::env::Scope;
use crate::health::Validity;
use crate::transport::{GrpcLink, LinkError, ManagerLink, SessionLink};
use crate::wire::node::LogMessage;

/// What runs of a locked manager.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) record: Record,
    pub(super) worker: Worker,
    pub(super) link: LateLink,
    pub(super) scope: Scope,
}

/// A link that there is only once the node has its private key. Clones are one link.
#[derive(Clone, Debug, Default)]
pub(super) struct LateLink {
    link: Arc<OnceLock<GrpcLink>>,
}

impl LateLink {
    /// A link that is there already.
    pub(super) fn of(link: GrpcLink) -> Self {
        Self { link: Arc::new(OnceLock::from(link)) }
    }

    /// Here it is. Only the first one counts.
    pub(super) fn set(&self, link: GrpcLink) {
        self.link.get_or_init(|| link);
    }

    fn get(&self, addr: SocketAddr) -> Result<&GrpcLink, LinkError> {
        let reason = "this manager is locked: `swarm unlock` opens it";
        self.link.get().ok_or_else(|| LinkError::Unreachable { addr, reason: reason.to_owned() })
    }
}

#[async_trait]
impl ManagerLink for LateLink {
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError> {
        self.get(addr)?.open(addr).await
    }

    async fn publish_logs(&self, addr: SocketAddr) -> Result<mpsc::Sender<LogMessage>, LinkError> {
        self.get(addr)?.publish_logs(addr).await
    }
}

impl Node {
    /// Runs what needs no key, and waits for one.
    pub(super) async fn stay_locked(&self, record: Record) -> anyhow::Result<()> {
        tracing::warn!("the manager's data is locked: `swarm unlock` opens it; containers go on");
        self.inner.local.send_modify(|local| {
            local.participation = Participation::Locked;
            local.node = Some(record.node);
            local.addr = Some(record.advertise.ip());
            local.is_manager = true;
        });
        // It is not renewed meanwhile, so somebody should know when it ends.
        let sealed = self.inner.keyring.certificates().certificate().ok().flatten();
        self.inner.parts.send_modify(|parts| {
            parts.sealed = sealed.map(|it| Validity { from: it.not_before, until: it.not_after });
        });
        let scope = self.inner.scope.child("membership");
        let link = LateLink::default();
        let worker = self.start_worker(&record, link.clone(), &scope).await?;
        *self.inner.locked.lock().await = Some(Locked { record, worker, link, scope });
        Ok(())
    }

    /// Opens a locked manager. A wrong key changes nothing.
    pub(super) async fn open_lock(&self, text: &str) -> Result<(), ControlError> {
        let mut slot = self.slot().await;
        let mut locked = self.inner.locked.lock().await;
        if locked.is_none() {
            return Err(match self.local().participation {
                Participation::Inactive => ControlError::NotInSwarm,
                _ => ControlError::NotLocked,
            });
        }
        let key: UnlockKey = text.parse().map_err(|_| ControlError::InvalidKey)?;
        self.inner.keyring.unlock(&key).map_err(|error| match error {
            UnlockError::WrongKey => ControlError::InvalidKey,
            UnlockError::Failed(error) => internal(format!("{error:#}")),
        })?;
        let (credentials, _) = self.load().map_err(|error| internal(format!("{error:#}")))?;
        credentials.identity(&self.inner.env.clock).map_err(internal)?;
        let Some(kept) = locked.take() else { return Err(ControlError::NotLocked) };
        drop(locked);
        tracing::info!("unlocked");
        let record = kept.record.clone();
        match self.run(record, &credentials, Beginning::Resume, Some(kept)).await {
            Ok(running) => {
                *slot = Some(running);
                Ok(())
            }
            Err(error) => {
                self.troubled(&error);
                Err(internal(format!("{error:#}")))
            }
        }
    }

    /// Leaves the cluster by force with what is locked; `false` where nothing is.
    pub(super) async fn leave_locked(&self) -> bool {
        let Some(locked) = self.inner.locked.lock().await.take() else { return false };
        locked.worker.dismantle().await;
        locked.scope.cancel();
        self.forget();
        self.publish_gone();
        true
    }
}
