//! One manager alone: with the state of a backup, or with what is left of a group that lost its
//! majority. Both begin a new epoch (`raft::epoch`), in which the old managers are no nodes any more;
//! workers stay.
//!
//! ```text
//!   folder raft-<epoch> is written whole ─▶ node.json names it (one atomic write) ─▶ it is started
//! ```
//!
//! Until `node.json` is replaced nothing has happened; the old folder is left to the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address;
use super::manager::{Beginning, Seed};
use super::node::{Inner, Node, Running, internal};
use super::record::Record;
use crate::api::{
    ControlError, Participation, Places, RecoverRequest, Recovery, RestoreRequest, Run,
};
use crate::domain::node::{ManagerStatus, Membership, Role};
use crate::domain::{Node as Machine, NodeId, RaftId};
use crate::identity::enlist;
use crate::raft::{self, Salvaged, archive};
use crate::state::{Change, Expect, Object, ObjectKey, State};

/// How long the other managers may take to show that they are a quorum.
const QUORUM_LIMIT: Duration = Duration::from_secs(3);

impl Node {
    /// Makes this host the only manager of a backup's cluster.
    pub(super) async fn restore_here(
        &self,
        request: RestoreRequest,
    ) -> Result<NodeId, ControlError> {
        let Inner { env, scope, .. } = &*self.inner;
        let (listen, advertise) = places(&request.places, None)?;
        let RestoreRequest { archive, passphrase, .. } = request;
        let opened = scope.blocking(move || archive::read(&archive, passphrase.expose())).await;
        let (summary, state) = opened
            .ok_or_else(|| internal("the backup could not be read"))?
            .map_err(|error| ControlError::Invalid(error.to_string()))?;
        let Some(cluster) = state.cluster.clone() else {
            return Err(ControlError::Invalid("the backup holds no cluster".to_owned()));
        };
        let now = env.clock.now();
        let (identity, credentials) = enlist(&cluster, None, now).map_err(internal)?;
        let epoch = RaftId(raft::epoch(now, summary.term));
        let changes = alone(&state, identity.node, advertise, epoch);
        let mut record = Record::new(cluster.id, identity.node, advertise, listen);
        record.managers = vec![advertise];
        tracing::info!(cluster = %cluster.id, index = summary.index, "restoring a backup");
        let seed = Box::new(Seed { epoch, state, changes });
        let lock = cluster.autolock.clone();
        self.settle(record, &credentials, Beginning::Revive(seed), lock).await?;
        self.wait_connected().await?;
        Ok(identity.node)
    }

