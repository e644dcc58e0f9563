//! Which manager the agent has its session with.
//!
//! Any will do, so an agent that lost its manager asks all the others, each one when the one before has
//! declined or has kept silent for a while: a cluster that lost two hosts at once must not cost their agents'
//! leases. Only when a whole round of them failed does it wait.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::board::Board;
use super::departure::Departure;
use super::session::{Ended, Session};
use crate::domain::NodeId;
use crate::domain::timing::Timing;
use crate::env::{Env, Scope};
use crate::runtime::Runtime;
use crate::transport::{LinkError, ManagerLink};

/// A manager that has not welcomed the agent by then has the next one asked beside it (RFC 8305, section 5,
/// has 250 ms between two attempts to connect).
const HEAD_START: Duration = Duration::from_millis(250);
/// The first word waits this long for the engine's description.
const DESCRIBE_WAIT: Duration = Duration::from_secs(1);
/// A session shorter than this has not worked.
const SHORT: Duration = Duration::from_secs(1);
/// The wait after a session that worked: its lease runs, and the many agents of one manager are spread.
const MOVE_WAIT: Duration = Duration::from_millis(25);
/// The wait after a round of managers that all failed; it doubles up to the longest, with which an agent
/// is still in time for a leader that was elected while it waited (`Timing::tenure_grace`).
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A node that was removed asks rarely.
const REMOVED_WAIT: Duration = Duration::from_secs(10);

/// What the routine needs.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) env: Env,
    pub(super) board: Arc<Board>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) link: Arc<dyn ManagerLink>,
    pub(super) node: NodeId,
    pub(super) addr: IpAddr,
    pub(super) timing: Timing,
    pub(super) scope: Scope,
}

/// How a round of managers ended that gave no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fruitless {
    /// None of them would, or could.
    Declined,
    /// One of them said that this node is not in the cluster.
    Removed,
}

impl Connector {
    /// Keeps a session open for ever.
    pub(super) async fn run(self) {
        let mut wait = BACK_OFF_MIN;
        let mut lost = None;
        let mut departure = Departure::new(self.timing.restart_grace / 2);
        loop {
            let (worked, removed) = match self.welcome(lost).await {
                Ok(session) => {
                    let begun = self.env.clock.instant();
                    let (addr, ended) = self.stay(session, &mut departure).await;
                    lost = Some(addr);
                    self.board.connected.send_replace(None);
                    self.env.meters.agent_sessions_lost.up();
                    let worked = self.env.clock.instant().since(begun) > SHORT;
                    (worked, fruitless(addr, &ended) == Fruitless::Removed)
                }
                Err(fruitless) => (false, fruitless == Fruitless::Removed),
            };
            let is_news = |known: &mut bool| std::mem::replace(known, removed) != removed;
            self.board.removed.send_if_modified(is_news);
            let pause = match (removed, worked) {
                (true, _) => REMOVED_WAIT,
                (_, true) => MOVE_WAIT,
                (_, false) => wait,
            };
            wait = if worked { BACK_OFF_MIN } else { (wait * 2).min(BACK_OFF_MAX) };
            self.env.clock.sleep(self.env.entropy.jitter(pause)).await;
        }
    }

