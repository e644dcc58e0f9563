//! What the replicated state says of who calls.

use async_trait::async_trait;

use super::READ_LIMIT;
use crate::domain::node::Role;
use crate::identity::{NodeIdentity, Requirement};
use crate::raft::Store;
use crate::state::State;
use crate::transport::{Roster, Standing};

/// The roster of a manager. What its own view says for a node is believed at once; what it says
/// against one only after the leader was asked, since a follower may not know yet of a node that
/// joined or was promoted a moment ago.
#[derive(Clone, Debug)]
pub struct StateRoster {
    store: Store,
}

impl StateRoster {
    /// Reads a store.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }
}

fn judge(state: &State, peer: NodeIdentity, requirement: Requirement) -> Standing {
    let Some(node) = state.node(peer.node) else { return Standing::Removed };
    if requirement.role() == Some(Role::Manager) && node.certified != Role::Manager {
        return Standing::Demoted;
    }
    Standing::Good
}

#[async_trait]
impl Roster for StateRoster {
    async fn standing(&self, peer: NodeIdentity, requirement: Requirement) -> Standing {
        let local = judge(&self.store.view(), peer, requirement);
        if local == Standing::Good || requirement == Requirement::Anyone {
            return Standing::Good;
        }
        if requirement == Requirement::Peer {
            // Raft's messages are what brings a follower's view up to date, so its view is no
            // evidence against them; the leader's is.
            let leads = self.store.leadership().borrow().is_self;
            return if leads { local } else { Standing::Good };
        }
        match self.store.read_index(READ_LIMIT).await {
            Ok(view) => judge(&view, peer, requirement),
            Err(_) => Standing::Unknown,
        }
    }
}
