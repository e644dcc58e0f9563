//! Between the agent's values and the bytes of its ledger and messages: thin, over `wire`.

use std::net::SocketAddr;

use prost::Message as _;

use crate::domain::assignment::AssignmentDiff;
use crate::domain::{NodeId, Position, TaskId, TaskStatus};
use crate::wire::node::{ManagerAddr, Managers, TaskReport};
use crate::wire::types;

/// A difference as bytes.
pub(super) fn encode_diff(diff: &AssignmentDiff) -> Vec<u8> {
    types::AssignmentDiff::from(diff).encode_to_vec()
}

/// A difference from bytes; `None` for what is none.
pub(super) fn decode_diff(bytes: &[u8]) -> Option<AssignmentDiff> {
    AssignmentDiff::try_from(types::AssignmentDiff::decode(bytes).ok()?).ok()
}

/// A task's status as a message.
pub(super) fn report(task: TaskId, status: &TaskStatus) -> TaskReport {
    TaskReport { task: task.to_bytes().to_vec().into(), status: Some(status.into()) }
}

/// A task's status as bytes.
pub(super) fn encode_status(task: TaskId, status: &TaskStatus) -> Vec<u8> {
    report(task, status).encode_to_vec()
}

/// A task's status from bytes.
pub(super) fn decode_status(bytes: &[u8]) -> Option<(TaskId, TaskStatus)> {
    let report = TaskReport::decode(bytes).ok()?;
    let status = TaskStatus::try_from(report.status?).ok()?;
    Some((TaskId::from_slice(&report.task)?, status))
}

/// Managers as bytes.
pub(super) fn encode_managers(managers: &[(NodeId, SocketAddr)]) -> Vec<u8> {
    let managers = managers
        .iter()
        .map(|(node, addr)| ManagerAddr {
            node: node.to_bytes().to_vec().into(),
            addr: addr.to_string(),
        })
        .collect();
    Managers { managers }.encode_to_vec()
}

/// Managers from bytes.
pub(super) fn decode_managers(bytes: &[u8]) -> Option<Vec<(NodeId, SocketAddr)>> {
    Some(managers(&Managers::decode(bytes).ok()?))
}

/// The managers that a message names; what cannot be understood is left out.
pub(super) fn managers(message: &Managers) -> Vec<(NodeId, SocketAddr)> {
    message
        .managers
        .iter()
        .filter_map(|manager| {
            Some((NodeId::from_slice(&manager.node)?, manager.addr.parse().ok()?))
        })
        .collect()
}

/// A position as a message.
pub(super) const fn position(position: Position) -> types::Position {
    types::Position { term: position.term, index: position.index }
}
