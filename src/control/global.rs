//! One task of a global service on each node that qualifies.
//!
//! A node that goes down keeps its slot: its task is stopped (by `drain`) and made again when the
//! node is back.

use std::collections::BTreeMap;

use super::crew::Crew;
use super::facts::Facts;
use super::pass::Pass;
use super::restart::{Standing, first_desired, standing};
use super::schedule::is_ready;
use crate::domain::task::Slot;
use crate::domain::{Node, NodeId, Timestamp};

pub(super) fn decide(pass: &mut Pass<'_>, crew: &mut Crew) {
    if crew.spec.replicas().is_some() || crew.service.removing {
        return;
    }
    let mut slots: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
    for range in crew.slots() {
        if let Slot::Node(node) = crew.members[range.start].task.slot {
            slots.insert(node, range.collect());
        }
    }
    let facts = crew.facts(pass, crew.service.current);
    for place in 0..pass.roster.len() {
        let node = pass.roster.at(place);
        let id = node.id;
        if !qualifies(node, &facts) {
            continue;
        }
        let members = slots.get(&id).map_or(&[][..], Vec::as_slice);
        let not_before = match standing(pass, crew, members) {
            Standing::Live | Standing::Held => continue,
            Standing::Vacant(not_before) => not_before,
            Standing::Leaving => Timestamp::default(),
        };
        let desired = first_desired(pass, crew, members, not_before);
        crew.create(pass, Slot::Node(id), desired, not_before);
    }
}

/// Whether a node gets a task of a global service now.
pub(super) fn qualifies(node: &Node, facts: &Facts) -> bool {
    is_ready(node) && facts.allows(node) && facts.runs_on(node)
}
