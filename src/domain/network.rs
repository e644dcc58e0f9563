//! Cluster networks and each node's part in them.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::container::null_default;
use super::{Extra, Labels, Meta, NetworkId, NodeId};

/// An IPv4 subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subnet {
    /// First address.
    pub base: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
}

impl Subnet {
    /// Number of addresses, the first (network) and last (broadcast) included.
    #[must_use]
    pub const fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The address with an offset from the base; `None` outside of the subnet.
    #[must_use]
    pub fn nth(self, offset: u64) -> Option<Ipv4Addr> {
        if offset >= self.size() {
            return None;
        }
        u32::from(self.base).checked_add(u32::try_from(offset).ok()?).map(Ipv4Addr::from)
    }

    /// The offset of an address from the base; `None` outside of the subnet.
    #[must_use]
    pub fn offset(self, addr: Ipv4Addr) -> Option<u64> {
        let offset = u64::from(u32::from(addr).checked_sub(u32::from(self.base))?);
        (offset < self.size()).then_some(offset)
    }

    /// Whether two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.offset(other.base).is_some() || other.offset(self.base).is_some()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// A network that spans the nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Identity.
    pub id: NetworkId,
    /// Times and revisions.
    pub meta: Meta,
    /// Unique name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Its addresses.
    pub subnet: Subnet,
    /// Where the search for a free address goes on (next-fit), an offset in the subnet.
    pub cursor: u64,
}

/// A node's part in a network: the address of its bridge there, which is the gateway and the name
/// server of its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkNode {
    /// The network.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
    /// Times and revisions.
    pub meta: Meta,
    /// Distinct per node.
    pub gateway: Ipv4Addr,
}

/// A network that a service asks for.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachmentSpec {
    /// Name or id; `host` and `none` are the engine's own.
    pub target: String,
    /// Further names of the tasks in this network.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub aliases: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_default")]
    pub driver_opts: Labels,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The hardware address that a bridge or task has by its IPv4 address: `02:42` and the four bytes.
#[must_use]
pub fn mac_of(addr: IpAddr) -> [u8; 6] {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            [0x02, 0x42, a, b, c, d]
        }
        IpAddr::V6(addr) => {
            let bytes = addr.octets();
            [0x02, 0x42, bytes[12], bytes[13], bytes[14], bytes[15]]
        }
    }
}
