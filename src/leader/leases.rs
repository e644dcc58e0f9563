//! Leases: each manager tells the leader which agents it hears from.
//!
//! A batch is a manager's whole table as ages, not clock readings, so managers' clocks need not agree.
//! Batches are lossy and idempotent: of two statements about a node the later renewal counts. A closed
//! session is a hint that its host lives and its agent does not; the session's id keeps the hint from
//! undoing a newer session on another manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::{Format, NodeId, Revision, SessionId};
use crate::env::Instant;

/// So many takeovers of live sessions of one node, each within this time of the one before, are no
/// accident: two agents that share an identity displace each other every few seconds at most.
const TAKEOVERS: u32 = 4;
const TAKEOVER_MEMORY: Duration = Duration::from_secs(60);

/// What a manager says of one agent's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The node.
    pub node: NodeId,
    /// The session that renews.
    pub session: SessionId,
    /// Time since the session was last heard from.
    pub age: Duration,
    /// The revision up to which the agent has carried out its assignments.
    pub applied: Revision,
    /// The session has closed.
    pub closed: bool,
    /// The newest format that the node's program knows.
    pub format: Format,
}

/// What the leader holds of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaseEntry {
    pub(super) session: SessionId,
    pub(super) renewed_at: Instant,
    pub(super) applied: Revision,
    pub(super) closed_at: Option<Instant>,
    pub(super) format: Format,
    /// When this session was first heard of.
    pub(super) since: Instant,
    /// How often a session took over from another one that was alive, and when it last did.
    takeovers: (u32, Instant),
}

/// The leader's table of leases; closed while this manager does not lead. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// A node that has been silent for this long and is heard of again is news.
    lease: Duration,
    /// Held for map operations only.
    table: Mutex<Option<BTreeMap<NodeId, LeaseEntry>>>,
    changed: Notify,
}

impl LeaseTable {
    /// A table that is closed; nodes lapse after `lease`.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        let inner = Inner { lease, table: Mutex::new(None), changed: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    fn table(&self) -> MutexGuard<'_, Option<BTreeMap<NodeId, LeaseEntry>>> {
        // The map is whole after every operation, so a panic of another holder does no harm.
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) {
        *self.table() = Some(BTreeMap::new());
    }

    pub(super) fn close(&self) {
        *self.table() = None;
    }

    pub(super) fn snapshot(&self) -> BTreeMap<NodeId, LeaseEntry> {
        self.table().clone().unwrap_or_default()
    }

    /// Completes after the next change that may alter a decision: not after every renewal.
    pub(super) async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Nodes of which two agents are heard: their sessions take over from each other again and again.
    #[must_use]
    pub fn contested(&self, now: Instant) -> BTreeSet<NodeId> {
        let table = self.table();
        let is_contested = |entry: &LeaseEntry| {
            let (count, at) = entry.takeovers;
            count >= TAKEOVERS && now.since(at) < TAKEOVER_MEMORY
        };
        let contested = table.iter().flatten().filter(|(_, entry)| is_contested(entry));
        contested.map(|(node, _)| *node).collect()
    }

    /// The newest format that each node's program knows, of the nodes that are heard from; `None`
    /// while this manager does not lead.
    #[must_use]
    pub fn formats(&self, now: Instant) -> Option<BTreeMap<NodeId, Format>> {
        let table = self.table();
        let is_heard = |entry: &LeaseEntry| {
            entry.closed_at.is_none() && now.since(entry.renewed_at) < self.inner.lease
        };
        let heard = table.as_ref()?.iter().filter(|(_, entry)| is_heard(entry));
        Some(heard.map(|(node, entry)| (*node, entry.format)).collect())
    }

    /// Takes a batch. Whether this manager leads; nothing is kept if it does not.
    pub fn renew(&self, batch: &[Renewal], now: Instant) -> bool {
        let mut table = self.table();
        let Some(table) = table.as_mut() else { return false };
        let mut news = false;
        for renewal in batch {
            news |= merge(table, *renewal, now, self.inner.lease);
        }
        if news {
            self.inner.changed.notify_one();
        }
        true
    }
}

