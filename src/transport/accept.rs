//! The manager's side: accept, handshake, gate, serve.
//!
//! Whoever connects has a few seconds for the handshake and one of a bounded number of places for
//! it; whoever has no certificate has one of a bounded number of places for half a minute. Neither
//! can hold up those who have one.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::service::Routes;
use tonic::transport::server::Connected;

use super::gate::{Gate, Peer, PeerIdentity, Roster, Standing};
use super::slots::{Slot, Slots};
use crate::domain::node::Role;
use crate::env::{Env, Scope, Seldom};
use crate::identity::{Certificate, NodeIdentity, Requirement, SharedIdentity, explain};

/// Who called and was not heard from for this long is asked whether it is still there. That frees what a
/// connection holds; whether a node lives is found by its own beats, and sooner.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_LIMIT: Duration = Duration::from_secs(4);

/// How much of the server strangers may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// Connections in their handshake.
    pub pending: usize,
    /// Of these, from one address.
    pub pending_per_ip: usize,
    /// For everything a connection without a certificate does.
    pub anonymous_age: Duration,
    /// Connections without a certificate.
    pub anonymous: usize,
    /// Of these, from one address.
    pub anonymous_per_ip: usize,
    /// Connections of one node.
    pub per_node: usize,
    /// Between two looks whether connected nodes were removed.
    pub sweep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            pending: 1024,
            pending_per_ip: 256,
            anonymous_age: Duration::from_secs(30),
            anonymous: 256,
            anonymous_per_ip: 64,
            per_node: 64,
            sweep: Duration::from_secs(2),
        }
    }
}

/// What is served, to whom.
#[derive(Clone)]
pub struct Serving {
    /// Whose port it is.
    pub identity: SharedIdentity,
    /// Who may call.
    pub roster: Arc<dyn Roster>,
    /// The services.
    pub routes: Routes,
    /// The world.
    pub env: Env,
    /// Bounds.
    pub limits: Limits,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Serves until dropped, which closes the port and all connections. Handshakes run as routines of
/// `scope`.
///
/// # Errors
/// When the server ends by itself, which it does not do while the listener works.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    scope: &Scope,
) -> Result<(), tonic::transport::Error> {
    let everything = CancellationToken::new();
    let _closes_all = everything.clone().drop_guard();
    let (sender, connections) = mpsc::channel(64);
    let gate = Gate {
        identity: serving.identity.clone(),
        roster: Arc::clone(&serving.roster),
        clock: Arc::clone(&serving.env.clock),
    };
    let routes = serving.routes.clone();
    let door = Arc::new(Door::new(serving, scope.clone(), sender, &everything));
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_LIMIT))
        .http2_max_header_list_size(16 * 1024)
        .http2_max_pending_accept_reset_streams(Some(64))
        .max_concurrent_streams(Some(1024))
        .initial_stream_window_size(Some(1024 * 1024))
        .initial_connection_window_size(Some(2 * 1024 * 1024))
        .layer(gate)
        .add_routes(routes)
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        outcome = server => outcome,
        () = accept(&listener, &door) => Ok(()),
        () = door.sweep() => Ok(()),
    }
}

