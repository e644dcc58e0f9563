//! The API over a real socket, on a store in memory.

mod cli;
mod engine;
mod errors;
mod golden;
mod objects;
mod policy;
mod streams;
mod swarm;
mod wellbeing;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::domain::cluster::{AddressPool, Authority, ClusterSpec, RootRotation};
use crate::domain::network::Subnet;
use crate::domain::node::{
    Description, ManagerStatus, Membership, NodeSpec, NodeStatus, Platform, Reachability, Role,
};
use crate::domain::resources::Resources;
use crate::domain::secret::Sensitive;
use crate::domain::task::{ContainerStatus, Slot, TaskAddress};
use crate::domain::{
    Cluster, ClusterId, Labels, Meta, Network, NetworkId, Node, NodeId, RaftId, Service, ServiceId,
    Task, TaskId, TaskState, TaskStatus, Timestamp,
};
use crate::env::Scope;
use crate::state::{Change, Expect, Object};

/// Docker's payloads as recorded, Engine 20.10.24.
fn sample(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("samples.json")).unwrap();
    all.get(name).unwrap_or_else(|| panic!("no sample {name}")).clone()
}

/// A root certificate: that of the samples.
fn root_pem() -> String {
    sample("GET /swarm").pointer("/TLSInfo/TrustRoot").unwrap().as_str().unwrap().to_owned()
}

fn id(number: u8) -> [u8; 16] {
    let mut bytes = [0x42; 16];
    bytes[0] = number;
    bytes
}

/// A daemon that does as told.
#[derive(Debug)]
struct Control {
    state: Mutex<LocalState>,
    vitals: Mutex<Vitals>,
    init: Mutex<Option<InitRequest>>,
    join: Mutex<Option<JoinRequest>>,
    followed: Mutex<u32>,
    stores: watch::Sender<Option<Store>>,
    env: Env,
}

#[async_trait]
impl NodeControl for Control {
    fn state(&self) -> LocalState {
        self.state.lock().unwrap().clone()
    }

