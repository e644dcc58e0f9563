//! The ways between agents and managers, over messages of the simulated network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use swarm::ca::StateRoster;
use swarm::daemon::duties::Duties;
use swarm::domain::node::Role;
use swarm::domain::{ClusterId, NodeId, RaftId};
use swarm::env::{Env, Scope};
use swarm::identity::{NodeIdentity, Requirement};
use swarm::leader::{LeaseError, LeaseLink, LeaseRpc};
use swarm::raft::{Peer, PeerError, Store};
use swarm::transport::{LinkError, ManagerLink, Roster as _, SessionLink, Standing};
use swarm::wire::manager::LeaseBatch;
use swarm::wire::node::{AgentMessage, LogMessage, ManagerMessage};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

use crate::net::{self, Answer, Call, End, Host, Net, Packet};

/// As in `transport`.
const OPEN_LIMIT: Duration = Duration::from_millis(3_500);
const QUEUE: usize = 64;
/// The cluster of all runs.
pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);

/// Where what comes out of a connection goes in a process.
#[derive(Debug)]
pub(crate) enum Pipe {
    Agent(SocketAddr, UnboundedSender<Result<ManagerMessage, LinkError>>),
    Manager(UnboundedSender<Result<AgentMessage, Status>>),
}

/// The ends of connections in a process.
pub(crate) type Pipes = Arc<Mutex<BTreeMap<(u64, End), Pipe>>>;

/// Whoever an address belongs to.
fn peer(addr: SocketAddr) -> Peer {
    Peer { id: RaftId(0), addr }
}

/// An agent's ways to the managers.
#[derive(Clone, Debug)]
pub(crate) struct AgentLink {
    pub(crate) net: Net,
    pub(crate) host: Host,
    pub(crate) node: NodeId,
    /// What its certificate says.
    pub(crate) certificate: Arc<Mutex<Role>>,
    pub(crate) env: Env,
    pub(crate) scope: Scope,
    pub(crate) pipes: Pipes,
}

#[async_trait]
impl ManagerLink for AgentLink {
    async fn open(&self, addr: SocketAddr) -> Result<SessionLink, LinkError> {
        let silent = |reason: String| LinkError::Unreachable { addr, reason };
        let target = net::host(addr).ok_or_else(|| silent("no such host".to_owned()))?;
        let conn = self.net.connect(self.host, target);
        let (told, mut relay) = mpsc::unbounded_channel();
        let key = (conn, End::Agent);
        self.pipes.lock().unwrap().insert(key, Pipe::Agent(addr, told));
        let call = Call::Open(conn, self.node, *self.certificate.lock().unwrap());
        let opened = self.net.ask(&self.env, self.host, (peer(addr), call), OPEN_LIMIT).await;
        if let Err(error) = opened {
            self.pipes.lock().unwrap().remove(&key);
            self.net.reset(conn, End::Agent);
            return Err(match error {
                PeerError::Refused(_) => LinkError::Removed,
                other => silent(other.to_string()),
            });
        }
        let (outgoing, mut requests) = mpsc::channel(QUEUE);
        let (replies, incoming) = mpsc::channel(QUEUE);
        self.scope.spawn("session in", async move {
            while let Some(item) = relay.recv().await {
                if replies.send(item).await.is_err() {
                    return;
                }
            }
        });
        let (net, pipes) = (self.net.clone(), Arc::clone(&self.pipes));
        self.scope.spawn("session out", async move {
            while let Some(message) = requests.recv().await {
                net.say(conn, End::Manager, Packet::Said(message));
            }
            net.close(conn, End::Agent);
            pipes.lock().unwrap().remove(&key);
        });
        Ok(SessionLink { outgoing, incoming })
    }

    async fn publish_logs(&self, addr: SocketAddr) -> Result<mpsc::Sender<LogMessage>, LinkError> {
        Err(LinkError::Unreachable { addr, reason: "output is not simulated".to_owned() })
    }
}

/// A manager's way to the leader's table of leases.
#[derive(Debug)]
pub(crate) struct LeaseWay {
    pub(crate) net: Net,
    pub(crate) host: Host,
    pub(crate) env: Env,
}

