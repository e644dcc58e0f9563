//! Goldens of what lies on disks and goes between releases, and round trips.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect as Golden, expect};
use openraft::Membership;

use super::*;
use crate::domain::TaskId;
use crate::raft::tests::node_change;

fn id(term: u64, leader: u64, index: u64) -> LogId {
    Stamp { term, leader, index }.into()
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines = digits.as_bytes().chunks(96).map(|line| String::from_utf8_lossy(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn membership() -> Membership<u64, RaftNode> {
    let node = |number: u8| RaftNode {
        node: NodeId::from_bytes([number; 16]),
        addr: ([10, 0, 0, number], 2377).into(),
    };
    let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 7])];
    Membership::new(configs, BTreeMap::from([(1, node(1)), (7, node(7)), (9, node(9))])).unwrap()
}

fn entries() -> Vec<Entry> {
    let report = Change::ReportTask {
        task: TaskId::from_bytes([3; 16]),
        node: NodeId::from_bytes([4; 16]),
        status: crate::domain::TaskStatus::default(),
    };
    let commands = vec![
        Command {
            proposed_at: Timestamp(1_700_000_000_000_000_000),
            request: Some(RequestId::from_bytes([9; 16])),
            changes: vec![report, node_change(5)],
        },
        Command { proposed_at: Timestamp(5), request: None, changes: vec![] },
    ];
    let batch = Batch { format: Format::FIRST, commands: commands.into() };
    vec![
        Entry::new_blank(id(1, 1, 0)),
        Entry::new(id(2, 1, 300), EntryPayload::Normal(batch)),
        Entry::new(id(2, 7, 70_000), EntryPayload::Membership(membership())),
    ]
}

fn golden(entry: &Entry, expected: &Golden) {
    let encoded = encode_entry(entry).unwrap();
    expected.assert_eq(&hex(&encoded));
    let decoded = decode_entry(&encoded).unwrap();
    assert_eq!(decoded, *entry);
}

#[test]
fn entries_are_written_as_they_always_were() {
    let all = entries();
    golden(&all[0], &expect!["0101010000"]);
    golden(
        &all[1],
        &expect![[r#"
        010201fb2c010102fd00002a36fe9c971701090909090909090909090909090909090228530500001a260a1003030303
        0303030303030303030303031210040404040404040404040404040404041a000a510a4d124b0a100505050505050505
        050505050505050512001a357b224c6162656c73223a7b7d2c22526f6c65223a22776f726b6572222c22417661696c61
        62696c697479223a22616374697665227d1200"#]],
    );
    golden(
        &all[2],
        &expect![[r#"
        010207fc70110100020201010201070301010101010101010101010101010101010d31302e302e302e313a3233373707
        070707070707070707070707070707070d31302e302e302e373a3233373709090909090909090909090909090909090d
        31302e302e302e393a32333737"#]],
    );
}

/// The release before decodes up to format 1, and an entry says its format in its first byte.
#[test]
fn what_is_written_in_a_newer_format_says_so_before_anything_else() {
    let mut raised = crate::state::fixtures::cluster();
    raised.format = Format::NEWEST;
    let object = Object::Cluster(std::sync::Arc::new(raised));
    let change = Change::Put { object, expect: crate::state::Expect::Any };
    let commands = vec![Command { changes: vec![change], ..Command::default() }];
    let batch = Batch { format: Format::NEWEST, commands: commands.clone().into() };
    let entry = Entry::new(id(2, 1, 301), EntryPayload::Normal(batch));
    let encoded = encode_entry(&entry).unwrap();
    assert_eq!(u32::from(encoded[0]), Format::NEWEST.0);
    assert_eq!(decode_entry(&encoded).unwrap(), entry, "replicated as it was received");
    assert_eq!(u32::from(NEWEST), Format::NEWEST.0);

    let mut state = State::default();
    assert_eq!(encode_snapshot(&SnapshotMeta::default(), &state).unwrap()[0], 1);
    let position = Position { term: 2, index: 301 };
    crate::state::apply(&mut state, &commands[0], position).0.unwrap();
    let snapshot = encode_snapshot(&SnapshotMeta::default(), &state).unwrap();
    assert_eq!(u32::from(snapshot[0]), Format::NEWEST.0);
    assert_eq!(decode_snapshot(&snapshot).unwrap().1.format(), Format::NEWEST);
    let older = open_format(&encoded, 1, "an entry").unwrap_err().to_string();
    assert!(older.contains("a newer release wrote it; upgrade this manager"), "{older}");
}

#[test]
fn damaged_entries_are_refused() {
    for entry in entries() {
        let encoded = encode_entry(&entry).unwrap();
        for length in 0..encoded.len() {
            assert!(decode_entry(&encoded[..length]).is_err(), "cut at {length}");
        }
        let mut longer = encoded.clone();
        longer.push(0);
        assert!(decode_entry(&longer).is_err());
        let mut newer = encoded;
        newer[0] = NEWEST + 1;
        assert_eq!(decode_entry(&newer), Err(CodecError::Format { found: NEWEST + 1 }));
    }
}

#[test]
fn a_snapshot_comes_back_as_it_was() {
    let mut state = State::default();
    for number in 1..50 {
        let at = Timestamp(u64::from(number));
        let command =
            Command { proposed_at: at, request: None, changes: vec![node_change(number)] };
        let position = Position { term: 3, index: u64::from(number) };
        let (outcome, _) = crate::state::apply(&mut state, &command, position);
        outcome.unwrap();
    }
    let meta = SnapshotMeta {
        last_log_id: Some(id(3, 1, 49)),
        last_membership: StoredMembership::new(Some(id(2, 1, 4)), membership()),
    };
    let encoded = encode_snapshot(&meta, &state).unwrap();
    let (decoded_meta, decoded) = decode_snapshot(&encoded).unwrap();
    assert_eq!(decoded_meta, meta);
    assert_eq!(decoded.position, state.position);
    assert_eq!(decoded.clock, state.clock);
    assert!(decoded.objects().eq(state.objects()));
    assert_eq!(encode_snapshot(&meta, &decoded).unwrap(), encoded);
    for bit in (0..encoded.len() * 8).step_by(97) {
        let mut damaged = encoded.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_snapshot(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_message_with_entries_comes_back_as_it_was() {
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(5, 1),
        prev_log_id: Some(id(4, 7, 299)),
        entries: entries(),
        leader_commit: None,
    };
    let decoded = decode_append(&encode_append(&request).unwrap()).unwrap();
    assert_eq!(decoded.vote, request.vote);
    assert_eq!(decoded.prev_log_id, request.prev_log_id);
    assert_eq!(decoded.entries, request.entries);
    assert_eq!(decoded.leader_commit, None);
}
