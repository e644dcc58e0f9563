//! The whole way over real TLS, with a store in memory behind it: join, renew, promote, demote,
//! leave, remove.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::Code;
use tonic::service::Routes;

use super::*;
use crate::domain::cluster::{AddressPool, Authority, ClusterSpec, Trust};
use crate::domain::node::{Availability, ManagerStatus, Membership, Node, Role};
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, ClusterId, Format, Meta, NetworkId, NodeId, Timestamp};
use crate::env::{Env, Scope};
use crate::identity::{
    CertificateDir, Credentials, NodeIdentity, NodeKey, SharedIdentity, authority, token,
};
use crate::raft::Store;
use crate::state::{Change, Expect, Object, ObjectKey};
use crate::transport::{
    Channels, EnrollError, Enrolled, Enrolment, Lane, Limits, LinkError, RenewError, Renewal,
    RenewalRequest, Serving, enroll, renew_once, serve,
};
use crate::wire::manager::membership_client::MembershipClient;
use crate::wire::manager::{JoinRequest, LeaveRequest};
use crate::wire::node::IssueRequest;
use crate::wire::node::certificate_authority_client::CertificateAuthorityClient;

const SECOND: Duration = Duration::from_secs(1);
const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

/// One manager, node 100, raft id 1.
struct Manager {
    env: Env,
    scope: Scope,
    store: Store,
    addr: SocketAddr,
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn cluster(authority: Authority) -> Cluster {
    Cluster {
        id: CLUSTER,
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        authority,
        token_key: Sensitive::new(&[5; 32]),
        worker_token: 1,
        manager_token: 1,
        pool: AddressPool { base: [10, 0, 0, 0].into(), prefix: 8, subnet_size: 24 },
        default_network: NetworkId::from_bytes([1; 16]),
        data_path_port: 4789,
        format: crate::domain::Format::FIRST,
        autolock: crate::domain::Autolock::default(),
        trust: Trust::default(),
    }
}

fn manager_node(id: NodeId) -> Node {
    Node::new(id, Role::Manager)
}

impl Manager {
    async fn start() -> Self {
        let env = Env::system();
        let store = Store::in_memory(env.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let manager = Self { env: env.clone(), scope: Scope::root("test"), store, addr };
        let now = env.clock.now();
        let cluster = cluster(authority::create(CLUSTER, now).unwrap());
        let identity = NodeIdentity { cluster: CLUSTER, node: node(100), role: Role::Manager };
        let key = NodeKey::generate().unwrap();
        let csr = authority::Request::from_pem(&key.request().unwrap()).unwrap();
        let day = SECOND * 86_400;
        let credentials = Credentials {
            key_pem: key.pem(),
            certificate_pem: authority::sign(&cluster.authority, csr, identity, now, day).unwrap(),
            root_pem: cluster.authority.root_pem.clone(),
        };
        manager
            .propose(vec![
                put(Object::Cluster(Arc::new(cluster)), Expect::Absent),
                put(Object::Node(Arc::new(manager_node(node(100)))), Expect::Absent),
                Change::JoinManager { node: node(100), addr },
            ])
            .await;
        manager.set_membership(node(100), Membership::Voter).await;
        let store = manager.store.clone();
        let serving = Serving {
            identity: SharedIdentity::new(credentials.identity(&env.clock).unwrap()),
            roster: Arc::new(StateRoster::new(store.clone())),
            routes: Routes::new(Issuer::service(store.clone(), env.clone()))
                .add_service(Members::service(store, env.clone())),
            env,
            limits: Limits::default(),
        };
        let scope = manager.scope.clone();
        manager.scope.spawn("serve", async move { drop(serve(listener, serving, &scope).await) });
        manager
    }

    async fn propose(&self, changes: Vec<Change>) {
        self.store.propose(None, changes, SECOND).await.unwrap();
    }

    fn node(&self, id: NodeId) -> Arc<Node> {
        Arc::clone(self.store.view().node(id).unwrap())
    }

    async fn set_format(&self, format: Format) {
        let mut cluster = self.store.view().cluster.clone().unwrap();
        let expect = Expect::At(cluster.meta.revision);
        Arc::make_mut(&mut cluster).format = format;
        self.propose(vec![put(Object::Cluster(cluster), expect)]).await;
    }

    async fn change_node(&self, id: NodeId, change: impl FnOnce(&mut Node)) {
        let mut node = (*self.node(id)).clone();
        change(&mut node);
        self.propose(vec![put(Object::Node(Arc::new(node)), Expect::Present)]).await;
    }

    async fn set_membership(&self, id: NodeId, membership: Membership) {
        self.change_node(id, |node| {
            node.manager = node.manager.map(|part| ManagerStatus { membership, ..part });
        })
        .await;
    }

    fn token(&self, role: Role) -> String {
        token::make(self.store.view().cluster.as_ref().unwrap(), role).unwrap()
    }

    async fn enroll(&self, token: &str) -> Result<Enrolled, EnrollError> {
        let managers = vec![self.addr];
        let availability = Availability::Drain;
        let enrolment = Enrolment { token: token.to_owned(), managers, availability };
        soon(enroll(&self.env, &enrolment)).await
    }

    async fn joined(&self, role: Role) -> (NodeId, SharedIdentity, Channels) {
        let enrolled = self.enroll(&self.token(role)).await.unwrap();
        let identity = enrolled.credentials.identity(&self.env.clock).unwrap();
        let id = identity.certificate.identity.node;
        let identity = SharedIdentity::new(identity);
        let channels = Channels::new(identity.clone(), self.env.clone(), self.scope.clone());
        (id, identity, channels)
    }

    fn renewal(
        &self,
        identity: &SharedIdentity,
        channels: &Channels,
        dir: &std::path::Path,
    ) -> mpsc::Sender<RenewalRequest> {
        let (requests, inbox) = mpsc::channel(4);
        let renewal = Renewal {
            identity: identity.clone(),
            dir: CertificateDir::new(dir),
            channels: channels.clone(),
            managers: watch::channel(vec![self.addr]).1,
            env: self.env.clone(),
        };
        self.scope.spawn("renewal", renewal.run(self.scope.clone(), inbox));
        requests
    }

    fn members(&self, channels: &Channels) -> MembershipClient<tonic::transport::Channel> {
        MembershipClient::new(channels.channel(self.addr))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

fn put(object: Object, expect: Expect) -> Change {
    Change::Put { object, expect }
}

async fn soon<T>(future: impl std::future::Future<Output = T>) -> T {
    Env::system().clock.timeout(SECOND * 20, future).await.expect("takes too long")
}

#[tokio::test]
async fn joining_makes_a_node_of_the_tokens_role() {
    let manager = Manager::start().await;
    for role in [Role::Worker, Role::Manager] {
        let enrolled = manager.enroll(&manager.token(role)).await.unwrap();
        assert_eq!(enrolled.managers, [manager.addr]);
        let node = manager.node(enrolled.identity.node);
        assert_eq!((node.spec.role, node.certified), (role, role));
        assert_eq!(node.spec.availability, Availability::Drain);
        let certificate = enrolled.credentials.certificate().unwrap();
        let days = certificate.not_after.since(manager.env.clock.now()).as_secs() / 86_400;
        assert_eq!(days, 89);
    }
}

#[tokio::test]
async fn a_lost_answer_can_be_asked_for_again_by_the_same_key_only() {
    let manager = Manager::start().await;
    let (_, _, channels) = manager.joined(Role::Worker).await;
    let key = NodeKey::generate().unwrap();
    let request = |key: &NodeKey, id: NodeId, role| IssueRequest {
        csr_pem: key.request().unwrap(),
        token: manager.token(role),
        availability: 0,
        node: id.to_bytes().to_vec().into(),
        clock: 0,
    };
    let mut client = CertificateAuthorityClient::new(channels.channel(manager.addr));
    let nodes = manager.store.view().nodes.len();
    for _ in 0..2 {
        let reply = client.issue(request(&key, key.node_id(), Role::Worker)).await.unwrap();
        assert_eq!(NodeId::from_slice(&reply.into_inner().node), Some(key.node_id()));
        assert_eq!(manager.store.view().nodes.len(), nodes + 1);
    }
    let theft = request(&NodeKey::generate().unwrap(), key.node_id(), Role::Worker);
    assert_eq!(client.issue(theft).await.unwrap_err().code(), Code::InvalidArgument);
    let other_role = request(&key, key.node_id(), Role::Manager);
    assert_eq!(client.issue(other_role).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(manager.store.view().nodes.len(), nodes + 1);
}

#[tokio::test]
async fn a_node_with_another_clock_is_told_before_it_is_one() {
    let manager = Manager::start().await;
    let (_, _, channels) = manager.joined(Role::Worker).await;
    let mut client = CertificateAuthorityClient::new(channels.channel(manager.addr));
    let nodes = manager.store.view().nodes.len();
    let now = manager.env.clock.now();
    let day = SECOND * 86_400;
    let request = |clock: Timestamp| {
        let key = NodeKey::generate().unwrap();
        IssueRequest {
            csr_pem: key.request().unwrap(),
            token: manager.token(Role::Worker),
            availability: 0,
            node: key.node_id().to_bytes().to_vec().into(),
            clock: clock.0,
        }
    };
    for clock in
        [Timestamp(now.0 - 2 * 3_600_000_000_000), now.after(day * 85), now.after(day * 4_000)]
    {
        let refused = client.issue(request(clock)).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        let words = refused.message();
        assert!(words.contains("compare `date` on the two machines"), "{words}");
        assert_eq!(manager.store.view().nodes.len(), nodes, "a refused node is left behind");
    }
    client.issue(request(now)).await.unwrap();
    assert_eq!(manager.store.view().nodes.len(), nodes + 1);
}

#[tokio::test]
async fn rotation_shuts_the_door_and_guessing_is_slowed_down() {
    let manager = Manager::start().await;
    let old = manager.token(Role::Worker);
    let mut cluster = (**manager.store.view().cluster.as_ref().unwrap()).clone();
    cluster.worker_token += 1;
    manager.propose(vec![put(Object::Cluster(Arc::new(cluster)), Expect::Present)]).await;
    let error = manager.enroll(&old).await.unwrap_err().to_string();
    assert!(error.contains("invalid join token"), "{error}");
    manager.enroll(&manager.token(Role::Worker)).await.unwrap();
    for _ in 0..19 {
        manager.enroll(&old).await.unwrap_err();
    }
    let error = manager.enroll(&manager.token(Role::Worker)).await.unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
}

#[tokio::test]
async fn an_eighth_manager_is_told_so_before_it_is_one() {
    let manager = Manager::start().await;
    for number in 1..=6 {
        let object = Object::Node(Arc::new(manager_node(node(number))));
        let addr = SocketAddr::from(([10, 0, 0, number], 2377));
        manager.propose(vec![put(object, Expect::Absent)]).await;
        manager.propose(vec![Change::JoinManager { node: node(number), addr }]).await;
    }
    let error = manager.enroll(&manager.token(Role::Manager)).await.unwrap_err().to_string();
    assert!(error.contains("the cluster has 7 managers already"), "{error}");
    manager.enroll(&manager.token(Role::Worker)).await.unwrap();
}

/// Changes the cluster as `change` says.
async fn change_cluster(manager: &Manager, change: impl FnOnce(&mut Cluster)) {
    let mut cluster = (**manager.store.view().cluster.as_ref().unwrap()).clone();
    change(&mut cluster);
    manager.propose(vec![put(Object::Cluster(Arc::new(cluster)), Expect::Present)]).await;
}

#[tokio::test]
async fn while_the_root_is_rotated_both_roots_go_with_certificates_of_the_next() {
    let manager = Manager::start().await;
    let (id, before, channels) = manager.joined(Role::Worker).await;
    let old_token = manager.token(Role::Worker);
    let now = manager.env.clock.now();
    change_cluster(&manager, |cluster| {
        let rotation = Some(authority::succeed(cluster, now).unwrap());
        cluster.trust = Trust { generation: 1, rotation };
    })
    .await;
    let cluster = manager.store.view().cluster.clone().unwrap();
    let wanted = authority::trust_digest(&cluster.roots_pem());
    assert_eq!(manager.node(id).trust, 0);
    let renewed = soon(renew_once(&before, &channels, manager.addr, &manager.env)).await.unwrap().1;
    assert_eq!(renewed.trust_digest(), wanted);
    assert_eq!(manager.node(id).trust, 0, "sent is not yet confirmed: the answer may be lost");

    // The old token still admits, and what joins has both roots from the beginning.
    let joined = manager.enroll(&old_token).await.unwrap();
    let identity = joined.credentials.identity(&manager.env.clock).unwrap();
    assert_eq!(identity.trust_digest(), wanted);
    assert_eq!(manager.node(joined.identity.node).trust, 1);
    assert_eq!(manager.token(Role::Worker), old_token);

    change_cluster(&manager, |cluster| {
        cluster.authority = cluster.issuer().clone();
        cluster.trust = Trust { generation: 2, rotation: None };
    })
    .await;
    let refused = manager.enroll(&old_token).await.unwrap_err().to_string();
    assert!(refused.contains("root certificate was rotated"), "{refused}");
    // This manager itself was not renewed, so its peers must trust both; they can follow all the same.
    let both = SharedIdentity::new(renewed);
    let channels = Channels::new(both.clone(), manager.env.clone(), manager.scope.clone());
    let after = soon(renew_once(&both, &channels, manager.addr, &manager.env)).await.unwrap().1;
    let cluster = manager.store.view().cluster.clone().unwrap();
    assert_eq!(after.trust_digest(), authority::trust_digest(&cluster.authority.root_pem));
}

#[tokio::test]
async fn promotion_and_demotion_follow_the_state() {
    let manager = Manager::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (id, identity, channels) = manager.joined(Role::Worker).await;
    let requests = manager.renewal(&identity, &channels, dir.path());
    let join = JoinRequest { addr: "0.0.0.0:4321".to_owned(), format: 2 };
    let refused = manager.members(&channels).join(join.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    manager.change_node(id, |node| node.spec.role = Role::Manager).await;
    requests.send(RenewalRequest::Role(Role::Manager)).await.unwrap();
    let mut changes = identity.watch();
    soon(changes.wait_for(|it| it.certificate.identity.role == Role::Manager)).await.unwrap();
    assert_eq!(manager.node(id).certified, Role::Manager);
    manager.set_format(Format(2)).await;
    let older = JoinRequest { format: 0, ..join.clone() };
    let refused = manager.members(&channels).join(older).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let told = "this cluster uses format 2 and this node's release of swarm knows format 1 at most: \
                install the release that the other managers run, and try again";
    assert_eq!(refused.message(), told);
    let reply = manager.members(&channels).join(join.clone()).await.unwrap().into_inner();
    let part = manager.node(id).manager.unwrap();
    assert_eq!(part.raft_id.0, reply.raft_id);
    assert_eq!(part.addr, "127.0.0.1:4321".parse().unwrap(), "as the connection comes");
    let again = manager.members(&channels).join(join.clone()).await.unwrap().into_inner();
    assert_eq!(again.raft_id, reply.raft_id);

    let manager_days = Channels::new(
        SharedIdentity::new((*identity.current()).clone()),
        manager.env.clone(),
        manager.scope.clone(),
    );
    manager.set_membership(id, Membership::Voter).await;
    manager.change_node(id, |node| node.spec.role = Role::Worker).await;
    requests.send(RenewalRequest::Role(Role::Worker)).await.unwrap();
    manager.env.clock.sleep(Duration::from_millis(700)).await;
    assert_eq!(identity.current().certificate.identity.role, Role::Manager, "still a voter");
    manager.set_membership(id, Membership::Removed).await;
    soon(changes.wait_for(|it| it.certificate.identity.role == Role::Worker)).await.unwrap();
    // The old certificate is valid for months, and worth nothing from now on.
    let refused = manager.members(&manager_days).join(join).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", refused.message());
}

#[tokio::test]
async fn leaving_waits_until_the_group_is_left() {
    let manager = Manager::start().await;
    let (id, _, channels) = manager.joined(Role::Manager).await;
    let addr = "10.0.0.9:2377".to_owned();
    manager.members(&channels).join(JoinRequest { addr, format: 2 }).await.unwrap();
    let leave = |id: NodeId| LeaveRequest { node: id.to_bytes().to_vec().into() };
    let other = manager.members(&channels).leave(leave(node(100))).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let (done, mut is_done) = mpsc::channel(1);
    let mut members = manager.members(&channels);
    manager.scope.spawn("leave", async move {
        done.send(members.leave(leave(id)).await.is_ok()).await.unwrap();
    });
    let mut views = manager.store.watch();
    soon(views.wait_for(|view| view.node(id).unwrap().spec.role == Role::Worker)).await.unwrap();
    assert!(is_done.try_recv().is_err());
    manager.set_membership(id, Membership::Removed).await;
    assert_eq!(soon(is_done.recv()).await, Some(true));
}

#[tokio::test]
async fn the_last_manager_does_not_leave() {
    let manager = Manager::start().await;
    let (id, _, channels) = manager.joined(Role::Manager).await;
    manager.propose(vec![Change::JoinManager { node: id, addr: manager.addr }]).await;
    manager.set_membership(node(100), Membership::Removed).await;
    let leave = LeaveRequest { node: id.to_bytes().to_vec().into() };
    let refused = manager.members(&channels).leave(leave).await.unwrap_err();
    assert!(refused.message().contains("last manager"), "{}", refused.message());
}

#[tokio::test]
async fn a_removed_node_is_told_so() {
    let manager = Manager::start().await;
    let (id, identity, channels) = manager.joined(Role::Worker).await;
    soon(renew_once(&identity, &channels, manager.addr, &manager.env)).await.unwrap();
    let key = ObjectKey::Node(id);
    manager.propose(vec![Change::Delete { key, expect: Expect::Present }]).await;
    let error = soon(renew_once(&identity, &channels, manager.addr, &manager.env)).await;
    let error = error.map(|_| ()).unwrap_err();
    // Either the call is refused or the connection was closed already.
    let again = soon(renew_once(&identity, &channels, manager.addr, &manager.env)).await;
    let again = again.map(|_| ()).unwrap_err();
    let removed = RenewError::Link(LinkError::Removed);
    assert!(error == removed || again == removed, "{error} / {again}");
    soon(channels.touch(manager.addr, Lane::Control)).await.unwrap();
}

#[test]
fn who_is_removed_is_out_within_five_seconds() {
    // A look every so often, and the longest that asking the leader takes.
    let sweep = crate::transport::Limits::default().sweep;
    assert!(sweep + READ_LIMIT <= Duration::from_secs(5));
}
