//! A whole agent on a real engine: network, secret, health, output, adoption after a kill.
//!
//! The manager is made of channels and the overlay is none (the bridge is enough on one node). Runs
//! where `SWARM_TEST_DOCKER` names an engine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use swarm::agent::{self, Fabric, Handle};
use swarm::domain::assignment::Item;
use swarm::domain::network::Subnet;
use swarm::domain::secret::{PayloadSpec, Sensitive};
use swarm::domain::task::{Slot, TaskAddress};
use swarm::domain::timing::Timing;
use swarm::domain::{
    AssignmentSet, Labels, Meta, Network, NetworkId, NetworkNode, NodeId, Position, Secret,
    SecretId, ServiceId, SpecVersion, Task, TaskId, TaskState, TaskStatus, Timestamp,
};
use swarm::env::{Env, Scope};
use swarm::overlay;
use swarm::runtime::{Runtime, docker};
use swarm::transport::{LinkError, ManagerLink, SessionLink};
use swarm::wire::node::agent_message::Kind as FromAgent;
use swarm::wire::node::manager_message::Kind as ToAgent;
use swarm::wire::node::{
    AgentMessage, LogMessage, LogOptions, LogRequest, ManagerMessage, ReportAck, Welcome,
};
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(30);
const SECRET: SecretId = SecretId::from_bytes([7; 16]);

#[derive(Debug)]
struct Link {
    sessions: mpsc::Sender<Peer>,
    output: mpsc::Sender<LogMessage>,
}

#[derive(Debug)]
struct Peer {
    to: mpsc::Sender<Result<ManagerMessage, LinkError>>,
    from: mpsc::Receiver<AgentMessage>,
}

#[async_trait]
impl ManagerLink for Link {
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError> {
        let (outgoing, from) = mpsc::channel(16);
        let (to, incoming) = mpsc::channel(16);
        let over = LinkError::Unreachable { addr, reason: "over".to_owned() };
        self.sessions.send(Peer { to, from }).await.map_err(|_| over)?;
        Ok(SessionLink { outgoing, incoming })
    }

    async fn publish_logs(&self, _addr: SocketAddr) -> Result<mpsc::Sender<LogMessage>, LinkError> {
        Ok(self.output.clone())
    }
}

#[derive(Debug)]
struct BridgeOnly;

#[async_trait]
impl Fabric for BridgeOnly {
    async fn apply(&self, _set: &AssignmentSet) -> Result<(), overlay::Error> {
        Ok(())
    }

    fn mtu(&self, _local: IpAddr) -> u32 {
        1450
    }

    async fn teardown(&self) -> Result<(), overlay::Error> {
        Ok(())
    }
}

struct Life {
    agent: Handle,
    scope: Scope,
    env: Env,
    peer: Peer,
    output: mpsc::Receiver<LogMessage>,
    statuses: BTreeMap<TaskId, TaskStatus>,
    reports: u64,
}

struct World {
    env: Env,
    dir: tempfile::TempDir,
    socket: PathBuf,
    node: NodeId,
}

impl World {
    async fn start(&self) -> Life {
        let scope = Scope::root("test");
        let settings = docker::Settings { socket: self.socket.clone(), node: self.node };
        let runtime = docker::start(settings, self.env.clone(), &scope);
        let (sessions, mut peers) = mpsc::channel(4);
        let (sender, output) = mpsc::channel(64);
        let settings = agent::Settings {
            data_dir: self.dir.path().join("data"),
            run_dir: self.dir.path().join("run"),
            node: self.node,
            addr: Ipv4Addr::LOCALHOST.into(),
            managers: vec!["127.0.0.1:2377".parse().unwrap()],
            timing: Timing::DEFAULT,
            guard: agent::Guard::open(),
        };
        let deps = agent::Deps {
            env: self.env.clone(),
            runtime: runtime as Arc<dyn Runtime>,
            link: Arc::new(Link { sessions, output: sender }),
            overlay: Arc::new(BridgeOnly),
        };
        let agent = agent::start(settings, deps, &scope).await.unwrap();
        let mut peer = peers.recv().await.unwrap();
        let first = peer.from.recv().await.unwrap();
        assert!(matches!(first.kind, Some(FromAgent::Hello(_))), "{first:?}");
        let env = self.env.clone();
        let life = Life { agent, scope, env, peer, output, statuses: BTreeMap::new(), reports: 0 };
        life.say(ToAgent::Welcome(Welcome { heartbeat_ms: 250, ..Welcome::default() })).await;
        if let Some(FromAgent::Hello(hello)) = first.kind {
            let mut life = life;
            hello.reports.into_iter().for_each(|report| life.note(report));
            return life;
        }
        life
    }
}

impl Life {
    async fn say(&self, kind: ToAgent) {
        self.peer.to.send(Ok(ManagerMessage { kind: Some(kind) })).await.unwrap();
    }

    fn note(&mut self, report: swarm::wire::node::TaskReport) {
        let task = TaskId::from_slice(&report.task).unwrap();
        self.statuses.insert(task, TaskStatus::try_from(report.status.unwrap()).unwrap());
    }

