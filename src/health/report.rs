//! How the swarm stands, in numbers and in few words: what `swarm status` shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::{Facts, Part, name_of};
use super::tracker::Raised;
use crate::domain::node::{Availability, Membership, Node, Reachability};
use crate::domain::{Format, NodeId, RaftId, Service, TaskState};
use crate::state::State;

/// Services that are named when they are not as wanted; the others are counted.
const NAMED_MAX: usize = 10;

/// How things stand, as seen from one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Nothing is wrong and everything that is wanted runs.
    pub is_well: bool,
    /// What is not well, in one line; `all is well` otherwise.
    pub verdict: String,
    /// The cluster, on a manager whose store is open.
    pub cluster: Option<Census>,
    /// A format that is newer than the one in use, if one is known.
    pub upgrade: Option<Upgrade>,
}

/// A format that is to be used once all managers know it (docs/adr/0027).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The format in use.
    pub used: Format,
    /// The newest that a manager knows.
    pub known: Format,
    /// The managers that hold it back; only the leader knows.
    pub holds: Option<Vec<Hold>>,
}

/// A manager that holds a format back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// Its name.
    pub node: String,
    /// Its id.
    pub id: NodeId,
    /// The newest format that it knows; `None` if it is not heard from.
    pub knows: Option<Format>,
}

/// The cluster in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Managers that vote or are to.
    pub managers: usize,
    /// Those of them that are heard from.
    pub managers_reachable: usize,
    /// How many must be.
    pub quorum: usize,
    /// Nodes.
    pub nodes: usize,
    /// Nodes that are heard from and can run tasks.
    pub ready: usize,
    /// Nodes that are not heard from.
    pub down: usize,
    /// Nodes that are there and cannot run tasks.
    pub degraded: usize,
    /// Nodes that take no tasks by their users' wish.
    pub drained: usize,
    /// Services.
    pub services: usize,
    /// Tasks that are wanted.
    pub wanted: u64,
    /// Those of them that run.
    pub running: u64,
    /// Services that are not as wanted, with a reason; at most ten of them.
    pub behind: Vec<Behind>,
    /// How many there are in all.
    pub behind_count: usize,
}

/// A service that is not as wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Its name.
    pub service: String,
    /// Tasks that are wanted.
    pub wanted: u64,
    /// Those of them that run.
    pub running: u64,
    /// What is said of one that does not; may be empty.
    pub reason: String,
}

/// How things stand, with the alarms that are raised.
#[must_use]
pub fn report(facts: &Facts<'_>, raised: &[Raised]) -> Report {
    let cluster = facts.state.map(census);
    let mut wrong = Vec::new();
    match facts.local.part {
        Part::Outside => wrong.push("this node is in no swarm".to_owned()),
        Part::Starting => wrong.push("the daemon of this node is starting".to_owned()),
        Part::Joining => wrong.push("this node is joining a swarm".to_owned()),
        Part::Locked => wrong.push("this manager is locked".to_owned()),
        Part::Broken => wrong.push("this node cannot do its part".to_owned()),
        Part::Manager if facts.state.is_none() => {
            wrong.push("this manager is starting".to_owned());
        }
        Part::Manager if facts.local.is_led != Some(true) => {
            wrong.push("the swarm does not have a leader".to_owned());
        }
        Part::Worker | Part::Manager => {}
    }
    match raised.len() {
        0 => {}
        1 => wrong.push("1 alarm".to_owned()),
        count => wrong.push(format!("{count} alarms")),
    }
    match cluster.as_ref().map_or(0, |census| census.behind_count) {
        0 => {}
        1 => wrong.push("1 service is not as wanted".to_owned()),
        count => wrong.push(format!("{count} services are not as wanted")),
    }
    let verdict = if wrong.is_empty() { "all is well".to_owned() } else { wrong.join(", ") };
    let upgrade = facts.state.and_then(|state| upgrade(state, facts.local.formats.as_ref()));
    Report { is_well: wrong.is_empty(), verdict, cluster, upgrade }
}

