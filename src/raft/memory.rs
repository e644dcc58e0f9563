//! A lone state machine behind the store's handle: no log, no disk, no peers. What tests of the
//! parts above consensus run on; a manager never does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use super::proposer::measure;
use super::store::{EVENTS_KEPT, Forward, Leadership, ProposeError, ReadError, Replica, Store};
use crate::domain::{Position, RaftId, RequestId, Revision};
use crate::env::Env;
use crate::state::{self, Change, Command, Event, State, View};

/// The only term there is.
const TERM: u64 = 1;

#[derive(Debug)]
struct Lone {
    env: Env,
    state: Mutex<State>,
    views: watch::Sender<View>,
    leadership: watch::Sender<Leadership>,
    events: broadcast::Sender<Arc<Vec<Event>>>,
}

impl Store {
    /// A store that lives in memory and always leads, in term 1. For tests.
    #[must_use]
    pub fn in_memory(env: Env) -> Self {
        let leader = (RaftId(1), SocketAddr::from((Ipv4Addr::LOCALHOST, 2377)));
        Self::in_memory_led(env, Leadership { term: TERM, leader: Some(leader), is_self: true })
    }

    /// The same with a leadership that it only tells of. For tests.
    #[must_use]
    pub fn in_memory_led(env: Env, leadership: Leadership) -> Self {
        Self::new(Arc::new(Lone {
            env,
            state: Mutex::default(),
            views: watch::Sender::default(),
            leadership: watch::Sender::new(leadership),
            events: broadcast::Sender::new(EVENTS_KEPT),
        }))
    }
}

#[async_trait]
impl Replica for Lone {
    fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        self.events.subscribe()
    }

    async fn propose(
        &self,
        request: Option<RequestId>,
        changes: Vec<Change>,
        forward: Forward,
        _deadline: Duration,
    ) -> Result<Revision, ProposeError> {
        if !matches!(forward, Forward::ToLeader | Forward::OnlyInTerm(TERM)) {
            return Err(ProposeError::NotLeader);
        }
        measure(&changes)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let command = Command { proposed_at: self.env.clock.now(), request, changes };
        let position = Position { term: TERM, index: state.position.index + 1 };
        let (outcome, events) = state::apply(&mut state, &command, position);
        self.views.send_replace(View::new(state.clone()));
        if !events.is_empty() {
            self.events.send(Arc::new(events)).ok();
        }
        Ok(outcome?)
    }

    async fn read_index(&self, _deadline: Duration) -> Result<View, ReadError> {
        Ok(self.views.borrow().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeId;

    #[tokio::test]
    async fn proposals_are_applied_and_seen() {
        let store = Store::in_memory(Env::system());
        assert!(store.leadership().borrow().is_self);
        let second = Duration::from_secs(1);
        let join = Change::JoinManager {
            node: NodeId::from_bytes([1; 16]),
            addr: SocketAddr::from(([10, 0, 0, 1], 2377)),
        };
        let refused = store.propose_in_term(2, vec![join.clone()], second).await;
        assert_eq!(refused, Err(ProposeError::NotLeader));
        // The node does not exist: a rejection, told as such.
        let rejected = store.propose(None, vec![join], second).await;
        assert!(matches!(rejected, Err(ProposeError::Rejected(_))), "{rejected:?}");
        assert_eq!(store.read_index(second).await.unwrap().position.index, 1);
    }
}
