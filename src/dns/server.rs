//! The sockets: datagrams and streams in, replies out, everything bounded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_server::proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::answer::{Decision, Transport, decide, failure};
use super::limits::{Rate, Work};
use super::upstream::Upstream;
use super::zone::Zone;
use crate::env::{Env, Instant, Named, Scope};

/// Queries that wait for upstream, of all clients together.
const FORWARDS_MAX: usize = 1024;
/// The same of one client, so that one container cannot take the names away from all others.
const FORWARDS_PER_CLIENT: usize = 128;

/// Open streams, of all clients together.
const STREAMS_MAX: usize = 512;
/// The same of one client: a resolver library has one or two.
const STREAMS_PER_CLIENT: usize = 32;

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

/// What clients have under way and how fast they ask.
#[derive(Debug)]
pub(super) struct Limits {
    forwards: Work,
    streams: Work,
    rate: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            forwards: Work::new(FORWARDS_MAX, FORWARDS_PER_CLIENT),
            streams: Work::new(STREAMS_MAX, STREAMS_PER_CLIENT),
            rate: Rate::default(),
        }
    }
}

impl Shared {
    /// Whether a client may ask now.
    fn admits(&self, client: IpAddr) -> bool {
        self.limits.rate.admits(client, self.env.clock.instant())
    }

    fn decide(&self, client: IpAddr, query: &[u8], transport: Transport) -> Decision {
        let began = self.env.clock.instant();
        let number = self.env.entropy.number();
        let decision = decide(&self.zone.load(), client, query, transport, number);
        match decision {
            Decision::Reply(_) => self.count(Named::Own, began),
            Decision::Ignore => self.count(Named::Ignored, began),
            Decision::Forward => {}
        }
        decision
    }

    /// What upstream says, or that it says nothing.
    async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let zone = self.zone.load_full();
        let began = self.env.clock.instant();
        match self.upstream.ask(query, transport, |addr| zone.is_own(addr)).await {
            Some(reply) => {
                self.count(Named::Upstream, began);
                Some(reply)
            }
            None => {
                self.count(Named::Failed, began);
                fail(query)
            }
        }
    }

    fn count(&self, named: Named, began: Instant) {
        self.env.meters.dns.of(named).took(self.env.clock.instant().since(began));
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
        // Silence: an answer that says "slow down" would cost as much as any other.
        if !shared.admits(client.ip()) {
            continue;
        }
        let reply = match shared.decide(client.ip(), query, Transport::Udp) {
            Decision::Reply(reply) => Some(reply),
            Decision::Ignore => None,
            Decision::Forward => match shared.limits.forwards.take(client.ip()) {
                None => {
                    shared.count(Named::Failed, shared.env.clock.instant());
                    fail(query)
                }
                Some(permit) => {
                    let (socket, query) = (Arc::clone(&socket), query.to_vec());
                    let asker = Arc::clone(&shared);
                    shared.scope.spawn("dns forward", async move {
                        if let Some(reply) = asker.forward(&query, Transport::Udp).await {
                            send(&socket, &reply, client).await;
                        }
                        drop(permit);
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
                if let Some(permit) = shared.limits.streams.take(client.ip()) {
                    let server = Arc::clone(&shared);
                    shared.scope.spawn("dns stream", async move {
                        if let Err(error) = serve_stream(&server, client.ip(), stream).await {
                            tracing::trace!(%client, %error, "dns: stream");
                        }
                        drop(permit);
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
async fn serve_stream(
    shared: &Shared,
    client: IpAddr,
    mut stream: TcpStream,
) -> std::io::Result<()> {
    let clock = &shared.env.clock;
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    loop {
        let query = clock.timeout(IDLE_LIMIT, read(&mut stream)).await.map_err(late)??;
        if !shared.admits(client) {
            return Ok(());
        }
        let reply = match shared.decide(client, &query, Transport::Tcp) {
            Decision::Reply(reply) => Some(reply),
            Decision::Ignore => None,
            Decision::Forward => match shared.limits.forwards.take(client) {
                None => fail(&query),
                Some(_permit) => shared.forward(&query, Transport::Tcp).await,
            },
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