/// Merges one statement; whether it may alter a decision.
fn merge(
    table: &mut BTreeMap<NodeId, LeaseEntry>,
    renewal: Renewal,
    now: Instant,
    lease: Duration,
) -> bool {
    let renewed_at = Instant(now.0.saturating_sub(renewal.age));
    let closed_at = renewal.closed.then_some(renewed_at);
    let Renewal { session, applied, format, .. } = renewal;
    let mut fresh = LeaseEntry {
        session,
        renewed_at,
        applied,
        closed_at,
        format,
        since: now,
        takeovers: (0, Instant::default()),
    };
    let Some(known) = table.get_mut(&renewal.node) else {
        table.insert(renewal.node, fresh);
        return true;
    };
    if known.session != renewal.session {
        // A closed session says nothing about a node that has another one; of two open sessions the
        // one that was heard from last is the node's.
        if renewal.closed || renewed_at <= known.renewed_at {
            return false;
        }
        // One takeover is a connection that broke without a word. Many are two agents.
        let (count, at) = known.takeovers;
        let count = if now.since(at) < TAKEOVER_MEMORY { count } else { 0 };
        let was_alive = known.closed_at.is_none() && now.since(known.renewed_at) < lease;
        fresh.takeovers = if was_alive { (count.saturating_add(1), now) } else { (count, at) };
        *known = fresh;
        return true;
    }
    let lapsed = renewed_at.since(known.renewed_at) > lease;
    let closes = renewal.closed && known.closed_at.is_none();
    if closes {
        known.closed_at = Some(now);
    }
    known.renewed_at = known.renewed_at.max(renewed_at);
    known.applied = known.applied.max(renewal.applied);
    lapsed || closes
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Instant {
        Instant(Duration::from_millis(millis))
    }

    fn renewal(session: u8, age_ms: u64) -> Renewal {
        Renewal {
            node: NodeId::from_bytes([9; 16]),
            session: SessionId::from_bytes([session; 16]),
            age: Duration::from_millis(age_ms),
            applied: Revision(0),
            closed: false,
            format: Format::FIRST,
        }
    }

    fn entry(table: &LeaseTable) -> LeaseEntry {
        table.snapshot()[&NodeId::from_bytes([9; 16])]
    }

    #[test]
    fn a_closed_table_takes_nothing() {
        let table = LeaseTable::new(LEASE);
        assert!(!table.renew(&[renewal(1, 0)], at(1_000)));
        table.open();
        assert!(table.renew(&[renewal(1, 0)], at(1_000)));
        table.close();
        assert!(table.snapshot().is_empty());
    }

    #[test]
    fn formats_are_those_of_nodes_that_are_heard_from() {
        let table = LeaseTable::new(LEASE);
        assert_eq!(table.formats(at(0)), None, "only the leader knows");
        table.open();
        table.renew(&[renewal(1, 0)], at(5_000));
        let known = Some([(NodeId::from_bytes([9; 16]), Format::FIRST)].into());
        assert_eq!(table.formats(at(6_999)), known);
        assert_eq!(table.formats(at(7_000)), Some(BTreeMap::new()), "silent");
        table.renew(&[Renewal { closed: true, ..renewal(1, 0) }], at(7_100));
        assert_eq!(table.formats(at(7_101)), Some(BTreeMap::new()), "closed");
    }

    #[test]
    fn a_late_batch_does_not_age_a_lease() {
        let table = LeaseTable::new(LEASE);
        table.open();
        table.renew(&[renewal(1, 0)], at(5_000));
        table.renew(&[renewal(1, 3_000)], at(5_100));
        assert_eq!(entry(&table).renewed_at, at(5_000));
    }

    #[test]
    fn closing_an_old_session_leaves_the_new_one_open() {
        let table = LeaseTable::new(LEASE);
        table.open();
        table.renew(&[renewal(1, 0)], at(5_000));
        table.renew(&[renewal(2, 0)], at(5_500));
        table.renew(&[Renewal { closed: true, ..renewal(1, 0) }], at(5_600));
        assert_eq!(entry(&table).closed_at, None);
        table.renew(&[Renewal { closed: true, ..renewal(2, 0) }], at(5_700));
        assert_eq!(entry(&table).closed_at, Some(at(5_700)));
    }

    #[test]
    fn two_agents_with_one_identity_are_noticed_and_a_reconnect_is_not() {
        let table = LeaseTable::new(LEASE);
        table.open();
        table.renew(&[renewal(1, 0)], at(1_000));
        table.renew(&[renewal(2, 0)], at(2_000));
        assert!(table.contested(at(2_000)).is_empty(), "a connection broke");
        for turn in 0..4u8 {
            table.renew(&[renewal(3 + turn, 0)], at(3_000 + 500 * u64::from(turn)));
        }
        assert_eq!(table.contested(at(5_000)), [NodeId::from_bytes([9; 16])].into());
        assert!(table.contested(at(65_000)).is_empty(), "it is over");
    }

    #[test]
    fn an_agent_that_dies_again_and_again_is_one_agent() {
        let table = LeaseTable::new(LEASE);
        table.open();
        for turn in 0..9u8 {
            let now = at(1_000 * u64::from(turn));
            table.renew(&[renewal(turn, 0)], now);
            table.renew(&[Renewal { closed: true, ..renewal(turn, 0) }], now);
        }
        assert!(table.contested(at(9_000)).is_empty());
    }

    #[test]
    fn only_news_wakes_the_leader() {
        let mut table = BTreeMap::new();
        assert!(merge(&mut table, renewal(1, 0), at(10_000), LEASE), "first");
        assert!(!merge(&mut table, renewal(1, 0), at(10_250), LEASE), "ordinary renewal");
        assert!(merge(&mut table, renewal(1, 0), at(13_000), LEASE), "back after a lapse");
        assert!(merge(&mut table, renewal(2, 0), at(13_100), LEASE), "another session");
    }
}
