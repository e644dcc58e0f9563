//! The cluster's certificate authority: its root, and what it signs.
//!
//! The authority decides everything a certificate says. Of a request it takes the public key alone:
//! subject, names, usages and the CA bit that a request may carry are thrown away.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::{IdentityError, NodeIdentity, node_id_of, role_name};
use crate::domain::cluster::{Authority, RootRotation};
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, ClusterId, NodeId, Timestamp};
use crate::env::seal;

/// Shortest validity of a node's certificate (Docker's).
pub const VALIDITY_MIN: Duration = Duration::from_secs(3600);
/// Validity of the root: 20 years.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Certificates are valid from a little before they are made, for nodes whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Largest certificate request that is looked at, in bytes.
pub const REQUEST_MAX: usize = 4096;

/// Makes a root for a new cluster.
///
/// # Errors
/// When there is no randomness for the key.
pub fn create(cluster: ClusterId, now: Timestamp) -> Result<Authority, IdentityError> {
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let root = root_params(cluster, now)?.self_signed(&key).map_err(|error| failed(&error))?;
    Ok(of(&root, &key))
}

/// Makes a root that is to follow the cluster's, and signs it with the cluster's, so that who trusts
/// only the old one believes what the next one signs.
///
/// # Errors
/// When there is no randomness for the key, or the cluster's authority is damaged.
pub fn succeed(cluster: &Cluster, now: Timestamp) -> Result<RootRotation, IdentityError> {
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let root = root_params(cluster.id, now)?.self_signed(&key).map_err(|error| failed(&error))?;
    let issuer = issuer(&cluster.authority)?;
    let mut params = root_params(cluster.id, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let cross = params.signed_by(&key, &issuer).map_err(|error| failed(&error))?;
    Ok(RootRotation { next: of(&root, &key), cross_pem: cross.pem() })
}

fn of(root: &rcgen::Certificate, key: &KeyPair) -> Authority {
    Authority { root_pem: root.pem(), key_pem: Sensitive::new(key.serialize_pem().as_bytes()) }
}

/// What a root says. It may sign nodes and, when it is replaced, its successor.
fn root_params(cluster: ClusterId, now: Timestamp) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "swarm-ca");
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(earlier(now, BACKDATED))?;
    params.not_after = date(now.after(ROOT_VALIDITY))?;
    Ok(params)
}

fn issuer(authority: &Authority) -> Result<Issuer<'static, KeyPair>, IdentityError> {
    let key = std::str::from_utf8(authority.key_pem.expose())
        .map_err(|_| IdentityError::Authority("the key is not PEM".to_owned()))?;
    let key = KeyPair::from_pem(key).map_err(|error| failed(&error))?;
    Issuer::from_ca_cert_pem(&authority.root_pem, key).map_err(|error| failed(&error))
}

fn failed(error: &rcgen::Error) -> IdentityError {
    IdentityError::Authority(error.to_string())
}

/// A certificate request whose sender has proven to have the key.
pub struct Request {
    csr: CertificateSigningRequestParams,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({})", self.node_id())
    }
}

impl Request {
    /// Reads a request, at most [`REQUEST_MAX`] bytes, and checks the proof of possession.
    ///
    /// # Errors
    /// When it is too large, malformed, or signed by another key.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        if pem.len() > REQUEST_MAX {
            return Err(IdentityError::Request(format!("it is larger than {REQUEST_MAX} bytes")));
        }
        let csr = CertificateSigningRequestParams::from_pem(pem)
            .map_err(|error| IdentityError::Request(error.to_string()))?;
        Ok(Self { csr })
    }

    /// The id of a node that enrols with this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        node_id_of(self.csr.public_key.der_bytes())
    }
}

/// Signs a certificate that is valid for `validity` (at least [`VALIDITY_MIN`]) from now on, PEM.
///
/// # Errors
/// When the authority's certificate or key is damaged.
pub fn sign(
    authority: &Authority,
    request: Request,
    identity: NodeIdentity,
    now: Timestamp,
    validity: Duration,
) -> Result<String, IdentityError> {
    let failed = |error: rcgen::Error| failed(&error);
    let issuer = issuer(authority)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, identity.node.to_string());
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, role_name(identity.role).to_owned());
    params.distinguished_name.push(DnType::OrganizationName, identity.cluster.to_string());
    params.subject_alt_names = vec![
        SanType::DnsName(identity.node.to_string().try_into().map_err(failed)?),
        SanType::DnsName(role_name(identity.role).try_into().map_err(failed)?),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(earlier(now, BACKDATED))?;
    params.not_after = date(now.after(validity.max(VALIDITY_MIN)))?;
    let mut csr = request.csr;
    csr.params = params;
    csr.signed_by(&issuer).map(|certificate| certificate.pem()).map_err(failed)
}

/// What a cluster gives to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The node's certificate and, while the root is rotated, the next root's as the old one signed
    /// it, PEM.
    pub certificate_pem: String,
    /// The roots that the node is to trust, PEM.
    pub root_pem: String,
}

/// Signs a certificate as a cluster does now, for as long as its spec says.
///
/// # Errors
/// When the cluster's authority is damaged.
pub fn issue(
    cluster: &Cluster,
    request: Request,
    identity: NodeIdentity,
    now: Timestamp,
) -> Result<Issued, IdentityError> {
    let validity = cluster.spec.ca.node_cert_expiry.duration();
    let mut certificate_pem = sign(cluster.issuer(), request, identity, now, validity)?;
    if let Some(rotation) = &cluster.trust.rotation {
        certificate_pem = format!("{}\n{}", certificate_pem.trim_end(), rotation.cross_pem);
    }
    Ok(Issued { certificate_pem, root_pem: cluster.roots_pem() })
}

/// The SHA-256 digest of all root certificates of a PEM text, in their order. Of a single one it is
/// [`digest`].
///
/// # Errors
/// When there is none.
pub fn trust_digest(roots_pem: &str) -> Result<[u8; 32], IdentityError> {
    let mut hasher = seal::Hasher::new();
    for root in certificates(roots_pem)? {
        hasher.update(&root);
    }
    Ok(hasher.finish())
}

/// All certificates of a PEM text; at least one.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match parsed {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(IdentityError::Authority("no PEM certificate".to_owned())),
        Err(error) => Err(IdentityError::Authority(format!("no PEM certificate: {error}"))),
    }
}

/// The SHA-256 digest of a root certificate, as join tokens carry it.
///
/// # Errors
/// When the text is not a PEM certificate.
pub fn digest(root_pem: &str) -> Result<[u8; 32], IdentityError> {
    let der = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|error| IdentityError::Authority(format!("no PEM certificate: {error}")))?;
    Ok(seal::digest(&der))
}

fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

fn date(at: Timestamp) -> Result<OffsetDateTime, IdentityError> {
    let seconds = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|error| IdentityError::Authority(error.to_string()))
}
