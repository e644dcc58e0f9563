//! When a slot whose task has ended gets another one, and when that one may start.
//!
//! There is no restart history but the ended tasks themselves, which are replicated, so a failover
//! neither forgets nor repeats an attempt; `reap` keeps those that a policy counts. Whether a task is
//! replaced is judged as of the time it ended, so the answer never changes later.

use std::sync::Arc;
use std::time::Duration;

use super::crew::{Crew, Member, ended_itself};
use super::pass::Pass;
use crate::domain::policy::{RestartCondition, RestartPolicy};
use crate::domain::{Task, TaskState, Timestamp};

/// How long a new task waits for its predecessor to stop (Docker: `defaultOldTaskTimeout`).
const PREDECESSOR_WAIT: Duration = Duration::from_secs(60);

/// A task that ran for less than this failed quickly.
const QUICK: Duration = Duration::from_secs(10);

/// Quick failures in a row after which the delay doubles from one to the next: a crash loop must
/// not cost as much as work.
const QUICK_FAILURES: usize = 4;

/// The delay never grows beyond this, unless the policy's own is longer.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// The least delay that is doubled.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// What a slot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: it has a task.
    Live,
    /// Nothing: its last task ended and is not to be replaced, or not yet.
    Held,
    /// Another task, which may not start before a time.
    Vacant(Timestamp),
    /// Nothing: all its tasks are being removed.
    Leaving,
}

/// What a slot needs, by its members in the order of their age.
pub(super) fn standing(pass: &Pass<'_>, crew: &mut Crew, slot: &[usize]) -> Standing {
    if slot.iter().any(|place| crew.members[*place].is_live()) {
        return Standing::Live;
    }
    let stays = |place: &&usize| {
        let member = &crew.members[**place];
        !member.gone && member.task.desired < TaskState::Remove
    };
    let Some(last) = slot.iter().rev().find(stays) else { return Standing::Leaving };
    let task = Arc::clone(&crew.members[*last].task);
    if !ended_itself(&task) {
        return Standing::Vacant(Timestamp::default());
    }
    let is_outdated = crew.is_outdated(pass, &task);
    if is_early(pass, &task) && !is_outdated {
        return Standing::Held;
    }
    let spec = Arc::clone(&crew.facts(pass, task.spec).spec);
    let default = RestartPolicy::default();
    let policy = spec.task_template.restart_policy.as_ref().unwrap_or(&default);
    let earlier: Vec<&Task> = slot
        .iter()
        .map(|place| &*crew.members[*place].task)
        .filter(|it| it.id != task.id && it.spec == task.spec && ended_itself(it))
        .collect();
    if is_replaced(policy, &task, &earlier) {
        // A new wish has not failed yet: it waits for nothing that its predecessor did.
        let due = ended_at(&task).max(task.not_before).after(delay(policy, &task, &earlier));
        Standing::Vacant(if is_outdated { Timestamp::default() } else { due })
    } else {
        Standing::Held
    }
}

/// Whether a task ended before its own start was due: it was refused while it was prepared. Tasks are
/// prepared at once, so another one now would end as quickly (Docker: a restart waits for the delay
/// of the task that it replaces).
fn is_early(pass: &Pass<'_>, task: &Task) -> bool {
    task.status.state.is_terminal() && task.not_before > pass.now
}

/// When a task ended, in cluster time: its last change was the report of its end.
fn ended_at(task: &Task) -> Timestamp {
    task.meta.updated_at
}

/// Whether the policy wants another task after one that ended by itself.
fn is_replaced(policy: &RestartPolicy, task: &Task, earlier: &[&Task]) -> bool {
    let wanted = match policy.condition.unwrap_or_default() {
        RestartCondition::None => false,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::Any => true,
    };
    let Some(most) = policy.max_attempts.filter(|most| *most > 0) else { return wanted };
    let window = policy.window.filter(|window| window.0 > 0);
    let counts = |it: &&&Task| {
        window.is_none_or(|window| ended_at(task).since(ended_at(it)) < window.duration())
    };
    let attempts = earlier.iter().filter(counts).count();
    wanted && u64::try_from(attempts).unwrap_or(u64::MAX) < most
}

/// How long after its end a task's successor may start.
fn delay(policy: &RestartPolicy, task: &Task, earlier: &[&Task]) -> Duration {
    let delay = policy.delay.unwrap_or(RestartPolicy::DEFAULT_DELAY).duration();
    let started = task.not_before.max(task.meta.created_at);
    let quick = task.status.state != TaskState::Complete && ended_at(task).since(started) < QUICK;
    if !quick || earlier.len() < QUICK_FAILURES {
        return delay;
    }
    let last = task.not_before.since(task.meta.created_at);
    (last * 2).clamp(DELAY_MIN, DELAY_MAX).max(delay)
}

/// The state in which a new task begins, and the slot's tasks that it waits for: it is prepared at
/// once and started when its time has come and its predecessor has stopped.
pub(super) fn first_desired(
    pass: &Pass<'_>,
    crew: &Crew,
    slot: &[usize],
    not_before: Timestamp,
) -> TaskState {
    let members = slot.iter().map(|place| &crew.members[*place]);
    if not_before > pass.now || waits_for(pass, members) {
        TaskState::Ready
    } else {
        TaskState::Running
    }
}

/// Whether one of a slot's tasks is stopping on a node that can tell us when it has.
fn waits_for<'m>(pass: &Pass<'_>, members: impl Iterator<Item = &'m Member>) -> bool {
    members.filter(|it| !it.gone).any(|it| {
        let task = &it.task;
        let stopping = task.may_run() && task.desired > TaskState::Running;
        stopping && task.node.is_some_and(|id| pass.roster.is_reachable(id))
    })
}

/// Starts tasks whose time has come; marks those that ended by themselves as no longer wanted.
pub(super) fn decide(pass: &mut Pass<'_>, crew: &mut Crew) {
    for slot in crew.slots() {
        for place in slot.clone() {
            let task = Arc::clone(&crew.members[place].task);
            if is_early(pass, &task) {
                let key = crew.key();
                pass.wake(task.not_before, key);
            }
            if task.status.state.is_terminal() && task.desired <= TaskState::Running {
                crew.want(pass, place, TaskState::Shutdown);
                continue;
            }
            if task.desired != TaskState::Ready || crew.members[place].gone {
                continue;
            }
            let key = crew.key();
            pass.wake(task.not_before, key);
            let waits = waits_for(pass, crew.members[slot.clone()].iter())
                && !pass.is_over(task.meta.created_at, PREDECESSOR_WAIT, key);
            if task.not_before <= pass.now && !waits {
                crew.want(pass, place, TaskState::Running);
            }
        }
    }
}
