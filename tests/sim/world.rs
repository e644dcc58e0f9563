//! A run: machines, network, clients, faults and the operator, stepped through simulated time by one
//! thread; then everything heals, and what was promised is looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm::domain::RaftId;
use swarm::env::Faults;
use swarm::raft::{Error, Handle};
use swarm::state::Change;

use crate::chance::Chance;
use crate::clients::{self, Client, Shared};
use crate::device::Death;
use crate::host::{Membership, Occurrence, Server};
use crate::net::{self, Host, Message, Net, State, Way};
use crate::operator::{self, Done, Next, Operator, Want};
use crate::oracle::{Counts, Oracle};
use crate::timeline::{Fault, Kind, Plan};

/// Nothing on the network is faster.
const TICK: Duration = Duration::from_millis(1);
/// Between two looks at faults, the operator and invariants.
const LOOK: Duration = Duration::from_millis(20);
/// How long the cluster may take to form, and to be itself again when everything has healed.
const PATIENCE: Duration = Duration::from_secs(45);
/// Writes that must have been acknowledged for a run to mean anything.
const LEAST_WRITTEN: u64 = 40;

/// What became of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) counts: Counts,
    pub(crate) fired: BTreeMap<Kind, u64>,
    /// Stands for everything that was observed, in its order.
    pub(crate) trace: u64,
    pub(crate) lasted: Duration,
}

/// A simulated cluster.
pub(crate) struct World {
    now: Duration,
    servers: Vec<Server>,
    net: Net,
    oracle: Shared,
    operator: Operator,
    plan: Plan,
    active: Vec<Fault>,
    /// Machines that are off or whose process has ended, and when they start again.
    back_at: BTreeMap<Host, Duration>,
    fired: BTreeMap<Kind, u64>,
    chance: Chance,
    is_over: Arc<AtomicBool>,
    has_clients: bool,
}

/// Runs a plan.
pub(crate) fn run(seed: u64, plan: Plan, faults: Faults) -> Outcome {
    let mut world = World::new(seed, plan, faults);
    world.whole_story();
    let oracle = world.oracle.lock().unwrap();
    let (delivered, lost, order) = world.net.counts();
    let trace = Chance::new(oracle.trace() ^ order ^ delivered ^ lost.rotate_left(32)).next();
    Outcome {
        violation: oracle.violation().map(|it| format!("{it} (at {:?})", world.now)),
        counts: oracle.counts.clone(),
        fired: world.fired.clone(),
        trace,
        lasted: world.now,
    }
}

impl World {
    /// Machines that are off.
    fn new(seed: u64, plan: Plan, faults: Faults) -> Self {
        let mut chance = Chance::new(seed ^ 0x5157_4152_4d00);
        let net = Net::new(chance.fork(1));
        let hosts = (plan.managers + 2).min(7);
        let servers = (0..hosts)
            .map(|host| Server::new(host, chance.fork(100 + host as u64), net.clone(), faults))
            .collect();
        Self {
            now: Duration::ZERO,
            servers,
            net,
            oracle: Arc::new(Mutex::new(Oracle::new())),
            operator: Operator::default(),
            plan,
            active: Vec::new(),
            back_at: BTreeMap::new(),
            fired: BTreeMap::new(),
            chance,
            is_over: Arc::default(),
            has_clients: false,
        }
    }

    fn whole_story(&mut self) {
        self.found();
        self.has_clients = true;
        let handles: Vec<(Host, Handle)> = self.running().collect();
        for (host, handle) in handles {
            self.clients(host, &handle);
        }
        let began = self.now;
        let mut faults = self.plan.faults.clone().into_iter().peekable();
        while self.now < began + self.plan.lasts && !self.has_failed() {
            while let Some(fault) = faults.next_if(|fault| began + fault.at <= self.now) {
                self.begin(fault);
            }
            self.expire();
            self.pass(LOOK);
        }
        self.heal();
        self.pass(Duration::from_secs(3));
        self.is_over.store(true, Ordering::Relaxed);
        self.converge();
        self.conclude();
    }

