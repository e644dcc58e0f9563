//! A simulated machine of a cluster: disks, an engine and a network that outlive its process, and
//! while it runs a process with the worker half of a node and, on managers, the manager half.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use swarm::agent::{self, Fabric};
use swarm::daemon::duties::{self, Duties, Ways};
use swarm::domain::node::Role;
use swarm::domain::timing::Timing;
use swarm::domain::{NodeId, RaftId, SpecPolicy};
use swarm::env::{Env, Faults, Scope};
use swarm::raft::{self, Compaction, Handle};
use tokio::runtime::{Builder, RngSeed, Runtime};

use super::engine::Engine;
use super::fabric::SimFabric;
use super::links::{self, AgentLink, Door, LeaseWay, Pipes};
use super::roles;
use crate::chance::{Chance, SeededEntropy};
use crate::clients::Shared;
use crate::device::{Death, SimDevice};
use crate::host::{Membership, SimClock, SimMachine};
use crate::net::{self, Call, Host, Message, Net, State};

/// As in production but for the number of entries, so that snapshots are made and sent.
const COMPACTION: Compaction = Compaction { entries: 400, kept: 100, bytes: 1 << 20 };
/// What a manager half gets to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A machine to which nothing has come is stepped this often.
const IDLE: u128 = 8;

type Slot<T> = Arc<Mutex<Option<T>>>;

/// A manager half that has started.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    pub(crate) raft: Handle,
    pub(crate) duties: Duties,
    pub(crate) env: Env,
    pub(crate) scope: Scope,
}

/// What a node wants in the matter of its role: a certificate, a place among the managers, or to give
/// its place up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    Certificate,
    Membership,
    Leaving,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Certified(Role),
    Joined(RaftId),
    Left,
}

struct Process {
    executor: Runtime,
    scope: Scope,
    env: Env,
    pipes: Pipes,
    epoch: (tokio::time::Instant, Duration),
    manager_started: Slot<Result<Manager, raft::Error>>,
    agent_started: Slot<Result<agent::Handle, agent::Error>>,
    manager: Option<Manager>,
    agent: Option<agent::Handle>,
    /// An errand that is being run, and what came of it.
    errand: Option<Slot<Answered>>,
}

/// A machine.
pub(crate) struct Server {
    pub(crate) host: Host,
    /// The manager's disk and the agent's.
    pub(crate) disk: SimDevice,
    pub(crate) data: SimDevice,
    pub(crate) engine: Engine,
    pub(crate) fabric: Arc<SimFabric>,
    pub(crate) run_dir: PathBuf,
    pub(crate) membership: Option<Membership>,
    /// Which node it is, once it is one.
    pub(crate) node: Option<NodeId>,
    /// The managers that it was told of when it became a node.
    pub(crate) managers: Vec<SocketAddr>,
    certificate: Arc<Mutex<Role>>,
    pub(crate) paused_until: Duration,
    pub(crate) skew_millis: Arc<AtomicI64>,
    process: Option<Process>,
    chance: Chance,
    net: Net,
    faults: Faults,
}

/// What became of a process.
pub(crate) enum Occurrence {
    Manages(Box<Manager>),
    Works,
    Died(Death),
    Refused(String),
}

impl Server {
    pub(crate) fn new(host: Host, mut chance: Chance, net: Net, run_dir: PathBuf) -> Self {
        let disk = SimDevice::new(chance.fork(1));
        let data = SimDevice::new(chance.fork(2));
        let engine = Engine::new(chance.fork(3));
        Self {
            host,
            disk,
            data,
            engine,
            fabric: Arc::default(),
            run_dir,
            membership: None,
            node: None,
            managers: Vec::new(),
            certificate: Arc::default(),
            paused_until: Duration::ZERO,
            skew_millis: Arc::default(),
            process: None,
            chance,
            net,
            faults: Faults::NONE,
        }
    }

    pub(crate) const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The role that its certificate says.
    pub(crate) fn certificate(&self) -> Role {
        *self.certificate.lock().unwrap()
    }

