//! Tasks, their statuses and ports ⇄ messages.

use super::parts::{Numbered, id, id_opt, id_to, ip, ip_to, meta, narrow, numbered, wrong};
use super::{DecodeError, types};
use crate::domain::service::{PortConfig, Protocol, PublishMode};
use crate::domain::task::{ContainerStatus, Slot, TaskAddress};
use crate::domain::{NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp};

numbered!(Protocol { Tcp = 0, Udp = 1, Sctp = 2 });
numbered!(PublishMode { Ingress = 0, Host = 1 });

/// The two fields of a slot.
pub(super) fn slot_to(slot: Slot) -> (u32, bytes::Bytes) {
    match slot {
        Slot::Number(number) => (number, bytes::Bytes::new()),
        Slot::Node(node) => (0, id_to(node.to_bytes())),
    }
}

pub(super) fn slot(number: u32, node: &[u8]) -> Result<Slot, DecodeError> {
    Ok(id_opt("slot_node", node, NodeId::from_slice)?.map_or(Slot::Number(number), Slot::Node))
}

fn state(field: &'static str, number: u32) -> Result<TaskState, DecodeError> {
    TaskState::from_number(number)
        .ok_or_else(|| wrong(field, format!("there is no task state {number}")))
}

impl From<&PortConfig> for types::Port {
    fn from(it: &PortConfig) -> Self {
        Self {
            name: it.name.clone(),
            protocol: it.protocol.number(),
            target: u32::from(it.target_port),
            published: u32::from(it.published_port),
            mode: it.publish_mode.number(),
        }
    }
}

impl TryFrom<types::Port> for PortConfig {
    type Error = DecodeError;

    fn try_from(it: types::Port) -> Result<Self, DecodeError> {
        Ok(Self {
            name: it.name,
            protocol: Protocol::numbered("protocol", it.protocol)?,
            target_port: narrow("target", it.target)?,
            published_port: narrow("published", it.published)?,
            publish_mode: PublishMode::numbered("mode", it.mode)?,
        })
    }
}

pub(super) fn ports(list: Vec<types::Port>) -> Result<Vec<PortConfig>, DecodeError> {
    list.into_iter().map(PortConfig::try_from).collect()
}

impl From<&ContainerStatus> for types::Container {
    fn from(it: &ContainerStatus) -> Self {
        Self {
            id: it.id.clone(),
            pid: it.pid,
            exited: it.exit_code.is_some(),
            exit_code: it.exit_code.unwrap_or_default(),
            oom_killed: it.oom_killed,
        }
    }
}

impl From<types::Container> for ContainerStatus {
    fn from(it: types::Container) -> Self {
        Self {
            id: it.id,
            pid: it.pid,
            exit_code: it.exited.then_some(it.exit_code),
            oom_killed: it.oom_killed,
        }
    }
}

impl From<&TaskStatus> for types::TaskStatus {
    fn from(it: &TaskStatus) -> Self {
        Self {
            state: it.state.number(),
            at: it.at.0,
            message: it.message.clone(),
            error: it.error.clone(),
            container: it.container.as_ref().map(types::Container::from),
            ports: it.ports.iter().map(types::Port::from).collect(),
        }
    }
}

impl TryFrom<types::TaskStatus> for TaskStatus {
    type Error = DecodeError;

    fn try_from(it: types::TaskStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            state: state("state", it.state)?,
            at: Timestamp(it.at),
            message: it.message,
            error: it.error,
            container: it.container.map(ContainerStatus::from),
            ports: ports(it.ports)?,
        })
    }
}

impl From<&TaskAddress> for types::TaskAddress {
    fn from(it: &TaskAddress) -> Self {
        Self { network: id_to(it.network.to_bytes()), addr: ip_to(it.addr) }
    }
}

impl TryFrom<types::TaskAddress> for TaskAddress {
    type Error = DecodeError;

    fn try_from(it: types::TaskAddress) -> Result<Self, DecodeError> {
        let network = id("network", &it.network, NetworkId::from_slice)?;
        Ok(Self { network, addr: ip("addr", &it.addr)? })
    }
}

impl From<&Task> for types::Task {
    fn from(it: &Task) -> Self {
        let (slot, slot_node) = slot_to(it.slot);
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            service: id_to(it.service.to_bytes()),
            spec: it.spec,
            slot,
            slot_node,
            node: it.node.map(|node| id_to(node.to_bytes())).unwrap_or_default(),
            addresses: it.addresses.iter().map(types::TaskAddress::from).collect(),
            desired: it.desired.number(),
            not_before: it.not_before.0,
            status: Some(types::TaskStatus::from(&it.status)),
        }
    }
}

impl TryFrom<types::Task> for Task {
    type Error = DecodeError;

    fn try_from(it: types::Task) -> Result<Self, DecodeError> {
        let addresses = it.addresses.into_iter().map(TaskAddress::try_from);
        Ok(Self {
            id: id("id", &it.id, TaskId::from_slice)?,
            meta: meta(it.meta),
            service: id("service", &it.service, ServiceId::from_slice)?,
            spec: it.spec,
            slot: slot(it.slot, &it.slot_node)?,
            node: id_opt("node", &it.node, NodeId::from_slice)?,
            addresses: addresses.collect::<Result<_, _>>()?,
            desired: state("desired", it.desired)?,
            not_before: Timestamp(it.not_before),
            status: it.status.unwrap_or_default().try_into()?,
        })
    }
}