    /// A session with the first manager that welcomes this agent.
    async fn welcome(&self, lost: Option<SocketAddr>) -> Result<Session<'_>, Fruitless> {
        let mut descriptions = self.board.description.subscribe();
        // In time or not: what is known then is said.
        drop(self.env.clock.timeout(DESCRIBE_WAIT, descriptions.wait_for(Option::is_some)).await);
        let mut others = self.order(lost).into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            if let Some(addr) = others.next() {
                asked.push(async move { (addr, Session::begin(self, addr).await) });
            }
            let head_start = if others.len() > 0 { HEAD_START } else { Duration::MAX };
            match self.env.clock.timeout(head_start, asked.next()).await {
                Ok(Some((_, Ok(session)))) => return Ok(session),
                Ok(Some((addr, Err(ended)))) => {
                    if fruitless(addr, &ended) == Fruitless::Removed {
                        return Err(Fruitless::Removed);
                    }
                }
                Ok(None) => return Err(Fruitless::Declined),
                Err(_) => {}
            }
        }
    }

    /// Stays in a session, and in those that follow it because they suit better. Returns the last manager.
    async fn stay<'a>(
        &'a self,
        mut session: Session<'a>,
        departure: &mut Departure,
    ) -> (SocketAddr, Ended) {
        loop {
            let addr = session.addr();
            let begun = self.env.clock.instant();
            let ended = session.run(departure).await;
            if !self.is_own(addr) {
                departure.stayed(self.env.clock.instant().since(begun));
            }
            session = match ended {
                Ok(next) => next,
                Err(ended) => return (addr, ended),
            };
            tracing::info!(from = %addr, to = %session.addr(), "the session moves to another process");
            self.board.connected.send_replace(None);
        }
    }

    /// Whether a manager is in this agent's own process.
    pub(super) fn is_own(&self, manager: SocketAddr) -> bool {
        manager.ip() == self.addr
    }

    /// The managers in the order to try.
    pub(super) fn order(&self, lost: Option<SocketAddr>) -> Vec<SocketAddr> {
        let known = self.board.managers.borrow().iter().map(|(_, addr)| *addr).collect();
        in_order(known, (self.addr, lost), self.env.entropy.number())
    }
}

/// Tells why there is no session with a manager.
fn fruitless(addr: SocketAddr, ended: &Ended) -> Fruitless {
    if matches!(ended, Ended::Link(LinkError::Removed)) {
        tracing::error!("{ended}");
        return Fruitless::Removed;
    }
    tracing::info!(manager = %addr, reason = %ended, "no session with this manager");
    Fruitless::Declined
}

/// The managers from a place that differs from node to node and from round to round. This node's `own`
/// comes late: that one is the same process, and when it dies, nobody is left who saw the session close,
/// so the host would count as silent (docs/adr/0030). Last comes the one that was `lost`: if its host is
/// gone, finding that out again takes what is left of the lease.
fn in_order(
    mut known: Vec<SocketAddr>,
    (own, lost): (IpAddr, Option<SocketAddr>),
    number: u64,
) -> Vec<SocketAddr> {
    if let Ok(count @ 1..) = u64::try_from(known.len()) {
        known.rotate_left(usize::try_from(number % count).unwrap_or_default());
    }
    known.sort_by_key(|addr| (Some(*addr) == lost, addr.ip() == own));
    known.dedup();
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_in_the_same_process_is_the_last_one_to_try() {
        let addr = |number: u8| SocketAddr::from(([10, 0, 0, number], 2377));
        let order = |known: &[u8], number| {
            let known = known.iter().map(|it| addr(*it)).collect();
            in_order(known, (addr(1).ip(), None), number)
        };
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..12 {
            let order = order(&[1, 2, 3], number);
            assert_eq!((order.len(), order[2]), (3, addr(1)), "{order:?}");
            firsts.insert(order[0]);
        }
        assert_eq!(firsts, [addr(2), addr(3)].into(), "the others share the agents");
        assert_eq!(order(&[1], 7), [addr(1)], "where it is the only one, it is it");
        assert_eq!(order(&[], 7), []);
    }

    #[test]
    fn a_manager_that_was_lost_is_tried_after_all_others() {
        let addr = |number: u8| SocketAddr::from(([10, 0, 0, number], 2377));
        for number in 0..8 {
            let known = (1..=4).map(addr).collect();
            let order = in_order(known, (addr(1).ip(), Some(addr(2))), number);
            assert_eq!((order.len(), &order[2..]), (4, &[addr(1), addr(2)][..]));
        }
    }
}
