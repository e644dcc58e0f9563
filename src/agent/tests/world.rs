//! The world of the agent's tests: an engine that outlives agents, and a manager to talk to them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::agent::{Deps, Fabric, Guard, Handle, Settings, start};
use crate::domain::timing::Timing;
use crate::domain::{AssignmentSet, NodeId, Position, TaskId, TaskState, TaskStatus};
use crate::env::{Env, Scope};
use crate::runtime::Runtime;
use crate::runtime::model::{Call, ModelRuntime};
use crate::transport::{LinkError, ManagerLink, SessionLink};
use crate::wire::node::agent_message::Kind as FromAgent;
use crate::wire::node::manager_message::Kind as ToAgent;
use crate::wire::node::{AgentMessage, LogMessage, ManagerMessage, ReportAck, Welcome};

pub(super) const LONG: Duration = Duration::from_secs(10);
pub(super) const NODE: NodeId = NodeId::from_bytes([4; 16]);

/// The other ends of one session.
pub(super) struct Peer {
    /// Where the agent believes to be connected.
    pub(super) addr: SocketAddr,
    to: mpsc::Sender<Result<ManagerMessage, LinkError>>,
    pub(super) from: mpsc::Receiver<AgentMessage>,
}

#[derive(Debug)]
struct FakeLink {
    sessions: mpsc::Sender<Peer>,
    refused: Arc<Refused>,
}

/// Managers that are not to be had: one that refuses, with how often it was asked, and those that never
/// answer.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) who: Mutex<Option<SocketAddr>>,
    pub(super) asked: AtomicUsize,
    pub(super) silent: Mutex<Vec<SocketAddr>>,
}

#[async_trait]
impl ManagerLink for FakeLink {
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError> {
        if *self.refused.who.lock().unwrap() == Some(addr) {
            self.refused.asked.fetch_add(1, Ordering::Relaxed);
            return Err(LinkError::Unreachable { addr, reason: "refused".to_owned() });
        }
        if self.refused.silent.lock().unwrap().contains(&addr) {
            std::future::pending::<()>().await;
        }
        let (outgoing, from) = mpsc::channel(1024);
        let (to, incoming) = mpsc::channel(16);
        let closed = LinkError::Unreachable { addr, reason: "test is over".to_owned() };
        self.sessions.send(Peer { addr, to, from }).await.map_err(|_| closed)?;
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
pub(super) struct World {
    pub(super) env: Env,
    pub(super) dir: tempfile::TempDir,
    pub(super) engine: Arc<ModelRuntime>,
    pub(super) guard: Guard,
    pub(super) refused: Arc<Refused>,
}

/// One life of the agent.
pub(super) struct Life {
    pub(super) agent: Handle,
    pub(super) scope: Scope,
    sessions: mpsc::Receiver<Peer>,
}

/// A manager that talks to the agent and remembers its statuses.
pub(super) struct Manager {
    pub(super) peer: Peer,
    pub(super) statuses: BTreeMap<TaskId, Vec<TaskStatus>>,
    /// What the agent said in its Hello of the roots that it trusts.
    pub(super) trusted: bytes::Bytes,
    reports: u64,
    pub(super) sent: AssignmentSet,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            env: Env::system(),
            dir: tempfile::tempdir().unwrap(),
            engine: Arc::new(ModelRuntime::new()),
            guard: Guard::open(),
            refused: Arc::default(),
        }
    }

    pub(super) async fn start(&self) -> Life {
        let (sessions, receiver) = mpsc::channel(4);
        let scope = Scope::root("test");
        let settings = Settings {
            data_dir: self.dir.path().join("data"),
            run_dir: self.dir.path().join("run"),
            node: NODE,
            addr: "10.9.9.1".parse().unwrap(),
            managers: vec!["10.9.9.1:2377".parse().unwrap()],
            timing: Timing {
                drain: Duration::from_millis(20),
                restart_grace: Duration::from_millis(40),
                ..Timing::DEFAULT
            },
            guard: self.guard.clone(),
        };
        let deps = Deps {
            env: self.env.clone(),
            runtime: Arc::clone(&self.engine) as Arc<dyn Runtime>,
            link: Arc::new(FakeLink { sessions, refused: Arc::clone(&self.refused) }),
            overlay: Arc::new(FakeFabric::default()),
        };
        let agent = start(settings, deps, &scope).await.unwrap();
        Life { agent, scope, sessions: receiver }
    }

    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = self.env.clock.instant();
        while !holds() {
            let waited = self.env.clock.instant().since(begun);
            assert!(waited < LONG, "{what}: {:?}", self.engine.calls());
            self.env.clock.sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) fn count(&self, call: &Call) -> usize {
        self.engine.calls().iter().filter(|made| *made == call).count()
    }
}

