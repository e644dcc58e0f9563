//! One connection to a manager: TCP, TLS, and the news of its end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::channels::ConnectionState;
use crate::env::{Env, Scope};
use crate::identity::{ClientTls, explain, manager_name};

/// For a TCP connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_000);
/// For the TLS handshake after it.
const HANDSHAKE_LIMIT: Duration = Duration::from_millis(2_000);
/// What was sent and is not acknowledged by the other side's kernel for this long will never be: the
/// connection ends. A silent manager must be noticed within a node's lease, so that the agent can be
/// with another one before it runs out.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_millis(1_500);
/// An idle connection is asked by this machine's kernel whether it stands, in seconds: the shortest
/// that there is.
const KEEP_ALIVE_SECONDS: u32 = 1;
/// How often a closed connection's address is probed for a refusal, and the pause before the second
/// probe, which doubles: a process that dies may close its connections before its port.
const PROBES: u32 = 5;
const PROBE_PAUSE: Duration = Duration::from_millis(10);
const PROBE_LIMIT: Duration = Duration::from_millis(300);

/// What is known of the connections to one address. The newest connection alone counts.
#[derive(Debug)]
pub(super) struct Line {
    addr: SocketAddr,
    env: Env,
    scope: Scope,
    state: watch::Sender<ConnectionState>,
    newest: AtomicU64,
    complaint: Mutex<Option<String>>,
}

impl Line {
    pub(super) fn new(addr: SocketAddr, env: Env, scope: Scope) -> Self {
        let state = watch::Sender::new(ConnectionState::Idle);
        Self { addr, env, scope, state, newest: AtomicU64::new(0), complaint: Mutex::new(None) }
    }

    pub(super) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// Why the last attempt or connection failed, in words, if it is known.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complain(&self, text: Option<String>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Connects as a node.
    pub(super) async fn dial(self: Arc<Self>, config: ClientTls) -> io::Result<Watched> {
        match connect(self.addr, config, &self.env).await {
            Ok(tls) => {
                let number = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
                self.complain(None);
                self.state.send_replace(ConnectionState::Connected);
                Ok(Watched { tls, line: self, number, is_closed: false })
            }
            Err(error) => {
                let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                self.complain(Some(error.to_string()));
                self.state.send_if_modified(|state| {
                    let next = ConnectionState::Closed { refused };
                    let changes = *state != ConnectionState::Connected && *state != next;
                    if changes {
                        *state = next;
                    }
                    changes
                });
                Err(error)
            }
        }
    }

    /// The connection is gone; whether anybody heard of it here.
    fn ended(&self, number: u64, next: ConnectionState) -> bool {
        self.state.send_if_modified(|state| {
            let changes = self.newest.load(Ordering::SeqCst) == number && *state != next;
            if changes {
                *state = next;
            }
            changes
        })
    }

    /// The other side closed the connection: does it still listen?
    fn probe(self: &Arc<Self>, number: u64) {
        let line = Arc::clone(self);
        self.scope.spawn("probe", async move {
            let mut pause = PROBE_PAUSE;
            for _ in 0..PROBES {
                let clock = &line.env.clock;
                match clock.timeout(PROBE_LIMIT, TcpStream::connect(line.addr)).await {
                    Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        line.ended(number, ConnectionState::Closed { refused: true });
                        return;
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
                clock.sleep(pause).await;
                pause *= 2;
                if line.newest.load(Ordering::SeqCst) != number {
                    return;
                }
            }
        });
    }
}

/// A TLS connection to whoever has a manager's certificate of the cluster. Errors are in words.
pub(super) async fn connect(
    addr: SocketAddr,
    config: ClientTls,
    env: &Env,
) -> io::Result<TlsStream<TcpStream>> {
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
    let tcp = env
        .clock
        .timeout(CONNECT_LIMIT, TcpStream::connect(addr))
        .await
        .map_err(|_| late("no answer: the host is down, or a firewall drops what is sent to it"))?
        .map_err(|error| io::Error::new(error.kind(), words(&error)))?;
    tcp.set_nodelay(true)?;
    keep_alive(&tcp)?;
    let name = manager_name().map_err(io::Error::other)?;
    env.clock
        .timeout(HANDSHAKE_LIMIT, TlsConnector::from(config).connect(name, tcp))
        .await
        .map_err(|_| {
            late("it accepts connections but does not answer: is this the port of a swarm manager?")
        })?
        .map_err(|error| io::Error::new(error.kind(), explain(&error)))
}

/// The kernels see to it that a host that is gone is noticed, and wake nobody while it is there.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    let unacknowledged = u32::try_from(UNACKNOWLEDGED_LIMIT.as_millis()).unwrap_or(u32::MAX);
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    setsockopt(tcp, sockopt::TcpKeepIdle, &KEEP_ALIVE_SECONDS)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &KEEP_ALIVE_SECONDS)?;
    setsockopt(tcp, sockopt::TcpUserTimeout, &unacknowledged)?;
    Ok(())
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no route to that address from this machine".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A connection that tells its line when it ends.
#[derive(Debug)]
pub(super) struct Watched {
    tls: TlsStream<TcpStream>,
    line: Arc<Line>,
    number: u64,
    is_closed: bool,
}

impl Watched {
    fn ended(&mut self, error: Option<&io::Error>) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        self.line.complain(error.map(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection broke off".to_owned(),
            _ => explain(error),
        }));
        if self.line.ended(self.number, ConnectionState::Closed { refused: false }) {
            self.line.probe(self.number);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_closed {
            self.line.ended(self.number, ConnectionState::Closed { refused: false });
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let space = buffer.remaining();
        let outcome = std::task::ready!(Pin::new(&mut self.tls).poll_read(cx, buffer));
        match &outcome {
            Ok(()) if space > 0 && buffer.filled().len() == before => self.ended(None),
            Ok(()) => {}
            Err(error) => self.ended(Some(error)),
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = std::task::ready!(Pin::new(&mut self.tls).poll_write(cx, bytes));
        if let Err(error) = &outcome {
            self.ended(Some(error));
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_watches_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&tcp).unwrap();
        assert!(getsockopt(&tcp, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&tcp, sockopt::TcpKeepIdle), Ok(1));
        assert_eq!(getsockopt(&tcp, sockopt::TcpKeepInterval), Ok(1));
        assert_eq!(getsockopt(&tcp, sockopt::TcpUserTimeout), Ok(1_500));
    }
}