#[async_trait]
impl LeaseLink for LeaseWay {
    async fn renew(&self, addr: SocketAddr, batch: LeaseBatch) -> Result<(), LeaseError> {
        let call = Call::Leases(batch);
        let answer = self.net.ask(&self.env, self.host, (peer(addr), call), OPEN_LIMIT).await;
        answer.map(|_| ()).map_err(|error| LeaseError::Refused(error.to_string()))
    }
}

/// A manager, as those see it who call it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) net: Net,
    pub(crate) host: Host,
    pub(crate) env: Env,
    pub(crate) scope: Scope,
    pub(crate) pipes: Pipes,
    pub(crate) store: Store,
    pub(crate) duties: Duties,
}

impl Door {
    /// Takes another manager's leases.
    pub(crate) fn leases(&self, batch: &LeaseBatch) -> Result<Answer, PeerError> {
        let rpc = LeaseRpc::new(self.env.clone(), self.duties.leases.clone());
        let taken = rpc.take(batch);
        taken.map(|()| Answer::Done).map_err(|status| PeerError::Other(status.to_string()))
    }

    /// Opens a session with a node, as the gate of `transport` lets it in.
    pub(crate) async fn open(
        self,
        conn: u64,
        node: NodeId,
        role: Role,
    ) -> Result<Answer, PeerError> {
        let identity = NodeIdentity { cluster: CLUSTER, node, role };
        let roster = StateRoster::new(self.store.clone());
        match roster.standing(identity, Requirement::Member).await {
            Standing::Good | Standing::Demoted => {}
            Standing::Removed => return Err(PeerError::Refused("removed".to_owned())),
            Standing::Unknown => return Err(PeerError::Other("unknown here".to_owned())),
        }
        let (said, inbox) = mpsc::unbounded_channel();
        let key = (conn, End::Manager);
        self.pipes.lock().unwrap().insert(key, Pipe::Manager(said));
        let inbox = UnboundedReceiverStream::new(inbox);
        let mut outbox = self.duties.dispatcher.accept(identity, inbox);
        let (net, pipes, addr) = (self.net, self.pipes, net::addr(self.host));
        self.scope.spawn("session", async move {
            while let Some(item) = outbox.recv().await {
                let item = item.map_err(|status| link_error(addr, &status));
                net.say(conn, End::Agent, Packet::Told(item));
            }
            net.close(conn, End::Manager);
            pipes.lock().unwrap().remove(&key);
        });
        Ok(Answer::Done)
    }
}

/// As `transport::Channels::link_error` reads what a manager says.
fn link_error(addr: SocketAddr, status: &Status) -> LinkError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::NotFound => LinkError::Removed,
        Code::Unauthenticated | Code::PermissionDenied => LinkError::Refused { addr, reason },
        _ => LinkError::Closed { addr, reason },
    }
}

/// Hands over what came out of a connection.
pub(crate) fn deliver(net: &Net, pipes: &Pipes, (conn, end): (u64, End), packet: Packet) {
    let mut pipes = pipes.lock().unwrap();
    let Some(pipe) = pipes.get(&(conn, end)) else {
        return net.reset(conn, end);
    };
    let is_last = matches!(packet, Packet::Closed | Packet::Broken);
    let heard = match (pipe, packet) {
        (Pipe::Agent(_, told), Packet::Told(item)) => told.send(item).is_ok(),
        (Pipe::Agent(addr, told), Packet::Broken) => {
            let reason = "the connection is dead".to_owned();
            told.send(Err(LinkError::Closed { addr: *addr, reason })).is_ok()
        }
        (Pipe::Manager(said), Packet::Said(message)) => said.send(Ok(message)).is_ok(),
        (Pipe::Manager(said), Packet::Broken) => {
            said.send(Err(Status::unavailable("the connection is dead"))).is_ok()
        }
        (Pipe::Agent(..) | Pipe::Manager(_), _) => true,
    };
    if is_last || !heard {
        pipes.remove(&(conn, end));
    }
    // Who listened ended within a process that goes on, as the manager half of a node that was demoted.
    if !is_last && !heard {
        net.reset(conn, end);
    }
}
