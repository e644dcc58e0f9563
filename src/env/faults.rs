//! Faults put in on purpose, to prove that the tests would find them. Inert in production: nothing
//! but a test can make any.

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
}

impl Canary {
    /// All that the simulation must find. `FloorIgnored` is found where directories are damaged
    /// (`tests/power`).
    pub const ALL: [Self; 9] = [
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
}

/// The faults of a process; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    canary: Option<Canary>,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self { canary: None };

    /// One bug. For tests of the tests.
    #[must_use]
    pub const fn with(canary: Canary) -> Self {
        Self { canary: Some(canary) }
    }

    /// Whether a bug is to be made.
    #[must_use]
    pub fn has(self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }
}
