//! Any object, change, difference of assignments and rejection, for proptest.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::domain::assignment::{AssignmentDiff, Item, ItemKey, Peer};
use crate::domain::cluster::{AddressPool, Authority, ClusterSpec, RootRotation, Trust};
use crate::domain::endpoint::{Endpoint, EndpointSet};
use crate::domain::network::Subnet;
use crate::domain::node::{
    Availability, Description, ManagerStatus, Membership, NodeSpec, NodeStatus, Reachability, Role,
};
use crate::domain::policy::UpdatePolicy;
use crate::domain::secret::{PayloadSpec, Sensitive};
use crate::domain::service::{
    EndpointMode, Mode, PortConfig, Protocol, PublishMode, UpdateState, UpdateStatus,
};
use crate::domain::task::{ContainerStatus, Slot, TaskAddress};
use crate::domain::{
    Cluster, ClusterId, Config, Extra, Labels, Meta, Network, NetworkNode, Node, Position, RaftId,
    Secret, Service, ServiceSpec, SpecVersion, Task, TaskState, TaskStatus, Timestamp,
};
use crate::wire::object::*;

macro_rules! ids {
    ($($name:ident => $id:ident),*) => {$(
        fn $name() -> impl Strategy<Value = $id> {
            any::<[u8; 16]>().prop_map($id::from_bytes)
        }
    )*};
}

ids! {
    node_id => NodeId, service_id => ServiceId, task_id => TaskId, network_id => NetworkId,
    secret_id => SecretId, config_id => ConfigId, cluster_id => ClusterId
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(all.to_vec())
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäö \"\\\\0-9]{0,8}"
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(text(), text(), 0..3)
}

fn extra() -> impl Strategy<Value = Extra> {
    let value = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text().prop_map(Into::into),
        vec(any::<u32>(), 0..3).prop_map(Into::into),
    ];
    btree_map("X[a-z]{1,4}", value, 0..3)
}

fn meta() -> impl Strategy<Value = Meta> {
    any::<[u64; 4]>().prop_map(|[created, updated, revision, spec]| Meta {
        created_at: Timestamp(created),
        updated_at: Timestamp(updated),
        revision: Revision(revision),
        spec_revision: Revision(spec),
    })
}

fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(Into::into), any::<[u8; 16]>().prop_map(Into::into)]
}

fn state() -> impl Strategy<Value = TaskState> {
    one_of(&TaskState::ALL)
}

