//! The kernel's side of a plan: dumps what there is and performs one act after the other.
//!
//! Acts on the network namespace of the thread that opened it. It decides nothing, except that an
//! object which is already there (or already gone) is a success.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkBridgePort, LinkUnspec, LinkVxlan};

use super::Error;
use super::plan::{Link, LinkKind, LinkOp, Mac, Observed, Target, VXLAN_PORT};
use crate::env::Scope;

const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EPERM: i32 = 1;

/// A connection to the kernel's routing tables.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    handle: rtnetlink::Handle,
}

impl Kernel {
    /// Opens the connection; a routine of the scope serves it.
    pub(super) fn open(scope: &Scope) -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| Error::Kernel { act: "open".to_owned(), reason: error.to_string() })?;
        scope.spawn("netlink", connection);
        Ok(Self { handle })
    }

    /// What there is.
    pub(super) async fn observe(&self, sysctls: &[String]) -> Result<Observed, Error> {
        let mut observed = Observed::default();
        let mut names = BTreeMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = next("list interfaces", &mut links).await? {
            if let Some((name, link)) = read_link(&message) {
                names.insert(link.index, name.clone());
                observed.links.insert(name, link);
            }
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = next("list addresses", &mut addresses).await? {
            let link = names.get(&message.header.index).and_then(|name| observed.links.get(name));
            let Some(mtu) = link.map(|link| link.mtu) else { continue };
            for attribute in &message.attributes {
                if let AddressAttribute::Local(addr) | AddressAttribute::Address(addr) = attribute {
                    observed.addresses.insert(*addr, mtu);
                }
            }
        }
        self.observe_entries(&names, &mut observed).await?;
        for path in sysctls {
            if let Ok(value) = std::fs::read_to_string(format!("/proc/sys/{path}")) {
                observed.sysctls.insert(path.clone(), value.trim().to_owned());
            }
        }
        Ok(observed)
    }

    async fn observe_entries(
        &self,
        names: &BTreeMap<u32, String>,
        observed: &mut Observed,
    ) -> Result<(), Error> {
        let get = |family| self.handle.neighbours().get().set_address_family(family).execute();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut entries = get(family);
            while let Some(message) = next("list neighbours", &mut entries).await? {
                let Some(name) = names.get(&message.header.ifindex) else { continue };
                let permanent = message.header.state == NeighbourState::Permanent;
                if let (true, Some(addr), Some(mac)) =
                    (permanent && name.starts_with("ov"), address(&message), mac(&message))
                {
                    observed.neighbours.insert((name.clone(), addr), mac);
                }
            }
        }
        let mut entries = get(AddressFamily::Bridge);
        while let Some(message) = next("list forwarding entries", &mut entries).await? {
            let Some(name) = names.get(&message.header.ifindex) else { continue };
            let (true, Some(mac)) = (name.starts_with("vx"), mac(&message)) else { continue };
            let target = match address(&message) {
                Some(addr) => Target::Tunnel(addr),
                // The port's own address is permanent; what we add is static.
                None if message.header.state == NeighbourState::Permanent => continue,
                None => Target::Port,
            };
            observed.fdb.insert((name.clone(), mac, target));
        }
        Ok(())
    }

    /// Performs one act.
    pub(super) async fn perform(&self, op: &LinkOp) -> Result<(), Error> {
        let done = match op {
            LinkOp::SetSysctl { path, value } => {
                return std::fs::write(format!("/proc/sys/{path}"), value).map_err(|error| {
                    let reason = error.to_string();
                    Error::Kernel { act: format!("set sysctl {path} to {value}"), reason }
                });
            }
            LinkOp::DeleteLink { name } => {
                let Some(index) = self.index(name).await? else { return Ok(()) };
                self.handle.link().del(index).execute().await
            }
            LinkOp::AddVxlan { name, vni, local, mtu } => {
                let link = LinkVxlan::new(name, *vni).port(VXLAN_PORT).learning(false).mtu(*mtu);
                let link = match local {
                    IpAddr::V4(addr) => link.local(*addr),
                    IpAddr::V6(addr) => link.local6(*addr),
                };
                self.handle.link().add(link.build()).execute().await
            }
            LinkOp::SetMac { name, .. }
            | LinkOp::SetMtu { name, .. }
            | LinkOp::Enslave { name, .. }
            | LinkOp::QuietPort { name }
            | LinkOp::Up { name } => {
                let index = self.existing(name, op).await?;
                self.change_link(index, op).await?
            }
            LinkOp::DeleteFdb { name, .. }
            | LinkOp::AddFdb { name, .. }
            | LinkOp::DeleteNeighbour { name, .. }
            | LinkOp::AddNeighbour { name, .. } => {
                let index = self.existing(name, op).await?;
                self.change_entry(index, op).await
            }
        };
        done.or_else(|error| tolerate(op, &error))
    }

    async fn change_link(
        &self,
        index: u32,
        op: &LinkOp,
    ) -> Result<Result<(), rtnetlink::Error>, Error> {
        let link = LinkUnspec::new_with_index(index);
        let link = match op {
            LinkOp::SetMac { mac, .. } => link.address(mac.to_vec()),
            LinkOp::SetMtu { mtu, .. } => link.mtu(*mtu),
            LinkOp::Enslave { bridge, .. } => link.controller(self.existing(bridge, op).await?),
            LinkOp::QuietPort { .. } => {
                let port = LinkBridgePort::new(index)
                    .learning(false)
                    .flood(false)
                    .mcast_flood(false)
                    .bcast_flood(false);
                return Ok(self.handle.link().set_port(port.build()).execute().await);
            }
            _ => link.up(),
        };
        Ok(self.handle.link().set(link.build()).execute().await)
    }

    async fn change_entry(&self, index: u32, op: &LinkOp) -> Result<(), rtnetlink::Error> {
        let neighbours = self.handle.neighbours();
        match op {
            LinkOp::AddNeighbour { addr, mac, .. } => {
                let request = neighbours.add(index, *addr).link_layer_address(mac);
                request.state(NeighbourState::Permanent).replace().execute().await
            }
            LinkOp::AddFdb { mac, target: Target::Tunnel(addr), .. } => {
                let request = neighbours.add_bridge(index, mac).destination(*addr);
                request.flags(NeighbourFlags::Own).replace().execute().await
            }
            LinkOp::AddFdb { mac, target: Target::Port, .. } => {
                let request = neighbours.add_bridge(index, mac).flags(NeighbourFlags::Controller);
                request.state(NeighbourState::Noarp).replace().execute().await
            }
            LinkOp::DeleteNeighbour { addr, .. } => {
                let mut message = NeighbourMessage::default();
                message.header.family = family(*addr);
                message.header.ifindex = index;
                message.attributes.push(NeighbourAttribute::Destination(wire(*addr)));
                neighbours.del(message).execute().await
            }
            LinkOp::DeleteFdb { mac, target, .. } => {
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Bridge;
                message.header.ifindex = index;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
                match target {
                    Target::Tunnel(addr) => {
                        message.header.flags = NeighbourFlags::Own;
                        message.attributes.push(NeighbourAttribute::Destination(wire(*addr)));
                    }
                    Target::Port => message.header.flags = NeighbourFlags::Controller,
                }
                neighbours.del(message).execute().await
            }
            _ => Ok(()),
        }
    }

    async fn existing(&self, name: &str, op: &LinkOp) -> Result<u32, Error> {
        self.index(name).await?.ok_or_else(|| Error::Kernel {
            act: describe(op),
            reason: format!("there is no interface {name}"),
        })
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        match self.handle.link().get().match_name(name).execute().try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if code(&error) == ENODEV => Ok(None),
            Err(error) => Err(failed(format!("look up interface {name}"), &error)),
        }
    }
}

