//! The agent against the model of the engine and a manager made of channels.

use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::domain::assignment::Item;
use crate::domain::secret::{PayloadSpec, Sensitive};
use crate::domain::task::Slot;
use crate::domain::{
    Meta, Position, Secret, SecretId, ServiceId, ServiceSpec, SpecVersion, Task, TaskState,
    TaskStatus, Timestamp,
};
use crate::runtime::model::{Call, ModelRuntime, Up};
use crate::runtime::{ContainerPlan, Health, NodeFacts, Phase};
use crate::transport::{LinkError, SessionLink};
use crate::wire::node::agent_message::Kind as FromAgent;
use crate::wire::node::manager_message::Kind as ToAgent;
use crate::wire::node::{AgentMessage, LogMessage, ManagerMessage, ReportAck, Welcome};

const LONG: Duration = Duration::from_secs(10);
const NODE: NodeId = NodeId::from_bytes([4; 16]);

/// The other ends of one session.
struct Peer {
    to: mpsc::Sender<Result<ManagerMessage, LinkError>>,
    from: mpsc::Receiver<AgentMessage>,
}

#[derive(Debug)]
struct FakeLink {
    sessions: mpsc::Sender<Peer>,
}

#[async_trait]
impl ManagerLink for FakeLink {
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError> {
        let (outgoing, from) = mpsc::channel(16);
        let (to, incoming) = mpsc::channel(16);
        let closed = LinkError::Unreachable { addr, reason: "test is over".to_owned() };
        self.sessions.send(Peer { to, from }).await.map_err(|_| closed)?;
        Ok(SessionLink { outgoing, incoming })
    }

    async fn publish_logs(&self, addr: SocketAddr) -> Result<mpsc::Sender<LogMessage>, LinkError> {
        Err(LinkError::Unreachable { addr, reason: "not in this test".to_owned() })
    }
}

#[derive(Debug, Default)]
struct FakeFabric {
    applied: Mutex<Vec<Position>>,
}

#[async_trait]
impl Fabric for FakeFabric {
    async fn apply(&self, set: &AssignmentSet) -> Result<(), crate::overlay::Error> {
        self.applied.lock().unwrap().push(set.position);
        Ok(())
    }

    fn mtu(&self, _local: IpAddr) -> u32 {
        1450
    }

    async fn teardown(&self) -> Result<(), crate::overlay::Error> {
        Ok(())
    }
}

/// A node with an engine that outlives its agents.
struct World {
    env: Env,
    dir: tempfile::TempDir,
    engine: Arc<ModelRuntime>,
}

/// One life of the agent.
struct Life {
    agent: Handle,
    scope: Scope,
    sessions: mpsc::Receiver<Peer>,
}

/// A manager that talks to the agent and remembers its statuses.
struct Manager {
    peer: Peer,
    statuses: BTreeMap<TaskId, Vec<TaskStatus>>,
    reports: u64,
    sent: AssignmentSet,
}

impl World {
    fn new() -> Self {
        Self {
            env: Env::system(),
            dir: tempfile::tempdir().unwrap(),
            engine: Arc::new(ModelRuntime::new()),
        }
    }

    async fn start(&self) -> Life {
        let (sessions, receiver) = mpsc::channel(4);
        let scope = Scope::root("test");
        let settings = Settings {
            data_dir: self.dir.path().join("data"),
            run_dir: self.dir.path().join("run"),
            node: NODE,
            addr: "10.9.9.1".parse().unwrap(),
            managers: vec!["10.9.9.1:2377".parse().unwrap()],
            timing: Timing { drain: Duration::from_millis(20), ..Timing::DEFAULT },
        };
        let deps = Deps {
            env: self.env.clone(),
            runtime: Arc::clone(&self.engine) as Arc<dyn Runtime>,
            link: Arc::new(FakeLink { sessions }),
            overlay: Arc::new(FakeFabric::default()),
        };
        let agent = start(settings, deps, &scope).await.unwrap();
        Life { agent, scope, sessions: receiver }
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = self.env.clock.instant();
        while !holds() {
            let waited = self.env.clock.instant().since(begun);
            assert!(waited < LONG, "{what}: {:?}", self.engine.calls());
            self.env.clock.sleep(Duration::from_millis(2)).await;
        }
    }

    fn count(&self, call: &Call) -> usize {
        self.engine.calls().iter().filter(|made| *made == call).count()
    }
}

impl Life {
    /// The kill of an agent: whatever it does, it does no more.
    async fn kill(self) {
        assert!(self.agent.scope.shutdown(LONG).await);
        self.scope.shutdown(LONG).await;
    }

