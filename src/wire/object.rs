//! Objects, changes and rejections ⇄ messages: what the log, snapshots and proposals are made of.

use std::sync::Arc;

use prost::Message as _;

use super::parts::{id, id_to, ip, ip_to, json, json_to, needed, socket, wrong};
use super::{DecodeError, types};
use crate::domain::{ConfigId, NetworkId, NodeId, Revision, SecretId, ServiceId, TaskId};
use crate::state::{Change, Expect, Object, ObjectKey, Rejection};

/// The bytes of a change, as they lie in the log.
#[must_use]
pub fn encode_change(change: &Change) -> Vec<u8> {
    types::Change::from(change).encode_to_vec()
}

/// A change from its bytes.
///
/// # Errors
/// When the bytes are no change that this release knows.
pub fn decode_change(bytes: &[u8]) -> Result<Change, DecodeError> {
    let message = types::Change::decode(bytes);
    message.map_err(|error| wrong("change", error.to_string()))?.try_into()
}

/// The bytes of an object, as they lie in a snapshot.
#[must_use]
pub fn encode_object(object: &Object) -> Vec<u8> {
    types::Object::from(object).encode_to_vec()
}

/// An object from its bytes.
///
/// # Errors
/// When the bytes are no object that this release knows.
pub fn decode_object(bytes: &[u8]) -> Result<Object, DecodeError> {
    let message = types::Object::decode(bytes);
    message.map_err(|error| wrong("object", error.to_string()))?.try_into()
}

