//! Rolling updates and rollbacks: old tasks are replaced by new ones, some at a time, watched.
//!
//! All that must be remembered is in `Service.update` and in the tasks themselves, so a new leader
//! goes on where the last one stopped. States and messages are Docker's
//! (moby/swarmkit `manager/orchestrator/update/updater.go`).
//!
//! The first new task of a slot since the update began is its *attempt*. A slot is busy until its
//! attempt runs (or has failed) and the policy's delay has passed. An attempt that ends by itself
//! before it runs, or within the monitor time after, is a failure. When it began to run is not
//! recorded; the start of the attempt that took its turn bounds it.

use std::sync::Arc;
use std::time::Duration;

use super::crew::{Crew, ended_itself};
use super::global::qualifies;
use super::pass::Pass;
use super::restart::{Standing, first_desired, standing};
use crate::domain::policy::{FailureAction, RestartPolicy, UpdateOrder, UpdatePolicy};
use crate::domain::service::{UpdateState, UpdateStatus};
use crate::domain::task::Slot;
use crate::domain::{ServiceSpec, SpecVersion, Task, TaskId, TaskState, Timestamp};

/// The policy of an update with Docker's defaults filled in.
struct Policy {
    parallelism: usize,
    delay: Duration,
    monitor: Duration,
    action: FailureAction,
    max_failure_ratio: f64,
    order: UpdateOrder,
}

/// Where one slot stands.
struct Turn {
    slot: Slot,
    members: Vec<usize>,
    /// Live tasks that run something else than is wanted.
    old: Vec<usize>,
    /// The live task that runs what is wanted.
    new: Option<usize>,
    /// Its first new task since the update began.
    attempt: Option<usize>,
    /// It must be replaced.
    is_due: bool,
}

pub(super) fn decide(pass: &mut Pass<'_>, crew: &mut Crew) {
    if crew.service.removing {
        return;
    }
    let mut turns = survey(pass, crew);
    retire_replaced(pass, crew, &turns);
    if !begin(pass, crew, &turns) {
        return;
    }
    turns = survey(pass, crew);
    if let Some(failed) = failure(crew, &turns) {
        act(pass, crew, failed);
        return;
    }
    roll(pass, crew, &turns);
    turns = survey(pass, crew);
    complete(pass, crew, &turns);
}

/// Whether an update or rollback to the current version is under way.
fn is_active(crew: &Crew) -> bool {
    crew.service.update.as_ref().is_some_and(|it| {
        it.target == crew.service.current
            && match it.state {
                UpdateState::Updating | UpdateState::RollbackStarted => true,
                UpdateState::Paused
                | UpdateState::Completed
                | UpdateState::RollbackPaused
                | UpdateState::RollbackCompleted => false,
            }
    })
}

fn policy(crew: &Crew) -> Policy {
    let rolls_back =
        crew.service.update.as_ref().is_some_and(|it| it.state == UpdateState::RollbackStarted);
    let spec = &crew.spec;
    let given = if rolls_back { &spec.rollback_config } else { &spec.update_config };
    let default = UpdatePolicy { parallelism: 1, ..UpdatePolicy::default() };
    let given = given.as_ref().unwrap_or(&default);
    let delay = given.delay.unwrap_or_default().duration();
    let monitor = given.monitor.unwrap_or(UpdatePolicy::DEFAULT_MONITOR).duration();
    let monitor = if delay >= monitor { delay + Duration::from_secs(1) } else { monitor };
    let parallelism = match given.parallelism {
        0 => usize::MAX,
        some => usize::try_from(some).unwrap_or(usize::MAX),
    };
    Policy {
        parallelism,
        delay,
        monitor,
        action: given.failure_action.unwrap_or_default(),
        max_failure_ratio: given.max_failure_ratio,
        order: given.order.unwrap_or_default(),
    }
}

