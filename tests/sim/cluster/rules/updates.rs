//! I17: what an update takes out of service at a time, held against what its policy says. Only what
//! the update itself withdraws counts: not what fails, is drained, or is on a node that was lost.

use std::collections::{BTreeMap, BTreeSet};

use swarm::domain::node::{Availability, Reachability};
use swarm::domain::policy::{UpdateOrder, UpdatePolicy};
use swarm::domain::service::UpdateState;
use swarm::domain::task::Slot;
use swarm::domain::{Position, Service, ServiceId, Task, TaskId, TaskState, Timestamp};
use swarm::state::View;

use super::{SLACK, Seen, tell};

/// An update that is under way: to which version, and since when.
type Update = (u64, Timestamp);

/// What is known of updates.
#[derive(Default)]
pub(super) struct Updates {
    /// The version that each service is at. It only rises, but where a user swaps it for the one before.
    versions: BTreeMap<ServiceId, u64>,
    /// Slots whose running task an update has withdrawn, and that have no other yet.
    withdrawn: BTreeMap<ServiceId, (Update, BTreeSet<Slot>)>,
    /// How many were withdrawn.
    pub(super) turns: u64,
}

impl Updates {
    /// Looks at all services; `tasks` is what they were at `before`.
    pub(super) fn look(
        &mut self,
        view: &View,
        before: Position,
        tasks: &BTreeMap<TaskId, Seen>,
    ) -> Option<String> {
        self.versions.retain(|id, _| view.service(*id).is_some());
        self.withdrawn.retain(|id, _| view.service(*id).is_some());
        view.services.values().find_map(|service| {
            let version = self.versions.insert(service.id, service.current).unwrap_or_default();
            if version > service.current && service.previous != Some(version) {
                let name = &service.name;
                return Some(format!("I17: {name} went from {version} to {}", service.current));
            }
            self.service(view, service, before, tasks)
        })
    }

    fn service(
        &mut self,
        view: &View,
        service: &Service,
        before: Position,
        tasks: &BTreeMap<TaskId, Seen>,
    ) -> Option<String> {
        let Some((update, policy)) = under_way(view, service) else {
            self.withdrawn.remove(&service.id);
            return None;
        };
        let (known, slots) = self.withdrawn.entry(service.id).or_default();
        if *known != update {
            (*known, *slots) = (update, BTreeSet::new());
        }
        slots.retain(|slot| is_waited_for(view, service, *slot));
        for task in view.tasks_of(service.id) {
            let was = tasks.get(&task.id);
            let ran = was.is_some_and(|it| {
                it.state == TaskState::Running && it.desired <= TaskState::Running
            });
            let is_withdrawn = ran
                && task.spec != service.current
                && task.desired == TaskState::Shutdown
                && task.status.state <= TaskState::Running;
            if is_withdrawn
                && is_undisturbed(view, task, before)
                && is_waited_for(view, service, task.slot)
            {
                self.turns += u64::from(slots.insert(task.slot));
            }
        }
        // What the update before it withdrew and this one has not come to yet is not its doing.
        let has_turn = |slot: &&Slot| {
            view.tasks_of(service.id).any(|it| {
                it.slot == **slot && it.spec == update.0 && it.meta.created_at >= update.1
            })
        };
        let slots: Vec<Slot> = slots.iter().filter(has_turn).copied().collect();
        let most = usize::try_from(policy.parallelism).unwrap_or(usize::MAX);
        let may = most == 0 || policy.order == Some(UpdateOrder::StartFirst) || slots.len() <= most;
        (!may).then(|| {
            let name = &service.name;
            let story: Vec<_> = view
                .tasks_of(service.id)
                .filter(|it| slots.contains(&it.slot))
                .map(|it| tell(it))
                .collect();
            format!(
                "I17: the update {update:?} of {name} has withdrawn {} at a time, and may {most}: {story:#?}",
                slots.len()
            )
        })
    }
}

/// The update of a service that is under way, and its policy.
fn under_way(view: &View, service: &Service) -> Option<(Update, UpdatePolicy)> {
    let update = service.update.as_ref().filter(|it| it.target == service.current)?;
    let spec = view.current_spec(service)?;
    let given = match update.state {
        UpdateState::Updating => &spec.update_config,
        UpdateState::RollbackStarted => &spec.rollback_config,
        UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => return None,
    };
    let default = UpdatePolicy { parallelism: 1, ..UpdatePolicy::default() };
    let policy = given.clone().unwrap_or(default);
    Some(((update.target, update.started_at), policy))
}

/// Whether a slot is to have a task, and none of the newest version runs or has ended.
fn is_waited_for(view: &View, service: &Service, slot: Slot) -> bool {
    let all = || view.tasks_of(service.id).filter(|it| it.slot == slot);
    let is_wanted = all().any(|it| it.desired <= TaskState::Running);
    let is_served =
        all().any(|it| it.spec == service.current && it.status.state >= TaskState::Running);
    is_wanted && !is_served
}

/// Whether nothing but an update can have withdrawn a task: its node is well and has been for a while.
fn is_undisturbed(view: &View, task: &Task, before: Position) -> bool {
    task.node.and_then(|id| view.node(id)).is_some_and(|node| {
        node.status.reachability == Reachability::Reachable
            && node.spec.availability == Availability::Active
            && node.meta.revision.0 <= before.index
            && node.meta.updated_at.after(5 * SLACK) < view.clock
    })
}
