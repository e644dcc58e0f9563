//! The cluster and its nodes ⇄ messages.

use bytes::Bytes;

use super::parts::{
    Numbered, id, id_to, ip, ip_to, ipv4, json, json_to, meta, narrow, numbered, prefix, socket,
    wrong,
};
use super::{DecodeError, types};
use crate::domain::cluster::{AddressPool, Authority, RootRotation, Trust};
use crate::domain::node::{ManagerStatus, Membership, NodeStatus, Reachability, Role};
use crate::domain::secret::Sensitive;
use crate::domain::{
    Autolock, Cluster, ClusterId, Format, NetworkId, Node, NodeId, RaftId, Revision, Timestamp,
    UnlockKey,
};

numbered!(Role { Worker = 0, Manager = 1 });
numbered!(Reachability { Unknown = 0, Reachable = 1, Unreachable = 2 });
numbered!(Membership { None = 0, Learner = 1, Voter = 2, Removed = 3 });

impl From<&Cluster> for types::Cluster {
    fn from(it: &Cluster) -> Self {
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            spec_json: json_to(&it.spec),
            root_pem: it.authority.root_pem.clone(),
            root_key_pem: Bytes::copy_from_slice(it.authority.key_pem.expose()),
            token_key: Bytes::copy_from_slice(it.token_key.expose()),
            worker_token: it.worker_token,
            manager_token: it.manager_token,
            pool_base: ip_to(it.pool.base.into()),
            pool_prefix: u32::from(it.pool.prefix),
            pool_subnet_size: u32::from(it.pool.subnet_size),
            default_network: id_to(it.default_network.to_bytes()),
            data_path_port: u32::from(it.data_path_port),
            format: it.format.0,
            lock_generation: it.autolock.generation,
            unlock_key: unlock_key_to(&it.autolock),
            trust: it.trust.generation,
            root_rotation: it.trust.rotation.as_ref().map(|it| types::RootRotation {
                root_pem: it.next.root_pem.clone(),
                root_key_pem: Bytes::copy_from_slice(it.next.key_pem.expose()),
                cross_pem: it.cross_pem.clone(),
            }),
        }
    }
}

/// The unlock key as bytes; empty where there is none.
pub(crate) fn unlock_key_to(autolock: &Autolock) -> Bytes {
    let key = autolock.key.as_ref();
    key.map(|key| Bytes::copy_from_slice(key.expose())).unwrap_or_default()
}

/// Whether managers lock themselves, from the numbers and bytes of a message.
///
/// # Errors
/// When the key does not have the length of one.
pub(crate) fn autolock(generation: u64, key: &[u8]) -> Result<Autolock, DecodeError> {
    let named = (!key.is_empty()).then(|| UnlockKey::from_slice(key));
    let wrong_length = || wrong("unlock_key", format!("it has {} bytes, not 32", key.len()));
    let key = named.map(|key| key.ok_or_else(wrong_length)).transpose()?;
    Ok(Autolock { generation, key })
}

impl TryFrom<types::Cluster> for Cluster {
    type Error = DecodeError;

    fn try_from(it: types::Cluster) -> Result<Self, DecodeError> {
        Ok(Self {
            id: id("id", &it.id, ClusterId::from_slice)?,
            meta: meta(it.meta),
            spec: json("spec_json", &it.spec_json)?,
            authority: Authority {
                root_pem: it.root_pem,
                key_pem: Sensitive::new(&it.root_key_pem),
            },
            token_key: Sensitive::new(&it.token_key),
            worker_token: it.worker_token,
            manager_token: it.manager_token,
            pool: AddressPool {
                base: ipv4("pool_base", &it.pool_base)?,
                prefix: prefix("pool_prefix", it.pool_prefix)?,
                subnet_size: prefix("pool_subnet_size", it.pool_subnet_size)?,
            },
            default_network: id("default_network", &it.default_network, NetworkId::from_slice)?,
            data_path_port: narrow("data_path_port", it.data_path_port)?,
            format: Format(it.format),
            autolock: autolock(it.lock_generation, &it.unlock_key)?,
            trust: Trust {
                generation: it.trust,
                rotation: it.root_rotation.map(|it| RootRotation {
                    next: Authority {
                        root_pem: it.root_pem,
                        key_pem: Sensitive::new(&it.root_key_pem),
                    },
                    cross_pem: it.cross_pem,
                }),
            },
        })
    }
}

impl From<&ManagerStatus> for types::Manager {
    fn from(it: &ManagerStatus) -> Self {
        Self {
            raft_id: it.raft_id.0,
            addr: it.addr.to_string(),
            membership: it.membership.number(),
            silent: it.silent,
        }
    }
}

impl TryFrom<types::Manager> for ManagerStatus {
    type Error = DecodeError;

    fn try_from(it: types::Manager) -> Result<Self, DecodeError> {
        Ok(Self {
            raft_id: RaftId(it.raft_id),
            addr: socket("addr", &it.addr)?,
            membership: Membership::numbered("membership", it.membership)?,
            silent: it.silent,
        })
    }
}

impl From<&Node> for types::Node {
    fn from(it: &Node) -> Self {
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            spec_json: json_to(&it.spec),
            description_json: it.description.as_ref().map(json_to).unwrap_or_default(),
            reachability: it.status.reachability.number(),
            since: it.status.since.0,
            message: it.status.message.clone(),
            addr: it.status.addr.map(ip_to).unwrap_or_default(),
            applied: it.status.applied.0,
            manager: it.manager.as_ref().map(types::Manager::from),
            certified: it.certified.number(),
            trust: it.trust,
        }
    }
}

impl TryFrom<types::Node> for Node {
    type Error = DecodeError;

    fn try_from(it: types::Node) -> Result<Self, DecodeError> {
        let described = (!it.description_json.is_empty()).then_some(&it.description_json);
        let addressed = (!it.addr.is_empty()).then_some(&it.addr);
        Ok(Self {
            id: id("id", &it.id, NodeId::from_slice)?,
            meta: meta(it.meta),
            spec: json("spec_json", &it.spec_json)?,
            description: described.map(|text| json("description_json", text)).transpose()?,
            status: NodeStatus {
                reachability: Reachability::numbered("reachability", it.reachability)?,
                since: Timestamp(it.since),
                message: it.message,
                addr: addressed.map(|addr| ip("addr", addr)).transpose()?,
                applied: Revision(it.applied),
            },
            manager: it.manager.map(ManagerStatus::try_from).transpose()?,
            certified: Role::numbered("certified", it.certified)?,
            trust: it.trust,
        })
    }
}
