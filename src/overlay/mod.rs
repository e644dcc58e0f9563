//! The network between nodes: a full-L3 bridge per cluster network.
//!
//! ```text
//!   task ── veth ── ov<VNI> (the engine's bridge) ── vx<VNI> ══ UDP 4789 ══ the other nodes
//!                     │ the host answers every ARP: all packets pass its IP layer (isolation, DNS)
//! ```
//!
//! Level-triggered: [`Handle::apply`] computes what a node must have (`plan`, `firewall`), compares it
//! with what the kernel has (`netlink`, `nftables`) and performs the difference. Nothing is learned from
//! traffic and nothing is flushed; what works goes on working while we are down. Making the bridges is
//! the engine's work (`runtime`), choosing addresses the manager's.

mod firewall;
mod netlink;
mod nftables;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{AssignmentSet, NodeId};
use crate::env::{Ended, Env, Scope};
use netlink::Kernel;
use nftables::Applied;
use plan::{Desired, LinkKind, Observed, bridge_name, inner_mtu};

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
    /// `nft` refused our rules.
    #[error("nft refused the rules of the overlay: {reason}")]
    Nft {
        /// What it said.
        reason: String,
    },
    /// `iptables` refused.
    #[error("iptables cannot let overlay traffic pass the FORWARD chain: {reason}")]
    Iptables {
        /// What it said.
        reason: String,
    },
    /// The process lacks the rights.
    #[error("not permitted to change the network: run as root (CAP_NET_ADMIN)")]
    NotPermitted,
    /// The engine has not made the bridge.
    #[error(
        "the bridge {bridge} of network {network} is not there: is the container engine running?"
    )]
    BridgeMissing {
        /// The bridge.
        bridge: String,
        /// The network.
        network: String,
    },
    /// The node's address is on none of its interfaces.
    #[error(
        "no interface of this node holds its address {addr}: give another with --data-path-addr or \
         --advertise-addr"
    )]
    AddressMissing {
        /// The address.
        addr: IpAddr,
    },
    /// Another program uses the network identifier.
    #[error(
        "another VXLAN interface uses VNI {vni}: is the engine's own swarm mode active? (docker swarm \
         leave)"
    )]
    VniInUse {
        /// The identifier.
        vni: u32,
    },
    /// The kernel refused.
    #[error("cannot {act}: {reason}")]
    Kernel {
        /// What was tried.
        act: String,
        /// What the kernel said.
        reason: String,
    },
}

/// What an apply changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Acts on links, entries and sysctls, and on rules of chains that are not ours.
    pub operations: usize,
    /// Whether our tables were loaded anew.
    pub rules_loaded: bool,
}

/// Brings the node's network to what an assignment set says. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    env: Env,
    kernel: Kernel,
    /// One apply at a time: two would act on the same dump. Held across awaits, hence tokio's.
    applied: tokio::sync::Mutex<Applied>,
    /// MTUs of the interfaces that hold our addresses, as of the last look. Never held for long.
    mtus: Mutex<BTreeMap<IpAddr, u32>>,
}

/// Opens what the overlay needs of the kernel; changes nothing yet.
///
/// # Errors
/// When the kernel cannot be talked to.
pub async fn start(settings: Settings, env: Env, scope: Scope) -> Result<Handle, Error> {
    let kernel = Kernel::open(&scope)?;
    let handle = Handle {
        inner: Arc::new(Inner {
            settings,
            env,
            kernel,
            applied: tokio::sync::Mutex::default(),
            mtus: Mutex::default(),
        }),
    };
    handle.observe(&Desired::default()).await?;
    Ok(handle)
}

impl Handle {
    /// Brings the kernel's links, entries and rules to what the set says. Idempotent; called after
    /// each change and every 30 s. The engine's bridges must exist already (`ov<VNI>`).
    ///
    /// # Errors
    /// The first of them, in words for the user; what could be done is done.
    pub async fn apply(&self, set: &AssignmentSet) -> Result<(), Error> {
        self.reconcile(set).await.map(|_| ())
    }

