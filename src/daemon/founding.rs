//! The first commands of a cluster: the cluster, its default network, the first manager. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::domain::cluster::{AddressPool, Authority, Cluster, ClusterSpec, DATA_PATH_PORT};
use crate::domain::network::Subnet;
use crate::domain::node::{Availability, Role};
use crate::domain::secret::Sensitive;
use crate::domain::{Autolock, ClusterId, Format, Labels, Meta, Network, NetworkId, Node, NodeId};
use crate::state::{Change, Expect, Object};

/// The name of the network that every task joins that names none.
pub const DEFAULT_NETWORK: &str = "swarm";
/// The VXLAN network identifier of the first network (Docker's, too).
const FIRST_VNI: u32 = 4097;
/// Docker's pool.
const DEFAULT_POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);
/// Docker's size of a network's subnet.
const DEFAULT_SUBNET_SIZE: u8 = 24;
/// Size of the default network: every task of the cluster may be in it.
const DEFAULT_NETWORK_SIZE: u8 = 16;

/// What a cluster begins with.
#[derive(Debug)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The first manager.
    pub node: NodeId,
    /// Where the other nodes reach it.
    pub addr: SocketAddr,
    /// Who signs.
    pub authority: Authority,
    /// What opens the data of managers that restart.
    pub autolock: Autolock,
    /// Key of the join tokens.
    pub token_key: [u8; 32],
    /// Id of the default network.
    pub network: NetworkId,
    /// The user's wish for the cluster.
    pub spec: ClusterSpec,
    /// Whether the first manager takes tasks.
    pub availability: Availability,
    /// Addresses of the host, which no network may cover.
    pub host: Vec<IpAddr>,
}

/// Addresses that cannot be used for networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PoolError(String);

/// The pool from what the user wrote, Docker's where that is nothing.
///
/// # Errors
/// When it is no network, or cannot hold subnets of that size.
pub fn pool(pools: &[String], subnet_size: u8) -> Result<AddressPool, PoolError> {
    let (base, prefix) = match pools {
        [] => DEFAULT_POOL,
        [text] => parse_cidr(text)?,
        _ => {
            return Err(PoolError(
                "invalid default address pool: one pool is supported; give the one that holds the others"
                    .to_owned(),
            ));
        }
    };
    let subnet_size = if subnet_size == 0 { DEFAULT_SUBNET_SIZE.max(prefix) } else { subnet_size };
    if subnet_size < prefix || subnet_size > 29 {
        return Err(PoolError(format!(
            "invalid subnet size {subnet_size}: it must lie between {prefix} (the pool's own) and 29"
        )));
    }
    Ok(AddressPool { base, prefix, subnet_size })
}

fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8), PoolError> {
    let invalid = |why: &str| PoolError(format!("invalid default address pool {text:?}: {why}"));
    let network: ipnet::Ipv4Net =
        text.parse().map_err(|_| invalid("an IPv4 network is expected, such as 10.20.0.0/14"))?;
    if network.network() != network.addr() {
        return Err(invalid(&format!("did you mean {}?", network.trunc())));
    }
    if network.prefix_len() > 24 {
        return Err(invalid("it must have at least 256 addresses (/24)"));
    }
    Ok((network.addr(), network.prefix_len()))
}

/// The first subnet of the pool that covers no address of the host.
fn default_subnet(pool: AddressPool, host: &[IpAddr]) -> Result<Subnet, PoolError> {
    let prefix = DEFAULT_NETWORK_SIZE.max(pool.prefix);
    let step = 1u32 << (32 - prefix);
    let count = 1u32 << (prefix - pool.prefix);
    let covers = |subnet: &Subnet| {
        host.iter().any(|addr| match addr {
            IpAddr::V4(addr) => subnet.offset(*addr).is_some(),
            IpAddr::V6(_) => false,
        })
    };
    (0..count)
        .map(|n| Subnet { base: Ipv4Addr::from(u32::from(pool.base) + n * step), prefix })
        .find(|subnet| !covers(subnet))
        .ok_or_else(|| {
            PoolError(format!(
                "every subnet of the pool {}/{} covers an address of this host; give another pool with --default-addr-pool",
                pool.base, pool.prefix
            ))
        })
}

/// The changes that found a cluster, in order.
///
/// # Errors
/// When no subnet of the pool can be used.
pub fn changes(founding: Founding, pool: AddressPool) -> Result<Vec<Change>, PoolError> {
    let subnet = default_subnet(pool, &founding.host)?;
    let cluster = Cluster {
        id: founding.cluster,
        meta: Meta::default(),
        spec: founding.spec,
        authority: founding.authority,
        token_key: Sensitive::new(&founding.token_key),
        worker_token: 1,
        manager_token: 1,
        pool,
        default_network: founding.network,
        data_path_port: DATA_PATH_PORT,
        format: Format::NEWEST,
        autolock: founding.autolock,
        trust: crate::domain::cluster::Trust::default(),
    };
    let network = Network {
        id: founding.network,
        meta: Meta::default(),
        name: DEFAULT_NETWORK.to_owned(),
        labels: Labels::new(),
        vni: FIRST_VNI,
        subnet,
        cursor: 0,
    };
    let mut node = Node::new(founding.node, Role::Manager);
    node.spec.availability = founding.availability;
    node.status.addr = Some(founding.addr.ip());
    let put = |object| Change::Put { object, expect: Expect::Absent };
    Ok(vec![
        put(Object::Cluster(Arc::new(cluster))),
        put(Object::Network(Arc::new(network))),
        put(Object::Node(Arc::new(node))),
        Change::JoinManager { node: founding.node, addr: founding.addr },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_checked() {
        let default = pool(&[], 0).unwrap();
        assert_eq!((default.prefix, default.subnet_size), (8, 24));
        for wrong in ["10.0.0.1/8", "10.0.0.0/30", "fd00::/8", "pool"] {
            assert!(pool(&[wrong.to_owned()], 0).is_err(), "{wrong}");
        }
        assert!(pool(&["10.0.0.0/16".to_owned()], 8).is_err());
    }

    #[test]
    fn the_default_network_keeps_clear_of_the_host() {
        let pool = pool(&["10.0.0.0/8".to_owned()], 0).unwrap();
        let host = ["10.0.3.4".parse().unwrap(), "10.1.0.9".parse().unwrap()];
        assert_eq!(default_subnet(pool, &host).unwrap().to_string(), "10.2.0.0/16");
        let small = super::pool(&["10.0.0.0/16".to_owned()], 0).unwrap();
        assert!(default_subnet(small, &host[..1]).is_err());
    }
}
