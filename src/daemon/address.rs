//! Addresses as users write them: empty, an address, an interface, with or without a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::settings::NODE_PORT;

/// An address that cannot be used. The text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct AddressError(String);

/// An address of this host and the interface that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostAddress {
    /// The interface.
    pub interface: String,
    /// The address.
    pub addr: IpAddr,
}

/// The addresses of this host's interfaces that are up; loopback and link-local ones left out.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn host_addresses() -> Result<Vec<HostAddress>, AddressError> {
    let all = getifaddrs().map_err(|error| {
        AddressError(format!("cannot read the addresses of this host: {error}"))
    })?;
    let usable = all.filter_map(|interface| {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        let addr = v4.or_else(|| storage.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))?;
        let local = match addr {
            IpAddr::V4(addr) => addr.is_loopback() || addr.is_link_local(),
            IpAddr::V6(addr) => addr.is_loopback() || addr.is_unicast_link_local(),
        };
        (up && !local).then_some(HostAddress { interface: interface.interface_name, addr })
    });
    Ok(usable.collect())
}

/// Interfaces that container engines make: never advertised by themselves.
fn is_engine_made(interface: &str) -> bool {
    ["docker", "br-", "veth", "ov", "vx"].iter().any(|prefix| interface.starts_with(prefix))
}

/// The address the other nodes are told, from what the user wrote or, if that is empty, from the
/// host's only address.
///
/// # Errors
/// When it is no address or interface of this host, or cannot be chosen.
pub(super) fn advertise(text: &str, host: &[HostAddress]) -> Result<SocketAddr, AddressError> {
    if text.is_empty() {
        return choose(host);
    }
    let (place, port) = split(text)?;
    if let Ok(addr) = place.parse::<IpAddr>() {
        if addr.is_unspecified() {
            return Err(AddressError(format!(
                "advertise address {addr} is not one that other nodes can reach; give an address of this host, such as --advertise-addr 192.0.2.1"
            )));
        }
        if !addr.is_loopback() && host.iter().all(|mine| mine.addr != addr) {
            return Err(AddressError(format!(
                "advertise address {addr} is not an address of this host ({}); tunnels between tasks begin and end there, so give one that an interface holds",
                listed(host)
            )));
        }
        return Ok(SocketAddr::new(addr, port));
    }
    of_interface(place, host).map(|addr| SocketAddr::new(addr, port))
}

/// The address to listen on; all addresses and port 2377 if the user wrote nothing.
///
/// # Errors
/// When it is no address or interface.
pub(super) fn listen(text: &str, host: &[HostAddress]) -> Result<SocketAddr, AddressError> {
    if text.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), NODE_PORT));
    }
    let (place, port) = split(text)?;
    match place.parse::<IpAddr>() {
        Ok(addr) => Ok(SocketAddr::new(addr, port)),
        Err(_) => of_interface(place, host).map(|addr| SocketAddr::new(addr, port)),
    }
}

/// The address of this host from which another is reached.
///
/// # Errors
/// When there is no route to it.
pub(super) async fn toward(remote: SocketAddr) -> Result<IpAddr, AddressError> {
    // A datagram socket that is connected sends nothing; the kernel only chooses the address.
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let chosen = async {
        let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
        socket.connect(remote).await?;
        socket.local_addr()
    };
    chosen.await.map(|addr| addr.ip()).map_err(|error| {
        AddressError(format!(
            "there is no way from this host to {remote} ({error}); check the address, or give this host's own with --advertise-addr"
        ))
    })
}

fn split(text: &str) -> Result<(&str, u16), AddressError> {
    let invalid = |why: &str| AddressError(format!("invalid address {text:?}: {why}"));
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, NODE_PORT));
    }
    let Some((place, port)) = text.rsplit_once(':') else { return Ok((text, NODE_PORT)) };
    let port = port.parse().map_err(|_| invalid("the port is a number from 1 to 65535"))?;
    if port == 0 {
        return Err(invalid("the port is a number from 1 to 65535"));
    }
    Ok((place.trim_start_matches('[').trim_end_matches(']'), port))
}

