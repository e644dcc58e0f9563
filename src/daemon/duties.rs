//! What a manager does on its replica, whatever carries its messages: it serves agents, says whom it
//! hears from, and plans while it leads. The daemon and the simulation (`tests/sim`) start the same.

use std::sync::Arc;

use crate::dispatcher::{self, Dispatcher};
use crate::domain::NodeId;
use crate::domain::timing::Timing;
use crate::env::{Env, Scope};
use crate::leader::{self, Dial, LeaseLink, LeaseTable, Leases};
use crate::raft;

/// A manager's ways to the others, raft's own apart.
#[derive(Clone)]
pub struct Ways {
    /// The times that all of them keep to.
    pub timing: Timing,
    /// For leases.
    pub leases: Arc<dyn LeaseLink>,
    /// For output of tasks.
    pub dial: Dial,
}

impl std::fmt::Debug for Ways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ways").field("leases", &self.leases).finish_non_exhaustive()
    }
}

/// What others must reach.
#[derive(Clone, Debug)]
pub struct Duties {
    /// The agents' side.
    pub dispatcher: Dispatcher,
    /// Where the leases of other managers' agents go.
    pub leases: LeaseTable,
}

/// Starts them; they end with the scope.
#[must_use]
pub fn start(env: &Env, node: NodeId, raft: &raft::Handle, ways: Ways, scope: &Scope) -> Duties {
    let (timing, store) = (ways.timing, raft.store());
    let table = LeaseTable::new(timing.lease);
    let leases = Leases::new(env.clone(), store.clone(), table.clone(), ways.leases);
    let settings = dispatcher::Settings { node, timing, dial: ways.dial };
    let dispatcher = dispatcher::start(settings, env, &store, leases, scope);
    leader::start(env.clone(), timing, raft.clone(), table.clone(), scope);
    Duties { dispatcher, leases: table }
}
