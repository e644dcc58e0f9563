//! Roles wanted against the Raft group as it is: at most one step of membership at a time.
//!
//! A manager joins as a learner, votes when it has caught up, and is removed when it is demoted or
//! its node is gone. Nothing is done that would leave the group without a quorum of members that are
//! heard from; a note says so instead.

use super::pass::Pass;
use super::{Effect, RaftMembers};
use crate::domain::cluster::MANAGERS_MAX;
use crate::domain::node::{ManagerStatus, Membership, Node, Role};
use crate::domain::{NodeId, RaftId};
use crate::state::ObjectKey;

/// A learner that is at most this many entries behind has caught up: it needs less than a heartbeat
/// for the rest.
const CAUGHT_UP: u64 = 256;

pub(super) fn decide(pass: &mut Pass<'_>) {
    let raft = &pass.observed.raft;
    if raft.me.is_none() || raft.voters.is_empty() {
        return; // the group is not known (yet)
    }
    record(pass, raft);
    pass.effect = promote(pass, raft).or_else(|| add(pass, raft)).or_else(|| remove(pass, raft));
}

/// Writes down how far each manager got in the group, and whether it is heard from there: its node
/// may be well while its manager half is not, as with a damaged log.
fn record(pass: &mut Pass<'_>, raft: &RaftMembers) {
    for place in 0..pass.roster.len() {
        let node = pass.roster.at(place);
        let Some(manager) = node.manager else { continue };
        let found = if raft.voters.contains(&manager.raft_id) {
            Membership::Voter
        } else if raft.learners.contains_key(&manager.raft_id) {
            Membership::Learner
        } else if manager.membership == Membership::None && node.spec.role == Role::Manager {
            Membership::None
        } else {
            Membership::Removed
        };
        let silent = raft.silent.contains(&manager.raft_id);
        let now = ManagerStatus { membership: found, silent, ..manager };
        if now != manager {
            pass.roster.edit(place, |node| node.manager = Some(now));
        }
    }
}

/// Managers that are wanted, with their part in the group.
fn wanted<'a>(pass: &'a Pass<'_>) -> impl Iterator<Item = (&'a Node, ManagerStatus)> + 'a {
    let nodes = pass.roster.iter().filter(|node| node.spec.role == Role::Manager);
    nodes.filter_map(|node| node.manager.map(|manager| (&**node, manager)))
}

/// A learner that may vote now.
fn promote(pass: &mut Pass<'_>, raft: &RaftMembers) -> Option<Effect> {
    let ready = wanted(pass)
        .filter(|(_, it)| raft.learners.get(&it.raft_id).is_some_and(|lag| *lag <= CAUGHT_UP))
        .map(|(node, it)| (node.id, it.raft_id))
        .next();
    let (node, raft_id) = ready?;
    if raft.voters.len() >= MANAGERS_MAX {
        let text = format!("not promoted: the cluster has {MANAGERS_MAX} voters already");
        pass.note(ObjectKey::Node(node), text);
        return None;
    }
    Some(Effect::Promote { raft_id })
}

/// A manager that joined and is not in the group yet.
fn add(pass: &Pass<'_>, raft: &RaftMembers) -> Option<Effect> {
    if raft.voters.len() + raft.learners.len() > MANAGERS_MAX {
        return None;
    }
    wanted(pass)
        .find(|(_, it)| it.membership == Membership::None && !raft.voters.contains(&it.raft_id))
        .map(|(node, it)| Effect::AddLearner { raft_id: it.raft_id, addr: it.addr, node: node.id })
}

/// A member that should not be in the group any more.
fn remove(pass: &mut Pass<'_>, raft: &RaftMembers) -> Option<Effect> {
    let known: Vec<(RaftId, NodeId, bool)> = pass
        .roster
        .iter()
        .filter_map(|node| Some((node.manager?.raft_id, node.id, node.spec.role == Role::Manager)))
        .collect();
    let members = raft.learners.keys().chain(&raft.voters).copied();
    let mut unwanted: Vec<(RaftId, Option<NodeId>)> = members
        .filter_map(|raft_id| {
            let owner = known.iter().find(|(id, ..)| *id == raft_id);
            match owner {
                Some((_, _, true)) => None,
                Some((_, node, false)) => Some((raft_id, Some(*node))),
                None => Some((raft_id, None)),
            }
        })
        .collect();
    // Silent members first: the group is safer without them. The leader itself last.
    unwanted.sort_by_key(|(id, _)| (raft.me == Some(*id), !raft.silent.contains(id), *id));
    for (raft_id, node) in unwanted {
        match removal(raft, raft_id) {
            Ok(effect) => return Some(effect),
            Err(text) => {
                let key = node.map_or(ObjectKey::Cluster, ObjectKey::Node);
                pass.note(key, text);
            }
        }
    }
    None
}

/// How a member leaves the group, or why it cannot.
fn removal(raft: &RaftMembers, raft_id: RaftId) -> Result<Effect, String> {
    if !raft.voters.contains(&raft_id) {
        return Ok(Effect::Remove { raft_id });
    }
    let rest: Vec<RaftId> = raft.voters.iter().copied().filter(|id| *id != raft_id).collect();
    let heard: Vec<RaftId> = rest.iter().copied().filter(|id| !raft.silent.contains(id)).collect();
    if rest.is_empty() {
        return Err("not demoted: attempting to demote the last manager of the swarm".to_owned());
    }
    let quorum = rest.len() / 2 + 1;
    if heard.len() < quorum {
        return Err(format!(
            "not demoted: this would result in a loss of quorum: {} of the {} remaining managers \
             are online and {quorum} are needed",
            heard.len(),
            rest.len()
        ));
    }
    if raft.me == Some(raft_id) {
        return Ok(Effect::TransferLeader { to: heard[0] });
    }
    Ok(Effect::Remove { raft_id })
}
