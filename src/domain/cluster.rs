//! The cluster itself: spec, authority, join tokens, formats.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::container::null_default;
use super::secret::Sensitive;
use super::{Autolock, ClusterId, Extra, Format, Labels, Meta, Nanos, NetworkId, SpecPolicy};

/// Most managers a cluster may have: more do not make it safer, only slower (Raft §5.3).
pub const MANAGERS_MAX: usize = 7;

/// The cluster object; there is exactly one.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Identity.
    pub id: ClusterId,
    /// Times and revisions.
    pub meta: Meta,
    /// The user's wish.
    pub spec: ClusterSpec,
    /// Who signs certificates.
    pub authority: Authority,
    /// Key of the join tokens: a token's secret is HMAC(key, role, generation).
    pub token_key: Sensitive,
    /// Generation of the worker token; rotation raises it.
    pub worker_token: u64,
    /// Generation of the manager token; rotation raises it.
    pub manager_token: u64,
    /// The pool that networks take their subnets from.
    pub pool: AddressPool,
    /// The network that every task joins that names none.
    pub default_network: NetworkId,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// What everything replicated is written in: all managers know it.
    pub format: Format,
    /// What opens the data of managers that restart.
    pub autolock: Autolock,
    /// Which roots nodes are to trust.
    pub trust: Trust,
}

impl Cluster {
    /// Who signs certificates now: while the root is rotated, the one that is to come.
    #[must_use]
    pub fn issuer(&self) -> &Authority {
        self.trust.rotation.as_ref().map_or(&self.authority, |rotation| &rotation.next)
    }

    /// The root certificates that nodes are to trust now, PEM: while the root is rotated, the old
    /// one and the next.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        let old = self.authority.root_pem.trim_end();
        match &self.trust.rotation {
            Some(rotation) => format!("{old}\n{}", rotation.next.root_pem),
            None => self.authority.root_pem.clone(),
        }
    }
}

/// The certificate authority of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// Root certificate, PEM.
    pub root_pem: String,
    /// Private key of the root, PEM.
    pub key_pem: Sensitive,
}

/// Which roots nodes are to trust (docs/adr/0020).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Trust {
    /// Counts the changes of these roots: a rotation that begins, one that replaces it, the switch.
    pub generation: u64,
    /// The root that is to come, while nodes learn to trust it.
    pub rotation: Option<RootRotation>,
}

/// A root on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct RootRotation {
    /// The root that is to come; it signs already.
    pub next: Authority,
    /// Its name and key, signed by the root that it replaces, PEM: who trusts only that one can
    /// follow the chain.
    pub cross_pem: String,
}

/// A range of addresses and the size of the subnets cut from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPool {
    /// First address.
    pub base: Ipv4Addr,
    /// Prefix length of the whole pool.
    pub prefix: u8,
    /// Prefix length of each network.
    pub subnet_size: u8,
}

/// The user's wish for the cluster (Docker: `SwarmSpec`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ClusterSpec {
    /// Always `default` in Docker.
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: Labels,
    /// Task history.
    pub orchestration: Orchestration,
    /// Knobs of Docker's own Raft. Ours has none of them: only Docker's defaults are accepted.
    #[serde(deserialize_with = "null_default")]
    pub raft: Extra,
    /// Heartbeats of agents.
    pub dispatcher: DispatcherSpec,
    /// Certificates.
    #[serde(rename = "CAConfig")]
    pub ca: CaSpec,
    /// Defaults of tasks.
    #[serde(deserialize_with = "null_default")]
    pub task_defaults: Extra,
    /// Autolock.
    pub encryption_config: EncryptionSpec,
    /// What services may ask of hosts; the default policy if nobody has said anything. A member of the
    /// JSON, so that releases which do not know it keep it in their `extra`.
    #[serde(rename = "Policy", skip_serializing_if = "Option::is_none")]
    pub policy: Option<SpecPolicy>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ClusterSpec {
    /// What services may ask of hosts.
    #[must_use]
    pub fn spec_policy(&self) -> SpecPolicy {
        self.policy.clone().unwrap_or_default()
    }
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            labels: Labels::new(),
            orchestration: Orchestration::default(),
            raft: Extra::new(),
            dispatcher: DispatcherSpec::default(),
            ca: CaSpec::default(),
            task_defaults: Extra::new(),
            encryption_config: EncryptionSpec::default(),
            policy: None,
            extra: Extra::new(),
        }
    }
}

/// Task history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Orchestration {
    /// Ended tasks kept per slot; Docker's default is 5.
    pub task_history_retention_limit: i64,
}

impl Default for Orchestration {
    fn default() -> Self {
        Self { task_history_retention_limit: 5 }
    }
}

/// UDP port of the tunnels between nodes (IANA: VXLAN).
pub const DATA_PATH_PORT: u16 = 4789;

/// What Docker says of its Raft where nobody has changed it.
pub const RAFT_DEFAULTS: [(&str, u64); 5] = [
    ("SnapshotInterval", 10_000),
    ("KeepOldSnapshots", 0),
    ("LogEntriesForSlowFollowers", 500),
    ("ElectionTick", 10),
    ("HeartbeatTick", 1),
];

/// Heartbeats of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatcherSpec {
    /// Docker's; ours is in `timing`, so only Docker's default is accepted.
    pub heartbeat_period: Nanos,
}

impl Default for DispatcherSpec {
    fn default() -> Self {
        Self { heartbeat_period: Nanos::from_secs(5) }
    }
}

/// Certificates of nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CaSpec {
    /// Validity of a node's certificate; Docker's default is 90 days.
    pub node_cert_expiry: Nanos,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for CaSpec {
    fn default() -> Self {
        Self { node_cert_expiry: Nanos::from_secs(90 * 24 * 3600), extra: Extra::new() }
    }
}

impl CaSpec {
    /// The count by which users ask for another root (Docker's `ForceRotate`).
    #[must_use]
    pub fn force_rotate(&self) -> u64 {
        let count = self.extra.get("ForceRotate").and_then(serde_json::Value::as_u64);
        count.unwrap_or_default()
    }

    /// Whether this wish is for another root than an earlier one was.
    #[must_use]
    pub fn asks_another_root_than(&self, earlier: &Self) -> bool {
        self.force_rotate() != earlier.force_rotate()
    }
}

/// Encryption of the managers' data.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EncryptionSpec {
    /// Managers ask for the unlock key when they start.
    pub auto_lock_managers: bool,
}
