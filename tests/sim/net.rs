//! A simulated network: calls between members as messages that take their time, get lost, break off
//! or never leave. What a host answers for a process that has ended (a refusal) is told apart from
//! silence, as on a real network.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use swarm::domain::NodeId;
use swarm::domain::node::Role;
use swarm::env::Env;
use swarm::raft::{Inbound, Peer, PeerError, PeerLink};
use swarm::wire::manager::{LeaseBatch, ProposeReply, ProposeRequest};
use tokio::sync::oneshot;

use crate::chance::Chance;
use streams::Conn;
pub(crate) use streams::{End, Packet};

/// A connection whose other end is silent is given up after this, as in `transport`: the one for
/// snapshots, and the others.
const BULK_KEEP_ALIVE: Duration = Duration::from_secs(6);
const KEEP_ALIVE: Duration = Duration::from_millis(1_500);

mod streams;

/// Which host, from 0.
pub(crate) type Host = usize;

/// The address of a host's manager.
pub(crate) fn addr(host: Host) -> SocketAddr {
    let [high, low] = u16::try_from(host + 1).unwrap().to_be_bytes();
    ([192, 168, high, low], 2377).into()
}

pub(crate) fn host(addr: SocketAddr) -> Option<Host> {
    match addr {
        SocketAddr::V4(addr) => {
            let [_, _, high, low] = addr.ip().octets();
            usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
        }
        SocketAddr::V6(_) => None,
    }
}

/// What is asked of a member.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Vote(Bytes),
    Append(Bytes),
    Transfer(Bytes),
    Snapshot(Bytes, Bytes),
    Propose(ProposeRequest),
    ReadIndex,
    Leases(LeaseBatch),
    /// An agent opens a session: the number of its connection, and what its certificate says.
    Open(u64, NodeId, Role),
    /// A node renews its certificate.
    Certify(NodeId),
    /// A manager by its certificate wants to be a member.
    Join(NodeId, SocketAddr),
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Payload(Bytes),
    Proposed(ProposeReply),
    Index(u64),
    /// The role of a new certificate; the raft id of a new member.
    Certified(Role),
    Joined(u64),
    Done,
}

type Reply = Result<Answer, PeerError>;

/// Something on its way to a host.
pub(crate) enum Message {
    Request {
        id: u64,
        from: Host,
        to: Peer,
        call: Call,
    },
    Reply {
        id: u64,
        reply: Reply,
    },
    /// Something of a connection comes out at an end of it.
    Packet {
        conn: u64,
        end: End,
        packet: Packet,
    },
    /// Whatever waits for an end of a connection may be due.
    Due {
        conn: u64,
        end: End,
    },
}

/// Whether a machine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its process runs.
    Serves,
    /// Its process has ended: it refuses connections.
    Refuses,
    /// It is off.
    Silent,
}

/// How the network treats messages from one host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) is_cut: bool,
    /// Of a thousand messages, how many get lost, and how many break the connection.
    pub(crate) lost: u64,
    pub(crate) broken: u64,
    /// Least and longest time on the way, in milliseconds.
    pub(crate) delay: (u64, u64),
}

impl Way {
    pub(crate) const GOOD: Self = Self { is_cut: false, lost: 0, broken: 0, delay: (1, 3) };
}

