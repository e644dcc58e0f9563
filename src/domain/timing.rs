//! The one table of timings (docs/adr/0006), its order asserted.
//!
//! A manager that lost its leader lets its agents go before their leases run out; a node is called
//! dead only after its agent had time to find another manager; a new leader grants every node more
//! than both.

use std::time::Duration;

/// Every time-out that one part of the cluster has because of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of the Raft leader.
    pub raft_heartbeat: Duration,
    /// Shortest silence of the leader that starts an election.
    pub election_min: Duration,
    /// Longest silence of the leader that starts an election.
    pub election_max: Duration,
    /// Between two heartbeats of an agent.
    pub agent_heartbeat: Duration,
    /// A manager that has not heard from a leader for this long closes its agents' sessions.
    pub leaderless_max: Duration,
    /// A node that has been silent for this long is down.
    pub lease: Duration,
    /// A new leader calls no node down before this.
    pub tenure_grace: Duration,
    /// A node whose session closed (so its host lives) keeps its tasks for this long.
    pub restart_grace: Duration,
    /// From withdrawing a task's address to asking its container to stop.
    pub drain: Duration,
    /// All managers know a newer format for this long before it is used: until then any of them can
    /// go back to the release before.
    pub format_hold: Duration,
    /// How long an address stays out of use after its task ended: longer than any cache of it.
    pub address_rest: Duration,
}

impl Timing {
    /// What every cluster runs with.
    pub const DEFAULT: Self = Self {
        raft_heartbeat: Duration::from_millis(160),
        election_min: Duration::from_millis(1_000),
        election_max: Duration::from_millis(1_500),
        agent_heartbeat: Duration::from_millis(250),
        leaderless_max: Duration::from_millis(800),
        lease: Duration::from_millis(2_200),
        tenure_grace: Duration::from_millis(3_000),
        restart_grace: Duration::from_secs(10),
        drain: Duration::from_millis(250),
        format_hold: Duration::from_secs(600),
        address_rest: Duration::from_secs(60),
    };

    /// Whether the times stand in the order that the protocol relies on.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        let heartbeats = self.raft_heartbeat * 5 <= self.election_min
            && self.agent_heartbeat * 3 <= self.lease
            && self.raft_heartbeat * 5 <= self.leaderless_max;
        heartbeats
            && self.election_min < self.election_max
            && self.leaderless_max < self.lease
            && self.lease < self.tenure_grace
            && self.tenure_grace < self.restart_grace
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_times_are_in_order() {
        assert!(Timing::DEFAULT.is_ordered());
    }
}
