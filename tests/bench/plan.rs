//! How long a pass takes: `cargo bench --bench plan` prints a table.
//!
//! Goals: a full pass over 1,000 nodes and 20,000 tasks in at most 20 ms, at least 200,000 placements
//! per second, and a dirty pass in proportion to what is dirty.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures real time and prints"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm::control::{Dirty, Lease, Observed, Plan, plan};
use swarm::domain::AssignmentSet;
use swarm::domain::cluster::{AddressPool, Authority, ClusterSpec};
use swarm::domain::network::Subnet;
use swarm::domain::node::{Description, NodeStatus, Reachability, Role};
use swarm::domain::secret::Sensitive;
use swarm::domain::service::Mode;
use swarm::domain::{
    Cluster, ClusterId, Labels, Meta, Network, NetworkId, Node, NodeId, Position, Service,
    ServiceId, ServiceSpec, SpecVersion, Task, TaskState, TaskStatus, Timestamp,
};
use swarm::state::assignment::for_node;
use swarm::state::endpoints::{self, EndpointIndex};
use swarm::state::{Change, Command, Event, Expect, Object, ObjectKey, State, View, apply};

type Sets = BTreeMap<NodeId, AssignmentSet>;

const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn commit(state: &mut State, now: Timestamp, changes: Vec<Change>) -> Vec<Event> {
    let position = Position { term: 1, index: state.position.index + 1 };
    let (outcome, events) =
        apply(state, &Command { proposed_at: now, request: None, changes }, position);
    outcome.unwrap();
    events
}

fn put(object: Object) -> Change {
    Change::Put { object, expect: Expect::Absent }
}

fn id(number: u64) -> [u8; 16] {
    // Spread as random ids are.
    (u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(number))
        .to_be_bytes()
}

fn cluster(nodes: u64, prefix: u8) -> State {
    let mut state = State::default();
    let network = NetworkId::from_bytes([9; 16]);
    let mut changes = vec![
        put(Object::Cluster(Arc::new(Cluster {
            id: ClusterId::from_bytes([7; 16]),
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            authority: Authority { root_pem: String::new(), key_pem: Sensitive::new(b"key") },
            token_key: Sensitive::new(b"tokens"),
            worker_token: 1,
            manager_token: 1,
            pool: AddressPool { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8, subnet_size: 16 },
            default_network: network,
            data_path_port: 4789,
            format: swarm::domain::Format::FIRST,
            autolock: swarm::domain::Autolock::default(),
            trust: swarm::domain::cluster::Trust::default(),
        }))),
        put(Object::Network(Arc::new(Network {
            id: network,
            meta: Meta::default(),
            name: "default".to_owned(),
            labels: Labels::new(),
            vni: 4097,
            subnet: Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix },
            cursor: 0,
        }))),
    ];
    for number in 0..nodes {
        let mut description =
            Description { hostname: format!("n{number}"), ..Description::default() };
        description.resources.nano_cpus = 64_000_000_000;
        changes.push(put(Object::Node(Arc::new(Node {
            description: Some(description),
            status: NodeStatus {
                reachability: Reachability::Reachable,
                addr: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
                ..NodeStatus::default()
            },
            ..Node::new(NodeId::from_bytes(id(number + 1)), Role::Worker)
        }))));
    }
    commit(&mut state, START, changes);
    state
}

fn services(state: &mut State, count: u64, replicas: u64) {
    let mut changes = Vec::new();
    for number in 0..count {
        let service = ServiceId::from_bytes(id(1_000_000 + number));
        let mut spec = ServiceSpec { name: format!("s{number}"), ..ServiceSpec::default() };
        spec.mode = Mode::Replicated { replicas: Some(replicas) };
        let row = Service {
            id: service,
            meta: Meta::default(),
            name: spec.name.clone(),
            current: 1,
            previous: None,
            update: None,
            removing: false,
        };
        changes.push(put(Object::Service(Arc::new(row))));
        let spec = Arc::new(spec);
        changes.push(put(Object::SpecVersion(Arc::new(SpecVersion { service, number: 1, spec }))));
    }
    commit(state, START, changes);
}

fn observed(state: &State, seed: u8) -> Observed {
    let now = state.clock.after(Duration::from_millis(1));
    let lease = Lease { renewed_at: now, ..Lease::default() };
    Observed {
        now,
        seed: [seed; 32],
        tenure_started: START,
        leases: state.nodes.values().map(|node| (node.id, lease)).collect(),
        ..Observed::default()
    }
}