struct Inner {
    now: Duration,
    chance: Chance,
    sequence: u64,
    ways: BTreeMap<(Host, Host), Way>,
    machines: BTreeMap<Host, State>,
    /// By whom it goes to, when it arrives and its number: who sent it.
    on_their_way: BTreeMap<(Host, Duration, u64), (Host, Message)>,
    conns: BTreeMap<u64, Conn>,
    /// Callers, and after how long they find that the connection is dead.
    waiting: BTreeMap<u64, (oneshot::Sender<Reply>, Duration)>,
    delivered: u64,
    lost: u64,
    trace: u64,
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Net {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    pub(crate) fn new(chance: Chance) -> Self {
        let inner = Inner {
            now: Duration::ZERO,
            chance,
            sequence: 0,
            ways: BTreeMap::new(),
            machines: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
            conns: BTreeMap::new(),
            waiting: BTreeMap::new(),
            delivered: 0,
            lost: 0,
            trace: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn set_machine(&self, host: Host, machine: State) {
        self.lock().machines.insert(host, machine);
    }

    pub(crate) fn set_way(&self, from: Host, to: Host, change: impl FnOnce(&mut Way)) {
        change(self.lock().ways.entry((from, to)).or_insert(Way::GOOD));
    }

    pub(crate) fn heal(&self) {
        self.lock().ways.clear();
    }

    /// Messages delivered and lost, and a number that stands for all of them in their order.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let inner = self.lock();
        (inner.delivered, inner.lost, inner.trace)
    }

    /// Takes what has arrived at a host by now.
    pub(crate) fn arrived(&self, to: Host, now: Duration) -> Vec<Message> {
        let mut inner = self.lock();
        inner.now = now;
        let due: Vec<_> = inner
            .on_their_way
            .range((to, Duration::ZERO, 0)..=(to, now, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        let mut arrived = Vec::new();
        for key in due {
            let Some((from, message)) = inner.on_their_way.remove(&key) else { continue };
            if let Message::Due { conn, end } = message {
                inner.due(conn, end, &mut arrived);
                continue;
            }
            if matches!(message, Message::Packet { .. }) {
                arrived.push(message);
                continue;
            }
            if inner.way(from, to).is_cut || inner.machine(to) == State::Silent {
                inner.lose(from, to, &message);
                continue;
            }
            inner.delivered += 1;
            inner.note(&[key.2, from as u64, to as u64, message.kind()]);
            arrived.push(message);
        }
        arrived
    }

    pub(crate) fn machine(&self, host: Host) -> State {
        self.lock().machine(host)
    }

    fn is_open(&self, from: Host, to: Host) -> bool {
        !self.lock().way(from, to).is_cut
    }

    /// Gives a caller its answer.
    pub(crate) fn complete(&self, id: u64, reply: Reply) {
        let waiting = self.lock().waiting.remove(&id);
        if let Some((waiting, _)) = waiting {
            waiting.send(reply).ok();
        }
    }

    /// Sends an answer back.
    pub(crate) fn answer(&self, from: Host, to: Host, id: u64, reply: Reply) {
        self.lock().send(from, to, Message::Reply { id, reply });
    }

    /// Calls another process and waits for its answer.
    pub(crate) async fn ask(
        &self,
        env: &Env,
        from: Host,
        (to, call): (Peer, Call),
        limit: Duration,
    ) -> Reply {
        let target = host(to.addr).ok_or(PeerError::Timeout)?;
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut inner = self.lock();
            inner.sequence += 1;
            let id = inner.sequence;
            let is_bulk = matches!(call, Call::Snapshot(..));
            let keep_alive = if is_bulk { BULK_KEEP_ALIVE } else { KEEP_ALIVE };
            inner.waiting.insert(id, (answer, keep_alive));
            let request = Message::Request { id, from, to, call };
            inner.send(from, target, request);
            id
        };
        let _waiting = Waiting { net: self, id };
        match env.clock.timeout(limit, answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => Err(PeerError::Timeout),
        }
    }

    pub(crate) fn link(&self, from: Host, env: &Env) -> Arc<dyn PeerLink> {
        Arc::new(Link { net: self.clone(), from, env: env.clone() })
    }
}

impl Message {
    const fn kind(&self) -> u64 {
        match self {
            Self::Request { call, .. } => match call {
                Call::Vote(_) => 1,
                Call::Append(_) => 2,
                Call::Transfer(_) => 3,
                Call::Snapshot(..) => 4,
                Call::Propose(_) => 5,
                Call::ReadIndex => 6,
                Call::Leases(_) => 9,
                Call::Open(..) => 10,
                Call::Certify(_) => 12,
                Call::Join(..) => 13,
            },
            Self::Reply { reply: Ok(_), .. } => 7,
            Self::Reply { reply: Err(_), .. } => 8,
            Self::Packet { .. } | Self::Due { .. } => 11,
        }
    }
}

impl Inner {
    fn way(&self, from: Host, to: Host) -> Way {
        self.ways.get(&(from, to)).copied().unwrap_or(Way::GOOD)
    }

    fn note(&mut self, values: &[u64]) {
        let now = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
        for value in values.iter().chain([&now]) {
            self.trace = Chance::new(self.trace ^ value).next();
        }
    }

    fn machine(&self, host: Host) -> State {
        self.machines.get(&host).copied().unwrap_or(State::Silent)
    }

    /// A message is gone. Its caller hears nothing, until the connection is found to be dead.
    fn lose(&mut self, from: Host, to: Host, message: &Message) {
        self.lost += 1;
        let (id, caller) = match message {
            Message::Request { id, .. } => (*id, from),
            Message::Reply { id, .. } => (*id, to),
            Message::Packet { .. } | Message::Due { .. } => return,
        };
        let Some((_, keep_alive)) = self.waiting.get(&id) else { return };
        let reply = Err(PeerError::Other("the connection is dead".to_owned()));
        self.sequence += 1;
        let key = (caller, self.now + *keep_alive, self.sequence);
        self.on_their_way.insert(key, (caller, Message::Reply { id, reply }));
    }

    fn send(&mut self, from: Host, to: Host, message: Message) {
        let way = self.way(from, to);
        let fate = self.chance.below(1_000);
        let delay = self.chance.millis(way.delay.0, way.delay.1.max(way.delay.0));
        if way.is_cut || fate < way.lost {
            return self.lose(from, to, &message);
        }
        let at = self.now + delay.max(Duration::from_millis(1));
        self.sequence += 1;
        if fate < way.lost + way.broken {
            self.lost += 1;
            if let Message::Request { id, .. } = message {
                // Whether it arrived before the connection broke, the caller cannot know.
                let reply = Err(PeerError::Other("the connection broke".to_owned()));
                let back = Message::Reply { id, reply };
                self.on_their_way.insert((from, at, self.sequence), (to, back));
            }
            return;
        }
        self.on_their_way.insert((to, at, self.sequence), (from, message));
    }
}

/// What a process does with a request that has arrived.
pub(crate) async fn serve(inbound: &Inbound, to: Peer, call: Call) -> Reply {
    match call {
        Call::Vote(payload) => {
            inbound.is_meant(to.id)?;
            inbound.vote(&payload).await.map(Answer::Payload)
        }
        Call::Append(payload) => {
            inbound.is_meant(to.id)?;
            inbound.append(&payload).await.map(Answer::Payload)
        }
        Call::Transfer(payload) => {
            inbound.is_meant(to.id)?;
            inbound.transfer(&payload).await.map(Answer::Payload)
        }
        Call::Snapshot(header, data) => {
            inbound.is_meant(to.id)?;
            inbound.snapshot(&header, data).await.map(Answer::Payload)
        }
        Call::Propose(request) => inbound.propose(request).await.map(Answer::Proposed),
        Call::ReadIndex => inbound.read_index().await.map(Answer::Index),
        Call::Leases(_) | Call::Open(..) | Call::Certify(_) | Call::Join(..) => {
            Err(PeerError::Other("this is no business of the replica".to_owned()))
        }
    }
}

/// The ways of one process to the others.
#[derive(Debug)]
struct Link {
    net: Net,
    from: Host,
    env: Env,
}

/// Between two looks whether another process still stands.
const LOOK: Duration = Duration::from_millis(20);

/// Forgets a caller that has stopped waiting.
struct Waiting<'a> {
    net: &'a Net,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.net.lock().waiting.remove(&self.id);
    }
}

impl Link {
    async fn call(&self, to: Peer, call: Call, limit: Duration) -> Reply {
        self.net.ask(&self.env, self.from, (to, call), limit).await
    }

