//! Tasks that may not stay where they are: their node is lost, gone, drained or no longer qualifies.
//! They are stopped here and replaced by the orchestrators in the same pass (Docker does not wait for
//! the restart delay then). Tasks of a node that was given up become orphaned.

use super::crew::Crew;
use super::liveness;
use super::pass::Pass;
use crate::domain::node::{Availability, Reachability};
use crate::domain::{Node, TaskState};

pub(super) fn decide(pass: &mut Pass<'_>, crew: &mut Crew) {
    for place in 0..crew.members.len() {
        let task = &crew.members[place].task;
        if task.status.state > TaskState::Running {
            continue;
        }
        let (Some(id), number) = (task.node, task.spec) else { continue };
        let live = task.is_live();
        if liveness::is_given_up(pass, id) {
            let now = pass.now;
            crew.edit(pass, place, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.at = now;
                task.desired = task.desired.max(TaskState::Shutdown);
            });
        } else if live {
            let facts = crew.facts(pass, number);
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
