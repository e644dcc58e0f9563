//! Joining: the good way and all the bad ones, with the words that people will read.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::domain::node::Availability;
use crate::identity::IdentityError;

fn enrolment(token: &str, managers: &[SocketAddr]) -> Enrolment {
    Enrolment {
        token: token.to_owned(),
        managers: managers.to_vec(),
        availability: Availability::Active,
    }
}

async fn error(harness: &Harness, token: &str, managers: &[SocketAddr]) -> String {
    soon(enroll(&harness.env, &enrolment(token, managers))).await.unwrap_err().to_string()
}

/// A port that nobody listens on.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_token_gives_its_role() {
    let harness = Harness::start(Limits::default()).await;
    for role in [Role::Worker, Role::Manager] {
        let managers = [closed_port().await, harness.addr];
        let enrolled =
            soon(enroll(&harness.env, &enrolment(&harness.token(role), &managers))).await.unwrap();
        assert_eq!(enrolled.identity.role, role);
        assert_eq!(enrolled.identity.cluster, ClusterId::from_bytes([1; 16]));
        assert_eq!(enrolled.managers, [harness.addr]);
        let identity =
            SharedIdentity::new(enrolled.credentials.identity(&harness.env.clock).unwrap());
        let link = harness.link(&identity);
        soon(link.open(harness.addr)).await.unwrap();
    }
}

#[tokio::test]
async fn wrong_tokens_are_told_apart() {
    let harness = Harness::start(Limits::default()).await;
    let good = harness.token(Role::Worker);
    let malformed = error(&harness, "SWMTKN-1-abc", &[harness.addr]).await;
    assert!(malformed.starts_with("invalid join token: it should look like"), "{malformed}");

    harness.cluster.lock().unwrap().worker_token += 1;
    let rotated = error(&harness, &good, &[harness.addr]).await;
    assert!(
        rotated.contains("refused: invalid join token: it was rotated or mistyped"),
        "{rotated}"
    );

    let other = token::make(&new_cluster(2, harness.env.clock.now()), Role::Worker).unwrap();
    let foreign = error(&harness, &other, &[harness.addr]).await;
    assert!(foreign.contains("remote CA does not match fingerprint. Expected: "), "{foreign}");
}

#[tokio::test]
async fn unreachable_managers_are_named_with_the_reason() {
    let harness = Harness::start(Limits::default()).await;
    let token = harness.token(Role::Worker);
    let closed = closed_port().await;
    let text = error(&harness, &token, &[closed]).await;
    let start = format!("could not reach a manager at {closed}: connection refused");
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains(&format!("port {}/tcp is open", closed.port())), "{text}");
    let nowhere = error(&harness, &token, &[]).await;
    assert!(nowhere.contains("address of a manager is needed"), "{nowhere}");
}

#[tokio::test]
async fn other_ports_are_recognised() {
    let harness = Harness::start(Limits::default()).await;
    let token = harness.token(Role::Worker);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = listener.local_addr().unwrap();
    harness.scope.spawn("http", async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            drop(tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let text = error(&harness, &token, &[http]).await;
    assert!(text.contains("does not speak TLS: is this the port of a swarm manager"), "{text}");
    // It was reached: nothing is wrong with the way there.
    assert!(text.starts_with(&format!("could not join: {http}: ")), "{text}");
    assert!(!text.contains("/tcp is open"), "{text}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = error(&harness, &token, &[silent.local_addr().unwrap()]).await;
    assert!(text.contains("does not answer: is this the port of a swarm manager?"), "{text}");
}

#[tokio::test]
async fn addresses_may_be_names_or_lack_the_port() {
    let local: SocketAddr = "127.0.0.1:2377".parse().unwrap();
    assert_eq!(resolve("127.0.0.1").await.unwrap(), [local]);
    assert_eq!(resolve("127.0.0.1:2377").await.unwrap(), [local]);
    assert!(resolve("localhost").await.unwrap().iter().all(|addr| addr.port() == 2377));
    assert!(resolve("no such host").await.is_err());
}

#[tokio::test]
async fn a_certificate_that_was_signed_by_a_wrong_clock_is_not_taken() {
    let harness = Harness::start(Limits::default()).await;
    let token = harness.token(Role::Worker);
    let identity = harness.identity(7, Role::Worker);
    let channels = harness.channels(&identity);
    let skewed = |seconds: i64| harness.skew.store(seconds, Ordering::SeqCst);
    for seconds in [2 * 3_600, -80 * 86_400, -100 * 86_400] {
        skewed(seconds);
        let told = error(&harness, &token, &[harness.addr]).await;
        assert!(told.starts_with(&format!("the manager at {} let", harness.addr)), "{told}");
        assert!(told.contains("compare `date` on the two machines"), "{told}");
        let renewed = renew_once(&identity, &channels, harness.addr, &harness.env);
        let refused = soon(renewed).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(refused, RenewError::Identity(IdentityError::Useless { .. })),
            "{seconds}: {refused}"
        );
    }
    for seconds in [0, 1_800, -10 * 86_400] {
        skewed(seconds);
        soon(enroll(&harness.env, &enrolment(&token, &[harness.addr]))).await.unwrap();
        soon(renew_once(&identity, &channels, harness.addr, &harness.env)).await.unwrap();
    }
}
