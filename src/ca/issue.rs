//! The gRPC service `CertificateAuthority`: the only calls that strangers may make.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tonic::{Request, Response, Status};

use super::limiter::Limiter;
use super::{READ_LIMIT, WRITE_LIMIT, not_read, not_written};
use crate::domain::cluster::MANAGERS_MAX;
use crate::domain::node::{Availability, Membership, Role};
use crate::domain::{Cluster, Node, NodeId, Timestamp};
use crate::env::{Env, Point};
use crate::identity::authority::{self, Issued};
use crate::identity::{Certificate, IdentityError, NodeIdentity, token};
use crate::raft::{ProposeError, Store};
use crate::state::{Change, Expect, Object, Rejection, State, View};
use crate::transport::PeerIdentity;
use crate::wire::node::certificate_authority_server::{
    CertificateAuthority, CertificateAuthorityServer,
};
use crate::wire::node::{
    IssueReply, IssueRequest, ManagerAddr, RootCertificateReply, RootCertificateRequest,
};

/// Largest request of a stranger, in bytes.
const REQUEST_MAX: usize = 64 * 1024;
/// How often a change of a node is tried again when somebody else changed the node meanwhile.
const RETRIES: u32 = 5;

/// Gives certificates to new nodes that have a token and to nodes that have one already.
#[derive(Debug)]
pub struct Issuer {
    store: Store,
    env: Env,
    limiter: Limiter,
}

impl Issuer {
    /// Issues what a store permits.
    #[must_use]
    pub fn new(store: Store, env: Env) -> Self {
        Self { store, env, limiter: Limiter::default() }
    }

    /// The service, ready to be added to a server's routes.
    #[must_use]
    pub fn service(store: Store, env: Env) -> CertificateAuthorityServer<Self> {
        let issuer = Self::new(store, env);
        CertificateAuthorityServer::new(issuer).max_decoding_message_size(REQUEST_MAX)
    }

    async fn newest(&self) -> Result<(View, Arc<Cluster>), Status> {
        let view = self.store.read_index(READ_LIMIT).await.map_err(|error| not_read(&error))?;
        let cluster = view.cluster.clone().ok_or_else(not_ready)?;
        Ok((view, cluster))
    }

    /// A new node. The state is read anew, so that a rotated token is of no use anywhere.
    async fn enroll(&self, ip: IpAddr, request: &IssueRequest) -> Result<IssueReply, Status> {
        let now = self.env.clock.instant();
        if !self.limiter.attempt(ip, now) {
            return Err(Status::resource_exhausted(format!(
                "too many attempts to join from {ip}, or too many wrong tokens; wait a minute"
            )));
        }
        let (view, cluster) = self.newest().await?;
        let role = token::verify(&cluster, &request.token).map_err(|error| {
            self.limiter.failed(ip, now);
            tracing::warn!(%ip, %error, "a node was not let in");
            Status::permission_denied(error.to_string())
        })?;
        let (csr, availability) = read(request)?;
        let id = csr.node_id();
        let is_known = check_known(&view, id, role)?;
        let identity = NodeIdentity { cluster: cluster.id, node: id, role };
        if !is_known {
            self.check_clock(&cluster, request, identity)?;
            let trust = cluster.trust.generation;
            let mut node = Node { trust, ..Node::new(id, role) };
            node.spec.availability = availability;
            let object = Object::Node(Arc::new(node));
            self.propose(Change::Put { object, expect: Expect::Absent })
                .await
                .map_err(|error| not_written(&error))?;
            tracing::info!(node = %id, %ip, role = role.as_str(), "node joined");
        }
        self.env.faults.pass(Point::CaIssue, &*self.env.clock).await;
        // Signed as of now, when the node is in the state: whatever becomes of the root from here
        // on waits for it.
        let view = self.store.view();
        let cluster = view.cluster.clone().ok_or_else(not_ready)?;
        let issued = self.sign(&cluster, csr, identity)?;
        Ok(reply(&view, identity, issued))
    }

    /// Whether the node could use a certificate that is signed now. One with another clock could not, and would
    /// leave a node behind that never comes.
    fn check_clock(
        &self,
        cluster: &Cluster,
        request: &IssueRequest,
        identity: NodeIdentity,
    ) -> Result<(), Status> {
        if request.clock == 0 {
            return Ok(());
        }
        let (csr, _) = read(request)?;
        let issued = self.sign(cluster, csr, identity)?;
        Certificate::from_pem(&issued.certificate_pem)
            .and_then(|certificate| certificate.fresh(Timestamp(request.clock)))
            .map_err(|error| {
                tracing::warn!(node = %identity.node, %error, "a node was not let in");
                Status::out_of_range(error.to_string())
            })
    }

    /// A node that has a certificate: it gets the role that it should have now.
    async fn renew(
        &self,
        peer: NodeIdentity,
        request: &IssueRequest,
    ) -> Result<IssueReply, Status> {
        self.give_role(peer.node, |view, cluster, role| {
            let csr = authority::Request::from_pem(&request.csr_pem).map_err(|e| invalid(&e))?;
            let identity = NodeIdentity { cluster: cluster.id, node: peer.node, role };
            let issued = self.sign(cluster, csr, identity)?;
            Ok(reply(view, identity, issued))
        })
        .await
    }