    async fn until(&mut self, task: TaskId, state: TaskState) -> TaskStatus {
        loop {
            if let Some(status) = self.statuses.get(&task) {
                if status.state == state {
                    return status.clone();
                }
                assert!(status.state < state, "{status:?}");
            }
            let message = self.env.clock.timeout(LONG, self.peer.from.recv()).await;
            let message = message.unwrap_or_else(|_| panic!("no {state}: {:?}", self.statuses));
            if let Some(FromAgent::Report(report)) = message.unwrap().kind {
                report.tasks.into_iter().for_each(|report| self.note(report));
                self.reports += 1;
                self.say(ToAgent::Ack(ReportAck { reports: self.reports })).await;
            }
        }
    }
}

const SCRIPT: &str = "cat /etc/resolv.conf; cat /run/secrets/key; hostname; \
    trap 'exit 0' TERM; touch /tmp/ok; while :; do sleep 0.1; done";

fn assignments(node: NodeId, task: &Task) -> AssignmentSet {
    let network = NetworkId::from_bytes([5; 16]);
    let subnet = Subnet { base: Ipv4Addr::new(10, 214, 0, 0), prefix: 24 };
    let spec = json!({
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {
            "Image": "busybox:latest",
            "Args": ["sh", "-c", SCRIPT],
            "Hostname": "{{.Service.Name}}-{{.Task.Slot}}",
            "Healthcheck": {"Test": ["CMD", "test", "-e", "/tmp/ok"], "Interval": 100_000_000},
            "Secrets": [{"SecretID": SECRET, "SecretName": "key",
                "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400}}]
        }}
    });
    let items = [
        Item::Task(Arc::new(task.clone())),
        Item::SpecVersion(Arc::new(SpecVersion {
            service: task.service,
            number: 1,
            spec: Arc::new(serde_json::from_value(spec).unwrap()),
        })),
        Item::Secret(Arc::new(Secret {
            id: SECRET,
            meta: Meta::default(),
            spec: PayloadSpec::default(),
            data: Sensitive::new(b"hush\n"),
        })),
        Item::Network(Arc::new(Network {
            id: network,
            meta: Meta::default(),
            name: "agent-test".to_owned(),
            labels: Labels::default(),
            vni: 5999,
            subnet,
            cursor: 0,
        })),
        Item::NetworkNode(Arc::new(NetworkNode {
            network,
            node,
            meta: Meta::default(),
            gateway: Ipv4Addr::new(10, 214, 0, 3),
        })),
    ];
    let mut set = AssignmentSet::at(Position { term: 1, index: 1 });
    items.into_iter().for_each(|item| set.insert(item));
    set
}

#[tokio::test]
async fn agent_on_a_real_engine() {
    let Ok(address) = std::env::var("SWARM_TEST_DOCKER") else {
        println!("SKIPPED: no real engine (SWARM_TEST_DOCKER=unix:///… names one)");
        return;
    };
    let env = Env::system();
    let world = World {
        node: NodeId::from_bytes(env.entropy.id()),
        env,
        dir: tempfile::tempdir_in("/dev/shm").unwrap(),
        socket: PathBuf::from(address.trim_start_matches("unix://")),
    };
    let task = Task {
        id: TaskId::from_bytes(world.env.entropy.id()),
        meta: Meta::default(),
        service: ServiceId::from_bytes([2; 16]),
        spec: 1,
        slot: Slot::Number(1),
        node: Some(world.node),
        addresses: vec![TaskAddress {
            network: NetworkId::from_bytes([5; 16]),
            addr: Ipv4Addr::new(10, 214, 0, 9).into(),
        }],
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
    };
    let set = assignments(world.node, &task);
    let mut life = world.start().await;
    let begun = world.env.clock.instant();
    life.say(ToAgent::Assignments((&set.complete()).into())).await;
    let before = life.until(task.id, TaskState::Running).await.container.unwrap();
    println!("assigned to healthy: {:?}", world.env.clock.instant().since(begun));
    assert!(before.pid > 0);

    let follow = LogRequest {
        subscription: vec![1; 16].into(),
        tasks: vec![task.id.to_bytes().to_vec().into()],
        options: Some(LogOptions { follow: true, ..LogOptions::default() }),
        cancel: false,
    };
    life.say(ToAgent::Logs(follow)).await;
    let mut text = String::new();
    while !text.contains("web-1") {
        let line = world.env.clock.timeout(LONG, life.output.recv()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&line.data).unwrap());
    }
    assert!(text.contains("nameserver 10.214.0.3\n") && text.contains("hush\n"), "{text}");

    assert!(life.scope.shutdown(LONG).await);
    drop(life);
    let mut life = world.start().await;
    let after = life.until(task.id, TaskState::Running).await.container.unwrap();
    assert_eq!(after, before, "adopted: the same container, the same process");

    life.say(ToAgent::Assignments((&set.complete()).into())).await;
    let ended = Task { desired: TaskState::Shutdown, ..task.clone() };
    let mut next = assignments(world.node, &ended);
    next.position.index = 2;
    life.say(ToAgent::Assignments((&set.diff(&next)).into())).await;
    let status = life.until(task.id, TaskState::Shutdown).await;
    assert_eq!(status.container.unwrap().exit_code, Some(0), "it was asked before it was killed");
    assert_eq!(life.agent.clone().leave().await, Vec::<String>::new());
}
