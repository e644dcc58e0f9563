//! A cluster without network or disk: the state, the leader's passes, and a model of the agents.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use swarm::control::{Dirty, Effect, Lease, Observed, Plan, RaftMembers, plan};
use swarm::domain::cluster::{AddressPool, Authority, ClusterSpec};
use swarm::domain::network::Subnet;
use swarm::domain::node::{Description, NodeSpec, NodeStatus};
use swarm::domain::secret::Sensitive;
use swarm::domain::service::{UpdateState, UpdateStatus};
use swarm::domain::{
    Cluster, ClusterId, Format, Labels, Meta, Network, NetworkId, Node, NodeId, Position, RaftId,
    Service, ServiceId, ServiceSpec, SpecVersion, Task, TaskId, TaskState, TaskStatus, Timestamp,
};
use swarm::state::{
    Change, Command, Event, Expect, Object, ObjectKey, Rejection, State, View, apply,
};

use super::invariants;

/// How tasks of an image behave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    /// They fail after having run for a while.
    Fails(Duration),
    /// They never get further than preparing.
    Stuck,
    /// They are refused while they are prepared: there is no such image.
    Missing,
}

/// A cluster without network or disk.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) raft: RaftMembers,
    pub(crate) notes: Vec<(ObjectKey, String)>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) behaviours: BTreeMap<String, Behaviour>,
    /// The formats that the programs of nodes know, and since when; the newest where nothing is said.
    pub(crate) releases: BTreeMap<NodeId, (Format, Timestamp)>,
    /// Nodes that nobody hears from.
    pub(crate) silent: BTreeMap<NodeId, Lease>,
    /// Nodes that are heard of renew their leases at least until then.
    horizon: Timestamp,
    tenure_started: Timestamp,
    events: Vec<Event>,
    timers: Vec<(Timestamp, ObjectKey)>,
    passes: u64,
    objects: u64,
}

pub(crate) const SECOND: u64 = 1_000_000_000;

fn put(object: Object, expect: Expect) -> Change {
    Change::Put { object, expect }
}

