//! Slots wanted against slots held: new tasks for slots that are short, removal of those too many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::crew::Crew;
use super::pass::Pass;
use super::restart::{Standing, first_desired, standing};
use crate::domain::task::Slot;
use crate::domain::{NodeId, TaskState, Timestamp};

/// A slot that counts, and what it needs.
struct Held {
    number: u32,
    members: Vec<usize>,
    standing: Standing,
}

pub(super) fn decide(pass: &mut Pass<'_>, crew: &mut Crew) {
    let Some(replicas) = crew.spec.replicas().filter(|_| !crew.service.removing) else { return };
    let mut slots = held(pass, crew);
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    if slots.len() > wanted {
        for slot in least_useful(crew, &slots, slots.len() - wanted) {
            for place in &slots[slot].members {
                crew.want(pass, *place, TaskState::Remove);
            }
            slots[slot].standing = Standing::Leaving;
        }
        slots.retain(|slot| slot.standing != Standing::Leaving);
    }
    for slot in &slots {
        if let Standing::Vacant(not_before) = slot.standing {
            let desired = first_desired(pass, crew, &slot.members, not_before);
            crew.create(pass, Slot::Number(slot.number), desired, not_before);
        }
    }
    let taken: BTreeSet<u32> = slots.iter().map(|slot| slot.number).collect();
    let free = (1..=u32::MAX).filter(|number| !taken.contains(number));
    let missing = wanted.saturating_sub(taken.len());
    for number in free.take(missing) {
        crew.create(pass, Slot::Number(number), TaskState::Running, Timestamp::default());
    }
}

fn held(pass: &Pass<'_>, crew: &mut Crew) -> Vec<Held> {
    let mut slots = Vec::new();
    for range in crew.slots() {
        let Slot::Number(number) = crew.members[range.start].task.slot else { continue };
        let members: Vec<usize> = range.collect();
        let standing = standing(pass, crew, &members);
        if standing != Standing::Leaving {
            slots.push(Held { number, members, standing });
        }
    }
    slots
}

/// The slots to give up, as Docker chooses them: those without a running task first, then one each
/// from the nodes that have the most tasks of the service.
fn least_useful(crew: &Crew, slots: &[Held], count: usize) -> Vec<usize> {
    // Running tasks first, so that they get the low numbers on their nodes.
    let mut order: Vec<usize> = (0..slots.len()).collect();
    let rank = |slot: &Held| {
        let live = slot.members.iter().map(|place| &crew.members[*place]);
        let best = live.filter(|it| it.is_live()).map(|it| it.task.status.state).max();
        (best.is_some(), best == Some(TaskState::Running))
    };
    order.sort_by_key(|slot| (Reverse(rank(&slots[*slot])), slots[*slot].number));
    let mut on_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, usize)> = Vec::with_capacity(order.len());
    for slot in order {
        let mut live = slots[slot].members.iter().map(|place| &crew.members[*place]);
        let node = live.find(|it| it.is_live()).and_then(|it| it.task.node);
        let nth = node.map_or(usize::MAX, |node| {
            let count = on_node.entry(node).or_default();
            *count += 1;
            *count
        });
        ranked.push((nth, slot));
    }
    // Not running beats node balance: such a slot serves nobody.
    ranked.sort_by_key(|(nth, slot)| (Reverse(rank(&slots[*slot])), *nth, slots[*slot].number));
    ranked.into_iter().rev().take(count).map(|(_, slot)| slot).collect()
}
