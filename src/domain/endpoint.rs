//! What a service's name stands for on a network.

use std::net::IpAddr;

use super::service::{EndpointMode, PortConfig};
use super::task::Slot;
use super::{NetworkId, NodeId, ServiceId, TaskId};

/// The tasks of a service on one network, shared by all who need them and compared by pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSet {
    /// The network.
    pub network: NetworkId,
    /// The service.
    pub service: ServiceId,
    /// The service's name.
    pub name: String,
    /// Further names of the service in this network.
    pub aliases: Vec<String>,
    /// What the name resolves to.
    pub mode: EndpointMode,
    /// Ports that the service publishes, for SRV records.
    pub ports: Vec<PortConfig>,
    /// Tasks, in the order of their slots.
    pub endpoints: Vec<Endpoint>,
}

/// A task that has an address on a network. Tasks that do not serve yet or any more are here too:
/// the overlay must reach them from the moment they have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The task.
    pub task: TaskId,
    /// Its slot.
    pub slot: Slot,
    /// Its node.
    pub node: NodeId,
    /// Its address.
    pub addr: IpAddr,
    /// Running, healthy, wanted to run, on a node that is reachable: names resolve to it.
    pub serving: bool,
}

impl EndpointSet {
    /// The addresses that the service's name resolves to, in the order of the slots.
    pub fn serving(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.endpoints.iter().filter(|it| it.serving).map(|it| it.addr)
    }
}
