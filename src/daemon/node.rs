//! This node's part in a cluster, and how it changes: init, join, leave, another role.
//!
//! One change at a time: [`Node`] is a handle to state behind a lock that is held for the whole of a
//! change. What others may see at once (`GET /info`) is published aside.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, mpsc, watch};

use super::keyring::{Found, Keyring};
use super::locked::{LateLink, Locked};
use super::manager::{self, Beginning, Manager};
use super::record::Record;
use super::settings::Settings;
use super::vitals::Parts;
use super::worker::{self, Worker};
use crate::api::{ControlError, LocalState, Participation};
use crate::dispatcher::Dispatcher;
use crate::domain::node::Role;
use crate::domain::{Autolock, NodeId};
use crate::env::{Env, Scope};
use crate::identity::{Credentials, Keeping, SharedIdentity};
use crate::raft::Store;
use crate::runtime::{Runtime, docker};
use crate::transport::{Channels, GrpcLink, Renewal, RenewalRequest};

/// Between two tries of something that must succeed in the end.
const RETRY: Duration = Duration::from_millis(500);

/// The handle to this node's part in a cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) env: Env,
    pub(super) scope: Scope,
    pub(super) local: watch::Sender<LocalState>,
    pub(super) store: watch::Sender<Option<Store>>,
    pub(super) dispatcher: watch::Sender<Option<Dispatcher>>,
    pub(super) parts: watch::Sender<Parts>,
    pub(super) keyring: Keyring,
    /// What runs of a manager whose data is locked. Taken after `running` where both are.
    pub(super) locked: Mutex<Option<Locked>>,
    pub(super) running: Mutex<Option<Running>>,
    /// Held by whoever brings this node into a cluster. Taken before `running`.
    pub(super) admission: Mutex<()>,
}

/// A node that is in a cluster.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) record: Record,
    pub(super) identity: SharedIdentity,
    pub(super) channels: Channels,
    pub(super) worker: Option<Worker>,
    pub(super) manager: Option<Manager>,
    pub(super) scope: Scope,
    /// Why a half of the node does not run; empty if all is well.
    pub(super) trouble: String,
}

/// A node that does not know what it is; [`Node::resume`] makes it what its record says.
pub(super) fn start(settings: Settings, env: Env, scope: &Scope) -> Node {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let local = LocalState {
        hostname: hostname.trim().to_owned(),
        participation: Participation::Starting,
        ..LocalState::default()
    };
    let inner = Inner {
        keyring: Keyring::new(&settings.state_dir, &env),
        locked: Mutex::new(None),
        settings,
        env,
        scope: scope.clone(),
        local: watch::Sender::new(local),
        store: watch::Sender::new(None),
        dispatcher: watch::Sender::new(None),
        parts: watch::Sender::default(),
        running: Mutex::new(None),
        admission: Mutex::default(),
    };
    Node { inner: Arc::new(inner) }
}

impl Node {
    /// The replicated state, while this node is a manager.
    pub(super) fn store(&self) -> watch::Receiver<Option<Store>> {
        self.inner.store.subscribe()
    }

    /// The agents' side, while this node is a manager.
    pub(super) fn dispatcher(&self) -> watch::Receiver<Option<Dispatcher>> {
        self.inner.dispatcher.subscribe()
    }

    /// What the node knows of itself; the managers as of now.
    pub(super) fn local(&self) -> LocalState {
        let mut local = self.inner.local.borrow().clone();
        if let Ok(running) = self.inner.running.try_lock()
            && let Some(worker) = running.as_ref().and_then(|running| running.worker.as_ref())
        {
            let managers = worker.managers();
            if !managers.is_empty() {
                local.managers = managers;
            }
        }
        local
    }

