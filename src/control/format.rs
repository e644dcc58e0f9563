//! The format that everything replicated is written in: raised when all managers know a newer one.
//!
//! Every manager counts, whether it votes or only receives the log, and so does one that has yet to
//! be let into the group. What a manager knows is said by its node's own session, so it is as new as
//! the program that runs there now; one that is not heard from might come back with any program. The
//! format is raised when all have known it for `Timing::format_hold`, and never lowered: until then
//! each of them can go back by one release, from then on none.

use super::pass::Pass;
use super::{Lease, RaftMembers};
use crate::domain::node::{ManagerStatus, Membership};
use crate::domain::{Format, NodeId, Timestamp};
use crate::state::ObjectKey;

pub(super) fn decide(pass: &mut Pass<'_>) {
    let raft = &pass.observed.raft;
    if raft.me.is_none() || raft.voters.is_empty() || pass.cluster().is_none() {
        return; // the group is not known (yet)
    }
    let used = pass.format();
    if used >= Format::NEWEST {
        return;
    }
    match known_to_all(pass, raft) {
        Ok((known, since)) => {
            let key = ObjectKey::Cluster;
            if known > used && pass.is_over(since, pass.observed.timing.format_hold, key) {
                pass.edit_cluster(|cluster| cluster.format = known);
            }
        }
        Err(why) => pass.note(ObjectKey::Cluster, format!("the format stays {used}: {why}")),
    }
}

/// The newest format that all managers know, and since when; or who stands in the way.
fn known_to_all(pass: &Pass<'_>, raft: &RaftMembers) -> Result<(Format, Timestamp), String> {
    let mut members = raft.voters.iter().chain(raft.learners.keys());
    let owned = |raft_id| managers(pass).any(|(_, manager)| manager.raft_id == raft_id);
    if let Some(raft_id) = members.find(|raft_id| !owned(**raft_id)) {
        return Err(format!("raft member {raft_id} is yet to leave"));
    }
    let mut all = (Format::NEWEST, pass.observed.tenure_started);
    for (node, _) in managers(pass) {
        let lease = pass.observed.leases.get(&node).filter(|lease| is_heard(pass, lease));
        let lease = lease.ok_or_else(|| format!("manager {node} is not heard from"))?;
        if lease.format < Format::NEWEST {
            return Err(format!("the release of manager {node} knows {}", lease.format));
        }
        all = (all.0.min(lease.format), all.1.max(lease.since));
    }
    Ok(all)
}

/// Who is in the group or about to be, as this pass leaves it.
fn managers<'a>(pass: &'a Pass<'_>) -> impl Iterator<Item = (NodeId, ManagerStatus)> + 'a {
    pass.roster.iter().filter_map(|node| {
        let manager = node.manager.filter(|it| it.membership != Membership::Removed)?;
        Some((node.id, manager))
    })
}

fn is_heard(pass: &Pass<'_>, lease: &Lease) -> bool {
    lease.closed_at.is_none() && pass.now < lease.renewed_at.after(pass.observed.timing.lease)
}