    async fn payload(&self, to: Peer, call: Call, limit: Duration) -> Result<Bytes, PeerError> {
        match self.call(to, call, limit).await? {
            Answer::Payload(payload) => Ok(payload),
            other => Err(PeerError::Other(format!("{other:?} is no payload"))),
        }
    }
}

#[async_trait]
impl PeerLink for Link {
    async fn vote(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        self.payload(to, Call::Vote(payload), limit).await
    }

    async fn append(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        self.payload(to, Call::Append(payload), limit).await
    }

    async fn transfer(
        &self,
        to: Peer,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        self.payload(to, Call::Transfer(payload), limit).await
    }

    async fn snapshot(
        &self,
        to: Peer,
        header: Bytes,
        data: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        self.payload(to, Call::Snapshot(header, data), limit).await
    }

    async fn propose(
        &self,
        to: Peer,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<ProposeReply, PeerError> {
        match self.call(to, Call::Propose(request), limit).await? {
            Answer::Proposed(reply) => Ok(reply),
            other => Err(PeerError::Other(format!("{other:?} is no outcome"))),
        }
    }

    async fn read_index(&self, to: Peer, limit: Duration) -> Result<u64, PeerError> {
        match self.call(to, Call::ReadIndex, limit).await? {
            Answer::Index(index) => Ok(index),
            other => Err(PeerError::Other(format!("{other:?} is no index"))),
        }
    }

    async fn closed(&self, to: Peer) {
        let Some(target) = host(to.addr) else { return std::future::pending().await };
        let mut stood = false;
        loop {
            let is_open =
                self.net.is_open(self.from, target) && self.net.is_open(target, self.from);
            match self.net.machine(target) {
                State::Serves => stood |= is_open,
                State::Refuses if stood && is_open => return,
                State::Refuses | State::Silent => {}
            }
            self.env.clock.sleep(LOOK).await;
        }
    }
}