/// Whom a newer format waits for: the managers that `control/format` waits for, by name.
fn upgrade(state: &State, formats: Option<&BTreeMap<NodeId, Format>>) -> Option<Upgrade> {
    let used = state.format();
    let is_manager =
        |node: &&Node| node.manager.is_some_and(|part| part.membership != Membership::Removed);
    let managers = || state.nodes.values().map(Arc::as_ref).filter(is_manager);
    let knows = |node: &Node| formats.and_then(|formats| formats.get(&node.id).copied());
    let known = managers().filter_map(knows).max().max(Some(Format::NEWEST))?;
    if known <= used {
        return None;
    }
    let holds = formats.map(|_| {
        let late = managers().filter(|node| knows(node) < Some(known));
        let hold = |node: &Node| Hold { node: name_of(node), id: node.id, knows: knows(node) };
        let mut holds: Vec<Hold> = late.map(hold).collect();
        holds.sort();
        holds
    });
    Some(Upgrade { used, known, holds })
}

fn census(state: &State) -> Census {
    let mut census = Census { nodes: state.nodes.len(), ..Census::default() };
    for node in state.nodes.values() {
        count_node(&mut census, node);
    }
    census.quorum = census.managers / 2 + 1;
    census.services = state.services.values().filter(|service| !service.removing).count();
    for service in state.services.values().filter(|service| !service.removing) {
        let behind = standing(state, service);
        census.wanted += behind.wanted;
        census.running += behind.running;
        if behind.running < behind.wanted {
            census.behind_count += 1;
            if census.behind.len() < NAMED_MAX {
                census.behind.push(behind);
            }
        }
    }
    census.behind.sort_by(|a, b| a.service.cmp(&b.service));
    census
}

fn count_node(census: &mut Census, node: &Node) {
    let is_degraded = node.description.as_ref().is_some_and(|it| !it.degraded.is_empty());
    match node.status.reachability {
        Reachability::Reachable if is_degraded => census.degraded += 1,
        Reachability::Reachable => census.ready += 1,
        Reachability::Unreachable | Reachability::Unknown => census.down += 1,
    }
    census.drained += usize::from(node.spec.availability != Availability::Active);
    let Some(part) = node.manager.filter(|it| it.membership != Membership::Removed) else { return };
    census.managers += 1;
    let is_heard = !part.silent && node.status.reachability != Reachability::Unreachable;
    census.managers_reachable += usize::from(is_heard);
}

/// How a service stands. Tasks that ended well (jobs of a kind) are not missed.
#[must_use]
pub fn standing(state: &State, service: &Service) -> Behind {
    let replicas = state.current_spec(service).and_then(|spec| spec.replicas());
    let (mut tasks, mut running, mut completed) = (0, 0, 0);
    let mut worst = None;
    for task in state.tasks_of(service.id) {
        let is_over = task.status.state == TaskState::Complete;
        let is_wanted = task.desired <= TaskState::Running && !is_over;
        tasks += u64::from(is_wanted);
        running += u64::from(is_wanted && task.status.state == TaskState::Running);
        completed += u64::from(is_over);
        if is_wanted && task.status.state != TaskState::Running {
            let status = &task.status;
            let text = if status.error.is_empty() { &status.message } else { &status.error };
            worst = worst.max(Some((!status.error.is_empty(), status.at, text.clone())));
        }
    }
    // What a restart policy leaves ended has no task that is wanted any more.
    let wanted = replicas.map_or(tasks, |replicas| replicas.saturating_sub(completed).max(tasks));
    Behind {
        service: service.name.clone(),
        wanted,
        running,
        reason: worst.map(|(_, _, text)| text).unwrap_or_default(),
    }
}

/// The nodes by state, for numbers of few labels.
#[must_use]
pub fn node_state(node: &Node) -> &'static str {
    let is_degraded = node.description.as_ref().is_some_and(|it| !it.degraded.is_empty());
    match node.status.reachability {
        Reachability::Reachable if is_degraded => "degraded",
        Reachability::Reachable => "ready",
        Reachability::Unreachable => "down",
        Reachability::Unknown => "unknown",
    }
}

/// The name of the node that is a member of the Raft group.
#[must_use]
pub fn member_name(state: &State, member: RaftId) -> Option<String> {
    let is_it = |node: &Node| node.manager.is_some_and(|it| it.raft_id == member);
    let node = state.nodes.values().find(|node| is_it(node))?;
    Some(name_of(node))
}
