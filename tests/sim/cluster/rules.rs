//! What must hold of a cluster, checked while a simulation runs: the engines' containers and the
//! agents' assignments against the newest view of the managers. The numbers are those of
//! docs/TESTING.md. Some rules hold always, some only where nothing has been wrong for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm::domain::assignment::ItemKey;
use swarm::domain::node::Reachability;
use swarm::domain::policy::UpdateOrder;
use swarm::domain::task::Slot;
use swarm::domain::timing::Timing;
use swarm::domain::{
    AssignmentSet, NetworkId, NodeId, Position, ServiceId, Task, TaskId, TaskState, Timestamp,
};
use swarm::runtime::{Container, Phase};
use swarm::state::View;

use super::engine::Deed;
use crate::net::Host;
use updates::Updates;

mod updates;

/// After a fault this long, nothing of it may be seen any more.
pub(crate) const SETTLES: Duration = Duration::from_secs(20);
/// Cluster time and the moment at which we look may differ by this.
const SLACK: Duration = Duration::from_secs(1);

/// What was seen of a task.
#[derive(Clone, Debug)]
struct Seen {
    node: Option<NodeId>,
    state: TaskState,
    desired: TaskState,
    addresses: Vec<(NetworkId, IpAddr)>,
    ended_at: Option<Timestamp>,
}

/// A machine as the rules look at it.
pub(crate) struct Sight {
    pub(crate) host: Host,
    pub(crate) node: NodeId,
    pub(crate) containers: Vec<Container>,
    pub(crate) deeds: Vec<Deed>,
    /// What its agent knows; `None` while it does not run.
    pub(crate) set: Option<Arc<AssignmentSet>>,
    /// Nothing was wrong with this machine, its ways and its managers for [`SETTLES`].
    pub(crate) is_calm: bool,
}

/// What is known so far.
#[derive(Default)]
pub(crate) struct Rules {
    position: Position,
    tasks: BTreeMap<TaskId, Seen>,
    /// Where each container began to run.
    started: BTreeMap<TaskId, Host>,
    /// Stops that the view must explain: since when.
    known: BTreeMap<NodeId, Position>,
    reachable: BTreeMap<NodeId, bool>,
    /// Nodes that were removed, and before which index.
    removed: BTreeMap<NodeId, u64>,
    updates: Updates,
    pub(crate) violation: Option<String>,
    pub(crate) counts: Counts,
}

/// How often things came about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) stopped: u64,
    pub(crate) lost_nodes: u64,
    pub(crate) strict: u64,
}

impl Rules {
    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// How many slots updates took out of service.
    pub(crate) const fn turns(&self) -> u64 {
        self.updates.turns
    }

    /// Looks at everything.
    pub(crate) fn look(&mut self, view: &View, machines: &[Sight]) {
        if view.position < self.position {
            return;
        }
        let before = std::mem::replace(&mut self.position, view.position);
        let problem = self.updates.look(view, before, &self.tasks);
        self.hold(problem.is_none(), || problem.clone().unwrap_or_default());
        self.deeds(view, machines);
        self.tasks(view);
        self.nodes(view, machines);
        for machine in machines {
            self.assignments(machine);
            self.containers(view, machine);
        }
        self.slots(view, machines);
        self.addresses(view, machines);
        self.capacity(view);
    }

    /// I13, I15: a container begins to run once, where its task is, and is not stopped for nothing.
    fn deeds(&mut self, view: &View, machines: &[Sight]) {
        for machine in machines {
            let host = machine.host;
            for deed in &machine.deeds {
                match *deed {
                    Deed::Started(task) => {
                        self.counts.started += 1;
                        let before = self.started.insert(task, host);
                        self.hold(before.is_none(), || {
                            format!("I13: the container of {task} began on host {host} after it had on {before:?}")
                        });
                        let node = view.task(task).and_then(|task| task.node);
                        self.hold(node.is_none_or(|node| node == machine.node), || {
                            format!("I14: host {host} runs {task}, which is on {node:?}")
                        });
                    }
                    Deed::Stopped(task) => {
                        self.counts.stopped += 1;
                        let known = view.task(task);
                        let is_wanted = known.is_some_and(|task| {
                            task.desired <= TaskState::Running && !task.status.state.is_terminal()
                        });
                        self.hold(!is_wanted, || {
                            format!("I15: host {host} stopped {task}, which shall run: {known:?}")
                        });
                    }
                }
            }
        }
    }