fn port() -> impl Strategy<Value = PortConfig> {
    let protocols = one_of(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let modes = one_of(&[PublishMode::Ingress, PublishMode::Host]);
    (text(), protocols, any::<[u16; 2]>(), modes).prop_map(|(name, protocol, ports, mode)| {
        let [target_port, published_port] = ports;
        PortConfig { name, protocol, target_port, published_port, publish_mode: mode }
    })
}

fn status() -> impl Strategy<Value = TaskStatus> {
    let container = (text(), any::<i64>(), any::<Option<i64>>(), any::<bool>());
    let container = container.prop_map(|(id, pid, exit_code, oom_killed)| ContainerStatus {
        id,
        pid,
        exit_code,
        oom_killed,
    });
    (state(), any::<u64>(), text(), text(), option::of(container), vec(port(), 0..3)).prop_map(
        |(state, at, message, error, container, ports)| TaskStatus {
            state,
            at: Timestamp(at),
            message,
            error,
            container,
            ports,
        },
    )
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![any::<u32>().prop_map(Slot::Number), node_id().prop_map(Slot::Node)]
}

fn task() -> impl Strategy<Value = Task> {
    let address = (network_id(), addr()).prop_map(|(network, addr)| TaskAddress { network, addr });
    let place = (slot(), option::of(node_id()), vec(address, 0..3));
    let ids = (task_id(), meta(), service_id(), any::<[u64; 2]>());
    (ids, place, state(), status()).prop_map(|(ids, place, desired, status)| {
        let (id, meta, service, [spec, not_before]) = ids;
        let (slot, node, addresses) = place;
        let not_before = Timestamp(not_before);
        Task { id, meta, service, spec, slot, node, addresses, desired, not_before, status }
    })
}

fn description() -> impl Strategy<Value = Description> {
    (text(), text(), any::<i64>(), labels()).prop_map(|(hostname, degraded, bytes, labels)| {
        let mut it = Description { hostname, degraded, ..Description::default() };
        it.resources.memory_bytes = bytes;
        it.engine.labels = labels;
        it
    })
}

fn node_status() -> impl Strategy<Value = NodeStatus> {
    let found =
        one_of(&[Reachability::Unknown, Reachability::Reachable, Reachability::Unreachable]);
    (found, any::<[u64; 2]>(), text(), option::of(addr())).prop_map(
        |(reachability, [since, applied], message, addr)| NodeStatus {
            reachability,
            since: Timestamp(since),
            message,
            addr,
            applied: Revision(applied),
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    let role = || one_of(&[Role::Worker, Role::Manager]);
    let wish = one_of(&[Availability::Active, Availability::Pause, Availability::Drain]);
    let spec = (text(), labels(), role(), wish, extra()).prop_map(
        |(name, labels, role, availability, extra)| NodeSpec {
            name,
            labels,
            role,
            availability,
            extra,
        },
    );
    let part =
        one_of(&[Membership::None, Membership::Learner, Membership::Voter, Membership::Removed]);
    let manager = (any::<u64>(), addr(), any::<u16>(), part, any::<bool>()).prop_map(
        |(raft_id, addr, port, membership, silent)| ManagerStatus {
            raft_id: RaftId(raft_id),
            addr: SocketAddr::new(addr, port),
            membership,
            silent,
        },
    );
    let ids = (node_id(), meta(), role(), any::<u64>());
    (ids, spec, option::of(description()), node_status(), option::of(manager)).prop_map(
        |((id, meta, certified, trust), spec, description, status, manager)| Node {
            id,
            meta,
            spec,
            description,
            status,
            manager,
            certified,
            trust,
        },
    )
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let numbers = (any::<[u64; 2]>(), any::<[u8; 4]>(), 0..=32u8, 0..=32u8, any::<u16>());
    let keys = (text(), any::<Vec<u8>>(), any::<Vec<u8>>());
    let ids = (cluster_id(), meta(), network_id());
    (ids, keys, numbers, labels(), extra()).prop_map(|(ids, keys, numbers, labels, extra)| {
        let (id, meta, default_network) = ids;
        let (root_pem, key_pem, token_key) = keys;
        let ([worker_token, manager_token], base, prefix, subnet_size, data_path_port) = numbers;
        Cluster {
            id,
            meta,
            spec: ClusterSpec { labels, extra, ..ClusterSpec::default() },
            authority: Authority { root_pem, key_pem: Sensitive::new(&key_pem) },
            token_key: Sensitive::new(&token_key),
            worker_token,
            manager_token,
            pool: AddressPool { base: base.into(), prefix, subnet_size },
            default_network,
            data_path_port,
            format: crate::domain::Format::FIRST,
            autolock: crate::domain::Autolock {
                generation: worker_token,
                key: (prefix > 9).then(|| crate::domain::UnlockKey::new([prefix; 32])),
            },
            trust: Trust {
                generation: manager_token,
                rotation: (prefix % 2 == 0).then(|| RootRotation {
                    next: Authority {
                        root_pem: "next".to_owned(),
                        key_pem: Sensitive::new(&[prefix; 7]),
                    },
                    cross_pem: "cross".to_owned(),
                }),
            },
        }
    })
}

fn service() -> impl Strategy<Value = Service> {
    let states = one_of(&[
        UpdateState::Updating,
        UpdateState::Paused,
        UpdateState::Completed,
        UpdateState::RollbackStarted,
        UpdateState::RollbackPaused,
        UpdateState::RollbackCompleted,
    ]);
    let time = || option::of((1..u64::MAX).prop_map(Timestamp));
    let update = (states, any::<[u64; 2]>(), time(), time(), text()).prop_map(
        |(state, [target, started_at], completed_at, batch_done_at, message)| UpdateStatus {
            state,
            target,
            started_at: Timestamp(started_at),
            completed_at,
            batch_done_at,
            message,
        },
    );
    let versions = (any::<u64>(), option::of(1..u64::MAX));
    (service_id(), meta(), text(), versions, option::of(update), any::<bool>()).prop_map(
        |(id, meta, name, (current, previous), update, removing)| Service {
            id,
            meta,
            name,
            current,
            previous,
            update,
            removing,
        },
    )
}

fn version() -> impl Strategy<Value = SpecVersion> {
    let mode = prop_oneof![
        any::<Option<u64>>().prop_map(|replicas| Mode::Replicated { replicas }),
        Just(Mode::Global {}),
    ];
    let spec = (text(), labels(), mode, extra(), vec(text(), 0..3), 0..=16u8).prop_map(
        |(name, labels, mode, extra, env, sixteenths)| {
            let max_failure_ratio = f64::from(sixteenths) / 16.0;
            let policy = UpdatePolicy { max_failure_ratio, ..UpdatePolicy::default() };
            let update_config = (sixteenths > 0).then_some(policy);
            let mut it =
                ServiceSpec { name, labels, mode, extra, update_config, ..ServiceSpec::default() };
            it.task_template.container_spec.env = env;
            it
        },
    );
    (service_id(), any::<u64>(), spec).prop_map(|(service, number, spec)| SpecVersion {
        service,
        number,
        spec: Arc::new(spec),
    })
}

fn network() -> impl Strategy<Value = Network> {
    let subnet = (any::<[u8; 4]>(), 0..=32u8)
        .prop_map(|(base, prefix)| Subnet { base: base.into(), prefix });
    (network_id(), meta(), text(), labels(), any::<u32>(), subnet, any::<u64>()).prop_map(
        |(id, meta, name, labels, vni, subnet, cursor)| Network {
            id,
            meta,
            name,
            labels,
            vni,
            subnet,
            cursor,
        },
    )
}

fn part() -> impl Strategy<Value = NetworkNode> {
    (network_id(), node_id(), meta(), any::<[u8; 4]>()).prop_map(
        |(network, node, meta, gateway)| NetworkNode {
            network,
            node,
            meta,
            gateway: gateway.into(),
        },
    )
}

fn payload() -> impl Strategy<Value = PayloadSpec> {
    (text(), labels(), extra()).prop_map(|(name, labels, extra)| PayloadSpec {
        name,
        labels,
        extra,
    })
}

fn secret() -> impl Strategy<Value = Secret> {
    (secret_id(), meta(), payload(), any::<Vec<u8>>()).prop_map(|(id, meta, spec, data)| Secret {
        id,
        meta,
        spec,
        data: Sensitive::new(&data),
    })
}

fn config() -> impl Strategy<Value = Config> {
    (config_id(), meta(), payload(), any::<Vec<u8>>()).prop_map(|(id, meta, spec, data)| Config {
        id,
        meta,
        spec,
        data: data.into(),
    })
}

pub(super) fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        cluster().prop_map(|it| Object::Cluster(Arc::new(it))),
        node().prop_map(|it| Object::Node(Arc::new(it))),
        service().prop_map(|it| Object::Service(Arc::new(it))),
        version().prop_map(|it| Object::SpecVersion(Arc::new(it))),
        task().prop_map(|it| Object::Task(Arc::new(it))),
        network().prop_map(|it| Object::Network(Arc::new(it))),
        part().prop_map(|it| Object::NetworkNode(Arc::new(it))),
        secret().prop_map(|it| Object::Secret(Arc::new(it))),
        config().prop_map(|it| Object::Config(Arc::new(it))),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    (0..5u8, any::<u64>()).prop_map(|(kind, revision)| match kind {
        0 => Expect::Any,
        1 => Expect::Absent,
        2 => Expect::Present,
        3 => Expect::SpecAt(Revision(revision)),
        _ => Expect::At(Revision(revision)),
    })
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let put = (object(), expect()).prop_map(|(object, expect)| Change::Put { object, expect });
    let delete = (object(), expect())
        .prop_map(|(object, expect)| Change::Delete { key: object.key(), expect });
    let task = (task_id(), node_id(), status())
        .prop_map(|(task, node, status)| Change::ReportTask { task, node, status });
    let node = (node_id(), description(), addr())
        .prop_map(|(node, description, addr)| Change::ReportNode { node, description, addr });
    let join = (node_id(), addr(), any::<u16>()).prop_map(|(node, addr, port)| {
        Change::JoinManager { node, addr: SocketAddr::new(addr, port) }
    });
    prop_oneof![4 => put, 2 => delete, 1 => task, 1 => node, 1 => join]
}

fn endpoints() -> impl Strategy<Value = EndpointSet> {
    let endpoint = (task_id(), slot(), node_id(), addr(), any::<bool>())
        .prop_map(|(task, slot, node, addr, serving)| Endpoint { task, slot, node, addr, serving });
    let mode = one_of(&[EndpointMode::Vip, EndpointMode::Dnsrr]);
    let names = (text(), vec(text(), 0..3));
    (network_id(), service_id(), names, mode, vec(port(), 0..3), vec(endpoint, 0..3)).prop_map(
        |(network, service, (name, aliases), mode, ports, endpoints)| EndpointSet {
            network,
            service,
            name,
            aliases,
            mode,
            ports,
            endpoints,
        },
    )
}

fn item() -> impl Strategy<Value = Item> {
    let peer = (node_id(), text(), addr()).prop_map(|(node, hostname, addr)| Peer {
        node,
        hostname,
        addr,
    });
    prop_oneof![
        task().prop_map(|it| Item::Task(Arc::new(it))),
        version().prop_map(|it| Item::SpecVersion(Arc::new(it))),
        secret().prop_map(|it| Item::Secret(Arc::new(it))),
        config().prop_map(|it| Item::Config(Arc::new(it))),
        network().prop_map(|it| Item::Network(Arc::new(it))),
        part().prop_map(|it| Item::NetworkNode(Arc::new(it))),
        peer.prop_map(|it| Item::Peer(Arc::new(it))),
        endpoints().prop_map(|it| Item::Endpoints(Arc::new(it))),
    ]
}

pub(super) fn diff() -> impl Strategy<Value = AssignmentDiff> {
    let position = || any::<[u64; 2]>().prop_map(|[term, index]| Position { term, index });
    (option::of(position()), position(), vec(item(), 0..4), vec(item(), 0..4)).prop_map(
        |(from, to, put, gone)| {
            let remove: Vec<ItemKey> = gone.iter().map(Item::key).collect();
            AssignmentDiff { from, to, put, remove }
        },
    )
}

pub(super) fn rejection() -> impl Strategy<Value = Rejection> {
    (0..7u8, one_of(&KINDS), text(), text(), any::<[u64; 2]>()).prop_map(
        |(number, kind, name, by, [expected, actual])| match number {
            0 => Rejection::NameInUse { kind, name },
            1 => Rejection::Stale { expected: Revision(expected), actual: Revision(actual) },
            2 => Rejection::NotFound { kind, id: name },
            3 => Rejection::Exists { kind, id: name },
            4 => Rejection::Referenced { kind, name, by },
            5 => Rejection::TooManyManagers { max: usize::try_from(expected).unwrap() },
            _ => Rejection::Broken { rule: name },
        },
    )
}
