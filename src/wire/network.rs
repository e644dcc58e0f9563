//! Networks, nodes' parts in them, endpoint sets and peers ⇄ messages.

use super::parts::{Numbered, id, id_to, ip, ip_to, ipv4, meta, numbered, prefix};
use super::task::{ports, slot, slot_to};
use super::{DecodeError, types};
use crate::domain::assignment::Peer;
use crate::domain::endpoint::{Endpoint, EndpointSet};
use crate::domain::network::Subnet;
use crate::domain::service::EndpointMode;
use crate::domain::{Network, NetworkId, NetworkNode, NodeId, ServiceId, TaskId};

numbered!(EndpointMode { Vip = 0, Dnsrr = 1 });

impl From<&Network> for types::Network {
    fn from(it: &Network) -> Self {
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            name: it.name.clone(),
            labels: it.labels.clone(),
            vni: it.vni,
            subnet_base: ip_to(it.subnet.base.into()),
            subnet_prefix: u32::from(it.subnet.prefix),
            cursor: it.cursor,
        }
    }
}

impl TryFrom<types::Network> for Network {
    type Error = DecodeError;

    fn try_from(it: types::Network) -> Result<Self, DecodeError> {
        Ok(Self {
            id: id("id", &it.id, NetworkId::from_slice)?,
            meta: meta(it.meta),
            name: it.name,
            labels: it.labels,
            vni: it.vni,
            subnet: Subnet {
                base: ipv4("subnet_base", &it.subnet_base)?,
                prefix: prefix("subnet_prefix", it.subnet_prefix)?,
            },
            cursor: it.cursor,
        })
    }
}

impl From<&NetworkNode> for types::NetworkNode {
    fn from(it: &NetworkNode) -> Self {
        Self {
            network: id_to(it.network.to_bytes()),
            node: id_to(it.node.to_bytes()),
            meta: Some(it.meta.into()),
            gateway: ip_to(it.gateway.into()),
        }
    }
}

impl TryFrom<types::NetworkNode> for NetworkNode {
    type Error = DecodeError;

    fn try_from(it: types::NetworkNode) -> Result<Self, DecodeError> {
        Ok(Self {
            network: id("network", &it.network, NetworkId::from_slice)?,
            node: id("node", &it.node, NodeId::from_slice)?,
            meta: meta(it.meta),
            gateway: ipv4("gateway", &it.gateway)?,
        })
    }
}

impl From<&Endpoint> for types::Endpoint {
    fn from(it: &Endpoint) -> Self {
        let (slot, slot_node) = slot_to(it.slot);
        Self {
            task: id_to(it.task.to_bytes()),
            slot,
            slot_node,
            node: id_to(it.node.to_bytes()),
            addr: ip_to(it.addr),
            serving: it.serving,
        }
    }
}

impl TryFrom<types::Endpoint> for Endpoint {
    type Error = DecodeError;

    fn try_from(it: types::Endpoint) -> Result<Self, DecodeError> {
        Ok(Self {
            task: id("task", &it.task, TaskId::from_slice)?,
            slot: slot(it.slot, &it.slot_node)?,
            node: id("node", &it.node, NodeId::from_slice)?,
            addr: ip("addr", &it.addr)?,
            serving: it.serving,
        })
    }
}

impl From<&EndpointSet> for types::EndpointSet {
    fn from(it: &EndpointSet) -> Self {
        Self {
            network: id_to(it.network.to_bytes()),
            service: id_to(it.service.to_bytes()),
            name: it.name.clone(),
            aliases: it.aliases.clone(),
            mode: it.mode.number(),
            ports: it.ports.iter().map(types::Port::from).collect(),
            endpoints: it.endpoints.iter().map(types::Endpoint::from).collect(),
        }
    }
}

impl TryFrom<types::EndpointSet> for EndpointSet {
    type Error = DecodeError;

    fn try_from(it: types::EndpointSet) -> Result<Self, DecodeError> {
        let endpoints = it.endpoints.into_iter().map(Endpoint::try_from);
        Ok(Self {
            network: id("network", &it.network, NetworkId::from_slice)?,
            service: id("service", &it.service, ServiceId::from_slice)?,
            name: it.name,
            aliases: it.aliases,
            mode: EndpointMode::numbered("mode", it.mode)?,
            ports: ports(it.ports)?,
            endpoints: endpoints.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Peer> for types::Peer {
    fn from(it: &Peer) -> Self {
        Self {
            node: id_to(it.node.to_bytes()),
            hostname: it.hostname.clone(),
            addr: ip_to(it.addr),
        }
    }
}

impl TryFrom<types::Peer> for Peer {
    type Error = DecodeError;

    fn try_from(it: types::Peer) -> Result<Self, DecodeError> {
        Ok(Self {
            node: id("node", &it.node, NodeId::from_slice)?,
            hostname: it.hostname,
            addr: ip("addr", &it.addr)?,
        })
    }
}