async fn accept(listener: &TcpListener, door: &Arc<Door>) {
    let mut failures = Seldom::default();
    loop {
        match listener.accept().await {
            Ok((tcp, addr)) => {
                let door = Arc::clone(door);
                let slot = door.pending.enter(addr.ip());
                door.clone().scope.spawn("handshake", async move {
                    door.welcome(tcp, addr, slot).await;
                });
            }
            Err(error) => {
                // Out of file descriptors or memory, or the caller went away while it waited.
                let clock = &door.serving.env.clock;
                if let Some(times) = failures.again(clock.instant()) {
                    tracing::warn!(%error, times, "connections could not be accepted");
                }
                clock.sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Everything that stands between a TCP connection and the services.
struct Door {
    serving: Serving,
    scope: Scope,
    inside: mpsc::Sender<io::Result<Connection>>,
    pending: Slots<IpAddr>,
    anonymous: Slots<IpAddr>,
    members: Slots<NodeIdentity>,
}

impl Door {
    fn new(
        serving: Serving,
        scope: Scope,
        inside: mpsc::Sender<io::Result<Connection>>,
        all: &CancellationToken,
    ) -> Self {
        let limits = serving.limits;
        Self {
            pending: Slots::new(limits.pending, limits.pending_per_ip, all),
            anonymous: Slots::new(limits.anonymous, limits.anonymous_per_ip, all),
            members: Slots::new(usize::MAX, limits.per_node, all),
            serving,
            scope,
            inside,
        }
    }

    async fn welcome(&self, tcp: TcpStream, addr: SocketAddr, slot: Slot<IpAddr>) {
        let handshake = self.serving.env.clock.timeout(self.serving.limits.handshake, async {
            tcp.set_nodelay(true)?;
            let config = Arc::clone(&self.serving.identity.current().server);
            TlsAcceptor::from(config).accept(tcp).await
        });
        let outcome = tokio::select! {
            biased;
            () = slot.token().cancelled() => {
                tracing::debug!(%addr, "dropped before its handshake: too many are waiting");
                return;
            }
            outcome = handshake => outcome,
        };
        match outcome {
            Ok(Ok(tls)) => {
                if let Some(connection) = self.seat(tls, addr) {
                    // The server is gone if this fails, and the connection with it.
                    drop(self.inside.send(Ok(connection)).await);
                }
            }
            Ok(Err(error)) => tracing::debug!(%addr, reason = explain(&error), "no TLS handshake"),
            Err(elapsed) => tracing::debug!(%addr, %elapsed, "no TLS handshake"),
        }
    }

    /// A place for a connection, by what its certificate says.
    fn seat(&self, tls: TlsStream<TcpStream>, addr: SocketAddr) -> Option<Connection> {
        let first = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let Some(der) = first else {
            let slot = self.anonymous.enter(addr.ip());
            self.expire(slot.token().clone());
            let token = slot.token().clone();
            let who = PeerIdentity { addr, peer: None };
            return Some(Connection::new(tls, who, &token, Seat::Anonymous { _slot: slot }));
        };
        match Certificate::from_der(der) {
            Ok(certificate) => {
                let clock = &self.serving.env.clock;
                let left = certificate.not_after.since(clock.now());
                let expires = clock.instant().after(left);
                let peer = Peer { identity: certificate.identity, expires };
                let slot = self.members.enter(peer.identity);
                let token = slot.token().clone();
                self.follow_roots(&tls, token.clone());
                let who = PeerIdentity { addr, peer: Some(peer) };
                Some(Connection::new(tls, who, &token, Seat::Member { _slot: slot }))
            }
            Err(error) => {
                tracing::warn!(%addr, %error, "a certificate of the cluster's root names no node");
                None
            }
        }
    }

    fn expire(&self, token: CancellationToken) {
        let age = self.serving.env.clock.sleep(self.serving.limits.anonymous_age);
        self.scope.spawn("anonymous connection", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = age => token.cancel(),
            }
        });
    }

    /// Closes a connection once its certificate leads to no root any more that this node trusts. A
    /// node that has followed the roots connects again.
    fn follow_roots(&self, tls: &TlsStream<TcpStream>, token: CancellationToken) {
        let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = shown.iter().map(|der| der.clone().into_owned()).collect();
        let clock = Arc::clone(&self.serving.env.clock);
        // As above: what the wall clock was at the handshake, and the time that has passed.
        let (shaken_at, began) = (clock.now(), clock.instant());
        let mut identity = self.serving.identity.watch();
        identity.mark_changed();
        self.scope.spawn("roots of a connection", async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    changed = identity.changed() => if changed.is_err() { return },
                }
                let now = shaken_at.after(clock.instant().since(began));
                if !identity.borrow_and_update().knows(&chain, now) {
                    return token.cancel();
                }
            }
        });
    }

    /// Closes the connections of nodes that were removed, and those that were opened as a manager
    /// by a node that is none any more, streams and all.
    async fn sweep(&self) {
        loop {
            self.serving.env.clock.sleep(self.serving.limits.sweep).await;
            let peers = self.members.keys();
            // All at once: a standing that only the leader knows holds up no other.
            futures::future::join_all(peers.into_iter().map(|peer| self.review(peer))).await;
        }
    }

    async fn review(&self, peer: NodeIdentity) {
        let requirement = match peer.role {
            Role::Worker => Requirement::Member,
            Role::Manager => Requirement::Manager,
        };
        match self.serving.roster.standing(peer, requirement).await {
            Standing::Good | Standing::Unknown => {}
            Standing::Removed => {
                tracing::info!(node = %peer.node, "closing connections of a removed node");
                self.members.evict(peer);
            }
            Standing::Demoted => {
                tracing::info!(node = %peer.node, "closing a former manager's connections");
                self.members.evict(peer);
            }
        }
    }
}

/// Holds the place while the connection lives.
enum Seat {
    Anonymous { _slot: Slot<IpAddr> },
    Member { _slot: Slot<NodeIdentity> },
}

/// A connection after its handshake, which ends when its place is lost.
pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    who: PeerIdentity,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    is_lost: bool,
    _seat: Seat,
}

impl Connection {
    fn new(
        tls: TlsStream<TcpStream>,
        who: PeerIdentity,
        token: &CancellationToken,
        seat: Seat,
    ) -> Self {
        let lost = Box::pin(token.clone().cancelled_owned());
        Self { tls, who, lost, is_lost: false, _seat: seat }
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.who.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_lost {
            self.is_lost = self.lost.poll_unpin(cx).is_ready();
        }
        if self.is_lost {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_lost {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_lost {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
