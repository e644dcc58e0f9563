//! What the leader knows and does not replicate, in cluster time.
//!
//! Cluster time of a tenure starts at the wall clock (never before what was proposed already) and
//! goes on with the monotonic clock, so that it neither goes back nor jumps.

use std::collections::BTreeMap;

use super::leases::LeaseEntry;
use crate::control::{self, Lease, Observed};
use crate::domain::timing::Timing;
use crate::domain::{NodeId, Timestamp};
use crate::env::Instant;
use crate::raft;

/// The anchor of a tenure's time, and the waits of the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observations {
    base: Timestamp,
    started: Instant,
    timing: Timing,
}

impl Observations {
    /// A tenure that began at `started`, when it was `base`.
    pub(super) const fn new(base: Timestamp, started: Instant, timing: Timing) -> Self {
        Self { base, started, timing }
    }

    /// Cluster time of an instant.
    pub(super) fn time_of(&self, instant: Instant) -> Timestamp {
        if instant >= self.started {
            self.base.after(instant.since(self.started))
        } else {
            let before = u64::try_from(self.started.since(instant).as_nanos()).unwrap_or(u64::MAX);
            Timestamp(self.base.0.saturating_sub(before))
        }
    }

    /// The instant of a cluster time; the start of the tenure for anything earlier.
    pub(super) fn instant_of(&self, time: Timestamp) -> Instant {
        self.started.after(time.since(self.base))
    }

    /// The inputs of a pass.
    pub(super) fn observed(
        &self,
        now: Instant,
        seed: [u8; 32],
        leases: &BTreeMap<NodeId, LeaseEntry>,
        members: raft::Members,
    ) -> Observed {
        let leases = leases
            .iter()
            .map(|(node, entry)| {
                let lease = Lease {
                    renewed_at: self.time_of(entry.renewed_at),
                    applied: entry.applied,
                    closed_at: entry.closed_at.map(|at| self.time_of(at)),
                    format: entry.format,
                    since: self.time_of(entry.since),
                };
                (*node, lease)
            })
            .collect();
        Observed {
            now: self.time_of(now),
            seed,
            tenure_started: self.base,
            leases,
            raft: control::RaftMembers {
                voters: members.voters,
                learners: members.learners,
                me: members.me,
                silent: members.silent,
            },
            timing: self.timing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cluster_time_follows_the_monotonic_clock_both_ways() {
        let started = Instant(Duration::from_secs(100));
        let tenure = Observations::new(Timestamp(5_000_000_000_000), started, Timing::default());
        let later = Instant(Duration::from_secs(103));
        assert_eq!(tenure.time_of(later), Timestamp(5_003_000_000_000));
        assert_eq!(tenure.instant_of(Timestamp(5_003_000_000_000)), later);
        let earlier = Instant(Duration::from_secs(98));
        assert_eq!(tenure.time_of(earlier), Timestamp(4_998_000_000_000));
        assert_eq!(tenure.instant_of(Timestamp(1)), started);
    }
}
