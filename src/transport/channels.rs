//! Channels to managers: one per address and lane, dialled when first used, again when broken, and
//! anew after the node's identity changed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use super::dial::Line;
use super::{LinkError, root_cause};
use crate::env::{Env, Scope};
use crate::identity::{Identity, IdentityError, SharedIdentity};
use crate::wire::node::RootCertificateRequest;
use crate::wire::node::certificate_authority_client::CertificateAuthorityClient;

/// What a connection is for: what must be quick does not share one with what is big.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Sessions, proposals, leases: what most calls are.
    Control,
    /// Raft's own messages.
    Raft,
    /// Snapshots and logs.
    Bulk,
}

/// What is known of the newest connection of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ConnectionState {
    /// None was made yet.
    #[default]
    Idle,
    /// It stands, as far as the kernel knows.
    Connected,
    /// It ended, or could not be made.
    Closed {
        /// The host answers that nothing listens: the process is gone, its host lives.
        refused: bool,
    },
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Channels {
    pool: Arc<Pool>,
}

struct Pool {
    identity: SharedIdentity,
    env: Env,
    scope: Scope,
    entries: Mutex<BTreeMap<(SocketAddr, Lane), Entry>>,
}

struct Entry {
    line: Arc<Line>,
    channel: Option<(Arc<Identity>, Channel)>,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

impl Channels {
    /// A pool that dials as the node's current identity; `scope` owns its routines.
    #[must_use]
    pub fn new(identity: SharedIdentity, env: Env, scope: Scope) -> Self {
        let entries = Mutex::new(BTreeMap::new());
        Self { pool: Arc::new(Pool { identity, env, scope, entries }) }
    }

    /// The channel for ordinary calls to a manager. Ask for it for each call, and it is always one
    /// of the current identity; set [`super::MAX_MESSAGE`] on the client made of it, and a deadline
    /// on every call.
    #[must_use]
    pub fn channel(&self, addr: SocketAddr) -> Channel {
        self.lane(addr, Lane::Control)
    }

    /// The channel of a lane to a manager.
    #[must_use]
    pub fn lane(&self, addr: SocketAddr, lane: Lane) -> Channel {
        let identity = self.pool.identity.current();
        self.with_entry(addr, lane, |entry| match &entry.channel {
            Some((of, channel)) if Arc::ptr_eq(of, &identity) => channel.clone(),
            Some(_) | None => {
                let channel = self.dialled(entry, lane);
                entry.channel = Some((identity, channel.clone()));
                channel
            }
        })
    }

    /// Follows the connection of a lane; changes as soon as the other side closes it. Makes no
    /// connection by itself: see [`Self::touch`].
    #[must_use]
    pub fn connection(&self, addr: SocketAddr, lane: Lane) -> watch::Receiver<ConnectionState> {
        self.with_entry(addr, lane, |entry| entry.line.state())
    }

    /// Makes sure that the connection of a lane stands, by asking for something small.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn touch(&self, addr: SocketAddr, lane: Lane) -> Result<(), LinkError> {
        let mut client = CertificateAuthorityClient::new(self.lane(addr, lane));
        let call = client.root_certificate(RootCertificateRequest {});
        match self.pool.env.clock.timeout(Duration::from_secs(3), call).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => match self.link_error(addr, lane, &status) {
                // It was reached, and cannot say much yet.
                LinkError::Closed { .. } => Ok(()),
                error => Err(error),
            },
            Err(late) => Err(LinkError::Unreachable { addr, reason: late.to_string() }),
        }
    }

    /// Drops the channels to an address (a manager that was removed). Calls that run go on.
    pub fn forget(&self, addr: SocketAddr) {
        let mut entries = self.pool.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(known, _), _| *known != addr);
    }

    /// What a failed call on a lane means.
    #[must_use]
    pub fn link_error(&self, addr: SocketAddr, lane: Lane, status: &tonic::Status) -> LinkError {
        use tonic::Code;
        // What the connection said is better than what the layers above made of it.
        let complaint = self.with_entry(addr, lane, |entry| entry.line.complaint());
        let said = |status: &tonic::Status| status.message().to_owned();
        match (status.code(), std::error::Error::source(status)) {
            (Code::NotFound, _) => LinkError::Removed,
            (Code::Unauthenticated | Code::PermissionDenied, _) => {
                LinkError::Refused { addr, reason: said(status) }
            }
            (_, Some(source)) => {
                let reason = complaint.unwrap_or_else(|| root_cause(source));
                LinkError::Unreachable { addr, reason }
            }
            (_, None) => LinkError::Closed { addr, reason: said(status) },
        }
    }

    fn with_entry<T>(&self, addr: SocketAddr, lane: Lane, f: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.pool.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry((addr, lane)).or_insert_with(|| {
            let line = Line::new(addr, self.pool.env.clone(), self.pool.scope.clone());
            Entry { line: Arc::new(line), channel: None }
        });
        f(entry)
    }

    fn dialled(&self, entry: &Entry, lane: Lane) -> Channel {
        let line = Arc::clone(&entry.line);
        let identity = self.pool.identity.clone();
        let clock = Arc::clone(&self.pool.env.clock);
        endpoint(lane).connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let line = Arc::clone(&line);
            let now = clock.now();
            let identity = identity.current();
            async move {
                // One that has yet to begin is tried: it may be this machine's clock that is behind.
                if let Err(expired @ IdentityError::Expired { .. }) =
                    identity.certificate.in_time(now)
                {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, expired));
                }
                line.dial(Arc::clone(&identity.client)).await.map(TokioIo::new)
            }
        }))
    }
}

/// Settings of a lane. The name is for HTTP/2 only; who is dialled is the connector's business.
///
/// A host that is gone is noticed by the kernel (`dial`); pings find a process that stands still. On the
/// lane of Raft that is found by heartbeats and elections, and every call has its limit.
fn endpoint(lane: Lane) -> Endpoint {
    let pings = |interval, timeout| {
        super::endpoint()
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
    };
    let (endpoint, window) = match lane {
        // A manager that stands still must be noticed within a node's lease, so that the agent can be
        // with another one before it runs out.
        Lane::Control => (pings(Duration::from_millis(500), Duration::from_millis(1_000)), 1 << 20),
        Lane::Raft => (super::endpoint(), 1 << 20),
        Lane::Bulk => {
            let pings = pings(Duration::from_secs(2), Duration::from_secs(4));
            (pings.keep_alive_while_idle(false), 4 << 20)
        }
    };
    endpoint
        .initial_stream_window_size(Some(window))
        .initial_connection_window_size(Some(window * 2))
}
