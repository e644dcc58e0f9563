//! What this node knows of itself, gathered from its parts when somebody asks. Nothing is asked of
//! the network, the disk or the engine: it must answer while those do not.

use super::backups::overdue;
use super::node::Node;
use crate::agent;
use crate::api::Vitals;
use crate::health::{Local, Room, Validity};
use crate::identity::SharedIdentity;
use crate::leader::LeaseTable;
use crate::raft;

/// The parts of a node that can be asked how they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) agent: Option<agent::Handle>,
    pub(super) identity: Option<SharedIdentity>,
    /// Of a manager whose key is locked away: what its certificate says.
    pub(super) sealed: Option<Validity>,
    /// Of a manager.
    pub(super) raft: Option<raft::Handle>,
    pub(super) leases: Option<LeaseTable>,
}

impl Node {
    /// See the head of this file.
    pub(super) fn gather(&self) -> Vitals {
        let parts = self.inner.parts.borrow().clone();
        let state = self.inner.local.borrow().clone();
        let raft = parts.raft.as_ref().map(raft::Handle::vitals);
        let leadership = parts.raft.as_ref().map(|raft| *raft.store().leadership().borrow());
        let (now, wall) = (self.inner.env.clock.instant(), self.inner.env.clock.now());
        let room = raft.as_ref().map(|it| Room { free: it.free, lack: it.lack.clone() });
        let ailments = raft.iter().flat_map(|it| &it.ailments).map(|it| it.as_str().to_owned());
        let certificate = parts.identity.as_ref().map(|identity| {
            let certificate = &identity.current().certificate;
            Validity { from: certificate.not_before, until: certificate.not_after }
        });
        let local = Local {
            node: state.node,
            part: state.part(),
            is_led: leadership.map(|now| now.leader.is_some()),
            is_connected: parts.agent.as_ref().map(|it| it.connected().borrow().is_some()),
            degraded: parts.agent.as_ref().map(|it| it.describe().degraded).unwrap_or_default(),
            room,
            ailments: ailments.collect(),
            // Only a leader stamps time, and only then does its clock matter.
            has_clock_stepped: raft.as_ref().is_some_and(|it| it.clock_stepped)
                && leadership.is_some_and(|now| now.is_self),
            certificate: certificate.or(parts.sealed),
            contested: parts.leases.as_ref().map(|it| it.contested(now)).unwrap_or_default(),
            formats: parts.leases.and_then(|it| it.formats(now)),
            backup_overdue: state.backups.as_ref().and_then(|it| overdue(it, wall)),
            name: state.hostname,
            error: state.error,
        };
        let tasks = parts.agent.as_ref().map(agent::Handle::census).unwrap_or_default();
        Vitals { local, raft, tasks }
    }
}
