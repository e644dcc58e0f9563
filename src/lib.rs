//! `swarm`: a Raft-replicated, swarm-mode cluster manager. One binary is command line, node daemon,
//! manager, agent and DNS server.
//!
//! The map, in reading order. A folder may import only from those above it, as `tests/tidy.rs`
//! enforces; docs/ARCHITECTURE.md says why.
//!
//! Pure (no async, clock, randomness or I/O):
//! - `domain`: the nouns: services, tasks, nodes, networks and the rules each keeps by itself
//! - `state`: the replicated state machine as a value: changes, `apply`, views
//! - `control`: what should change: one pass of pure steps over a view
//! - `health`: what is well and what is not: alarms and a report
//!
//! The rim:
//! - `env`: clock, entropy, disk and scope: the world behind small seams
//! - `wire`: the protobuf boundary
//! - `identity`: who one is: certificates, join tokens, TLS
//! - `transport`: gRPC over mutual TLS
//! - `raft`: the replicated store
//! - `leader`: what runs during a tenure
//! - `dispatcher`: a manager's side of the agent protocol
//! - `ca`: issuing identities
//! - `runtime`: containers
//! - `overlay`: the network between nodes
//! - `dns`: names of services and tasks
//! - `agent`: the worker's side
//! - `api`: the Docker Engine API for swarm mode
//! - `cli`: the command line, a client of that API
//! - `daemon`: puts everything together

pub mod agent;
pub mod api;
pub mod ca;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod dispatcher;
pub mod dns;
pub mod domain;
pub mod env;
pub mod health;
pub mod identity;
pub mod leader;
pub mod overlay;
pub mod raft;
pub mod runtime;
pub mod state;
pub mod transport;
pub mod wire;

#[cfg(test)]
mod tests;
