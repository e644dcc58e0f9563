//! How entries, snapshots and Raft's messages become bytes.
//!
//! ```text
//!   entry     [format][bincode: stamp, kind, lengths][prost bytes of each change]
//!   snapshot  [format][bincode: meta, clock][(length, prost bytes) of each object][SHA-256]
//!   message   [format][bincode of openraft's type], for AppendEntries followed by its entries
//! ```
//!
//! bincode cannot skip a field it does not know, so it holds only the envelope, whose shape belongs
//! to the format number; what is meant to grow is prost. Entries and snapshots have the cluster's format
//! (`domain::format`), so a manager that does not know it cannot take part by mistake. Unknown
//! formats are refused in words.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::raft::AppendEntriesRequest;
use openraft::vote::leader_id_adv::LeaderId;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{
    Batch, Entry, LogId, RaftNode, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
use crate::domain::{Format, NodeId, Position, RequestId, Timestamp};
use crate::env::seal;
use crate::state::{Change, Command, Object, State};
use crate::wire::types;

/// The shape of Raft's messages, and of what lies on one manager's disk alone.
pub(super) const FORMAT: u8 = 1;
/// The newest format of entries and snapshots that this release reads; it writes the cluster's.
pub(super) const NEWEST: u8 = 2;

const LIMIT: usize = 64 << 20;
const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LIMIT>,
> = bincode::config::standard().with_limit::<LIMIT>();

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    /// Written by a release that is newer than this one.
    #[error(
        "format {found} is not known to this release, which reads up to {NEWEST}: a newer release \
         wrote it; upgrade this manager"
    )]
    Format {
        /// The format that was met.
        found: u8,
    },
    /// Cut, mixed up or damaged.
    #[error("{what} cannot be decoded: {reason}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Names a position of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) term: u64,
    pub(super) leader: u64,
    pub(super) index: u64,
}

impl From<LogId> for Stamp {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<Stamp> for LogId {
    fn from(stamp: Stamp) -> Self {
        Self::new(LeaderId { term: stamp.term, node_id: stamp.leader }, stamp.index)
    }
}

/// The place of an entry in the order of everything that was ever applied.
pub(super) fn position(id: &LogId) -> Position {
    Position { term: id.leader_id.term, index: id.index }
}

#[derive(Serialize, Deserialize)]
enum Body {
    Blank,
    Commands(Vec<Head>),
    Membership(Members),
}

#[derive(Serialize, Deserialize)]
struct Head {
    proposed_at: u64,
    request: Option<[u8; 16]>,
    changes: Vec<u32>, // lengths
}

#[derive(Serialize, Deserialize)]
struct Members {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, ([u8; 16], String)>,
}

/// Encodes an entry.
pub(super) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, CodecError> {
    let mut tail = Vec::new();
    // What openraft writes itself means the same in every format.
    let mut format = FORMAT;
    let body = match &entry.payload {
        EntryPayload::Blank => Body::Blank,
        EntryPayload::Normal(batch) => {
            format = byte(batch.format);
            Body::Commands(batch.commands.iter().map(|it| head(it, &mut tail)).collect())
        }
        EntryPayload::Membership(membership) => Body::Membership(members(membership)),
    };
    let mut out = vec![format];
    put(&mut out, &(Stamp::from(entry.log_id()), body), "an entry")?;
    out.extend_from_slice(&tail);
    Ok(out)
}

/// The format of an encoded entry, if it is newer than what this release reads.
pub(super) fn newer_format(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied().filter(|format| *format > NEWEST)
}

/// Decodes an entry.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    const WHAT: &str = "an entry of the log";
    let (format, content) = open_format(bytes, NEWEST, WHAT)?;
    let ((stamp, body), mut rest): ((Stamp, Body), _) = get(content, WHAT)?;
    let log_id = LogId::from(stamp);
    let entry = match body {
        Body::Blank => Entry::new_blank(log_id),
        Body::Commands(heads) => {
            let mut commands = Vec::with_capacity(heads.len());
            for head in heads {
                commands.push(command(head, &mut rest)?);
            }
            let batch = Batch { format, commands: commands.into() };
            Entry::new(log_id, EntryPayload::Normal(batch))
        }
        Body::Membership(members) => {
            Entry::new(log_id, EntryPayload::Membership(membership(members)?))
        }
    };
    if rest.is_empty() { Ok(entry) } else { Err(damaged(WHAT, "bytes are left over")) }
}

