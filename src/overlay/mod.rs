//! The network between nodes: a full-L3 bridge per cluster network.

use std::net::IpAddr;

use crate::domain::{AssignmentSet, NodeId};
use crate::env::{Env, Scope};

/// What the overlay must know of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Port of the DNS server, to which port 53 of this node's gateways is redirected.
    pub dns_port: u16,
}

/// Why the node's network cannot be what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The program `nft` is not there.
    #[error("nftables is not installed: apt-get install nftables")]
    NftMissing,
}

/// Brings the node's network to what an assignment set says.
#[derive(Clone, Debug)]
pub struct Handle;

/// Opens what the overlay needs of the kernel; changes nothing yet.
///
/// # Errors
/// When the kernel cannot be talked to.
#[expect(clippy::unused_async, reason = "signature first")]
pub async fn start(_settings: Settings, _env: Env, _scope: Scope) -> Result<Handle, Error> {
    Ok(Handle)
}

impl Handle {
    /// Brings the kernel's links, entries and rules to what the set says. Idempotent; called after
    /// each change and every 30 s. The engine's bridges must exist already (`ov<VNI>`).
    ///
    /// # Errors
    /// In words for the user; what could be done is done.
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn apply(&self, _set: &AssignmentSet) -> Result<(), Error> {
        Ok(())
    }

    /// The largest packet of a container: that of the interface that holds `local`, less 50 bytes
    /// (70 for IPv6) of VXLAN; 1450 when no interface holds it.
    #[must_use]
    pub const fn mtu(&self, _local: IpAddr) -> u32 {
        1450
    }

    /// Removes all that is ours from the kernel; on leaving the cluster.
    ///
    /// # Errors
    /// In words for the user; what could be removed is removed.
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn teardown(&self) -> Result<(), Error> {
        Ok(())
    }
}
