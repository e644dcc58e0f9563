//! This node's part in a cluster, and how it changes: init, join, leave, another role.
//!
//! One change at a time: [`Node`] is a handle to state behind a lock that is held for the whole of a
//! change. What others may see at once (`GET /info`) is published aside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::address;
use super::group::Group;
use super::manager::{self, Beginning, Manager};
use super::record::Record;
use super::settings::Settings;
use super::worker::{self, Worker};
use crate::api::{ControlError, JoinRequest, LocalState, Participation};
use crate::dispatcher::Dispatcher;
use crate::domain::node::Role;
use crate::domain::{NodeId, RaftId};
use crate::env::{Env, Scope};
use crate::identity::{CertificateDir, Credentials, NodeIdentity, SharedIdentity};
use crate::raft::Store;
use crate::runtime::{Runtime, docker};
use crate::transport::{
    self, Channels, EnrollError, Enrolment, GrpcLink, Renewal, RenewalRequest, enroll,
};

/// How long a node may take to become a member before `join` says that it goes on in the background.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
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
    local: watch::Sender<LocalState>,
    store: watch::Sender<Option<Store>>,
    dispatcher: watch::Sender<Option<Dispatcher>>,
    pub(super) running: Mutex<Option<Running>>,
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

/// A node that is in no cluster yet; [`Node::resume`] makes it what its record says.
pub(super) fn start(settings: Settings, env: Env, scope: &Scope) -> Node {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let local = LocalState { hostname: hostname.trim().to_owned(), ..LocalState::default() };
    let inner = Inner {
        settings,
        env,
        scope: scope.clone(),
        local: watch::Sender::new(local),
        store: watch::Sender::new(None),
        dispatcher: watch::Sender::new(None),
        running: Mutex::new(None),
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

    /// Makes the node what its record says.
    pub(super) async fn resume(&self) {
        let mut slot = self.inner.running.lock().await;
        match self.load() {
            Ok(None) => tracing::info!("in no swarm yet: `swarm init` or `swarm join`"),
            Ok(Some((record, credentials))) => {
                tracing::info!(node.id = %record.node, "resuming");
                match self.run(record, &credentials, Beginning::Resume).await {
                    Ok(running) => *slot = Some(running),
                    Err(error) => self.troubled(&error),
                }
            }
            Err(error) => self.troubled(&error),
        }
        drop(slot);
    }

    fn load(&self) -> anyhow::Result<Option<(Record, Credentials)>> {
        let state_dir = &self.inner.settings.state_dir;
        let Some(record) = Record::load(state_dir)? else { return Ok(None) };
        let credentials = CertificateDir::new(state_dir).load()?.ok_or_else(|| {
            anyhow::anyhow!(
                "the node's certificate is gone from {}; restore it from a backup, or run `swarm leave --force` and join again",
                state_dir.display()
            )
        })?;
        Ok(Some((record, credentials)))
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
    /// running: containers and names do not depend on it.
    pub(super) async fn run(
        &self,
        record: Record,
        credentials: &Credentials,
        beginning: Beginning,
    ) -> anyhow::Result<Running> {
        let Inner { env, settings, .. } = &*self.inner;
        let identity = credentials.identity(&env.clock)?;
        let role = identity.certificate.identity.role;
        let identity = SharedIdentity::new(identity);
        let scope = self.inner.scope.child("membership");
        let channels = Channels::new(identity.clone(), env.clone(), scope.clone());
        let founding = matches!(beginning, Beginning::Found(_));
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
            if founding {
                scope.cancel();
                return Err(error);
            }
            tracing::error!(error = format!("{error:#}"), "the manager half does not run");
            running.trouble = format!("{error:#}");
        }
        let link = Arc::new(GrpcLink::new(channels, env.clone(), scope.clone()));
        let parts = worker::Parts {
            env: env.clone(),
            settings: settings.clone(),
            runtime: self.engine(running.record.node, &scope),
            link,
        };
        let managers = running.record.managers.clone();
        running.worker = Some(Worker::start(&parts, &running.record, managers, &scope).await?);
        self.keep_identity(&running);
        self.publish(&running);
        Ok(running)
    }

    /// The engine of this host, as a node of the cluster sees it.
    pub(super) fn engine(&self, node: NodeId, scope: &Scope) -> Arc<dyn Runtime> {
        let settings = docker::Settings { socket: self.inner.settings.engine.clone(), node };
        docker::start(settings, self.inner.env.clone(), scope)
    }

    /// Starts the manager half; asks for membership first, if the node has none.
    async fn start_manager(
        &self,
        running: &mut Running,
        beginning: Beginning,
    ) -> anyhow::Result<()> {
        let Inner { env, settings, .. } = &*self.inner;
        let raft_id = match (running.record.raft, &beginning) {
            (Some(raft_id), _) => raft_id,
            (None, Beginning::Found(_)) => RaftId(1),
            (None, Beginning::Resume) => self.ask_for_membership(running).await?,
        };
        if running.record.raft != Some(raft_id) {
            running.record.raft = Some(raft_id);
            running.record.save(&settings.state_dir)?;
        }
        let parts = manager::Parts {
            env: env.clone(),
            identity: running.identity.clone(),
            channels: running.channels.clone(),
            state_dir: settings.state_dir.clone(),
        };
        let record = &running.record;
        let manager = Manager::start(&parts, record, raft_id, beginning, &running.scope).await?;
        self.inner.store.send_replace(Some(manager.store()));
        self.inner.dispatcher.send_replace(Some(manager.dispatcher()));
        running.manager = Some(manager);
        Ok(())
    }

    /// Asks the managers it knows for a raft id.
    async fn ask_for_membership(&self, running: &Running) -> anyhow::Result<RaftId> {
        let mut last = anyhow::anyhow!("no manager is known");
        for addr in &running.record.managers {
            let group = Group { channels: &running.channels, env: &self.inner.env };
            match group.join(*addr, running.record.advertise).await {
                Ok(raft_id) => return Ok(raft_id),
                Err(error) => last = error,
            }
        }
        Err(last.context("the managers did not take this node into their group"))
    }

    async fn stop_manager(&self, running: &mut Running) {
        if let Some(manager) = running.manager.take() {
            self.inner.store.send_replace(None);
            self.inner.dispatcher.send_replace(None);
            manager.stop().await;
        }
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
        let Inner { env, settings, .. } = &*self.inner;
        let renewal = Renewal {
            identity: running.identity.clone(),
            dir: CertificateDir::new(&settings.state_dir),
            channels: running.channels.clone(),
            managers: worker.addresses(&running.record.managers, &running.scope),
            env: env.clone(),
        };
        let (requests, queue) = mpsc::channel(1);
        running.scope.spawn("renewal", renewal.run(running.scope.clone(), queue));
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

    /// Starts or ends the manager half, as the certificate now says.
    async fn become_role(&self, role: Role) -> anyhow::Result<()> {
        let mut slot = self.inner.running.lock().await;
        let Some(running) = slot.as_mut() else { return Ok(()) };
        match role {
            Role::Manager if running.manager.is_none() => {
                if let Some(worker) = &running.worker {
                    running.record.managers =
                        worker.managers().into_iter().map(|(_, addr)| addr).collect();
                }
                self.start_manager(running, Beginning::Resume).await?;
            }
            Role::Worker if running.manager.is_some() || running.record.raft.is_some() => {
                self.stop_manager(running).await;
                manager::forget(&self.inner.settings.state_dir)?;
                running.record.raft = None;
                running.record.save(&self.inner.settings.state_dir)?;
            }
            Role::Manager | Role::Worker => {}
        }
        running.trouble.clear();
        self.publish(running);
        tracing::info!(role = role.as_str(), "role changed");
        Ok(())
    }

    /// Enrols and starts; what was written is taken back if it fails.
    pub(super) async fn enrol(&self, request: JoinRequest) -> Result<(), ControlError> {
        let host = address::host_addresses().map_err(invalid)?;
        let listen = address::listen(&request.listen_addr, &host).map_err(invalid)?;
        let mut remotes = Vec::new();
        for text in &request.remote_addrs {
            remotes.extend(transport::resolve(text).await.map_err(|error| enrolment(&error))?);
        }
        let first = *remotes.first().ok_or_else(|| {
            ControlError::Invalid("at least one manager's address is needed".to_owned())
        })?;
        let advertise = if request.advertise_addr.is_empty() {
            // The address from which the manager is reached is one at which it can reach us.
            let toward = address::toward(first).await.map_err(invalid)?;
            SocketAddr::new(toward, listen.port())
        } else {
            address::advertise(&request.advertise_addr, &host).map_err(invalid)?
        };
        let wish = Enrolment {
            token: request.token,
            managers: remotes.clone(),
            availability: request.availability,
        };
        let enrolled = enroll(&self.inner.env, &wish).await.map_err(|error| enrolment(&error))?;
        let NodeIdentity { cluster, node, .. } = enrolled.identity;
        let mut record = Record::new(cluster, node, advertise, listen);
        record.managers = remotes;
        for addr in enrolled.managers {
            if !record.managers.contains(&addr) {
                record.managers.push(addr);
            }
        }
        self.settle(record, &enrolled.credentials, Beginning::Resume).await
    }

    /// Writes credentials and record, starts, and takes everything back if that fails.
    pub(super) async fn settle(
        &self,
        record: Record,
        credentials: &Credentials,
        beginning: Beginning,
    ) -> Result<(), ControlError> {
        let state_dir = self.inner.settings.state_dir.clone();
        CertificateDir::new(&state_dir).save(credentials).map_err(internal)?;
        record.save(&state_dir).map_err(internal)?;
        let started = self.run(record, credentials, beginning).await;
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
            manager::forget(state_dir).map_err(anyhow::Error::from),
            agent.map_err(anyhow::Error::from),
            CertificateDir::new(state_dir).remove().map_err(anyhow::Error::from),
            Record::remove(state_dir).map_err(anyhow::Error::from),
        ];
        for error in removed.into_iter().filter_map(Result::err) {
            tracing::warn!(error = format!("{error:#}"), "something of the membership remains");
        }
    }

    /// Waits until the agent has a session.
    pub(super) async fn wait_connected(&self) -> Result<(), ControlError> {
        let connected = {
            let slot = self.inner.running.lock().await;
            slot.as_ref().and_then(|running| running.worker.as_ref()).map(Worker::connected)
        };
        let Some(mut connected) = connected else { return Ok(()) };
        let waited = connected.wait_for(Option::is_some);
        match self.inner.env.clock.timeout(JOIN_LIMIT, waited).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ControlError::JoinTimeout),
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
    }
}

fn invalid(error: impl std::fmt::Display) -> ControlError {
    ControlError::Invalid(error.to_string())
}

pub(super) fn internal(error: impl std::fmt::Display) -> ControlError {
    ControlError::Internal(error.to_string())
}

fn enrolment(error: &EnrollError) -> ControlError {
    match error {
        EnrollError::Token(_) | EnrollError::NoAddress | EnrollError::Address { .. } => {
            ControlError::Invalid(error.to_string())
        }
        EnrollError::Unreachable(_)
        | EnrollError::Refused { .. }
        | EnrollError::Certificate { .. }
        | EnrollError::Identity(_) => ControlError::Unavailable(error.to_string()),
    }
}