impl Life {
    /// The kill of an agent: whatever it does, it does no more.
    pub(super) async fn kill(self) {
        assert!(self.agent.scope.shutdown(LONG).await);
        self.scope.shutdown(LONG).await;
    }

    pub(super) async fn manager(&mut self) -> Manager {
        let manager = self.greeted().await;
        manager.welcome().await;
        manager
    }

    /// A manager that the agent has said hello to.
    pub(super) async fn greeted(&mut self) -> Manager {
        let peer = self.sessions.recv().await.unwrap();
        let mut manager = Manager {
            peer,
            statuses: BTreeMap::new(),
            trusted: bytes::Bytes::new(),
            reports: 0,
            sent: AssignmentSet::default(),
        };
        let first = manager.peer.from.recv().await.unwrap();
        let Some(FromAgent::Hello(hello)) = first.kind else { panic!("no hello: {first:?}") };
        assert_eq!(hello.addr.len(), 4);
        manager.trusted = hello.trust;
        for report in hello.reports {
            manager.note(report);
        }
        manager
    }
}

impl Manager {
    pub(super) async fn welcome(&self) {
        self.say(ToAgent::Welcome(Welcome { heartbeat_ms: 20, ..Welcome::default() })).await;
    }

    pub(super) async fn say(&self, kind: ToAgent) {
        self.peer.to.send(Ok(ManagerMessage { kind: Some(kind) })).await.unwrap();
    }

    /// Waits until the agent has ended the session.
    pub(super) async fn left(mut self, env: &Env) {
        let rest = async { while self.peer.from.recv().await.is_some() {} };
        env.clock.timeout(LONG, rest).await.expect("the agent does not leave");
    }

    fn note(&mut self, report: crate::wire::node::TaskReport) {
        let task = TaskId::from_slice(&report.task).unwrap();
        let status = TaskStatus::try_from(report.status.unwrap()).unwrap();
        self.statuses.entry(task).or_default().push(status);
    }

    /// Sends a set, the first of a session whole, later ones as differences.
    pub(super) async fn assign(&mut self, set: AssignmentSet) {
        let first = self.sent.position == Position::default();
        let diff = if first { set.complete() } else { self.sent.diff(&set) };
        self.say(ToAgent::Assignments((&diff).into())).await;
        self.sent = set;
    }

    /// Receives until the agent says which roots it trusts.
    pub(super) async fn until_trusted(&mut self, env: &Env) -> bytes::Bytes {
        loop {
            let message = env.clock.timeout(LONG, self.peer.from.recv()).await;
            let message = message.expect("the agent says nothing of its roots");
            if let Some(FromAgent::Report(report)) = message.unwrap().kind {
                self.reports += 1;
                self.say(ToAgent::Ack(ReportAck { reports: self.reports })).await;
                if !report.trust.is_empty() {
                    return report.trust;
                }
            }
        }
    }

    /// Receives until a task has a state.
    pub(super) async fn until(&mut self, env: &Env, task: TaskId, state: TaskState) -> TaskStatus {
        // Heartbeats come all the time: it is the whole wait that has an end.
        let begun = env.clock.instant();
        loop {
            if let Some(status) = self.statuses.get(&task).and_then(|all| all.last())
                && status.state == state
            {
                return status.clone();
            }
            let known = format!("{:?}", self.statuses.get(&task));
            assert!(env.clock.instant().since(begun) < LONG, "waiting for {state}: {known}");
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
