//! Services that are plainly as they should be: most of them, most of the time. A full pass passes over
//! them without building anything. Only obvious cases are told here; the steps decide the others.

use std::iter::Peekable;
use std::sync::Arc;

use crate::domain::node::{Availability, Reachability};
use crate::domain::service::{UpdateState, VersionNumber};
use crate::domain::{Node, Service, ServiceId, ServiceSpec, SpecVersion, Task, TaskId, TaskState};

use super::pass::Pass;

type Specs<'a> = dyn Iterator<Item = (&'a (ServiceId, VersionNumber), &'a Arc<SpecVersion>)> + 'a;
type Tasks<'a> = dyn Iterator<Item = (&'a (ServiceId, TaskId), &'a Arc<Task>)> + 'a;

/// Walks versions and tasks beside the services, all in the order of their ids: no look-up per service.
pub(super) struct Rests<'a> {
    specs: Peekable<Box<Specs<'a>>>,
    tasks: Peekable<Box<Tasks<'a>>>,
}

impl<'a> Rests<'a> {
    pub(super) fn new(pass: &Pass<'a>) -> Self {
        let specs: Box<Specs<'a>> = Box::new(pass.view.specs.iter());
        let tasks: Box<Tasks<'a>> = Box::new(pass.view.tasks_by_service.iter());
        Self { specs: specs.peekable(), tasks: tasks.peekable() }
    }

    /// Whether no step has anything to do for a service: the wanted number of tasks, all of the
    /// current version, all running where they may, no history, no update under way, no version to
    /// drop. To be asked of services in the order of their ids.
    pub(super) fn is_at_rest(&mut self, pass: &Pass<'_>, service: &Service) -> bool {
        let (mut versions, mut current) = (0, None);
        while let Some(((_, number), version)) = self.specs.next_if(|it| it.0.0 <= service.id) {
            if version.service == service.id {
                versions += 1;
                if *number == service.current {
                    current = Some(&version.spec);
                }
            }
        }
        let (mut count, mut steady) = (0, true);
        while let Some(((of, _), task)) = self.tasks.next_if(|it| it.0.0 <= service.id) {
            if *of == service.id && steady {
                count += 1;
                steady = task.spec == service.current && is_steady(pass, task);
            }
        }
        let Some(spec) = current else { return false };
        steady
            && !service.removing
            && spec.replicas() == Some(count)
            && versions == 1 + usize::from(service.previous.is_some())
            && !is_constrained(spec)
            && is_update_over(service)
    }
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