fn of_interface(name: &str, host: &[HostAddress]) -> Result<IpAddr, AddressError> {
    let mine: Vec<_> = host.iter().filter(|address| address.interface == name).collect();
    let first = mine.iter().find(|address| address.addr.is_ipv4()).or_else(|| mine.first());
    first.map(|address| address.addr).ok_or_else(|| {
        AddressError(format!(
            "{name:?} is neither an address nor an interface of this host that has one; `ip address` lists them"
        ))
    })
}

/// Docker's rule: the only address, or the user must say.
fn choose(host: &[HostAddress]) -> Result<SocketAddr, AddressError> {
    let candidates: Vec<_> = host
        .iter()
        .filter(|address| address.addr.is_ipv4() && !is_engine_made(&address.interface))
        .collect();
    match candidates.as_slice() {
        [only] => Ok(SocketAddr::new(only.addr, NODE_PORT)),
        [] => Err(AddressError(
            "could not find an address of this host to advertise; specify one with --advertise-addr"
                .to_owned(),
        )),
        several => Err(AddressError(format!(
            "could not choose an IP address to advertise since this system has multiple addresses ({}) - specify one with --advertise-addr",
            listed(several.iter().copied())
        ))),
    }
}

/// Addresses for a message.
fn listed<'a>(addresses: impl IntoIterator<Item = &'a HostAddress>) -> String {
    let each: Vec<_> = addresses
        .into_iter()
        .map(|address| format!("{} on {}", address.addr, address.interface))
        .collect();
    each.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(addresses: &[(&str, &str)]) -> Vec<HostAddress> {
        let address = |(interface, addr): &(&str, &str)| HostAddress {
            interface: (*interface).to_owned(),
            addr: addr.parse().unwrap(),
        };
        addresses.iter().map(address).collect()
    }

    #[test]
    fn the_only_address_is_chosen_and_engine_bridges_do_not_count() {
        let one = host(&[("eth0", "10.0.0.5"), ("docker0", "172.17.0.1"), ("eth0", "fd00::1")]);
        assert_eq!(advertise("", &one).unwrap().to_string(), "10.0.0.5:2377");
        let two = host(&[("eth0", "10.0.0.5"), ("eth1", "10.1.0.5")]);
        let error = advertise("", &two).unwrap_err().to_string();
        assert!(error.contains("10.0.0.5 on eth0 and 10.1.0.5 on eth1"), "{error}");
        assert!(error.contains("--advertise-addr"), "{error}");
    }

    #[test]
    fn addresses_interfaces_and_ports_are_understood() {
        let host = host(&[("eth0", "10.0.0.5"), ("eth0", "fd00::1"), ("eth1", "10.9.9.9")]);
        for (text, expected) in [
            ("10.9.9.9", "10.9.9.9:2377"),
            ("10.9.9.9:2400", "10.9.9.9:2400"),
            ("127.0.0.1", "127.0.0.1:2377"),
            ("eth0", "10.0.0.5:2377"),
            ("eth0:2400", "10.0.0.5:2400"),
            ("[fd00::1]:2400", "[fd00::1]:2400"),
            ("fd00::1", "[fd00::1]:2377"),
        ] {
            assert_eq!(advertise(text, &host).unwrap().to_string(), expected, "{text}");
        }
        for text in ["eth7", "10.0.0.1:0", "10.0.0.1:x", "0.0.0.0"] {
            assert!(advertise(text, &host).is_err(), "{text}");
        }
        let error = advertise("10.0.0.6", &host).unwrap_err().to_string();
        assert!(error.contains("10.0.0.5 on eth0 and fd00::1 on eth0 and 10.9.9.9"), "{error}");
        assert_eq!(listen("", &host).unwrap().to_string(), "0.0.0.0:2377");
        assert_eq!(listen("0.0.0.0:2378", &host).unwrap().to_string(), "0.0.0.0:2378");
    }
}