    /// Gives a node the role that it should have now: what is made for it leaves the house when that
    /// is written down. It is made again if the node changes meanwhile.
    ///
    /// # Errors
    /// When it is no node, is still a member of the managers' group, or nothing can be read or written.
    pub async fn give_role<T>(
        &self,
        node: NodeId,
        make: impl Fn(&View, &Cluster, Role) -> Result<T, Status>,
    ) -> Result<T, Status> {
        for _ in 0..RETRIES {
            let (view, cluster) = self.newest().await?;
            let node = view.node(node).ok_or_else(|| {
                Status::not_found(
                    "this node was removed from the swarm; run `swarm leave --force` on it, then join again",
                )
            })?;
            let role = node.spec.role;
            if role == Role::Worker && is_member(node) {
                return Err(Status::unavailable(
                    "this node is to become a worker, but is still a member of the managers' group; the certificate follows when it has left",
                ));
            }
            let made = make(&view, &cluster, role)?;
            match self.certify(node, role).await {
                Ok(()) => return Ok(made),
                Err(ProposeError::Rejected(Rejection::Stale { .. })) => {}
                Err(error) => return Err(not_written(&error)),
            }
        }
        Err(Status::aborted("the node changes too often just now; try again"))
    }

    /// Writes down which role the newest certificate has, before it leaves the house.
    async fn certify(&self, node: &Node, role: Role) -> Result<(), ProposeError> {
        if node.certified == role {
            return Ok(());
        }
        let expect = Expect::At(node.meta.revision);
        let object = Object::Node(Arc::new(Node { certified: role, ..node.clone() }));
        self.propose(Change::Put { object, expect }).await
    }

    async fn propose(&self, change: Change) -> Result<(), ProposeError> {
        self.store.propose(None, vec![change], WRITE_LIMIT).await.map(|_| ())
    }

    fn sign(
        &self,
        cluster: &Cluster,
        csr: authority::Request,
        identity: NodeIdentity,
    ) -> Result<Issued, Status> {
        authority::issue(cluster, csr, identity, self.env.clock.now()).map_err(|error| {
            tracing::error!(%error, "a certificate could not be signed");
            Status::internal(error.to_string())
        })
    }
}

#[async_trait]
impl CertificateAuthority for Issuer {
    async fn root_certificate(
        &self,
        _: Request<RootCertificateRequest>,
    ) -> Result<Response<RootCertificateReply>, Status> {
        let cluster = self.store.view().cluster.clone().ok_or_else(not_ready)?;
        let root_pem = cluster.authority.root_pem.clone();
        Ok(Response::new(RootCertificateReply { root_pem }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let who = request
            .extensions()
            .get::<PeerIdentity>()
            .cloned()
            .ok_or_else(|| Status::internal("the connection is unknown"))?;
        let request = request.into_inner();
        let reply = match (request.token.is_empty(), who.peer) {
            (false, _) => self.enroll(who.addr.ip(), &request).await?,
            (true, Some(peer)) => self.renew(peer.identity, &request).await?,
            (true, None) => {
                return Err(Status::unauthenticated(
                    "a join token is needed, or the node's certificate to renew it",
                ));
            }
        };
        Ok(Response::new(reply))
    }
}

fn not_ready() -> Status {
    Status::unavailable("this manager does not have the swarm's state yet; try again in a moment")
}

fn invalid(error: &IdentityError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn read(request: &IssueRequest) -> Result<(authority::Request, Availability), Status> {
    let csr = authority::Request::from_pem(&request.csr_pem).map_err(|error| invalid(&error))?;
    let named = NodeId::from_slice(&request.node);
    if !request.node.is_empty() && named != Some(csr.node_id()) {
        return Err(Status::invalid_argument("the node's id is not the one of its key"));
    }
    let availability = match request.availability {
        0 => Availability::Active,
        1 => Availability::Pause,
        2 => Availability::Drain,
        other => {
            let text = format!("availability {other} is unknown to this manager: it is too old");
            return Err(Status::invalid_argument(text));
        }
    };
    Ok((csr, availability))
}

/// Whether the node was let in before (its answer was lost, so it asks again with the same key).
fn check_known(state: &State, id: NodeId, role: Role) -> Result<bool, Status> {
    if let Some(node) = state.node(id) {
        return if node.certified == role && node.spec.role == role {
            Ok(true)
        } else {
            Err(Status::already_exists(
                "this node joined already, in another role; leave, then join again",
            ))
        };
    }
    if role == Role::Manager && state.managers().count() >= MANAGERS_MAX {
        let full = Rejection::TooManyManagers { max: MANAGERS_MAX };
        return Err(Status::failed_precondition(full.to_string()));
    }
    Ok(false)
}

fn is_member(node: &Node) -> bool {
    node.manager.is_some_and(|manager| manager.membership != Membership::Removed)
}

fn reply(state: &State, identity: NodeIdentity, issued: Issued) -> IssueReply {
    let managers = state
        .managers()
        .map(|(node, part)| ManagerAddr {
            node: node.id.to_bytes().to_vec().into(),
            addr: part.addr.to_string(),
        })
        .collect();
    IssueReply {
        node: identity.node.to_bytes().to_vec().into(),
        role: u32::from(identity.role == Role::Manager),
        certificate_pem: issued.certificate_pem,
        root_pem: issued.root_pem,
        managers,
    }
}
