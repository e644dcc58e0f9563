//! Hosts, containers and strangers as network namespaces, and what can be tried from inside them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use swarm::domain::assignment::{Item, Peer};
use swarm::domain::endpoint::{Endpoint, EndpointSet};
use swarm::domain::network::Subnet;
use swarm::domain::service::{EndpointMode, SpecVersion};
use swarm::domain::task::{Slot, Task, TaskState, TaskStatus};
use swarm::domain::{
    AssignmentSet, Labels, Meta, Network, NetworkId, NetworkNode, NodeId, ServiceId, TaskId,
    Timestamp,
};
use swarm::env::{Env, Scope};
use swarm::overlay::{self, Handle, Report, Settings};

pub(super) const DNS_PORT: u16 = 10053;
/// Networks by VNI; the second byte of their addresses is 200 and 201.
pub(super) const VNIS: [u32; 2] = [4097, 4098];

pub(super) fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

/// The address of the task `number` on a node in a network.
pub(super) fn addr(net: u8, host: u8, number: u8) -> Ipv4Addr {
    [10, 200 + net, host, number].into()
}

/// What each node is told: two networks on all nodes, one service per network, with a task `.1` and
/// `.2` per node, of which the second does not serve.
pub(super) fn assignments(hosts: u8) -> AssignmentSet {
    let mut set = AssignmentSet::default();
    for (net, vni) in (0u8..).zip(VNIS) {
        let id = NetworkId::from_bytes([100 + net; 16]);
        set.insert(Item::Network(Arc::new(Network {
            id,
            meta: Meta::default(),
            name: format!("net{net}"),
            labels: Labels::default(),
            vni,
            subnet: Subnet { base: [10, 200 + net, 0, 0].into(), prefix: 16 },
            cursor: 0,
        })));
        let mut endpoints = Vec::new();
        for host in 1..=hosts {
            let (node, hostname) = (node(host), format!("h{host}"));
            let (gateway, meta) = ([10, 200 + net, 255, host].into(), Meta::default());
            set.insert(Item::NetworkNode(Arc::new(NetworkNode {
                network: id,
                node,
                meta,
                gateway,
            })));
            let addr = IpAddr::V4([10, 99, 0, host].into());
            set.insert(Item::Peer(Arc::new(Peer { node, hostname, addr })));
            for number in [1, 2] {
                endpoints.push(Endpoint {
                    task: TaskId::from_bytes([net * 64 + host * 8 + number; 16]),
                    slot: Slot::Number(u32::from(host * 10 + number)),
                    node,
                    addr: self::addr(net, host, number).into(),
                    serving: number == 1,
                });
            }
        }
        set.insert(Item::Endpoints(Arc::new(EndpointSet {
            network: id,
            service: ServiceId::from_bytes([net; 16]),
            name: format!("web{net}"),
            aliases: Vec::new(),
            mode: EndpointMode::Vip,
            ports: Vec::new(),
            endpoints,
        })));
    }
    set
}