    async fn manager(&mut self) -> Manager {
        let peer = self.sessions.recv().await.unwrap();
        let mut manager =
            Manager { peer, statuses: BTreeMap::new(), reports: 0, sent: AssignmentSet::default() };
        let first = manager.peer.from.recv().await.unwrap();
        let Some(FromAgent::Hello(hello)) = first.kind else { panic!("no hello: {first:?}") };
        assert_eq!(hello.addr.len(), 4);
        for report in hello.reports {
            manager.note(report);
        }
        manager.say(ToAgent::Welcome(Welcome { heartbeat_ms: 20, ..Welcome::default() })).await;
        manager
    }
}

impl Manager {
    async fn say(&self, kind: ToAgent) {
        self.peer.to.send(Ok(ManagerMessage { kind: Some(kind) })).await.unwrap();
    }

    fn note(&mut self, report: crate::wire::node::TaskReport) {
        let task = TaskId::from_slice(&report.task).unwrap();
        let status = TaskStatus::try_from(report.status.unwrap()).unwrap();
        self.statuses.entry(task).or_default().push(status);
    }

    /// Sends a set, the first of a session whole, later ones as differences.
    async fn assign(&mut self, set: AssignmentSet) {
        let first = self.sent.position == Position::default();
        let diff = if first { set.complete() } else { self.sent.diff(&set) };
        self.say(ToAgent::Assignments((&diff).into())).await;
        self.sent = set;
    }

