//! A root on its way to another: every pair of nodes that can be alive at one time believes each
//! other, both as server and as client (I30), and no pair that cannot.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::domain::cluster::{Authority, Trust};
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, base64};
use crate::env::seal::SealKey;
use crate::env::{Clock, Env};
use crate::state::fixtures;

fn clock() -> Arc<dyn Clock> {
    Env::system().clock
}

fn first() -> Cluster {
    let id = ClusterId::from_bytes([1; 16]);
    let authority = authority::create(id, clock().now()).unwrap();
    Cluster { id, authority, ..fixtures::cluster() }
}

/// The cluster after a user asked for another root.
fn rotating(from: &Cluster) -> Cluster {
    let rotation = Some(authority::succeed(from, clock().now()).unwrap());
    let generation = from.trust.generation + 1;
    Cluster { trust: Trust { generation, rotation }, ..from.clone() }
}

/// The cluster after all nodes have confirmed.
fn switched(from: &Cluster) -> Cluster {
    let trust = Trust { generation: from.trust.generation + 1, rotation: None };
    Cluster { authority: from.issuer().clone(), trust, ..from.clone() }
}

fn member(cluster: &Cluster) -> Identity {
    credentials(cluster).identity(&clock()).unwrap()
}

fn credentials(cluster: &Cluster) -> Credentials {
    enlist(cluster, None, clock().now()).unwrap().1
}

/// Whether two nodes get through a handshake in which both show their certificates.
fn meet(client: &Identity, server: &Identity) -> Result<(), String> {
    let mut client =
        ClientConnection::new(Arc::clone(&client.client), manager_name().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&server.server)).unwrap();
    for _ in 0..10 {
        pump(|to| client.write_tls(to), |from| server.read_tls(from));
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        pump(|to| server.write_tls(to), |from| client.read_tls(from));
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    if client.is_handshaking() || server.is_handshaking() {
        return Err("the handshake does not end".to_owned());
    }
    let shown = server.peer_certificates().map(<[_]>::len);
    shown.map(|_| ()).ok_or_else(|| "the client has not shown who it is".to_owned())
}

fn pump(
    mut write: impl FnMut(&mut dyn io::Write) -> io::Result<usize>,
    mut read: impl FnMut(&mut dyn io::Read) -> io::Result<usize>,
) {
    let mut bytes = Vec::new();
    while write(&mut bytes).unwrap() > 0 {}
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        read(&mut bytes).unwrap();
    }
}

fn all_meet(stage: &str, nodes: &[(&str, &Identity)]) {
    for (client_name, client) in nodes {
        for (server_name, server) in nodes {
            let met = meet(client, server);
            assert!(met.is_ok(), "{stage}: {client_name} to {server_name}: {met:?}");
        }
    }
}

#[test]
fn all_pairs_that_live_at_one_time_believe_each_other() {
    let a = first();
    let (b, other) = (rotating(&a), rotating(&a));
    let c = switched(&other);
    let d = rotating(&c);
    let [in_a, in_b, in_other, in_c, in_d] = [&a, &b, &other, &c, &d].map(member);
    let (old, rotated, replaced) = (("old", &in_a), ("rotated", &in_b), ("replaced", &in_other));
    let (new, second) = (("new", &in_c), ("second", &in_d));
    all_meet("one rotation", &[old, rotated]);
    all_meet("a second one midway", &[old, rotated, replaced]);
    all_meet("switched, not all renewed", &[replaced, new]);
    all_meet("the next rotation, with one that forgot nothing yet", &[replaced, new, second]);
}

#[test]
fn who_missed_a_switch_is_believed_by_nobody() {
    let a = first();
    let (b, other) = (rotating(&a), rotating(&a));
    let c = switched(&other);
    // This is why every node must have confirmed before the switch.
    for missed in [&a, &b] {
        let (missed, new) = (member(missed), member(&c));
        assert!(meet(&missed, &new).is_err());
        assert!(meet(&new, &missed).is_err());
    }
    // After the next one nobody believes what the first root signed, either.
    let e = switched(&rotating(&c));
    assert!(meet(&member(&a), &member(&e)).is_err());
    assert!(meet(&member(&e), &member(&a)).is_err());
}

