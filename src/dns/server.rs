//! The sockets: datagrams and streams in, replies out, everything bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_server::proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::answer::{Decision, Transport, decide, failure};
use super::upstream::Upstream;
use super::zone::Zone;
use crate::env::{Env, Scope};

/// Queries that wait for upstream and open streams, of all clients together.
const TOTAL_MAX: usize = 1024;

/// The same of one client, so that one container cannot take the names away from all others.
const PER_CLIENT_MAX: usize = 128;

/// A stream may be silent for so long.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// After an error of a socket: rather slow than a busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// What all routines of the server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) scope: Scope,
    pub(super) zone: ArcSwap<Zone>,
    pub(super) upstream: Upstream,
    pub(super) limits: Limits,
}

/// How much work is under way, by client. The lock is never held for long.
#[derive(Debug, Default)]
pub(super) struct Limits {
    clients: Mutex<(usize, BTreeMap<IpAddr, usize>)>,
}

/// The right to some work; given back when dropped.
struct Permit {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Permit {
    fn take(shared: &Arc<Shared>, client: IpAddr) -> Option<Self> {
        let mut clients = shared.limits.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_client) = &mut *clients;
        let own = by_client.get(&client).copied().unwrap_or_default();
        if *total >= TOTAL_MAX || own >= PER_CLIENT_MAX {
            return None;
        }
        *total += 1;
        by_client.insert(client, own + 1);
        drop(clients);
        Some(Self { shared: Arc::clone(shared), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let limits = &self.shared.limits;
        let mut clients = limits.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_client) = &mut *clients;
        *total = total.saturating_sub(1);
        if let Some(own) = by_client.get_mut(&self.client) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

impl Shared {
    fn decide(&self, client: IpAddr, query: &[u8], transport: Transport) -> Decision {
        decide(&self.zone.load(), client, query, transport, self.env.entropy.number())
    }

    /// What upstream says, or that it says nothing.
    async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let zone = self.zone.load_full();
        match self.upstream.ask(query, transport, |addr| zone.is_own(addr)).await {
            Some(reply) => Some(reply),
            None => fail(query),
        }
    }
}

/// The reply when nobody can answer.
fn fail(query: &[u8]) -> Option<Vec<u8>> {
    match failure(query, ResponseCode::ServFail) {
        Decision::Reply(reply) => Some(reply),
        Decision::Forward | Decision::Ignore => None,
    }
}

/// Serves datagrams for ever. Answers of our own are given at once; others wait in routines.
pub(super) async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "dns: receive");
                shared.env.clock.sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let query = &buffer[..length];
        let reply = match shared.decide(client.ip(), query, Transport::Udp) {
            Decision::Reply(reply) => Some(reply),
            Decision::Ignore => None,
            Decision::Forward => match Permit::take(&shared, client.ip()) {
                None => fail(query),
                Some(permit) => {
                    let (socket, query) = (Arc::clone(&socket), query.to_vec());
                    shared.scope.spawn("dns forward", async move {
                        if let Some(reply) = permit.shared.forward(&query, Transport::Udp).await {
                            send(&socket, &reply, client).await;
                        }
                    });
                    None
                }
            },
        };
        if let Some(reply) = reply {
            send(&socket, &reply, client).await;
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "dns: send");
    }
}

/// Accepts streams for ever.
pub(super) async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                // Too many: the connection is closed, which a client takes for "try again".
                if let Some(permit) = Permit::take(&shared, client.ip()) {
                    shared.scope.spawn("dns stream", async move {
                        if let Err(error) = serve_stream(&permit, stream).await {
                            tracing::trace!(%client, %error, "dns: stream");
                        }
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "dns: accept");
                shared.env.clock.sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Serves one stream, one message after the other, until it ends or is silent for too long.
async fn serve_stream(permit: &Permit, mut stream: TcpStream) -> std::io::Result<()> {
    let shared = &permit.shared;
    let clock = &shared.env.clock;
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    loop {
        let query = clock.timeout(IDLE_LIMIT, read(&mut stream)).await.map_err(late)??;
        let reply = match shared.decide(permit.client, &query, Transport::Tcp) {
            Decision::Reply(reply) => Some(reply),
            Decision::Ignore => None,
            Decision::Forward => shared.forward(&query, Transport::Tcp).await,
        };
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
        let bytes = [&length.to_be_bytes(), reply.as_slice()].concat();
        clock.timeout(IDLE_LIMIT, stream.write_all(&bytes)).await.map_err(late)??;
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut query = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
