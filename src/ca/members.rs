//! The gRPC service `Membership`: a manager asks to be in the Raft group, or out of it. Who is when
//! a member is the leader's plan; here the wish is written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::{Request, Response, Status};

use super::{READ_LIMIT, WRITE_LIMIT, not_read, not_written};
use crate::domain::node::{Membership as Part, NodeSpec, Role};
use crate::domain::{Format, Node, NodeId};
use crate::env::Env;
use crate::raft::{ProposeError, Store};
use crate::state::{Change, Expect, Object, Rejection, State};
use crate::transport::{PeerIdentity, peer};
use crate::wire::cluster::unlock_key_to;
use crate::wire::manager::membership_server::{Membership, MembershipServer};
use crate::wire::manager::{JoinReply, JoinRequest, LeaveReply, LeaveRequest};

/// For the leader to take a member out of the group.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);
const RETRIES: u32 = 5;

/// Writes down who wants to be a member.
#[derive(Debug)]
pub struct Members {
    store: Store,
    env: Env,
}

impl Members {
    /// Writes to a store.
    #[must_use]
    pub const fn new(store: Store, env: Env) -> Self {
        Self { store, env }
    }

    /// The service, ready to be added to a server's routes.
    #[must_use]
    pub fn service(store: Store, env: Env) -> MembershipServer<Self> {
        MembershipServer::new(Self::new(store, env)).max_decoding_message_size(64 * 1024)
    }

    /// Writes the join down. Two joins in one log entry would have the same raft id, so the second
    /// is refused and comes again.
    async fn write_join(&self, node: NodeId, addr: SocketAddr) -> Result<(), ProposeError> {
        let mut tries = 0;
        loop {
            let change = Change::JoinManager { node, addr };
            match self.store.propose(None, vec![change], WRITE_LIMIT).await {
                Err(ProposeError::Rejected(Rejection::Broken { .. })) if tries < RETRIES => {
                    tries += 1;
                    let pause = self.env.entropy.jitter(Duration::from_millis(50));
                    self.env.clock.sleep(pause).await;
                }
                outcome => return outcome.map(|_| ()),
            }
        }
    }

    /// Makes a worker of a manager, in the state; the leader does the rest.
    async fn demote(&self, id: NodeId) -> Result<(), Status> {
        for _ in 0..RETRIES {
            let view = self.store.read_index(READ_LIMIT).await.map_err(|e| not_read(&e))?;
            let node = view.node(id).ok_or_else(|| Status::not_found("the node was removed"))?;
            if node.spec.role == Role::Worker {
                return Ok(());
            }
            if view.managers().all(|(manager, _)| manager.id == id) {
                return Err(Status::failed_precondition(
                    "this is the last manager: without it the swarm and everything in its state are gone; leave with --force if that is meant",
                ));
            }
            let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
            let expect = Expect::At(node.meta.revision);
            let object = Object::Node(Arc::new(Node { spec, ..(**node).clone() }));
            let change = Change::Put { object, expect };
            match self.store.propose(None, vec![change], WRITE_LIMIT).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::Rejected(Rejection::Stale { .. })) => {}
                Err(error) => return Err(not_written(&error)),
            }
        }
        Err(Status::aborted("the node changes too often just now; try again"))
    }
}

#[async_trait]
impl Membership for Members {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let node = peer(&request)?.node;
        let from = request.extensions().get::<PeerIdentity>().map(|who| who.addr);
        let mut addr: SocketAddr = request.get_ref().addr.parse().map_err(|_| {
            Status::invalid_argument(format!("{:?} is no address", request.get_ref().addr))
        })?;
        if let (true, Some(from)) = (addr.ip().is_unspecified(), from) {
            addr.set_ip(from.ip());
        }
        let view = self.store.read_index(READ_LIMIT).await.map_err(|error| not_read(&error))?;
        knows(Format::said(request.get_ref().format), view.format())?;
        if view.node(node).is_some_and(|node| node.spec.role == Role::Worker) {
            return Err(Status::failed_precondition(
                "this node is to be a worker: promote it before it joins the managers",
            ));
        }
        self.write_join(node, addr).await.map_err(|error| not_written(&error))?;
        let view = self.store.view();
        let lock =
            view.cluster.as_ref().map(|cluster| cluster.autolock.clone()).unwrap_or_default();
        let raft_id = view
            .node(node)
            .and_then(|node| node.manager)
            .map(|manager| manager.raft_id.0)
            .ok_or_else(|| Status::not_found("the node was removed"))?;
        tracing::info!(%node, %addr, raft_id, "manager joins the group");
        Ok(Response::new(JoinReply {
            raft_id,
            lock_generation: lock.generation,
            unlock_key: unlock_key_to(&lock),
        }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let node = peer(&request)?.node;
        if NodeId::from_slice(&request.get_ref().node) != Some(node) {
            return Err(Status::permission_denied(
                "a manager takes only itself out of the group; demote others",
            ));
        }
        self.demote(node).await?;
        let mut views = self.store.watch();
        let out = views.wait_for(|view| !is_in_group(view, node));
        match self.env.clock.timeout(LEAVE_LIMIT, out).await {
            Ok(Ok(_)) => Ok(Response::new(LeaveReply {})),
            Ok(Err(_)) => Err(Status::unavailable("this manager is stopping")),
            Err(_) => Err(Status::deadline_exceeded(
                "the node was demoted, but the leader has not yet taken it out of the group; too few managers may be online",
            )),
        }
    }
}

/// Refuses a manager whose release cannot read what this cluster writes.
fn knows(newest: Format, used: Format) -> Result<(), Status> {
    if newest >= used {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this cluster uses format {used} and this node's release of swarm knows format {newest} at \
         most: install the release that the other managers run, and try again"
    )))
}

fn is_in_group(state: &State, node: NodeId) -> bool {
    state
        .node(node)
        .and_then(|node| node.manager)
        .is_some_and(|manager| manager.membership != Part::Removed)
}
