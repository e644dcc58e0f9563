//! Real TLS over loopback: who gets in, who does not, and what they are told.

mod dialogue;
mod doors;
mod joining;
mod links;
mod matrix;
mod roots;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::*;
use crate::domain::cluster::{AddressPool, ClusterSpec};
use crate::domain::node::Role;
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, ClusterId, Meta, NetworkId, NodeId, Timestamp};
use crate::env::{Clock, Env, Instant, Scope, SystemClock};
use crate::identity::{
    Credentials, NodeIdentity, NodeKey, Requirement, SharedIdentity, authority, token,
};
use crate::wire::node::certificate_authority_server::{
    CertificateAuthority, CertificateAuthorityServer,
};
use crate::wire::node::dispatcher_server::{Dispatcher, DispatcherServer};
use crate::wire::node::{
    AgentMessage, IssueReply, IssueRequest, ManagerMessage, RootCertificateReply,
    RootCertificateRequest, Welcome, manager_message,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The system's clock, at a later time; or set, which is another thing.
#[derive(Debug, Default)]
struct ShiftedClock {
    system: SystemClock,
    /// Nanoseconds that have passed besides.
    ahead: AtomicU64,
    /// Nanoseconds by which the wall clock was set forward.
    set: AtomicU64,
}

impl ShiftedClock {
    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Ordering::SeqCst))
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let set = Duration::from_nanos(self.set.load(Ordering::SeqCst));
        self.system.now().after(self.ahead()).after(set)
    }

    fn instant(&self) -> Instant {
        self.system.instant().after(self.ahead())
    }

    fn sleep(
        &self,
        duration: Duration,
    ) -> std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send>> {
        self.system.sleep(duration)
    }
}

/// What the state of the test's cluster says.
#[derive(Debug, Default)]
struct TestRoster {
    removed: Mutex<BTreeSet<NodeId>>,
    demoted: Mutex<BTreeSet<NodeId>>,
}

#[async_trait]
impl Roster for TestRoster {
    async fn standing(&self, peer: NodeIdentity, requirement: Requirement) -> Standing {
        if self.removed.lock().unwrap().contains(&peer.node) {
            Standing::Removed
        } else if requirement.role() == Some(Role::Manager)
            && self.demoted.lock().unwrap().contains(&peer.node)
        {
            Standing::Demoted
        } else {
            Standing::Good
        }
    }
}

/// A manager that issues by token or certificate, and answers each message of a session.
#[derive(Clone)]
struct TestManager {
    cluster: Arc<Mutex<Cluster>>,
    env: Env,
    /// By how many seconds the clock that it signs by is ahead; negative: behind.
    skew: Arc<AtomicI64>,
}

impl TestManager {
    fn sign(&self, request: authority::Request, identity: NodeIdentity) -> IssueReply {
        let cluster = self.cluster.lock().unwrap().clone();
        let skew = self.skew.load(Ordering::SeqCst) * 1_000_000_000;
        let now = Timestamp(self.env.clock.now().0.saturating_add_signed(skew));
        let pem = authority::sign(&cluster.authority, request, identity, now, 90 * DAY).unwrap();
        IssueReply {
            node: identity.node.to_bytes().to_vec().into(),
            certificate_pem: pem,
            root_pem: cluster.authority.root_pem,
            ..IssueReply::default()
        }
    }
}