    /// Receives until a task has a state.
    async fn until(&mut self, env: &Env, task: TaskId, state: TaskState) -> TaskStatus {
        loop {
            if let Some(status) = self.statuses.get(&task).and_then(|all| all.last())
                && status.state == state
            {
                return status.clone();
            }
            let known = format!("{:?}", self.statuses.get(&task));
            let message = env.clock.timeout(LONG, self.peer.from.recv()).await;
            let message = message.unwrap_or_else(|_| panic!("waiting for {state}: {known}"));
            match message.expect("the agent closed the session").kind {
                Some(FromAgent::Report(report)) => {
                    report.tasks.into_iter().for_each(|report| self.note(report));
                    self.reports += 1;
                    self.say(ToAgent::Ack(ReportAck { reports: self.reports })).await;
                }
                Some(FromAgent::Heartbeat(_)) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

fn task(number: u8, desired: TaskState) -> Task {
    Task {
        id: TaskId::from_bytes([number; 16]),
        meta: Meta::default(),
        service: ServiceId::from_bytes([number; 16]),
        spec: 1,
        slot: Slot::Number(1),
        node: Some(NODE),
        addresses: Vec::new(),
        desired,
        not_before: Timestamp(0),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
    }
}

fn spec(args: &[&str]) -> Value {
    json!({
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Args": args},
            "Networks": [{"Target": "host"}]
        }
    })
}

fn set(index: u64, tasks: &[(Task, Value)]) -> AssignmentSet {
    let mut set = AssignmentSet::at(Position { term: 1, index });
    for (task, spec) in tasks {
        set.insert(Item::Task(Arc::new(task.clone())));
        let spec: ServiceSpec = serde_json::from_value(spec.clone()).unwrap();
        set.insert(Item::SpecVersion(Arc::new(SpecVersion {
            service: task.service,
            number: 1,
            spec: Arc::new(spec),
        })));
    }
    set
}

fn one(index: u64, desired: TaskState, spec: &Value) -> (TaskId, AssignmentSet) {
    let task = task(1, desired);
    (task.id, set(index, &[(task, spec.clone())]))
}

#[tokio::test]
async fn task_lives_and_ends_as_assigned() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let spec = spec(&["sleep"]);
    let (id, running) = one(1, TaskState::Running, &spec);
    manager.assign(running).await;
    let status = manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!((status.message.as_str(), status.error.as_str()), ("started", ""));
    assert!(status.container.unwrap().pid > 0);
    assert_eq!(life.agent.local().borrow().get(&id), Some(&true));
    let made = vec![Call::Create(id), Call::Start(id)];
    assert_eq!(world.engine.calls(), made, "nothing else stands before a start");

    manager.assign(one(2, TaskState::Shutdown, &spec).1).await;
    let status = manager.until(&world.env, id, TaskState::Shutdown).await;
    assert_eq!(status.message, "shutdown");
    assert_eq!(status.container.unwrap().exit_code, Some(137));
    assert_eq!(life.agent.local().borrow().get(&id), Some(&false));
    assert_eq!(world.count(&Call::Remove(id)), 0, "what has stopped stays for its logs");

    manager.assign(set(3, &[])).await;
    world.until("removed", || world.count(&Call::Remove(id)) == 1).await;
    world.until("forgotten", || life.agent.local().borrow().is_empty()).await;
    life.kill().await;
}

#[tokio::test]
async fn statuses_tell_how_a_task_ended() {
    for (args, state, error) in [
        (["true"], TaskState::Complete, ""),
        (["exit 3"], TaskState::Failed, "task: non-zero exit (3)"),
    ] {
        let world = World::new();
        let mut life = world.start().await;
        let mut manager = life.manager().await;
        let (id, running) = one(1, TaskState::Running, &spec(&args));
        manager.assign(running).await;
        let status = manager.until(&world.env, id, state).await;
        assert_eq!(status.error, error);
        let states: Vec<_> = manager.statuses[&id].iter().map(|status| status.state).collect();
        assert!(states.is_sorted(), "{states:?}");
        life.kill().await;
    }
}

#[tokio::test]
async fn restarted_agent_adopts_what_runs() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(7, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running.clone()).await;
    let before = manager.until(&world.env, id, TaskState::Running).await;
    life.kill().await;

    let mut life = world.start().await;
    assert_eq!(*life.agent.assignments().borrow().as_ref(), running, "from the ledger");
    let local = life.agent.local();
    world.until("adopted without a manager", || local.borrow().get(&id) == Some(&true)).await;
    let mut manager = life.manager().await;
    let after = manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!(after.container, before.container, "the same process");
    manager.assign(running).await;
    assert_eq!(world.engine.calls(), [Call::Create(id), Call::Start(id)]);
    life.kill().await;
}

#[tokio::test]
async fn crash_between_create_and_start_is_made_good() {
    let world = World::new();
    let spec = spec(&["sleep"]);
    let task = task(1, TaskState::Running);
    let plan = ContainerPlan {
        task: Arc::new(task.clone()),
        spec: Arc::new(serde_json::from_value(spec.clone()).unwrap()),
        node: NodeFacts { id: NODE, ..NodeFacts::default() },
        network: None,
        files_dir: PathBuf::from("/nonexistent"),
    };
    world.engine.plant(&plan, Phase::Created);
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    manager.assign(set(1, &[(task.clone(), spec)])).await;
    manager.until(&world.env, task.id, TaskState::Running).await;
    assert_eq!(world.engine.list().await.unwrap().len(), 1);
    assert_eq!(world.count(&Call::Start(task.id)), 1);
    life.kill().await;
}

#[tokio::test]
async fn container_that_nobody_knows_goes_after_the_managers_word() {
    let world = World::new();
    let stray = task(9, TaskState::Running);
    let plan = ContainerPlan {
        task: Arc::new(stray.clone()),
        spec: Arc::new(serde_json::from_value(spec(&["sleep"])).unwrap()),
        node: NodeFacts { id: NODE, ..NodeFacts::default() },
        network: None,
        files_dir: PathBuf::from("/nonexistent"),
    };
    world.engine.plant(&plan, Phase::Running(Health::Unchecked));
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    world.env.clock.sleep(Duration::from_millis(50)).await;
    assert_eq!(world.engine.calls(), [], "without a manager's word nothing is removed");
    manager.assign(set(1, &[])).await;
    world.until("removed", || world.count(&Call::Remove(stray.id)) == 1).await;
    assert_eq!(world.engine.list().await.unwrap(), []);
    life.kill().await;
}

#[tokio::test]
async fn older_assignments_are_refused() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let spec = spec(&["sleep"]);
    let (id, running) = one(5, TaskState::Running, &spec);
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Running).await;
    // A manager that lags sends an empty world from before.
    manager.sent = AssignmentSet::default();
    manager.assign(set(4, &[])).await;
    let mut next = life.manager().await;
    assert_eq!(life.agent.assignments().borrow().position.index, 5);
    assert_eq!(world.count(&Call::Stop(id)), 0);
    // The same set again changes nothing.
    next.assign(one(5, TaskState::Running, &spec).1).await;
    next.assign(one(6, TaskState::Running, &spec).1).await;
    let sets = life.agent.assignments();
    world.until("position", || sets.borrow().position.index == 6).await;
    assert_eq!(world.engine.calls(), [Call::Create(id), Call::Start(id)]);
    life.kill().await;
}

