//! End to end: real daemons, real Docker Engines, real namespaces, on the lab of `scripts/lab.sh`.
//!
//! Each test owns a lab of hosts and takes it down; tests run one after the other
//! (`--test-threads=1`), since the lab's addresses are fixed. No test asserts a wall-clock time: it
//! waits for what must come true, up to a limit that only ends a test that has failed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod canary;
mod chaos;
mod clients;
mod disk;
mod drills;
mod engine;
mod faults;
mod flood;
mod images;
mod input;
mod lab;
mod mixed;
mod policy;
mod recovery;
mod registry;
mod rotation;
mod segments;
mod story;
mod watch;