/// Runs a pass several times: the plan and the best time.
fn timed(state: &State, observed: &Observed, dirty: &Dirty) -> (Plan, Duration) {
    let view = View::new(state.clone());
    let mut best = Duration::MAX;
    let mut result = Plan::default();
    for _ in 0..5 {
        let start = Instant::now();
        result = plan(&view, observed, dirty);
        best = best.min(start.elapsed());
    }
    (result, best)
}

fn run_all(state: &mut State, plan: Plan) -> Duration {
    let now = state.clock.after(Duration::from_millis(1));
    let start = Instant::now();
    for batch in plan.changes {
        commit(state, now, batch);
    }
    start.elapsed()
}

/// Every task runs.
fn start_all(state: &mut State) {
    let reports = state.tasks.values().map(|task| report(task, TaskState::Running)).collect();
    let now = state.clock.after(Duration::from_millis(1));
    commit(state, now, reports);
}

fn report(task: &Task, state: TaskState) -> Change {
    let status = TaskStatus { state, at: task.status.at, ..TaskStatus::default() };
    Change::ReportTask { task: task.id, node: task.node.unwrap(), status }
}

fn row(what: &str, time: Duration, note: &str) {
    println!("{what:<58} {:>9.3} ms  {note}", time.as_secs_f64() * 1e3);
}

/// What the managers tell the agents: all of it, or what is different from `before`.
fn told(state: &State, before: Option<(EndpointIndex, Sets)>) -> (EndpointIndex, Sets) {
    let view = View::new(state.clone());
    let (index, sets) = before.unzip();
    let start = Instant::now();
    let shared = endpoints::all(&view, index.as_ref());
    let what = if sets.is_some() {
        "the same, one task failed"
    } else {
        "what all nodes share: names, networks, peers"
    };
    row(what, start.elapsed(), "");
    let start = Instant::now();
    let next: Sets =
        state.nodes.values().map(|node| (node.id, for_node(&view, node.id, &shared))).collect();
    let diffs = sets.iter().flatten().map(|(node, set)| set.diff(&next[node]));
    let put: usize = diffs.map(|diff| diff.put.len()).sum();
    let note = format!("{} sets, {put} news", next.len());
    let what = if sets.is_some() {
        "the same, and the differences, one task failed"
    } else {
        "what each node is told"
    };
    row(what, start.elapsed(), &note);
    (shared, next)
}

fn measure(nodes: u64, count: u64, replicas: u64) {
    let tasks = count * replicas;
    println!("\n{nodes} nodes, {count} services, {tasks} tasks");
    let mut state = cluster(nodes, if tasks > 60_000 { 8 } else { 16 });
    services(&mut state, count, replicas);
    let (first, time) = timed(&state, &observed(&state, 1), &Dirty::All);
    let rate = tasks as f64 / time.as_secs_f64();
    row("create, address and place everything", time, &format!("{rate:.0} placements/s"));
    let batches = first.changes.len();
    let time = run_all(&mut state, first);
    row("apply that plan", time, &format!("{batches} batches"));
    start_all(&mut state);
    let (idle, time) = timed(&state, &observed(&state, 2), &Dirty::All);
    row("full pass, nothing to do", time, &format!("{} batches", idle.changes.len()));
    let (_, time) = timed(&state, &observed(&state, 3), &Dirty::none());
    row("dirty pass, nothing dirty (a wake-up for leases)", time, "");

    let before = told(&state, None);
    let victim = Arc::clone(state.tasks.values().next().unwrap());
    let now = state.clock.after(Duration::from_millis(1));
    let events = commit(&mut state, now, vec![report(&victim, TaskState::Failed)]);
    let dirty = Dirty::from_events(&View::new(state.clone()), &events);
    let (one, time) = timed(&state, &observed(&state, 4), &dirty);
    let changes = one.changes.iter().map(Vec::len).sum::<usize>();
    row("dirty pass, one task failed", time, &format!("{changes} changes"));
    told(&state, Some(before));
    run_all(&mut state, one);

    let lost = state.nodes.values().next().unwrap().id;
    let mut facts = observed(&state, 5);
    facts.now = facts.now.after(Duration::from_secs(10));
    facts.leases.values_mut().for_each(|lease| lease.renewed_at = facts.now);
    facts.leases.remove(&lost);
    let mut dirty = Dirty::none();
    dirty.mark(ObjectKey::Node(lost));
    let (plan, time) = timed(&state, &facts, &dirty);
    let changes = plan.changes.iter().map(Vec::len).sum::<usize>();
    row("a node is lost, its tasks are replaced", time, &format!("{changes} changes"));
}

fn main() {
    measure(3, 1, 10);
    measure(1_000, 200, 100);
    measure(1_000, 20_000, 1);
    measure(1_000, 1, 20_000);
    if std::env::args().any(|it| it == "--large") {
        measure(5_000, 10_000, 100);
    }
}
