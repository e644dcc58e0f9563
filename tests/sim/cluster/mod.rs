//! A run of a whole cluster: managers, agents, engines and networks, users and faults; then all is
//! well, and what was wished for must come true, to the last container, name and file.
//!
//! ```text
//!   users ─▶ api ─▶ raft ─▶ leader ─▶ dispatcher ══ session ══▶ agent ─▶ engine, network, files
//!                                          ▲                       │
//!             rules: view ◀── managers     └──── reports ◀─────────┘   rules: containers, sets
//! ```
//!
//! Everything between users and engines is production code; machines, ways and engines are ours.

mod ends;
mod engine;
mod fabric;
mod founding;
mod links;
mod machine;
mod roles;
mod rules;
mod strike;
mod users;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm::api::Local;
use swarm::domain::node::{Node, Role};
use swarm::domain::{NodeId, RaftId};
use swarm::env::Faults;
use swarm::raft::PeerError;
use swarm::state::{Change, Expect, Object, View};

use crate::chance::Chance;
use crate::clients::{self, Client, Shared};
use crate::device::Death;
use crate::host::Membership;
use crate::net::{self, Host, Message, Net, State};
use crate::oracle::Oracle;
use crate::timeline::{Fault, Kind, Plan, Profile};
use crate::world::Outcome;
use machine::{Manager, Occurrence, Server};
use rules::{Rules, Sight};
use users::{Book, User};
use watch::Watch;

/// Nothing on the network is faster.
const TICK: Duration = Duration::from_millis(1);
/// Between two looks at faults and rules.
const LOOK: u128 = 50;
/// How long the cluster may take to form, and to be itself again when everything has healed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers to users that there must be for a run to mean anything.
const LEAST_DONE: u64 = 20;

/// A simulated cluster.
struct World {
    now: Duration,
    plan: Plan,
    servers: Vec<Server>,
    net: Net,
    oracle: Shared,
    rules: Rules,
    book: Arc<Mutex<Book>>,
    active: Vec<Fault>,
    back_at: BTreeMap<Host, Duration>,
    /// Nodes that were removed: when their machines become others, and which.
    leaving: BTreeMap<Host, (Duration, NodeId)>,
    /// Until when what happens to a machine, or to all, may be the fault of a fault.
    disturbed: BTreeMap<Host, Duration>,
    disturbed_all: Duration,
    fired: BTreeMap<Kind, u64>,
    chance: Chance,
    apis: BTreeMap<Host, Local>,
    watches: Arc<Mutex<Vec<Watch>>>,
    is_over: Arc<AtomicBool>,
    has_users: bool,
    nodes: u16,
    /// How often a node became a manager or ceased to be one.
    roles_changed: u64,
    /// Holds the files of all machines.
    _run_dirs: tempfile::TempDir,
}

/// Runs a plan.
pub(crate) fn run(seed: u64, plan: Plan, faults: Faults) -> Outcome {
    let mut chance = Chance::new(seed ^ 0x5157_4152_4d01);
    let net = Net::new(chance.fork(1));
    let run_dirs = machine::run_dirs();
    let servers = (0..plan.managers + plan.workers)
        .map(|host| {
            let dir = run_dirs.path().join(host.to_string());
            let mut server = Server::new(host, chance.fork(100 + host as u64), net.clone(), dir);
            server.set_faults(faults);
            server
        })
        .collect();
    let mut world = World {
        now: Duration::ZERO,
        plan,
        servers,
        net,
        oracle: Arc::new(Mutex::new(Oracle::new())),
        rules: Rules::default(),
        book: Arc::default(),
        active: Vec::new(),
        back_at: BTreeMap::new(),
        leaving: BTreeMap::new(),
        disturbed: BTreeMap::new(),
        disturbed_all: Duration::ZERO,
        fired: BTreeMap::new(),
        chance,
        apis: BTreeMap::new(),
        watches: Arc::default(),
        is_over: Arc::default(),
        has_users: false,
        nodes: 0,
        roles_changed: 0,
        _run_dirs: run_dirs,
    };
    world.whole_story();
    world.outcome()
}

