//! One instance of every kind, every field set, so that a field that moves is noticed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::json;
use swarm::domain::assignment::{AssignmentDiff, Item, Peer};
use swarm::domain::cluster::{AddressPool, Authority};
use swarm::domain::endpoint::{Endpoint, EndpointSet};
use swarm::domain::network::Subnet;
use swarm::domain::node::{ManagerStatus, Membership, NodeStatus, Reachability, Role};
use swarm::domain::secret::Sensitive;
use swarm::domain::service::{
    EndpointMode, PortConfig, Protocol, PublishMode, UpdateState, UpdateStatus,
};
use swarm::domain::task::{ContainerStatus, Slot, TaskAddress};
use swarm::domain::{
    Cluster, ClusterId, Config, ConfigId, Meta, Network, NetworkId, NetworkNode, Node, NodeId,
    Position, RaftId, Revision, Secret, SecretId, Service, ServiceId, SpecVersion, Task, TaskId,
    TaskState, TaskStatus, Timestamp,
};
use swarm::state::{Change, Expect, Object, Rejection};

fn meta() -> Meta {
    Meta {
        created_at: Timestamp(1_709_210_096_789_000_001),
        updated_at: Timestamp(1_709_210_097_000_000_000),
        revision: Revision(300),
        spec_revision: Revision(200),
    }
}

fn node_id() -> NodeId {
    NodeId::from_bytes([0x11; 16])
}

fn service_id() -> ServiceId {
    ServiceId::from_bytes([0x22; 16])
}

fn task_id() -> TaskId {
    TaskId::from_bytes([0x33; 16])
}

fn network_id() -> NetworkId {
    NetworkId::from_bytes([0x44; 16])
}

fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::from_bytes([0x55; 16]),
        meta: meta(),
        spec: serde_json::from_value(json!({
            "Name": "default",
            "Labels": {"a": "b"},
            "Orchestration": {"TaskHistoryRetentionLimit": 7},
            "Raft": {"SnapshotInterval": 10_000},
            "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_u64},
            "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_u64, "ForceRotate": 1},
            "TaskDefaults": {"LogDriver": {"Name": "json-file"}},
            "EncryptionConfig": {"AutoLockManagers": true},
            "Unknown": [1, 2],
        }))
        .unwrap(),
        authority: Authority { root_pem: "ROOT".into(), key_pem: Sensitive::new(b"KEY") },
        token_key: Sensitive::new(b"TOKENS"),
        worker_token: 2,
        manager_token: 3,
        pool: AddressPool { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8, subnet_size: 16 },
        default_network: network_id(),
        data_path_port: 4789,
        format: swarm::domain::Format::FIRST,
        autolock: swarm::domain::Autolock::default(),
        trust: swarm::domain::cluster::Trust::default(),
    }
}

fn node() -> Node {
    Node {
        id: node_id(),
        meta: meta(),
        spec: serde_json::from_value(json!({
            "Name": "first", "Labels": {"zone": "a"}, "Role": "manager", "Availability": "drain",
        }))
        .unwrap(),
        description: Some(description()),
        status: NodeStatus {
            reachability: Reachability::Unreachable,
            since: Timestamp(5),
            message: "silent".into(),
            addr: Some(IpAddr::V6("2001:db8::7".parse().unwrap())),
            applied: Revision(299),
        },
        manager: Some(ManagerStatus {
            raft_id: RaftId(17),
            addr: "192.0.2.7:2377".parse().unwrap(),
            membership: Membership::Voter,
            silent: false,
        }),
        certified: Role::Manager,
        trust: 0,
    }
}

fn description() -> swarm::domain::node::Description {
    serde_json::from_value(json!({
        "Hostname": "alpha",
        "Platform": {"Architecture": "x86_64", "OS": "linux"},
        "Resources": {
            "NanoCPUs": 4_000_000_000_u64,
            "MemoryBytes": 8_000_000_000_u64,
            "GenericResources": [
                {"NamedResourceSpec": {"Kind": "gpu", "Value": "u1"}},
                {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}},
            ],
        },
        "Engine": {
            "EngineVersion": "20.10.24",
            "Labels": {"disk": "ssd"},
            "Plugins": [{"Type": "Volume", "Name": "local"}],
        },
        "AgentVersion": "0.1.0",
        "Degraded": "no engine",
    }))
    .unwrap()
}

fn service() -> Service {
    Service {
        id: service_id(),
        meta: meta(),
        name: "web".into(),
        current: 4,
        previous: Some(3),
        update: Some(UpdateStatus {
            state: UpdateState::RollbackPaused,
            target: 4,
            started_at: Timestamp(10),
            completed_at: Some(Timestamp(20)),
            batch_done_at: Some(Timestamp(15)),
            message: "paused".into(),
        }),
        removing: true,
    }
}

fn version() -> SpecVersion {
    let spec = serde_json::from_str(include_str!("service-spec.json")).unwrap();
    SpecVersion { service: service_id(), number: 4, spec: Arc::new(spec) }
}

fn port() -> PortConfig {
    PortConfig {
        name: "http".into(),
        protocol: Protocol::Sctp,
        target_port: 80,
        published_port: 8080,
        publish_mode: PublishMode::Host,
    }
}

fn status() -> TaskStatus {
    TaskStatus {
        state: TaskState::Failed,
        at: Timestamp(7),
        message: "started".into(),
        error: "exit 1".into(),
        container: Some(ContainerStatus {
            id: "c0ffee".into(),
            pid: 42,
            exit_code: Some(-1),
            oom_killed: true,
        }),
        ports: vec![port()],
    }
}

