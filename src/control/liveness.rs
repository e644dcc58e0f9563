//! Which nodes are reachable: leases against the clock.
//!
//! Silence means a lost node; a closed session only means a lost agent, whose host may bring it back
//! with all its containers (ADR 0003). A new leader knows no leases yet and calls nobody down before
//! every node had time to be heard of.

use std::time::Duration;

use super::Lease;
use super::pass::Pass;
use crate::domain::node::Reachability;
use crate::domain::{NodeId, TaskState};
use crate::state::ObjectKey;

/// Tasks of a node that has been down for this long are given up (Docker: `defaultNodeDownPeriod`).
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Docker's word for a node whose heartbeats stopped.
const SILENT: &str = "heartbeat failure";
const LEFT: &str = "the node's agent closed its session and did not come back";

pub(super) fn decide(pass: &mut Pass<'_>) {
    for place in 0..pass.roster.len() {
        let node = pass.roster.at(place);
        let (id, before, since) = (node.id, node.status.reachability, node.status.since);
        let lease = pass.observed.leases.get(&id).copied();
        let (after, message) = judge(pass, id, before, lease);
        if after != before {
            let now = pass.now;
            pass.roster.edit(place, |node| {
                node.status.reachability = after;
                node.status.since = now;
                message.clone_into(&mut node.status.message);
            });
        } else if after == Reachability::Unreachable {
            pass.wake(since.after(GIVE_UP_AFTER), ObjectKey::Node(id));
        }
    }
}

fn judge(
    pass: &mut Pass<'_>,
    id: NodeId,
    before: Reachability,
    lease: Option<Lease>,
) -> (Reachability, &'static str) {
    let timing = pass.observed.timing;
    let key = ObjectKey::Node(id);
    let (until, reason) = match lease {
        None => (pass.observed.tenure_started, SILENT),
        Some(Lease { closed_at: Some(closed), .. }) => (closed.after(timing.restart_grace), LEFT),
        Some(lease) => {
            let until = lease.renewed_at.after(timing.lease);
            if pass.now < until {
                pass.wake(until, key);
                return (Reachability::Reachable, "");
            }
            (until, SILENT)
        }
    };
    let until = until.max(pass.observed.tenure_started.after(timing.tenure_grace));
    match before {
        Reachability::Reachable if pass.now >= until => (Reachability::Unreachable, reason),
        Reachability::Reachable => {
            pass.wake(until, key);
            (before, "")
        }
        Reachability::Unknown | Reachability::Unreachable => (before, ""),
    }
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