fn survey(pass: &Pass<'_>, crew: &mut Crew) -> Vec<Turn> {
    let started_at = crew.service.update.as_ref().map(|it| it.started_at);
    let mut turns = Vec::new();
    for range in crew.slots() {
        let slot = crew.members[range.start].task.slot;
        // A removed node takes its slot along (`reap`, in this very pass): nothing is awaited of it.
        if matches!(slot, Slot::Node(id) if pass.roster.place(id).is_none()) {
            continue;
        }
        let members: Vec<usize> = range.collect();
        let mut turn =
            Turn { slot, members, old: Vec::new(), new: None, attempt: None, is_due: false };
        for place in turn.members.clone() {
            let task = Arc::clone(&crew.members[place].task);
            if crew.members[place].gone || task.desired >= TaskState::Remove {
                continue;
            }
            let outdated = crew.is_outdated(pass, &task);
            match (task.is_live(), outdated) {
                (true, true) => turn.old.push(place),
                (true, false) => turn.new = Some(place),
                (false, _) => {}
            }
            let counts = !outdated && (task.is_live() || ended_itself(&task));
            if counts && started_at.is_some_and(|it| task.meta.created_at >= it) {
                turn.attempt.get_or_insert(place);
            }
        }
        turn.is_due = turn.new.is_none()
            && takes_turns(pass, crew, slot)
            && (!turn.old.is_empty() || is_held_outdated(pass, crew, &turn.members));
        turns.push(turn);
    }
    turns
}

/// Whether a slot can be given a new task now: a global one only while its node qualifies.
fn takes_turns(pass: &Pass<'_>, crew: &mut Crew, slot: Slot) -> bool {
    let Slot::Node(id) = slot else { return true };
    let facts = crew.facts(pass, crew.service.current);
    pass.roster.get(id).is_some_and(|node| qualifies(node, &facts))
}

/// Whether a slot stays empty by an older version's policy.
fn is_held_outdated(pass: &Pass<'_>, crew: &mut Crew, members: &[usize]) -> bool {
    if standing(pass, crew, members) != Standing::Held {
        return false;
    }
    let last = members.iter().rev().find(|it| !crew.members[**it].gone);
    last.is_some_and(|place| {
        let task = Arc::clone(&crew.members[*place].task);
        crew.is_outdated(pass, &task)
    })
}

/// Stops old tasks whose successor runs (start-first), and those that serve nobody: the successor
/// takes their place at once.
fn retire_replaced(pass: &mut Pass<'_>, crew: &mut Crew, turns: &[Turn]) {
    for turn in turns {
        let Some(new) = turn.new else { continue };
        if crew.members[new].task.status.state == TaskState::Running {
            retire(pass, crew, &turn.old);
        } else {
            retire_unplaced(pass, crew, &turn.old);
        }
    }
}

fn retire(pass: &mut Pass<'_>, crew: &mut Crew, old: &[usize]) {
    for place in old {
        crew.want(pass, *place, TaskState::Shutdown);
    }
}

/// Stops old tasks without a node. Left alone, one could still be placed, where the new constraints
/// allow it, too: then it would be as good as new and share its slot for ever.
fn retire_unplaced(pass: &mut Pass<'_>, crew: &mut Crew, old: &[usize]) {
    for place in old {
        if crew.members[*place].task.node.is_none() {
            crew.want(pass, *place, TaskState::Shutdown);
        }
    }
}

/// Begins an update where one is due. Whether one is under way afterwards.
fn begin(pass: &Pass<'_>, crew: &mut Crew, turns: &[Turn]) -> bool {
    if is_active(crew) {
        return true;
    }
    let due = turns.iter().any(|turn| turn.is_due);
    let current = crew.service.current;
    let status = crew.service.update.as_ref();
    let is_current = status.is_some_and(|it| it.target == current);
    let paused = status
        .is_some_and(|it| matches!(it.state, UpdateState::Paused | UpdateState::RollbackPaused));
    if due && !(is_current && paused) {
        let status = UpdateStatus {
            state: UpdateState::Updating,
            target: current,
            started_at: pass.now,
            completed_at: None,
            batch_done_at: None,
            message: "update in progress".to_owned(),
        };
        crew.edit_service(|service| service.update = Some(status));
        return true;
    }
    if !is_current && crew.service.update.is_some() {
        // The user changed something that needs no new tasks; what the last update came to is past.
        crew.edit_service(|service| service.update = None);
    }
    false
}

