//! Identity without a network: names in certificates, what the authority ignores, tokens, files.

use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use super::*;
use crate::domain::cluster::{AddressPool, Authority, ClusterSpec};
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, Meta, NetworkId};
use crate::env::{Clock, Env};

const DAY: Duration = Duration::from_secs(24 * 3600);
const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

fn cluster(number: u8) -> Cluster {
    let id = ClusterId::from_bytes([number; 16]);
    Cluster {
        id,
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        authority: authority::create(id, NOW).unwrap(),
        token_key: Sensitive::new(&[number; 32]),
        worker_token: 1,
        manager_token: 1,
        pool: AddressPool { base: [10, 0, 0, 0].into(), prefix: 8, subnet_size: 24 },
        default_network: NetworkId::from_bytes([1; 16]),
        data_path_port: 4789,
        format: crate::domain::Format::FIRST,
        autolock: crate::domain::Autolock::default(),
        trust: crate::domain::cluster::Trust::default(),
    }
}

fn issue(authority: &Authority, identity: NodeIdentity) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let request = authority::Request::from_pem(&key.request().unwrap()).unwrap();
    assert_eq!(request.node_id(), key.node_id());
    let certificate_pem = authority::sign(authority, request, identity, NOW, 90 * DAY).unwrap();
    Credentials { key_pem: key.pem(), certificate_pem, root_pem: authority.root_pem.clone() }
}

fn worker(cluster: &Cluster) -> NodeIdentity {
    NodeIdentity { cluster: cluster.id, node: NodeId::from_bytes([7; 16]), role: Role::Worker }
}

fn clock() -> Arc<dyn Clock> {
    Env::system().clock
}

#[test]
fn a_certificate_out_of_time_leads_to_the_clock_before_anything_else() {
    let credentials = issue(&cluster(1).authority, worker(&cluster(1)));
    let certificate = credentials.certificate().unwrap();
    certificate.in_time(NOW).unwrap();
    let (early, late) = (Timestamp(NOW.0 - 1_000_000_000 * 86_400), NOW.after(91 * DAY));
    for (now, what) in [(early, "not valid before 2027-01-15T07:00:00Z"), (late, "expired at 2027")]
    {
        let told = certificate.in_time(now).unwrap_err().to_string();
        assert!(told.contains(what), "{told}");
        assert!(told.contains(&format!("this machine says {}", now.brief())), "{told}");
        let [clock, leave] = ["`date`", "swarm leave --force"].map(|words| told.find(words));
        assert!(clock.is_some() && clock < leave, "{told}");
    }
    let time = |at: Timestamp| UnixTime::since_unix_epoch(Duration::from_nanos(at.0));
    let expired = CertificateError::ExpiredContext { time: time(late), not_after: time(NOW) };
    let early = CertificateError::NotValidYetContext { time: time(early), not_before: time(NOW) };
    let handshake = |wrong| {
        let error = rustls::Error::InvalidCertificate(wrong);
        explain(&std::io::Error::new(std::io::ErrorKind::InvalidData, error))
    };
    for (wrong, what) in [(expired, "expired at"), (early, "is not valid before")] {
        let told = handshake(wrong);
        assert!(told.contains(&format!("{what} {}", NOW.brief())), "{told}");
        assert!(told.contains("the clock of this machine says 2027-"), "{told}");
        assert!(told.contains("compare `date`"), "{told}");
    }
    assert!(handshake(CertificateError::Expired).contains("compare `date`"));
}

#[test]
fn certificates_say_who_and_how_long() {
    let cluster = cluster(1);
    let certificate = issue(&cluster.authority, worker(&cluster)).certificate().unwrap();
    assert_eq!(certificate.identity, worker(&cluster));
    assert_eq!(certificate.not_after, NOW.after(90 * DAY));
    assert_eq!(NOW.since(certificate.not_before), Duration::from_secs(3600));
    assert!(!certificate.expired(NOW.after(89 * DAY)));
    assert!(certificate.expired(NOW.after(91 * DAY)));
}

#[test]
fn the_root_is_not_a_node() {
    let error = Certificate::from_pem(&cluster(1).authority.root_pem).unwrap_err();
    assert!(error.to_string().contains("common name"), "{error}");
    assert!(Certificate::from_pem("garbage").is_err());
}

