//! The nouns: plain values and the rules each one keeps by itself.
//!
//! Pure: no async, no clock, no randomness, no I/O, no hash maps. Spec types have the JSON shape of the
//! Docker Engine API, so one definition serves requests, replies, the log and the agent's ledger
//! (docs/adr/0003); what we do not know of a spec is kept in its `extra` and comes back on read.
//!
//! Reading order: `id`, `meta`, `resources`, `container`, `policy`, `placement`, `service`, `task`,
//! `node`, `cluster`, `admission`, `format`, `unlock`, `network`, `endpoint`, `secret`, `assignment`,
//! `timing`.

pub mod admission;
pub mod assignment;
pub mod base64;
pub mod cluster;
pub mod container;
pub mod endpoint;
pub mod format;
pub mod id;
pub mod meta;
pub mod network;
pub mod node;
pub mod placement;
pub mod policy;
pub mod resources;
pub mod secret;
pub mod service;
pub mod task;
pub mod timing;
pub mod unlock;
pub mod validate;

pub use admission::SpecPolicy;
pub use assignment::AssignmentSet;
pub use cluster::Cluster;
pub use format::Format;
pub use id::{
    ClusterId, ConfigId, NetworkId, NodeId, RaftId, RequestId, SecretId, ServiceId, SessionId,
    TaskId,
};
pub use meta::{Extra, Labels, Meta, Nanos, Position, Revision, Timestamp};
pub use network::{Network, NetworkNode};
pub use node::Node;
pub use secret::{Config, Secret};
pub use service::{Service, ServiceSpec, SpecVersion};
pub use task::{Task, TaskState, TaskStatus};
pub use unlock::{Autolock, UnlockKey};
