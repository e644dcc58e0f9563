//! What every object carries: revisions, times, labels.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// User labels, in the order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Fields of a spec that this release does not know; kept and returned as they came.
pub type Extra = BTreeMap<String, serde_json::Value>;

/// The log index of an object's last change (Docker: `Version.Index`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The log id of the last entry applied in a view: the fence of everything sent to agents.
/// Committed entries are totally ordered, so pairs from different managers can be compared.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// The term in which the entry was proposed.
    pub term: u64,
    /// The index of the entry.
    pub index: u64,
}

/// Wall-clock time in nanoseconds since the Unix epoch, UTC. There is no `now()` here: time is an
/// argument wherever something is decided.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `duration` later; saturates at the end of time (year 2554).
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// To the second, for people.
    #[must_use]
    pub fn brief(self) -> String {
        let text = self.to_string();
        format!("{}Z", text.split('.').next().unwrap_or_default())
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC with nanoseconds, as the Docker Engine writes times.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Civil date from days since the epoch: Howard Hinnant, "chrono-compatible low-level date
        // algorithms", civil_from_days, for dates after 1970 only.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
        let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

/// A length of time as Docker's JSON has it: whole nanoseconds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Nanoseconds of a number of seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// As a standard duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

/// Times and revisions of an object, all set by `state::apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// When the object was created, in cluster time.
    pub created_at: Timestamp,
    /// When it last changed, in cluster time.
    pub updated_at: Timestamp,
    /// The log index of its last change of any kind.
    pub revision: Revision,
    /// The log index of the last change of its spec: a user's precondition (`?version=`).
    pub spec_revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000000Z");
        let leap_day = Timestamp(1_709_210_096_789_000_001);
        assert_eq!(leap_day.to_string(), "2024-02-29T12:34:56.789000001Z");
        assert_eq!(leap_day.brief(), "2024-02-29T12:34:56Z");
        let new_year = Timestamp(1_798_761_599_000_000_000);
        assert_eq!(new_year.to_string(), "2026-12-31T23:59:59.000000000Z");
    }
}
