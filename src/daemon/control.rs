//! What the API may ask of this node: init, join, leave, tokens.

use async_trait::async_trait;
use tokio::sync::MutexGuard;

use super::address;
use super::founding::{self, Founding};
use super::group::Group;
use super::manager::Beginning;
use super::node::{Node, internal};
use super::record::Record;
use crate::api::{
    ControlError, InitRequest, JoinRequest, JoinTokens, Leave, LocalState, NodeControl,
    Participation, Places, RecoverRequest, Recovery, RestoreRequest, Run, Vitals,
};
use crate::domain::cluster::{Cluster, RootRotation};
use crate::domain::node::{Membership, Reachability, Role};
use crate::domain::unlock::Rotation;
use crate::domain::{Autolock, ClusterId, NetworkId, NodeId, UnlockKey};
use crate::identity::{authority, found, token};
use crate::raft::Store;
use crate::runtime::SwarmMode;

#[async_trait]
impl NodeControl for Node {
    fn state(&self) -> LocalState {
        self.local()
    }

    fn vitals(&self) -> Vitals {
        self.gather()
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError> {
        if request.force_new_cluster {
            let places = Places { listen: request.listen_addr, advertise: request.advertise_addr };
            let recovery = self.recover_here(RecoverRequest { places, run: Run::Real }).await?;
            return Ok(recovery.node);
        }
        let _admission = self.admit().await?;
        let host = address::host_addresses().map_err(invalid)?;
        let listen = address::listen(&request.listen_addr, &host).map_err(invalid)?;
        let mut advertise = address::advertise(&request.advertise_addr, &host).map_err(invalid)?;
        if !request.advertise_addr.contains(':') {
            advertise.set_port(listen.port());
        }
        let pool = founding::pool(&request.address_pools, request.subnet_size).map_err(invalid)?;
        let env = &self.inner.env;
        let now = env.clock.now();
        let cluster = ClusterId::from_bytes(env.entropy.id());
        let validity = request.spec.ca.node_cert_expiry.duration();
        let (authority, identity, credentials) = found(cluster, now, validity).map_err(internal)?;
        let node = identity.node;
        let fresh = UnlockKey::new(env.entropy.key());
        let autolock =
            Autolock::default().wished(&request.spec.encryption_config, Rotation::Keep, fresh);
        let founding = Founding {
            cluster,
            node,
            addr: advertise,
            authority,
            autolock: autolock.clone(),
            token_key: env.entropy.key(),
            network: NetworkId::from_bytes(env.entropy.id()),
            spec: request.spec,
            availability: request.availability,
            host: host.iter().map(|address| address.addr).chain([advertise.ip()]).collect(),
        };
        let changes = founding::changes(founding, pool).map_err(invalid)?;
        let mut record = Record::new(cluster, node, advertise, listen);
        record.managers = vec![advertise];
        self.settle(record, &credentials, Beginning::Found(changes), autolock).await?;
        self.wait_connected().await?;
        Ok(node)
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ControlError> {
        let _admission = self.admit().await?;
        self.pending();
        let joined = self.enrol(request).await;
        if joined.is_err() {
            self.publish_gone();
        }
        joined?;
        self.wait_connected().await
    }

    async fn leave(&self, leave: Leave) -> Result<(), ControlError> {
        let mut slot = self.slot().await;
        let Some(running) = slot.as_ref() else {
            if leave == Leave::Force && self.leave_locked().await {
                return Ok(());
            }
            // A node that cannot start what its record says may still be taken out by force.
            if leave == Leave::Force && self.local().participation == Participation::Error {
                self.forget();
                self.publish_gone();
                return Ok(());
            }
            return Err(ControlError::NotInSwarm);
        };
        let node = running.record.node;
        if let Some(manager) = &running.manager {
            if leave == Leave::Gracefully {
                may_leave(&manager.store(), node)?;
            } else {
                let channels = running.channels.clone();
                let others: Vec<_> = running
                    .worker
                    .iter()
                    .flat_map(|worker| worker.managers())
                    .filter(|(other, _)| *other != node)
                    .map(|(_, addr)| addr)
                    .collect();
                Group { channels: &channels, env: &self.inner.env }.leave(&others, node).await;
            }
        }
        if let Some(running) = slot.take() {
            self.abandon(running).await;
        }
        Ok(())
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ControlError> {
        let _admission = self.admit().await?;
        self.restore_here(request).await
    }

    async fn recover(&self, request: RecoverRequest) -> Result<Recovery, ControlError> {
        self.recover_here(request).await
    }

    async fn unlock(&self, key: &str) -> Result<(), ControlError> {
        self.open_lock(key).await
    }

    async fn follow_lock(&self) -> Result<(), ControlError> {
        let slot = self.inner.running.lock().await;
        let Some(manager) = slot.as_ref().and_then(|running| running.manager.as_ref()) else {
            return Ok(());
        };
        let view = manager.store().view();
        drop(slot);
        let Some(cluster) = view.cluster.clone() else { return Ok(()) };
        let keyring = self.inner.keyring.clone();
        let followed = self.inner.scope.blocking(move || keyring.follow(&cluster.autolock)).await;
        match followed {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(internal(format!("{error:#}"))),
            None => Err(ControlError::Unavailable("this manager is stopping".to_owned())),
        }
    }

    fn next_root(&self, cluster: &Cluster) -> Result<RootRotation, ControlError> {
        authority::succeed(cluster, self.inner.env.clock.now()).map_err(internal)
    }

    fn join_tokens(&self, cluster: &Cluster) -> Result<JoinTokens, ControlError> {
        let make = |role| token::make(cluster, role).map_err(internal);
        Ok(JoinTokens { worker: make(Role::Worker)?, manager: make(Role::Manager)? })
    }
}

impl Node {
    /// Refuses a node that is in a cluster already, or whose engine is in swarm mode itself. Nobody else
    /// is admitted until what this returns is dropped.
    async fn admit(&self) -> Result<MutexGuard<'_, ()>, ControlError> {
        let admission = self.inner.admission.lock().await;
        let is_in = self.slot().await.is_some();
        match self.local().participation {
            Participation::Locked => return Err(ControlError::Locked),
            Participation::Error => return Err(ControlError::AlreadyInSwarm),
            _ if is_in => return Err(ControlError::AlreadyInSwarm),
            _ => {}
        }
        let scope = self.inner.scope.child("admission");
        let engine = self.engine(NodeId::default(), &scope);
        if engine.swarm_mode().await == Ok(SwarmMode::Active) {
            return Err(ControlError::Unavailable(
                "the Docker Engine of this host is in swarm mode itself; two orchestrators would fight over its networks: run `docker swarm leave` against the engine first"
                    .to_owned(),
            ));
        }
        Ok(admission)
    }
}

/// Docker's rule: a manager leaves gracefully only after it was demoted.
fn may_leave(store: &Store, node: NodeId) -> Result<(), ControlError> {
    let view = store.view();
    let members: Vec<_> = view
        .nodes
        .values()
        .filter(|node| node.manager.is_some_and(|part| part.membership != Membership::Removed))
        .collect();
    if !members.iter().any(|member| member.id == node) {
        return Ok(());
    }
    if members.len() == 1 {
        return Err(ControlError::LastManager);
    }
    let reachable = |member: &&&std::sync::Arc<crate::domain::Node>| {
        member.id != node && member.status.reachability == Reachability::Reachable
    };
    let left = members.iter().filter(reachable).count();
    if left < members.len() / 2 + 1 {
        return Err(ControlError::QuorumLoss { left, of: members.len() });
    }
    Err(ControlError::ManagerLeave)
}

fn invalid(error: impl std::fmt::Display) -> ControlError {
    ControlError::Invalid(error.to_string())
}
