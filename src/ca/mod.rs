//! Issuing identities.