#[test]
fn a_root_of_a_release_that_did_not_know_rotation_can_be_rotated() {
    // Those roots say that no authority may stand below them; who trusts a root does not look there.
    let (_, root, key) = old_root();
    let authority = Authority { root_pem: root, key_pem: Sensitive::new(key.as_bytes()) };
    let a = Cluster { authority, ..first() };
    let b = rotating(&a);
    all_meet("from an old root", &[("old", &member(&a)), ("rotated", &member(&b))]);
}

fn old_root() -> (ClusterId, String, String) {
    let id = ClusterId::from_bytes([1; 16]);
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "swarm-ca");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, id.to_string());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    (id, root.pem(), key.serialize_pem())
}

#[test]
fn connections_of_a_root_that_is_gone_are_told_from_others() {
    let a = first();
    let b = rotating(&a);
    let c = switched(&b);
    let chain = |of: &Cluster| authority::certificates(&credentials(of).certificate_pem).unwrap();
    let (now, new) = (clock().now(), member(&c));
    assert!(!new.knows(&chain(&a), now), "signed by the old root");
    assert!(new.knows(&chain(&b), now) && new.knows(&chain(&c), now));
    assert!(new.knows(&chain(&c), now.after(Duration::from_secs(400 * 86_400))), "only expired");
    assert!(member(&b).knows(&chain(&a), now), "while it is rotated");
    assert!(!new.knows(&[], now));
}

#[test]
fn a_token_of_the_old_root_is_refused_after_the_switch_only() {
    let a = first();
    let b = rotating(&a);
    let token = token::make(&a, Role::Worker).unwrap();
    assert_eq!(token::make(&b, Role::Worker).unwrap(), token);
    assert_eq!(token::verify(&b, &token), Ok(Role::Worker));
    let c = switched(&b);
    assert_ne!(token::make(&c, Role::Worker).unwrap(), token);
    let error = token::verify(&c, &token).unwrap_err().to_string();
    assert!(error.contains("from before this swarm's root certificate was rotated"), "{error}");
}

#[test]
fn credentials_with_a_chain_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("certificates").join("swarm-node.pem");
    let a = first();
    let b = rotating(&a);
    for cluster in [&a, &b, &switched(&b)] {
        for keeping in [Keeping::Plain, Keeping::Sealed] {
            let place = CertificateDir::new(dir.path());
            place.hold(SealKey::new(&[7; 32]), keeping);
            let given = credentials(cluster);
            place.save(&given).unwrap();
            let found = place.load().unwrap().unwrap();
            found.identity(&clock()).unwrap();
            let count = |pem: &str| pem.matches("BEGIN CERTIFICATE").count();
            assert_eq!(count(&found.certificate_pem), count(&given.certificate_pem));
            assert_eq!(count(&found.root_pem), count(&given.root_pem));
            assert_eq!(
                authority::trust_digest(&found.root_pem),
                authority::trust_digest(&cluster.roots_pem())
            );
            assert_eq!(place.keeping().unwrap(), Some(keeping));
            let text = std::fs::read_to_string(&file).unwrap();
            let rotates = cluster.trust.rotation.is_some();
            assert_eq!(text.contains("# Trusted roots"), rotates, "otherwise as ever:\n{text}");
        }
    }
}

#[test]
fn a_chain_with_a_stranger_in_it_is_refused() {
    let a = first();
    let mut mixed = credentials(&rotating(&a));
    let stranger = credentials(&rotating(&a));
    let cross = stranger.certificate_pem.split_once("-----END CERTIFICATE-----\n").unwrap().1;
    let leaf = mixed.certificate_pem.split_once("-----END CERTIFICATE-----\n").unwrap().0;
    mixed.certificate_pem = format!("{leaf}-----END CERTIFICATE-----\n{cross}");
    mixed.root_pem.clone_from(&a.authority.root_pem);
    let error = mixed.identity(&clock()).unwrap_err();
    assert!(matches!(error, IdentityError::Mismatch(_)), "{error}");
    mixed.root_pem = base64::encode(b"no root");
    assert!(mixed.identity(&clock()).is_err());
}
