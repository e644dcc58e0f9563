//! Removal of what has ended: history beyond its limit, tasks and services that were removed, spec
//! versions that nobody refers to.

use std::collections::BTreeSet;
use std::ops::Range;

use super::crew::{Crew, ended_itself};
use super::pass::Pass;
use crate::domain::task::Slot;
use crate::domain::{Task, TaskState};

pub(super) fn decide(pass: &mut Pass<'_>, crews: &mut [Crew]) {
    for crew in crews {
        if crew.service.removing {
            remove_service(pass, crew);
            continue;
        }
        for slot in crew.slots() {
            drop_removed(pass, crew, slot.clone());
            trim(pass, crew, slot);
        }
        drop_versions(pass, crew);
    }
}

/// Whether nothing of a task can be left on any node.
fn is_over(pass: &Pass<'_>, task: &Task) -> bool {
    let gone = task.node.is_none_or(|id| pass.roster.place(id).is_none());
    task.status.state.is_terminal() || gone
}

/// A removed service: its tasks go first, and with the last of them everything of it. A node that is
/// down does not hold it up: when it is back, it finds that it has no such task and stops it.
fn remove_service(pass: &mut Pass<'_>, crew: &mut Crew) {
    let mut left = false;
    for place in 0..crew.members.len() {
        crew.want(pass, place, TaskState::Remove);
        if is_over(pass, &crew.members[place].task) {
            crew.delete(pass, place);
        }
        let task = &crew.members[place].task;
        let waits = task.node.is_some_and(|id| pass.roster.is_reachable(id));
        left |= !crew.members[place].gone && waits;
    }
    if left {
        return;
    }
    for place in 0..crew.members.len() {
        crew.delete(pass, place);
    }
    let id = crew.service.id;
    pass.services_gone.push((id, crew.service.meta.revision));
    let versions = pass.view.specs.range((id, 0)..=(id, u64::MAX));
    pass.versions_gone.extend(versions.map(|(key, _)| *key));
}

/// Tasks of slots that were given up, and tasks that were withdrawn before they had a node.
fn drop_removed(pass: &mut Pass<'_>, crew: &mut Crew, slot: Range<usize>) {
    for place in slot {
        let task = &crew.members[place].task;
        let lost_slot = match task.slot {
            Slot::Node(node) => pass.roster.place(node).is_none(),
            Slot::Number(_) => false,
        };
        let removed = (task.desired >= TaskState::Remove || lost_slot) && is_over(pass, task);
        let never_placed = task.desired > TaskState::Running
            && task.node.is_none()
            && !task.status.state.is_terminal();
        if removed || never_placed {
            crew.delete(pass, place);
        }
    }
}

/// Ended tasks of a slot beyond the limit, the oldest first. As in Docker, the limit counts the
/// running task too, a restart policy that counts attempts keeps one task more than that, and the
/// newest task, which decides what its slot needs next, is never dropped.
fn trim(pass: &mut Pass<'_>, crew: &mut Crew, slot: Range<usize>) {
    let limit = pass
        .view
        .cluster
        .as_ref()
        .map_or(5, |cluster| cluster.spec.orchestration.task_history_retention_limit);
    // The newest task is judged by the policy that it was made with.
    let newest = slot.clone().rev().find(|place| !crew.members[*place].gone);
    let newest = newest.map_or(crew.service.current, |place| crew.members[place].task.spec);
    let current = attempts_of(pass, crew, crew.service.current);
    let attempts = attempts_of(pass, crew, newest).max(current);
    let limit = match (attempts, usize::try_from(limit)) {
        (0, Err(_)) => return, // negative: keep everything
        (0, Ok(limit)) => limit,
        (attempts, _) => usize::try_from(attempts).unwrap_or(usize::MAX).saturating_add(1),
    };
    let kept: Vec<usize> = slot.filter(|place| !crew.members[*place].gone).collect();
    let surplus = kept.len().saturating_sub(limit);
    let holder = kept.last().copied();
    let ended: Vec<usize> = kept
        .into_iter()
        .filter(|place| {
            let task = &crew.members[*place].task;
            task.status.state.is_terminal() && task.desired > TaskState::Running
        })
        .filter(|place| Some(*place) != holder)
        .take(surplus)
        .collect();
    for place in ended {
        debug_assert!(ended_itself(&crew.members[place].task) || !crew.members[place].is_live());
        crew.delete(pass, place);
    }
}

/// Attempts that the restart policy of a version counts; 0 if it counts none.
fn attempts_of(pass: &Pass<'_>, crew: &mut Crew, number: u64) -> u64 {
    let facts = crew.facts(pass, number);
    let policy = facts.spec.task_template.restart_policy.as_ref();
    policy.and_then(|it| it.max_attempts).unwrap_or_default()
}

/// Spec versions that neither the service nor any of its tasks refers to.
fn drop_versions(pass: &mut Pass<'_>, crew: &Crew) {
    let service = &crew.service;
    let versions: Vec<_> = pass
        .view
        .specs
        .range((service.id, 0)..=(service.id, u64::MAX))
        .map(|(key, _)| *key)
        .collect();
    if versions.len() < 2 {
        return;
    }
    let mut used: BTreeSet<u64> =
        crew.members.iter().filter(|it| !it.gone).map(|it| it.task.spec).collect();
    used.insert(service.current);
    used.extend(service.previous);
    pass.versions_gone.extend(versions.into_iter().filter(|(_, number)| !used.contains(number)));
}