    fn has_failed(&self) -> bool {
        self.oracle.lock().unwrap().violation().is_some()
    }

    fn violate(&self, what: impl Into<String>) {
        self.oracle.lock().unwrap().violate(what.into());
    }

    fn running(&self) -> impl Iterator<Item = (Host, Handle)> + '_ {
        self.servers.iter().filter_map(|it| it.handle().map(|handle| (it.host, handle.clone())))
    }

    /// Where everybody stands.
    fn situation(&self) -> String {
        let mut lines = vec![format!("  the operator wants {:?}", self.operator.wants)];
        for server in &self.servers {
            let Some(membership) = server.membership else { continue };
            let (host, id) = (server.host, membership.raft_id);
            let state = match server.handle() {
                None if server.is_running() => "is starting".to_owned(),
                None => "does not run".to_owned(),
                Some(handle) => {
                    let now = *handle.store().leadership().borrow();
                    let members = handle.members().borrow().clone();
                    let (voters, learners) = (members.voters, members.learners);
                    format!("{:?} {now:?} {voters:?} {learners:?}", handle.progress())
                }
            };
            lines.push(format!("  host {host}, member {id}: {state}"));
        }
        lines.join("\n")
    }

    /// The first manager begins the cluster, the others join it.
    fn found(&mut self) {
        let node = self.operator.node();
        self.servers[0].membership = Some(Membership { raft_id: RaftId(1), node });
        self.oracle.lock().unwrap().raft_id(1);
        self.servers[0].start(self.now);
        self.until(PATIENCE, "the first member did not start", |world| {
            world.servers[0].handle().is_some()
        });
        let Some(handle) = self.servers[0].handle().cloned() else { return };
        let mut first: Vec<Change> = clients::registers();
        first.push(operator::node_change(node));
        first.push(Change::JoinManager { node, addr: net::addr(0) });
        let is_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&is_begun);
        self.servers[0].spawn(async move {
            begun.store(handle.bootstrap(first).await.is_ok(), Ordering::Relaxed);
        });
        self.until(PATIENCE, "the cluster did not begin", |_| is_begun.load(Ordering::Relaxed));
        for host in 1..self.plan.managers {
            self.operator.want_member(host);
        }
        self.until(PATIENCE, "the cluster was not formed", |world| world.operator.wants.is_empty());
    }

    /// Lets time pass until something is true.
    fn until(&mut self, limit: Duration, problem: &str, is_true: impl Fn(&Self) -> bool) {
        let deadline = self.now + limit;
        while !is_true(self) && !self.has_failed() {
            if self.now >= deadline {
                let situation = self.situation();
                return self.violate(format!("liveness: {problem} within {limit:?}\n{situation}"));
            }
            self.pass(LOOK);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until && !self.has_failed() {
            self.tick();
            if self.now.as_millis().is_multiple_of(LOOK.as_millis()) {
                self.restart();
                self.operate();
            }
            if self.now.as_millis().is_multiple_of(2_000) {
                self.compare();
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
            let occurrence = self.servers[host].step(until, messages, &self.oracle);
            if let Some(occurrence) = occurrence {
                self.notice(host, occurrence);
            }
        }
        self.now = until;
    }

    /// A host answers for a process that is not there, unless it is off.
    fn refuse(&self, host: Host, messages: Vec<Message>) {
        for message in messages {
            if let Message::Request { id, from, to, .. } = message
                && self.net.machine(host) == State::Refuses
            {
                let reason = "refused".to_owned();
                let refused = swarm::raft::PeerError::Unreachable { addr: to.addr, reason };
                self.net.answer(host, from, id, Err(refused));
            }
        }
    }

    fn notice(&mut self, host: Host, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Started(handle) => self.started(host, &handle),
            Occurrence::Died(death) => {
                self.servers[host].kill(death);
                let pause = self.chance.millis(300, 3_000);
                self.back_at.insert(host, self.now + pause);
            }
            Occurrence::Refused(Error::Io { .. }) => {
                self.servers[host].kill(Death::Aborted);
                self.back_at.insert(host, self.now + Duration::from_secs(1));
            }
            Occurrence::Refused(error) => {
                if self.servers[host].flipped.is_none() {
                    return self.violate(format!("P4: host {host} does not start: {error}"));
                }
                self.servers[host].kill(Death::Aborted);
                self.servers[host].is_quarantined = true;
                self.dismiss(host);
                self.operator.want_member(host);
            }
        }
    }

    fn dismiss(&mut self, host: Host) {
        if let Some(Membership { raft_id, node }) = self.servers[host].membership {
            self.operator.wants.push_back(Want::Gone { host, node, raft_id });
        }
    }

    fn started(&mut self, host: Host, handle: &Handle) {
        if let Some((what, least)) = self.servers[host].flipped.take() {
            let end = self.servers[host].device.end();
            if end < least {
                self.violate(format!(
                    "P4: host {host} started although {what} was damaged: its log ends at {end} \
                     and had reached {least}"
                ));
            }
        }
        let oracle = &self.oracle;
        let server = &self.servers[host];
        let Some(env) = server.env() else { return };
        server.spawn(clients::follow(host, handle.clone(), env, Arc::clone(oracle)));
        server.spawn(clients::observe(host, handle.clone(), Arc::clone(oracle)));
        if self.has_clients {
            self.clients(host, handle);
        }
    }

    fn clients(&mut self, host: Host, handle: &Handle) {
        for number in 0..self.plan.clients {
            let chance = self.chance.fork(number as u64);
            let Some(env) = self.servers[host].env() else { continue };
            let (handle, oracle) = (handle.clone(), Arc::clone(&self.oracle));
            let is_over = Arc::clone(&self.is_over);
            let client = Client { handle, env, oracle, chance, pace: (20, 300), is_over };
            self.servers[host].spawn(client.run());
        }
    }

    /// Starts what is to be started again.
    fn restart(&mut self) {
        let due: Vec<Host> =
            self.back_at.iter().filter(|(_, at)| **at <= self.now).map(|(host, _)| *host).collect();
        for host in due {
            self.back_at.remove(&host);
            if !self.servers[host].is_running() && !self.servers[host].is_quarantined {
                self.net.set_machine(host, State::Refuses);
                self.servers[host].start(self.now);
            }
        }
    }

    fn operate(&mut self) {
        match self.operator.next(self.now) {
            Next::Idle => {}
            Next::Take(want) => {
                let leader =
                    self.running().find(|(_, handle)| handle.store().leadership().borrow().is_self);
                let Some((host, handle)) = leader else { return };
                let Some(env) = self.servers[host].env() else { return };
                let outcome = self.operator.take(self.now);
                self.servers[host].spawn(async move {
                    let done = operator::step(handle, env, want).await;
                    *outcome.lock().unwrap() = Some(done);
                });
            }
            Next::Done(want, done) => self.operated(want, done),
        }
    }

    fn operated(&mut self, want: Want, done: Done) {
        match (want, done) {
            (Want::Member { host, node, .. }, Done::Joined(raft_id)) => {
                self.oracle.lock().unwrap().raft_id(raft_id.0);
                let server = &mut self.servers[host];
                server.membership = Some(Membership { raft_id, node });
                server.start(self.now);
                let found = Want::Member { host, node, raft_id: Some(raft_id) };
                self.operator.wants[0] = found;
            }
            (Want::Gone { host, .. }, Done::Gone) => {
                self.operator.wants.pop_front();
                let server = &mut self.servers[host];
                server.kill(Death::PowerCut);
                server.device.replace();
                server.membership = None;
                server.flipped = None;
                server.is_quarantined = false;
                self.back_at.remove(&host);
            }
            (_, Done::Votes) => drop(self.operator.wants.pop_front()),
            (_, Done::Nothing | Done::Joined(_) | Done::Gone) => {}
        }
    }

    fn compare(&self) {
        for (host, handle) in self.running() {
            self.oracle.lock().unwrap().state(host, &handle.store().view());
        }
    }
}

mod fitness;
mod strike;

pub(crate) use fitness::{Woe, strike_the_leader};
