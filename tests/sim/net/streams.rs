//! The connections of sessions: what is said comes out in order and whole, or the connection dies.
//! What gets lost is sent again, as TCP does, until an end gives up.

use swarm::transport::LinkError;
use swarm::wire::node::{AgentMessage, ManagerMessage};

use super::*;

/// From a loss to the next attempt.
const AGAIN: Duration = Duration::from_millis(200);

/// An end of a session's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Agent,
    Manager,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Agent => Self::Manager,
            Self::Manager => Self::Agent,
        }
    }
}

/// What goes through a session's connection.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Said(AgentMessage),
    Told(Result<ManagerMessage, LinkError>),
    /// The other end was closed.
    Closed,
    /// The connection is dead.
    Broken,
}

/// A connection between an agent and a manager.
pub(super) struct Conn {
    agent: Host,
    manager: Host,
    /// What is on its way to each end, and when it may come out.
    to_agent: VecDeque<(Duration, Packet)>,
    to_manager: VecDeque<(Duration, Packet)>,
}

impl Conn {
    /// From which host to which.
    const fn way(&self, to: End) -> (Host, Host) {
        match to {
            End::Agent => (self.manager, self.agent),
            End::Manager => (self.agent, self.manager),
        }
    }

    const fn queue(&mut self, to: End) -> &mut VecDeque<(Duration, Packet)> {
        match to {
            End::Agent => &mut self.to_agent,
            End::Manager => &mut self.to_manager,
        }
    }
}

impl Net {
    /// A connection that an agent opens.
    pub(crate) fn connect(&self, agent: Host, manager: Host) -> u64 {
        let mut inner = self.lock();
        inner.sequence += 1;
        let id = inner.sequence;
        let (to_agent, to_manager) = (VecDeque::new(), VecDeque::new());
        inner.conns.insert(id, Conn { agent, manager, to_agent, to_manager });
        id
    }

    /// Sends something to an end.
    pub(crate) fn say(&self, conn: u64, to: End, packet: Packet) {
        self.lock().say(conn, to, packet);
    }

    /// An end was closed.
    pub(crate) fn close(&self, conn: u64, by: End) {
        self.say(conn, by.other(), Packet::Closed);
    }

    /// An end does not know of the connection: the process that had it is gone.
    pub(crate) fn reset(&self, conn: u64, by: End) {
        let mut inner = self.lock();
        if let Some(mut gone) = inner.conns.remove(&conn) {
            let (_, other) = gone.way(by.other());
            gone.queue(by).clear();
            inner.tell(other, conn, by.other());
        }
    }

    /// A process has ended on a host that goes on: its connections are closed by the kernel.
    pub(crate) fn died(&self, host: Host) {
        let mut inner = self.lock();
        let of_host = inner.conns.iter().flat_map(|(id, conn)| {
            let ends = [(End::Agent, conn.agent), (End::Manager, conn.manager)];
            ends.into_iter().filter(|(_, at)| *at == host).map(|(end, _)| (*id, end))
        });
        for (conn, end) in of_host.collect::<Vec<_>>() {
            inner.say(conn, end.other(), Packet::Closed);
        }
    }
}

impl Inner {
    fn say(&mut self, conn: u64, to: End, packet: Packet) {
        let Some((from, host)) = self.conns.get(&conn).map(|it| it.way(to)) else { return };
        let way = if from == host { Way::GOOD } else { self.way(from, host) };
        let delay = self.chance.millis(way.delay.0, way.delay.1.max(way.delay.0));
        let at = self.now + delay.max(Duration::from_millis(1));
        let Some(open) = self.conns.get_mut(&conn) else { return };
        let queue = open.queue(to);
        let at = queue.back().map_or(at, |(last, _)| at.max(*last));
        queue.push_back((at, packet));
        if queue.len() == 1 {
            self.wake(host, at, (conn, to));
        }
    }

    fn wake(&mut self, host: Host, at: Duration, (conn, end): (u64, End)) {
        self.sequence += 1;
        self.on_their_way.insert((host, at, self.sequence), (host, Message::Due { conn, end }));
    }

    /// Takes out what has come to an end.
    pub(super) fn due(&mut self, conn: u64, end: End, arrived: &mut Vec<Message>) {
        let now = self.now;
        let Some(open) = self.conns.get_mut(&conn) else { return };
        let (from, to) = open.way(end);
        let Some(since) = open.queue(end).front().map(|(at, _)| *at) else { return };
        let way = if from == to { Way::GOOD } else { self.way(from, to) };
        let fate = self.chance.below(1_000);
        if way.is_cut || self.machine(to) == State::Silent || fate < way.lost {
            self.lost += 1;
            if now.saturating_sub(since) > KEEP_ALIVE {
                return self.break_off(conn);
            }
            return self.wake(to, now + AGAIN, (conn, end));
        }
        if fate < way.lost + way.broken {
            return self.break_off(conn);
        }
        let Some(open) = self.conns.get_mut(&conn) else { return };
        let queue = open.queue(end);
        let mut packets = Vec::new();
        while let Some((_, packet)) = queue.pop_front_if(|(at, _)| *at <= now) {
            packets.push(packet);
        }
        let next = queue.front().map(|(at, _)| *at);
        let is_closed = packets.iter().any(|packet| matches!(packet, Packet::Closed));
        for packet in packets {
            self.delivered += 1;
            self.note(&[conn, from as u64, to as u64, packet.kind()]);
            arrived.push(Message::Packet { conn, end, packet });
        }
        if is_closed {
            self.conns.remove(&conn);
        } else if let Some(at) = next {
            self.wake(to, at, (conn, end));
        }
    }

    /// Both ends find out that a connection is dead.
    fn break_off(&mut self, conn: u64) {
        if let Some(gone) = self.conns.remove(&conn) {
            self.tell(gone.agent, conn, End::Agent);
            self.tell(gone.manager, conn, End::Manager);
        }
    }

    fn tell(&mut self, host: Host, conn: u64, end: End) {
        self.sequence += 1;
        let key = (host, self.now + Duration::from_millis(1), self.sequence);
        let message = Message::Packet { conn, end, packet: Packet::Broken };
        self.on_their_way.insert(key, (host, message));
    }
}

impl Packet {
    fn kind(&self) -> u64 {
        use swarm::wire::node::manager_message::Kind;
        match self {
            Self::Said(_) => 20,
            Self::Told(Ok(message)) => match &message.kind {
                Some(Kind::Assignments(diff)) => 21 + diff.put.len() as u64 * 64,
                Some(_) | None => 22,
            },
            Self::Told(Err(_)) => 23,
            Self::Closed => 24,
            Self::Broken => 25,
        }
    }
}
