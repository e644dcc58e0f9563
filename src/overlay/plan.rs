//! Which links, entries and sysctls a node must have, and the steps from what it has to there.
//!
//! Pure: an assignment set becomes a [`Desired`], a dump of the kernel an [`Observed`], and [`plan`]
//! gives the [`LinkOp`]s between them, in an order that can be performed one by one. Nothing is ever
//! flushed: an entry that is right is not touched. Only objects with our names are ours: VXLANs
//! `vx<VNI>`, and permanent neighbours on bridges `ov<VNI>`. The bridges are the engine's; we set their
//! hardware address and MTU but never make or remove them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::domain::network::mac_of;
use crate::domain::service::Protocol;
use crate::domain::{AssignmentSet, Network, NodeId};

/// A hardware address.
pub(super) type Mac = [u8; 6];

pub(super) use crate::domain::cluster::DATA_PATH_PORT as VXLAN_PORT;

/// Sysctls of the node itself: packets pass from one interface to another, and nobody is told of a
/// shorter way (in the full-L3 bridge there is none).
const NODE_SYSCTLS: [(&str, &str); 2] =
    [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/send_redirects", "0")];

/// A network as it must be on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The network's name, for messages.
    pub(super) network: String,
    /// VXLAN network identifier.
    pub(super) vni: u32,
    /// First address and prefix length of the network.
    pub(super) subnet: (Ipv4Addr, u8),
    /// This node's address there.
    pub(super) gateway: Ipv4Addr,
    /// This node's address for tunnels.
    pub(super) local: IpAddr,
    /// Hardware addresses of the other nodes' gateways, and where their tunnels are.
    pub(super) peers: BTreeMap<Mac, IpAddr>,
    /// Remote addresses (gateways and tasks), and the hardware address of their node.
    pub(super) neighbours: BTreeMap<IpAddr, Mac>,
}

/// All that a node must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// Networks by identifier.
    pub(super) segments: BTreeMap<u32, Segment>,
    /// Addresses of all nodes that may send tunnel packets, this one included.
    pub(super) members: BTreeSet<IpAddr>,
    /// Ports of this host that its tasks publish: open to its other tasks, too.
    pub(super) published: BTreeSet<(Protocol, u16)>,
}

/// A network interface as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Its hardware address, if it has one.
    pub(super) mac: Option<Mac>,
    /// Largest packet.
    pub(super) mtu: u32,
    /// Whether it is up.
    pub(super) up: bool,
    /// The number of the bridge it is a port of.
    pub(super) controller: Option<u32>,
    /// What it is.
    pub(super) kind: LinkKind,
    /// Whether learning and all flooding are off; only of bridge ports.
    pub(super) quiet_port: bool,
}

/// What a network interface is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// A bridge.
    Bridge,
    /// A tunnel.
    Vxlan {
        /// Its network identifier.
        vni: u32,
        /// Where it sends from.
        local: Option<IpAddr>,
        /// Its UDP port.
        port: u16,
        /// Whether it learns remote addresses from what arrives.
        learning: bool,
    },
    /// Anything else.
    #[default]
    Other,
}

/// Where an entry of the forwarding database leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The tunnel sends frames to this node.
    Tunnel(IpAddr),
    /// The bridge gives frames to this port.
    Port,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// Interfaces by name.
    pub(super) links: BTreeMap<String, Link>,
    /// Addresses of interfaces, with the interface's MTU.
    pub(super) addresses: BTreeMap<IpAddr, u32>,
    /// Forwarding entries of tunnels (their own permanent addresses excepted): interface, address,
    /// target.
    pub(super) fdb: BTreeSet<(String, Mac, Target)>,
    /// Permanent neighbours of bridges: interface and address.
    pub(super) neighbours: BTreeMap<(String, IpAddr), Mac>,
    /// Sysctls that exist, by path below `/proc/sys`.
    pub(super) sysctls: BTreeMap<String, String>,
}