    /// Makes this manager the only one of its cluster, or tells what that would mean.
    pub(super) async fn recover_here(
        &self,
        request: RecoverRequest,
    ) -> Result<Recovery, ControlError> {
        let mut slot = self.slot().await;
        let local = self.local();
        let Some(running) = slot.as_mut() else {
            return Err(match local.participation {
                Participation::Locked => ControlError::Locked,
                Participation::Inactive => ControlError::NotInSwarm,
                _ => ControlError::Unavailable(local.error),
            });
        };
        let Some(raft_id) = running.record.raft else {
            return Err(ControlError::Unavailable(
                "this node is not a manager: recover on one that was, the one that was up last; or restore a backup with `swarm backup restore`"
                    .to_owned(),
            ));
        };
        let (listen, advertise) = places(&request.places, Some(&running.record))?;
        self.refuse_quorum(running).await?;
        self.stop_manager(running).await;
        let settings = self.manager_parts(running).raft(&running.record, raft_id);
        let settings = settings.map_err(|error| internal(format!("{error:#}")))?;
        let salvaged = raft::salvage(&settings, &self.inner.env, &running.scope).await;
        let salvaged = match salvaged {
            Ok(salvaged) if salvaged.view.cluster.is_some() => salvaged,
            outcome => {
                self.go_on(running).await;
                let reason = match outcome {
                    Ok(_) => "this manager never got the swarm's state".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(ControlError::Unavailable(format!(
                    "nothing can be recovered from this manager: {reason}; try another manager, or restore a backup with `swarm backup restore`"
                )));
            }
        };
        let epoch = RaftId(raft::epoch(self.inner.env.clock.now(), salvaged.term));
        let changes = alone(&salvaged.view, running.record.node, advertise, epoch);
        let report = report(&salvaged, running.record.node, advertise, epoch);
        if request.run == Run::Dry {
            self.go_on(running).await;
            return Ok(report);
        }
        let record =
            Record { advertise, listen, managers: vec![advertise], ..running.record.clone() };
        let seed = Seed { epoch, state: (*salvaged.view).clone(), changes };
        let Some(running) = slot.take() else { return Err(internal("this node is stopping")) };
        let outcome;
        (*slot, outcome) = self.begin_alone(running, record, seed).await;
        outcome?;
        tracing::warn!(epoch = epoch.0, "recovered: this is the only manager now");
        Ok(report)
    }

    /// Starts the whole node anew in the new epoch; as it was, if that fails.
    async fn begin_alone(
        &self,
        running: Running,
        record: Record,
        seed: Seed,
    ) -> (Option<Running>, Result<(), ControlError>) {
        let old = running.record.clone();
        if let Some(worker) = running.worker {
            worker.stop().await;
        }
        running.scope.cancel();
        let error = match self.revive_as(record, seed).await {
            Ok(running) => return (Some(running), Ok(())),
            Err(error) => ControlError::Unavailable(format!("{error:#}")),
        };
        let as_it_was = async {
            let (credentials, _) = self.load()?;
            self.run(old, &credentials, Beginning::Resume, None).await
        };
        let resumed = as_it_was.await.map_err(|error| self.troubled(&error)).ok();
        (resumed, Err(error))
    }

    async fn revive_as(&self, record: Record, seed: Seed) -> anyhow::Result<Running> {
        let Inner { env, keyring, .. } = &*self.inner;
        let (mut credentials, _) = self.load()?;
        let now = env.clock.now();
        // The root's key is in the state: who was away for too long helps himself.
        if let Some(cluster) = &seed.state.cluster
            && credentials.certificate()?.expired(now)
        {
            credentials = enlist(cluster, Some(record.node), now)?.1;
            keyring.certificates().save(&credentials)?;
        }
        self.run(record, &credentials, Beginning::Revive(Box::new(seed)), None).await
    }

    /// Starts the manager half again, as it was.
    async fn go_on(&self, running: &mut Running) {
        if let Err(error) = self.start_manager(running, Beginning::Resume).await {
            running.trouble = format!("{error:#}");
            tracing::error!(error = running.trouble, "the manager half does not run");
        }
        self.publish(running);
    }

    /// A group that has a quorum needs no recovery, and would be two afterwards.
    async fn refuse_quorum(&self, running: &Running) -> Result<(), ControlError> {
        let Some(manager) = &running.manager else { return Ok(()) };
        let store = manager.store();
        if store.view().managers().count() < 2 || store.read_index(QUORUM_LIMIT).await.is_err() {
            return Ok(());
        }
        Err(ControlError::Unavailable(
            "the managers have a quorum: nothing needs to be recovered; remove the managers that are gone with `swarm node demote` and `swarm node rm`"
                .to_owned(),
        ))
    }
}

/// What a backup is, checked: whole with its passphrase, its checksum without.
///
/// # Errors
/// When it is not a backup, is damaged, or the passphrase does not open it.
pub fn verify_backup(file: &[u8], passphrase: Option<&[u8]>) -> anyhow::Result<String> {
    let (summary, how) = match passphrase {
        Some(passphrase) => {
            (archive::read(file, passphrase)?.0, "whole, and the passphrase opens it")
        }
        None => {
            (archive::summary(file)?, "as it was written (not opened: no passphrase was given)")
        }
    };
    Ok(format!(
        "The backup is {how}.\n Cluster: {}\n Created: {}\n Last entry: {} (term {})\n Nodes: {} ({} managers)\n Services: {}\n Secrets: {}\n Configs: {}",
        summary.cluster,
        summary.created,
        summary.index,
        summary.term,
        summary.nodes,
        summary.managers,
        summary.services,
        summary.secrets,
        summary.configs,
    ))
}

/// Where the node is to listen and where it is reached: as wished, as it was, or as `init` has it.
fn places(
    wish: &Places,
    record: Option<&Record>,
) -> Result<(SocketAddr, SocketAddr), ControlError> {
    let invalid = |error: address::AddressError| ControlError::Invalid(error.to_string());
    let host = address::host_addresses().map_err(invalid)?;
    let listen = match record {
        Some(record) if wish.listen.is_empty() => record.listen,
        _ => address::listen(&wish.listen, &host).map_err(invalid)?,
    };
    let mut advertise = match record {
        Some(record) if wish.advertise.is_empty() => return Ok((listen, record.advertise)),
        _ => address::advertise(&wish.advertise, &host).map_err(invalid)?,
    };
    if !wish.advertise.contains(':') {
        advertise.set_port(listen.port());
    }
    Ok((listen, advertise))
}

/// Whether a node is, or still passes for, a manager.
fn is_manager(node: &Machine) -> bool {
    node.spec.role == Role::Manager
        || node.certified == Role::Manager
        || node.manager.is_some_and(|it| it.membership != Membership::Removed)
}

/// What makes a state one of a single manager. The others are removed: what they say is refused, and
/// they join again.
fn alone(state: &State, me: NodeId, addr: SocketAddr, epoch: RaftId) -> Vec<Change> {
    let others = state.nodes.values().filter(|node| node.id != me && is_manager(node));
    let mut changes: Vec<Change> = others
        .map(|node| Change::Delete { key: ObjectKey::Node(node.id), expect: Expect::Any })
        .collect();
    let known = state.node(me).map(|node| (**node).clone());
    let mut node = known.unwrap_or_else(|| Machine {
        trust: state.cluster.as_ref().map_or(0, |cluster| cluster.trust.generation),
        ..Machine::new(me, Role::Manager)
    });
    node.spec.role = Role::Manager;
    node.certified = Role::Manager;
    node.status.addr = Some(addr.ip());
    let membership = Membership::Voter;
    node.manager = Some(ManagerStatus { raft_id: epoch, addr, membership, silent: false });
    changes.push(Change::Put { object: Object::Node(Arc::new(node)), expect: Expect::Any });
    changes
}

fn report(salvaged: &Salvaged, me: NodeId, addr: SocketAddr, epoch: RaftId) -> Recovery {
    let Salvaged { view, committed, last, term } = salvaged;
    let removed = view.nodes.values().filter(|node| node.id != me && is_manager(node));
    let name = |node: &Machine| {
        let described = node.description.as_ref().map(|it| it.hostname.clone());
        described.unwrap_or_default()
    };
    Recovery {
        node: me,
        addr,
        epoch: epoch.0,
        term: *term,
        last: *last,
        committed: *committed,
        newest: view.clock,
        removed: removed.map(|node| (node.id, name(node))).collect(),
        nodes: view.nodes.values().count(),
        services: view.services.values().filter(|service| !service.removing).count(),
        tasks: view.tasks.values().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::state::fixtures::{node_id, small};
    use crate::state::{Command, apply};

    #[test]
    fn a_state_of_one_manager_keeps_workers_and_forgets_managers() {
        let mut state = small();
        for node in [1, 2] {
            let addr = SocketAddr::from(([192, 0, 2, node], 2377));
            let join = Change::JoinManager { node: node_id(node), addr };
            let at = crate::domain::Position { term: 1, index: state.position.index + 1 };
            let command = Command { changes: vec![join], ..Command::default() };
            apply(&mut state, &command, at).0.unwrap();
        }
        let addr = SocketAddr::from(([192, 0, 2, 9], 2377));
        let epoch = RaftId(raft::epoch(Timestamp(0), 7));
        for (me, left) in [(node_id(1), 1), (NodeId::from_bytes([9; 16]), 1)] {
            let mut state = state.clone();
            let changes = alone(&state, me, addr, epoch);
            let at = crate::domain::Position { term: epoch.0, index: 1 << 20 };
            let command = Command { changes, ..Command::default() };
            apply(&mut state, &command, at).0.unwrap();
            let managers: Vec<_> = state.managers().map(|(node, part)| (node.id, part)).collect();
            assert_eq!(managers.len(), left);
            assert_eq!((managers[0].0, managers[0].1.raft_id), (me, epoch));
            assert!(state.node(node_id(2)).is_none(), "it must join again");
        }
    }

    #[test]
    fn a_root_on_its_way_is_still_on_its_way_after_a_recovery() {
        use crate::domain::cluster::{Authority, Cluster, RootRotation, Trust};
        let mut state = small();
        let next =
            Authority { root_pem: "next".into(), ..crate::state::fixtures::cluster().authority };
        let rotation = Some(RootRotation { next, cross_pem: "cross".into() });
        let trust = Trust { generation: 4, rotation };
        let cluster = Cluster { trust: trust.clone(), ..crate::state::fixtures::cluster() };
        state.cluster = Some(Arc::new(cluster));
        let commit = |state: &mut State, changes| {
            let at = crate::domain::Position { term: 1, index: state.position.index + 1 };
            apply(state, &Command { changes, ..Command::default() }, at).0.unwrap();
        };
        commit(&mut state, vec![Change::ReportTrust { node: node_id(1), trust: 3 }]);
        let addr = SocketAddr::from(([192, 0, 2, 9], 2377));
        let epoch = RaftId(raft::epoch(Timestamp(0), 7));
        // A manager that was there has confirmed what it has; a restored one begins with all of it.
        for (me, confirmed) in [(node_id(1), 3), (NodeId::from_bytes([9; 16]), 4)] {
            let mut state = state.clone();
            let changes = alone(&state, me, addr, epoch);
            commit(&mut state, changes);
            assert_eq!(state.cluster.as_ref().unwrap().trust, trust);
            assert_eq!(state.node(me).unwrap().trust, confirmed);
        }
    }

    #[test]
    fn epochs_rise_past_every_term_and_with_the_clock() {
        let second = |seconds: u64| Timestamp(seconds * 1_000_000_000);
        let first = raft::epoch(second(1_800_000_000), 12);
        assert!(first > 12 && first < 1 << 53, "{first}");
        assert!(raft::epoch(second(1_800_000_001), 12) > first + 1_000_000);
        let late = raft::epoch(second(0), first + 17);
        assert!(late > first + 17, "a clock that is wrong does no harm");
    }
}
