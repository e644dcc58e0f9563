//! Consensus: the replicated store. The only folder that names openraft and bincode.
//!
//! Everybody else knows [`Store`]: read a [`View`](crate::state::View), propose
//! [`Change`](crate::state::Change)s, wait for what others proposed, ask who leads. The leader and the
//! daemon hold a [`Handle`], too.
//!
//! ```text
//!   Store ─ replica ─┬─ proposer ─▶ openraft ─┬─ log ─ scribe ─ record, floor ─▶ env::LogDisk
//!                    │                        ├─ machine ─ snapshots ─▶ env::files
//!                    └─ link (to the leader)  └─ peer ─ link ─▶ transport
//!   server ─▶ inbound ─▶ openraft, proposer          watcher: who leads; elections on evidence
//! ```

pub mod archive;
mod codec;
mod error;
mod fitness;
mod floor;
#[cfg(test)]
pub(crate) mod fuzz;
mod handle;
mod inbound;
mod link;
mod log;
mod machine;
mod memory;
mod peer;
mod proposer;
mod pulse;
mod record;
mod replica;
mod salvage;
mod scribe;
mod server;
mod snapshots;
mod space;
mod start;
mod store;
mod types;
mod vigil;
mod watchdog;
mod watcher;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use fitness::Ailment;
pub use handle::{Compaction, Handle, Progress, Settings, Vitals};
pub use inbound::Inbound;
pub use link::tonic_link;
pub use peer::{Heartbeats, Peer, PeerError, PeerLink};
pub use salvage::{Salvaged, epoch, plant, salvage};
pub use server::Rpc;
pub use start::start;
pub use store::{Leadership, ProposeError, ReadError, Store};
pub use watcher::Members;
