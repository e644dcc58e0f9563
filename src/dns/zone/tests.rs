//! Names that a set of assignments makes, and who sees them.

use super::*;
use std::sync::Arc;

use crate::domain::assignment::{Item, Peer};
use crate::domain::service::{EndpointMode, PortConfig, PublishMode, VersionNumber};
use crate::domain::task::TaskAddress;
use crate::domain::{
    Labels, Meta, Network, NetworkNode, ServiceId, Task, TaskState, TaskStatus, Timestamp,
};

pub(in crate::dns) const ME: NodeId = NodeId::from_bytes([1; 16]);

pub(in crate::dns) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(in crate::dns) fn task(number: u8) -> TaskId {
    TaskId::from_bytes([number; 16])
}

fn network(set: &mut AssignmentSet, number: u8, name: &str) -> NetworkId {
    let id = NetworkId::from_bytes([number; 16]);
    let (meta, labels) = (Meta::default(), Labels::default());
    let subnet = Subnet { base: [10, number, 0, 0].into(), prefix: 16 };
    let (name, vni, cursor) = (name.to_owned(), 4096 + u32::from(number), 0);
    set.insert(Item::Network(Arc::new(Network { id, meta, name, labels, vni, subnet, cursor })));
    let (node, gateway) = (ME, [10, number, 255, 1].into());
    set.insert(Item::NetworkNode(Arc::new(NetworkNode {
        network: id,
        node,
        meta: Meta::default(),
        gateway,
    })));
    id
}

fn local_task(set: &mut AssignmentSet, number: u8, addresses: &[(NetworkId, &str)]) {
    let addresses = addresses
        .iter()
        .map(|(network, addr)| TaskAddress { network: *network, addr: ip(addr) })
        .collect();
    set.insert(Item::Task(Arc::new(Task {
        id: task(number),
        meta: Meta::default(),
        service: ServiceId::from_bytes([7; 16]),
        spec: VersionNumber::from(1u8),
        slot: Slot::Number(1),
        node: Some(ME),
        addresses,
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus::default(),
    })));
}

/// Two networks: in `Net1` the service Web (three tasks, the third does not serve) and the service
/// `idle` (none serves), in `net2` the global service `db`. Tasks of this node: 20 in net1, 21 in net2,
/// 22 in both.
pub(in crate::dns) fn set() -> AssignmentSet {
    let mut set = AssignmentSet::default();
    let (one, two) = (network(&mut set, 1, "Net1"), network(&mut set, 2, "net2"));
    let peer = Peer { node: ME, hostname: "host".to_owned(), addr: ip("192.0.2.1") };
    set.insert(Item::Peer(Arc::new(peer)));
    let endpoint = |number: u8, slot, addr: &str, serving| {
        let (task, node, addr) = (task(number), ME, ip(addr));
        Endpoint { task, slot, node, addr, serving }
    };
    let port = |name: &str, target_port| PortConfig {
        name: name.to_owned(),
        target_port,
        publish_mode: PublishMode::Host,
        ..PortConfig::default()
    };
    let mut service = |network, number: u8, name: &str, endpoints: Vec<Endpoint>| {
        let (aliases, ports) = match name {
            "Web" => (vec!["WWW".to_owned()], vec![port("http", 8080), port("", 9000)]),
            _ => (Vec::new(), Vec::new()),
        };
        let (service, name) = (ServiceId::from_bytes([number; 16]), name.to_owned());
        let mode = EndpointMode::Vip;
        let set_of = EndpointSet { network, service, name, aliases, mode, ports, endpoints };
        set.insert(Item::Endpoints(Arc::new(set_of)));
    };
    let web = vec![
        endpoint(11, Slot::Number(1), "10.1.0.11", true),
        endpoint(12, Slot::Number(2), "10.1.0.12", true),
        endpoint(13, Slot::Number(3), "10.1.0.13", false),
    ];
    service(one, 1, "Web", web);
    service(one, 2, "idle", vec![endpoint(14, Slot::Number(1), "10.1.0.14", false)]);
    service(two, 3, "db", vec![endpoint(15, Slot::Node(ME), "10.2.0.15", true)]);
    local_task(&mut set, 20, &[(one, "10.1.0.20")]);
    local_task(&mut set, 21, &[(two, "10.2.0.21")]);
    local_task(&mut set, 22, &[(one, "10.1.0.22"), (two, "10.2.0.22")]);
    set
}

fn zone() -> Zone {
    Zone::new(&set(), ME, &BTreeMap::new())
}

