//! Every RPC of `proto/` × every kind of identity.

use tonic::Code;
use tonic_prost::ProstCodec;

use super::*;
use crate::identity::{PERMITTED, permitted};

fn rpcs() -> Vec<String> {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let set = protox::compile(["manager.proto", "node.proto"], [proto]).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths.sort();
    paths
}

#[test]
fn the_table_has_exactly_the_calls_of_the_protocol() {
    let mut table: Vec<_> = PERMITTED.iter().map(|(path, _)| (*path).to_owned()).collect();
    table.sort();
    assert_eq!(table, rpcs());
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Nobody,
    Worker,
    Manager,
    DemotedManager,
    RemovedWorker,
    RemovedManager,
    OtherClustersName,
    OtherRoot,
    Expired,
}

const CALLERS: [Caller; 9] = [
    Caller::Nobody,
    Caller::Worker,
    Caller::Manager,
    Caller::DemotedManager,
    Caller::RemovedWorker,
    Caller::RemovedManager,
    Caller::OtherClustersName,
    Caller::OtherRoot,
    Caller::Expired,
];

/// What must come of it; `None`: the gate lets it through.
fn expected(caller: Caller, requirement: Option<Requirement>) -> Option<Code> {
    let is_manager_call = matches!(requirement, Some(Requirement::Manager | Requirement::Peer));
    match (caller, requirement) {
        // No handshake, so no call of any kind.
        (Caller::OtherRoot | Caller::Expired, _) => Some(Code::Unavailable),
        (Caller::OtherClustersName, _) | (_, None) => Some(Code::PermissionDenied),
        (_, Some(Requirement::Anyone)) => None,
        (Caller::Nobody, _) => Some(Code::Unauthenticated),
        (Caller::Worker | Caller::RemovedWorker, _) if is_manager_call => {
            Some(Code::PermissionDenied)
        }
        (Caller::DemotedManager, _) if is_manager_call => Some(Code::PermissionDenied),
        (Caller::RemovedWorker | Caller::RemovedManager, _) => Some(Code::NotFound),
        (Caller::Worker | Caller::Manager | Caller::DemotedManager, _) => None,
    }
}

/// The channel of a caller, past all of its own checks.
async fn channel(harness: &Harness, caller: Caller) -> tonic::transport::Channel {
    let now = harness.env.clock.now();
    let member = |number, role| harness.identity(number, role).current().client.clone();
    let cluster = harness.cluster.lock().unwrap().clone();
    let config = match caller {
        Caller::Nobody => {
            crate::identity::pinned(&cluster.authority.root_pem, &harness.env.clock).unwrap().client
        }
        Caller::Worker => member(1, Role::Worker),
        Caller::Manager => member(2, Role::Manager),
        Caller::DemotedManager => member(3, Role::Manager),
        Caller::RemovedWorker => member(4, Role::Worker),
        Caller::RemovedManager => member(5, Role::Manager),
        Caller::OtherClustersName => {
            let cluster = ClusterId::from_bytes([9; 16]);
            let of = NodeIdentity { cluster, ..harness.member(2, Role::Manager) };
            harness.shared(of).current().client.clone()
        }
        Caller::OtherRoot => {
            // The same names, signed by another root, yet it trusts ours.
            let other = new_cluster(1, now);
            let mut parts = credentials(&other, harness.member(2, Role::Manager), now);
            let theirs = parts.identity(&harness.env.clock).unwrap();
            parts.root_pem = cluster.authority.root_pem;
            client_of(&parts, &theirs, &harness.env.clock)
        }
        Caller::Expired => {
            let long_ago = Timestamp(now.0 - 100 * 24 * 3600 * 1_000_000_000);
            credentials(&cluster, harness.member(2, Role::Manager), long_ago)
                .identity(&harness.env.clock)
                .unwrap()
                .client
                .clone()
        }
    };
    let (addr, env) = (harness.addr, harness.env.clone());
    super::super::endpoint().connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let (config, env) = (Arc::clone(&config), env.clone());
        async move {
            let tls = super::super::dial::connect(addr, config, &env).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tls))
        }
    }))
}

/// A client that shows one cluster's certificate and trusts another cluster's root.
fn client_of(
    parts: &Credentials,
    theirs: &crate::identity::Identity,
    clock: &Arc<dyn Clock>,
) -> crate::identity::ClientTls {
    let trusting = crate::identity::pinned(&parts.root_pem, clock).unwrap().client;
    let mut config = (*trusting).clone();
    config.client_auth_cert_resolver = theirs.client.client_auth_cert_resolver.clone();
    Arc::new(config)
}

#[tokio::test]
async fn every_call_by_everybody() {
    let harness = Harness::start(Limits::default()).await;
    harness.roster.removed.lock().unwrap().extend([node(4), node(5)]);
    harness.roster.demoted.lock().unwrap().insert(node(3));
    let mut paths = rpcs();
    paths.push("/swarm.node.v1.Dispatcher/NoSuchCall".to_owned());
    paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    let mut wrong = Vec::new();
    for caller in CALLERS {
        let channel = channel(&harness, caller).await;
        for path in &paths {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            soon(grpc.ready()).await.unwrap();
            let uri = path.parse().unwrap();
            let codec = ProstCodec::<RootCertificateRequest, RootCertificateReply>::default();
            let call = grpc.unary(Request::new(RootCertificateRequest {}), uri, codec);
            let code = soon(call).await.map_or_else(|status| status.code(), |_| Code::Ok);
            let expected = expected(caller, permitted(path));
            // A handler that is reached answers in its own way: that there is none (of those that
            // the test does not serve), that the message is empty, or with success.
            let gate = [Code::PermissionDenied, Code::Unauthenticated, Code::NotFound];
            let is_right = match expected {
                None => !gate.contains(&code) && code != Code::Unavailable,
                // The connection breaks in the handshake; which words h2 finds for it varies.
                Some(Code::Unavailable) => {
                    matches!(
                        code,
                        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
                    )
                }
                Some(refusal) => code == refusal,
            };
            if !is_right {
                wrong.push(format!("{caller:?} {path}: {code:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