#[test]
fn each_name_must_occur_exactly_once() {
    use rcgen::DnType;
    let certificate = |change: &dyn Fn(&mut rcgen::DistinguishedName)| {
        let id = NodeId::from_bytes([7; 16]).to_string();
        let mut name = rcgen::DistinguishedName::new();
        name.push(DnType::CommonName, id.clone());
        name.push(DnType::OrganizationalUnitName, "swarm-worker");
        name.push(DnType::OrganizationName, id);
        change(&mut name);
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = name;
        let key = rcgen::KeyPair::generate().unwrap();
        Certificate::from_pem(&params.self_signed(&key).unwrap().pem())
    };
    assert!(certificate(&|_| {}).is_ok());
    let kinds = [
        (DnType::CommonName, 3, "0000000000000000000000001"),
        (DnType::OrganizationalUnitName, 11, "swarm-manager"),
        (DnType::OrganizationName, 10, "0000000000000000000000001"),
    ];
    for (kind, oid, second) in kinds {
        let missing = certificate(&|name| assert!(name.remove(kind.clone())));
        assert!(missing.is_err(), "no {kind:?}");
        let doubled =
            certificate(&|name| name.push(DnType::CustomDnType(vec![2, 5, 4, oid]), second));
        assert!(doubled.is_err(), "two of {kind:?}");
    }
}

#[test]
fn the_authority_takes_only_the_key_of_a_request() {
    let cluster = cluster(1);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "swarm-manager");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = authority::Request::from_pem(&pem).unwrap();
    let signed = authority::sign(&cluster.authority, request, worker(&cluster), NOW, DAY).unwrap();
    let certificate = Certificate::from_pem(&signed).unwrap();
    assert_eq!(certificate.identity, worker(&cluster));
    let (_, x509) = x509_parser::parse_x509_certificate(&certificate.der).unwrap();
    assert!(!x509.is_ca());
    assert!(!x509.key_usage().unwrap().unwrap().value.key_cert_sign());
    let names = format!("{:?}", x509.subject_alternative_name().unwrap().unwrap().value);
    assert!(names.contains("swarm-worker") && !names.contains("swarm-manager"), "{names}");
}

#[test]
fn a_request_without_its_key_is_refused() {
    let pem = NodeKey::generate().unwrap().request().unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    // Flip a letter in the signature at the end of the DER.
    let at = body.len() - 12;
    let flipped = if &body[at..=at] == "A" { "B" } else { "A" };
    let broken = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}{flipped}{}\n-----END CERTIFICATE REQUEST-----\n",
        &body[..at],
        &body[at + 1..]
    );
    assert!(authority::Request::from_pem(&broken).is_err());
    assert!(
        authority::Request::from_pem(&"x".repeat(5000)).unwrap_err().to_string().contains("4096")
    );
}

#[test]
fn short_validity_is_lengthened() {
    let cluster = cluster(1);
    let key = NodeKey::generate().unwrap();
    let request = authority::Request::from_pem(&key.request().unwrap()).unwrap();
    let identity = worker(&cluster);
    let pem = authority::sign(&cluster.authority, request, identity, NOW, Duration::ZERO).unwrap();
    assert_eq!(Certificate::from_pem(&pem).unwrap().not_after, NOW.after(authority::VALIDITY_MIN));
}

#[test]
fn parts_of_different_nodes_or_clusters_do_not_fit() {
    let (one, two) = (cluster(1), cluster(2));
    let good = issue(&one.authority, worker(&one));
    good.identity(&clock()).unwrap();
    let other_key = Credentials { key_pem: NodeKey::generate().unwrap().pem(), ..good.clone() };
    assert!(matches!(other_key.identity(&clock()), Err(IdentityError::Mismatch(_))));
    let other_root = Credentials { root_pem: two.authority.root_pem, ..good };
    assert!(matches!(other_root.identity(&clock()), Err(IdentityError::Mismatch(_))));
}

#[test]
fn credentials_lie_in_one_private_file() {
    let cluster = cluster(1);
    let dir = tempfile::tempdir().unwrap();
    let store = CertificateDir::new(dir.path());
    assert_eq!(store.load().unwrap(), None);
    let first = issue(&cluster.authority, worker(&cluster));
    store.save(&first).unwrap();
    let loaded = store.load().unwrap().unwrap();
    assert_eq!(loaded.certificate().unwrap(), first.certificate().unwrap());
    loaded.identity(&clock()).unwrap();
    store.save(&loaded).unwrap();
    assert_eq!(store.load().unwrap().unwrap(), loaded);
    std::fs::write(dir.path().join("certificates/swarm-node.pem"), "half").unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.contains("swarm-node.pem") && error.contains("damaged"), "{error}");
    store.remove().unwrap();
    assert_eq!(store.load().unwrap(), None);
}