fn head(command: &Command, tail: &mut Vec<u8>) -> Head {
    let changes = command.changes.iter().map(|change| {
        let bytes = types::Change::from(change).encode_to_vec();
        tail.extend_from_slice(&bytes);
        u32::try_from(bytes.len()).unwrap_or(u32::MAX)
    });
    Head {
        changes: changes.collect(),
        proposed_at: command.proposed_at.0,
        request: command.request.map(RequestId::to_bytes),
    }
}

fn command(head: Head, rest: &mut &[u8]) -> Result<Command, CodecError> {
    const WHAT: &str = "a change in the log";
    let mut changes = Vec::with_capacity(head.changes.len());
    for length in head.changes {
        let bytes = cut(rest, length, WHAT)?;
        let message = types::Change::decode(bytes).map_err(|error| damaged(WHAT, &error))?;
        changes.push(Change::try_from(message).map_err(|error| damaged(WHAT, &error))?);
    }
    Ok(Command {
        proposed_at: Timestamp(head.proposed_at),
        request: head.request.map(RequestId::from_bytes),
        changes,
    })
}

fn members(membership: &openraft::Membership<u64, RaftNode>) -> Members {
    Members {
        configs: membership.get_joint_config().clone(),
        nodes: membership
            .nodes()
            .map(|(id, node)| (*id, (node.node.to_bytes(), node.addr.to_string())))
            .collect(),
    }
}

fn membership(members: Members) -> Result<openraft::Membership<u64, RaftNode>, CodecError> {
    const WHAT: &str = "a list of members";
    let mut nodes = BTreeMap::new();
    for (id, (node, addr)) in members.nodes {
        let addr = addr.parse().map_err(|error| damaged(WHAT, &error))?;
        nodes.insert(id, RaftNode { node: NodeId::from_bytes(node), addr });
    }
    // What is written before the first election names nobody; openraft's constructor refuses that.
    if members.configs.is_empty() {
        return Ok(openraft::Membership::default());
    }
    openraft::Membership::new(members.configs, nodes).map_err(|error| damaged(WHAT, &error))
}

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    last: Option<Stamp>,
    membership_at: Option<Stamp>,
    members: Members,
    position: (u64, u64),
    clock: u64,
    objects: u64,
}

/// Encodes a state and what openraft knows of it.
pub(super) fn encode_snapshot(meta: &SnapshotMeta, state: &State) -> Result<Bytes, CodecError> {
    let mut body = Vec::new();
    let mut objects = 0;
    for object in state.objects() {
        objects += 1;
        types::Object::from(&object)
            .encode_length_delimited(&mut body)
            .map_err(|error| damaged("a snapshot", &error))?;
    }
    let head = SnapshotHead {
        last: meta.last_log_id.map(Stamp::from),
        membership_at: meta.last_membership.log_id().map(Stamp::from),
        members: members(meta.last_membership.membership()),
        position: (state.position.term, state.position.index),
        clock: state.clock.0,
        objects,
    };
    let mut out = vec![byte(state.format())];
    put(&mut out, &head, "a snapshot")?;
    out.extend_from_slice(&body);
    let digest = seal::digest(&out);
    out.extend_from_slice(&digest);
    Ok(out.into())
}

/// Decodes a snapshot, having checked its digest.
pub(super) fn decode_snapshot(bytes: &[u8]) -> Result<(SnapshotMeta, State), CodecError> {
    const WHAT: &str = "a snapshot";
    let length = bytes.len().checked_sub(32).ok_or_else(|| damaged(WHAT, "it is too short"))?;
    let (content, digest) = bytes.split_at(length);
    let (_, body) = open_format(content, NEWEST, WHAT)?;
    if seal::digest(content) != digest {
        return Err(damaged(WHAT, "its digest is wrong"));
    }
    let (head, mut rest): (SnapshotHead, _) = get(body, WHAT)?;
    let mut objects = Vec::new();
    for _ in 0..head.objects {
        let message = types::Object::decode_length_delimited(&mut rest)
            .map_err(|error| damaged(WHAT, &error))?;
        objects.push(Object::try_from(message).map_err(|error| damaged(WHAT, &error))?);
    }
    if !rest.is_empty() {
        return Err(damaged(WHAT, "bytes are left over"));
    }
    let membership = membership(head.members)?;
    let meta = SnapshotMeta {
        last_log_id: head.last.map(LogId::from),
        last_membership: StoredMembership::new(head.membership_at.map(LogId::from), membership),
    };
    let (term, index) = head.position;
    let state = State::restore(Position { term, index }, Timestamp(head.clock), objects);
    Ok((meta, state))
}

