//! Members in one process, over a network in memory: what a cluster promises.

/// Makes tests of functions that take a kind of log, one for each kind.
macro_rules! over_both {
    ($($name:ident,)*) => {
        mod on_sled {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::env::disk::LogKind::Sled).await;
                }
            )*
        }
        mod on_segments {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::env::disk::LogKind::Segments).await;
                }
            )*
        }
    };
}
pub(super) use over_both;

mod cluster;
mod net;

use std::sync::Arc;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;

use super::codec::{self, Stamp};
use super::types::{Batch, Entry, LogId, TypeConfig, Vote};
use crate::domain::node::Role;
use crate::domain::secret::PayloadSpec;
use crate::domain::{Config, ConfigId, Format, Meta, Node, NodeId};
use crate::state::{Change, Command, Expect, Object};

/// Found on the disk only if it was not sealed.
pub(super) const CONTENT: &[u8] = b"a content that must be sealed";

/// A change that creates a node.
pub(super) fn node_change(number: u8) -> Change {
    let node = Node::new(NodeId::from_bytes([number; 16]), Role::Worker);
    Change::Put { object: Object::Node(Arc::new(node)), expect: Expect::Any }
}

/// A change that creates a config of a size.
pub(super) fn config_change(number: u64, size: usize) -> Change {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let spec = PayloadSpec { name: format!("config-{number}"), ..PayloadSpec::default() };
    let data: Vec<u8> = CONTENT.iter().copied().cycle().take(size).collect();
    let config =
        Config { id: ConfigId::from_bytes(id), meta: Meta::default(), spec, data: data.into() };
    Change::Put { object: Object::Config(Arc::new(config)), expect: Expect::Absent }
}

/// A message of a leader of a later term, whose entry has a format.
pub(super) fn entry_of(format: Format) -> bytes::Bytes {
    let batch = Batch { format, commands: vec![Command::default()].into() };
    let id = LogId::from(Stamp { term: 99, leader: 2, index: 9_000 });
    let entry = Entry::new(id, EntryPayload::Normal(batch));
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(99, 2),
        prev_log_id: None,
        entries: vec![entry],
        leader_commit: None,
    };
    codec::encode_append(&request).unwrap()
}