async fn next<T>(
    act: &str,
    stream: &mut (impl futures::Stream<Item = Result<T, rtnetlink::Error>> + Unpin),
) -> Result<Option<T>, Error> {
    stream.next().await.transpose().map_err(|error| failed(act.to_owned(), &error))
}

fn read_link(message: &LinkMessage) -> Option<(String, Link)> {
    let mut name = None;
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => read_info(infos, &mut link),
            _ => {}
        }
    }
    name.map(|name| (name, link))
}

fn read_info(infos: &[LinkInfo], link: &mut Link) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
            LinkInfo::Data(InfoData::Vxlan(data)) => link.kind = read_vxlan(data),
            LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                let off = |info: &&InfoBridgePort| {
                    matches!(
                        info,
                        InfoBridgePort::Learning(false)
                            | InfoBridgePort::UnicastFlood(false)
                            | InfoBridgePort::MulticastFlood(false)
                            | InfoBridgePort::BroadcastFlood(false)
                    )
                };
                link.quiet_port = data.iter().filter(off).count() == 4;
            }
            _ => {}
        }
    }
}

fn read_vxlan(data: &[InfoVxlan]) -> LinkKind {
    let (mut id, mut source, mut udp_port, mut learns) = (0, None, 0, false);
    for info in data {
        match info {
            InfoVxlan::Id(value) => id = *value,
            InfoVxlan::Local(addr) => source = Some(IpAddr::V4(*addr)),
            InfoVxlan::Local6(addr) => source = Some(IpAddr::V6(*addr)),
            InfoVxlan::Port(value) => udp_port = *value,
            InfoVxlan::Learning(value) => learns = *value,
            _ => {}
        }
    }
    LinkKind::Vxlan { vni: id, local: source, port: udp_port, learning: learns }
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        // In the forwarding database the family of the address is told by its length alone.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let four = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    })
}

const fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

const fn wire(addr: IpAddr) -> NeighbourAddress {
    match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    }
}

/// The error number of the kernel; 0 when it is not the kernel's.
fn code(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}

/// What is already gone need not be removed.
fn tolerate(op: &LinkOp, error: &rtnetlink::Error) -> Result<(), Error> {
    let removal = matches!(
        op,
        LinkOp::DeleteLink { .. } | LinkOp::DeleteFdb { .. } | LinkOp::DeleteNeighbour { .. }
    );
    if removal && [ENOENT, ESRCH, ENODEV].contains(&code(error)) {
        return Ok(());
    }
    if let (LinkOp::AddVxlan { vni, .. }, EEXIST) = (op, code(error)) {
        return Err(Error::VniInUse { vni: *vni });
    }
    Err(failed(describe(op), error))
}

fn failed(act: String, error: &rtnetlink::Error) -> Error {
    match error {
        _ if code(error) == EPERM => Error::NotPermitted,
        rtnetlink::Error::NetlinkError(message) => {
            Error::Kernel { act, reason: message.to_io().to_string() }
        }
        other => Error::Kernel { act, reason: other.to_string() },
    }
}

/// An act in words, for messages.
fn describe(op: &LinkOp) -> String {
    match op {
        LinkOp::DeleteLink { name } => format!("remove interface {name}"),
        LinkOp::SetMac { name, .. } => format!("set the hardware address of {name}"),
        LinkOp::SetMtu { name, mtu } => format!("set the MTU of {name} to {mtu}"),
        LinkOp::AddVxlan { name, vni, local, .. } => {
            format!("make VXLAN {name} with VNI {vni} from {local}")
        }
        LinkOp::Enslave { name, bridge } => format!("make {name} a port of {bridge}"),
        LinkOp::QuietPort { name } => format!("switch flooding of {name} off"),
        LinkOp::Up { name } => format!("bring {name} up"),
        LinkOp::DeleteFdb { name, .. } => format!("remove a forwarding entry of {name}"),
        LinkOp::AddFdb { name, .. } => format!("add a forwarding entry to {name}"),
        LinkOp::DeleteNeighbour { name, addr } => format!("remove neighbour {addr} of {name}"),
        LinkOp::AddNeighbour { name, addr, .. } => format!("add neighbour {addr} to {name}"),
        LinkOp::SetSysctl { path, value } => format!("set sysctl {path} to {value}"),
    }
}
