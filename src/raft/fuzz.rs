//! The fuzz tests' way to what managers send each other and keep.

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, VoteRequest};

use super::codec::{self, Stamp};
use super::floor::{Floor, FloorFile};
use super::peer::Ballot;
use super::types::{Batch, Entry, LogId, TypeConfig, Vote};
use crate::env::{SystemDevice, seal};
use crate::state::{Change, Command};

/// A vote, as it is sent.
pub(crate) fn message(bytes: &[u8]) {
    if let Ok(ballot) = codec::decode_message::<Ballot>(bytes) {
        again(&codec::encode_message(&ballot).unwrap(), |bytes| {
            let ballot = codec::decode_message::<Ballot>(bytes).unwrap();
            codec::encode_message(&ballot).unwrap().to_vec()
        });
    }
}

/// Entries, as the leader sends them.
pub(crate) fn append(bytes: &[u8]) {
    if let Ok(request) = codec::decode_append(bytes) {
        again(&codec::encode_append(&request).unwrap(), |bytes| {
            codec::encode_append(&codec::decode_append(bytes).unwrap()).unwrap().to_vec()
        });
    }
}

/// A snapshot whose digest is right, whatever it digests.
pub(crate) fn snapshot(bytes: &[u8]) {
    assert!(
        codec::decode_snapshot(bytes).is_err()
            || seal::digest(&bytes[..bytes.len() - 32]) == bytes[bytes.len() - 32..]
    );
    let signed = [bytes, &seal::digest(bytes)].concat();
    if let Ok((meta, state)) = codec::decode_snapshot(&signed) {
        again(&codec::encode_snapshot(&meta, &state).unwrap(), |bytes| {
            let (meta, state) = codec::decode_snapshot(bytes).unwrap();
            codec::encode_snapshot(&meta, &state).unwrap().to_vec()
        });
    }
}

/// An entry of the log, opened.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(entry) = codec::decode_entry(bytes) {
        again(&codec::encode_entry(&entry).unwrap(), |bytes| {
            codec::encode_entry(&codec::decode_entry(bytes).unwrap()).unwrap()
        });
    }
}

/// The floor, as a body and as a whole file.
pub(crate) fn floor(bytes: &[u8]) {
    drop(codec::decode_message::<Floor>(bytes));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("floor");
    std::fs::write(&path, bytes).unwrap();
    drop(FloorFile::open(&SystemDevice::default(), &path));
}

/// What is written must be read as what it was.
fn again(bytes: &[u8], read_and_write: impl Fn(&[u8]) -> Vec<u8>) {
    assert_eq!(read_and_write(bytes), bytes);
}

fn entries(changes: Vec<Change>) -> Vec<Entry> {
    let id = |index: u64| LogId::from(Stamp { term: 2, leader: 1, index });
    let proposed_at = crate::domain::Timestamp(1_700_000_000_000_000_000);
    let command = Command { proposed_at, request: None, changes };
    vec![
        Entry::new_blank(id(1)),
        Entry::new(
            id(300),
            EntryPayload::Normal(Batch {
                format: crate::domain::Format::FIRST,
                commands: vec![command].into(),
            }),
        ),
    ]
}

/// Entries of the log.
pub(crate) fn records(changes: Vec<Change>) -> Vec<Vec<u8>> {
    entries(changes).iter().map(|entry| codec::encode_entry(entry).unwrap()).collect()
}

/// Messages with entries.
pub(crate) fn appends(changes: Vec<Change>) -> Vec<Vec<u8>> {
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(5, 1),
        prev_log_id: Some(Stamp { term: 1, leader: 1, index: 0 }.into()),
        entries: entries(changes),
        leader_commit: None,
    };
    vec![codec::encode_append(&request).unwrap().to_vec()]
}

/// Votes.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let request = || VoteRequest::<TypeConfig>::new(Vote::new(3, 7), None);
    [Ballot::Vote(request()), Ballot::PreVote(request())]
        .iter()
        .map(|ballot| codec::encode_message(ballot).unwrap().to_vec())
        .collect()
}

/// Snapshots without their digests.
pub(crate) fn snapshots(state: &crate::state::State) -> Vec<Vec<u8>> {
    let meta = super::types::SnapshotMeta::default();
    let mut bytes = codec::encode_snapshot(&meta, state).unwrap().to_vec();
    bytes.truncate(bytes.len() - 32);
    vec![bytes]
}

/// Floors, as bodies and as a file.
pub(crate) fn floors() -> Vec<Vec<u8>> {
    let floor = Floor { raft_id: 7, vote: Some((3, 7, true)), ..Floor::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("floor");
    FloorFile::create(&SystemDevice::default(), &path, &floor).unwrap();
    vec![codec::encode_message(&floor).unwrap().to_vec(), std::fs::read(&path).unwrap()]
}
