//! Asking the host's name servers about names that are not ours.
//!
//! Messages pass unread, apart from their id: what the name server says (any type, any code) is what
//! the client gets. Nothing is cached: the host's name server does that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::Transport;
use crate::env::{Env, Instant};

/// One name server's time to answer.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);

/// All name servers' time to answer: a client has given up after it.
const TOTAL_LIMIT: Duration = Duration::from_secs(5);

/// How long the list of name servers is used before it is read anew.
const LIST_LIFE: Duration = Duration::from_secs(5);

/// Largest datagram that is taken for a reply: what clients can ask for (EDNS), and no more.
const DATAGRAM_MAX: usize = 4096;

/// Datagrams that are not the reply, after which a name server is left alone: somebody floods.
const STRAYS_MAX: usize = 64;

/// As many as a resolver library asks.
const SERVERS_MAX: usize = 3;

/// Where the host's resolver library looks, then what lies behind systemd's stub if that is down.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The name servers of this node.
#[derive(Debug)]
pub(super) struct Upstream {
    env: Env,
    fixed: Option<Vec<SocketAddr>>,
    /// When the files were read, and what they said. Never held for long.
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Upstream {
    pub(super) const fn new(env: Env, fixed: Option<Vec<SocketAddr>>) -> Self {
        Self { env, fixed, known: Mutex::new(None) }
    }

    /// Asks one server after the other, without those that `skip` says are ourselves. A server that
    /// fails or refuses counts only if no other does better. `None` when none answers.
    pub(super) async fn ask(
        &self,
        query: &[u8],
        transport: Transport,
        skip: impl Fn(IpAddr) -> bool,
    ) -> Option<Vec<u8>> {
        let servers = self.servers();
        let began = self.env.clock.instant();
        let mut refusal = None;
        for server in servers.into_iter().filter(|server| !skip(server.ip())) {
            let spent = self.env.clock.instant().since(began);
            let limit = ATTEMPT_LIMIT.min(TOTAL_LIMIT.saturating_sub(spent));
            let attempt = exchange(&self.env, server, query, transport);
            match self.env.clock.timeout(limit, attempt).await {
                // SERVFAIL, NOTIMP, REFUSED.
                Ok(Ok(reply)) if matches!(reply[3] & 0x0f, 2 | 4 | 5) => refusal = Some(reply),
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => {
                    self.env.meters.dns_upstream_failures.up();
                    tracing::debug!(%server, %error, "name server");
                }
                Err(_) => {
                    self.env.meters.dns_upstream_failures.up();
                    tracing::debug!(%server, "name server does not answer");
                }
            }
        }
        refusal
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let now = self.env.clock.instant();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((read, servers)) if now.since(*read) < LIST_LIFE => servers.clone(),
            _ => {
                let servers = read_files();
                *known = Some((now, servers.clone()));
                servers
            }
        }
    }
}

fn read_files() -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for file in FILES {
        let text = std::fs::read_to_string(Path::new(file)).unwrap_or_default();
        for server in parse(&text) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
    }
    servers.truncate(SERVERS_MAX + 1);
    servers
}

/// The name servers of a `resolv.conf`, in order.
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with(char::is_whitespace))
        // An address may have a zone (`fe80::1%eth0`), which means nothing elsewhere: left out.
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .take(SERVERS_MAX)
        .map(|addr| SocketAddr::new(addr, 53))
        .collect()
}

async fn exchange(
    env: &Env,
    server: SocketAddr,
    query: &[u8],
    transport: Transport,
) -> std::io::Result<Vec<u8>> {
    // An id of our own: a client must not choose what protects us from forged replies.
    let [high, low, ..] = env.entropy.number().to_be_bytes();
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&[high, low]);
    let mut reply = match transport {
        Transport::Udp => exchange_udp(server, &sent).await?,
        Transport::Tcp => exchange_tcp(server, &sent).await?,
    };
    reply[..2].copy_from_slice(&query[..2]);
    Ok(reply)
}

async fn exchange_udp(server: SocketAddr, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of its own per query, and connected: only this server's datagrams arrive.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut buffer).await?;
        if length <= DATAGRAM_MAX && answers(sent, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
    Err(std::io::Error::other("too many datagrams that are not the reply"))
}

async fn exchange_tcp(server: SocketAddr, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(sent.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), sent].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    if answers(sent, &buffer) { Ok(buffer) } else { Err(std::io::Error::other("not a reply")) }
}

/// Whether a message is the reply to a query: same id, same question.
pub(super) fn answers(query: &[u8], reply: &[u8]) -> bool {
    let Some(question) = question(query) else { return false };
    let is_reply = reply.len() >= 12 && reply[2] & 0x80 != 0 && reply[..2] == query[..2];
    // A server that cannot read the query may leave the question out.
    let bare = is_reply && reply[4..6] == [0, 0];
    let same = reply.get(12..12 + question.len());
    is_reply && (bare || same.is_some_and(|same| same.eq_ignore_ascii_case(question)))
}

/// The bytes of the first question of a message.
fn question(message: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return message.get(12..at + 5),
            length if length < 64 => at += length + 1,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_in_order() {
        let text = "# comment\nsearch x.y\nnameserver 10.0.0.2\nnameserver\tfd00::1 # two\n\
                    nameserver fe80::1%eth0\nnameservers 1.1.1.1\n nameserver 127.0.0.53\n";
        let servers: Vec<String> = parse(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.2:53", "[fd00::1]:53", "127.0.0.53:53"]);
    }

    #[test]
    fn only_the_reply_to_the_query_counts() {
        let query = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01".as_slice();
        let reply = b"\x12\x34\x81\x80\0\x01\0\0\0\0\0\0\x03WEB\0\0\x01\0\x01".as_slice();
        assert!(answers(query, reply));
        let changed = |at: usize, to: u8| {
            let mut other = reply.to_vec();
            other[at] = to;
            other
        };
        assert!(!answers(query, &changed(0, 0x13)), "another id");
        assert!(!answers(query, &changed(2, 0x01)), "a query");
        assert!(!answers(query, &changed(14, b'x')), "another name");
        assert!(!answers(query, &changed(18, 28)), "another type");
        assert!(!answers(query, &reply[..20]), "cut off");
    }
}
