//! Nodes as they change their role: what `daemon` does when a manager says that its node's certificate
//! is to be another one. It asks for one, then for a place among the managers, or gives its place up.
//! The certificate itself is a word here; who gets which, and who is a member, is decided by `ca`.

use std::net::SocketAddr;

use swarm::ca::{Issuer, Members, StateRoster};
use swarm::domain::Format;
use swarm::identity::{NodeIdentity, Requirement};
use swarm::transport::{Peer as Caller, PeerIdentity, Roster as _, Standing};
use swarm::wire::manager::JoinRequest;
use swarm::wire::manager::membership_server::Membership as _;
use tonic::{Request, Status};

use super::machine::{Answered, Errand};
use super::*;
use crate::net::{Answer, Call};

/// How long a manager may take to answer.
const LIMIT: Duration = Duration::from_secs(6);
/// Between two rounds of asking all managers.
const PAUSE: Duration = Duration::from_millis(500);

impl World {
    /// Every node does what its certificate, and what it was told of it, ask for.
    pub(super) fn follow_roles(&mut self) {
        for host in 0..self.servers.len() {
            match self.servers[host].answered() {
                Some(Answered::Certified(role)) => self.servers[host].set_certificate(role),
                Some(Answered::Joined(raft_id)) => {
                    self.oracle.lock().unwrap().raft_id(raft_id.0);
                    let node = self.servers[host].node.unwrap_or_default();
                    self.servers[host].manage(Membership { raft_id, node });
                    self.roles_changed += 1;
                }
                Some(Answered::Left) => {
                    self.servers[host].forget();
                    self.roles_changed += 1;
                }
                None => {}
            }
            let server = &self.servers[host];
            let Some(agent) = server.agent() else { continue };
            let told = *agent.role().borrow();
            match (server.certificate(), server.membership) {
                (known, _) if told.is_some_and(|role| role != known) => {
                    self.servers[host].run_errand(Errand::Certificate);
                }
                (Role::Manager, None) => self.servers[host].run_errand(Errand::Membership),
                (Role::Worker, Some(_)) if server.manager().is_some() => {
                    self.apis.remove(&host);
                    self.servers[host].run_errand(Errand::Leaving);
                }
                (Role::Manager, Some(_)) | (Role::Worker, _) => {}
            }
        }
    }

    /// I20: whose role is not what is wished.
    pub(super) fn roles(&self) -> Option<String> {
        let view = self.view()?;
        let voters = self.leader()?.1.raft.members().borrow().voters.clone();
        let mut wanted = BTreeMap::new();
        for server in &self.servers {
            let node = view.node(server.node?)?;
            let is_manager = server.membership.is_some();
            if is_manager != (node.spec.role == Role::Manager) {
                let (host, role) = (server.host, node.spec.role);
                let certified = node.certified;
                return Some(format!(
                    "I20: host {host} is to be a {role:?}, has a certificate of a {:?} (written down: \
                     {certified:?}), and is a manager: {is_manager}",
                    server.certificate()
                ));
            }
            wanted.extend(server.membership.map(|part| (part.raft_id, server.host)));
        }
        let is_group =
            voters.len() == wanted.len() && voters.iter().all(|id| wanted.contains_key(id));
        (!is_group).then(|| format!("I20: {voters:?} vote, not {wanted:?}"))
    }
}

/// What a node asks the managers for, until one of them gives it.
pub(super) async fn ask(
    net: Net,
    env: swarm::env::Env,
    host: Host,
    (managers, call): (Vec<SocketAddr>, Call),
) -> Answered {
    let first = env.entropy.number();
    loop {
        let count = managers.len();
        let first = usize::try_from(first).unwrap_or_default() % count.max(1);
        for at in 0..count {
            let addr = managers[(first + at) % count];
            let peer = swarm::raft::Peer { id: RaftId(0), addr };
            match net.ask(&env, host, (peer, call.clone()), LIMIT).await {
                Ok(Answer::Certified(role)) => return Answered::Certified(role),
                Ok(Answer::Joined(raft_id)) => return Answered::Joined(RaftId(raft_id)),
                other => tracing::debug!(?other, "not given"),
            }
        }
        env.clock.sleep(env.entropy.jitter(PAUSE)).await;
    }
}

impl links::Door {
    /// Renews a certificate: the role that it would have.
    pub(super) async fn certify(self, node: NodeId) -> Result<Answer, PeerError> {
        let issuer = Issuer::new(self.store, self.env);
        let given = issuer.give_role(node, |_, _, role| Ok(role)).await;
        given.map(Answer::Certified).map_err(|status| refused(&status))
    }

    /// Takes a node into the managers' group.
    pub(super) async fn join(self, node: NodeId, addr: SocketAddr) -> Result<Answer, PeerError> {
        let identity = NodeIdentity { cluster: links::CLUSTER, node, role: Role::Manager };
        let roster = StateRoster::new(self.store.clone());
        if roster.standing(identity, Requirement::Manager).await != Standing::Good {
            return Err(PeerError::Other("only managers may".to_owned()));
        }
        let expires = swarm::env::Instant(std::time::Duration::MAX);
        let message = JoinRequest { addr: addr.to_string(), format: Format::NEWEST.0 };
        let mut request = Request::new(message);
        let peer = Some(Caller { identity, expires });
        request.extensions_mut().insert(PeerIdentity { addr, peer });
        let joined = Members::new(self.store, self.env).join(request).await;
        joined
            .map(|reply| Answer::Joined(reply.into_inner().raft_id))
            .map_err(|status| refused(&status))
    }
}

fn refused(status: &Status) -> PeerError {
    PeerError::Other(status.message().to_owned())
}
