//! How far a service is: pure, from what the daemon says of it at one moment.
//!
//! Docker's rules (docker/cli `service/progress`): of several tasks of a slot the one that is wanted
//! most counts; a service has converged when as many run as are wanted. One difference: the error of
//! a slot's last failed task stays visible until a task of the slot runs, so that a task that cannot
//! start says why.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::reply;
use crate::cli::text::units;
use crate::domain::TaskState;

/// Most slots that are shown one by one.
const SLOTS_MOST: usize = 20;
/// Most characters of an error.
const ERROR_MOST: usize = 75;
/// The number of steps of a bar.
pub(super) const STEPS: u32 = 9;

/// How far a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    /// Tasks that run as wanted.
    pub(super) running: usize,
    /// Tasks that should.
    pub(super) wanted: usize,
    /// Slots in their order; empty if there are too many to show.
    pub(super) slots: Vec<SlotPicture>,
}

/// How far a slot is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotPicture {
    /// `1/3`, or a node's name.
    pub(super) label: String,
    /// Docker's word for the state; empty before the first task.
    pub(super) state: String,
    /// 0 to [`STEPS`].
    pub(super) step: u32,
    /// What went wrong, shortened.
    pub(super) error: String,
}

impl Picture {
    /// Whether the service is as wanted.
    pub(super) const fn converged(&self) -> bool {
        self.running == self.wanted
    }
}

/// The picture of a service.
pub(super) fn picture(
    service: &reply::Service,
    tasks: &[reply::Task],
    nodes: &[reply::Node],
) -> Picture {
    let down: BTreeSet<&str> = nodes
        .iter()
        .filter(|node| node.status.state == "down")
        .map(|node| node.id.as_str())
        .collect();
    service.spec.replicas().map_or_else(
        || global(tasks, nodes, &down),
        |replicas| replicated(tasks, usize::try_from(replicas).unwrap_or(usize::MAX), nodes),
    )
}

fn replicated(tasks: &[reply::Task], wanted: usize, nodes: &[reply::Node]) -> Picture {
    let active: BTreeSet<&str> = nodes
        .iter()
        .filter(|node| node.status.state != "down")
        .map(|node| node.id.as_str())
        .collect();
    let usable = |task: &&reply::Task| task.node_id.is_empty() || active.contains(&*task.node_id);
    let chosen = choose(tasks.iter().filter(usable), |task| task.slot);
    let running = chosen.values().filter(|task| runs(task)).count();
    let mut slots = Vec::new();
    if wanted <= SLOTS_MOST {
        let known: Vec<u64> = chosen.keys().copied().take(wanted).collect();
        for place in 0..wanted {
            let label = format!("{}/{wanted}", place + 1);
            slots.push(match known.get(place) {
                Some(slot) => {
                    let all = tasks.iter().filter(|task| task.slot == *slot);
                    slot_picture(label, chosen[slot], all)
                }
                None => SlotPicture { label, ..SlotPicture::default() },
            });
        }
    }
    Picture { running, wanted, slots }
}

fn global(tasks: &[reply::Task], nodes: &[reply::Node], down: &BTreeSet<&str>) -> Picture {
    let usable = |task: &&reply::Task| {
        !task.node_id.is_empty()
            && !down.contains(&*task.node_id)
            && number(&task.desired_state) <= TaskState::Running.number()
    };
    let chosen = choose(tasks.iter().filter(usable), |task| task.node_id.clone());
    let running = chosen.values().filter(|task| runs(task)).count();
    let wanted = chosen.len();
    let slots = if wanted <= SLOTS_MOST {
        chosen
            .iter()
            .map(|(node, task)| {
                let name = nodes.iter().find(|known| known.id == *node).map_or_else(
                    || units::short_id(node),
                    |known| &known.description.machine.hostname,
                );
                let all = tasks.iter().filter(|task| task.node_id == *node);
                slot_picture(name.to_owned(), task, all)
            })
            .collect()
    } else {
        Vec::new()
    };
    Picture { running, wanted, slots }
}

/// Of the tasks of each slot, the one that is wanted most; of those, the one that is less far.
fn choose<'a, K: Ord>(
    tasks: impl Iterator<Item = &'a reply::Task>,
    key: impl Fn(&reply::Task) -> K,
) -> BTreeMap<K, &'a reply::Task> {
    let mut chosen: BTreeMap<K, &reply::Task> = BTreeMap::new();
    for task in tasks {
        let rank = |task: &reply::Task| (number(&task.desired_state), number(&task.status.state));
        match chosen.entry(key(task)) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(task);
            }
            std::collections::btree_map::Entry::Occupied(mut taken) => {
                if rank(task) < rank(taken.get()) {
                    taken.insert(task);
                }
            }
        }
    }
    chosen
}

fn slot_picture<'a>(
    label: String,
    task: &reply::Task,
    all: impl Iterator<Item = &'a reply::Task>,
) -> SlotPicture {
    let runs = runs(task);
    let own = Some(task).filter(|task| !task.status.err.is_empty());
    let last_failed = || {
        all.filter(|task| !task.status.err.is_empty())
            .max_by(|a, b| a.status.timestamp.cmp(&b.status.timestamp))
    };
    let error = if runs { None } else { own.or_else(last_failed) };
    SlotPicture {
        label,
        state: task.status.state.clone(),
        step: step(&task.status.state),
        error: error
            .map(|task| units::ellipsis(&task.status.err.replace('\n', " "), ERROR_MOST))
            .unwrap_or_default(),
    }
}

