//! What should change: pure decisions, in one pass of small steps over one view.
//!
//! [`plan`] is a function of the replicated state and of the few facts that the leader holds
//! ([`Observed`]). It is defined as a full pass; [`Dirty`] only lets it skip what cannot have
//! changed. A pass is a fixpoint: planning again after its changes finds nothing more to do.
//!
//! Order: what is true of the nodes (liveness, membership) and what may be written (format), then service by service what tasks there
//! should be (drain before the orchestrators, so that one pass replaces what it withdraws), then
//! addresses and places for all that wait, then the removal of what has ended.
//!
//! Nothing here acts: no async, no clock, no randomness. Ids come from `Observed::seed`.

mod allocate;
mod crew;
mod dirty;
mod drain;
mod facts;
mod format;
mod global;
mod ids;
mod liveness;
mod membership;
mod pass;
mod reap;
mod replicated;
mod rest;
mod restart;
mod rotation;
mod schedule;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crew::Crew;
pub use dirty::{Dirty, DirtySet};
use pass::Pass;

use crate::domain::timing::Timing;
use crate::domain::{Format, NodeId, RaftId, Revision, Timestamp};
use crate::state::{Change, ObjectKey, View};

/// The facts that a plan rests on and that are not replicated: the leader alone holds them.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Cluster time.
    pub now: Timestamp,
    /// Makes the ids of this pass; another one for every pass.
    pub seed: [u8; 32],
    /// When this tenure began.
    pub tenure_started: Timestamp,
    /// Leases of the nodes that were heard of in this tenure.
    pub leases: BTreeMap<NodeId, Lease>,
    /// The Raft group as it is.
    pub raft: RaftMembers,
    /// The cluster's timings.
    pub timing: Timing,
}

/// A node's right to be considered reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lease {
    /// When it was last renewed, in cluster time of the leader.
    pub renewed_at: Timestamp,
    /// The revision up to which the node's agent has carried out its assignments.
    pub applied: Revision,
    /// When the node's session closed; `None` while it has one.
    pub closed_at: Option<Timestamp>,
    /// The newest format that the program of the node knows.
    pub format: Format,
    /// When the leader first heard of this session: the program is the same since then.
    pub since: Timestamp,
}

/// The Raft group as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RaftMembers {
    /// Those who vote.
    pub voters: BTreeSet<RaftId>,
    /// Those who only receive the log, with the number of entries they are behind.
    pub learners: BTreeMap<RaftId, u64>,
    /// The leader itself.
    pub me: Option<RaftId>,
    /// Voters that have not been heard from for longer than an election takes.
    pub silent: BTreeSet<RaftId>,
}

/// An act of the leader outside of the replicated state. Idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the log to a new member.
    AddLearner {
        /// Its raft id.
        raft_id: RaftId,
        /// Where its port 2377 is.
        addr: SocketAddr,
        /// Its node.
        node: NodeId,
    },
    /// Let a learner vote.
    Promote {
        /// Its raft id.
        raft_id: RaftId,
    },
    /// Take a voter or learner out of the group.
    Remove {
        /// Its raft id.
        raft_id: RaftId,
    },
    /// Let another voter lead.
    TransferLeader {
        /// Its raft id.
        to: RaftId,
    },
}

/// What a pass decided.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Plan {
    /// Changes to propose, in this order. Every batch is applied whole; a plan may end after any
    /// batch and what was applied is a valid state. A batch is at most about 100 KiB encoded.
    pub changes: Vec<Vec<Change>>,
    /// At most one effect, to carry out when the changes are committed.
    pub effect: Option<Effect>,
    /// Why something was not done, for people.
    pub notes: Vec<(ObjectKey, String)>,
    /// When to plan again even if nothing has changed; the earliest of `timers`.
    pub wake_at: Option<Timestamp>,
    /// What becomes due when. A due timer marks its object dirty: [`Dirty::due`].
    pub timers: Vec<(Timestamp, ObjectKey)>,
}

impl Plan {
    /// Whether there is nothing to do now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.effect.is_none()
    }
}

/// Steps about the cluster as a whole.
const CLUSTER_STEPS: [fn(&mut Pass<'_>); 4] =
    [liveness::decide, membership::decide, format::decide, rotation::decide];

/// Steps about one service: what tasks it should have.
const SERVICE_STEPS: [fn(&mut Pass<'_>, &mut Crew); 5] =
    [drain::decide, replicated::decide, global::decide, update::decide, restart::decide];

/// Steps about all tasks that wait or have ended.
const TASK_STEPS: [fn(&mut Pass<'_>, &mut [Crew]); 3] =
    [allocate::decide, schedule::decide, reap::decide];

/// Decides what should change. A pure function: equal arguments, equal plans.
#[must_use]
pub fn plan(view: &View, observed: &Observed, dirty: &Dirty) -> Plan {
    let mut pass = Pass::new(view, observed);
    for step in CLUSTER_STEPS {
        step(&mut pass);
    }
    let mut crews = dirty::crews(&pass, dirty);
    for crew in &mut crews {
        // A rollback changes what is wanted: everything is decided anew, once, as a rollback is
        // never rolled back.
        let mut decided = None;
        while decided != Some(crew.service.current) {
            decided = Some(crew.service.current);
            for step in SERVICE_STEPS {
                step(&mut pass, crew);
            }
        }
    }
    for step in TASK_STEPS {
        step(&mut pass, &mut crews);
    }
    pass.finish(crews)
}