#[tokio::test]
async fn health_gates_serving_and_ends_the_task() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let mut spec = spec(&["sleep"]);
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({"Test": ["CMD", "true"]});
    let (id, running) = one(1, TaskState::Running, &spec);
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Starting).await;
    world.until("started", || world.count(&Call::Start(id)) == 1).await;
    assert_eq!(life.agent.local().borrow().get(&id), Some(&false));
    world.engine.set_health(id, Health::Healthy);
    manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!(life.agent.local().borrow().get(&id), Some(&true));
    world.engine.set_health(id, Health::Unhealthy);
    let status = manager.until(&world.env, id, TaskState::Failed).await;
    assert_eq!(status.error, "task: non-zero exit (137): dockerexec: unhealthy container");
    assert_eq!(life.agent.local().borrow().get(&id), Some(&false));
    life.kill().await;
}

#[tokio::test]
async fn image_is_pulled_only_when_absent_and_its_absence_rejects() {
    let world = World::new();
    world.engine.publish_image("there:1");
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let image = |name: &str| {
        let mut spec = spec(&["sleep"]);
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(name);
        spec
    };
    let (good, bad) = (task(1, TaskState::Running), task(2, TaskState::Running));
    let tasks = [(good.clone(), image("there:1")), (bad.clone(), image("nope:1"))];
    manager.assign(set(1, &tasks)).await;
    manager.until(&world.env, good.id, TaskState::Running).await;
    let status = manager.until(&world.env, bad.id, TaskState::Rejected).await;
    assert!(status.error.starts_with("No such image: nope:1"), "{}", status.error);
    assert_eq!(status.message, "preparing");
    assert_eq!(world.count(&Call::Pull("there:1".to_owned())), 1);
    life.kill().await;
}

#[tokio::test]
async fn port_of_somebody_else_rejects_the_task() {
    let world = World::new();
    world.engine.take_port(8080);
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let mut spec = spec(&["sleep"]);
    spec["EndpointSpec"] =
        json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]});
    let (id, running) = one(1, TaskState::Running, &spec);
    manager.assign(running).await;
    let status = manager.until(&world.env, id, TaskState::Rejected).await;
    assert!(status.error.contains("address already in use"), "{}", status.error);
    life.kill().await;
}

#[tokio::test]
async fn node_without_engine_says_so_and_goes_on_when_it_comes() {
    let world = World::new();
    world.engine.set_up(Up::Down);
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running).await;
    let status = manager.until(&world.env, id, TaskState::Preparing).await;
    world.until("degraded", || life.agent.describe().degraded.contains("engine is down")).await;
    assert!(status.error.is_empty() || status.error.contains("engine is down"));
    world.engine.set_up(Up::Answers);
    manager.until(&world.env, id, TaskState::Running).await;
    world.until("well again", || life.agent.describe().degraded.is_empty()).await;
    life.kill().await;
}

#[tokio::test]
async fn task_waits_for_its_secret_and_its_files_go_with_it() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let secret = SecretId::from_bytes([7; 16]);
    let mut spec = spec(&["sleep"]);
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{
        "SecretID": secret, "SecretName": "key",
        "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400}
    }]);
    let (id, without) = one(1, TaskState::Running, &spec);
    manager.assign(without).await;
    manager.until(&world.env, id, TaskState::Preparing).await;
    let (_, mut with) = one(2, TaskState::Running, &spec);
    with.insert(Item::Secret(Arc::new(Secret {
        id: secret,
        meta: Meta::default(),
        spec: PayloadSpec::default(),
        data: Sensitive::new(b"hush"),
    })));
    manager.assign(with).await;
    manager.until(&world.env, id, TaskState::Running).await;
    let dir = world.dir.path().join("run/tasks").join(id.to_string());
    let file = dir.join("secrets").join(secret.to_string());
    assert_eq!(std::fs::read(file).unwrap(), b"hush");
    manager.assign(set(3, &[])).await;
    world.until("files removed", || !dir.exists()).await;
    life.kill().await;
}

#[tokio::test]
async fn assignments_are_on_the_disk_before_anything_happens() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(3, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running.clone()).await;
    world.until("created", || world.count(&Call::Create(id)) == 1).await;
    let copy = world.dir.path().join("copy");
    std::fs::copy(world.dir.path().join("data/ledger"), &copy).unwrap();
    let key = world.dir.path().join("run/ledger.key");
    let ledger = Ledger::open(&copy, &key, Arc::clone(&world.env.entropy)).unwrap();
    assert_eq!(ledger.memory().set, running);
    life.kill().await;
}

#[tokio::test]
async fn leaving_removes_everything() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!(life.agent.clone().leave().await, Vec::<String>::new());
    assert_eq!(world.engine.list().await.unwrap(), []);
    assert!(!world.dir.path().join("data/ledger").exists());
    assert!(!world.dir.path().join("run/tasks").exists());
}