/// One act on the kernel. Interfaces are named, so that an act does not depend on what came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkOp {
    /// Remove an interface.
    DeleteLink { name: String },
    /// Set the hardware address of an interface.
    SetMac { name: String, mac: Mac },
    /// Set the largest packet of an interface.
    SetMtu { name: String, mtu: u32 },
    /// Make a tunnel, down and without a bridge, so that it learns nothing before it is told not to.
    AddVxlan { name: String, vni: u32, local: IpAddr, mtu: u32 },
    /// Make an interface a port of a bridge.
    Enslave { name: String, bridge: String },
    /// Switch learning and flooding of a bridge port off.
    QuietPort { name: String },
    /// Bring an interface up.
    Up { name: String },
    /// Remove a forwarding entry.
    DeleteFdb { name: String, mac: Mac, target: Target },
    /// Add or replace a forwarding entry.
    AddFdb { name: String, mac: Mac, target: Target },
    /// Remove a neighbour.
    DeleteNeighbour { name: String, addr: IpAddr },
    /// Add or replace a permanent neighbour.
    AddNeighbour { name: String, addr: IpAddr, mac: Mac },
    /// Write a sysctl.
    SetSysctl { path: String, value: String },
}

/// The name of the engine's bridge of a network.
pub(super) fn bridge_name(vni: u32) -> String {
    format!("ov{vni}")
}

/// The name of the tunnel of a network.
pub(super) fn vxlan_name(vni: u32) -> String {
    format!("vx{vni}")
}

