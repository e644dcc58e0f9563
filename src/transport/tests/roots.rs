//! The port while the root is rotated.

use super::*;
use crate::domain::cluster::Trust;
use crate::identity::Identity;

fn identity(harness: &Harness, cluster: &Cluster, number: u8, role: Role) -> Identity {
    let key = NodeKey::generate().unwrap();
    let request = authority::Request::from_pem(&key.request().unwrap()).unwrap();
    let of = NodeIdentity { cluster: cluster.id, node: node(number), role };
    let issued = authority::issue(cluster, request, of, harness.env.clock.now()).unwrap();
    let authority::Issued { certificate_pem, root_pem } = issued;
    let credentials = Credentials { key_pem: key.pem(), certificate_pem, root_pem };
    credentials.identity(&harness.env.clock).unwrap()
}

async fn echo(session: &mut SessionLink) -> Result<ManagerMessage, LinkError> {
    // Whether the other side still reads is told by what comes back.
    drop(session.outgoing.send(AgentMessage::default()).await);
    let closed = LinkError::Closed { addr: SocketAddr::from(([0; 4], 0)), reason: String::new() };
    soon(session.incoming.recv()).await.unwrap_or(Err(closed))
}

#[tokio::test]
async fn sessions_outlive_a_rotation_but_not_the_root_that_they_were_made_under() {
    let harness = Harness::start(Limits::default()).await;
    let old = harness.cluster.lock().unwrap().clone();
    let rotation = Some(authority::succeed(&old, harness.env.clock.now()).unwrap());
    let between = Cluster { trust: Trust { generation: 1, rotation }, ..old.clone() };
    let trust = Trust { generation: 2, rotation: None };
    let new = Cluster { authority: between.issuer().clone(), trust, ..old.clone() };

    let manager = SharedIdentity::new(identity(&harness, &old, 100, Role::Manager));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let cluster = Arc::clone(&harness.cluster);
    let services = TestManager { cluster, env: harness.env.clone(), skew: Arc::default() };
    let serving = Serving {
        identity: manager.clone(),
        roster: Arc::<TestRoster>::default(),
        routes: Routes::new(DispatcherServer::new(services)),
        env: harness.env.clone(),
        limits: Limits::default(),
    };
    let scope = harness.scope.clone();
    harness.scope.spawn("manager", async move { drop(serve(listener, serving, &scope).await) });

    let worker = SharedIdentity::new(identity(&harness, &old, 7, Role::Worker));
    let link = harness.link(&worker);
    let mut first = soon(link.open(addr)).await.unwrap();
    echo(&mut first).await.unwrap();

    manager.replace(identity(&harness, &between, 100, Role::Manager));
    echo(&mut first).await.unwrap();
    let mut other = soon(link.open(addr)).await.unwrap();
    echo(&mut other).await.unwrap();
    worker.replace(identity(&harness, &between, 7, Role::Worker));
    let mut second = soon(link.open(addr)).await.unwrap();
    echo(&mut second).await.unwrap();

    manager.replace(identity(&harness, &new, 100, Role::Manager));
    assert!(soon(first.incoming.recv()).await.is_none_or(|it| it.is_err()), "it has to go");
    assert!(soon(other.incoming.recv()).await.is_none_or(|it| it.is_err()), "it has to go");
    echo(&mut second).await.unwrap();
    let mut third = soon(link.open(addr)).await.unwrap();
    echo(&mut third).await.unwrap();
    worker.replace(identity(&harness, &new, 7, Role::Worker));
    let mut fourth = soon(link.open(addr)).await.unwrap();
    echo(&mut fourth).await.unwrap();
}
