//! Where tasks that wait for a node go: filter, then spread.
//!
//! Alike tasks (same service and version) are placed as a group: every node is filtered once, and a
//! heap gives the best node for each task in turn. Tasks are never moved once placed. The tasks of
//! global services bring their node with them and are only checked against it.

mod filter;
mod spread;
mod usage;

use std::sync::Arc;
use std::time::Duration;

pub(super) use filter::is_ready;
use filter::{Refusals, refusal};
use spread::{Rank, Tree};
pub(super) use usage::Usage;

use super::crew::Crew;
use super::facts::Facts;
use super::pass::Pass;
use crate::domain::service::VersionNumber;
use crate::domain::task::Slot;
use crate::domain::{NodeId, TaskState};

/// A node on which this many tasks of a service failed lately is avoided (Docker: `maxFailures`).
const FAILURES_MAX: u32 = 5;

/// How long a failure counts as one of late (Docker: `monitorFailures`).
const FAILURES_WINDOW: Duration = Duration::from_secs(300);

/// Alike tasks that wait for a place.
struct Group {
    crew: usize,
    version: VersionNumber,
    /// The node that they bring with them.
    pinned: Option<NodeId>,
    members: Vec<usize>,
}

/// How many tasks of one service each node has. Scratch: what a service does not touch costs nothing.
#[derive(Default)]
struct Counts {
    nodes: Vec<Count>,
    /// Places with a count that is not zero.
    touched: Vec<usize>,
}

/// The tasks of a service on one node.
#[derive(Clone, Default, PartialEq)]
struct Count {
    /// All live tasks.
    live: u32,
    /// Live tasks that run what is wanted, and those that do not. A bound on replicas counts each
    /// kind apart, or start-first could never replace the old ones.
    kinds: [u32; 2],
    /// Failures of late.
    failures: u32,
}

impl Counts {
    /// Forgets the last service and counts the tasks of another.
    fn count(&mut self, pass: &Pass<'_>, crew: &mut Crew) {
        for place in self.touched.drain(..) {
            self.nodes[place] = Count::default();
        }
        self.nodes.resize(pass.roster.len(), Count::default());
        for member in 0..crew.members.len() {
            let task = Arc::clone(&crew.members[member].task);
            let Some(place) = task.node.and_then(|id| pass.roster.place(id)) else { continue };
            if crew.members[member].is_live() {
                let kind = usize::from(crew.is_outdated(pass, &task));
                self.add(place, kind);
            }
            let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
            if failed && pass.now.since(task.meta.updated_at) < FAILURES_WINDOW {
                self.touch(place).failures += 1;
            }
        }
    }

    fn touch(&mut self, place: usize) -> &mut Count {
        if self.nodes[place] == Count::default() {
            self.touched.push(place);
        }
        &mut self.nodes[place]
    }

    /// Counts one more live task.
    fn add(&mut self, place: usize, kind: usize) {
        let count = self.touch(place);
        count.live += 1;
        count.kinds[kind] += 1;
    }
}

pub(super) fn decide(pass: &mut Pass<'_>, crews: &mut [Crew]) {
    let Some(mut usage) = pass.usage.take() else { return };
    let mut stuck = Vec::new();
    let mut counts = Counts::default();
    for (index, crew) in crews.iter_mut().enumerate() {
        let groups = groups(crew, index);
        if groups.is_empty() {
            continue;
        }
        counts.count(pass, crew);
        for mut group in groups {
            let facts = crew.facts(pass, group.version);
            place(pass, crew, &mut group, (&facts, &mut usage, &mut counts));
            if !group.members.is_empty() {
                stuck.push(group);
            }
        }
    }
    // Only now is it known what the placed ones have left.
    let mut counted = None;
    for group in stuck {
        let crew = &mut crews[group.crew];
        if counted != Some(group.crew) {
            counts.count(pass, crew);
            counted = Some(group.crew);
        }
        explain(pass, crew, &group, (&usage, &counts));
    }
}

/// The tasks of a crew that wait for a place, alike ones together.
fn groups(crew: &Crew, index: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (place, member) in crew.members.iter().enumerate() {
        let task = &member.task;
        let waits = member.is_live() && task.node.is_none();
        if !waits || task.status.state != TaskState::Pending {
            continue;
        }
        let pinned = match task.slot {
            Slot::Node(node) => Some(node),
            Slot::Number(_) => None,
        };
        let alike = |it: &&mut Group| it.version == task.spec && it.pinned.is_none();
        match groups.iter_mut().find(alike).filter(|_| pinned.is_none()) {
            Some(group) => group.members.push(place),
            None => {
                let members = vec![place];
                groups.push(Group { crew: index, version: task.spec, pinned, members });
            }
        }
    }
    groups
}