    pub(crate) fn set_certificate(&self, role: Role) {
        *self.certificate.lock().unwrap() = role;
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn manager(&self) -> Option<&Manager> {
        self.process.as_ref().and_then(|process| process.manager.as_ref())
    }

    pub(crate) fn agent(&self) -> Option<&agent::Handle> {
        self.process.as_ref().and_then(|process| process.agent.as_ref())
    }

    fn env(&mut self, now: Duration, started: tokio::time::Instant, device: &SimDevice) -> Env {
        Env {
            clock: Arc::new(SimClock::new(now, started, &self.skew_millis)),
            entropy: Arc::new(SeededEntropy::new(self.chance.fork(2))),
            device: Arc::new(device.clone()),
            machine: Arc::new(SimMachine { host: self.host }),
            faults: self.faults,
            meters: Arc::default(),
        }
    }

    /// Starts a process: the halves of the node that it is.
    pub(crate) fn start(&mut self, now: Duration) {
        let seed = self.chance.next().to_le_bytes();
        let executor = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed))
            .build()
            .unwrap();
        let started = executor.block_on(async { tokio::time::Instant::now() });
        let scope = Scope::simulated("host", Arc::new(self.data.clone()));
        let data = self.data.clone();
        let env = self.env(now, started, &data);
        self.process = Some(Process {
            executor,
            scope,
            env,
            pipes: Pipes::default(),
            epoch: (started, now),
            manager_started: Slot::default(),
            agent_started: Slot::default(),
            manager: None,
            agent: None,
            errand: None,
        });
        // Until the manager half answers; others' sessions are opened by it only.
        self.net.set_machine(self.host, State::Refuses);
        if self.node.is_some() {
            self.work();
        }
        if let Some(membership) = self.membership {
            self.manage(membership);
        }
    }

    /// Starts the worker half.
    pub(crate) fn work(&mut self) {
        let (Some(process), Some(node)) = (&self.process, self.node) else { return };
        let (env, scope) = (process.env.clone(), process.scope.clone());
        let link = AgentLink {
            net: self.net.clone(),
            host: self.host,
            node,
            certificate: Arc::clone(&self.certificate),
            env: env.clone(),
            scope: scope.clone(),
            pipes: Arc::clone(&process.pipes),
        };
        let deps = agent::Deps {
            env: env.clone(),
            runtime: self.engine.runtime(&env),
            link: Arc::new(link),
            overlay: Arc::clone(&self.fabric) as Arc<dyn Fabric>,
        };
        let settings = agent::Settings {
            data_dir: "/a".into(),
            run_dir: self.run_dir.clone(),
            node,
            addr: net::addr(self.host).ip(),
            managers: self.managers.clone(),
            timing: Timing::DEFAULT,
            guard: agent::Guard::new(SpecPolicy::default(), &[], Path::new("")),
        };
        let slot = Arc::clone(&process.agent_started);
        let outer = scope.clone();
        process.executor.block_on(async {
            scope.spawn("start agent", async move {
                let started = agent::start(settings, deps, &outer).await;
                *slot.lock().unwrap() = Some(started);
            });
        });
    }

    /// Starts the manager half.
    pub(crate) fn manage(&mut self, membership: Membership) {
        self.membership = Some(membership);
        let Some(process) = &self.process else { return };
        let (now, started) = (process.epoch.1, process.epoch.0);
        let disk = self.disk.clone();
        let env = self.env(now, started, &disk);
        let Some(process) = &self.process else { return };
        let scope = Scope::simulated("manager", Arc::new(self.disk.clone()));
        let settings = raft::Settings {
            dir: "/m".into(),
            raft_id: membership.raft_id,
            node: membership.node,
            addr: net::addr(self.host),
            timing: Timing::DEFAULT,
            key: [7; 32],
            compaction: COMPACTION,
        };
        let link = self.net.link(self.host, &env);
        let leases = LeaseWay { net: self.net.clone(), host: self.host, env: env.clone() };
        let slot = Arc::clone(&process.manager_started);
        process.executor.block_on(async {
            let outer = scope.clone();
            scope.spawn("start manager", async move {
                let started = raft::start(settings, env.clone(), link, &outer).await;
                let started = started.map(|raft| {
                    let dial: swarm::leader::Dial =
                        Arc::new(|_| unreachable!("nobody asks for output"));
                    let timing = Timing::DEFAULT;
                    let ways = Ways { timing, leases: Arc::new(leases), dial };
                    let duties = duties::start(&env, membership.node, &raft, ways, &outer);
                    Manager { raft, duties, env, scope: outer }
                });
                *slot.lock().unwrap() = Some(started);
            });
        });
    }

    /// Begins to do what its role asks for, unless something is being done already.
    pub(crate) fn run_errand(&mut self, errand: Errand) {
        let (net, host, node) = (self.net.clone(), self.host, self.node.unwrap_or_default());
        let Some(process) = self.process.as_mut().filter(|it| it.errand.is_none()) else { return };
        let Some(agent) = &process.agent else { return };
        let managers: Vec<_> = agent.managers().borrow().iter().map(|(_, addr)| *addr).collect();
        let env = process.env.clone();
        let ask = |call| roles::ask(net, env, host, (managers, call)).boxed();
        let work = match errand {
            Errand::Certificate => ask(Call::Certify(node)),
            Errand::Membership => ask(Call::Join(node, net::addr(host))),
            Errand::Leaving => {
                let Some(manager) = process.manager.take() else { return };
                self.net.set_machine(host, State::Refuses);
                let ended = async move {
                    manager.raft.shutdown().await;
                    manager.scope.shutdown(STOP_LIMIT).await;
                    Answered::Left
                };
                ended.boxed()
            }
        };
        let slot = Slot::default();
        process.errand = Some(Arc::clone(&slot));
        process.executor.block_on(async {
            process.scope.spawn("errand", async move {
                let answered = work.await;
                *slot.lock().unwrap() = Some(answered);
            });
        });
    }

    /// What came of an errand.
    pub(crate) fn answered(&mut self) -> Option<Answered> {
        let process = self.process.as_mut()?;
        let answered = process.errand.as_ref()?.lock().unwrap().take();
        process.errand.take_if(|_| answered.is_some());
        answered
    }

    /// What the manager half had on its disk is gone.
    pub(crate) fn forget(&mut self) {
        self.membership = None;
        self.disk.replace();
    }

    /// Ends the process at once; a power cut takes what lies in memory, and the containers.
    pub(crate) fn kill(&mut self, death: Death) {
        self.process = None;
        self.disk.reboot(death);
        self.data.reboot(death);
        if death == Death::PowerCut {
            self.engine.model.end_all();
            if let Err(error) = std::fs::remove_dir_all(&self.run_dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                panic!("{}: {error}", self.run_dir.display());
            }
            self.net.set_machine(self.host, State::Silent);
        } else {
            self.net.died(self.host);
            self.net.set_machine(self.host, State::Refuses);
        }
    }

    /// The machine is wiped and will be another node.
    pub(crate) fn become_other(&mut self, node: NodeId) {
        self.kill(Death::PowerCut);
        self.data.replace();
        for container in self.engine.model.containers() {
            self.engine.model.forget(container.task);
        }
        self.node = Some(node);
        self.set_certificate(Role::Worker);
    }

    /// Runs a routine in the manager half.
    pub(crate) fn spawn(&self, routine: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process
            && let Some(manager) = &process.manager
        {
            process.executor.block_on(async { manager.scope.spawn("routine", routine) });
        }
    }

    /// Runs something in the process that does not wait.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let process = self.process.as_ref()?;
        Some(process.executor.block_on(async { work() }))
    }

    /// Whether it is worth stepping the machine.
    pub(crate) fn is_due(&self, until: Duration, messages: &[Message]) -> bool {
        let phase = until.as_millis() + self.host as u128;
        !messages.is_empty() || self.manager().is_some() || phase.is_multiple_of(IDLE)
    }

    /// Lets time pass until `until`; messages that have arrived are answered.
    pub(crate) fn step(
        &mut self,
        until: Duration,
        messages: Vec<Message>,
        oracle: &Shared,
    ) -> Option<Occurrence> {
        let was_paused = self.paused_until > Duration::ZERO;
        self.paused_until = Duration::ZERO;
        let process = self.process.as_mut()?;
        let deadline = process.epoch.0 + until.saturating_sub(process.epoch.1);
        let door = process.manager.as_ref().map(|manager| Door {
            net: self.net.clone(),
            host: self.host,
            env: manager.env.clone(),
            scope: process.scope.clone(),
            pipes: Arc::clone(&process.pipes),
            store: manager.raft.store(),
            duties: manager.duties.clone(),
        });
        let inbound = process.manager.as_ref().map(|manager| manager.raft.inbound());
        let at = Arrivals { net: &self.net, host: self.host, door, inbound };
        let (scope, pipes) = (&process.scope, &process.pipes);
        process.executor.block_on(async {
            let before = deadline - Duration::from_millis(1);
            if was_paused {
                // Time passed, and nothing else.
                let missed = before.saturating_duration_since(tokio::time::Instant::now());
                tokio::time::advance(missed).await;
            }
            tokio::time::sleep_until(before).await;
            for message in messages {
                at.take(message, scope, pipes, oracle);
            }
            tokio::time::sleep_until(deadline).await;
        });
        self.outcome()
    }

    fn outcome(&mut self) -> Option<Occurrence> {
        if let Some(death) = self.disk.death().or_else(|| self.data.death()) {
            return Some(Occurrence::Died(death));
        }
        let process = self.process.as_mut()?;
        let managed = process.manager_started.lock().unwrap().take();
        if let Some(outcome) = managed {
            return Some(match outcome {
                Ok(manager) => {
                    process.manager = Some(manager.clone());
                    self.net.set_machine(self.host, State::Serves);
                    Occurrence::Manages(Box::new(manager))
                }
                Err(error) => Occurrence::Refused(error.to_string()),
            });
        }
        let worked = process.agent_started.lock().unwrap().take();
        worked.map(|outcome| match outcome {
            Ok(agent) => {
                process.agent = Some(agent);
                Occurrence::Works
            }
            Err(error) => Occurrence::Refused(error.to_string()),
        })
    }
}