fn task() -> Task {
    Task {
        id: task_id(),
        meta: meta(),
        service: service_id(),
        spec: 4,
        slot: Slot::Number(2),
        node: Some(node_id()),
        addresses: vec![TaskAddress {
            network: network_id(),
            addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
        }],
        desired: TaskState::Shutdown,
        not_before: Timestamp(99),
        status: status(),
    }
}

fn network() -> Network {
    Network {
        id: network_id(),
        meta: meta(),
        name: "ingress".into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        vni: 4096,
        subnet: Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
        cursor: 12,
    }
}

fn part() -> NetworkNode {
    NetworkNode {
        network: network_id(),
        node: node_id(),
        meta: meta(),
        gateway: Ipv4Addr::new(10, 0, 255, 1),
    }
}

fn secret() -> Secret {
    Secret {
        id: SecretId::from_bytes([0x66; 16]),
        meta: meta(),
        spec: serde_json::from_value(json!({"Name": "key", "Labels": {"a": "b"}, "X": 1})).unwrap(),
        data: Sensitive::new(&[0, 1, 255]),
    }
}

fn config() -> Config {
    Config {
        id: ConfigId::from_bytes([0x77; 16]),
        meta: meta(),
        spec: serde_json::from_value(json!({"Name": "conf", "Labels": {}})).unwrap(),
        data: b"text".as_slice().into(),
    }
}

fn endpoints() -> EndpointSet {
    EndpointSet {
        network: network_id(),
        service: service_id(),
        name: "web".into(),
        aliases: vec!["www".into()],
        mode: EndpointMode::Dnsrr,
        ports: vec![port()],
        endpoints: vec![Endpoint {
            task: task_id(),
            slot: Slot::Node(node_id()),
            node: node_id(),
            addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
            serving: true,
        }],
    }
}

fn peer() -> Peer {
    Peer { node: node_id(), hostname: "alpha".into(), addr: IpAddr::V4([192, 0, 2, 7].into()) }
}

pub(super) fn objects() -> Vec<(&'static str, Object)> {
    let global = Task { slot: Slot::Node(node_id()), node: None, ..task() };
    vec![
        ("cluster", Object::Cluster(Arc::new(cluster()))),
        ("node", Object::Node(Arc::new(node()))),
        ("service", Object::Service(Arc::new(service()))),
        ("spec_version", Object::SpecVersion(Arc::new(version()))),
        ("task", Object::Task(Arc::new(task()))),
        ("task_global", Object::Task(Arc::new(global))),
        ("network", Object::Network(Arc::new(network()))),
        ("network_node", Object::NetworkNode(Arc::new(part()))),
        ("secret", Object::Secret(Arc::new(secret()))),
        ("config", Object::Config(Arc::new(config()))),
    ]
}

pub(super) fn changes() -> Vec<(String, Change)> {
    let mut all = Vec::new();
    let expects = [
        ("any", Expect::Any),
        ("absent", Expect::Absent),
        ("present", Expect::Present),
        ("spec_at", Expect::SpecAt(Revision(9))),
        ("at", Expect::At(Revision(9))),
    ];
    for (name, expect) in expects {
        let object = Object::NetworkNode(Arc::new(part()));
        all.push((format!("put_{name}"), Change::Put { object, expect }));
    }
    for (name, object) in objects() {
        let key = object.key();
        all.push((format!("delete_{name}"), Change::Delete { key, expect: Expect::Any }));
    }
    let (node, addr) = (node_id(), "[2001:db8::7]:2377".parse().unwrap());
    let report = Change::ReportTask { task: task_id(), node, status: status() };
    all.push(("report_task".to_owned(), report));
    let addr_of_node = IpAddr::V4([192, 0, 2, 7].into());
    let report = Change::ReportNode { node, description: description(), addr: addr_of_node };
    all.push(("report_node".to_owned(), report));
    all.push(("join_manager".to_owned(), Change::JoinManager { node, addr }));
    all
}

pub(super) fn items() -> Vec<(&'static str, Item)> {
    vec![
        ("task", Item::Task(Arc::new(task()))),
        ("spec_version", Item::SpecVersion(Arc::new(version()))),
        ("secret", Item::Secret(Arc::new(secret()))),
        ("config", Item::Config(Arc::new(config()))),
        ("network", Item::Network(Arc::new(network()))),
        ("network_node", Item::NetworkNode(Arc::new(part()))),
        ("peer", Item::Peer(Arc::new(peer()))),
        ("endpoints", Item::Endpoints(Arc::new(endpoints()))),
    ]
}

pub(super) fn diff() -> AssignmentDiff {
    AssignmentDiff {
        from: Some(Position { term: 3, index: 299 }),
        to: Position { term: 3, index: 300 },
        put: vec![Item::Peer(Arc::new(peer()))],
        remove: items().iter().map(|(_, item)| item.key()).collect(),
    }
}

pub(super) fn rejections() -> Vec<(&'static str, Rejection)> {
    let (kind, name, id) = ("secret", "key".to_owned(), "x".to_owned());
    vec![
        ("name_in_use", Rejection::NameInUse { kind, name: name.clone() }),
        ("stale", Rejection::Stale { expected: Revision(1), actual: Revision(2) }),
        ("not_found", Rejection::NotFound { kind, id: id.clone() }),
        ("exists", Rejection::Exists { kind, id }),
        ("referenced", Rejection::Referenced { kind, name, by: "web, db".into() }),
        ("too_many_managers", Rejection::TooManyManagers { max: 7 }),
        ("broken", Rejection::Broken { rule: "a rule".into() }),
    ]
}
