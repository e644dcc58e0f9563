//! Services that are plainly as they should be: most of them, most of the time. A full pass passes over
//! them without building anything. Only obvious cases are told here; the steps decide the others.

use crate::domain::node::{Availability, Reachability};
use crate::domain::service::UpdateState;
use crate::domain::{Node, Service, ServiceSpec, Task, TaskState};

use super::pass::Pass;

/// Whether no step has anything to do for a service: the wanted number of tasks, all of the current
/// version, all running where they may, no history, no update under way, no version to drop.
pub(super) fn is_at_rest(pass: &Pass<'_>, service: &Service) -> bool {
    let Some(spec) = pass.view.current_spec(service) else { return false };
    let versions = pass.view.specs.range((service.id, 0)..=(service.id, u64::MAX)).count();
    let (Some(replicas), false) = (spec.replicas(), service.removing) else { return false };
    if versions != 1 + usize::from(service.previous.is_some())
        || is_constrained(spec)
        || !is_update_over(service)
    {
        return false;
    }
    let mut count = 0;
    for task in pass.view.tasks_of(service.id) {
        if task.spec != service.current || !is_steady(pass, task) {
            return false;
        }
        count += 1;
    }
    count == replicas
}

fn is_constrained(spec: &ServiceSpec) -> bool {
    spec.task_template.placement.as_ref().is_some_and(|it| !it.constraints.is_empty())
}

fn is_update_over(service: &Service) -> bool {
    service.update.as_ref().is_none_or(|it| {
        it.target == service.current
            && match it.state {
                UpdateState::Completed | UpdateState::RollbackCompleted => true,
                UpdateState::Updating
                | UpdateState::Paused
                | UpdateState::RollbackStarted
                | UpdateState::RollbackPaused => false,
            }
    })
}

fn is_steady(pass: &Pass<'_>, task: &Task) -> bool {
    task.status.state == TaskState::Running
        && task.desired == TaskState::Running
        && task.node.and_then(|id| pass.roster.get(id)).is_some_and(|node| keeps(node))
}

fn keeps(node: &Node) -> bool {
    node.status.reachability == Reachability::Reachable
        && node.spec.availability != Availability::Drain
}