impl From<&Object> for types::Object {
    fn from(it: &Object) -> Self {
        use types::object::Kind;
        let kind = match it {
            Object::Cluster(it) => Kind::Cluster((&**it).into()),
            Object::Node(it) => Kind::Node((&**it).into()),
            Object::Service(it) => Kind::Service((&**it).into()),
            Object::SpecVersion(it) => Kind::SpecVersion((&**it).into()),
            Object::Task(it) => Kind::Task((&**it).into()),
            Object::Network(it) => Kind::Network((&**it).into()),
            Object::NetworkNode(it) => Kind::NetworkNode((&**it).into()),
            Object::Secret(it) => Kind::Secret((&**it).into()),
            Object::Config(it) => Kind::Config((&**it).into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<types::Object> for Object {
    type Error = DecodeError;

    fn try_from(it: types::Object) -> Result<Self, DecodeError> {
        use types::object::Kind;
        Ok(match needed("object.kind", it.kind)? {
            Kind::Cluster(it) => Self::Cluster(Arc::new(it.try_into()?)),
            Kind::Node(it) => Self::Node(Arc::new(it.try_into()?)),
            Kind::Service(it) => Self::Service(Arc::new(it.try_into()?)),
            Kind::SpecVersion(it) => Self::SpecVersion(Arc::new(it.try_into()?)),
            Kind::Task(it) => Self::Task(Arc::new(it.try_into()?)),
            Kind::Network(it) => Self::Network(Arc::new(it.try_into()?)),
            Kind::NetworkNode(it) => Self::NetworkNode(Arc::new(it.try_into()?)),
            Kind::Secret(it) => Self::Secret(Arc::new(it.try_into()?)),
            Kind::Config(it) => Self::Config(Arc::new(it.try_into()?)),
        })
    }
}

impl From<&ObjectKey> for types::ObjectKey {
    fn from(it: &ObjectKey) -> Self {
        let (kind, id, second, number) = match it {
            ObjectKey::Cluster => (1, None, None, 0),
            ObjectKey::Node(id) => (2, Some(id.to_bytes()), None, 0),
            ObjectKey::Service(id) => (3, Some(id.to_bytes()), None, 0),
            ObjectKey::SpecVersion(id, number) => (4, Some(id.to_bytes()), None, *number),
            ObjectKey::Task(id) => (5, Some(id.to_bytes()), None, 0),
            ObjectKey::Network(id) => (6, Some(id.to_bytes()), None, 0),
            ObjectKey::NetworkNode(network, node) => {
                (7, Some(network.to_bytes()), Some(node.to_bytes()), 0)
            }
            ObjectKey::Secret(id) => (8, Some(id.to_bytes()), None, 0),
            ObjectKey::Config(id) => (9, Some(id.to_bytes()), None, 0),
        };
        let bytes = |id: Option<[u8; 16]>| id.map(id_to).unwrap_or_default();
        Self { kind, id: bytes(id), second: bytes(second), number }
    }
}

impl TryFrom<types::ObjectKey> for ObjectKey {
    type Error = DecodeError;

    fn try_from(it: types::ObjectKey) -> Result<Self, DecodeError> {
        Ok(match it.kind {
            1 => Self::Cluster,
            2 => Self::Node(id("id", &it.id, NodeId::from_slice)?),
            3 => Self::Service(id("id", &it.id, ServiceId::from_slice)?),
            4 => Self::SpecVersion(id("id", &it.id, ServiceId::from_slice)?, it.number),
            5 => Self::Task(id("id", &it.id, TaskId::from_slice)?),
            6 => Self::Network(id("id", &it.id, NetworkId::from_slice)?),
            7 => {
                let node = id("second", &it.second, NodeId::from_slice)?;
                Self::NetworkNode(id("id", &it.id, NetworkId::from_slice)?, node)
            }
            8 => Self::Secret(id("id", &it.id, SecretId::from_slice)?),
            9 => Self::Config(id("id", &it.id, ConfigId::from_slice)?),
            other => return Err(wrong("kind", format!("there is no kind of object {other}"))),
        })
    }
}

impl From<Expect> for types::Expect {
    fn from(it: Expect) -> Self {
        let (kind, revision) = match it {
            Expect::Any => (0, 0),
            Expect::Absent => (1, 0),
            Expect::Present => (2, 0),
            Expect::SpecAt(revision) => (3, revision.0),
            Expect::At(revision) => (4, revision.0),
        };
        Self { kind, revision }
    }
}

impl TryFrom<types::Expect> for Expect {
    type Error = DecodeError;

    fn try_from(it: types::Expect) -> Result<Self, DecodeError> {
        Ok(match it.kind {
            0 => Self::Any,
            1 => Self::Absent,
            2 => Self::Present,
            3 => Self::SpecAt(Revision(it.revision)),
            4 => Self::At(Revision(it.revision)),
            other => return Err(wrong("expect", format!("there is no precondition {other}"))),
        })
    }
}

impl From<&Change> for types::Change {
    fn from(it: &Change) -> Self {
        use types::change::Kind;
        let kind = match it {
            Change::Put { object, expect } => Kind::Put(types::Put {
                object: Some(object.into()),
                expect: Some((*expect).into()),
            }),
            Change::Delete { key, expect } => Kind::Delete(types::Delete {
                key: Some(key.into()),
                expect: Some((*expect).into()),
            }),
            Change::ReportTask { task, node, status } => Kind::ReportTask(types::ReportTask {
                task: id_to(task.to_bytes()),
                node: id_to(node.to_bytes()),
                status: Some(status.into()),
            }),
            Change::ReportNode { node, description, addr } => Kind::ReportNode(types::ReportNode {
                node: id_to(node.to_bytes()),
                description_json: json_to(description),
                addr: ip_to(*addr),
            }),
            Change::ReportTrust { node, trust } => Kind::ReportTrust(types::ReportTrust {
                node: id_to(node.to_bytes()),
                trust: *trust,
            }),
            Change::JoinManager { node, addr } => Kind::JoinManager(types::JoinManager {
                node: id_to(node.to_bytes()),
                addr: addr.to_string(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<types::Change> for Change {
    type Error = DecodeError;

    fn try_from(it: types::Change) -> Result<Self, DecodeError> {
        use types::change::Kind;
        Ok(match needed("change.kind", it.kind)? {
            Kind::Put(it) => Self::Put {
                object: needed("object", it.object)?.try_into()?,
                expect: it.expect.unwrap_or_default().try_into()?,
            },
            Kind::Delete(it) => Self::Delete {
                key: needed("key", it.key)?.try_into()?,
                expect: it.expect.unwrap_or_default().try_into()?,
            },
            Kind::ReportTask(it) => Self::ReportTask {
                task: id("task", &it.task, TaskId::from_slice)?,
                node: id("node", &it.node, NodeId::from_slice)?,
                status: needed("status", it.status)?.try_into()?,
            },
            Kind::ReportNode(it) => Self::ReportNode {
                node: id("node", &it.node, NodeId::from_slice)?,
                description: json("description_json", &it.description_json)?,
                addr: ip("addr", &it.addr)?,
            },
            Kind::ReportTrust(it) => Self::ReportTrust {
                node: id("node", &it.node, NodeId::from_slice)?,
                trust: it.trust,
            },
            Kind::JoinManager(it) => Self::JoinManager {
                node: id("node", &it.node, NodeId::from_slice)?,
                addr: socket("addr", &it.addr)?,
            },
        })
    }
}

/// The names of kinds of objects that rejections may speak of.
const KINDS: [&str; 9] = [
    "cluster",
    "node",
    "service",
    "spec version",
    "task",
    "network",
    "network node",
    "secret",
    "config",
];

fn kind_named(name: &str) -> &'static str {
    KINDS.into_iter().find(|known| *known == name).unwrap_or("object")
}

impl From<&Rejection> for types::Rejection {
    fn from(it: &Rejection) -> Self {
        let about = |number: u32, kind: &str, name: &str| Self {
            kind: number,
            object: kind.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        };
        match it {
            Rejection::NameInUse { kind, name } => about(1, kind, name),
            Rejection::Stale { expected, actual } => {
                Self { expected: expected.0, actual: actual.0, ..about(2, "", "") }
            }
            Rejection::NotFound { kind, id } => about(3, kind, id),
            Rejection::Exists { kind, id } => about(4, kind, id),
            Rejection::Referenced { kind, name, by } => {
                Self { by: by.clone(), ..about(5, kind, name) }
            }
            Rejection::TooManyManagers { max } => {
                Self { expected: u64::try_from(*max).unwrap_or(u64::MAX), ..about(6, "", "") }
            }
            Rejection::Broken { rule } => about(7, "", rule),
        }
    }
}

impl From<types::Rejection> for Rejection {
    /// A refusal of a kind that this release does not know still is a refusal.
    fn from(it: types::Rejection) -> Self {
        let kind = kind_named(&it.object);
        match it.kind {
            1 => Self::NameInUse { kind, name: it.name },
            2 => Self::Stale { expected: Revision(it.expected), actual: Revision(it.actual) },
            3 => Self::NotFound { kind, id: it.name },
            4 => Self::Exists { kind, id: it.name },
            5 => Self::Referenced { kind, name: it.name, by: it.by },
            6 => Self::TooManyManagers { max: usize::try_from(it.expected).unwrap_or(usize::MAX) },
            7 => Self::Broken { rule: it.name },
            other => Self::Broken { rule: format!("refused for reason {other}: {}", it.name) },
        }
    }
}

#[cfg(test)]
mod tests;