    /// I14: tasks only rise, and stay where they are. I22: addresses rest.
    fn tasks(&mut self, view: &View) {
        for task in view.tasks.values() {
            let now = seen(task, view);
            match self.tasks.get(&task.id).cloned() {
                Some(before) => self.rises(task, &before, &now),
                None if now.addresses.is_empty() => {}
                None => self.rests(task, view),
            }
            let had_address = self.tasks.get(&task.id).map(|it| !it.addresses.is_empty());
            if had_address == Some(false) && !now.addresses.is_empty() {
                self.rests(task, view);
            }
            let ended_at = self.tasks.get(&task.id).and_then(|it| it.ended_at);
            self.tasks.insert(task.id, Seen { ended_at: ended_at.or(now.ended_at), ..now });
        }
        self.tasks.retain(|id, _| view.task(*id).is_some());
    }

    fn rises(&mut self, task: &Task, before: &Seen, now: &Seen) {
        let id = task.id;
        self.hold(before.node.is_none() || before.node == now.node, || {
            format!("I14: {id} went from {:?} to {:?}", before.node, now.node)
        });
        self.hold(before.state <= now.state && before.desired <= now.desired, || {
            format!("I14: {id} fell from {before:?} to {now:?}")
        });
        self.hold(before.addresses.is_empty() || before.addresses == now.addresses, || {
            format!("I14: {id} changed its address: {before:?}, {now:?}")
        });
    }

    /// I22: nobody had the addresses of a new task a moment ago, as far as there are records. (A record
    /// goes only after the node has said that nothing of the task is left.)
    fn rests(&mut self, task: &Task, view: &View) {
        let rest = Timing::DEFAULT.address_rest - SLACK;
        let mine = seen(task, view).addresses;
        let other = self.tasks.iter().find(|(id, other)| {
            let is_young = other.ended_at.is_some_and(|at| view.clock < at.after(rest));
            **id != task.id
                && is_young
                && view.task(**id).is_some()
                && mine.iter().any(|it| other.addresses.contains(it))
        });
        let problem = other.map(|(id, other)| {
            format!("I22: {} got an address that {id} had a moment ago: {other:?}", task.id)
        });
        self.hold(problem.is_none(), || problem.clone().unwrap_or_default());
    }

    /// P5: a node is not called down while all is well; a removed one is told nothing any more.
    fn nodes(&mut self, view: &View, machines: &[Sight]) {
        for machine in machines {
            let (host, node) = (machine.host, machine.node);
            let Some(known) = view.node(node) else {
                if self.reachable.remove(&node).is_some() {
                    self.removed.insert(node, view.position.index);
                }
                continue;
            };
            let is_up = known.status.reachability == Reachability::Reachable;
            let was_up = self.reachable.insert(node, is_up).unwrap_or(false);
            if was_up && !is_up {
                self.counts.lost_nodes += 1;
                self.hold(!machine.is_calm, || {
                    format!("P5: host {host} is called {:?} and nothing is wrong", known.status)
                });
            }
        }
    }

    /// I18: what an agent knows does not go back, over its lives. I26: it has the secrets of its own
    /// tasks, and no others.
    fn assignments(&mut self, machine: &Sight) {
        let (host, node) = (machine.host, machine.node);
        let Some(set) = &machine.set else { return };
        let before = self.known.insert(node, set.position).unwrap_or_default();
        self.hold(before <= set.position, || {
            format!("I18: the agent of host {host} went from {before:?} to {:?}", set.position)
        });
        let removed = self.removed.get(&node).copied();
        self.hold(removed.is_none_or(|index| set.position.index < index), || {
            format!("I28: removed at {removed:?}, host {host} was told of {:?}", set.position)
        });
        let mut wanted = BTreeSet::new();
        for task in set.tasks().filter(|task| task.desired <= TaskState::Running) {
            if let Some(version) = set.spec(task.service, task.spec) {
                let secrets = &version.spec.task_template.container_spec.secrets;
                wanted.extend(secrets.iter().map(|it| it.secret_id));
            }
        }
        let mut held = set.items.keys().filter_map(|key| match key {
            ItemKey::Secret(secret) => Some(*secret),
            _ => None,
        });
        let problem = held.find(|secret| !wanted.contains(secret));
        self.hold(problem.is_none(), || {
            format!("I26: host {host} has secret {problem:?}, which no task of its uses")
        });
    }

    /// I13: what a node says of its containers is so.
    fn containers(&mut self, view: &View, machine: &Sight) {
        for container in &machine.containers {
            let Some(task) = view.task(container.task) else { continue };
            let says_ended = matches!(task.status.state, TaskState::Shutdown | TaskState::Complete)
                || task.status.error == "dockerexec: container destroyed";
            let runs = matches!(container.phase, Phase::Running(_));
            self.hold(!(says_ended && runs), || {
                format!("I13: host {} says that {task:?} has ended, and it runs", machine.host)
            });
        }
    }