fn runs(task: &reply::Task) -> bool {
    number(&task.desired_state) <= TaskState::Running.number() && task.status.state == "running"
}

/// The number of a state; that of the last for a word that is not known.
fn number(word: &str) -> u32 {
    let known = TaskState::ALL.iter().find(|state| state.as_str() == word);
    known.map_or(u32::MAX, |state| state.number())
}

/// How far a bar is at a state.
fn step(word: &str) -> u32 {
    let number = number(word);
    if number > TaskState::Running.number() { 0 } else { (number + 2).min(STEPS) }
}

/// `running   [=====>   ]`, as wide as `columns` allows.
pub(super) fn bar(slot: &SlotPicture, columns: usize) -> String {
    let text = if slot.error.is_empty() { slot.state.as_str() } else { slot.error.as_str() };
    let head = format!("{}: ", slot.label);
    if slot.state.is_empty() || !slot.error.is_empty() {
        return units::ellipsis(&format!("{head}{text}"), columns.saturating_sub(1));
    }
    let width = columns.saturating_sub(head.len() + 9 + 3).min(50);
    let done = width * slot.step as usize / STEPS as usize;
    let arrow =
        if slot.step == STEPS { "=".repeat(width) } else { format!("{}>", "=".repeat(done)) };
    format!("{head}{text:<9} [{:<width$}]", units::ellipsis(&arrow, width.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(replicas: Option<u64>) -> reply::Service {
        let mode = replicas.map_or_else(
            || serde_json::json!({"Global": {}}),
            |replicas| serde_json::json!({"Replicated": {"Replicas": replicas}}),
        );
        serde_json::from_value(
            serde_json::json!({"ID": "s", "Spec": {"Name": "web", "Mode": mode}}),
        )
        .unwrap()
    }

    fn task(slot: u64, node: &str, desired: &str, state: &str, err: &str) -> reply::Task {
        serde_json::from_value(serde_json::json!({
            "ID": format!("{slot}{node}{state}"), "Slot": slot, "NodeID": node,
            "DesiredState": desired, "Status": {"State": state, "Err": err, "Timestamp": "2026"},
        }))
        .unwrap()
    }

    fn node(id: &str, state: &str) -> reply::Node {
        serde_json::from_value(serde_json::json!({
            "ID": id, "Status": {"State": state}, "Description": {"Hostname": format!("host-{id}")},
        }))
        .unwrap()
    }

    #[test]
    fn running_tasks_of_reachable_nodes_count() {
        let nodes = [node("a", "ready"), node("b", "down")];
        let tasks = [
            task(1, "a", "running", "running", ""),
            task(2, "b", "running", "running", ""),
            task(3, "a", "running", "preparing", ""),
            task(3, "a", "shutdown", "running", ""),
        ];
        let picture = picture(&service(Some(3)), &tasks, &nodes);
        assert_eq!((picture.running, picture.wanted, picture.converged()), (1, 3, false));
        let states: Vec<&str> = picture.slots.iter().map(|slot| slot.state.as_str()).collect();
        assert_eq!(states, ["running", "preparing", ""]);
    }

    #[test]
    fn the_last_error_stays_until_the_slot_runs() {
        let nodes = [node("a", "ready")];
        let mut tasks = vec![
            task(1, "a", "shutdown", "rejected", "No such image: nosuch:1"),
            task(1, "a", "ready", "ready", ""),
        ];
        let failing = picture(&service(Some(1)), &tasks, &nodes);
        assert_eq!(failing.slots[0].error, "No such image: nosuch:1");
        assert_eq!(bar(&failing.slots[0], 80), "1/1: No such image: nosuch:1");
        tasks[1] = task(1, "a", "running", "running", "");
        let healed = picture(&service(Some(1)), &tasks, &nodes);
        assert_eq!(healed.slots[0].error, "");
        assert!(healed.converged());
    }

    #[test]
    fn global_services_want_one_task_per_reachable_node() {
        let nodes = [node("a", "ready"), node("b", "ready"), node("c", "down")];
        let tasks = [
            task(0, "a", "running", "running", ""),
            task(0, "b", "running", "starting", ""),
            task(0, "c", "running", "running", ""),
        ];
        let picture = picture(&service(None), &tasks, &nodes);
        assert_eq!((picture.running, picture.wanted), (1, 2));
        assert_eq!(picture.slots[1].label, "host-b");
    }

    #[test]
    fn bars_grow_and_fit() {
        let slot = |state: &str| SlotPicture {
            label: "1/1".to_owned(),
            state: state.to_owned(),
            step: step(state),
            error: String::new(),
        };
        let full = bar(&slot("running"), 80);
        assert_eq!(full, format!("1/1: running   [{}]", "=".repeat(50)));
        assert!(bar(&slot("preparing"), 80).contains("=>"));
        assert!(bar(&slot("pending"), 40).chars().count() <= 40);
    }
}
