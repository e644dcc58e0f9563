//! What should change: pure decisions.