/// The network identifier in a name of ours.
fn vni_of(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Largest packet inside of a tunnel whose packets may be `underlay` bytes long.
pub(super) const fn inner_mtu(underlay: u32, local: IpAddr) -> u32 {
    // Ethernet 14, VXLAN 8, UDP 8, and IPv4 20 or IPv6 40.
    underlay.saturating_sub(if local.is_ipv4() { 50 } else { 70 })
}

impl Desired {
    /// What an assignment set means for a node. Networks in which the node has no gateway yet, and
    /// all of them while its own address is unknown, are left out.
    pub(super) fn new(set: &AssignmentSet, me: NodeId) -> Self {
        let Some(own) = set.peer(me) else { return Self::default() };
        let mut desired = Self::default();
        for network in set.networks() {
            if let Some(part) = set.network_node(network.id, me) {
                let segment = segment(set, me, network, (part.gateway, own.addr));
                desired.members.extend(segment.peers.values());
                desired.members.insert(own.addr);
                desired.segments.insert(network.vni, segment);
            }
        }
        desired.published = published(set);
        desired
    }
}

/// The ports that tasks of this node publish on it. One that the engine chooses is not known here.
fn published(set: &AssignmentSet) -> BTreeSet<(Protocol, u16)> {
    set.tasks()
        .filter_map(|task| set.spec(task.service, task.spec))
        .flat_map(|version| version.spec.host_ports())
        .filter(|port| port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
        .collect()
}

fn segment(
    set: &AssignmentSet,
    me: NodeId,
    network: &Network,
    (gateway, local): (Ipv4Addr, IpAddr),
) -> Segment {
    let mut segment = Segment {
        network: network.name.clone(),
        vni: network.vni,
        subnet: (network.subnet.base, network.subnet.prefix),
        gateway,
        local,
        peers: BTreeMap::new(),
        neighbours: BTreeMap::new(),
    };
    let mut macs = BTreeMap::new();
    for part in set.network_nodes().filter(|part| part.network == network.id && part.node != me) {
        if let Some(peer) = set.peer(part.node) {
            let addr = IpAddr::V4(part.gateway);
            let mac = mac_of(addr);
            macs.insert(part.node, mac);
            segment.peers.insert(mac, peer.addr);
            segment.neighbours.insert(addr, mac);
        }
    }
    for endpoints in set.endpoints().filter(|endpoints| endpoints.network == network.id) {
        for endpoint in &endpoints.endpoints {
            if let Some(mac) = macs.get(&endpoint.node) {
                segment.neighbours.insert(endpoint.addr, *mac);
            }
        }
    }
    segment
}

/// Paths of the sysctls that a plan may want to set, so that they can be read before.
pub(super) fn sysctl_paths(desired: &Desired) -> Vec<String> {
    let bridges = desired.segments.keys().flat_map(|vni| bridge_sysctls(&bridge_name(*vni)));
    node_sysctls(desired).chain(bridges).map(|(path, _)| path).collect()
}

fn node_sysctls(desired: &Desired) -> impl Iterator<Item = (String, &'static str)> {
    let wanted = !desired.segments.is_empty();
    NODE_SYSCTLS.into_iter().filter(move |_| wanted).map(|(path, value)| (path.to_owned(), value))
}

/// The host answers every ARP request on the bridge at once and without redirects, so that each
/// packet of a task passes its IP layer.
fn bridge_sysctls(bridge: &str) -> [(String, &'static str); 4] {
    [
        (format!("net/ipv4/conf/{bridge}/proxy_arp_pvlan"), "1"),
        (format!("net/ipv4/conf/{bridge}/send_redirects"), "0"),
        (format!("net/ipv4/neigh/{bridge}/proxy_delay"), "0"),
        (format!("net/ipv6/conf/{bridge}/disable_ipv6"), "1"),
    ]
}

/// The steps from what is there to what must be there; none if all is well.
pub(super) fn plan(desired: &Desired, observed: &Observed) -> Vec<LinkOp> {
    let mut ops = Vec::new();
    let mut present: BTreeMap<&str, &Segment> = BTreeMap::new();
    let names: BTreeMap<u32, String> =
        desired.segments.keys().map(|vni| (*vni, bridge_name(*vni))).collect();
    for (vni, name) in &names {
        if observed.links.get(name).is_some_and(|link| link.kind == LinkKind::Bridge) {
            present.insert(name, &desired.segments[vni]);
        }
    }
    plan_sysctls(desired, &present, observed, &mut ops);
    plan_removed_links(&present, observed, &mut ops);
    for segment in present.values() {
        plan_links(segment, observed, &mut ops);
    }
    plan_fdb(&present, observed, &mut ops);
    plan_neighbours(&present, observed, &mut ops);
    ops
}

fn plan_sysctls(
    desired: &Desired,
    present: &BTreeMap<&str, &Segment>,
    observed: &Observed,
    ops: &mut Vec<LinkOp>,
) {
    let bridges = present.keys().flat_map(|bridge| bridge_sysctls(bridge));
    for (path, value) in node_sysctls(desired).chain(bridges) {
        // A path that does not exist is a feature the kernel lacks: nothing to switch.
        if observed.sysctls.get(&path).is_some_and(|now| now != value) {
            ops.push(LinkOp::SetSysctl { path, value: value.to_owned() });
        }
    }
}

/// Whether a tunnel is the one a segment needs, apart from what can be changed in place.
fn is_tunnel_of(link: &Link, segment: &Segment) -> bool {
    link.kind
        == LinkKind::Vxlan {
            vni: segment.vni,
            local: Some(segment.local),
            port: VXLAN_PORT,
            learning: false,
        }
}

fn plan_removed_links(
    present: &BTreeMap<&str, &Segment>,
    observed: &Observed,
    ops: &mut Vec<LinkOp>,
) {
    for (name, link) in &observed.links {
        let Some(vni) = vni_of(name, "vx") else { continue };
        let ours = matches!(link.kind, LinkKind::Vxlan { vni: id, .. } if id == vni);
        let wanted = present.get(bridge_name(vni).as_str());
        if ours && !wanted.is_some_and(|segment| is_tunnel_of(link, segment)) {
            ops.push(LinkOp::DeleteLink { name: name.clone() });
        }
    }
}

fn plan_links(segment: &Segment, observed: &Observed, ops: &mut Vec<LinkOp>) {
    let (bridge, name) = (bridge_name(segment.vni), vxlan_name(segment.vni));
    let Some(bridge_link) = observed.links.get(&bridge) else { return };
    let underlay = observed.addresses.get(&segment.local).copied().unwrap_or(1500);
    let mtu = inner_mtu(underlay, segment.local);
    let mac = mac_of(IpAddr::V4(segment.gateway));
    if bridge_link.mac != Some(mac) {
        ops.push(LinkOp::SetMac { name: bridge.clone(), mac });
    }
    if bridge_link.mtu != mtu {
        ops.push(LinkOp::SetMtu { name: bridge.clone(), mtu });
    }
    if !bridge_link.up {
        ops.push(LinkOp::Up { name: bridge.clone() });
    }
    let link = observed.links.get(&name).filter(|link| is_tunnel_of(link, segment));
    if link.is_none() {
        ops.push(LinkOp::AddVxlan {
            name: name.clone(),
            vni: segment.vni,
            local: segment.local,
            mtu,
        });
    }
    if link.is_some_and(|link| link.mtu != mtu) {
        ops.push(LinkOp::SetMtu { name: name.clone(), mtu });
    }
    let enslaved = link.is_some_and(|link| link.controller == Some(bridge_link.index));
    if !enslaved {
        ops.push(LinkOp::Enslave { name: name.clone(), bridge });
    }
    if !enslaved || !link.is_some_and(|link| link.quiet_port) {
        ops.push(LinkOp::QuietPort { name: name.clone() });
    }
    if !link.is_some_and(|link| link.up) {
        ops.push(LinkOp::Up { name });
    }
}

fn plan_fdb(present: &BTreeMap<&str, &Segment>, observed: &Observed, ops: &mut Vec<LinkOp>) {
    let mut wanted = BTreeSet::new();
    for segment in present.values() {
        let name = vxlan_name(segment.vni);
        for (mac, addr) in &segment.peers {
            wanted.insert((name.clone(), *mac, Target::Tunnel(*addr)));
            wanted.insert((name.clone(), *mac, Target::Port));
        }
    }
    // Entries of a tunnel that is about to be removed or made anew go with it.
    let stays: BTreeSet<&str> = observed
        .links
        .iter()
        .filter(|(name, link)| {
            vni_of(name, "vx")
                .and_then(|vni| present.get(bridge_name(vni).as_str()))
                .is_some_and(|segment| is_tunnel_of(link, segment))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    let known = |entry: &&(String, Mac, Target)| stays.contains(entry.0.as_str());
    for (name, mac, target) in observed.fdb.iter().filter(known) {
        if !wanted.contains(&(name.clone(), *mac, *target)) {
            ops.push(LinkOp::DeleteFdb { name: name.clone(), mac: *mac, target: *target });
        }
    }
    for entry in wanted {
        if !(known(&&entry) && observed.fdb.contains(&entry)) {
            let (name, mac, target) = entry;
            ops.push(LinkOp::AddFdb { name, mac, target });
        }
    }
}

fn plan_neighbours(present: &BTreeMap<&str, &Segment>, observed: &Observed, ops: &mut Vec<LinkOp>) {
    for (name, addr) in observed.neighbours.keys() {
        let segment = present.get(name.as_str());
        let wanted = segment.is_some_and(|segment| segment.neighbours.contains_key(addr));
        if vni_of(name, "ov").is_some() && !wanted {
            ops.push(LinkOp::DeleteNeighbour { name: name.clone(), addr: *addr });
        }
    }
    for (name, segment) in present {
        for (addr, mac) in &segment.neighbours {
            if observed.neighbours.get(&((*name).to_owned(), *addr)) != Some(mac) {
                let name = (*name).to_owned();
                ops.push(LinkOp::AddNeighbour { name, addr: *addr, mac: *mac });
            }
        }
    }
}

#[cfg(test)]
mod tests;
