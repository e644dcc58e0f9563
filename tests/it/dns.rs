//! The name server over real sockets: local names, upstream, limits of size, changes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType, rdata::A};
use swarm::dns::{self, Handle, Settings, Sources};
use swarm::domain::assignment::Item;
use swarm::domain::endpoint::{Endpoint, EndpointSet};
use swarm::domain::network::Subnet;
use swarm::domain::service::EndpointMode;
use swarm::domain::task::Slot;
use swarm::domain::{AssignmentSet, Labels, Meta, Network, NetworkId, NodeId, ServiceId, TaskId};
use swarm::env::{Env, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

const NODE: NodeId = NodeId::from_bytes([1; 16]);

fn task(number: u16) -> TaskId {
    let mut bytes = [9; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    TaskId::from_bytes(bytes)
}

fn set(tasks: u16) -> Arc<AssignmentSet> {
    let id = NetworkId::from_bytes([2; 16]);
    let mut set = AssignmentSet::default();
    set.insert(Item::Network(Arc::new(Network {
        id,
        meta: Meta::default(),
        name: "net1".to_owned(),
        labels: Labels::default(),
        vni: 4097,
        subnet: Subnet { base: [10, 1, 0, 0].into(), prefix: 16 },
        cursor: 0,
    })));
    let endpoint = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Endpoint {
            task: task(number),
            slot: Slot::Number(u32::from(number)),
            node: NODE,
            addr: [10, 1, high, low].into(),
            serving: true,
        }
    };
    set.insert(Item::Endpoints(Arc::new(EndpointSet {
        network: id,
        service: ServiceId::from_bytes([3; 16]),
        name: "web".to_owned(),
        aliases: Vec::new(),
        mode: EndpointMode::Dnsrr,
        ports: Vec::new(),
        endpoints: (1..=tasks).map(endpoint).collect(),
    })));
    Arc::new(set)
}

struct Server {
    handle: Handle,
    assignments: watch::Sender<Arc<AssignmentSet>>,
    local: watch::Sender<Arc<BTreeMap<TaskId, bool>>>,
    scope: Scope,
}

async fn server(tasks: u16, upstreams: Vec<SocketAddr>) -> Server {
    let (assignments, watch_set) = watch::channel(set(tasks));
    let (local, watch_local) = watch::channel(Arc::new(BTreeMap::new()));
    let scope = Scope::root("test");
    let settings = Settings { port: 0, node: NODE, upstreams: Some(upstreams) };
    let sources = Sources { assignments: watch_set, local: watch_local };
    let handle = dns::start(settings, Env::system(), sources, scope.clone()).await.unwrap();
    Server { handle, assignments, local, scope }
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

impl Server {
    async fn udp(&self, name: &str) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, self.handle.port())).await.unwrap();
        socket.send(&query(name)).await.unwrap();
        let mut buffer = vec![0; 65535];
        let work = socket.recv(&mut buffer);
        let clock = Env::system().clock;
        let length = clock.timeout(Duration::from_secs(9), work).await.unwrap().unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    async fn stream(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.handle.port())).await.unwrap()
    }

    async fn tcp(&self, stream: &mut TcpStream, name: &str) -> std::io::Result<Message> {
        let bytes = query(name);
        stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).await?;
        stream.write_all(&bytes).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        Ok(Message::from_vec(&reply).unwrap())
    }
}

/// A name server that knows `known.` (over UDP cut off, over TCP whole), refuses `refused.` and
/// knows no other name. It must never be asked about names of services.
async fn upstream(scope: &Scope) -> SocketAddr {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(addr).await.unwrap();
    let answer = |bytes: &[u8], cut: &str| {
        let mut message = Message::from_vec(bytes).unwrap().into_response();
        let name = message.queries[0].name.clone();
        match name.to_ascii().as_str() {
            "known." if cut == "cut" => message.metadata.truncation = true,
            "known." => {
                let data = RData::A(A([192, 0, 2, 8].into()));
                message.add_answer(Record::from_rdata(name, 300, data));
            }
            "refused." => message.metadata.response_code = ResponseCode::Refused,
            "web." => panic!("names of services are not for strangers"),
            _ => message.metadata.response_code = ResponseCode::NXDomain,
        }
        message.to_vec().unwrap()
    };
    scope.spawn("udp", async move {
        let mut buffer = vec![0; 2000];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            // A forged reply first: another id. It must not be believed.
            let mut forged = answer(&buffer[..length], "whole");
            forged[0] ^= 1;
            udp.send_to(&forged, client).await.unwrap();
            udp.send_to(&answer(&buffer[..length], "cut"), client).await.unwrap();
        }
    });
    scope.spawn("tcp", async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut bytes).await.unwrap();
            let reply = answer(&bytes, "whole");
            let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &reply].concat()).await.unwrap();
        }
    });
    addr
}