impl World {
    pub(crate) fn new(history: i64, prefix: u8, format: Format) -> Self {
        let mut world = Self {
            state: State::default(),
            now: Timestamp(1_700_000_000 * SECOND),
            raft: RaftMembers::default(),
            notes: Vec::new(),
            effects: Vec::new(),
            behaviours: BTreeMap::new(),
            releases: BTreeMap::new(),
            silent: BTreeMap::new(),
            horizon: Timestamp::default(),
            tenure_started: Timestamp(1_700_000_000 * SECOND),
            events: Vec::new(),
            timers: Vec::new(),
            passes: 0,
            objects: 0,
        };
        let id = NetworkId::from_bytes([9; 16]);
        let mut spec = ClusterSpec::default();
        spec.orchestration.task_history_retention_limit = history;
        let cluster = Cluster {
            id: ClusterId::from_bytes([7; 16]),
            meta: Meta::default(),
            spec,
            authority: Authority { root_pem: String::new(), key_pem: Sensitive::new(b"key") },
            token_key: Sensitive::new(b"tokens"),
            worker_token: 1,
            manager_token: 1,
            pool: AddressPool { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8, subnet_size: 16 },
            default_network: id,
            data_path_port: 4789,
            format,
            autolock: swarm::domain::Autolock::default(),
            trust: swarm::domain::cluster::Trust::default(),
        };
        let network = Network {
            id,
            meta: Meta::default(),
            name: "default".to_owned(),
            labels: Labels::new(),
            vni: 4097,
            subnet: Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix },
            cursor: 0,
        };
        let changes = vec![
            put(Object::Cluster(Arc::new(cluster)), Expect::Absent),
            put(Object::Network(Arc::new(network)), Expect::Absent),
        ];
        world.commit(changes).unwrap();
        world
    }

    pub(crate) fn view(&self) -> View {
        View::new(self.state.clone())
    }

    fn fresh(&mut self) -> [u8; 16] {
        self.objects += 1;
        u128::from(self.objects).to_be_bytes()
    }

    /// Applies changes as the next entry of the log.
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Result<(), Rejection> {
        self.now.0 += 1_000;
        let events = commit(&mut self.state, self.now, changes)?;
        self.events.extend(events);
        Ok(())
    }

    pub(crate) fn node(&self, name: &str) -> Arc<Node> {
        let named =
            |node: &&Arc<Node>| node.description.as_ref().is_some_and(|it| it.hostname == name);
        Arc::clone(self.state.nodes.values().find(named).unwrap_or_else(|| panic!("node {name}?")))
    }

    pub(crate) fn name_of(&self, id: NodeId) -> String {
        let node = self.state.node(id).and_then(|node| node.description.clone());
        node.map_or_else(|| "(gone)".to_owned(), |it| it.hostname)
    }

    pub(crate) fn add_node(&mut self, description: Description, spec: NodeSpec) {
        let bytes = self.fresh();
        let last = u8::try_from(self.objects % 250).unwrap();
        let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let node = Node {
            id: NodeId::from_bytes(bytes),
            meta: Meta::default(),
            certified: spec.role,
            // As the certificate authority does it.
            trust: self.state.cluster.as_ref().unwrap().trust.generation,
            spec,
            description: Some(description),
            status: NodeStatus { addr: Some(addr), ..NodeStatus::default() },
            manager: None,
        };
        self.commit(vec![put(Object::Node(Arc::new(node)), Expect::Absent)]).unwrap();
    }

    pub(crate) fn edit_node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.node(name);
        let expect = Expect::SpecAt(node.meta.spec_revision);
        change(Arc::make_mut(&mut node));
        self.commit(vec![put(Object::Node(node), expect)]).unwrap();
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        let key = ObjectKey::Node(self.node(name).id);
        self.commit(vec![Change::Delete { key, expect: Expect::Any }]).unwrap();
    }

    pub(crate) fn join(&mut self, name: &str) -> Result<(), Rejection> {
        let node = self.node(name);
        let addr = SocketAddr::new(node.status.addr.unwrap(), 2377);
        self.commit(vec![Change::JoinManager { node: node.id, addr }])?;
        let raft_id = self.node(name).manager.unwrap().raft_id;
        if self.raft.me.is_none() {
            self.raft.me = Some(raft_id);
            self.raft.voters.insert(raft_id);
        }
        Ok(())
    }

    pub(crate) fn raft_id(&self, name: &str) -> RaftId {
        self.node(name).manager.unwrap().raft_id
    }

    /// Nothing is heard of a node any more; its session is closed, or just silent (no FIN came).
    pub(crate) fn silence(&mut self, name: &str, closed_at: Option<Timestamp>) {
        let lease = Lease { renewed_at: self.now, closed_at, ..Lease::default() };
        let node = self.node(name).id;
        self.silent.insert(node, lease);
        self.timers.push((self.now, ObjectKey::Node(node)));
    }

    pub(crate) fn hear(&mut self, name: &str) {
        let node = self.node(name).id;
        self.silent.remove(&node);
    }

    /// Another program runs on a node.
    pub(crate) fn release(&mut self, name: &str, format: Format) {
        let node = self.node(name).id;
        self.releases.insert(node, (format, self.now));
        self.timers.push((self.now, ObjectKey::Node(node)));
    }

    pub(crate) fn create_service(&mut self, spec: ServiceSpec) {
        let id = ServiceId::from_bytes(self.fresh());
        let service = Service {
            id,
            meta: Meta::default(),
            name: spec.name.clone(),
            current: 1,
            previous: None,
            update: None,
            removing: false,
        };
        let version = SpecVersion { service: id, number: 1, spec: Arc::new(spec) };
        let changes = vec![
            put(Object::SpecVersion(Arc::new(version)), Expect::Absent),
            put(Object::Service(Arc::new(service)), Expect::Absent),
        ];
        self.commit(changes).unwrap();
    }

    pub(crate) fn spec(&self, name: &str) -> ServiceSpec {
        let service = self.state.service_named(name).unwrap();
        (**self.state.current_spec(service).unwrap()).clone()
    }

    /// As the API does it: another version, the last one kept, the update's status reset.
    pub(crate) fn update_service(&mut self, spec: ServiceSpec, update: Option<&str>) {
        let mut service = Arc::clone(self.state.service_named(&spec.name).unwrap());
        let expect = Expect::SpecAt(service.meta.spec_revision);
        let number = service.current + 1;
        let now = self.now;
        let row = Arc::make_mut(&mut service);
        row.previous = Some(row.current);
        row.current = number;
        row.update = update.map(|message| UpdateStatus {
            state: UpdateState::RollbackStarted,
            target: number,
            started_at: now,
            completed_at: None,
            batch_done_at: None,
            message: message.to_owned(),
        });
        let version = SpecVersion { service: service.id, number, spec: Arc::new(spec) };
        let changes = vec![
            put(Object::SpecVersion(Arc::new(version)), Expect::Absent),
            put(Object::Service(service), expect),
        ];
        self.commit(changes).unwrap();
    }

    pub(crate) fn roll_back(&mut self, name: &str) {
        let service = self.state.service_named(name).unwrap();
        let previous = self.state.spec(service.id, service.previous.unwrap()).unwrap();
        let spec = (*previous.spec).clone();
        self.update_service(spec, Some("manually requested rollback"));
    }

    pub(crate) fn remove_service(&mut self, name: &str) {
        let mut service = Arc::clone(self.state.service_named(name).unwrap());
        let expect = Expect::SpecAt(service.meta.spec_revision);
        Arc::make_mut(&mut service).removing = true;
        self.commit(vec![put(Object::Service(service), expect)]).unwrap();
    }

    /// The live task of a slot, as an agent finds it ended.
    pub(crate) fn end_task(&mut self, task: TaskId, state: TaskState) {
        let task = Arc::clone(self.state.task(task).unwrap());
        let (message, error) = match state {
            TaskState::Complete => ("finished", ""),
            TaskState::Rejected => ("preparing", "No such image: gone:latest"),
            _ => ("started", "task: non-zero exit (1)"),
        };
        self.report(&task, state, message, error);
    }

    fn report(&mut self, task: &Task, state: TaskState, message: &str, error: &str) {
        let status = TaskStatus {
            state,
            at: self.now,
            message: message.to_owned(),
            error: error.to_owned(),
            ..TaskStatus::default()
        };
        let node = task.node.unwrap();
        self.commit(vec![Change::ReportTask { task: task.id, node, status }]).unwrap();
    }

    pub(crate) fn observed(&self) -> Observed {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.passes.to_le_bytes());
        let lease = |node: &Arc<Node>| {
            let release = self.releases.get(&node.id).copied();
            let (format, since) = release.unwrap_or((Format::NEWEST, self.tenure_started));
            let renewed_at = self.now.max(self.horizon);
            let heard = Lease { renewed_at, format, since, ..Lease::default() };
            (node.id, self.silent.get(&node.id).copied().unwrap_or(heard))
        };
        Observed {
            now: self.now,
            seed,
            tenure_started: self.tenure_started,
            leases: self.state.nodes.values().map(lease).collect(),
            raft: self.raft.clone(),
            ..Observed::default()
        }
    }

    /// A leader that knows nothing: no leases, no timers.
    pub(crate) fn elect(&mut self) {
        self.tenure_started = self.now;
        self.timers = vec![(self.now, ObjectKey::Cluster)];
    }

    /// One pass over what is dirty. Whether it changed anything.
    pub(crate) fn pass(&mut self) -> bool {
        self.passes += 1;
        let (view, observed) = (self.view(), self.observed());
        let mut dirty = Dirty::from_events(&view, &std::mem::take(&mut self.events));
        dirty.merge(Dirty::due(&self.timers, self.now));
        let plan = plan(&view, &observed, &dirty);
        invariants::plan_holds(&view, &observed, &dirty, &plan);
        let changed = !plan.is_empty();
        self.timers.retain(|(at, _)| *at > self.now);
        self.timers.extend(plan.timers.iter().copied());
        self.timers.sort_unstable();
        self.timers.dedup();
        self.carry_out(plan);
        invariants::state_holds(&self.state);
        changed
    }

    fn carry_out(&mut self, plan: Plan) {
        for batch in plan.changes {
            let events = commit(&mut self.state, self.now, batch).unwrap();
            self.events.extend(events);
        }
        for note in plan.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        let Some(effect) = plan.effect else { return };
        self.effects.push(effect);
        match effect {
            Effect::AddLearner { raft_id, .. } => {
                self.raft.learners.insert(raft_id, 0);
            }
            Effect::Promote { raft_id } => {
                self.raft.learners.remove(&raft_id);
                self.raft.voters.insert(raft_id);
            }
            Effect::Remove { raft_id } => {
                self.raft.learners.remove(&raft_id);
                self.raft.voters.remove(&raft_id);
                self.raft.silent.remove(&raft_id);
            }
            Effect::TransferLeader { to } => self.raft.me = Some(to),
        }
    }

    /// Agents do what they are told, as far as their images let them. Whether one reported.
    pub(crate) fn agents(&mut self) -> bool {
        let tasks: Vec<Arc<Task>> = self.state.tasks.values().cloned().collect();
        let mut reported = false;
        for task in tasks {
            let Some(node) = task.node.filter(|_| !task.status.state.is_terminal()) else {
                continue;
            };
            if self.silent.contains_key(&node) || self.state.node(node).is_none() {
                continue;
            }
            if let Some((state, message, error)) = self.next_state(&task) {
                self.report(&task, state, message, error);
                reported = true;
            }
        }
        reported
    }

    fn behaviour(&self, task: &Task) -> Option<Behaviour> {
        let version = self.state.spec(task.service, task.spec)?;
        self.behaviours.get(&version.spec.task_template.container_spec.image).copied()
    }

    fn next_state(&self, task: &Task) -> Option<(TaskState, &'static str, &'static str)> {
        let state = task.status.state;
        if task.desired > TaskState::Running {
            return Some((TaskState::Shutdown, "shutdown", ""));
        }
        match self.behaviour(task) {
            Some(Behaviour::Stuck) => {
                let news = state < TaskState::Preparing;
                return news.then_some((TaskState::Preparing, "preparing", ""));
            }
            Some(Behaviour::Missing) if state <= TaskState::Preparing => {
                let news = (TaskState::Rejected, "preparing", "No such image: gone:latest");
                return Some(news);
            }
            Some(Behaviour::Fails(after)) if state == TaskState::Running => {
                let over = self.now.since(task.meta.updated_at) >= after;
                return over.then_some((TaskState::Failed, "started", "task: non-zero exit (1)"));
            }
            _ => {}
        }
        let aim = task.desired;
        (state < aim).then_some(match aim {
            TaskState::Ready => (TaskState::Ready, "prepared", ""),
            _ => (TaskState::Running, "started", ""),
        })
    }

    /// Passes and agents until nothing happens any more at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            let (planned, reported) = (self.pass(), self.agents());
            if !planned && !reported {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// Lets time pass, stopping at all that becomes due.
    pub(crate) fn advance(&mut self, length: Duration) {
        let end = self.now.after(length);
        self.horizon = end;
        self.settle();
        while self.now < end {
            let due = self.timers.iter().map(|(at, _)| *at).find(|at| *at > self.now);
            let failure = self.next_failure().filter(|at| *at > self.now);
            let next = due.into_iter().chain(failure).min().unwrap_or(end).min(end);
            self.now = next.max(Timestamp(self.now.0 + 1));
            self.settle();
        }
    }

    fn next_failure(&self) -> Option<Timestamp> {
        let running =
            self.state.tasks.values().filter(|task| task.status.state == TaskState::Running);
        let fails = |task: &Arc<Task>| match self.behaviour(task) {
            Some(Behaviour::Fails(after)) => Some(task.meta.updated_at.after(after)),
            Some(Behaviour::Stuck | Behaviour::Missing) | None => None,
        };
        running.filter_map(fails).min()
    }
}

/// Applies changes to a state as the next entry of the log.
pub(crate) fn commit(
    state: &mut State,
    now: Timestamp,
    changes: Vec<Change>,
) -> Result<Vec<Event>, Rejection> {
    let position = Position { term: 1, index: state.position.index + 1 };
    let command = Command { proposed_at: now, request: None, changes };
    let (outcome, events) = apply(state, &command, position);
    outcome.map(|_| events)
}
