//! Who one is: certificates, join tokens, TLS, and which role may call what.
//!
//! A node is what its certificate says: common name = node id, organizational unit = role,
//! organization = cluster id, signed by the cluster's own root. Nothing here opens a connection;
//! `transport` does. The only folder that names rcgen, x509-parser and rustls.

pub mod authority;
mod certificate;
mod credentials;
mod permit;
mod tls;
pub mod token;

#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod tests;

pub use certificate::{Certificate, NodeKey, node_id_of};
pub use credentials::{CertificateDir, Credentials, Keeping, enlist, found};
pub use permit::{PERMITTED, Requirement, permitted};
pub use tls::{
    ClientTls, Identity, MANAGER_NAME, Pin, ServerTls, SharedIdentity, explain, manager_name,
    pinned, unverified,
};
pub use token::{Token, TokenError};

use std::fmt;

use crate::domain::node::Role;
use crate::domain::{ClusterId, NodeId, Timestamp};

/// What a certificate says of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
}

impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of cluster {}", self.role.as_str(), self.node, self.cluster)
    }
}

/// The name of a role in certificates (Docker's).
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarm-worker",
        Role::Manager => MANAGER_NAME,
    }
}

/// What is wrong with an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A certificate that cannot be read or does not name a node.
    #[error("the certificate is not one of a swarm node: {0}")]
    Certificate(String),
    /// A certificate request that cannot be read, or whose sender does not have the key.
    #[error("the certificate request is not valid: {0}")]
    Request(String),
    /// The cluster's root certificate or key is damaged.
    #[error("the cluster's certificate authority is not usable: {0}")]
    Authority(String),
    /// A private key that cannot be read or made.
    #[error("the node's private key is not usable: {0}")]
    Key(String),
    /// Certificate, key and root do not fit together.
    #[error("certificate, key and root certificate do not belong together: {0}")]
    Mismatch(String),
    /// The certificate's time is over, by the clock of this machine.
    #[error(
        "the certificate of this node expired at {}, and the clock of this machine says {}: is that right? Compare `date` with another machine's; once a wrong clock is set right, the node goes on by itself. If the clock is right, this node was away or could not reach a manager for too long, and no manager accepts its certificate (valid from {}) any more: run `swarm leave --force` here, then join again with a current token (`swarm join-token worker` on a manager shows it)",
        until.brief(), now.brief(), from.brief()
    )]
    Expired {
        /// Valid from.
        from: Timestamp,
        /// Valid until.
        until: Timestamp,
        /// What this machine's clock says.
        now: Timestamp,
    },
    /// The certificate's time has not begun, by the clock of this machine.
    #[error(
        "the certificate of this node is not valid before {}, and the clock of this machine says {}: is that right? Compare `date` with another machine's; once a wrong clock is set right, the node goes on by itself. If the clock is right, the certificate (valid until {}) was signed by a clock that ran ahead: run `swarm leave --force` here, then join again with a current token (`swarm join-token worker` on a manager shows it)",
        from.brief(), now.brief(), until.brief()
    )]
    Early {
        /// Valid from.
        from: Timestamp,
        /// Valid until.
        until: Timestamp,
        /// What this machine's clock says.
        now: Timestamp,
    },
    /// A manager signed by a clock that is not this machine's.
    #[error(
        "a certificate that is signed there now is valid from {} to {}, which is of no use to this node, whose clock says {}: compare `date` on the two machines and set the clock that is wrong",
        from.brief(), until.brief(), now.brief()
    )]
    Useless {
        /// Valid from.
        from: Timestamp,
        /// Valid until.
        until: Timestamp,
        /// What this machine's clock says.
        now: Timestamp,
    },
    /// The files cannot be read or written.
    #[error("the node's certificate in {path} cannot be {action}: {reason}")]
    Files {
        /// The file.
        path: String,
        /// `read` or `written`.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
}
