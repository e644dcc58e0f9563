//! Plans for what a host lacks, has, and has too much of.

use super::*;
use crate::domain::Meta;
use crate::domain::assignment::{Item, Peer};
use crate::domain::endpoint::{Endpoint, EndpointSet};
use crate::domain::network::Subnet;
use crate::domain::service::EndpointMode;
use crate::domain::task::Slot;
use crate::domain::{NetworkId, NetworkNode, ServiceId, TaskId};
use std::sync::Arc;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn v4(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A network of two nodes with a task on each; the first is "me".
fn set() -> AssignmentSet {
    let network = NetworkId::from_bytes([9; 16]);
    let mut set = AssignmentSet::default();
    set.insert(Item::Network(Arc::new(Network {
        id: network,
        meta: Meta::default(),
        name: "net1".to_owned(),
        labels: crate::domain::Labels::default(),
        vni: 4097,
        subnet: Subnet { base: [10, 200, 0, 0].into(), prefix: 16 },
        cursor: 0,
    })));
    let mut endpoints = Vec::new();
    for number in [1, 2] {
        let gateway = [10, 200, 255, number].into();
        let (node, meta) = (node(number), Meta::default());
        set.insert(Item::NetworkNode(Arc::new(NetworkNode { network, node, meta, gateway })));
        let addr = IpAddr::V4([10, 99, 0, number].into());
        set.insert(Item::Peer(Arc::new(Peer { node, hostname: String::new(), addr })));
        endpoints.push(Endpoint {
            task: TaskId::from_bytes([number; 16]),
            slot: Slot::Number(u32::from(number)),
            node,
            addr: IpAddr::V4([10, 200, 0, number + 10].into()),
            serving: number == 1,
        });
    }
    set.insert(Item::Endpoints(Arc::new(EndpointSet {
        network,
        service: ServiceId::from_bytes([3; 16]),
        name: "web".to_owned(),
        aliases: Vec::new(),
        mode: EndpointMode::Vip,
        ports: Vec::new(),
        endpoints,
    })));
    set
}

fn bridge(index: u32) -> Link {
    Link { index, mac: Some([1; 6]), mtu: 1500, kind: LinkKind::Bridge, ..Link::default() }
}

/// What the kernel has after the acts.
fn perform(mut observed: Observed, ops: Vec<LinkOp>) -> Observed {
    for op in ops {
        match op {
            LinkOp::DeleteLink { name } => {
                observed.links.remove(&name);
                observed.fdb.retain(|(dev, _, _)| *dev != name);
            }
            LinkOp::SetMac { name, mac } => {
                observed.links.get_mut(&name).unwrap().mac = Some(mac);
            }
            LinkOp::SetMtu { name, mtu } => observed.links.get_mut(&name).unwrap().mtu = mtu,
            LinkOp::AddVxlan { name, vni, local, mtu } => {
                let (local, port, learning) = (Some(local), VXLAN_PORT, false);
                let kind = LinkKind::Vxlan { vni, local, port, learning };
                let index = 100 + vni;
                let known =
                    observed.links.insert(name, Link { index, mtu, kind, ..Link::default() });
                assert_eq!(known, None);
            }
            LinkOp::Enslave { name, bridge } => {
                let index = observed.links[&bridge].index;
                let link = observed.links.get_mut(&name).unwrap();
                (link.controller, link.quiet_port) = (Some(index), false);
            }
            LinkOp::QuietPort { name } => observed.links.get_mut(&name).unwrap().quiet_port = true,
            LinkOp::Up { name } => observed.links.get_mut(&name).unwrap().up = true,
            LinkOp::DeleteFdb { name, mac, target } => {
                assert!(observed.fdb.remove(&(name, mac, target)));
            }
            LinkOp::AddFdb { name, mac, target } => {
                assert!(
                    observed.links.contains_key(&name) && observed.fdb.insert((name, mac, target))
                );
            }
            LinkOp::DeleteNeighbour { name, addr } => {
                assert!(observed.neighbours.remove(&(name, addr)).is_some());
            }
            LinkOp::AddNeighbour { name, addr, mac } => {
                observed.neighbours.insert((name, addr), mac);
            }
            LinkOp::SetSysctl { path, value } => {
                observed.sysctls.insert(path, value);
            }
        }
    }
    observed
}

/// The kernel of a node on which the engine has made the bridge.
fn fresh() -> Observed {
    let mut observed = Observed::default();
    observed.links.insert("ov4097".to_owned(), bridge(7));
    observed.links.insert("docker0".to_owned(), bridge(3));
    observed.links.insert("vxlan0".to_owned(), Link::default());
    observed.addresses.insert(v4("10.99.0.1"), 1400);
    for path in sysctl_paths(&Desired::new(&set(), node(1))) {
        observed.sysctls.insert(path, "7".to_owned());
    }
    observed
}

#[test]
fn from_nothing_to_all_and_then_nothing_to_do() {
    let desired = Desired::new(&set(), node(1));
    let ops = plan(&desired, &fresh());
    let after = perform(fresh(), ops);
    let (mac, vx) = ([0x02, 0x42, 10, 200, 255, 2], "vx4097".to_owned());
    assert_eq!(after.links["ov4097"].mac, Some([0x02, 0x42, 10, 200, 255, 1]));
    assert_eq!((after.links["ov4097"].mtu, after.links["vx4097"].mtu), (1350, 1350));
    assert!(after.links["vx4097"].quiet_port && after.links["vx4097"].up);
    let fdb = [(vx.clone(), mac, Target::Tunnel(v4("10.99.0.2"))), (vx, mac, Target::Port)];
    assert_eq!(after.fdb, fdb.into());
    // The other node's gateway and task; that the task does not serve makes no difference.
    let remote: Vec<_> = after.neighbours.keys().map(|(_, addr)| *addr).collect();
    assert_eq!(remote, [v4("10.200.0.12"), v4("10.200.255.2")]);
    assert_eq!(after.sysctls["net/ipv4/conf/ov4097/proxy_arp_pvlan"], "1");
    assert_eq!(plan(&desired, &after), []);
}

#[test]
fn a_tunnel_learns_nothing_before_it_is_told_not_to() {
    let ops = plan(&Desired::new(&set(), node(1)), &fresh());
    let at = |wanted: fn(&LinkOp) -> bool| ops.iter().position(wanted).unwrap();
    let add = at(|op| matches!(op, LinkOp::AddVxlan { .. }));
    let enslave = at(|op| matches!(op, LinkOp::Enslave { .. }));
    let quiet = at(|op| matches!(op, LinkOp::QuietPort { .. }));
    let up = at(|op| matches!(op, LinkOp::Up { name } if name == "vx4097"));
    assert!(add < enslave && enslave < quiet && quiet < up, "{ops:?}");
}

#[test]
fn what_drifted_is_repaired_and_nothing_else_touched() {
    let desired = Desired::new(&set(), node(1));
    let good = perform(fresh(), plan(&desired, &fresh()));
    let mut bad = good.clone();
    let key = ("ov4097".to_owned(), v4("10.200.0.12"));
    bad.neighbours.insert(key, [9; 6]);
    bad.neighbours.insert(("ov4097".to_owned(), v4("10.200.0.99")), [9; 6]);
    bad.fdb.insert(("vx4097".to_owned(), [9; 6], Target::Port));
    bad.links.get_mut("ov4097").unwrap().mac = Some([3; 6]);
    bad.sysctls.insert("net/ipv4/ip_forward".to_owned(), "0".to_owned());
    let ops = plan(&desired, &bad);
    assert_eq!(ops.len(), 5, "{ops:?}");
    assert_eq!(perform(bad, ops), good);
}

#[test]
fn a_bridge_made_anew_gets_all_again() {
    let desired = Desired::new(&set(), node(1));
    let good = perform(fresh(), plan(&desired, &fresh()));
    // The engine removed the bridge: the tunnel is nobody's port, neighbours went with the bridge.
    let mut bare = good.clone();
    bare.links.insert("ov4097".to_owned(), bridge(8));
    bare.neighbours.clear();
    let after = perform(bare.clone(), plan(&desired, &bare));
    assert_eq!((&after.neighbours, &after.fdb), (&good.neighbours, &good.fdb));
    assert_eq!(after.links["vx4097"].controller, Some(8));
    assert_eq!(plan(&desired, &after), []);
}

#[test]
fn a_node_that_moved_gets_another_tunnel() {
    let first = Desired::new(&set(), node(1));
    let good = perform(fresh(), plan(&first, &fresh()));
    let mut moved = set();
    let (hostname, addr) = (String::new(), v4("10.99.0.77"));
    moved.insert(Item::Peer(Arc::new(Peer { node: node(1), hostname, addr })));
    let desired = Desired::new(&moved, node(1));
    let ops = plan(&desired, &good);
    assert_eq!(ops[0], LinkOp::DeleteLink { name: "vx4097".to_owned() });
    let after = perform(good, ops);
    assert_eq!(plan(&desired, &after), []);
    assert_eq!(after.fdb.len(), 2);
}

#[test]
fn without_networks_all_that_is_ours_goes_and_nothing_else() {
    let good = perform(fresh(), plan(&Desired::new(&set(), node(1)), &fresh()));
    let mut other = good;
    other.neighbours.insert(("docker0".to_owned(), v4("172.17.0.2")), [5; 6]);
    let after = perform(other.clone(), plan(&Desired::default(), &other));
    assert_eq!(after.links.keys().collect::<Vec<_>>(), ["docker0", "ov4097", "vxlan0"]);
    assert_eq!(after.neighbours.len(), 1);
    assert!(after.fdb.is_empty());
}

#[test]
fn a_set_without_this_node_asks_for_nothing() {
    assert_eq!(Desired::new(&set(), node(3)), Desired::default());
    let mut gone = fresh();
    gone.links.remove("ov4097");
    let ops = plan(&Desired::new(&set(), node(1)), &gone);
    assert!(ops.iter().all(|op| matches!(op, LinkOp::SetSysctl { .. })), "{ops:?}");
}

#[test]
fn tasks_of_unknown_nodes_are_left_out() {
    let mut set = set();
    set.items.remove(&crate::domain::assignment::ItemKey::Peer(node(2)));
    let desired = Desired::new(&set, node(1));
    assert!(desired.segments[&4097].neighbours.is_empty());
    assert_eq!(desired.members, [v4("10.99.0.1")].into());
}

#[test]
fn the_inner_packet_is_smaller_by_the_tunnels_headers() {
    assert_eq!(inner_mtu(1500, v4("10.0.0.1")), 1450);
    assert_eq!(inner_mtu(1500, "fd00::1".parse().unwrap()), 1430);
}
