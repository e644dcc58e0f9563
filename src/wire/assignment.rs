//! Assignments and their differences ⇄ messages: what agents receive and keep in their ledgers.

use std::sync::Arc;

use super::parts::{id, id_to, needed, wrong};
use super::{DecodeError, types};
use crate::domain::assignment::{AssignmentDiff, Item, ItemKey};
use crate::domain::{ConfigId, NetworkId, NodeId, Position, SecretId, ServiceId, TaskId};

impl From<&Item> for types::Item {
    fn from(it: &Item) -> Self {
        use types::item::Kind;
        let kind = match it {
            Item::Task(it) => Kind::Task((&**it).into()),
            Item::SpecVersion(it) => Kind::SpecVersion((&**it).into()),
            Item::Secret(it) => Kind::Secret((&**it).into()),
            Item::Config(it) => Kind::Config((&**it).into()),
            Item::Network(it) => Kind::Network((&**it).into()),
            Item::NetworkNode(it) => Kind::NetworkNode((&**it).into()),
            Item::Peer(it) => Kind::Peer((&**it).into()),
            Item::Endpoints(it) => Kind::Endpoints((&**it).into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<types::Item> for Item {
    type Error = DecodeError;

    fn try_from(it: types::Item) -> Result<Self, DecodeError> {
        use types::item::Kind;
        Ok(match needed("item.kind", it.kind)? {
            Kind::Task(it) => Self::Task(Arc::new(it.try_into()?)),
            Kind::SpecVersion(it) => Self::SpecVersion(Arc::new(it.try_into()?)),
            Kind::Secret(it) => Self::Secret(Arc::new(it.try_into()?)),
            Kind::Config(it) => Self::Config(Arc::new(it.try_into()?)),
            Kind::Network(it) => Self::Network(Arc::new(it.try_into()?)),
            Kind::NetworkNode(it) => Self::NetworkNode(Arc::new(it.try_into()?)),
            Kind::Peer(it) => Self::Peer(Arc::new(it.try_into()?)),
            Kind::Endpoints(it) => Self::Endpoints(Arc::new(it.try_into()?)),
        })
    }
}

impl From<&ItemKey> for types::ItemKey {
    fn from(it: &ItemKey) -> Self {
        let (kind, id, second, number) = match it {
            ItemKey::Task(id) => (1, id.to_bytes(), None, 0),
            ItemKey::SpecVersion(id, number) => (2, id.to_bytes(), None, *number),
            ItemKey::Secret(id) => (3, id.to_bytes(), None, 0),
            ItemKey::Config(id) => (4, id.to_bytes(), None, 0),
            ItemKey::Network(id) => (5, id.to_bytes(), None, 0),
            ItemKey::NetworkNode(network, node) => {
                (6, network.to_bytes(), Some(node.to_bytes()), 0)
            }
            ItemKey::Peer(id) => (7, id.to_bytes(), None, 0),
            ItemKey::Endpoints(network, service) => {
                (8, network.to_bytes(), Some(service.to_bytes()), 0)
            }
        };
        Self { kind, id: id_to(id), second: second.map(id_to).unwrap_or_default(), number }
    }
}

impl TryFrom<types::ItemKey> for ItemKey {
    type Error = DecodeError;

    fn try_from(it: types::ItemKey) -> Result<Self, DecodeError> {
        let network = || id("id", &it.id, NetworkId::from_slice);
        Ok(match it.kind {
            1 => Self::Task(id("id", &it.id, TaskId::from_slice)?),
            2 => Self::SpecVersion(id("id", &it.id, ServiceId::from_slice)?, it.number),
            3 => Self::Secret(id("id", &it.id, SecretId::from_slice)?),
            4 => Self::Config(id("id", &it.id, ConfigId::from_slice)?),
            5 => Self::Network(network()?),
            6 => Self::NetworkNode(network()?, id("second", &it.second, NodeId::from_slice)?),
            7 => Self::Peer(id("id", &it.id, NodeId::from_slice)?),
            8 => Self::Endpoints(network()?, id("second", &it.second, ServiceId::from_slice)?),
            other => return Err(wrong("kind", format!("there is no kind of item {other}"))),
        })
    }
}

impl From<&AssignmentDiff> for types::AssignmentDiff {
    fn from(it: &AssignmentDiff) -> Self {
        Self {
            from: it.from.map(types::Position::from),
            to: Some(it.to.into()),
            put: it.put.iter().map(types::Item::from).collect(),
            remove: it.remove.iter().map(types::ItemKey::from).collect(),
        }
    }
}

impl TryFrom<types::AssignmentDiff> for AssignmentDiff {
    type Error = DecodeError;

    fn try_from(it: types::AssignmentDiff) -> Result<Self, DecodeError> {
        let put = it.put.into_iter().map(Item::try_from);
        let remove = it.remove.into_iter().map(ItemKey::try_from);
        Ok(Self {
            from: it.from.map(Position::from),
            to: needed("to", it.to)?.into(),
            put: put.collect::<Result<_, _>>()?,
            remove: remove.collect::<Result<_, _>>()?,
        })
    }
}
