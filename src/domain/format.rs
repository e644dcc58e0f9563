//! The format that what is replicated is written in: which fields and objects may be used.
//!
//! Managers of two releases take part at once while a cluster is upgraded. Protobuf drops a field
//! that it does not know, so the older one would keep less than the newer one and they would be two
//! clusters. Hence one number in the state, [`Cluster::format`](super::Cluster), which the leader
//! raises when every manager knows the next one (`control/format`); a field or object is written from
//! its own format on, and never before.

use std::fmt;

/// The number of a format. Only grows; what it stands for never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format(pub u32);

impl Format {
    /// What the first release wrote.
    pub const FIRST: Self = Self(1);
    /// The authority can be changed for another one.
    pub const ROTATION: Self = Self(2);
    /// The cluster has a policy of what specs may ask for.
    pub const POLICY: Self = Self(2);
    /// The newest that this release knows.
    pub const NEWEST: Self = Self(2);

    /// Whether what came with a format may be written.
    #[must_use]
    pub const fn has(self, feature: Self) -> bool {
        self.0 >= feature.0
    }

    /// What somebody says that it knows; the first release says nothing.
    #[must_use]
    pub const fn said(number: u32) -> Self {
        if number == 0 { Self::FIRST } else { Self(number) }
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_knows_the_first_format() {
        assert_eq!(Format::said(0), Format::FIRST);
        assert_eq!(Format::said(7), Format(7));
        assert!(!Format::FIRST.has(Format::ROTATION));
        assert!(Format::NEWEST.has(Format::ROTATION) && Format::NEWEST.has(Format::POLICY));
    }
}
