//! The port under garbage, idle connections, and the removal of nodes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::identity::unverified;

#[tokio::test]
async fn garbage_is_dropped_and_others_are_served() {
    let harness = Harness::start(Limits::default()).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"\x16\x03\x01\x40\x00"] {
        let mut tcp = TcpStream::connect(harness.addr).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed, with an alert at most.
        drop(soon(tcp.read_to_end(&mut answer)).await);
        assert!(answer.len() < 64);
    }
    let link = harness.link(&harness.identity(1, Role::Worker));
    soon(link.open(harness.addr)).await.unwrap();
}

#[tokio::test]
async fn two_thousand_idle_connections_hold_nobody_up() {
    let harness = Harness::start(Limits::default()).await;
    let mut idle = Vec::new();
    for _ in 0..2_000 {
        match TcpStream::connect(harness.addr).await {
            Ok(tcp) => idle.push(tcp),
            // The test's own bound of open files.
            Err(_) => break,
        }
        if idle.len() % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(idle.len() > 300, "more than one address may have");
    let channels = harness.channels(&harness.identity(1, Role::Worker));
    let started = harness.env.clock.instant();
    soon(channels.touch(harness.addr, Lane::Control)).await.unwrap();
    let took = harness.env.clock.instant().since(started);
    assert!(took < Duration::from_secs(2), "{took:?}");
    // The oldest had to go.
    let mut byte = [0];
    assert_eq!(soon(idle[0].read(&mut byte)).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn slow_handshakes_end() {
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let mut tcp = TcpStream::connect(harness.addr).await.unwrap();
    let mut byte = [0];
    assert_eq!(soon(tcp.read(&mut byte)).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn connections_without_a_certificate_are_few_and_short() {
    let limits =
        Limits { anonymous: 3, anonymous_age: Duration::from_millis(500), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let config = unverified(&harness.env.clock).unwrap().client;
    let mut held = Vec::new();
    for _ in 0..5 {
        let tls = super::super::dial::connect(harness.addr, config.clone(), &harness.env).await;
        held.push(tls.unwrap());
    }
    // Two had to go for the later ones at once, the rest when their time was over.
    for tls in &mut held {
        let mut bytes = Vec::new();
        drop(soon(tls.read_to_end(&mut bytes)).await);
    }
}

#[tokio::test]
async fn removal_ends_open_sessions() {
    let limits = Limits { sweep: Duration::from_millis(50), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let link = harness.link(&harness.identity(1, Role::Worker));
    let mut session = soon(link.open(harness.addr)).await.unwrap();
    session.outgoing.send(AgentMessage::default()).await.unwrap();
    soon(session.incoming.recv()).await.unwrap().unwrap();
    harness.roster.removed.lock().unwrap().insert(node(1));
    let last = soon(session.incoming.recv()).await;
    assert!(matches!(last, Some(Err(LinkError::Closed { .. })) | None), "{last:?}");
    // Whichever way the refusal comes, it says that the node was removed, unless the connection is
    // cut again before it comes.
    for _ in 0..50 {
        let again = match soon(link.open(harness.addr)).await {
            Ok(mut session) => soon(session.incoming.recv()).await.map(Result::unwrap_err),
            Err(error) => Some(error),
        };
        if again == Some(LinkError::Removed) {
            return;
        }
    }
    panic!("the node never learns that it was removed");
}

/// A manager's open stream, answered once.
async fn open_stream(harness: &Harness, number: u8, role: Role) -> (GrpcLink, SessionLink) {
    let link = harness.link(&harness.identity(number, role));
    let mut session = soon(link.open(harness.addr)).await.unwrap();
    session.outgoing.send(AgentMessage::default()).await.unwrap();
    soon(session.incoming.recv()).await.unwrap().unwrap();
    (link, session)
}

#[tokio::test]
async fn what_a_demoted_manager_opened_as_a_manager_is_closed() {
    let limits = Limits { sweep: Duration::from_millis(50), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let (_link, mut session) = open_stream(&harness, 1, Role::Manager).await;
    let (_other, mut bystander) = open_stream(&harness, 2, Role::Manager).await;
    harness.roster.demoted.lock().unwrap().insert(node(1));
    let last = soon(session.incoming.recv()).await;
    assert!(matches!(last, Some(Err(LinkError::Closed { .. })) | None), "{last:?}");
    // With its new certificate it is a worker like any other, whatever it was.
    let (_again, mut worker) = open_stream(&harness, 1, Role::Worker).await;
    harness.env.clock.sleep(Duration::from_millis(300)).await;
    for session in [&mut worker, &mut bystander] {
        session.outgoing.send(AgentMessage::default()).await.unwrap();
        soon(session.incoming.recv()).await.unwrap().unwrap();
    }
}