#[tokio::test]
async fn serves_names_over_both_transports() {
    let server = server(100, Vec::new()).await;
    let cut = server.udp("web.").await;
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
    let mut stream = server.stream().await;
    // Several queries on one stream.
    for _ in 0..3 {
        let whole = server.tcp(&mut stream, "WEB.net1.").await.unwrap();
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (100, false));
    }
    assert!(server.scope.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn other_names_go_upstream_and_the_reply_comes_back_as_it_is() {
    let scope = Scope::root("upstream");
    // The first name server does not answer: nobody listens there.
    let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let server = server(2, vec![dead, upstream(&scope).await]).await;
    let cut = server.udp("known.").await;
    assert!(cut.metadata.truncation, "the client must come again over TCP");
    let mut stream = server.stream().await;
    let known = server.tcp(&mut stream, "known.").await.unwrap();
    assert_eq!((known.metadata.id, known.answers[0].ttl), (77, 300));
    let code = |message: &Message| message.metadata.response_code;
    assert_eq!(code(&server.udp("unknown.").await), ResponseCode::NXDomain);
    assert_eq!(code(&server.udp("refused.").await), ResponseCode::Refused);
    assert_eq!(server.udp("web.").await.answers.len(), 2);
}

#[tokio::test]
async fn without_upstream_the_client_is_told() {
    let server = server(1, Vec::new()).await;
    assert_eq!(server.udp("known.").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn changes_show_at_once() {
    let server = server(3, Vec::new()).await;
    let count = async |wanted: usize| {
        for _ in 0..200 {
            let reply = server.udp("web.").await;
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
            if reply.answers.len() == wanted {
                return;
            }
            Env::system().clock.sleep(Duration::from_millis(5)).await;
        }
        panic!("never {wanted} answers");
    };
    count(3).await;
    server.local.send_replace(Arc::new(BTreeMap::from([(task(2), false)])));
    count(2).await;
    server.assignments.send_replace(set(9));
    count(8).await;
    server.local.send_replace(Arc::new((1..=9).map(|number| (task(number), false)).collect()));
    count(0).await;
    server.local.send_replace(Arc::default());
    count(9).await;
}

#[tokio::test]
async fn one_client_cannot_hold_all_streams_and_gets_them_back() {
    let server = server(1, Vec::new()).await;
    let mut open = Vec::new();
    for _ in 0..50 {
        open.push(server.stream().await);
    }
    let mut served = 0;
    for stream in &mut open {
        served += usize::from(server.tcp(stream, "web.").await.is_ok());
    }
    assert_eq!(served, 32);
    // Datagrams about our own names are answered all the same.
    assert_eq!(server.udp("web.").await.answers.len(), 1);
    drop(open);
    for _ in 0..100 {
        let mut stream = server.stream().await;
        if server.tcp(&mut stream, "web.").await.is_ok() {
            return;
        }
        Env::system().clock.sleep(Duration::from_millis(10)).await;
    }
    panic!("the closed streams still count");
}

#[tokio::test]
async fn a_name_server_that_floods_is_left_alone() {
    let scope = Scope::root("flood");
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = udp.local_addr().unwrap();
    scope.spawn("flood", async move {
        let mut buffer = vec![0; 2000];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            // The right reply, but larger than any client can ask for; then other people's.
            let mut large =
                Message::from_vec(&buffer[..length]).unwrap().into_response().to_vec().unwrap();
            large.resize(5_000, 0);
            udp.send_to(&large, client).await.unwrap();
            large[0] ^= 1;
            for _ in 0..200 {
                udp.send_to(&large[..100], client).await.unwrap();
            }
        }
    });
    let server = server(1, vec![addr]).await;
    assert_eq!(server.udp("known.").await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(server.udp("web.").await.answers.len(), 1);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = server(1, Vec::new()).await;
    let (_keep, assignments) = watch::channel(set(1));
    let (_keep_too, local) = watch::channel(Arc::default());
    let port = first.handle.port();
    let settings = Settings { port, node: NODE, upstreams: None };
    let sources = Sources { assignments, local };
    let error = dns::start(settings, Env::system(), sources, Scope::root("second")).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains(&port.to_string()), "{text}");
}