    /// P6, I13: one container per slot where everything is well, but for updates that start first. A task
    /// that is to be removed has given up its slot: who scales down and up again has a new one beside it.
    fn slots(&mut self, view: &View, machines: &[Sight]) {
        if !machines.iter().all(|machine| machine.is_calm) {
            return;
        }
        self.counts.strict += 1;
        let mut slots: BTreeMap<(ServiceId, Slot), TaskId> = BTreeMap::new();
        for machine in machines {
            for container in &machine.containers {
                let (Phase::Running(_), Some(task)) = (container.phase, view.task(container.task))
                else {
                    continue;
                };
                if task.desired >= TaskState::Remove {
                    continue;
                }
                let other = slots.insert((task.service, task.slot), task.id);
                let may_overlap = starts_first(view, task.service);
                self.hold(other.is_none() || may_overlap, || {
                    let all = view.tasks_of(task.service).filter(|it| it.slot == task.slot);
                    let story: Vec<_> = all.map(|it| tell(it)).collect();
                    let service = view.service(task.service);
                    let update = service.and_then(|it| it.update.as_ref());
                    format!("P6: {other:?} and {} run in one slot: {story:#?} {update:?}", task.id)
                });
            }
        }
    }

    /// I21: no two containers that run have one address, on nodes that the cluster knows.
    fn addresses(&mut self, view: &View, machines: &[Sight]) {
        let mut owners: BTreeMap<(NetworkId, IpAddr), TaskId> = BTreeMap::new();
        for machine in machines.iter().filter(|it| view.node(it.node).is_some()) {
            for container in &machine.containers {
                let Phase::Running(_) = container.phase else { continue };
                let Some(known) = self.tasks.get(&container.task) else { continue };
                for address in known.addresses.clone() {
                    let other = owners.insert(address, container.task);
                    self.hold(other.is_none(), || {
                        format!("I21: {other:?} and {} have {address:?}", container.task)
                    });
                }
            }
        }
    }

    /// I16: no node has more than it can hold.
    fn capacity(&mut self, view: &View) {
        for node in view.nodes.values() {
            let Some(description) = &node.description else { continue };
            if description.resources.nano_cpus == 0 {
                continue;
            }
            let (mut cpus, mut memory) = (0, 0);
            let (mut ports, mut holders) = (BTreeSet::new(), Vec::new());
            for task in view.tasks_on(node.id).filter(|task| !task.status.state.is_terminal()) {
                let Some(version) = view.spec(task.service, task.spec) else { continue };
                for port in version.spec.host_ports().filter(|port| port.published_port != 0) {
                    let is_free = ports.insert((port.protocol, port.published_port));
                    self.hold(is_free, || format!("I16: {port:?} is given twice on {}", node.id));
                }
                let resources = version.spec.task_template.resources.as_ref();
                if let Some(wanted) = resources.and_then(|it| it.reservations.as_ref()) {
                    cpus += wanted.nano_cpus;
                    memory += wanted.memory_bytes;
                    holders.push((task, wanted.nano_cpus));
                }
            }
            let has = &description.resources;
            self.hold(cpus <= has.nano_cpus && memory <= has.memory_bytes, || {
                let holder = |(task, cpus): &(&Arc<Task>, i64)| {
                    format!("{cpus} of {}: {}", task.service, tell(task))
                };
                let (id, has) = (node.id, has.nano_cpus);
                let holders: Vec<_> = holders.iter().map(holder).collect();
                format!("I16: {id} holds {cpus} of {has}, {memory}: {holders:#?}")
            });
        }
    }
}

/// A task in a line.
fn tell(task: &Task) -> String {
    let (id, version, desired, status) = (task.id, task.spec, task.desired, &task.status);
    let (state, at, made) = (status.state, status.at.0, task.meta.created_at.0);
    format!(
        "{id} of version {version}, made at {made}: {state} of {desired} since {at}, on {:?}",
        task.node
    )
}

fn seen(task: &Task, view: &View) -> Seen {
    let is_over = task.status.state.is_terminal();
    Seen {
        node: task.node,
        state: task.status.state,
        desired: task.desired,
        addresses: task.addresses.iter().map(|it| (it.network, it.addr)).collect(),
        ended_at: is_over.then_some(view.clock),
    }
}

/// Whether any version of a service's spec lets two tasks share a slot for a while.
fn starts_first(view: &View, service: ServiceId) -> bool {
    view.specs.iter().any(|((owner, _), version)| {
        let policies = [&version.spec.update_config, &version.spec.rollback_config];
        *owner == service
            && policies.into_iter().flatten().any(|it| it.order == Some(UpdateOrder::StartFirst))
    })
}
