//! Small objects for the tests of pure code.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Change, Command, Event, Expect, Object, Outcome, State, apply};
use crate::domain::cluster::{AddressPool, Authority, ClusterSpec};
use crate::domain::network::Subnet;
use crate::domain::node::{Description, NodeStatus, Reachability, Role};
use crate::domain::secret::{PayloadSpec, Sensitive};
use crate::domain::service::VersionNumber;
use crate::domain::task::{Slot, TaskAddress};
use crate::domain::{
    Cluster, ClusterId, Config, ConfigId, Labels, Meta, Network, NetworkId, NetworkNode, Node,
    NodeId, Position, Secret, SecretId, Service, ServiceId, ServiceSpec, SpecVersion, Task, TaskId,
    TaskState, TaskStatus, Timestamp,
};

macro_rules! ids {
    ($($name:ident => $id:ident),*) => {$(
        pub(crate) fn $name(number: u8) -> $id {
            let mut bytes = [0; 16];
            bytes[15] = number;
            $id::from_bytes(bytes)
        }
    )*};
}

ids! {
    node_id => NodeId, service_id => ServiceId, task_id => TaskId, network_id => NetworkId,
    secret_id => SecretId, config_id => ConfigId
}

pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::from_bytes([7; 16]),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        authority: Authority { root_pem: "root".into(), key_pem: Sensitive::new(b"key") },
        token_key: Sensitive::new(b"tokens"),
        worker_token: 1,
        manager_token: 1,
        pool: AddressPool { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8, subnet_size: 16 },
        default_network: network_id(1),
        data_path_port: 4789,
        format: crate::domain::Format::FIRST,
        autolock: crate::domain::Autolock::default(),
        trust: crate::domain::cluster::Trust::default(),
    }
}

pub(crate) fn network(number: u8) -> Network {
    Network {
        id: network_id(number),
        meta: Meta::default(),
        name: format!("net{number}"),
        labels: Labels::new(),
        vni: 4096 + u32::from(number),
        subnet: Subnet { base: Ipv4Addr::new(10, number, 0, 0), prefix: 16 },
        cursor: 0,
    }
}

pub(crate) fn part(network: u8, node: u8) -> NetworkNode {
    NetworkNode {
        network: network_id(network),
        node: node_id(node),
        meta: Meta::default(),
        gateway: Ipv4Addr::new(10, network, 255, node),
    }
}

pub(crate) fn node(number: u8) -> Node {
    Node {
        description: Some(Description { hostname: format!("n{number}"), ..Description::default() }),
        status: NodeStatus {
            reachability: Reachability::Reachable,
            addr: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))),
            ..NodeStatus::default()
        },
        ..Node::new(node_id(number), Role::Worker)
    }
}

pub(crate) fn service(number: u8, current: VersionNumber) -> Service {
    Service {
        id: service_id(number),
        meta: Meta::default(),
        name: format!("web{number}"),
        current,
        previous: None,
        update: None,
        removing: false,
    }
}

pub(crate) fn version(service: u8, number: VersionNumber, spec: ServiceSpec) -> SpecVersion {
    SpecVersion { service: service_id(service), number, spec: Arc::new(spec) }
}

pub(crate) fn task(number: u8, service: u8) -> Task {
    Task {
        id: task_id(number),
        meta: Meta::default(),
        service: service_id(service),
        spec: 1,
        slot: Slot::Number(u32::from(number)),
        node: None,
        addresses: Vec::new(),
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus::default(),
    }
}

/// A task that has come as far as `state` on a node, with an address.
pub(crate) fn placed(number: u8, service: u8, node: u8, state: TaskState) -> Task {
    Task {
        node: Some(node_id(node)),
        addresses: vec![address(number)],
        status: TaskStatus { state, ..TaskStatus::default() },
        ..task(number, service)
    }
}

pub(crate) fn address(number: u8) -> TaskAddress {
    let addr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, number));
    TaskAddress { network: network_id(1), addr }
}

pub(crate) fn secret(number: u8) -> Secret {
    Secret {
        id: secret_id(number),
        meta: Meta::default(),
        spec: PayloadSpec { name: format!("secret{number}"), ..PayloadSpec::default() },
        data: Sensitive::new(b"hidden"),
    }
}

pub(crate) fn config(number: u8) -> Config {
    Config {
        id: config_id(number),
        meta: Meta::default(),
        spec: PayloadSpec { name: format!("config{number}"), ..PayloadSpec::default() },
        data: b"shown".as_slice().into(),
    }
}

macro_rules! objects {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(it: $kind) -> Self {
                Self::$kind(Arc::new(it))
            }
        }
    )*};
}

objects!(Cluster, Node, Service, SpecVersion, Task, Network, NetworkNode, Secret, Config);

pub(crate) fn put(object: impl Into<Object>, expect: Expect) -> Change {
    Change::Put { object: object.into(), expect }
}

pub(crate) fn create(object: impl Into<Object>) -> Change {
    put(object, Expect::Absent)
}

/// Applies changes as the next entry of the log.
pub(crate) fn commit(state: &mut State, changes: Vec<Change>) -> (Outcome, Vec<Event>) {
    let position = Position { term: 1, index: state.position.index + 1 };
    let proposed_at = Timestamp(state.clock.0 + 1_000);
    apply(state, &Command { proposed_at, request: None, changes }, position)
}

/// A cluster with its default network, nodes 1 to 3 in it and service 1.
pub(crate) fn small() -> State {
    let mut state = State::default();
    let mut changes = vec![create(cluster()), create(network(1))];
    for number in 1..=3 {
        changes.push(create(node(number)));
        changes.push(create(part(1, number)));
    }
    changes.push(create(service(1, 1)));
    changes.push(create(version(1, 1, ServiceSpec::default())));
    commit(&mut state, changes).0.unwrap();
    state
}