#[async_trait]
impl CertificateAuthority for TestManager {
    async fn root_certificate(
        &self,
        _: Request<RootCertificateRequest>,
    ) -> Result<Response<RootCertificateReply>, Status> {
        let root_pem = self.cluster.lock().unwrap().authority.root_pem.clone();
        Ok(Response::new(RootCertificateReply { root_pem }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let known = peer(&request);
        let request = request.into_inner();
        let csr = authority::Request::from_pem(&request.csr_pem).unwrap();
        let identity = if request.token.is_empty() {
            known?
        } else {
            let cluster = self.cluster.lock().unwrap().clone();
            let role = token::verify(&cluster, &request.token)
                .map_err(|error| Status::permission_denied(error.to_string()))?;
            NodeIdentity { cluster: cluster.id, node: csr.node_id(), role }
        };
        Ok(Response::new(self.sign(csr, identity)))
    }
}

#[async_trait]
impl Dispatcher for TestManager {
    type SessionStream = ReceiverStream<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<tonic::Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let session = peer(&request)?.node.to_bytes().to_vec();
        let mut messages = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        Scope::root("test").spawn("session", async move {
            while let Ok(Some(_)) = messages.message().await {
                let welcome = Welcome { session: session.clone().into(), heartbeat_ms: 250 };
                let kind = Some(manager_message::Kind::Welcome(welcome));
                if sender.send(Ok(ManagerMessage { kind })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One manager on a loopback port.
struct Harness {
    clock: Arc<ShiftedClock>,
    env: Env,
    scope: Scope,
    server: Scope,
    cluster: Arc<Mutex<Cluster>>,
    skew: Arc<AtomicI64>,
    roster: Arc<TestRoster>,
    addr: SocketAddr,
}

fn new_cluster(number: u8, now: Timestamp) -> Cluster {
    let id = ClusterId::from_bytes([number; 16]);
    Cluster {
        id,
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        authority: authority::create(id, now).unwrap(),
        token_key: Sensitive::new(&[number; 32]),
        worker_token: 1,
        manager_token: 1,
        pool: AddressPool { base: [10, 0, 0, 0].into(), prefix: 8, subnet_size: 24 },
        default_network: NetworkId::from_bytes([1; 16]),
        data_path_port: 4789,
        format: crate::domain::Format::FIRST,
        autolock: crate::domain::Autolock::default(),
        trust: crate::domain::cluster::Trust::default(),
    }
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

impl Harness {
    async fn start(limits: Limits) -> Self {
        let clock = Arc::new(ShiftedClock::default());
        let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Env::system() };
        let cluster = Arc::new(Mutex::new(new_cluster(1, env.clock.now())));
        let scope = Scope::root("test");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let harness = Self {
            addr: listener.local_addr().unwrap(),
            server: scope.child("server"),
            roster: Arc::default(),
            skew: Arc::default(),
            clock,
            env,
            scope,
            cluster,
        };
        harness.serve(listener, limits);
        harness
    }

    fn serve(&self, listener: TcpListener, limits: Limits) {
        let manager = TestManager {
            cluster: Arc::clone(&self.cluster),
            env: self.env.clone(),
            skew: Arc::clone(&self.skew),
        };
        let serving = Serving {
            identity: self.identity(100, Role::Manager),
            roster: Arc::clone(&self.roster) as Arc<dyn Roster>,
            routes: Routes::new(CertificateAuthorityServer::new(manager.clone()))
                .add_service(DispatcherServer::new(manager)),
            env: self.env.clone(),
            limits,
        };
        let scope = self.server.clone();
        self.server.spawn("serve", async move {
            drop(serve(listener, serving, &scope).await);
        });
    }

    fn credentials(&self, of: NodeIdentity) -> Credentials {
        credentials(&self.cluster.lock().unwrap(), of, self.env.clock.now())
    }

    fn member(&self, number: u8, role: Role) -> NodeIdentity {
        NodeIdentity { cluster: self.cluster.lock().unwrap().id, node: node(number), role }
    }

    fn identity(&self, number: u8, role: Role) -> SharedIdentity {
        self.shared(self.member(number, role))
    }

    fn shared(&self, of: NodeIdentity) -> SharedIdentity {
        let credentials = self.credentials(of);
        SharedIdentity::new(credentials.identity(&self.env.clock).unwrap())
    }

    fn channels(&self, identity: &SharedIdentity) -> Channels {
        Channels::new(identity.clone(), self.env.clone(), self.scope.clone())
    }

    fn link(&self, identity: &SharedIdentity) -> GrpcLink {
        GrpcLink::new(self.channels(identity), self.env.clone(), self.scope.clone())
    }

    fn token(&self, role: Role) -> String {
        token::make(&self.cluster.lock().unwrap(), role).unwrap()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

fn credentials(cluster: &Cluster, of: NodeIdentity, now: Timestamp) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let request = authority::Request::from_pem(&key.request().unwrap()).unwrap();
    let pem = authority::sign(&cluster.authority, request, of, now, 90 * DAY).unwrap();
    Credentials {
        key_pem: key.pem(),
        certificate_pem: pem,
        root_pem: cluster.authority.root_pem.clone(),
    }
}

/// Fails instead of hanging.
async fn soon<T>(future: impl std::future::Future<Output = T>) -> T {
    Env::system().clock.timeout(Duration::from_secs(10), future).await.expect("takes too long")
}