/// The task whose failure was one too many.
fn failure(crew: &Crew, turns: &[Turn]) -> Option<TaskId> {
    let policy = policy(crew);
    if policy.action == FailureAction::Continue {
        return None;
    }
    let task = |place: usize| &*crew.members[place].task;
    let mut attempts: Vec<&Task> = turns.iter().filter_map(|it| it.attempt).map(task).collect();
    attempts.sort_by_key(|task| (task.meta.created_at, task.slot));
    let next_turn = |nth: usize| {
        attempts.get(nth.saturating_add(policy.parallelism)).map(|task| task.meta.created_at)
    };
    let failed: Vec<&Task> = attempts
        .iter()
        .enumerate()
        .filter(|(nth, task)| {
            let ended = task.meta.updated_at;
            let watched = next_turn(*nth).map(|next| next.after(policy.monitor));
            ended_itself(task) && watched.is_none_or(|until| ended <= until)
        })
        .map(|(_, task)| *task)
        .collect();
    let total = turns.iter().filter(|it| it.is_due || it.attempt.is_some()).count();
    let (failures, total) = (as_f64(failed.len()), as_f64(total));
    // A failure is judged once, in the pass that finds it (`restart` then marks it as unwanted):
    // what is known of older attempts fades with their history and must not change the verdict.
    let news = failed.iter().filter(|task| task.desired <= TaskState::Running);
    let last = news.max_by_key(|task| (task.meta.updated_at, task.id))?;
    (failures / total > policy.max_failure_ratio).then_some(last.id)
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Carries out the policy's action after too many failures.
fn act(pass: &mut Pass<'_>, crew: &mut Crew, failed: TaskId) {
    let cause = format!("due to failure or early termination of task {failed}");
    let rolls_back =
        crew.service.update.as_ref().is_some_and(|it| it.state == UpdateState::RollbackStarted);
    match policy(crew).action {
        FailureAction::Continue => {}
        _ if rolls_back => {
            end(crew, UpdateState::RollbackPaused, format!("rollback paused {cause}"), None);
        }
        FailureAction::Pause => {
            end(crew, UpdateState::Paused, format!("update paused {cause}"), None);
        }
        FailureAction::Rollback => match previous(pass, crew) {
            Ok(spec) => roll_back(pass, crew, spec, format!("update rolled back {cause}")),
            Err(why) => {
                let message = format!("update paused {cause}; cannot roll back: {why}");
                end(crew, UpdateState::Paused, message, None);
            }
        },
    }
}

/// The spec to return to, if everything it refers to is still there.
fn previous(pass: &Pass<'_>, crew: &Crew) -> Result<Arc<ServiceSpec>, String> {
    let version = crew.service.previous.and_then(|it| pass.view.spec(crew.service.id, it));
    let spec = &version.ok_or("there is no previous spec")?.spec;
    let container = &spec.task_template.container_spec;
    for it in &container.secrets {
        let known = pass.view.secrets.get(&it.secret_id);
        known.ok_or_else(|| format!("secret {} is gone", it.secret_name))?;
    }
    for it in &container.configs {
        let known = pass.view.configs.get(&it.config_id);
        known.ok_or_else(|| format!("config {} is gone", it.config_name))?;
    }
    Ok(Arc::clone(spec))
}

/// The previous spec comes back as a version of its own: numbers only rise, so none is used twice.
fn roll_back(pass: &mut Pass<'_>, crew: &mut Crew, spec: Arc<ServiceSpec>, message: String) {
    let service = crew.service.id;
    let known = pass.view.specs.range((service, 0)..=(service, u64::MAX)).map(|(key, _)| key.1);
    let number = known.max().unwrap_or_default().max(crew.service.current) + 1;
    let version = SpecVersion { service, number, spec };
    let status = UpdateStatus {
        state: UpdateState::RollbackStarted,
        target: number,
        started_at: pass.now,
        completed_at: None,
        batch_done_at: None,
        message,
    };
    crew.edit_service(|service| {
        service.current = number;
        service.previous = None;
        service.update = Some(status);
    });
    crew.adopt(pass, &version);
    pass.versions.push(version);
}

fn end(crew: &mut Crew, state: UpdateState, message: String, completed_at: Option<Timestamp>) {
    crew.edit_service(|service| {
        if let Some(status) = &mut service.update {
            status.state = state;
            status.message = message;
            status.completed_at = completed_at;
        }
    });
}

/// Gives as many slots their turn as the policy allows at a time.
fn roll(pass: &mut Pass<'_>, crew: &mut Crew, turns: &[Turn]) {
    let policy = policy(crew);
    let key = crew.key();
    let mut busy = 0;
    for turn in turns {
        let Some(place) = turn.attempt else { continue };
        let task = Arc::clone(&crew.members[place].task);
        // A further attempt beside the old task (start-first) takes a turn as the first one did.
        let again = turn.new.filter(|_| !turn.old.is_empty());
        let is_under_way = |at: usize| crew.members[at].task.status.state < TaskState::Running;
        let under_way = is_under_way(place) || again.is_some_and(is_under_way);
        if under_way || !pass.is_over(task.meta.updated_at, policy.delay, key) {
            busy += 1;
        }
    }
    let free = policy.parallelism.saturating_sub(busy);
    let due: Vec<&Turn> = turns.iter().filter(|turn| turn.is_due).collect();
    let ready: Vec<&Turn> =
        due.into_iter().filter(|turn| may_try_again(pass, crew, turn)).take(free).collect();
    for turn in ready {
        let desired = match policy.order {
            UpdateOrder::StartFirst => {
                retire_unplaced(pass, crew, &turn.old);
                TaskState::Running
            }
            UpdateOrder::StopFirst => {
                retire(pass, crew, &turn.old);
                first_desired(pass, crew, &turn.members, Timestamp::default())
            }
        };
        crew.create(pass, turn.slot, desired, Timestamp::default());
    }
}

/// A slot whose attempt failed while its old task still runs (start-first) waits for the restart
/// delay before the next.
fn may_try_again(pass: &mut Pass<'_>, crew: &Crew, turn: &Turn) -> bool {
    if turn.attempt.is_none() {
        return true;
    }
    let policy = crew.spec.task_template.restart_policy.as_ref();
    let delay = policy.and_then(|it| it.delay).unwrap_or(RestartPolicy::DEFAULT_DELAY);
    let current = crew.service.current;
    let members = turn.members.iter().rev().map(|place| &*crew.members[*place].task);
    let last = members.into_iter().find(|task| task.spec == current && ended_itself(task));
    let Some(ended_at) = last.map(|task| task.meta.updated_at) else { return true };
    pass.is_over(ended_at, delay.duration(), crew.key())
}

/// Ends an update when every slot has had its turn and the last ones have been watched.
fn complete(pass: &mut Pass<'_>, crew: &mut Crew, turns: &[Turn]) {
    if turns.iter().any(|turn| turn.is_due || !turn.old.is_empty() && turn.new.is_some()) {
        return;
    }
    let policy = policy(crew);
    let key = crew.key();
    for place in turns.iter().filter_map(|turn| turn.attempt) {
        let task = Arc::clone(&crew.members[place].task);
        if task.status.state < TaskState::Running {
            return;
        }
        if !pass.is_over(task.meta.updated_at, policy.monitor, key) {
            return;
        }
    }
    let now = pass.now;
    let state = crew.service.update.as_ref().map(|it| it.state);
    if state == Some(UpdateState::RollbackStarted) {
        end(crew, UpdateState::RollbackCompleted, "rollback completed".to_owned(), Some(now));
    } else {
        end(crew, UpdateState::Completed, "update completed".to_owned(), Some(now));
    }
}