    /// [`Self::apply`] that says what it changed.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn reconcile(&self, set: &AssignmentSet) -> Result<Report, Error> {
        self.bring(&Desired::new(set, self.inner.settings.node)).await
    }

    /// The largest packet of a container: that of the interface that holds `local`, less 50 bytes
    /// (70 for IPv6) of VXLAN; as for 1500 when no interface holds it.
    #[must_use]
    pub fn mtu(&self, local: IpAddr) -> u32 {
        let mtus = self.inner.mtus.lock().unwrap_or_else(PoisonError::into_inner);
        inner_mtu(mtus.get(&local).copied().unwrap_or(1500), local)
    }

    /// Removes all that is ours from the kernel; on leaving the cluster.
    ///
    /// # Errors
    /// In words for the user; what could be removed is removed.
    pub async fn teardown(&self) -> Result<(), Error> {
        self.bring(&Desired::default()).await.map(|_| ())
    }

    async fn bring(&self, desired: &Desired) -> Result<Report, Error> {
        let Inner { env, applied, .. } = &*self.inner;
        let mut applied = applied.lock().await;
        let began = env.clock.instant();
        let brought = self.act(desired, &mut applied).await;
        let ended = if brought.is_ok() { Ended::Well } else { Ended::Badly };
        let meters = &env.meters;
        meters.overlay.of(ended).took(env.clock.instant().since(began));
        let operations = brought.as_ref().map_or(0, |report| report.operations);
        meters.overlay_operations.add(u64::try_from(operations).unwrap_or_default());
        meters.overlay_networks.set(desired.segments.len());
        let neighbours = desired.segments.values().map(|segment| segment.neighbours.len());
        meters.overlay_neighbours.set(neighbours.sum());
        brought
    }

    async fn act(&self, desired: &Desired, applied: &mut Applied) -> Result<Report, Error> {
        let inner = &self.inner;
        let mut report = Report::default();
        // Rules first: no tunnel is ever up without them.
        let rules = if desired.segments.is_empty() {
            nftables::unload(&inner.env, applied).await
        } else {
            let text = firewall::ruleset(desired, inner.settings.dns_port);
            nftables::load(&inner.env, applied, text).await
        };
        report.rules_loaded = *rules.as_ref().unwrap_or(&false);
        let bridges: BTreeSet<String> =
            desired.segments.keys().map(|vni| bridge_name(*vni)).collect();
        let forward = nftables::open_forward(&inner.env, &bridges).await;
        report.operations += *forward.as_ref().unwrap_or(&0);

        // Without rules tasks could reach the host and other networks: then there is no tunnel.
        if !desired.segments.is_empty() {
            rules.clone()?;
        }
        let observed = self.observe(desired).await?;
        let mut problem = missing(desired, &observed).map_or(Ok(()), Err);
        for op in plan::plan(desired, &observed) {
            tracing::debug!(?op, "overlay");
            let done = inner.kernel.perform(&op).await;
            report.operations += usize::from(done.is_ok());
            problem = problem.and(done);
        }
        rules?;
        forward?;
        problem.map(|()| report)
    }

    async fn observe(&self, desired: &Desired) -> Result<Observed, Error> {
        let observed = self.inner.kernel.observe(&plan::sysctl_paths(desired)).await?;
        let mut mtus = self.inner.mtus.lock().unwrap_or_else(PoisonError::into_inner);
        mtus.clone_from(&observed.addresses);
        Ok(observed)
    }
}

/// What somebody else must provide first.
fn missing(desired: &Desired, observed: &Observed) -> Option<Error> {
    desired.segments.values().find_map(|segment| {
        let bridge = bridge_name(segment.vni);
        if observed.links.get(&bridge).is_none_or(|link| link.kind != LinkKind::Bridge) {
            return Some(Error::BridgeMissing { bridge, network: segment.network.clone() });
        }
        let held = observed.addresses.contains_key(&segment.local);
        (!held).then_some(Error::AddressMissing { addr: segment.local })
    })
}