/// A process as the messages find it.
struct Arrivals<'a> {
    net: &'a Net,
    host: Host,
    door: Option<Door>,
    inbound: Option<raft::Inbound>,
}

impl Arrivals<'_> {
    fn take(&self, message: Message, scope: &Scope, pipes: &Pipes, oracle: &Shared) {
        let (id, from, to, call) = match message {
            Message::Reply { id, reply } => return self.net.complete(id, reply),
            Message::Packet { conn, end, packet } => {
                return links::deliver(self.net, pipes, (conn, end), packet);
            }
            Message::Due { .. } => return,
            Message::Request { id, from, to, call } => (id, from, to, call),
        };
        let (net, host) = (self.net.clone(), self.host);
        let (door, inbound, oracle) = (self.door.clone(), self.inbound.clone(), Arc::clone(oracle));
        scope.spawn("serve", async move {
            let refused =
                || raft::PeerError::Unreachable { addr: to.addr, reason: "refused".to_owned() };
            let reply = match (call, door) {
                (Call::Leases(batch), Some(door)) => door.leases(&batch),
                (Call::Open(conn, node, role), Some(door)) => door.open(conn, node, role).await,
                (Call::Certify(node), Some(door)) => door.certify(node).await,
                (Call::Join(node, addr), Some(door)) => door.join(node, addr).await,
                (Call::Leases(_) | Call::Open(..) | Call::Certify(_) | Call::Join(..), None) => {
                    Err(refused())
                }
                (call, _) => crate::ballot::answer(inbound, to, call, &oracle).await,
            };
            net.answer(host, from, id, reply);
        });
    }
}

/// Where tasks' files lie: in memory, a directory per machine.
pub(crate) fn run_dirs() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}