/// What a client is told about a name: addresses, or why none.
fn ask(zone: &Zone, client: &str, name: &str) -> String {
    let Some(sight) = zone.sight(ip(client)) else { return "refused".to_owned() };
    match sight.entry(name) {
        None => "not ours".to_owned(),
        Some(entry) => {
            let texts: Vec<String> = entry.addresses.iter().map(IpAddr::to_string).collect();
            texts.join(" ")
        }
    }
}

#[test]
fn names_of_services_slots_and_tasks() {
    let zone = zone();
    let both = "10.1.0.11 10.1.0.12";
    for name in ["web", "tasks.web", "www", "web.net1", "tasks.web.net1", "www.net1"] {
        assert_eq!(ask(&zone, "127.0.0.1", name), both, "{name}");
    }
    let (first, third) = (format!("web.1.{}", task(11)), format!("web.3.{}", task(13)));
    assert_eq!(ask(&zone, "127.0.0.1", "web.1"), "10.1.0.11");
    assert_eq!(ask(&zone, "127.0.0.1", &first), "10.1.0.11");
    assert_eq!(ask(&zone, "127.0.0.1", &format!("{first}.net1")), "10.1.0.11");
    assert_eq!(ask(&zone, "127.0.0.1", &format!("db.{ME}")), "10.2.0.15");
    // They exist, but do not serve.
    for name in ["idle", "tasks.idle", "web.3", third.as_str()] {
        assert_eq!(ask(&zone, "127.0.0.1", name), "", "{name}");
    }
    for name in ["", "webx", "web.net2", "net1", "web.4", "example.com", "tasks.www"] {
        assert_eq!(ask(&zone, "127.0.0.1", name), "not ours", "{name}");
    }
}

#[test]
fn a_client_sees_its_networks_only() {
    let zone = zone();
    let sees = |client: &str| {
        (ask(&zone, client, "web") != "not ours", ask(&zone, client, "db") != "not ours")
    };
    assert_eq!(sees("10.1.0.20"), (true, false));
    assert_eq!(sees("10.2.0.21"), (false, true));
    assert_eq!(sees("10.1.0.22"), (true, true), "a task in both, by its address in one");
    assert_eq!(sees("10.1.0.99"), (true, false), "an unknown task of net1");
    for host in ["127.0.0.1", "10.1.255.1", "10.2.255.1", "192.0.2.1"] {
        assert_eq!(sees(host), (true, true), "{host}");
    }
    for stranger in ["192.0.2.2", "172.17.0.2", "fd00::1"] {
        assert_eq!(ask(&zone, stranger, "web"), "refused", "{stranger}");
    }
}

#[test]
fn what_this_node_knows_worse_counts_and_what_it_knows_better_does_not() {
    let local = |task, good| Zone::new(&set(), ME, &BTreeMap::from([(task, good)]));
    let without = local(task(11), false);
    assert_eq!(ask(&without, "127.0.0.1", "web"), "10.1.0.12");
    assert_eq!(ask(&without, "127.0.0.1", "web.1"), "");
    assert!(
        without.sight(ip("127.0.0.1")).unwrap().entry("_9000._tcp.web").unwrap().services.len()
            == 1
    );
    assert_eq!(local(task(13), true), zone());
}

#[test]
fn services_tell_port_and_tasks() {
    let zone = zone();
    let sight = zone.sight(ip("127.0.0.1")).unwrap();
    let wanted = |port| {
        let name = |slot, number| format!("web.{slot}.{}", task(number));
        BTreeSet::from([(port, name(1, 11)), (port, name(2, 12))])
    };
    for (name, port) in
        [("_http._tcp.web", 8080), ("_8080._tcp.web", 8080), ("_9000._tcp.web.net1", 9000)]
    {
        assert_eq!(sight.entry(name).unwrap().services, wanted(port), "{name}");
    }
    assert_eq!(sight.entry("_http._udp.web"), None);
}

#[test]
fn addresses_tell_names() {
    let zone = zone();
    let ask = |client: &str, addr: &str| zone.reverse(&zone.sight(ip(client)).unwrap(), ip(addr));
    let name = format!("web.3.{}.net1", task(13));
    assert_eq!(ask("10.1.0.20", "10.1.0.13"), Reverse::Name(name), "also one that does not serve");
    assert_eq!(ask("10.1.0.20", "10.1.0.99"), Reverse::Nobody);
    assert_eq!(ask("10.1.0.20", "10.2.0.15"), Reverse::Nobody, "of a network it does not see");
    assert_eq!(ask("10.1.0.20", "192.0.2.77"), Reverse::Elsewhere);
}