impl World {
    fn outcome(self) -> Outcome {
        let oracle = self.oracle.lock().unwrap();
        let (delivered, lost, order) = self.net.counts();
        let trace = Chance::new(oracle.trace() ^ order ^ delivered ^ lost.rotate_left(32)).next();
        let violation = oracle.violation().or(self.rules.violation.as_deref());
        let mut counts = oracle.counts.clone();
        counts.answers = self.book.lock().unwrap().answers.clone();
        counts.started = self.rules.counts.started;
        counts.stopped = self.rules.counts.stopped;
        counts.lost_nodes = self.rules.counts.lost_nodes;
        counts.strict = self.rules.counts.strict;
        counts.told = self.watches.lock().unwrap().iter().map(|it| it.told.len() as u64).sum();
        counts.turns = self.rules.turns();
        counts.roles = self.roles_changed;
        Outcome {
            violation: violation.map(|it| format!("{it} (at {:?})", self.now)),
            counts,
            fired: self.fired.clone(),
            trace,
            lasted: self.now,
        }
    }

    fn whole_story(&mut self) {
        self.found();
        self.has_users = true;
        self.disturbed_all = self.now + rules::SETTLES;
        let managers: Vec<(Host, Manager)> = self.managers().collect();
        for (host, manager) in managers {
            self.employ(host, &manager);
        }
        let began = self.now;
        let mut faults = self.plan.faults.clone().into_iter().peekable();
        while self.now < began + self.plan.lasts && !self.has_failed() {
            while let Some(fault) = faults.next_if(|fault| began + fault.at <= self.now) {
                self.begin(fault);
            }
            self.expire();
            self.pass(Duration::from_millis(50));
        }
        self.heal();
        self.is_over.store(true, Ordering::Relaxed);
        self.pass(Duration::from_secs(5));
        self.conclude();
    }

    fn has_failed(&self) -> bool {
        self.rules.violation.is_some() || self.oracle.lock().unwrap().violation().is_some()
    }

    fn violate(&self, what: impl Into<String>) {
        self.oracle.lock().unwrap().violate(what.into());
    }