/// Encodes a message of Raft's.
pub(super) fn encode_message<T: Serialize>(message: &T) -> Result<Bytes, CodecError> {
    let mut out = vec![FORMAT];
    put(&mut out, message, "a message")?;
    Ok(out.into())
}

/// Decodes a message of Raft's.
pub(super) fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    const WHAT: &str = "a message of another manager";
    let (message, rest) = get(open_format(bytes, FORMAT, WHAT)?.1, WHAT)?;
    if rest.is_empty() { Ok(message) } else { Err(damaged(WHAT, "bytes are left over")) }
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    previous: Option<Stamp>,
    committed: Option<Stamp>,
    entries: Vec<u32>, // lengths
}

/// Encodes the leader's message that carries entries.
pub(super) fn encode_append(
    request: &AppendEntriesRequest<TypeConfig>,
) -> Result<Bytes, CodecError> {
    let mut body = Vec::new();
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in &request.entries {
        let bytes = encode_entry(entry)?;
        entries.push(u32::try_from(bytes.len()).map_err(|error| damaged("an entry", &error))?);
        body.extend_from_slice(&bytes);
    }
    let head = AppendHead {
        vote: request.vote,
        previous: request.prev_log_id.map(Stamp::from),
        committed: request.leader_commit.map(Stamp::from),
        entries,
    };
    let mut out = vec![FORMAT];
    put(&mut out, &head, "a message")?;
    out.extend_from_slice(&body);
    Ok(out.into())
}

/// Decodes the leader's message that carries entries.
pub(super) fn decode_append(bytes: &[u8]) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    const WHAT: &str = "a message of the leader";
    let (head, mut rest): (AppendHead, _) = get(open_format(bytes, FORMAT, WHAT)?.1, WHAT)?;
    let mut entries = Vec::with_capacity(head.entries.len());
    for length in head.entries {
        entries.push(decode_entry(cut(&mut rest, length, WHAT)?)?);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.previous.map(LogId::from),
        entries,
        leader_commit: head.committed.map(LogId::from),
    })
}

fn put<T: Serialize>(out: &mut Vec<u8>, value: &T, what: &'static str) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, out, CONFIG)
        .map(drop)
        .map_err(|error| damaged(what, &error))
}

fn get<'a, T: DeserializeOwned>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(T, &'a [u8]), CodecError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|error| damaged(what, &error))?;
    Ok((value, bytes.get(used..).unwrap_or_default()))
}

/// The number of a format as it stands before what is written in it.
fn byte(format: Format) -> u8 {
    u8::try_from(format.0).unwrap_or(u8::MAX)
}

/// What follows a number of the format that is known.
fn open_format<'a>(
    bytes: &'a [u8],
    newest: u8,
    what: &'static str,
) -> Result<(Format, &'a [u8]), CodecError> {
    match bytes.split_first() {
        Some((0, _)) => Err(damaged(what, "it has no format")),
        Some((&found, rest)) if found <= newest => Ok((Format(u32::from(found)), rest)),
        Some((&found, _)) => Err(CodecError::Format { found }),
        None => Err(damaged(what, "it is empty")),
    }
}

fn cut<'a>(rest: &mut &'a [u8], length: u32, what: &'static str) -> Result<&'a [u8], CodecError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (bytes, after) =
        rest.split_at_checked(length).ok_or_else(|| damaged(what, "it is cut off"))?;
    *rest = after;
    Ok(bytes)
}

fn damaged(what: &'static str, reason: &(impl ToString + ?Sized)) -> CodecError {
    CodecError::Damaged { what, reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
