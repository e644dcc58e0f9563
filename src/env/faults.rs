//! Faults put in on purpose: bugs, to prove that the tests would find them, and points at which a
//! real process dies or stands still. Inert in production: nothing but a test makes any.

use super::Clock;
use super::failpoints::{Failpoints, Point};

/// A bug that somebody could make. Each must be found by a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Entries are acknowledged before the barrier has made them durable.
    AckBeforeBarrier,
    /// A vote is answered without having been written.
    VoteNotWritten,
    /// A cut of the log happens in memory only.
    TruncateLost,
    /// The log is purged although the snapshot that replaces it was not written.
    SnapshotNotWritten,
    /// A log is believed although it is below its floor.
    FloorIgnored,
    /// A linearizable read is answered from what was applied here.
    ReadWithoutQuorum,
    /// A leader says that its view is complete before it has applied an entry of its own term.
    LeaderTooEarly,
    /// Applying an entry depends on the member that applies it.
    ApplyDiverges,
    /// Some events reach nobody.
    EventLost,
    /// A proposal with an unknown outcome is reported as not written.
    UnknownIsRefused,
    /// A leader that is not fit to lead stays.
    UnfitLeaderStays,
    /// An agent does not say which assignments it knows, and takes older ones.
    StaleAssignments,
    /// An agent acts on assignments that are not on its disk yet.
    LedgerNotSynced,
    /// An agent that starts does not look for the containers that run.
    AdoptsNothing,
    /// An agent says that a task has ended before its container has.
    ShutdownTooEarly,
    /// A new leader calls nodes down that had no time to be heard of.
    TenureWithoutGrace,
    /// An address is given away as soon as its task has ended.
    AddressFreedEarly,
    /// Every node gets every secret.
    SecretToAll,
    /// Names keep standing for tasks that have ended.
    EndpointsKept,
    /// An update replaces all tasks at a time, whatever its policy says.
    UpdateAtOnce,
    /// Nodes are not told that they are to have another role.
    RoleNotTold,
    /// Some news reach no user.
    NewsLost,
}

impl Canary {
    /// Those of the replicated store that seeds of the simulation must find. `FloorIgnored` is found where
    /// directories are damaged (`tests/power`), `UnfitLeaderStays` where leaders are struck (`tests/sim/fitness`).
    pub const RAFT: [Self; 9] = [
        Self::AckBeforeBarrier,
        Self::VoteNotWritten,
        Self::TruncateLost,
        Self::SnapshotNotWritten,
        Self::ReadWithoutQuorum,
        Self::LeaderTooEarly,
        Self::ApplyDiverges,
        Self::EventLost,
        Self::UnknownIsRefused,
    ];

    /// Those of the cluster above it.
    pub const CLUSTER: [Self; 11] = [
        Self::StaleAssignments,
        Self::LedgerNotSynced,
        Self::AdoptsNothing,
        Self::ShutdownTooEarly,
        Self::TenureWithoutGrace,
        Self::AddressFreedEarly,
        Self::SecretToAll,
        Self::EndpointsKept,
        Self::UpdateAtOnce,
        Self::RoleNotTold,
        Self::NewsLost,
    ];
}

/// The faults of a process; none by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    canary: Option<Canary>,
    points: Option<&'static Failpoints>,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self { canary: None, points: None };

    /// One bug. For tests of the tests.
    #[must_use]
    pub const fn with(canary: Canary) -> Self {
        Self { canary: Some(canary), points: None }
    }

    /// Whether a bug is to be made.
    #[must_use]
    pub fn has(self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }

    /// Armed failpoints, counted for the life of the process.
    #[must_use]
    pub fn armed(points: Failpoints) -> Self {
        Self { canary: None, points: Some(Box::leak(Box::new(points))) }
    }

    /// A failpoint in code that blocks.
    pub fn hit(self, point: Point) {
        if let Some(points) = self.points {
            points.hit(point);
        }
    }

    /// A failpoint in code that awaits.
    pub async fn pass(self, point: Point, clock: &dyn Clock) {
        if let Some(points) = self.points {
            points.pass(point, clock).await;
        }
    }
}
