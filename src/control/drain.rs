//! Tasks that may not stay where they are: their node is lost, gone, drained or no longer qualifies.
//! They are stopped here and replaced by the orchestrators in the same pass (Docker does not wait for
//! the restart delay then). Tasks of a node that was given up become orphaned.

use super::crew::Crew;
use super::liveness;
use super::pass::Pass;
use crate::domain::node::{Availability, Reachability};
use crate::domain::task::Slot;
use crate::domain::{Node, TaskState};

pub(super) fn decide(pass: &mut Pass<'_>, crew: &mut Crew) {
    for place in 0..crew.members.len() {
        let task = &crew.members[place].task;
        if task.status.state > TaskState::Running {
            continue;
        }
        // A task of a global service brings its node with it before it is placed.
        let pinned = match task.slot {
            Slot::Node(id) => Some(id),
            Slot::Number(_) => None,
        };
        let (Some(id), number) = (task.node.or(pinned), task.spec) else { continue };
        let live = task.is_live();
        if task.node.is_some() && liveness::is_given_up(pass, id) {
            let now = pass.now;
            crew.edit(pass, place, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.at = now;
                task.desired = task.desired.max(TaskState::Shutdown);
            });
        } else if live {
            // A global service leaves the nodes that it is not wanted on any more; a placed task of
            // another is replaced by the update if its spec has changed.
            let judged_by = if pinned.is_some() { crew.service.current } else { number };
            let facts = crew.facts(pass, judged_by);
            let stays =
                pass.roster.get(id).is_some_and(|node| keeps_tasks(node) && facts.allows(node));
            if !stays {
                crew.want(pass, place, TaskState::Shutdown);
            }
        }
    }
}

/// Whether tasks may stay on a node.
fn keeps_tasks(node: &Node) -> bool {
    let reachable = match node.status.reachability {
        Reachability::Reachable | Reachability::Unknown => true,
        Reachability::Unreachable => false,
    };
    let available = match node.spec.availability {
        Availability::Active | Availability::Pause => true,
        Availability::Drain => false,
    };
    reachable && available
}
