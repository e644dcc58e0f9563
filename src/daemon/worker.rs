//! What every node does: run its tasks, connect them, answer their questions about names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::record::Record;
use super::settings::Settings;
use crate::agent;
use crate::dns;
use crate::domain::node::Role;
use crate::domain::timing::Timing;
use crate::env::{Env, Scope};
use crate::overlay;
use crate::runtime::Runtime;
use crate::transport::ManagerLink;

/// How long the routines of a worker may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The worker half of a node.
#[derive(Debug)]
pub(super) struct Worker {
    agent: agent::Handle,
    overlay: overlay::Handle,
    scope: Scope,
}

/// What a worker half is made of.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) env: Env,
    pub(super) settings: Settings,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) link: Arc<dyn ManagerLink>,
}

impl Worker {
    /// Starts the agent, the overlay and the name server.
    pub(super) async fn start(
        parts: &Parts,
        record: &Record,
        managers: Vec<SocketAddr>,
        scope: &Scope,
    ) -> anyhow::Result<Self> {
        let scope = scope.child("worker");
        let Parts { env, settings, runtime, link } = parts.clone();
        let network = overlay::Settings { node: record.node, dns_port: settings.dns_port };
        let overlay = overlay::start(network, env.clone(), scope.child("overlay"))
            .await
            .context("cannot prepare the network between nodes")?;
        let agent_settings = agent::Settings {
            data_dir: settings.state_dir.join("agent"),
            run_dir: settings.run_dir.clone(),
            node: record.node,
            addr: record.advertise.ip(),
            managers,
            timing: Timing::DEFAULT,
            guard: settings.guard(),
        };
        let deps =
            agent::Deps { env: env.clone(), runtime, link, overlay: Arc::new(overlay.clone()) };
        let agent =
            agent::start(agent_settings, deps, &scope).await.context("cannot start the agent")?;
        let names = dns::Settings {
            port: settings.dns_port,
            node: record.node,
            upstreams: settings.upstream_dns.clone(),
        };
        let sources = dns::Sources { assignments: agent.assignments(), local: agent.local() };
        dns::start(names, env, sources, scope.child("dns"))
            .await
            .context("cannot start the name server")?;
        Ok(Self { agent, overlay, scope })
    }

    /// Follows the role that the managers want this node to have.
    pub(super) fn role(&self) -> watch::Receiver<Option<Role>> {
        self.agent.role()
    }

    /// Follows the roots that the managers want this node to trust.
    pub(super) fn trust_wanted(&self) -> watch::Receiver<Option<[u8; 32]>> {
        self.agent.trust_wanted()
    }

    /// The agent.
    pub(super) fn agent(&self) -> agent::Handle {
        self.agent.clone()
    }

    /// Managers that the node knows now.
    pub(super) fn managers(&self) -> Vec<(crate::domain::NodeId, SocketAddr)> {
        self.agent.managers().borrow().clone()
    }

    /// Follows the addresses of the managers: those that are known now, or `first` until then.
    pub(super) fn addresses(
        &self,
        first: &[SocketAddr],
        scope: &Scope,
    ) -> watch::Receiver<Vec<SocketAddr>> {
        let (addresses, receiver) = watch::channel(first.to_vec());
        let mut managers = self.agent.managers();
        scope.spawn("manager-addresses", async move {
            loop {
                let known: Vec<_> =
                    managers.borrow_and_update().iter().map(|(_, addr)| *addr).collect();
                if !known.is_empty() {
                    addresses.send_replace(known);
                }
                if managers.changed().await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// The manager that the agent has a session with.
    pub(super) fn connected(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.agent.connected()
    }

    /// Ends the routines; containers go on.
    pub(super) async fn stop(self) {
        if !self.scope.shutdown(STOP_LIMIT).await {
            tracing::warn!("the worker half did not end in time");
        }
    }

    /// Ends the routines and removes the node's tasks and network: it leaves the cluster.
    pub(super) async fn dismantle(self) {
        for what in self.agent.clone().leave().await {
            tracing::warn!(what, "something of the node's tasks remains");
        }
        if let Err(error) = self.overlay.teardown().await {
            tracing::warn!(%error, "the network is not all removed");
        }
        self.stop().await;
    }
}