    fn vitals(&self) -> Vitals {
        let state = self.state();
        let mut vitals = self.vitals.lock().unwrap().clone();
        vitals.local.part = state.part();
        vitals.local.name = state.hostname;
        vitals.local.error = state.error;
        vitals
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError> {
        if self.state().participation != Participation::Inactive {
            return Err(ControlError::AlreadyInSwarm);
        }
        let store = founded(&self.env, request.spec.clone()).await;
        *self.init.lock().unwrap() = Some(request);
        *self.state.lock().unwrap() = active();
        self.stores.send_replace(Some(store));
        Ok(NodeId::from_bytes(id(1)))
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ControlError> {
        if self.state().participation != Participation::Inactive {
            return Err(ControlError::AlreadyInSwarm);
        }
        if request.token == "SWMTKN-1-bad" {
            return Err(ControlError::InvalidToken);
        }
        *self.join.lock().unwrap() = Some(request);
        *self.state.lock().unwrap() = LocalState { is_manager: false, ..active() };
        Ok(())
    }

    async fn leave(&self, leave: Leave) -> Result<(), ControlError> {
        match (self.state(), leave) {
            (LocalState { participation: Participation::Inactive, .. }, _) => {
                Err(ControlError::NotInSwarm)
            }
            (LocalState { is_manager: true, .. }, Leave::Gracefully) => {
                Err(ControlError::LastManager)
            }
            _ => {
                *self.state.lock().unwrap() = LocalState::default();
                self.stores.send_replace(None);
                Ok(())
            }
        }
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId, ControlError> {
        match crate::raft::archive::read(&request.archive, request.passphrase.expose()) {
            Ok(_) => Ok(NodeId::from_bytes(id(1))),
            Err(error) => Err(ControlError::Invalid(error.to_string())),
        }
    }

    async fn recover(&self, request: RecoverRequest) -> Result<Recovery, ControlError> {
        if request.run == Run::Real {
            return Err(ControlError::Unavailable("the managers have a quorum".to_owned()));
        }
        Ok(Recovery {
            node: NodeId::from_bytes(id(1)),
            addr: manager_addr(),
            epoch: 7 << 20,
            term: 6,
            last: crate::domain::Position { term: 5, index: 41 },
            committed: 40,
            newest: Timestamp(1_800_000_000_000_000_000),
            removed: vec![(NodeId::from_bytes(id(2)), "host-2".to_owned())],
            nodes: 3,
            services: 1,
            tasks: 2,
        })
    }

    async fn unlock(&self, key: &str) -> Result<(), ControlError> {
        match (self.state().participation, key) {
            (Participation::Locked, "SWMKEY-1-good") => Ok(()),
            (Participation::Locked, _) => Err(ControlError::InvalidKey),
            _ => Err(ControlError::NotLocked),
        }
    }

    fn next_root(&self, cluster: &Cluster) -> Result<RootRotation, ControlError> {
        let root_pem = include_str!("next-root.pem").to_owned();
        let next = Authority { root_pem, key_pem: Sensitive::new(b"next key") };
        Ok(RootRotation { next, cross_pem: format!("cross {}", cluster.trust.generation) })
    }

    async fn follow_lock(&self) -> Result<(), ControlError> {
        *self.followed.lock().unwrap() += 1;
        Ok(())
    }

    fn join_tokens(&self, cluster: &Cluster) -> Result<JoinTokens, ControlError> {
        let token = |role, generation| format!("SWMTKN-1-digest-{role}{generation}");
        Ok(JoinTokens {
            worker: token("worker", cluster.worker_token),
            manager: token("manager", cluster.manager_token),
        })
    }
}

/// Output that was prepared.
#[derive(Debug, Default)]
struct Logs {
    items: Mutex<Vec<LogItem>>,
    asked: Mutex<Vec<(Vec<TaskId>, LogOptions)>>,
    /// Kept open while a client follows.
    open: Mutex<Vec<mpsc::Sender<LogItem>>>,
}

#[async_trait]
impl LogSource for Logs {
    async fn subscribe(
        &self,
        tasks: Vec<TaskId>,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogItem>, LogError> {
        let items = self.items.lock().unwrap().clone();
        let (sender, receiver) = mpsc::channel(64);
        for item in items.into_iter().filter(|item| tasks.contains(&item.task)) {
            sender.try_send(item).unwrap();
        }
        self.asked.lock().unwrap().push((tasks, options));
        if options.follow {
            self.open.lock().unwrap().push(sender);
        }
        Ok(receiver)
    }
}

fn active() -> LocalState {
    LocalState {
        participation: Participation::Active,
        node: Some(NodeId::from_bytes(id(1))),
        addr: Some(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1))),
        is_manager: true,
        error: String::new(),
        expired: String::new(),
        managers: vec![(NodeId::from_bytes(id(1)), manager_addr())],
        hostname: "vm".to_owned(),
        backups: None,
    }
}

fn manager_addr() -> SocketAddr {
    SocketAddr::from(([10, 77, 0, 1], 2377))
}

fn cluster(spec: ClusterSpec) -> Cluster {
    Cluster {
        id: ClusterId::from_bytes(id(9)),
        meta: Meta::default(),
        spec,
        authority: Authority { root_pem: root_pem(), key_pem: Sensitive::new(b"key") },
        token_key: Sensitive::new(b"tokens"),
        worker_token: 1,
        manager_token: 1,
        pool: AddressPool { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8, subnet_size: 16 },
        default_network: NetworkId::from_bytes(id(8)),
        data_path_port: 4789,
        format: crate::domain::Format::NEWEST,
        autolock: crate::domain::Autolock::default(),
        trust: crate::domain::cluster::Trust::default(),
    }
}

fn network() -> Network {
    Network {
        id: NetworkId::from_bytes(id(8)),
        meta: Meta::default(),
        name: "default".to_owned(),
        labels: Labels::new(),
        vni: 4096,
        subnet: Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
        cursor: 0,
    }
}

fn node(number: u8, role: Role) -> Node {
    let manager = ManagerStatus {
        raft_id: RaftId(u64::from(number)),
        addr: SocketAddr::from(([10, 77, 0, number], 2377)),
        membership: Membership::Voter,
        silent: false,
    };
    Node {
        id: NodeId::from_bytes(id(number)),
        meta: Meta::default(),
        spec: NodeSpec { role, ..NodeSpec::default() },
        description: Some(Description {
            hostname: if number == 1 { "vm".to_owned() } else { format!("vm{number}") },
            platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
            resources: Resources {
                nano_cpus: 2_000_000_000,
                memory_bytes: 25_276_510_208,
                generic: Vec::new(),
            },
            ..Description::default()
        }),
        status: NodeStatus {
            reachability: Reachability::Reachable,
            addr: Some(IpAddr::V4(Ipv4Addr::new(10, 77, 0, number))),
            ..NodeStatus::default()
        },
        manager: (role == Role::Manager).then_some(manager),
        certified: role,
        trust: 0,
    }
}

/// A store with a cluster of one manager.
async fn founded(env: &Env, spec: ClusterSpec) -> Store {
    let store = Store::in_memory(env.clone());
    fill(&store, spec).await;
    store
}

async fn fill(store: &Store, spec: ClusterSpec) {
    let objects = vec![
        Object::Cluster(Arc::new(cluster(spec))),
        Object::Network(Arc::new(network())),
        Object::Node(Arc::new(node(1, Role::Manager))),
    ];
    put(store, objects).await;
}

async fn put(store: &Store, objects: Vec<Object>) {
    let changes = objects.into_iter().map(|object| Change::Put { object, expect: Expect::Any });
    store.propose(None, changes.collect(), Duration::from_secs(1)).await.unwrap();
}

/// A running task of a service, with a container and an address.
fn running(service: &Service, number: u8) -> Task {
    let container =
        ContainerStatus { id: "f".repeat(64), pid: 327, exit_code: None, oom_killed: false };
    Task {
        id: TaskId::from_bytes(id(100 + number)),
        meta: Meta::default(),
        service: service.id,
        spec: service.current,
        slot: Slot::Number(u32::from(number)),
        node: Some(NodeId::from_bytes(id(1))),
        addresses: vec![TaskAddress {
            network: NetworkId::from_bytes(id(8)),
            addr: IpAddr::V4(Ipv4Addr::new(10, 0, 1, number)),
        }],
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus {
            state: TaskState::Running,
            at: Timestamp(1_795_241_093_753_084_380),
            message: "started".to_owned(),
            container: Some(container),
            ..TaskStatus::default()
        },
    }
}

/// A served API.
struct Bench {
    scope: Scope,
    folder: tempfile::TempDir,
    control: Arc<Control>,
    logs: Arc<Logs>,
    handle: Option<Handle>,
}

/// An answer, read whole.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn message(&self) -> String {
        self.json().get("message").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

impl Bench {
    /// A node of no cluster.
    async fn inactive() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scope = Scope::root("test");
        let env = Env::system();
        let control = Arc::new(Control {
            state: Mutex::new(LocalState { hostname: "vm".into(), ..LocalState::default() }),
            vitals: Mutex::default(),
            init: Mutex::default(),
            join: Mutex::default(),
            followed: Mutex::default(),
            stores: watch::Sender::new(None),
            env: env.clone(),
        });
        let logs = Arc::new(Logs::default());
        let deps = Deps {
            env,
            control: Arc::<Control>::clone(&control),
            store: control.stores.subscribe(),
            logs: Arc::<Logs>::clone(&logs),
            engine: folder.path().join("engine.sock"),
        };
        let settings =
            Settings { socket: folder.path().join("api.sock"), group: None, metrics: None };
        let handle = serve(settings, deps, &scope).await.unwrap();
        Self { scope, folder, control, logs, handle: Some(handle) }
    }

    /// The first manager of a cluster.
    async fn manager() -> Self {
        let bench = Self::inactive().await;
        bench.control.init(InitRequest::default()).await.unwrap();
        bench
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    fn store(&self) -> Store {
        self.control.stores.borrow().clone().unwrap()
    }

    async fn send(&self, request: Request<Body>) -> http::Response<hyper::body::Incoming> {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        self.scope.spawn("client", async move {
            connection.with_upgrades().await.ok();
        });
        sender.send_request(request).await.unwrap()
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        self.whole(request.body(body.into()).unwrap()).await
    }

    async fn whole(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, Body::empty()).await
    }

    /// Creates the service of the sample and returns it as stored.
    async fn web(&self) -> Arc<Service> {
        let body = sample("POST services/create (docker CLI 28)");
        let answer = self.post("/v1.41/services/create", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let id: ServiceId = answer.json()["ID"].as_str().unwrap().parse().unwrap();
        let view = self.store().view();
        Arc::clone(view.service(id).unwrap())
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    let bench = Bench::inactive().await;
    let deps = |bench: &Bench| Deps {
        env: Env::system(),
        control: Arc::<Control>::clone(&bench.control),
        store: bench.control.stores.subscribe(),
        logs: Arc::<Logs>::clone(&bench.logs),
        engine: PathBuf::from("/nonexistent"),
    };
    let settings = Settings { socket: bench.socket(), group: None, metrics: None };
    let taken = serve(settings.clone(), deps(&bench), &bench.scope).await.unwrap_err();
    assert!(matches!(taken, ServeError::InUse { .. }), "{taken}");

    let stale = bench.folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let settings = Settings { socket: stale.clone(), group: None, metrics: None };
    let handle = serve(settings, deps(&bench), &bench.scope).await.unwrap();
    UnixStream::connect(&stale).await.unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&stale).unwrap());
    assert_eq!(mode & 0o777, 0o660);
    handle.shutdown(Duration::from_secs(1)).await;
    assert!(!stale.exists());

    let file = bench.folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let settings = Settings { socket: file, group: None, metrics: None };
    let refused = serve(settings, deps(&bench), &bench.scope).await.unwrap_err();
    assert!(matches!(refused, ServeError::NotASocket { .. }), "{refused}");

    let settings = Settings {
        socket: bench.folder.path().join("g"),
        group: Some("no-such-group".into()),
        metrics: None,
    };
    let refused = serve(settings, deps(&bench), &bench.scope).await.unwrap_err();
    assert!(matches!(refused, ServeError::NoSuchGroup { .. }), "{refused}");
}

#[tokio::test]
async fn a_shutdown_ends_connections_that_stream() {
    let mut bench = Bench::manager().await;
    let request = Request::builder().uri("/events").body(Body::empty()).unwrap();
    let mut body = bench.send(request).await.into_body();
    bench.handle.take().unwrap().shutdown(Duration::from_secs(2)).await;
    let rest = http_body_util::BodyExt::frame(&mut body).await;
    assert!(rest.is_none_or(|frame| frame.is_err()));
}
