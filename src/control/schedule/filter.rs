//! Whether a node can take a task, and if not, why. Order and words are Docker's
//! (moby/swarmkit `manager/scheduler/filter.go`).

use super::usage::Taken;
use crate::control::facts::{Facts, Needs, units};
use crate::domain::Node;
use crate::domain::node::{Availability, Reachability};

/// Why a node cannot take a task: the first of these that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotReady,
    Resources,
    Constraints,
    Platform,
    Ports,
    Replicas,
}

/// Whether a node takes new tasks at all.
pub(in crate::control) fn is_ready(node: &Node) -> bool {
    node.spec.availability == Availability::Active
        && node.status.reachability == Reachability::Reachable
        && node.description.as_ref().is_some_and(|it| it.degraded.is_empty())
}

/// Why a node cannot take one more task; `None` if it can.
pub(super) fn refusal(node: &Node, facts: &Facts, taken: &Taken, count: u32) -> Option<Refusal> {
    if !is_ready(node) {
        Some(Refusal::NotReady)
    } else if !has_room(node, &facts.needs, taken) {
        Some(Refusal::Resources)
    } else if !facts.allows(node) {
        Some(Refusal::Constraints)
    } else if !facts.runs_on(node) {
        Some(Refusal::Platform)
    } else if facts.needs.ports.iter().any(|port| taken.ports.contains(port)) {
        Some(Refusal::Ports)
    } else if facts.max_replicas > 0 && u64::from(count) >= facts.max_replicas {
        Some(Refusal::Replicas)
    } else {
        None
    }
}

fn has_room(node: &Node, needs: &Needs, taken: &Taken) -> bool {
    if needs.nano_cpus == 0 && needs.memory == 0 && needs.generic.is_empty() {
        return true;
    }
    let Some(description) = &node.description else { return false };
    let has = &description.resources;
    let fits = |need: i64, has: i64, taken: i64| need == 0 || need <= has.saturating_sub(taken);
    let count = |of: &[(String, i64)], kind: &str| {
        of.iter().find(|(known, _)| known == kind).map_or(0, |(_, count)| *count)
    };
    fits(needs.nano_cpus, has.nano_cpus, taken.nano_cpus)
        && fits(needs.memory, has.memory_bytes, taken.memory)
        && (needs.generic.is_empty() || {
            let has = units(&has.generic);
            needs
                .generic
                .iter()
                .all(|(kind, need)| fits(*need, count(&has, kind), count(&taken.generic, kind)))
        })
}

/// How many nodes refuse a task, by reason.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [u32; 6],
}

impl Refusals {
    pub(super) fn add(&mut self, refusal: Option<Refusal>) {
        if let Some(refusal) = refusal {
            self.counts[refusal as usize] += 1;
        }
    }

    /// Docker's sentence, the most frequent reason first.
    pub(super) fn explain(&self) -> String {
        const ALL: [Refusal; 6] = [
            Refusal::NotReady,
            Refusal::Resources,
            Refusal::Constraints,
            Refusal::Platform,
            Refusal::Ports,
            Refusal::Replicas,
        ];
        let mut reasons: Vec<(u32, Refusal)> = ALL
            .iter()
            .map(|it| (self.counts[*it as usize], *it))
            .filter(|(count, _)| *count > 0)
            .collect();
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let texts: Vec<String> = reasons.iter().map(|(count, it)| it.text(*count)).collect();
        if texts.is_empty() {
            "no suitable node".to_owned()
        } else {
            format!("no suitable node ({})", texts.join("; "))
        }
    }
}

impl Refusal {
    fn text(self, count: u32) -> String {
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        match self {
            Self::NotReady => format!("{nodes} not available for new tasks"),
            Self::Resources => format!("insufficient resources on {nodes}"),
            Self::Constraints => format!("scheduling constraints not satisfied on {nodes}"),
            Self::Platform => format!("unsupported platform on {nodes}"),
            Self::Ports => format!("host-mode port already in use on {nodes}"),
            Self::Replicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}