/// Places as many tasks of a group as fit; the rest stays in it.
fn place(
    pass: &mut Pass<'_>,
    crew: &mut Crew,
    group: &mut Group,
    (facts, usage, counts): (&Facts, &mut Usage, &mut Counts),
) {
    let few = group.members.len() * 8 < pass.roster.len();
    let mut tree = Tree::default();
    let searched = group.pinned.is_none() && few && facts.spread().next().is_none();
    if !searched {
        let places = match group.pinned {
            Some(id) => pass.roster.place(id).map_or(0..0, |place| place..place + 1),
            None => 0..pass.roster.len(),
        };
        for place in places {
            let rank = open(pass, crew, (facts, usage, counts), place);
            tree.insert(facts.spread(), pass.roster.at(place), counts.nodes[place].live, rank);
        }
    }
    let mut waiting = std::mem::take(&mut group.members).into_iter();
    for member in waiting.by_ref() {
        let mut chosen = None;
        if searched {
            chosen = search(pass, crew, (facts, usage, counts));
            if let Some(place) = chosen {
                take(pass, crew, (facts, usage, counts), place);
            }
        } else {
            tree.take(&mut |rank: Rank| {
                chosen = Some(rank.place);
                take(pass, crew, (facts, usage, counts), rank.place);
                open(pass, crew, (facts, usage, counts), rank.place)
            });
        }
        let Some(place) = chosen else {
            group.members.push(member);
            break;
        };
        assign(pass, crew, member, place);
    }
    group.members.extend(waiting);
}

/// The rank of a node, if it can take one more task.
fn open(
    pass: &Pass<'_>,
    crew: &mut Crew,
    (facts, usage, counts): (&Facts, &Usage, &Counts),
    place: usize,
) -> Option<Rank> {
    let node = pass.roster.at(place);
    let kind = usize::from(crew.is_outdated_on(pass, facts.number, Some(node.id)));
    let fits = refusal(node, facts, usage.at(place), counts.nodes[place].kinds[kind]).is_none();
    fits.then(|| rank(usage, counts, place))
}

/// Counts one more task on a node.
fn take(
    pass: &Pass<'_>,
    crew: &mut Crew,
    (facts, usage, counts): (&Facts, &mut Usage, &mut Counts),
    place: usize,
) {
    usage.take(place, &facts.needs);
    let node = pass.roster.at(place).id;
    counts.add(place, usize::from(crew.is_outdated_on(pass, facts.number, Some(node))));
}

/// The best node for one task. A few tasks do not pay for a heap of all nodes: the first node in the
/// order of load that has none of the service cannot be beaten.
fn search(
    pass: &Pass<'_>,
    crew: &mut Crew,
    (facts, usage, counts): (&Facts, &Usage, &Counts),
) -> Option<usize> {
    let mut best: Option<Rank> = None;
    for place in usage.by_tasks() {
        let Some(rank) = open(pass, crew, (facts, usage, counts), place) else { continue };
        best = Some(best.map_or(rank, |it| it.min(rank)));
        if rank.failures == 0 && rank.of_service == 0 {
            break;
        }
    }
    best.map(|rank| rank.place)
}

fn rank(usage: &Usage, counts: &Counts, place: usize) -> Rank {
    let count = &counts.nodes[place];
    Rank {
        failures: if count.failures >= FAILURES_MAX { count.failures } else { 0 },
        of_service: count.live,
        tasks: usage.at(place).tasks,
        place,
    }
}

fn assign(pass: &mut Pass<'_>, crew: &mut Crew, member: usize, place: usize) {
    let (now, node) = (pass.now, pass.roster.at(place).id);
    crew.edit(pass, member, |task| {
        task.node = Some(node);
        task.status.state = TaskState::Assigned;
        task.status.at = now;
        let message = match task.slot {
            Slot::Number(_) => "scheduler assigned task to node",
            Slot::Node(_) => "scheduler confirmed task can run on preassigned node",
        };
        message.clone_into(&mut task.status.message);
        task.status.error.clear();
    });
}

/// Writes into the tasks of a group why there is no node for them, where that is news.
fn explain(
    pass: &mut Pass<'_>,
    crew: &mut Crew,
    group: &Group,
    (usage, counts): (&Usage, &Counts),
) {
    let facts = crew.facts(pass, group.version);
    let mut refusals = Refusals::default();
    for (place, node) in pass.roster.iter().enumerate() {
        if group.pinned.is_none_or(|id| id == node.id) {
            let kind = usize::from(crew.is_outdated_on(pass, group.version, Some(node.id)));
            refusals.add(refusal(node, &facts, usage.at(place), counts.nodes[place].kinds[kind]));
        }
    }
    let text = refusals.explain();
    for place in &group.members {
        if crew.members[*place].task.status.error != text {
            let text = text.clone();
            crew.edit(pass, *place, |task| task.status.error = text);
        }
    }
}