#[test]
fn a_sealed_private_key_is_read_by_its_key_alone() {
    use crate::env::seal::SealKey;
    let cluster = cluster(1);
    let dir = tempfile::tempdir().unwrap();
    let store = CertificateDir::new(dir.path());
    let plain = issue(&cluster.authority, worker(&cluster));
    store.save(&plain).unwrap();
    assert!(store.keep(Keeping::Sealed).is_err(), "nothing to seal with");
    assert_eq!(store.keeping().unwrap(), Some(Keeping::Plain));

    store.hold(SealKey::new(&[1; 32]), Keeping::Plain);
    store.keep(Keeping::Sealed).unwrap();
    let path = dir.path().join("certificates/swarm-node.pem");
    let file = std::fs::read(&path).unwrap();
    let secret = plain.key_pem.expose();
    let body = &secret[30..60];
    assert!(!file.windows(body.len()).any(|window| window == body));
    let loaded = store.load().unwrap().unwrap();
    assert_eq!(loaded.key_pem.expose().trim_ascii(), secret.trim_ascii());
    loaded.identity(&clock()).unwrap();

    // Another process: without the key, with another one, with the right one.
    let other = CertificateDir::new(dir.path());
    assert!(other.load().unwrap_err().to_string().contains("sealed"));
    other.hold(SealKey::new(&[2; 32]), Keeping::Sealed);
    assert!(other.load().unwrap_err().to_string().contains("another raft.key"));
    assert!(other.keep(Keeping::Plain).is_err(), "what cannot be opened stays as it is");
    assert_eq!(std::fs::read(&path).unwrap(), file);
    other.hold(SealKey::new(&[1; 32]), Keeping::Sealed);
    let renewed = issue(&cluster.authority, worker(&cluster));
    other.save(&renewed).unwrap();
    assert_eq!(other.keeping().unwrap(), Some(Keeping::Sealed), "a renewal is sealed, too");
    other.keep(Keeping::Plain).unwrap();
    let read = CertificateDir::new(dir.path()).load().unwrap().unwrap();
    assert_eq!(read.certificate_pem.trim(), renewed.certificate_pem.trim());
}

#[test]
fn tokens_have_dockers_shape_and_admit_to_their_role() {
    let cluster = cluster(1);
    for role in [Role::Worker, Role::Manager] {
        let text = token::make(&cluster, role).unwrap();
        assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
        assert_eq!(token::verify(&cluster, &text), Ok(role));
        assert_eq!(token::verify(&cluster, &format!(" {text}\n")), Ok(role));
        let parsed = token::parse(&text).unwrap();
        token::check_digest(&parsed, &cluster.authority.root_pem).unwrap();
    }
}

#[test]
fn rotation_invalidates_only_its_role() {
    let mut cluster = cluster(1);
    let worker = token::make(&cluster, Role::Worker).unwrap();
    let manager = token::make(&cluster, Role::Manager).unwrap();
    cluster.worker_token += 1;
    assert_eq!(token::verify(&cluster, &worker), Err(TokenError::Unknown));
    assert_eq!(token::verify(&cluster, &manager), Ok(Role::Manager));
    assert!(TokenError::Unknown.to_string().contains("invalid join token"));
}

#[test]
fn foreign_and_broken_tokens_say_so() {
    let one = cluster(1);
    let other = token::make(&cluster(2), Role::Worker).unwrap();
    let error = token::verify(&one, &other).unwrap_err().to_string();
    assert!(error.contains("remote CA does not match fingerprint. Expected: "), "{error}");
    let good = token::make(&one, Role::Worker).unwrap();
    let too_large = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
    for text in ["", "SWMTKN-1-", "SWMTKN-2-abc-def", &good[..80], &good.to_uppercase(), &too_large]
    {
        assert_eq!(token::parse(text), Err(TokenError::Malformed), "{text}");
    }
    assert!(!format!("{:?}", token::parse(&good)).contains(&good[60..]));
}

#[test]
fn a_founder_is_a_manager_of_its_own_cluster() {
    let id = ClusterId::from_bytes([3; 16]);
    let (authority, identity, credentials) = found(id, NOW, 90 * DAY).unwrap();
    assert_eq!((identity.cluster, identity.role), (id, Role::Manager));
    assert_eq!(credentials.certificate().unwrap().identity, identity);
    assert_eq!(credentials.root_pem, authority.root_pem);
    credentials.identity(&clock()).unwrap();
}

proptest::proptest! {
    /// What strangers send is never a panic, and never somebody else's key.
    #[test]
    fn damaged_requests_are_refused(at in 30usize..400, letter in "[A-Za-z0-9+/]") {
        let key = NodeKey::generate().unwrap();
        let mut pem = key.request().unwrap();
        let at = at.min(pem.len() - 40);
        if pem.as_bytes()[at] != b'\n' {
            pem.replace_range(at..=at, &letter);
        }
        if let Ok(request) = authority::Request::from_pem(&pem) {
            proptest::prop_assert_eq!(request.node_id(), key.node_id());
        }
        drop(Certificate::from_pem(&pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")));
    }

    #[test]
    fn parsing_never_panics(text in "(SWMTKN-1-)?[0-9a-zA-Z-]{0,90}") {
        drop(token::parse(&text));
    }
}
