//! Which role may call which RPC: one table, checked before any handler runs. What is not in it is
//! refused, and a test holds it against the descriptors of `proto/`.

use crate::domain::node::Role;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Anybody, even without a certificate. The handler must expect the worst.
    Anyone,
    /// A node of the cluster.
    Member,
    /// A manager of the cluster, by its certificate and by the cluster's state.
    Manager,
    /// A manager by its certificate, even if this manager's state does not know that yet: Raft's own
    /// messages, which bring the state up to date. Who leads knows better and may refuse.
    Peer,
}

impl Requirement {
    /// The least role of a certificate that may call; `None` if none is needed.
    #[must_use]
    pub const fn role(self) -> Option<Role> {
        match self {
            Self::Anyone => None,
            Self::Member => Some(Role::Worker),
            Self::Manager | Self::Peer => Some(Role::Manager),
        }
    }
}

/// The table.
pub const PERMITTED: &[(&str, Requirement)] = &[
    ("/swarm.node.v1.CertificateAuthority/RootCertificate", Requirement::Anyone),
    ("/swarm.node.v1.CertificateAuthority/Issue", Requirement::Anyone),
    ("/swarm.node.v1.Dispatcher/Session", Requirement::Member),
    ("/swarm.node.v1.Logs/Publish", Requirement::Member),
    ("/swarm.node.v1.Logs/Subscribe", Requirement::Manager),
    ("/swarm.manager.v1.Raft/Vote", Requirement::Peer),
    ("/swarm.manager.v1.Raft/Append", Requirement::Peer),
    ("/swarm.manager.v1.Raft/Snapshot", Requirement::Peer),
    ("/swarm.manager.v1.Raft/TransferLeader", Requirement::Peer),
    ("/swarm.manager.v1.Raft/Heartbeats", Requirement::Peer),
    ("/swarm.manager.v1.Proposals/Propose", Requirement::Manager),
    ("/swarm.manager.v1.Proposals/ReadIndex", Requirement::Manager),
    ("/swarm.manager.v1.Leases/Renew", Requirement::Manager),
    ("/swarm.manager.v1.Leases/Keep", Requirement::Manager),
    ("/swarm.manager.v1.Membership/Join", Requirement::Manager),
    ("/swarm.manager.v1.Membership/Leave", Requirement::Manager),
];

/// Who may call the RPC with a path; `None` if there is no such RPC.
#[must_use]
pub fn permitted(path: &str) -> Option<Requirement> {
    PERMITTED.iter().find(|(known, _)| *known == path).map(|(_, requirement)| *requirement)
}
