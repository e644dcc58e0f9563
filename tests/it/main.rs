//! Integration tests, one binary: generated code, storage, API, certificates.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod dns;
mod engine;
mod overlay;
mod proto;
mod raft;
mod upgrade;
