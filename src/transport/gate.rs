//! The gate: who calls, and whether they may, before any handler runs.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::env::{Clock, Instant};
use crate::identity::{NodeIdentity, Requirement, SharedIdentity, permitted};

/// Who is at the other end of a connection; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// Its address.
    pub addr: SocketAddr,
    /// What its certificate says; `None` without one.
    pub peer: Option<Peer>,
}

/// A peer with a certificate of this cluster's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the certificate says.
    pub identity: NodeIdentity,
    /// Until when, by the clock that nobody can set: the wall clock counts at the handshake only. One that
    /// is set would cut this node off from the whole swarm.
    pub expires: Instant,
}

/// The node that made a request. Behind a `Member` requirement it is always there.
///
/// # Errors
/// `Unauthenticated` when the connection has no certificate.
pub fn peer<T>(request: &tonic::Request<T>) -> Result<NodeIdentity, Status> {
    request
        .extensions()
        .get::<PeerIdentity>()
        .and_then(|who| who.peer)
        .map(|peer| peer.identity)
        .ok_or_else(no_certificate)
}

/// What the cluster's state says of a node with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is what its certificate says, as far as is required.
    Good,
    /// It is a node, but not (any more) of the required role.
    Demoted,
    /// It is not a node (any more), and that is certain.
    Removed,
    /// Nobody can say now: this manager does not know the node and has no quorum to ask.
    Unknown,
}

/// The cluster's state, as the gate asks for it.
#[async_trait]
pub trait Roster: Send + Sync + Debug {
    /// The standing of a node. Quick when the answer is good; may ask the leader before it is bad.
    async fn standing(&self, peer: NodeIdentity, requirement: Requirement) -> Standing;
}

/// What the gate decides by.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) identity: SharedIdentity,
    pub(super) roster: Arc<dyn Roster>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Gate {
    async fn admit(&self, path: &str, who: Option<&PeerIdentity>) -> Result<(), Status> {
        let Some(requirement) = permitted(path) else {
            return Err(Status::permission_denied(format!("there is no call {path}")));
        };
        let peer = who.and_then(|who| who.peer);
        if let Some(peer) = peer {
            self.check_certificate(peer)?;
        }
        let Some(role) = requirement.role() else { return Ok(()) };
        let Some(peer) = peer else { return Err(no_certificate()) };
        if peer.identity.role < role {
            return Err(Status::permission_denied(
                "a worker's certificate does not permit this: it is for managers",
            ));
        }
        match self.roster.standing(peer.identity, requirement).await {
            Standing::Good => Ok(()),
            Standing::Demoted => Err(Status::permission_denied(
                "this node is no manager any more: its certificate is to be renewed",
            )),
            Standing::Removed => Err(Status::not_found(
                "this node was removed from the swarm; run `swarm leave --force` on it, then join again",
            )),
            Standing::Unknown => Err(Status::unavailable(
                "this manager does not know the node and cannot ask the others: the swarm has no leader",
            )),
        }
    }

    fn check_certificate(&self, peer: Peer) -> Result<(), Status> {
        if peer.identity.cluster != self.identity.current().certificate.identity.cluster {
            return Err(Status::permission_denied("the certificate is of another swarm"));
        }
        // It was valid when the connection was made; connections may live longer than certificates.
        if self.clock.instant() > peer.expires {
            return Err(Status::unauthenticated(
                "the certificate has expired since the connection was made: connect again with the renewed one",
            ));
        }
        Ok(())
    }
}

fn no_certificate() -> Status {
    Status::unauthenticated("this needs the certificate of a node of the swarm")
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let who = request.extensions().get::<PeerIdentity>().cloned();
            match gate.admit(request.uri().path(), who.as_ref()).await {
                Ok(()) => inner.call(request).await,
                Err(status) => {
                    let path = request.uri().path();
                    tracing::debug!(path, ?who, reason = status.message(), "call refused");
                    Ok(status.into_http())
                }
            }
        })
    }
}
