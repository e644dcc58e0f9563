//! Which nodes are reachable: leases against the clock.
//!
//! Silence means a lost node; a closed session only means a lost agent, whose host may bring it back
//! with all its containers (ADR 0006). A new leader knows no leases yet and calls nobody down before
//! every node had time to be heard of.

use std::time::Duration;

use super::Lease;
use super::pass::Pass;
use crate::domain::node::Reachability;
use crate::domain::{NodeId, TaskState, Timestamp};
use crate::state::ObjectKey;

/// Tasks of a node that has been down for this long are given up (Docker: `defaultNodeDownPeriod`).
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Docker's word for a node whose heartbeats stopped.
const SILENT: &str = "heartbeat failure";
const LEFT: &str = "the node's agent closed its session and did not come back";

/// What was found of a node.
struct Finding {
    reachability: Reachability,
    message: &'static str,
    /// When it may be another, if nothing is heard until then.
    until: Option<Timestamp>,
}

pub(super) fn decide(pass: &mut Pass<'_>) {
    // Every pass looks at every node, so that one timer, the earliest, serves them all.
    let mut next: Option<(Timestamp, NodeId)> = None;
    for place in 0..pass.roster.len() {
        let node = pass.roster.at(place);
        let (id, before, since) = (node.id, node.status.reachability, node.status.since);
        let found = judge(pass, before, pass.observed.leases.get(&id));
        if found.reachability != before {
            let now = pass.now;
            pass.roster.edit(place, |node| {
                node.status.reachability = found.reachability;
                node.status.since = now;
                found.message.clone_into(&mut node.status.message);
            });
        }
        let until = match found.reachability {
            Reachability::Reachable => found.until,
            Reachability::Unreachable if before == Reachability::Unreachable => {
                Some(since.after(GIVE_UP_AFTER))
            }
            Reachability::Unreachable => Some(pass.now.after(GIVE_UP_AFTER)),
            Reachability::Unknown => None,
        };
        let until = until.filter(|at| *at > pass.now).map(|at| (at, id));
        next = next.into_iter().chain(until).min();
    }
    if let Some((at, id)) = next {
        pass.wake(at, ObjectKey::Node(id));
    }
}

fn judge(pass: &Pass<'_>, before: Reachability, lease: Option<&Lease>) -> Finding {
    let timing = &pass.observed.timing;
    let (until, reason) = match lease {
        None => (pass.observed.tenure_started, SILENT),
        Some(Lease { closed_at: Some(closed), .. }) => (closed.after(timing.restart_grace), LEFT),
        Some(lease) => {
            let until = lease.renewed_at.after(timing.lease);
            if pass.now < until {
                let until = until.max(pass.observed.tenure_started.after(timing.tenure_grace));
                let reachability = Reachability::Reachable;
                return Finding { reachability, message: "", until: Some(until) };
            }
            (until, SILENT)
        }
    };
    let until = until.max(pass.observed.tenure_started.after(timing.tenure_grace));
    let (reachability, message) = match before {
        Reachability::Reachable if pass.now >= until => (Reachability::Unreachable, reason),
        Reachability::Reachable | Reachability::Unknown | Reachability::Unreachable => (before, ""),
    };
    Finding { reachability, message, until: Some(until) }
}

/// Whether the tasks of a node are lost for good: it was removed, or is down for too long.
pub(super) fn is_given_up(pass: &Pass<'_>, id: NodeId) -> bool {
    pass.roster.get(id).is_none_or(|node| {
        node.status.reachability == Reachability::Unreachable
            && pass.now >= node.status.since.after(GIVE_UP_AFTER)
    })
}

/// Nodes that are down for too long and have tasks that nobody gave up yet.
pub(super) fn given_up<'a>(pass: &'a Pass<'_>) -> impl Iterator<Item = NodeId> + 'a {
    let waits =
        |id: NodeId| pass.view.tasks_on(id).any(|task| task.status.state <= TaskState::Running);
    pass.roster
        .iter()
        .filter(|node| node.status.reachability == Reachability::Unreachable)
        .map(|node| node.id)
        .filter(move |id| is_given_up(pass, *id) && waits(*id))
}
