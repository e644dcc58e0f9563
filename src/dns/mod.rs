//! Names of services and tasks, for the containers of this node.
//!
//! One server per node on a wildcard socket; the packet filter (`overlay`) redirects port 53 of the
//! node's gateways to it and closes it to everybody else. Answers come from the node's assignment set,
//! so names work without managers; the address of the client tells which networks it sees. Other names
//! go to the host's name servers. There is no cache, no recursion of our own, no zone transfer.
//!
//! `zone` (pure): assignments → names · `answer` (pure): query → reply · `server`: sockets · `limits`: how
//! much one client may ask · `upstream`: forwarding. Requests and messages are hickory's; the loop of its server is not
//! used, as it bounds neither connections nor queries.

mod answer;
#[cfg(test)]
pub(crate) mod fuzz;
mod limits;
mod server;
mod upstream;
mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use crate::domain::{AssignmentSet, NodeId, TaskId};
use crate::env::{Env, Scope};
use server::{Limits, Shared, serve_tcp, serve_udp};
use upstream::Upstream;
use zone::Zone;

/// How often a port is tried that is free for datagrams but not for streams, if any port will do.
const BIND_ATTEMPTS: usize = 16;

/// What the server must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP and TCP port, on all addresses; 0 lets the system choose.
    pub port: u16,
    /// This node.
    pub node: NodeId,
    /// Where other names are asked for; `None` for the name servers of the host.
    pub upstreams: Option<Vec<SocketAddr>>,
}

/// Why names cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be opened.
    #[error("cannot serve DNS on port {port}: is another program listening there?")]
    Bind {
        /// The port.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What a node reads for names.
#[derive(Debug)]
pub struct Sources {
    /// What the managers want here.
    pub assignments: watch::Receiver<Arc<AssignmentSet>>,
    /// What this node knows better, before the managers do: `false` takes a task out of all answers.
    pub local: watch::Receiver<Arc<BTreeMap<TaskId, bool>>>,
}

/// A running server.
#[derive(Clone, Debug)]
pub struct Handle {
    port: u16,
}

impl Handle {
    /// The port it serves on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// Opens the sockets and serves until the scope ends.
///
/// # Errors
/// When the port cannot be opened.
pub async fn start(
    settings: Settings,
    env: Env,
    mut sources: Sources,
    scope: Scope,
) -> Result<Handle, Error> {
    let (udp, tcp, port) =
        bind(settings.port).await.map_err(|source| Error::Bind { port: settings.port, source })?;
    let node = settings.node;
    let shared = Arc::new(Shared {
        upstream: Upstream::new(env.clone(), settings.upstreams),
        env,
        scope: scope.clone(),
        zone: ArcSwap::from_pointee(look(&mut sources, node)),
        limits: Limits::default(),
    });
    scope.spawn("dns zone", follow(Arc::clone(&shared), sources, node));
    scope.spawn("dns datagrams", serve_udp(Arc::clone(&shared), Arc::new(udp)));
    scope.spawn("dns streams", serve_tcp(shared, tcp));
    Ok(Handle { port })
}

/// What names stand for on a node, without the server; for whoever checks that names follow.
#[derive(Clone, Debug)]
pub struct Names {
    zone: Zone,
}

impl Names {
    /// The names of an assignment set, without the tasks that are `false` in `local`.
    #[must_use]
    pub fn new(set: &AssignmentSet, node: NodeId, local: &BTreeMap<TaskId, bool>) -> Self {
        Self { zone: Zone::new(set, node, local) }
    }

    /// The addresses behind a name (lower case) for the node itself; `None` if it is no name of ours.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Option<BTreeSet<IpAddr>> {
        let sight = self.zone.sight(Ipv4Addr::LOCALHOST.into())?;
        sight.entry(name).map(|entry| entry.addresses)
    }
}

async fn bind(port: u16) -> std::io::Result<(UdpSocket, TcpListener, u16)> {
    let mut attempt = 0;
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        let chosen = udp.local_addr()?.port();
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, chosen)).await {
            Ok(tcp) => return Ok((udp, tcp, chosen)),
            Err(_) if port == 0 && attempt < BIND_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn look(sources: &mut Sources, node: NodeId) -> Zone {
    let set = Arc::clone(&sources.assignments.borrow_and_update());
    let local = Arc::clone(&sources.local.borrow_and_update());
    Zone::new(&set, node, &local)
}

/// Makes the zone anew on each change, until a source is gone.
async fn follow(shared: Arc<Shared>, mut sources: Sources, node: NodeId) {
    loop {
        let changed = tokio::select! {
            changed = sources.assignments.changed() => changed,
            changed = sources.local.changed() => changed,
        };
        if changed.is_err() {
            // The agent is ending; the last names stay until the scope ends.
            return;
        }
        let zone = look(&mut sources, node);
        if zone != **shared.zone.load() {
            shared.zone.store(Arc::new(zone));
        }
    }
}