    /// What runs, once it is known what this node is.
    pub(super) async fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        let mut local = self.inner.local.subscribe();
        // Its sender lives as long as this node.
        drop(local.wait_for(|it| it.participation != Participation::Starting).await);
        self.inner.running.lock().await
    }

    /// Makes the node what its record says.
    pub(super) async fn resume(&self) {
        let mut slot = self.inner.running.lock().await;
        let resumed = match Record::load(&self.inner.settings.state_dir) {
            Ok(Some(record)) => self.revive(record).await,
            Ok(None) => {
                tracing::info!("in no swarm yet: `swarm init` or `swarm join`");
                self.publish_gone();
                Ok(None)
            }
            Err(error) => Err(error.into()),
        };
        match resumed {
            Ok(running) => *slot = running,
            Err(error) => self.troubled(&error),
        }
        drop(slot);
    }

    /// Starts what a record asks for; `None` where that waits for an unlock key.
    async fn revive(&self, record: Record) -> anyhow::Result<Option<Running>> {
        let Inner { keyring, settings, .. } = &*self.inner;
        tracing::info!(node.id = %record.node, "resuming");
        // A demotion that was cut short: what is left of the manager is of no use.
        let is_sealed = keyring.certificates().keeping()? == Some(Keeping::Sealed);
        let found = keyring.look()?;
        if found == Found::Locked && (is_sealed || self.load()?.1 == Role::Manager) {
            self.stay_locked(record).await?;
            return Ok(None);
        }
        let (credentials, role) = self.load()?;
        let mut record = record;
        if role == Role::Worker && (found != Found::Nothing || record.raft.is_some()) {
            manager::forget(&settings.state_dir, keyring)?;
            record.raft = None;
            record.raft_folder = Record::first_folder();
            record.save(&settings.state_dir)?;
        }
        self.run(record, &credentials, Beginning::Resume, None).await.map(Some)
    }

    /// The node's credentials and the role that they give.
    pub(super) fn load(&self) -> anyhow::Result<(Credentials, Role)> {
        let state_dir = &self.inner.settings.state_dir;
        let loaded = self.inner.keyring.certificates().load()?;
        let credentials = loaded.ok_or_else(|| {
            anyhow::anyhow!(
                "the node's certificate is gone from {}; restore it from a backup, or run `swarm leave --force` and join again",
                state_dir.display()
            )
        })?;
        let role = credentials.certificate()?.identity.role;
        Ok((credentials, role))
    }

    /// Publishes why the node is not what its record says.
    pub(super) fn troubled(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        tracing::error!(error = text, "this node cannot do its part");
        self.inner.local.send_modify(|local| {
            local.participation = Participation::Error;
            local.error = text;
        });
    }

    /// Starts everything a record asks for. A manager half that cannot start leaves the worker half
    /// running: containers and names do not depend on it. `kept` is what ran while the manager was
    /// locked.
    pub(super) async fn run(
        &self,
        record: Record,
        credentials: &Credentials,
        beginning: Beginning,
        kept: Option<Locked>,
    ) -> anyhow::Result<Running> {
        let env = &self.inner.env;
        let identity = credentials.identity(&env.clock)?;
        let role = identity.certificate.identity.role;
        let identity = SharedIdentity::new(identity);
        let scope = match &kept {
            Some(kept) => kept.scope.clone(),
            None => self.inner.scope.child("membership"),
        };
        let channels = Channels::new(identity.clone(), env.clone(), scope.clone());
        self.inner.parts.send_modify(|parts| parts.identity = Some(identity.clone()));
        let is_new = !matches!(beginning, Beginning::Resume);
        let mut running = Running {
            record,
            identity: identity.clone(),
            channels: channels.clone(),
            worker: None,
            manager: None,
            scope: scope.clone(),
            trouble: String::new(),
        };
        if role == Role::Manager
            && let Err(error) = self.start_manager(&mut running, beginning).await
        {
            if is_new {
                scope.cancel();
                return Err(error);
            }
            tracing::error!(error = format!("{error:#}"), "the manager half does not run");
            running.trouble = format!("{error:#}");
        }
        let link = GrpcLink::new(channels, env.clone(), scope.clone());
        running.worker = Some(match kept {
            Some(kept) => {
                kept.link.set(link);
                kept.worker
            }
            None => self.start_worker(&running.record, LateLink::of(link), &scope).await?,
        });
        self.keep_identity(&running);
        self.publish(&running);
        Ok(running)
    }

    /// Starts the worker half.
    pub(super) async fn start_worker(
        &self,
        record: &Record,
        link: LateLink,
        scope: &Scope,
    ) -> anyhow::Result<Worker> {
        let Inner { env, settings, .. } = &*self.inner;
        let parts = worker::Parts {
            env: env.clone(),
            settings: settings.clone(),
            runtime: self.engine(record.node, scope),
            link: Arc::new(link),
        };
        let worker = Worker::start(&parts, record, record.managers.clone(), scope).await?;
        self.inner.parts.send_modify(|parts| parts.agent = Some(worker.agent()));
        Ok(worker)
    }

    /// The engine of this host, as a node of the cluster sees it.
    pub(super) fn engine(&self, node: NodeId, scope: &Scope) -> Arc<dyn Runtime> {
        let settings = docker::Settings { socket: self.inner.settings.engine.clone(), node };
        docker::start(settings, self.inner.env.clone(), scope)
    }

    /// Publishes what the node is.
    pub(super) fn publish(&self, running: &Running) {
        let role = running.identity.current().certificate.identity.role;
        let Record { node, advertise, managers, .. } = &running.record;
        self.inner.local.send_modify(|local| {
            local.participation = match running.trouble.is_empty() {
                true => Participation::Active,
                false => Participation::Error,
            };
            local.node = Some(*node);
            local.addr = Some(advertise.ip());
            local.is_manager = role == Role::Manager;
            local.error.clone_from(&running.trouble);
            local.managers = managers.iter().map(|addr| (NodeId::default(), *addr)).collect();
        });
    }

    /// Publishes that the node is in no cluster.
    pub(super) fn publish_gone(&self) {
        self.inner.store.send_replace(None);
        self.inner.dispatcher.send_replace(None);
        self.inner.parts.send_replace(Parts::default());
        self.inner.local.send_modify(|local| {
            *local =
                LocalState { hostname: std::mem::take(&mut local.hostname), ..Default::default() };
        });
    }

    pub(super) fn pending(&self) {
        self.inner.local.send_modify(|local| local.participation = Participation::Pending);
    }

    /// Keeps the certificate valid, and of the role that the managers want this node to have.
    fn keep_identity(&self, running: &Running) {
        let Some(worker) = &running.worker else { return };
        let Inner { env, keyring, .. } = &*self.inner;
        let renewal = Renewal {
            identity: running.identity.clone(),
            dir: keyring.certificates(),
            channels: running.channels.clone(),
            managers: worker.addresses(&running.record.managers, &running.scope),
            env: env.clone(),
        };
        let (requests, queue) = mpsc::channel(1);
        running.scope.spawn("renewal", renewal.run(running.scope.clone(), queue));
        super::trust::follow(running, requests.clone());
        self.outlive(running);
        let mut wanted = worker.role();
        running.scope.spawn("wanted-role", async move {
            while wanted.changed().await.is_ok() {
                let Some(role) = *wanted.borrow_and_update() else { continue };
                if requests.send(RenewalRequest::Role(role)).await.is_err() {
                    return;
                }
            }
        });
        let node = self.clone();
        let mut identity = running.identity.watch();
        running.scope.spawn("role", async move {
            while identity.changed().await.is_ok() {
                let role = identity.borrow_and_update().certificate.identity.role;
                while let Err(error) = node.become_role(role).await {
                    let error = format!("{error:#}");
                    tracing::warn!(error, role = role.as_str(), "the role is not changed yet");
                    let env = &node.inner.env;
                    env.clock.sleep(env.entropy.jitter(RETRY)).await;
                    if identity.has_changed().unwrap_or(true) {
                        break;
                    }
                }
            }
        });
    }

    /// Writes credentials and record, starts, and takes everything back if that fails.
    pub(super) async fn settle(
        &self,
        record: Record,
        credentials: &Credentials,
        beginning: Beginning,
        lock: Autolock,
    ) -> Result<(), ControlError> {
        let Inner { settings, keyring, .. } = &*self.inner;
        if lock.key.is_some() {
            // Before anything is written that it is to lock.
            keyring.data_key(&lock).map_err(internal)?;
        }
        keyring.certificates().save(credentials).map_err(internal)?;
        record.save(&settings.state_dir).map_err(internal)?;
        let started = self.run(record, credentials, beginning, None).await;
        let started = match started {
            Ok(running) if running.trouble.is_empty() => Ok(running),
            Ok(mut running) => {
                let trouble = std::mem::take(&mut running.trouble);
                self.take_down(running).await;
                Err(anyhow::anyhow!(trouble))
            }
            Err(error) => Err(error),
        };
        match started {
            Ok(running) => {
                *self.inner.running.lock().await = Some(running);
                Ok(())
            }
            Err(error) => {
                self.forget();
                self.publish_gone();
                Err(ControlError::Unavailable(format!("{error:#}")))
            }
        }
    }

    async fn take_down(&self, mut running: Running) {
        self.stop_manager(&mut running).await;
        if let Some(worker) = running.worker.take() {
            worker.dismantle().await;
        }
        running.scope.cancel();
    }

    /// Leaves the cluster as far as this host is concerned.
    pub(super) async fn abandon(&self, running: Running) {
        self.take_down(running).await;
        self.forget();
        self.publish_gone();
    }

    /// Removes what the node wrote of its membership.
    pub(super) fn forget(&self) {
        let state_dir = &self.inner.settings.state_dir;
        let agent = match std::fs::remove_dir_all(state_dir.join("agent")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        let removed = [
            manager::forget(state_dir, &self.inner.keyring),
            agent.map_err(anyhow::Error::from),
            self.inner.keyring.certificates().remove().map_err(anyhow::Error::from),
            Record::remove(state_dir).map_err(anyhow::Error::from),
        ];
        for error in removed.into_iter().filter_map(Result::err) {
            tracing::warn!(error = format!("{error:#}"), "something of the membership remains");
        }
    }

    /// Ends everything; containers go on.
    pub(super) async fn stop(&self) {
        let running = self.inner.running.lock().await.take();
        if let Some(mut running) = running {
            self.stop_manager(&mut running).await;
            if let Some(worker) = running.worker.take() {
                worker.stop().await;
            }
            running.scope.cancel();
        }
        let locked = self.inner.locked.lock().await.take();
        if let Some(locked) = locked {
            locked.worker.stop().await;
            locked.scope.cancel();
        }
    }
}

pub(super) fn internal(error: impl std::fmt::Display) -> ControlError {
    ControlError::Internal(error.to_string())
}
