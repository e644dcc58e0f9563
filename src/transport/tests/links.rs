//! Sessions, renewals, and the news of a connection's end.

use super::*;
use crate::identity::{CertificateDir, IdentityError};

async fn echo(session: &mut SessionLink) -> Result<ManagerMessage, LinkError> {
    session.outgoing.send(AgentMessage::default()).await.unwrap();
    soon(session.incoming.recv()).await.unwrap()
}

#[tokio::test]
async fn a_session_is_of_the_node_in_the_certificate() {
    let harness = Harness::start(Limits::default()).await;
    let link = harness.link(&harness.identity(7, Role::Worker));
    let mut session = soon(link.open(harness.addr)).await.unwrap();
    let Some(manager_message::Kind::Welcome(welcome)) = echo(&mut session).await.unwrap().kind
    else {
        panic!("no welcome");
    };
    assert_eq!(NodeId::from_slice(&welcome.session), Some(node(7)));
}

#[tokio::test]
async fn who_is_not_there_cannot_be_opened() {
    let harness = Harness::start(Limits::default()).await;
    let link = harness.link(&harness.identity(7, Role::Worker));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = soon(link.open(closed)).await.unwrap_err();
    let LinkError::Unreachable { addr, reason } = error else { panic!("{error}") };
    assert_eq!(addr, closed);
    assert!(reason.contains("connection refused"), "{reason}");
}

#[tokio::test]
async fn a_worker_is_not_taken_for_a_manager() {
    let harness = Harness::start(Limits::default()).await;
    // A worker of the cluster listens on the port of a manager that is gone.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = Serving {
        identity: harness.identity(50, Role::Worker),
        roster: Arc::<TestRoster>::default(),
        routes: Routes::default(),
        env: harness.env.clone(),
        limits: Limits::default(),
    };
    let scope = harness.scope.clone();
    harness.scope.spawn("impostor", async move { drop(serve(listener, serving, &scope).await) });
    let error =
        soon(harness.link(&harness.identity(1, Role::Worker)).open(addr)).await.unwrap_err();
    assert!(error.to_string().contains("the other side is not a manager"), "{error}");
}

#[tokio::test]
async fn a_renewal_leaves_open_sessions_alone() {
    let harness = Harness::start(Limits::default()).await;
    let identity = harness.identity(7, Role::Worker);
    let channels = harness.channels(&identity);
    let link = GrpcLink::new(channels.clone(), harness.env.clone(), harness.scope.clone());
    let mut session = soon(link.open(harness.addr)).await.unwrap();
    echo(&mut session).await.unwrap();
    let before = identity.current();

    let dir = tempfile::tempdir().unwrap();
    let store = CertificateDir::new(dir.path());
    let (_managers, managers) = tokio::sync::watch::channel(vec![harness.addr]);
    let (requests, inbox) = tokio::sync::mpsc::channel(1);
    let renewal = Renewal {
        identity: identity.clone(),
        dir: store.clone(),
        channels: channels.clone(),
        managers,
        env: harness.env.clone(),
    };
    harness.scope.spawn("renewal", renewal.run(harness.scope.clone(), inbox));
    let mut changes = identity.watch();
    requests.send(RenewalRequest::Now).await.unwrap();
    soon(changes.changed()).await.unwrap();
    let after = identity.current();
    assert_eq!(before.certificate.identity, after.certificate.identity);
    assert_ne!(before.certificate.der, after.certificate.der);
    assert_eq!(store.load().unwrap().unwrap().certificate().unwrap(), after.certificate);

    for _ in 0..3 {
        echo(&mut session).await.unwrap();
    }
    let mut fresh = soon(link.open(harness.addr)).await.unwrap();
    echo(&mut fresh).await.unwrap();
}

#[tokio::test]
async fn certificates_are_renewed_in_time_and_not_too_late() {
    let harness = Harness::start(Limits::default()).await;
    let identity = harness.identity(7, Role::Worker);
    let channels = harness.channels(&identity);
    let before = identity.current();
    harness.clock.ahead.store(u64::try_from((75 * DAY).as_nanos()).unwrap(), Ordering::SeqCst);
    let (credentials, renewed) =
        soon(renew_once(&identity, &channels, harness.addr, &harness.env)).await.unwrap();
    assert!(renewed.certificate.not_after > before.certificate.not_after);
    credentials.identity(&harness.env.clock).unwrap();

    harness.clock.ahead.store(u64::try_from((91 * DAY).as_nanos()).unwrap(), Ordering::SeqCst);
    let error = soon(renew_once(&identity, &channels, harness.addr, &harness.env)).await;
    let error = error.map(|_| ()).unwrap_err();
    assert!(matches!(error, RenewError::Identity(IdentityError::Expired { .. })), "{error}");
    let told = error.to_string();
    let [clock, leave] = ["`date`", "swarm leave --force"].map(|words| told.find(words));
    assert!(clock.is_some() && clock < leave, "the clock comes first: {told}");
    let error = soon(channels.touch(harness.addr, Lane::Control)).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_clock_that_is_set_cuts_off_nobody_who_is_connected() {
    let harness = Harness::start(Limits::default()).await;
    let channels = harness.channels(&harness.identity(7, Role::Worker));
    soon(channels.touch(harness.addr, Lane::Control)).await.unwrap();
    harness.clock.set.store(u64::try_from((3_650 * DAY).as_nanos()).unwrap(), Ordering::SeqCst);
    soon(channels.touch(harness.addr, Lane::Control)).await.unwrap();
    // Time that passes is another thing.
    harness.clock.ahead.store(u64::try_from((91 * DAY).as_nanos()).unwrap(), Ordering::SeqCst);
    let error = soon(channels.touch(harness.addr, Lane::Control)).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_killed_manager_is_known_at_once() {
    let harness = Harness::start(Limits::default()).await;
    let channels = harness.channels(&harness.identity(2, Role::Manager));
    let mut state = channels.connection(harness.addr, Lane::Raft);
    assert_eq!(*state.borrow(), ConnectionState::Idle);
    soon(channels.touch(harness.addr, Lane::Raft)).await.unwrap();
    assert_eq!(*state.borrow(), ConnectionState::Connected);
    let started = harness.env.clock.instant();
    harness.server.cancel();
    let refused = ConnectionState::Closed { refused: true };
    soon(state.wait_for(|state| *state == refused)).await.unwrap();
    let took = harness.env.clock.instant().since(started);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_dropped_connection_is_no_refusal() {
    let limits = Limits { sweep: Duration::from_millis(20), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let channels = harness.channels(&harness.identity(2, Role::Manager));
    soon(channels.touch(harness.addr, Lane::Raft)).await.unwrap();
    let mut state = channels.connection(harness.addr, Lane::Raft);
    harness.roster.removed.lock().unwrap().insert(node(2));
    let closed = ConnectionState::Closed { refused: false };
    soon(state.wait_for(|state| *state == closed)).await.unwrap();
    harness.env.clock.sleep(Duration::from_millis(400)).await;
    assert_eq!(*state.borrow(), closed);
    harness.roster.removed.lock().unwrap().clear();
    soon(channels.touch(harness.addr, Lane::Raft)).await.unwrap();
    assert_eq!(*state.borrow(), ConnectionState::Connected);
}