    fn managers(&self) -> impl Iterator<Item = (Host, Manager)> + '_ {
        self.servers.iter().filter_map(|it| it.manager().map(|manager| (it.host, manager.clone())))
    }

    /// The manager that leads, as it says.
    fn leader(&self) -> Option<(Host, Manager)> {
        self.managers().find(|(_, it)| it.raft.store().leadership().borrow().is_self)
    }

    /// The newest view of all managers that run.
    fn view(&self) -> Option<View> {
        let views = self.managers().map(|(_, manager)| manager.raft.store().view());
        views.max_by_key(|view| view.position)
    }

    fn next_node(&mut self) -> NodeId {
        self.nodes += 1;
        let [high, low] = self.nodes.to_be_bytes();
        let mut id = [0xd0; 16];
        id[14..].copy_from_slice(&[high, low]);
        NodeId::from_bytes(id)
    }

    /// Lets time pass until something is true.
    fn until(&mut self, limit: Duration, problem: &str, is_true: impl Fn(&Self) -> bool) {
        let deadline = self.now + limit;
        while !is_true(self) && !self.has_failed() {
            if self.now >= deadline {
                let situation = self.situation();
                return self.violate(format!("liveness: {problem} within {limit:?}\n{situation}"));
            }
            self.pass(Duration::from_millis(50));
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until && !self.has_failed() {
            self.tick();
            let millis = self.now.as_millis();
            if millis.is_multiple_of(LOOK) {
                self.restart();
                self.follow_roles();
                self.look();
            }
            if millis.is_multiple_of(500) {
                self.servers.iter().for_each(|server| server.engine.check_health());
            }
            if millis.is_multiple_of(2_000) {
                for (host, manager) in self.managers() {
                    let view = manager.raft.store().view();
                    self.oracle.lock().unwrap().state(host, &view);
                }
            }
        }
    }

    fn tick(&mut self) {
        let until = self.now + TICK;
        let first = self.chance.index(self.servers.len());
        for at in 0..self.servers.len() {
            let host = (first + at) % self.servers.len();
            if self.servers[host].paused_until > self.now {
                continue;
            }
            let messages = self.net.arrived(host, self.now);
            if !self.servers[host].is_running() {
                self.refuse(host, messages);
                continue;
            }
            if !self.servers[host].is_due(until, &messages) {
                continue;
            }
            let occurrence = self.servers[host].step(until, messages, &self.oracle);
            if let Some(occurrence) = occurrence {
                self.notice(host, occurrence);
            }
        }
        self.now = until;
    }

    /// A host answers for a process that is not there, unless it is off.
    fn refuse(&self, host: Host, messages: Vec<Message>) {
        if self.net.machine(host) != State::Refuses {
            return;
        }
        for message in messages {
            match message {
                Message::Request { id, from, to, .. } => {
                    let reason = "refused".to_owned();
                    let refused = PeerError::Unreachable { addr: to.addr, reason };
                    self.net.answer(host, from, id, Err(refused));
                }
                Message::Packet { conn, end, .. } => self.net.reset(conn, end),
                Message::Reply { .. } | Message::Due { .. } => {}
            }
        }
    }

    fn notice(&mut self, host: Host, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Works => {}
            Occurrence::Manages(manager) => {
                let (oracle, env) = (&self.oracle, manager.env.clone());
                let server = &self.servers[host];
                let raft = manager.raft.clone();
                server.spawn(clients::follow(host, raft.clone(), env, Arc::clone(oracle)));
                server.spawn(clients::observe(host, raft, Arc::clone(oracle)));
                if self.has_users {
                    self.employ(host, &manager);
                }
            }
            Occurrence::Died(death) => {
                self.servers[host].kill(death);
                let pause = self.chance.millis(300, 3_000);
                self.back_at.insert(host, self.now + pause);
                self.disturb(host, pause);
            }
            Occurrence::Refused(error) => {
                if self.active.is_empty() && self.is_calm(host) {
                    return self.violate(format!("P4: host {host} does not start: {error}"));
                }
                self.servers[host].kill(Death::Aborted);
                self.back_at.insert(host, self.now + Duration::from_secs(1));
            }
        }
        self.apis.retain(|host, _| self.servers[*host].manager().is_some());
    }

    fn user(&mut self, host: Host, number: u64) -> User {
        let server = &self.servers[host];
        let manager = server.manager().unwrap().clone();
        let (env, store, scope) = (manager.env, manager.raft.store(), manager.scope);
        let me = (server.node.unwrap_or_default(), net::addr(host));
        let api = self
            .apis
            .entry(host)
            .or_insert_with(|| server.enter(|| users::api(&env, store, me, &scope)).unwrap());
        User {
            api: api.clone(),
            env,
            chance: self.chance.fork(number),
            book: Arc::clone(&self.book),
            is_over: Arc::clone(&self.is_over),
        }
    }

    /// Users and clients of a manager that has started.
    fn employ(&mut self, host: Host, manager: &Manager) {
        self.apis.remove(&host);
        let client = Client {
            handle: manager.raft.clone(),
            env: manager.env.clone(),
            oracle: Arc::clone(&self.oracle),
            chance: self.chance.fork(7),
            pace: (200, 2_000),
            is_over: Arc::clone(&self.is_over),
        };
        self.servers[host].spawn(client.run());
        let user = self.user(host, 8);
        if !self.is_big() {
            self.watch(host, user.api.clone(), manager.raft.store());
        }
        self.servers[host].spawn(user.run());
    }

    fn restart(&mut self) {
        let now = self.now;
        let view = self.view();
        let is_known = |node: NodeId| view.as_ref().is_some_and(|view| view.node(node).is_some());
        let others = self.leaving.extract_if(.., |_, (at, node)| *at <= now && is_known(*node));
        for (host, (_, node)) in others {
            let managers = view.iter().flat_map(|view| view.managers());
            self.servers[host].managers = managers.map(|(_, part)| part.addr).collect();
            self.servers[host].become_other(node);
            self.back_at.insert(host, now + TICK);
        }
        let due: Vec<Host> =
            self.back_at.iter().filter(|(_, at)| **at <= self.now).map(|(host, _)| *host).collect();
        for host in due {
            self.back_at.remove(&host);
            if !self.servers[host].is_running() {
                self.servers[host].start(self.now);
                self.disturb(host, Duration::ZERO);
            }
        }
    }

    fn disturb(&mut self, host: Host, lasts: Duration) {
        let until = self.now + lasts + rules::SETTLES;
        let known = self.disturbed.entry(host).or_default();
        *known = until.max(*known);
    }

    fn is_calm(&self, host: Host) -> bool {
        let until = self.disturbed.get(&host).copied().unwrap_or_default();
        self.now > until.max(self.disturbed_all)
    }

    /// Holds the rules against everything.
    fn look(&mut self) {
        let Some(view) = self.view() else { return };
        let machines: Vec<Sight> = self
            .servers
            .iter()
            .filter_map(|server| {
                let set = server.agent().map(|agent| Arc::clone(&agent.assignments().borrow()));
                Some(Sight {
                    host: server.host,
                    node: server.node?,
                    containers: server.engine.model.containers(),
                    deeds: server.engine.take_deeds(),
                    set,
                    is_calm: self.is_calm(server.host),
                })
            })
            .collect();
        self.rules.look(&view, &machines);
    }

    fn is_big(&self) -> bool {
        self.plan.profile == Profile::Big
    }
}