/// Adds a task of this host that publishes a port on it.
pub(super) fn publish(set: &mut AssignmentSet, port: u16) {
    let service = ServiceId::from_bytes([9; 16]);
    let spec = serde_json::json!({ "EndpointSpec": { "Ports": [
        { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": port, "PublishMode": "host" },
    ]}});
    let spec = Arc::new(serde_json::from_value(spec).unwrap());
    set.insert(Item::SpecVersion(Arc::new(SpecVersion { service, number: 1, spec })));
    set.insert(Item::Task(Arc::new(Task {
        id: TaskId::from_bytes([9; 16]),
        meta: Meta::default(),
        service,
        spec: 1,
        slot: Slot::Number(1),
        node: Some(node(1)),
        addresses: Vec::new(),
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus::default(),
    })));
}

#[expect(clippy::print_stdout, reason = "a test that proves nothing says so")]
pub(super) fn skipped() {
    println!("skipped: needs root and nft");
}

pub(super) fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Hosts on one underlay, each with two bridges, and containers on them.
pub(super) struct Lab {
    pub(super) prefix: String,
    spaces: Vec<String>,
}

impl Lab {
    /// `None`, with a word about it, where the test cannot run.
    pub(super) fn new(hosts: u8) -> Option<Self> {
        let has_nft = Command::new("nft").arg("--version").output().is_ok();
        if !nix::unistd::geteuid().is_root() || !has_nft {
            skipped();
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("swt{}n{number}", std::process::id());
        let mut lab = Self { prefix, spaces: Vec::new() };
        let underlay = lab.space("ul");
        run(&format!(
            "ip -n {underlay} link add sw0 type bridge; ip -n {underlay} link set sw0 up"
        ));
        lab.machine("out", 250);
        for host in 1..=hosts {
            let name = lab.machine(&format!("h{host}"), host);
            run(&format!("ip netns exec {name} iptables -P FORWARD DROP"));
            for (net, vni) in (0u8..).zip(VNIS) {
                run(&format!(
                    "ip -n {name} link add ov{vni} type bridge && ip -n {name} link set ov{vni} up \
                     && ip -n {name} addr add 10.{}.255.{host}/16 dev ov{vni}",
                    200 + net
                ));
                lab.container(net, host, 1);
            }
        }
        // One host has the engine's chain for the user's rules.
        let first = lab.host(1);
        run(&format!(
            "ip netns exec {first} iptables -N DOCKER-USER && \
             ip netns exec {first} iptables -I FORWARD -j DOCKER-USER"
        ));
        Some(lab)
    }

    pub(super) fn space(&mut self, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.prefix);
        // Making namespaces in parallel fails at times: one after the other.
        run(&format!(
            "flock /run/lock/swarm-netns ip netns add {name} && ip -n {name} link set lo up"
        ));
        self.spaces.push(name.clone());
        name
    }

    /// A machine on the underlay.
    pub(super) fn machine(&mut self, suffix: &str, number: u8) -> String {
        let (name, underlay) = (self.space(suffix), format!("{}ul", self.prefix));
        run(&format!(
            "ip link add p{number} netns {underlay} type veth peer name eth0 netns {name} && \
             ip -n {underlay} link set p{number} master sw0 up && \
             ip -n {name} addr add 10.99.0.{number}/24 dev eth0 && ip -n {name} link set eth0 up"
        ));
        name
    }

    pub(super) fn container(&mut self, net: u8, host: u8, number: u8) -> String {
        let name = self.space(&format!("c{net}{host}{number}"));
        let (host_name, vni) = (self.host(host), VNIS[usize::from(net)]);
        let (port, addr, gateway) = (
            format!("v{net}{number}"),
            addr(net, host, number),
            Ipv4Addr::from([10, 200 + net, 255, host]),
        );
        run(&format!(
            "ip link add {port} netns {host_name} type veth peer name eth0 netns {name} && \
             ip -n {host_name} link set {port} master ov{vni} up && \
             ip -n {name} addr add {addr}/16 dev eth0 && \
             ip -n {name} link set eth0 mtu 1450 up && ip -n {name} route add default via {gateway}"
        ));
        name
    }

    pub(super) fn host(&self, host: u8) -> String {
        format!("{}h{host}", self.prefix)
    }

    pub(super) fn in_container(&self, net: u8, host: u8, number: u8) -> String {
        format!("{}c{net}{host}{number}", self.prefix)
    }

    pub(super) fn exec(&self, space: &str, line: &str) -> String {
        run(&format!("ip netns exec {space} {line}"))
    }

    /// How many ICMP echo requests have arrived in a namespace.
    pub(super) fn echoes(&self, space: &str) -> u64 {
        let text = self.exec(space, "grep ^Icmp: /proc/net/snmp");
        let mut lines = text.lines().map(|line| line.split_whitespace());
        let column = lines.next().unwrap().position(|name| name == "InEchos").unwrap();
        lines.next().unwrap().nth(column).unwrap().parse().unwrap()
    }

    pub(super) fn pings(&self, space: &str, to: Ipv4Addr) -> bool {
        // The first packet may be lost while a neighbour is looked up.
        within(space, move || (0..2).any(|_| ping(to)))
    }

    /// Runs something on a host with an overlay that has just been started.
    pub(super) fn with_overlay<T, F, Fut>(&self, host: u8, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Handle) -> Fut + Send + 'static,
        Fut: Future<Output = T>,
    {
        within(&self.host(host), move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let scope = Scope::root("test");
                let settings = Settings { node: node(host), dns_port: DNS_PORT };
                work(overlay::start(settings, Env::system(), scope).await.unwrap()).await
            })
        })
    }

    pub(super) fn apply(&self, host: u8, set: &AssignmentSet) -> Report {
        let set = set.clone();
        self.with_overlay(host, async move |overlay| overlay.reconcile(&set).await.unwrap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.spaces.iter().rev() {
            let _best_effort = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs something on a thread inside of a network namespace.
pub(super) fn within<T: Send + 'static>(
    space: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let path = format!("/run/netns/{space}");
    let thread = std::thread::spawn(move || {
        setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// One ICMP echo; whether the reply comes in time.
pub(super) fn ping(to: Ipv4Addr) -> bool {
    let icmp = Some(SockProtocol::Icmp);
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), icmp).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500)).unwrap();
    // Type 8, code 0, checksum, identifier and sequence number, all of 16 bits.
    let mut packet = [8, 0, 0, 0, 0x5a, 0x5a, 0, 1];
    let checksum = !(0x0800u16 + 0x5a5a + 1);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    let target = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
    if sendto(socket.as_raw_fd(), &packet, &target, MsgFlags::empty()).is_err() {
        return false;
    }
    let mut buffer = [0; 2000];
    while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        let (header, reply) = buffer[..length].split_at(20);
        if header[12..16] == to.octets() && reply[0] == 0 && reply[4..6] == [0x5a, 0x5a] {
            return true;
        }
    }
    false
}

/// How many bytes of a megabyte pass from one namespace to a server in another.
pub(super) fn transfer(from: &str, to: &str, at: Ipv4Addr) -> usize {
    let listener = within(to, move || TcpListener::bind((at, 7000)).unwrap());
    let server = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    within(from, move || {
        let server = SocketAddr::from((at, 7000));
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(3)).unwrap();
        stream.write_all(&vec![7; 1 << 20]).unwrap();
    });
    server.join().unwrap()
}

pub(super) fn connects(from: &str, to: SocketAddr) -> bool {
    within(from, move || TcpStream::connect_timeout(&to, Duration::from_millis(700)).is_ok())
}

/// Asks a name server about a name; the addresses, or `None` if there is no answer.
pub(super) fn resolve(from: &str, server: SocketAddr, name: &'static str) -> Option<Vec<String>> {
    within(from, move || {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        socket.send_to(&message.to_vec().unwrap(), server).unwrap();
        let mut buffer = [0; 2000];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from, server);
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        let mut found: Vec<_> =
            reply.answers.iter().map(|answer| answer.data.to_string()).collect();
        found.sort();
        Some(found)
    })
}
